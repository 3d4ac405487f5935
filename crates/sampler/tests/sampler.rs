use proptest::prelude::*;
use sampler::{Mask, Params, Sampler, SamplerError};

/// Nothing cut, nothing penalized.
fn open() -> Params {
    Params { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Params::default() }
}

fn sampler(params: Params) -> Sampler {
    Sampler::new(params).expect("the parameters are in range")
}

/// How often each token is drawn in `draws` draws.
fn histogram(params: Params, logits: &[f32], draws: u32) -> Vec<u32> {
    let mut sampler = sampler(params);
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(logits).expect("some logit is finite") as usize] += 1;
    }
    counts
}

/// Chi square of `counts` against probabilities proportional to `weights`; a weight of 0 must never be drawn.
fn chi_square(counts: &[u32], weights: &[f64]) -> f64 {
    let draws: u32 = counts.iter().sum();
    let total: f64 = weights.iter().sum();
    let mut chi = 0.0;
    for (&count, weight) in counts.iter().zip(weights) {
        let expected = f64::from(draws) * weight / total;
        if expected == 0.0 {
            assert_eq!(count, 0);
        } else {
            chi += (f64::from(count) - expected).powi(2) / expected;
        }
    }
    chi
}

const LOGITS: [f32; 8] = [0.5, 2.0, -1.0, 1.0, 0.0, 1.5, -0.5, 2.5];

fn weights(temperature: f64, keep: impl Fn(usize) -> bool) -> Vec<f64> {
    LOGITS.iter().enumerate().map(|(i, &l)| if keep(i) { (f64::from(l) / temperature).exp() } else { 0.0 }).collect()
}

// The 99.9 % bounds of chi square with 7, 4, 3 and 2 degrees of freedom.
const CHI_7: f64 = 24.3;
const CHI_4: f64 = 18.5;
const CHI_3: f64 = 16.3;
const CHI_2: f64 = 13.8;

#[test]
fn draws_follow_the_softmax_at_any_temperature() {
    for (temperature, seed) in [(1.0f32, 1), (0.5, 2), (2.0, 3)] {
        let counts = histogram(Params { temperature, seed, ..open() }, &LOGITS, 40_000);
        let chi = chi_square(&counts, &weights(temperature.into(), |_| true));
        assert!(chi < CHI_7, "temperature {temperature}: {chi}");
    }
}

#[test]
fn top_k_keeps_the_likeliest() {
    let counts = histogram(Params { top_k: 4, seed: 4, ..open() }, &LOGITS, 40_000);
    assert!(chi_square(&counts, &weights(1.0, |i| [7, 1, 5, 3].contains(&i))) < CHI_3);
}

#[test]
fn top_p_keeps_the_fewest_that_reach_it() {
    // Probabilities by rank: 0.3806, 0.2308, 0.1400, 0.0849, ...: three reach 0.75, two do not.
    let counts = histogram(Params { top_p: 0.75, seed: 5, ..open() }, &LOGITS, 40_000);
    assert!(chi_square(&counts, &weights(1.0, |i| [7, 1, 5].contains(&i))) < CHI_2);
}

#[test]
fn top_p_takes_its_share_of_what_top_k_left() {
    // Of the top 4: 0.455, 0.276, ...: 0.7 takes two; of the whole vocabulary it would take three.
    let counts = histogram(Params { top_k: 4, top_p: 0.7, seed: 5, ..open() }, &LOGITS, 10_000);
    assert!(counts.iter().enumerate().all(|(i, &n)| (n > 0) == [7, 1].contains(&i)), "{counts:?}");
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    // e^-2 = 0.1353: logits 0.5 and above stay.
    let counts = histogram(Params { min_p: 0.135, seed: 6, ..open() }, &LOGITS, 40_000);
    assert!(chi_square(&counts, &weights(1.0, |i| [7, 1, 5, 3, 0].contains(&i))) < CHI_4);
}

#[test]
fn truncation_comes_before_temperature() {
    let params = Params { min_p: 0.135, temperature: 5.0, seed: 6, ..open() };
    let counts = histogram(params, &LOGITS, 40_000);
    assert!(chi_square(&counts, &weights(5.0, |i| [7, 1, 5, 3, 0].contains(&i))) < CHI_4);
}

#[test]
fn a_large_vocabulary_needs_many_steps_of_the_nucleus() {
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 1e-3).collect();
    let mut order: Vec<usize> = (0..1000).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    let mut sum = 0.0;
    let nucleus: Vec<usize> = order
        .into_iter()
        .take_while(|&i| {
            let wanted = sum < 0.5 * total;
            sum += f64::from(logits[i]).exp();
            wanted
        })
        .collect();
    let counts = histogram(Params { top_p: 0.5, ..open() }, &logits, 10_000);
    let drawn = counts.iter().filter(|&&n| n > 0).count();
    assert!(counts.iter().enumerate().all(|(i, &n)| n == 0 || nucleus.contains(&i)));
    assert!(drawn > nucleus.len() * 99 / 100, "{drawn} of {}", nucleus.len());
}

#[test]
fn a_seed_gives_the_same_tokens_and_reset_starts_again() {
    let draw = |sampler: &mut Sampler| -> Vec<u32> { (0..20).map(|_| sampler.sample(&LOGITS).unwrap()).collect() };
    let mut first = sampler(Params { seed: 42, ..open() });
    let tokens = draw(&mut first);
    // From a separate implementation (Python): another platform or a later version must give the same.
    assert_eq!(tokens, [3, 7, 6, 5, 3, 1, 7, 1, 7, 0, 1, 3, 5, 7, 1, 1, 7, 7, 1, 1]);
    assert_ne!(draw(&mut first), tokens);
    first.reset();
    assert_eq!(draw(&mut first), tokens);
    assert_ne!(draw(&mut sampler(Params { seed: 43, ..open() })), tokens);
}

#[test]
fn temperature_zero_is_the_first_of_the_largest() {
    let mut greedy = sampler(Params { temperature: 0.0, ..Params::default() });
    assert_eq!(greedy.sample(&[1.0, 3.0, 3.0, 2.0]), Ok(1));
    assert_eq!(greedy.sample(&[f32::NAN, -5.0, f32::NEG_INFINITY]), Ok(1));
    assert_eq!(greedy.sample(&[0.0, f32::INFINITY, f32::MAX]), Ok(1));
    assert_eq!(greedy.sample(&[-0.0, 0.0]), Ok(0));
}

#[test]
fn penalties_change_logits_as_described() {
    let greedy = Params { temperature: 0.0, ..open() };
    let mut repeat = sampler(Params { repeat_penalty: 2.0, repeat_last_n: 2, ..greedy.clone() });
    repeat.accept(0);
    assert_eq!(repeat.sample(&[3.0, 1.6]), Ok(1), "3 / 2 < 1.6");
    assert_eq!(repeat.sample(&[3.0, 1.4]), Ok(0), "3 / 2 > 1.4");
    assert_eq!(repeat.sample(&[-1.0, -1.9]), Ok(1), "-1 x 2 < -1.9");
    repeat.accept(1);
    repeat.accept(1);
    assert_eq!(repeat.sample(&[3.0, 1.6]), Ok(0), "token 0 is out of the window");

    let mut frequency = sampler(Params { frequency_penalty: 0.5, ..greedy.clone() });
    let mut presence = sampler(Params { presence_penalty: 0.5, ..greedy.clone() });
    for _ in 0..3 {
        frequency.accept(0);
        presence.accept(0);
    }
    assert_eq!((frequency.sample(&[2.0, 0.6]), frequency.sample(&[2.0, 0.4])), (Ok(1), Ok(0)), "2 - 1.5");
    assert_eq!((presence.sample(&[2.0, 1.6]), presence.sample(&[2.0, 1.4])), (Ok(1), Ok(0)), "2 - 0.5");
    presence.reset();
    assert_eq!(presence.sample(&[2.0, 1.6]), Ok(0));

    let mut off = sampler(Params { repeat_penalty: 2.0, repeat_last_n: 0, ..greedy.clone() });
    off.accept(0);
    assert_eq!(off.sample(&[3.0, 1.6]), Ok(0));
    let mut biased = sampler(Params { logit_bias: vec![(1, 2.0), (99, 5.0)], ..greedy });
    assert_eq!(biased.sample(&[3.0, 1.6]), Ok(1));
}

#[test]
fn a_mask_is_obeyed() {
    let mut mask = Mask::none(LOGITS.len());
    mask.set(2, true);
    mask.set(4, true);
    mask.set(70, true);
    for temperature in [0.0, 1.0] {
        let mut sampler = sampler(Params { temperature, ..open() });
        for _ in 0..200 {
            assert!([2, 4].contains(&sampler.sample_masked(&LOGITS, &mask).unwrap()));
        }
        let error = sampler.sample_masked(&LOGITS, &Mask::none(8)).unwrap_err();
        assert_eq!(error, SamplerError::NoCandidate { vocabulary: 8, not_a_number: 0 });
        assert!(sampler.sample_masked(&LOGITS, &Mask::all(1)).unwrap() == 0, "tokens beyond the mask are forbidden");
    }
    mask.set(2, false);
    assert!(!mask.allows(2) && mask.allows(4) && !mask.allows(70));
}

#[test]
fn nothing_to_choose_is_an_error() {
    let mut greedy = sampler(Params { temperature: 0.0, ..open() });
    let mut random = sampler(Params::default());
    for logits in [&[][..], &[f32::NAN, f32::NAN], &[f32::NEG_INFINITY]] {
        let not_a_number = logits.iter().filter(|l| l.is_nan()).count();
        let error = Err(SamplerError::NoCandidate { vocabulary: logits.len(), not_a_number });
        assert_eq!(greedy.sample(logits), error);
        assert_eq!(random.sample(logits), error);
    }
}

#[test]
fn parameters_outside_their_range_are_named() {
    let message = |params: Params| Sampler::new(params).unwrap_err().to_string();
    let base = Params::default;
    assert_eq!(message(Params { temperature: -0.1, ..base() }), "temperature is -0.1: it must be between 0 and 100");
    assert_eq!(message(Params { top_p: 1.5, ..base() }), "top_p is 1.5: it must be between 0 and 1");
    assert_eq!(
        message(Params { repeat_penalty: 0.0, ..base() }),
        "repeat_penalty is 0: it must be between 0.01 and 100"
    );
    let broken = [
        Params { min_p: f32::NAN, ..base() },
        Params { temperature: f32::INFINITY, ..base() },
        Params { presence_penalty: 101.0, ..base() },
        Params { frequency_penalty: -101.0, ..base() },
        Params { logit_bias: vec![(0, f32::NEG_INFINITY)], ..base() },
    ];
    for params in broken {
        assert!(matches!(Sampler::new(params), Err(SamplerError::OutOfRange { .. })));
    }
}

#[test]
fn missing_fields_have_defaults() {
    let params: Params = serde_json::from_str(r#"{"temperature": 0.2, "logit_bias": [[5, -100]]}"#).unwrap();
    assert_eq!(params, Params { temperature: 0.2, logit_bias: vec![(5, -100.0)], ..Params::default() });
    assert_eq!((params.top_k, params.top_p, params.min_p, params.repeat_last_n), (40, 0.95, 0.05, 64));
}

fn any_logit() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -20f32..20.0, 1 => any::<f32>(), 1 => Just(0.0)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Against sorting everything: what is drawn is always among the tokens that the definitions keep.
    #[test]
    fn draws_stay_within_the_definitions(
        logits in prop::collection::vec(-20f32..20.0, 1..700),
        top_k in 0u32..50, top_p in 0f32..=1.0, min_p in 0f32..=1.0, temperature in 0.01f32..3.0, seed: u64,
    ) {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        order.truncate(if top_k == 0 { logits.len() } else { top_k as usize });
        let p = |i: usize| (f64::from(logits[i]) - f64::from(logits[order[0]])).exp();
        let total: f64 = order.iter().map(|&i| p(i)).sum();
        let mut sampler = sampler(Params { top_k, top_p, min_p, temperature, seed, ..Params::default() });
        for _ in 0..10 {
            let token = sampler.sample(&logits).unwrap() as usize;
            let rank = order.iter().position(|&i| i == token);
            prop_assert!(rank.is_some(), "not among the top {top_k}");
            let before: f64 = order[..rank.unwrap()].iter().map(|&i| p(i)).sum();
            prop_assert!(rank == Some(0) || before < f64::from(top_p) * total * (1.0 + 1e-9));
            prop_assert!(p(token) >= f64::from(min_p) * (1.0 - 1e-9));
        }
    }

    /// Hostile logits give a token that is not NaN or minus infinity, or the error; never a panic.
    #[test]
    fn any_logits_are_survived(
        logits in prop::collection::vec(any_logit(), 0..600), greedy: bool, seed: u64, top_k in 0u32..4,
        penalty in 0.01f32..100.0, history in prop::collection::vec(0u32..700, 0..100),
    ) {
        let temperature = if greedy { 0.0 } else { 0.7 };
        let params = Params { temperature, seed, top_k, repeat_penalty: penalty, frequency_penalty: 1.0, ..Params::default() };
        let mut sampler = sampler(params);
        history.iter().for_each(|&token| sampler.accept(token));
        match sampler.sample(&logits) {
            Ok(token) => prop_assert!(logits[token as usize] > f32::NEG_INFINITY),
            // A penalty can push the most negative logits to minus infinity.
            Err(_) => prop_assert!(logits.iter().all(|&l| l.is_nan() || l < -1e30)),
        }
    }
}

#[test]
fn a_mask_of_words_is_the_mask_of_its_bits() {
    for len in [0usize, 1, 63, 64, 65, 128, 200] {
        let words: Vec<u64> = (0..3u64).map(|i| 0x9e37_79b9_7f4a_7c15u64.rotate_left(i as u32 * 7)).collect();
        let mask = Mask::from_words(words.iter().copied(), len);
        let expected =
            |token: u32| (token as usize) < len.min(192) && words[token as usize / 64] >> (token % 64) & 1 == 1;
        assert!((0..300).all(|token| mask.allows(token) == expected(token)), "{len}");
        assert_eq!(mask.allows_any(), (0..300).any(expected), "{len}");
        // More logits than the mask speaks about: the others may not come.
        let logits: Vec<f32> = (0..300).map(|token| if expected(token) { 1.0 } else { 9.0 }).collect();
        let mut sampler = Sampler::new(Params { temperature: 0.0, ..Params::default() }).unwrap();
        assert_eq!(sampler.sample_masked(&logits, &mask).ok(), (0..300).find(|token| expected(*token)), "{len}");
    }
}
