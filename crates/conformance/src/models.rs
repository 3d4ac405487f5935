//! `ref/`: logits and greedy tokens of whole models.

use crate::compare::{compare, compare_but, flips, greedy_agrees, top1_agreement};
use crate::read_json;
use crate::report::Report;
use crate::run::{greedy, is_quantized, load, logits, numbers, precision};
use crate::safetensors::Safetensors;
use anyhow::{Context, Result};
use backend_cuda::Card;
use engine::{Engine, EngineError, LoadOptions};
use quant::GgmlType;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Max abs difference of logits for engines with f32 activations, by what the reference itself rounds.
pub const EXACT: f64 = 2e-4;
/// The reference looks GELU up in an f16 table.
const GELU: f64 = 2e-2;
/// 16-bit KV caches: (max abs, rms).
pub const F16_KV: (f64, f64) = (0.1, 0.02);
/// Quantized weights: the reference rounds activations to 8 bits, so only rms and the likeliest tokens are compared.
const QUANTIZED_RMS: f64 = 0.3;
const QUANTIZED_TOP1: f64 = 0.85;
/// The same for GELU architectures, max abs.
const GELU_F16_KV: f64 = 0.2;
const GELU_ARCHITECTURES: &[&str] = &["gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "starcoder2"];

/// With a GPU: every number of layers on it for the short prompts, all layers for the long ones.
pub fn check(directory: &Path, gpu: Option<&Card>, report: &mut Report) -> Result<()> {
    let prompts = read_json(&directory.join("ref/prompts.json"))?;
    let mut names: Vec<String> = std::fs::read_dir(directory.join("ref"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_string()))
        .filter(|name| name != "prompts")
        .collect();
    names.sort();
    for name in names {
        if let Err(error) = model(directory, &name, &prompts, gpu, report) {
            report.holds(&format!("model {name}"), &format!("{error:#}"), false);
        }
    }
    Ok(())
}

/// What all runs of a model have in common.
struct Case<'a> {
    reference: &'a Value,
    arrays: Safetensors,
    prompts: &'a Value,
    path: PathBuf,
    tolerance: f64,
    gpu: Option<&'a Card>,
}

fn model(directory: &Path, name: &str, prompts: &Value, gpu: Option<&Card>, report: &mut Report) -> Result<()> {
    let reference = read_json(&directory.join(format!("ref/{name}.json")))?;
    let architecture = reference["arch"].as_str().unwrap_or_default();
    let case = Case {
        reference: &reference,
        arrays: Safetensors::open(&directory.join(format!("ref/{name}.safetensors")))?,
        prompts,
        path: directory.join(format!("models/{name}.gguf")),
        tolerance: if GELU_ARCHITECTURES.contains(&architecture) { GELU } else { EXACT },
        gpu,
    };
    for (run, facts) in reference["runs"].as_object().context("runs")? {
        if let Some(ty) = GgmlType::from_name(facts["kv_type"].as_str().context("kv_type")?) {
            let label = format!("model {name} {run}");
            let Some(layers) = case.gpu.map(|_| case.layers()).transpose()? else {
                case.run(run, facts, ty, 0, &label, report)?;
                continue;
            };
            let least = if facts["prompt"] == "short" { 1 } else { layers };
            for gpu_layers in least..=layers {
                case.run(run, facts, ty, gpu_layers, &format!("{label}, {gpu_layers} layers on the GPU"), report)?;
            }
        }
    }
    Ok(())
}

impl Case<'_> {
    /// All layers, the output layer counted.
    fn layers(&self) -> Result<u32> {
        let engine =
            load(&self.path, LoadOptions { context: 64, ..LoadOptions::default() }, precision(&self.path)?, None)?;
        Ok(engine.placement().layers)
    }

    fn run(
        &self,
        run: &str,
        facts: &Value,
        ty: GgmlType,
        gpu_layers: u32,
        label: &str,
        report: &mut Report,
    ) -> Result<()> {
        let context = facts["n_ctx"].as_u64().unwrap_or(512) as u32;
        let (kv_type_k, kv_type_v) = (ty, ty);
        let options = LoadOptions {
            context,
            kv_type_k,
            kv_type_v,
            gpu_layers: gpu_layers.into(),
            logits_rows: 32,
            ..LoadOptions::default()
        };
        let engine = match load(&self.path, options, precision(&self.path)?, self.gpu) {
            Ok(engine) => engine,
            Err(EngineError::Model(model)) => {
                report.skip(label, &model.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let placed = engine.placement().gpu_layers;
        if placed < gpu_layers {
            report.skip(label, &format!("{placed} layers have all that they need on the GPU"));
            return Ok(());
        }
        let prompt: Vec<u32> = numbers(&self.prompts[facts["prompt"].as_str().context("prompt")?]);
        if let Some(tensor) = facts["tensor"].as_str() {
            let positions: Vec<usize> = numbers(&facts["positions"]);
            let (expected, width) = self.arrays.rows(tensor)?;
            match logits(&engine, &prompt, &positions) {
                Ok(actual) => self.compare(run, facts, ty, &engine, (&actual, &expected, width), label, report)?,
                Err(error) => report.skip(label, &format!("{error:#}")),
            }
        }
        if !is_flash(facts) && !is_quantized(engine.gguf()) {
            let expected: Vec<u32> = numbers(&facts["greedy"]);
            let gaps = numbers(&facts["greedy_top1_minus_top2"]);
            let actual = greedy(&engine, &prompt, expected.len())?;
            report.holds(label, "greedy ids", greedy_agrees(&actual, &expected, &gaps, self.tolerance));
        }
        Ok(())
    }

    fn compare(
        &self,
        run: &str,
        facts: &Value,
        ty: GgmlType,
        engine: &Engine,
        (actual, expected, width): (&[f32], &[f32], usize),
        label: &str,
        report: &mut Report,
    ) -> Result<()> {
        let gelu = self.tolerance > EXACT;
        let experts = engine.model().layers.iter().any(|layer| layer.experts().is_some());
        // Only a run that is not within its own tolerance is looked at as one with a flipped choice.
        let close = compare(actual, expected).0 <= self.tolerance;
        let dropped = if experts && !close && is_flash(facts) { flips(expected.len() / width) } else { 0 };
        let (worst, rms) = compare_but(actual, expected, width, dropped);
        if is_quantized(engine.gguf()) {
            report.within(label, "rms", rms, QUANTIZED_RMS);
            let differing = 1.0 - top1_agreement(actual, expected, width);
            report.within(label, "rows with another likeliest token", differing, 1.0 - QUANTIZED_TOP1);
        } else if !matches!(ty, GgmlType::F32 | GgmlType::F16) {
            let prompt = facts["prompt"].as_str().unwrap_or_default();
            let allowed = self.reference["measured"][&format!("{run}_vs_{prompt}")]["rms"].as_f64().unwrap_or(0.1);
            let (exact, _) = self.arrays.rows(&format!("{prompt}.logits"))?;
            let exact = select(&exact, expected, self.reference, facts)?;
            report.within(label, "rms against f32", compare(actual, &exact).1, allowed);
        } else if is_flash(facts) {
            // A choice of experts that flipped in an early row reaches the rows after it.
            report.within(label, "max abs", worst, if gelu { GELU_F16_KV } else { F16_KV.0 });
            report.within(label, "rms", rms, F16_KV.1);
        } else {
            report.within(label, "max abs", worst, self.tolerance);
        }
        Ok(())
    }
}

fn is_flash(facts: &Value) -> bool {
    facts["flash_attn"].as_bool() == Some(true)
}

/// The rows of the f32 run at the positions of a run with a subset of them.
fn select(exact: &[f32], subset: &[f32], reference: &Value, facts: &Value) -> Result<Vec<f32>> {
    let run = facts["prompt"].as_str().context("prompt")?;
    let all: Vec<f64> = numbers(&reference["runs"][run]["positions"]);
    let wanted: Vec<f64> = numbers(&facts["positions"]);
    let width = subset.len() / wanted.len().max(1);
    let mut rows = Vec::new();
    for position in wanted {
        let index = all.iter().position(|p| *p == position).context("a position that the f32 run lacks")?;
        rows.extend_from_slice(exact.get(index * width..(index + 1) * width).context("rows")?);
    }
    Ok(rows)
}
