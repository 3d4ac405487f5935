//! Operations on values one by one.

use super::{invalid, product, reused, strided};
use crate::buffers::{Buffers, Span};
use crate::cpu::Machine;
use backend::{Activation, BackendError, View};

/// Values that a chunk has.
const CHUNK: usize = 1 << 14;

/// Overlapping operands must be the very same values: then each is read before it is written.
fn same_or_apart(op: &'static str, a: Span, out: Span) -> Result<(), BackendError> {
    // SAFETY: empty slices are read; only their addresses are compared.
    let (x, y) = unsafe { (a.read(0, 0).as_ptr(), out.read(0, 0).as_ptr()) };
    if a.overlaps(out) && x != y { Err(invalid(op, "operands overlap")) } else { Ok(()) }
}

pub(crate) fn zip(
    machine: &Machine,
    buffers: &Buffers,
    op: &'static str,
    [a, b, out]: [View; 3],
    len: usize,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<(), BackendError> {
    let (a, b, out) = (buffers.span(op, a, len)?, buffers.span(op, b, len)?, buffers.span_mut(op, out, len)?);
    same_or_apart(op, a, out)?;
    same_or_apart(op, b, out)?;
    machine.run(op, len.div_ceil(CHUNK), &|_, chunk| {
        let (start, count) = (chunk * CHUNK, CHUNK.min(len - chunk * CHUNK));
        let mut x = [0f32; 64];
        for at in (start..start + count).step_by(64) {
            let n = 64.min(start + count - at);
            // SAFETY: chunks are disjoint; the inputs of these values are read before the output, which may be one of
            // them, is borrowed.
            unsafe {
                for (x, (a, b)) in x.iter_mut().zip(a.read(at, n).iter().zip(b.read(at, n))) {
                    *x = f(*a, *b);
                }
                out.write(at, n).copy_from_slice(&x[..n]);
            }
        }
    })
}

/// Changes values in place, some at a time.
pub(crate) fn map(
    machine: &Machine,
    buffers: &Buffers,
    op: &'static str,
    x: View,
    len: usize,
    f: &(dyn Fn(&mut [f32]) + Sync),
) -> Result<(), BackendError> {
    let x = buffers.span_mut(op, x, len)?;
    machine.run(op, len.div_ceil(CHUNK), &|_, chunk| {
        // SAFETY: chunks are disjoint.
        f(unsafe { x.write(chunk * CHUNK, CHUNK.min(len - chunk * CHUNK)) });
    })
}

pub(crate) fn apply(act: Activation, x: f32) -> f32 {
    match act {
        Activation::Silu => x / (1.0 + crate::simd::exp(-x)),
        Activation::GeluTanh => super::gelu::gelu(x),
        Activation::Relu2 => x.max(0.0) * x.max(0.0),
        Activation::Sigmoid => 1.0 / (1.0 + crate::simd::exp(-x)),
        // Only as a gate.
        Activation::ClampedSwiglu { alpha, limit } => x.min(limit) / (1.0 + crate::simd::exp(-alpha * x.min(limit))),
    }
}

pub(crate) fn activate(
    machine: &Machine,
    buffers: &Buffers,
    act: Activation,
    x: View,
    len: usize,
) -> Result<(), BackendError> {
    map(machine, buffers, "Activate", x, len, &|x| x.iter_mut().for_each(|x| *x = apply(act, *x)))
}

pub(crate) fn glu(
    machine: &Machine,
    buffers: &Buffers,
    act: Activation,
    [gate, up, out]: [View; 3],
    rows: usize,
    dim: usize,
    stride: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Glu";
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let strided = strided(OP, rows, stride, dim)?;
    let (gate, up) = (buffers.span(OP, gate, strided)?, buffers.span(OP, up, strided)?);
    let out = buffers.span_mut(OP, out, product(OP, &[rows, dim])?)?;
    if stride == dim {
        same_or_apart(OP, gate, out)?;
    } else if gate.overlaps(out) {
        return Err(invalid(OP, "the result overlaps a strided input"));
    }
    if up.overlaps(out) {
        return Err(invalid(OP, "the result overlaps up"));
    }
    machine.run(OP, rows, &|worker, row| {
        let mut scratch = machine.scratch.worker(worker);
        let values = reused(&mut scratch.floats, dim);
        // SAFETY: rows are disjoint; the gate is copied before the result, which may be the gate, is borrowed.
        unsafe {
            values.copy_from_slice(gate.read(row * stride, dim));
            let up = up.read(row * stride, dim);
            match act {
                Activation::Silu => machine.simd.swiglu(values, up),
                Activation::ClampedSwiglu { limit, .. } => {
                    for (x, up) in values.iter_mut().zip(up) {
                        *x = apply(act, *x) * (up.clamp(-limit, limit) + 1.0);
                    }
                }
                _ => values.iter_mut().zip(up).for_each(|(x, up)| *x = apply(act, *x) * up),
            }
            out.write(row * dim, dim).copy_from_slice(values);
        }
    })
}

pub(crate) fn gather(buffers: &Buffers, input: View, rows: &[u32], dim: usize, out: View) -> Result<(), BackendError> {
    const OP: &str = "Gather";
    let Some(last) = rows.iter().max() else { return Ok(()) };
    let input = buffers.span(OP, input, product(OP, &[*last as usize + 1, dim])?)?;
    let out = buffers.span_mut(OP, out, product(OP, &[rows.len(), dim])?)?;
    if input.overlaps(out) {
        return Err(invalid(OP, "operands overlap"));
    }
    for (index, row) in rows.iter().enumerate() {
        // SAFETY: nothing else runs, and the operands do not overlap.
        unsafe { out.write(index * dim, dim).copy_from_slice(input.read(*row as usize * dim, dim)) };
    }
    Ok(())
}
