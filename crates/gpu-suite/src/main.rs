//! `gpu-suite`: checks and measures what only a GPU can show. It stands in a folder that `cargo xtask gpu-suite --pack`
//! makes, with the test programs and models it runs, and needs nothing but the NVIDIA driver: copy the folder, start it, read
//! the table at the end. Exit status 1 if a check failed.

mod bench;
mod measure;
mod programs;
mod row;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "gpu-suite [--models FOLDER] [--minutes N] [--tests PATTERN] [--tiny] [--only checks|bench]

  --models FOLDER   where models for measuring are written, and kept: 24 GB (default: models beside this program)
  --minutes N       what would take longer is left out (default 10)
  --tests PATTERN   of the tests, only those whose names contain this
  --tiny            measure models of some kilobytes, to see that this program works
  --only checks     no measuring;  --only bench: no checks";

#[derive(Clone, Debug)]
struct Options {
    /// Where this program stands.
    folder: PathBuf,
    models: PathBuf,
    /// What all of it may take, and when that is over.
    time: Duration,
    end: Instant,
    tests: Option<String>,
    tiny: bool,
    checks: bool,
    bench: bool,
    /// Measure in this process, and print rows: how the program calls itself, so that a GPU that is lost takes no table
    /// with it.
    inner: bool,
}

fn main() -> ExitCode {
    // How the program calls itself: the comparison with reference data.
    let arguments = || std::env::args().skip(1);
    let result = match arguments().next().as_deref() {
        Some(programs::CONFORMANCE) => conformance::run(arguments().skip(1)),
        _ => options().and_then(|options| run(&options)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gpu-suite: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options> {
    let program = std::env::current_exe().context("where this program is")?;
    let folder = program.parent().unwrap_or(Path::new(".")).to_owned();
    let mut options = Options {
        models: folder.join("models"),
        folder,
        time: Duration::ZERO,
        end: Instant::now(),
        tests: None,
        tiny: false,
        checks: true,
        bench: true,
        inner: false,
    };
    let mut minutes = 10.0;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} needs a value\n\n{USAGE}"));
        match argument.as_str() {
            "--models" => options.models = value()?.into(),
            "--minutes" => minutes = value()?.parse().context("--minutes needs a number")?,
            "--tests" => options.tests = Some(value()?),
            "--tiny" => options.tiny = true,
            "--inner" => options.inner = true,
            "--only" => match value()?.as_str() {
                "checks" => options.bench = false,
                "bench" => options.checks = false,
                other => bail!("--only {other}?\n\n{USAGE}"),
            },
            _ => bail!("{USAGE}"),
        }
    }
    let seconds: f64 = minutes * 60.0;
    if !(1.0..=86_400.0).contains(&seconds) {
        bail!("--minutes goes from one second to a day");
    }
    options.time = Duration::from_secs_f64(seconds);
    options.end += options.time;
    Ok(options)
}

fn run(options: &Options) -> Result<bool> {
    if options.inner {
        bench::bench(options, &mut |row| println!("{}", row.line()))?;
        return Ok(true);
    }
    let mut rows = vec![programs::card()?];
    if options.checks {
        programs::tests(options, &mut rows)?;
        programs::conformance(options, &mut rows)?;
    }
    if options.bench {
        programs::bench(options, &mut rows)?;
    }
    if options.checks {
        programs::sanitizer(options, &mut rows)?;
    }
    print!("\n{}", row::table(&rows));
    Ok(rows.iter().all(|row| row.good != Some(false)))
}
