//! Which tests launch a kernel, and with how much work: a mutant is tried with these alone, the cheapest first.

use super::{LONG, fixed_addresses};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

/// Whole models launch nothing that the tests of kernels do not, and their tolerances are wider.
const TESTS: [&str; 4] = ["attention::", "operations::", "products::", "recurrent::"];
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
    pub fn new(program: &Path, architecture: &str) -> Result<Reach> {
        let known = format!("target/kernels/launches-{architecture}.tsv");
        let built = std::fs::metadata(program)?;
        let stamp = format!("{} {} {:?}", program.display(), built.len(), built.modified()?);
        if let Some(tests) = std::fs::read_to_string(&known).ok().and_then(|text| parse(&text, &stamp)) {
            return Ok(Reach { tests });
        }
        println!("==> which tests launch what for {architecture}");
        let list = fixed_addresses(program).args(["--list", "--format", "terse"]).output()?;
        let list = String::from_utf8(list.stdout)?;
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        let names = names.filter(|name| TESTS.iter().any(|start| name.starts_with(start)) && !name.contains(LONG));
        let mut tests = names.map(|name| measure(program, architecture, name)).collect::<Result<Vec<_>>>()?;
        // Names make it the same order every time.
        tests.sort_by(|a, b| (a.work, &a.name).cmp(&(b.work, &b.name)));
        std::fs::write(&known, format!("{stamp}\n{}", tests.iter().map(shown).collect::<String>()))?;
        Ok(Reach { tests })
    }

    /// The tests that launch a kernel (MODULE:KERNEL) for which `wanted` holds, the cheapest first.
    pub fn of(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let launch = |test: &&Test| test.kernels.iter().any(|kernel| wanted(kernel));
        self.tests.iter().filter(launch).map(|test| test.name.clone()).collect()
    }
}

fn measure(program: &Path, architecture: &str, name: &str) -> Result<Test> {
    let file = "target/kernels/launches.tmp";
    std::fs::write(file, "")?;
    let launches = std::path::absolute(file)?;
    for ty in if name.starts_with("products::") { &TYPES[..] } else { &TYPES[..1] } {
        let mut command = fixed_addresses(program);
        command.args(["--exact", name]).stdout(Stdio::null()).env("HEADROOM_LAUNCHES", &launches);
        // All kernels are their sources, for this architecture alone.
        let chosen = [("HEADROOM_PTX", architecture), ("HEADROOM_MUTANT", "none:none:-1"), ("HEADROOM_TYPE", ty)];
        if !command.envs(chosen).status().context("setarch cannot start the tests")?.success() {
            bail!("{name} fails with the kernels' sources");
        }
    }
    let mut test = Test { name: name.into(), work: 0, kernels: BTreeSet::new() };
    for line in std::fs::read_to_string(file)?.lines() {
        let (kernel, threads) = line.split_once('\t').context("a launch has a kernel and threads")?;
        test.work += threads.parse::<u64>()?;
        test.kernels.insert(kernel.into());
    }
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
