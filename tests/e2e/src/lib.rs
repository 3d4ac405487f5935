//! The real window, driven by WebKitWebDriver, against a local server that behaves like the Hub.

mod quants;
mod window;

pub use quants::{QUANTS, REPOSITORY, file, file_name, repository, with_template};
pub use window::Window;

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Languages and themes, all four together.
pub const LOOKS: [(&str, &str); 4] = [("en", "light"), ("ja", "dark"), ("en", "dark"), ("ja", "light")];

/// The default size of the window and its least one.
pub const SIZES: [(u32, u32); 2] = [(1280, 800), (900, 600)];

/// A program built by `cargo xtask test`, which says where programs are.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("HEADROOM_PROGRAMS")
        .context("HEADROOM_PROGRAMS is not set: these tests are run by `cargo xtask test`")?;
    let path = PathBuf::from(folder).join(name);
    anyhow::ensure!(path.is_file(), "{} is missing: build it first", path.display());
    Ok(path)
}

/// Writes the settings with which a program starts in `data`.
pub fn settings(data: &Path, more: serde_json::Value) -> Result<()> {
    let mut settings = serde_json::json!({ "version": 1, "language": "en", "theme": "light" });
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    std::fs::create_dir_all(data)?;
    Ok(std::fs::write(data.join("settings.json"), settings.to_string())?)
}

/// A file in `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
}
