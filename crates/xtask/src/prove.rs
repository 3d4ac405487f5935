//! `cargo xtask kernels --prove`: the tests of the kernels on the PTX itself, under sanitizers, and with mutants of the PTX,
//! which must not pass.

mod equivalent;
mod mutants;
mod reach;

use crate::command::{cargo, step};
use anyhow::{Context, Result, bail};
use mutants::{BARRIERS, Mutants};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const ROOT: &str = "crates/backend-cuda";
/// Mutants of a module and an architecture, unless `--mutants` says otherwise, and what they are drawn with.
const MUTANTS: &str = "12";
const SEED: &str = "1";

/// Tests under ThreadSanitizer: every barrier of every kernel; all tests would take an hour. Types of weights share theirs.
const RACES: [(&str, Option<&str>); 6] = [
    ("operations::", None),
    ("recurrent::", None),
    ("attention::sizes", None),
    ("products::many_rows", Some("q4_k")),
    ("products::many_rows", Some("f16")),
    ("products::experts_in_prompts", Some("q6_k")),
];
/// Takes long, and launches nothing that other tests do not.
const LONG: &str = "more_slots_than_a_grid_has";

pub fn prove(architectures: &[&str], arguments: &[String]) -> Result<()> {
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("--only="));
    let value = |name: &str, otherwise: &'static str| {
        let found = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or(otherwise).to_owned()
    };
    let drawn = format!("{}@{}", value("--mutants", MUTANTS), value("--seed", SEED));
    let modules = modules(&value("--modules", ""))?;
    let one = value("--architecture", "");
    let architectures: Vec<&str> =
        architectures.iter().copied().filter(|known| one.is_empty() || *known == one).collect();
    if architectures.is_empty() {
        bail!("there is no architecture {one}");
    }
    let resume = arguments.iter().any(|argument| argument == "--resume");
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    if wanted("ptx") {
        for architecture in &architectures {
            cargo(&["test", "-p", "backend-cuda"]).env("HEADROOM_PTX", architecture).run()?;
        }
    }
    let tests = device_tests()?;
    if wanted("sanitizers") {
        sanitize(&tests)?;
    }
    if wanted("mutants") {
        Mutants::new(&tests, &drawn, resume)?.run(&architectures, &modules)?;
    }
    if wanted("barriers") {
        Mutants::new(&tests, BARRIERS, true)?.run(&architectures, &modules)?;
    }
    Ok(())
}

/// All modules of kernels, or those that are named, with commas.
fn modules(named: &str) -> Result<Vec<String>> {
    let files = std::fs::read_dir(Path::new(ROOT).join("kernels"))?.flatten();
    let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".cu")?.to_owned()));
    let mut all: Vec<String> = names.collect();
    all.sort();
    if named.is_empty() {
        return Ok(all);
    }
    let unknown = named.split(',').find(|name| !all.iter().any(|known| known == name));
    unknown.map_or(Ok(()), |name| bail!("there is no module {name}"))?;
    Ok(named.split(',').map(String::from).collect())
}

/// The program of the device's tests.
fn device_tests() -> Result<PathBuf> {
    let build = ["test", "-p", "backend-cuda", "--test", "device", "--no-run", "--message-format", "json"];
    let messages = cargo(&build).output()?;
    let mut program = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "device").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    program.next_back().context("cargo names no program of the device's tests")
}

/// The variables with which kernels are watched by a sanitizer of the C++ compiler.
fn watched(sanitizer: &str) -> Result<Vec<(&'static str, String)>> {
    let name = if sanitizer == "address" { "libasan.so" } else { "libtsan.so" };
    let library = step("c++", &[format!("-print-file-name={name}")]).output()?;
    // What is allocated for good is no fault, and the stacks of fibers are not those of threads.
    let options = "detect_leaks=0:detect_stack_use_after_return=0:halt_on_error=1:abort_on_error=1";
    // Of Rust's own synchronization it knows nothing.
    let races = format!("{options}:ignore_noninstrumented_modules=1");
    Ok(vec![
        ("HEADROOM_SANITIZER", sanitizer.into()),
        ("LD_PRELOAD", library.trim().into()),
        ("ASAN_OPTIONS", options.into()),
        ("TSAN_OPTIONS", races),
    ])
}

/// The tests of kernels under both sanitizers.
fn sanitize(tests: &Path) -> Result<()> {
    let run = |sanitizer: &str, filters: &[&str], ty: Option<&str>| {
        println!("==> {} under the sanitizer of {sanitizer}", filters.join(" "));
        let started = Instant::now();
        let mut command = fixed_addresses(tests);
        command.args(filters).args(["--skip", LONG, "--test-threads", "1"]).envs(watched(sanitizer)?);
        let status =
            command.envs(ty.map(|ty| ("HEADROOM_TYPE", ty))).status().context("setarch cannot start the tests")?;
        if !status.success() {
            bail!("the sanitizer of {sanitizer} found a fault ({status})");
        }
        println!("{} s", started.elapsed().as_secs());
        Ok(())
    };
    run("address", &["products::", "attention::", "recurrent::", "operations::"], None)?;
    RACES.iter().try_for_each(|(filter, ty)| run("thread", &[filter], *ty))
}

/// Sanitizers want their shadows at fixed addresses.
fn fixed_addresses(program: &Path) -> Command {
    let mut command = Command::new("setarch");
    command.arg("-R").arg(program);
    command
}
