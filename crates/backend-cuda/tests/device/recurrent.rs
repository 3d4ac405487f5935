//! Convolutions and recurrent mixers beside the CPU device.

use crate::common::pair::Pair;
use crate::common::random::Random;
use crate::operations::ACTIVATIONS;
use backend::{Activation, ConvSpec, DeltaNetSpec, Op, State, StateSpaceSpec, View};

/// Nothing before, or a state of `len` values; and a place for the new one.
fn state(pair: &mut Pair, random: &mut Random, len: usize, before: bool) -> State {
    let input = before.then(|| pair.floats(&random.floats(len, 1.0)));
    State { input, output: pair.out(len + 1) }
}

/// Results and the new state agree, and nothing is written past their ends.
fn check(pair: &mut Pair, results: [(View, usize); 2], tolerance: f32, what: &str) {
    for (view, len) in results {
        pair.compare(view, len, tolerance, what);
        assert!(pair.results(view, len + 1)[0][len].is_nan(), "{what}: written past the end");
    }
}

#[test]
fn convolutions() {
    let mut random = Random(1);
    for (i, (n, channels, kernel)) in
        [(1, 1, 1), (1, 300, 4), (2, 100, 4), (9, 70, 3), (5, 33, 1), (11, 40, 4), (13, 20, 9)].into_iter().enumerate()
    {
        let acts = std::iter::once(None).chain(ACTIVATIONS.iter().map(|act| Some(*act)));
        for (before, act) in acts.flat_map(|act| [(false, act), (true, act)]) {
            let mut pair = Pair::new(i as u64);
            let input = pair.floats(&random.floats(n * channels, 2.0));
            let weight = pair.floats(&random.floats(channels * kernel, 1.0));
            let bias = (i % 2 == 0).then(|| pair.floats(&random.floats(channels, 1.0)));
            let kept = (kernel - 1) * channels;
            let state = state(&mut pair, &mut random, kept, before);
            let out = pair.out(n * channels + 1);
            let spec = ConvSpec { channels, kernel, act };
            pair.run(&Op::Conv { spec, input, n, weight, bias, state, out });
            // GELU is computed in 11 bits.
            let tolerance = if act == Some(Activation::GeluTanh) { 1e-3 } else { 1e-6 };
            let what = format!("{n} {channels} {kernel} {act:?}");
            check(&mut pair, [(out, n * channels), (state.output, kept)], tolerance, &what);
        }
    }
}

#[test]
fn delta_nets() {
    let mut random = Random(2);
    for (i, (n, heads_k, heads_v, dim)) in
        [(1, 1, 1, 16), (3, 2, 4, 64), (7, 2, 6, 40), (2, 1, 2, 128), (2, 1, 2, 35), (2, 1, 1, 98), (1, 1, 1, 161)]
            .into_iter()
            .enumerate()
    {
        for before in [false, true] {
            let mut pair = Pair::new(i as u64);
            let width = (2 * heads_k + heads_v) * dim;
            let qkv = pair.floats(&random.floats(n * width, 1.0));
            let [alpha, beta] = [(); 2].map(|()| pair.floats(&random.floats(n * heads_v, 2.0)));
            let dt_bias = pair.floats(&random.floats(heads_v, 1.0));
            let a: Vec<f32> = (0..heads_v).map(|_| -random.float(2.0).abs()).collect();
            let a = pair.floats(&a);
            let len = heads_v * dim * dim;
            let state = state(&mut pair, &mut random, len, before);
            let out = pair.out(n * heads_v * dim + 1);
            let spec = DeltaNetSpec { heads_k, heads_v, head_dim: dim, tiled: i % 2 == 1, eps: 1e-6 };
            pair.run(&Op::DeltaNet { spec, qkv, alpha, beta, dt_bias, a, n, state, out });
            check(&mut pair, [(out, n * heads_v * dim), (state.output, len)], 5e-6, &format!("{heads_v} x {dim}"));
        }
    }
}

#[test]
fn state_spaces() {
    let mut random = Random(3);
    for (i, (n, heads, dim, size, groups)) in [
        (1, 1, 1, 16, 1),
        (3, 4, 64, 128, 2),
        (7, 6, 33, 40, 3),
        (2, 2, 64, 256, 1),
        (2, 1, 5, 96, 1),
        (2, 1, 3, 150, 1),
        (3, 2, 6, 300, 2),
    ]
    .into_iter()
    .enumerate()
    {
        for before in [false, true] {
            let mut pair = Pair::new(i as u64);
            let xbc = pair.floats(&random.floats(n * (heads * dim + 2 * groups * size), 1.0));
            let dt = pair.floats(&random.floats(n * heads, 2.0));
            let [dt_bias, skip] = [(); 2].map(|()| pair.floats(&random.floats(heads, 1.0)));
            let a: Vec<f32> = (0..heads).map(|_| -random.float(2.0).abs()).collect();
            let a = pair.floats(&a);
            let len = heads * dim * size;
            let state = state(&mut pair, &mut random, len, before);
            let out = pair.out(n * heads * dim + 1);
            let spec = StateSpaceSpec { heads, head_dim: dim, state_size: size, groups };
            pair.run(&Op::StateSpace { spec, xbc, dt, dt_bias, a, skip, n, state, out });
            check(&mut pair, [(out, n * heads * dim), (state.output, len)], 5e-6, &format!("{heads} x {dim}"));
        }
    }
}
