//! Matrix products, directly on quantized blocks. Activations are rounded to 8 bits once, for weights that are packed.

use super::{MOST_ACROSS, Run, across, apart, int, invalid, product};
use crate::arguments::{MatMulArgs, MatVecArgs, QuantizeArgs, optional};
use crate::buffers::Span;
use crate::{Address, Driver};
use backend::{BackendError, Linear, View, Weight};
use quant::GgmlType;

const OP: &str = "MatMul";
/// The most rows of activations for which every row of weights is read once for each four of them.
const FEW: usize = 8;
/// Rows of weights that a block of matvec has; rows of a block of matmul, either way.
const VEC_ROWS: usize = 16;
const TILE: usize = 32;
/// Bytes of 32 activations rounded to 8 bits.
const ACTIVATIONS: usize = 40;

/// The kernels of a type: matvec for one row and for four, matmul. Whether it meets rounded activations.
struct Kernels {
    one: &'static str,
    four: &'static str,
    many: &'static str,
    packed: bool,
}

macro_rules! kernels {
    ($name:literal, $packed:literal) => {
        Some(Kernels {
            one: concat!("matvec_", $name, "_1"),
            four: concat!("matvec_", $name, "_4"),
            many: concat!("matmul_", $name),
            packed: $packed,
        })
    };
}

fn kernels(ty: GgmlType) -> Option<Kernels> {
    match ty {
        GgmlType::Q4_0 => kernels!("q4_0", true),
        GgmlType::Q4_1 => kernels!("q4_1", true),
        GgmlType::Q5_0 => kernels!("q5_0", true),
        GgmlType::Q5_1 => kernels!("q5_1", true),
        GgmlType::Q8_0 => kernels!("q8_0", true),
        GgmlType::Q2_K => kernels!("q2_k", true),
        GgmlType::Q3_K => kernels!("q3_k", true),
        GgmlType::Q4_K => kernels!("q4_k", true),
        GgmlType::Q5_K => kernels!("q5_k", true),
        GgmlType::Q6_K => kernels!("q6_k", true),
        GgmlType::IQ4_NL => kernels!("iq4_nl", true),
        GgmlType::IQ4_XS => kernels!("iq4_xs", true),
        GgmlType::MXFP4 => kernels!("mxfp4", true),
        GgmlType::F16 => kernels!("f16", false),
        GgmlType::BF16 => kernels!("bf16", false),
        GgmlType::F32 => kernels!("f32", false),
        _ => None,
    }
}

/// Bytes of scratch memory for products of `inputs` rows with weights of a type, if there are kernels for it.
pub(crate) fn scratch(ty: GgmlType, inputs: usize, cols: usize) -> Option<u64> {
    let kernels = kernels(ty)?;
    if !kernels.packed {
        return Some(0);
    }
    // Blocks of packed types have 32 values or more.
    let bytes = inputs.checked_mul(cols / 32)?.checked_mul(ACTIVATIONS)?;
    (cols % 32 == 0).then_some(bytes as u64)
}

/// `rows` rows of activations rounded to 8 bits, in scratch memory.
fn quantize<D: Driver>(run: &mut Run<'_, D>, input: Span, rows: usize, cols: usize) -> Result<Address, BackendError> {
    let blocks = rows * (cols / 32);
    let out = run.gpu.scratch(&mut run.scratch.activations, (blocks * ACTIVATIONS) as u64)?;
    let arguments = QuantizeArgs { input: input.address, out, blocks: blocks as i64 };
    let grid = [int(OP, blocks.div_ceil(8))? as u32, 1, 1];
    // SAFETY: the input has rows x cols values (the callers), the scratch memory as many blocks as are made.
    unsafe { run.launch("quantize", "quantize", (grid, 256, 0), &arguments) }?;
    Ok(out)
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
    let mut rounded = None;
    for linear in products {
        let Some(kernels) = kernels(linear.weight.ty) else { continue };
        let input = match (kernels.packed, rounded) {
            (false, _) => input.address,
            (true, Some(rounded)) => rounded,
            (true, None) => *rounded.insert(quantize(run, input, n, cols)?),
        };
        one(run, input, n, linear, &kernels)?;
    }
    Ok(())
}

/// One product.
fn one<D: Driver>(
    run: &mut Run<'_, D>,
    input: Address,
    n: usize,
    linear: &Linear,
    kernels: &Kernels,
) -> Result<(), BackendError> {
    let Weight { rows, cols, .. } = linear.weight;
    let (weight, row_bytes) = run.buffers.weight(OP, &linear.weight, 1)?;
    let bias = optional(run.buffers.optional(OP, linear.bias, rows)?);
    let out = run.buffers.span_mut(OP, linear.out, product(OP, &[n, rows])?)?.address;
    let (weight, row_bytes, scale) = (weight.address, row_bytes as i64, linear.scale);
    let (int_rows, int_cols, int_n) = (int(OP, rows)?, int(OP, cols)?, int(OP, n)?);
    if n > FEW {
        let arguments =
            MatMulArgs { weight, input, bias, out, row_bytes, scale, rows: int_rows, cols: int_cols, n: int_n };
        let grid = [rows.div_ceil(TILE) as u32, across(OP, n.div_ceil(TILE))?, 1];
        // Partial sums of a tile; the panels before them take less.
        let shared = 8 * TILE * TILE * 4;
        // SAFETY: weight, bias and result have just been checked to have these sizes; the input has n rows of cols values,
        // rounded if this type is packed (the caller).
        return unsafe { run.launch("matmul", kernels.many, (grid, 256, shared as u32), &arguments) };
    }
    let arguments = MatVecArgs {
        weight,
        input,
        bias,
        scales: 0,
        ids: 0,
        out,
        row_bytes,
        expert_bytes: 0,
        scale,
        rows: int_rows,
        cols: int_cols,
        n: int_n,
        slots: 1,
        experts: 1,
    };
    let (kernel, tokens) = if n == 1 { (kernels.one, 1) } else { (kernels.four, 4) };
    let grid = [rows.div_ceil(VEC_ROWS) as u32, across(OP, n.div_ceil(tokens))?, 1];
    // SAFETY: as above; without ids no expert is looked up.
    unsafe { run.launch("matvec", kernel, (grid, 128, 0), &arguments) }
}

pub(crate) struct ExpertShape {
    pub input_per_slot: bool,
    pub n: usize,
    pub used: usize,
    pub experts: usize,
}

pub(crate) struct ExpertOperands {
    pub input: View,
    pub ids: View,
    pub weight: Weight,
    pub bias: Option<View>,
    pub scales: Option<View>,
    pub out: View,
}

pub(crate) fn expert_matmul<D: Driver>(
    run: &mut Run<'_, D>,
    shape: &ExpertShape,
    operands: &ExpertOperands,
) -> Result<(), BackendError> {
    const OP: &str = "ExpertMatMul";
    let (weight, slots) = (&operands.weight, product(OP, &[shape.n, shape.used])?);
    if slots == 0 || weight.rows == 0 || weight.cols == 0 {
        return Ok(());
    }
    let kernels = kernels(weight.ty).ok_or_else(|| run.unsupported(OP, weight.ty))?;
    let inputs = if shape.input_per_slot { slots } else { shape.n };
    let input = run.buffers.span(OP, operands.input, product(OP, &[inputs, weight.cols])?)?;
    let ids = run.buffers.span(OP, operands.ids, slots)?;
    let out = run.buffers.span_mut(OP, operands.out, product(OP, &[slots, weight.rows])?)?;
    apart(OP, out, &[input, ids])?;
    let (bytes, row_bytes) = run.buffers.weight(OP, weight, shape.experts)?;
    let bias = run.buffers.optional(OP, operands.bias, product(OP, &[shape.experts, weight.rows])?)?;
    let scales = run.buffers.optional(OP, operands.scales, shape.experts)?;
    let mut arguments = MatVecArgs {
        weight: bytes.address,
        input: input.address,
        bias: optional(bias),
        scales: optional(scales),
        ids: ids.address,
        out: out.address,
        row_bytes: row_bytes as i64,
        expert_bytes: row_bytes as i64 * weight.rows as i64,
        scale: 1.0,
        rows: int(OP, weight.rows)?,
        cols: int(OP, weight.cols)?,
        n: int(OP, slots)?,
        slots: if shape.input_per_slot { 1 } else { int(OP, shape.used)? },
        experts: int(OP, shape.experts)?,
    };
    if kernels.packed {
        arguments.input = quantize(run, input, inputs, weight.cols)?;
    }
    // More slots than a grid can have come one part after the other; a part is whole tokens.
    let tokens = (MOST_ACROSS / shape.used).max(1);
    let per_token = if shape.input_per_slot { shape.used } else { 1 };
    let input_row = if kernels.packed { weight.cols / 32 * ACTIVATIONS } else { weight.cols * 4 };
    for first in (0..shape.n).step_by(tokens) {
        let part = (shape.n - first).min(tokens) * shape.used;
        let slot = first * shape.used;
        let arguments = MatVecArgs {
            input: arguments.input + (first * per_token * input_row) as u64,
            ids: arguments.ids + (slot * 4) as u64,
            out: arguments.out + (slot * weight.rows * 4) as u64,
            n: int(OP, part)?,
            ..arguments
        };
        let grid = [weight.rows.div_ceil(VEC_ROWS) as u32, across(OP, part)?, 1];
        // SAFETY: all operands have been checked to have these sizes as a whole, and parts lie one after the other; the
        // kernel leaves out experts that do not exist.
        unsafe { run.launch("matvec", kernels.one, (grid, 128, 0), &arguments) }?;
    }
    Ok(())
}
