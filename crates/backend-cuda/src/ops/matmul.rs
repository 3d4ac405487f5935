//! Matrix products, directly on quantized blocks. Activations are rounded to 8 bits once, for weights that are packed.

use super::types::{Kernels, kernels, table};
use super::{Run, across, apart, int, invalid, product, rounding};
use crate::arguments::{Further, ProductArgs, VectorArgs, optional};
use crate::{Address, Driver};
use backend::{BackendError, Linear, View, Weight};
use bytemuck::Zeroable;
use quant::GgmlType;

const OP: &str = "MatMul";
/// The most rows of activations for which every row of weights is read once for each four of them.
pub(super) const FEW: usize = 8;
/// Rows of weights that a block of matvec has.
pub(super) const VEC_ROWS: usize = 16;
/// Bytes of 32 activations rounded to 8 bits.
pub(super) const ACTIVATIONS: usize = 40;

/// How a block of matmul computes: its kernel, and rows of its tile, either way.
pub(super) struct Tiles {
    pub kernel: &'static str,
    pub side: usize,
}

impl Tiles {
    pub const SMALL: usize = 32;
    const LARGE: usize = 64;

    /// Large tiles read less, where there are so many that no multiprocessor waits for others. `groups`: how many experts share
    /// the `n` rows. Weights of 16 bits and their activations are read in words of 16 bytes there.
    pub fn new<D: Driver>(
        run: &Run<'_, D>,
        kernels: &Kernels,
        arguments: &ProductArgs,
        n: usize,
        groups: usize,
    ) -> Tiles {
        let ProductArgs { weight, input, row_bytes, rows, .. } = *arguments;
        let whole = |address: u64| address % 16 == 0;
        let readable = kernels.packed || whole(weight | input | row_bytes as u64);
        let tiles = (rows as usize).div_ceil(Tiles::LARGE) * (n / groups).div_ceil(Tiles::LARGE) * groups;
        let many = tiles >= 2 * run.gpu.multiprocessors();
        // Of an expert's rows, the last tile has half of what it could have.
        let full = if groups > 1 { n / groups >= Tiles::LARGE } else { n > Tiles::SMALL };
        match kernels.large {
            Some((from, kernel)) if run.gpu.architecture() >= from && readable && many && full => {
                Tiles { kernel, side: Tiles::LARGE }
            }
            _ => Tiles { kernel: kernels.many, side: Tiles::SMALL },
        }
    }

    /// Shared memory of a block: for each of its warps chunks of weights and of activations; the sums after them take less.
    pub fn shared(&self) -> u32 {
        (8 * self.side * (CHUNK + ACTIVATIONS)) as u32
    }
}

/// Bytes of 32 weights as matmul's blocks share them.
const CHUNK: usize = 48;

/// Bytes of `inputs` rows as products with weights of a type read them: rounded, or none if they are read as they are.
/// Nothing, if there are no kernels for them.
pub(super) fn rounded(ty: GgmlType, inputs: usize, cols: usize) -> Option<u64> {
    if !kernels(ty)?.packed {
        return Some(0);
    }
    // Blocks of packed types have 32 values or more.
    let bytes = inputs.checked_mul(cols / 32)?.checked_mul(ACTIVATIONS)?;
    (cols % 32 == 0).then_some(bytes as u64)
}

pub(crate) fn matmul<D: Driver>(
    run: &mut Run<'_, D>,
    input: View,
    n: usize,
    products: &[Linear],
) -> Result<(), BackendError> {
    let Some(first) = products.first() else { return Ok(()) };
    let cols = first.weight.cols;
    if n == 0 || cols == 0 {
        return Ok(());
    }
    let input = run.buffers.span(OP, input, product(OP, &[n, cols])?)?;
    // Everything is checked before anything is computed.
    for linear in products {
        let weight = &linear.weight;
        if weight.cols != cols {
            return Err(invalid(OP, format!("weights of {} and {cols} columns read the same input", weight.cols)));
        }
        if kernels(weight.ty).is_none() {
            return Err(run.unsupported(OP, weight.ty));
        }
        let out = run.buffers.span_mut(OP, linear.out, product(OP, &[n, weight.rows])?)?;
        apart(OP, out, &[input])?;
        run.buffers.weight(OP, weight, 1)?;
        run.buffers.optional(OP, linear.bias, weight.rows)?;
    }
    for alike in products.chunk_by(|a, b| n <= FEW && a.weight.ty == b.weight.ty) {
        let Some(kernels) = kernels(alike[0].weight.ty) else { continue };
        let input = if kernels.packed { rounding::rounded(run, Some(input), 0)?[0] } else { input.address };
        for together in alike.chunks(1 + FURTHER) {
            launch(run, input, n, together, &kernels)?;
        }
    }
    Ok(())
}

/// Matrices that meet the same few activations, of one type, in one launch: where there are as many lanes as all have rows, more
/// of memory's answers are on their way at a time, and a launch costs as much as reading a small matrix.
pub(super) const FURTHER: usize = 2;

/// Products of one launch: with many activations it is one.
fn launch<D: Driver>(
    run: &mut Run<'_, D>,
    input: Address,
    n: usize,
    products: &[Linear],
    kernels: &Kernels,
) -> Result<(), BackendError> {
    let [linear, others @ ..] = products else { return Ok(()) };
    let Weight { rows, cols, .. } = linear.weight;
    let Further { weight, bias, out, .. } = operands(run, n, linear)?;
    let (_, row_bytes) = run.buffers.weight(OP, &linear.weight, 1)?;
    let blocks: usize = products.iter().map(|linear| linear.weight.rows.div_ceil(VEC_ROWS)).sum();
    if blocks == 0 {
        return Ok(());
    }
    let arguments = ProductArgs {
        weight,
        input,
        bias,
        scales: 0,
        ids: 0,
        tiles: 0,
        order: 0,
        table: table(run, linear.weight.ty)?,
        out,
        row_bytes: row_bytes as i64,
        expert_bytes: 0,
        scale: linear.scale,
        rows: int(OP, rows)?,
        cols: int(OP, cols)?,
        n: int(OP, n)?,
        slots: 1,
        experts: 1,
    };
    if n > FEW {
        let tiles = Tiles::new(run, kernels, &arguments, n, 1);
        let grid = [rows.div_ceil(tiles.side) as u32, across(OP, n.div_ceil(tiles.side))?, 1];
        // SAFETY: weight, bias and result have been checked to have these sizes (the caller); the input has n rows of cols
        // values, rounded if this type is packed (the caller).
        return unsafe { run.launch("matmul", tiles.kernel, (grid, 256, tiles.shared()), &arguments) };
    }
    let mut further = [Further::zeroed(); FURTHER];
    for (further, linear) in further.iter_mut().zip(others) {
        *further = operands(run, n, linear)?;
    }
    let (kernel, tokens) = if n == 1 { (kernels.one, 1) } else { (kernels.four, 4) };
    let grid = [int(OP, blocks)? as u32, across(OP, n.div_ceil(tokens))?, 1];
    // SAFETY: as above, for each of them, and all have rows of the same length; without ids no expert is looked up.
    unsafe { run.launch("matvec", kernel, (grid, 128, 0), &VectorArgs { product: arguments, further }) }
}

/// What products of one launch do not share.
fn operands<D: Driver>(run: &mut Run<'_, D>, n: usize, linear: &Linear) -> Result<Further, BackendError> {
    let rows = linear.weight.rows;
    let (weight, _) = run.buffers.weight(OP, &linear.weight, 1)?;
    let bias = optional(run.buffers.optional(OP, linear.bias, rows)?);
    let out = run.buffers.span_mut(OP, linear.out, product(OP, &[n, rows])?)?.address;
    Ok(Further { weight: weight.address, bias, out, scale: linear.scale, rows: int(OP, rows)? })
}
