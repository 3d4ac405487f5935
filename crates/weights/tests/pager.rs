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
                pager.guess(data.clone());
                let ticket = if index % 4 == round { pager.confirm(&data) } else { pager.fetch(data.clone()) };
                if index % 5 == round {
                    pager.call_off();
                }
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

#[test]
fn guesses_are_read_one_after_the_other_or_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, ModelSpec::llama().build()).unwrap();
    let model = ModelFile::open(&path, Access::Map).unwrap();
    let pager = Pager::new().unwrap();
    let all: Vec<_> = (0..model.gguf().tensors.len()).map(|index| model.tensor_bytes(index).unwrap()).collect();
    let mut given_back = 0;
    for _ in 0..200 {
        all.iter().for_each(|bytes| pager.guess(bytes.clone()));
        // Waiting or not: it ends.
        pager.wait(pager.confirm(&all[all.len() - 1]));
        let back = pager.call_off();
        assert!(back.iter().all(|bytes| bytes.as_ptr() != all[all.len() - 1].as_ptr()), "it was confirmed");
        given_back += back.len();
        assert!(pager.call_off().is_empty());
    }
    assert!(given_back > 0);
    // Left alone, they are read.
    let mut left = all.clone();
    let start = std::time::Instant::now();
    while !left.is_empty() {
        assert!(start.elapsed().as_secs() < 300, "guesses are not read: {} are left", left.len());
        left.drain(..).for_each(|bytes| pager.guess(bytes));
        std::thread::sleep(std::time::Duration::from_millis(2));
        left = pager.call_off();
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
