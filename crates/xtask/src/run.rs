//! Building and opening the app.

use crate::command::{cargo, has_program, npm};
use crate::setup;
use anyhow::{Context, Result, bail};
use std::io::Read;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The model that comes with the repository, for `--demo`.
const DEMO_MODEL: &str = "tests/fixtures/rustdoc-tiny-Q4_K_M.gguf";

pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let mut passed: Vec<String> = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--demo" => passed.extend(["--demo".into(), crate::root().join(DEMO_MODEL).display().to_string()]),
            other => passed.push(other.into()),
        }
    }
    let no_display = cfg!(target_os = "linux") && !has_display();
    setup::for_run(no_display)?;
    build_ui()?;
    cargo(&["build", "--release", "-p", "headroom-desktop", "-p", "cli"]).run()?;
    let program = target_dir()?.join("release").join(format!("headroom-desktop{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(&program);
    command.args(&passed);
    let _display = match no_display {
        true => Some(VirtualDisplay::start()?.announce(&mut command)),
        false => None,
    };
    println!("==> {} {}", program.display(), passed.join(" "));
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn bench(arguments: &[String]) -> Result<ExitCode> {
    if arguments.is_empty() {
        bail!("cargo xtask bench MODEL.gguf [arguments of headroom bench]");
    }
    let base = ["run", "--quiet", "--release", "-p", "cli", "--", "bench"].map(String::from);
    cargo(&base.iter().chain(arguments).collect::<Vec<_>>()).done()
}

/// `ui/dist`, which the shell embeds.
pub fn build_ui() -> Result<()> {
    npm(&["run", "build"]).run()
}

/// Where cargo puts programs.
pub fn target_dir() -> Result<std::path::PathBuf> {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps"]).output()?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

fn has_display() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// An X server without a screen; ends with this value.
pub struct VirtualDisplay {
    server: Child,
    pub name: String,
}

impl VirtualDisplay {
    pub fn start() -> Result<VirtualDisplay> {
        if !has_program("Xvfb") {
            bail!("Xvfb is missing");
        }
        // The server picks a free number and writes it to its standard output.
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start Xvfb")?;
        let mut output = server.stdout.take().context("Xvfb has no output")?;
        let mut number = Vec::new();
        let mut byte = [0u8];
        let started = Instant::now();
        while output.read(&mut byte)? == 1 && byte[0] != b'\n' && started.elapsed() < Duration::from_secs(30) {
            number.push(byte[0]);
        }
        let number = String::from_utf8(number)?;
        if number.is_empty() {
            let _ = server.kill();
            bail!("Xvfb did not start");
        }
        Ok(VirtualDisplay { server, name: format!(":{number}") })
    }

    fn announce(self, command: &mut Command) -> VirtualDisplay {
        println!("There is no display: the window opens on a virtual one, DISPLAY={}.", self.name);
        command.env("DISPLAY", &self.name);
        self
    }
}

impl Drop for VirtualDisplay {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
