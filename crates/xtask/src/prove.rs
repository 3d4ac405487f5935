//! `cargo xtask kernels --prove`: the tests of the kernels on the PTX itself, under sanitizers, and with mutants of the PTX,
//! which must not pass. What was proven is recorded (`target/kernels/proven.tsv`), and `--resume` goes on from there.

mod equivalent;
mod jobs;
mod mutants;
mod programs;
mod reach;
mod record;

use anyhow::{Context, Result, bail};
use jobs::Job;
use mutants::BARRIERS;
use programs::{Program, Run, watched};
use record::{Record, stamp, texts};
use std::path::Path;

const ROOT: &str = "crates/backend-cuda";
const RECORD: &str = "target/kernels/proven.tsv";
const PARTS: [&str; 4] = ["ptx", "sanitizers", "mutants", BARRIERS];
/// Mutants of a module and an architecture, unless `--mutants` says otherwise, and what they are drawn with.
const MUTANTS: &str = "12";
const SEED: &str = "1";
/// Memory of a job: a sanitizer's, or the compiler's with the largest file.
const JOB_BYTES: u64 = 4 << 30;

/// The tests of kernels: what they begin with.
const KERNELS: [&str; 6] = ["attention::", "held::", "operations::", "products::", "recurrent::", "rounding::"];
/// Tests under ThreadSanitizer: every barrier of every kernel; all tests would take an hour. Types of weights share theirs.
const RACES: [(&str, Option<&str>); 10] = [
    ("operations::", None),
    ("held::a_sum", None),
    ("held::heads", None),
    ("held::rotations", None),
    ("rounding::transforms", None),
    ("recurrent::", None),
    ("attention::sizes", None),
    ("products::many_rows", Some("q4_k")),
    ("products::many_rows", Some("f16")),
    ("products::experts_in_prompts", Some("q6_k")),
];
/// Takes long, and launches nothing that other tests do not.
const LONG: &str = "more_slots_than_a_grid_has";

/// What is to be proven.
struct Scope {
    /// All architectures, modules and kernels.
    whole: bool,
    architectures: Vec<String>,
    modules: Vec<String>,
    /// Of which mutants are tried; none for all.
    kernels: Vec<String>,
    parts: Vec<&'static str>,
    drawn: String,
    resume: bool,
    /// Pieces at the same time.
    width: usize,
}

pub fn prove(architectures: &[&str], arguments: &[String]) -> Result<()> {
    let scope = Scope::new(architectures, arguments)?;
    let record = Record::open(Path::new(RECORD), |part| scope.resume || !scope.parts.contains(&part))?;
    let programs = Program::all()?;
    let device = programs.iter().find(|program| program.name == "device").context("there is no program of tests")?;
    let mut failed = Vec::new();
    for part in &scope.parts {
        failed.extend(match *part {
            "ptx" => jobs::prove(part, &on_ptx(&programs, &scope)?, &record, scope.width),
            "sanitizers" => jobs::prove(part, &under_sanitizers(device)?, &record, scope.width),
            "mutants" => mutants::prove(part, device, &scope.drawn, &scope, &record)?,
            _ => mutants::prove(part, device, BARRIERS, &scope, &record)?,
        });
    }
    if !failed.is_empty() {
        bail!("{} failed:\n{}", failed.len(), failed.join("\n"));
    }
    Ok(())
}

impl Scope {
    fn new(architectures: &[&str], arguments: &[String]) -> Result<Scope> {
        let given = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        let parts = chosen("part", &PARTS, given("--only"))?;
        let (mutants, seed) = (given("--mutants").unwrap_or(MUTANTS), given("--seed").unwrap_or(SEED));
        let files = std::fs::read_dir(Path::new(ROOT).join("kernels"))?.flatten();
        let names = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".cu")?.to_owned()));
        let mut modules: Vec<String> = names.collect();
        modules.sort();
        Ok(Scope {
            whole: ["--architecture", "--modules", "--kernels"].into_iter().all(|name| given(name).is_none()),
            architectures: chosen("architecture", architectures, given("--architecture"))?
                .iter()
                .map(|a| (*a).into())
                .collect(),
            modules: chosen("module", &modules, given("--modules"))?,
            kernels: given("--kernels").map_or_else(Vec::new, |named| named.split(',').map(String::from).collect()),
            parts,
            drawn: format!("{mutants}@{seed}"),
            resume: arguments.iter().any(|argument| argument == "--resume"),
            width: given("--jobs").map_or_else(|| Ok(jobs::width(JOB_BYTES)), str::parse)?,
        })
    }
}

/// Those that are named, with commas, or all.
fn chosen<T: AsRef<str> + Clone>(kind: &str, all: &[T], named: Option<&str>) -> Result<Vec<T>> {
    let Some(named) = named else { return Ok(all.to_vec()) };
    let find = |name: &str| all.iter().find(|known| known.as_ref() == name).cloned();
    named.split(',').map(|name| find(name).with_context(|| format!("there is no {kind} {name}"))).collect()
}

/// Every test, with the kernels as PTX for every architecture.
fn on_ptx<'a>(programs: &'a [Program], scope: &Scope) -> Result<Vec<Job<'a>>> {
    let emulator = stamp(texts(&Path::new(ROOT).join("emulator"))?);
    let mut jobs = Vec::new();
    for architecture in &scope.architectures {
        let ptx = stamp(texts(&Path::new(ROOT).join("ptx").join(architecture))?);
        for program in programs {
            let of = stamp([&program.stamp, &emulator, &ptx]);
            let settings = vec![("HEADROOM_PTX", architecture.clone())];
            let named = program.tests.iter().map(|test| (format!("{architecture} {} {test}", program.name), test));
            jobs.extend(named.map(|(name, test)| must_pass("ptx", &of, name, program, test, settings.clone())));
        }
    }
    Ok(jobs)
}

/// The tests of kernels under both sanitizers.
fn under_sanitizers(program: &Program) -> Result<Vec<Job<'_>>> {
    let [emulator, kernels] = ["emulator", "kernels"].map(|folder| texts(&Path::new(ROOT).join(folder)));
    let of = stamp([program.stamp.clone(), stamp(emulator?), stamp(kernels?)]);
    let addresses = KERNELS.iter().map(|start| ("address", *start, None));
    let races = RACES.iter().map(|(start, ty)| ("thread", *start, *ty));
    let mut jobs = Vec::new();
    for (sanitizer, start, ty) in addresses.chain(races) {
        let mut settings = watched(sanitizer)?;
        settings.extend(ty.map(|ty| ("HEADROOM_TYPE", ty.to_owned())));
        for test in program.tests(&[start]).filter(|test| !test.contains(LONG)) {
            let name = format!("{sanitizer} {test} {}", ty.unwrap_or_default());
            jobs.push(must_pass("sanitizers", &of, name.trim().into(), program, test, settings.clone()));
        }
    }
    Ok(jobs)
}

fn must_pass<'a>(
    part: &str,
    of: &str,
    name: String,
    program: &'a Program,
    test: &'a str,
    settings: Vec<(&'static str, String)>,
) -> Job<'a> {
    let line = format!("{part}\t{name}\t{of}");
    let run = Run { program: &program.path, test, settings, patience: None };
    let work = move || match run.failure()? {
        None => Ok("passes".into()),
        Some(said) => bail!("{said}"),
    };
    Job { name, line, work: Box::new(work) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_chosen_and_must_be_there() {
        assert_eq!(chosen("part", &PARTS, None).unwrap(), PARTS);
        assert_eq!(chosen("part", &PARTS, Some("barriers,ptx")).unwrap(), ["barriers", "ptx"]);
        assert_eq!(chosen("part", &PARTS, Some("mutant")).unwrap_err().to_string(), "there is no part mutant");
        assert!(chosen("part", &PARTS, Some("")).is_err());
    }
}
