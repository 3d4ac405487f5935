//! The committed PTX was compiled from the committed sources: `cargo xtask kernels` records both.
#![allow(clippy::unwrap_used)] // a test

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Files of a folder by name, with their hashes.
fn hashes(folder: &Path, name: &str, endings: &[&str], all: &mut BTreeMap<String, String>) {
    for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let file_name = file.file_name().unwrap().to_str().unwrap();
        if endings.iter().any(|end| file_name.ends_with(end)) {
            let digest = Sha256::digest(std::fs::read(&file).unwrap());
            let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            all.insert(format!("{name}/{file_name}"), hex);
        }
    }
}

#[test]
fn ptx_is_that_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    hashes(&root.join("kernels"), "kernels", &[".cu", ".h"], &mut found);
    for entry in std::fs::read_dir(root.join("ptx")).unwrap() {
        let folder = entry.unwrap().path();
        if folder.is_dir() {
            hashes(&folder, folder.file_name().unwrap().to_str().unwrap(), &[".ptx"], &mut found);
        }
    }
    let record = std::fs::read_to_string(root.join("ptx/sha256")).unwrap();
    let recorded: BTreeMap<String, String> =
        record.lines().filter_map(|line| line.split_once(' ')).map(|(hash, file)| (file.into(), hash.into())).collect();
    assert_eq!(recorded, found, "kernels have changed: run `cargo xtask kernels` and commit what it writes");
    // Drivers from 525 on read this version, and nothing calls what is not there.
    for file in found.keys().filter(|file| file.ends_with(".ptx")) {
        let text = std::fs::read_to_string(root.join("ptx").join(file)).unwrap();
        assert!(text.contains("\n.version 8.0\n") && !text.contains(".extern .func"), "{file}");
    }
}
