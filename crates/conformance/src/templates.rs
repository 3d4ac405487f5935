//! `templates/`: every rendered conversation, exactly.

use crate::read_json;
use crate::report::Report;
use anyhow::{Context, Result};
use chat_template::{RenderInput, Template, TemplateTokens};
use serde_json::Value;
use std::path::Path;

pub fn check(directory: &Path, report: &mut Report) -> Result<()> {
    let folder = directory.join("templates");
    let now =
        chrono::NaiveDate::from_ymd_opt(2025, 7, 26).and_then(|day| day.and_hms_opt(12, 34, 56)).context("date")?;
    let mut paths: Vec<_> = std::fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path)?;
        let expected = read_json(&folder.join(format!("{name}.expected.json")))?;
        let tokens = || TemplateTokens { bos: "<s>".into(), eos: "</s>".into() };
        let template = match Template::parse(&source, tokens()) {
            Ok(template) => template,
            Err(error) => {
                report.holds(&format!("template {name}"), &error.to_string(), false);
                continue;
            }
        };
        for case in expected["cases"].as_array().context("cases")? {
            let label = format!("template {name} {}", case["case"].as_str().unwrap_or("?"));
            if let Some(text) = case["expected"].as_str() {
                compare(report, &label, &template, &case["input"], true, text, now);
            }
            if let Some(text) = case["expected_if_tools_and_documents_undefined"].as_str() {
                compare(report, &format!("{label} (undefined tools)"), &template, &case["input"], false, text, now);
            }
        }
    }
    Ok(())
}

fn compare(
    report: &mut Report,
    label: &str,
    template: &Template,
    input: &Value,
    null_tools: bool,
    expected: &str,
    now: chrono::NaiveDateTime,
) {
    let mut input = input.clone();
    if let (true, Some(fields)) = (null_tools, input.as_object_mut()) {
        for name in ["tools", "documents"] {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    let rendered = RenderInput::from_json(input).and_then(|input| template.render(&input, now));
    match rendered {
        Ok(text) => report.holds(label, &difference(&text, expected), text == expected),
        Err(error) => report.holds(label, &error.to_string(), false),
    }
}

fn difference(actual: &str, expected: &str) -> String {
    if actual == expected {
        return "exact".into();
    }
    let same = actual.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
    let show = |text: &str| String::from_utf8_lossy(&text.as_bytes()[same..text.len().min(same + 40)]).into_owned();
    format!("differs at byte {same}: {:?} instead of {:?}", show(actual), show(expected))
}
