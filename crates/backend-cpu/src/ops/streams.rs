//! What a stream of several parts needs (AltUp), and sparse gates.

use super::{invalid, product, strided};
use crate::buffers::Buffers;
use crate::cpu::Machine;
use backend::{BackendError, Mix, View};

pub(crate) fn mix(
    machine: &Machine,
    buffers: &Buffers,
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
    let input = buffers.span(OP, input, product(OP, &[n, inputs, dim])?)?;
    let out = buffers.span_mut(OP, out, strided(OP, n, out_stride, product(OP, &[outputs, dim])?)?)?;
    let weights = weights.map(|weights| buffers.span(OP, weights, product(OP, &[n, outputs, inputs])?)).transpose()?;
    if out.overlaps(input) || weights.is_some_and(|weights| out.overlaps(weights)) {
        return Err(invalid(OP, "the result overlaps an input"));
    }
    machine.run(OP, n, &|_, token| {
        for output in 0..outputs {
            // SAFETY: results of tokens are disjoint, because their stride is at least their length (`strided`); inputs
            // and weights do not overlap them.
            let out = unsafe { out.write(token * out_stride + output * dim, dim) };
            for index in 0..inputs {
                // SAFETY: as above.
                let (weight, input) = unsafe {
                    let weight = weights.map_or(0.0, |w| w.read((token * outputs + output) * inputs + index, 1)[0]);
                    (weight, input.read((token * inputs + index) * dim, dim))
                };
                machine.simd.axpy(weight + offset, input, out);
            }
        }
    })
}

pub(crate) fn match_length(
    machine: &Machine,
    buffers: &Buffers,
    [x, like]: [View; 2],
    like_stride: usize,
    rows: usize,
    dim: usize,
) -> Result<(), BackendError> {
    const OP: &str = "MatchLength";
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let x = buffers.span_mut(OP, x, product(OP, &[rows, dim])?)?;
    let like = buffers.span(OP, like, strided(OP, rows, like_stride, dim)?)?;
    if x.overlaps(like) {
        return Err(invalid(OP, "the operands overlap"));
    }
    machine.run(OP, rows, &|_, row| {
        // SAFETY: rows are disjoint; the operands do not overlap.
        let (values, like) = unsafe { (x.write(row * dim, dim), like.read(row * like_stride, dim)) };
        let squares = |values: &[f32]| values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
        let (own, target) = (squares(values), squares(like));
        let factor = if own == 0.0 { 0.0 } else { (target / own).sqrt() as f32 };
        values.iter_mut().for_each(|value| *value *= factor);
    })
}

pub(crate) fn sparsify(
    machine: &Machine,
    buffers: &Buffers,
    x: View,
    rows: usize,
    dim: usize,
    deviations: f32,
) -> Result<(), BackendError> {
    const OP: &str = "Sparsify";
    let x = buffers.span_mut(OP, x, product(OP, &[rows, dim])?)?;
    machine.run(OP, rows, &|_, row| {
        // SAFETY: rows are disjoint.
        let values = unsafe { x.write(row * dim, dim) };
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / dim as f64;
        let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
        let deviation = (squares / (dim as f64 - 1.0).max(1.0)).sqrt();
        let cut = (mean + f64::from(deviations) * deviation) as f32;
        // max would swallow NaN.
        values.iter_mut().for_each(|x| *x = if *x <= cut { 0.0 } else { *x - cut });
    })
}
