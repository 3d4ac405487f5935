//! Templates of known models, damaged at random: whatever they became, rendering ends with a prompt or a typed error.

#![allow(clippy::unwrap_used)]

use chat_template::{CallMarks, Limits, RenderInput, Template, TemplateTokens};
use serde_json::json;

/// The same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    /// A place between two characters.
    fn place(&mut self, text: &str) -> usize {
        let at = self.below(text.len() + 1);
        (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
    }

    fn piece<'a>(&mut self, text: &'a str, longest: usize) -> &'a str {
        let from = self.place(text);
        let end = (from + self.below(longest)).min(text.len());
        &text[from..(from..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(from)]
    }
}

const PARTS: &[&str] = &[
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "{%-",
    "-%}",
    "'",
    "\"",
    "(",
    ")",
    "[",
    "]",
    "[::-1]",
    "[-9999999999]",
    "|",
    "|tojson",
    "|join",
    "|length",
    ".split(",
    "~",
    "//0",
    "%0",
    "**999",
    "*99999",
    "-1",
    "1e999",
    "none",
    "messages",
    "loop",
    "self",
    "namespace()",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% macro f() %}",
    "{% endmacro %}",
    "{{ f() }}",
    "{% set messages = ",
    "range(99999999)",
    "raise_exception(",
    "\u{0}",
    "\u{feff}",
    "語",
    "\\",
];

fn damage(source: &str, others: &[String], random: &mut Random) -> String {
    let mut text = source.to_owned();
    for _ in 0..=random.below(3) {
        let from = random.place(&text);
        let piece = match random.below(4) {
            0 => PARTS[random.below(PARTS.len())].to_owned(),
            1 => {
                let other = &others[random.below(others.len())];
                random.piece(other, 200).to_owned()
            }
            2 => random.piece(&text, 60).to_owned(),
            _ => String::new(),
        };
        let gone = if random.below(2) == 0 { random.piece(&text[from..], 40).len() } else { 0 };
        let end = (from + gone).min(text.len());
        let end = (from..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(from);
        text.replace_range(from..end, &piece);
    }
    text
}

#[test]
fn damaged_templates_end_with_a_prompt_or_an_error() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    paths.sort();
    let sources: Vec<String> = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let tool = json!({"type": "function", "function": {"name": "f", "description": "d", "parameters":
        {"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]}}});
    let call = json!({"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": {"a": "x"}}});
    let conversations = [
        json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}],
            "add_generation_prompt": true}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": "1", "name": "f", "tool_call_id": "abcdefghi"}], "tools": [tool]}),
        json!({"messages": []}),
    ];
    let conversations = conversations.map(|input| serde_json::from_value::<RenderInput>(input).unwrap());
    let limits = Limits { fuel: 50_000, output_bytes: 1 << 18, ..Limits::default() };
    let now = "2025-07-26T12:34:56".parse().unwrap();
    let (mut random, mut prompts, mut errors) = (Random(20), 0, 0);
    for source in &sources {
        for _ in 0..50 {
            let text = damage(source, &sources, &mut random);
            let _ = CallMarks::of_template(&text);
            for input in &conversations {
                let tokens = TemplateTokens { bos: "<s>".into(), eos: "</s>".into() };
                match Template::parse_with_limits(&text, tokens, limits).and_then(|t| t.render(input, now)) {
                    Ok(prompt) => {
                        assert!(prompt.len() <= limits.output_bytes, "{} bytes of {text}", prompt.len());
                        prompts += 1;
                    }
                    Err(error) => {
                        assert!(error.code().starts_with("template_"), "{error}");
                        errors += 1;
                    }
                }
            }
        }
    }
    // Damage that nothing comes of, and that breaks everything, would be no test.
    assert!(prompts > 150 && errors > 300, "{prompts} prompts, {errors} errors");
}
