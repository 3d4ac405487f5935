//! Choices and their distribution.

use proptest::prelude::*;
use sampler::{Params, Sampler, SamplerError};

fn plain() -> Params {
    Params { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Params::default() }
}

fn counts(params: Params, logits: &[f32], draws: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(params).unwrap();
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(logits).unwrap() as usize] += 1.0 / draws as f64;
    }
    counts
}

#[test]
fn frequencies_are_the_softmax() {
    let logits = [1.0f32, 0.0, -1.0, 2.0, f32::NEG_INFINITY, f32::NAN];
    for temperature in [0.5f32, 1.0, 2.0] {
        let weights: Vec<f64> =
            logits.iter().map(|l| if l.is_nan() { 0.0 } else { f64::from(l / temperature).exp() }).collect();
        let total: f64 = weights.iter().sum();
        let found = counts(Params { temperature, seed: 7, ..plain() }, &logits, 40_000);
        for (found, weight) in found.iter().zip(&weights) {
            assert!((found - weight / total).abs() < 0.012, "{found} {}", weight / total);
        }
    }
}

#[test]
fn filters_leave_what_they_should() {
    let logits = [3.0f32, 2.0, 1.0, 0.0, -1.0];
    let support = |params| -> Vec<usize> {
        let found = counts(params, &logits, 4000);
        (0..5).filter(|i| found[*i] > 0.0).collect()
    };
    assert_eq!(support(Params { top_k: 2, ..plain() }), [0, 1]);
    assert_eq!(support(Params { top_k: 1, ..plain() }), [0]);
    // Softmax: 0.636, 0.234, 0.086, 0.032, 0.012
    assert_eq!(support(Params { top_p: 0.6, ..plain() }), [0]);
    assert_eq!(support(Params { top_p: 0.8, ..plain() }), [0, 1]);
    assert_eq!(support(Params { min_p: 0.1, ..plain() }), [0, 1, 2]);
    assert_eq!(support(plain()), [0, 1, 2, 3, 4]);
}

#[test]
fn temperature_zero_is_the_first_of_the_likeliest() {
    let mut sampler = Sampler::new(Params { temperature: 0.0, ..plain() }).unwrap();
    assert_eq!(sampler.sample(&[1.0, 5.0, 5.0, f32::NAN]), Ok(1));
    assert_eq!(sampler.sample(&[f32::NAN, f32::NEG_INFINITY]), Err(SamplerError::NoLogits));
    assert_eq!(sampler.sample(&[]), Err(SamplerError::NoLogits));
}

#[test]
fn penalties_lower_what_was_said() {
    let logits = [2.0f32, 1.9, -1.0];
    let greedy = |params: Params, said: &[u32]| {
        let mut sampler = Sampler::new(Params { temperature: 0.0, ..params }).unwrap();
        said.iter().for_each(|token| sampler.accept(*token));
        sampler.sample(&logits).unwrap()
    };
    assert_eq!(greedy(plain(), &[0, 0]), 0);
    assert_eq!(greedy(Params { repeat_penalty: 1.5, ..plain() }, &[0]), 1);
    assert_eq!(greedy(Params { presence_penalty: 0.5, ..plain() }, &[0]), 1);
    assert_eq!(greedy(Params { frequency_penalty: 0.06, ..plain() }, &[0]), 0);
    assert_eq!(greedy(Params { frequency_penalty: 0.06, ..plain() }, &[0, 0]), 1);
    // Out of the window.
    assert_eq!(greedy(Params { presence_penalty: 0.5, repeat_last_n: 1, ..plain() }, &[0, 2]), 0);
}

#[test]
fn a_seed_is_a_sequence() {
    let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.37).sin()).collect();
    let draw = |seed| {
        let mut sampler = Sampler::new(Params { seed, ..plain() }).unwrap();
        (0..50).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let mut sampler = Sampler::new(Params { seed: 1, ..plain() }).unwrap();
    let first: Vec<u32> = (0..50).map(|_| sampler.sample(&logits).unwrap()).collect();
    sampler.reset();
    assert_eq!(first, (0..50).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>());
}

#[test]
fn parameters_out_of_range_are_refused() {
    for params in [
        Params { temperature: -1.0, ..plain() },
        Params { temperature: f32::NAN, ..plain() },
        Params { top_p: 1.5, ..plain() },
        Params { min_p: f32::INFINITY, ..plain() },
        Params { repeat_penalty: 0.0, ..plain() },
        Params { presence_penalty: f32::NAN, ..plain() },
    ] {
        assert!(matches!(Sampler::new(params), Err(SamplerError::OutOfRange { .. })));
    }
}

proptest! {
    #[test]
    fn whatever_the_logits_a_choice_is_possible_and_allowed(
        logits in prop::collection::vec(prop::num::f32::ANY, 1..300),
        top_k in 0u32..50, top_p in 0f32..=1.0, min_p in 0f32..=1.0, temperature in 0f32..3.0, seed: u64,
    ) {
        let mut sampler = Sampler::new(Params { temperature, top_k, top_p, min_p, seed, ..plain() }).unwrap();
        let possible = |i: u32| i % 3 == 0 && logits[i as usize] > f32::NEG_INFINITY;
        match sampler.sample_masked(&logits, |token| token % 3 == 0) {
            Ok(token) => prop_assert!(possible(token)),
            Err(_) => prop_assert!((0..logits.len() as u32).all(|i| !possible(i))),
        }
    }
}
