//! Rotary position embeddings. What depends on the spec alone is computed here once.

use super::{Run, int, per_value, product};
use crate::arguments::{RopeArgs, optional};
use crate::{Address, Driver};
use backend::{BackendError, RopePairs, RopeSpec, View};

const OP: &str = "Rope";

/// The share of the extrapolated angle in every pair's, on the GPU.
fn table<D: Driver>(run: &mut Run<'_, D>, spec: &RopeSpec) -> Result<Address, BackendError> {
    if let Some((_, address)) = run.scratch.mixes.iter().find(|(known, _)| known == spec) {
        return Ok(*address);
    }
    let mixes: Vec<f32> = (0..spec.dims / 2).map(|i| spec.mix(i)).collect();
    let address = run.gpu.table(bytemuck::cast_slice(&mixes))?;
    run.scratch.mixes.push((*spec, address));
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
        mix: table(run, spec)?,
        n: int(OP, n)?,
        heads: int(OP, heads)?,
        head_dim: int(OP, head_dim)?,
        half: int(OP, half)?,
        adjacent: i32::from(spec.pairs == RopePairs::Adjacent),
        step: spec.step(),
        freq_scale: spec.freq_scale,
        magnitude: spec.magnitude(),
    };
    let geometry = per_value(OP, values)?;
    // SAFETY: all operands have just been checked to have these sizes; the table has `half` values.
    unsafe { run.launch("rope", "rope", geometry, &arguments) }
}
