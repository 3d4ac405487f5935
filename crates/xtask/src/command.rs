//! Running other programs, said aloud.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

/// A command that prints itself before it runs.
pub struct Step {
    command: Command,
    shown: String,
}

/// `program arguments...` in the repository's root.
pub fn step<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Step {
    let mut command = Command::new(program);
    command.args(arguments);
    let words = arguments.iter().map(|argument| argument.as_ref().to_string_lossy().into_owned());
    let shown = std::iter::once(program.to_string()).chain(words).collect::<Vec<_>>().join(" ");
    Step { command, shown }
}

/// The cargo that runs us.
pub fn cargo<S: AsRef<OsStr>>(arguments: &[S]) -> Step {
    let mut cargo = step("cargo", arguments);
    if let Some(path) = std::env::var_os("CARGO") {
        let mut command = Command::new(path);
        command.args(arguments);
        cargo.command = command;
    }
    cargo
}

/// npm, in `ui`.
pub fn npm<S: AsRef<OsStr>>(arguments: &[S]) -> Step {
    // On Windows it is a script as a rule, which is only found with its ending; some version managers bring a program.
    let script = cfg!(windows) && (has_program("npm.cmd") || !has_program("npm"));
    let mut npm = step(if script { "npm.cmd" } else { "npm" }, arguments);
    npm.command.current_dir("ui");
    npm.shown = format!("(ui) {}", npm.shown);
    npm
}

impl Step {
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Step {
        self.command.env(key, value);
        self
    }

    /// In a folder of the repository.
    pub fn inside(mut self, folder: &str) -> Step {
        self.command.current_dir(folder);
        self
    }

    /// Runs it with our own output; an error if it fails.
    pub fn run(mut self) -> Result<()> {
        println!("==> {}", self.shown);
        let status = self.command.status().with_context(|| format!("cannot start: {}", self.shown))?;
        if !status.success() {
            bail!("failed ({status}): {}", self.shown);
        }
        Ok(())
    }

    pub fn done(self) -> Result<ExitCode> {
        self.run().map(|()| ExitCode::SUCCESS)
    }

    /// Runs it, passing its lines on as they come, and gives the lines and whether it succeeded.
    pub fn lines(mut self) -> Result<(bool, Vec<String>)> {
        println!("==> {}", self.shown);
        let mut child =
            self.command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start: {}", self.shown))?;
        let output = child.stdout.take().context("the child has no output")?;
        let mut lines = Vec::new();
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).trim_end().to_string();
            println!("{line}");
            lines.push(line);
        }
        Ok((child.wait()?.success(), lines))
    }

    /// Whether it starts and succeeds, silently.
    pub fn succeeds(mut self) -> bool {
        let command = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// What it prints, if it starts and succeeds, whatever its encoding; silently.
    pub fn answer(mut self) -> Option<String> {
        let output = self.command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What it prints, if it succeeds.
    pub fn output(mut self) -> Result<String> {
        let output = self.command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("failed ({}): {}", output.status, self.shown);
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Whether a program of this name is in PATH.
pub fn has_program(name: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path)
        .any(|folder| folder.join(name).is_file() || folder.join(format!("{name}.exe")).is_file())
}
