//! Products of one token's rows alone and of many in panels: the same bits, whatever a token shares its operation with.

mod common;

use backend::*;
use backend_cpu::{CpuConfig, CpuDevice, Precision, Simd, SimdLevel, ThreadPool};
use common::{bytes, numbers};
use quant::GgmlType;
use std::sync::Arc;

const COLS: usize = 768;
const ROWS: usize = 100;
const TOKENS: usize = 6;
const TYPES: [GgmlType; 4] = [GgmlType::Q4_K, GgmlType::Q6_K, GgmlType::Q8_0, GgmlType::Q4_K];

struct Bench(CpuDevice);

impl Bench {
    fn new(simd: SimdLevel, threads: usize) -> Bench {
        let config = CpuConfig { threads, precision: Precision::Fast, simd: Some(simd) };
        Bench(CpuDevice::new(Arc::new(ThreadPool::new(threads)), config))
    }

    fn put(&mut self, bytes: &[u8]) -> View {
        let buffer = self.0.allocate(bytes.len() as u64).expect("memory");
        self.0.write(buffer, 0, bytes).expect("a buffer");
        View::new(buffer)
    }

    fn floats(&mut self, values: &[f32]) -> View {
        self.put(&bytes(values))
    }

    fn weight(&mut self, ty: GgmlType, rows: usize, seed: u64) -> Weight {
        let mut bytes = vec![0; rows * ty.row_bytes(COLS).expect("whole blocks")];
        for (row, bytes) in bytes.chunks_exact_mut(ty.row_bytes(COLS).expect("whole blocks")).enumerate() {
            quant::quantize_row(ty, &numbers(COLS, seed + row as u64), None, bytes).expect("a quantizer");
        }
        Weight { buffer: self.put(&bytes).buffer, offset: 0, ty, rows: ROWS, cols: COLS }
    }

    /// The bits of `len` results of `op`.
    fn run(&mut self, op: &Op<'_>, out: View, len: usize) -> Vec<u32> {
        self.0.run(op).expect("a valid operation");
        let mut bytes = vec![0; 4 * len];
        self.0.read(out.buffer, 0, &mut bytes).expect("results");
        bytes.as_chunks::<4>().0.iter().map(|bits| u32::from_le_bytes(*bits)).collect()
    }

    /// Products of tokens with a matrix of each of [`TYPES`].
    fn products(&mut self, tokens: &[Vec<f32>]) -> Vec<Vec<u32>> {
        let input = self.floats(&tokens.concat());
        let len = tokens.len() * ROWS;
        let products: Vec<Linear> = (0..)
            .zip(TYPES)
            .map(|(seed, ty)| {
                let (weight, out) = (self.weight(ty, ROWS, 1000 * seed), self.floats(&vec![f32::NAN; len]));
                Linear { weight, bias: None, scale: 1.0, out }
            })
            .collect();
        let op = Op::MatMul { input, n: tokens.len(), products: &products };
        products.iter().map(|product| self.run(&op, product.out, len)).collect()
    }

    /// Products of tokens with the experts that each has.
    fn experts(&mut self, ty: GgmlType, tokens: &[Vec<f32>], ids: &[[u32; 2]]) -> Vec<u32> {
        let input = self.floats(&tokens.concat());
        let ids = self.put(&ids.concat().iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
        let (weight, len) = (self.weight(ty, 4 * ROWS, 7), tokens.len() * 2 * ROWS);
        let out = self.floats(&vec![f32::NAN; len]);
        let (n, bias, scales) = (tokens.len(), None, None);
        let op =
            Op::ExpertMatMul { input, input_per_slot: false, n, ids, used: 2, experts: 4, weight, bias, scales, out };
        self.run(&op, out, len)
    }
}

fn levels() -> impl Iterator<Item = SimdLevel> {
    SimdLevel::ALL.into_iter().filter(|level| Simd::with(*level).is_some())
}

/// Matrices of several types that read the same tokens, so few that each meets the rows alone, and as many as panels take.
#[test]
fn a_tokens_products_are_those_that_it_has_alone() {
    let tokens: Vec<Vec<f32>> = (0..).map(|token| numbers(COLS, 77 + token)).take(TOKENS).collect();
    for level in levels() {
        for threads in [1, 3] {
            let mut bench = Bench::new(level, threads);
            let alone: Vec<_> = tokens.iter().map(|token| bench.products(std::slice::from_ref(token))).collect();
            for n in 2..=TOKENS {
                for (index, all) in bench.products(&tokens[..n]).iter().enumerate() {
                    for (token, own) in all.chunks_exact(ROWS).enumerate() {
                        assert_eq!(own, alone[token][index], "{level:?}, token {token} of {n}, matrix {index}");
                    }
                }
            }
        }
    }
}

/// Tokens of which five meet one expert, which has them in a panel, and one each meets another one's rows alone.
#[test]
fn an_expert_that_one_token_has_gives_what_it_gives_alone() {
    let tokens: Vec<Vec<f32>> = (0..).map(|token| numbers(COLS, 99 + token)).take(TOKENS).collect();
    let ids = [[3, 0], [3, 1], [3, 2], [1, 0], [3, 1], [3, 1]];
    for (level, ty) in levels().flat_map(|level| TYPES.map(|ty| (level, ty))) {
        let mut bench = Bench::new(level, 2);
        let all = bench.experts(ty, &tokens, &ids);
        for (token, own) in all.chunks_exact(2 * ROWS).enumerate() {
            let alone = bench.experts(ty, &tokens[token..=token], &ids[token..=token]);
            assert_eq!(own, alone, "{ty} with {level:?}, token {token}");
        }
    }
}
