//! `headroom quantize`: files that can be used, or none.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Home, fixture, has_keys};
use test_models::{GgmlType, ModelSpec};

const SOURCE: &str = "rustdoc-tiny-F16.gguf";

#[test]
fn the_output_is_as_good_as_the_fields() {
    let home = Home::new();
    let output = home.path("q.gguf");
    let value = home.json(&["quantize", &fixture(SOURCE), &output, "q4_k_m", "-t", "2"]);
    has_keys(&value, &["path", "type", "bytes", "input_bytes", "changed", "requantized", "types", "seconds"]);
    assert_eq!(value["types"], serde_json::json!({ "F32": 13, "Q4_K": 39, "Q6_K": 5 }));
    assert_eq!(home.json(&["inspect", &output])["metadata"]["general.file_type"], 15);
    assert_eq!(home.json(&["inspect", &fixture(SOURCE)])["metadata"]["general.file_type"], 1);
    let text = std::fs::read(fixture("rustdoc-eval.txt")).unwrap();
    let text = home.file("text.txt", &text[..8000]);
    let perplexity =
        |model: &str| home.json(&["perplexity", model, "--file", &text, "-c", "256"])["ppl"].as_f64().unwrap();
    let (ours, theirs) = (perplexity(&output), perplexity(&fixture("rustdoc-tiny-Q4_K_M.gguf")));
    assert!(ours <= theirs * 1.005, "{ours} {theirs}");
    assert_eq!(home.json(&["generate", &output, "--ids", "40,41,42", "-n", "3"])["ids"].as_array().unwrap().len(), 3);
}

#[test]
fn rounding_again_is_warned_of() {
    let home = Home::new();
    let model = home.model("m.gguf", &ModelSpec::quantized(GgmlType::Q8_0));
    let ended = home.run(&["quantize", &model, &home.path("q.gguf"), "Q4_0"]);
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("are quantized already"), "{}", ended.stderr);
    assert!(ended.stdout.contains("q.gguf: Q4_0, "), "{}", ended.stdout);
}

#[test]
fn importance_is_measured_and_used() {
    let home = Home::new();
    let (source, text) = (fixture(SOURCE), fixture("rustdoc-eval.txt"));
    let (matrix, output) = (home.path("im.gguf"), home.path("q.gguf"));
    let value = home.json(&["imatrix", &source, "--file", &text, "-o", &matrix, "-c", "128", "--chunks", "4"]);
    has_keys(&value, &["path", "matrices", "chunks", "tokens", "seconds"]);
    // Seven in each of six layers.
    assert_eq!((&value["matrices"], &value["tokens"]), (&42.into(), &512.into()));
    home.json(&["quantize", &source, &output, "IQ2_XXS", "--imatrix", &matrix]);
    let metadata = &home.json(&["inspect", &output])["metadata"];
    assert_eq!(metadata["quantize.imatrix.file"], "im.gguf");
    assert_eq!(metadata["quantize.imatrix.chunks_count"], 4);

    let experts = home.model("moe.gguf", &ModelSpec::qwen3moe());
    let value = home.json(&["imatrix", &experts, "--file", &text, "-o", &matrix, "-c", "32", "--chunks", "2"]);
    assert!(value["matrices"].as_u64().unwrap() > 0);
    let tensors = home.json(&["inspect", &matrix])["tensors"].to_string();
    assert!(tensors.contains("blk.0.ffn_down_exps.weight.counts"), "{tensors}");
    home.json(&["quantize", &experts, &output, "Q4_0", "--imatrix", &matrix]);

    let short = home.file("short.txt", b"short");
    home.fails(&["imatrix", &source, "--file", &short, "-o", &matrix], 2, "usage");
    home.fails(&["imatrix", &matrix, "--file", &text, "-o", &output], 1, "file-invalid");
}

#[test]
fn failures_have_codes() {
    let home = Home::new();
    let (source, output) = (fixture(SOURCE), home.path("q.gguf"));
    let all = home.fails(&["quantize", &source, &output, "Q4_K_XL"], 2, "usage");
    assert!(all.contains("Q4_K_M") && all.contains("MXFP4"), "{all}");
    home.fails(&["quantize", &source, &output, "IQ2_XXS"], 1, "importance");
    home.fails(&["quantize", &source, &home.path("no/q.gguf"), "Q8_0"], 1, "file-missing");
    home.fails(&["quantize", &source, &output, "Q8_0", "--imatrix", &source], 1, "file-invalid");
    let model = home.model("m.gguf", &ModelSpec::qwen3());
    home.fails(&["quantize", &model, &model, "Q8_0"], 2, "usage");
    let bytes = std::fs::read(&model).unwrap();
    let cut = home.file("cut.gguf", &bytes[..bytes.len() / 2]);
    home.fails(&["quantize", &cut, &output, "Q8_0"], 1, "file-truncated");
    assert!(!std::path::Path::new(&output).exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing() {
    use std::time::{Duration, Instant};
    let home = Home::new();
    let folder = home.folder.path().join("out");
    std::fs::create_dir(&folder).unwrap();
    let count = || std::fs::read_dir(&folder).unwrap().count();
    let output = folder.join("q.gguf");
    // The slowest type.
    let child = home.spawn(&["quantize", &fixture(SOURCE), output.to_str().unwrap(), "IQ3_S", "-t", "1"]);
    let started = Instant::now();
    while count() == 0 {
        assert!(started.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(2));
    }
    common::interrupt(&child);
    let ended = common::ended(child.wait_with_output().unwrap());
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("error [cancelled]: "), "{}", ended.stderr);
    assert_eq!(count(), 0);
}
