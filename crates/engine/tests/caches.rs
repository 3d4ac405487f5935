//! Every type of KV cache, wherever the layers are: moved, cut off, cancelled.

mod common;

use common::{greedy, load, options, prompt, request};
use engine::{Cancel, Event, Finish, LoadOptions, Placement, Positions, RecoveryCause};
use quant::GgmlType;
use test_models::ModelSpec;

const PLENTY: u64 = 1 << 30;
const TOKENS: u32 = 20;
const CACHES: [(GgmlType, GgmlType); 9] = [
    (GgmlType::F32, GgmlType::F32),
    (GgmlType::F16, GgmlType::F16),
    (GgmlType::Q8_0, GgmlType::Q8_0),
    (GgmlType::Q4_0, GgmlType::Q4_0),
    (GgmlType::Q8_0, GgmlType::F16),
    (GgmlType::F32, GgmlType::Q8_0),
    (GgmlType::Q5_1, GgmlType::Q4_1),
    (GgmlType::IQ4_NL, GgmlType::Q5_0),
    (GgmlType::BF16, GgmlType::Q4_0),
];

/// Heads of whole blocks, and heads that end with half a block.
fn families() -> [ModelSpec; 2] {
    [(ModelSpec::llama(), 32), (ModelSpec::qwen3moe(), 80)].map(|(spec, head_dim)| ModelSpec {
        n_layer: 4,
        head_dim,
        ..spec
    })
}

fn with_cache(gpu_layers: u32, (kv_type_k, kv_type_v): (GgmlType, GgmlType)) -> LoadOptions {
    LoadOptions { kv_type_k, kv_type_v, ..options(128, gpu_layers) }
}

/// As planned, to the byte.
fn assert_planned(placement: Placement) {
    assert_eq!(placement.host_used, placement.host_planned);
    assert_eq!(placement.accelerator_used(), placement.accelerator_planned());
}

/// Where layers are between two answers does not show in the next one, whose prompt is mostly in the cache.
#[test]
fn layers_move_between_turns_and_the_cache_goes_with_them() {
    for spec in families() {
        for cache in CACHES {
            let turns = |moves: [u32; 3]| {
                let (engine, _) = load(&spec, with_cache(2, cache), Some(PLENTY)).unwrap();
                let (mut text, mut reused) = (prompt(40), Vec::new());
                for layers in moves {
                    assert_eq!(engine.set_gpu_layers(layers).unwrap().gpu_layers, layers);
                    assert_planned(engine.placement());
                    let completion = greedy(&engine, &text, TOKENS).0;
                    reused.push(completion.reused_tokens);
                    text.extend(completion.ids);
                    text.extend([9, 8, 7]);
                }
                (text, reused)
            };
            let (still, moved) = (turns([2, 2, 2]), turns([5, 0, 3]));
            assert_eq!(still, moved, "{} {cache:?}", spec.arch);
            // Every token but the last new one of a turn was computed in an earlier turn.
            assert_eq!(still.1, [0, 60, 83]);
        }
    }
}

#[test]
fn layers_move_while_tokens_come_and_the_cache_goes_with_them() {
    for spec in families() {
        for cache in CACHES {
            let expected = greedy(&load(&spec, with_cache(2, cache), Some(PLENTY)).unwrap().0, &prompt(40), 60).0.ids;
            let (engine, _) = load(&spec, with_cache(2, cache), Some(PLENTY)).unwrap();
            let engine = &engine;
            let (start, started) = std::sync::mpsc::channel();
            let mut seen = Vec::new();
            std::thread::scope(|scope| {
                let moves = scope.spawn(move || {
                    started.recv().unwrap();
                    [5, 0, 3, 1, 4].map(|layers| engine.set_gpu_layers(layers).unwrap().gpu_layers)
                });
                let completion = engine.generate(request(&prompt(40), 60), &Cancel::new(), &mut |event| {
                    if matches!(event, Event::Token { .. }) {
                        if seen.is_empty() {
                            start.send(()).unwrap();
                        }
                        seen.push(engine.placement().gpu_layers);
                        // Time for the next wish.
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                });
                assert_eq!(completion.unwrap().ids, expected, "{} {cache:?}", spec.arch);
                assert_eq!(moves.join().unwrap(), [5, 0, 3, 1, 4]);
            });
            seen.dedup();
            assert!(seen.len() > 2, "layers moved while tokens came: {seen:?}");
            assert_planned(engine.placement());
        }
    }
}

#[test]
fn any_split_gives_the_same_tokens_with_every_cache() {
    for spec in families() {
        for cache in CACHES {
            let of = |layers| {
                greedy(&load(&spec, with_cache(layers, cache), Some(PLENTY)).unwrap().0, &prompt(40), TOKENS).0.ids
            };
            let expected = of(0);
            for layers in 1..=5 {
                assert_eq!(of(layers), expected, "{} {cache:?} with {layers}", spec.arch);
            }
        }
    }
}

/// An operation without room, at any point of an answer: fewer layers, an event, the same tokens.
#[test]
fn an_operation_that_finds_no_room_costs_layers_and_no_token() {
    for spec in families() {
        for cache in CACHES {
            let (engine, _) = load(&spec, with_cache(5, cache), Some(PLENTY)).unwrap();
            let expected = greedy(&engine, &prompt(40), TOKENS).0.ids;
            // In the prompt's first layer, in its output, and in the middle of the answer.
            for after in [3, 200, 900] {
                let (engine, control) = load(&spec, with_cache(5, cache), Some(PLENTY)).unwrap();
                control.unwrap().fail_run(after);
                let (completion, events) = greedy(&engine, &prompt(40), TOKENS);
                assert_eq!(completion.ids, expected, "{} {cache:?} after {after}", spec.arch);
                let told: Vec<_> =
                    events.iter().filter_map(|e| if let Event::Recovered(r) = e { Some(*r) } else { None }).collect();
                assert!(!told.is_empty() && told.iter().all(|r| r.cause == RecoveryCause::OutOfMemory), "{after}");
                assert!(engine.placement().gpu_layers < 5);
                assert_planned(engine.placement());
            }
        }
    }
}

/// What a quantized cache costs, for plain attention, windows and shared caches, and a latent cache: keys, queries, values
/// and results are all rotated, or none of a kind is.
#[test]
fn quantized_caches_stay_near_the_exact_one() {
    use GgmlType::{F16, F32, IQ4_NL, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
    let wide = |spec| ModelSpec { head_dim: 64, ..spec };
    let specs = [ModelSpec::llama(), ModelSpec::gemma4(), ModelSpec::gemma2(), ModelSpec::deepseek2()].map(wide);
    // Heads that end with half a block.
    let padded = ModelSpec { head_dim: 80, ..ModelSpec::llama() };
    for spec in specs.into_iter().chain([padded]) {
        let logits = |k, v| {
            let (engine, _) = load(&spec, with_cache(0, (k, v)), None).unwrap();
            let mut last = Vec::new();
            let cancel = Cancel::new();
            engine.logits(&prompt(100), Positions::Last, &cancel, &mut |row| last.extend_from_slice(row)).unwrap();
            last
        };
        let exact = logits(F32, F32);
        let size = exact.iter().map(|x| x * x).sum::<f32>().sqrt();
        let bounds = [(F16, 0.01), (Q8_0, 0.05), (Q5_1, 0.2), (Q5_0, 0.2), (Q4_1, 0.4), (Q4_0, 0.4), (IQ4_NL, 0.4)];
        // Where a choice of experts flips, a small error is a large one: there only what keeps the choices is compared.
        let compared = if spec.experts.is_some() { &bounds[..2] } else { &bounds[..] };
        for &(ty, most) in compared {
            for (k, v) in [(ty, ty), (ty, F32), (F32, ty)] {
                let found = logits(k, v);
                let error = found.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt() / size;
                assert!(error <= most, "{} {k} {v}: {error}", spec.arch);
            }
        }
    }
}

/// A micro-batch of the whole prompt is given up between two layers, not at its end.
#[test]
fn cancel_stops_inside_a_large_micro_batch() {
    let spec = ModelSpec { n_layer: 8, ..ModelSpec::quantized(GgmlType::Q8_0) };
    let options = LoadOptions { ubatch: 2048, ..options(2048, 0) };
    let (engine, _) = load(&spec, options, None).unwrap();
    // How it ended, how long it took, and whether the micro-batch was computed.
    let read = |cancel: &Cancel| {
        let (started, mut computed) = (std::time::Instant::now(), false);
        let mut hear = |event| computed |= matches!(event, Event::Prompt { done: 2000, .. });
        let completion = engine.generate(request(&prompt(2000), 1), cancel, &mut hear).unwrap();
        (completion.finish, started.elapsed(), computed)
    };
    let (finish, whole, computed) = read(&Cancel::new());
    assert!(finish == Finish::Length && computed);
    // Where others keep the machine busy, it may be through before it is cancelled: then it is tried again, earlier.
    let mut times = (3..40).map(|attempt| whole / attempt);
    let inside = times.any(|wait| {
        let cancel = Cancel::new();
        // Another prompt, so that nothing is reused.
        greedy(&engine, &[5, 4, 3], 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(wait);
                cancel.cancel();
            });
            let (finish, _, computed) = read(&cancel);
            finish == Finish::Cancelled && !computed
        })
    });
    assert!(inside, "it is computed to its end");
    // And the prompt can be read again.
    assert_eq!(read(&Cancel::new()).0, Finish::Length);
}
