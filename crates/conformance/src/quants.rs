//! `quants/`: one model in every type, in the exact and in the fast path.

use crate::compare::{compare, greedy_agrees};
use crate::models::{EXACT, F16_KV};
use crate::read_json;
use crate::report::Report;
use crate::run::{greedy, load, logits, numbers};
use crate::safetensors::Safetensors;
use anyhow::{Context, Result};
use backend_cpu::Precision;
use engine::LoadOptions;
use quant::GgmlType;
use serde_json::Value;
use std::path::Path;

pub fn check(directory: &Path, report: &mut Report) -> Result<()> {
    let reference = read_json(&directory.join("quants/ref.json"))?;
    let arrays = Safetensors::open(&directory.join("quants/ref.safetensors"))?;
    let prompt: Vec<u32> = match reference["short_prompt"].as_array() {
        Some(_) => numbers(&reference["short_prompt"]),
        None => numbers(&read_json(&directory.join("ref/prompts.json"))?["short"]),
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
    let positions: Vec<usize> = numbers(&facts["positions"]);
    let ty = GgmlType::F32;
    let options = LoadOptions { context: 512, kv_type_k: ty, kv_type_v: ty, logits_rows: 32, ..LoadOptions::default() };

    let exact = load(&path, options, Precision::Exact, None)?;
    let (expected, _) = arrays.rows(facts["deq_tensor"].as_str().context("deq_tensor")?)?;
    let actual = logits(&exact, prompt, &positions)?;
    report.within(&label, "exact path, max abs", compare(&actual, &expected).0, EXACT);
    let expected: Vec<u32> = numbers(&facts["deq_greedy"]);
    let gaps = numbers(&facts["deq_greedy_top1_minus_top2"]);
    let actual = greedy(&exact, prompt, expected.len())?;
    report.holds(&label, "exact path, greedy ids", greedy_agrees(&actual, &expected, &gaps, EXACT));

    let fast = load(&path, options, Precision::Fast, None)?;
    let (expected, _) = arrays.rows(facts["tensor"].as_str().context("tensor")?)?;
    let actual = logits(&fast, prompt, &positions)?;
    let allowed = facts["act_quant_effect"]["rms"].as_f64().context("act_quant_effect")?;
    // Types that are not quantized have no effect of quantized activations to compare with.
    report.within(&label, "fast path, rms", compare(&actual, &expected).1, allowed.max(F16_KV.1));
    Ok(())
}
