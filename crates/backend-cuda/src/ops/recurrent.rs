//! Recurrent mixers. The new state is written apart from the old one, so that a step can be repeated.

use super::elementwise::code;
use super::{Run, across, apart, int, invalid, per_value, product};
use crate::arguments::{ConvArgs, DeltaNetArgs, StateSpaceArgs, optional};
use crate::buffers::Span;
use crate::{Address, Driver};
use backend::{BackendError, ConvSpec, DeltaNetSpec, State, StateSpaceSpec, View};

/// Old and new state of `len` values, apart from each other and from the inputs.
fn states<D: Driver>(
    run: &Run<'_, D>,
    op: &'static str,
    state: &State,
    len: usize,
    inputs: &[Span],
) -> Result<(Address, Address), BackendError> {
    let before = state.input.map(|view| run.buffers.span(op, view, len)).transpose()?;
    let after = run.buffers.span_mut(op, state.output, len)?;
    apart(op, after, inputs)?;
    if let Some(before) = before {
        apart(op, after, &[before])?;
    }
    Ok((optional(before.map(|span| span.address)), after.address))
}

pub(crate) fn conv<D: Driver>(
    run: &mut Run<'_, D>,
    spec: &ConvSpec,
    [input, weight, out]: [View; 3],
    bias: Option<View>,
    state: &State,
    n: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Conv";
    let (channels, kernel) = (spec.channels, spec.kernel);
    if kernel == 0 {
        return Err(invalid(OP, "a kernel of no rows"));
    }
    let len = product(OP, &[n, channels])?;
    let (input, out) = (run.buffers.span(OP, input, len)?, run.buffers.span_mut(OP, out, len)?);
    let weight = run.buffers.span(OP, weight, product(OP, &[channels, kernel])?)?;
    let bias = run.buffers.optional(OP, bias, channels)?;
    let (before, after) = states(run, OP, state, product(OP, &[kernel - 1, channels])?, &[input])?;
    apart(OP, out, &[input])?;
    let (act, alpha, limit) = spec.act.map_or((-1, 0.0, 0.0), code);
    let arguments = ConvArgs {
        input: input.address,
        weight: weight.address,
        bias: optional(bias),
        before,
        after,
        out: out.address,
        n: int(OP, n)?,
        channels: int(OP, channels)?,
        kernel: int(OP, kernel)?,
        act,
        alpha,
        limit,
    };
    let values = product(OP, &[n.saturating_add(kernel - 1), channels])?;
    // SAFETY: all operands have just been checked to have these sizes.
    unsafe { run.launch("conv", "conv", per_value(OP, values)?, &arguments) }
}

pub(crate) fn delta_net<D: Driver>(
    run: &mut Run<'_, D>,
    spec: &DeltaNetSpec,
    [qkv, alpha, beta, dt_bias, a, out]: [View; 6],
    state: &State,
    n: usize,
) -> Result<(), BackendError> {
    const OP: &str = "DeltaNet";
    let (heads_k, heads_v, dim) = (spec.heads_k, spec.heads_v, spec.head_dim);
    if heads_k == 0 || heads_v % heads_k != 0 {
        return Err(invalid(OP, format!("{heads_v} value heads cannot share {heads_k} key heads")));
    }
    let (keys, values) = (product(OP, &[2, heads_k, dim])?, product(OP, &[heads_v, dim])?);
    let width = keys.checked_add(values).ok_or_else(|| invalid(OP, "sizes overflow"))?;
    let qkv = run.buffers.span(OP, qkv, product(OP, &[n, width])?)?;
    let per_head = product(OP, &[n, heads_v])?;
    let (alpha, beta) = (run.buffers.span(OP, alpha, per_head)?, run.buffers.span(OP, beta, per_head)?);
    let (dt_bias, a) = (run.buffers.span(OP, dt_bias, heads_v)?, run.buffers.span(OP, a, heads_v)?);
    let out = run.buffers.span_mut(OP, out, product(OP, &[n, values])?)?;
    let inputs = [qkv, alpha, beta];
    apart(OP, out, &inputs)?;
    let (before, after) = states(run, OP, state, product(OP, &[heads_v, dim, dim])?, &inputs)?;
    let shared = product(OP, &[2, dim, 4])?;
    if shared > 48 << 10 {
        return Err(invalid(OP, format!("heads of {dim} values are too large")));
    }
    let arguments = DeltaNetArgs {
        qkv: qkv.address,
        alpha: alpha.address,
        beta: beta.address,
        dt_bias: dt_bias.address,
        decay: a.address,
        before,
        after,
        out: out.address,
        n: int(OP, n)?,
        heads_k: int(OP, heads_k)?,
        heads_v: int(OP, heads_v)?,
        dim: int(OP, dim)?,
        tiled: i32::from(spec.tiled),
        eps: spec.eps,
    };
    let grid = [int(OP, heads_v)? as u32, across(OP, dim.div_ceil(32))?, 1];
    let kernel = match dim {
        64 => "delta_net_64",
        128 => "delta_net_128",
        _ => "delta_net_any",
    };
    // SAFETY: all operands have just been checked to have these sizes.
    unsafe { run.launch("recurrent", kernel, (grid, 32, shared as u32), &arguments) }
}

pub(crate) fn state_space<D: Driver>(
    run: &mut Run<'_, D>,
    spec: &StateSpaceSpec,
    [xbc, dt, dt_bias, a, skip, out]: [View; 6],
    state: &State,
    n: usize,
) -> Result<(), BackendError> {
    const OP: &str = "StateSpace";
    let (heads, dim, size, groups) = (spec.heads, spec.head_dim, spec.state_size, spec.groups);
    if groups == 0 || heads % groups != 0 {
        return Err(invalid(OP, format!("{heads} heads cannot share {groups} groups")));
    }
    let (values, shared) = (product(OP, &[heads, dim])?, product(OP, &[2, groups, size])?);
    let width = values.checked_add(shared).ok_or_else(|| invalid(OP, "sizes overflow"))?;
    let xbc = run.buffers.span(OP, xbc, product(OP, &[n, width])?)?;
    let dt = run.buffers.span(OP, dt, product(OP, &[n, heads])?)?;
    let [dt_bias, a, skip] = [dt_bias, a, skip].map(|view| run.buffers.span(OP, view, heads));
    let out = run.buffers.span_mut(OP, out, product(OP, &[n, values])?)?;
    apart(OP, out, &[xbc, dt])?;
    let (before, after) = states(run, OP, state, product(OP, &[heads, dim, size])?, &[xbc, dt])?;
    let arguments = StateSpaceArgs {
        xbc: xbc.address,
        dt: dt.address,
        dt_bias: dt_bias?.address,
        decay: a?.address,
        skip: skip?.address,
        before,
        after,
        out: out.address,
        n: int(OP, n)?,
        heads: int(OP, heads)?,
        dim: int(OP, dim)?,
        size: int(OP, size)?,
        groups: int(OP, groups)?,
        unused: 0,
    };
    let grid = [int(OP, heads)? as u32, across(OP, dim.div_ceil(4))?, 1];
    let kernel = match size {
        ..=128 => "state_space_4",
        129..=256 => "state_space_8",
        _ => "state_space_any",
    };
    // SAFETY: all operands have just been checked to have these sizes.
    unsafe { run.launch("recurrent", kernel, (grid, 128, 0), &arguments) }
}
