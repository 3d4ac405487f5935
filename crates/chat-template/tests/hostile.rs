//! A template comes with a downloaded file. Whatever it does, rendering ends with a typed error, without a crash.

#![allow(clippy::unwrap_used)]

use chat_template::{BuiltinTemplate, Limits, RenderInput, Template, TemplateChoice, TemplateError, TemplateTokens};
use serde_json::json;
use std::time::Duration;

fn now() -> chat_template::NaiveDateTime {
    "2025-07-26T12:34:56".parse().unwrap()
}

fn limits() -> Limits {
    Limits { fuel: 200_000, output_bytes: 1 << 20, ..Limits::default() }
}

fn input() -> RenderInput {
    serde_json::from_value(json!({"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}))
        .unwrap()
}

fn render(template: &str) -> Result<String, TemplateError> {
    Template::parse_with_limits(template, TemplateTokens::default(), limits())?.render(&input(), now())
}

#[track_caller]
fn refused(template: &str, code: &str) {
    match render(template) {
        Ok(prompt) => panic!("rendered {} bytes", prompt.len()),
        Err(e) => assert_eq!(e.code(), code, "{e}"),
    }
}

#[test]
fn endless_work_ends() {
    refused(
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "template_too_many_steps",
    );
    refused("{% macro r() %}{{ r() }}{% endmacro %}{{ r() }}", "template_failed");
    refused("{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "template_failed");
}

#[test]
fn huge_text_is_not_made() {
    let doubled =
        "{% set ns = namespace(s='x' * 64) %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    refused(doubled, "template_too_many_steps");
    refused("{{ 'x' * 99999999 }}", "template_too_many_steps");
    refused("{% for i in range(2000) %}{{ 'x' * 1000 }}{% endfor %}", "template_output_too_large");
    refused("{{ 'a'.center(999999999999) }}", "template_too_many_steps");
    refused("{{ 'a'.zfill(9223372036854775807) }}", "template_too_many_steps");
    refused("{{ '%999999999d'|format(1) }}", "template_too_many_steps");
    refused("{{ '{:999999999d}'.format(1) }}", "template_failed");
    refused("{% set s = 'x' * 100000 %}{{ s.replace('x', s) }}", "template_too_many_steps");
    refused("{% set s = 'x' * 100000 %}{{ s|join(s) }}", "template_too_many_steps");
    refused("{{ ([1] * 999999)|tojson }}", "template_too_many_steps");
    for repeated in ["[1] * 99999999", "99999999 * [1]", "(1, 2) * 50000000", "('x' * 9999) * 9999 * [1]"] {
        refused(&format!("{{{{ {repeated} }}}}"), "template_too_many_steps");
        refused(&format!("{{% set x = {repeated} %}}"), "template_too_many_steps");
    }
}

/// Work that grows with the product of two texts, or of a text and a list, pays for it.
#[test]
fn long_texts_are_not_looked_through_again_and_again() {
    let limits = Limits { time: Duration::from_secs(60), ..Limits::default() };
    let long = "{% set a = 'x' * 1000000 %}{% set b = 'y' * 1000000 ~ 'x' %}";
    let begin = |text: &str| Template::parse_with_limits(text, TemplateTokens::default(), limits);
    for work in ["a.strip(b)", "a.lstrip(b)", "a.rstrip(b)", "a|trim(b)", "a|trim(chars=b)"] {
        let made = begin(&format!("{long}{{{{ {work} }}}}")).unwrap().render(&input(), now());
        assert_eq!(made.as_deref(), Ok(""), "{work}");
    }
    let list = "{% set a = 'x' * 1000000 ~ 'y' %}{% set b = 'x' * 1000000 ~ 'z' %}{% set l = [a] * 1000 %}\
                {% set s = [a] * 20 %}{% set m = {a: 1} %}";
    for work in [
        "l.index(b)",
        "l.count(b)",
        "b.startswith(l)",
        "b.endswith(l)",
        "b in s",
        "b not in s",
        "b is in s",
        "(b,) in m",
        "s|select('in', [a])|list|length",
        "s|sort|length",
        "s|unique|list|length",
        "(s|min) == 1",
        "(s|max(case_sensitive=true)) == 1",
        "s|groupby('x')|length",
        "{a: 1, b: 2}|dictsort|length",
    ] {
        let looped = format!("{list}{{% for i in range(1000) %}}{{{{ {work} }}}}{{% endfor %}}");
        let error = begin(&looped).unwrap().render(&input(), now()).unwrap_err();
        assert_eq!(error.code(), "template_too_many_steps", "{work}: {error}");
    }
    let once = format!("{list}{{{{ b in [a] * 30000 }}}}");
    let error = begin(&once).unwrap().render(&input(), now()).unwrap_err();
    assert_eq!(error.code(), "template_too_many_steps", "{error}");
    let small = "{{ 1 in [2, 1] }}{{ 'b' in {'a': 1} }}{{ 'b' not in 'abc' }}{{ not 3 in (1, 2) }}{{ 1 in missing }}\
                 {% for k, v in {'x': [1]}|items if 1 in v %}{{ k }}{% endfor %}{{ [2, 1, 2]|unique|sort }}\
                 {{ [1, 2]|select('in', [2])|list }}{{ 'a' in ['A', 'b']|map('lower') }}";
    assert_eq!(render(small).as_deref(), Ok("TrueFalseFalseTrueFalsex[1, 2][2]True"));
    assert_eq!(render("{{ [1, 2, [1], 1].count(1) }}{{ [1, 'a', {'b': 1}].index({'b': 1}) }}").as_deref(), Ok("22"));
    assert_eq!(render("{{ ' a '|trim }}{{ 'xyax'|trim('yx') }}{{ 12|trim('2') }}").as_deref(), Ok("aa1"));
}

/// What the engine itself takes too little for ends with the time.
#[test]
fn a_slow_template_is_given_up() {
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    let slow = "{% set a = 'x' * 8000000 ~ 'y' %}{% set b = 'x' * 8000000 ~ 'z' %}{% set l = [a] * 100 %}\
                {% for i in range(9999) %}{% set found = a == b %}{% endfor %}";
    let template = Template::parse_with_limits(slow, TemplateTokens::default(), limits).unwrap();
    let error = template.render(&input(), now()).unwrap_err();
    assert_eq!(error, TemplateError::TooSlow { seconds: 0 });
    // It ends at the next assignment, and takes nothing then.
    let quick = Template::parse_with_limits("{{ messages|length }}", TemplateTokens::default(), limits).unwrap();
    assert_eq!(quick.render(&input(), now()).as_deref(), Ok("1"), "others are not in its way");
}

#[test]
fn a_long_conversation_does_not_pay_for_endless_memory() {
    let message = json!({"role": "user", "content": "x".repeat(8 << 20)});
    let input = RenderInput { messages: vec![message; 4], ..input() };
    let doubled = "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [messages[0].content ~ i] %}\
                   {% endfor %}";
    let limits = Limits { most_fuel: 1_000_000, ..Limits::default() };
    let error = Template::parse_with_limits(doubled, TemplateTokens::default(), limits).unwrap().render(&input, now());
    assert_eq!(error.unwrap_err(), TemplateError::TooManySteps { fuel: 1_000_000 });
}

#[test]
fn deep_and_cyclic_values_are_refused() {
    let nest = "{% set ns = namespace(a=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% endfor %}";
    for used in ["", "{{ ns.a }}", "{{ ns.a|tojson }}", "{{ 'x' ~ ns.a }}", "{{ ns.a == ns.a }}", "{{ {ns.a: 1} }}"] {
        refused(&format!("{nest}{used}"), "template_failed");
    }
    let cycle = "{% set ns = namespace() %}{% set ns.a = [ns] %}";
    for used in ["", "{{ ns }}", "{{ ns.a ~ '' }}", "{{ ns.a|upper }}", "{{ ','.join(ns.a) }}"] {
        refused(&format!("{cycle}{used}"), "template_failed");
    }
    refused("{% set a = namespace() %}{% set b = namespace(a=a) %}", "template_failed");
    // The same list twice, forty times: a small structure that prints 2^40 items.
    let shared = "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}";
    refused(shared, "template_too_many_steps");
    // Views of views of a list.
    let views = "{% set ns = namespace(a=[1, 2]) %}{% for i in range(9999) %}{% set ns.a = ns.a[0:2] %}{% endfor %}";
    assert_eq!(render(&format!("{views}{{{{ ns.a|length }}}}")).as_deref(), Ok("2"));
}

#[test]
fn malformed_and_overlong_templates_are_refused() {
    for template in ["{{", "{% if %}", "{{ 'a }}", "{% endif %}", "{% for %}", "{{ a b }}", "{% set = %}", "{% raw %}"]
    {
        refused(template, "template_syntax");
    }
    for deep in ["(", "[", "-", "not ", "{'a':"] {
        refused(&format!("{{{{ {}", deep.repeat(50_000)), "template_syntax");
    }
    for long in ["+1", "~1", ".a", "()", "|upper", "[0]"] {
        refused(&format!("{{{{ a{} }}}}", long.repeat(40_000)), "template_syntax");
    }
    refused(&"{% if 1 %}".repeat(20_000), "template_syntax");
    refused(&" ".repeat(300_000), "template_too_large");
}

#[test]
fn other_templates_and_files_are_out_of_reach() {
    for template in
        ["{% include 'x' %}", "{% include 'chat_template' %}", "{% extends 'chat_template' %}", "{{ debug() }}"]
    {
        refused(template, "template_failed");
    }
}

#[test]
fn refusals_carry_the_templates_own_words() {
    let error = render("{{ raise_exception('System role not supported') }}").unwrap_err();
    assert_eq!(error, TemplateError::Refused { message: "System role not supported".into() });
    // From within a macro, too.
    let error = render("{% macro m() %}{{ raise_exception('no') }}{% endmacro %}{{ m() }}").unwrap_err();
    assert_eq!(error, TemplateError::Refused { message: "no".into() });
    let error = render("\n\n{{ messages.foo.bar }}").unwrap_err();
    assert!(matches!(error, TemplateError::Failed { line: 3, .. }), "{error:?}");
    assert!(matches!(render("a\n{% foo %}").unwrap_err(), TemplateError::Syntax { line: 2, .. }));
}

#[test]
fn deeply_nested_conversations_are_refused() {
    let mut nested = json!(1);
    for _ in 0..100_000 {
        nested = serde_json::Value::Array(vec![nested]);
    }
    // Dropping such a value overflows the stack of serde_json's own drop; it is a test's construct only.
    let input = RenderInput { tools: Some(nested), ..input() };
    let template = Template::parse("{{ tools|length }}", TemplateTokens::default()).unwrap();
    let error = template.render(&input, now()).unwrap_err();
    std::mem::forget(input);
    assert_eq!(error.code(), "template_input_too_deep");
}

#[test]
fn long_conversations_render() {
    let message = json!({"role": "user", "content": "x".repeat(2000)});
    let input = RenderInput { messages: vec![message; 1000], ..input() };
    for builtin in BuiltinTemplate::ALL {
        let template = Template::parse(builtin.source(), TemplateTokens::default()).unwrap();
        assert!(template.render(&input, now()).unwrap().len() > 2_000_000);
    }
}

#[test]
fn built_in_templates_print_their_formats() {
    let input: RenderInput = serde_json::from_value(json!({
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"},
                     {"role": "assistant", "content": "A"}, {"role": "user", "content": "V"}],
        "add_generation_prompt": true
    }))
    .unwrap();
    let print = |builtin: BuiltinTemplate| {
        let tokens = TemplateTokens { bos: "<s>".into(), eos: "</s>".into() };
        Template::parse(builtin.source(), tokens).unwrap().render(&input, now()).unwrap()
    };
    assert_eq!(
        print(BuiltinTemplate::ChatMl),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n\
         <|im_start|>assistant\nA<|im_end|>\n<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        print(BuiltinTemplate::Llama3),
        "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    assert_eq!(
        print(BuiltinTemplate::Gemma),
        "<s><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n\
         <start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n"
    );
    assert_eq!(print(BuiltinTemplate::Mistral), "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]");
    assert_eq!(print(BuiltinTemplate::Plain), "<s>S\n\nUser: U\nAssistant: A\nUser: V\nAssistant:");
}

#[test]
fn a_missing_template_is_a_named_choice() {
    let chatml = |t: &str| matches!(t, "<|im_start|>" | "<|im_end|>");
    assert_eq!(TemplateChoice::new(Some("{{ x }}"), chatml), TemplateChoice::Model);
    assert_eq!(TemplateChoice::new(None, chatml), TemplateChoice::Builtin(BuiltinTemplate::ChatMl));
    assert_eq!(TemplateChoice::new(Some(" "), |_| false), TemplateChoice::Builtin(BuiltinTemplate::Plain));
    assert_eq!(
        serde_json::to_value(TemplateChoice::new(None, chatml)).unwrap(),
        json!({"source": "builtin", "template": "chat_ml"})
    );
}
