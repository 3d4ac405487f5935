//! Everything but products, beside the CPU device's exact arithmetic.

use crate::common::pair::Pair;
use crate::common::random::Random;
use backend::{Activation, Gating, Mix, NormKind, Op, RopePairs, RopeSpec, Router, View};

pub const ACTIVATIONS: &[Activation] = &[
    Activation::Silu,
    Activation::GeluTanh,
    Activation::Relu2,
    Activation::Sigmoid,
    Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 },
];

#[test]
fn norms() {
    let mut random = Random(1);
    for (i, (rows, dim)) in
        [(1, 1), (3, 64), (2, 100), (1, 256), (2, 257), (3, 1000), (1, 4096), (2, 700), (1, 1500), (2, 1700), (2, 2500)]
            .into_iter()
            .enumerate()
    {
        for kind in [NormKind::Rms, NormKind::Layer] {
            let mut pair = Pair::new(i as u64);
            // Sometimes so small that epsilon counts.
            let input = pair.floats(&random.floats(rows * dim, if i % 3 == 0 { 5.0 } else { 0.01 }));
            let weight = (i % 2 == 0).then(|| pair.floats(&random.floats(dim, 2.0)));
            let bias = (i % 3 == 0).then(|| pair.floats(&random.floats(dim, 2.0)));
            let out = if i % 2 == 0 { pair.out(rows * dim + 1) } else { input };
            pair.run(&Op::Norm { kind, input, rows, dim, eps: 1e-5, weight, bias, out });
            pair.compare(out, rows * dim, 3e-6, &format!("{kind:?} {rows}x{dim}"));
            if i % 2 == 0 {
                assert!(pair.results(out, rows * dim + 1)[0][rows * dim].is_nan());
            }
        }
    }
}

fn spec(pairs: RopePairs, dims: usize) -> RopeSpec {
    RopeSpec {
        pairs,
        dims,
        freq_base: 10000.0,
        freq_scale: 1.0,
        ext_factor: 0.0,
        attn_factor: 1.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 4096,
    }
}

#[test]
fn rotary_embeddings() {
    let mut random = Random(2);
    let yarn = |mut spec: RopeSpec| {
        (spec.freq_scale, spec.ext_factor, spec.attn_factor, spec.freq_base) = (0.25, 1.0, 0.9, 500000.0);
        spec
    };
    let linear = |mut spec: RopeSpec| {
        spec.freq_scale = 0.5;
        spec
    };
    let specs = [
        (spec(RopePairs::Adjacent, 64), 64),
        (spec(RopePairs::Halves, 64), 64),
        (linear(spec(RopePairs::Halves, 32)), 80),
        (yarn(spec(RopePairs::Adjacent, 128)), 128),
        (yarn(spec(RopePairs::Halves, 48)), 96),
        (spec(RopePairs::Halves, 0), 8),
    ];
    let mut pair = Pair::new(3);
    for (i, (spec, head_dim)) in specs.into_iter().enumerate() {
        for factors in [false, true] {
            let (n, heads) = (5, 3);
            let x = pair.floats(&random.floats(n * heads * head_dim, 2.0));
            let positions = pair.ints(&[0, 1, 77, 131_071, 1_000_003]);
            let factors = (factors && spec.dims > 0).then(|| {
                let values: Vec<f32> = (0..spec.dims / 2).map(|_| 1.0 + random.float(0.9).abs() * 8.0).collect();
                pair.floats(&values)
            });
            pair.run(&Op::Rope { x, n, heads, head_dim, spec, positions, factors });
            pair.compare(x, n * heads * head_dim, 2e-6, &format!("spec {i}"));
        }
    }
}

#[test]
fn gated_units() {
    let mut random = Random(4);
    for act in ACTIVATIONS {
        for (rows, dim, fused) in [(1, 1, false), (3, 100, false), (2, 300, true)] {
            let mut pair = Pair::new(5);
            let stride = if fused { 2 * dim } else { dim };
            let both = pair.floats(&random.floats(2 * rows * dim, 12.0));
            let (gate, up) = if fused { (both, both.at(dim)) } else { (both, both.at(rows * dim)) };
            let out = if fused { pair.out(rows * dim) } else { gate };
            pair.run(&Op::Glu { act: *act, gate, up, rows, dim, stride, out });
            // GELU is computed in 11 bits: a step of f16 where the f32 in between rounds the other way.
            let tolerance = if *act == Activation::GeluTanh { 1e-3 } else { 1e-5 };
            pair.compare(out, rows * dim, tolerance, &format!("{act:?}"));
        }
        let mut pair = Pair::new(5);
        let x = pair.floats(&random.floats(777, 12.0));
        pair.run(&Op::Activate { act: *act, x, len: 777 });
        pair.compare(x, 777, if *act == Activation::GeluTanh { 1e-3 } else { 1e-5 }, "alone");
    }
    let mut pair = Pair::new(5);
    let both = pair.floats(&[0.5; 8]);
    pair.refuse(&Op::Glu { act: Activation::Silu, gate: both, up: both.at(4), rows: 2, dim: 2, stride: 4, out: both });
}

/// GELU has the 11 bits that the CPU's has, but where the f32 before them lie on either side of a step: rarely.
#[test]
fn gelus_are_rounded_alike() {
    let len = 4000;
    let mut pair = Pair::new(5);
    let x = pair.floats(&Random(12).floats(len, 3.0));
    pair.run(&Op::Activate { act: Activation::GeluTanh, x, len });
    let [gpu, cpu] = pair.results(x, len);
    let others = gpu.iter().zip(&cpu).filter(|(gpu, cpu)| gpu != cpu).count();
    assert!(others <= len / 100, "{others} of {len} differ");
}

#[test]
fn nan_goes_through_activations() {
    for act in ACTIVATIONS {
        let mut pair = Pair::new(0);
        let x = pair.floats(&[f32::NAN, 1.0]);
        pair.run(&Op::Activate { act: *act, x, len: 2 });
        let [gpu, _] = pair.results(x, 2);
        assert!(gpu[0].is_nan() && gpu[1].is_finite(), "{act:?}: {gpu:?}");
    }
}

#[test]
fn value_by_value() {
    let mut random = Random(6);
    for len in [1, 255, 256, 1000] {
        let mut pair = Pair::new(len as u64);
        let (a, b) = (pair.floats(&random.floats(len, 3.0)), pair.floats(&random.floats(len, 3.0)));
        let out = pair.out(len + 1);
        pair.run(&Op::Add { a, b, scale: 0.3, len, out });
        pair.compare(out, len, 0.0, "add");
        assert!(pair.results(out, len + 1)[0][len].is_nan());
        for (x, y) in [(a, b), (b, a)] {
            pair.run(&Op::Mul { a: x, b: y, len, out });
            pair.compare(out, len, 0.0, "mul");
        }
        pair.run(&Op::Add { a, b, scale: 1.0, len, out: a });
        pair.run(&Op::Mul { a, b, len, out: b });
        pair.run(&Op::Scale { x: b, factor: 0.7, len });
        pair.compare(b, len, 0.0, "mul, scale");
        pair.run(&Op::Softcap { x: b, cap: 3.0, len });
        pair.compare(b, len, 1e-6, "softcap");
    }
    let mut pair = Pair::new(0);
    let x = pair.floats(&[1.0; 10]);
    pair.refuse(&Op::Add { a: x, b: x, scale: 1.0, len: 8, out: x.at(1) });
    pair.refuse(&Op::Scale { x, factor: 1.0, len: 11 });
}

#[test]
fn whole_rows() {
    let mut random = Random(7);
    let mut pair = Pair::new(7);
    let (rows, dim) = (9, 33);
    let x = pair.floats(&random.floats(rows * dim, 2.0));
    let factors = pair.floats(&random.floats(rows, 2.0));
    pair.run(&Op::ScaleRows { x, factors, rows, dim });
    pair.compare(x, rows * dim, 0.0, "scaled rows");

    let out = pair.out(8 * dim);
    pair.run(&Op::Gather { input: x, rows: &[3, 4, 5, 0, 0, 8, 7], dim, out });
    pair.compare(out, 7 * dim, 0.0, "gathered rows");
    assert!(pair.results(out, 8 * dim)[0][7 * dim..].iter().all(|x| x.is_nan()));
    pair.refuse(&Op::Gather { input: x, rows: &[9], dim, out });

    let copied = pair.floats(&vec![0.25; 9 * 20]);
    pair.run(&Op::CopyRows { input: x.at(2), input_stride: dim, rows: 8, dim: 7, out: copied.at(1), out_stride: 20 });
    pair.compare(copied, 9 * 20, 0.0, "copied rows");
}

#[test]
fn walsh_hadamard_transforms() {
    let mut random = Random(8);
    for (len, block) in
        [(64, 1), (6, 2), (96, 32), (3 * 128, 128), (2048, 1024), (5 * 512, 512), (4096, 2048), (8192, 8192)]
    {
        let mut pair = Pair::new(len as u64);
        let x = pair.floats(&random.floats(len + 1, 2.0));
        let before = pair.results(x, len + 1)[0][len];
        pair.run(&Op::Hadamard { x, len, block });
        // Sums and differences in the same order.
        pair.compare(x, len, 0.0, &format!("{len} in blocks of {block}"));
        assert_eq!(pair.results(x, len + 1)[0][len], before);
    }
    let mut pair = Pair::new(0);
    let x = pair.floats(&[1.0; 96]);
    pair.refuse(&Op::Hadamard { x, len: 96, block: 48 });
    pair.refuse(&Op::Hadamard { x, len: 96, block: 64 });
    pair.refuse(&Op::Hadamard { x, len: 128, block: 64 });
}

fn router(experts: usize, used: usize, gating: Gating) -> Router {
    Router { experts, used, gating, normalize: true, scale: 1.0, groups: 1, groups_used: 1 }
}

#[test]
fn routes() {
    let mut random = Random(8);
    let mut routers = Vec::new();
    for gating in [Gating::Softmax, Gating::SoftmaxOfChosen, Gating::Sigmoid] {
        routers.extend([router(4, 1, gating), router(60, 4, gating), router(128, 8, gating), router(5, 5, gating)]);
        routers.push(Router { normalize: false, scale: 2.5, ..router(33, 6, gating) });
        routers.push(Router { groups: 8, groups_used: 4, ..router(64, 8, gating) });
        routers.push(Router { groups: 4, groups_used: 2, ..router(4, 2, gating) });
        // Lanes have up to nine experts each, or three groups of any size.
        routers.extend([router(90, 6, gating), router(250, 8, gating)]);
        for (groups, groups_used, experts) in [(3, 2, 21), (5, 3, 15), (3, 1, 18), (70, 50, 140), (90, 70, 270)] {
            routers.push(Router { groups, groups_used, ..router(experts, 4, gating) });
        }
    }
    for (i, router) in routers.iter().enumerate() {
        for bias in [false, true] {
            let n = 3;
            let mut pair = Pair::new(i as u64);
            let mut values = random.floats(n * router.experts, 4.0);
            // Equal scores: the lower expert first.
            values[..router.experts].fill(0.5);
            let logits = pair.floats(&values);
            let bias = bias.then(|| pair.floats(&random.floats(router.experts, 0.5)));
            let (ids, weights) = (pair.out(n * router.used + 1), pair.out(n * router.used + 1));
            pair.run(&Op::Route { router: *router, logits, n, bias, ids, weights });
            pair.same_bytes(ids.buffer, 4 * (n * router.used + 1), &format!("{router:?}"));
            pair.compare(weights, n * router.used, 2e-6, &format!("{router:?}"));
        }
    }
    let mut pair = Pair::new(0);
    let view = pair.floats(&[0.0; 64]);
    let bad = Router { groups: 3, groups_used: 1, ..router(8, 2, Gating::Softmax) };
    pair.refuse(&Op::Route { router: bad, logits: view, n: 1, bias: None, ids: view.at(16), weights: view.at(32) });
}

#[test]
fn logits_that_are_no_numbers_choose_experts_that_exist() {
    let mut pair = Pair::new(0);
    for gating in [Gating::Softmax, Gating::SoftmaxOfChosen, Gating::Sigmoid] {
        for groups in [1, 4] {
            let logits = pair.floats(&[f32::NAN; 40]);
            let (ids, weights) = (pair.ints(&[u32::MAX; 4]), pair.out(4));
            let router = Router { groups, groups_used: groups.min(2), ..router(40, 4, gating) };
            let op = Op::Route { router, logits, n: 1, bias: None, ids, weights };
            backend::Device::run(&mut pair.gpu, &op).unwrap();
            let mut chosen: Vec<u32> = pair.results(ids, 4)[0].iter().map(|id| id.to_bits()).collect();
            chosen.sort_unstable();
            chosen.dedup();
            assert!(chosen.len() == 4 && chosen[3] < 40, "{chosen:?}");
        }
    }
}

#[test]
fn combinations() {
    let mut random = Random(9);
    for (n, used, dim) in [(1, 1, 1), (3, 4, 100), (2, 8, 300), (5, 7, 33), (2, 6, 40), (3, 5, 3)] {
        let mut pair = Pair::new(1);
        let input = pair.floats(&random.floats(n * used * dim, 2.0));
        let weights = pair.floats(&random.floats(n * used, 1.0));
        let out: View = pair.out(n * dim + 1);
        pair.run(&Op::Combine { input, weights, n, used, dim, out });
        pair.compare(out, n * dim, 2e-6, "combine");
        assert!(pair.results(out, n * dim + 1)[0][n * dim].is_nan());
    }
}

#[test]
fn streams_of_several_parts() {
    let mut random = Random(11);
    for (n, inputs, outputs, dim) in
        [(1, 1, 1, 1), (3, 4, 4, 100), (2, 1, 3, 300), (5, 2, 1, 257), (2, 3, 2, 700), (1, 5, 1, 1700), (2, 6, 1, 1100)]
    {
        let mut pair = Pair::new(12);
        let (input, weights) = (random.floats(n * inputs * dim, 2.0), random.floats(n * outputs * inputs, 1.0));
        let (input, weights) = (pair.floats(&input), pair.floats(&weights));
        let out_stride = outputs * dim + 7;
        for weights in [Some(weights), None] {
            let out = pair.floats(&random.floats(n * out_stride, 2.0));
            let mix = Mix { inputs, outputs, dim, out_stride, offset: 0.75 };
            pair.run(&Op::Mix { mix, input, weights, n, out });
            pair.compare(out, n * out_stride, 3e-6, "mix");
            let x = pair.floats(&random.floats(n * dim, 2.0));
            pair.run(&Op::MatchLength { x, rows: n, dim, like: out.at(3), like_stride: out_stride - 1 });
            pair.compare(x, n * dim, 3e-6, "lengths");
            let factors = pair.floats(&random.floats(dim, 2.0));
            pair.run(&Op::ScaleColumns { x, factors, rows: n, dim });
            pair.compare(x, n * dim, 3e-6, "columns");
            pair.run(&Op::Sparsify { x, rows: n, dim, deviations: 0.4 });
            pair.compare(x, n * dim, 1e-5, "sparse");
        }
    }
    let mut pair = Pair::new(13);
    let x = pair.floats(&[0.0; 40]);
    let like = pair.floats(&random.floats(40, 2.0));
    pair.run(&Op::MatchLength { x, rows: 2, dim: 20, like, like_stride: 20 });
    pair.compare(x, 40, 0.0, "zeros have no length to change");
}
