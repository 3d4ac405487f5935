//! `ref/` and `quants/`: logits and greedy tokens of whole models, in the exact and in the fast path.

use crate::read_json;
use crate::report::Report;
use crate::safetensors::Safetensors;
use anyhow::{Context, Result};
use backend_cpu::{CpuConfig, CpuDevice, Precision, ThreadPool};
use engine::{Cancel, Devices, Engine, EngineError, LoadOptions, Positions, Request};
use quant::GgmlType;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Max abs difference of logits for engines with f32 activations, by what the reference itself rounds.
const EXACT: f64 = 2e-4;
/// The reference looks GELU up in an f16 table.
const GELU: f64 = 2e-2;
/// 16-bit KV caches: (max abs, rms).
const F16_KV: (f64, f64) = (0.1, 0.02);
/// Quantized weights: the reference rounds activations to 8 bits, so only rms and the likeliest tokens are compared.
const QUANTIZED_RMS: f64 = 0.3;
const QUANTIZED_TOP1: f64 = 0.85;
const GELU_ARCHITECTURES: &[&str] = &["gemma", "gemma2", "gemma3", "gemma4", "starcoder2"];

fn load(path: &Path, options: LoadOptions, precision: Precision) -> Result<Engine, EngineError> {
    let config = CpuConfig { threads: 2, precision, simd: None };
    let host = CpuDevice::new(Arc::new(ThreadPool::new(config.threads)), config);
    let devices = Devices { host: Box::new(host), accelerator: None };
    Engine::load(path, options, devices, &mut |_| {}, &Cancel::new())
}

/// Rows of logits at `positions`.
fn logits(engine: &Engine, prompt: &[u32], positions: &[usize]) -> Result<Vec<f32>> {
    let mut rows = Vec::new();
    let mut index = 0;
    engine.logits(prompt, Positions::All, &Cancel::new(), &mut |row| {
        if positions.contains(&index) {
            rows.extend_from_slice(row);
        }
        index += 1;
    })?;
    Ok(rows)
}

fn greedy(engine: &Engine, prompt: &[u32], count: usize) -> Result<Vec<u32>> {
    let request = Request {
        prompt: prompt.to_vec(),
        sampling: sampler::Params { temperature: 0.0, ..sampler::Params::default() },
        max_tokens: Some(count as u32),
        ignore_eog: true,
    };
    Ok(engine.generate(request, &Cancel::new(), &mut |_| {})?.ids)
}

/// (max abs, rms) of the difference; infinite if the shapes differ.
fn compare(actual: &[f32], expected: &[f32]) -> (f64, f64) {
    if actual.len() != expected.len() || actual.is_empty() {
        return (f64::INFINITY, f64::INFINITY);
    }
    let mut worst = 0f64;
    let mut sum = 0f64;
    for (a, b) in actual.iter().zip(expected) {
        let difference = (f64::from(*a) - f64::from(*b)).abs();
        // NaN must not vanish in a maximum.
        if !(difference <= worst) {
            worst = difference;
        }
        sum += difference * difference;
    }
    (worst, (sum / actual.len() as f64).sqrt())
}

/// Rows that may differ more where choices of experts are compared after other roundings: an expert that wins by less
/// than the rounding is another one, and its row another row.
fn flips(rows: usize) -> usize {
    (rows / 40).max(1)
}

/// The same without the `dropped` rows that differ most.
fn compare_but(actual: &[f32], expected: &[f32], width: usize, dropped: usize) -> (f64, f64) {
    let mut rows: Vec<(f64, f64)> =
        actual.chunks_exact(width).zip(expected.chunks_exact(width)).map(|(a, b)| compare(a, b)).collect();
    if actual.len() != expected.len() || rows.len() <= dropped {
        return (f64::INFINITY, f64::INFINITY);
    }
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows.truncate(rows.len() - dropped);
    let squares: f64 = rows.iter().map(|(_, rms)| rms * rms).sum();
    (rows[rows.len() - 1].0, (squares / rows.len() as f64).sqrt())
}

/// The share of rows whose likeliest token is the same.
fn top1_agreement(actual: &[f32], expected: &[f32], width: usize) -> f64 {
    let top = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let rows = actual.chunks_exact(width).zip(expected.chunks_exact(width));
    let same = rows.clone().filter(|(a, b)| top(a) == top(b)).count();
    same as f64 / rows.count().max(1) as f64
}

/// Greedy tokens must agree up to the first step that the reference itself decided by less than `gap`.
fn greedy_agrees(actual: &[u32], expected: &[u32], gaps: &[f64], gap: f64) -> bool {
    let sure = gaps.iter().position(|found| !(*found >= gap)).unwrap_or(expected.len());
    actual.len() == expected.len() && actual[..sure] == expected[..sure]
}

pub fn check_models(directory: &Path, report: &mut Report) -> Result<()> {
    let prompts = read_json(&directory.join("ref/prompts.json"))?;
    let mut names: Vec<String> = std::fs::read_dir(directory.join("ref"))?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_string()))
        .filter(|name| name != "prompts")
        .collect();
    names.sort();
    for name in names {
        if let Err(error) = model(directory, &name, &prompts, report) {
            report.holds(&format!("model {name}"), &format!("{error:#}"), false);
        }
    }
    Ok(())
}

fn model(directory: &Path, name: &str, prompts: &Value, report: &mut Report) -> Result<()> {
    let reference = read_json(&directory.join(format!("ref/{name}.json")))?;
    let arrays = Safetensors::open(&directory.join(format!("ref/{name}.safetensors")))?;
    let path = directory.join(format!("models/{name}.gguf"));
    let architecture = reference["arch"].as_str().unwrap_or_default();
    let tolerance = if GELU_ARCHITECTURES.contains(&architecture) { GELU } else { EXACT };
    for (run, facts) in reference["runs"].as_object().context("runs")? {
        let label = format!("model {name} {run}");
        let kv = facts["kv_type"].as_str().context("kv_type")?;
        let Some(ty) = GgmlType::from_name(kv) else { continue };
        let flash = facts["flash_attn"].as_bool() == Some(true);
        let context = facts["n_ctx"].as_u64().unwrap_or(512) as u32;
        let options = LoadOptions { context, kv_type_k: ty, kv_type_v: ty, logits_rows: 32, ..LoadOptions::default() };
        let engine = match load(&path, options, Precision::Exact) {
            Ok(engine) => engine,
            Err(EngineError::Model(model)) => {
                report.skip(&label, &model.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let experts = engine.model().layers.iter().any(|layer| layer.experts().is_some());
        let quantized_weights = engine.gguf().tensors.iter().any(|tensor| tensor.ty != GgmlType::F32);
        let prompt = numbers(&prompts[facts["prompt"].as_str().context("prompt")?]);
        let prompt: Vec<u32> = prompt.iter().map(|id| *id as u32).collect();
        if let Some(tensor) = facts["tensor"].as_str() {
            let positions: Vec<usize> = numbers(&facts["positions"]).iter().map(|p| *p as usize).collect();
            let (expected, width) = arrays.rows(tensor)?;
            let actual = match logits(&engine, &prompt, &positions) {
                Ok(actual) => actual,
                Err(error) => {
                    report.skip(&label, &format!("{error:#}"));
                    continue;
                }
            };
            let rounded = flash || tolerance > EXACT;
            let dropped = if experts && rounded { flips(positions.len()) } else { 0 };
            let (worst, rms) = compare_but(&actual, &expected, width, dropped);
            let quantized_cache = !matches!(ty, GgmlType::F32 | GgmlType::F16);
            if quantized_weights {
                report.within(&label, "rms", rms, QUANTIZED_RMS);
                let differing = 1.0 - top1_agreement(&actual, &expected, width);
                report.within(&label, "rows with another likeliest token", differing, 1.0 - QUANTIZED_TOP1);
            } else if quantized_cache {
                let key = format!("{run}_vs_{}", facts["prompt"].as_str().unwrap_or_default());
                let rms_allowed = reference["measured"][&key]["rms"].as_f64().unwrap_or(0.1);
                let (exact, _) = arrays.rows(&format!("{}.logits", facts["prompt"].as_str().unwrap_or_default()))?;
                let exact_rows = select(&exact, &expected, &reference, facts)?;
                report.within(&label, "rms against f32", compare(&actual, &exact_rows).1, rms_allowed);
            } else if flash {
                report.within(&label, "max abs", worst, if tolerance > EXACT { 0.2 } else { F16_KV.0 });
                report.within(&label, "rms", rms, F16_KV.1);
            } else {
                report.within(&label, "max abs", worst, tolerance);
            }
        }
        if !flash && !quantized_weights {
            let expected: Vec<u32> = numbers(&facts["greedy"]).iter().map(|id| *id as u32).collect();
            let gaps = numbers(&facts["greedy_top1_minus_top2"]);
            let actual = greedy(&engine, &prompt, expected.len())?;
            report.holds(&label, "greedy ids", greedy_agrees(&actual, &expected, &gaps, tolerance));
        }
    }
    Ok(())
}

/// The rows of the f32 run at the positions of a run with a subset of them.
fn select(exact: &[f32], subset: &[f32], reference: &Value, facts: &Value) -> Result<Vec<f32>> {
    let run = facts["prompt"].as_str().context("prompt")?;
    let all: Vec<f64> = numbers(&reference["runs"][run]["positions"]);
    let wanted = numbers(&facts["positions"]);
    let width = subset.len() / wanted.len().max(1);
    let mut rows = Vec::new();
    for position in wanted {
        let index = all.iter().position(|p| *p == position).context("a position that the f32 run lacks")?;
        rows.extend_from_slice(exact.get(index * width..(index + 1) * width).context("rows")?);
    }
    Ok(rows)
}

pub fn check_quants(directory: &Path, report: &mut Report) -> Result<()> {
    let reference = read_json(&directory.join("quants/ref.json"))?;
    let arrays = Safetensors::open(&directory.join("quants/ref.safetensors"))?;
    let prompt: Vec<u32> = match reference["short_prompt"].as_array() {
        Some(_) => numbers(&reference["short_prompt"]).iter().map(|id| *id as u32).collect(),
        None => {
            numbers(&read_json(&directory.join("ref/prompts.json"))?["short"]).iter().map(|id| *id as u32).collect()
        }
    };
    for (name, facts) in reference["quants"].as_object().context("quants")? {
        if let Err(error) = quant_file(directory, name, facts, &prompt, &arrays, report) {
            report.holds(&format!("quant {name}"), &format!("{error:#}"), false);
        }
    }
    Ok(())
}

fn quant_file(
    directory: &Path,
    name: &str,
    facts: &Value,
    prompt: &[u32],
    arrays: &Safetensors,
    report: &mut Report,
) -> Result<()> {
    let file = facts["file"].as_str().context("file")?;
    let file = Path::new(file).file_name().context("file name")?;
    let path = directory.join("quants").join(file);
    let label = format!("quant {name}");
    let positions: Vec<usize> = numbers(&facts["positions"]).iter().map(|p| *p as usize).collect();
    let ty = GgmlType::F32;
    let options = LoadOptions { context: 512, kv_type_k: ty, kv_type_v: ty, logits_rows: 32, ..LoadOptions::default() };

    let exact = load(&path, options, Precision::Exact)?;
    let (expected, _) = arrays.rows(facts["deq_tensor"].as_str().context("deq_tensor")?)?;
    let actual = logits(&exact, prompt, &positions)?;
    report.within(&label, "exact path, max abs", compare(&actual, &expected).0, EXACT);
    let expected: Vec<u32> = numbers(&facts["deq_greedy"]).iter().map(|id| *id as u32).collect();
    let gaps = numbers(&facts["deq_greedy_top1_minus_top2"]);
    let actual = greedy(&exact, prompt, expected.len())?;
    report.holds(&label, "exact path, greedy ids", greedy_agrees(&actual, &expected, &gaps, EXACT));

    let fast = load(&path, options, Precision::Fast)?;
    let (expected, _) = arrays.rows(facts["tensor"].as_str().context("tensor")?)?;
    let actual = logits(&fast, prompt, &positions)?;
    let allowed = facts["act_quant_effect"]["rms"].as_f64().context("act_quant_effect")?;
    // Types that are not quantized have no effect of quantized activations to compare with.
    report.within(&label, "fast path, rms", compare(&actual, &expected).1, allowed.max(F16_KV.1));
    Ok(())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_f64).collect()).unwrap_or_default()
}
