//! Mixtures of experts: the choice and the weighted sum.

use super::{Run, SHARED, apart, int, invalid, per_value, product};
use crate::Driver;
use crate::arguments::{CombineArgs, RouteArgs, optional};
use backend::{BackendError, Gating, Router, View};

/// Shared memory for a choice among so many experts: four lists of f32 and two of flags.
pub(super) fn room(experts: usize) -> Option<usize> {
    experts.checked_mul(4 * 4 + 2).filter(|bytes| *bytes <= SHARED)
}

pub(crate) fn route<D: Driver>(
    run: &mut Run<'_, D>,
    router: &Router,
    logits: View,
    n: usize,
    bias: Option<View>,
    [ids, weights]: [View; 2],
) -> Result<(), BackendError> {
    const OP: &str = "Route";
    let (experts, used) = (router.experts, router.used);
    router.check(OP)?;
    let logits = run.buffers.span(OP, logits, product(OP, &[n, experts])?)?;
    let bias = run.buffers.optional(OP, bias, experts)?;
    let chosen = product(OP, &[n, used])?;
    let (ids, weights) = (run.buffers.span_mut(OP, ids, chosen)?, run.buffers.span_mut(OP, weights, chosen)?);
    apart(OP, ids, &[logits, weights])?;
    apart(OP, weights, &[logits])?;
    if chosen == 0 {
        return Ok(());
    }
    let arguments = RouteArgs {
        logits: logits.address,
        bias: optional(bias),
        ids: ids.address,
        weights: weights.address,
        n: int(OP, n)?,
        experts: int(OP, experts)?,
        used: int(OP, used)?,
        gating: match router.gating {
            Gating::Softmax => 0,
            Gating::SoftmaxOfChosen => 1,
            Gating::Sigmoid => 2,
        },
        normalize: i32::from(router.normalize),
        groups: int(OP, router.groups)?,
        groups_used: int(OP, router.groups_used)?,
        scale: router.scale,
    };
    let shared = room(experts).ok_or_else(|| invalid(OP, format!("{experts} experts are too many")))?;
    let grid = [int(OP, n)? as u32, 1, 1];
    // SAFETY: all operands have just been checked to have these sizes.
    unsafe { run.launch("experts", "route", (grid, 32, shared as u32), &arguments) }
}

pub(crate) fn combine<D: Driver>(
    run: &mut Run<'_, D>,
    [input, weights, out]: [View; 3],
    n: usize,
    used: usize,
    dim: usize,
) -> Result<(), BackendError> {
    const OP: &str = "Combine";
    let (slots, values) = (product(OP, &[n, used])?, product(OP, &[n, dim])?);
    let input = run.buffers.span(OP, input, product(OP, &[slots, dim])?)?;
    let weights = run.buffers.span(OP, weights, slots)?;
    let out = run.buffers.span_mut(OP, out, values)?;
    apart(OP, out, &[input, weights])?;
    let arguments = CombineArgs {
        input: input.address,
        weights: weights.address,
        out: out.address,
        n: int(OP, n)?,
        used: int(OP, used)?,
        dim: int(OP, dim)?,
        unused: 0,
    };
    let geometry = per_value(OP, values)?;
    // SAFETY: all operands have just been checked to have these sizes.
    unsafe { run.launch("experts", "combine", geometry, &arguments) }
}
