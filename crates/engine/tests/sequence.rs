//! One sequence: micro-batches, prefix reuse, the end of the context, cancel.

mod common;

use common::{greedy, load, options, prompt, request};
use engine::{Cancel, EngineError, Event, Finish, LoadOptions, Positions, Request};
use quant::GgmlType;
use std::time::Instant;
use test_models::ModelSpec;

#[test]
fn the_micro_batch_does_not_change_logits() {
    let mut all = Vec::new();
    for ubatch in [1, 3, 16, 64] {
        let (engine, _) = load(&ModelSpec::qwen3moe(), LoadOptions { ubatch, ..options(64, 0) }, None).unwrap();
        let mut rows: Vec<f32> = Vec::new();
        engine.logits(&prompt(50), Positions::All, &Cancel::new(), &mut |row| rows.extend(row)).unwrap();
        assert_eq!(rows.len(), 50 * engine.model().vocab_size);
        assert!(rows.iter().all(|value| value.is_finite()));
        all.push(rows);
    }
    for rows in &all[1..] {
        assert!(rows.iter().zip(&all[0]).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn positions_choose_rows() {
    let (engine, _) = load(&ModelSpec::llama(), LoadOptions { logits_rows: 4, ..options(64, 0) }, None).unwrap();
    let rows = |positions| {
        let mut rows: Vec<Vec<f32>> = Vec::new();
        engine.logits(&prompt(30), positions, &Cancel::new(), &mut |row| rows.push(row.to_vec())).unwrap();
        rows
    };
    let all = rows(Positions::All);
    assert_eq!(all.len(), 30);
    assert_eq!(rows(Positions::Last), all[29..]);
    assert_eq!(rows(Positions::From(13)), all[13..]);
}

#[test]
fn what_two_prompts_share_is_not_computed_again() {
    let (engine, _) = load(&ModelSpec::llama3(), options(128, 0), None).unwrap();
    let first = greedy(&engine, &prompt(40), 8).0;
    assert_eq!(first.reused_tokens, 0);

    // The next turn: the prompt, the answer, something new.
    let mut next = prompt(40);
    next.extend(&first.ids);
    next.extend([5, 6, 7]);
    let (reusing, events) = greedy(&engine, &next, 8);
    assert_eq!(reusing.reused_tokens, 48);
    assert_eq!(events[0], Event::Prompt { done: 48, total: 51, reused: 48 });

    let (fresh, _) = load(&ModelSpec::llama3(), options(128, 0), None).unwrap();
    assert_eq!(greedy(&fresh, &next, 8).0.ids, reusing.ids);

    // An edited message: only what comes before it is kept.
    let mut edited = prompt(40);
    edited[20] = 299;
    assert_eq!(greedy(&engine, &edited, 4).0.reused_tokens, 20);
    // The same prompt again: its last token is computed, for its logits.
    assert_eq!(greedy(&engine, &edited, 4).0.reused_tokens, 39);
}

#[test]
fn a_full_context_ends_the_answer_and_says_so() {
    let (engine, _) = load(&ModelSpec::llama(), options(32, 0), None).unwrap();
    let request = Request { max_tokens: None, ..request(&prompt(20), 0) };
    let completion = engine.generate(request, &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(completion.finish, Finish::ContextFull);
    assert_eq!((completion.ids.len(), completion.context_used), (13, 32));

    let error = engine.generate(common::request(&prompt(33), 1), &Cancel::new(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, EngineError::ContextFull { needed: 33, context: 32 }), "{error}");
}

#[test]
fn cancel_stops_before_the_next_token_and_keeps_what_there_is() {
    let (engine, _) = load(&ModelSpec::llama(), options(512, 0), None).unwrap();
    let cancel = Cancel::new();
    let mut tokens = 0;
    let completion = engine
        .generate(request(&prompt(20), 400), &cancel, &mut |event| {
            if matches!(event, Event::Token { .. }) {
                tokens += 1;
                if tokens == 3 {
                    cancel.cancel();
                }
            }
        })
        .unwrap();
    assert_eq!((completion.finish, completion.ids.len()), (Finish::Cancelled, 3));

    let cancel = Cancel::new();
    cancel.cancel();
    let before = Instant::now();
    let completion = engine.generate(request(&prompt(300), 5), &cancel, &mut |_| {}).unwrap();
    assert_eq!((completion.finish, completion.ids.len()), (Finish::Cancelled, 0));
    assert!(before.elapsed().as_secs() < 300);
    // And the engine still works.
    assert_eq!(greedy(&engine, &prompt(20), 3).0.ids.len(), 3);
}

#[test]
fn bad_requests_are_errors() {
    let (engine, _) = load(&ModelSpec::llama(), options(32, 0), None).unwrap();
    let fails = |request: Request| engine.generate(request, &Cancel::new(), &mut |_| {}).unwrap_err();
    assert!(matches!(fails(request(&[], 1)), EngineError::Invalid(_)));
    assert!(matches!(fails(request(&[1_000_000], 1)), EngineError::Device(_) | EngineError::Invalid(_)));
    let sampling = sampler::Params { temperature: f32::NAN, ..sampler::Params::default() };
    assert!(matches!(fails(Request { sampling, ..request(&[5], 1) }), EngineError::Invalid(_)));
    assert_eq!(greedy(&engine, &prompt(5), 2).0.ids.len(), 2);
}

#[test]
fn quantized_caches_stay_close_to_exact_ones() {
    let spec = ModelSpec { n_layer: 2, ..ModelSpec::quantized(GgmlType::F32) };
    let logits = |ty| {
        let options = LoadOptions { kv_type_k: ty, kv_type_v: ty, ..options(128, 0) };
        let (engine, _) = load(&spec, options, None).unwrap();
        let mut rows: Vec<f32> = Vec::new();
        engine.logits(&prompt(100), Positions::All, &Cancel::new(), &mut |row| rows.extend(row)).unwrap();
        rows
    };
    let exact = logits(GgmlType::F32);
    let spread = (exact.iter().map(|v| f64::from(v * v)).sum::<f64>() / exact.len() as f64).sqrt();
    for (ty, allowed) in [(GgmlType::F16, 0.01), (GgmlType::Q8_0, 0.05)] {
        let rows = logits(ty);
        let sum: f64 = rows.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let error = (sum / exact.len() as f64).sqrt() / spread;
        assert!(error <= allowed && error > 0.0, "{ty}: {error}");
    }
}

#[test]
fn an_unusable_file_is_refused() {
    let bytes = ModelSpec::llama().build();
    let truncated = common::file_of(&bytes[..bytes.len() - 1000]);
    let pool = std::sync::Arc::new(backend_cpu::ThreadPool::new(1));
    let host = backend_cpu::CpuDevice::new(pool, common::config(backend_cpu::Precision::Fast));
    let devices = engine::Devices { host: Box::new(host), accelerators: Vec::new() };
    let result = engine::Engine::load(&truncated, LoadOptions::default(), devices, &mut |_| {}, &Cancel::new());
    assert!(matches!(result.err(), Some(EngineError::File(_))));
}
