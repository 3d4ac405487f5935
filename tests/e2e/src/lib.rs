//! The real window, driven by WebKitWebDriver, against a local server that behaves like the Hub.

mod quants;
mod window;

pub use quants::{QUANTS, REPOSITORY, repository};
pub use window::Window;

use anyhow::{Context, Result};
use std::path::PathBuf;

/// A program built by `cargo xtask test`, which says where programs are.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("HEADROOM_PROGRAMS")
        .context("HEADROOM_PROGRAMS is not set: these tests are run by `cargo xtask test`")?;
    let path = PathBuf::from(folder).join(name);
    anyhow::ensure!(path.is_file(), "{} is missing: build it first", path.display());
    Ok(path)
}

/// A file in `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}
