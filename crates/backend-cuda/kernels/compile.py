"""Compiles kernels to PTX with NVRTC: compile.py LIBNVRTC OUT ARCH... (in this folder; `cargo xtask kernels` calls it)."""
import ctypes, pathlib, sys

lib, out, *archs = sys.argv[1:]
nvrtc = ctypes.CDLL(lib)


def text(program, what):
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.value


for source in sorted(pathlib.Path(".").glob("*.cu")):
    for arch in archs:
        program = ctypes.c_void_p()
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
        options = [f"--gpu-architecture={arch}", "--std=c++17", "--fmad=false", "--include-path=."]
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
        log = text(program, "ProgramLog").decode().strip()
        if log:
            print(log)
        if failed:
            sys.exit(f"{source.name} does not compile for {arch}")
        folder = pathlib.Path(out) / arch
        folder.mkdir(parents=True, exist_ok=True)
        (folder / source.with_suffix(".ptx").name).write_bytes(text(program, "PTX"))
