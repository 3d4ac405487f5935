//! The thread that reads ahead: contents never change, waiting always ends.

#![allow(clippy::unwrap_used)]

use test_models::ModelSpec;
use weights::{Access, ModelFile, Pager};

#[test]
fn bytes_are_the_same_whatever_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let bytes = ModelSpec::qwen3moe().build();
    std::fs::write(&path, &bytes).unwrap();
    for access in [Access::Map, Access::Read] {
        let model = ModelFile::open(&path, access).unwrap();
        let pager = Pager::new().unwrap();
        for round in 0..3 {
            for (index, tensor) in model.gguf().tensors.iter().enumerate() {
                let data = model.tensor_bytes(index).unwrap();
                let ticket = pager.fetch(data.clone());
                if index % 3 == round {
                    pager.evict(data.clone());
                }
                if index % 2 == 0 {
                    pager.wait(ticket);
                }
                assert_eq!(*data, bytes[tensor.offset as usize..tensor.end() as usize], "{access:?} {}", tensor.name);
            }
        }
        drop(pager);
        model.check().unwrap();
    }
}

#[test]
fn what_was_called_off_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, ModelSpec::llama().build()).unwrap();
    let model = ModelFile::open(&path, Access::Map).unwrap();
    let pager = Pager::new().unwrap();
    let data = model.tensor_bytes(0).unwrap();
    for _ in 0..200 {
        let ticket = pager.fetch(data.clone());
        pager.evict(data.clone());
        pager.wait(ticket);
    }
}

/// Where the folder's file system drops pages when it is asked to (those in memory do not).
#[test]
#[cfg(target_os = "linux")]
fn evicted_bytes_leave_the_memory_and_fetched_ones_come() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("model.gguf");
    let spec = ModelSpec { n_vocab: 2000, ..ModelSpec::llama() };
    std::fs::write(&path, spec.build()).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let model = ModelFile::open(&path, Access::Map).unwrap();
    let largest = (0..model.gguf().tensors.len()).max_by_key(|i| model.tensor_bytes(*i).unwrap().len()).unwrap();
    let data = model.tensor_bytes(largest).unwrap();
    assert!(data.len() > 100_000, "{}", data.len());
    let before = data.to_vec();
    let whole = model.resident_bytes().unwrap();
    data.evict();
    let without = model.resident_bytes().unwrap();
    if without == whole {
        return;
    }
    assert!(whole - without >= data.len() as u64 - 2 * 65_536, "{whole} {without}");
    let pager = Pager::new().unwrap();
    pager.wait(pager.fetch(data.clone()));
    assert!(model.resident_bytes().unwrap() > without);
    assert_eq!(*data, before);
}
