//! Tool calls are found in a streamed answer the same way however the stream is cut, and go back into a prompt.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use chat_template::{AnswerParser, CallForm, CallMarks, Part, RenderInput, Template, TemplateTokens, ToolCall};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// Reasoning, text, and calls with their places in the text.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    thinking: String,
    text: String,
    calls: Vec<(usize, ToolCall)>,
}

fn parse<'a>(template: &str, prompt: &str, parts: impl IntoIterator<Item = &'a str>) -> Answer {
    let mut parser = AnswerParser::new(prompt, CallMarks::of_template(template));
    let mut found: Vec<Part> = parts.into_iter().flat_map(|part| parser.push(part)).collect();
    found.extend(parser.finish());
    let mut answer = Answer::default();
    for part in found {
        match part {
            Part::Thinking(text) => answer.thinking.push_str(&text),
            Part::Text(text) => answer.text.push_str(&text),
            Part::ToolCall(call) => answer.calls.push((answer.text.len(), call)),
        }
    }
    answer
}

/// Parses `text` whole, cut at every place, at every two places, and character by character.
#[track_caller]
fn parse_in_pieces(template: &str, prompt: &str, text: &str) -> Answer {
    let whole = parse(template, prompt, [text]);
    let cuts: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
    for (i, &a) in cuts.iter().enumerate() {
        assert_eq!(parse(template, prompt, [&text[..a], &text[a..]]), whole, "cut at {a}: {text:?}");
        for &b in cuts[i..].iter().filter(|_| cuts.len() < 150) {
            assert_eq!(
                parse(template, prompt, [&text[..a], &text[a..b], &text[b..]]),
                whole,
                "cut at {a}, {b}: {text:?}"
            );
        }
    }
    let chars: Vec<String> = text.chars().map(String::from).collect();
    assert_eq!(parse(template, prompt, chars.iter().map(String::as_str)), whole, "by characters: {text:?}");
    whole
}

/// `calls`: name, arguments, id. All of `answer` but `text` is in the calls' sources.
#[track_caller]
fn check(template: &str, prompt: &str, answer: &str, text: &str, calls: Json) {
    let found = parse_in_pieces(template, prompt, answer);
    let got: Vec<Json> = found.calls.iter().map(|(_, call)| json!([call.name, call.arguments, call.id])).collect();
    assert_eq!((Json::Array(got), found.text.as_str()), (calls, text), "{answer:?}");
    assert!(found.calls.iter().all(|(_, call)| answer.contains(&call.source)), "{found:?}");
    assert!(found.calls.first().is_none_or(|(_, call)| !call.source.is_empty()));
}

fn kyoto() -> Json {
    json!([["get_weather", {"city": "Kyoto", "days": 3}, null]])
}

#[test]
fn hermes() {
    let json = r#"{"name": "get_weather", "arguments": {"city": "Kyoto", "days": 3}}"#;
    let t = "<tool_call>";
    check(t, "", &format!("<tool_call>\n{json}\n</tool_call>"), "", kyoto());
    check(t, "", &format!("Let me look.\n\n<tool_call>{json}"), "Let me look.", kyoto());
    let two = json!([["a", {}, null], ["b", {"x": "</tool_call> 語"}, null]]);
    let text = r#"<tool_call>{"name":"a"}</tool_call>
<tool_call>{"arguments":"{\"x\":\"</tool_call> 語\"}","name":"b"}</tool_call> Done."#;
    check(t, "", text, "Done.", two);
    let thought =
        parse_in_pieces(t, "<think>\n", &format!("Hm <tool_call>.\n</think>\n\n<tool_call>\n{json}\n</tool_call>"));
    assert_eq!((thought.thinking.as_str(), thought.text.as_str(), thought.calls.len()), ("Hm <tool_call>.", "", 1));
}

#[test]
fn functions_with_parameters() {
    let t = "<tool_call> <function=";
    let text = "Yes.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nKyoto\n</parameter>\n<parameter=days>\n3\n\
        </parameter>\n</function>\n</tool_call>";
    check(t, "", text, "Yes.", kyoto());
    let bare = text.replace("<tool_call>\n", "");
    check(t, "", &bare, "Yes.", kyoto());
    check(t, "", "<function=f>{\"a\": 1}</function>", "", json!([["f", {"a": 1}, null]]));
    let typed = "<function=f><parameter=a>\nline\n\n</parameter><parameter=b>True</parameter><parameter=c>[1]</parameter>\
        <parameter=d>\"x\"</parameter></function>";
    check(t, "", typed, "", json!([["f", {"a": "line\n", "b": true, "c": [1], "d": "\"x\""}, null]]));
}

#[test]
fn glm() {
    let t = "<tool_call>";
    let text = "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Kyoto</arg_value><arg_key>days</arg_key>\
        <arg_value>3</arg_value></tool_call>";
    check(t, "<|assistant|></think>", text, "", kyoto());
    let older = text.replace("<arg_", "\n<arg_").replace("</tool", "\n</tool");
    check(t, "", &older, "", kyoto());
}

#[test]
fn gemma() {
    let t = "<|tool_call>";
    check(t, "", r#"<|tool_call>call:get_weather{city:<|"|>Kyoto<|"|>,days:3}<tool_call|>"#, "", kyoto());
    let nested = r#"<|channel>thought
x<channel|><|tool_call>call:f{a:[<|"|>},"<|"|>,{b:true}],c:null}<tool_call|><|tool_call>call:g{}"#;
    check(t, "", nested, "", json!([["f", {"a": ["},\"", {"b": true}], "c": null}, null], ["g", {}, null]]));
}

#[test]
fn llama() {
    let t = r#"{"name": function name, "parameters": dictionary}"#;
    let json = r#"{"name": "get_weather", "parameters": {"city": "Kyoto", "days": 3}}"#;
    check(t, "", json, "", kyoto());
    check(t, "", &format!("<|python_tag|>{json}"), "", kyoto());
    let built_in = r#"<|python_tag|>get_weather.call(city="Kyoto", days=3)"#;
    check(t, "", built_in, "", kyoto());
    check(t, "", "<|python_tag|>print(1)\n", "", json!([["python", {"code": "print(1)"}, null]]));
    let two = format!("{json}; {json}");
    check(t, "", &two, "", json!([kyoto()[0], kyoto()[0]]));
    // JSON that the user asked for.
    for text in
        [r#"{"city": "Kyoto"}"#, r#"{"name": "x", "age": 3}"#, r#"{"name": "x", "parameters": 3}"#, "{", "{\"na"]
    {
        check(t, "", text, text, json!([]));
    }
    check(t, "", &format!("\n {json}"), "", kyoto());
    check(t, "", &format!("I say {json}"), &format!("I say {json}"), json!([]));
}

#[test]
fn mistral() {
    let t = "[TOOL_CALLS]";
    let old = r#"[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Kyoto", "days": 3}, "id": "abcdefghi"}]"#;
    check(t, "", old, "", json!([["get_weather", {"city": "Kyoto", "days": 3}, "abcdefghi"]]));
    check(t, "", r#"Hm [TOOL_CALLS]get_weather[ARGS]{"city": "Kyoto", "days": 3}"#, "Hm", kyoto());
    let two = r#"[TOOL_CALLS]a[CALL_ID]x1[ARGS]{}[TOOL_CALLS]b[ARGS]{"c": []}"#;
    check(t, "", two, "", json!([["a", {}, "x1"], ["b", {"c": []}, null]]));
}

#[test]
fn deepseek() {
    let t = "<｜tool▁call▁begin｜>";
    let r1 = "Ja.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n\
        {\"city\": \"Kyoto\", \"days\": 3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    check(t, "<think>\n", &format!("a</think>{r1}"), "Ja.", kyoto());
    let v31 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Kyoto\", \"days\": 3}\
        <｜tool▁call▁end｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    check(t, "", v31, "", json!([kyoto()[0], ["f", {}, null]]));
    let v32 = "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"get_weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">\
        Kyoto</｜DSML｜parameter>\n<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n\
        </｜DSML｜function_calls>";
    check("｜DSML｜", "", v32, "", kyoto());
}

#[test]
fn lfm2_kimi_and_others() {
    let lfm2 = r#"<|tool_call_start|>[get_weather(city="Kyoto", days=3)]<|tool_call_end|>Wait."#;
    check("<|tool_list_start|>", "", lfm2, "Wait.", kyoto());
    let kimi = "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>\
        {\"city\": \"Kyoto\", \"days\": 3}<|tool_call_end|><|tool_calls_section_end|>";
    let with_id = json!([["get_weather", {"city": "Kyoto", "days": 3}, "functions.get_weather:0"]]);
    check("<|tool_call_argument_begin|>", "", kimi, "", with_id);
    let cohere = r#"<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}]<|END_ACTION|>"#;
    check("<|START_ACTION|>", "", cohere, "", json!([["f", {"a": 1}, "0"]]));
    check("<|tool_call|>", "", r#"<|tool_call|>[{"name": "f", "arguments": {}}]"#, "", json!([["f", {}, null]]));
    check(" functools[", "", r#" functools[{"name": "f", "arguments": {}}]"#, "", json!([["f", {}, null]]));
}

#[test]
fn harmony() {
    let json = r#"{"city": "Kyoto", "days": 3}"#;
    let prompt = "<|start|>assistant";
    let with_thought = format!(
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather \
         <|constrain|>json<|message|>{json}<|call|>"
    );
    let found = parse_in_pieces("", prompt, &with_thought);
    assert_eq!(
        (found.thinking.as_str(), found.text.as_str(), found.calls[0].1.name.as_str()),
        ("Hm.", "", "get_weather")
    );
    check(
        "",
        prompt,
        &format!("<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{json}"),
        "",
        kyoto(),
    );
    let say = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=f<|message|>";
    check("", prompt, &format!("{say}<|call|>"), "I look.", json!([["f", {}, null]]));
    let broken = "I look.<|start|>assistant<|channel|>commentary to=f<|message|>{oops";
    check("", prompt, &format!("{say}{{oops"), broken, json!([]));
    // Nothing of an answer is lost.
    check("", prompt, "<|channel|>final Hello", "<|channel|>final Hello", json!([]));
    check("", prompt, "<|channel|>final<|message|>Hi<|end|> you", "Hi\nyou", json!([]));
    check("", prompt, "<|channel|>fin", "", json!([]));
}

#[test]
fn what_only_looks_like_a_call_is_text() {
    let all =
        "<tool_call> <function= [TOOL_CALLS] <｜tool▁call▁begin｜> <|tool_call> <|tool_call_start|> <|python_tag|>";
    for text in [
        "The mark <tool_call> begins a call, and </tool_call> ends it.",
        "<tool_call>{\"name\": \"f\", \"arguments\": [}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"argum",
        "<tool_call>name only</tool_call>",
        "<tool_call",
        "a <function= b",
        "[TOOL_CALLS] and so on",
        "<|tool_call>call:f{a:<tool_call|>",
        "<|tool_call_start|>[f(]<|tool_call_end|>",
        "<｜tool▁call▁begin｜>f<｜tool▁sep｜>x\n```json\n3\n```",
        "<tool_call><tool_call><tool_call>",
        "\n <tool_call> is a mark.\n",
    ] {
        check(all, "", text, text, json!([]));
    }
    let nested = r#"<tool_call>{"bad": <tool_call>{"name": "f"}</tool_call>"#;
    check(all, "", nested, r#"<tool_call>{"bad":"#, json!([["f", {}, null]]));
    check(all, "", "<|python_tag|>", "<|python_tag|>", json!([]));
}

#[test]
fn an_endless_call_is_text_and_comes_in_time() {
    let mut parser = AnswerParser::new("", CallMarks::of_template("<tool_call>"));
    let begin = r#"<tool_call>{"name": "f", "arguments": {"a": ""#;
    let (mut sent, mut got) = (begin.to_owned(), String::new());
    let mut take = |parts: Vec<Part>| {
        for part in parts {
            let Part::Text(text) = part else { panic!("{part:?}") };
            got.push_str(&text);
        }
        got.len()
    };
    take(parser.push(begin));
    let line = "0123456789\u{6771}".repeat(100);
    for _ in 0..300 {
        let got = take(parser.push(&line));
        sent.push_str(&line);
        assert!(sent.len() - got <= 257 << 10, "{} bytes are held", sent.len() - got);
    }
    take(parser.finish());
    assert_eq!(got, sent);
}

fn fixtures() -> Vec<(String, Template, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jinja"));
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let source = std::fs::read_to_string(path).unwrap();
        let template = Template::parse(&source, TemplateTokens { bos: "<s>".into(), eos: "</s>".into() }).unwrap();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), template, source)
    };
    paths.iter().map(read).collect()
}

/// A call goes into the history, and is the same call when the prompt's text is read as an answer.
#[test]
fn calls_go_back_through_the_templates() {
    let now = "2025-07-26T12:34:56".parse().unwrap();
    let (mut as_fields, mut read_again) = (0, 0);
    for (name, template, source) in fixtures() {
        let form = template.call_form(now);
        let call = ToolCall {
            name: "get_weather".into(),
            arguments: json!({"city": "Kyoto", "days": 3}).as_object().unwrap().clone(),
            id: None,
            source: "<call source>".into(),
        };
        let messages = vec![
            json!({"role": "user", "content": "Weather?"}),
            form.message("", None, std::slice::from_ref(&call)),
            json!({"role": "tool", "name": "get_weather", "tool_call_id": "call00000", "content": "Rain"}),
        ];
        let prompt = template.render(&RenderInput { messages, ..RenderInput::default() }, now);
        if form == CallForm::Text {
            assert!(prompt.is_err() || prompt.is_ok_and(|prompt| prompt.contains("<call source>")), "{name}");
            continue;
        }
        as_fields += 1;
        let prompt = prompt.unwrap();
        assert!(prompt.contains("Kyoto") && prompt.contains("Rain"), "{name}: {prompt}");
        let answer = &prompt[prompt.find("Weather?").unwrap()..];
        let begins =
            ["<|start|>assistant", "{\"name\"", "<tool_call>", "[TOOL_CALLS]", "<｜tool▁calls▁begin｜>", "<function="];
        let Some(begin) = begins.iter().filter_map(|begin| answer.find(begin)).min() else {
            panic!("{name}: no call in {answer}")
        };
        let found = parse(&source, "", [&answer[begin..]]);
        let expected = (call.name.as_str(), &call.arguments);
        assert_eq!(
            found.calls.first().map(|(_, call)| (call.name.as_str(), &call.arguments)),
            Some(expected),
            "{name}: {answer}"
        );
        read_again += 1;
    }
    assert!(as_fields >= 7 && read_again >= 7, "{as_fields} templates, {read_again} read again");
}

#[test]
fn templates_say_how_they_take_calls() {
    let now = "2025-07-26T12:34:56".parse().unwrap();
    let form = |source: &str| Template::parse(source, TemplateTokens::default()).unwrap().call_form(now);
    let each = |arguments: &str| {
        format!(
            "{{% for m in messages %}}{{{{ m.content }}}}{{% for c in m.tool_calls %}}{{{{ c.function.name }}}}\
                 {{{{ {arguments} }}}}{{% endfor %}}{{% endfor %}}"
        )
    };
    let fields = |as_text, null_content| CallForm::Fields { as_text, null_content };
    assert_eq!(form(&each("c.function.arguments | tojson")), fields(false, false));
    assert_eq!(form(&each("'x' + c.function.arguments")), fields(true, false));
    assert_eq!(form(&each("c.function.arguments")), fields(true, false));
    let null = "{% for m in messages %}{% if m.content is none %}{% for c in m.tool_calls %}{{ c.function.name }}\
        {{ c.function.arguments | tojson }}{% endfor %}{% endif %}{% endfor %}";
    assert_eq!(form(null), fields(false, true));
    assert_eq!(form("{{ messages[0].content }}"), CallForm::Text);
    assert_eq!(form("{{ raise_exception('no') }}"), CallForm::Text);
}

proptest! {
    /// Any text made of marks and fragments, cut anywhere.
    #[test]
    fn cuts_do_not_matter(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("<tool_call>"), Just("</tool_call>"), Just("<function=f>"), Just("</function>"),
                Just("<parameter=a>"), Just("</parameter>"), Just("{\"name\":\"f\",\"arguments\":{"), Just("}}"),
                Just("[TOOL_CALLS]"), Just("[ARGS]"), Just("f"), Just("{}"), Just("["), Just("]"), Just("\""),
                Just("<｜tool▁calls▁begin｜>"), Just("<｜tool▁call▁begin｜>"), Just("<｜tool▁sep｜>"), Just("<think>"),
                Just("</think>"), Just("<|start|>"), Just("<|channel|>commentary to=f<|message|>"), Just("<|call|>"),
                Just("<|tool_call>call:f"), Just("<tool_call|>"), Just("<"), Just(" "), Just("\n"), Just("語"),
                Just("<arg_key>a</arg_key>"), Just("<arg_value>1</arg_value>"), Just("<|python_tag|>"),
            ],
            0..12,
        ),
        cuts in proptest::collection::vec(0usize..150, 0..6),
        prompt in prop_oneof![Just(""), Just("<think>"), Just("<|start|>assistant")],
    ) {
        let template = "<tool_call> <function= [TOOL_CALLS] <｜tool▁call▁begin｜> <|tool_call> <|python_tag|> \
            {\"name\": function name, \"parameters\"";
        let text = parts.concat();
        let mut cuts: Vec<usize> =
            cuts.into_iter().map(|c| c.min(text.len())).filter(|c| text.is_char_boundary(*c)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|w| &text[w[0]..w[1]]);
        prop_assert_eq!(parse(template, prompt, pieces), parse(template, prompt, [text.as_str()]));
    }
}
