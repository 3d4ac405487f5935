//! A smaller model that guesses for another one is planned with it: what it takes is not there for the other.

use crate::plan::plan_at;
use crate::room::Room;
use crate::{Facts, GpuLayers, Plan, Reason, ReasonCode, Wishes};
use model::{Layout, LayoutParams, Model, ModelError, Parts, Place, Placement};
use quant::GgmlType;

/// Where a draft model runs, and what it takes there.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// All of its layers or none: a part of it would be as slow as the slower device.
    pub gpu_layers: u32,
    /// The accelerator they are on.
    pub on: Option<usize>,
    pub host: Parts,
    pub accelerator: Parts,
    /// Scratch memory and what buffers take beyond their size.
    pub accelerator_other: u64,
    /// What the engine will allocate.
    pub layout: Layout,
}

impl Draft {
    /// On an accelerator, or on the host. `None`: the accelerator cannot compute all of it or has no room.
    fn new(
        model: &Model,
        facts: &Facts,
        (context, ubatch): (u32, u32),
        on: Option<usize>,
    ) -> Result<Option<Draft>, ModelError> {
        let params = LayoutParams {
            context,
            ubatch,
            // It is small; and a type that its heads do not allow must not forbid it.
            kv_type_k: GgmlType::F16,
            kv_type_v: GgmlType::F16,
            logits_rows: 1,
        };
        let layout = Layout::new(model, params)?;
        let room = match on.map(|number| facts.accelerators.get(number)) {
            Some(Some(accelerator)) => Some(Room::new(model, accelerator, &layout)),
            Some(None) => return Ok(None),
            None => None,
        };
        // Of its own accelerators it is the only one.
        let (all, place) = (Placement::new(usize::MAX, layout.block_count()), Place::Accelerator(0));
        let parts = layout.placed(&all).accelerator(0);
        if room.as_ref().is_some_and(|room| !room.holds(&all, place, parts, room.free)) {
            return Ok(None);
        }
        let gpu_layers = if room.is_some() { all.gpu_layers() } else { 0 };
        let totals = layout.totals(gpu_layers);
        Ok(Some(Draft {
            gpu_layers: gpu_layers as u32,
            on,
            host: totals.host,
            accelerator: totals.accelerator(0),
            // What a driver takes for a process is counted with the model that is guessed for.
            accelerator_other: room.map_or(0, |room| room.other(&all, place).saturating_sub(room.overhead)),
            layout,
        }))
    }

    /// What is left of the machine.
    fn rest(&self, facts: &Facts) -> Facts {
        let mut rest = facts.clone();
        rest.ram_available = rest.ram_available.saturating_sub(self.host.total());
        if let Some(accelerator) = self.on.and_then(|number| rest.accelerators.get_mut(number)) {
            let taken = self.accelerator.total() + self.accelerator_other;
            accelerator.memory_free = accelerator.memory_free.saturating_sub(taken);
        }
        rest
    }
}

/// [`crate::plan`] for a model and one that guesses for it, if there is one. The draft model is on the first accelerator that
/// holds all of it and layers of the model besides, where the model still has as many of those as are asked for. Else it is
/// on the host.
///
/// # Errors
/// As [`plan`], for either.
pub fn plan_with_draft(
    model: &Model,
    draft: Option<&Model>,
    facts: &Facts,
    wishes: &Wishes,
) -> Result<Plan, ModelError> {
    both(model, draft, facts, wishes, None)
}

/// The same for a model whose layers are where they are.
///
/// # Errors
/// As [`crate::plan`], for either.
pub fn plan_placed(
    model: &Model,
    draft: Option<&Model>,
    facts: &Facts,
    wishes: &Wishes,
    placement: &Placement,
) -> Result<Plan, ModelError> {
    both(model, draft, facts, wishes, Some(placement))
}

fn both(
    model: &Model,
    draft: Option<&Model>,
    facts: &Facts,
    wishes: &Wishes,
    at: Option<&Placement>,
) -> Result<Plan, ModelError> {
    let alone = plan_at(model, facts, wishes, at)?;
    let Some(draft) = draft else { return Ok(alone) };
    let wanted = match wishes.gpu_layers {
        GpuLayers::Auto => 1,
        GpuLayers::Fixed(layers) => layers.min(alone.max_gpu_layers),
    };
    let accelerators = (0..facts.accelerators.len()).filter(|_| wanted > 0).map(Some);
    for on in accelerators.chain([None]) {
        let of = |plan: &Plan| Draft::new(draft, facts, (plan.context, plan.layout.params.ubatch), on);
        let Some(found) = of(&alone)? else { continue };
        let mut plan = plan_at(model, &found.rest(facts), wishes, at)?;
        let beside = on.is_none_or(|number| plan.shares.get(number).is_some_and(|share| share.layers > 0));
        if !beside || (on.is_some() && plan.max_gpu_layers < wanted) {
            continue;
        }
        // With less room, the plan may have chosen a shorter context.
        let found = of(&plan)?.unwrap_or(found);
        let bytes = found.host.total() + found.accelerator.total() + found.accelerator_other;
        let place = if found.gpu_layers > 0 { "video memory" } else { "RAM" };
        plan.reasons.push(Reason {
            code: ReasonCode::DraftModel,
            text: format!("The draft model is in {place}; what it takes is counted."),
            needed: Some(bytes),
            available: None,
        });
        plan.draft = Some(found);
        return Ok(plan);
    }
    // Not reached: on the host there is always a layout.
    Ok(alone)
}
