//! Products of rows with the experts that were chosen for them.

use super::matmul::{ACTIVATIONS, FEW, FURTHER, Tiles, VEC_ROWS, rounded};
use super::types::{kernels, table};
use super::{MOST_ACROSS, Run, across, apart, int, product, rounding};
use crate::arguments::{Further, GroupArgs, ProductArgs, VectorArgs, optional};
use crate::{Address, Driver};
use backend::{BackendError, View, Weight};
use bytemuck::Zeroable;
use quant::GgmlType;

const OP: &str = "ExpertMatMul";
/// Bytes of one of groups.cu's tiles; warps of its blocks.
const GROUP_TILE: usize = 12;
const GROUP_WARPS: usize = 8;

pub(crate) struct Shape {
    pub input_per_slot: bool,
    pub n: usize,
    pub used: usize,
    pub experts: usize,
}

pub(crate) struct Operands {
    pub input: View,
    pub ids: View,
    pub weight: Weight,
    pub bias: Option<View>,
    pub scales: Option<View>,
    pub out: View,
}

/// Bytes of scratch memory of products of `inputs` rows, `slots` of them, if there are kernels for them.
pub(super) fn scratch(ty: GgmlType, inputs: usize, slots: usize, cols: usize) -> Option<u64> {
    rounded(ty, inputs, cols)?.checked_add(groups_bytes(slots) as u64)
}

/// Bytes of the list of slots, and of tiles: experts that are grouped are half as many as slots at most.
fn groups_bytes(slots: usize) -> usize {
    slots.saturating_mul(4).saturating_add(GROUP_TILE * tiles(slots, Tiles::SMALL, slots / 2))
}

/// The most tiles of `side` slots that slots of so many experts take; those of no expert are one more.
fn tiles(slots: usize, side: usize, experts: usize) -> usize {
    slots / side + experts + 1
}

pub(crate) fn expert_matmul<D: Driver>(
    run: &mut Run<'_, D>,
    shape: &Shape,
    operands: &Operands,
) -> Result<(), BackendError> {
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
    let mut arguments = ProductArgs {
        weight: bytes.address,
        input: input.address,
        bias: optional(bias),
        scales: optional(scales),
        ids: ids.address,
        tiles: 0,
        order: 0,
        table: table(run, weight.ty)?,
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
    // Few rows meet few experts twice.
    let most = tiles(slots, Tiles::SMALL, shape.experts);
    let grouped = shape.n > FEW && slots / 2 >= shape.experts && most <= MOST_ACROSS;
    let groups = if grouped { groups_bytes(slots) } else { 0 };
    let [rounded, behind] = rounding::rounded(run, kernels.packed.then_some(input), groups as u64)?;
    if kernels.packed {
        arguments.input = rounded;
    }
    if grouped {
        let tiles = Tiles::new(run, &kernels, &arguments, slots, shape.experts);
        return by_experts(run, &arguments, &tiles, behind);
    }
    // More slots than a grid can have come one part after the other; a part is whole tokens.
    let tokens = (MOST_ACROSS / shape.used).max(1);
    let per_token = if shape.input_per_slot { shape.used } else { 1 };
    let input_row = if kernels.packed { weight.cols / 32 * ACTIVATIONS } else { weight.cols * 4 };
    let further = [Further::zeroed(); FURTHER];
    for first in (0..shape.n).step_by(tokens) {
        let part = (shape.n - first).min(tokens) * shape.used;
        let slot = first * shape.used;
        let arguments = ProductArgs {
            input: arguments.input + (first * per_token * input_row) as u64,
            ids: arguments.ids + (slot * 4) as u64,
            out: arguments.out + (slot * weight.rows * 4) as u64,
            n: int(OP, part)?,
            ..arguments
        };
        let grid = [weight.rows.div_ceil(VEC_ROWS) as u32, across(OP, part)?, 1];
        // SAFETY: all operands have been checked to have these sizes as a whole, and parts lie one after the other; the
        // kernel leaves out experts that do not exist.
        unsafe { run.launch("matvec", kernels.one, (grid, 128, 0), &VectorArgs { product: arguments, further }) }?;
    }
    Ok(())
}

/// All slots of an expert together; the list of them goes to `groups`.
fn by_experts<D: Driver>(
    run: &mut Run<'_, D>,
    arguments: &ProductArgs,
    tiles: &Tiles,
    groups: Address,
) -> Result<(), BackendError> {
    let ProductArgs { n: slots, experts, .. } = *arguments;
    let tiles_at = groups + 4 * slots as u64;
    let side = int(OP, tiles.side)?;
    let group = GroupArgs { ids: arguments.ids, order: groups, tiles: tiles_at, slots, experts, side, unused: 0 };
    let grid = [experts as u32 + 1, 1, 1];
    let (threads, shared) = (32 * GROUP_WARPS, 8 * GROUP_WARPS);
    // SAFETY: there are as many ids as slots (the caller), and scratch memory has room for every slot and all tiles.
    unsafe { run.launch("groups", "group", (grid, threads as u32, shared as u32), &group) }?;
    let arguments = ProductArgs { tiles: tiles_at, order: groups, ..*arguments };
    let most = self::tiles(slots as usize, tiles.side, experts as usize);
    let grid = [(arguments.rows as usize).div_ceil(tiles.side) as u32, across(OP, most)?, 1];
    // SAFETY: all operands have been checked to have these sizes (the caller); tiles name slots that there are, and the
    // kernel leaves out experts that do not exist.
    unsafe { run.launch("matmul", tiles.kernel, (grid, 256, tiles.shared()), &arguments) }
}
