//! Layers and experts of the host, computed on the accelerator for long prompts: the same tokens, only where it pays, without
//! memory or a device that fails too.

#![allow(clippy::unwrap_used)] // a test

mod common;

use backend_cpu::TestDeviceControl;
use common::{greedy, load, load_several, options, prompt, request};
use engine::{Cancel, Engine, Event, LoadOptions, RecoveryCause};
use model::{Placement, StreamRates, Streaming};
use quant::GgmlType;
use test_models::ModelSpec;

const PLENTY: u64 = 1 << 30;
const TOKENS: u32 = 12;
/// Pays for every token.
const ALWAYS: StreamRates = StreamRates { host: 1.0, accelerator: 1e15, upload: 1e15 };

fn families() -> Vec<ModelSpec> {
    let small = [ModelSpec::llama3(), ModelSpec::mixtral(), ModelSpec::qwen3moe()];
    let mut all: Vec<ModelSpec> = small.into_iter().map(|spec| ModelSpec { n_layer: 4, ..spec }).collect();
    all.push(ModelSpec { n_layer: 4, ..ModelSpec::quantized(GgmlType::Q4_K) });
    all.extend(ModelSpec::every_kind());
    all
}

fn streamed(layers: u32, cpu_moe: u32, rates: StreamRates) -> LoadOptions {
    LoadOptions { cpu_moe, streaming: Some(rates), ..options(128, layers) }
}

fn open(spec: &ModelSpec, options: LoadOptions, limit: u64) -> (Engine, TestDeviceControl) {
    let (engine, control) = load(spec, options, Some(limit)).unwrap();
    (engine, control.unwrap())
}

fn llama() -> ModelSpec {
    ModelSpec { n_layer: 4, ..ModelSpec::llama3() }
}

fn expected(spec: &ModelSpec) -> Vec<u32> {
    greedy(&load(spec, options(128, 0), None).unwrap().0, &prompt(40), TOKENS).0.ids
}

/// What the engine decides by.
fn decision(engine: &Engine, gpu_layers: usize, rates: StreamRates) -> Streaming {
    let (model, layout) = (engine.model(), engine.layout());
    let placement = Placement::new(gpu_layers, layout.block_count());
    Streaming::new(model, layout, &placement, &|_| true, rates).unwrap()
}

#[test]
fn streamed_layers_give_the_same_tokens() {
    for spec in families() {
        let expected = expected(&spec);
        for (layers, cpu_moe) in [(1, 0), (2, 0), (4, 2), (5, 99)] {
            let (engine, control) = open(&spec, streamed(layers, cpu_moe, ALWAYS), PLENTY);
            let before = engine.placement();
            let ids = greedy(&engine, &prompt(40), TOKENS).0.ids;
            let what = format!("{} with {layers} layers, experts of {cpu_moe} on the host", spec.arch);
            assert_eq!(ids, expected, "{what}");
            let after = engine.placement();
            let blocks = engine.model().layers.len() as u32;
            let something = layers < blocks || after.experts_apart > 0;
            // Where only layers are left that read another one's cache, there may be nothing.
            assert!(control.streamed() > 0 || !something || spec.arch.starts_with("gemma"), "{what}");
            assert_eq!(after.streamed, control.streamed(), "{what}");
            assert_eq!((after.gpu_layers, after.cpu_moe), (before.gpu_layers, before.cpu_moe), "{what}");
            assert_eq!(after.accelerator_used(), after.accelerator_planned(), "{what}");
            assert_eq!(after.host_used, before.host_used, "{what}");
            assert!(engine.take_recoveries().unwrap().is_empty(), "{what}");
            // What was computed there is remembered here.
            engine.set_streaming(None);
            engine.set_gpu_layers(0).unwrap();
            let longer = [prompt(40), expected.clone()].concat();
            let (rest, _) = greedy(&engine, &longer, 4);
            assert!(rest.reused_tokens > 0, "{what}");
            let (fresh, _) = load(&spec, options(128, 0), None).unwrap();
            assert_eq!(rest.ids, greedy(&fresh, &longer, 4).0.ids, "{what}");
        }
    }
}

/// Prompts of one token less are computed where their layers are.
#[test]
fn the_break_even_decides() {
    let (engine, _) = open(&llama(), options(128, 2), PLENTY);
    let all = decision(&engine, 2, ALWAYS);
    // Two layers: their copies take the time of three. 16 tokens are a micro-batch here.
    let (copies, adds) = (3.0 * all.slot.weights as f64, all.adds_per_token() as f64);
    for wanted in [5u32, 11, 20] {
        let upload = 1e9;
        let rates = StreamRates { host: f64::from(wanted) * adds / (copies / upload), accelerator: 1e15, upload };
        let (engine, control) = open(&llama(), streamed(2, 0, rates), PLENTY);
        let computed = decision(&engine, 2, rates).break_even(0);
        let close = |from: u32| from.abs_diff(wanted) <= 1;
        assert_eq!(computed.is_some_and(close), wanted <= 16, "{computed:?} instead of {wanted}");
        for tokens in 2..=16 {
            let before = control.streamed();
            engine.forget().unwrap();
            greedy(&engine, &prompt(tokens), 1);
            let went = control.streamed() > before;
            assert_eq!(went, computed.is_some_and(|from| tokens as u32 >= from), "{tokens} tokens, {computed:?}");
        }
    }
}

/// Each micro-batch copies every layer of the host once, with what its cache holds.
#[test]
fn the_bytes_are_those_of_the_layers_and_their_caches() {
    let (engine, control) = open(&llama(), streamed(2, 0, ALWAYS), PLENTY);
    let all = |first: usize, tokens: usize| {
        let layer = |index: usize| {
            let tensors = Streaming::tensors(&engine.model().layers[index], false).0;
            let weights: u64 = tensors.iter().map(|(tensor, _)| tensor.device_bytes()).sum();
            let bytes = &engine.layout().layers[index];
            weights + bytes.cache() / bytes.cells as u64 * first as u64
        };
        // Two layers of four are on the host, and the output layer.
        (0..2).map(layer).sum::<u64>() * u64::from(tokens > 0)
    };
    greedy(&engine, &prompt(40), 1);
    // Three micro-batches of the prompt, and the token that was made.
    let expected: u64 =
        [(0, 16), (16, 16), (32, 8), (40, 1)].into_iter().map(|(first, tokens)| all(first, tokens)).sum();
    assert_eq!(control.streamed(), expected);
    assert_eq!(engine.placement().streamed, expected);
}

#[test]
fn without_memory_for_it_prompts_are_computed_as_before() {
    let expected = expected(&llama());
    let (engine, _) = open(&llama(), options(128, 2), PLENTY);
    let (used, slots) = (engine.placement().accelerator_used(), decision(&engine, 2, ALWAYS).slot.total());
    for (limit, streams) in [(used + slots, true), (used + slots - 1, false), (used, false)] {
        let (engine, control) = open(&llama(), streamed(2, 0, ALWAYS), limit);
        let (completion, events) = greedy(&engine, &prompt(40), TOKENS);
        assert_eq!(completion.ids, expected);
        assert_eq!(control.streamed() > 0, streams, "{limit} of {used} + {slots}");
        assert!(!events.iter().any(|event| matches!(event, Event::Recovered(_))), "nothing has moved");
        let placement = engine.placement();
        assert_eq!((placement.gpu_layers, placement.accelerator_used()), (2, placement.accelerator_planned()));
    }
}

/// Wherever memory ends, streaming goes first, and layers stay; wherever the device is lost, the answer goes on.
#[test]
fn failures_in_a_streamed_prompt_are_mended() {
    let expected = expected(&llama());
    for at in (0..120).step_by(7) {
        let (engine, control) = open(&llama(), streamed(2, 0, ALWAYS), PLENTY);
        control.fail_run(at);
        let (completion, events) = greedy(&engine, &prompt(40), TOKENS);
        assert_eq!(completion.ids, expected, "memory ended at {at}");
        assert!(!events.iter().any(|event| matches!(event, Event::Recovered(_))), "memory ended at {at}");
        assert_eq!(engine.placement().gpu_layers, 2);

        let (engine, control) = open(&llama(), streamed(2, 0, ALWAYS), PLENTY);
        let mut causes = Vec::new();
        let mut seen = 0;
        let completion = engine.generate(request(&prompt(40), TOKENS), &Cancel::new(), &mut |event| match event {
            Event::Recovered(recovery) => causes.push(recovery.cause),
            _ => {
                seen += 1;
                if seen == at / 7 {
                    control.lose();
                }
            }
        });
        assert_eq!(completion.unwrap().ids, expected, "lost after {at}");
        assert!(causes.iter().all(|cause| *cause == RecoveryCause::DeviceLost), "{causes:?}");
    }
}

/// The memory of streaming is given back when layers want it, and when other programs press.
#[test]
fn its_memory_goes_first() {
    let (engine, control) = open(&llama(), streamed(2, 0, ALWAYS), PLENTY);
    let before = engine.placement().accelerator_used();
    greedy(&engine, &prompt(40), 1);
    let slots = decision(&engine, 2, ALWAYS).slot.total();
    assert_eq!(engine.placement().accelerator_used(), before + slots);
    // Exactly so much that the slots must go.
    control.set_others(PLENTY - before);
    // The device is asked four times a second at most.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let (_, events) = greedy(&engine, &prompt(41), 1);
    assert!(!events.iter().any(|event| matches!(event, Event::Recovered(_))), "{events:?}");
    assert_eq!((engine.placement().gpu_layers, engine.placement().accelerator_used()), (2, before));
    control.set_others(0);
    let count = control.streamed();
    greedy(&engine, &prompt(42), 1);
    assert_eq!(control.streamed(), count, "not again at this placement");
    // All layers there: nothing is left to stream, and nothing is held.
    engine.set_gpu_layers(5).unwrap();
    let placement = engine.placement();
    assert_eq!((placement.gpu_layers, placement.accelerator_used()), (5, placement.accelerator_planned()));
    engine.set_gpu_layers(3).unwrap();
    greedy(&engine, &prompt(43), 1);
    assert!(control.streamed() > count, "decided anew");
}

/// Of several accelerators, the one that has the first of the layers on accelerators computes those on the host.
#[test]
fn one_of_several_accelerators_is_streamed_to() {
    let mixture = ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() };
    for spec in [llama(), mixture, ModelSpec::gemma4(), ModelSpec::qwen35()] {
        let expected = expected(&spec);
        for (shares, cpu_moe, on) in [([1, 2], 0, 1), ([2, 0], 0, 0), ([2, 3], 2, 1), ([1, 2], 4, 1)] {
            let mut gpu_layers = model::Split::default();
            gpu_layers.0[..2].copy_from_slice(&shares);
            let options = LoadOptions { gpu_layers, ..streamed(0, cpu_moe, ALWAYS) };
            let (engine, controls) = load_several(&spec, options, &[PLENTY; 2]).unwrap();
            let what = format!("{} on {shares:?}, experts of {cpu_moe} on the host", spec.arch);
            assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{what}");
            let placement = engine.placement();
            assert_eq!(Streaming::accelerator(&placement.placed), Some(on), "{what}");
            assert_eq!((controls[1 - on].streamed(), placement.streamed), (0, controls[on].streamed()), "{what}");
            if shares[0] + shares[1] < 5 || placement.experts_apart > 0 {
                assert!(placement.streamed > 0 || spec.arch.starts_with("gemma"), "{what}");
            }
            for held in &placement.accelerators {
                assert_eq!(held.used, held.planned, "{what}");
            }
            // The other one is lost, or this one.
            for lost in [1 - on, on] {
                controls[lost].lose();
                assert_eq!(greedy(&engine, &prompt(41), TOKENS).0.ids.len(), TOKENS as usize);
                assert_eq!(greedy(&engine, &prompt(40), TOKENS).0.ids, expected, "{what}, {lost} lost");
                let placement = engine.placement();
                assert!(placement.accelerators.iter().all(|held| held.used == held.planned), "{what}, {lost} lost");
            }
        }
    }
}
