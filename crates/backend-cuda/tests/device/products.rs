//! Matrix products of every type of weights against dequantized weights in f64.

use crate::common::driver::{State, TestDriver};
use crate::common::pair::read;
use crate::common::random::Random;
use backend::{BackendError, Device, Linear, Op, View, Weight};
use backend_cuda::GpuDevice;
use quant::GgmlType::{self, *};

const PACKED: &[GgmlType] = &[Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4];
const PLAIN: &[GgmlType] = &[F16, BF16, F32];

fn device(seed: u64) -> GpuDevice<TestDriver> {
    any_device(seed, false)
}

/// `old`: without tensor cores.
fn any_device(seed: u64, old: bool) -> GpuDevice<TestDriver> {
    let (driver, _) = TestDriver::new(State { seed, old, ..State::default() });
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
    for (i, ty) in PACKED.iter().chain(PLAIN).enumerate() {
        let block = ty.block_size().max(32);
        for (j, (rows, blocks, n)) in
            [(1, 1, 1), (17, 3, 1), (33, 9, 5), (16, 2, 8), (50, 1, 3)].into_iter().enumerate()
        {
            multiply(*ty, rows, block * blocks, n, (i * 31 + j) as u64);
        }
    }
    // Plain types have no blocks.
    for ty in PLAIN {
        multiply(*ty, 5, 77, 1, 3);
        multiply(*ty, 5, 3, 4, 4);
    }
}

#[test]
fn many_rows() {
    for (i, ty) in PACKED.iter().chain(PLAIN).enumerate() {
        let block = ty.block_size().max(32);
        for (j, (rows, blocks, n)) in [(1, 1, 9), (33, 3, 33), (64, 2, 32), (70, 9, 40)].into_iter().enumerate() {
            let seed = (i * 37 + j) as u64;
            for old in [false, true] {
                multiply_on(&mut any_device(seed, old), *ty, [rows, block * blocks, n], seed);
            }
        }
    }
    for ty in PLAIN {
        multiply(*ty, 40, 77, 35, 5);
    }
}

/// A row's result has the same bits beside any other rows, with tensor cores and without.
#[test]
fn a_row_does_not_depend_on_its_batch() {
    for ty in PACKED.iter().chain(PLAIN) {
        let (rows, cols, n) = (35, 4 * ty.block_size().max(72), 41);
        let cols = if PLAIN.contains(ty) { cols + 5 } else { cols.next_multiple_of(256) };
        let mut random = Random(7);
        let bytes = std::sync::Arc::new(random.weights(*ty, rows * cols));
        let x = random.floats(n * cols, 2.0);
        let mut first: Option<Vec<u32>> = None;
        for (batch, old) in [(41, false), (41, true), (1, false), (2, false), (8, false), (9, false), (33, false)] {
            let mut gpu = any_device(9, old);
            let buffer = gpu.adopt(bytes.clone()).unwrap();
            let weight = Weight { buffer, offset: 0, ty: *ty, rows, cols };
            let input = upload(&mut gpu, &x);
            let result = out(&mut gpu, n * rows);
            for start in (0..n).step_by(batch) {
                let n = batch.min(n - start);
                let products = [Linear { weight, bias: None, scale: 1.0, out: result.at(start * rows) }];
                gpu.run(&Op::MatMul { input: input.at(start * cols), n, products: &products }).unwrap();
            }
            let bits: Vec<u32> = read(&mut gpu, result, n * rows).iter().map(|x| x.to_bits()).collect();
            assert_eq!(*first.get_or_insert(bits.clone()), bits, "{ty} in batches of {batch}");
        }
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

#[test]
fn experts() {
    let (experts, used) = (7, 3);
    for (i, ty) in PACKED.iter().chain(PLAIN).enumerate() {
        for per_slot in [false, true] {
            let (rows, cols, n) = (19, ty.block_size().max(32) * 2, 4);
            let mut random = Random(i as u64 + 50);
            let mut gpu = device(i as u64);
            let bytes = random.weights(*ty, experts * rows * cols);
            let weights = dequantize(*ty, &bytes, experts * rows, cols);
            let inputs = if per_slot { n * used } else { n };
            let x = activations(&mut random, *ty, inputs * cols);
            let ids: Vec<u32> = (0..n * used).map(|_| random.below(experts) as u32).collect();
            let (bias, scales) = (random.floats(experts * rows, 1.0), random.floats(experts, 2.0));
            let buffer = gpu.adopt(std::sync::Arc::new(bytes)).unwrap();
            let ids_view = gpu.adopt(std::sync::Arc::new(bytemuck::cast_slice::<u32, u8>(&ids).to_vec())).unwrap();
            let result = out(&mut gpu, n * used * rows);
            let op = Op::ExpertMatMul {
                input: upload(&mut gpu, &x),
                input_per_slot: per_slot,
                n,
                ids: View::new(ids_view),
                used,
                experts,
                weight: Weight { buffer, offset: 0, ty: *ty, rows, cols },
                bias: Some(upload(&mut gpu, &bias)),
                scales: Some(upload(&mut gpu, &scales)),
                out: result,
            };
            gpu.run(&op).unwrap();
            assert_eq!(Some(gpu.scratch_bytes()), gpu.scratch(&op.needs()[0]));
            let actual = read(&mut gpu, result, n * used * rows);
            for slot in 0..n * used {
                let (expert, input) = (ids[slot] as usize, if per_slot { slot } else { slot / used });
                for row in 0..rows {
                    let w = &weights[(expert * rows + row) * cols..][..cols];
                    let x = &x[input * cols..][..cols];
                    let bias = bias[expert * rows + row];
                    check(actual[slot * rows + row], w, x, scales[expert], bias, &format!("{ty}, slot {slot}"));
                }
            }
        }
    }
}

/// A grid has at most 65535 blocks in one direction: heads as experts, 128 of them, reach that with 512 rows.
#[test]
fn more_slots_than_a_grid_has() {
    let (used, n, cols, experts) = (32768, 3, 32, 2);
    let mut gpu = device(1);
    let weights: Vec<f32> = (0..experts * cols).map(|i| if i < cols { 1.0 } else { 2.0 }).collect();
    let buffer = upload(&mut gpu, &weights).buffer;
    let ids: Vec<u32> = (0..n * used).map(|slot| slot as u32 % 2).collect();
    let ids = gpu.adopt(std::sync::Arc::new(bytemuck::cast_slice::<u32, u8>(&ids).to_vec())).unwrap();
    for per_slot in [false, true] {
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
            assert_eq!(*value, (input * (1 + slot % 2)) as f32, "slot {slot}");
        }
    }
}

/// What is said beforehand is what comes.
#[test]
fn types_without_kernels_are_known_beforehand() {
    let mut gpu = device(1);
    let (input, result) = (upload(&mut gpu, &[0.5; 256]), out(&mut gpu, 1));
    for ty in GgmlType::all().filter(|ty| 256 % ty.block_size() == 0) {
        let bytes = Random(1).weights(ty, 256);
        let buffer = gpu.adopt(std::sync::Arc::new(bytes)).unwrap();
        let weight = Weight { buffer, offset: 0, ty, rows: 1, cols: 256 };
        let products = [Linear { weight, bias: None, scale: 1.0, out: result }];
        let op = Op::MatMul { input, n: 1, products: &products };
        let [need] = op.needs()[..] else { panic!("one product") };
        let done = gpu.run(&op);
        assert_eq!(gpu.scratch(&need).is_some(), done.is_ok(), "{ty}: {done:?}");
        assert!(done.is_ok() || matches!(done, Err(BackendError::Unsupported { .. })), "{ty}: {done:?}");
    }
}
