//! Short causal convolutions over time.

use super::{elementwise, invalid, product};
use crate::buffers::{Buffers, Span};
use crate::cpu::Machine;
use backend::{BackendError, ConvSpec, State, View};

const OP: &str = "Conv";
/// Channels that a chunk of work has.
const CHANNELS: usize = 256;

pub(crate) fn conv(
    machine: &Machine,
    buffers: &Buffers,
    spec: &ConvSpec,
    [input, weight, out]: [View; 3],
    bias: Option<View>,
    state: &State,
    n: usize,
) -> Result<(), BackendError> {
    let (channels, kernel) = (spec.channels, spec.kernel);
    if kernel == 0 {
        return Err(invalid(OP, "a kernel of no rows"));
    }
    let (len, kept) = (product(OP, &[n, channels])?, kernel - 1);
    let (input, out) = (buffers.span(OP, input, len)?, buffers.span_mut(OP, out, len)?);
    let weight = buffers.span(OP, weight, product(OP, &[channels, kernel])?)?;
    let bias = bias.map(|bias| buffers.span(OP, bias, channels)).transpose()?;
    let state_len = product(OP, &[kept, channels])?;
    let before = state.input.map(|view| buffers.span(OP, view, state_len)).transpose()?;
    let after = buffers.span_mut(OP, state.output, state_len)?;
    if out.overlaps(input) || after.overlaps(input) || before.is_some_and(|before| after.overlaps(before)) {
        return Err(invalid(OP, "a result overlaps an input"));
    }
    machine.run(OP, channels.div_ceil(CHANNELS), &|_, chunk| {
        let range = chunk * CHANNELS..channels.min((chunk + 1) * CHANNELS);
        let (first, count) = (range.start, range.len());
        // SAFETY: weights, biases and inputs are not written, and chunks write disjoint channels.
        let weights = unsafe { weight.read(first * kernel, count * kernel) };
        // SAFETY: as above.
        let read = |span: Span, t: usize| unsafe { span.read(t * channels + first, count) };
        // Row `t` of the state followed by the input.
        let row = |t: usize| match t.checked_sub(kept) {
            Some(t) => Some(read(input, t)),
            None => before.map(|before| read(before, t)),
        };
        for t in 0..n {
            // SAFETY: as above.
            let out = unsafe { out.write(t * channels + first, count) };
            match bias {
                // SAFETY: as above.
                Some(bias) => out.copy_from_slice(unsafe { bias.read(first, count) }),
                None => out.fill(0.0),
            }
            for j in 0..kernel {
                let Some(values) = row(t + j) else { continue };
                for (c, (out, value)) in out.iter_mut().zip(values).enumerate() {
                    *out += weights[c * kernel + j] * value;
                }
            }
            if let Some(act) = spec.act {
                out.iter_mut().for_each(|value| *value = elementwise::apply(act, *value));
            }
        }
        for j in 0..kept {
            // SAFETY: as above; the new state does not overlap what it is made from.
            let kept_row = unsafe { after.write(j * channels + first, count) };
            match row(n + j) {
                Some(values) => kept_row.copy_from_slice(values),
                None => kept_row.fill(0.0),
            }
        }
    })
}
