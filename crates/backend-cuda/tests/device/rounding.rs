//! What products read, rounded to 8 bits by the kernels that make it: with the bits of a product that rounds for itself, and
//! never what was there before.

use crate::common::driver::{State, TestDriver};
use crate::common::pair::read;
use crate::common::random::Random;
use backend::{Activation, AttentionSpec, BufferId, Device, KvCache, Linear, NormKind, Op, View, Weight};
use backend_cuda::Architecture::{self, Compute61, Compute75, Compute80};
use backend_cuda::{GpuConfig, GpuDevice};
use quant::GgmlType::{self, F16, F32, Q4_0, Q6_K, Q8_0};
use std::sync::{Arc, Mutex};

/// A device with matrices for inputs of `cols` values, and a place for their products.
struct Bench {
    gpu: GpuDevice<TestDriver>,
    state: Arc<Mutex<State>>,
    weights: Vec<Weight>,
    out: View,
}

/// Of the matrices: products that use the values and their scale, the sum of 32 of them too, and the sums of both halves.
const TYPES: [GgmlType; 3] = [Q8_0, Q4_0, Q6_K];

const ROWS: usize = 5;
/// Rows of results at most.
const MOST: usize = 70;

impl Bench {
    fn new(cols: usize) -> Bench {
        Bench::on(cols, Compute80, GpuConfig::default())
    }

    fn on(cols: usize, architecture: Architecture, config: GpuConfig) -> Bench {
        Bench::with(cols, State { architecture, exact: true, ..State::default() }, config)
    }

    fn with(cols: usize, state: State, config: GpuConfig) -> Bench {
        let (driver, state) = TestDriver::new(state);
        let mut gpu = GpuDevice::new(driver, config);
        let types = TYPES.into_iter().filter(|ty| cols % ty.block_size() == 0);
        let mut adopt = |ty| gpu.adopt(Arc::new(Random(cols as u64).weights(ty, ROWS * cols))).unwrap();
        let weights: Vec<_> = types.map(|ty| Weight { buffer: adopt(ty), offset: 0, ty, rows: ROWS, cols }).collect();
        let out = View::new(gpu.allocate((weights.len() * MOST * ROWS * 4) as u64).unwrap());
        Bench { gpu, state, weights, out }
    }

    fn floats(&mut self, values: &[f32]) -> View {
        let view = View::new(self.gpu.allocate(values.len() as u64 * 4).unwrap());
        self.write(view, values);
        view
    }

    fn write(&mut self, view: View, values: &[f32]) {
        self.gpu.write(view.buffer, view.offset, bytemuck::cast_slice(values)).unwrap();
    }

    fn run(&mut self, op: &Op<'_>) {
        self.gpu.run(op).unwrap();
    }

    /// How many inputs were rounded by the kernel that does nothing else.
    fn rounded(&self) -> u64 {
        self.state.lock().unwrap().kernels.get("quantize").copied().unwrap_or(0)
    }

    /// Bits of the products of `n` rows.
    fn product(&mut self, input: View, n: usize) -> Vec<u32> {
        let (out, len) = (self.out, n * ROWS);
        let product =
            |(i, weight): (usize, &Weight)| Linear { weight: *weight, bias: None, scale: 1.0, out: out.at(i * len) };
        let products: Vec<_> = self.weights.iter().enumerate().map(product).collect();
        self.run(&Op::MatMul { input, n, products: &products });
        bits(&read(&mut self.gpu, out, products.len() * len))
    }

    /// What a product is, of these values and nothing else that was there before.
    fn expected(&mut self, input: View, n: usize) -> Vec<u32> {
        let cols = self.weights[0].cols;
        let values = read(&mut self.gpu, input, n * cols);
        let mut other = Bench::new(cols);
        let input = other.floats(&values);
        other.product(input, n)
    }

    /// The product of what is at `input` now is right; `own` says whether it has to round.
    fn check(&mut self, input: View, n: usize, own: bool, what: &str) {
        let before = self.rounded();
        let product = self.product(input, n);
        assert_eq!(self.rounded() - before, u64::from(own), "{what}");
        assert_eq!(product, self.expected(input, n), "{what}");
    }

    /// `make` fills `n` rows at `input`, with other values every time. The first product rounds for itself, and from then on
    /// they find their input rounded, unless `never`.
    fn made(&mut self, input: View, n: usize, never: bool, what: &str, make: &mut dyn FnMut(&mut Bench)) {
        for round in 0..3 {
            make(self);
            self.check(input, n, round == 0 || never, what);
            self.check(input, n, false, what);
        }
    }
}

/// Of what is no number, that it is none.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Values of all sizes; now and then none that has a size.
fn values(random: &mut Random, len: usize) -> Vec<f32> {
    let mut values = random.floats(len, 2.0);
    for block in values.chunks_mut(32) {
        match random.below(8) {
            0 => block[random.below(block.len())] = f32::NAN,
            1 => block[random.below(block.len())] = f32::INFINITY,
            2 => block.fill(0.0),
            3 => block.iter_mut().for_each(|x| *x *= 1e-42),
            power => block.iter_mut().for_each(|x| *x *= 10f32.powi(power as i32 - 5)),
        }
    }
    values
}

#[test]
fn norms_round() {
    let mut random = Random(1);
    for (rows, dim) in [(1, 32), (3, 64), (1, 256), (2, 288), (1, 1024), (40, 96)] {
        for (kind, apart) in [(NormKind::Rms, true), (NormKind::Layer, true), (NormKind::Rms, false)] {
            let mut bench = Bench::new(dim);
            let input = bench.floats(&vec![0.0; rows * dim]);
            let out = if apart { bench.floats(&vec![0.0; rows * dim]) } else { input };
            let weight = Some(bench.floats(&random.floats(dim, 2.0)));
            bench.made(out, rows, false, &format!("{kind:?} {rows}x{dim}"), &mut |bench| {
                // A row that is no number is one that says nothing.
                let x = values(&mut random, rows * dim).into_iter();
                let mut x: Vec<f32> = x.map(|x| if x.is_finite() { x } else { 0.5 }).collect();
                if rows > 1 {
                    x[random.below(dim)] = f32::NAN;
                }
                bench.write(input, &x);
                bench.run(&Op::Norm { kind, input, rows, dim, eps: 1e-5, weight, bias: None, out });
            });
        }
    }
}

/// Heads of 80 values, or rows of 40: their rounding would not be that of 32 side by side of one row. The product does it.
#[test]
fn norms_of_other_rows_do_not_round() {
    let mut random = Random(2);
    for (rows, dim, cols) in [(2, 80, 160), (4, 40, 160), (4, 40, 32)] {
        let mut bench = Bench::new(cols);
        let input = bench.floats(&random.floats(rows * dim, 2.0));
        let out = bench.floats(&vec![0.0; rows * dim]);
        bench.made(out, rows * dim / cols, true, &format!("{rows}x{dim}"), &mut |bench| {
            bench.write(input, &random.floats(rows * dim, 2.0));
            let kind = NormKind::Rms;
            bench.run(&Op::Norm { kind, input, rows, dim, eps: 1e-5, weight: None, bias: None, out });
        });
    }
}

#[test]
fn values_one_by_one_round() {
    let mut random = Random(3);
    for (rows, cols) in [(1, 32), (1, 288), (3, 96), (50, 64)] {
        let len = rows * cols;
        for (stride, apart) in [(cols, false), (cols, true), (2 * cols, true)] {
            let mut bench = Bench::new(cols);
            let gate = bench.floats(&vec![0.0; 2 * len]);
            let up = gate.at(if stride == cols { len } else { cols });
            let out = if apart { bench.floats(&vec![0.0; len]) } else { gate };
            bench.made(out, rows, false, &format!("glu {rows}x{cols}"), &mut |bench| {
                bench.write(gate, &values(&mut random, 2 * len));
                bench.run(&Op::Glu { act: Activation::Silu, gate, up, rows, dim: cols, stride, out });
            });
        }
    }
}

#[test]
fn products_and_activations_round() {
    let mut random = Random(4);
    for (rows, cols) in [(1, 32), (1, 288), (3, 96), (50, 64)] {
        let len = rows * cols;
        let mut bench = Bench::new(cols);
        let (a, b) = (bench.floats(&vec![0.0; len]), bench.floats(&vec![0.0; len]));
        for x in [a, b] {
            bench.made(x, rows, false, "mul", &mut |bench| {
                bench.write(a, &values(&mut random, len));
                bench.write(b, &values(&mut random, len));
                bench.run(&Op::Mul { a, b, len, out: x });
            });
        }
        let x = bench.floats(&vec![0.0; len]);
        bench.made(x, rows, false, "activate", &mut |bench| {
            bench.write(x, &values(&mut random, len));
            bench.run(&Op::Activate { act: Activation::Relu2, x, len });
        });
    }
    // 100 values are not whole blocks, though 96 of them are.
    let mut bench = Bench::new(96);
    let x = bench.floats(&random.floats(100, 1.0));
    bench.made(x, 1, true, "100 values", &mut |bench| {
        bench.run(&Op::Activate { act: Activation::Sigmoid, x, len: 100 });
    });
}

/// Blocks of a transform that are not whole blocks of 32 are rounded by the product.
#[test]
fn transforms_round() {
    let mut random = Random(5);
    for (rows, cols, block) in [(1, 32, 32), (2, 288, 32), (3, 64, 64), (2, 1024, 1024), (1, 2048, 2048), (2, 64, 16)] {
        let mut bench = Bench::new(cols);
        let x = bench.floats(&vec![0.0; rows * cols]);
        bench.made(x, rows, block < 32, &format!("{rows}x{cols} in blocks of {block}"), &mut |bench| {
            bench.write(x, &values(&mut random, rows * cols));
            bench.run(&Op::Hadamard { x, len: rows * cols, block });
        });
    }
}

#[test]
fn attention_rounds() {
    for architecture in [Compute61, Compute75, Compute80] {
        for (dim, start, n, whole, never) in [
            (64, 3, 1, false, false),
            (64, 300, 1, false, false),
            (64, 300, 1, true, false),
            (32, 0, 40, false, false),
            (128, 270, 2, false, false),
            (288, 5, 1, false, false),
            (48, 3, 1, false, true),
        ] {
            let what = format!("{architecture:?}: heads of {dim}, {n} rows from {start}, whole: {whole}");
            let (heads, heads_kv, capacity) = (4, 2, 320);
            let config = GpuConfig { whole_attention: whole, ..GpuConfig::default() };
            let mut bench = Bench::on(heads * dim, architecture, config);
            let mut random = Random(dim as u64);
            let cells = start + n;
            let [k, v] = [1.0, 5.0].map(|spread| {
                let mut x = random.floats(cells * heads_kv * dim, spread);
                if spread > 2.0 {
                    x[(cells - 1) * heads_kv * dim + 7] = f32::NAN;
                }
                bench.floats(&x)
            });
            let bytes = (heads_kv * capacity * dim * 2) as u64;
            let [k_cells, v_cells] = [0, 1].map(|_| bench.gpu.allocate(bytes).unwrap());
            let (head_dim_k, head_dim_v) = (dim, dim);
            let (k_type, v_type, head_count_kv) = (F16, F16, heads_kv);
            let cache = KvCache {
                k: k_cells,
                v: Some(v_cells),
                k_type,
                v_type,
                capacity,
                head_count_kv,
                head_dim_k,
                head_dim_v,
            };
            bench.run(&Op::StoreKv { cache, k, v, n: cells, start: 0 });
            let q = bench.floats(&vec![0.0; n * heads * dim]);
            let out = bench.floats(&vec![0.0; n * heads * dim]);
            let spec = AttentionSpec { head_count: heads, scale: 0.1, softcap: 0.0, window: 0, sinks: None };
            bench.made(out, n, never, &what, &mut |bench| {
                bench.write(q, &random.floats(n * heads * dim, 2.0));
                bench.run(&Op::Attention { cache, spec, q, n, start, out });
            });
        }
    }
}

/// `change` comes between what makes the input and its product.
fn changed(what: &str, own: bool, change: fn(&mut Bench, Norm)) {
    let mut bench = Bench::new(DIM);
    let norm = Norm::new(&mut bench);
    norm.run(&mut bench);
    bench.check(norm.out, 2, true, "the first one");
    norm.run(&mut bench);
    bench.check(norm.out, 2, false, "the second one");
    norm.run(&mut bench);
    change(&mut bench, norm);
    bench.check(norm.out, 2, own, what);
}

const DIM: usize = 64;

/// Two rows that are normed, in the middle of a buffer.
#[derive(Clone, Copy)]
struct Norm {
    input: View,
    out: View,
    buffer: BufferId,
}

impl Norm {
    fn new(bench: &mut Bench) -> Norm {
        let input = bench.floats(&Random(9).floats(2 * DIM, 3.0));
        let all = bench.floats(&Random(10).floats(4 * DIM, 3.0));
        Norm { input, out: all.at(DIM), buffer: all.buffer }
    }

    fn run(&self, bench: &mut Bench) {
        let Norm { input, out, .. } = *self;
        let kind = NormKind::Rms;
        bench.run(&Op::Norm { kind, input, rows: 2, dim: DIM, eps: 1e-5, weight: None, bias: None, out });
    }

    fn all(&self) -> View {
        View::new(self.buffer)
    }
}

#[test]
fn what_is_written_is_rounded_again() {
    let end = 3 * DIM * 4;
    assert_eq!(end, 768);
    changed("a write to the last value", true, |bench, norm| bench.write(norm.all().at(3 * DIM - 1), &[9.0]));
    changed("a write across the beginning", true, |bench, norm| bench.write(norm.all().at(DIM - 1), &[9.0; 2]));
    changed("a write beside", true, |bench, norm| {
        bench.gpu.turn().unwrap();
        bench.gpu.write_beside(norm.buffer, 512, &[64; 16]).unwrap();
        bench.gpu.turn().unwrap();
    });
    changed("an operation on all", true, |bench, norm| {
        bench.run(&Op::Scale { x: norm.all(), factor: 3.0, len: 4 * DIM });
    });
    changed("an operation on a part", true, |bench, norm| {
        bench.run(&Op::Scale { x: norm.out.at(DIM), factor: 3.0, len: 1 });
    });
    changed("copied rows", true, |bench, norm| {
        let (input, out) = (norm.input, norm.all());
        bench.run(&Op::CopyRows { input, input_stride: 8, rows: 4, dim: 8, out, out_stride: 40 });
    });
    changed("gathered rows", true, |bench, norm| {
        bench.run(&Op::Gather { input: norm.input, rows: &[1], dim: DIM, out: norm.out });
    });
    changed("another product's result", true, |bench, norm| {
        let products = [Linear { weight: bench.weights[0], bias: None, scale: 1.0, out: norm.out.at(3) }];
        bench.run(&Op::MatMul { input: norm.input, n: 1, products: &products });
    });
    changed("a copy from another device", true, |bench, norm| {
        let mut other = Bench::new(DIM);
        let from = other.floats(&[3.0; 8]);
        // The emulator has no such copies, and what is there may be anything.
        assert!(!bench.gpu.copy_from((norm.buffer, 300), &mut other.gpu, (from.buffer, 0), 32));
    });
}

#[test]
fn what_is_beside_is_not_rounded_again() {
    changed("nothing", false, |_, _| {});
    changed("writes on both sides", false, |bench, norm| {
        bench.write(norm.all(), &[1.0; DIM]);
        bench.write(norm.all().at(3 * DIM), &[1.0; DIM]);
        bench.run(&Op::Scale { x: norm.input, factor: 2.0, len: 2 * DIM });
    });
    changed("plain weights read it", false, |bench, norm| {
        let weight = Weight { ty: F32, rows: 1, cols: DIM, offset: 0, buffer: norm.input.buffer };
        let products = [Linear { weight, bias: None, scale: 1.0, out: bench.out }];
        bench.run(&Op::MatMul { input: norm.out, n: 2, products: &products });
    });
}

#[test]
fn other_roundings_take_its_place() {
    changed("another product", true, |bench, norm| {
        bench.product(norm.input, 2);
    });
    // The same row alone is another range.
    changed("a part of it", true, |bench, norm| bench.check(norm.out.at(DIM), 1, true, "a row"));
    changed("what another kernel rounds", true, |bench, norm| {
        bench.product(norm.input, 2);
        norm.run(bench);
        bench.run(&Op::Activate { act: Activation::Silu, x: norm.input, len: 2 * DIM });
        bench.check(norm.input, 2, false, "the other one");
    });
    changed("larger scratch memory", true, |bench, norm| {
        let held = bench.gpu.scratch_bytes();
        let large = bench.floats(&Random(3).floats(MOST * DIM, 1.0));
        bench.product(large, MOST);
        assert!(bench.gpu.scratch_bytes() > held);
        bench.product(norm.input, 1);
    });
}

/// What a buffer at the same address held is nothing to a new one.
#[test]
fn a_new_buffer_at_the_same_address() {
    let mut bench = Bench::with(DIM, State::default(), GpuConfig::default());
    let x = bench.floats(&Random(5).floats(DIM, 2.0));
    for round in 0..2 {
        bench.run(&Op::Activate { act: Activation::Silu, x, len: DIM });
        bench.check(x, 1, round == 0, "before");
    }
    bench.run(&Op::Activate { act: Activation::Silu, x, len: DIM });
    bench.gpu.free(x.buffer);
    // Zeros, which nobody has written.
    let x = View::new(bench.gpu.allocate(DIM as u64 * 4).unwrap());
    bench.check(x, 1, true, "zeros");
    bench.run(&Op::Activate { act: Activation::Silu, x, len: DIM });
    bench.check(x, 1, false, "the same place, known from the buffer that is gone");
    bench.gpu.free(x.buffer);
    let adopted = bench.gpu.adopt(Arc::new(bytemuck::cast_slice::<f32, u8>(&[2.5; DIM]).to_vec())).unwrap();
    bench.check(View::new(adopted), 1, true, "adopted");
}

/// A norm takes no scratch memory: with more rows than there was ever room for, the product rounds.
#[test]
fn scratch_memory_grows_for_products_alone() {
    let mut bench = Bench::new(DIM);
    let input = bench.floats(&Random(7).floats(MOST * DIM, 3.0));
    let out = bench.floats(&vec![0.0; MOST * DIM]);
    for (rows, own) in [(1, true), (1, false), (MOST, true), (MOST, false), (3, false), (MOST, false)] {
        let held = bench.gpu.scratch_bytes();
        let kind = NormKind::Layer;
        bench.run(&Op::Norm { kind, input, rows, dim: DIM, eps: 1e-5, weight: None, bias: None, out });
        assert_eq!(bench.gpu.scratch_bytes(), held);
        bench.check(out, rows, own, &format!("{rows} rows"));
    }
}

/// Experts read the same input twice, and their inner values are rounded by what makes them; in prompts, where slots are grouped
/// in the same memory, too.
#[test]
fn experts_round_once() {
    let (experts, used) = (3, 2);
    for (n, ty) in [(1, Q8_0), (40, Q8_0), (40, Q4_0)] {
        let mut random = Random(n as u64);
        let mut bench = Bench::new(DIM);
        let buffer = bench.gpu.adopt(Arc::new(random.weights(ty, experts * DIM * DIM))).unwrap();
        let weight = Weight { buffer, offset: 0, ty, rows: DIM, cols: DIM };
        let ids: Vec<f32> = (0..n * used).map(|slot| f32::from_bits((slot % experts) as u32)).collect();
        let ids = bench.floats(&ids);
        let x = bench.floats(&random.floats(n * DIM, 2.0));
        let [gate, up, out] = [0; 3].map(|_| bench.floats(&vec![0.0; n * used * DIM]));
        let multiply = |bench: &mut Bench, input, input_per_slot, out| {
            let (bias, scales) = (None, None);
            bench.run(&Op::ExpertMatMul { input, input_per_slot, n, ids, used, experts, weight, bias, scales, out });
        };
        let glu = Op::Glu { act: Activation::Silu, gate, up, rows: n * used, dim: DIM, stride: DIM, out: gate };
        for (round, expected) in [2, 1, 1].into_iter().enumerate() {
            let before = bench.rounded();
            multiply(&mut bench, x, false, gate);
            multiply(&mut bench, x, false, up);
            bench.run(&glu);
            multiply(&mut bench, gate, true, out);
            assert_eq!(bench.rounded() - before, expected, "round {round} of {n} tokens");
        }
        let found = bits(&read(&mut bench.gpu, out, n * used * DIM));
        // Nothing is known of a copy.
        let inner = read(&mut bench.gpu, gate, n * used * DIM);
        let copy = bench.floats(&inner);
        multiply(&mut bench, copy, true, out);
        assert_eq!(found, bits(&read(&mut bench.gpu, out, n * used * DIM)), "{n} tokens");
        // Groups of plain experts lie where a rounding was.
        let plain = bench.floats(&random.floats(experts * DIM * DIM, 1.0));
        let plain = Weight { buffer: plain.buffer, offset: 0, ty: F32, rows: DIM, cols: DIM };
        multiply(&mut bench, copy, true, out);
        let (bias, scales) = (None, None);
        let (input, weight, input_per_slot) = (x, plain, false);
        bench.run(&Op::ExpertMatMul { input, input_per_slot, n, ids, used, experts, weight, bias, scales, out: up });
        multiply(&mut bench, copy, true, out);
        assert_eq!(found, bits(&read(&mut bench.gpu, out, n * used * DIM)), "{n} tokens, after plain experts");
    }
}
