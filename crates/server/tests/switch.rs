//! The server as the window switches it on and off.

#![allow(clippy::unwrap_used)]

use app::wire::{AppEvent, ErrorCode, Language, LoadSettings, ServerSettings, ServerState, Settings};
use app::{App, AppConfig};
use serde_json::{Value, json};
use server::Switch;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use test_models::ModelSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Told = Arc<Mutex<Vec<ServerState>>>;

fn open(folder: &Path) -> (Arc<App>, Told) {
    let (data, models) = (folder.join("data"), folder.join("models"));
    std::fs::create_dir_all(&data).unwrap();
    std::fs::create_dir_all(&models).unwrap();
    std::fs::write(models.join("tiny.gguf"), ModelSpec::llama().build()).unwrap();
    let told = Told::default();
    let states = told.clone();
    let events = Arc::new(move |event| {
        if let AppEvent::Server { state } = event {
            states.lock().unwrap().push(state);
        }
    });
    let config = AppConfig {
        local_dir: data.clone(),
        data_dir: data,
        models_dir: models,
        endpoint: None,
        hf_endpoint: None,
        token: None,
        hf_cache_dir: None,
        bundled_models: Vec::new(),
        chat_ram: None,
        test_device: None,
        test_device_fails: None,
        use_gpu: false,
        gpus: None,
        system_language: Language::En,
        events,
        runtime: tokio::runtime::Handle::current(),
    };
    (App::own(config).unwrap(), told)
}

async fn set(app: &Arc<App>, switch: &Switch, on: bool, port: u16) {
    let settings = Settings { server: ServerSettings { on, port }, ..app.settings_get() };
    app.settings_set(settings).await.unwrap();
    switch.follow().await;
}

/// Status and body; `None`: nobody is there.
async fn ask(port: u16, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let body = body.to_string();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Some((head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap()))
}

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loaded_model_answers_while_the_switch_is_on() {
    let folder = tempfile::tempdir().unwrap();
    let (app, told) = open(folder.path());
    let switch = Switch::new(app.clone());
    switch.follow().await;
    assert!(told.lock().unwrap().is_empty(), "off, as it was");
    let (port, other) = (free_port(), free_port());
    set(&app, &switch, true, port).await;
    let on = |port: u16| ServerState::On { url: format!("http://127.0.0.1:{port}/v1") };
    assert_eq!(*told.lock().unwrap(), [on(port)]);
    assert_eq!(app.startup().server, on(port));

    let question = json!({ "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 3 });
    let chat = |port| ask(port, "POST", "/v1/chat/completions", &question);
    assert_eq!(ask(port, "GET", "/v1/models", &Value::Null).await.unwrap().1["data"], json!([]));
    let (status, refused) = chat(port).await.unwrap();
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("model_not_loaded")));
    let id = app.library().await.unwrap()[0].id.clone();
    app.model_load(id, LoadSettings::default()).await.unwrap();
    let (status, answer) = chat(port).await.unwrap();
    assert_eq!((status, &answer["usage"]["completion_tokens"]), (200, &json!(3)), "{answer}");
    assert_eq!(answer["model"], "tiny");

    // The same again changes nothing; another port does.
    set(&app, &switch, true, port).await;
    assert_eq!(told.lock().unwrap().len(), 1);
    set(&app, &switch, true, other).await;
    assert_eq!(chat(other).await.unwrap().0, 200);
    assert!(chat(port).await.is_none(), "it has moved");
    set(&app, &switch, false, other).await;
    assert!(chat(other).await.is_none(), "it is off");
    assert_eq!(told.lock().unwrap()[1..], [on(other), ServerState::Off]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_decide_what_a_request_leaves_open() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path());
    let switch = Switch::new(app.clone());
    let port = free_port();
    set(&app, &switch, true, port).await;
    let id = app.library().await.unwrap()[0].id.clone();
    app.model_load(id, LoadSettings::default()).await.unwrap();
    let question = json!({ "messages": [{ "role": "user", "content": "Hello" }] });
    for tokens in [2, 5] {
        let mut settings = app.settings_get();
        settings.sampling.max_tokens = Some(tokens);
        settings.sampling.temperature = 0.0;
        app.settings_set(settings).await.unwrap();
        let (_, answer) = ask(port, "POST", "/v1/chat/completions", &question).await.unwrap();
        assert_eq!(answer["usage"]["completion_tokens"], json!(tokens), "{answer}");
    }
    switch.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (app, told) = open(folder.path());
    let switch = Switch::new(app.clone());
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    set(&app, &switch, true, port).await;
    match told.lock().unwrap().last() {
        Some(ServerState::Failed { error }) => {
            assert_eq!((error.code, error.subject.as_deref()), (ErrorCode::PortTaken, Some(&*port.to_string())));
        }
        other => panic!("{other:?}"),
    }
    // It is tried again with the next change of settings; what is known already is not told again.
    switch.follow().await;
    assert_eq!(told.lock().unwrap().len(), 1);
    drop(taken);
    switch.follow().await;
    assert!(matches!(app.startup().server, ServerState::On { .. }));
    switch.end().await;
    let low = Settings { server: ServerSettings { on: true, port: 80 }, ..app.settings_get() };
    assert_eq!(app.settings_set(low).await.unwrap_err().subject.as_deref(), Some("port"));
}
