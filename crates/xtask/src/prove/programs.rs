//! The programs of the kernels' tests, and tests of them in processes of their own.

use super::ROOT;
use super::record::stamp;
use crate::command::{cargo, step};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a test gets beside other work.
const LONGEST: Duration = Duration::from_secs(2 * 3600);
/// As much as is shown of what a test says.
const SHOWN: usize = 3000;

pub struct Program {
    pub name: String,
    pub path: PathBuf,
    /// Of the program as it was built.
    pub stamp: String,
    pub tests: Vec<String>,
}

impl Program {
    /// All there are, built.
    pub fn all() -> Result<Vec<Program>> {
        let build = ["test", "-p", "backend-cuda", "--tests", "--no-run", "--message-format", "json"];
        let messages = cargo(&build).output()?;
        let built = messages.lines().filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let target = &message["target"];
            let is_test = target["kind"].as_array()?.iter().any(|kind| kind == "test");
            let path = PathBuf::from(message["executable"].as_str()?);
            is_test.then(|| Some((target["name"].as_str()?.to_owned(), path)))?
        });
        built.map(|(name, path)| Program::new(name, path)).collect()
    }

    fn new(name: String, path: PathBuf) -> Result<Program> {
        let list = fixed_addresses(&path).args(["--list", "--format", "terse"]).output()?;
        let list = String::from_utf8(list.stdout)?;
        let tests = list.lines().filter_map(|line| line.strip_suffix(": test")).map(String::from).collect();
        Ok(Program { stamp: stamp([std::fs::read(&path)?]), name, path, tests })
    }

    /// Those whose names begin so.
    pub fn tests(&self, starts: &[&str]) -> impl Iterator<Item = &str> {
        let tests = self.tests.iter().map(String::as_str);
        tests.filter(move |name| starts.iter().any(|start| name.starts_with(start)))
    }
}

/// A test in a process of its own.
pub struct Run<'a> {
    pub program: &'a Path,
    pub test: &'a str,
    pub settings: Vec<(&'static str, String)>,
    /// Seconds of a processor, if there is a limit.
    pub patience: Option<u32>,
}

impl Run<'_> {
    /// Nothing if the test passes, or else what it said.
    pub fn failure(&self) -> Result<Option<String>> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(format!("target/kernels/{}-{number}.log", std::process::id()));
        let ended = self.watch(&std::fs::File::create(&log)?);
        let said = std::fs::read(&log)?;
        std::fs::remove_file(&log)?;
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(SHOWN)..]).into_owned();
        // A program also succeeds when it has no such test.
        let did_nothing = || (!said.contains("1 passed")).then(|| "it was not run".to_owned());
        Ok(ended?.or_else(did_nothing).map(|how| format!("{how}\n{said}")))
    }

    /// How it ended, if not well.
    fn watch(&self, log: &std::fs::File) -> Result<Option<String>> {
        let patience = self.patience.map_or("unlimited".into(), |seconds| seconds.to_string());
        let mut command = fixed_addresses(Path::new("prlimit"));
        command.arg(format!("--cpu={patience}")).arg(self.program).args(["--exact", self.test]);
        // As cargo does.
        command.current_dir(ROOT).envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log.try_clone()?));
        let mut child = command.spawn().context("setarch cannot start")?;
        let end = Instant::now() + LONGEST;
        loop {
            if let Some(status) = child.try_wait()? {
                if matches!(status.code(), Some(126 | 127)) {
                    bail!("the tests cannot be started ({status})");
                }
                return Ok((!status.success()).then(|| status.to_string()));
            }
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Ok(Some(format!("no end after {} s", LONGEST.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The variables with which kernels are watched by a sanitizer of the C++ compiler.
pub fn watched(sanitizer: &str) -> Result<Vec<(&'static str, String)>> {
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

/// Sanitizers want their shadows at fixed addresses.
pub fn fixed_addresses(program: &Path) -> Command {
    let mut command = Command::new("setarch");
    command.arg("-R").arg(program);
    command
}
