//! The operations: checks on shapes and bounds, then kernels.

mod attention;
mod elementwise;
mod expert_matmul;
mod experts;
mod hadamard;
mod heads;
mod held;
mod matmul;
mod recurrent;
mod rounding;
mod streams;
mod types;

pub(crate) use held::{Held, let_go};

use crate::buffers::{Buffers, Span};
use crate::device::{Gpu, Scratch, with_reserve};
use crate::{Driver, Launch};
use backend::check::{invalid, product, strided};
use backend::{BackendError, Need, Op};
use bytemuck::Pod;
use quant::GgmlType;

/// What an operation works with.
pub(crate) struct Run<'a, D: Driver> {
    pub gpu: &'a mut Gpu<D>,
    pub buffers: &'a Buffers,
    pub scratch: &'a mut Scratch,
    pub held: &'a mut Held,
}

/// Shared memory that every GPU gives without being asked.
const SHARED: usize = 48 << 10;
/// Threads of the kernels that have one for each value.
const THREADS: u32 = 256;

impl<D: Driver> Run<'_, D> {
    /// # Safety
    /// As [`Gpu::launch`].
    unsafe fn launch<A: Pod>(
        &mut self,
        module: &'static str,
        kernel: &'static str,
        (grid, block, shared): ([u32; 3], u32, u32),
        arguments: &A,
    ) -> Result<(), BackendError> {
        let launch = Launch { module, kernel, grid, block, shared, arguments: bytemuck::bytes_of(arguments) };
        // SAFETY: the caller's promise.
        unsafe { self.gpu.launch(launch) }
    }

    fn unsupported(&self, op: &'static str, ty: GgmlType) -> BackendError {
        BackendError::Unsupported { device: self.gpu.name().into(), op, ty }
    }
}

/// A size as kernels count it.
fn int(op: &'static str, size: usize) -> Result<i32, BackendError> {
    i32::try_from(size).map_err(|_| invalid(op, format!("{size} is too large")))
}

/// Blocks of a kernel with one thread for each of `values`.
fn per_value(op: &'static str, values: usize) -> Result<([u32; 3], u32, u32), BackendError> {
    let blocks = int(op, values.div_ceil(THREADS as usize))?;
    Ok(([blocks as u32, 1, 1], THREADS, 0))
}

/// Blocks of a kernel with one of them for each row.
fn per_row(op: &'static str, rows: usize) -> Result<([u32; 3], u32, u32), BackendError> {
    Ok(([int(op, rows)? as u32, 1, 1], THREADS, 0))
}

/// The most blocks in a grid's second and third direction.
const MOST_ACROSS: usize = 65535;

/// Blocks in the second and third direction.
fn across(op: &'static str, blocks: usize) -> Result<u32, BackendError> {
    match blocks <= MOST_ACROSS {
        true => Ok(blocks as u32),
        false => Err(invalid(op, format!("{blocks} rows at once are too many"))),
    }
}

/// [`backend::Device::scratch`] of every GPU.
pub fn scratch(need: &Need) -> Option<u64> {
    let bytes = match *need {
        Need::MatMul { ty, n, cols } => matmul::rounded(ty, n, cols),
        Need::ExpertMatMul { ty, inputs, slots, cols } => expert_matmul::scratch(ty, inputs, slots, cols),
        Need::Route { experts } => experts::room(experts).is_some().then_some(0),
        Need::Attention { .. } => attention::scratch(need),
    };
    bytes.map(with_reserve)
}

/// Results are apart from what they are made of.
fn apart(op: &'static str, out: Span, inputs: &[Span]) -> Result<(), BackendError> {
    match inputs.iter().any(|input| out.overlaps(*input)) {
        true => Err(invalid(op, "the result overlaps an input")),
        false => Ok(()),
    }
}

/// Results lie where an input does, value by value, or apart from it.
fn same_or_apart(op: &'static str, out: Span, input: Span) -> Result<(), BackendError> {
    if out.address == input.address { Ok(()) } else { apart(op, out, &[input]) }
}

pub(crate) fn run<D: Driver>(run: &mut Run<'_, D>, op: &Op<'_>) -> Result<(), BackendError> {
    // These see for themselves whether they belong to what waits.
    if !matches!(op, Op::Norm { .. } | Op::Rope { .. } | Op::Hadamard { .. } | Op::StoreKv { .. }) {
        let_go(run)?;
    }
    match *op {
        Op::MatMul { input, n, products } => matmul::matmul(run, input, n, products),
        Op::ExpertMatMul { input, input_per_slot, n, ids, used, experts, weight, bias, scales, out } => {
            let shape = expert_matmul::Shape { input_per_slot, n, used, experts };
            let operands = expert_matmul::Operands { input, ids, weight, bias, scales, out };
            expert_matmul::expert_matmul(run, &shape, &operands)
        }
        Op::Route { router, logits, n, bias, ids, weights } => {
            experts::route(run, &router, logits, n, bias, [ids, weights])
        }
        Op::Combine { input, weights, n, used, dim, out } => experts::combine(run, [input, weights, out], n, used, dim),
        Op::Norm { kind, input, rows, dim, eps, weight, bias, out } => {
            elementwise::norm(run, kind, [input, out], [rows, dim], eps, [weight, bias])
        }
        Op::Rope { x, n, heads, head_dim, spec, positions, factors } => {
            heads::rope(run, x, [n, heads, head_dim], &spec, positions, factors)
        }
        Op::Hadamard { x, len, block } => hadamard::hadamard(run, x, len, block),
        Op::StoreKv { cache, k, v, n, start } => attention::store(run, &cache, [k, v], n, start),
        Op::Attention { cache, spec, q, n, start, out } => attention::attention(run, &cache, &spec, [q, out], n, start),
        Op::Glu { act, gate, up, rows, dim, stride, out } => {
            elementwise::glu(run, act, [gate, up, out], [rows, dim, stride])
        }
        Op::Activate { act, x, len } => elementwise::activate(run, act, x, len),
        Op::Add { a, b, scale, len, out } => elementwise::add(run, [a, b, out], scale, len),
        Op::Mul { a, b, len, out } => elementwise::mul(run, [a, b, out], len),
        Op::Scale { x, factor, len } => elementwise::map(run, "Scale", "scale", x, factor, len),
        Op::Softcap { x, cap, len } => elementwise::map(run, "Softcap", "softcap", x, cap, len),
        Op::ScaleRows { x, factors, rows, dim } => elementwise::scale_rows(run, x, factors, rows, dim),
        Op::ScaleColumns { x, factors, rows, dim } => elementwise::scale_columns(run, x, factors, rows, dim),
        Op::MatchLength { x, rows, dim, like, like_stride } => {
            streams::match_length(run, [x, like], like_stride, rows, dim)
        }
        Op::Sparsify { x, rows, dim, deviations } => streams::sparsify(run, x, rows, dim, deviations),
        Op::Mix { mix, input, weights, n, out } => streams::mix(run, &mix, [input, out], weights, n),
        Op::Gather { input, rows, dim, out } => elementwise::gather(run, input, rows, dim, out),
        Op::CopyRows { input, input_stride, rows, dim, out, out_stride } => {
            elementwise::copy_rows(run, [input, out], [input_stride, out_stride], rows, dim)
        }
        Op::Conv { spec, input, n, weight, bias, state, out } => {
            recurrent::conv(run, &spec, [input, weight, out], bias, &state, n)
        }
        Op::DeltaNet { spec, qkv, alpha, beta, dt_bias, a, n, state, out } => {
            recurrent::delta_net(run, &spec, [qkv, alpha, beta, dt_bias, a, out], &state, n)
        }
        Op::StateSpace { spec, xbc, dt, dt_bias, a, skip, n, state, out } => {
            recurrent::state_space(run, &spec, [xbc, dt, dt_bias, a, skip, out], &state, n)
        }
        // Operations may come before their kernels.
        #[allow(unreachable_patterns)]
        _ => Err(run.unsupported(op.name(), GgmlType::F32)),
    }
}
