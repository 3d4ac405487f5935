//! A loaded model and its speeds.

use anyhow::{Result, bail};
use backend::{Device, Op, View};
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use backend_cuda::{Card, Cuda, GpuConfig, GpuDevice};
use engine::{Cancel, Devices, Engine, LoadOptions, Positions, Request};
use model::{StreamRates, Streaming};
use planner::{AcceleratorFacts, Facts, GpuLayers, Wishes};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What something took, and gave.
pub fn seconds<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let started = Instant::now();
    let result = work()?;
    Ok((started.elapsed().as_secs_f64(), result))
}

/// Bytes per second that are read and written when memory is copied within the GPU.
pub fn copy_bandwidth(card: &Card) -> Result<f64> {
    const DIM: usize = 1 << 18;
    const COPIES: u32 = 10;
    let driver = card.driver().map_err(|absent| anyhow::anyhow!("{absent:?}"))?;
    let mut device = GpuDevice::new(driver, GpuConfig::default());
    let free = card.free_bytes().unwrap_or(0);
    // A tenth of what is free, a GiB at most: more than any cache has.
    let rows = (free / 10 / (4 * DIM as u64)).clamp(1, 1 << 10) as u32;
    let bytes = u64::from(rows) * 4 * DIM as u64;
    let (from, to) = (View::new(device.allocate(bytes)?), View::new(device.allocate(bytes)?));
    let rows: Vec<u32> = (0..rows).collect();
    // Rows that follow each other are one copy.
    let copy = Op::Gather { input: from, rows: &rows, dim: DIM, out: to };
    let mut waited = [0u8; 4];
    device.run(&copy)?;
    device.read(to.buffer, 0, &mut waited)?;
    let (taken, ()) = seconds(|| {
        (0..COPIES).try_for_each(|_| device.run(&copy))?;
        Ok(device.read(to.buffer, 0, &mut waited)?)
    })?;
    Ok(2.0 * f64::from(COPIES) * bytes as f64 / taken)
}

/// What decides whether layers in RAM are computed on the GPU for long prompts.
pub fn stream_rates(card: &Card) -> Result<StreamRates> {
    let driver = driver(card, &Arc::new(ThreadPool::new(threads())))?;
    let rates = backend_cuda::measure(&mut GpuDevice::new(driver, GpuConfig::default()))?;
    let host = backend_cpu::int8_rate(threads())?;
    Ok(StreamRates { host, accelerator: rates.int8, upload: rates.upload })
}

/// As the app makes it: the threads that compute also copy what is uploaded.
fn driver(card: &Card, pool: &Arc<ThreadPool>) -> Result<Cuda> {
    let driver = card.driver().map_err(|absent| anyhow::anyhow!("{absent:?}"))?;
    let pool = pool.clone();
    Ok(driver.with_copier(Arc::new(move |to: &mut [u8], from: &[u8]| pool.copy(to, from))))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

pub struct Loaded {
    pub engine: Engine,
    /// What loading took.
    pub seconds: f64,
    card: Card,
    /// Bytes that were free before.
    free: u64,
}

impl Loaded {
    /// With as many layers on the GPU as have room.
    pub fn new(path: &Path, card: &Card, context: u32, ubatch: u32) -> Result<Loaded> {
        let threads = threads();
        let pool = Arc::new(ThreadPool::new(threads));
        let driver = driver(card, &pool)?;
        let free = card.free_bytes().unwrap_or(0);
        let config = CpuConfig { threads, precision: Precision::Fast, simd: None };
        let host = Box::new(CpuDevice::new(pool, config));
        let device = GpuDevice::new(driver, GpuConfig::default());
        let devices = Devices { host, accelerators: vec![Some(Box::new(device))] };
        let options = LoadOptions { context, ubatch, gpu_layers: u32::MAX.into(), ..LoadOptions::default() };
        let (seconds, engine) = seconds(|| Ok(Engine::load(path, options, devices, &mut |_| {}, &Cancel::new())?))?;
        Ok(Loaded { engine, seconds, card: card.clone(), free })
    }

    /// Any tokens: speed does not depend on them, but for the choice of experts. The same for the same seed.
    fn tokens(&self, count: u32, seed: u32) -> Vec<u32> {
        let vocab = self.engine.model().vocab_size as u32;
        (0..count).map(|i| (i.wrapping_add(seed << 16).wrapping_mul(2_654_435_761) >> 7) % vocab).collect()
    }

    /// Tokens per second of a prompt, the best of three.
    pub fn prompt_rate(&self, count: u32) -> Result<f64> {
        let mut best = f64::INFINITY;
        for seed in 0..3 {
            let prompt = self.tokens(count, 100 + seed);
            let run = || Ok(self.engine.logits(&prompt, Positions::Last, &Cancel::new(), &mut |_| {})?);
            best = best.min(seconds(run)?.0);
        }
        Ok(f64::from(count) / best)
    }

    /// The same with what is in RAM computed on the GPU, whether that is faster or not, and whether it is by these rates.
    pub fn streamed_prompt_rate(&self, count: u32, rates: StreamRates) -> Result<(f64, bool)> {
        let always = StreamRates { host: 1.0, accelerator: 1e15, upload: 1e15 };
        self.engine.set_streaming(Some(always));
        let rate = self.prompt_rate(count);
        self.engine.set_streaming(None);
        let (model, layout, placed) = (self.engine.model(), self.engine.layout(), self.engine.placement().placed);
        let streaming = Streaming::new(model, layout, &placed, &|_| true, rates);
        Ok((rate?, streaming.is_some_and(|streaming| streaming.pays(count, 0))))
    }

    /// Tokens per second of generation after `depth` tokens (of the same text for every depth, so that a deeper one goes on
    /// from the one before), the best of some.
    pub fn generate(&self, depth: u32, count: u32, repeat: u32) -> Result<f64> {
        let mut best = 0f64;
        for _ in 0..repeat {
            let completion = self.complete(depth, count)?;
            let made = completion.ids.len();
            if made != count as usize {
                bail!("{made} tokens were generated instead of {count}");
            }
            best = best.max(made as f64 / completion.generation_seconds);
        }
        Ok(best)
    }

    /// The likeliest tokens after a context.
    pub fn ids(&self, depth: u32, count: u32) -> Result<Vec<u32>> {
        Ok(self.complete(depth, count)?.ids)
    }

    fn complete(&self, depth: u32, count: u32) -> Result<engine::Completion> {
        let sampling = sampler::Params { temperature: 0.0, ..sampler::Params::default() };
        let prompt = self.tokens(depth.max(1), 1);
        let request = Request { prompt, sampling, max_tokens: Some(count), ignore_eog: true };
        Ok(self.engine.generate(request, &Cancel::new(), &mut |_| {})?)
    }

    /// Bytes that are read for a token at a depth, wherever they are: weights (of experts those that are chosen) and cache.
    pub fn bytes_per_token(&self, depth: u32) -> u64 {
        let (model, layout) = (self.engine.model(), self.engine.layout());
        let weights: u64 = model.layers.iter().map(model::Layer::bytes_per_token).sum();
        let totals = layout.totals(0);
        let cache = totals.host.kv as f64 * f64::from(depth) / f64::from(layout.params.context.max(1));
        weights + model.output.weight.weight.bytes + cache as u64
    }

    /// Video memory for the layers that are on the GPU: planned, and gone since the model was loaded.
    pub fn memory(&self) -> (u64, u64) {
        let facts = AcceleratorFacts {
            memory_free: u64::MAX / 2,
            scratch: backend_cuda::scratch,
            footprint: backend_cuda::footprint,
            ..AcceleratorFacts::default()
        };
        let facts = Facts { ram_available: u64::MAX / 2, accelerators: vec![facts], ..Facts::default() };
        let params = self.engine.layout().params;
        let wishes = Wishes {
            gpu_layers: GpuLayers::Fixed(self.engine.placement().gpu_layers),
            context: Some(params.context),
            ubatch: Some(params.ubatch),
            ..Wishes::default()
        };
        let planned = planner::plan(self.engine.model(), &facts, &wishes).map_or(0, |plan| plan.accelerator_total());
        (planned, self.free.saturating_sub(self.card.free_bytes().unwrap_or(0)))
    }
}
