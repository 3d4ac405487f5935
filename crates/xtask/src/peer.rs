//! `cargo xtask bench --peer llama.cpp`: ours and the peer in turn, on the same files, as a table.

mod programs;
mod table;

use crate::setup;
use anyhow::{Context, Result, bail};
use programs::{Level, Peer, Program};
use std::path::PathBuf;
use std::process::ExitCode;
use table::{Limits, Runs};

const PROMPT: u32 = 512;

#[derive(Debug, PartialEq)]
struct Options {
    peer: Peer,
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

/// What is measured of each program.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    depth: u32,
    kv: String,
    busy: bool,
}

pub fn bench(arguments: &[String]) -> Result<ExitCode> {
    let options = Options::read(arguments)?;
    setup::for_peer()?;
    let programs = Program::all(options.peer, options.level)?;
    let limits = Limits::read(&programs[0].doctor()?)?;
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
                    runs.programs[index].push(programs[index].measure(model, case, &options, threads)?);
                }
            }
        }
        let name = model.file_name().unwrap_or_default().to_string_lossy();
        println!("\n{name}, {threads} threads, medians of {} rounds\n", options.rounds);
        println!("{}", table::table(&cases, &limits, options.peer.name(), options.tokens, threads));
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn read(arguments: &[String]) -> Result<Options> {
        let kv = vec!["f16".into()];
        let (peer, models, threads, level) = (Peer::LlamaCpp, Vec::new(), None, None);
        let mut options = Options { peer, models, rounds: 3, threads, tokens: 64, depth: 0, kv, busy: false, level };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--peer" => options.peer = Peer::read(value()?)?,
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
                "bench --peer llama.cpp|ik_llama.cpp MODEL.gguf... [--rounds N] [--threads N] [--tokens N] [--depth N] [--kv f16,q8_0] [--busy] [--level avx2]"
            );
        }
        if options.peer == Peer::IkLlamaCpp && (options.depth > 0 || options.level.is_some()) {
            bail!("ik_llama.cpp is measured by its own program, which has no --depth and --level as meant here");
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

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
        assert_eq!(read("--peer ik_llama.cpp a --busy").unwrap().peer, Peer::IkLlamaCpp);
        assert!(
            read("--peer ik_llama.cpp a --depth 8").is_err() && read("--peer ik_llama.cpp a --level avx2").is_err()
        );
        assert!(read("--peer llama.cpp a --fast").is_err() && read("a --depth").is_err());
    }
}
