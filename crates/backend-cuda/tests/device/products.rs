//! Matrix products of every type of weights against dequantized weights in f64.

use crate::common::driver::{State, TestDriver};
use crate::common::pair::read;
use crate::common::random::Random;
use backend::{BackendError, Device, Linear, Op, View, Weight};
use backend_cuda::Architecture::{self, Compute61, Compute75, Compute80};
use backend_cuda::GpuDevice;
use quant::GgmlType::{self, *};
use std::collections::BTreeMap;

#[rustfmt::skip]
const PACKED: &[GgmlType] = &[
    Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, NVFP4,
    IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, TQ1_0, TQ2_0, Q1_0, Q2_0,
];
const PLAIN: &[GgmlType] = &[F16, BF16, F32];
const ALL: [Architecture; 3] = [Compute61, Compute75, Compute80];

/// All of them, or the one that HEADROOM_TYPE names: a mutant of its kernels is not looked for with others.
fn types() -> Vec<GgmlType> {
    let one = std::env::var("HEADROOM_TYPE").ok();
    let wanted = |ty: &GgmlType| one.as_ref().is_none_or(|one| one.eq_ignore_ascii_case(&ty.to_string()));
    let types: Vec<GgmlType> = PACKED.iter().chain(PLAIN).copied().filter(wanted).collect();
    assert!(!types.is_empty(), "HEADROOM_TYPE names no type");
    types
}

fn device(seed: u64) -> GpuDevice<TestDriver> {
    any_device(seed, Compute80)
}

fn any_device(seed: u64, architecture: Architecture) -> GpuDevice<TestDriver> {
    let (driver, _) = TestDriver::new(State { seed, architecture, exact: true, ..State::default() });
    GpuDevice::new(driver, Default::default())
}

fn upload(device: &mut dyn Device, values: &[f32]) -> View {
    View::new(device.adopt(std::sync::Arc::new(bytemuck::cast_slice::<f32, u8>(values).to_vec())).unwrap())
}

fn out(device: &mut dyn Device, len: usize) -> View {
    let view = View::new(device.allocate(len as u64 * 4).unwrap());
    device.write(view.buffer, 0, bytemuck::cast_slice(&vec![f32::NAN; len])).unwrap();
    view
}

/// Rows of weights as numbers.
fn dequantize(ty: GgmlType, bytes: &[u8], rows: usize, cols: usize) -> Vec<f32> {
    let mut values = vec![0f32; rows * cols];
    let row = ty.row_bytes(cols).unwrap();
    for (bytes, values) in bytes.chunks(row).zip(values.chunks_mut(cols)) {
        quant::dequantize_row(ty, bytes, values).unwrap();
    }
    values
}

/// Compares with a dot product in f64; errors are measured by the sum of magnitudes.
fn check(actual: f32, weights: &[f32], x: &[f32], scale: f32, bias: f32, what: &str) {
    let terms = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
    let (sum, magnitude) = terms.fold((0f64, 0f64), |(sum, magnitude), term| (sum + term, magnitude + term.abs()));
    let expected = sum * f64::from(scale) + f64::from(bias);
    let allowed = 2e-6 * (magnitude * f64::from(scale.abs()) + f64::from(bias.abs())) + 1e-20;
    let error = (f64::from(actual) - expected).abs();
    assert!(error <= allowed, "{what}: {actual} instead of {expected}, error {error:e}, allowed {allowed:e}");
}

/// Activations that 8 bits hold exactly, so that nothing but the kernels can be wrong.
fn activations(random: &mut Random, ty: GgmlType, len: usize) -> Vec<f32> {
    if PLAIN.contains(&ty) { random.floats(len, 3.0) } else { random.exact_activations(len) }
}

fn multiply(ty: GgmlType, rows: usize, cols: usize, n: usize, seed: u64) {
    multiply_on(&mut device(seed), ty, [rows, cols, n], seed);
}

fn multiply_on(gpu: &mut GpuDevice<TestDriver>, ty: GgmlType, [rows, cols, n]: [usize; 3], seed: u64) {
    let what = format!("{ty} {rows}x{cols}, {n} rows");
    let mut random = Random(seed);
    let bytes = random.weights(ty, rows * cols);
    let x = activations(&mut random, ty, n * cols);
    let bias = random.floats(rows, 1.0);
    let scale = if seed % 2 == 0 { 1.0 } else { 0.75 };
    let input = upload(gpu, &x);
    let buffer = gpu.adopt(std::sync::Arc::new(bytes.clone())).unwrap();
    let bias_view = (seed % 3 != 0).then(|| upload(gpu, &bias));
    // One value more than there are results: it must stay as it is.
    let result = out(gpu, n * rows + 1);
    let weight = Weight { buffer, offset: 0, ty, rows, cols };
    let products = [Linear { weight, bias: bias_view, scale, out: result }];
    gpu.run(&Op::MatMul { input, n, products: &products }).unwrap();
    let actual = read(gpu, result, n * rows + 1);
    assert!(actual[n * rows].is_nan(), "{what}: written past the end");
    let weights = dequantize(ty, &bytes, rows, cols);
    for token in 0..n {
        for row in 0..rows {
            let bias = bias_view.map_or(0.0, |_| bias[row]);
            let (w, x) = (&weights[row * cols..][..cols], &x[token * cols..][..cols]);
            check(actual[token * rows + row], w, x, scale, bias, &format!("{what}, [{token}, {row}]"));
        }
    }
}

#[test]
fn one_row_and_few_rows() {
    for (i, ty) in types().iter().enumerate() {
        let block = ty.block_size().max(32);
        for (j, (rows, blocks, n)) in
            [(1, 1, 1), (17, 3, 1), (33, 9, 5), (16, 2, 8), (50, 1, 3)].into_iter().enumerate()
        {
            multiply(*ty, rows, block * blocks, n, (i * 31 + j) as u64);
        }
        // Longer than what a lane loads together, and some more: six rounds of eight steps, of which the last is not whole.
        let cols = (41 * 32usize).next_multiple_of(block);
        for (j, (rows, n)) in [(5, 1), (18, 2)].into_iter().enumerate() {
            multiply(*ty, rows, cols, n, (i * 31 + j) as u64);
        }
    }
    // Plain types have no blocks.
    for ty in types().iter().filter(|ty| PLAIN.contains(ty)) {
        for architecture in ALL {
            multiply_on(&mut any_device(3, architecture), *ty, [5, 77, 1], 3);
            multiply_on(&mut any_device(4, architecture), *ty, [5, 3, 4], 4);
            multiply_on(&mut any_device(5, architecture), *ty, [40, 296, 7], 5);
        }
    }
}

#[test]
fn many_rows() {
    for (i, ty) in types().iter().enumerate() {
        let block = ty.block_size().max(32);
        for (j, (rows, blocks, n)) in
            [(1, 1, 9), (33, 3, 33), (64, 2, 32), (70, 9, 40), (130, 2, 70)].into_iter().enumerate()
        {
            let seed = (i * 37 + j) as u64;
            // The first tensor cores take the tiles of later ones: a small one and large ones.
            for architecture in ALL.into_iter().filter(|known| *known != Compute75 || [33, 70].contains(&rows)) {
                multiply_on(&mut any_device(seed, architecture), *ty, [rows, block * blocks, n], seed);
            }
        }
    }
    for ty in types().iter().filter(|ty| PLAIN.contains(ty)) {
        for architecture in ALL {
            multiply_on(&mut any_device(5, architecture), *ty, [40, 77, 35], 5);
        }
    }
}

/// What the driver gets, and not only its sources: one kernel of each way in which the first tensor cores multiply.
#[test]
fn ptx_of_the_first_tensor_cores() {
    for (i, ty) in types().iter().enumerate().filter(|(_, ty)| [Q4_K, Q6_K, F16].contains(ty)) {
        let block = ty.block_size().max(32);
        for [rows, blocks, n] in [[33, 3, 1], [17, 2, 33], [70, 2, 70]] {
            let state = State { seed: 7, architecture: Compute75, text: true, exact: true, ..State::default() };
            let mut gpu = GpuDevice::new(TestDriver::new(state).0, Default::default());
            multiply_on(&mut gpu, *ty, [rows, block * blocks, n], i as u64);
        }
    }
}

/// Activations that f16 does not hold, or not well, meet weights of 16 bits.
#[test]
fn magnitudes() {
    for ty in types().iter().filter(|ty| PLAIN.contains(ty)) {
        let (rows, cols) = (21, 328);
        let mut random = Random(31);
        let bytes = random.weights(*ty, rows * cols);
        let weights = dequantize(*ty, &bytes, rows, cols);
        let sizes = [(1, 1e8), (12, 1e30), (12, 1e-30)].map(|(n, largest)| (n, largest, Compute80));
        // Halves are scaled alike wherever they are multiplied.
        for (n, largest, architecture) in sizes.into_iter().chain([(1, 1e-30, Compute75), (12, 1e30, Compute75)]) {
            // Of one size, or of all sizes beside each other.
            let mut x = random.floats(n * cols, largest);
            x.iter_mut().skip(cols / 2).for_each(|x| *x *= 10f32.powi(-(random.below(7) as i32)));
            let mut gpu = any_device(1, architecture);
            let buffer = gpu.adopt(std::sync::Arc::new(bytes.clone())).unwrap();
            let (input, result) = (upload(&mut gpu, &x), out(&mut gpu, n * rows));
            let weight = Weight { buffer, offset: 0, ty: *ty, rows, cols };
            let products = [Linear { weight, bias: None, scale: 1.0, out: result }];
            gpu.run(&Op::MatMul { input, n, products: &products }).unwrap();
            for (i, actual) in read(&mut gpu, result, n * rows).iter().enumerate() {
                let (w, x) = (&weights[i % rows * cols..][..cols], &x[i / rows * cols..][..cols]);
                // `check` allows a little in any case, which is too much here.
                let size = largest / 4.0;
                let x: Vec<f32> = x.iter().map(|x| x / size).collect();
                check(actual / size, w, &x, 1.0, 0.0, &format!("{ty}, {n} rows up to {largest}"));
            }
        }
    }
}

/// A row's result has the same bits beside any other rows; with tensor cores and without, where products are exact integers.
#[test]
fn a_row_does_not_depend_on_its_batch() {
    for ty in types() {
        let cols = 4 * ty.block_size().max(72);
        if PLAIN.contains(&ty) {
            // Rows that lie at multiples of 16 bytes, and others.
            same_bits(ty, cols);
            same_bits(ty, cols + 5);
        } else {
            same_bits(ty, 5 * 256);
        }
    }
}

fn same_bits(ty: GgmlType, cols: usize) {
    // So many that batches of 33 and more are large tiles.
    let (rows, n) = (67, 41);
    let mut random = Random(7);
    let bytes = std::sync::Arc::new(random.weights(ty, rows * cols));
    let x = random.floats(n * cols, 2.0);
    let mut first: BTreeMap<Option<Architecture>, Vec<u32>> = BTreeMap::new();
    let newest = [41, 1, 2, 8, 9, 33].map(|batch| (batch, Compute80));
    let others = [Compute75, Compute61].into_iter().flat_map(|architecture| [41, 2].map(|batch| (batch, architecture)));
    for (batch, architecture) in newest.into_iter().chain(others) {
        let mut gpu = any_device(9, architecture);
        // Integers are the same for all.
        let first = first.entry(PLAIN.contains(&ty).then_some(architecture));
        let buffer = gpu.adopt(bytes.clone()).unwrap();
        let weight = Weight { buffer, offset: 0, ty, rows, cols };
        let input = upload(&mut gpu, &x);
        let result = out(&mut gpu, n * rows);
        for start in (0..n).step_by(batch) {
            let n = batch.min(n - start);
            let products = [Linear { weight, bias: None, scale: 1.0, out: result.at(start * rows) }];
            gpu.run(&Op::MatMul { input: input.at(start * cols), n, products: &products }).unwrap();
        }
        let bits: Vec<u32> = read(&mut gpu, result, n * rows).iter().map(|x| x.to_bits()).collect();
        assert_eq!(*first.or_insert_with(|| bits.clone()), bits, "{ty} in batches of {batch}, {architecture:?}");
    }
}

/// Matrices that share a launch have the results that each has alone. Those of one type do, three at a time.
#[test]
fn matrices_together() {
    for ty in types() {
        let architectures = if PLAIN.contains(&ty) { &ALL[..] } else { &ALL[2..] };
        for (seed, architecture) in architectures.iter().enumerate() {
            together(ty, *architecture, seed as u64);
        }
    }
}

fn together(ty: GgmlType, architecture: Architecture, seed: u64) {
    let cols = (10 * 32usize).next_multiple_of(ty.block_size());
    let (driver, state) = TestDriver::new(State { seed, architecture, exact: true, ..State::default() });
    let mut gpu = GpuDevice::new(driver, Default::default());
    let mut random = Random(seed + 5);
    // The fourth is of another type, the one without rows has no blocks.
    let kinds =
        [(ty, 17), (ty, 0), (ty, 48), (if ty == Q4_0 { Q5_0 } else { Q4_0 }, 5), (ty, 1), (ty, 16), (ty, 33), (ty, 2)];
    let matrices = kinds.map(|(ty, rows)| {
        let bytes = random.weights(ty, rows.max(1) * cols);
        let buffer = gpu.adopt(std::sync::Arc::new(bytes)).unwrap();
        let bias = (rows % 2 == 0).then(|| upload(&mut gpu, &random.floats(rows.max(1), 1.0)));
        (Weight { buffer, offset: 0, ty, rows, cols }, bias, 1.0 + rows as f32)
    });
    for n in [1, 3, 8] {
        let x = random.floats(n * cols, 2.0);
        let mut run = |together: usize| {
            let input = upload(&mut gpu, &x);
            let results = matrices.map(|(weight, ..)| out(&mut gpu, n * weight.rows + 1));
            let products: Vec<Linear> = (matrices.iter().zip(results))
                .map(|((weight, bias, scale), out)| Linear { weight: *weight, bias: *bias, scale: *scale, out })
                .collect();
            let before = state.lock().unwrap().launches;
            for products in products.chunks(together) {
                gpu.run(&Op::MatMul { input, n, products }).unwrap();
            }
            let launches = state.lock().unwrap().launches - before;
            let bits = matrices.iter().zip(results).map(|((weight, ..), result)| {
                let values = read(&mut gpu, result, n * weight.rows + 1);
                let (last, values) = values.split_last().unwrap();
                assert!(
                    last.is_nan() && values.iter().all(|value| value.is_finite()),
                    "{ty} with {} rows",
                    weight.rows
                );
                values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
            });
            (bits.collect::<Vec<_>>(), launches)
        };
        let ((alone, one_by_one), (all, launches)) = (run(1), run(matrices.len()));
        assert_eq!(alone, all, "{ty}, {n} rows on {architecture:?}");
        // Activations are rounded once, for the fourth if for no other. Seven matrices have rows; or there are three, one, three, one.
        assert_eq!([one_by_one, launches], [8, 5], "{ty}, {n} rows");
    }
}

/// Rounding activations costs what 8 bits cost, and NaN is not lost in it.
#[test]
fn activations_are_rounded() {
    let (rows, cols) = (20, 512);
    let mut random = Random(11);
    let mut gpu = device(0);
    let bytes = random.weights(Q8_0, rows * cols);
    let mut x = random.floats(cols, 1.0);
    let weights = dequantize(Q8_0, &bytes, rows, cols);
    let buffer = gpu.adopt(std::sync::Arc::new(bytes)).unwrap();
    let weight = Weight { buffer, offset: 0, ty: Q8_0, rows, cols };
    let run = |gpu: &mut GpuDevice<TestDriver>, x: &[f32]| {
        let (input, result) = (upload(gpu, x), out(gpu, rows));
        let products = [Linear { weight, bias: None, scale: 1.0, out: result }];
        gpu.run(&Op::MatMul { input, n: 1, products: &products }).unwrap();
        read(gpu, result, rows)
    };
    for (row, actual) in run(&mut gpu, &x).iter().enumerate() {
        let terms = weights[row * cols..][..cols].iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let expected: f64 = terms.sum();
        let length: f64 = weights[row * cols..][..cols].iter().map(|w| f64::from(*w).powi(2)).sum();
        // Steps of 1/127, errors of 0.29 steps, independent of each other: six standard deviations.
        let allowed = 6.0 * 0.29 / 127.0 * length.sqrt();
        assert!((f64::from(*actual) - expected).abs() <= allowed, "{actual} instead of {expected}");
    }
    x[100] = f32::NAN;
    assert!(run(&mut gpu, &x).iter().all(|x| x.is_nan()));
    x[100] = f32::INFINITY;
    assert!(run(&mut gpu, &x).iter().all(|x| !x.is_finite()));
    x.fill(0.0);
    assert!(run(&mut gpu, &x).iter().all(|x| *x == 0.0));
}

/// Rows of a mixture: `n` tokens with 3 of 7 experts each, of which one is never chosen and one does not exist.
struct Mixture {
    ty: GgmlType,
    per_slot: bool,
    n: usize,
    bytes: std::sync::Arc<Vec<u8>>,
    x: Vec<f32>,
    ids: Vec<u32>,
    bias: Vec<f32>,
    scales: Vec<f32>,
}

const EXPERTS: usize = 7;
const USED: usize = 3;
const EXPERT_ROWS: usize = 35;

impl Mixture {
    fn new(ty: GgmlType, per_slot: bool, n: usize, seed: u64) -> Mixture {
        let mut random = Random(seed);
        let cols = ty.block_size().max(32) * 2;
        let inputs = if per_slot { n * USED } else { n };
        Mixture {
            ty,
            per_slot,
            n,
            bytes: std::sync::Arc::new(random.weights(ty, EXPERTS * EXPERT_ROWS * cols)),
            x: activations(&mut random, ty, inputs * cols),
            ids: (0..n * USED).map(|_| [0, 0, 0, 0, 1, 3, 4, 5, 6, 99][random.below(10)]).collect(),
            bias: random.floats(EXPERTS * EXPERT_ROWS, 1.0),
            scales: random.floats(EXPERTS, 2.0),
        }
    }

    fn cols(&self) -> usize {
        self.ty.block_size().max(32) * 2
    }

    /// All results, computed `batch` tokens at a time.
    fn run(&self, gpu: &mut GpuDevice<TestDriver>, batch: usize) -> Vec<f32> {
        let (input, len) = (upload(gpu, &self.x), self.n * USED * EXPERT_ROWS);
        let buffer = gpu.adopt(self.bytes.clone()).unwrap();
        let ids = gpu.adopt(std::sync::Arc::new(bytemuck::cast_slice::<u32, u8>(&self.ids).to_vec())).unwrap();
        let (bias, scales, result) = (upload(gpu, &self.bias), upload(gpu, &self.scales), out(gpu, len + 1));
        let per_token = if self.per_slot { USED } else { 1 };
        let mut said = 0;
        for start in (0..self.n).step_by(batch) {
            let op = Op::ExpertMatMul {
                input: input.at(start * per_token * self.cols()),
                input_per_slot: self.per_slot,
                n: batch.min(self.n - start),
                ids: View::new(ids).at(start * USED),
                used: USED,
                experts: EXPERTS,
                weight: Weight { buffer, offset: 0, ty: self.ty, rows: EXPERT_ROWS, cols: self.cols() },
                bias: Some(bias),
                scales: Some(scales),
                out: result.at(start * USED * EXPERT_ROWS),
            };
            gpu.run(&op).unwrap();
            said = gpu.scratch(&op.needs()[0]).unwrap().max(said);
            // What is said includes the lists of groups, which few rows do not have.
            let held = gpu.scratch_bytes();
            assert!(if batch > 8 { held == said } else { held <= said }, "{held} bytes, not {said}");
        }
        let mut values = read(gpu, result, len + 1);
        assert!(values.pop().unwrap().is_nan(), "written past the end");
        values
    }

    fn check(&self, actual: &[f32]) {
        let (ty, cols) = (self.ty, self.cols());
        let weights = dequantize(ty, &self.bytes, EXPERTS * EXPERT_ROWS, cols);
        for (slot, actual) in actual.chunks(EXPERT_ROWS).enumerate() {
            let (expert, input) = (self.ids[slot] as usize, if self.per_slot { slot } else { slot / USED });
            for (row, actual) in actual.iter().enumerate() {
                if expert >= EXPERTS {
                    assert!(actual.is_nan(), "{ty}, slot {slot}: an expert that does not exist gives {actual}");
                    continue;
                }
                let w = &weights[(expert * EXPERT_ROWS + row) * cols..][..cols];
                let bias = self.bias[expert * EXPERT_ROWS + row];
                check(
                    *actual,
                    w,
                    &self.x[input * cols..][..cols],
                    self.scales[expert],
                    bias,
                    &format!("{ty}, slot {slot}"),
                );
            }
        }
    }
}

#[test]
fn experts() {
    for (i, ty) in types().iter().enumerate() {
        for per_slot in [false, true] {
            let mixture = Mixture::new(*ty, per_slot, 4, i as u64 + 50);
            mixture.check(&mixture.run(&mut device(i as u64), 4));
        }
    }
}

/// In prompts, slots are grouped by experts: with the bits that single tokens have.
#[test]
fn experts_in_prompts() {
    for (i, ty) in types().iter().enumerate() {
        let mixture = Mixture::new(*ty, i % 2 == 0, 61, i as u64 + 80);
        let bits = |architecture, batch| -> Vec<u32> {
            let values = mixture.run(&mut any_device(i as u64, architecture), batch);
            mixture.check(&values);
            values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
        };
        let expected = bits(Compute80, 1);
        for (architecture, batch) in [(Compute80, 61), (Compute75, 61), (Compute61, 61), (Compute80, 17)] {
            // Halves have bits of their own everywhere.
            let own = architecture != Compute80 && PLAIN.contains(ty);
            let expected = if own { &bits(architecture, 1) } else { &expected };
            assert_eq!(&bits(architecture, batch), expected, "{ty} in batches of {batch}, {architecture:?}");
        }
    }
}

/// So many slots that each warp of groups.cu has several rounds of them, two and six, and that tiles are large: with the bits
/// of small ones.
#[test]
fn experts_in_long_prompts() {
    for (i, ty) in types().iter().enumerate() {
        // Rounds are the same for all types.
        for n in if i == 0 { &[150, 450][..] } else { &[150] } {
            let mixture = Mixture::new(*ty, i % 2 == 1, *n, 3);
            let bits = |batch| -> Vec<u32> {
                let values = mixture.run(&mut device(5), batch);
                mixture.check(&values);
                values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
            };
            assert_eq!(bits(*n), bits(61), "{ty}");
        }
    }
}

/// A grid has at most 65535 blocks in one direction: heads as experts, 128 of them, reach that with 512 rows.
#[test]
fn more_slots_than_a_grid_has() {
    for per_slot in [false, true] {
        choose_experts([32768, 3], per_slot, |slot| slot % 2);
    }
}

/// An expert has more tiles of rows than a block of `group` has threads. Its last one is not full, and what lies behind its list
/// names slots of the other expert.
#[test]
fn more_tiles_than_are_listed_at_once() {
    choose_experts([1, 266 * 32], true, |slot| usize::from(slot % 32 != 0));
}

/// Slots of `used` experts for each of `n` tokens, of two experts with one row of F32.
fn choose_experts([used, n]: [usize; 2], per_slot: bool, expert: fn(usize) -> usize) {
    let (cols, experts) = (32, 2);
    let mut gpu = device(1);
    let weights: Vec<f32> = (0..experts * cols).map(|i| if i < cols { 1.0 } else { 2.0 }).collect();
    let buffer = upload(&mut gpu, &weights).buffer;
    let ids: Vec<u32> = (0..n * used).map(|slot| expert(slot) as u32).collect();
    let ids = gpu.adopt(std::sync::Arc::new(bytemuck::cast_slice::<u32, u8>(&ids).to_vec())).unwrap();
    let inputs = if per_slot { n * used } else { n };
    let x: Vec<f32> = (0..inputs * cols).map(|i| if i % cols == 0 { (i / cols) as f32 } else { 0.0 }).collect();
    let result = out(&mut gpu, n * used);
    let op = Op::ExpertMatMul {
        input: upload(&mut gpu, &x),
        input_per_slot: per_slot,
        n,
        ids: View::new(ids),
        used,
        experts,
        weight: Weight { buffer, offset: 0, ty: GgmlType::F32, rows: 1, cols },
        bias: None,
        scales: None,
        out: result,
    };
    gpu.run(&op).unwrap();
    for (slot, value) in read(&mut gpu, result, n * used).iter().enumerate() {
        let input = if per_slot { slot } else { slot / used };
        assert_eq!(*value, (input * (1 + expert(slot))) as f32, "slot {slot}");
    }
}

/// What is said beforehand is what comes.
#[test]
fn types_without_kernels_are_known_beforehand() {
    let mut gpu = device(1);
    let (input, result) = (upload(&mut gpu, &[0.5; 256]), out(&mut gpu, 1));
    let mut lacking = Vec::new();
    for ty in GgmlType::all().filter(|ty| 256 % ty.block_size() == 0) {
        let bytes = Random(1).weights(ty, 256);
        let buffer = gpu.adopt(std::sync::Arc::new(bytes)).unwrap();
        let weight = Weight { buffer, offset: 0, ty, rows: 1, cols: 256 };
        let products = [Linear { weight, bias: None, scale: 1.0, out: result }];
        let op = Op::MatMul { input, n: 1, products: &products };
        let [need] = op.needs()[..] else { panic!("one product") };
        let done = gpu.run(&op);
        assert_eq!(gpu.scratch(&need).is_some(), done.is_ok(), "{ty}: {done:?}");
        lacking.extend(done.is_err().then_some(ty));
        assert!(done.is_ok() || matches!(done, Err(BackendError::Unsupported { .. })), "{ty}: {done:?}");
    } // Nothing that a model's matrices have.
    assert_eq!(lacking, [Q8_1, Q8_K, I8, I16, I32, I64, F64]);
}
