//! Mutants of the PTX: each has to fail a test that launches its kernel. Kernels of its file run as PTX then, from libraries
//! of their own; all others run from their sources.

use super::equivalent::Equivalent;
use super::reach::{Reach, TYPES};
use super::{ROOT, fixed_addresses, watched};
use crate::command::step;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Instead of a number of mutants: all barriers, left out, which is for ThreadSanitizer to see.
pub const BARRIERS: &str = "barriers";
/// What was killed so far, for `--resume`.
const RECORD: &str = "target/kernels/mutants.tsv";
/// The number of no mutant.
const UNCHANGED: &str = "-1";
/// Seconds of a processor that a test gets, without a sanitizer and with one. The emulator itself notices most of what goes
/// on forever.
const PATIENCE: [u32; 2] = [300, 1800];
/// What it gets beside other work.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

pub struct Mutants {
    tests: PathBuf,
    /// How many of each file, or [`BARRIERS`].
    which: String,
    /// Lines of [`RECORD`].
    killed: BTreeSet<String>,
    equivalent: Equivalent,
    reach: BTreeMap<String, Reach>,
    /// Trials that pass without a mutant.
    sound: BTreeSet<Trial>,
    survivors: Vec<String>,
}

/// The mutants of a file.
struct File {
    architecture: String,
    module: String,
    /// Lines of number, kernel, place, kind, instruction, mutant.
    mutants: Vec<String>,
    killed: usize,
    equivalent: usize,
}

/// A test of a kernel.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Trial {
    architecture: String,
    module: String,
    kernel: String,
    test: String,
    /// Of weights.
    ty: Option<String>,
    /// By ThreadSanitizer.
    watched: bool,
}

enum Verdict {
    Equivalent,
    Killed,
    Survived,
}

impl Mutants {
    pub fn new(tests: &Path, which: &str, resume: bool) -> Result<Mutants> {
        let record = if resume { std::fs::read_to_string(RECORD).unwrap_or_default() } else { String::new() };
        std::fs::create_dir_all("target/kernels")?;
        std::fs::write(RECORD, &record)?;
        Ok(Mutants {
            tests: tests.into(),
            which: which.into(),
            killed: record.lines().map(String::from).collect(),
            equivalent: Equivalent::load()?,
            reach: BTreeMap::new(),
            sound: BTreeSet::new(),
            survivors: Vec::new(),
        })
    }

    pub fn run(mut self, architectures: &[&str], modules: &[String]) -> Result<()> {
        let mut files = self.files(architectures, modules)?;
        let most = files.iter().map(|file| file.mutants.len()).max().unwrap_or(0);
        // Files in turn: wherever a run ends, it has tried something of each.
        for i in 0..most {
            for file in &mut files {
                let Some(mutant) = file.mutants.get(i) else { continue };
                match self.judge(&file.architecture, &file.module, mutant)? {
                    Verdict::Equivalent => file.equivalent += 1,
                    Verdict::Killed => file.killed += 1,
                    Verdict::Survived => {}
                }
            }
        }
        for File { architecture, module, mutants, killed, equivalent } in &files {
            let (made, survived) = (mutants.len(), mutants.len() - killed - equivalent);
            println!(
                "{architecture} {module}: of {made} mutants {killed} killed, {equivalent} equivalent, {survived} survived"
            );
        }
        if !self.survivors.is_empty() {
            bail!("{} mutants survived:\n{}", self.survivors.len(), self.survivors.join("\n"));
        }
        Ok(())
    }

    fn files(&self, architectures: &[&str], modules: &[String]) -> Result<Vec<File>> {
        let mut files = Vec::new();
        for module in modules {
            let mut seen: Vec<String> = Vec::new();
            for architecture in architectures {
                // Most modules are the same for all of them, and so are their mutants.
                let text = instructions(architecture, module)?;
                if seen.contains(&text) {
                    continue;
                }
                seen.push(text);
                let path = format!("{ROOT}/ptx/{architecture}/{module}.ptx");
                let arguments = [&format!("{ROOT}/emulator/ptx.py"), path.as_str(), &self.which, "list"];
                let mutants = step("python3", &arguments).output()?.lines().map(String::from).collect();
                let (architecture, module) = ((*architecture).into(), module.clone());
                files.push(File { architecture, module, mutants, killed: 0, equivalent: 0 });
            }
        }
        Ok(files)
    }

    fn judge(&mut self, architecture: &str, module: &str, mutant: &str) -> Result<Verdict> {
        let fields: Vec<&str> = mutant.split('\t').collect();
        let [number, kernel, _, what, ..] = fields[..] else { bail!("ptx.py: {mutant}") };
        if self.equivalent.has(module, &fields) {
            return Ok(Verdict::Equivalent);
        }
        let key = format!("{architecture}\t{module}\t{mutant}");
        if self.killed.contains(&key) {
            return Ok(Verdict::Killed);
        }
        let started = Instant::now();
        for trial in self.trials(architecture, module, kernel, what == "left out")? {
            if self.passes(&trial, number)? {
                continue;
            }
            self.is_sound(&trial)?;
            std::fs::OpenOptions::new().append(true).open(RECORD)?.write_all(format!("{key}\n").as_bytes())?;
            let ty = trial.ty.map_or(String::new(), |ty| format!(" with {ty}"));
            let seconds = started.elapsed().as_secs();
            println!("{architecture} {kernel} {number}: killed by {}{ty}, {seconds} s", trial.test);
            self.killed.insert(key);
            return Ok(Verdict::Killed);
        }
        println!("SURVIVED: {key} ({} s)", started.elapsed().as_secs());
        self.survivors.push(key);
        Ok(Verdict::Survived)
    }

    /// The tests that launch a kernel, in the order in which they are tried.
    fn trials(&mut self, architecture: &str, module: &str, kernel: &str, watched: bool) -> Result<Vec<Trial>> {
        if !self.reach.contains_key(architecture) {
            self.reach.insert(architecture.into(), Reach::new(&self.tests, architecture)?);
        }
        let (reach, ty) = (&self.reach[architecture], type_of(kernel));
        // Some tests are for one type only, but can be for any.
        let tests = reach.of(|launched| match ty {
            Some(_) => launched.starts_with(&format!("{module}:")),
            None => launched == format!("{module}:{kernel}"),
        });
        let trial = |test: &str, ty: Option<&str>| Trial {
            architecture: architecture.into(),
            module: module.into(),
            kernel: kernel.into(),
            test: test.into(),
            ty: ty.map(String::from),
            watched,
        };
        if ty.is_some() {
            return Ok(tests.iter().map(|test| trial(test, ty)).collect());
        }
        // Products with one type of weights before those with all.
        let products = tests.iter().filter(|test| test.starts_with("products::"));
        let first = products.map(|test| trial(test, Some(TYPES[0])));
        Ok(first.chain(tests.iter().map(|test| trial(test, None))).collect())
    }

    /// A test that fails with a mutant must pass without one.
    fn is_sound(&mut self, trial: &Trial) -> Result<()> {
        if !self.sound.contains(trial) {
            if !self.passes(trial, UNCHANGED)? {
                bail!("{} {} fails without a mutant, in {}", trial.architecture, trial.kernel, trial.test);
            }
            self.sound.insert(trial.clone());
        }
        Ok(())
    }

    fn passes(&self, trial: &Trial, number: &str) -> Result<bool> {
        let Trial { architecture, module, kernel, test, ty, watched: is_watched } = trial;
        let mut command = fixed_addresses(Path::new("prlimit"));
        command.arg(format!("--cpu={}", PATIENCE[usize::from(*is_watched)])).arg(&self.tests);
        command.args(["--exact", test]).envs([
            ("HEADROOM_PTX", architecture.as_str()),
            ("HEADROOM_MUTANTS", &self.which),
            ("HEADROOM_MUTANT", &format!("{module}:{kernel}:{number}")),
        ]);
        command.envs(ty.as_ref().map(|ty| ("HEADROOM_TYPE", ty)));
        if *is_watched {
            command.envs(watched("thread")?);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("prlimit cannot start")?;
        let end = Instant::now() + LONGEST;
        loop {
            if let Some(status) = child.try_wait()? {
                if matches!(status.code(), Some(126 | 127)) {
                    bail!("the tests cannot be started ({status})");
                }
                return Ok(status.success());
            }
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The type of weights that a kernel of products is named after.
fn type_of(kernel: &str) -> Option<&str> {
    let vector = kernel.strip_prefix("matvec_").and_then(|name| Some(name.rsplit_once('_')?.0));
    kernel.strip_prefix("matmul_").or(vector)
}

/// The text of a module's PTX, but for the line that names its architecture.
fn instructions(architecture: &str, module: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/ptx/{architecture}/{module}.ptx"))?;
    Ok(text.lines().filter(|line| !line.starts_with(".target")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_of_products_have_types() {
        assert_eq!(type_of("matmul_iq4_nl"), Some("iq4_nl"));
        assert_eq!(type_of("matvec_q4_k_1"), Some("q4_k"));
        assert_eq!(type_of("attention_4_2"), None);
    }
}
