//! `cargo xtask bench --peer llama.cpp`: ours and the peer in turn, on the same files, as a table.
//!
//! The peer is a workspace of its own (`tests/peer`), so that nothing else ever builds it. Its repacking of weights is
//! chosen when it is built, so it is built twice.

mod table;

use crate::command::{Step, cargo, step};
use crate::run::target_dir;
use crate::setup;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use table::{Limits, Run, Runs};

const PROMPT: u32 = 512;

#[derive(Debug, PartialEq)]
struct Options {
    models: Vec<PathBuf>,
    rounds: u32,
    /// All physical cores, if not given.
    threads: Option<u32>,
    tokens: u32,
    depth: u32,
    kv: Vec<String>,
    busy: bool,
    /// The best of this machine, if not given.
    level: Option<Level>,
}

/// Instructions that both programs are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
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

/// What is measured of each program.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    depth: u32,
    kv: String,
    busy: bool,
}

enum Program {
    Ours(PathBuf),
    Peer(PathBuf),
}

pub fn bench(arguments: &[String]) -> Result<ExitCode> {
    let options = Options::read(arguments)?;
    setup::for_peer()?;
    let programs = programs(options.level)?;
    let Program::Ours(ours) = &programs[0] else { bail!("ours comes first") };
    let limits = Limits::read(&json(step(&ours.display().to_string(), &["--json", "--no-gpu", "doctor"]))?)?;
    let limits = if options.level.is_some() { limits.without_arithmetic() } else { limits };
    let threads = options.threads.unwrap_or(limits.cores);
    println!("{limits}");
    for model in &options.models {
        // So that the first program finds the file in the page cache too.
        let mut file = std::fs::File::open(model).with_context(|| model.display().to_string())?;
        std::io::copy(&mut file, &mut std::io::sink())?;
        let mut cases: Vec<(Case, Runs)> = options.cases().into_iter().map(|case| (case, Runs::default())).collect();
        for round in 0..options.rounds as usize {
            for (case, runs) in &mut cases {
                // Who begins changes from round to round.
                let order = (0..programs.len()).map(|i| (i + round) % programs.len());
                for index in order {
                    let run = measure(&programs[index], model, case, &options, threads)?;
                    runs.programs[index].push(run);
                }
            }
        }
        let name = model.file_name().unwrap_or_default().to_string_lossy();
        println!("\n{name}, {threads} threads, medians of {} rounds\n", options.rounds);
        println!("{}", table::table(&cases, &limits, options.tokens, threads));
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn read(arguments: &[String]) -> Result<Options> {
        let kv = vec!["f16".into()];
        let (models, threads, level) = (Vec::new(), None, None);
        let mut options = Options { models, rounds: 3, threads, tokens: 64, depth: 0, kv, busy: false, level };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--peer" => match value()?.as_str() {
                    "llama.cpp" => {}
                    other => bail!("there is no peer {other}; there is llama.cpp"),
                },
                "--rounds" => options.rounds = value()?.parse().context("--rounds")?,
                "--threads" => options.threads = Some(value()?.parse().context("--threads")?),
                "--tokens" => options.tokens = value()?.parse().context("--tokens")?,
                "--depth" => options.depth = value()?.parse().context("--depth")?,
                "--kv" => options.kv = value()?.split(',').map(String::from).collect(),
                "--level" => match value()?.as_str() {
                    "avx2" => options.level = Some(Level::Avx2),
                    other => bail!("there is no level {other}; there is avx2"),
                },
                "--busy" => options.busy = true,
                flag if flag.starts_with('-') => bail!("unknown argument {flag}"),
                model => options.models.push(model.into()),
            }
        }
        let named = options.kv.iter().all(|kv| ["f16", "q8_0"].contains(&kv.as_str()));
        if options.models.is_empty() || !named || [options.rounds, options.tokens].contains(&0) {
            bail!(
                "bench --peer llama.cpp MODEL.gguf... [--rounds N] [--threads N] [--tokens N] [--depth N] [--kv f16,q8_0] [--busy] [--level avx2]"
            );
        }
        Ok(options)
    }

    fn cases(&self) -> Vec<Case> {
        let case = |depth, kv: &str, busy| Case { depth, kv: kv.into(), busy };
        let mut cases = vec![case(0, "f16", false)];
        if self.depth > 0 {
            cases.extend(self.kv.iter().map(|kv| case(self.depth, kv, false)));
        }
        if self.busy {
            cases.push(case(0, "f16", true));
        }
        cases
    }
}

/// Ours, the peer as it reads files, and the peer that repacks them.
fn programs(level: Option<Level>) -> Result<[Program; 3]> {
    cargo(&["build", "--release", "-p", "cli"]).run()?;
    let target = target_dir()?;
    let name = |program: &str| format!("{program}{}", std::env::consts::EXE_SUFFIX);
    let peer = |repack: &str| -> Result<Program> {
        let suffix = level.map_or(String::new(), |level| format!("-{}", level.name()));
        let folder = target.join("peer").join(format!("repack-{}{suffix}", repack.to_lowercase()));
        let processor = level.map_or("native", Level::processor);
        cargo(&["build", "--release", "--locked"])
            .inside("tests/peer")
            .env("CARGO_TARGET_DIR", &folder)
            .env("RUSTFLAGS", format!("-C target-cpu={processor}"))
            .env("GGML_CPU_REPACK", repack)
            .run()?;
        Ok(Program::Peer(folder.join("release").join(name("peer"))))
    };
    Ok([Program::Ours(target.join("release").join(name("headroom"))), peer("OFF")?, peer("ON")?])
}

fn measure(program: &Program, model: &Path, case: &Case, options: &Options, threads: u32) -> Result<Run> {
    let model = model.display().to_string();
    let [prompt, tokens, depth, threads] = [PROMPT, options.tokens, case.depth, threads].map(|n| n.to_string());
    let common = [&model, "-p", &prompt, "-n", &tokens, "-d", &depth, "-r", "1", "-t", &threads];
    let (program, first, last) = match program {
        Program::Ours(path) => {
            (path, &["--json", "--no-gpu", "bench"][..], &["--ctk", &case.kv, "--ctv", &case.kv][..])
        }
        Program::Peer(path) => (path, &[][..], &["--kv", &case.kv][..]),
    };
    // The peer was compiled for it.
    let level = match (options.level, first.is_empty()) {
        (Some(level), false) => &["--simd", level.name()][..],
        _ => &[],
    };
    let step = step(&program.display().to_string(), &[first, &common[..], last, level].concat());
    let value = if case.busy { beside_a_busy_core(|| json(step))? } else { json(step)? };
    Run::read(&value)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options> {
        Options::read(&line.split(' ').map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_become_cases() {
        let options = read("--peer llama.cpp a.gguf --depth 64 b.gguf --kv f16,q8_0 --busy --threads 2").unwrap();
        assert_eq!(options.models, [Path::new("a.gguf"), Path::new("b.gguf")]);
        assert_eq!((options.rounds, options.threads), (3, Some(2)));
        let case = |depth, kv: &str, busy| Case { depth, kv: kv.into(), busy };
        let wanted = [case(0, "f16", false), case(64, "f16", false), case(64, "q8_0", false), case(0, "f16", true)];
        assert_eq!(options.cases(), wanted);
        assert_eq!(read("--peer llama.cpp a.gguf").unwrap().cases(), wanted[..1]);
        assert_eq!((options.level, options.cases().len()), (None, 4));
        assert_eq!(read("--peer llama.cpp a.gguf --level avx2").unwrap().level, Some(Level::Avx2));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in
            ["--peer llama.cpp", "--peer ollama a", "--peer llama.cpp a --kv q3", "--peer llama.cpp a --rounds 0"]
        {
            assert!(read(line).is_err(), "{line}");
        }
        assert!(read("--peer llama.cpp a --level avx512").is_err());
        assert!(read("--peer llama.cpp a --fast").is_err() && read("a --depth").is_err());
    }
}
