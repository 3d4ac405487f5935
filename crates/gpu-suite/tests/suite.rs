//! The suite on a libcuda.so.1 over the emulator of `backend-cuda`: that it runs, and that it can fail. Needs a C++ compiler
//! (`c++`).
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)] // a test

#[path = "../../backend-cuda/tests/common/library.rs"]
#[allow(dead_code)]
mod library;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A packed folder, with these scripts as test programs.
fn folder(tests: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_gpu-suite"), folder.path().join("gpu-suite")).unwrap();
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    for (name, script) in tests {
        let path = folder.path().join("tests").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    folder
}

/// The exit status, the table, and everything for a failed test to show.
fn suite(folder: &Path, arguments: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let driver = tempfile::tempdir().unwrap();
    let mut command = Command::new(folder.join("gpu-suite"));
    command.args(arguments).envs(library::fake_driver(driver.path())).env("FAKE_CUDA_MODULE", "1000000");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let table = text.rsplit("\n\n").next().unwrap().lines().map(str::to_owned).collect();
    (status.code(), table, format!("{text}\n{errors}"))
}

/// The only row about this, without its mark.
fn row<'a>(table: &'a [String], what: &str) -> (&'a str, &'a str) {
    let found: Vec<&String> = table.iter().filter(|row| row.contains(what)).collect();
    assert_eq!(found.len(), 1, "{what}: {table:#?}");
    (found[0][..4].trim(), &found[0][5..])
}

#[test]
fn both_models_are_measured() {
    let folder = folder(&[]);
    let (_, table, all) = suite(folder.path(), &["--tiny", "--only", "bench"]);
    assert!(!table.is_empty(), "{all}");
    assert!(row(&table, "Fake GPU").1.contains("capability 8.6, 8192 MiB"), "{all}");
    assert_eq!(row(&table, "measuring").0, "ok", "{all}");
    for name in ["llama3-8b-Q4_K_M", "qwen3-30b-a3b-Q4_K_M"] {
        let at = |what: &str| row(&table, &format!("{name}: {what}"));
        assert!(at("layers on the GPU").1.contains("3 of 3"), "{all}");
        for rate in [
            "prompt of 16 ",
            "generation, 0 tokens",
            "generation, 20 tokens",
            "generation, 40 tokens",
            "generation on the CPU",
        ] {
            let value = at(rate).1.split(" tokens/s").next().unwrap().rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().unwrap() > 0.0, "{rate}: {value}");
        }
        assert!(at("one layer to RAM").1.contains(" ms") && at("one layer to the GPU").1.contains(" ms"));
        // The emulator is slow, but it takes what is planned, and moves nothing but layers.
        assert_eq!((at("video memory").0, at("tokens after the moves").0), ("ok", "ok"), "{all}");
        assert!(at("generation, 1 of 3 layers").1.contains("by both shares"));
        let streamed = at("prompt of 16, 1 of 3 layers on the GPU, streamed").1;
        assert!(streamed.contains(" tokens/s") && streamed.contains("by what was measured"), "{streamed}");
    }
    // Models are kept for the next time.
    let (_, table, _) = suite(folder.path(), &["--tiny", "--only", "bench"]);
    assert!(!table.is_empty() && !table.iter().any(|row| row.contains(": written")), "{table:#?}");
}

#[test]
fn a_failed_test_and_one_that_hangs_fail_the_suite() {
    let good = r#"[ "$HEADROOM_DRIVER" = cuda ] && [ -n "$HEADROOM_FIXTURES" ] && echo "test result: ok. 2 passed; 0 failed; 0 ignored""#;
    let bad = "echo 'test sums ... FAILED'; echo 'test result: FAILED. 1 passed; 1 failed; 0 ignored'; exit 101";
    let nothing = "echo 'test result: ok. 0 passed; 0 failed; 0 ignored'";
    let (status, table, all) = suite(folder(&[("good", good)]).path(), &["--only", "checks"]);
    assert_eq!((status, row(&table, "tests: good").0), (Some(0), "ok"), "{all}");
    let tests = [("bad", bad), ("good", good), ("hangs", "sleep 60"), ("nothing", nothing)];
    let (status, table, all) = suite(folder(&tests).path(), &["--only", "checks", "--minutes", "0.06"]);
    assert_eq!(status, Some(1), "{all}");
    assert_eq!(
        (row(&table, "bad: sums").0, row(&table, "tests: bad").0, row(&table, "tests: good").0),
        ("FAIL", "FAIL", "ok")
    );
    assert!(row(&table, "tests: hangs").1.contains("took too long"), "{all}");
    assert_eq!(row(&table, "tests: nothing").0, "FAIL", "a program without tests proves nothing: {all}");
}

#[test]
fn without_a_gpu_there_is_no_table() {
    let folder = folder(&[]);
    let output = Command::new(folder.path().join("gpu-suite")).env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    // On a machine with a GPU this measures, which is not what is asked here.
    if output.status.code() == Some(2) {
        assert!(String::from_utf8_lossy(&output.stderr).contains("no GPU can be used"));
    }
}
