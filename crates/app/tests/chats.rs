//! Chats: kept, found, branched, binned, and never lost.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use std::path::Path;
use std::sync::Arc;
use test_models::ModelSpec;

async fn ready(folder: &Path) -> Arc<App> {
    install(folder, "tiny", &ModelSpec::llama());
    let (app, _) = open(folder, |_| {});
    load(&app, "tiny", LoadSettings::default()).await;
    app
}

/// A new chat with one message and its answer of three tokens.
async fn talked(app: &Arc<App>, text: &str) -> Chat {
    let id = app.chat_create().await.unwrap().id;
    answer(app, &id, say(text), greedy(3)).await;
    app.chat(id).await.unwrap()
}

async fn found(app: &Arc<App>, words: &str) -> Vec<String> {
    app.chats(words.into(), false).await.unwrap().into_iter().map(|chat| chat.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn named_pinned_binned_and_still_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let settings = Settings { system_prompt: "Be brief.".into(), ..app.settings_get() };
    app.settings_set(settings).await.unwrap();
    let first = talked(&app, "What is a vector?\nTell me.").await;
    let second = talked(&app, "And a slice?").await;
    assert_eq!((first.title.as_str(), first.system_prompt.as_str()), ("What is a vector?", "Be brief."));
    assert_eq!(first.messages.len(), 2);
    assert_eq!(first.path, [first.messages[0].id.clone(), first.messages[1].id.clone()]);
    assert_eq!(first.messages[1].finish, Some(FinishReason::Length));
    assert_eq!(first.messages[1].model.as_deref(), Some("tiny"));
    app.chat_rename(first.id.clone(), "  Vectors ".into()).await.unwrap();
    app.chat_pin(first.id.clone(), true).await.unwrap();
    app.chat_set_system_prompt(second.id.clone(), "Be long.".into()).await.unwrap();
    let third = talked(&app, "Gone soon").await;
    app.chat_delete(third.id.clone()).await.unwrap();
    app.model_unload().await.unwrap();
    drop(app);

    let (app, _) = open(folder.path(), |_| {});
    let list = app.chats(String::new(), false).await.unwrap();
    let titles: Vec<&str> = list.iter().map(|chat| chat.title.as_str()).collect();
    assert_eq!(titles, ["Vectors", "And a slice?"], "pinned first");
    assert_eq!(app.chat(second.id).await.unwrap().system_prompt, "Be long.");
    assert_eq!(app.chat(first.id).await.unwrap().messages[1].text, first.messages[1].text);
    let bin = app.chats(String::new(), true).await.unwrap();
    assert_eq!((bin.len(), bin[0].title.as_str()), (1, "Gone soon"));
    assert!(bin[0].deleted.is_some());
    app.chat_restore(third.id.clone()).await.unwrap();
    assert_eq!(found(&app, "").await.len(), 3);
    for wrong in ["", "9999", "x", "-1"] {
        assert!(app.chat(wrong.into()).await.is_err());
        assert!(app.chat_rename(wrong.into(), "t".into()).await.is_err());
    }
    assert_eq!(app.startup().interrupted_chat, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_words_of_any_length_and_script() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let japanese = talked(&app, "日本語の検索は単語の間に空白がない文章でも動きます").await.id;
    let english = talked(&app, "Vectors grow, 100% of the time; \"quoted\" under_score").await.id;
    assert_eq!(found(&app, "検索は").await, [japanese.as_str()]);
    assert_eq!(found(&app, "単語").await, [japanese.as_str()], "two characters");
    assert_eq!(found(&app, "語").await, [japanese.as_str()], "one character");
    assert_eq!(found(&app, "検索 空白").await, [japanese.as_str()], "all words");
    assert_eq!(found(&app, "検索は vectors").await, Vec::<String>::new());
    assert_eq!(found(&app, "VECTORS").await, [english.as_str()]);
    assert_eq!(found(&app, "0%").await, [english.as_str()], "no wildcard");
    assert_eq!(found(&app, "%%").await, Vec::<String>::new());
    assert_eq!(found(&app, "\"quoted\"").await, [english.as_str()]);
    assert_eq!(found(&app, "r_s").await, [english.as_str()]);
    assert_eq!(found(&app, "text:vectors OR").await, Vec::<String>::new(), "no query language");
    assert_eq!(found(&app, &"長い文章".repeat(20_000)).await, Vec::<String>::new(), "pasted by mistake");
    app.chat_rename(english.clone(), "台所".into()).await.unwrap();
    assert_eq!(found(&app, "台所").await, [english], "titles too");
    let hit = app.chats("空白".into(), false).await.unwrap();
    assert!(hit[0].snippet.as_ref().unwrap().contains("空白がない"), "{:?}", hit[0].snippet);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_new_answers_are_branches() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let chat = talked(&app, "one").await;
    let id = chat.id.clone();
    let (question, reply) = (chat.path[0].clone(), chat.path[1].clone());
    answer(&app, &id, say("two"), greedy(2)).await;
    let second = app.chat(id.clone()).await.unwrap();
    assert_eq!((second.messages.len(), second.path.len()), (4, 4));

    // Another answer to the first question.
    let events = answer(&app, &id, Turn::Regenerate { message: reply.clone() }, greedy(3)).await;
    let other = end(&events).0;
    let regenerated = app.chat(id.clone()).await.unwrap();
    assert_eq!(other.parent.as_deref(), Some(question.as_str()));
    assert_eq!(regenerated.path, [question.clone(), other.id.clone()]);
    assert_eq!(regenerated.messages.len(), 5);

    // The first question asked otherwise.
    let edit = Turn::Edit { message: question.clone(), text: "uno".into() };
    let events = answer(&app, &id, edit, greedy(1)).await;
    assert!(matches!(&events[0], AnswerEvent::Started { user: Some(user), .. } if user.parent.is_none()));
    let edited = app.chat(id.clone()).await.unwrap();
    assert_eq!(edited.path.len(), 2);
    assert_ne!(edited.path[0], question);

    // Back to the first branch, down to its end.
    let back = app.chat_select(id.clone(), reply.clone()).await.unwrap();
    assert_eq!(back.path, second.path);
    assert_eq!(app.chat(id.clone()).await.unwrap().path, second.path);
    let elsewhere = talked(&app, "other").await;
    assert!(app.chat_select(id, elsewhere.path[0].clone()).await.is_err(), "a message of another chat");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_data_base_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), |_| {}));
    let data = folder.path().join("data");
    let mut bytes = std::fs::read(data.join("headroom.db")).unwrap();
    let junk: Vec<u8> = (0..bytes.len().max(8192)).map(|i| (i * 31) as u8).collect();
    bytes.truncate(0);
    bytes.extend(&junk);
    std::fs::write(data.join("headroom.db"), &bytes).unwrap();
    for wal in ["headroom.db-wal", "headroom.db-shm"] {
        let _ = std::fs::remove_file(data.join(wal));
    }
    let (app, _) = open(folder.path(), |_| {});
    assert!(found(&app, "").await.is_empty());
    assert!(app.startup().kept_aside[0].ends_with("headroom.db.broken-1"));
    assert_eq!(std::fs::read(data.join("headroom.db.broken-1")).unwrap(), bytes);
    app.chat_create().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_of_a_newer_version_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let id = ready(folder.path()).await.chat_create().await.unwrap().id;
    let path = folder.path().join("data/headroom.db");
    let version = |version: u32| {
        let db = rusqlite::Connection::open(&path).unwrap();
        let before: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        before
    };
    let ours = version(99);
    let error = try_own(folder.path()).err().unwrap();
    assert_eq!(error.code, ErrorCode::Storage);
    assert!(error.message.contains("newer version"), "{error}");
    version(ours);
    own(folder.path()).chat(id).await.unwrap();
}

/// Writes an answer until it is killed, printing what the window gets: run by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_killed_answer_is_still_there"]
async fn child_answers() {
    let folder = std::env::var("HEADROOM_TEST_FOLDER").unwrap();
    let app = ready_for_long_answers(Path::new(&folder)).await;
    let id = app.chat_create().await.unwrap().id;
    let mut events = begin(&app, &id, say("Tell me."), greedy(100_000)).await.unwrap();
    let mut streamed = 0;
    // Ends with the answer, which is too long for that.
    while let Some(event) = events.recv().await {
        if let AnswerEvent::Text { text } = event {
            streamed += text.len();
            // What the data base holds in the middle of the answer.
            let kept = app.chat(id.clone()).await.unwrap().messages.remove(1);
            assert_eq!(kept.finish, None);
            println!("KEPT {} of {streamed}", kept.text.len());
            if kept.text.len() > 400 {
                println!("ENOUGH");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_answer_is_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("HEADROOM_TEST_FOLDER", folder.path().display().to_string())];
    let printed = run_and_kill("child_answers", &variables, "ENOUGH");
    let mut lengths = printed.lines().filter_map(|line| line.split_once("KEPT ")?.1.split(' ').next()?.parse().ok());
    let was_kept: usize = lengths.next_back().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let chat = app.chats(String::new(), false).await.unwrap().remove(0).id;
    assert_eq!(app.startup().interrupted_chat, Some(chat.clone()));
    let kept = app.chat(chat.clone()).await.unwrap();
    assert_eq!(kept.messages[0].text, "Tell me.");
    assert_eq!(kept.messages[1].finish, Some(FinishReason::Interrupted));
    let text = kept.messages[1].text.as_bytes();
    assert!(text.len() >= was_kept, "{} bytes of {was_kept}", text.len());

    // And it goes on where it was cut.
    load(&app, "tiny", LoadSettings { context: Some(LONG_CONTEXT), ..LoadSettings::default() }).await;
    let go_on = Turn::Continue { message: kept.messages[1].id.clone() };
    let (message, reason, error) = end(&answer(&app, &chat, go_on, greedy(5)).await);
    assert_eq!((reason, error), (FinishReason::Length, None));
    // A character that the cut went through is written again as a whole.
    let whole = kept.messages[1].text.strip_suffix('\u{fffd}').unwrap_or(&kept.messages[1].text);
    assert!(message.text.len() > whole.len() && message.text.starts_with(whole), "{:?} after {whole:?}", message.text);
    assert_eq!(app.chat(chat).await.unwrap().messages.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_chats_do_not_pile_up() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let first = app.chat_create().await.unwrap().id;
    assert_eq!(app.chat_create().await.unwrap().id, first);
    app.chat_set_system_prompt(first.clone(), "Be brief.".into()).await.unwrap();
    let second = app.chat_create().await.unwrap().id;
    assert_ne!(second, first, "a chat with a system prompt of its own is in use");
    answer(&app, &second, say("Hello"), greedy(1)).await;
    let third = app.chat_create().await.unwrap().id;
    assert_ne!(third, second);
    app.chat_delete(third.clone()).await.unwrap();
    assert_ne!(app.chat_create().await.unwrap().id, third, "a chat in the bin stays there");
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_chats_come_back_whole_and_deleted_ones_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let first = talked(&app, "What is a trebuchet?").await;
    let again = Turn::Regenerate { message: first.messages[1].id.clone() };
    answer(&app, &first.id, again, greedy(2)).await;
    app.chat_rename(first.id.clone(), "攻城兵器".into()).await.unwrap();
    app.chat_pin(first.id.clone(), true).await.unwrap();
    app.chat_set_system_prompt(first.id.clone(), "Be brief.".into()).await.unwrap();
    let before = app.chat(first.id.clone()).await.unwrap();
    let binned = talked(&app, "Gone soon").await;
    app.chat_delete(binned.id).await.unwrap();

    let file = folder.path().join("chats.json");
    assert_eq!(app.chats_export(file.clone()).await.unwrap(), 1);
    assert_eq!(app.chats_count().await.unwrap(), 2);
    assert_eq!(app.chats_delete_all().await.unwrap(), 2);
    assert_eq!(app.chats_count().await.unwrap(), 0);
    assert!(app.chats(String::new(), false).await.unwrap().is_empty());
    assert!(app.chats(String::new(), true).await.unwrap().is_empty());
    for name in ["headroom.db", "headroom.db-wal"] {
        let bytes = std::fs::read(folder.path().join("data").join(name)).unwrap();
        assert!(!bytes.windows(9).any(|text| text == b"trebuchet"), "{name} still holds what was deleted");
    }

    assert_eq!(app.chats_import(file).await.unwrap(), 1);
    assert_eq!(found(&app, "trebuchet").await.len(), 1);
    let id = app.chats(String::new(), false).await.unwrap()[0].id.clone();
    let after = app.chat(id).await.unwrap();
    assert_eq!((&after.title, after.pinned, &after.system_prompt), (&before.title, true, &before.system_prompt));
    // Ids are new; everything else, branches too, is as it was.
    let shape = |chat: &Chat| {
        let place = |id: &String| chat.messages.iter().position(|message| message.id == *id);
        let path: Vec<_> = chat.path.iter().map(place).collect();
        let same = |message: &Message| {
            let parent = message.parent.as_ref().and_then(place);
            (parent, format!("{:?}", Message { id: String::new(), parent: None, ..message.clone() }))
        };
        (path, chat.messages.iter().map(same).collect::<Vec<_>>())
    };
    assert_eq!(before.messages.len(), 3);
    assert_eq!(shape(&after), shape(&before));
}

/// Its answers were written by a model, which nobody tells to be brief.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_comes_back_whatever_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let chat = talked(&app, "Tell me all.").await;
    drop(app);
    let long = "é\u{1}\"".repeat(5 << 18);
    let db = rusqlite::Connection::open(folder.path().join("data/headroom.db")).unwrap();
    let sql = "UPDATE messages SET text = ?1, thinking = ?1, raw = ?1 || ?1 WHERE role = 'assistant'";
    db.execute(sql, [&long]).unwrap();
    drop(db);
    let (app, _) = open(folder.path(), |_| {});
    let file = folder.path().join("chats.json");
    assert_eq!(app.chats_export(file.clone()).await.unwrap(), 1);
    app.chats_delete_all().await.unwrap();
    assert_eq!(app.chats_import(file).await.unwrap(), 1);
    let found = app.chats(String::new(), false).await.unwrap().remove(0);
    assert_ne!(found.id, chat.id);
    let answer = app.chat(found.id).await.unwrap().messages.remove(1);
    assert!(answer.text == long && answer.thinking == Some(long), "{} bytes", answer.text.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_archive_adds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let message = |parent: &str, role: &str| format!(r#"{{"parent":{parent},"role":"{role}","text":"x","created":1}}"#);
    let chat = |shown: &str, messages: &[String]| {
        format!(r#"{{"title":"t","updated":1,"shown":{shown},"messages":[{}]}}"#, messages.join(","))
    };
    let file =
        |version: u32, chats: &[String]| format!(r#"{{"headroom_chats":{version},"chats":[{}]}}"#, chats.join(","));
    let good = chat("0", &[message("null", "user")]);
    let cycle = chat("0", &[message("1", "user"), message("0", "assistant")]);
    let itself = chat("0", &[message("0", "user")]);
    let bad = [
        "".into(),
        "{}".into(),
        "[".repeat(100_000),
        file(2, std::slice::from_ref(&good)),
        file(1, &[good.clone(), cycle]),
        file(1, &[good.clone(), itself]),
        file(1, &[good.clone(), chat("1", &[message("null", "user")])]),
        file(1, &[good.clone(), chat("0", &[message("null", "system")])]),
        file(1, &[good.clone(), chat("0", &[message("null", "wizard")])]),
    ];
    let path = folder.path().join("bad.json");
    for text in bad {
        std::fs::write(&path, &text).unwrap();
        let error = app.chats_import(path.clone()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ArchiveInvalid, "{}", &text[..text.len().min(200)]);
        assert!(app.chats(String::new(), false).await.unwrap().is_empty(), "half a file was imported");
    }
    // Editors of Windows mark UTF-8.
    std::fs::write(&path, format!("\u{feff}{}", file(1, &[good]))).unwrap();
    assert_eq!(app.chats_import(path.clone()).await.unwrap(), 1);
    let missing = app.chats_import(folder.path().join("missing.json")).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::FileMissing);
}

/// A file of one chat in which `messages` follow each other.
fn long_chat(path: &std::path::Path, messages: usize) {
    let message = |place: usize| {
        let (parent, role) = match place {
            0 => ("null".into(), "user"),
            _ => ((place - 1).to_string(), if place % 2 == 0 { "user" } else { "assistant" }),
        };
        format!(r#"{{"parent":{parent},"role":"{role}","text":"word {place}","created":1}}"#)
    };
    let messages: Vec<String> = (0..messages).map(message).collect();
    let chat = format!(r#"{{"title":"long","updated":1,"shown":null,"messages":[{}]}}"#, messages.join(","));
    std::fs::write(path, format!(r#"{{"headroom_chats":1,"chats":[{chat}]}}"#)).unwrap();
}

/// The data base deletes with a message those that follow it, so many levels deep at most.
#[tokio::test(flavor = "multi_thread")]
async fn a_chat_of_any_length_can_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let path = folder.path().join("in.json");
    long_chat(&path, 3000);
    assert_eq!(app.chats_import(path.clone()).await.unwrap(), 1);
    assert_eq!(app.chats_delete_all().await.unwrap(), 1);

    assert_eq!(app.chats_import(path).await.unwrap(), 1);
    let chat = app.chats(String::new(), false).await.unwrap().remove(0).id;
    app.chat_delete(chat).await.unwrap();
    drop(app);
    let db = rusqlite::Connection::open(folder.path().join("data/headroom.db")).unwrap();
    db.execute("UPDATE chats SET deleted = 1", []).unwrap();
    drop(db);
    // A month later.
    let (app, _) = open(folder.path(), |_| {});
    assert!(app.chats(String::new(), true).await.unwrap().is_empty());
    drop(app);
    cleared(folder.path()).await;
}

/// Waits until the data base holds no message.
async fn cleared(folder: &std::path::Path) {
    for left in (0..600).rev() {
        let app = own(folder);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        drop(app);
        let db = rusqlite::Connection::open(folder.join("data/headroom.db")).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        let found: u32 = db.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap();
        if found == 0 {
            return;
        }
        assert!(left > 0, "{found} messages are still there");
    }
}

/// Imports until it is killed: run by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by an_import_that_was_killed_leaves_nothing"]
async fn child_imports() {
    let folder = std::path::PathBuf::from(std::env::var("HEADROOM_TEST_FOLDER").unwrap());
    let (app, _) = open(&folder, |config| {
        config.events = Arc::new(|event| match event {
            AppEvent::Import { progress: Some(progress) } if progress.bytes > 1 << 20 => println!("in the middle"),
            _ => {}
        });
    });
    app.chats_import(folder.join("in.json")).await.unwrap();
    println!("to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_killed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    long_chat(&folder.path().join("in.json"), 150_000);
    let variables = [("HEADROOM_TEST_FOLDER", folder.path().display().to_string())];
    let printed = run_and_kill("child_imports", &variables, "in the middle");
    assert!(!printed.contains("to the end"), "{printed}");
    let db = rusqlite::Connection::open(folder.path().join("data/headroom.db")).unwrap();
    let found: u32 = db.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap();
    assert!(found > 1000, "some of it was there");
    drop(db);
    let app = own(folder.path());
    for bin in [false, true] {
        assert!(app.chats(String::new(), bin).await.unwrap().is_empty());
    }
    assert!(app.chats("word".into(), false).await.unwrap().is_empty());
    // What is left of it is not part of another one.
    long_chat(&folder.path().join("in.json"), 10);
    assert_eq!(app.chats_import(folder.path().join("in.json")).await.unwrap(), 1);
    let id = app.chats(String::new(), false).await.unwrap().remove(0).id;
    assert_eq!(app.chat(id).await.unwrap().messages.len(), 10);
    assert_eq!(app.chats_delete_all().await.unwrap(), 1);
    drop(app);
    cleared(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_tells_how_far_it_is_and_can_be_called_off() {
    let folder = tempfile::tempdir().unwrap();
    let (app, events) = open(folder.path(), |_| {});
    let path = folder.path().join("in.json");
    long_chat(&path, 150_000);
    let bytes = std::fs::metadata(&path).unwrap().len();
    let importing = tokio::spawn({
        let (app, path) = (app.clone(), path.clone());
        async move { app.chats_import(path).await }
    });
    let told = || -> Vec<Option<FileProgress>> {
        let events = events.lock().unwrap();
        let progress = events.iter().filter_map(|event| match event {
            AppEvent::Import { progress } => Some(*progress),
            _ => None,
        });
        progress.collect()
    };
    while told().len() < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(app.chats_import(path.clone()).await.unwrap_err().code, ErrorCode::Busy);
    let called_off = std::time::Instant::now();
    app.chats_import_cancel();
    let error = importing.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled, "{error}");
    assert!(called_off.elapsed() < std::time::Duration::from_secs(1), "{:?}", called_off.elapsed());
    let told = told();
    assert_eq!(told.last(), Some(&None));
    let told: Vec<_> = told.into_iter().flatten().collect();
    assert!(told.iter().all(|progress| progress.total == bytes && progress.bytes < bytes), "{told:?}");
    assert!(told.is_sorted_by_key(|progress| progress.bytes));
    assert!(app.chats(String::new(), false).await.unwrap().is_empty());
    // With another one running, all are deleted for good.
    let importing = tokio::spawn({
        let (app, path) = (app.clone(), path.clone());
        async move { app.chats_import(path).await }
    });
    let before = events.lock().unwrap().len();
    while events.lock().unwrap().len() == before {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(app.chats_count().await.unwrap(), 0);
    assert_eq!(app.chats_delete_all().await.unwrap(), 0);
    assert_eq!(importing.await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
    drop(app);
    cleared(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_no_window_can_show_are_not_imported() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let path = folder.path().join("in.json");
    let message = format!(r#"{{"parent":null,"role":"user","text":"x","created":{}}}"#, u64::MAX);
    let chat = format!(r#"{{"title":"t","updated":{},"shown":0,"messages":[{message}]}}"#, i64::MAX);
    std::fs::write(&path, format!(r#"{{"headroom_chats":1,"chats":[{chat}]}}"#)).unwrap();
    assert_eq!(app.chats_import(path).await.unwrap(), 1);
    let summary = app.chats(String::new(), false).await.unwrap().remove(0);
    // The last moment of JavaScript's dates.
    let last = 8_640_000_000_000_000;
    assert_eq!(summary.updated, last);
    assert_eq!(app.chat(summary.id).await.unwrap().messages[0].created, last);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_export_replaces_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let path = folder.path().join("chats.json");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = app.chats_export(path.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::FileAccess);
    assert!(!std::fs::metadata(&path).unwrap().is_file(), "the socket is still there");
    assert_eq!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "new"))
            .count(),
        0
    );
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(app.chats_export(path.clone()).await.unwrap(), 0);
    assert_eq!(app.chats_export(path).await.unwrap(), 0, "a file is replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_the_ending_that_an_import_looks_for() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let named = |name: &str| folder.path().join("out").join(name);
    app.chats_export(named("chats")).await.unwrap();
    assert!(named("chats.json").is_file() && !named("chats").exists());
    // Nobody was asked whether that may be replaced.
    std::fs::write(named("chats.json"), "mine").unwrap();
    app.chats_export(named("chats")).await.unwrap();
    assert_eq!(std::fs::read(named("chats.json")).unwrap(), b"mine");
    assert!(named("chats").is_file());
    app.chats_export(named("chats.txt")).await.unwrap();
    assert!(named("chats.txt").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_whose_messages_follow_each_other_in_a_circle_is_no_endless_way() {
    let folder = tempfile::tempdir().unwrap();
    let id = {
        let app = ready(folder.path()).await;
        talked(&app, "Round and round").await.id
    };
    let db = rusqlite::Connection::open(folder.path().join("data/headroom.db")).unwrap();
    db.execute("UPDATE messages SET parent = (SELECT max(n) FROM messages)", []).unwrap();
    drop(db);
    let (app, _) = open(folder.path(), |_| {});
    let message = app.chat(id.clone()).await.unwrap().messages.pop().unwrap().id;
    let selected = app.chat_select(id, message);
    tokio::time::timeout(std::time::Duration::from_secs(300), selected).await.expect("it ends").unwrap();
}
