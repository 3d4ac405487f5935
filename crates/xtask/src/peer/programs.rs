//! The programs that are compared: how they are had and how they are asked.
//!
//! llama.cpp is a workspace of its own (`tests/peer`), so that nothing else ever builds it. Its repacking of weights is chosen when
//! it is built, so it is built twice. ik_llama.cpp comes as source in a Python package; its own `llama-bench` measures it,
//! which says nothing of loading and of memory.

use super::table::Run;
use super::{Case, Options, PROMPT};
use crate::command::{Step, cargo, step};
use crate::kernels::virtual_environment;
use crate::run::target_dir;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The version is exact, so that records can be compared.
const IK: (&str, &str) = ("ik-llama-cpp-python==0.1.5", "ik_llama_cpp_python-0.1.5");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    LlamaCpp,
    IkLlamaCpp,
}

impl Peer {
    pub fn read(name: &str) -> Result<Peer> {
        let all = [Peer::LlamaCpp, Peer::IkLlamaCpp];
        let found = all.into_iter().find(|peer| peer.name() == name);
        found.with_context(|| format!("there is no peer {name}; there are llama.cpp and ik_llama.cpp"))
    }

    pub fn name(self) -> &'static str {
        match self {
            Peer::LlamaCpp => "llama.cpp",
            Peer::IkLlamaCpp => "ik_llama.cpp",
        }
    }
}

/// Instructions that both programs are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Avx2,
}

impl Level {
    /// As `headroom bench --simd` takes it.
    fn name(self) -> &'static str {
        match self {
            Level::Avx2 => "avx2",
        }
    }

    /// A processor that has these and no better ones, for which the peer is compiled.
    fn processor(self) -> &'static str {
        match self {
            // AVX2, FMA, F16C and BMI2.
            Level::Avx2 => "haswell",
        }
    }
}

pub enum Program {
    Ours(PathBuf),
    LlamaCpp(PathBuf),
    IkLlamaCpp { path: PathBuf, repack: bool },
}

impl Program {
    /// Ours, the peer as it reads files, and the peer that repacks them.
    pub fn all(peer: Peer, level: Option<Level>) -> Result<[Program; 3]> {
        cargo(&["build", "--release", "-p", "cli"]).run()?;
        let target = target_dir()?;
        let ours = Program::Ours(target.join("release").join(executable("headroom")));
        let folder = target.join("peer");
        let [plain, repacking] = match peer {
            Peer::LlamaCpp => [llama_cpp(&folder, "OFF", level)?, llama_cpp(&folder, "ON", level)?],
            Peer::IkLlamaCpp => {
                let path = ik_llama_cpp(&folder.join("ik"))?;
                [false, true].map(|repack| Program::IkLlamaCpp { path: path.clone(), repack })
            }
        };
        Ok([ours, plain, repacking])
    }

    pub fn doctor(&self) -> Result<Value> {
        let Program::Ours(path) = self else { bail!("only ours measures the machine") };
        json(step(&path.display().to_string(), &["--json", "--no-gpu", "doctor"]))
    }

    pub fn measure(&self, model: &Path, case: &Case, options: &Options, threads: u32) -> Result<Run> {
        let step = self.step(model, case, options, threads);
        let value = if case.busy { beside_a_busy_core(|| json(step))? } else { json(step)? };
        match self {
            Program::IkLlamaCpp { .. } => Run::read_tests(&value),
            _ => Run::read(&value),
        }
    }

    fn step(&self, model: &Path, case: &Case, options: &Options, threads: u32) -> Step {
        let model = model.display().to_string();
        let [prompt, tokens, depth, threads] = [PROMPT, options.tokens, case.depth, threads].map(|n| n.to_string());
        let [prompt, tokens] = [&["-p", &prompt][..], &["-n", &tokens]];
        let common = [prompt, tokens, &["-r", "1", "-t", &threads]].concat();
        match self {
            Program::Ours(path) => {
                let level = options.level.map(|level| ["--simd", level.name()]);
                let level = level.as_ref().map_or(&[][..], |level| &level[..]);
                let own = ["--json", "--no-gpu", "bench", &model, "-d", &depth, "--ctk", &case.kv, "--ctv", &case.kv];
                step(&path.display().to_string(), &[&own[..], &common, level].concat())
            }
            Program::LlamaCpp(path) => {
                let own = [&model, "-d", &depth, "--kv", &case.kv];
                step(&path.display().to_string(), &[&own[..], &common].concat())
            }
            Program::IkLlamaCpp { path, repack } => {
                // Nothing is computed beforehand by the others either.
                let own = ["-m", &model, "-b", "512", "-w", "0", "-o", "json", "-rtr", if *repack { "1" } else { "0" }];
                step(&path.display().to_string(), &[&own[..], &common].concat())
            }
        }
    }
}

fn executable(name: &str) -> String {
    format!("{name}{}", std::env::consts::EXE_SUFFIX)
}

fn llama_cpp(folder: &Path, repack: &str, level: Option<Level>) -> Result<Program> {
    let suffix = level.map_or(String::new(), |level| format!("-{}", level.name()));
    let folder = folder.join(format!("repack-{}{suffix}", repack.to_lowercase()));
    let processor = level.map_or("native", Level::processor);
    cargo(&["build", "--release", "--locked"])
        .inside("tests/peer")
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", format!("-C target-cpu={processor}"))
        .env("GGML_CPU_REPACK", repack)
        .run()?;
    Ok(Program::LlamaCpp(folder.join("release").join(executable("peer"))))
}

/// `llama-bench` of ik_llama.cpp, compiled for this machine.
fn ik_llama_cpp(folder: &Path) -> Result<PathBuf> {
    let (package, name) = IK;
    let source = folder.join(name).join("vendor/ik_llama.cpp");
    let [place, source_text] = [folder, &source].map(|path| path.display().to_string());
    if !source.exists() {
        let python = virtual_environment(&folder.join("python"))?;
        let pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", &place, package];
        step(&python, &pip).run()?;
        let archive = folder.join(format!("{name}.tar.gz")).display().to_string();
        step(&python, &["-m", "tarfile", "-e", &archive, &place]).run()?;
        // The package lacks the script that names the commit.
        let script = source.join("common/cmake/build-info-gen-cpp.cmake");
        std::fs::create_dir_all(script.parent().context("a script in a folder")?)?;
        std::fs::write(
            script,
            "set(BUILD_NUMBER 0)\nconfigure_file(common/build-info.cpp.in common/build-info.cpp)\n",
        )?;
    }
    let build = folder.join("build");
    let build_text = build.display().to_string();
    let off = ["BUILD_SHARED_LIBS", "LLAMA_CURL", "LLAMA_BUILD_TESTS"].map(|option| format!("-D{option}=OFF"));
    let configure = ["-S", &source_text, "-B", &build_text, "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON"];
    step("cmake", &configure.into_iter().chain(off.iter().map(String::as_str)).collect::<Vec<_>>()).run()?;
    // A number, or Make begins them all.
    let jobs = std::thread::available_parallelism().map_or(1, usize::from).to_string();
    let target = ["--build", &build_text, "--config", "Release", "--target", "llama-bench", "--parallel", &jobs];
    step("cmake", &target).run()?;
    Ok(build.join("bin").join(executable("llama-bench")))
}

/// This process keeps a core busy while another one works.
fn beside_a_busy_core<T>(work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn json(step: Step) -> Result<Value> {
    let text = step.output()?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}
