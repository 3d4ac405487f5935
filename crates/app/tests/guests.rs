//! Other programs and the window take turns with the loaded model.

#![allow(clippy::unwrap_used)]

mod common;

use app::wire::*;
use app::{App, Said, Step};
use common::*;
use engine::Cancel;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

type Ended = Result<(FinishReason, AnswerStats), WireError>;

/// Another program's answer, on a thread of its own; and a word as soon as it is being written.
fn guest(app: &Arc<App>, text: &str, max_tokens: Option<u32>, cancel: &Cancel) -> (JoinHandle<Ended>, Receiver<()>) {
    let messages = vec![Said { role: "user", text: text.into(), ..Said::default() }];
    let task = task(messages, max_tokens);
    let (app, cancel, (written, writes)) = (app.clone(), cancel.clone(), channel());
    let answer = std::thread::spawn(move || {
        app.answer_guest(task, &cancel, &mut |step| {
            if matches!(step, Step::Text(_)) {
                let _ = written.send(());
            }
        })
    });
    (answer, writes)
}

async fn joined(answer: JoinHandle<Ended>) -> Ended {
    tokio::task::spawn_blocking(move || answer.join().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_waits_for_a_guest_and_then_has_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready_for_long_answers(folder.path()).await;
    let cancel = Cancel::new();
    let (answer, writes) = guest(&app, "Hello", None, &cancel);
    writes.recv().unwrap();
    let chat = app.chat_create().await.unwrap().id;
    let mut mine = begin(&app, &chat, say("Hi"), greedy(3)).await.unwrap();
    let mut events = Vec::new();
    while !matches!(events.last(), Some(AnswerEvent::Waiting)) {
        events.push(mine.recv().await.unwrap());
    }
    assert!(matches!(events[..], [AnswerEvent::Started { .. }, AnswerEvent::Waiting]), "{events:?}");
    // Whoever waits can be stopped, and the guest writes on.
    app.chat_stop(&chat);
    let stopped = rest(mine).await;
    assert_eq!(end(&stopped).1, FinishReason::Stopped);
    while writes.try_recv().is_ok() {}
    writes.recv().unwrap();

    let mine = begin(&app, &chat, say("Hi again"), greedy(3)).await.unwrap();
    cancel.cancel();
    assert_eq!(joined(answer).await.unwrap().0, FinishReason::Stopped);
    let (message, reason, error) = end(&rest(mine).await);
    assert_eq!((reason, error), (FinishReason::Length, None));
    assert_eq!(message.stats.unwrap().answer_tokens, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_not_read_again_after_a_guest() {
    let folder = tempfile::tempdir().unwrap();
    install_trained(folder.path());
    let (app, _) = open(folder.path(), |_| {});
    load(&app, "rustdoc", LoadSettings { context: Some(1024), ..LoadSettings::default() }).await;
    let chat = app.chat_create().await.unwrap().id;
    let question = "Tell me about std::vec::Vec, and of its capacity and its allocation.";
    let first = end(&answer(&app, &chat, say(question), greedy(8)).await).0.stats.unwrap();
    let ask = || guest(&app, "Something else entirely: what is a slice?", Some(4), &Cancel::new()).0;
    let (reason, stats) = joined(ask()).await.unwrap();
    assert_eq!((reason, stats.answer_tokens), (FinishReason::Length, 4));
    // Nor is what the guest said, if it comes back at once.
    let again = joined(ask()).await.unwrap().1;
    assert!(again.reused_tokens + 2 >= again.prompt_tokens, "{again:?}");
    let second = end(&answer(&app, &chat, say("And of a slice?"), greedy(8)).await).0.stats.unwrap();
    assert!(second.reused_tokens >= first.prompt_tokens, "{first:?} {second:?}");
    // Nothing of the guest is kept as a chat.
    assert_eq!(app.chats(String::new(), false).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_ends_with_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready_for_long_answers(folder.path()).await;
    let (answer, writes) = guest(&app, "Hello", None, &Cancel::new());
    writes.recv().unwrap();
    let (waiting, _) = guest(&app, "Hello, too", None, &Cancel::new());
    app.model_unload().await.unwrap();
    assert_eq!(joined(answer).await.unwrap().0, FinishReason::Stopped);
    assert_eq!(joined(waiting).await.unwrap_err().code, ErrorCode::NoModelLoaded);
    let (alone, _) = guest(&app, "Hello", Some(1), &Cancel::new());
    assert_eq!(joined(alone).await.unwrap_err().code, ErrorCode::NoModelLoaded);
}
