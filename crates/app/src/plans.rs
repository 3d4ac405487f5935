//! Between the planner's terms and the window's.

use crate::error::Result;
use crate::wire::{self, ErrorCode, Fits, GpuLayers, LoadSettings, MemoryParts, WireError};
use engine::Speculation;
use model::{Model, Parts};
use planner::{Facts, Wishes};

pub fn wishes(settings: &LoadSettings) -> Wishes {
    Wishes {
        gpu_layers: match settings.gpu_layers {
            GpuLayers::Auto => planner::GpuLayers::Auto,
            GpuLayers::Fixed { layers } => planner::GpuLayers::Fixed(layers),
        },
        cpu_moe: settings.cpu_moe,
        context: settings.context,
        kv_type_k: settings.kv_type_k.ggml_type(),
        kv_type_v: settings.kv_type_v.ggml_type(),
        logits_rows: Speculation::LOOKUP.logits_rows(),
        ..Wishes::default()
    }
}

/// The plan as the window shows it, with what a draft model takes. Pure and fast: the slider asks for it while it is
/// dragged.
pub fn plan(model: &Model, draft: Option<&Model>, facts: &Facts, settings: &LoadSettings) -> Result<wire::Plan> {
    Ok(to_wire(&planner::plan_with_draft(model, draft, facts, &wishes(settings))?, facts))
}

pub fn to_wire(plan: &planner::Plan, facts: &Facts) -> wire::Plan {
    let share = |(number, share): (usize, &planner::Share)| {
        let draft = plan.draft.as_ref().filter(|draft| draft.on == Some(number));
        wire::GpuShare {
            name: share.name.clone(),
            layers: share.layers,
            parts: parts(&share.parts, share.other, draft.map(|draft| (&draft.accelerator, draft.accelerator_other))),
            // What the draft model takes is not there for the model.
            available: facts.accelerators.get(number).map_or(0, |gpu| gpu.available()),
        }
    };
    wire::Plan {
        gpu_layers: plan.gpu_layers,
        layers: plan.layers,
        recommended_gpu_layers: plan.recommended_gpu_layers,
        max_gpu_layers: plan.max_gpu_layers,
        cpu_moe: plan.cpu_moe,
        expert_layers: plan.expert_layers,
        experts_apart: plan.experts_apart,
        context: plan.context,
        context_max: plan.context_max,
        fits: match plan.fits {
            planner::Fits::Gpu => Fits::Gpu,
            planner::Fits::Split => Fits::Split,
            planner::Fits::Ram => Fits::Ram,
            planner::Fits::Disk => Fits::Disk,
            planner::Fits::No => Fits::No,
        },
        ram: parts(&plan.host, plan.host_other, plan.draft.as_ref().map(|draft| (&draft.host, 0))),
        vram: parts(
            &plan.on_accelerators(),
            plan.accelerator_other(),
            plan.draft.as_ref().map(|draft| (&draft.accelerator, draft.accelerator_other)),
        ),
        ram_available: facts.ram_available,
        vram_available: facts.accelerators.iter().map(|gpu| gpu.available()).sum(),
        gpus: plan.shares.iter().enumerate().map(share).collect(),
        stream_from: plan.streamed.as_ref().map(|streamed| streamed.from),
        forecast: plan.forecast.map(|forecast| wire::Forecast {
            tg_low: forecast.generation.low,
            tg_high: forecast.generation.high,
            pp_low: forecast.prompt.map(|speed| speed.low),
            pp_high: forecast.prompt.map(|speed| speed.high),
        }),
        reasons: plan
            .reasons
            .iter()
            .map(|reason| wire::Reason {
                code: code(reason.code),
                text: reason.text.clone(),
                needed: reason.needed,
                available: reason.available,
            })
            .collect(),
    }
}

/// Refuses to read a file into memory, or to lock it there, that has no room: the system would swap, or end the program.
pub fn whole_in_ram(plan: &planner::Plan, model: &Model, facts: &Facts, (mmap, mlock): (bool, bool)) -> Result<()> {
    let needed = model.tensor_bytes.saturating_add(plan.host.kv + plan.host.compute + plan.host_other);
    if (mmap && !mlock) || needed <= facts.ram_available {
        return Ok(());
    }
    let flag = if mmap { "--mlock" } else { "--no-mmap" };
    let text = format!(
        "with {flag} the model takes {needed} bytes of RAM; {} are free. Leave {flag} out: what does not fit is then read \
         from disk",
        facts.ram_available
    );
    Err(WireError::new(ErrorCode::RamFull, text).numbers(needed, facts.ram_available))
}

/// With those of a draft model.
fn parts(parts: &Parts, other: u64, draft: Option<(&Parts, u64)>) -> MemoryParts {
    let (draft, draft_other) = draft.map_or((Parts::default(), 0), |(parts, other)| (*parts, other));
    let (weights, kv) = (parts.weights + draft.weights, parts.kv + draft.kv);
    let (compute, other) = (parts.compute + draft.compute, other + draft_other);
    MemoryParts { weights, kv, compute, other, total: weights + kv + compute + other }
}

/// The planner's own name for it, as it serializes.
fn code(code: planner::ReasonCode) -> String {
    serde_json::to_value(code).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stay_in_ram_is_refused_where_there_is_no_room_for_it() {
        let spec = test_models::ModelSpec::llama3_8b(test_models::GgmlType::Q4_K);
        let (header, file_len) = spec.header();
        let model = model::describe(&gguf::Gguf::parse(&header, file_len).unwrap()).unwrap();
        let check = |ram_available, how| {
            let facts = Facts { ram_available, ..Facts::default() };
            let plan = planner::plan(&model, &facts, &Wishes::default()).unwrap();
            whole_in_ram(&plan, &model, &facts, how)
        };
        for how in [(false, false), (true, true), (false, true)] {
            let error = check(4 << 30, how).unwrap_err();
            let flag = if how.0 { "--mlock" } else { "--no-mmap" };
            assert_eq!(error.code, ErrorCode::RamFull);
            assert!(error.message.contains(&format!("Leave {flag} out")), "{}", error.message);
            assert!(error.needed > Some(model.tensor_bytes) && error.available == Some(4 << 30));
            assert!(check(16 << 30, how).is_ok());
        }
        assert!(check(4 << 30, (true, false)).is_ok(), "a mapped file is read from disk");
    }
}
