//! An app in a temporary folder, with its events.
#![allow(dead_code, clippy::unwrap_used)]

use app::wire::*;
use app::{App, AppConfig, Defaults, Said, Task};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use test_models::ModelSpec;

pub type Events = Arc<Mutex<Vec<AppEvent>>>;

/// Opens the app in `folder`, with its models in `folder/models`.
pub fn open(folder: &Path, change: impl FnOnce(&mut AppConfig)) -> (Arc<App>, Events) {
    let (mut config, events) = config(folder);
    change(&mut config);
    (App::open(config).unwrap(), events)
}

/// The same for a program that leaves downloads as they are.
pub fn own(folder: &Path) -> Arc<App> {
    try_own(folder).unwrap()
}

pub fn try_own(folder: &Path) -> Result<Arc<App>, WireError> {
    App::own(config(folder).0)
}

pub fn config(folder: &Path) -> (AppConfig, Events) {
    // Measured already: tests do not wait for it.
    std::fs::create_dir_all(folder.join("data")).unwrap();
    std::fs::write(folder.join("data/measured.json"), r#"{"ram_read_bytes_per_s":1e10,"int8_ops_per_s":1e11}"#)
        .unwrap();
    let events: Events = Arc::default();
    let seen = events.clone();
    let config = AppConfig {
        data_dir: folder.join("data"),
        local_dir: folder.join("data"),
        models_dir: folder.join("models"),
        endpoint: None,
        hf_endpoint: Some("http://127.0.0.1:9".into()),
        token: None,
        hf_cache_dir: None,
        bundled_models: Vec::new(),
        chat_ram: None,
        test_device: None,
        test_device_fails: None,
        use_gpu: false,
        gpus: None,
        system_language: Language::En,
        events: Arc::new(move |event| seen.lock().unwrap().push(event)),
        runtime: tokio::runtime::Handle::current(),
    };
    (config, events)
}

/// Writes a tiny model to `models/NAME.gguf`.
pub fn install(folder: &Path, name: &str, spec: &ModelSpec) -> PathBuf {
    let path = folder.join("models").join(format!("{name}.gguf"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, spec.build()).unwrap();
    path
}

/// Copies a small trained model to `models/rustdoc.gguf`.
pub fn install_trained(folder: &Path) -> PathBuf {
    let path = folder.join("models/rustdoc.gguf");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/rustdoc-tiny-Q4_K_M.gguf");
    std::fs::copy(source, &path).unwrap();
    path
}

/// Loads the model of this name.
pub async fn load(app: &Arc<App>, name: &str, settings: LoadSettings) {
    let models = app.library().await.unwrap();
    let model = models.iter().find(|model| model.name == name).unwrap();
    assert!(model.problem.is_none(), "{:?}", model.problem);
    app.model_load(model.id.clone(), settings).await.unwrap();
}

/// Room for an answer that takes seconds.
pub const LONG_CONTEXT: u32 = 1 << 16;

/// With a model loaded whose answers do not end by themselves for a while.
pub async fn ready_for_long_answers(folder: &Path) -> Arc<App> {
    install(folder, "tiny", &ModelSpec { n_ctx: LONG_CONTEXT, ..ModelSpec::llama() });
    let (app, _) = open(folder, |_| {});
    load(&app, "tiny", LoadSettings { context: Some(LONG_CONTEXT), ..LoadSettings::default() }).await;
    app
}

pub fn loaded(app: &App) -> LoadedModel {
    match app.model_state() {
        ModelState::Ready { loaded } => loaded,
        other => panic!("{other:?}"),
    }
}

pub fn greedy(max_tokens: u32) -> Sampling {
    Sampling { temperature: 0.0, max_tokens: Some(max_tokens), ..Sampling::default() }
}

pub fn say(text: &str) -> Turn {
    Turn::Send { text: text.into(), parent: None }
}

/// A greedy answer to these messages, for whoever asks the model without a chat.
pub fn task(messages: Vec<Said>, max_tokens: Option<u32>) -> Task {
    let sampling = sampler::Params { temperature: 0.0, ..sampler::Params::default() };
    Task { messages, ..Task::new(Defaults::new(sampling, max_tokens, None)) }
}

/// An answer under way.
pub type Answer = tokio::sync::mpsc::UnboundedReceiver<AnswerEvent>;

pub async fn begin(app: &Arc<App>, chat: &str, turn: Turn, sampling: Sampling) -> Result<Answer, WireError> {
    let (sender, events) = tokio::sync::mpsc::unbounded_channel();
    let args = SendArgs { chat: chat.into(), turn, sampling: Some(sampling) };
    app.chat_send(args, Box::new(move |event| drop(sender.send(event)))).await?;
    Ok(events)
}

/// All events of an answer, to its end.
pub async fn answer(app: &Arc<App>, chat: &str, turn: Turn, sampling: Sampling) -> Vec<AnswerEvent> {
    rest(begin(app, chat, turn, sampling).await.unwrap()).await
}

pub async fn rest(mut answer: Answer) -> Vec<AnswerEvent> {
    let mut events = Vec::new();
    while let Some(event) = answer.recv().await {
        events.push(event);
    }
    events
}

/// The last event of an answer: message, reason and error.
pub fn end(events: &[AnswerEvent]) -> (Message, FinishReason, Option<WireError>) {
    match events.last() {
        Some(AnswerEvent::Finished { message, reason, error, .. }) => (message.clone(), *reason, error.clone()),
        other => panic!("{other:?}"),
    }
}

/// The text that was streamed.
pub fn streamed(events: &[AnswerEvent]) -> String {
    let text = |event: &AnswerEvent| match event {
        AnswerEvent::Text { text } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

/// Runs an ignored test of this test program in a process of its own, and kills it when it has printed `line`.
/// Returns everything that it printed.
pub fn run_and_kill(test: &str, variables: &[(&str, String)], line: &str) -> String {
    use std::io::{BufRead, BufReader};
    let mut child = start(test, variables);
    let mut printed = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.any(|text| {
        printed.push_str(&text.unwrap());
        printed.push('\n');
        printed.trim_end().ends_with(line)
    });
    // SIGKILL, or TerminateProcess.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found, "the child ended by itself: {printed}");
    printed
}

/// Starts an ignored test of this test program in a process of its own. What it prints can be read.
#[allow(clippy::zombie_processes)] // Its callers wait.
pub fn start(test: &str, variables: &[(&str, String)]) -> Child {
    spawn(Command::new(std::env::current_exe().unwrap()), test, variables)
}

/// The same through a shell script, which gets the program and its arguments.
#[allow(clippy::zombie_processes)] // Its callers wait.
pub fn start_under(script: &str, test: &str, variables: &[(&str, String)]) -> Child {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(std::env::current_exe().unwrap());
    spawn(shell, test, variables)
}

fn spawn(mut program: Command, test: &str, variables: &[(&str, String)]) -> Child {
    program.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    program.envs(variables.iter().map(|(name, value)| (name, value)));
    program.stdout(Stdio::piped()).spawn().unwrap()
}

/// Deterministic numbers.
pub struct Random(pub u64);

impl Random {
    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        // Knuth's MMIX generator; the high bits are good.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}
