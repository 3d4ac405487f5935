//! RMS and layer normalisation.

use super::{product, reused};
use crate::buffers::Buffers;
use crate::cpu::Machine;
use backend::{BackendError, NormKind, View};

const OP: &str = "Norm";

pub(crate) fn norm(
    machine: &Machine,
    buffers: &Buffers,
    kind: NormKind,
    [input, out]: [View; 2],
    rows: usize,
    dim: usize,
    eps: f32,
    weight: Option<View>,
    bias: Option<View>,
) -> Result<(), BackendError> {
    let len = product(OP, &[rows, dim])?;
    let (input, out) = (buffers.span(OP, input, len)?, buffers.span_mut(OP, out, len)?);
    let weight = weight.map(|weight| buffers.span(OP, weight, dim)).transpose()?;
    let bias = bias.map(|bias| buffers.span(OP, bias, dim)).transpose()?;
    // Heads are short: several to a chunk.
    let per_chunk = (4096 / dim.max(1)).max(1);
    machine.run(OP, rows.div_ceil(per_chunk), &|worker, chunk| {
        let mut scratch = machine.scratch.worker(worker);
        for row in chunk * per_chunk..rows.min((chunk + 1) * per_chunk) {
            let values = reused(&mut scratch.floats, dim);
            // SAFETY: rows are disjoint; the input is copied before the result, which may be the input, is borrowed.
            // Weights and biases are not written.
            let (out, weight, bias) = unsafe {
                values.copy_from_slice(input.read(row * dim, dim));
                let read = |span: crate::buffers::Span| span.read(0, dim);
                (out.write(row * dim, dim), weight.map(read), bias.map(read))
            };
            let mean = match kind {
                NormKind::Rms => 0.0,
                NormKind::Layer => values.iter().map(|x| f64::from(*x)).sum::<f64>() / dim as f64,
            };
            // In f64: it decides the scale of everything that follows.
            let variance = machine.simd.squares(values, mean) / dim as f64;
            let factor = (1.0 / (variance + f64::from(eps)).sqrt()) as f32;
            machine.simd.normalize(values, [mean as f32, factor], weight, bias, out);
        }
    })
}
