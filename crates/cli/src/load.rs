//! Finding a model and loading it as the flags say.

use crate::args::{Loading, Sampling};
use crate::failure::Failure;
use backend_cpu::{CpuConfig, CpuDevice, Precision, TestDevice, ThreadPool};
use engine::{Cancel, Devices, Engine, LoadOptions};
use planner::GpuLayers;
use std::path::PathBuf;
use std::sync::Arc;

/// The file that MODEL means: a path.
pub fn find(model: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(model);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(
        "not-found",
        format!("there is no file '{model}': see `headroom list`, or give the path of a .gguf file"),
    ))
}

pub fn header(model: &str) -> Result<gguf::Gguf, Failure> {
    Ok(weights::read_header(&find(model)?)?)
}

/// A loaded model and how long that took.
pub struct Loaded {
    pub engine: Engine,
    pub seconds: f64,
}

pub fn load(model: &str, loading: &Loading, context: u32, logits_rows: u32) -> Result<Loaded, Failure> {
    let path = find(model)?;
    let threads = loading.threads.unwrap_or_else(default_threads).clamp(1, 1024);
    let precision = if loading.exact { Precision::Exact } else { Precision::Fast };
    let config = CpuConfig { threads, precision, simd: None };
    let pool = Arc::new(ThreadPool::new(threads));
    let accelerator = loading
        .test_device
        .map(|limit| Box::new(TestDevice::new(pool.clone(), config, limit).0) as Box<dyn engine::Device>);
    let all = u32::MAX;
    let gpu_layers = match (&accelerator, loading.placement.gpu_layers) {
        (None, _) => 0,
        (Some(_), GpuLayers::Auto) => all,
        (Some(_), GpuLayers::Fixed(layers)) => layers,
    };
    let devices = Devices { host: Box::new(CpuDevice::new(pool, config)), accelerator };
    let options = LoadOptions {
        context,
        gpu_layers,
        kv_type_k: loading.placement.kv_type_k,
        kv_type_v: loading.placement.kv_type_v,
        ubatch: loading.ubatch,
        mmap: !loading.no_mmap,
        mlock: loading.mlock,
        logits_rows,
    };
    let started = std::time::Instant::now();
    let engine = Engine::load(&path, options, devices, &mut |_| {}, &Cancel::new())?;
    Ok(Loaded { engine, seconds: started.elapsed().as_secs_f64() })
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Sampling parameters from the flags, over `base`.
pub fn sampling(flags: &Sampling, base: sampler::Params) -> sampler::Params {
    sampler::Params {
        temperature: flags.temperature.unwrap_or(base.temperature),
        top_k: flags.top_k.unwrap_or(base.top_k),
        top_p: flags.top_p.unwrap_or(base.top_p),
        min_p: flags.min_p.unwrap_or(base.min_p),
        repeat_penalty: flags.repeat_penalty.unwrap_or(base.repeat_penalty),
        repeat_last_n: flags.repeat_last_n.unwrap_or(base.repeat_last_n),
        presence_penalty: flags.presence_penalty.unwrap_or(base.presence_penalty),
        frequency_penalty: flags.frequency_penalty.unwrap_or(base.frequency_penalty),
        seed: flags.seed.unwrap_or(base.seed),
        ..base
    }
}
