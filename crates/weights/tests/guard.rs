//! The SIGBUS handler leaves everybody else's faults alone. (That it repairs ours is tested in `model_file.rs`.)

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use test_models::ModelSpec;
use weights::{Access, ModelFile};

/// Set for the process that is to die; the folder it may use.
const CHILD: &str = "WEIGHTS_TEST_FOLDER";

#[test]
fn faults_of_others_still_end_the_program() {
    if let Some(folder) = std::env::var_os(CHILD) {
        die(folder.as_ref());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faults_of_others_still_end_the_program"])
        .current_dir(&folder)
        .env(CHILD, folder.path())
        .output()
        .unwrap()
        .status;
    assert_eq!(status.signal(), Some(7), "SIGBUS was expected to end the process: {status}");
}

/// Maps a file without a guard beside a guarded model, cuts it and reads it.
fn die(folder: &std::path::Path) {
    let model = folder.join("model.gguf");
    fs::write(&model, ModelSpec::llama().build()).unwrap();
    let model = ModelFile::open(&model, Access::Map).unwrap();
    let path = folder.join("other");
    fs::write(&path, [1; 100_000]).unwrap();
    // SAFETY: plain bytes; that the file is cut below is what the test is about.
    let other = unsafe { memmap2::Mmap::map(&File::open(&path).unwrap()) }.unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(other[50_000], 0);
    model.check().unwrap();
}
