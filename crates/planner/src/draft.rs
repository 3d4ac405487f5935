//! A smaller model that guesses for another one is planned with it: what it takes is not there for the other.

use crate::room::Room;
use crate::{AcceleratorFacts, Facts, GpuLayers, Plan, Reason, ReasonCode, Wishes, plan};
use model::{Layout, LayoutParams, Model, ModelError, Parts, Placement};
use quant::GgmlType;

/// Where a draft model runs, and what it takes there.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// All of its layers or none: a part of it would be as slow as the slower device.
    pub gpu_layers: u32,
    pub host: Parts,
    pub accelerator: Parts,
    /// Scratch memory and what buffers take beyond their size.
    pub accelerator_other: u64,
    /// What the engine will allocate.
    pub layout: Layout,
}

impl Draft {
    /// `None`: the accelerator cannot compute all of it or has no room.
    fn new(
        model: &Model,
        facts: &Facts,
        (context, ubatch): (u32, u32),
        on_accelerator: bool,
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
        let room = Room::new(model, facts, &layout).filter(|_| on_accelerator);
        let all = Placement::new(usize::MAX, layout.block_count());
        if on_accelerator && !room.as_ref().is_some_and(|room| room.holds(&layout, all)) {
            return Ok(None);
        }
        let gpu_layers = if on_accelerator { all.gpu_layers } else { 0 };
        let totals = layout.totals(gpu_layers);
        Ok(Some(Draft {
            gpu_layers: gpu_layers as u32,
            host: totals.host,
            accelerator: totals.accelerator,
            // What a driver takes for a process is counted with the model that is guessed for.
            accelerator_other: room.map_or(0, |room| room.other(all).saturating_sub(room.overhead)),
            layout,
        }))
    }

    /// What is left of the machine.
    fn rest(&self, facts: &Facts) -> Facts {
        let taken = self.accelerator.total() + self.accelerator_other;
        Facts {
            ram_available: facts.ram_available.saturating_sub(self.host.total()),
            accelerator: facts.accelerator.as_ref().map(|accelerator| AcceleratorFacts {
                memory_free: accelerator.memory_free.saturating_sub(taken),
                ..accelerator.clone()
            }),
            ..facts.clone()
        }
    }
}

/// [`plan`] for a model and one that guesses for it, if there is one. The draft model is on the accelerator if that holds
/// all of it and layers of the model besides; as many of those as are asked for. Else it is on the host.
///
/// # Errors
/// As [`plan`], for either.
pub fn plan_with_draft(
    model: &Model,
    draft: Option<&Model>,
    facts: &Facts,
    wishes: &Wishes,
) -> Result<Plan, ModelError> {
    let alone = plan(model, facts, wishes)?;
    let Some(draft) = draft else { return Ok(alone) };
    let wanted = match wishes.gpu_layers {
        GpuLayers::Auto => 1,
        GpuLayers::Fixed(layers) => layers.min(alone.max_gpu_layers),
    };
    for on_accelerator in [true, false] {
        let of = |plan: &Plan| {
            Draft::new(draft, facts, (plan.context, plan.layout.params.ubatch), on_accelerator && wanted > 0)
        };
        let Some(found) = of(&alone)? else { continue };
        let mut plan = plan(model, &found.rest(facts), wishes)?;
        if on_accelerator && plan.max_gpu_layers < wanted {
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
