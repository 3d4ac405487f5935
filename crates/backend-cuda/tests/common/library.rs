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
    (flags, kernel, kernel.map(|_| mutants())).hash(&mut hasher);
    std::fs::read(source).unwrap().hash(&mut hasher);
    // PTX has all that it needs in it.
    let folders = if is_ptx(source) { &["emulator"][..] } else { &["emulator", "kernels"] };
    // And what a large source is divided into: a folder of its name.
    let parts = Some(source.with_extension("")).filter(|parts| parts.is_dir());
    for folder in folders.iter().map(|folder| root.join(folder)).chain(parts) {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
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

/// The one with everything that kernels may use.
pub const NEWEST: &str = "compute_80";

/// As [`compile_for`] the newest.
pub fn compile(source: &str) -> PathBuf {
    compile_for(source, NEWEST)
}

/// The library of a source file of ours (C++, CUDA or PTX), compiled if it is not there yet. PTX is for an architecture already.
pub fn compile_for(source: &str, architecture: &str) -> PathBuf {
    // While a kernel is tried, nothing else is watched.
    let watched = sanitizer().filter(|_| tried().is_none());
    make(source, architecture, None, watched)
}

fn make(source: &str, architecture: &str, kernel: Option<&str>, sanitizer: Option<String>) -> PathBuf {
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
            // compute_80 is 800.
            let number = architecture.strip_prefix("compute_").expect("an architecture");
            let architecture = format!("-D__CUDA_ARCH__={number}0");
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
    // Another process may be compiling the same: then this one waits for it.
    let lock = std::fs::File::create(path.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if path.exists() {
        return path;
    }
    let part = path.with_extension("part");
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

/// Which mutants there are, as `ptx.py` wants it: none, if nobody says so.
fn mutants() -> String {
    std::env::var("HEADROOM_MUTANTS").unwrap_or_else(|_| "0".into())
}

/// PTX as C++; of one kernel, mutants too.
fn translate(root: &Path, ptx: &Path, part: &Path, kernel: Option<&str>) -> PathBuf {
    let mut translator = command("python3");
    translator.arg(root.join("emulator/ptx.py")).arg(ptx);
    if let Some(kernel) = kernel {
        translator.arg(mutants()).arg(kernel);
    }
    let output = translator.output().expect("PTX is translated by python3");
    assert!(output.status.success(), "{}: {}", ptx.display(), String::from_utf8_lossy(&output.stderr));
    let path = part.with_extension("cpp");
    std::fs::write(&path, output.stdout).unwrap();
    path
}

/// Kernels that are others where there are other tensor cores, or none.
pub const DIFFERENT: [&str; 3] = ["attention", "matmul", "matvec"];

/// The architecture whose PTX the emulator runs instead of sources, as `cargo xtask kernels --prove` wants it.
pub fn ptx() -> Option<String> {
    std::env::var("HEADROOM_PTX").ok()
}

/// The library of a module for an architecture: of its source, or of its PTX; or of `kernel` alone, from its PTX. While a kernel is
/// tried, those of its own module are such libraries, with mutants, and those of other modules are their sources, which compile
/// sooner. A sanitizer watches the one that is tried.
pub fn module(name: &str, kernel: Option<&str>, architecture: &str) -> PathBuf {
    let text = format!("ptx/{architecture}/{name}.ptx");
    if let Some(kernel) = kernel {
        let watched = sanitizer().filter(|_| tried().is_some_and(|tried| tried.kernel == kernel));
        return make(&text, architecture, Some(kernel), watched);
    }
    if ptx().is_some() && tried().is_none() {
        return compile(&text);
    }
    compile_for(&format!("kernels/{name}.cu"), if DIFFERENT.contains(&name) { architecture } else { NEWEST })
}

/// Puts a libcuda.so.1 over the emulator into a folder; the variables with which a program finds it.
pub fn fake_driver(folder: &Path) -> [(&'static str, String); 4] {
    // cudarc asks for the name without a number first: a real driver must not come before the fake one.
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::os::unix::fs::symlink(compile("emulator/libcuda.cpp"), folder.join(name)).unwrap();
    }
    let most = &ptx().unwrap_or_else(|| NEWEST.into());
    let of_all: Vec<_> = modules().into_iter().map(|name| (name, most.as_str())).collect();
    // No GPU is newer than the PTX that is run.
    let of = |architecture: &'static str| {
        let there = DIFFERENT.iter().filter(|_| architecture <= most.as_str());
        there.map(|name| ((*name).to_owned(), architecture)).collect::<Vec<_>>()
    };
    let (of_61, of_75) = (of("compute_61"), of("compute_75"));
    // Programs that begin at the same time do not all wait for the same library first.
    let mut wanted = [&of_all[..], &of_61, &of_75].concat();
    let first = std::process::id() as usize % wanted.len();
    wanted.rotate_left(first);
    wanted.iter().for_each(|(name, architecture)| drop(module(name, None, architecture)));
    [
        ("LD_LIBRARY_PATH", folder.display().to_string()),
        ("FAKE_CUDA_MODULES", joined(&of_all)),
        ("FAKE_CUDA_MODULES_61", joined(&of_61)),
        ("FAKE_CUDA_MODULES_75", joined(&of_75)),
    ]
}

fn joined(modules: &[(String, &str)]) -> String {
    let paths = modules.iter().map(|(name, architecture)| module(name, None, architecture).display().to_string());
    paths.collect::<Vec<_>>().join(":")
}

/// The names of the kernels' files.
pub fn modules() -> Vec<String> {
    let sources = std::fs::read_dir(root().join("kernels")).unwrap();
    let names = sources.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| Some(name.strip_suffix(".cu")?.to_owned())).collect()
}
