//! A part of a sequence is left out and the rest moves up.

mod common;

use common::{greedy, load, options, prompt};
use engine::{Cancel, Engine, LoadOptions, Positions};
use quant::GgmlType;
use test_models::{ModelSpec, RopeScaling};

const PLENTY: u64 = 1 << 30;

/// The prompt without a part of it.
fn without(len: usize, range: std::ops::Range<usize>) -> Vec<u32> {
    let all = distinct(len);
    [&all[..range.start], &all[range.end..]].concat()
}

/// Without repetitions, so that there is one part that is missing.
fn distinct(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 7) % 300 + 40 + i / 300).collect()
}

/// The caches' content, as numbers: what is saved of a sequence, behind its header.
fn caches(engine: &Engine, tokens: usize) -> Vec<f32> {
    let mut bytes = Vec::new();
    engine.save(&mut bytes).expect("room");
    let cells = &bytes[36 + 4 * tokens..bytes.len() - 8];
    cells.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// In a model of one layer a key depends on its token and position alone: there moved keys are computed ones.
#[test]
fn moved_keys_are_those_of_their_new_positions() {
    let mut families = vec![ModelSpec::llama(), ModelSpec::qwen3(), ModelSpec::command_r(), ModelSpec::deepseek2()];
    let yarn = RopeScaling::Yarn { factor: 4.0, original_context: 64 };
    families.push(ModelSpec { rope_scaling: Some(yarn), ..ModelSpec::llama() });
    families.push(ModelSpec { rope_freqs: true, ..ModelSpec::llama3() });
    for spec in families.into_iter().map(|spec| ModelSpec { n_layer: 1, ..spec }) {
        for layers in [0, 2] {
            let f32s = LoadOptions { kv_type_k: GgmlType::F32, kv_type_v: GgmlType::F32, ..options(256, layers) };
            let (engine, _) = load(&spec, f32s, Some(PLENTY)).expect("a model");
            let whole = distinct(150);
            greedy(&engine, &whole, 1);
            let rest = without(150, 10..70);
            assert_eq!(engine.shift(&rest).expect("an engine"), 80, "{}", spec.arch);
            // What was made after the prompt is no part of the wanted rest.
            let moved = caches(&engine, 90);
            let (fresh, _) = load(&spec, f32s, Some(PLENTY)).expect("a model");
            fresh.logits(&rest, Positions::Last, &Cancel::new(), &mut |_| {}).expect("logits");
            let computed = caches(&fresh, 90);
            assert_eq!(moved.len(), computed.len());
            let far = moved.iter().zip(&computed).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            let size = computed.iter().fold(0f32, |most, value| most.max(value.abs()));
            assert!(far <= 1e-4 * size, "{} {layers}: {far} of {size}", spec.arch);
            let answer = greedy(&engine, &rest, 8).0;
            assert_eq!(answer.reused_tokens, 89, "{}", spec.arch);
        }
    }
}

/// Turned keys whose norm has weights cannot be turned further.
#[test]
fn keys_with_a_norm_after_their_turn_stay() {
    for (arch, moves) in [("qwen3", 80), ("hunyuan-dense", 0)] {
        let spec = ModelSpec { arch: arch.into(), ..ModelSpec::qwen3() };
        let (engine, _) = load(&spec, options(256, 0), None).expect("a model");
        greedy(&engine, &distinct(150), 4);
        assert_eq!(engine.shift(&without(150, 10..70)).expect("an engine"), moves, "{arch}");
    }
}

#[test]
fn what_cannot_be_moved_is_computed() {
    for spec in ModelSpec::every_kind() {
        let (engine, _) = load(&spec, options(256, 2), Some(PLENTY)).expect("a model");
        greedy(&engine, &distinct(150), 4);
        let rest = without(150, 10..70);
        let moved = engine.shift(&rest).expect("an engine");
        let recurrent = engine.layout().is_recurrent();
        assert_eq!(moved, if recurrent { 0 } else { 80 }, "{}", spec.arch);
        // Another order, too little, nothing left out.
        for other in [prompt(100), distinct(30), rest.clone()] {
            assert_eq!(engine.shift(&other).expect("an engine"), 0, "{}", spec.arch);
        }
        let answer = greedy(&engine, &rest, 8).0;
        assert!(recurrent || answer.reused_tokens == 89, "{}: {}", spec.arch, answer.reused_tokens);
        if recurrent {
            let fresh = greedy(&load(&spec, options(256, 0), None).expect("a model").0, &rest, 8).0;
            assert_eq!(answer.ids, fresh.ids, "{}", spec.arch);
        }
    }
    let spec = ModelSpec { head_dim: 32, ..ModelSpec::llama() };
    let quantized = LoadOptions { kv_type_k: GgmlType::Q8_0, ..options(256, 0) };
    let (engine, _) = load(&spec, quantized, None).expect("a model");
    greedy(&engine, &distinct(150), 4);
    assert_eq!(engine.shift(&without(150, 10..70)).expect("an engine"), 0);
}

/// Rings that went round: the window behind the last token is whole after it moved.
#[test]
fn a_ring_moves_too() {
    let spec = ModelSpec { n_layer: 1, ..ModelSpec::gpt_oss() };
    let f32s = LoadOptions { kv_type_k: GgmlType::F32, kv_type_v: GgmlType::F32, ..options(2000, 0) };
    let all: Vec<u32> = (0..1500u32).map(|i| (i * i / 3 + i) % 320 + 40).collect();
    let rest = [&all[..20], &all[400..]].concat();
    let (engine, _) = load(&spec, f32s, None).expect("a model");
    assert!(engine.layout().layers[0].cells < 1400);
    greedy(&engine, &all, 1);
    assert_eq!(engine.shift(&rest).expect("an engine"), 1100);
    let (fresh, _) = load(&spec, f32s, None).expect("a model");
    let (moved, computed) = (greedy(&engine, &rest, 12).0, greedy(&fresh, &rest, 12).0);
    assert_eq!(moved.reused_tokens, 1119);
    assert_eq!(moved.ids, computed.ids);
}
