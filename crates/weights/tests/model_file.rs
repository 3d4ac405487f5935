//! Opening models from disk: whole, split, broken, changing under us.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use test_models::ModelSpec;
use weights::{Access, ModelFile, Pattern, WeightBytes, WeightsError, read_header};

const BOTH: [Access; 2] = [Access::Map, Access::Read];

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn save(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Saves a model in `parts` files and returns their paths.
fn save_split(folder: &TempDir, spec: &ModelSpec, parts: usize) -> Vec<PathBuf> {
    let names = gguf::split_file_names(&format!("model-00001-of-{parts:05}.gguf")).unwrap();
    names.iter().zip(spec.build_split(parts)).map(|(name, bytes)| save(folder, name, &bytes)).collect()
}

fn open_error(path: &Path) -> WeightsError {
    let error = ModelFile::open(path, Access::Map).unwrap_err();
    assert_eq!(error.to_string(), read_header(path).unwrap_err().to_string());
    error
}

#[test]
fn tensors_are_the_bytes_of_the_file() {
    let folder = folder();
    let bytes = ModelSpec::qwen3moe().build();
    let path = save(&folder, "model.gguf", &bytes);
    for access in BOTH {
        let model = ModelFile::open(&path, access).unwrap();
        assert_eq!(model.gguf(), &read_header(&path).unwrap());
        assert_eq!(model.paths().collect::<Vec<_>>(), [path.as_path()]);
        for (index, tensor) in model.gguf().tensors.iter().enumerate() {
            let expected = &bytes[tensor.offset as usize..tensor.end() as usize];
            let view = model.view(&tensor.name).unwrap();
            assert_eq!((view.bytes, view.ty, view.shape), (expected, tensor.ty, tensor.shape.as_slice()));
            assert_eq!(&*model.tensor_bytes(index).unwrap(), expected);
            assert_eq!(&*model.named_bytes(&tensor.name).unwrap(), expected);
        }
        assert!(model.view("no.such.tensor").is_none());
        let count = model.gguf().tensors.len();
        assert!(matches!(model.tensor_bytes(count), Err(WeightsError::NoSuchTensor { index, .. }) if index == count));
    }
}

#[test]
fn any_part_opens_the_whole_model() {
    let folder = folder();
    let spec = ModelSpec::llama();
    let whole = spec.build();
    let header = gguf::Gguf::parse(&whole, whole.len() as u64).unwrap();
    let paths = save_split(&folder, &spec, 3);
    for path in &paths {
        for access in BOTH {
            let model = ModelFile::open(path, access).unwrap();
            assert!(model.paths().eq(paths.iter()));
            assert_eq!(model.gguf().tensors.len(), header.tensors.len());
            for tensor in &header.tensors {
                let expected = &whole[tensor.offset as usize..tensor.end() as usize];
                assert_eq!(model.view(&tensor.name).unwrap().bytes, expected, "{}", tensor.name);
            }
        }
    }
}

#[test]
fn wrong_sets_of_parts_are_refused() {
    let folder = folder();
    let paths = save_split(&folder, &ModelSpec::llama(), 3);

    let odd = folder.path().join("odd-name.gguf");
    fs::copy(&paths[0], &odd).unwrap();
    assert!(matches!(open_error(&odd), WeightsError::PartName { count: 3, .. }));

    let second = fs::read(&paths[1]).unwrap();
    fs::copy(&paths[2], &paths[1]).unwrap();
    assert!(matches!(open_error(&paths[0]), WeightsError::WrongPart { expected: 2, found: 3, .. }));

    // A part of the same number, of a model with other tensors.
    fs::write(&paths[1], &ModelSpec { n_layer: 3, ..ModelSpec::llama() }.build_split(3)[1]).unwrap();
    assert!(matches!(open_error(&paths[0]), WeightsError::Invalid { .. }));

    fs::remove_file(&paths[1]).unwrap();
    let error = open_error(&paths[2]);
    assert!(matches!(&error, WeightsError::MissingPart { path, part: 2, count: 3 } if *path == paths[1]), "{error}");

    fs::write(&paths[1], second).unwrap();
    ModelFile::open(&paths[0], Access::Map).unwrap();
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let folder = folder();
    assert!(matches!(open_error(&folder.path().join("none.gguf")), WeightsError::NotFound { .. }));
    assert!(matches!(open_error(folder.path()), WeightsError::NotAFile { .. }));
    assert!(matches!(open_error(&save(&folder, "empty", b"")), WeightsError::Truncated { file_len: 0, .. }));
    assert!(matches!(open_error(&save(&folder, "page", b"<!DOCTYPE html>")), WeightsError::NotGguf { .. }));
    assert!(matches!(open_error(&save(&folder, "old", b"GGUF\x01\0\0\0")), WeightsError::Invalid { .. }));
}

#[test]
fn a_file_cut_short_is_refused_with_numbers() {
    let folder = folder();
    let bytes = ModelSpec::llama().build();
    let header_len = gguf::Gguf::parse(&bytes, bytes.len() as u64).unwrap().data_offset as usize;
    for len in [5, 20, header_len / 2, header_len, bytes.len() / 2, bytes.len() - 1] {
        let path = save(&folder, "cut.gguf", &bytes[..len]);
        match open_error(&path) {
            WeightsError::Truncated { file_len, needed, .. } => {
                assert_eq!(file_len, len as u64);
                assert!(needed > file_len && needed <= bytes.len() as u64, "{len}: {needed}");
            }
            other => panic!("{len}: {other}"),
        }
    }
}

#[cfg(unix)]
#[test]
fn a_file_without_permission_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = save(&folder, "secret.gguf", &ModelSpec::llama().build());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    // The superuser may read everything.
    match ModelFile::open(&path, Access::Map) {
        Err(error) => assert!(matches!(error, WeightsError::PermissionDenied { .. }), "{error}"),
        Ok(_) => assert!(fs::read(&path).is_ok()),
    }
}

#[test]
fn handles_outlive_the_model_and_cross_threads() {
    let folder = folder();
    let path = save(&folder, "model.gguf", &ModelSpec::mixtral().build());
    for access in BOTH {
        let model = ModelFile::open(&path, access).unwrap();
        let name = "blk.0.ffn_up_exps.weight";
        let expected = model.view(name).unwrap().bytes.to_vec();
        let experts = model.named_bytes(name).unwrap();
        drop(model);
        let one = expected.len() / 4;
        let second: WeightBytes = experts.slice(one..2 * one).unwrap();
        assert!(experts.slice(0..expected.len() + 1).is_none());
        assert!(second.slice(0..one + 1).is_none());
        let read = std::thread::spawn(move || second.slice(4..one).unwrap().to_vec());
        assert_eq!(read.join().unwrap(), expected[one + 4..2 * one]);
        assert_eq!(*experts, expected);
    }
}

#[test]
fn advice_never_changes_contents() {
    let folder = folder();
    let bytes = ModelSpec::llama().build();
    let path = save(&folder, "model.gguf", &bytes);
    for access in BOTH {
        let model = ModelFile::open(&path, access).unwrap();
        for pattern in [Pattern::Sequential, Pattern::Resident, Pattern::Random, Pattern::Normal] {
            model.advise(pattern);
        }
        for (index, tensor) in model.gguf().tensors.iter().enumerate() {
            let data = model.tensor_bytes(index).unwrap();
            data.will_need();
            data.advise(Pattern::Sequential);
            data.dont_need();
            assert_eq!(*data, bytes[tensor.offset as usize..tensor.end() as usize], "{access:?} {}", tensor.name);
        }
        if cfg!(target_os = "linux") {
            let resident = model.resident_bytes().unwrap();
            assert!(resident > 0 && resident <= bytes.len() as u64, "{resident}");
        }
        model.check().unwrap();
    }
}

#[test]
fn locking_works_or_says_why_not() {
    let folder = folder();
    let bytes = ModelSpec::llama().build();
    let model = ModelFile::open(&save(&folder, "model.gguf", &bytes), Access::Map).unwrap();
    match model.lock() {
        Ok(()) if cfg!(target_os = "linux") => {
            let page_end = (bytes.len() as u64).next_multiple_of(65_536);
            assert!((bytes.len() as u64..=page_end).contains(&model.resident_bytes().unwrap()));
        }
        Ok(()) => {}
        Err(WeightsError::Lock { bytes: wanted, .. }) => assert_eq!(wanted, bytes.len() as u64),
        Err(other) => panic!("{other}"),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_cut_while_mapped_reads_as_zeros_and_is_reported() {
    let folder = folder();
    let path = save(&folder, "model.gguf", &ModelSpec::llama().build());
    let other_path = save(&folder, "other.gguf", &ModelSpec::qwen2().build());
    let model = ModelFile::open(&path, Access::Map).unwrap();
    let other = ModelFile::open(&other_path, Access::Map).unwrap();
    let copied = ModelFile::open(&path, Access::Read).unwrap();
    let last = model.gguf().tensors.len() - 1;
    let expected = model.tensor_bytes(last).unwrap().to_vec();
    assert!(model.still_whole());

    fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    assert!(matches!(model.check(), Err(WeightsError::Changed { found: 4096, .. })));
    // Without the guard, this read ends the process. (The page of the new end may keep its old bytes.)
    let data = model.tensor_bytes(last).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn({
                let data = data.clone();
                move || data.to_vec()
            })
        })
        .collect();
    for thread in threads {
        assert!(thread.join().unwrap().iter().all(|&byte| byte == 0));
    }
    assert!(matches!(model.check(), Err(WeightsError::Unreadable { .. })));
    assert!(!model.still_whole());

    // Others are not touched: neither other files, nor a copy in memory.
    other.check().unwrap();
    copied.check().unwrap();
    assert_eq!(*copied.tensor_bytes(last).unwrap(), expected);

    // Opening it again says what is wrong, and a whole file works again.
    drop((model, data));
    assert!(matches!(open_error(&path), WeightsError::Truncated { file_len: 4096, .. }));
    fs::write(&path, ModelSpec::llama().build()).unwrap();
    let model = ModelFile::open(&path, Access::Map).unwrap();
    assert_eq!(*model.tensor_bytes(last).unwrap(), expected);
    model.check().unwrap();
}

#[cfg(unix)]
#[test]
fn deleting_and_replacing_do_no_harm() {
    let folder = folder();
    let path = save(&folder, "model.gguf", &ModelSpec::llama().build());
    let model = ModelFile::open(&path, Access::Map).unwrap();
    let expected = fs::read(&path).unwrap();
    let replacement = save(&folder, "new.gguf", b"something else");
    fs::rename(replacement, &path).unwrap();
    fs::remove_file(&path).unwrap();
    for (index, tensor) in model.gguf().tensors.iter().enumerate() {
        assert_eq!(*model.tensor_bytes(index).unwrap(), expected[tensor.offset as usize..tensor.end() as usize]);
    }
    model.check().unwrap();
}

#[cfg(windows)]
#[test]
fn a_file_in_use_can_be_read_but_not_deleted() {
    let folder = folder();
    let path = save(&folder, "model.gguf", &ModelSpec::llama().build());
    let model = ModelFile::open(&path, Access::Map).unwrap();
    assert!(fs::remove_file(&path).is_err());
    assert!(fs::File::options().write(true).open(&path).is_err());
    ModelFile::open(&path, Access::Map).unwrap();
    model.check().unwrap();
    drop(model);
    let copied = ModelFile::open(&path, Access::Read).unwrap();
    fs::remove_file(&path).unwrap();
    copied.check().unwrap();
}

#[cfg(windows)]
#[test]
fn looking_at_a_header_disturbs_nobody() {
    let folder = folder();
    let path = save(&folder, "model.gguf", &ModelSpec::llama().build());
    let writer = fs::File::options().write(true).open(&path).unwrap();
    weights::read_header(&path).unwrap();
    assert!(matches!(ModelFile::open(&path, Access::Map), Err(WeightsError::InUse { .. })));
    drop(writer);
    ModelFile::open(&path, Access::Map).unwrap();
}
