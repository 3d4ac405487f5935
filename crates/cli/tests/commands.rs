//! Every command about a model: the keys of its JSON, and that its numbers agree with each other.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Home, fixture, has_keys};
use serde_json::{Value, json};
use test_models::{GgmlType, ModelSpec};

const TINY: &str = "rustdoc-tiny-Q4_K_M.gguf";

#[test]
fn inspect() {
    let home = Home::new();
    let value = home.json(&["inspect", &fixture(TINY)]);
    has_keys(
        &value,
        &["architecture", "name", "parameters", "file_bytes", "context_length", "layers", "tensors", "metadata"],
    );
    has_keys(&value["tensors"][0], &["name", "type", "shape", "bytes"]);
    assert_eq!(value["file_bytes"], std::fs::metadata(fixture(TINY)).unwrap().len());
    let text = home.run(&["inspect", &fixture(TINY)]);
    assert!(text.stdout.contains("token_embd.weight"), "{}", text.stdout);
}

#[test]
fn plan() {
    let home = Home::new();
    let model = home.model("m.gguf", &ModelSpec::quantized(GgmlType::Q4_K));
    let arguments = ["plan", &model, "-c", "256", "--ram", "4G", "--vram", "1G", "-ngl", "1", "-ctk", "q8_0"];
    let value = home.json(&arguments);
    let speed = ["tg_tps", "pp_tps", "stream_from"];
    let all = ["gpu_layers", "layers", "context", "fits", "ram", "vram", "gpus", "reasons"];
    has_keys(&value, &[&all[..], &speed].concat());
    // One imagined device, whose rates nobody knows.
    assert_eq!((value["gpus"].as_array().unwrap().len(), &value["stream_from"]), (1, &Value::Null));
    assert_eq!((&value["gpus"][0]["layers"], &value["gpus"][0]["vram"]), (&json!(1), &value["vram"]));
    for side in ["ram", "vram"] {
        has_keys(&value[side], &["weights", "kv", "compute", "other", "total"]);
        let part = |name: &str| value[side][name].as_u64().unwrap();
        assert_eq!(part("weights") + part("kv") + part("compute") + part("other"), part("total"));
    }
    assert_eq!((&value["gpu_layers"], &value["context"], &value["fits"]), (&json!(1), &json!(256), &json!("split")));
    assert!(value["vram"]["weights"].as_u64().unwrap() > 0);
    let on_cpu = home.json(&["plan", &model, "--ram", "4G"]);
    assert_eq!((&on_cpu["gpu_layers"], &on_cpu["fits"]), (&json!(0), &json!("ram")));
    assert!(on_cpu["tg_tps"].as_f64().unwrap() > 0.0, "the hardware is measured when it is first needed: {on_cpu}");
    assert!(home.data().join("measured.json").is_file());
    assert_eq!(home.json(&["plan", &model, "--ram", "1M"])["fits"], "no");
    assert!(home.run(&["plan", &model]).stdout.starts_with("runs from RAM: 0 of 3 layers"));
}

#[test]
fn text_to_ids_and_back() {
    let home = Home::new();
    let model = fixture(TINY);
    let value = home.json(&["tokenize", &model, "--text", "Tell me", "--no-special"]);
    has_keys(&value, &["ids"]);
    let ids: Vec<String> = value["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    let ids = ids.join(",");
    assert_eq!(home.run(&["tokenize", &model, "--hex", "54656c6c206d65", "--no-special"]).stdout.trim(), ids);
    // Exactly the bytes.
    assert_eq!(home.run(&["detokenize", &model, "--ids", &ids]).stdout, "Tell me");
    let value = home.json(&["detokenize", &model, "--ids", &ids]);
    assert_eq!(value, json!({ "text": "Tell me", "hex": "54656c6c206d65" }));
}

#[test]
fn render() {
    let home = Home::new();
    let template = home.file("t.jinja", b"{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}");
    let input = home.file("input.json", br#"{"messages": [{"role": "user", "content": "hi"}]}"#);
    let arguments = ["render", "--template", &template, "--bos", "<s>", "--input", &input];
    assert_eq!(home.run(&arguments).stdout, "<s>hi");
    assert_eq!(home.json(&arguments), json!({ "prompt": "<s>hi" }));
    let model = home.run(&["render", "--model", &fixture(TINY), "--input", &input]);
    assert!(model.stdout.contains("hi"), "{model:?}");
}

#[test]
fn logits() {
    let home = Home::new();
    let (model, out) = (fixture(TINY), home.path("out.f32"));
    let value = home.json(&["logits", &model, "--ids", "1,87,394", "-o", &out, "-fa", "on"]);
    has_keys(&value, &["positions", "vocab"]);
    assert_eq!(value["positions"], 3);
    let all = std::fs::read(&out).unwrap();
    assert_eq!(all.len() as u64, 3 * value["vocab"].as_u64().unwrap() * 4);
    let last = home.json(&["logits", &model, "--ids", "1,87,394", "-o", &out, "--positions", "last"]);
    assert_eq!(last["positions"], 1);
    // A row does not depend on how many are computed together.
    assert!(std::fs::read(&out).unwrap() == all[all.len() / 3 * 2..]);
}

#[test]
fn generate() {
    let home = Home::new();
    let arguments =
        ["generate", &fixture(TINY), "--ids", "1,87,394", "-n", "5", "--temp", "0", "--ignore-eos", "-ctv", "q8_0"];
    let value = home.json(&arguments);
    has_keys(&value, &["ids", "text", "generation_s", "drafted", "accepted"]);
    assert_eq!(value["ids"].as_array().unwrap().len(), 5);
    assert_eq!(home.run(&arguments).stdout, format!("{}\n", value["text"].as_str().unwrap()));
}

#[test]
fn perplexity() {
    let home = Home::new();
    let text = std::fs::read(fixture("rustdoc-eval.txt")).unwrap();
    let file = home.file("text.txt", &text[..6000]);
    let value = home.json(&["perplexity", &fixture(TINY), "--file", &file, "-c", "256"]);
    assert!(value["ppl"].as_f64().unwrap() > 1.0 && value["ppl"].as_f64().unwrap() < 100.0, "{value}");
    assert!(value["tokens"].as_u64().unwrap() > 256);
}

#[test]
fn bench() {
    let home = Home::new();
    let value = home.json(&["bench", &fixture(TINY), "-p", "32", "-n", "8", "-d", "16", "-r", "2", "-t", "2"]);
    let counted = ["bytes_per_token", "multiply_adds_per_token", "kv_bytes"];
    let measured = ["load_s", "pp", "tg", "peak_private_bytes", "peak_rss_bytes", "peak_vram_bytes"];
    has_keys(&value, &[&counted[..], &measured].concat());
    for (part, tokens, more) in [("pp", 32, &[][..]), ("tg", 8, &["drafted", "accepted"])] {
        has_keys(&value[part], &[&["tokens", "tps", "median", "processor_tps"], more].concat());
        assert_eq!(value[part]["tokens"], tokens);
        let rates: Vec<f64> = value[part]["tps"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert_eq!(rates.len(), 2);
        assert!((value[part]["median"].as_f64().unwrap() - (rates[0] + rates[1]) / 2.0).abs() < 1e-6);
    }
    assert!(value["load_s"].as_f64().unwrap() > 0.0);
    assert!(value["kv_bytes"].as_u64().unwrap() > 0);
    assert_eq!(value["peak_vram_bytes"], 0);
    // All matrices but the embeddings, which are tied to the output layer.
    let file = std::fs::metadata(fixture(TINY)).unwrap().len();
    assert!((file / 2..file).contains(&value["bytes_per_token"].as_u64().unwrap()), "{value}");
    assert!(value["multiply_adds_per_token"].as_u64().unwrap() > 0);
    if cfg!(any(target_os = "linux", windows)) {
        let peak = |name: &str| value[name].as_u64().unwrap();
        assert!(peak("peak_private_bytes") > value["kv_bytes"].as_u64().unwrap());
        assert!(peak("peak_rss_bytes") >= peak("peak_private_bytes"));
    }
    let device = ["bench", &fixture(TINY), "-p", "8", "-n", "2", "-r", "1", "-ngl", "2", "--test-device", "64M"];
    assert!(home.json(&device)["peak_vram_bytes"].as_u64().unwrap() > 0);
    let none = home.json(&["bench", &fixture(TINY), "-p", "0", "-n", "2", "-r", "1"]);
    assert_eq!(none["pp"]["median"], Value::Null);
}

#[test]
fn doctor() {
    let home = Home::new();
    let value = home.json(&["doctor"]);
    has_keys(&value, &["version", "cpu", "ram", "gpu", "disk", "works"]);
    let cpu = ["name", "physical_cores", "logical_cores", "features", "kernels", "int8_per_s", "int8_limit_per_s"];
    has_keys(&value["cpu"], &cpu);
    has_keys(&value["ram"], &["total", "available", "read_bytes_per_s", "by_threads"]);
    let by_threads = value["ram"]["by_threads"].as_array().unwrap();
    assert_eq!(by_threads.last().unwrap()["threads"], value["cpu"]["physical_cores"]);
    assert!(by_threads.iter().all(|read| read["read_bytes_per_s"].as_f64().unwrap() > 1e6), "{by_threads:?}");
    let gpu = ["usable", "reason", "text", "driver", "cuda", "gpus", "upload_bytes_per_s", "int8_per_s"];
    has_keys(&value["gpu"], &gpu);
    has_keys(&value["disk"], &["folder", "kind", "free", "read_bytes_per_s"]);
    has_keys(&value["works"], &["largest_file_in_ram", "speed"]);
    assert!(value["ram"]["read_bytes_per_s"].as_f64().unwrap() > 1e6);
    assert_eq!(value["gpu"]["usable"].as_bool().unwrap(), value["gpu"]["text"].is_null());
    let text = home.run(&["doctor"]).stdout;
    assert!(text.starts_with("CPU ") && text.contains("Models up to about"), "{text}");
}

#[test]
fn rows_for_developers() {
    let home = Home::new();
    let values: Vec<u8> = (0..64).flat_map(|i| (i as f32 / 8.0).to_le_bytes()).collect();
    let (input, packed, back) = (home.file("in.f32", &values), home.path("packed"), home.path("back.f32"));
    let value = home.json(&["dev", "quantize", "--type", "q8_0", "--cols", "32", &input, &packed]);
    assert_eq!(value, json!({ "rows": 2, "columns": 32 }));
    let ended = home.run(&["dev", "dequantize", "--type", "q8_0", "--cols", "32", &packed, &back]);
    assert_eq!((ended.status, ended.stdout.as_str()), (0, ""));
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let back = floats(&std::fs::read(back).unwrap());
    assert!(floats(&values).iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.04), "{back:?}");
}
