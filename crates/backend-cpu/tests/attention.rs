//! Attention over contexts of several pieces: against its formula in f64, and the same bits however it is cut.

mod common;

use backend::*;
use backend_cpu::{CpuConfig, CpuDevice, Precision, Simd, SimdLevel, ThreadPool};
use common::{bytes, numbers};
use quant::GgmlType;
use std::sync::Arc;

const HEADS: usize = 6;
const HEADS_KV: usize = 2;
const TOTAL: usize = 1301;

#[derive(Clone, Copy)]
struct Case {
    ty: GgmlType,
    dim_k: usize,
    dim_v: usize,
    window: usize,
    softcap: f32,
    sinks: bool,
}

/// Queries, keys and values of all rows, rows first; sinks.
struct Data {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    sinks: Vec<f32>,
}

impl Case {
    fn data(&self) -> Data {
        Data {
            // Scores that differ: the softmax has something to do.
            q: numbers(TOTAL * HEADS * self.dim_k, 1).iter().map(|x| 4.0 * x).collect(),
            k: numbers(TOTAL * HEADS_KV * self.dim_k, 2),
            v: numbers(TOTAL * HEADS_KV * self.dim_v, 3),
            sinks: numbers(HEADS, 4),
        }
    }

    /// Rows `TOTAL - count..`, in batches of `batch`, after all before them were stored.
    fn run(&self, data: &Data, simd: Option<SimdLevel>, threads: usize, count: usize, batch: usize) -> Vec<f32> {
        let config = CpuConfig { threads, precision: Precision::Exact, simd };
        let mut device = CpuDevice::new(Arc::new(ThreadPool::new(threads)), config);
        let row = |dim: usize| self.ty.row_bytes(dim).expect("whole blocks");
        let mut put = |values: &[f32]| {
            let buffer = device.allocate(values.len() as u64 * 4).expect("memory");
            device.write(buffer, 0, &bytes(values)).expect("a buffer");
            View::new(buffer)
        };
        let (q, k, v, sinks) = (put(&data.q), put(&data.k), put(&data.v), put(&data.sinks));
        let out = put(&vec![0.0; TOTAL * HEADS * self.dim_v]);
        let mut cache = |dim: usize| device.allocate((HEADS_KV * TOTAL * row(dim)) as u64).expect("memory");
        let cache = KvCache {
            k: cache(self.dim_k),
            v: Some(cache(self.dim_v)),
            k_type: self.ty,
            v_type: self.ty,
            capacity: TOTAL,
            head_count_kv: HEADS_KV,
            head_dim_k: self.dim_k,
            head_dim_v: self.dim_v,
        };
        device.run(&Op::StoreKv { cache, k, v, n: TOTAL, start: 0 }).expect("a valid operation");
        let sinks = self.sinks.then_some(sinks);
        let spec = AttentionSpec { head_count: HEADS, scale: 0.3, softcap: self.softcap, window: self.window, sinks };
        for start in (TOTAL - count..TOTAL).step_by(batch) {
            let n = batch.min(TOTAL - start);
            let (q, out) = (q.at(start * HEADS * self.dim_k), out.at(start * HEADS * self.dim_v));
            device.run(&Op::Attention { cache, spec, q, n, start, out }).expect("a valid operation");
        }
        let mut result = vec![0u8; count * HEADS * self.dim_v * 4];
        let first = (TOTAL - count) * HEADS * self.dim_v * 4;
        device.read(out.buffer, first as u64, &mut result).expect("a buffer");
        result.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    fn exact(&self, data: &Data, position: usize, head: usize) -> Vec<f64> {
        let stored = |values: &[f32], row: usize, dim: usize| -> Vec<f64> {
            let at = (row * HEADS_KV + head / (HEADS / HEADS_KV)) * dim;
            let mut packed = vec![0u8; self.ty.row_bytes(dim).expect("whole blocks")];
            quant::quantize_cache_row(self.ty, &values[at..at + dim], &mut packed).expect("whole blocks");
            let mut wide = vec![0f32; dim];
            quant::dequantize_row(self.ty, &packed, &mut wide).expect("whole blocks");
            wide.into_iter().map(f64::from).collect()
        };
        let q = &data.q[(position * HEADS + head) * self.dim_k..][..self.dim_k];
        let first = if self.window == 0 { 0 } else { (position + 1).saturating_sub(self.window) };
        let score = |cell: usize| -> f64 {
            let k = stored(&data.k, cell, self.dim_k);
            let score = 0.3f32 as f64 * q.iter().zip(k).map(|(q, k)| f64::from(*q) * k).sum::<f64>();
            let cap = f64::from(self.softcap);
            if cap == 0.0 { score } else { cap * (score / cap).tanh() }
        };
        let shares: Vec<f64> = (first..=position).map(|cell| score(cell).exp()).collect();
        let sink = if self.sinks { f64::from(data.sinks[head]).exp() } else { 0.0 };
        let sum = shares.iter().sum::<f64>() + sink;
        let mut out = vec![0f64; self.dim_v];
        for (cell, share) in (first..).zip(&shares) {
            for (out, v) in out.iter_mut().zip(stored(&data.v, cell, self.dim_v)) {
                *out += share / sum * v;
            }
        }
        out
    }
}

const CASES: [Case; 5] = [
    Case { ty: GgmlType::F16, dim_k: 64, dim_v: 64, window: 0, softcap: 0.0, sinks: false },
    Case { ty: GgmlType::F32, dim_k: 20, dim_v: 12, window: 0, softcap: 3.0, sinks: true },
    Case { ty: GgmlType::Q8_0, dim_k: 96, dim_v: 32, window: 700, softcap: 0.0, sinks: true },
    Case { ty: GgmlType::Q4_1, dim_k: 32, dim_v: 64, window: 0, softcap: 0.0, sinks: false },
    Case { ty: GgmlType::F16, dim_k: 16, dim_v: 16, window: 100, softcap: 0.0, sinks: false },
];

#[test]
fn it_is_its_formula() {
    for case in CASES {
        let data = case.data();
        for simd in SimdLevel::ALL.into_iter().filter(|level| Simd::with(*level).is_some()) {
            let found = case.run(&data, Some(simd), 2, 3, 1);
            for (row, found) in found.chunks_exact(HEADS * case.dim_v).enumerate() {
                for (head, found) in found.chunks_exact(case.dim_v).enumerate() {
                    for (found, exact) in found.iter().zip(case.exact(&data, TOTAL - 3 + row, head)) {
                        assert!((f64::from(*found) - exact).abs() <= 2e-5, "{found} is not {exact}");
                    }
                }
            }
        }
    }
}

#[test]
fn batches_and_threads_give_the_same_bits() {
    for case in CASES {
        let data = case.data();
        for simd in SimdLevel::ALL.into_iter().filter(|level| Simd::with(*level).is_some()) {
            let whole = case.run(&data, Some(simd), 1, 40, 40);
            // With many threads, one row is cut into pieces.
            for (threads, batch) in [(1, 1), (2, 1), (16, 1), (16, 7), (3, 40)] {
                let found = case.run(&data, Some(simd), threads, 40, batch);
                assert_eq!(found, whole, "{threads} threads, batches of {batch}");
            }
        }
    }
}
