//! `cargo xtask conformance DIR`: the comparison itself is a program of its own, so that xtask stays quick to build.

use crate::command::cargo;
use anyhow::{Result, bail};
use std::process::ExitCode;

pub fn conformance(arguments: &[String]) -> Result<ExitCode> {
    if arguments.is_empty() {
        bail!("cargo xtask conformance DIR [--only models|quants|dequant|tokenizer|templates]");
    }
    let base = ["run", "--quiet", "--release", "-p", "conformance", "--"].map(String::from);
    cargo(&base.iter().chain(arguments).collect::<Vec<_>>()).done()
}
