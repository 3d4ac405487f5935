//! Which tests launch a kernel, and with how much work: a mutant is tried with these alone, the cheapest first.

use super::jobs::side_by_side;
use super::programs::{Program, Run};
use super::{KERNELS, LONG};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

/// Tests of products launch the same for all types of weights but those without blocks.
pub const TYPES: [&str; 2] = ["q8_0", "f16"];

#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    /// Threads of all its launches.
    work: u64,
    /// MODULE:KERNEL.
    kernels: BTreeSet<String>,
}

pub struct Reach {
    tests: Vec<Test>,
}

impl Reach {
    /// Runs each test once, from the kernels' sources, unless this program's tests are known.
    pub fn new(program: &Program, architecture: &str, width: usize) -> Result<Reach> {
        let known = format!("target/kernels/launches-{architecture}.tsv");
        if let Some(tests) = std::fs::read_to_string(&known).ok().and_then(|text| parse(&text, &program.stamp)) {
            return Ok(Reach { tests });
        }
        println!("==> which tests launch what for {architecture}");
        // Whole models launch nothing that the tests of kernels do not, and their tolerances are wider.
        let names: Vec<&str> = program.tests(&KERNELS).filter(|name| !name.contains(LONG)).collect();
        let tests = side_by_side(&names, width, |name| measure(program, architecture, name));
        let mut tests = tests.into_iter().collect::<Result<Vec<_>>>()?;
        // Names make it the same order every time.
        tests.sort_by(|a, b| (a.work, &a.name).cmp(&(b.work, &b.name)));
        std::fs::write(&known, format!("{}\n{}", program.stamp, tests.iter().map(shown).collect::<String>()))?;
        Ok(Reach { tests })
    }

    /// The tests that launch a kernel (MODULE:KERNEL) for which `wanted` holds, the cheapest first.
    pub fn of(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let launch = |test: &&Test| test.kernels.iter().any(|kernel| wanted(kernel));
        self.tests.iter().filter(launch).map(|test| test.name.clone()).collect()
    }
}

fn measure(program: &Program, architecture: &str, name: &str) -> Result<Test> {
    let launches = std::path::absolute(format!("target/kernels/{architecture}-{name}.launches"))?;
    std::fs::write(&launches, "")?;
    for ty in if name.starts_with("products::") { &TYPES[..] } else { &TYPES[..1] } {
        // All kernels are their sources, for this architecture alone.
        let settings = vec![
            ("HEADROOM_LAUNCHES", launches.display().to_string()),
            ("HEADROOM_PTX", architecture.to_owned()),
            ("HEADROOM_MUTANT", "none:none:-1".to_owned()),
            ("HEADROOM_TYPE", (*ty).to_owned()),
        ];
        let run = Run { program: &program.path, test: name, settings, patience: None };
        if let Some(said) = run.failure()? {
            bail!("{name} fails with the kernels' sources: {said}");
        }
    }
    let mut test = Test { name: name.into(), work: 0, kernels: BTreeSet::new() };
    for line in std::fs::read_to_string(&launches)?.lines() {
        let (kernel, threads) = line.split_once('\t').context("a launch has a kernel and threads")?;
        test.work += threads.parse::<u64>()?;
        test.kernels.insert(kernel.into());
    }
    std::fs::remove_file(&launches)?;
    Ok(test)
}

fn shown(test: &Test) -> String {
    let kernels: Vec<&str> = test.kernels.iter().map(String::as_str).collect();
    format!("{}\t{}\t{}\n", test.name, test.work, kernels.join(" "))
}

/// What was written for a program of this stamp.
fn parse(text: &str, stamp: &str) -> Option<Vec<Test>> {
    let lines = text.strip_prefix(stamp)?.strip_prefix('\n')?.lines();
    lines
        .map(|line| {
            let [name, work, kernels] = line.split('\t').collect::<Vec<_>>()[..] else { return None };
            let kernels = kernels.split(' ').map(String::from).collect();
            Some(Test { name: name.into(), work: work.parse().ok()?, kernels })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_for_one_program() {
        let kernels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let tests = vec![
            Test { name: "a::b".into(), work: 7, kernels: kernels(&["norm:norm"]) },
            Test { name: "a::c".into(), work: 9, kernels: kernels(&["norm:norm", "rows:copy_rows"]) },
        ];
        let text = format!("program 1\n{}", tests.iter().map(shown).collect::<String>());
        assert_eq!(parse(&text, "program 1").as_ref(), Some(&tests));
        assert_eq!(parse(&text, "program 12"), None);
        let reach = Reach { tests };
        assert_eq!(reach.of(|kernel| kernel == "norm:norm"), ["a::b", "a::c"]);
        assert_eq!(reach.of(|kernel| kernel.starts_with("rows:")), ["a::c"]);
        assert!(reach.of(|kernel| kernel == "rows:scale_rows").is_empty());
    }
}
