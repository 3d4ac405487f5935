//! Reading past the system's cache: the same bytes, or none.

#![allow(clippy::unwrap_used)]

use test_models::ModelSpec;
use weights::{Access, Loader, ModelFile};

fn model(bytes: &[u8]) -> (tempfile::TempDir, ModelFile) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let model = ModelFile::open(&path, Access::Map).unwrap();
    (folder, model)
}

#[test]
fn bytes_are_those_of_the_file() {
    // Tensors begin anywhere in a sector, and the last one ends where the file does.
    let bytes = ModelSpec { n_vocab: 3001, ..ModelSpec::qwen3moe() }.build();
    let (_folder, model) = model(&bytes);
    for budget in [0, 100_000, u64::MAX] {
        let loader = Loader::new(budget).unwrap();
        for _ in 0..3 {
            let all: Vec<_> = (0..model.gguf().tensors.len())
                .map(|index| (index, model.tensor_bytes(index).unwrap()))
                .map(|(index, data)| (index, loader.load(&data)))
                .collect();
            for (index, load) in all {
                let tensor = &model.gguf().tensors[index];
                // A file system that cannot do it loads nothing.
                let Some(load) = load else { continue };
                let block = load.wait().unwrap();
                assert_eq!(**block, bytes[tensor.offset as usize..tensor.end() as usize], "{}", tensor.name);
                assert_eq!(block.as_ptr() as usize % 32, tensor.offset as usize % 32, "aligned as in the file");
            }
        }
    }
}

#[test]
fn what_was_called_off_is_not_waited_for_and_ends_with_the_loader() {
    let (_folder, model) = model(&ModelSpec::llama().build());
    let data = model.tensor_bytes(0).unwrap();
    let loader = Loader::new(1 << 20).unwrap();
    let loads: Vec<_> = (0..500).filter_map(|n| loader.load(&data).filter(|_| n % 7 == 0)).collect();
    let expected = data.to_vec();
    assert!(loads.iter().all(|load| load.wait().is_none_or(|block| **block == *expected)));
    let late: Vec<_> = (0..500).filter_map(|_| loader.load(&data)).collect();
    drop(loader);
    // Read before or not at all.
    assert!(late.iter().all(|load| load.wait().is_none_or(|block| **block == *expected)));
}

#[test]
fn blocks_outlive_the_loader_and_the_model() {
    let (_folder, model) = model(&ModelSpec::llama().build());
    let data = model.tensor_bytes(1).unwrap();
    let expected = data.to_vec();
    let loader = Loader::new(1 << 20).unwrap();
    let Some(load) = loader.load(&data) else { return };
    let block = load.wait().unwrap();
    drop((loader, model, data, load));
    assert_eq!(**block, *expected);
}

#[test]
fn memory_of_our_own_has_no_file_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, ModelSpec::llama().build()).unwrap();
    let model = ModelFile::open(&path, Access::Read).unwrap();
    assert!(Loader::new(0).unwrap().load(&model.tensor_bytes(0).unwrap()).is_none());
}

/// On Windows nobody can do that to it.
#[test]
#[cfg(unix)]
fn a_file_that_was_cut_short_loads_nothing() {
    use std::time::{Duration, Instant};
    let (folder, model) = model(&ModelSpec::llama().build());
    let last = (0..model.gguf().tensors.len()).max_by_key(|index| model.gguf().tensors[*index].offset).unwrap();
    let data = model.tensor_bytes(last).unwrap();
    let loader = Loader::new(1 << 20).unwrap();
    let path = folder.path().join("model.gguf");
    let offset = model.gguf().tensors[last].offset;
    for len in [offset, offset + 100] {
        std::fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let Some(load) = loader.load(&data) else { return };
        let start = Instant::now();
        assert!(load.wait().is_none());
        assert!(start.elapsed() < Duration::from_secs(300));
    }
    assert!(model.check().is_err());
}
