//! `cargo xtask test`: every check, with the counts last.

use crate::command::{Step, cargo, npm};
use crate::run::{VirtualDisplay, build_ui, target_dir};
use crate::{setup, tidy};
use anyhow::{Context, Result};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What the runners counted, and the steps that failed.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    broken: Vec<String>,
    times: Vec<(String, u64)>,
}

impl Tally {
    /// A step that passes or fails as a whole.
    fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        match work() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                eprintln!("xtask: {name}: {error:#}");
                self.failed += 1;
                self.broken.push(name.into());
            }
        }
        self.times.push((name.into(), started.elapsed().as_secs()));
    }

    /// A test runner: its own counts are added up.
    fn runner(&mut self, name: &str, step: Step) {
        let started = Instant::now();
        let (success, lines) = match step.lines() {
            Ok(result) => result,
            Err(error) => {
                eprintln!("xtask: {name}: {error:#}");
                (false, Vec::new())
            }
        };
        let counts = lines.iter().filter_map(|line| counts(line));
        let (mut passed, mut failed) = (0, 0);
        for count in counts {
            passed += count.0;
            failed += count.1;
            self.skipped += count.2;
        }
        // A runner that fails without a count, or counts nothing, must not look green.
        if (!success && failed == 0) || passed + failed == 0 {
            failed += 1;
        }
        if failed > 0 {
            self.broken.push(name.into());
        }
        self.passed += passed;
        self.failed += failed;
        self.times.push((name.into(), started.elapsed().as_secs()));
    }
}

/// (passed, failed, skipped) of a runner's closing line: cargo test's, or vitest's.
fn counts(line: &str) -> Option<(u64, u64, u64)> {
    let line = strip_colours(line);
    let line = line.trim();
    let number = |word: &str| {
        line.split([';', '|', ' ', '.'])
            .collect::<Vec<_>>()
            .windows(2)
            .find(|pair| pair[1].trim_end_matches(',') == word)
            .and_then(|pair| pair[0].parse::<u64>().ok())
            .unwrap_or(0)
    };
    if line.starts_with("test result:") {
        return Some((number("passed"), number("failed"), number("ignored")));
    }
    if line.starts_with("Tests ") {
        return Some((number("passed"), number("failed"), number("skipped")));
    }
    None
}

fn strip_colours(line: &str) -> String {
    let mut out = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.find(|c| c.is_ascii_alphabetic());
        } else {
            out.push(character);
        }
    }
    out
}

/// What random inputs of property tests are drawn by. The same in each run unless asked: a change is not held up by a rare
/// input that it has nothing to do with.
fn seed(arguments: &[String]) -> Result<u64> {
    match arguments.iter().find_map(|argument| argument.strip_prefix("--seed=")) {
        None => Ok(1),
        Some("random") => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into()),
        Some(number) => number.parse().context("--seed takes a number or 'random'"),
    }
}

pub fn test(arguments: &[String]) -> Result<ExitCode> {
    let seed = seed(arguments)?.to_string();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    // Windows has the window but no WebKitWebDriver: there the window is tested by hand.
    let window = !quick && cfg!(target_os = "linux");
    setup::for_test(window)?;
    let mut tally = Tally::default();

    tally.check("format", || cargo(&["fmt", "--all", "--check"]).run());
    tally.check("tidy", tidy::tidy);
    tally.check("ui build", build_ui);
    tally.check("ui types", || npm(&["run", "check"]).run());
    tally.check("ui lint", || npm(&["run", "lint"]).run());
    tally.runner("ui tests", npm(&["run", "test"]).env("NO_COLOR", "1"));
    let lints = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    tally.check("lints", || cargo(&lints).run());
    let tests = ["test", "--workspace", "--exclude", "e2e", "--no-fail-fast"];
    println!("Property tests: --seed={seed}");
    tally.runner("tests", cargo(&tests).env("PROPTEST_RNG_SEED", &seed));
    if window {
        tally.check("programs", || cargo(&["build", "-p", "headroom-desktop", "-p", "cli"]).run());
        match VirtualDisplay::start().and_then(|display| Ok((display, target_dir()?.join("debug")))) {
            Ok((display, programs)) => {
                let step = cargo(&["test", "-p", "e2e", "--no-fail-fast", "--", "--test-threads", "1"])
                    .env("DISPLAY", &display.name)
                    .env("HEADROOM_PROGRAMS", programs);
                tally.runner("window", step);
            }
            Err(error) => tally.check("window", || Err(error)),
        }
    } else {
        println!("The tests in the real window were left out.");
        tally.skipped += 1;
    }

    println!("\nSeconds: {}", tally.times.iter().map(|(n, s)| format!("{n} {s}")).collect::<Vec<_>>().join(", "));
    if !tally.broken.is_empty() {
        println!("Failed: {}", tally.broken.join(", "));
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_the_same_unless_asked() {
        let seed = |argument: &str| seed(&[argument.into()]).ok();
        assert_eq!((seed("--quick"), seed("--seed=7"), seed("--seed=x")), (Some(1), Some(7), None));
        assert!(seed("--seed=random").is_some());
    }

    #[test]
    fn closing_lines_are_counted() {
        let cargo = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(counts(cargo), Some((12, 3, 1)));
        assert_eq!(counts("      Tests  2 failed | 40 passed (42)"), Some((40, 2, 0)));
        assert_eq!(counts("\u{1b}[2m Tests \u{1b}[22m \u{1b}[32m7 passed\u{1b}[39m (7)"), Some((7, 0, 0)));
        assert_eq!(counts("running 3 tests"), None);
    }
}
