//! Rotary position embeddings. What depends on the spec alone is computed here once, in f64, as the CPU device does.

use super::{Run, int, invalid, per_value, product};
use crate::arguments::{RopeArgs, optional};
use crate::{Address, Driver};
use backend::{BackendError, RopePairs, RopeSpec, View};
use std::f64::consts::PI;

const OP: &str = "Rope";

/// Which share of the extrapolated angle pair `i` takes (YaRN, arXiv 2309.00071, eq. 21-23): 1 for fast pairs, 0 for slow.
fn ramp(spec: &RopeSpec, i: usize) -> f64 {
    let dims = spec.dims as f64;
    let correction = |beta: f32| {
        let turns = f64::from(spec.original_context) / (f64::from(beta) * 2.0 * PI);
        dims * turns.ln() / (2.0 * f64::from(spec.freq_base).ln())
    };
    let low = correction(spec.beta_fast).floor().max(0.0);
    let high = correction(spec.beta_slow).ceil().min(dims - 1.0);
    1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
}

/// Half turns per position of every pair, before frequency factors.
fn turns(spec: &RopeSpec) -> Vec<f64> {
    let scale = f64::from(spec.freq_scale);
    let turns = (0..spec.dims / 2).map(|i| {
        let extrapolated = f64::from(spec.freq_base).powf(-2.0 * i as f64 / spec.dims as f64) / PI;
        if spec.ext_factor == 0.0 {
            return extrapolated * scale;
        }
        let mix = ramp(spec, i) * f64::from(spec.ext_factor);
        extrapolated * (scale * (1.0 - mix) + mix)
    });
    turns.collect()
}

fn magnitude(spec: &RopeSpec) -> f32 {
    let grown = if spec.ext_factor == 0.0 { 1.0 } else { 1.0 + 0.1 * (1.0 / f64::from(spec.freq_scale)).ln() };
    (f64::from(spec.attn_factor) * grown) as f32
}

/// The table of a spec on the GPU.
fn table<D: Driver>(run: &mut Run<'_, D>, spec: &RopeSpec) -> Result<Address, BackendError> {
    if let Some((_, address)) = run.scratch.turns.iter().find(|(known, _)| known == spec) {
        return Ok(*address);
    }
    let address = run.gpu.table(bytemuck::cast_slice(&turns(spec)))?;
    run.scratch.turns.push((*spec, address));
    Ok(address)
}

pub(crate) fn rope<D: Driver>(
    run: &mut Run<'_, D>,
    x: View,
    [n, heads, head_dim]: [usize; 3],
    spec: &RopeSpec,
    positions: View,
    factors: Option<View>,
) -> Result<(), BackendError> {
    if spec.dims > head_dim || spec.dims % 2 != 0 {
        return Err(invalid(OP, format!("{} of {head_dim} values cannot turn", spec.dims)));
    }
    let half = spec.dims / 2;
    let values = product(OP, &[n, heads, half])?;
    let x = run.buffers.span_mut(OP, x, product(OP, &[n, heads, head_dim])?)?;
    let positions = run.buffers.span(OP, positions, n)?;
    let factors = run.buffers.optional(OP, factors, half)?;
    if values == 0 {
        return Ok(());
    }
    let arguments = RopeArgs {
        x: x.address,
        positions: positions.address,
        factors: optional(factors),
        turns: table(run, spec)?,
        n: int(OP, n)?,
        heads: int(OP, heads)?,
        head_dim: int(OP, head_dim)?,
        half: int(OP, half)?,
        adjacent: i32::from(spec.pairs == RopePairs::Adjacent),
        magnitude: magnitude(spec),
    };
    let geometry = per_value(OP, values)?;
    // SAFETY: all operands have just been checked to have these sizes; the table has `half` values.
    unsafe { run.launch("rope", "rope", geometry, &arguments) }
}
