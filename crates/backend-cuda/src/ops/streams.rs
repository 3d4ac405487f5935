//! What a stream of several parts needs (AltUp), and sparse gates.

use super::{Run, apart, int, per_row, per_value, product, strided};
use crate::Driver;
use crate::arguments::{MatchLengthArgs, MixArgs, SparsifyArgs, optional};
use backend::{BackendError, Mix, View};

pub(crate) fn mix<D: Driver>(
    run: &mut Run<'_, D>,
    mix: &Mix,
    [input, out]: [View; 2],
    weights: Option<View>,
    n: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Mix";
    let Mix { inputs, outputs, dim, out_stride, offset } = *mix;
    if n == 0 || dim == 0 || outputs == 0 {
        return Ok(());
    }
    let input = run.buffers.span(OP, input, product(OP, &[n, inputs, dim])?)?;
    let out = run.buffers.span_mut(OP, out, strided(OP, n, out_stride, product(OP, &[outputs, dim])?)?)?;
    let weights_len = product(OP, &[n, outputs, inputs])?;
    let weights = weights.map(|weights| run.buffers.span(OP, weights, weights_len)).transpose()?;
    apart(OP, out, &[Some(input), weights].into_iter().flatten().collect::<Vec<_>>())?;
    let arguments = MixArgs {
        input: input.address,
        weights: optional(weights.map(|weights| weights.address)),
        out: out.address,
        out_stride: out_stride as i64,
        n: int(OP, n)?,
        inputs: int(OP, inputs)?,
        outputs: int(OP, outputs)?,
        dim: int(OP, dim)?,
        offset,
        unused: 0,
    };
    // SAFETY: all operands have just been checked to have these sizes.
    unsafe { run.launch("streams", "mix", per_value(OP, product(OP, &[n, outputs, dim])?)?, &arguments) }
}

pub(crate) fn match_length<D: Driver>(
    run: &mut Run<'_, D>,
    [x, like]: [View; 2],
    like_stride: usize,
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    const OP: &str = "MatchLength";
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let x = run.buffers.span_mut(OP, x, product(OP, &[rows, dim])?)?;
    let like = run.buffers.span(OP, like, strided(OP, rows, like_stride, dim)?)?;
    apart(OP, x, &[like])?;
    let arguments = MatchLengthArgs {
        x: x.address,
        like: like.address,
        like_stride: like_stride as i64,
        rows: int(OP, rows)?,
        dim: int(OP, dim)?,
    };
    // SAFETY: both operands have just been checked to have these sizes.
    unsafe { run.launch("streams", "match_length", per_row(OP, rows)?, &arguments) }
}

pub(crate) fn sparsify<D: Driver>(
    run: &mut Run<'_, D>,
    x: View,
    rows: usize,
    dim: usize,
    deviations: f32,
) -> Result<(), BackendError> {
    const OP: &str = "Sparsify";
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let x = run.buffers.span_mut(OP, x, product(OP, &[rows, dim])?)?;
    let arguments = SparsifyArgs { x: x.address, rows: int(OP, rows)?, dim: int(OP, dim)?, deviations, unused: 0 };
    // SAFETY: the operand has just been checked to have this size.
    unsafe { run.launch("streams", "sparsify", per_row(OP, rows)?, &arguments) }
}
