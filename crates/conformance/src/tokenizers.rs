//! `tokenizer/`: ids of every text, and back; the same for the vocabularies of `ref/`, with the tokens that end a turn.

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
        match load(&path)? {
            Ok(tokenizer) => {
                vocabulary(&tokenizer, &read_json(&folder.join(format!("{name}.expected.json")))?, &label, report)?
            }
            Err(error) => report.holds(&label, &error.to_string(), false),
        }
    }
    models(directory, report)
}

fn load(path: &Path) -> Result<Result<Tokenizer, tokenizer::TokenizerError>> {
    let bytes = std::fs::read(path)?;
    let gguf = gguf::Gguf::parse(&bytes, bytes.len() as u64)?;
    Ok(Tokenizer::from_gguf(&gguf))
}

/// The `tokenize` section of every `ref/NAME.json`.
fn models(directory: &Path, report: &mut Report) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(directory.join("ref")) else { return Ok(()) };
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_string()))
        .collect();
    names.sort();
    for name in names {
        let expected = read_json(&directory.join("ref").join(format!("{name}.json")))?;
        let Some(cases) = expected["tokenize"].as_array() else { continue };
        let label = format!("tokenizer of {name}");
        let path = directory.join("models").join(format!("{name}.gguf"));
        if !path.is_file() {
            report.skip(&label, "the model is not here");
            continue;
        }
        match load(&path)? {
            Ok(tokenizer) => model(&tokenizer, cases, &expected["vocab"]["eog"], &label, report),
            Err(error) => report.holds(&label, &error.to_string(), false),
        }
    }
    Ok(())
}

fn model(tokenizer: &Tokenizer, cases: &[Value], eog: &Value, label: &str, report: &mut Report) {
    let differs = |case: &&Value| {
        let flag = |name: &str| case[name].as_bool() == Some(true);
        let options = Encode { add_special: flag("add_special"), parse_special: flag("parse_special") };
        let found = tokenizer.encode(case["text"].as_str().unwrap_or_default(), options);
        found != ids(&case["ids"])
            || Some(tokenizer.decode(&found).as_slice()) != case["detok"].as_str().map(str::as_bytes)
    };
    let wrong: Vec<&str> = cases.iter().filter(differs).filter_map(|case| case["text"].as_str()).collect();
    let what = format!("{} of {} texts differ {:?}", wrong.len(), cases.len(), &wrong[..wrong.len().min(3)]);
    report.holds(label, &what, wrong.is_empty());
    report.holds(label, "the same tokens end a turn", tokenizer.end_of_generation() == ids(eog));
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
            good &= back == text || is_tidied(&unhex(hex)?, &back);
        }
        if !good {
            wrong.push(index);
        }
    }
    let what = format!("{} of {} texts differ {:?}", wrong.len(), cases.len(), &wrong[..wrong.len().min(8)]);
    report.holds(label, &what, wrong.is_empty());
    Ok(())
}

/// Whether `tidied` is `text` without some of the spaces beside punctuation: the reference takes them away for some
/// vocabularies, this tokenizer gives every token's bytes back.
fn is_tidied(tidied: &[u8], text: &[u8]) -> bool {
    let mut rest = tidied;
    for (index, byte) in text.iter().enumerate() {
        if rest.first() == Some(byte) {
            rest = &rest[1..];
            continue;
        }
        let before = text.get(index + 1).is_some_and(|next| b"?!.,'".contains(next));
        let after = index > 0 && text[index - 1] == b'\'';
        if !(*byte == b' ' && (before || after)) {
            return false;
        }
    }
    rest.is_empty()
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

#[cfg(test)]
mod tests {
    use super::is_tidied;

    #[test]
    fn only_spaces_beside_punctuation_may_be_missing() {
        assert!(is_tidied(b"a. b, c's", b"a . b , c ' s"));
        assert!(is_tidied(b"a  b", b"a  b"));
        for (tidied, text) in [("a b", "a  b"), ("ab", "a b"), ("a.", "a ;"), ("a. b", "a."), ("a", "a .")] {
            assert!(!is_tidied(tidied.as_bytes(), text.as_bytes()), "{tidied} of {text}");
        }
    }
}
