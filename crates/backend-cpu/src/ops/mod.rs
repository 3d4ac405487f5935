//! The operations: checks on shapes and bounds, then kernels on the pool.

mod activations;
mod attention;
mod cache;
mod conv;
mod elementwise;
mod experts;
mod gelu;
mod hadamard;
mod matmul;
mod norm;
mod recurrent;
mod rope;
mod rows;
mod streams;

use crate::buffers::Buffers;
use crate::cpu::Machine;
use crate::simd::packed::{Lanes32, Panel};
use backend::check::{invalid, product, strided};
use backend::{BackendError, Op};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory that kernels reuse: one part for each worker, and what the current operation shares.
pub(crate) struct Scratch {
    workers: Vec<Mutex<Worker>>,
    activations: Mutex<activations::Activations>,
    /// Of pieces of a context.
    sums: Mutex<Vec<f32>>,
    turns: Mutex<rope::Tables>,
}

/// What one worker needs.
#[derive(Default)]
pub(crate) struct Worker {
    panel: Panel,
    /// Of a panel's rows with each activation.
    sums: Vec<Lanes32<f32>>,
    floats: Vec<f32>,
    more_floats: Vec<f32>,
}

impl Scratch {
    pub fn new(workers: usize) -> Scratch {
        let workers = (0..workers).map(|_| Mutex::default()).collect();
        Scratch { workers, activations: Mutex::default(), sums: Mutex::default(), turns: Mutex::default() }
    }

    /// A worker's own part: never contended, because a worker is one thread at a time.
    fn worker(&self, index: usize) -> MutexGuard<'_, Worker> {
        self.workers[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sums(&self) -> MutexGuard<'_, Vec<f32>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns(&self) -> MutexGuard<'_, rope::Tables> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn activations(&self) -> MutexGuard<'_, activations::Activations> {
        self.activations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `len` values of memory that is used again and again: what they are is left over from another use.
fn reused(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        values.resize(len, 0.0);
    }
    &mut values[..len]
}

pub(crate) fn run(machine: &Machine, buffers: &Buffers, op: &Op<'_>) -> Result<(), BackendError> {
    let name = op.name();
    match *op {
        Op::MatMul { input, n, products } => matmul::matmul(machine, buffers, input, n, products),
        Op::ExpertMatMul { input, input_per_slot, n, ids, used, experts, weight, bias, scales, out } => {
            let shape = experts::Shape { n, used, experts, input_per_slot };
            let operands = experts::Operands { input, ids, weight, bias, scales, out };
            experts::expert_matmul(machine, buffers, shape, &operands)
        }
        Op::Route { router, logits, n, bias, ids, weights } => {
            experts::route(buffers, &router, logits, n, bias, ids, weights)
        }
        Op::Combine { input, weights, n, used, dim, out } => {
            experts::combine(machine, buffers, [input, weights, out], n, used, dim)
        }
        Op::Norm { kind, input, rows, dim, eps, weight, bias, out } => {
            norm::norm(machine, buffers, kind, [input, out], rows, dim, eps, weight, bias)
        }
        Op::Rope { x, n, heads, head_dim, spec, positions, factors } => {
            rope::rope(machine, buffers, x, [n, heads, head_dim], &spec, positions, factors)
        }
        Op::Hadamard { x, len, block } => hadamard::hadamard(machine, buffers, x, len, block),
        Op::StoreKv { cache, k, v, n, start } => cache::store(machine, buffers, &cache, [k, v], n, start),
        Op::Attention { cache, spec, q, n, start, out } => {
            attention::attention(machine, buffers, &cache, &spec, [q, out], n, start)
        }
        Op::Glu { act, gate, up, rows, dim, stride, out } => {
            elementwise::glu(machine, buffers, act, [gate, up, out], rows, dim, stride)
        }
        Op::Activate { act, x, len } => elementwise::activate(machine, buffers, act, x, len),
        Op::Add { a, b, scale, len, out } => {
            elementwise::zip(machine, buffers, name, [a, b, out], len, |a, b| a + scale * b)
        }
        Op::Mul { a, b, len, out } => elementwise::zip(machine, buffers, name, [a, b, out], len, |a, b| a * b),
        Op::Scale { x, factor, len } => {
            elementwise::map(machine, buffers, name, x, len, &|x| machine.simd.scale(x, factor))
        }
        Op::Softcap { x, cap, len } => {
            elementwise::map(machine, buffers, name, x, len, &|x| machine.simd.softcap(x, cap))
        }
        Op::ScaleRows { x, factors, rows, dim } => rows::scale(machine, buffers, x, factors, rows, dim),
        Op::ScaleColumns { x, factors, rows, dim } => rows::scale_columns(machine, buffers, x, factors, rows, dim),
        Op::MatchLength { x, rows, dim, like, like_stride } => {
            streams::match_length(machine, buffers, [x, like], like_stride, rows, dim)
        }
        Op::Sparsify { x, rows, dim, deviations } => streams::sparsify(machine, buffers, x, rows, dim, deviations),
        Op::Mix { mix, input, weights, n, out } => streams::mix(machine, buffers, &mix, [input, out], weights, n),
        Op::Gather { input, rows, dim, out } => elementwise::gather(buffers, input, rows, dim, out),
        Op::CopyRows { input, input_stride, rows, dim, out, out_stride } => {
            rows::copy(machine, buffers, [input, out], [input_stride, out_stride], rows, dim)
        }
        Op::Conv { spec, input, n, weight, bias, state, out } => {
            conv::conv(machine, buffers, &spec, [input, weight, out], bias, &state, n)
        }
        Op::DeltaNet { spec, qkv, alpha, beta, dt_bias, a, n, state, out } => {
            let inputs = recurrent::DeltaNetInputs { qkv, alpha, beta, dt_bias, a };
            recurrent::delta_net(machine, buffers, &spec, &inputs, &state, out, n)
        }
        Op::StateSpace { spec, xbc, dt, dt_bias, a, skip, n, state, out } => {
            let inputs = recurrent::StateSpaceInputs { xbc, dt, dt_bias, a, skip };
            recurrent::state_space(machine, buffers, &spec, &inputs, &state, out, n)
        }
    }
}
