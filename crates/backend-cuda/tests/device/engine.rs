//! Whole models on the device: any split gives the results of the CPU, layers move, memory ends, the GPU is lost.

use crate::common::driver::{State, TestDriver};
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use backend_cuda::{GpuConfig, GpuDevice};
use engine::{Cancel, Devices, Engine, EngineError, Event, LoadOptions, Positions, Recovery, RecoveryCause, Request};
use quant::GgmlType;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use test_models::ModelSpec;

/// A model of `tests/fixtures`, which may have been copied elsewhere with this program.
pub fn fixture(name: &str) -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    std::env::var_os("HEADROOM_FIXTURES").map_or_else(here, PathBuf::from).join(name)
}

/// A model with an emulated GPU beside the host, which computes exactly.
pub fn try_load(path: &Path, options: LoadOptions, state: State) -> Result<(Engine, Arc<Mutex<State>>), EngineError> {
    let config = CpuConfig { threads: 2, precision: Precision::Exact, simd: None };
    let (driver, state) = TestDriver::new(state);
    let devices = Devices {
        host: Box::new(CpuDevice::new(Arc::new(ThreadPool::new(2)), config)),
        accelerators: vec![Some(Box::new(GpuDevice::new(driver, GpuConfig::default())))],
    };
    Ok((Engine::load(path, options, devices, &mut |_| {}, &Cancel::new())?, state))
}

pub fn load(path: &Path, gpu_layers: u32, state: State) -> (Engine, Arc<Mutex<State>>) {
    try_load(
        path,
        LoadOptions { context: 96, gpu_layers: gpu_layers.into(), ubatch: 16, ..LoadOptions::default() },
        state,
    )
    .unwrap()
}

pub fn tiny(spec: &ModelSpec) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    std::fs::write(file.path(), spec.build()).unwrap();
    file
}

pub fn prompt(len: u32) -> Vec<u32> {
    (0..len).map(|i| (i * 37 + 11) % 300 + 3).collect()
}

pub fn generate(
    engine: &Engine,
    prompt: &[u32],
    count: u32,
    on_token: &mut dyn FnMut(u32),
) -> (Vec<u32>, Vec<Recovery>) {
    let sampling = sampler::Params { temperature: 0.0, ..sampler::Params::default() };
    let request = Request { prompt: prompt.to_vec(), sampling, max_tokens: Some(count), ignore_eog: true };
    let (mut recoveries, mut tokens) = (Vec::new(), 0);
    let completion = engine.generate(request, &Cancel::new(), &mut |event| match event {
        Event::Recovered(recovery) => recoveries.push(recovery),
        Event::Token { .. } => {
            tokens += 1;
            on_token(tokens);
        }
        Event::Prompt { .. } => {}
    });
    (completion.unwrap().ids, recoveries)
}

fn greedy(engine: &Engine, prompt: &[u32], count: u32) -> Vec<u32> {
    generate(engine, prompt, count, &mut |_| {}).0
}

fn logits(engine: &Engine, tokens: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    engine.logits(tokens, Positions::All, &Cancel::new(), &mut |row| all.extend_from_slice(row)).unwrap();
    all
}

/// The largest difference, relative to the spread of the expected values.
fn difference(actual: &[f32], expected: &[f32]) -> f32 {
    let spread = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    let differences = actual.iter().zip(expected).map(|(a, b)| (a - b).abs() / spread);
    // A maximum would swallow NaN.
    differences.fold(0f32, |worst, x| if x <= worst { worst } else { x })
}

/// Families of which every operation has kernels, with weights that both devices multiply in f32.
fn families() -> Vec<ModelSpec> {
    let small = [
        ModelSpec::llama(),
        ModelSpec::llama3(),
        ModelSpec::mixtral(),
        ModelSpec::qwen2(),
        ModelSpec::qwen3(),
        ModelSpec::qwen3moe(),
    ];
    let mut all: Vec<ModelSpec> = small.into_iter().map(|spec| ModelSpec { n_layer: 3, ..spec }).collect();
    all.extend(ModelSpec::every_kind());
    all
}

#[test]
fn any_split_gives_the_logits_of_the_cpu() {
    for spec in families() {
        let file = tiny(&spec);
        let tokens = prompt(30);
        // f32 caches: one of f16 would turn the last bit of a sum into one of eleven.
        let kv = GgmlType::F32;
        let options = LoadOptions { context: 96, ubatch: 16, kv_type_k: kv, kv_type_v: kv, ..LoadOptions::default() };
        let load = |gpu_layers| {
            try_load(file.path(), LoadOptions { gpu_layers: u32::into(gpu_layers), ..options }, State::default())
                .unwrap()
        };
        let (host, _) = load(0);
        let expected = logits(&host, &tokens);
        // GELU is rounded to f16, and with it whatever is a last bit off.
        let allowed = if spec.arch.starts_with("gemma") { 2e-3 } else { 1e-5 };
        let count = host.placement().layers;
        for layers in [1, count / 2, count] {
            let (engine, state) = load(layers);
            assert_eq!(engine.placement().gpu_layers, layers);
            let error = difference(&logits(&engine, &tokens), &expected);
            assert!(error <= allowed, "{} with {layers} layers: {error}", spec.arch);
            assert!(state.lock().unwrap().launches > 0);
        }
    }
}

/// Routed experts on the host, the rest of their layers on the GPU: experts alone, beside a dense part, with biases, with
/// a shared one.
#[test]
fn experts_on_the_host_give_the_logits_of_the_cpu() {
    let plain = [ModelSpec::mixtral(), ModelSpec::qwen3moe()].map(|spec| ModelSpec { n_layer: 3, ..spec });
    let kinds = [ModelSpec::gemma4_experts(), ModelSpec::gpt_oss(), ModelSpec::deepseek2(), ModelSpec::nemotron_h()];
    for spec in plain.into_iter().chain(kinds) {
        let file = tiny(&spec);
        let (tokens, kv) = (prompt(30), GgmlType::F32);
        let options = LoadOptions { context: 96, ubatch: 16, kv_type_k: kv, kv_type_v: kv, ..LoadOptions::default() };
        let load = |gpu_layers, cpu_moe| {
            try_load(
                file.path(),
                LoadOptions { gpu_layers: u32::into(gpu_layers), cpu_moe, ..options },
                State::default(),
            )
            .unwrap()
        };
        let expected = logits(&load(0, 0).0, &tokens);
        let allowed = if spec.arch.starts_with("gemma") { 2e-3 } else { 1e-5 };
        for (gpu_layers, cpu_moe) in [(99, 99), (99, 2), (2, 99)] {
            let (engine, state) = load(gpu_layers, cpu_moe);
            let placement = engine.placement();
            assert!(placement.experts_apart > 0 || spec.arch == "nemotron_h_moe", "{}: {placement:?}", spec.arch);
            let error = difference(&logits(&engine, &tokens), &expected);
            assert!(error <= allowed, "{} with {gpu_layers}, {cpu_moe}: {error}", spec.arch);
            assert!(state.lock().unwrap().launches > 0);
            let placement = engine.placement();
            assert_eq!(placement.accelerator_used(), placement.accelerator_planned());
        }
    }
}

/// The GPU works on a prompt's micro-batch while the host computes its layers of the next one: nothing waits to begin.
#[test]
fn the_gpu_begins_with_a_micro_batch_before_the_next_one_comes() {
    let file = tiny(&ModelSpec { n_layer: 4, ..ModelSpec::llama3() });
    let (engine, state) = load(file.path(), 3, State::default());
    let request =
        Request { prompt: prompt(48), sampling: sampler::Params::default(), max_tokens: Some(1), ignore_eog: true };
    let mut before = (0, 0);
    let mut checked = 0;
    engine
        .generate(request, &Cancel::new(), &mut |event| {
            if let Event::Prompt { done, total, .. } = event {
                let state = state.lock().unwrap();
                if done > before.0 && done < total {
                    assert!(state.launches > before.1, "the micro-batch has operations there");
                    assert_eq!(state.waiting, 0, "after {done} tokens");
                    checked += 1;
                }
                before = (done, state.launches);
            }
        })
        .unwrap();
    assert_eq!(checked, 2);
}

/// Layers and experts of the host, computed on the GPU for prompts: as exact as where they are.
#[test]
fn streamed_prompts_give_the_logits_of_the_cpu() {
    let rates = model::StreamRates { host: 1.0, accelerator: 1e15, upload: 1e15 };
    let experts = [ModelSpec::mixtral(), ModelSpec::qwen3moe()].map(|spec| ModelSpec { n_layer: 3, ..spec });
    let all = families().into_iter().map(|spec| (spec, 0)).chain(experts.map(|spec| (spec, 99)));
    for (spec, cpu_moe) in all {
        let file = tiny(&spec);
        let (tokens, kv) = (prompt(30), GgmlType::F32);
        let options = LoadOptions { context: 96, ubatch: 16, kv_type_k: kv, kv_type_v: kv, ..LoadOptions::default() };
        let expected = logits(&try_load(file.path(), options, State::default()).unwrap().0, &tokens);
        let gpu_layers = if cpu_moe > 0 { 99 } else { 1 };
        let options = LoadOptions { gpu_layers: u32::into(gpu_layers), cpu_moe, streaming: Some(rates), ..options };
        let (engine, state) = try_load(file.path(), options, State::default()).unwrap();
        let launches = state.lock().unwrap().launches;
        let allowed = if spec.arch.starts_with("gemma") { 2e-3 } else { 1e-5 };
        let error = difference(&logits(&engine, &tokens), &expected);
        assert!(error <= allowed, "{}: {error}", spec.arch);
        let placement = engine.placement();
        assert!(placement.streamed > 0 || spec.arch == "gemma3n", "{}", spec.arch);
        assert!(state.lock().unwrap().launches > launches + 20);
        assert_eq!(placement.accelerator_used(), placement.accelerator_planned());
    }
}

/// Experts and layers move in a running answer; the GPU's memory ends, and experts leave first.
#[test]
fn experts_move_in_a_running_answer() {
    let file = tiny(&ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() });
    let expected = greedy(&load(file.path(), 0, State::default()).0, &prompt(20), 24);
    let (engine, _) = load(file.path(), 5, State::default());
    let wishes = [(5, 4), (5, 1), (2, 4), (0, 2), (5, 2)];
    let engine = &engine;
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<(u32, u32)>();
        let mover = scope.spawn(move || {
            for wish in receiver {
                let placement = engine.place(wish.0, wish.1).unwrap();
                assert_eq!((placement.gpu_layers, placement.cpu_moe), wish);
            }
        });
        let (ids, recoveries) = generate(engine, &prompt(20), 24, &mut |tokens| {
            if tokens % 4 == 0
                && let Some(wish) = wishes.get(tokens as usize / 4 - 1)
            {
                sender.send(*wish).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        drop(sender);
        assert_eq!((ids, recoveries), (expected, Vec::new()));
        mover.join().unwrap();
    });
}

#[test]
fn quantized_weights_and_caches_stay_near_the_cpu() {
    use GgmlType::*;
    for ty in [Q4_K, Q6_K, Q8_0, Q5_0, IQ4_XS, MXFP4, NVFP4, IQ2_S, IQ3_S, TQ1_0] {
        let file = tiny(&ModelSpec::quantized(ty));
        let tokens = prompt(40);
        for kv in [F16, Q8_0, Q5_1] {
            let options =
                LoadOptions { context: 96, ubatch: 16, kv_type_k: kv, kv_type_v: kv, ..LoadOptions::default() };
            let run = |gpu_layers| {
                let result = try_load(
                    file.path(),
                    LoadOptions { gpu_layers: u32::into(gpu_layers), ..options },
                    State::default(),
                );
                logits(&result.unwrap().0, &tokens)
            };
            // What rounding activations to 8 bits costs.
            let error = difference(&run(99), &run(0));
            assert!(error <= 0.05, "{ty}, {kv}: {error}");
        }
    }
}

/// A trained model: on any split the readable text of the CPU.
#[test]
fn a_real_model_on_any_split() {
    let path = fixture("rustdoc-tiny-Q4_K_M.gguf");
    let (host, _) = load(&path, 0, State::default());
    let tokens = prompt(33);
    let (text, expected) = (greedy(&host, &tokens, 8), logits(&host, &tokens));
    let layers = host.placement().layers;
    let mut same = 0;
    for gpu_layers in 1..=layers {
        let (engine, _) = load(&path, gpu_layers, State::default());
        let error = difference(&logits(&engine, &tokens), &expected);
        assert!(error <= 0.05, "{gpu_layers} layers: {error}");
        same += u32::from(greedy(&engine, &tokens, 8) == text);
        // Layers that were away and came back hold what they held: not one bit differs.
        let alone = greedy(&engine, &tokens, 12);
        let begun = greedy(&engine, &tokens, 6);
        for wish in [0, layers, gpu_layers] {
            assert_eq!(engine.set_gpu_layers(wish).unwrap().gpu_layers, wish);
        }
        let continued = greedy(&engine, &[tokens.clone(), begun.clone()].concat(), 6);
        assert_eq!([begun, continued].concat(), alone, "{gpu_layers} layers, moved");
    }
    // Rounding may turn a token that was nearly another one; it must not be the rule.
    assert!(same * 2 >= layers, "{same} of {layers} splits write what the CPU writes");
}

/// Blocks that the CPU wrote are read by the GPU and the other way around, rotated alike.
#[test]
fn quantized_caches_move_with_their_layers() {
    use GgmlType::{IQ4_NL, Q4_0, Q4_1, Q5_0, Q8_0};
    let file = tiny(&ModelSpec { n_layer: 3, ..ModelSpec::quantized(GgmlType::F32) });
    let tokens = prompt(24);
    for (k, v) in [(Q8_0, Q4_0), (Q4_0, Q4_0), (Q5_0, IQ4_NL), (Q4_1, Q8_0)] {
        let options = LoadOptions { context: 64, ubatch: 16, kv_type_k: k, kv_type_v: v, ..LoadOptions::default() };
        let load = |gpu_layers| {
            try_load(file.path(), LoadOptions { gpu_layers: u32::into(gpu_layers), ..options }, State::default())
                .unwrap()
                .0
        };
        let (host, engine) = (load(0), load(99));
        assert_eq!(engine.placement().gpu_layers, engine.placement().layers);
        let expected = greedy(&host, &tokens, 12);
        assert_eq!(greedy(&engine, &tokens, 12), expected, "{k} {v}");
        let begun = greedy(&engine, &tokens, 4);
        engine.set_gpu_layers(1).unwrap();
        let middle = greedy(&engine, &[tokens.clone(), begun.clone()].concat(), 4);
        engine.set_gpu_layers(99).unwrap();
        let end = greedy(&engine, &[tokens.clone(), begun.clone(), middle.clone()].concat(), 4);
        assert_eq!([begun, middle, end].concat(), expected, "{k} {v}, moved");
    }
}

#[test]
fn layers_move_in_a_running_answer() {
    let file = tiny(&ModelSpec { n_layer: 4, ..ModelSpec::llama3() });
    let expected = greedy(&load(file.path(), 0, State::default()).0, &prompt(20), 24);
    let (engine, _) = load(file.path(), 2, State::default());
    let wishes = [5, 0, 3, 1, 4];
    let engine = &engine;
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<u32>();
        scope.spawn(move || {
            receiver.iter().for_each(|wish| {
                engine.set_gpu_layers(wish).unwrap();
            })
        });
        let (ids, _) = generate(engine, &prompt(20), 24, &mut |tokens| {
            if tokens % 4 == 0
                && let Some(wish) = wishes.get(tokens as usize / 4 - 1)
            {
                sender.send(*wish).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        assert_eq!(ids, expected);
    });
}

#[test]
fn planned_bytes_are_the_bytes_used() {
    let file = tiny(&ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() });
    let (engine, state) = load(file.path(), 0, State::default());
    for layers in [0, 3, 5, 1, 0] {
        let placement = engine.set_gpu_layers(layers).unwrap();
        assert_eq!(placement.accelerator_used(), placement.accelerator_planned(), "{layers} layers");
        greedy(&engine, &prompt(20), 2);
        let placement = engine.placement();
        assert_eq!(placement.accelerator_used(), placement.accelerator_planned(), "{layers} layers, after an answer");
    }
    // Without layers nothing but scratch memory is left.
    assert!(state.lock().unwrap().used <= 16 << 20);
}

/// Large tensors have slabs of whole pages: what the driver gives is what is planned, but for a slab of small ones.
#[test]
fn planned_memory_is_what_the_driver_gives() {
    let spec = ModelSpec { n_embd: 1024, n_ff: 2600, n_layer: 2, ..ModelSpec::llama3() };
    let file = tiny(&spec);
    let accelerator = planner::AcceleratorFacts {
        memory_free: 1 << 40,
        scratch: backend_cuda::scratch,
        footprint: backend_cuda::footprint,
        ..planner::AcceleratorFacts::default()
    };
    let facts = planner::Facts { ram_available: 1 << 40, accelerators: vec![accelerator], ..planner::Facts::default() };
    for layers in 1..=3 {
        let (engine, state) = load(file.path(), layers, State::default());
        let params = engine.layout().params;
        let wishes = planner::Wishes {
            gpu_layers: planner::GpuLayers::Fixed(layers),
            context: Some(params.context),
            ubatch: Some(params.ubatch),
            ..planner::Wishes::default()
        };
        let plan = planner::plan(engine.model(), &facts, &wishes).unwrap();
        let scratch = plan.shares[0].scratch;
        let (given, planned) = (state.lock().unwrap().used, plan.accelerator_total() - scratch);
        assert!(plan.accelerator_other() - scratch > 1 << 20, "pages count: {}", plan.accelerator_other() - scratch);
        assert!((planned..planned + (16 << 20)).contains(&given), "{layers} layers: {given} given, {planned} planned");
    }
}

/// Layers as large as those of small real models, so that memory is counted in slabs and layers.
#[test]
fn without_room_layers_stay_on_the_host() {
    let path = fixture("rustdoc-tiny-Q4_K_M.gguf");
    let expected = greedy(&load(&path, 0, State::default()).0, &prompt(20), 4);
    let (engine, _) = load(&path, 99, State { memory: 3 << 20, ..State::default() });
    let placement = engine.placement();
    assert!(placement.gpu_layers < placement.layers, "{placement:?}");
    let recoveries = engine.take_recoveries().unwrap();
    assert!(recoveries.iter().any(|recovery| recovery.cause == RecoveryCause::OutOfMemory), "{recoveries:?}");
    assert_eq!(greedy(&engine, &prompt(20), 4).len(), expected.len());
}

#[test]
fn another_program_takes_the_memory_during_an_answer() {
    let file = tiny(&ModelSpec { n_layer: 4, ..ModelSpec::llama3() });
    let expected = greedy(&load(file.path(), 0, State::default()).0, &prompt(20), 16);
    let (engine, state) = load(file.path(), 2, State::default());
    let (ids, _) = generate(&engine, &prompt(20), 8, &mut |tokens| {
        if tokens == 2 {
            let mut state = state.lock().unwrap();
            state.memory = state.used;
        }
    });
    assert_eq!(ids, expected[..8]);
    // More layers than before: what fits the slabs that are there may come, the rest stays, and the answer goes on.
    engine.set_gpu_layers(5).unwrap();
    let (ids, _) = generate(&engine, &[prompt(20), ids].concat(), 8, &mut |_| {});
    assert_eq!(ids, expected[8..]);
}

/// Where it can be seen, layers leave before anything fails; what the model itself has taken is no reason.
#[test]
fn layers_leave_when_other_programs_press() {
    let path = fixture("rustdoc-tiny-Q4_K_M.gguf");
    const MEMORY: u64 = 1 << 30;
    let (engine, state) = load(&path, 99, State { memory: MEMORY, ..State::default() });
    let layers = engine.placement().gpu_layers;
    let (_, recoveries) = generate(&engine, &prompt(20), 4, &mut |_| {});
    assert!(recoveries.is_empty());
    // A model that fills the memory alone: the rest of it was never there.
    let used = state.lock().unwrap().used;
    let (full, _) = load(&path, 99, State { memory: used + (1 << 20), ..State::default() });
    let (_, recoveries) = generate(&full, &prompt(20), 4, &mut |_| {});
    assert!(recoveries.is_empty() && full.placement().gpu_layers == layers, "{recoveries:?}");
    // Others take all but 50 MB.
    let (ids, recoveries) = generate(&engine, &prompt(20), 12, &mut |tokens| {
        if tokens == 4 {
            let mut state = state.lock().unwrap();
            state.memory = state.used + (50 << 20);
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
    });
    assert_eq!(ids.len(), 12);
    let [recovery] = recoveries[..] else { panic!("{recoveries:?}") };
    assert_eq!(recovery.cause, RecoveryCause::OutOfMemory);
    assert!(recovery.layers_moved > 0 && recovery.gpu_layers < layers, "{recovery:?}");
}

#[test]
fn a_lost_gpu_does_not_end_the_answer() {
    let file = tiny(&ModelSpec { n_layer: 4, ..ModelSpec::llama3() });
    let expected = greedy(&load(file.path(), 0, State::default()).0, &prompt(20), 16);
    for after in [0, 3, 100] {
        let (engine, state) = load(file.path(), 3, State::default());
        let (ids, recoveries) = generate(&engine, &prompt(20), 16, &mut |tokens| {
            if tokens == 4 {
                state.lock().unwrap().lose_after = Some(after);
            }
        });
        assert_eq!(ids, expected, "lost after {after} launches");
        assert!(recoveries.iter().any(|recovery| recovery.cause == RecoveryCause::DeviceLost), "{recoveries:?}");
        assert_eq!(engine.placement().gpu_layers, 0);
    }
}
