//! `tokenizer/`: ids of every text, and back.

use crate::read_json;
use crate::report::Report;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;
use tokenizer::{Encode, Tokenizer};

pub fn check(directory: &Path, report: &mut Report) -> Result<()> {
    let folder = directory.join("tokenizer");
    let mut names: Vec<String> = std::fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".expected.json")?.to_string()))
        .collect();
    names.sort();
    for name in names {
        let path = folder.join(format!("{name}.gguf"));
        let label = format!("tokenizer {name}");
        if !path.is_file() {
            report.skip(&label, "the vocabulary is not here");
            continue;
        }
        let bytes = std::fs::read(&path)?;
        let gguf = gguf::Gguf::parse(&bytes, bytes.len() as u64)?;
        match Tokenizer::from_gguf(&gguf) {
            Ok(tokenizer) => {
                vocabulary(&tokenizer, &read_json(&folder.join(format!("{name}.expected.json")))?, &label, report)?
            }
            Err(error) => report.holds(&label, &error.to_string(), false),
        }
    }
    Ok(())
}

fn vocabulary(tokenizer: &Tokenizer, cases: &Value, label: &str, report: &mut Report) -> Result<()> {
    let cases = cases.as_array().context("a list of cases")?;
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        if case["llama_cpp_throws"].as_bool() == Some(true) || case["ids"].is_null() {
            continue;
        }
        let text = match (case["text"].as_str(), case["hex"].as_str()) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(hex)) => unhex(hex)?,
            (None, None) => continue,
        };
        let full = tokenizer.encode(&text, Encode { add_special: true, parse_special: true });
        let plain = tokenizer.encode(&text, Encode { add_special: false, parse_special: false });
        let deviates = case.get("hf_ids_without_bos").is_some();
        let hf = ids(&case["hf_ids_without_bos"]);
        let accepted = |found: &[u32], expected: &Value| {
            found == ids(expected) || deviates && (found == hf || found.get(1..).is_some_and(|rest| rest == hf))
        };
        let mut good = accepted(&full, &case["ids"]) && accepted(&plain, &case["ids_plain"]);
        let back = tokenizer.decode(&ids(&case["ids_plain"]));
        if case["plain_roundtrip"].as_bool() == Some(true) {
            good &= back == text;
        } else if let Some(hex) = case["plain_detok_hex"].as_str() {
            good &= back == unhex(hex)?;
        }
        if !good {
            wrong.push(index);
        }
    }
    let what = format!("{} of {} texts differ {:?}", wrong.len(), cases.len(), &wrong[..wrong.len().min(8)]);
    report.holds(label, &what, wrong.is_empty());
    Ok(())
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .map(|ids| ids.iter().filter_map(|id| id.as_u64().map(|id| id as u32)).collect())
        .unwrap_or_default()
}

fn unhex(hex: &str) -> Result<Vec<u8>> {
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(hex.get(at..at + 2).context("odd hex")?, 16)?)).collect()
}
