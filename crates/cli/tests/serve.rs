//! `serve`, asked as other programs ask it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Home, fixture};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};
use test_models::ModelSpec;

const TRAINED: &str = "rustdoc-tiny-F16.gguf";
const QUESTION: &str = "Tell me about std::vec::Vec.";
const ANSWER: &str = "A draining iterator over the elements of a `Vec`.\n\nThis `struct` is created by the";

/// The program while it serves; killed at the end.
struct Served {
    child: Child,
    address: String,
    home: Home,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(home: Home, model: &str, arguments: &[&str]) -> Served {
        let mut child = home.spawn(&[&["--json", "serve", model, "--port", "0", "--temp", "0"], arguments].concat());
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        let address = told["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Served { child, address, home }
    }

    fn trained(arguments: &[&str]) -> Served {
        Served::start(Home::new(), &fixture(TRAINED), arguments)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        // Far beyond what a loaded machine needs, and far below what an answer takes that nobody ends.
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// Sends a request with these headers.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut stream = self.connect();
        let named = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !named("host") {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        headers.iter().for_each(|(key, value)| head.push_str(&format!("{key}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        stream
    }

    /// Status, headers and body of the answer.
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
        let mut text = String::new();
        self.send(method, path, headers, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { dechunked(body) } else { body.into() };
        (status, head.to_lowercase(), body)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, text) = self.ask("POST", path, &[("Content-Type", "application/json")], &body.to_string());
        (status, serde_json::from_str(&text).unwrap())
    }

    fn chat(&self, body: Value) -> Value {
        let (status, value) = self.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{value}");
        value
    }

    /// The events of a streamed answer, each as JSON, without the last one.
    fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, head, text) = self.ask("POST", path, &[], &body.to_string());
        assert_eq!(status, 200, "{text}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        let mut events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{text}");
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}

fn question(more: Value) -> Value {
    let mut body = json!({ "model": "any", "messages": [{ "role": "user", "content": QUESTION }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn conversations_are_answered_whole_and_piece_by_piece() {
    let served = Served::trained(&[]);
    let whole = served.chat(question(json!({ "max_tokens": 12 })));
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(!text.is_empty() && ANSWER.starts_with(&text), "{whole}");
    assert_eq!(
        (&whole["object"], &whole["choices"][0]["finish_reason"]),
        (&json!("chat.completion"), &json!("length"))
    );
    assert_eq!((&whole["usage"]["prompt_tokens"], &whole["usage"]["completion_tokens"]), (&json!(21), &json!(12)));

    let more = json!({ "max_tokens": 12, "stream": true, "stream_options": { "include_usage": true } });
    let events = served.events("/v1/chat/completions", &question(more));
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let streamed: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(streamed, text);
    assert!(events.len() > 5, "piece by piece: {events:?}");
    let [.., last, usage] = &events[..] else { panic!("{events:?}") };
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(12)));
    // What the two have in common was read once.
    assert!(usage["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(15), "{usage}");

    // A text is continued, an answer gone on with, and words end both.
    let text = "fn main() {\n    print";
    let (_, completion) = served.post("/v1/completions", &json!({ "prompt": text, "max_tokens": 9 }));
    let same = served.home.run(&["run", &fixture(TRAINED), "--raw", "-p", text, "--temp", "0", "-n", "9"]).stdout;
    assert_eq!(completion["choices"][0]["text"].as_str().map(str::trim_end), Some(same.trim_end()), "{completion}");
    let begun =
        json!([{ "role": "user", "content": QUESTION }, { "role": "assistant", "content": "A draining iterator" }]);
    let rest = served.chat(json!({ "messages": begun, "stop": ["elements", "Vec"] }));
    assert_eq!(rest["choices"][0]["message"]["content"], " over the ");
    assert_eq!(rest["choices"][0]["finish_reason"], "stop");
}

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let served = Served::trained(&[]);
    let schema = json!({ "type": "object", "properties": { "n": { "enum": [7] } }, "required": ["n"], "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "number", "schema": schema } });
    let answer = served.chat(question(json!({ "response_format": format, "max_tokens": 60 })));
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({ "n": 7 }), "{answer}");
    let grammar = served.chat(question(json!({ "grammar": "root ::= \"yes\"", "max_tokens": 60 })));
    assert_eq!(grammar["choices"][0]["message"]["content"], "yes");
}

/// A template that tells which tools there are, and takes calls and their results back.
const WITH_TOOLS: &str = "{%- if tools %}<|im_start|>system\n# Tools, to be called in <tool_call></tool_call>\n\
    {%- for tool in tools %}\n{{ tool | tojson }}{%- endfor %}<|im_end|>\n{%- endif %}\
    {%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}\
    {%- for call in m.tool_calls or [] %}<tool_call>{{ call | tojson }}</tool_call>{%- endfor %}\
    {%- if m.role == 'tool' %} ({{ m.name }}, {{ m.tool_call_id }}){%- endif %}<|im_end|>\n{%- endfor %}\
    {%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}";

/// The trained model with this template.
fn with_template(home: &Home, template: &str) -> String {
    let bytes = std::fs::read(fixture(TRAINED)).unwrap();
    let gguf = gguf::Gguf::parse(&bytes, bytes.len() as u64).unwrap();
    let mut writer = gguf::GgufWriter::new();
    for (key, value) in gguf.metadata.iter() {
        let own = gguf::Value::String(template.into());
        writer.set(key, if key == "tokenizer.chat_template" { own } else { value.clone() }).unwrap();
    }
    for tensor in &gguf.tensors {
        writer.tensor(&tensor.name, tensor.ty, &tensor.shape).unwrap();
    }
    let mut out = writer.start(Vec::new()).unwrap();
    for tensor in &gguf.tensors {
        out.write(&bytes[tensor.offset as usize..tensor.end() as usize]).unwrap();
    }
    home.file("tools.gguf", &out.finish().unwrap())
}

#[test]
fn tools_and_what_they_said_reach_the_model() {
    let home = Home::new();
    let model = with_template(&home, WITH_TOOLS);
    let served = Served::start(home, &model, &[]);
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }]);
    let tokens = |body: Value| served.chat(body)["usage"]["prompt_tokens"].as_u64().unwrap();
    let without = tokens(question(json!({ "max_tokens": 1 })));
    assert!(tokens(question(json!({ "max_tokens": 1, "tools": tools }))) > without + 20, "the template tells of tools");
    assert_eq!(tokens(question(json!({ "max_tokens": 1, "tools": tools, "tool_choice": "none" }))), without);
    let said = |name: &str, id: &str| {
        tokens(json!({ "max_tokens": 1, "messages": [
            { "role": "user", "content": "Rain?" },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "abc", "type": "function", "function": { "name": name, "arguments": "{}" } }] },
            { "role": "tool", "tool_call_id": id, "content": "sun" },
        ] }))
    };
    // The name of what a tool has said is that of its call.
    assert!(said("weatherweatherweather", "abc") > said("weatherweatherweather", "other") + 2);
}

#[test]
fn what_cannot_be_answered_is_told_in_their_words() {
    let served = Served::trained(&["-c", "128"]);
    let code = |body: &Value| {
        let (status, value) = served.post("/v1/chat/completions", body);
        (status, value["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let long = json!({ "messages": [{ "role": "user", "content": "word ".repeat(300) }] });
    assert_eq!(code(&long), (400, "context_length_exceeded".into()));
    let mut streamed = long.clone();
    streamed["stream"] = true.into();
    assert_eq!(code(&streamed), (400, "context_length_exceeded".into()), "before a stream has begun");
    assert_eq!(code(&json!({ "messages": "Hi" })), (400, "invalid_request".into()));
    assert_eq!(
        code(&question(json!({ "tools": [{}] }))),
        (400, "invalid_request".into()),
        "its template knows no tools"
    );
    assert_eq!(code(&question(json!({ "temperature": -1 }))), (400, "invalid_request".into()));
    let format = json!({ "type": "json_schema", "json_schema": { "schema": { "type": "nothing" } } });
    assert_eq!(code(&question(json!({ "response_format": format }))), (400, "invalid_request".into()));
    let (status, _, text) = served.ask("POST", "/v1/chat/completions", &[], "{");
    assert_eq!((status, text.contains("\"error\"")), (400, true));
    assert_eq!(served.ask("GET", "/v1/embeddings", &[], "").0, 404);
    assert_eq!(served.ask("GET", "/v1/chat/completions", &[], "").0, 405);
    let (_, _, models) = served.ask("GET", "/v1/models", &[], "");
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!(
        (&models["data"][0]["id"], &models["data"][0]["context_length"]),
        (&json!("rustdoc-tiny-F16"), &json!(128))
    );
    assert_eq!(served.ask("GET", "/v1/models/rustdoc-tiny-F16", &[], "").0, 200);
    // It still answers.
    served.chat(question(json!({ "max_tokens": 1 })));
}

#[test]
fn web_pages_and_strangers_are_turned_away() {
    let home = Home::new();
    let key = home.file("key", b"secret\n");
    let served =
        Served::start(home, &fixture(TRAINED), &["--api-key-file", &key, "--allow-origin", "https://example.org"]);
    let own = ("Authorization", "Bearer secret");
    let status = |headers: &[(&str, &str)]| served.ask("GET", "/v1/models", headers, "").0;
    assert_eq!(status(&[own]), 200);
    assert_eq!(status(&[]), 401);
    assert_eq!(status(&[("Authorization", "Bearer wrong!")]), 401);
    assert_eq!(status(&[own, ("Host", "evil.example.com")]), 403, "a name that points here");
    assert_eq!(status(&[own, ("Origin", "https://example.com")]), 403);
    let (code, head, _) = served.ask("OPTIONS", "/v1/chat/completions", &[("Origin", "https://example.org")], "");
    assert_eq!(code, 204);
    assert!(head.contains("access-control-allow-origin: https://example.org"), "{head}");
    assert_eq!(served.ask("GET", "/health", &[], "").0, 200);
}

/// A conversation that goes on until the context is full, which takes a while.
fn endless() -> Value {
    json!({ "prompt": "fn", "stream": true, "grammar": "root ::= [a-z]* \"END\"" })
}

#[test]
fn who_hangs_up_ends_the_answer_and_others_wait() {
    let home = Home::new();
    let model = home.model("slow.gguf", &ModelSpec::llama());
    let served = Served::start(home, &model, &["-c", "1000000", "-t", "1"]);
    let mut stream = served.send("POST", "/v1/completions", &[], &endless().to_string());
    let mut first = [0; 200];
    stream.read_exact(&mut first).unwrap();
    let started = Instant::now();
    let whole =
        served.send("POST", "/v1/completions", &[], &json!({ "prompt": "fn", "max_tokens": 1000000 }).to_string());
    std::thread::sleep(Duration::from_millis(300));
    drop(stream);
    drop(whole);
    // Both are gone: the third one's turn comes.
    let (status, value) = served.post("/v1/completions", &json!({ "prompt": "fn", "max_tokens": 2 }));
    assert_eq!(
        (status, &value["usage"]["completion_tokens"]),
        (200, &json!(2)),
        "{value} after {:?}",
        started.elapsed()
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_at_once() {
    let mut served = Served::trained(&[]);
    let mut stream = served.send("POST", "/v1/completions", &[], &endless().to_string());
    let mut first = [0; 200];
    stream.read_exact(&mut first).unwrap();
    common::interrupt(&served.child);
    assert!(served.child.wait().unwrap().success());
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest);
}

#[test]
fn wrong_arguments_are_told_before_the_model_is_loaded() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let told = home.fails(&["serve", "nothing.gguf", "--port", &port], 1, "port");
    assert!(told.contains("another program has it"), "{told}");
    home.fails(&["serve", "nothing.gguf", "--port", "0"], 1, "not-found");
    home.fails(&["serve", "nothing.gguf", "--port", "70000"], 2, "usage");
    home.fails(&["serve", "nothing.gguf", "--port", "0", "--host", "localhost"], 2, "usage");
    let empty = home.file("empty", b"\n");
    home.fails(&["serve", "nothing.gguf", "--port", "0", "--api-key-file", &empty], 2, "usage");
}
