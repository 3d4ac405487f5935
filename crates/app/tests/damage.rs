//! Model files that are deleted, cut or damaged, before and while they are used: typed errors, never a crash.

#![allow(clippy::unwrap_used)]

mod common;

use app::App;
use app::wire::*;
use common::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use test_models::{GgmlType, ModelSpec};

fn small() -> LoadSettings {
    LoadSettings { context: Some(128), ..LoadSettings::default() }
}

async fn chat(app: &Arc<App>) -> String {
    app.chat_create().await.unwrap().id
}

/// Windows does not delete a file in use.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_model_deleted_under_the_app_answers_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = install_trained(folder.path());
    let (app, _) = open(folder.path(), |_| {});
    load(&app, "rustdoc", LoadSettings { context: Some(512), ..LoadSettings::default() }).await;
    let id = chat(&app).await;
    let expected = end(&answer(&app, &id, say("The first element"), greedy(200)).await).0;

    let again = || Turn::Regenerate { message: expected.id.clone() };
    let mut events = begin(&app, &id, again(), greedy(200)).await.unwrap();
    let mut seen = vec![events.recv().await.unwrap()];
    fs::remove_file(&path).unwrap();
    seen.extend(rest(events).await);
    assert_eq!(end(&seen).0.text, expected.text, "deleted while it answered");
    let later = answer(&app, &id, again(), greedy(200)).await;
    assert_eq!(end(&later).0.text, expected.text, "deleted before");

    assert!(app.library().await.unwrap().is_empty());
    let model_id = loaded(&app).model_id;
    app.model_unload().await.unwrap();
    assert_eq!(app.model_load(model_id, small()).await.unwrap_err().code, ErrorCode::FileMissing);
}

/// Windows does not cut a file in use; elsewhere than on Linux reading it is not guarded.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_model_cut_under_the_app_is_an_error_and_the_app_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = install_trained(folder.path());
    install(folder.path(), "other", &ModelSpec::llama());
    let whole = fs::read(&path).unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let id = chat(&app).await;
    for while_answering in [false, true] {
        load(&app, "rustdoc", LoadSettings { context: Some(512), ..LoadSettings::default() }).await;
        let cut = || fs::File::options().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 3).unwrap();
        let seen = if while_answering {
            let mut events = begin(&app, &id, say("A vector of"), greedy(400)).await.unwrap();
            let mut seen = vec![events.recv().await.unwrap()];
            cut();
            seen.extend(rest(events).await);
            seen
        } else {
            cut();
            answer(&app, &id, say("A vector of"), greedy(20)).await
        };
        let (message, reason, error) = end(&seen);
        let error = error.unwrap();
        assert_eq!((reason, error.code), (FinishReason::Error, ErrorCode::FileTruncated), "{error}");
        assert_eq!(error.subject.as_deref(), path.to_str());
        assert_eq!(message.text, streamed(&seen));
        let kept = app.chat(id.clone()).await.unwrap();
        assert_eq!(kept.messages.last().unwrap().finish, Some(FinishReason::Error));

        let error = app.model_load(loaded(&app).model_id, small()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::FileTruncated);
        assert_eq!(error.available, Some(whole.len() as u64 / 3));
        load(&app, "other", small()).await;
        assert_eq!(end(&answer(&app, &id, say("still there"), greedy(2)).await).2, None);
        fs::write(&path, &whole).unwrap();
    }
}

/// Damaged copies of a model: cut, with flipped bits, with runs of other bytes; mostly where the numbers are.
fn mutants(whole: &[u8], count: usize, random: &mut Random) -> Vec<(String, Vec<u8>)> {
    let header = gguf::Gguf::parse(whole, whole.len() as u64).unwrap();
    let data = header.tensors.iter().map(|tensor| tensor.offset).min().unwrap() as usize;
    let find = |text: &[u8]| whole.windows(text.len()).position(|window| window == text).unwrap();
    // The vocabulary is most of the header, and dull.
    let (vocabulary, tensors) = (find(b"tokenizer.ggml.tokens"), find(b"tokenizer.chat_template"));
    let below = |random: &mut Random, n: usize| random.below(n as u64) as usize;
    let place = |random: &mut Random| match random.below(8) {
        0..3 => below(random, vocabulary),
        3..6 => tensors + below(random, data - tensors),
        6 => below(random, data),
        _ => data + below(random, whole.len() - data),
    };
    let mutant = |n: usize| {
        let mut bytes = whole.to_vec();
        let at = place(random);
        let what = match n % 8 {
            0 => {
                bytes.truncate(at);
                "cut"
            }
            1 => {
                let end = bytes.len().min(at + 8);
                bytes[at..end].fill(0xff);
                "ones"
            }
            2 => {
                let end = bytes.len().min(at + 1 + below(random, 64));
                bytes[at..end].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
                "noise"
            }
            _ => {
                bytes[at] ^= 1 << random.below(8);
                "bit"
            }
        };
        (format!("{what}-{at}"), bytes)
    };
    (0..count).map(mutant).collect()
}

/// Loads one damaged model and lets it answer. `Ok`: it answered.
async fn try_out(app: &Arc<App>, path: &Path) -> Result<(), WireError> {
    let list = app.library().await?;
    let model = list.iter().find(|model| Path::new(&model.path) == path).unwrap();
    app.model_load(model.id.clone(), small()).await?;
    let events = answer(app, &chat(app).await, say("hello world"), greedy(4)).await;
    end(&events).2.map_or(Ok(()), Err)
}

/// In a process of its own, whose memory is limited: run by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by damaged_models_are_refused_or_used_without_a_crash"]
async fn child_tries_damaged_models() {
    let folder = PathBuf::from(std::env::var("HEADROOM_TEST_FOLDER").unwrap());
    let models = folder.join("models");
    fs::create_dir_all(&models).unwrap();
    let (app, _) = open(&folder, |config| config.test_device = Some(1 << 20));
    let mut random = Random(20);
    let (mut refused, mut used, mut surprises) = (0, 0, Vec::new());
    for spec in [ModelSpec::llama(), ModelSpec::qwen3moe(), ModelSpec::quantized(GgmlType::Q4_K)] {
        for (name, bytes) in mutants(&spec.build(), 130, &mut random) {
            let path = models.join(format!("{}-{name}-{}.gguf", spec.arch, refused + used));
            fs::write(&path, bytes).unwrap();
            match try_out(&app, &path).await {
                Ok(()) => used += 1,
                Err(error) => {
                    let about_the_file = [
                        ErrorCode::FileInvalid,
                        ErrorCode::FileTruncated,
                        ErrorCode::ModelUnsupported,
                        ErrorCode::RamFull,
                    ];
                    if !about_the_file.contains(&error.code) {
                        surprises.push(format!("{name}: {error:?}"));
                    }
                    refused += 1;
                }
            }
            app.model_unload().await.unwrap();
            fs::remove_file(&path).unwrap();
        }
    }
    println!("TRIED {refused} refused, {used} used");
    assert!(surprises.is_empty(), "{surprises:#?}");
    assert!(refused > 100 && used > 100, "{refused} refused, {used} used");
}

#[test]
fn damaged_models_are_refused_or_used_without_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let folder_variable = [("HEADROOM_TEST_FOLDER", folder.path().display().to_string())];
    let child = if cfg!(target_os = "linux") {
        // 3 GiB of addresses: what a damaged header asks for must not be taken on its word.
        start_under("ulimit -v 3145728; exec \"$0\" \"$@\"", "child_tries_damaged_models", &folder_variable)
    } else {
        start("child_tries_damaged_models", &folder_variable)
    };
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {printed}", output.status);
    assert!(printed.contains("TRIED"), "{printed}");
}
