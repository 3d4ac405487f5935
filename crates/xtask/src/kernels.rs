//! CUDA kernels to PTX, with a compiler from a package registry: no toolkit, no GPU and no driver are needed.

use crate::command::step;
use crate::prove::prove;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// CUDA 12.0: the oldest whose PTX runs on every card since the GTX 10xx, with driver 525 and newer. The output is compared
/// with what is committed, so the version is exact.
const PACKAGES: [&str; 2] = ["nvidia-cuda-nvrtc-cu12==12.0.140", "nvidia-cuda-nvcc-cu12==12.0.140"];
const ARCHITECTURES: [&str; 3] = ["compute_61", "compute_75", "compute_80"];
/// Machine code is made for each of these, as a driver would: what does not assemble here fails at a user's.
const GENERATIONS: [(&str, &[&str]); 3] = [
    ("compute_61", &["sm_61", "sm_70", "sm_75"]),
    ("compute_75", &["sm_75"]),
    ("compute_80", &["sm_80", "sm_86", "sm_89", "sm_90"]),
];
const PTX: &str = "crates/backend-cuda/ptx";

/// `kernels` rewrites the PTX. With `--check` nothing may change, and everything must assemble without spilled registers.
/// With `--prove` the tests of the kernels run the PTX itself, translated to C++, instead of the sources; and more.
/// What goes on with that (`--resume`) has the PTX already.
pub fn kernels(arguments: &[String]) -> Result<ExitCode> {
    if !cfg!(target_os = "linux") {
        bail!("the kernels are compiled and tested on Linux");
    }
    if ["--prove", "--resume"].iter().all(|wanted| arguments.iter().any(|argument| argument == wanted)) {
        prove(&ARCHITECTURES, arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let tools = tools()?;
    let library = find(&tools, "libnvrtc.so.12").context("the package has no NVRTC library for this system")?;
    let library = library.to_str().context("the path of NVRTC is not UTF-8")?;
    let python = python(&tools).display().to_string();
    let command = [&["compile.py", library], &ARCHITECTURES[..]].concat();
    step(&python, &command).inside(PTX).run()?;
    if arguments.iter().any(|argument| argument == "--check") {
        let changed = step("git", &["status", "--porcelain", "--", PTX]).output()?;
        if !changed.is_empty() {
            bail!("the committed PTX is not that of the sources:\n{changed}");
        }
        assemble(&tools)?;
    }
    if arguments.iter().any(|argument| argument == "--prove") {
        prove(&ARCHITECTURES, arguments)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn python(tools: &Path) -> PathBuf {
    tools.join("bin/python")
}

/// A virtual environment with the compiler, in `target`.
fn tools() -> Result<PathBuf> {
    let tools = std::path::absolute("target/kernels")?;
    let python = virtual_environment(&tools)?;
    step(&python, &[&["-m", "pip", "install", "--quiet", "--no-deps"], &PACKAGES[..]].concat()).run()?;
    Ok(tools)
}

/// The Python of a virtual environment in this folder, for packages that nothing else of the system is to see.
pub fn virtual_environment(folder: &Path) -> Result<String> {
    let python = python(folder);
    if !python.exists() {
        step("python3", &["-m", "venv", &folder.display().to_string()]).run()?;
    }
    Ok(python.display().to_string())
}

/// The file of this name below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir() && !path.is_symlink());
    let here = files.into_iter().find(|path| path.file_name().is_some_and(|found| found == name));
    here.or_else(|| folders.iter().find_map(|folder| find(folder, name)))
}

fn assemble(tools: &Path) -> Result<()> {
    let ptxas = find(tools, "ptxas").context("the package has no ptxas for this system")?;
    let (ptxas, out) = (ptxas.display().to_string(), tools.join("cubin").display().to_string());
    for (architecture, generations) in GENERATIONS {
        for file in std::fs::read_dir(Path::new(PTX).join(architecture))?.flatten() {
            let file = file.path().display().to_string();
            for generation in generations {
                let target = format!("-arch={generation}");
                step(&ptxas, &[&target, "--warn-on-spills", "--warning-as-error", "-o", &out, &file]).run()?;
            }
        }
    }
    Ok(())
}
