//! Sequences that are saved and put back: bit by bit, for every kind of layer and cache, wherever the layers are.

mod common;

use common::{greedy, load, options, prompt};
use engine::{Engine, EngineError, LoadOptions, SavedError};
use quant::GgmlType;
use std::io::{Read, Write};
use test_models::ModelSpec;

const PLENTY: u64 = 1 << 30;

const CACHES: [(GgmlType, GgmlType); 6] = [
    (GgmlType::F32, GgmlType::F32),
    (GgmlType::F16, GgmlType::F16),
    (GgmlType::Q8_0, GgmlType::Q4_0),
    (GgmlType::Q5_1, GgmlType::Q4_1),
    (GgmlType::IQ4_NL, GgmlType::Q5_0),
    (GgmlType::BF16, GgmlType::Q8_0),
];

fn families() -> Vec<ModelSpec> {
    let mut all = vec![ModelSpec { n_layer: 4, head_dim: 32, ..ModelSpec::llama() }];
    all.push(ModelSpec { n_layer: 4, head_dim: 32, ..ModelSpec::qwen3moe() });
    all.extend(ModelSpec::every_kind());
    all
}

fn with_cache(gpu_layers: u32, (kv_type_k, kv_type_v): (GgmlType, GgmlType)) -> LoadOptions {
    LoadOptions { kv_type_k, kv_type_v, ..options(128, gpu_layers) }
}

fn open(spec: &ModelSpec, options: LoadOptions) -> Engine {
    load(spec, options, Some(PLENTY)).expect("a loaded model").0
}

fn saved(engine: &Engine) -> Vec<u8> {
    let mut bytes = Vec::new();
    engine.save(&mut bytes).expect("room");
    assert_eq!(engine.remembered().expect("an engine").bytes, bytes.len() as u64);
    bytes
}

fn restore(engine: &Engine, bytes: &[u8]) -> Result<u32, SavedError> {
    match engine.restore(&mut &*bytes) {
        Ok(remembered) => Ok(remembered.tokens),
        Err(EngineError::Saved(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_sequence_goes_on_as_if_it_had_never_been_away() {
    // Heads of whole blocks.
    for spec in families().into_iter().map(|spec| ModelSpec { head_dim: 64, ..spec }) {
        for cache in CACHES {
            let first = open(&spec, with_cache(2, cache));
            let mut text = prompt(40);
            text.extend(greedy(&first, &text, 8).0.ids);
            let between = saved(&first);
            text.extend([5, 6, 7]);
            let expected = greedy(&first, &text, 8).0;
            let end = saved(&first);
            // Another place, another sequence before, and layers that move afterwards.
            for (layers, then) in [(0, 5), (3, 1)] {
                let other = open(&spec, with_cache(layers, cache));
                greedy(&other, &prompt(13), 3);
                assert_eq!(restore(&other, &between).unwrap(), 48, "{}", spec.arch);
                assert_eq!(saved(&other), between, "{} {cache:?}", spec.arch);
                other.set_gpu_layers(then).unwrap();
                let found = greedy(&other, &text, 8).0;
                assert_eq!((found.reused_tokens, &found.ids), (expected.reused_tokens, &expected.ids), "{}", spec.arch);
                // All caches and states of both, to the bit.
                assert!(saved(&other) == end, "{} {cache:?} with {layers}, then {then}", spec.arch);
            }
        }
    }
}

/// Both the last message and its answer can be made again, without the rest: checkpoints are saved as well.
#[test]
fn a_restored_chat_goes_back_as_far_as_before() {
    for spec in families() {
        let engine = open(&spec, options(128, 2));
        let first = greedy(&engine, &prompt(40), 8).0;
        let mut text = prompt(40);
        text.extend(first.ids);
        text.extend([5, 6, 7]);
        greedy(&engine, &text, 8);
        let bytes = saved(&engine);
        // The answer again, the last message changed, one before it changed.
        for (at, is) in [(50, 7), (49, 299), (44, 299)] {
            let mut edited = text.clone();
            edited[at] = is;
            let mut ways = [&engine, &open(&spec, options(128, 0))].map(|engine| {
                restore(engine, &bytes).unwrap();
                let answer = greedy(engine, &edited, 8).0;
                (answer.reused_tokens, answer.ids, saved(engine))
            });
            let fresh = greedy(&open(&spec, options(128, 0)), &edited, 8).0.ids;
            assert_eq!(ways[0].1, fresh, "{}", spec.arch);
            let (second, first) = (std::mem::take(&mut ways[1]), &ways[0]);
            assert!(*first == second, "{}: {} and {} reused", spec.arch, first.0, second.0);
            if at > 44 {
                assert!(second.0 >= 48, "{}: only {} reused", spec.arch, second.0);
            }
        }
    }
}

#[test]
fn chats_take_turns_in_one_engine_and_nothing_is_read_again() {
    for spec in families() {
        let shared = open(&spec, options(192, 2));
        let mut chats: Vec<(Engine, Vec<u32>, Vec<u8>)> = (0..3u32)
            .map(|n| (open(&spec, options(192, 2)), prompt(20 + 7 * n as usize).split_off(n as usize), Vec::new()))
            .collect();
        for turn in 0..4 {
            for (own, text, bytes) in &mut chats {
                if turn > 0 {
                    restore(&shared, bytes).unwrap();
                }
                let answer = greedy(&shared, text, 5).0;
                assert_eq!(answer.ids, greedy(own, text, 5).0.ids, "{}", spec.arch);
                if turn > 0 {
                    assert_eq!(text.len() as u32 - answer.reused_tokens, 2, "{}: only the new message", spec.arch);
                }
                *bytes = saved(&shared);
                text.extend(answer.ids);
                text.extend([9, 8]);
            }
        }
    }
}

/// Windows that went round, also into a larger cache; of a context that is too short it is said.
#[test]
fn rings_come_back_and_room_may_differ() {
    for spec in [ModelSpec::gemma2(), ModelSpec::gemma4(), ModelSpec::gpt_oss()] {
        let engine = open(&spec, options(2000, 2));
        assert!(engine.layout().layers[0].cells < 1400, "{}", spec.arch);
        greedy(&engine, &prompt(1400), 4);
        let bytes = saved(&engine);
        let mut back = prompt(900);
        back.push(7);
        for other in [open(&spec, options(1800, 0)), open(&spec, options(2400, 5)), engine] {
            assert_eq!(restore(&other, &bytes).unwrap(), 1404);
            let answer = greedy(&other, &back, 4).0;
            assert_eq!(answer.reused_tokens, 900, "{}", spec.arch);
            assert_eq!(answer.ids, greedy(&open(&spec, options(1800, 0)), &back, 4).0.ids, "{}", spec.arch);
        }
        let short = restore(&open(&spec, options(1300, 0)), &bytes).unwrap_err();
        assert!(matches!(short, SavedError::TooLong { tokens: 1404, context: 1300 }), "{short}");
        // Where the ring itself has another size, the cells do not fit.
        let other = restore(&open(&spec, LoadOptions { ubatch: 8, ..options(2000, 0) }), &bytes).unwrap_err();
        assert!(matches!(other, SavedError::Foreign), "{other}");
    }
}

/// A window that was cut twice lacks what was overwritten before the first time.
#[test]
fn a_window_goes_back_only_as_far_as_its_cells_do() {
    for spec in [ModelSpec::gemma2(), ModelSpec::gpt_oss()] {
        let engine = open(&spec, options(2000, 0));
        let fresh = |text: &[u32]| greedy(&open(&spec, options(2000, 0)), text, 4).0.ids;
        greedy(&engine, &prompt(1400), 4);
        let cut = |len| [prompt(len), vec![7, 6]].concat();
        let first = greedy(&engine, &cut(900), 4).0;
        assert_eq!((first.reused_tokens, first.ids), (900, fresh(&cut(900))), "{}", spec.arch);
        let bytes = saved(&engine);
        for restored in [false, true] {
            if restored {
                restore(&engine, &bytes).unwrap();
            }
            let second = greedy(&engine, &cut(300), 4).0;
            assert_eq!((second.reused_tokens, second.ids), (0, fresh(&cut(300))), "{}", spec.arch);
        }
    }
}

#[test]
fn what_is_damaged_or_foreign_is_refused_and_work_goes_on() {
    for spec in [ModelSpec::gemma4(), ModelSpec::qwen35(), ModelSpec::deepseek2()] {
        let engine = open(&spec, options(64, 2));
        let expected = greedy(&engine, &prompt(20), 4).0.ids;
        let bytes = saved(&engine);
        let refused = |bytes: &[u8]| {
            let error = restore(&engine, bytes).unwrap_err();
            assert_eq!(engine.remembered().unwrap().tokens, 0);
            error
        };
        for len in (0..bytes.len()).step_by(1 + bytes.len() / 200) {
            let error = refused(&bytes[..len]);
            assert!(matches!(error, SavedError::Damaged(_)), "{len} of {}: {error}", bytes.len());
        }
        assert!(matches!(refused(&[&bytes[..], &[0]].concat()), SavedError::Damaged(_)));
        let header = (0..200).chain((200..bytes.len()).step_by(1 + bytes.len() / 200)).chain([bytes.len() - 1]);
        for at in header {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            refused(&flipped);
        }
        assert!(matches!(refused(&[0x5a; 400]), SavedError::NotSaved));
        // Counts that would take all memory are not believed.
        let mut huge = bytes.clone();
        huge[24..36].fill(0xff);
        assert!(matches!(refused(&huge), SavedError::TooLong { tokens: u32::MAX, context: 64 }));

        let answer = greedy(&engine, &prompt(20), 4).0;
        assert_eq!((answer.reused_tokens, answer.ids), (0, expected));
        assert_eq!(restore(&engine, &bytes).unwrap(), 24);

        let seed = ModelSpec { seed: 2, ..spec.clone() };
        let norm = ModelSpec { norm_eps: 1e-6, ..spec.clone() };
        for other in [&seed, &norm] {
            let error = restore(&open(other, options(64, 0)), &bytes).unwrap_err();
            assert!(matches!(error, SavedError::Foreign), "{error}");
        }
        let types = LoadOptions { kv_type_k: GgmlType::BF16, ..options(64, 0) };
        assert!(matches!(restore(&open(&spec, types), &bytes).unwrap_err(), SavedError::Foreign));
    }
}

/// A disk that is full, or gone, after so many bytes.
struct Limited(usize);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Limited {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::TimedOut.into())
    }
}

#[test]
fn failures_of_disk_and_device_leave_a_working_engine() {
    for spec in [ModelSpec::gemma4(), ModelSpec::qwen35()] {
        let (engine, control) = load(&spec, options(64, 3), Some(PLENTY)).unwrap();
        let expected = greedy(&engine, &prompt(20), 4).0.ids;
        let bytes = saved(&engine);
        for room in [0, 100, bytes.len() - 1] {
            let error = engine.save(&mut Limited(room)).unwrap_err();
            assert!(matches!(error, EngineError::Saved(SavedError::Io(_))), "{error}");
        }
        assert!(saved(&engine) == bytes, "what is remembered stays");
        let error = engine.restore(&mut Limited(0)).unwrap_err();
        assert!(matches!(error, EngineError::Saved(SavedError::Io(_))), "{error}");
        restore(&engine, &bytes).unwrap();

        control.unwrap().lose();
        assert!(matches!(engine.save(&mut Vec::new()).unwrap_err(), EngineError::Device(_)));
        assert_eq!((engine.remembered().unwrap().tokens, engine.placement().gpu_layers), (0, 0));
        assert_eq!(engine.take_recoveries().unwrap().len(), 1);
        assert_eq!(restore(&engine, &bytes).unwrap(), 24);
        let answer = greedy(&engine, &prompt(20), 4).0;
        assert_eq!((answer.reused_tokens, answer.ids), (19, expected));
    }
}
