//! Tests in a process of their own that has the fake driver, and models on it.

use super::driver::State;
use super::emulator::newest;
use super::library::fake_driver;
use backend::Device;
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use backend_cuda::Architecture::{self, Compute61, Compute75, Compute80};
use backend_cuda::{Card, CudaDevice, GpuConfig, GpuDevice};
use engine::{Cancel, Devices, Engine, LoadOptions, Positions, Request, Split};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Does `body`, which is test `name`, in a process with the fake driver, once for each of these settings.
pub fn with_driver(name: &str, settings: &[(&str, &str)], body: fn()) {
    if std::env::var_os("FAKE_CUDA_MODULES").is_some() {
        return body();
    }
    let folder = tempfile::tempdir().unwrap();
    let driver = fake_driver(folder.path());
    for (variable, value) in settings {
        // The GPU for the PTX that is run; of those with tensor cores, the first are told by their names.
        let of_ptx = [(Compute61, "61"), (Compute75, "75")].into_iter().find(|(known, _)| *known == newest());
        let named = (*variable == "FAKE_CUDA_CAPABILITY").then_some(*value);
        let capability = named.or(of_ptx.map(|(_, capability)| capability));
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .envs(driver.clone())
            .envs(capability.map(|capability| ("FAKE_CUDA_CAPABILITY", capability)))
            .envs((capability == Some("75")).then_some(("FAKE_CUDA_NAME", "Fake RTX")))
            .env(variable, value)
            .output()
            .unwrap();
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("1 passed"), "{variable} {value}:\n{text}\n{errors}");
        print!("{text}");
    }
}

/// The architecture of the fake driver's GPU of this capability.
fn architecture(capability: &str) -> Architecture {
    match capability {
        "61" => Compute61,
        "75" => Compute75,
        _ => Compute80,
    }
}

/// Settings for GPUs of these capabilities, as far as there is PTX for them where that is run.
pub fn capabilities<'a>(all: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    let there = all.iter().filter(|capability| architecture(capability) <= newest());
    there.map(|capability| ("FAKE_CUDA_CAPABILITY", *capability)).collect()
}

/// An emulated GPU of the fake driver's architecture: bits are compared.
pub fn of_the_same_age() -> State {
    let capability = std::env::var("FAKE_CUDA_CAPABILITY").unwrap();
    State { architecture: architecture(&capability), ..State::default() }
}

pub fn host() -> Box<dyn Device> {
    let config = CpuConfig { threads: 1, precision: Precision::Exact, simd: None };
    Box::new(CpuDevice::new(Arc::new(ThreadPool::new(1)), config))
}

/// A model that was trained.
pub fn trained() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/rustdoc-tiny-Q4_K_M.gguf")
}

pub fn load(accelerator: Box<dyn Device>, gpu_layers: u32) -> Engine {
    load_on(&trained(), vec![Some(accelerator)], gpu_layers)
}

pub fn load_on(path: &Path, accelerators: Vec<Option<Box<dyn Device>>>, gpu_layers: impl Into<Split>) -> Engine {
    let options = LoadOptions { context: 96, gpu_layers: gpu_layers.into(), ubatch: 16, ..LoadOptions::default() };
    let devices = Devices { host: host(), accelerators };
    Engine::load(path, options, devices, &mut |_| {}, &Cancel::new()).unwrap()
}

pub fn split(layers: &[u32]) -> Split {
    let mut split = Split::default();
    split.0[..layers.len()].copy_from_slice(layers);
    split
}

pub fn device(card: &Card) -> Box<CudaDevice> {
    Box::new(GpuDevice::new(card.driver().unwrap(), GpuConfig::default()))
}

pub fn cuda() -> Box<CudaDevice> {
    device(&Card::open(0).unwrap())
}

/// Devices of several cards, as an engine takes them.
pub fn devices(cards: &[Card]) -> Vec<Option<Box<dyn Device>>> {
    cards.iter().map(|card| Some(device(card) as Box<dyn Device>)).collect()
}

pub fn greedy(engine: &Engine, prompt: &[u32], count: u32) -> Vec<u32> {
    let sampling = sampler::Params { temperature: 0.0, ..sampler::Params::default() };
    let request = Request { prompt: prompt.to_vec(), sampling, max_tokens: Some(count), ignore_eog: true };
    engine.generate(request, &Cancel::new(), &mut |_| {}).unwrap().ids
}

pub fn logits(engine: &Engine) -> Vec<u32> {
    let tokens: Vec<u32> = (0..21).map(|i| (i * 37 + 11) % 300 + 3).collect();
    let mut all = Vec::new();
    let mut keep = |row: &[f32]| all.extend(row.iter().map(|x| x.to_bits()));
    engine.logits(&tokens, Positions::All, &Cancel::new(), &mut keep).unwrap();
    all
}

/// What the fake driver was asked for so far: kernels one by one, graphs made, nodes changed, graphs launched; copies between
/// GPUs through the driver's memory, direct ones; how often the host waited for something that was not done yet.
pub fn counts(path: &Path) -> [u64; 7] {
    let text = std::fs::read_to_string(path).unwrap();
    let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}
