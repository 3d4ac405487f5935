//! Mutants of the PTX: each has to fail a test that launches its kernel. Kernels of its file run as PTX then, from libraries
//! of their own; all others run from their sources.

use super::equivalent::{Equivalent, LEFT_OUT};
use super::jobs::{self, Job};
use super::programs::{Program, Run, watched};
use super::reach::{Reach, TYPES};
use super::record::{Record, stamp, texts};
use super::{ROOT, Scope};
use crate::command::step;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Instead of a number of mutants: all barriers, left out, which is for ThreadSanitizer to see.
pub const BARRIERS: &str = "barriers";
/// The number of no mutant.
const UNCHANGED: &str = "-1";
/// Seconds of a processor that a test gets, without a sanitizer and with one. The emulator itself notices most of what goes
/// on forever.
const PATIENCE: [u32; 2] = [300, 1800];

pub struct Mutants<'a> {
    program: &'a Program,
    /// How many of each file, or [`BARRIERS`].
    which: &'a str,
    /// By architecture.
    reach: BTreeMap<String, Reach>,
    /// Trials that pass without a mutant.
    sound: Mutex<BTreeSet<Trial>>,
}

/// The mutants of a file.
struct File {
    architecture: String,
    module: String,
    mutants: Vec<Mutant>,
    equivalent: usize,
}

struct Mutant {
    architecture: String,
    module: String,
    kernel: String,
    number: String,
    is_barrier: bool,
    /// In the record.
    line: String,
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
    /// By a sanitizer.
    watched: Option<&'static str>,
}

/// Tries all that are not recorded as killed; those that survive.
pub fn prove(part: &str, program: &Program, which: &str, scope: &Scope, record: &Record) -> Result<Vec<String>> {
    let files = files(part, which, scope)?;
    // Files in turn: wherever a run ends, it has tried something of each.
    let most = files.iter().map(|file| file.mutants.len()).max().unwrap_or(0);
    let in_turn: Vec<&Mutant> =
        (0..most).flat_map(|i| files.iter().filter_map(move |file| file.mutants.get(i))).collect();
    let mut mutants = Mutants { program, which, reach: BTreeMap::new(), sound: Mutex::default() };
    for mutant in in_turn.iter().filter(|mutant| !record.has(&mutant.line)) {
        if !mutants.reach.contains_key(&mutant.architecture) {
            let reach = Reach::new(program, &mutant.architecture, scope.width)?;
            mutants.reach.insert(mutant.architecture.clone(), reach);
        }
    }
    let mutants = &mutants;
    let jobs = in_turn.into_iter().map(|mutant| {
        let name = format!("{} {} {}", mutant.architecture, mutant.kernel, mutant.number);
        Job { name, line: mutant.line.clone(), work: Box::new(move || mutants.kill(mutant)) }
    });
    let failed = jobs::prove(part, &jobs.collect::<Vec<_>>(), record, scope.width);
    for File { architecture, module, mutants, equivalent } in &files {
        if mutants.len() + equivalent == 0 {
            continue;
        }
        let (made, killed) = (mutants.len() + equivalent, mutants.iter().filter(|m| record.has(&m.line)).count());
        let left = mutants.len() - killed;
        println!("{architecture} {module}: of {made} {killed} killed, {equivalent} equivalent, {left} survived");
    }
    Ok(failed)
}

fn files(part: &str, which: &str, scope: &Scope) -> Result<Vec<File>> {
    let (mut equivalent, emulator) = (Equivalent::load()?, stamp(texts(&Path::new(ROOT).join("emulator"))?));
    let mut files = Vec::new();
    for module in &scope.modules {
        let mut seen: Vec<String> = Vec::new();
        for architecture in &scope.architectures {
            // Most modules are the same for all of them, and so are their mutants.
            let text = instructions(architecture, module)?;
            if seen.contains(&text) {
                continue;
            }
            let texts = stamp([&emulator, &text]);
            seen.push(text);
            let path = format!("{ROOT}/ptx/{architecture}/{module}.ptx");
            let list = step("python3", &[&format!("{ROOT}/emulator/ptx.py"), path.as_str(), which, "list"]).output()?;
            let mut file =
                File { architecture: architecture.clone(), module: module.clone(), mutants: Vec::new(), equivalent: 0 };
            for shown in list.lines() {
                let fields: Vec<&str> = shown.split('\t').collect();
                let [number, kernel, _, what, ..] = fields[..] else { bail!("ptx.py: {shown}") };
                if !scope.kernels.is_empty() && !scope.kernels.iter().any(|wanted| wanted == kernel) {
                    continue;
                }
                if equivalent.has(module, &fields) {
                    file.equivalent += 1;
                    continue;
                }
                file.mutants.push(Mutant {
                    architecture: architecture.clone(),
                    module: module.clone(),
                    kernel: kernel.into(),
                    number: number.into(),
                    is_barrier: what == LEFT_OUT,
                    line: format!("{part}\t{architecture}\t{module}\t{shown}\t{texts}"),
                });
            }
            files.push(file);
        }
    }
    if scope.whole {
        equivalent.unmet(which == BARRIERS).for_each(|line| println!("equivalent.tsv: no mutant drawn is {line}"));
    }
    Ok(files)
}

impl Mutants<'_> {
    fn kill(&self, mutant: &Mutant) -> Result<String> {
        for trial in self.trials(mutant) {
            let started = Instant::now();
            if self.passes(&trial, &mutant.number)? {
                continue;
            }
            let seconds = started.elapsed().as_secs();
            self.is_sound(&trial)?;
            let ty = trial.ty.map_or(String::new(), |ty| format!(" with {ty}"));
            let sanitizer = trial.watched.map_or(String::new(), |name| format!(" ({name} sanitizer)"));
            return Ok(format!("killed by {}{ty}{sanitizer} in {seconds} s", trial.test));
        }
        bail!("SURVIVED: {}", mutant.line)
    }

    /// The tests that launch a kernel, in the order in which they are tried.
    fn trials(&self, mutant: &Mutant) -> Vec<Trial> {
        let Mutant { architecture, module, kernel, is_barrier, .. } = mutant;
        let (reach, product) = (&self.reach[architecture], product_of(kernel));
        // Some tests are for one type only, but can be for any.
        let tests = reach.of(|launched| match product {
            Some((_, size)) => launched.starts_with(&format!("{module}:")) && launched.ends_with(size),
            None => launched == format!("{module}:{kernel}"),
        });
        let trial = |test: &str, ty: Option<&str>| Trial {
            architecture: architecture.clone(),
            module: module.clone(),
            kernel: kernel.clone(),
            test: test.into(),
            ty: ty.map(String::from),
            watched: is_barrier.then_some("thread"),
        };
        let mut trials: Vec<Trial> = match product {
            Some((ty, _)) => tests.iter().map(|test| trial(test, Some(ty))).collect(),
            None => {
                // Products with one type of weights before those with all.
                let products = tests.iter().filter(|test| test.starts_with("products::"));
                let first = products.map(|test| trial(test, Some(TYPES[0])));
                first.chain(tests.iter().map(|test| trial(test, None))).collect()
            }
        };
        if !is_barrier {
            // What is read outside of buffers and not used is a fault that nobody else sees.
            let again = trials.clone().into_iter().map(|trial| Trial { watched: Some("address"), ..trial });
            trials.extend(again);
        }
        trials
    }

    /// A test that fails with a mutant must pass without one.
    fn is_sound(&self, trial: &Trial) -> Result<()> {
        let known = || self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        if !known().contains(trial) {
            if !self.passes(trial, UNCHANGED)? {
                bail!("{} {} fails without a mutant, in {}", trial.architecture, trial.kernel, trial.test);
            }
            known().insert(trial.clone());
        }
        Ok(())
    }

    fn passes(&self, trial: &Trial, number: &str) -> Result<bool> {
        let Trial { architecture, module, kernel, test, ty, watched: sanitizer } = trial;
        let mut settings = vec![
            ("HEADROOM_PTX", architecture.clone()),
            ("HEADROOM_MUTANTS", self.which.to_owned()),
            ("HEADROOM_MUTANT", format!("{module}:{kernel}:{number}")),
        ];
        settings.extend(ty.clone().map(|ty| ("HEADROOM_TYPE", ty)));
        if let Some(sanitizer) = sanitizer {
            settings.extend(watched(sanitizer)?);
        }
        let patience = Some(PATIENCE[usize::from(sanitizer.is_some())]);
        Ok(Run { program: &self.program.path, test, settings, patience }.failure()?.is_none())
    }
}

/// Of a kernel of products, the type of weights and the size (rows of activations, or of a tile) that it is named after, this
/// with a line before it.
fn product_of(kernel: &str) -> Option<(&str, &str)> {
    let name = ["matvec_", "matmul_"].iter().find_map(|start| kernel.strip_prefix(start))?;
    Some(name.split_at(name.rfind('_')?))
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
        assert_eq!(product_of("matmul_iq4_nl_32"), Some(("iq4_nl", "_32")));
        assert_eq!(product_of("matvec_q4_k_1"), Some(("q4_k", "_1")));
        assert_eq!(product_of("attention_4_2"), None);
    }

    /// As they are named now, and not only once.
    #[test]
    fn all_kernels_of_products_have_types_that_tests_know() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backend-cuda");
        let tests = std::fs::read_to_string(crates.join("tests/device/products.rs")).unwrap().to_lowercase();
        let mut count = 0;
        for module in ["matmul", "matvec"] {
            let text = std::fs::read_to_string(crates.join(format!("ptx/compute_80/{module}.ptx"))).unwrap();
            for name in text.split(".entry ").skip(1).filter_map(|rest| rest.split('(').next()) {
                let (ty, size) = product_of(name).unwrap();
                assert!([" ", "["].iter().any(|before| tests.contains(&format!("{before}{ty},"))), "{name}: {ty}");
                assert!(["_1", "_4", "_32", "_64"].contains(&size), "{name}: {size}");
                count += 1;
            }
        }
        assert!(count > 100, "{count}");
    }
}
