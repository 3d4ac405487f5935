//! Runs the real program in a home of its own.
#![allow(dead_code)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;
use test_models::ModelSpec;

/// A home folder that is deleted at the end.
pub struct Home {
    pub folder: TempDir,
    endpoint: String,
}

/// How a program ended, as text.
#[derive(Debug)]
pub struct Ended {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Home {
        // Nobody listens there.
        Home::with_hub("http://127.0.0.1:9")
    }

    pub fn with_hub(endpoint: &str) -> Home {
        Home { folder: tempfile::tempdir().unwrap(), endpoint: endpoint.into() }
    }

    /// As in the folder of a user with a Japanese name.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("山田 データ")
    }

    /// The program with these arguments, knowing nothing of the real home, nor of a real GPU.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.gpu_command(arguments);
        command.arg("--no-gpu");
        command
    }

    /// The same, with the GPU that its driver offers.
    pub fn gpu_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
        for name in ["HF_TOKEN", "HF_HUB_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME", "NO_COLOR"] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.folder.path())
            .env("HF_HOME", self.folder.path().join("hf"))
            .env("HF_ENDPOINT", &self.endpoint)
            .env("NO_PROXY", "127.0.0.1")
            .arg("--data-dir")
            .arg(self.data())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().unwrap())
    }

    /// The one JSON object that the program prints.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[&["--json"], arguments].concat());
        assert_eq!(ended.status, 0, "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// A failure with nothing on standard output.
    pub fn fails(&self, arguments: &[&str], status: i32, code: &str) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.status, status, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&format!("error [{code}]: ")), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
        ended.stderr
    }

    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A tiny model, outside of the library.
    pub fn model(&self, name: &str, spec: &ModelSpec) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, spec.build()).unwrap();
        path.to_str().unwrap().into()
    }

    pub fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().into()
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().into()
    }
}

pub fn ended(output: Output) -> Ended {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    Ended {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr,
    }
}

/// A trained model of the repository.
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    path.to_str().unwrap().into()
}

/// The keys of an object, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Asserts that an object has these keys and no others.
pub fn has_keys(value: &Value, wanted: &[&str]) {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    assert_eq!(keys(value), wanted);
}

/// What Ctrl-C sends.
#[cfg(unix)]
pub fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}
