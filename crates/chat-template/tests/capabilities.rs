//! What templates can do is found out by trying.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use chat_template::{Capabilities, RenderInput, Template, TemplateTokens};
use serde_json::json;

fn capabilities(source: &str) -> Capabilities {
    Template::parse(source, TemplateTokens::default()).unwrap().capabilities("2025-07-26T12:34:56".parse().unwrap())
}

fn of_fixture(name: &str) -> Capabilities {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.jinja"));
    capabilities(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn known_templates_show_what_they_can_do() {
    let gemma = of_fixture("google-gemma-2-2b-it");
    assert_eq!(gemma, Capabilities { system_role: false, tools: false, thinking_switch: false });
    let smollm = of_fixture("HuggingFaceTB-SmolLM3-3B");
    assert!(smollm.system_role && smollm.thinking_switch, "{smollm:?}");
    let llama = of_fixture("meta-llama-Llama-3.2-3B-Instruct");
    assert_eq!(llama, Capabilities { system_role: true, tools: true, thinking_switch: false });
    // Granite 3.3, DeepSeek 3.1, Kimi.
    let short = capabilities("{% if thinking %}<think>{% endif %}{{ messages[0].content }}");
    assert!(short.thinking_switch, "{short:?}");
    let failing = capabilities("{{ raise_exception('never') }}");
    assert_eq!(failing, Capabilities { system_role: false, tools: false, thinking_switch: false });
}

#[test]
fn a_system_message_can_join_the_first_user_message() {
    let input = |messages| -> RenderInput { serde_json::from_value(json!({"messages": messages})).unwrap() };
    let merged = input(json!([{"role": "system", "content": "S"}, {"role": "user", "content": "U"},
        {"role": "assistant", "content": "A"}, {"role": "user", "content": "V"}]))
    .with_system_in_first_user_message();
    let expected = json!([{"role": "user", "content": "S\n\nU"}, {"role": "assistant", "content": "A"},
        {"role": "user", "content": "V"}]);
    assert_eq!(json!(merged.messages), expected);
    for unchanged in [json!([{"role": "system", "content": "S"}]), json!([{"role": "user", "content": "U"}]), json!([])]
    {
        assert_eq!(json!(input(unchanged.clone()).with_system_in_first_user_message().messages), unchanged);
    }
}
