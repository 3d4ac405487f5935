//! Recurrent mixers: one head after the other, token by token. The state of a head stays in the cache meanwhile.

use super::{invalid, product};
use crate::buffers::{Buffers, Span};
use crate::cpu::Machine;
use backend::{BackendError, DeltaNetSpec, State, StateSpaceSpec, View};

/// ln(1 + e^x), which is x where e^x has no room beside it.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// The spans of a state: what was before and what comes after, `len` values each.
fn states(
    op: &'static str,
    buffers: &Buffers,
    state: &State,
    len: usize,
) -> Result<(Option<Span>, Span), BackendError> {
    let before = state.input.map(|view| buffers.span(op, view, len)).transpose()?;
    let after = buffers.span_mut(op, state.output, len)?;
    if before.is_some_and(|before| after.overlaps(before)) {
        return Err(invalid(op, "the new state overlaps the old"));
    }
    Ok((before, after))
}

/// The part of the new state that belongs to a head, set to what it was before.
///
/// # Safety
/// Nothing else may use these values of the new state.
unsafe fn begin<'a>(before: Option<Span>, after: Span, start: usize, len: usize) -> &'a mut [f32] {
    // SAFETY: the caller has these values for itself; the old state is not written.
    let (new, old) = unsafe { (after.write(start, len), before.map(|before| before.read(start, len))) };
    match old {
        Some(old) => new.copy_from_slice(old),
        None => new.fill(0.0),
    }
    new
}

/// Inputs of [`delta_net`]: names as in [`backend::Op::DeltaNet`].
pub(crate) struct DeltaNetInputs {
    pub qkv: View,
    pub alpha: View,
    pub beta: View,
    pub dt_bias: View,
    pub a: View,
}

pub(crate) fn delta_net(
    machine: &Machine,
    buffers: &Buffers,
    spec: &DeltaNetSpec,
    inputs: &DeltaNetInputs,
    state: &State,
    out: View,
    n: usize,
) -> Result<(), BackendError> {
    const OP: &str = "DeltaNet";
    let (heads_k, heads_v, dim) = (spec.heads_k, spec.heads_v, spec.head_dim);
    if heads_k == 0 || heads_v % heads_k != 0 {
        return Err(invalid(OP, format!("{heads_v} value heads cannot share {heads_k} key heads")));
    }
    let (keys, values) = (product(OP, &[heads_k, dim])?, product(OP, &[heads_v, dim])?);
    let width = product(OP, &[2, keys])?.checked_add(values).ok_or_else(|| invalid(OP, "sizes overflow"))?;
    let qkv = buffers.span(OP, inputs.qkv, product(OP, &[n, width])?)?;
    let per_head = product(OP, &[n, heads_v])?;
    let (alpha, beta) = (buffers.span(OP, inputs.alpha, per_head)?, buffers.span(OP, inputs.beta, per_head)?);
    let (dt_bias, a) = (buffers.span(OP, inputs.dt_bias, heads_v)?, buffers.span(OP, inputs.a, heads_v)?);
    let head_state = product(OP, &[dim, dim])?;
    let (before, after) = states(OP, buffers, state, product(OP, &[heads_v, head_state])?)?;
    let out = buffers.span_mut(OP, out, product(OP, &[n, values])?)?;
    if [qkv, alpha, beta].iter().any(|input| out.overlaps(*input) || after.overlaps(*input)) {
        return Err(invalid(OP, "a result overlaps an input"));
    }
    machine.run(OP, heads_v, &|worker, head| {
        let mut scratch = machine.scratch.worker(worker);
        let buffer = &mut scratch.floats;
        buffer.resize(3 * dim, 0.0);
        let (q, rest) = buffer.split_at_mut(dim);
        let (k, delta) = rest.split_at_mut(dim);
        let head_k = if spec.tiled { head % heads_k } else { head / (heads_v / heads_k) };
        // SAFETY: inputs are not written; this chunk alone has the state and the results of its head.
        unsafe {
            let state = begin(before, after, head * head_state, head_state);
            let (dt_bias, a) = (dt_bias.read(head, 1)[0], a.read(head, 1)[0]);
            for token in 0..n {
                let row = |start: usize| qkv.read(token * width + start, dim);
                unit(row(head_k * dim), spec.eps, q);
                unit(row(keys + head_k * dim), spec.eps, k);
                let decay = (a * softplus(alpha.read(token * heads_v + head, 1)[0] + dt_bias)).exp();
                let beta = 1.0 / (1.0 + (-beta.read(token * heads_v + head, 1)[0]).exp());
                delta.fill(0.0);
                for (row, k) in state.chunks_exact_mut(dim).zip(k.iter()) {
                    row.iter_mut().for_each(|value| *value *= decay);
                    machine.simd.axpy(*k, row, delta);
                }
                let value = row(2 * keys + head * dim);
                delta.iter_mut().zip(value).for_each(|(delta, value)| *delta = (value - *delta) * beta);
                let out = out.write(token * values + head * dim, dim);
                out.fill(0.0);
                let scale = 1.0 / (dim as f32).sqrt();
                for (row, (k, q)) in state.chunks_exact_mut(dim).zip(k.iter().zip(q.iter())) {
                    machine.simd.axpy(*k, delta, row);
                    machine.simd.axpy(*q * scale, row, out);
                }
            }
        }
    })
}

/// `x` divided by its length (or by `eps` if that is more).
fn unit(x: &[f32], eps: f32, out: &mut [f32]) {
    let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let factor = 1.0 / (squares.sqrt() as f32).max(eps);
    out.iter_mut().zip(x).for_each(|(out, x)| *out = x * factor);
}

/// Inputs of [`state_space`]: names as in [`backend::Op::StateSpace`].
pub(crate) struct StateSpaceInputs {
    pub xbc: View,
    pub dt: View,
    pub dt_bias: View,
    pub a: View,
    pub skip: View,
}

pub(crate) fn state_space(
    machine: &Machine,
    buffers: &Buffers,
    spec: &StateSpaceSpec,
    inputs: &StateSpaceInputs,
    state: &State,
    out: View,
    n: usize,
) -> Result<(), BackendError> {
    const OP: &str = "StateSpace";
    let (heads, dim, size, groups) = (spec.heads, spec.head_dim, spec.state_size, spec.groups);
    if groups == 0 || heads % groups != 0 {
        return Err(invalid(OP, format!("{heads} heads cannot share {groups} groups")));
    }
    let (values, shared) = (product(OP, &[heads, dim])?, product(OP, &[groups, size])?);
    let width = product(OP, &[2, shared])?.checked_add(values).ok_or_else(|| invalid(OP, "sizes overflow"))?;
    let xbc = buffers.span(OP, inputs.xbc, product(OP, &[n, width])?)?;
    let dt = buffers.span(OP, inputs.dt, product(OP, &[n, heads])?)?;
    let of_head = |view: View| buffers.span(OP, view, heads);
    let (dt_bias, a, skip) = (of_head(inputs.dt_bias)?, of_head(inputs.a)?, of_head(inputs.skip)?);
    let head_state = product(OP, &[dim, size])?;
    let (before, after) = states(OP, buffers, state, product(OP, &[heads, head_state])?)?;
    let out = buffers.span_mut(OP, out, product(OP, &[n, values])?)?;
    if [xbc, dt].iter().any(|input| out.overlaps(*input) || after.overlaps(*input)) {
        return Err(invalid(OP, "a result overlaps an input"));
    }
    machine.run(OP, heads, &|_, head| {
        let group = head / (heads / groups);
        // SAFETY: inputs are not written; this chunk alone has the state and the results of its head.
        unsafe {
            let state = begin(before, after, head * head_state, head_state);
            let (dt_bias, a, skip) = (dt_bias.read(head, 1)[0], a.read(head, 1)[0], skip.read(head, 1)[0]);
            for token in 0..n {
                let x = xbc.read(token * width + head * dim, dim);
                let b = xbc.read(token * width + values + group * size, size);
                let c = xbc.read(token * width + values + shared + group * size, size);
                let step = softplus(dt.read(token * heads + head, 1)[0] + dt_bias);
                let decay = (a * step).exp();
                let out = out.write(token * values + head * dim, dim);
                for ((row, x), out) in state.chunks_exact_mut(size).zip(x).zip(out) {
                    row.iter_mut().for_each(|value| *value *= decay);
                    machine.simd.axpy(step * x, b, row);
                    *out = machine.simd.dot(row, c) + skip * x;
                }
            }
        }
    })
}
