//! Whole rows: scaled each by its own factor, or copied between layouts.

use super::{invalid, product, strided};
use crate::buffers::Buffers;
use crate::cpu::Machine;
use backend::{BackendError, View};

/// Values that a chunk has, about.
const CHUNK: usize = 1 << 14;

/// A factor for each row.
pub(crate) fn scale(
    machine: &Machine,
    buffers: &Buffers,
    x: View,
    factors: View,
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    scaled("ScaleRows", machine, buffers, [x, factors], [rows, dim], rows, |row, values, factors| {
        values.iter_mut().for_each(|value| *value *= factors[row]);
    })
}

/// A factor for each column.
pub(crate) fn scale_columns(
    machine: &Machine,
    buffers: &Buffers,
    x: View,
    factors: View,
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    scaled("ScaleColumns", machine, buffers, [x, factors], [rows, dim], dim, |_, values, factors| {
        values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
    })
}

/// Changes each row by `count` factors.
fn scaled(
    op: &'static str,
    machine: &Machine,
    buffers: &Buffers,
    [x, factors]: [View; 2],
    [rows, dim]: [usize; 2],
    count: usize,
    change: impl Fn(usize, &mut [f32], &[f32]) + Sync,
) -> Result<(), BackendError> {
    let x = buffers.span_mut(op, x, product(op, &[rows, dim])?)?;
    let factors = buffers.span(op, factors, count)?;
    if x.overlaps(factors) {
        return Err(invalid(op, "the factors overlap the rows"));
    }
    machine.run(op, rows, &|_, row| {
        // SAFETY: rows are disjoint; factors are not written.
        let (values, factors) = unsafe { (x.write(row * dim, dim), factors.read(0, count)) };
        change(row, values, factors);
    })
}

/// Copies `rows` pieces of `dim` values; pieces start every `strides[0]` values and go to every `strides[1]`.
pub(crate) fn copy(
    machine: &Machine,
    buffers: &Buffers,
    [input, out]: [View; 2],
    strides: [usize; 2],
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    const OP: &str = "CopyRows";
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let input = buffers.span(OP, input, strided(OP, rows, strides[0], dim)?)?;
    let out = buffers.span_mut(OP, out, strided(OP, rows, strides[1], dim)?)?;
    if input.overlaps(out) {
        return Err(invalid(OP, "the operands overlap"));
    }
    let per_chunk = (CHUNK / dim).max(1);
    machine.run(OP, rows.div_ceil(per_chunk), &|_, chunk| {
        for row in chunk * per_chunk..rows.min((chunk + 1) * per_chunk) {
            // SAFETY: pieces of the result are disjoint, because its stride is at least their length; the input does
            // not overlap it.
            unsafe { out.write(row * strides[1], dim).copy_from_slice(input.read(row * strides[0], dim)) };
        }
    })
}
