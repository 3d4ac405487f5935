//! A full context is never cut in silence.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use std::path::Path;
use std::sync::Arc;
use test_models::ModelSpec;

const CONTEXT: u32 = 128;

async fn ready(folder: &Path, policy: ContextPolicy, system_prompt: &str) -> (Arc<App>, String) {
    install(folder, "tiny", &ModelSpec::llama());
    let (app, _) = open(folder, |_| {});
    let settings = Settings { context_policy: policy, system_prompt: system_prompt.into(), ..app.settings_get() };
    app.settings_set(settings).await.unwrap();
    load(&app, "tiny", LoadSettings { context: Some(CONTEXT), ..LoadSettings::default() }).await;
    let chat = app.chat_create().await.unwrap().id;
    (app, chat)
}

fn dropped(events: &[AnswerEvent]) -> Vec<(u32, u32)> {
    let turns = |event: &AnswerEvent| match event {
        AnswerEvent::Dropped { turns, tokens } => Some((*turns, *tokens)),
        _ => None,
    };
    events.iter().filter_map(turns).collect()
}

/// Turns of about so many tokens each: the tiny vocabulary has one for most letters.
async fn talk(app: &Arc<App>, chat: &str, turns: usize) -> Vec<Vec<AnswerEvent>> {
    let mut all = Vec::new();
    for turn in 0..turns {
        all.push(answer(app, chat, say(&format!("turn {turn} qzxjv kqzx")), greedy(8)).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_an_answer_that_fills_the_context_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let (app, chat) = ready(folder.path(), ContextPolicy::Stop, "").await;
    let events = answer(&app, &chat, say("hello"), greedy(100_000)).await;
    let (message, reason, error) = end(&events);
    assert_eq!((reason, error), (FinishReason::ContextFull, None));
    let stats = message.stats.unwrap();
    assert_eq!((stats.context_used, stats.context), (CONTEXT, CONTEXT));
    assert!(!message.text.is_empty() && dropped(&events).is_empty());
    let kept = app.chat(chat.clone()).await.unwrap();
    assert_eq!(kept.messages[1].finish, Some(FinishReason::ContextFull));
    assert_eq!(kept.messages[1].text, message.text);

    // Neither can it go on, nor another message be added: with numbers, and the message is kept.
    for turn in [Turn::Continue { message: message.id.clone() }, say("more")] {
        let (_, reason, error) = end(&answer(&app, &chat, turn, greedy(5)).await);
        let error = error.unwrap();
        assert_eq!(
            (reason, error.code, error.available),
            (FinishReason::ContextFull, ErrorCode::ContextFull, Some(128))
        );
        assert!(error.needed.unwrap() > 128);
    }
    let kept = app.chat(chat.clone()).await.unwrap();
    assert_eq!((kept.messages[1].text.as_str(), kept.messages[2].text.as_str()), (message.text.as_str(), "more"));

    // With more room the same chat goes on.
    load(&app, "tiny", LoadSettings { context: Some(1024), ..LoadSettings::default() }).await;
    let (_, reason, _) = end(&answer(&app, &chat, say("again"), greedy(5)).await);
    assert_eq!(reason, FinishReason::Length);
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_leaves_out_whole_turns_and_keeps_the_system_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let (app, chat) = ready(folder.path(), ContextPolicy::DropOldest, "be brief").await;
    let all = talk(&app, &chat, 8).await;
    let first = all.iter().position(|events| !dropped(events).is_empty()).expect("8 turns are more than 128 tokens");
    assert!(first > 1, "nothing is dropped before it must be");
    for events in &all {
        let (message, reason, error) = end(events);
        assert_eq!((reason, error), (FinishReason::Length, None));
        assert!(message.stats.unwrap().context_used <= CONTEXT);
    }
    for events in &all[first..] {
        let dropped = dropped(events);
        assert_eq!(dropped.len(), 1, "told in every answer that it concerns");
        assert!(dropped[0].0 >= 1 && dropped[0].1 > 8, "{dropped:?}");
    }
    // The chat itself is whole.
    assert_eq!(app.chat(chat).await.unwrap().messages.len(), 16);
}

/// As few turns go as must, also of a long conversation.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_turns_the_latest_that_fit_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = ready(folder.path(), ContextPolicy::DropOldest, "").await;
    load(&app, "tiny", LoadSettings { context: Some(512), ..LoadSettings::default() }).await;
    let message = |place: usize| {
        let parent = place.checked_sub(1);
        let role = if place.is_multiple_of(2) { "user" } else { "assistant" };
        serde_json::json!({ "parent": parent, "role": role, "text": "qzxjv kqzx", "created": 1, "finish": "end" })
    };
    let messages: Vec<_> = (0..2000).map(message).collect();
    let chat = serde_json::json!({ "title": "t", "updated": 1, "shown": 1999, "messages": messages });
    let file = folder.path().join("long.json");
    std::fs::write(&file, serde_json::json!({ "headroom_chats": 1, "chats": [chat] }).to_string()).unwrap();
    app.chats_import(file).await.unwrap();
    let chats = app.chats(String::new(), false).await.unwrap();
    let id = chats.into_iter().find(|chat| chat.title == "t").unwrap().id;
    let events = answer(&app, &id, say("qzxjv kqzx"), greedy(4)).await;
    let stats = end(&events).0.stats.unwrap();
    let [(turns, tokens)] = dropped(&events)[..] else { panic!("told once") };
    // All turns are alike.
    let (of_one, room) = (tokens / turns, 512 / 8);
    assert_eq!(of_one * turns, tokens);
    let used = stats.prompt_tokens + room;
    assert!(used <= 512 && used + of_one > 512, "{turns} turns of {of_one}: {stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_dropped_turns_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (app, chat) = ready(folder.path(), ContextPolicy::DropOldest, "be brief").await;
    load(&app, "tiny", LoadSettings { context: Some(640), ..LoadSettings::default() }).await;
    let mut random = Random(3);
    let mut drops = 0;
    for turn in 0..12 {
        let text: String = (0..60).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        let events = answer(&app, &chat, say(&text), greedy(8)).await;
        let stats = end(&events).0.stats.unwrap();
        // The last answer and the new turn; all that was said before them is there.
        let read = stats.prompt_tokens - stats.reused_tokens;
        assert!(turn == 0 || read < 130, "turn {turn}: {stats:?}");
        drops += dropped(&events).len();
    }
    assert!(drops > 2, "{drops}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_oldest_goes_on_in_the_middle_of_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (app, chat) = ready(folder.path(), ContextPolicy::DropOldest, "").await;
    talk(&app, &chat, 1).await;
    let events = answer(&app, &chat, say("now a long one"), greedy(100_000)).await;
    let (message, reason, error) = end(&events);
    // The tiny model never ends: when nothing is left to drop, the context is full.
    assert_eq!((reason, error), (FinishReason::ContextFull, None));
    assert_eq!(streamed(&events), message.text);
    let dropped_at = events.iter().position(|event| matches!(event, AnswerEvent::Dropped { .. })).unwrap();
    let text_before = events[..dropped_at].iter().any(|event| matches!(event, AnswerEvent::Text { .. }));
    assert!(text_before, "turns went while it was written");
    assert_eq!(dropped(&events).iter().map(|(turns, _)| turns).sum::<u32>(), 1);
    let stats = message.stats.unwrap();
    assert_eq!(stats.context_used, CONTEXT);
    assert!(stats.answer_tokens > CONTEXT / 3, "{}", stats.answer_tokens);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_longer_than_the_context_is_refused_with_numbers_whatever_the_policy() {
    for policy in [ContextPolicy::Stop, ContextPolicy::DropOldest] {
        let folder = tempfile::tempdir().unwrap();
        let (app, chat) = ready(folder.path(), policy, "").await;
        talk(&app, &chat, 1).await;
        let events = answer(&app, &chat, say(&"qzxjv".repeat(100)), greedy(5)).await;
        let (message, reason, error) = end(&events);
        let error = error.unwrap();
        assert_eq!((reason, error.code), (FinishReason::ContextFull, ErrorCode::ContextFull));
        assert!(error.needed.unwrap() > 400 && error.available == Some(128), "{error:?}");
        assert_eq!(message.text, "");
        assert_eq!(app.chat(chat).await.unwrap().messages[2].text.len(), 500, "the message is kept, to be edited");
    }
}
