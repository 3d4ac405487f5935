//! Prompts are character for character those of Jinja2 with the settings of transformers.

use std::path::Path;

use chat_template::{RenderInput, Template, TemplateTokens, conformance};
use serde::Deserialize;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[test]
fn renders_the_templates_of_known_models() {
    let mut templates = 0;
    let mut compared = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "jinja") {
            continue;
        }
        let template = std::fs::read_to_string(&path).unwrap();
        let expectations = std::fs::read_to_string(path.with_extension("expected.json")).unwrap();
        let report = conformance::check(&template, &expectations).unwrap();
        assert!(report.failures.is_empty(), "{}: {:#?}", path.display(), report.failures);
        templates += 1;
        compared += report.compared;
    }
    assert!(templates >= 10 && compared >= 70, "{templates} templates, {compared} prompts");
}

#[test]
fn a_wrong_prompt_is_reported() {
    let expectations = r#"{"now": "2025-07-26T12:34:56", "variables": {"bos_token": "<s>", "eos_token": "</s>"},
        "cases": [{"case": "a", "input": {"messages": []}, "expected": "<s>x"}, {"case": "b", "skipped": "c"}]}"#;
    let report = conformance::check("{{ bos_token }}y", expectations).unwrap();
    assert_eq!(report.compared, 1);
    assert_eq!(report.failures, ["a: differs at character 3: expected \"<s>x\", got \"<s>y\""]);
    assert_eq!(conformance::check("{{ bos_token }}x", expectations).unwrap().failures, [""; 0]);
}

/// Small templates, each for a few features, with what Jinja2 printed.
#[derive(Deserialize)]
struct Semantics {
    now: chat_template::NaiveDateTime,
    input: RenderInput,
    cases: Vec<SemanticCase>,
}

#[derive(Deserialize)]
struct SemanticCase {
    template: String,
    expected: String,
}

#[test]
fn features_mean_what_they_mean_in_jinja2() {
    let file = std::fs::read_to_string(fixtures().join("semantics.json")).unwrap();
    let semantics: Semantics = serde_json::from_str(&file).unwrap();
    assert!(semantics.cases.len() > 130);
    let tokens = TemplateTokens { bos: "<s>".into(), eos: "</s>".into() };
    for case in semantics.cases {
        let prompt =
            Template::parse(&case.template, tokens.clone()).and_then(|t| t.render(&semantics.input, semantics.now));
        assert_eq!(prompt.as_deref(), Ok(case.expected.as_str()), "{}", case.template);
    }
}
