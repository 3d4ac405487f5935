//! Operations of mixers against their formulas in f64, written down the plain way.

use backend::*;
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use quant::GgmlType;
use std::sync::Arc;

struct Bench {
    device: CpuDevice,
    seed: u64,
}

impl Bench {
    fn new() -> Bench {
        let config = CpuConfig { threads: 2, precision: Precision::Exact, simd: None };
        Bench { device: CpuDevice::new(Arc::new(ThreadPool::new(2)), config), seed: 1 }
    }

    /// Numbers between -1 and 1.
    fn numbers(&mut self, len: usize) -> Vec<f32> {
        let mut next = || {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    fn put(&mut self, values: &[f32]) -> View {
        let buffer = self.device.allocate(values.len() as u64 * 4).expect("memory");
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.device.write(buffer, 0, &bytes).expect("a buffer");
        View::new(buffer)
    }

    fn get(&mut self, view: View, len: usize) -> Vec<f32> {
        let mut bytes = vec![0u8; len * 4];
        self.device.read(view.buffer, view.offset, &mut bytes).expect("a buffer");
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    fn run(&mut self, op: &Op<'_>) {
        self.device.run(op).expect("a valid operation");
    }
}

#[track_caller]
fn assert_near(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    for (a, b) in actual.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() <= tolerance, "{a} is not {b}");
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    (1.0 + x.exp()).ln()
}

#[test]
fn a_convolution_goes_on_where_its_state_ended() {
    let (n, channels, kernel) = (9, 5, 4);
    let mut bench = Bench::new();
    let (x, w, b) = (bench.numbers(n * channels), bench.numbers(channels * kernel), bench.numbers(channels));
    let (input, weight, bias) = (bench.put(&x), bench.put(&w), bench.put(&b));
    let states = [(); 2].map(|()| bench.put(&[7.0; 15]));
    let out = bench.put(&vec![0.0; n * channels]);
    let spec = ConvSpec { channels, kernel, act: Some(Activation::Silu) };
    // Two rows (fewer than the state has), then the rest.
    for (first, count, state) in
        [(0, 2, State { input: None, output: states[0] }), (2, 7, State { input: Some(states[0]), output: states[1] })]
    {
        let (input, out) = (input.at(first * channels), out.at(first * channels));
        bench.run(&Op::Conv { spec, input, n: count, weight, bias: Some(bias), state, out });
    }
    let mut expected = Vec::new();
    for t in 0..n {
        for c in 0..channels {
            let mut sum = f64::from(b[c]);
            for j in 0..kernel {
                if let Some(t) = (t + j + 1).checked_sub(kernel) {
                    sum += f64::from(w[c * kernel + j]) * f64::from(x[t * channels + c]);
                }
            }
            expected.push(silu(sum));
        }
    }
    assert_near(&bench.get(out, n * channels), &expected, 1e-6);
    assert_eq!(bench.get(states[1], 15), x[6 * channels..]);
}

#[test]
fn the_delta_rule_is_its_formula() {
    let (n, dim) = (11, 8);
    for tiled in [false, true] {
        let mut bench = Bench::new();
        let spec = DeltaNetSpec { heads_k: 2, heads_v: 4, head_dim: dim, tiled, eps: 1e-6 };
        let (heads, keys, values) = (spec.heads_v, 2 * dim, 4 * dim);
        let width = 2 * keys + values;
        let data = [n * width, n * heads, n * heads, heads, heads].map(|len| bench.numbers(len));
        let [qkv, alpha, beta, dt_bias, a] = [0, 1, 2, 3, 4].map(|i| bench.put(&data[i]));
        let len = heads * dim * dim;
        let states = [(); 2].map(|()| bench.put(&vec![5.0; len]));
        let out = bench.put(&vec![0.0; n * values]);
        for (first, count, state) in [
            (0, 4, State { input: None, output: states[0] }),
            (4, 7, State { input: Some(states[0]), output: states[1] }),
        ] {
            let (qkv, out) = (qkv.at(first * width), out.at(first * values));
            let (alpha, beta) = (alpha.at(first * heads), beta.at(first * heads));
            bench.run(&Op::DeltaNet { spec, qkv, alpha, beta, dt_bias, a, n: count, state, out });
        }
        let [x, alpha, beta, dt_bias, a] = [0, 1, 2, 3, 4].map(|i| wide(&data[i]));
        let mut expected = vec![0.0; n * values];
        let mut end = Vec::new();
        for head in 0..heads {
            let head_k = if tiled { head % 2 } else { head / 2 };
            let mut s = vec![vec![0f64; dim]; dim];
            for t in 0..n {
                let unit = |start: usize| {
                    let x = &x[t * width + start..][..dim];
                    let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                    x.iter().map(|x| x / length).collect::<Vec<_>>()
                };
                let (q, k) = (unit(head_k * dim), unit(keys + head_k * dim));
                let v = &x[t * width + 2 * keys + head * dim..][..dim];
                let g = (a[head] * softplus(alpha[t * heads + head] + dt_bias[head])).exp();
                let b = 1.0 / (1.0 + (-beta[t * heads + head]).exp());
                for j in 0..dim {
                    s.iter_mut().for_each(|row| row[j] *= g);
                    let known: f64 = (0..dim).map(|i| s[i][j] * k[i]).sum();
                    (0..dim).for_each(|i| s[i][j] += k[i] * b * (v[j] - known));
                    expected[t * values + head * dim + j] =
                        (0..dim).map(|i| s[i][j] * q[i]).sum::<f64>() / (dim as f64).sqrt();
                }
            }
            end.extend(s.concat());
        }
        assert_near(&bench.get(out, n * values), &expected, 1e-5);
        assert_near(&bench.get(states[1], len), &end, 1e-5);
    }
}

#[test]
fn the_state_space_is_its_formula() {
    let (n, dim, size) = (10, 6, 8);
    let mut bench = Bench::new();
    let spec = StateSpaceSpec { heads: 4, head_dim: dim, state_size: size, groups: 2 };
    let (heads, values) = (4, 4 * dim);
    let width = values + 2 * 2 * size;
    let mut data = [n * width, n * heads, heads, heads, heads].map(|len| bench.numbers(len));
    // Decays: nothing grows.
    data[3].iter_mut().for_each(|a| *a = -a.abs());
    let [xbc, dt, dt_bias, a, skip] = [0, 1, 2, 3, 4].map(|i| bench.put(&data[i]));
    let len = heads * dim * size;
    let states = [(); 2].map(|()| bench.put(&vec![5.0; len]));
    let out = bench.put(&vec![0.0; n * values]);
    for (first, count, state) in
        [(0, 3, State { input: None, output: states[0] }), (3, 7, State { input: Some(states[0]), output: states[1] })]
    {
        let (xbc, dt, out) = (xbc.at(first * width), dt.at(first * heads), out.at(first * values));
        bench.run(&Op::StateSpace { spec, xbc, dt, dt_bias, a, skip, n: count, state, out });
    }
    let [x, dt, dt_bias, a, skip] = [0, 1, 2, 3, 4].map(|i| wide(&data[i]));
    let mut expected = vec![0.0; n * values];
    let mut end = Vec::new();
    for head in 0..heads {
        let group = head / 2;
        let mut s = vec![vec![0f64; size]; dim];
        for t in 0..n {
            let row = &x[t * width..][..width];
            let (b, c) = (&row[values + group * size..][..size], &row[values + (2 + group) * size..][..size]);
            let step = softplus(dt[t * heads + head] + dt_bias[head]);
            for i in 0..dim {
                let value = row[head * dim + i];
                (0..size).for_each(|j| s[i][j] = (a[head] * step).exp() * s[i][j] + step * value * b[j]);
                let sum: f64 = (0..size).map(|j| s[i][j] * c[j]).sum();
                expected[t * values + head * dim + i] = sum + skip[head] * value;
            }
        }
        end.extend(s.concat());
    }
    assert_near(&bench.get(out, n * values), &expected, 2e-5);
    assert_near(&bench.get(states[1], len), &end, 2e-5);
}

/// A cache with fewer cells than positions, and values that are the first part of the keys.
#[test]
fn attention_over_a_ring_of_latent_keys_is_its_formula() {
    let (n, heads, dim_k, dim_v, window, capacity) = (100, 3, 12, 8, 7, 20);
    let mut bench = Bench::new();
    let (q, k) = (bench.numbers(n * heads * dim_k), bench.numbers(n * dim_k));
    let (q_view, k_view, out) = (bench.put(&q), bench.put(&k), bench.put(&vec![0.0; n * heads * dim_v]));
    let cells = bench.put(&vec![9.0; capacity * dim_k]).buffer;
    let (k_type, v_type) = (GgmlType::F32, GgmlType::F32);
    let cache =
        KvCache { k: cells, v: None, k_type, v_type, capacity, head_count_kv: 1, head_dim_k: dim_k, head_dim_v: dim_v };
    let spec = AttentionSpec { head_count: heads, scale: 0.5, softcap: 0.0, window, sinks: None };
    for start in (0..n).step_by(10) {
        let k = k_view.at(start * dim_k);
        let (q, out) = (q_view.at(start * heads * dim_k), out.at(start * heads * dim_v));
        bench.run(&Op::StoreKv { cache, k, v: k, n: 10, start });
        bench.run(&Op::Attention { cache, spec, q, n: 10, start, out });
    }
    let mut expected = Vec::new();
    for (row, q) in q.chunks_exact(dim_k).enumerate() {
        let position = row / heads;
        let seen = (position + 1).saturating_sub(window)..position + 1;
        let keys: Vec<Vec<f64>> = seen.map(|p| wide(&k[p * dim_k..][..dim_k])).collect();
        let scores: Vec<f64> =
            keys.iter().map(|k| (0.5 * k.iter().zip(q).map(|(k, q)| k * f64::from(*q)).sum::<f64>()).exp()).collect();
        let sum: f64 = scores.iter().sum();
        expected.extend((0..dim_v).map(|i| keys.iter().zip(&scores).map(|(k, s)| k[i] * s).sum::<f64>() / sum));
    }
    assert_near(&bench.get(out, n * heads * dim_v), &expected, 1e-5);
    // More rows than the ring has room for beside the window.
    let op = Op::Attention { cache, spec, q: q_view, n: 15, start: 40, out };
    assert!(matches!(bench.device.run(&op), Err(BackendError::Invalid { .. })));
}

#[test]
fn groups_of_experts_are_chosen_by_their_two_best() {
    let mut bench = Bench::new();
    let (ids, weights) = (bench.put(&[0.0; 2]), bench.put(&[0.0; 2]));
    // The best expert of all is in the first group, whose second best is poor.
    let logits = bench.put(&[3.0, -9.0, 1.0, 2.0, -9.0, -9.0, 1.5, 1.8]);
    let router = Router {
        experts: 8,
        used: 2,
        gating: Gating::SoftmaxOfChosen,
        normalize: false,
        scale: 1.0,
        groups: 4,
        groups_used: 2,
    };
    bench.run(&Op::Route { router, logits, n: 1, bias: None, ids, weights });
    let chosen: Vec<u32> = bench.get(ids, 2).iter().map(|id| id.to_bits()).collect();
    assert_eq!(chosen, [3, 7]);
    let router = Router { groups: 3, ..router };
    let op = Op::Route { router, logits, n: 1, bias: None, ids, weights };
    assert!(matches!(bench.device.run(&op), Err(BackendError::Invalid { .. })));
}

#[test]
fn rows_are_scaled_and_copied() {
    let mut bench = Bench::new();
    let (x, factors) = (bench.put(&[1.0, 2.0, 3.0, 4.0]), bench.put(&[2.0, -1.0]));
    bench.run(&Op::ScaleRows { x, factors, rows: 2, dim: 2 });
    assert_eq!(bench.get(x, 4), [2.0, 4.0, -3.0, -4.0]);
    let out = bench.put(&[0.0; 6]);
    bench.run(&Op::CopyRows { input: x, input_stride: 2, rows: 2, dim: 1, out: out.at(1), out_stride: 3 });
    assert_eq!(bench.get(out, 6), [0.0, 2.0, 0.0, 0.0, -3.0, 0.0]);
    let overlapping = Op::CopyRows { input: x, input_stride: 2, rows: 2, dim: 1, out: x.at(1), out_stride: 2 };
    assert!(matches!(bench.device.run(&overlapping), Err(BackendError::Invalid { .. })));
}
