"""Compiles ../kernels to PTX with NVRTC and records what was compiled: compile.py LIBNVRTC ARCHITECTURE...

`cargo xtask kernels` calls it, in this folder. The output is the same on every machine.
"""

import ctypes
import hashlib
import pathlib
import sys

lib, *architectures = sys.argv[1:]
nvrtc = ctypes.CDLL(lib)
kernels = pathlib.Path("../kernels").resolve()


def text(program, what):
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.value


def compile(source, architecture):
    program = ctypes.c_void_p()
    # Headers are given, not searched for: paths must not come into the output.
    headers = sorted(kernels.glob("*.h"))
    contents = (ctypes.c_char_p * len(headers))(*[header.read_bytes() for header in headers])
    names = (ctypes.c_char_p * len(headers))(*[header.name.encode() for header in headers])
    nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.read_bytes(), source.name.encode(), len(headers), contents, names
    )
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--fmad=false"]
    array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), array)
    log = text(program, "ProgramLog").decode().strip()
    if log:
        print(log)
    ptx = b"" if failed else text(program, "PTX")
    if failed or b".extern .func" in ptx:
        sys.exit(f"{source.name} does not compile for {architecture}, or calls what is not there")
    return ptx


sources = sorted(kernels.glob("*.cu"))
compiled = {(architecture, source.stem): compile(source, architecture) for architecture in architectures for source in sources}
# What was there stays until all is compiled.
for architecture in architectures:
    folder = pathlib.Path(architecture)
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.ptx"):
        if (architecture, old.stem) not in compiled:
            old.unlink()
for (architecture, stem), ptx in compiled.items():
    pathlib.Path(architecture, f"{stem}.ptx").write_bytes(ptx)

files = sorted(kernels.glob("*.*")) + sorted(pathlib.Path(".").glob("compute_*/*.ptx"))
with open("sha256", "w") as record:
    for file in files:
        if file.suffix in (".cu", ".h", ".ptx"):
            folder = "kernels" if file.parent == kernels else file.parent.name
            print(hashlib.sha256(file.read_bytes()).hexdigest(), f"{folder}/{file.name}", file=record)
