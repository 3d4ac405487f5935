//! Loading tiny models on the host and on the test device.

#![allow(dead_code)] // every test uses a part of this

pub mod exact;

use backend_cpu::{CpuConfig, CpuDevice, Precision, TestDevice, TestDeviceControl, ThreadPool};
use engine::{Cancel, Completion, Devices, Engine, EngineError, Event, LoadOptions, Request};
use std::sync::Arc;
use tempfile::{NamedTempFile, TempPath};
use test_models::ModelSpec;

/// A model file that lives as long as this does.
pub fn file(spec: &ModelSpec) -> TempPath {
    file_of(&spec.build())
}

/// Closed: on Windows a file that somebody may write to is not loaded.
pub fn file_of(bytes: &[u8]) -> TempPath {
    let path = NamedTempFile::with_suffix(".gguf").expect("a temporary file").into_temp_path();
    std::fs::write(&path, bytes).expect("room for a tiny model");
    path
}

pub fn config(precision: Precision) -> CpuConfig {
    CpuConfig { threads: 2, precision, simd: None }
}

/// The model on the host, with a test device of `limit` bytes beside it if one is wanted.
pub fn load(
    spec: &ModelSpec,
    options: LoadOptions,
    limit: Option<u64>,
) -> Result<(Engine, Option<TestDeviceControl>), EngineError> {
    load_with(spec, options, limit, |_| {})
}

pub fn load_with(
    spec: &ModelSpec,
    options: LoadOptions,
    limit: Option<u64>,
    prepare: impl Fn(&TestDeviceControl),
) -> Result<(Engine, Option<TestDeviceControl>), EngineError> {
    load_file(&spec.build(), options, limit, prepare, Precision::Fast)
}

/// The same for any file's bytes.
pub fn load_file(
    bytes: &[u8],
    options: LoadOptions,
    limit: Option<u64>,
    prepare: impl Fn(&TestDeviceControl),
    precision: Precision,
) -> Result<(Engine, Option<TestDeviceControl>), EngineError> {
    let file = file_of(bytes);
    let pool = Arc::new(ThreadPool::new(2));
    let config = config(precision);
    let mut control = None;
    let accelerator = limit.map(|limit| {
        let (device, handle) = TestDevice::new(pool.clone(), config, limit);
        prepare(&handle);
        control = Some(handle);
        Box::new(device) as Box<dyn engine::Device>
    });
    let devices = Devices { host: Box::new(CpuDevice::new(pool, config)), accelerator };
    let engine = Engine::load(&file, options, devices, &mut |_| {}, &Cancel::new())?;
    Ok((engine, control))
}

pub fn options(context: u32, gpu_layers: u32) -> LoadOptions {
    LoadOptions { context, gpu_layers, ubatch: 16, ..LoadOptions::default() }
}

pub fn prompt(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 37 + 11) % 300 + 3).collect()
}

pub fn request(prompt: &[u32], count: u32) -> Request {
    let sampling = sampler::Params { temperature: 0.0, ..sampler::Params::default() };
    Request { prompt: prompt.to_vec(), sampling, max_tokens: Some(count), ignore_eog: true }
}

/// The greedy continuation and everything that was told on the way.
pub fn greedy(engine: &Engine, prompt: &[u32], count: u32) -> (Completion, Vec<Event>) {
    let mut events = Vec::new();
    let completion =
        engine.generate(request(prompt, count), &Cancel::new(), &mut |event| events.push(event)).expect("an answer");
    (completion, events)
}
