//! Operations on values one by one, on rows, and norms.

use super::heads::SmallNorm;
use super::held::Sum;
use super::{Run, apart, int, let_go, per_value, product, rounding, same_or_apart, strided};
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
) -> Result<Sum, BackendError> {
    per_value(op, len)?;
    let (a, b) = (run.buffers.span(op, a, len)?, run.buffers.span(op, b, len)?);
    let out = run.buffers.span_mut(op, out, len)?;
    same_or_apart(op, out, a)?;
    same_or_apart(op, out, b)?;
    let (len, unused) = (len as i64, 0);
    let arguments = ZipArgs { a: a.address, b: b.address, out: out.address, rounded: 0, len, scale, unused };
    Ok(Sum { arguments, a, b, out })
}

pub(crate) fn add<D: Driver>(
    run: &mut Run<'_, D>,
    views: [View; 3],
    scale: f32,
    len: usize,
) -> Result<(), BackendError> {
    // Its norm may come next.
    run.held.sum = Some(zipped(run, "Add", views, scale, len)?);
    Ok(())
}

pub(super) fn launch_add<D: Driver>(run: &mut Run<'_, D>, sum: &Sum) -> Result<(), BackendError> {
    let geometry = per_value("Add", sum.arguments.len as usize)?;
    // SAFETY: all operands were checked to have `len` values when they came, and whoever frees one lets go first.
    unsafe { run.launch("elementwise", "add", geometry, &sum.arguments) }
}

pub(crate) fn mul<D: Driver>(run: &mut Run<'_, D>, views: [View; 3], len: usize) -> Result<(), BackendError> {
    const OP: &str = "Mul";
    let (geometry, Sum { arguments, out, .. }) = (per_value(OP, len)?, zipped(run, OP, views, 1.0, len)?);
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
    let [weight, bias] = [weight, bias].map(|view| view.map(|view| run.buffers.span(OP, view, dim)).transpose());
    let (weight, bias) = (weight?, bias?);
    if len == 0 {
        return Ok(());
    }
    let arguments = NormArgs {
        input: input.address,
        a: 0,
        b: 0,
        weight: optional(weight.map(|span| span.address)),
        bias: optional(bias.map(|span| span.address)),
        out: out.address,
        rounded: 0,
        rows: int(OP, rows)?,
        dim: int(OP, dim)?,
        layer: i32::from(kind == NormKind::Layer),
        eps,
        scale: 1.0,
        unused: 0,
    };
    let reads: Vec<Span> = [weight, bias].into_iter().flatten().collect();
    if let Some(sum) = run.held.sum.filter(|sum| sum.out == input && sum.before_norm(out, &reads)) {
        run.held.sum = None;
        let ZipArgs { a, b, scale, .. } = sum.arguments;
        return launch_norm(run, NormArgs { a, b, scale, ..arguments }, out);
    }
    if input.address == out.address && dim <= SHORT {
        // Heads, perhaps, whose rotary embedding comes next.
        if run.held.sum.is_some() || run.held.norm.is_some() || run.held.rotation.is_some() {
            let_go(run)?;
        }
        run.held.norm = Some(SmallNorm { arguments, x: out, reads });
        return Ok(());
    }
    let_go(run)?;
    launch_norm(run, arguments, out)
}

/// Rows up to this length are normalised by a warp, longer ones by a block: the order of summation depends on that.
const SHORT: usize = 256;

pub(super) fn launch_norm<D: Driver>(
    run: &mut Run<'_, D>,
    mut arguments: NormArgs,
    out: Span,
) -> Result<(), BackendError> {
    let NormArgs { rows, dim, .. } = arguments;
    let threads = if dim as usize <= SHORT { 32 } else { 256 };
    arguments.rounded = rounding::beside(run, out, dim as usize);
    // SAFETY: all operands were checked to have these sizes when they came, and whoever frees one lets go first; where the
    // result is rounded, there is room.
    unsafe { run.launch("norm", "norm", ([rows as u32, 1, 1], threads, 0), &arguments) }?;
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
