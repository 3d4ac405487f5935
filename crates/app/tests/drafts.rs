//! A draft model chosen in the load settings: offered where it fits, kept, counted, used; the model loads without it where
//! it cannot be had.

#![allow(clippy::unwrap_used)]

mod common;

use app::wire::*;
use app::{App, Draft, Loading, Said, Task};
use common::*;
use engine::{Cancel, Drafting, Speculation};
use std::path::Path;
use std::sync::Arc;
use test_models::ModelSpec;

/// The trained model and a smaller one of it, one with other tokens, and one that nobody can read.
fn install_all(folder: &Path) {
    install_trained(folder);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    std::fs::copy(fixtures.join("rustdoc-tiny-F16.gguf"), folder.join("models/large.gguf")).unwrap();
    install(folder, "other", &ModelSpec::llama());
    std::fs::write(folder.join("models/broken.gguf"), "GGUF").unwrap();
}

async fn id_of(app: &Arc<App>, name: &str) -> String {
    app.library().await.unwrap().into_iter().find(|model| model.name == name).unwrap().id
}

fn with(draft: Option<&str>) -> LoadSettings {
    LoadSettings { context: Some(512), draft: draft.map(str::to_owned), ..LoadSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn smaller_models_with_the_same_tokens_are_offered() {
    let folder = tempfile::tempdir().unwrap();
    install_all(folder.path());
    let (app, _) = open(folder.path(), |_| {});
    let (large, small, other) = (id_of(&app, "large").await, id_of(&app, "rustdoc").await, id_of(&app, "other").await);
    for _ in 0..2 {
        assert_eq!(app.draft_models(large.clone()).await.unwrap(), std::slice::from_ref(&small));
        assert_eq!(app.draft_models(small.clone()).await.unwrap(), [""; 0], "a larger one is no draft");
        assert_eq!(app.draft_models(other.clone()).await.unwrap(), [""; 0]);
    }
    // A file that takes the place of another is looked at again.
    std::fs::copy(folder.path().join("models/other.gguf"), folder.path().join("models/rustdoc.gguf")).unwrap();
    assert_eq!(app.draft_models(large).await.unwrap(), [""; 0]);
    assert_eq!(app.draft_models("none".into()).await.unwrap_err().code, ErrorCode::FileMissing);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_counted_used_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    install_all(folder.path());
    let (app, _) = open(folder.path(), |_| {});
    let (large, small) = (id_of(&app, "large").await, id_of(&app, "rustdoc").await);
    let alone = app.plan(large.clone(), with(None)).await.unwrap();
    let both = app.plan(large.clone(), with(Some(&small))).await.unwrap();
    let counted = |plan: &Plan| plan.reasons.iter().find(|reason| reason.code == "draftModel").and_then(|r| r.needed);
    assert_eq!(counted(&alone), None);
    assert_eq!(Some(both.ram.total - alone.ram.total), counted(&both));

    load(&app, "large", with(None)).await;
    let before = loaded(&app);
    load(&app, "large", with(Some(&small))).await;
    let now = loaded(&app);
    assert_eq!((now.draft_problem, now.settings.draft.as_ref()), (None, Some(&small)));
    let buffers = |plan: &Plan| plan.ram.kv + plan.ram.compute;
    assert_eq!(now.ram_used - before.ram_used, buffers(&both) - buffers(&alone), "as planned");
    assert!(both.ram.weights > alone.ram.weights);
    assert_eq!(app.library_remove(small.clone()).await.unwrap_err().code, ErrorCode::Busy);
    assert_eq!(app.settings_get().load[&large].draft.as_ref(), Some(&small));
    // Moving layers keeps it.
    app.set_gpu_layers(GpuLayers::Fixed { layers: 0 }, None).await.unwrap();
    drop(app);
    let (app, _) = open(folder.path(), |_| {});
    assert_eq!(app.settings_get().load[&large].draft.as_ref(), Some(&small));

    let guessing = Speculation { drafting: Drafting::Always, lookup: false, max: 4 };
    let path = folder.path().join("models/large.gguf");
    let written = |draft| {
        let loading = Loading { draft, speculation: guessing, ..Loading::default() };
        let (session, _) = app.open_model(&path, with(Some(&small)), loading, &mut |_, _| {}, &Cancel::new()).unwrap();
        let mut text = String::new();
        let messages = vec![Said { role: "user", text: "Returns an iterator over".into(), ..Said::default() }];
        let task = Task { raw: true, ..task(messages, Some(40)) };
        let step = &mut |step| {
            if let app::Step::Text(more) = step {
                text.push_str(&more);
            }
        };
        let (_, stats) = session.answer(task, &Cancel::new(), step).unwrap();
        (text, stats)
    };
    let (plain, stats) = written(Draft::None);
    assert_eq!((stats.drafted, stats.accepted), (0, 0));
    let (guessed, stats) = written(Draft::AsSet);
    assert_eq!(guessed, plain);
    assert!(stats.accepted > 8 && stats.drafted >= stats.accepted, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_said_and_the_model_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    install_all(folder.path());
    let (app, _) = open(folder.path(), |_| {});
    load(&app, "large", with(None)).await;
    let alone = loaded(&app);
    let (other, broken) = (id_of(&app, "other").await, id_of(&app, "broken").await);
    let expected =
        [("gone", ErrorCode::DraftMissing), (&other, ErrorCode::DraftVocabulary), (&broken, ErrorCode::FileTruncated)];
    for (draft, code) in expected {
        load(&app, "large", with(Some(draft))).await;
        let now = loaded(&app);
        assert_eq!(now.draft_problem.as_ref().map(|problem| problem.code), Some(code), "{:?}", now.draft_problem);
        assert_eq!(now.settings.draft.as_deref(), Some(draft), "the wish stays");
        assert_eq!((now.ram_used, now.plan.ram), (alone.ram_used, alone.plan.ram), "nothing of it is held");
        let chat = app.chat_create().await.unwrap().id;
        assert_eq!(end(&answer(&app, &chat, say("What is it?"), greedy(4)).await).2, None);
    }
    let plan = app.plan(id_of(&app, "large").await, with(Some("gone"))).await.unwrap();
    assert_eq!(plan.ram, alone.plan.ram);
    // A file that is asked for on the command line must be there.
    let file = |name: &str| Draft::File(folder.path().join(format!("models/{name}.gguf")));
    for name in ["other", "broken", "nothing"] {
        let loading = Loading { draft: file(name), ..Loading::default() };
        let path = folder.path().join("models/large.gguf");
        assert!(app.open_model(&path, with(None), loading, &mut |_, _| {}, &Cancel::new()).is_err(), "{name}");
    }
}
