//! Chats that share a loaded model: whoever comes back is not read again, what must go is told, files are not trusted.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use test_models::ModelSpec;

const NO_DISK: u64 = 0;
const DISK: u64 = 1 << 30;

/// An app with a loaded model, and what there is for the memory of chats.
async fn ready(folder: &Path, spec: &ModelSpec, ram: Option<u64>, disk: u64) -> (Arc<App>, Events) {
    install(folder, "tiny", spec);
    let (app, events) = open(folder, |config| config.chat_ram = ram);
    app.settings_set(Settings { chat_memory: disk, ..app.settings_get() }).await.unwrap();
    load_tiny(&app).await;
    (app, events)
}

async fn load_tiny(app: &Arc<App>) {
    load(app, "tiny", LoadSettings { context: Some(1024), ..LoadSettings::default() }).await;
}

/// Chats that nobody has used are given out again: the first message makes it one of its own.
async fn begin_chat(app: &Arc<App>, text: &str) -> String {
    let chat = app.chat_create().await.unwrap().id;
    turn(app, &chat, text).await;
    chat
}

/// What was answered, and how many tokens were read before and in all.
async fn turn(app: &Arc<App>, chat: &str, text: &str) -> (String, u32, u32) {
    let (message, reason, error) = end(&answer(app, chat, say(text), greedy(6)).await);
    assert_eq!((reason, error), (FinishReason::Length, None));
    let stats = message.stats.unwrap();
    (message.text, stats.reused_tokens, stats.prompt_tokens)
}

/// Titles of chats that were forgotten.
fn forgotten(events: &Events) -> Vec<String> {
    let title = |event: &AppEvent| match event {
        AppEvent::Forgotten { title, .. } => Some(title.clone()),
        _ => None,
    };
    events.lock().unwrap().iter().filter_map(title).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder.join("data/memory"));
    let mut files: Vec<PathBuf> = found.map_or(Vec::new(), |found| found.map(|entry| entry.unwrap().path()).collect());
    files.sort();
    files
}

/// The turns of chats that have a model each, so that there is nothing to switch.
async fn alone(spec: &ModelSpec, texts: &[&str]) -> Vec<(String, u32, u32)> {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = ready(folder.path(), spec, Some(0), NO_DISK).await;
    let chat = app.chat_create().await.unwrap().id;
    let mut turns = Vec::new();
    for text in texts {
        turns.push(turn(&app, &chat, text).await);
    }
    turns
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_take_turns_and_none_is_read_again() {
    let first = ["qzxjv kqzx", "second of one", "third of one"];
    let second = ["another chat", "its second", "its third"];
    for spec in [ModelSpec::llama(), ModelSpec::gemma4(), ModelSpec::qwen35()] {
        let expected = [alone(&spec, &first).await, alone(&spec, &second).await];
        assert!(expected[0][2].1 > expected[0][0].2, "{}: a chat alone is not read again", spec.arch);
        // In RAM, and on disk alone.
        for (ram, disk) in [(1 << 30, NO_DISK), (0, DISK)] {
            let folder = tempfile::tempdir().unwrap();
            let (app, events) = ready(folder.path(), &spec, Some(ram), disk).await;
            let mut chats: Vec<(String, Vec<_>)> = Vec::new();
            for (first, second) in first.iter().zip(second) {
                for (at, text) in [first, second].into_iter().enumerate() {
                    if chats.len() == at {
                        chats.push((app.chat_create().await.unwrap().id, Vec::new()));
                    }
                    let (chat, turns) = &mut chats[at];
                    turns.push(turn(&app, chat, text).await);
                }
            }
            for ((_, found), expected) in chats.iter().zip(&expected) {
                let later = |turns: &[(String, u32, u32)]| turns[1..].to_vec();
                assert_eq!(found[0].0, expected[0].0, "{}", spec.arch);
                assert_eq!(later(found), later(expected), "{}", spec.arch);
            }
            assert_eq!(forgotten(&events), [""; 0]);
            assert_eq!(files(folder.path()).is_empty(), disk == NO_DISK);
        }
    }
}

/// Without room the chat is told of, and answered as well.
#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_goes_first_and_that_is_told() {
    let spec = ModelSpec::llama();
    let expected = alone(&spec, &["first", "more"]).await;
    let folder = tempfile::tempdir().unwrap();
    let bytes = {
        let (app, _) = ready(folder.path(), &spec, Some(0), DISK).await;
        begin_chat(&app, "first").await;
        begin_chat(&app, "other").await;
        std::fs::metadata(&files(folder.path())[0]).unwrap().len()
    };
    // Two find room, three do not.
    for (ram, disk) in [(5 * bytes / 2, NO_DISK), (0, 5 * bytes / 2)] {
        let folder = tempfile::tempdir().unwrap();
        let (app, events) = ready(folder.path(), &spec, Some(ram), disk).await;
        let mut chats = Vec::new();
        for text in ["first", "the 2", "the 3"] {
            chats.push(begin_chat(&app, text).await);
        }
        assert_eq!(forgotten(&events), [""; 0], "two are kept, one is in the model");
        chats.push(begin_chat(&app, "the 4").await);
        assert_eq!(forgotten(&events), ["first"]);
        // Back to the second, which is answered again: the third is older than the fourth then.
        let message = app.chat(chats[1].clone()).await.unwrap().messages[1].id.clone();
        let again = end(&answer(&app, &chats[1], Turn::Regenerate { message }, greedy(6)).await).0.stats.unwrap();
        assert_eq!(again.reused_tokens + 1, again.prompt_tokens, "all but the last token, for its logits");
        let (text, reused, _) = turn(&app, &chats[0], "more").await;
        assert_eq!(text, expected[1].0);
        assert!(reused < expected[0].2, "only what all chats begin with: {reused}");
        assert_eq!(forgotten(&events), ["first", "the 3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_remembered_after_a_restart_and_by_the_same_model_only() {
    let folder = tempfile::tempdir().unwrap();
    let spec = ModelSpec::gemma4();
    let expected = alone(&spec, &["first", "more"]).await;
    let (app, _) = ready(folder.path(), &spec, None, DISK).await;
    let chats = [begin_chat(&app, "first").await, begin_chat(&app, "other").await];
    app.close().await;
    drop(app);
    assert_eq!(files(folder.path()).len(), 2);
    #[cfg(unix)]
    for path in files(folder.path()) {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    let (app, events) = open(folder.path(), |_| {});
    // Another model of the same shape: it cannot use them, and leaves them.
    install(folder.path(), "same", &ModelSpec { seed: 2, ..spec.clone() });
    load(&app, "same", LoadSettings { context: Some(1024), ..LoadSettings::default() }).await;
    let other = begin_chat(&app, "a third").await;
    let (_, reused, _) = turn(&app, &chats[1], "with another").await;
    assert!(reused < expected[0].2, "{reused}");
    assert_eq!(files(folder.path()).len(), 2);

    load_tiny(&app).await;
    assert_eq!(turn(&app, &chats[0], "more").await, expected[1]);
    assert_eq!(forgotten(&events), [""; 0]);

    // Deleted with the chat; those that are in RAM as well.
    app.chat_delete(chats[0].clone()).await.unwrap();
    app.chat_delete(other).await.unwrap();
    app.model_unload().await.unwrap();
    assert_eq!(files(folder.path()).len(), 1, "{:?}", files(folder.path()));
    // And with the wish for them.
    app.settings_set(Settings { chat_memory: NO_DISK, ..app.settings_get() }).await.unwrap();
    assert_eq!(files(folder.path()).len(), 0);
    load_tiny(&app).await;
    turn(&app, &chats[1], "again").await;
    app.model_unload().await.unwrap();
    assert_eq!(files(folder.path()).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_nobody_and_half_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = ready(folder.path(), &ModelSpec::llama(), None, DISK).await;
    let chat = begin_chat(&app, "first").await;
    app.close().await;
    drop(app);
    let kept = files(folder.path());
    let memory = folder.path().join("data/memory");
    for name in ["99.kv", "1.new", "01.kv", "x.kv", "1.kv.bak"] {
        std::fs::write(memory.join(name), "something").unwrap();
    }
    let (app, _) = open(folder.path(), |_| {});
    assert_eq!(files(folder.path()), kept);
    // A bin is no reason to keep it.
    app.chat_delete(chat).await.unwrap();
    assert_eq!(files(folder.path()).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_remembered_when_all_chats_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = ready(folder.path(), &ModelSpec::llama(), Some(0), DISK).await;
    for text in ["first", "second"] {
        begin_chat(&app, text).await;
    }
    assert_eq!(files(folder.path()).len(), 1, "the other one is in the model");
    app.chats_delete_all().await.unwrap();
    assert_eq!(files(folder.path()).len(), 0);
    let chat = app.chat_create().await.unwrap().id;
    let (_, reused, _) = turn(&app, &chat, "first").await;
    assert_eq!(reused, 0);
    app.model_unload().await.unwrap();
    assert_eq!(files(folder.path()), [folder.path().join(format!("data/memory/{chat}.kv"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_large_or_of_this_pc_only_is_local() {
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("local");
    // Of an earlier version.
    let with_data = folder.path().join("data/memory");
    std::fs::create_dir_all(&with_data).unwrap();
    std::fs::write(with_data.join("1.kv"), "what was said").unwrap();
    install(folder.path(), "tiny", &ModelSpec::llama());
    let (app, _) = open(folder.path(), |config| (config.local_dir, config.chat_ram) = (local.clone(), Some(0)));
    app.settings_set(Settings { chat_memory: DISK, ..app.settings_get() }).await.unwrap();
    load_tiny(&app).await;
    let chat = begin_chat(&app, "first").await;
    app.model_unload().await.unwrap();
    assert!(local.join(format!("memory/{chat}.kv")).is_file());
    assert!(!with_data.exists());
    app.hardware_measure().await.unwrap();
    assert!(local.join("measured.json").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_no_obstacle() {
    let spec = ModelSpec::qwen35();
    let expected = alone(&spec, &["first", "more"]).await;
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = ready(folder.path(), &spec, Some(0), DISK).await;
    let chat = begin_chat(&app, "first").await;
    let other = begin_chat(&app, "other").await;
    let path = files(folder.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for damaged in [&whole[..whole.len() / 2], &flipped, b"", b"HRKVSEQ\x01", &[0xff; 4096]] {
        std::fs::write(&path, damaged).unwrap();
        let first = app.chat(chat.clone()).await.unwrap().messages[1].id.clone();
        let turn = Turn::Send { text: "more".into(), parent: Some(first) };
        let (message, reason, _) = end(&answer(&app, &chat, turn, greedy(6)).await);
        assert_eq!((reason, &message.text), (FinishReason::Length, &expected[1].0));
        assert!(message.stats.unwrap().reused_tokens < expected[0].2);
        assert!(!path.exists(), "nobody can use it");
        self::turn(&app, &other, "go").await;
        assert!(path.exists(), "written anew");
    }
}

/// Goes on after a chat's first answer, beside all that went on there before.
async fn again(app: &Arc<App>, chat: &str) -> AnswerStats {
    let first = app.chat(chat.into()).await.unwrap().messages[1].id.clone();
    let turn = Turn::Send { text: "go".into(), parent: Some(first) };
    end(&answer(app, chat, turn, greedy(2)).await).0.stats.unwrap()
}

/// Turns to one chat and the other until it is killed: every turn writes a file.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_kill_while_writing_leaves_whole_files"]
async fn child_switches() {
    let folder = PathBuf::from(std::env::var("HEADROOM_TEST_FOLDER").unwrap());
    let (app, _) = open(&folder, |config| config.chat_ram = Some(0));
    load_tiny(&app).await;
    let list = app.chats(String::new(), false).await.unwrap();
    for round in 0.. {
        again(&app, &list[round % 2].id).await;
        println!("turn {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_writing_leaves_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = ready(folder.path(), &ModelSpec::llama(), Some(0), DISK).await;
    begin_chat(&app, "first").await;
    begin_chat(&app, "second").await;
    drop(app);
    let mut random = Random(7);
    for _ in 0..12 {
        let last = format!("turn {}", 1 + random.below(5));
        run_and_kill("child_switches", &[("HEADROOM_TEST_FOLDER", folder.path().display().to_string())], &last);
        let (app, _) = open(folder.path(), |config| config.chat_ram = Some(0));
        assert!(files(folder.path()).iter().all(|path| path.extension().unwrap() == "kv"));
        load_tiny(&app).await;
        let kept = files(folder.path());
        assert!(!kept.is_empty());
        for path in kept {
            let chat = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let stats = again(&app, &chat).await;
            assert!(stats.reused_tokens > 30, "{stats:?}");
        }
        drop(app);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_program_does_not_wait_for_a_slow_disk() {
    let folder = tempfile::tempdir().unwrap();
    let spec = ModelSpec::llama();
    let expected = alone(&spec, &["first", "more"]).await;
    let (app, events) = ready(folder.path(), &spec, Some(1 << 30), DISK).await;
    let chats = [begin_chat(&app, "first").await, begin_chat(&app, "the 2").await];
    app.close_within(std::time::Duration::ZERO).await;
    assert_eq!(forgotten(&events), ["the 2", "first"]);
    drop(app);
    assert_eq!(files(folder.path()), [""; 0].map(PathBuf::from), "nothing half-written");
    let (app, _) = open(folder.path(), |_| {});
    load_tiny(&app).await;
    assert_eq!(turn(&app, &chats[0], "more").await.0, expected[1].0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_chats_that_do_not_all_fit_on_disk_those_used_last_are_kept() {
    let of = |folder: &Path| -> Vec<String> {
        files(folder).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let bytes = |folder: &Path| files(folder).iter().map(|path| std::fs::metadata(path).unwrap().len()).sum::<u64>();
    let mut limit = DISK;
    for kept in [3, 2] {
        let folder = tempfile::tempdir().unwrap();
        let (app, _) = ready(folder.path(), &ModelSpec::llama(), Some(1 << 30), limit).await;
        let mut chats = Vec::new();
        for text in ["first", "the 2", "the 3"] {
            chats.push(begin_chat(&app, text).await);
        }
        app.close().await;
        assert_eq!(of(folder.path()), chats[3 - kept..]);
        limit = bytes(folder.path()) - 1;
        // Written first is not used first.
        app.settings_set(Settings { chat_memory: limit, ..app.settings_get() }).await.unwrap();
        assert_eq!(of(folder.path()), chats[4 - kept..]);
    }
}

/// Stops the answer before the model has turned to its chat.
async fn stopped_at_once(app: &Arc<App>, chat: &str) {
    let (sender, ended) = tokio::sync::oneshot::channel();
    let (stopper, id, mut sender) = (Arc::downgrade(app), chat.to_owned(), Some(sender));
    let sink = move |event| match event {
        AnswerEvent::Started { .. } => stopper.upgrade().unwrap().chat_stop(&id),
        AnswerEvent::Finished { reason, .. } => drop(sender.take().map(|sender| sender.send(reason))),
        _ => {}
    };
    let args = SendArgs { chat: chat.to_owned(), turn: say("never mind"), sampling: Some(greedy(6)) };
    app.chat_send(args, Box::new(sink)).await.unwrap();
    assert_eq!(ended.await.unwrap(), FinishReason::Stopped);
}

/// Gigabytes may have to be written and read before an answer begins.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_stopped_does_not_wait_for_the_memory_of_chats() {
    let (folder, spec) = (tempfile::tempdir().unwrap(), ModelSpec::llama());
    let (app, events) = ready(folder.path(), &spec, Some(0), DISK).await;
    let one = begin_chat(&app, "the first one").await;
    let other = app.chat_create().await.unwrap().id;
    stopped_at_once(&app, &other).await;
    assert!(files(folder.path()).is_empty(), "nobody waits for that any more");
    let expected = alone(&spec, &["the first one", "more"]).await;
    assert_eq!(turn(&app, &one, "more").await, expected[1], "the first chat is still remembered");
    drop(app);

    // After a restart it is read from the file, or would be.
    let (app, _) = open(folder.path(), |config| config.chat_ram = Some(0));
    load_tiny(&app).await;
    begin_chat(&app, "the other one").await;
    turn(&app, &one, "and more").await;
    app.model_unload().await.unwrap();
    let kept = files(folder.path());
    assert_eq!(kept.len(), 2);
    load_tiny(&app).await;
    stopped_at_once(&app, &one).await;
    assert_eq!(files(folder.path()), kept, "what was not read to its end is still there");
    assert!(turn(&app, &one, "once more").await.1 > 0);
    assert_eq!(forgotten(&events), [""; 0]);
}
