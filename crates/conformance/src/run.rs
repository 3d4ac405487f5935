//! Runs a model file: logits of a prompt, greedy tokens after it.

use anyhow::Result;
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use backend_cuda::{Card, GpuConfig, GpuDevice};
use engine::{BackendError, Cancel, Device, Devices, Engine, EngineError, LoadOptions, Positions, Request};
use quant::GgmlType;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// With `options.gpu_layers` on the GPU, where there is one.
pub fn load(
    path: &Path,
    options: LoadOptions,
    precision: Precision,
    gpu: Option<&Card>,
) -> Result<Engine, EngineError> {
    let config = CpuConfig { threads: 2, precision, simd: None };
    let host = CpuDevice::new(Arc::new(ThreadPool::new(config.threads)), config);
    let accelerator = match gpu.map(|card| card.driver()).transpose() {
        Ok(driver) => driver.map(|driver| Box::new(GpuDevice::new(driver, GpuConfig::default())) as Box<dyn Device>),
        Err(absent) => {
            let (device, detail) = ("GPU".into(), format!("{absent:?}"));
            return Err(EngineError::Device(BackendError::Lost { device, detail }));
        }
    };
    let devices = Devices { host: Box::new(host), accelerators: vec![accelerator] };
    Engine::load(path, options, devices, &mut |_| {}, &Cancel::new())
}

/// The reference rounds activations to 8 bits where weights are quantized; so does the fast path.
pub fn precision(path: &Path) -> Result<Precision> {
    let bytes = std::fs::read(path)?;
    let gguf = gguf::Gguf::parse(&bytes, bytes.len() as u64)?;
    Ok(if is_quantized(&gguf) { Precision::Fast } else { Precision::Exact })
}

pub fn is_quantized(gguf: &gguf::Gguf) -> bool {
    gguf.tensors.iter().any(|tensor| !matches!(tensor.ty, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16))
}

/// Rows of logits at `positions`.
pub fn logits(engine: &Engine, prompt: &[u32], positions: &[usize]) -> Result<Vec<f32>> {
    let mut rows = Vec::new();
    let mut index = 0;
    engine.logits(prompt, Positions::All, &Cancel::new(), &mut |row| {
        if positions.contains(&index) {
            rows.extend_from_slice(row);
        }
        index += 1;
    })?;
    Ok(rows)
}

pub fn greedy(engine: &Engine, prompt: &[u32], count: usize) -> Result<Vec<u32>> {
    let request = Request {
        prompt: prompt.to_vec(),
        sampling: sampler::Params { temperature: 0.0, ..sampler::Params::default() },
        max_tokens: Some(count as u32),
        ignore_eog: true,
    };
    Ok(engine.generate(request, &Cancel::new(), &mut |_| {})?.ids)
}

/// A JSON array of numbers, as whatever kind is wanted.
pub fn numbers<T: FromNumber>(value: &Value) -> Vec<T> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_f64).map(T::from_number).collect()).unwrap_or_default()
}

pub trait FromNumber {
    fn from_number(number: f64) -> Self;
}

impl FromNumber for f64 {
    fn from_number(number: f64) -> f64 {
        number
    }
}

impl FromNumber for u32 {
    fn from_number(number: f64) -> u32 {
        number as u32
    }
}

impl FromNumber for usize {
    fn from_number(number: f64) -> usize {
        number as usize
    }
}
