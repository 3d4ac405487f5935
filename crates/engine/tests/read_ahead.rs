//! Weights that stay in RAM are there before the first token asks for them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod common;

use backend_cpu::{CpuDevice, Precision, ThreadPool};
use common::{config, options};
use engine::{Cancel, Devices, Engine, LoadOptions};
use std::path::Path;
use std::sync::Arc;
use test_models::ModelSpec;
use weights::{Access, ModelFile};

fn load(path: &Path, host_ram: u64) -> Engine {
    let host = Box::new(CpuDevice::new(Arc::new(ThreadPool::new(2)), config(Precision::Fast)));
    let devices = Devices { host, accelerators: Vec::new() };
    let options = LoadOptions { host_ram: Some(host_ram), ..options(64, 0) };
    Engine::load(path, options, devices, &mut |_| {}, &Cancel::new()).unwrap()
}

/// Bytes in the system's cache when the model is loaded and nothing reads any more. The file was not there before.
fn resident_after_load(path: &Path, host_ram: u64) -> u64 {
    let model = ModelFile::open(path, Access::Map).unwrap();
    (0..model.gguf().tensors.len()).for_each(|index| model.tensor_bytes(index).unwrap().evict());
    let engine = load(path, host_ram);
    while engine.is_reading() {
        std::thread::yield_now();
    }
    model.resident_bytes().unwrap()
}

/// Where the folder's file system drops pages when it is asked to (those in memory do not, and nothing can be seen there).
#[test]
fn what_stays_is_read_before_the_first_token() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("model.gguf");
    let spec = ModelSpec { n_layer: 6, n_ff: 4096, n_embd: 256, ..ModelSpec::llama() };
    std::fs::write(&path, spec.build()).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let file = ModelFile::open(&path, Access::Map).unwrap();
    let layers: u64 =
        file.gguf().tensors.iter().filter(|tensor| tensor.name.starts_with("blk.")).map(|tensor| tensor.bytes).sum();
    assert!(layers > 16 << 20, "{layers}");
    let whole = file.resident_bytes().unwrap();
    let data = file.named_bytes("blk.0.ffn_up.weight").unwrap();
    data.evict();
    if file.resident_bytes().unwrap() == whole {
        return;
    }
    let read = resident_after_load(&path, 1 << 30);
    assert!(read >= layers, "{read} of {layers}");
    // What has to make room again is read when it is needed.
    let read = resident_after_load(&path, layers / 2);
    assert!(read < layers / 2, "{read} of {layers}");
}
