//! The program `fake-hub` as a child.

use crate::program;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub struct Hub {
    child: Child,
    pub endpoint: String,
}

impl Hub {
    /// Serves the repositories in `folder` (owner/name/files).
    pub fn start(folder: &Path, arguments: &[&str]) -> Result<Hub> {
        let mut child = Command::new(program("fake-hub")?)
            .arg("--dir")
            .arg(folder)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .context("fake-hub")?;
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut endpoint)?;
        Ok(Hub { child, endpoint: endpoint.trim().into() })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
