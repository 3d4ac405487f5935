//! Answers of a small trained model: streamed, stopped, asked again, gone on with, in several chats.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

async fn ready(folder: &Path) -> Arc<App> {
    install_trained(folder);
    let (app, _) = open(folder, |_| {});
    load(&app, "rustdoc", LoadSettings { context: Some(512), ..LoadSettings::default() }).await;
    app
}

/// A new chat with a name: one without a name and messages would be given out again.
async fn chat(app: &Arc<App>) -> String {
    let id = app.chat_create().await.unwrap().id;
    app.chat_rename(id.clone(), "mine".into()).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_the_message_and_the_message_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let id = chat(&app).await;
    let events = answer(&app, &id, say("Returns the number of elements"), greedy(40)).await;
    let AnswerEvent::Started { user, answer: begun, path } = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(path, &[user.as_ref().unwrap().id.clone(), begun.id.clone()]);
    let (message, reason, error) = end(&events);
    assert_eq!((reason, error), (FinishReason::Length, None));
    assert_eq!(message.id, begun.id);
    assert!(message.text.len() > 40, "{}", message.text);
    assert_eq!(streamed(&events), message.text);
    let stats = message.stats.unwrap();
    assert_eq!((stats.answer_tokens, stats.context), (40, 512));
    // The last token is written and not fed.
    assert_eq!(stats.context_used, stats.prompt_tokens + 40);
    let kept = app.chat(id).await.unwrap();
    assert_eq!((kept.messages[1].text.as_str(), kept.running), (message.text.as_str(), false));
    assert_eq!(kept.messages[1].stats, message.stats);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_and_no_temperature_give_the_same_answer_again() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let id = chat(&app).await;
    let first = end(&answer(&app, &id, say("An iterator over"), greedy(30)).await).0;
    let again = Turn::Regenerate { message: first.id.clone() };
    let second = end(&answer(&app, &id, again, greedy(30)).await).0;
    assert_eq!(second.text, first.text);
    assert_ne!(second.id, first.id);
    // What the two prompts share, all but their last token, was not computed again.
    let stats = second.stats.unwrap();
    assert_eq!(stats.reused_tokens, stats.prompt_tokens - 1);

    let warm = |seed: u32| Sampling { temperature: 1.0, seed: Some(seed), ..greedy(30) };
    let mut texts = Vec::new();
    for seed in [7, 7, 8] {
        let turn = Turn::Regenerate { message: first.id.clone() };
        texts.push(end(&answer(&app, &id, turn, warm(seed)).await).0.text);
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
    assert_eq!(app.chat(id).await.unwrap().messages.len(), 6, "one question, five answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_goes_on_as_if_it_had_not_been_cut() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let id = chat(&app).await;
    let whole = end(&answer(&app, &id, say("Creates a new"), greedy(24)).await).0;
    let question = whole.parent.clone().unwrap();
    let cut = end(&answer(&app, &id, Turn::Regenerate { message: question }, greedy(10)).await).0;
    assert!(whole.text.starts_with(&cut.text));
    let events = answer(&app, &id, Turn::Continue { message: cut.id.clone() }, greedy(14)).await;
    let message = end(&events).0;
    assert_eq!(message.text, whole.text);
    assert_eq!(cut.text + &streamed(&events), whole.text, "only what is new is streamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_answer_keeps_what_there_is_and_makes_way() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready_for_long_answers(folder.path()).await;
    let (first, second) = (chat(&app).await, chat(&app).await);
    let mut events = begin(&app, &first, say("Tell me all"), greedy(100_000)).await.unwrap();
    let refused = begin(&app, &second, say("And me?"), greedy(1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(app.chat(second.clone()).await.unwrap().messages.is_empty(), "nothing is kept of it");
    assert!(app.chat(first.clone()).await.unwrap().running);
    let mut seen = Vec::new();
    while streamed(&seen).is_empty() {
        seen.push(events.recv().await.unwrap());
    }
    app.chat_stop(&second);
    app.chat_stop(&first);
    seen.extend(rest(events).await);
    let (message, reason, error) = end(&seen);
    assert_eq!((reason, error), (FinishReason::Stopped, None));
    assert_eq!(message.text, streamed(&seen));
    assert_eq!(app.chat(first).await.unwrap().messages[1].text, message.text);
    // Whoever hears of the end can send at once.
    end(&answer(&app, &second, say("And me?"), greedy(1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_chats_in_turn_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let turns = ["Converts a string", "The length of", "Panics if the", "Removes the last"];
    let mut alone = Vec::new();
    for first in [0, 1] {
        let id = chat(&app).await;
        for turn in turns.iter().skip(first).step_by(2) {
            alone.push(end(&answer(&app, &id, say(turn), greedy(16)).await).0.text);
        }
    }
    let (even, odd) = (chat(&app).await, chat(&app).await);
    let mut mixed = Vec::new();
    for (turn, id) in turns.iter().zip([&even, &odd, &even, &odd]) {
        mixed.push(end(&answer(&app, id, say(turn), greedy(16)).await).0.text);
    }
    assert_eq!([&mixed[0], &mixed[2], &mixed[1], &mixed[3]], [&alone[0], &alone[1], &alone[2], &alone[3]]);
    for id in [even, odd] {
        assert_eq!(app.chat(id).await.unwrap().path.len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready(folder.path()).await;
    let id = chat(&app).await;
    let message = end(&answer(&app, &id, say("Hello"), greedy(2)).await).0;
    let nowhere = || "999".to_owned();
    let wrong = [
        (say("  \n"), greedy(1)),
        (say("x"), Sampling { temperature: f32::NAN, ..greedy(1) }),
        (say("x"), Sampling { repeat_penalty: 0.0, ..greedy(1) }),
        (Turn::Send { text: "x".into(), parent: Some(nowhere()) }, greedy(1)),
        (Turn::Regenerate { message: nowhere() }, greedy(1)),
        (Turn::Continue { message: nowhere() }, greedy(1)),
        (Turn::Continue { message: message.parent.unwrap() }, greedy(1)),
        (Turn::Edit { message: message.id, text: "x".into() }, greedy(1)),
    ];
    for (turn, sampling) in wrong {
        let what = format!("{turn:?}");
        assert!(begin(&app, &id, turn, sampling).await.is_err(), "{what}");
    }
    assert_eq!(app.chat(id.clone()).await.unwrap().messages.len(), 2);
    app.model_unload().await.unwrap();
    assert_eq!(begin(&app, &id, say("x"), greedy(1)).await.unwrap_err().code, ErrorCode::NoModelLoaded);
    assert_eq!(app.chat(id).await.unwrap().messages.len(), 2);
}

/// Whoever sends on while another model is being loaded is too late, or the load would wait until that answer is whole.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_keeps_the_next_model_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let app = ready_for_long_answers(folder.path()).await;
    let model = loaded(&app).model_id;
    let chat = app.chat_create().await.unwrap().id;
    let stop = Arc::new(AtomicBool::new(false));
    let sender = tokio::spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move {
            let mut reasons = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                // Most of them find another one, or no model.
                if let Ok(begun) = begin(&app, &chat, say("x"), greedy(100_000)).await {
                    reasons.push(end(&rest(begun).await).1);
                }
            }
            reasons
        }
    });
    let settings = LoadSettings { context: Some(LONG_CONTEXT), ..LoadSettings::default() };
    for _ in 0..8 {
        app.model_load(model.clone(), settings.clone()).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    app.model_unload().await.unwrap();
    let reasons = sender.await.unwrap();
    assert!(reasons.iter().all(|reason| *reason == FinishReason::Stopped), "{reasons:?}");
}
