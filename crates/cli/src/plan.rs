//! `headroom plan`

use crate::args::Plan;
use crate::failure::Failure;
use crate::{load, output};
use planner::{AcceleratorFacts, Facts, Wishes};
use serde_json::json;

pub fn plan(options: &Plan, as_json: bool) -> Result<(), Failure> {
    let header = load::header(&options.model)?;
    let model = model::describe(&header)?;
    let wishes = Wishes {
        gpu_layers: options.placement.gpu_layers,
        context: options.placement.context,
        kv_type_k: options.placement.kv_type_k,
        kv_type_v: options.placement.kv_type_v,
        ..Wishes::default()
    };
    let machine = hardware::Hardware::probe();
    let facts = Facts {
        ram_available: options.ram.unwrap_or(machine.ram_available),
        accelerator: options.vram.map(|memory_free| AcceleratorFacts { memory_free, ..AcceleratorFacts::default() }),
        ..Facts::default()
    };
    let plan = planner::plan(&model, &facts, &wishes)?;
    let parts = |parts: &model::Parts, other: u64| json!({ "weights": parts.weights, "kv": parts.kv, "compute": parts.compute, "other": other, "total": parts.total() + other });
    let value = json!({
        "gpu_layers": plan.gpu_layers,
        "layers": plan.layers,
        "context": plan.context,
        "fits": plan.fits,
        "ram": parts(&plan.host, plan.host_other),
        "vram": parts(&plan.accelerator, plan.accelerator_other),
        "tg_tps": plan.forecast.map(|forecast| (forecast.generation.low + forecast.generation.high) / 2.0),
        "pp_tps": plan.forecast.and_then(|forecast| forecast.prompt).map(|speed| (speed.low + speed.high) / 2.0),
        "reasons": plan.reasons.iter().map(|reason| reason.text.clone()).collect::<Vec<_>>(),
    });
    if as_json {
        return output::json(&value);
    }
    output::line(&format!("{} of {} layers on the GPU, context {}", plan.gpu_layers, plan.layers, plan.context))?;
    output::line(&format!(
        "RAM  {} (weights {}, KV {}, compute {})",
        output::size(plan.host_total()),
        output::size(plan.host.weights),
        output::size(plan.host.kv),
        output::size(plan.host.compute)
    ))?;
    output::line(&format!("VRAM {}", output::size(plan.accelerator_total())))?;
    for reason in &plan.reasons {
        output::line(&format!("- {}", reason.text))?;
    }
    Ok(())
}
