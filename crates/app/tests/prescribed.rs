//! Answers whose form is prescribed: chats, many seeds, models that think, and what goes wrong.

#![allow(clippy::unwrap_used)]

mod common;

use app::wire::*;
use app::{App, Prescribed};
use common::*;
use gguf::{GgufWriter, Strings};
use grammar::{Form, Vocabulary};
use sampler::{Constraint, ConstraintError};
use serde_json::{Value, json};
use std::sync::Arc;
use test_models::ModelSpec;
use tokenizer::{Encode, Tokenizer};

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "tags": { "type": "array", "items": { "enum": ["a", "bé", "日本"] }, "minItems": 1, "maxItems": 3 },
            "mail": { "anyOf": [{ "type": "null" }, { "type": "string", "pattern": "^[a-z]{1,5}@[a-z]{1,5}$" }] }
        },
        "required": ["name", "age", "tags", "mail"],
        "additionalProperties": false
    })
}

/// Our own reading of the schema above.
fn is_person(text: &str) -> bool {
    let Ok(Value::Object(value)) = serde_json::from_str(text) else { return false };
    let length = |value: &Value| value.as_str().map(|text| text.chars().count());
    let is_word = |word: &str| (1..=5).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase());
    value.len() == 4
        && length(&value["name"]).is_some_and(|n| (1..=12).contains(&n))
        && value["age"].as_u64().is_some_and(|age| age <= 150)
        && value["tags"].as_array().is_some_and(|tags| {
            (1..=3).contains(&tags.len()) && tags.iter().all(|tag| ["a", "bé", "日本"].iter().any(|known| tag == known))
        })
        && (value["mail"].is_null()
            || value["mail"]
                .as_str()
                .and_then(|mail| mail.split_once('@'))
                .is_some_and(|(a, b)| is_word(a) && is_word(b)))
}

async fn chat(app: &Arc<App>, format: AnswerFormat) -> String {
    let id = app.chat_create().await.unwrap().id;
    app.chat_set_format(id.clone(), format).await.unwrap();
    id
}

fn schema(schema: &Value) -> AnswerFormat {
    AnswerFormat::Schema { schema: schema.to_string() }
}

fn wild(seed: u32) -> Sampling {
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: Some(seed), ..Sampling::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_chat_is_valid_whatever_the_seed() {
    assert!(is_person(r#"{"name":"x","age":3,"tags":["日本"],"mail":"a@b"}"#) && !is_person("{}"));
    let folder = tempfile::tempdir().unwrap();
    install_trained(folder.path());
    install(folder.path(), "bpe", &ModelSpec { n_ctx: 2048, ..ModelSpec::qwen3() });
    install(folder.path(), "spm", &ModelSpec { n_ctx: 2048, ..ModelSpec::llama() });
    let (app, _) = open(folder.path(), |_| {});
    for name in ["rustdoc", "bpe", "spm"] {
        load(&app, name, LoadSettings { context: Some(2048), ..LoadSettings::default() }).await;
        let id = chat(&app, schema(&person())).await;
        let first = end(&answer(&app, &id, say("Who?"), greedy(1900)).await);
        assert_eq!((first.1, first.2), (FinishReason::End, None), "{name}");
        assert!(is_person(&first.0.text), "{name}: {}", first.0.text);
        for seed in 0..30 {
            let again = Turn::Regenerate { message: first.0.id.clone() };
            let (message, reason, error) = end(&answer(&app, &id, again, wild(seed)).await);
            assert_eq!((reason, error), (FinishReason::End, None), "{name} {seed}: {}", message.text);
            assert!(is_person(&message.text), "{name} {seed}: {}", message.text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_cut_goes_on_within_its_form() {
    let folder = tempfile::tempdir().unwrap();
    install_trained(folder.path());
    let (app, _) = open(folder.path(), |_| {});
    load(&app, "rustdoc", LoadSettings { context: Some(512), ..LoadSettings::default() }).await;
    let id = chat(&app, schema(&person())).await;
    let (mut message, mut reason, mut error) = end(&answer(&app, &id, say("Who?"), greedy(3)).await);
    assert_eq!(reason, FinishReason::Length);
    for _ in 0..200 {
        let more = Turn::Continue { message: message.id.clone() };
        (message, reason, error) = end(&answer(&app, &id, more, greedy(3)).await);
        if reason != FinishReason::Length {
            break;
        }
    }
    assert_eq!((reason, error), (FinishReason::End, None), "{}", message.text);
    assert!(is_person(&message.text), "{}", message.text);
    // With another form it cannot go on, and nothing of it is lost.
    let text = json!({ "type": "array", "items": { "type": "integer" } });
    app.chat_set_format(id.clone(), schema(&text)).await.unwrap();
    let (kept, reason, error) =
        end(&answer(&app, &id, Turn::Continue { message: message.id.clone() }, greedy(3)).await);
    assert_eq!((reason, error.map(|error| error.code)), (FinishReason::Error, Some(ErrorCode::FormatStuck)));
    assert_eq!(kept.text, message.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_is_kept_with_the_chat_and_a_wrong_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let id = app.chat_create().await.unwrap().id;
    assert_eq!(app.chat(id.clone()).await.unwrap().format, AnswerFormat::Text);
    app.chat_set_format(id.clone(), schema(&person())).await.unwrap();
    let refused = [
        ("{", ErrorCode::FormatNotJson),
        ("[]", ErrorCode::FormatInvalid),
        (r#"{"type":"object","not":{}}"#, ErrorCode::FormatInvalid),
        (&"[".repeat(1 << 20), ErrorCode::FormatInvalid),
    ];
    for (wrong, code) in refused {
        let format = AnswerFormat::Schema { schema: wrong.into() };
        assert_eq!(app.chat_set_format(id.clone(), format).await.unwrap_err().code, code);
        assert_eq!(app.chat(id.clone()).await.unwrap().format, schema(&person()), "as before");
    }
    assert_ne!(app.chat_create().await.unwrap().id, id, "a chat with a form is not given out as a new one");
    for format in [AnswerFormat::Json, AnswerFormat::Text] {
        app.chat_set_format(id.clone(), format.clone()).await.unwrap();
        assert_eq!(app.chat(id.clone()).await.unwrap().format, format);
    }
    let missing = app.chat_set_format("999".into(), AnswerFormat::Json).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
}

/// Bytes, some words and control tokens, as SentencePiece.
fn tokenizer(controls: &[&str]) -> Tokenizer {
    let mut texts: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut kinds = vec![2i32, 3, 3];
    for byte in 0..=255u8 {
        texts.push(format!("<0x{byte:02X}>"));
        kinds.push(6);
    }
    for (list, kind) in [(&["\n", "\n\n", "hm", "\"a\"", "▁"][..], 1), (controls, 3)] {
        texts.extend(list.iter().map(|text| (*text).to_owned()));
        kinds.extend(list.iter().map(|_| kind));
    }
    let mut writer = GgufWriter::new();
    writer.set("general.architecture", "llama").unwrap();
    writer.set("tokenizer.ggml.model", "llama").unwrap();
    writer.set("tokenizer.ggml.add_space_prefix", false).unwrap();
    writer.set("tokenizer.ggml.scores", &vec![0f32; texts.len()][..]).unwrap();
    writer.set("tokenizer.ggml.token_type", &kinds[..]).unwrap();
    writer.set("tokenizer.ggml.tokens", Strings::from_iter(&texts)).unwrap();
    let file = writer.header().unwrap();
    Tokenizer::from_gguf(&gguf::Gguf::parse(&file, file.len() as u64).unwrap()).unwrap()
}

/// Whether each of the texts, token by token, is allowed and accepted; whether the answer is complete after them.
fn goes(tokenizer: &Tokenizer, prompt: &str, mark: Option<&str>, texts: &[&str]) -> Result<bool, String> {
    let grammar = Vocabulary::new(tokenizer).unwrap().compile(&Form::JsonSchema("{\"const\":\"a\"}".into())).unwrap();
    let mut prescribed = Prescribed::new(grammar, tokenizer, prompt, mark);
    for text in texts {
        for token in tokenizer.encode(text, Encode { add_special: false, parse_special: true }) {
            let allowed = prescribed.mask().unwrap().is_none_or(|mask| mask.allows(token));
            match prescribed.accept(token) {
                Ok(()) => assert!(allowed, "{texts:?}: {token} was accepted and not allowed"),
                Err(ConstraintError::Refused { .. }) => {
                    assert!(!allowed, "{texts:?}: {token} was allowed and not accepted");
                    return Err((*text).to_owned());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    Ok(prescribed.is_complete())
}

#[test]
fn a_model_that_may_think_has_the_choice() {
    let tokenizer = tokenizer(&["<think>", "</think>"]);
    let goes = |prompt: &str, texts: &[&str]| {
        let mark = chat_template::reasoning_mark("{% if '<think>' in content %}", prompt);
        goes(&tokenizer, prompt, mark, texts)
    };
    let start = "<|im_start|>assistant\n";
    assert_eq!(goes(start, &["\"a\""]), Ok(true), "it need not think");
    assert_eq!(goes(start, &["<think>", "hm", "\n", "</think>", "\n\n", "\"a\""]), Ok(true));
    assert_eq!(goes(start, &["<think>", "hm", "</think>", "\"a\""]), Ok(true), "without line breaks");
    assert_eq!(goes(start, &["hm"]), Err("hm".into()), "outside of the marks it is bound");
    assert_eq!(goes(start, &["\n\n"]), Err("\n\n".into()), "line breaks come after reasoning only");
    assert_eq!(goes(start, &["<think>", "hm", "</think>", "\n", "\n"]), Err("\n".into()), "and once");
    assert_eq!(goes(start, &["<think>", "hm", "</think>", "<think>"]), Err("<think>".into()), "it thinks once");
    assert_eq!(goes(start, &["<think>", "hm", "</s>"]), Err("</s>".into()), "the turn does not end there");
    assert_eq!(goes(start, &["<think>", "\"a\"", "hm"]), Ok(false), "what is thought is no answer");
    // The prompt has opened the reasoning, or closed it.
    assert_eq!(goes("<think>\n", &["hm", "</think>", "\n", "\"a\""]), Ok(true));
    assert_eq!(goes("<think>\n", &["\"a\"", "</s>"]), Err("</s>".into()));
    assert_eq!(goes("<think>\n\n</think>\n\n", &["<think>"]), Err("<think>".into()));
    assert_eq!(goes("<think>\n\n</think>\n\n", &["\"a\""]), Ok(true));
}

#[test]
fn marks_of_letters_end_reasoning_too() {
    let tokenizer = tokenizer(&[]);
    let goes = |texts: &[&str]| goes(&tokenizer, "<think>\n", None, texts);
    assert_eq!(goes(&["hm", "</think", ">", "\n", "\"a\""]), Ok(true));
}

#[test]
fn a_mark_of_letters_does_not_open_reasoning() {
    // It may be the beginning of the answer.
    let tokenizer = tokenizer(&[]);
    assert_eq!(goes(&tokenizer, "", Some("<think>"), &["<"]), Err("<".into()));
    assert_eq!(goes(&tokenizer, "", Some("<think>"), &["\"a\""]), Ok(true));
}

#[test]
fn harmony_is_bound_in_the_final_channel() {
    let controls = ["<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>"];
    let tokenizer = tokenizer(&controls);
    let goes = |prompt: &str, texts: &[&str]| {
        goes(&tokenizer, prompt, chat_template::reasoning_mark("<|channel|>analysis", prompt), texts)
    };
    let thought = ["<|channel|>", "analysis", "<|message|>", "hm", "<|end|>", "<|start|>", "assistant"];
    let rest = ["<|channel|>", "final", "<|message|>", "\"a\""];
    assert_eq!(goes("<|start|>assistant", &[&thought[..], &rest].concat()), Ok(true));
    assert_eq!(goes("<|start|>assistant", &rest), Ok(true));
    for end in ["<|return|>", "<|call|>"] {
        let early = [&thought[..4], &[end]].concat();
        assert_eq!(goes("<|start|>assistant", &early), Err(end.into()));
    }
    let wrong = [&rest[..3], &["hm"]].concat();
    assert_eq!(goes("<|start|>assistant", &wrong), Err("hm".into()));
    assert_eq!(goes("<|start|>assistant<|channel|>final<|message|>", &["\"a\""]), Ok(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_form_is_prepared_and_that_is_told() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "tiny", &ModelSpec { n_ctx: 512, ..ModelSpec::qwen3() });
    let (app, _) = open(folder.path(), |_| {});
    load(&app, "tiny", LoadSettings { context: Some(512), ..LoadSettings::default() }).await;
    let id = chat(&app, AnswerFormat::Text).await;
    let order = |events: &[AnswerEvent]| -> Vec<&str> {
        let name = |event: &AnswerEvent| match event {
            AnswerEvent::Started { .. } => Some("started"),
            AnswerEvent::Preparing => Some("preparing"),
            AnswerEvent::Prompt { done: 0, .. } => Some("reading"),
            _ => None,
        };
        let mut names: Vec<&str> = events.iter().filter_map(name).collect();
        names.truncate(2);
        names
    };
    let plain = answer(&app, &id, say("Who?"), greedy(2)).await;
    assert!(!order(&plain).contains(&"preparing"), "nobody asked for a form");
    app.chat_set_format(id.clone(), schema(&person())).await.unwrap();
    assert_eq!(order(&answer(&app, &id, say("Who?"), greedy(2)).await), ["started", "preparing"]);
    assert!(!order(&answer(&app, &id, say("And?"), greedy(2)).await).contains(&"preparing"), "it is there");
}
