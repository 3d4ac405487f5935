//! Rotary position embeddings. What depends on the spec alone is computed here once, in f64, as the CPU device does.

use super::{Run, int, per_value, product};
use crate::arguments::{RopeArgs, optional};
use crate::{Address, Driver};
use backend::{BackendError, RopePairs, RopeSpec, View};
use std::f64::consts::PI;

const OP: &str = "Rope";

/// Half turns per position of every pair, before frequency factors.
fn turns(spec: &RopeSpec) -> Vec<f64> {
    let scale = f64::from(spec.freq_scale);
    let turns = (0..spec.dims / 2).map(|i| {
        let extrapolated = f64::from(spec.freq_base).powf(-2.0 * i as f64 / spec.dims as f64) / PI;
        if spec.ext_factor == 0.0 {
            return extrapolated * scale;
        }
        let mix = spec.ramp(i) * f64::from(spec.ext_factor);
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
    spec.check(OP, head_dim)?;
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
