//! `dequant/`: every type bit for bit, quantizers byte for byte or by their error.

use crate::report::Report;
use crate::{read_f32, read_json};
use anyhow::{Context, Result};
use quant::{GgmlType, reference};
use std::path::Path;

pub fn check(directory: &Path, report: &mut Report) -> Result<()> {
    let folder = directory.join("dequant");
    let index = read_json(&folder.join("index.json"))?;
    let columns = index["cols"].as_u64().context("cols")? as usize;
    let input = read_f32(&folder.join("input.f32"))?;
    let importance = read_f32(&folder.join("imatrix.f32"))?;
    for entry in index["types"].as_array().context("types")? {
        let name = entry["type"].as_str().context("type")?;
        let ty = GgmlType::from_name(name).with_context(|| format!("unknown type {name}"))?;
        let stem = |kind: &str| if kind == "ref" { name.to_string() } else { format!("{name}.{kind}") };
        for kind in ["ref", "chunk", "imat", "rand", "cpu"] {
            let packed = folder.join(format!("{}.bin", stem(kind)));
            let Ok(packed) = std::fs::read(&packed) else { continue };
            let values = folder.join(format!("{}.f32", stem(kind)));
            if values.is_file() {
                let result = reference::check_dequantizer(ty, &packed, &read_f32(&values)?);
                report.holds(&format!("dequant {}", stem(kind)), &describe("bit for bit", &result), result.is_ok());
            }
            if kind == "rand" {
                continue;
            }
            let weights = (kind == "imat").then_some(importance.as_slice());
            let what = format!("quantize {}", stem(kind));
            match reference::check_quantizer(ty, &input, columns, weights, &packed) {
                Err(reference::Difference::Failed(error)) => report.skip(&what, &error.to_string()),
                result => report.holds(&what, &describe("as the reference", &result), result.is_ok()),
            }
        }
    }
    Ok(())
}

fn describe(good: &str, result: &Result<(), reference::Difference>) -> String {
    match result {
        Ok(()) => good.into(),
        Err(difference) => difference.to_string(),
    }
}
