//! `kill -9` at 50 random moments of a busy program: after each, nothing that was said to be there is missing.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use fake_hub::FakeHub;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;
use test_models::{GgmlType, ModelSpec};

const KILLS: u64 = 50;
const REPO: &str = "owner/tiny-GGUF";

/// What is downloaded.
const QUANTS: [&str; 3] = ["Q8_0", "F16", "F32"];

/// The files by name.
type Files = BTreeMap<String, Vec<u8>>;

fn files() -> Files {
    let types = [GgmlType::Q8_0, GgmlType::F16, GgmlType::F32];
    let build = |ty| ModelSpec { n_layer: 4, n_vocab: 2000, ..ModelSpec::quantized(ty) }.build();
    QUANTS.iter().zip(types).map(|(quant, ty)| (format!("tiny-{quant}.gguf"), build(ty))).collect()
}

fn hub(files: &Files) -> FakeHub {
    let hub = FakeHub::start().unwrap();
    files.iter().for_each(|(name, bytes)| hub.add_bytes(REPO, name, bytes.clone()));
    hub
}

/// Tells the parent what is so from now on.
fn fact(fact: &Value) {
    println!("FACT {fact}");
}

/// Downloads, answers and changes settings until it is killed: run by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by fifty_kills_lose_nothing"]
async fn child_is_busy() {
    let folder = PathBuf::from(std::env::var("HEADROOM_TEST_FOLDER").unwrap());
    let endpoint = std::env::var("HEADROOM_TEST_HUB").unwrap();
    let (app, _) = open(&folder, |config| config.endpoint = Some(endpoint));
    println!("open");
    download(&app).await;
    load(&app, "local", LoadSettings { context: Some(256), ..LoadSettings::default() }).await;
    println!("loaded");
    for round in 0u32.. {
        let settings = Settings { threads: Some(1 + round % 4), ..app.settings_get() };
        app.settings_set(settings).await.unwrap();
        fact(&json!({ "threads": 1 + round % 4 }));
        talk(&app, round).await;
    }
}

async fn download(app: &Arc<App>) {
    let installed = app.library().await.unwrap();
    let listed = app.downloads();
    let page = app.hub_model(REPO.into()).await.unwrap();
    for quant in QUANTS {
        let there = installed.iter().any(|model| model.repo.is_some() && model.quant.as_deref() == Some(quant));
        if !there && !listed.iter().any(|download| download.quant == quant) {
            app.download_start(REPO.into(), page.commit.clone(), quant.into()).await.unwrap();
            fact(&json!({ "download": quant }));
        }
    }
}

async fn talk(app: &Arc<App>, round: u32) {
    let chat = app.chat_create().await.unwrap().id;
    fact(&json!({ "chat": chat }));
    for turn in 0..2 {
        let text = format!("round {round} turn {turn}");
        let mut events = begin(app, &chat, say(&text), greedy(6)).await.unwrap();
        while let Some(event) = events.recv().await {
            match event {
                AnswerEvent::Started { user, .. } => {
                    fact(&json!({ "chat": chat, "id": user.unwrap().id, "text": text }))
                }
                AnswerEvent::Text { .. } => println!("text"),
                AnswerEvent::Finished { message, .. } => {
                    fact(&json!({ "chat": chat, "id": message.id, "text": message.text, "finish": message.finish }));
                }
                _ => {}
            }
        }
    }
    app.chat_rename(chat.clone(), format!("named {round}")).await.unwrap();
    fact(&json!({ "chat": chat, "title": format!("named {round}") }));
}

/// What the killed programs have said.
#[derive(Default)]
struct Facts {
    /// By chat.
    titles: BTreeMap<String, Option<String>>,
    messages: Vec<Value>,
    /// The setting, as it was confirmed last.
    threads: Option<u32>,
    /// Quantizations.
    downloads: Vec<String>,
}

impl Facts {
    fn learn(&mut self, printed: &str) {
        // A line without its end was cut by the kill.
        let whole = printed.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for fact in whole.lines().filter_map(|line| line.split_once("FACT ")) {
            let fact: Value = serde_json::from_str(fact.1).unwrap();
            let text = |key: &str| fact[key].as_str().map(str::to_owned);
            if let Some(threads) = fact["threads"].as_u64() {
                self.threads = Some(threads as u32);
            }
            self.downloads.extend(text("download"));
            if let Some(chat) = text("chat") {
                let title = self.titles.entry(chat).or_default();
                *title = text("title").or(title.take());
            }
            if text("id").is_some() {
                self.messages.push(fact);
            }
        }
    }

    /// Opens the app on what the killed program has left.
    async fn check(&self, folder: &Path, visible: &[String]) {
        let app = own(folder);
        for (chat, title) in &self.titles {
            let found = app.chat(chat.clone()).await.unwrap();
            assert!(title.is_none() || *title == Some(found.title));
        }
        for fact in &self.messages {
            let chat = app.chat(fact["chat"].as_str().unwrap().into()).await.unwrap();
            let message = chat.messages.iter().find(|message| message.id == fact["id"]).expect("a message is lost");
            assert_eq!(message.text, fact["text"]);
            assert_eq!(serde_json::to_value(message.finish).unwrap(), fact["finish"]);
        }
        for chat in app.chats(String::new(), false).await.unwrap() {
            let chat = app.chat(chat.id).await.unwrap();
            let open = chat.messages.iter().find(|m| m.role == Role::Assistant && m.finish.is_none());
            assert!(open.is_none(), "{open:?}");
            assert_eq!(chat.path.len(), chat.messages.len());
        }
        // The last setting that was confirmed, or the one that was being written.
        if let Some(threads) = self.threads {
            let found = app.settings_get().threads.unwrap();
            assert!(found == threads || found == 1 + threads % 4 || found == 1, "{found} after {threads}");
        }
        for quant in &self.downloads {
            let listed = app.downloads().iter().any(|download| download.quant == *quant);
            assert!(listed || visible.iter().any(|file| file.contains(quant)), "the download of {quant}");
        }
        for entry in fs::read_dir(folder.join("data")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains("broken"), "{name}");
        }
    }
}

/// Files that the library could show, each of which must be whole.
fn visible(folder: &Path, files: &Files) -> Vec<String> {
    let repo = folder.join("models").join(REPO);
    let entries = fs::read_dir(&repo).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = entries.map(|name| name.into_string().unwrap()).filter(|n| n.ends_with(".gguf")).collect();
    for name in &names {
        assert!(fs::read(repo.join(name)).unwrap() == files[name], "{name} is visible and not whole");
    }
    names
}

/// Waits until the child has printed so many lines, and a little longer; kills it. Returns what it has printed.
fn kill_after(child: &mut Child, lines: u64, longer: Duration) -> String {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    for _ in 0..lines {
        output.read_line(&mut printed).unwrap();
    }
    std::thread::sleep(longer);
    assert!(child.try_wait().unwrap().is_none(), "the child ended by itself: {printed}");
    child.kill().unwrap();
    child.wait().unwrap();
    output.read_to_string(&mut printed).unwrap();
    printed
}

#[test]
fn fifty_kills_lose_nothing() {
    let (folder, files) = (tempfile::tempdir().unwrap(), files());
    let hub = hub(&files);
    install(folder.path(), "local", &ModelSpec::llama());
    hub.faults(|faults| faults.bytes_per_second = Some(2_000_000));
    let variables =
        [("HEADROOM_TEST_FOLDER", folder.path().display().to_string()), ("HEADROOM_TEST_HUB", hub.endpoint())];
    let (mut random, mut facts) = (Random(50), Facts::default());
    for _ in 0..KILLS {
        let mut child = start("child_is_busy", &variables);
        // A fifth of them while the program starts, a fifth after downloads have said once or twice how far they are.
        let (lines, longer) = match random.below(5) {
            0 => (0, Duration::from_millis(random.below(200))),
            1 => (2, Duration::from_millis(1000 + random.below(1000))),
            _ => (random.below(60), Duration::from_micros(random.below(5000))),
        };
        facts.learn(&kill_after(&mut child, lines, longer));
        let visible = visible(folder.path(), &files);
        // Its end takes with it what the app does in the background.
        tokio::runtime::Runtime::new().unwrap().block_on(facts.check(folder.path(), &visible));
    }
    assert!(facts.messages.len() > 50 && facts.downloads.len() == QUANTS.len(), "the children did something");

    hub.faults(|faults| faults.bytes_per_second = None);
    let served = hub.served();
    let all = files.values().map(|bytes| bytes.len() as u64).sum::<u64>();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let (app, _) = open(folder.path(), |config| config.endpoint = Some(hub.endpoint()));
        while app.downloads().iter().any(|download| download.state != DownloadState::Done) {
            let failed = app.downloads().into_iter().find_map(|download| download.error);
            assert!(failed.is_none(), "{failed:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(visible(folder.path(), &files).len(), QUANTS.len());
    assert!(hub.served() - served < all, "what the killed programs had fetched was used");
}
