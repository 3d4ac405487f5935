//! Packs what a machine with a GPU needs to run every check and measurement: programs, test programs, small models.

use crate::command::cargo;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// So that it can be sent anywhere.
const LARGEST: u64 = 60 << 20;
/// Of the reference data: what whole models are compared with.
const REFERENCE: [&str; 2] = ["models", "ref"];
const PROGRAMS: [(&str, &str); 2] = [("gpu-suite", "gpu-suite"), ("cli", "headroom")];
/// Tests that run on any driver; the others need a compiler and the sources.
const TESTS: [&str; 1] = ["device"];
const FIXTURES: [&str; 1] = ["rustdoc-tiny-Q4_K_M.gguf"];

pub fn gpu_suite(arguments: &[String]) -> Result<ExitCode> {
    let (mut folder, mut reference, mut dev) = (None, None, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--pack" => folder = arguments.next().map(PathBuf::from),
            "--reference" => reference = arguments.next().map(PathBuf::from),
            "--dev" => dev = true,
            other => bail!("unknown argument {other}"),
        }
    }
    pack(&folder.context("gpu-suite --pack FOLDER")?, reference.as_deref(), dev)?;
    Ok(ExitCode::SUCCESS)
}

fn pack(folder: &Path, reference: Option<&Path>, dev: bool) -> Result<()> {
    std::fs::create_dir_all(folder.join("tests"))?;
    let profile: &[&str] = if dev { &[] } else { &["--release"] };
    // Where there is no room for it, the suite itself comes first.
    let programs = if dev || reference.is_some() { &PROGRAMS[..1] } else { &PROGRAMS[..] };
    for (package, program) in programs {
        let arguments = [&["build", "-p", package, "--bin", program], profile].concat();
        copy(&built(&arguments, "bin", program)?, &folder.join(format!("{program}{}", std::env::consts::EXE_SUFFIX)))?;
    }
    for test in TESTS {
        let arguments = [&["test", "--no-run", "-p", "backend-cuda", "--test", test], profile].concat();
        copy(
            &built(&arguments, "test", test)?,
            &folder.join("tests").join(format!("{test}{}", std::env::consts::EXE_SUFFIX)),
        )?;
    }
    for fixture in FIXTURES {
        copy(&Path::new("tests/fixtures").join(fixture), &folder.join("fixtures").join(fixture))?;
    }
    for part in REFERENCE.iter().filter(|_| reference.is_some()) {
        let from = reference.unwrap_or(Path::new("")).join(part);
        for entry in std::fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let path = entry?.path();
            copy(&path, &folder.join("reference").join(part).join(path.file_name().unwrap_or_default()))?;
        }
    }
    let bytes = bytes(folder)?;
    let mib = bytes as f64 / f64::from(1 << 20);
    if bytes > LARGEST && !dev {
        bail!("{} has {mib:.1} MiB, more than {}", folder.display(), LARGEST >> 20);
    }
    println!(
        "{} has {mib:.1} MiB. Copy it to a machine with an NVIDIA driver and start gpu-suite in it.",
        folder.display()
    );
    Ok(())
}

/// The program of this name that a build makes.
fn built(arguments: &[&str], kind: &str, name: &str) -> Result<PathBuf> {
    let messages = cargo(&[arguments, &["--message-format=json-render-diagnostics"]].concat()).output()?;
    messages.lines().find_map(|line| program(line, kind, name)).with_context(|| format!("cargo made no {name}"))
}

/// The path in one of cargo's messages, if it is about this program.
fn program(message: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    let is_it = target["name"] == name && target["kind"][0] == kind;
    message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
    // An earlier one may be read-only.
    let _ = std::fs::remove_file(to);
    std::fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

fn bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        sum += if data.is_dir() { bytes(&entry.path())? } else { data.len() };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let message =
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"device"},"executable":"/t/device-1"}"#;
        assert_eq!(program(message, "test", "device"), Some("/t/device-1".into()));
        assert_eq!(program(message, "bin", "device"), None);
        assert_eq!(program(&message.replace("\"/t/device-1\"", "null"), "test", "device"), None);
        assert_eq!(program("warning: x", "test", "device"), None);
    }
}
