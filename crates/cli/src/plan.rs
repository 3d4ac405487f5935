//! `headroom plan`

use crate::args::Plan;
use crate::failure::Failure;
use crate::program::Program;
use crate::{load, output};
use app::App;
use app::wire::{Fits, GpuShare, MemoryParts};
use model::Model;
use planner::AcceleratorFacts;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

pub fn plan(program: &Program, options: &Plan) -> Result<(), Failure> {
    let app = program.visit(None)?;
    let model = describe(program, &app, &options.model)?;
    let draft = options.draft_model.as_ref().map(|name| describe(program, &app, name)).transpose()?;
    let mut facts = program.wait(app.facts())?;
    if facts.ram_bandwidth.is_none() {
        // Once per machine, a second or two. Where it cannot be measured, the plan says nothing of speed.
        let _ = program.wait(app.hardware_measure());
        facts = program.wait(app.facts())?;
    }
    facts.ram_available = options.ram.unwrap_or(facts.ram_available);
    if !options.vram.is_empty() {
        // As the GPUs that are there are, but for their memory.
        let there = |number: usize| facts.accelerators.get(number).filter(|gpu| gpu.memory_free > 0).cloned();
        let imagined = options.vram.iter().enumerate().map(|(number, memory_free)| AcceleratorFacts {
            memory_free: *memory_free,
            ..there(number).unwrap_or_else(|| app::imagined_gpu(number, *memory_free))
        });
        facts.accelerators = imagined.collect();
    }
    let plan = app::plan(&model, draft.as_deref(), &facts, &options.placement.settings())?;
    let middle = |low: f64, high: f64| (low + high) / 2.0;
    let generation = plan.forecast.map(|forecast| middle(forecast.tg_low, forecast.tg_high));
    let prompt = plan.forecast.and_then(|forecast| Some(middle(forecast.pp_low?, forecast.pp_high?)));
    let fits = match plan.fits {
        Fits::Gpu => "gpu",
        Fits::Split => "split",
        Fits::Ram => "ram",
        Fits::Disk => "disk",
        Fits::No => "no",
    };
    if program.json {
        let mut value = json!({
            "gpu_layers": plan.gpu_layers,
            "layers": plan.layers,
            "context": plan.context,
            "fits": fits,
            "ram": parts(&plan.ram),
            "vram": parts(&plan.vram),
            "gpus": plan.gpus.iter().map(gpu).collect::<Vec<_>>(),
            "tg_tps": generation,
            "pp_tps": prompt,
            "stream_from": plan.stream_from,
            "reasons": plan.reasons.iter().map(|reason| reason.text.clone()).collect::<Vec<_>>(),
        });
        if plan.expert_layers > 0 {
            (value["cpu_moe"], value["experts_in_ram"]) = (plan.cpu_moe.into(), plan.experts_apart.into());
        }
        return output::json(&value);
    }
    let place = match plan.fits {
        Fits::Gpu => "runs on the GPU",
        Fits::Split => "runs on GPU and CPU",
        Fits::Ram => "runs from RAM",
        Fits::Disk => "runs from disk, slowly",
        Fits::No => "does not fit",
    };
    let layers = output::layers(plan.gpu_layers, plan.layers, plan.experts_apart);
    output::line(&format!("{place}: {layers}, context {}", plan.context))?;
    output::line(&format!("RAM  {} of {}", text(&plan.ram), output::size(plan.ram_available)))?;
    if plan.vram_available > 0 {
        output::line(&format!("VRAM {} of {}", text(&plan.vram), output::size(plan.vram_available)))?;
    }
    for gpu in plan.gpus.iter().filter(|_| plan.gpus.len() > 1) {
        let (parts, available) = (text(&gpu.parts), output::size(gpu.available));
        output::line(&format!("  {}: {} layers, {parts} of {available}", gpu.name, gpu.layers))?;
    }
    if let Some(forecast) = plan.forecast {
        output::line(&format!("about {:.1} to {:.1} tokens/s", forecast.tg_low, forecast.tg_high))?;
    }
    plan.reasons.iter().try_for_each(|reason| output::line(&format!("- {}", reason.text)))
}

fn parts(parts: &MemoryParts) -> Value {
    let MemoryParts { weights, kv, compute, other, total } = *parts;
    json!({ "weights": weights, "kv": kv, "compute": compute, "other": other, "total": total })
}

fn gpu(share: &GpuShare) -> Value {
    json!({
        "name": share.name,
        "layers": share.layers,
        "vram": parts(&share.parts),
        "available": share.available,
    })
}

fn text(parts: &MemoryParts) -> String {
    let [total, weights, kv, compute] = [parts.total, parts.weights, parts.kv, parts.compute].map(output::size);
    format!("{total} (weights {weights}, KV cache {kv}, buffers {compute})")
}

/// A file, an installed model, or one on the Hub, of which only the header is fetched.
fn describe(program: &Program, app: &Arc<App>, name: &str) -> Result<Arc<Model>, Failure> {
    let local = match Path::new(name).exists() {
        true => Some(name.into()),
        false => load::installed(program, name)?,
    };
    match (local, remote(name)) {
        (Some(path), _) => Ok(Arc::new(model::describe(&weights::read_header(&path)?)?)),
        (None, Some((repo, wanted))) => program.wait(app.hub_describe(&repo, &wanted)),
        // Says what there could have been.
        (None, None) => load::find(program, name).and_then(|path| describe(program, app, &path.to_string_lossy())),
    }
}

/// "owner/name/file.gguf" or "owner/name:QUANT", taken apart.
fn remote(name: &str) -> Option<(String, String)> {
    let (owner, rest) = name.split_once('/')?;
    let (repo, wanted) = rest.split_once([':', '/'])?;
    (!owner.is_empty() && !repo.is_empty() && !wanted.is_empty()).then(|| (format!("{owner}/{repo}"), wanted.into()))
}

#[cfg(test)]
mod tests {
    use super::remote;

    #[test]
    fn names_on_the_hub() {
        let pair = |repo: &str, wanted: &str| Some((repo.to_owned(), wanted.to_owned()));
        assert_eq!(remote("a/b/c.gguf"), pair("a/b", "c.gguf"));
        assert_eq!(remote("a/b/c/d.gguf"), pair("a/b", "c/d.gguf"));
        assert_eq!(remote("a/b:Q4_K_M"), pair("a/b", "Q4_K_M"));
        assert_eq!(remote("a/b:UD/x.gguf"), pair("a/b", "UD/x.gguf"));
        for name in ["a", "a/b", "a/b:", "a/b/", "/b/c", "a.gguf", "C:\\models\\x.gguf"] {
            assert_eq!(remote(name), None, "{name}");
        }
    }
}
