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
    let limits: Vec<u64> = limit.into_iter().collect();
    let (engine, mut controls) = load_on(bytes, options, &limits, prepare, precision)?;
    Ok((engine, controls.pop()))
}

/// The same with several test devices.
pub fn load_several(
    spec: &ModelSpec,
    options: LoadOptions,
    limits: &[u64],
) -> Result<(Engine, Vec<TestDeviceControl>), EngineError> {
    load_several_with(spec, options, limits, |_| {})
}

pub fn load_several_with(
    spec: &ModelSpec,
    options: LoadOptions,
    limits: &[u64],
    prepare: impl Fn(&TestDeviceControl),
) -> Result<(Engine, Vec<TestDeviceControl>), EngineError> {
    load_on(&spec.build(), options, limits, prepare, Precision::Fast)
}

fn load_on(
    bytes: &[u8],
    options: LoadOptions,
    limits: &[u64],
    prepare: impl Fn(&TestDeviceControl),
    precision: Precision,
) -> Result<(Engine, Vec<TestDeviceControl>), EngineError> {
    let file = file_of(bytes);
    let pool = Arc::new(ThreadPool::new(2));
    let config = config(precision);
    let device = |limit: &u64| {
        let (device, control) = TestDevice::new(pool.clone(), config, *limit);
        prepare(&control);
        (Some(Box::new(device) as Box<dyn engine::Device>), control)
    };
    let (accelerators, controls) = limits.iter().map(device).unzip();
    let devices = Devices { host: Box::new(CpuDevice::new(pool.clone(), config)), accelerators };
    let engine = Engine::load(&file, options, devices, &mut |_| {}, &Cancel::new())?;
    Ok((engine, controls))
}

pub fn options(context: u32, gpu_layers: u32) -> LoadOptions {
    LoadOptions { context, gpu_layers: gpu_layers.into(), ubatch: 16, ..LoadOptions::default() }
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
