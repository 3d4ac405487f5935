//! The emulator as libraries that are compiled when they are first needed; also for the tests of other crates.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Folder of this crate; the tests that use this file may belong to another one.
fn root() -> PathBuf {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut found = folders.map(|folder| folder.join("crates/backend-cuda")).filter(|folder| folder.is_dir());
    found.next().expect("the repository")
}

/// The folders' headers and tools, and the source, so that a library is only compiled when something in it has changed.
fn fingerprint(root: &Path, source: &Path, flags: &[String], kernel: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (flags, kernel, kernel.and(mutants())).hash(&mut hasher);
    std::fs::read(source).unwrap().hash(&mut hasher);
    // PTX has all that it needs in it.
    let folders = if is_ptx(source) { &["emulator"][..] } else { &["emulator", "kernels"] };
    for folder in folders {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(root.join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.retain(|file| file.extension().is_some_and(|end| end == "h" || end == "py"));
        files.retain(|file| !file.ends_with("mutants.py") || kernel.is_some());
        for file in &files {
            std::fs::read(file).unwrap().hash(&mut hasher);
        }
    }
    hasher.finish()
}

const FLAGS: &[&str] = &[
    "-std=c++17",
    "-march=native",
    "-fPIC",
    "-shared",
    "-fno-strict-aliasing",
    // Libraries share nothing.
    "-fno-gnu-unique",
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
    "-DHEADROOM_EMULATOR",
    "-x",
    "c++",
];
const TRIED_FLAGS: &[&str] = &["-O1", "-finline-small-functions"];

/// As [`compile_for`] a GPU with everything that kernels may use.
pub fn compile(source: &str) -> PathBuf {
    compile_for(source, 800)
}

/// The library of a source file of ours (C++, CUDA or PTX), compiled if it is not there yet. `architecture` is 100 times the
/// compute capability; PTX has its own.
pub fn compile_for(source: &str, architecture: u32) -> PathBuf {
    // While a kernel is tried, nothing else is watched.
    let watched = sanitizer().filter(|_| tried().is_none());
    make(source, architecture, None, watched)
}

fn make(source: &str, architecture: u32, kernel: Option<&str>, sanitizer: Option<String>) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let root = root();
    let root = root.as_path();
    let source = root.join(source);
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    // What runs a few tests only is sooner done with less optimization.
    flags.extend(if kernel.is_some() { TRIED_FLAGS } else { &["-O2"] }.iter().map(|flag| (*flag).to_owned()));
    if let Some(sanitizer) = sanitizer {
        flags.push(format!("-fsanitize={sanitizer}"));
        // Where a fault is.
        flags.extend(kernel.is_none().then(|| "-g1".to_owned()));
    }
    let include = root.join("emulator").display().to_string();
    match is_ptx(&source) {
        true => flags.extend(["-w", "-I", &include].map(String::from)),
        false => {
            let architecture = format!("-D__CUDA_ARCH__={architecture}");
            flags.extend([&architecture, "-Wall", "-Wextra", "-Werror"].map(String::from));
        }
    }
    let name = format!(
        "{}-{:016x}.so",
        source.file_stem().unwrap().to_str().unwrap(),
        fingerprint(root, &source, &flags, kernel)
    );
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        return path;
    }
    // Another test process may compile the same: each into a file of its own.
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let text = if is_ptx(&source) { translate(root, &source, &part, kernel) } else { source.clone() };
    let status = command("c++").args(&flags).arg(&text).arg("-o").arg(&part).status();
    assert!(status.expect("the tests need a C++ compiler (c++)").success(), "{} does not compile", source.display());
    std::fs::rename(&part, &path).unwrap();
    if text != source {
        std::fs::remove_file(text).unwrap();
    }
    path
}

fn is_ptx(source: &Path) -> bool {
    source.extension().is_some_and(|end| end == "ptx")
}

/// A program that a sanitizer which was loaded into this one does not slow down.
fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_remove("LD_PRELOAD");
    command
}

/// Which of the compiler's sanitizers watches kernels (`address`, `thread`), as `cargo xtask kernels --prove` wants it.
pub fn sanitizer() -> Option<String> {
    std::env::var("HEADROOM_SANITIZER").ok()
}

/// A kernel of which mutants are tried, as `cargo xtask kernels --prove` wants it: HEADROOM_MUTANT is MODULE:KERNEL:NUMBER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub module: String,
    pub kernel: String,
}

pub fn tried() -> Option<Tried> {
    let chosen = std::env::var("HEADROOM_MUTANT").ok()?;
    let mut parts = chosen.split(':');
    Some(Tried { module: parts.next()?.to_owned(), kernel: parts.next()?.to_owned() })
}

/// Which mutants there are, as `ptx.py` wants it.
fn mutants() -> Option<String> {
    std::env::var("HEADROOM_MUTANTS").ok()
}

/// PTX as C++; of one kernel, mutants too.
fn translate(root: &Path, ptx: &Path, part: &Path, kernel: Option<&str>) -> PathBuf {
    let mut translator = command("python3");
    translator.arg(root.join("emulator/ptx.py")).arg(ptx);
    if let Some(kernel) = kernel {
        translator.arg(mutants().expect("HEADROOM_MUTANTS says which there are")).arg(kernel);
    }
    let output = translator.output().expect("PTX is translated by python3");
    assert!(output.status.success(), "{}: {}", ptx.display(), String::from_utf8_lossy(&output.stderr));
    let path = part.with_extension("cpp");
    std::fs::write(&path, output.stdout).unwrap();
    path
}

/// Kernels that are others on GPUs before compute capability 8.0, which lack some tensor cores.
pub const DIFFERENT: [&str; 3] = ["attention", "matmul", "matvec"];

/// The architecture whose PTX the emulator runs instead of sources, as `cargo xtask kernels --prove` wants it.
pub fn ptx() -> Option<String> {
    std::env::var("HEADROOM_PTX").ok()
}

/// The library of a module: of its source, or of its PTX; the one that GPUs without tensor cores get, if `old`. While a
/// kernel is tried, those of other modules are their sources, which compile sooner, and those of its own module are libraries
/// of their own: of `kernel` alone, from its PTX, with its mutants. A sanitizer watches the one that is tried.
pub fn module(name: &str, kernel: Option<&str>, old: bool) -> PathBuf {
    if let Some(kernel) = kernel {
        let architecture = ptx().expect("a kernel is tried as PTX");
        let watched = sanitizer().filter(|_| tried().is_some_and(|tried| tried.kernel == kernel));
        return make(&format!("ptx/{architecture}/{name}.ptx"), 0, Some(kernel), watched);
    }
    let old = old && DIFFERENT.contains(&name);
    let source = |old| compile_for(&format!("kernels/{name}.cu"), if old { 610 } else { 800 });
    match ptx() {
        Some(architecture) if tried().is_some() => {
            source(old || architecture == "compute_61" && DIFFERENT.contains(&name))
        }
        Some(_) if old => compile(&format!("ptx/compute_61/{name}.ptx")),
        Some(architecture) => compile(&format!("ptx/{architecture}/{name}.ptx")),
        None => source(old),
    }
}

/// Puts a libcuda.so.1 over the emulator into a folder; the variables with which a program finds it.
pub fn fake_driver(folder: &Path) -> [(&'static str, String); 3] {
    // cudarc asks for the name without a number first: a real driver must not come before the fake one.
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::os::unix::fs::symlink(compile("emulator/libcuda.cpp"), folder.join(name)).unwrap();
    }
    let new = |name: &str| match ptx() {
        Some(_) if DIFFERENT.contains(&name) => compile(&format!("ptx/compute_80/{name}.ptx")),
        _ => module(name, None, false),
    };
    let joined =
        |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
    [
        ("LD_LIBRARY_PATH", folder.display().to_string()),
        ("FAKE_CUDA_MODULES", joined(modules().iter().map(|name| new(name)).collect())),
        ("FAKE_CUDA_OLD_MODULES", joined(DIFFERENT.iter().map(|name| module(name, None, true)).collect())),
    ]
}

/// The names of the kernels' files.
pub fn modules() -> Vec<String> {
    let sources = std::fs::read_dir(root().join("kernels")).unwrap();
    let names = sources.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(".cu")?.to_owned())).collect()
}
