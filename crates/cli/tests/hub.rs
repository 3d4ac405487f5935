//! Models from the Hub and the library, against a local server that behaves like it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Home, ended, has_keys};
use fake_hub::FakeHub;
use serde_json::Value;
use std::path::Path;
use test_models::{GgmlType, ModelSpec};

const REPO: &str = "owner/tiny-GGUF";

/// A repository with two quantizations, and a home that knows the server.
fn hub() -> (FakeHub, Home) {
    let hub = FakeHub::start().unwrap();
    hub.add_bytes(REPO, "tiny-Q8_0.gguf", ModelSpec::quantized(GgmlType::Q8_0).build());
    hub.add_bytes(REPO, "tiny-Q4_K_M.gguf", ModelSpec::quantized(GgmlType::Q4_K).build());
    hub.add_bytes(REPO, "README.md", "hello");
    hub.add_bytes("other/words", "notes.txt", "no model");
    let home = Home::with_hub(&hub.endpoint());
    (hub, home)
}

/// Random bytes that are a model for the Hub only: downloads do not look inside.
fn large(hub: &FakeHub) -> usize {
    let bytes = ModelSpec { n_vocab: 8192, n_layer: 4, ..ModelSpec::quantized(GgmlType::F32) }.build();
    hub.add_bytes("owner/large", "large-F32.gguf", bytes.clone());
    bytes.len()
}

#[test]
fn search_and_files() {
    let (_hub, home) = hub();
    let value = home.json(&["search", "tiny"]);
    has_keys(&value, &["models", "next"]);
    let first = &value["models"][0];
    has_keys(first, &["repo", "downloads", "likes", "updated", "gated", "note"]);
    assert_eq!(first["repo"], REPO);
    assert!(home.run(&["search", "tiny"]).stdout.starts_with(REPO));
    // Without words: suggestions, without the network.
    assert!(home.json(&["search"])["models"].as_array().unwrap().len() > 5);

    let value = home.json(&["files", REPO]);
    has_keys(&value, &["repo", "commit", "gated", "quants"]);
    let quants = value["quants"].as_array().unwrap();
    assert_eq!(quants.len(), 2);
    quants.iter().for_each(|quant| has_keys(quant, &["quant", "files", "bytes", "recommended", "installed"]));
    assert!(home.run(&["files", REPO]).stdout.contains("recommended here"));
    home.fails(&["files", "owner/none"], 1, "not-found");
}

#[test]
fn plans_from_a_remote_header() {
    let (hub, home) = hub();
    hub.clear_log();
    let remote = home.json(&["plan", &format!("{REPO}/tiny-Q8_0.gguf"), "-c", "512", "--ram", "4G"]);
    assert_eq!(remote["fits"], "ram");
    let same = home.json(&["plan", &format!("{REPO}:q8_0"), "-c", "512", "--ram", "4G"]);
    assert_eq!(remote["ram"], same["ram"]);
    assert!(
        hub.log().iter().all(|request| request.method != "GET" || request.status != 200 || request.range.is_none())
    );
    home.fails(&["plan", &format!("{REPO}/none.gguf")], 1, "not-found");
}

#[test]
fn pull_list_use_and_remove() {
    let (_hub, home) = hub();
    let pulled = home.json(&["pull", &format!("{REPO}:Q8_0")]);
    has_keys(&pulled, &["repo", "commit", "quant", "id", "name", "path", "bytes", "already"]);
    assert_eq!((&pulled["quant"], &pulled["already"]), (&"Q8_0".into(), &false.into()));
    let path = pulled["path"].as_str().unwrap();
    let expected = ModelSpec::quantized(GgmlType::Q8_0).build();
    assert!(std::fs::read(path).unwrap() == expected);
    assert_eq!(home.json(&["pull", &format!("{REPO}:Q8_0")])["already"], true);

    let list = home.json(&["list"]);
    has_keys(&list, &["models"]);
    let model = &list["models"][0];
    has_keys(
        model,
        &[
            "id",
            "name",
            "path",
            "source",
            "repo",
            "quant",
            "architecture",
            "parameters",
            "bytes",
            "context_length",
            "layers",
            "problem",
        ],
    );
    assert_eq!(
        (&model["name"], &model["source"], &model["repo"]),
        (&"tiny-Q8_0".into(), &"library".into(), &REPO.into())
    );
    assert!(home.run(&["list"]).stdout.starts_with("tiny-Q8_0"));

    // By name, file name, id and repository.
    for name in ["tiny-q8_0", "tiny-Q8_0.gguf", model["id"].as_str().unwrap(), REPO, "owner/tiny-GGUF:Q8_0"] {
        assert_eq!(home.json(&["run", name, "-p", "x", "-n", "2"])["answer_tokens"], 2, "{name}");
    }
    assert_eq!(home.json(&["plan", "tiny-Q8_0", "--ram", "4G"])["fits"], "ram");

    let verified = home.json(&["verify", "tiny-Q8_0"]);
    has_keys(&verified, &["id", "name", "files"]);
    assert_eq!(verified["files"][0], serde_json::json!({ "path": path, "compared": true, "problem": null }));
    assert_eq!(home.run(&["verify", "tiny-Q8_0"]).stdout, "tiny-Q8_0.gguf: as the Hub has it\n");
    let mut damaged = expected.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(path, damaged).unwrap();
    let found = home.run(&["verify", "tiny-Q8_0"]);
    assert_eq!(found.status, 1, "{found:?}");
    assert!(found.stdout.contains("tiny-Q8_0.gguf is damaged"), "{found:?}");
    assert!(found.stderr.contains("error [file-damaged]: "), "{found:?}");

    // Nobody is there to be asked.
    home.fails(&["remove", "tiny-Q8_0"], 2, "usage");
    home.fails(&["remove", "none", "--yes"], 1, "not-found");
    let removed = home.json(&["remove", "tiny-Q8_0", "--yes"]);
    has_keys(&removed, &["id", "name", "path", "bytes_freed"]);
    assert_eq!(removed["bytes_freed"], expected.len());
    assert!(!Path::new(path).exists());
    assert_eq!(home.json(&["list"])["models"], Value::Array(Vec::new()));
}

#[test]
fn pull_chooses_for_this_pc_and_says_so() {
    let (_hub, home) = hub();
    let ended = home.run(&["pull", REPO]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stderr.contains("Q4_K_M") && ended.stderr.contains("recommended"), "{ended:?}");
    assert!(ended.stdout.starts_with("tiny-Q4_K_M is here"), "{ended:?}");
    home.fails(&["pull", "other/words"], 1, "not-found");
    home.fails(&["pull", &format!("{REPO}:Q2_K")], 1, "not-found");
}

#[test]
fn gated_repositories_say_what_to_do() {
    let (hub, home) = hub();
    hub.gate(REPO);
    hub.add_token("hf_secret", &[REPO]);
    let text = home.fails(&["pull", &format!("{REPO}:Q8_0")], 1, "needs-token");
    assert!(!text.contains("hf_secret"), "{text}");
    let mut command = home.command(&["pull", &format!("{REPO}:Q8_0")]);
    let ended = ended(command.env("HF_TOKEN", "hf_secret").output().unwrap());
    assert_eq!(ended.status, 0, "{ended:?}");
}

#[test]
fn a_cut_connection_is_resumed() {
    let (hub, home) = hub();
    let size = large(&hub) as u64;
    hub.faults(|faults| faults.cuts.extend([size / 4, size / 2]));
    let pulled = home.json(&["pull", "owner/large"]);
    assert_eq!(pulled["bytes"], size);
    assert!(hub.served() < size + size / 4, "{} of {size}", hub.served());
}

#[test]
#[cfg(unix)]
fn an_interrupted_pull_goes_on_later() {
    use std::time::Duration;
    let (hub, home) = hub();
    let size = large(&hub) as u64;
    hub.faults(|faults| faults.bytes_per_second = Some(size / 4));
    let child = home.spawn(&["pull", "owner/large"]);
    while hub.served() < size / 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
    common::interrupt(&child);
    let stopped = ended(child.wait_with_output().unwrap());
    assert_eq!(stopped.status, 1, "not at its end: {stopped:?}");
    assert!(stopped.stderr.contains("error [cancelled]"), "{stopped:?}");
    assert_eq!(home.json(&["list"])["models"], Value::Array(Vec::new()), "only whole models are shown");

    // Another command leaves it alone.
    let before = hub.served();
    home.fails(&["remove", "large-F32", "--yes"], 1, "not-found");
    assert_eq!(hub.served(), before);

    hub.faults(|faults| faults.bytes_per_second = None);
    assert_eq!(home.json(&["pull", "owner/large"])["bytes"], size);
    assert!(hub.served() < size + size / 3, "{} of {size}", hub.served());
}

/// As it is while the window is open.
#[test]
fn a_folder_in_use_can_be_read() {
    let (_hub, home) = hub();
    home.json(&["pull", &format!("{REPO}:Q8_0")]);
    let lock = std::fs::File::create(home.data().join("headroom.lock")).unwrap();
    lock.try_lock().unwrap();
    assert_eq!(home.json(&["list"])["models"][0]["name"], "tiny-Q8_0");
    assert_eq!(home.json(&["plan", "tiny-Q8_0", "--ram", "4G"])["fits"], "ram");
    assert_eq!(home.json(&["run", "tiny-Q8_0", "-p", "x", "-n", "1"])["answer_tokens"], 1);
    home.json(&["search", "tiny"]);
    home.json(&["files", REPO]);
    home.fails(&["pull", REPO], 1, "busy");
    home.fails(&["remove", "tiny-Q8_0", "--yes"], 1, "busy");
    drop(lock);
    home.json(&["remove", "tiny-Q8_0", "--yes"]);
}

#[test]
fn models_of_other_programs_are_not_deleted() {
    let (_hub, home) = hub();
    let snapshot = home.folder.path().join("hf/hub/models--owner--cached/snapshots").join("a".repeat(40));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(snapshot.join("cached-Q8_0.gguf"), ModelSpec::quantized(GgmlType::Q8_0).build()).unwrap();
    let refs = home.folder.path().join("hf/hub/models--owner--cached/refs");
    std::fs::create_dir_all(&refs).unwrap();
    std::fs::write(refs.join("main"), "a".repeat(40)).unwrap();
    assert_eq!(home.json(&["list"])["models"][0]["source"], "hf-cache");
    home.fails(&["remove", "cached-Q8_0", "--yes"], 2, "usage");
    assert!(snapshot.join("cached-Q8_0.gguf").is_file());
}
