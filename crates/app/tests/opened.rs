//! Files that the program is asked to open: a double click, a word on the command line.

#![allow(clippy::unwrap_used)]

mod common;

use app::wire::*;
use common::{install, open};
use std::path::PathBuf;
use test_models::ModelSpec;

/// Writes a model beside the app's folders.
fn elsewhere(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = folder.path().join("デスクトップ").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, ModelSpec::llama().build()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_a_model_of_the_library_once() {
    let folder = tempfile::tempdir().unwrap();
    // The header says what a file is, not its name.
    for name in ["私の モデル.gguf", "model.bin"] {
        let path = elsewhere(&folder, name);
        let (app, events) = open(folder.path(), |_| {});
        assert_eq!(app.opened_file().await.unwrap(), None);
        app.open_file(path.clone());
        assert!(events.lock().unwrap().iter().any(|event| matches!(event, AppEvent::FileAsked)));
        let opened = app.opened_file().await.unwrap().unwrap();
        assert!(opened.added);
        assert_eq!(app.opened_file().await.unwrap(), None, "it is told once");
        let list = app.library().await.unwrap();
        let model = list.iter().find(|model| model.id == opened.model_id).unwrap();
        assert_eq!((model.path.as_str(), model.source), (path.to_str().unwrap(), ModelSource::Folder));
        assert_eq!(app.plan(opened.model_id.clone(), LoadSettings::default()).await.unwrap().layers, 3);

        // By another way to the same file, too.
        let detour = path.parent().unwrap().join("..").join("デスクトップ").join(name);
        for again in [path, detour] {
            app.open_file(again);
            let known = OpenedFile { added: false, ..opened.clone() };
            assert_eq!(app.opened_file().await.unwrap(), Some(known));
        }
        assert_eq!(app.library().await.unwrap().len(), list.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_library_is_that_model_and_of_several_the_last_counts() {
    let folder = tempfile::tempdir().unwrap();
    let ours = install(folder.path(), "owner/name/tiny-Q8_0", &ModelSpec::qwen3());
    let (app, _) = open(folder.path(), |_| {});
    let id = app.library().await.unwrap()[0].id.clone();
    app.open_file(elsewhere(&folder, "other.gguf"));
    app.open_file(ours);
    assert_eq!(app.opened_file().await.unwrap(), Some(OpenedFile { model_id: id, added: false }));
    assert_eq!(app.settings_get().extra_folders, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_part_of_a_split_model_is_that_model() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) =
        (folder.path().join("big-00001-of-00002.gguf"), folder.path().join("big-00002-of-00002.gguf"));
    let parts = ModelSpec::llama().build_split(2);
    let (app, _) = open(folder.path(), |_| {});
    std::fs::write(&second, &parts[1]).unwrap();
    app.open_file(second.clone());
    let missing = app.opened_file().await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::FileMissing);
    assert!(missing.subject.unwrap().ends_with("big-00001-of-00002.gguf"));
    std::fs::write(&first, &parts[0]).unwrap();
    app.open_file(second);
    assert!(app.opened_file().await.unwrap().unwrap().added);
    assert_eq!(app.settings_get().extra_folders, [first.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_model_is_told_and_leaves_the_library_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("letter.gguf"), "Dear Sir or Madam").unwrap();
    std::fs::write(at("empty.gguf"), "").unwrap();
    let whole = ModelSpec::llama().build();
    std::fs::write(at("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(at("strange.gguf"), ModelSpec { arch: "hal9000".into(), ..ModelSpec::llama() }.build()).unwrap();
    let mut no_model = gguf::GgufWriter::new();
    no_model.set("general.type", gguf::Value::String("imatrix".into())).unwrap();
    std::fs::write(at("no-model.gguf"), no_model.header().unwrap()).unwrap();
    std::fs::create_dir(at("folder.gguf")).unwrap();
    let cases = [
        (at("letter.gguf"), ErrorCode::FileInvalid, Some("letter.gguf")),
        (at("empty.gguf"), ErrorCode::FileTruncated, Some("empty.gguf")),
        (at("no-model.gguf"), ErrorCode::FileInvalid, Some("no-model.gguf")),
        (at("cut.gguf"), ErrorCode::FileTruncated, Some("cut.gguf")),
        (at("strange.gguf"), ErrorCode::ModelUnsupported, Some("hal9000")),
        (at("folder.gguf"), ErrorCode::FileInvalid, Some("folder.gguf")),
        (at("none.gguf"), ErrorCode::FileMissing, Some("none.gguf")),
        ("relative.gguf".into(), ErrorCode::FileName, Some("relative.gguf")),
        (at(&"long".repeat(200)), ErrorCode::FileName, None),
        (at(&"a/".repeat(100_000)), ErrorCode::FileName, None),
    ];
    for (path, code, subject) in cases {
        app.open_file(path);
        let error = app.opened_file().await.unwrap_err();
        let about = error.subject.as_deref();
        assert_eq!(error.code, code, "{error}");
        assert_eq!(about.is_some(), subject.is_some(), "{about:?}");
        assert!(about.unwrap_or_default().ends_with(subject.unwrap_or_default()), "{about:?}");
        assert_eq!(app.opened_file().await.unwrap(), None);
    }
    assert_eq!(app.settings_get().extra_folders, [""; 0]);
    assert_eq!(app.library().await.unwrap().len(), 0);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_text_and_pipes_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let (app, _) = open(folder.path(), |_| {});
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe.gguf"));
    std::fs::write(&odd, ModelSpec::llama().build()).unwrap();
    app.open_file(odd.clone());
    assert_eq!(app.opened_file().await.unwrap_err().code, ErrorCode::FileName);
    assert_eq!(app.library_add(odd).await.unwrap_err().code, ErrorCode::FileName);
    // A pipe that nobody writes to would be waited for without an end.
    let pipe = folder.path().join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    app.open_file(pipe);
    assert_eq!(app.opened_file().await.unwrap_err().code, ErrorCode::FileInvalid);
}
