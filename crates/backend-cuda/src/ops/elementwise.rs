//! Operations on values one by one, on rows, and norms.

use super::{Run, apart, int, per_value, product, rounding, same_or_apart, strided};
use crate::Driver;
use crate::arguments::{CopyRowsArgs, GluArgs, MapArgs, NormArgs, ScaleArgs, ZipArgs, optional};
use crate::buffers::Span;
use backend::{Activation, BackendError, NormKind, View};

/// Code, alpha and limit of an activation (`kernels/activation.h`).
pub(super) fn code(act: Activation) -> (i32, f32, f32) {
    match act {
        Activation::Silu => (0, 0.0, 0.0),
        Activation::GeluTanh => (1, 0.0, 0.0),
        Activation::Relu2 => (2, 0.0, 0.0),
        Activation::Sigmoid => (3, 0.0, 0.0),
        Activation::ClampedSwiglu { alpha, limit } => (4, alpha, limit),
    }
}

/// The operands of an operation on two, checked.
fn zipped<D: Driver>(
    run: &Run<'_, D>,
    op: &'static str,
    [a, b, out]: [View; 3],
    scale: f32,
    len: usize,
) -> Result<(ZipArgs, Span), BackendError> {
    let (a, b) = (run.buffers.span(op, a, len)?, run.buffers.span(op, b, len)?);
    let out = run.buffers.span_mut(op, out, len)?;
    same_or_apart(op, out, a)?;
    same_or_apart(op, out, b)?;
    let (a, b) = (a.address, b.address);
    Ok((ZipArgs { a, b, out: out.address, rounded: 0, len: len as i64, scale, unused: 0 }, out))
}

pub(crate) fn add<D: Driver>(
    run: &mut Run<'_, D>,
    views: [View; 3],
    scale: f32,
    len: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Add";
    let (arguments, _) = zipped(run, OP, views, scale, len)?;
    // SAFETY: all operands have just been checked to have `len` values.
    unsafe { run.launch("elementwise", "add", per_value(OP, len)?, &arguments) }
}

pub(crate) fn mul<D: Driver>(run: &mut Run<'_, D>, views: [View; 3], len: usize) -> Result<(), BackendError> {
    const OP: &str = "Mul";
    let (geometry, (arguments, out)) = (per_value(OP, len)?, zipped(run, OP, views, 1.0, len)?);
    let rounded = rounding::beside(run, out, len);
    // SAFETY: all operands have just been checked to have `len` values; where the result is rounded, there is room.
    unsafe { run.launch("elementwise", "mul", geometry, &ZipArgs { rounded, ..arguments }) }?;
    rounding::made(run, out, rounded);
    Ok(())
}

pub(crate) fn map<D: Driver>(
    run: &mut Run<'_, D>,
    op: &'static str,
    kernel: &'static str,
    x: View,
    factor: f32,
    len: usize,
) -> Result<(), BackendError> {
    let x = run.buffers.span_mut(op, x, len)?.address;
    let arguments = MapArgs { x, rounded: 0, len: len as i64, factor, act: 0, alpha: 0.0, limit: 0.0 };
    // SAFETY: the operand has just been checked to have `len` values.
    unsafe { run.launch("elementwise", kernel, per_value(op, len)?, &arguments) }
}

pub(crate) fn activate<D: Driver>(
    run: &mut Run<'_, D>,
    act: Activation,
    x: View,
    len: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Activate";
    let (geometry, x) = (per_value(OP, len)?, run.buffers.span_mut(OP, x, len)?);
    let (act, alpha, limit) = code(act);
    let rounded = rounding::beside(run, x, len);
    let arguments = MapArgs { x: x.address, rounded, len: len as i64, factor: 1.0, act, alpha, limit };
    // SAFETY: the operand has just been checked to have `len` values; where it is rounded, there is room.
    unsafe { run.launch("elementwise", "activate_all", geometry, &arguments) }?;
    rounding::made(run, x, rounded);
    Ok(())
}

pub(crate) fn norm<D: Driver>(
    run: &mut Run<'_, D>,
    kind: NormKind,
    [input, out]: [View; 2],
    [rows, dim]: [usize; 2],
    eps: f32,
    [weight, bias]: [Option<View>; 2],
) -> Result<(), BackendError> {
    const OP: &str = "Norm";
    let len = product(OP, &[rows, dim])?;
    let (input, out) = (run.buffers.span(OP, input, len)?, run.buffers.span_mut(OP, out, len)?);
    same_or_apart(OP, out, input)?;
    let weight = run.buffers.optional(OP, weight, dim)?;
    let bias = run.buffers.optional(OP, bias, dim)?;
    if len == 0 {
        return Ok(());
    }
    let mut arguments = NormArgs {
        input: input.address,
        weight: optional(weight),
        bias: optional(bias),
        out: out.address,
        rounded: 0,
        rows: int(OP, rows)?,
        dim: int(OP, dim)?,
        layer: i32::from(kind == NormKind::Layer),
        eps,
    };
    // By the row's length alone: the order of summation depends on it.
    let threads = if dim <= 256 { 32 } else { 256 };
    let grid = [int(OP, rows)? as u32, 1, 1];
    arguments.rounded = rounding::beside(run, out, dim);
    // SAFETY: all operands have just been checked to have these sizes; where the result is rounded, there is room.
    unsafe { run.launch("norm", "norm", (grid, threads, 0), &arguments) }?;
    rounding::made(run, out, arguments.rounded);
    Ok(())
}

pub(crate) fn glu<D: Driver>(
    run: &mut Run<'_, D>,
    act: Activation,
    [gate, up, out]: [View; 3],
    [rows, dim, stride]: [usize; 3],
) -> Result<(), BackendError> {
    const OP: &str = "Glu";
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let strided = strided(OP, rows, stride, dim)?;
    let (gate, up) = (run.buffers.span(OP, gate, strided)?, run.buffers.span(OP, up, strided)?);
    let values = product(OP, &[rows, dim])?;
    let out = run.buffers.span_mut(OP, out, values)?;
    match stride == dim {
        true => same_or_apart(OP, out, gate)?,
        false => apart(OP, out, &[gate])?,
    }
    apart(OP, out, &[up])?;
    let (act, alpha, limit) = code(act);
    let mut arguments = GluArgs {
        gate: gate.address,
        up: up.address,
        out: out.address,
        rounded: 0,
        stride: stride as i64,
        rows: int(OP, rows)?,
        dim: int(OP, dim)?,
        act,
        alpha,
        limit,
        unused: 0,
    };
    let geometry = per_value(OP, values)?;
    arguments.rounded = rounding::beside(run, out, values);
    // SAFETY: all operands have just been checked to have these sizes; where the result is rounded, there is room.
    unsafe { run.launch("glu", "glu", geometry, &arguments) }?;
    rounding::made(run, out, arguments.rounded);
    Ok(())
}

/// A factor for each row.
pub(crate) fn scale_rows<D: Driver>(
    run: &mut Run<'_, D>,
    x: View,
    factors: View,
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    scaled(run, "ScaleRows", ("rows", "scale_rows"), [x, factors], [rows, dim], rows)
}

/// A factor for each column.
pub(crate) fn scale_columns<D: Driver>(
    run: &mut Run<'_, D>,
    x: View,
    factors: View,
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    scaled(run, "ScaleColumns", ("streams", "scale_columns"), [x, factors], [rows, dim], dim)
}

/// Multiplies rows by `count` factors with one of the two kernels.
fn scaled<D: Driver>(
    run: &mut Run<'_, D>,
    op: &'static str,
    (file, kernel): (&'static str, &'static str),
    [x, factors]: [View; 2],
    [rows, dim]: [usize; 2],
    count: usize,
) -> Result<(), BackendError> {
    let values = product(op, &[rows, dim])?;
    let (x, factors) = (run.buffers.span_mut(op, x, values)?, run.buffers.span(op, factors, count)?);
    apart(op, x, &[factors])?;
    let arguments = ScaleArgs { x: x.address, factors: factors.address, rows: int(op, rows)?, dim: int(op, dim)? };
    // SAFETY: both operands have just been checked to have these sizes; each kernel reads as many factors as its operation
    // names.
    unsafe { run.launch(file, kernel, per_value(op, values)?, &arguments) }
}

pub(crate) fn copy_rows<D: Driver>(
    run: &mut Run<'_, D>,
    [input, out]: [View; 2],
    strides: [usize; 2],
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    const OP: &str = "CopyRows";
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let input = run.buffers.span(OP, input, strided(OP, rows, strides[0], dim)?)?;
    let out = run.buffers.span_mut(OP, out, strided(OP, rows, strides[1], dim)?)?;
    apart(OP, out, &[input])?;
    let arguments = CopyRowsArgs {
        input: input.address,
        out: out.address,
        input_stride: strides[0] as i64,
        out_stride: strides[1] as i64,
        rows: int(OP, rows)?,
        dim: int(OP, dim)?,
    };
    // SAFETY: both operands have just been checked to have these sizes.
    unsafe { run.launch("rows", "copy_rows", per_value(OP, product(OP, &[rows, dim])?)?, &arguments) }
}

/// Rows that follow each other are one copy: mostly it is one row, or all.
pub(crate) fn gather<D: Driver>(
    run: &mut Run<'_, D>,
    input: View,
    rows: &[u32],
    dim: usize,
    out: View,
) -> Result<(), BackendError> {
    const OP: &str = "Gather";
    let Some(last) = rows.iter().max() else { return Ok(()) };
    let input = run.buffers.span(OP, input, product(OP, &[*last as usize + 1, dim])?)?;
    let out = run.buffers.span_mut(OP, out, product(OP, &[rows.len(), dim])?)?;
    apart(OP, out, &[input])?;
    let row_bytes = 4 * dim as u64;
    let mut done = 0;
    for run_of_rows in rows.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        let bytes = run_of_rows.len() as u64 * row_bytes;
        let from = Span { address: input.address + u64::from(run_of_rows[0]) * row_bytes, bytes };
        run.gpu.copy(Span { address: out.address + done, bytes }, from)?;
        done += bytes;
    }
    Ok(())
}
