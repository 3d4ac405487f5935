//! The file of a conversation has it at every moment, also where the program is killed, where the disk does not hold what the
//! model remembers, and where somebody else writes there.

#![allow(clippy::unwrap_used)]

mod common;

use app::wire::*;
use app::{Said, Session, TalkFile};
use common::*;
use engine::Cancel;
use std::path::Path;
use test_models::ModelSpec;

fn said(role: &'static str, text: &str) -> Said {
    Said { role, text: text.into(), ..Said::default() }
}

fn session(folder: &Path) -> Session {
    let model = install(folder, "tiny", &ModelSpec::llama());
    let (app, _) = open(folder, |_| {});
    let settings = LoadSettings { context: Some(512), ..LoadSettings::default() };
    app.open_model(&model, settings, app::Loading::default(), &mut |_, _| {}, &Cancel::new()).unwrap().0
}

/// Answers, so that the model has something to remember.
fn answer(session: &Session, messages: &mut Vec<Said>, text: &str) {
    messages.push(said("user", text));
    session.answer(task(messages.clone(), Some(4)), &Cancel::new(), &mut |_| {}).unwrap();
    messages.push(said("assistant", "whatever it was"));
}

/// The messages of a file, and how many tokens the model remembers with it.
fn resumed(path: &Path, session: &Session) -> (Vec<Said>, Option<u32>) {
    let (_, resumed) = TalkFile::open(path, session).unwrap();
    (resumed.messages, resumed.remembered.and_then(Result::ok))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_there_as_soon_as_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let path = folder.path().join("talk");
    let (mut file, begun) = TalkFile::open(&path, &session).unwrap();
    assert!(begun.messages.is_empty() && begun.remembered.is_none());
    let mut messages = vec![said("system", "Be brief.")];
    file.note(&messages, true).unwrap();
    assert_eq!(resumed(&path, &session), (messages.clone(), None));
    // While an answer is written; the file does not grow with every look at it.
    messages.push(said("user", "日本語で\n\"お願い\""));
    file.note(&messages, false).unwrap();
    let (_, cut) = TalkFile::open(&path, &session).unwrap();
    assert_eq!((cut.messages.len(), cut.unanswered.as_deref()), (1, Some("日本語で\n\"お願い\"")));
    for text in ["はい", "はい。", "はい。これ", "はい"] {
        let so_far = [&messages[..], &[said("assistant", text)]].concat();
        file.note(&so_far, false).unwrap();
        assert_eq!(resumed(&path, &session).0, so_far);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
    messages.push(said("assistant", "はい、これです。"));
    file.note(&messages, true).unwrap();
    // With what the model remembers, to which later messages are added.
    answer(&session, &mut messages, "And more?");
    file.keep(&messages, &session, &Cancel::new()).unwrap();
    let (there, remembered) = resumed(&path, &session);
    assert!(there == messages && remembered.is_some_and(|tokens| tokens > 20), "{remembered:?}");
    let (mut file, _) = TalkFile::open(&path, &session).unwrap();
    let mut later = messages.clone();
    answer(&session, &mut later, "More.");
    file.note(&later, true).unwrap();
    assert_eq!(resumed(&path, &session), (later.clone(), remembered));
    // Killed within a line, at every byte of it.
    let whole = std::fs::read(&path).unwrap();
    let line = whole.len() - whole.windows(8).rposition(|bytes| bytes == b"{\"from\":").unwrap();
    for cut in 1..=line {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(resumed(&path, &session), (messages.clone(), remembered), "{cut} bytes less");
    }
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let (mut file, _) = TalkFile::open(&path, &session).unwrap();
    file.note(&later, true).unwrap();
    assert!(std::fs::read(&path).unwrap() == whole, "goes on behind the last whole line");
    // /reset
    file.note(&[], true).unwrap();
    assert_eq!(resumed(&path, &session).0, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_what_the_model_remembers_it_is_still_there() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let path = folder.path().join("talk");
    let (mut file, _) = TalkFile::open(&path, &session).unwrap();
    let mut messages = Vec::new();
    answer(&session, &mut messages, "Hello?");
    file.note(&messages, true).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(file.keep(&messages, &session, &cancel).is_err(), "called off");
    assert_eq!(resumed(&path, &session), (messages.clone(), None));
    assert!(!folder.path().join("talk.new").exists());
    // Cut where the model's part is: what is in the head is there, and the next message as well.
    answer(&session, &mut messages, "And?");
    file.keep(&messages, &session, &Cancel::new()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    let (mut file, found) = TalkFile::open(&path, &session).unwrap();
    assert!(found.messages == messages && found.remembered.unwrap().is_err());
    answer(&session, &mut messages, "Still?");
    file.note(&messages, true).unwrap();
    assert_eq!(resumed(&path, &session).0, messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_do_not_write_into_each_others_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let path = folder.path().join("talk");
    let (mut one, _) = TalkFile::open(&path, &session).unwrap();
    one.note(&[said("user", "a"), said("assistant", "b")], true).unwrap();
    let (mut other, begun) = TalkFile::open(&path, &session).unwrap();
    let ours = [&begun.messages[..], &[said("user", "c"), said("assistant", "d")]].concat();
    let theirs = [&begun.messages[..], &[said("user", "somewhat longer"), said("assistant", "d")]].concat();
    one.note(&ours, true).unwrap();
    other.note(&theirs, true).unwrap();
    one.note(&ours, true).unwrap();
    let beside = folder.path().join("talk.2");
    assert_eq!((one.path(), other.path()), (path.as_path(), beside.as_path()));
    one.keep(&ours, &session, &Cancel::new()).unwrap();
    other.keep(&theirs, &session, &Cancel::new()).unwrap();
    assert_eq!((resumed(&path, &session).0, resumed(&beside, &session).0), (ours, theirs));
    // Deleted meanwhile: it is written again.
    std::fs::remove_file(&path).unwrap();
    one.note(&[said("user", "e")], true).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_program_left_beside_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let (path, beside) = (folder.path().join("talk"), folder.path().join("talk.new"));
    let (mut file, _) = TalkFile::open(&path, &session).unwrap();
    let mut messages = Vec::new();
    answer(&session, &mut messages, "Hello?");
    file.keep(&messages, &session, &Cancel::new()).unwrap();
    // Killed while it was replaced.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&beside, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(resumed(&path, &session).0, messages);
    assert!(!beside.exists());
    // Whoever has notes of that name keeps them.
    std::fs::write(&beside, "notes").unwrap();
    let (mut file, _) = TalkFile::open(&path, &session).unwrap();
    file.keep(&messages, &session, &Cancel::new()).unwrap();
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), "notes");
    assert!(std::fs::read(&path).unwrap() == whole);
    let there = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(there, 4, "data, models, talk and the notes");
}
