//! `cargo xtask kernels --prove`: the tests of the kernels on the PTX itself, under sanitizers, and with mutants of the PTX,
//! which must not pass.

use crate::command::{cargo, step};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

const ROOT: &str = "crates/backend-cuda";
/// What was killed so far, for `--resume`.
const RECORD: &str = "target/kernels/mutants.tsv";
/// Mutants of a module and an architecture, unless `--mutants` says otherwise, and what they are drawn with.
const MUTANTS: &str = "12";
const SEED: &str = "1";
const BARRIERS: &str = "barriers";
/// The number of no mutant.
const UNCHANGED: &str = "-1";
/// What a mutant gets for each of the two rounds of tests, also beside other work. One that goes on is noticed by the
/// emulator, mostly.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What the tests get without a mutant: they compile first.
const FIRST: Duration = Duration::from_secs(3600);

/// The modules of kernels, with the tests that launch theirs: first one that says soon whether a mutant is alive, then all.
const TESTS: [(&str, &str, &str); 16] = [
    ("attention", "attention::sizes", "attention::"),
    ("conv", "recurrent::convolutions", "recurrent::"),
    ("elementwise", "operations::value_by_value", "operations::"),
    ("experts", "operations::routes", "operations::"),
    ("glu", "operations::gated_units", "operations::"),
    ("groups", "products::experts_in_prompts", "products::"),
    ("hadamard", "operations::walsh", "operations::"),
    ("matmul", "products::many_rows", "products::"),
    ("matvec", "products::one_row", "products::"),
    ("norm", "operations::norms", "operations::"),
    ("quantize", "products::activations_are_rounded", "products::"),
    ("recurrent", "recurrent::", "recurrent::"),
    ("rope", "operations::rotary", "operations::"),
    ("rows", "operations::whole_rows", "operations::"),
    ("store_kv", "attention::types_of_caches", "attention::"),
    ("streams", "operations::streams", "operations::"),
];
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
    let modules = value("--modules", "");
    let modules: Vec<&(&str, &str, &str)> = match modules.as_str() {
        "" => TESTS.iter().collect(),
        names => {
            let one = |name| {
                let found = TESTS.iter().find(|(module, ..)| *module == name);
                found.with_context(|| format!("there is no module {name}"))
            };
            names.split(',').map(one).collect::<Result<_>>()?
        }
    };
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

/// A run of mutants of one kind.
struct Mutants {
    tests: PathBuf,
    /// How many of each file, or `barriers`: all of them, left out, which is for ThreadSanitizer to see.
    which: String,
    /// Lines of [`RECORD`].
    killed: BTreeSet<String>,
    /// Mutants that compute the same, with the reason: `ptx/equivalent.tsv`.
    equivalent: Vec<String>,
    counts: [usize; 2],
    survivors: Vec<String>,
}

impl Mutants {
    fn new(tests: &Path, which: &str, resume: bool) -> Result<Mutants> {
        let record = if resume { std::fs::read_to_string(RECORD).unwrap_or_default() } else { String::new() };
        std::fs::write(RECORD, &record)?;
        let equivalent = std::fs::read_to_string(Path::new(ROOT).join("ptx/equivalent.tsv"))?;
        let lines = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
        Ok(Mutants {
            tests: tests.into(),
            which: which.into(),
            killed: lines(&record).into_iter().collect(),
            equivalent: lines(&equivalent),
            counts: [0; 2],
            survivors: Vec::new(),
        })
    }

    fn run(mut self, architectures: &[&str], modules: &[&(&str, &str, &str)]) -> Result<()> {
        for (module, quick, all) in modules {
            let mut seen: Vec<String> = Vec::new();
            for architecture in architectures {
                // Most modules are the same for all of them, and so are their mutants.
                let text = instructions(architecture, module)?;
                if seen.contains(&text) {
                    continue;
                }
                seen.push(text);
                let mutants = self.list(architecture, module)?;
                if mutants.is_empty() {
                    continue;
                }
                if !self.passes(architecture, module, UNCHANGED, None, quick)? {
                    bail!("{architecture} {module}: the tests fail without a mutant");
                }
                let [killed, equivalent] = self.counts;
                let survivors = self.survivors.len();
                for mutant in &mutants {
                    self.judge(architecture, module, mutant, [quick, all])?;
                }
                println!(
                    "{architecture} {module}: of {} mutants {} killed, {} equivalent, {} survived",
                    mutants.len(),
                    self.counts[0] - killed,
                    self.counts[1] - equivalent,
                    self.survivors.len() - survivors
                );
            }
        }
        if !self.survivors.is_empty() {
            bail!("{} mutants survived:\n{}", self.survivors.len(), self.survivors.join("\n"));
        }
        Ok(())
    }

    /// Lines of number, kernel, place, kind, instruction, mutant.
    fn list(&self, architecture: &str, module: &str) -> Result<Vec<String>> {
        let file = format!("{ROOT}/ptx/{architecture}/{module}.ptx");
        let arguments = [&format!("{ROOT}/emulator/ptx.py"), file.as_str(), &self.which, "list"];
        Ok(step("python3", &arguments).output()?.lines().map(String::from).collect())
    }

    fn judge(&mut self, architecture: &str, module: &str, mutant: &str, filters: [&str; 2]) -> Result<()> {
        let fields: Vec<&str> = mutant.split('\t').collect();
        let [number, kernel, _, what, ..] = fields[..] else { bail!("ptx.py: {mutant}") };
        // The place of an instruction changes with what comes before it: its text is enough, except of barriers.
        let text =
            if what == "left out" { fields[1..].join("\t") } else { [&[kernel], &fields[3..]].concat().join("\t") };
        if self.equivalent.iter().any(|line| line.starts_with(&format!("{module}\t{text}\t"))) {
            self.counts[1] += 1;
            return Ok(());
        }
        let key = format!("{architecture}\t{module}\t{mutant}");
        if !self.killed.contains(&key) {
            // Kernels of products are named after their type.
            let vector = kernel.strip_prefix("matvec_").and_then(|name| Some(name.rsplit_once('_')?.0));
            let ty = kernel.strip_prefix("matmul_").or(vector);
            for filter in filters {
                if !self.passes(architecture, module, number, ty, filter)? {
                    self.killed.insert(key.clone());
                    break;
                }
            }
            if !self.killed.contains(&key) {
                println!("SURVIVED: {key}");
                self.survivors.push(key);
                return Ok(());
            }
            std::fs::OpenOptions::new().append(true).open(RECORD)?.write_all(format!("{key}\n").as_bytes())?;
        }
        self.counts[0] += 1;
        Ok(())
    }

    /// Whether tests pass with a mutant of a module, of which alone the PTX is run then.
    fn passes(&self, architecture: &str, module: &str, number: &str, ty: Option<&str>, filter: &str) -> Result<bool> {
        let mut command = fixed_addresses(&self.tests);
        command.args([filter, "--skip", LONG, "--test-threads", "1"]).envs([
            ("HEADROOM_PTX", architecture),
            ("HEADROOM_MUTANTS", &self.which),
            ("HEADROOM_MUTANT", &format!("{module}:{number}")),
        ]);
        command.envs(ty.map(|ty| ("HEADROOM_TYPE", ty)));
        if self.which == BARRIERS {
            command.envs(watched("thread")?);
        }
        let patience = if number == UNCHANGED { FIRST } else { PATIENCE };
        passes(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?, patience)
    }
}

/// The text of a module's PTX, but for the line that names its architecture.
fn instructions(architecture: &str, module: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/ptx/{architecture}/{module}.ptx"))?;
    Ok(text.lines().filter(|line| !line.starts_with(".target")).collect::<Vec<_>>().join("\n"))
}

/// Whether all tests pass; ends them at the first that does not, and when they take too long.
fn passes(mut child: Child, patience: Duration) -> Result<bool> {
    let output = child.stdout.take().context("the child has no output")?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
            if send.send(line.ends_with("FAILED")).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + patience;
    loop {
        match receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(false) => {}
            // The program has closed its output: it ends.
            Err(RecvTimeoutError::Disconnected) => return Ok(child.wait()?.success()),
            Ok(true) | Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
        }
    }
}
