//! The program with an NVIDIA GPU: its driver is a libcuda.so.1 over the emulator of `backend-cuda`, so that everything
//! between the command line and the kernels is the real thing. Needs a C++ compiler (`c++`).
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../backend-cuda/tests/common/library.rs"]
mod library;

use common::{Ended, Home, ended, fixture};
use serde_json::Value;
use test_models::ModelSpec;

const TRAINED: &str = "rustdoc-tiny-F16.gguf";

/// A home on a machine with a GPU.
struct Machine {
    home: Home,
    driver: [(&'static str, String); 4],
    _folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        Machine { home: Home::new(), driver: library::fake_driver(folder.path()), _folder: folder }
    }

    /// `settings` of the driver: see `backend-cuda/emulator/libcuda/settings.h`.
    fn run(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let mut command = self.home.gpu_command(arguments);
        ended(command.envs(self.driver.clone()).envs(settings.iter().copied()).output().unwrap())
    }

    fn json(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Value {
        let ended = self.run(settings, &[&["--json"], arguments].concat());
        assert_eq!(ended.status, 0, "{arguments:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }
}

#[test]
fn doctor_names_the_gpu_or_says_why_there_is_none() {
    let machine = Machine::new();
    let gpu = machine.json(&[], &["doctor"])["gpu"].clone();
    assert_eq!((&gpu["usable"], &gpu["text"]), (&true.into(), &Value::Null), "{gpu}");
    let card = &gpu["gpus"][0];
    assert_eq!((card["name"].as_str(), card["compute_capability"].as_str()), (Some("Fake GPU"), Some("8.6")));
    assert_eq!(card["vram_total"].as_u64(), Some(8 << 30));
    let text = machine.run(&[], &["doctor"]).stdout;
    assert!(text.contains("Fake GPU, 8.59 GB of 8.59 GB free"), "{text}");
    let reasons = [
        ("FAKE_CUDA_DEVICES", "0", "noDevice", "there is no NVIDIA GPU"),
        ("FAKE_CUDA_VERSION", "11080", "driverTooOld", "the driver CUDA 11.8 is too old"),
        ("FAKE_CUDA_CAPABILITY", "52", "deviceTooOld", "compute capability is 5.2; 6.1 or newer"),
    ];
    for (name, value, kind, text) in reasons {
        let gpu = machine.json(&[(name, value)], &["doctor"])["gpu"].clone();
        assert_eq!((&gpu["usable"], &gpu["reason"]["type"]), (&false.into(), &kind.into()), "{gpu}");
        assert!(gpu["text"].as_str().unwrap().contains(text), "{gpu}");
        assert!(gpu["gpus"].as_array().unwrap().is_empty());
    }
    let off = machine.json(&[], &["doctor", "--no-gpu"])["gpu"].clone();
    assert_eq!(off["reason"]["type"], "turnedOff");
}

#[test]
fn plans_count_what_the_gpu_takes_and_what_it_lacks() {
    let machine = Machine::new();
    let plan = |settings: &[(&str, &str)], model: &str| machine.json(settings, &["plan", model, "-c", "512"]);
    let trained = fixture(TRAINED);
    let all = plan(&[], &trained);
    assert_eq!((&all["fits"], &all["gpu_layers"]), (&"gpu".into(), &all["layers"]));
    assert!(all["vram"]["other"].as_u64().unwrap() > 0, "code and scratch memory: {all}");
    assert!(all["tg_tps"].as_f64().unwrap() > 0.0, "the GPU's bandwidth is known: {all}");
    // Other programs have nearly everything: what is left is theirs.
    let others = machine.home.file("others", format!("{}", (8u64 << 30) - (200 << 20)).as_bytes());
    let none = plan(&[("FAKE_CUDA_OTHERS", &others)], &trained);
    assert_eq!((&none["fits"], &none["gpu_layers"]), (&"ram".into(), &0.into()));
    // What there is no kernel for stays on the CPU, and the plan says why.
    let wide = machine.home.model("t.gguf", &ModelSpec { head_dim: 544, ..ModelSpec::llama3() });
    let lacking = plan(&[], &wide);
    assert_eq!((&lacking["fits"], &lacking["gpu_layers"]), (&"ram".into(), &0.into()));
    let reasons: Vec<&str> = lacking["reasons"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(reasons.iter().any(|reason| reason.contains("heads of 544 and 544")), "{reasons:?}");
    let made = machine.json(&[], &["generate", &wide, "--ids", "3,4,5", "-n", "4", "--temp", "0", "-ngl", "99"]);
    assert_eq!(made["ids"].as_array().unwrap().len(), 4);
}

#[test]
fn answers_come_from_the_gpu_and_go_on_without_it() {
    let machine = Machine::new();
    let model = fixture(TRAINED);
    let talk = ["run", &model, "-p", "Tell me about std::vec::Vec.", "--temp", "0", "-n", "8", "-c", "128"];
    let on = |layers: &'static str| [&talk[..], &["-ngl", layers]].concat();
    let expected = machine.json(&[], &on("0"))["text"].clone();
    assert!(expected.as_str().unwrap().starts_with("A draining iterator"), "{expected}");
    let bench = machine.json(&[], &["bench", &model, "-p", "8", "-n", "2", "-r", "1", "-ngl", "99"]);
    assert!(bench["peak_vram_bytes"].as_u64().unwrap() > 0);
    for layers in ["99", "3"] {
        let ended = machine.run(&[], &on(layers));
        assert_eq!((ended.status, ended.stdout.trim_end()), (0, expected.as_str().unwrap()), "{ended:?}");
        assert!(!ended.stderr.contains("moved to RAM"), "{}", ended.stderr);
    }
    // Too small from the beginning.
    let small = machine.run(&[("FAKE_CUDA_MEMORY", "5000000")], &on("99"));
    assert_eq!((small.status, small.stdout.trim_end()), (0, expected.as_str().unwrap()), "{small:?}");
    assert!(small.stderr.contains("there was no room for"), "{}", small.stderr);
    // Lost at the first operation, in the prompt, in the answer.
    for launches in ["0", "40", "400"] {
        let lost = machine.run(&[("FAKE_CUDA_LAUNCHES", launches)], &on("99"));
        assert_eq!((lost.status, lost.stdout.trim_end()), (0, expected.as_str().unwrap()), "{launches}: {lost:?}");
        assert!(lost.stderr.contains("moved to RAM; 0 of"), "{launches}: {}", lost.stderr);
    }
}

/// Experts are computed on the CPU, from the file, and everything else of their layers on the GPU.
#[test]
fn experts_stay_on_the_cpu_when_asked_to() {
    let machine = Machine::new();
    let mixture = machine.home.model("m.gguf", &ModelSpec { n_layer: 4, ..ModelSpec::qwen3moe() });
    let generate = ["generate", &mixture, "--ids", "3,4,5", "-n", "8", "--temp", "0", "-ngl"];
    let on = |flags: &[&str]| machine.json(&[], &[&generate[..], flags].concat())["ids"].clone();
    let expected = on(&["0"]);
    for flags in [&["99"][..], &["99", "-ncmoe", "2"], &["99", "--n-cpu-moe", "all"], &["3", "--n-cpu-moe", "2"]] {
        assert_eq!(on(flags), expected, "{flags:?}");
    }
    let plan = |flags: &[&str]| machine.json(&[], &[&["plan", &mixture, "-c", "512"], flags].concat());
    let (whole, apart) = (plan(&["-ngl", "99"]), plan(&["-ngl", "99", "--n-cpu-moe", "all"]));
    assert_eq!((whole["experts_in_ram"].as_u64(), whole["fits"].as_str()), (Some(0), Some("gpu")));
    assert_eq!((apart["experts_in_ram"].as_u64(), apart["fits"].as_str()), (Some(4), Some("split")));
    let weights = |plan: &Value| plan["vram"]["weights"].as_u64().unwrap();
    assert!(weights(&apart) < weights(&whole), "{apart}");
    let text = machine.run(&[], &["plan", &mixture, "-c", "512", "-ngl", "99", "--n-cpu-moe", "2"]).stdout;
    assert!(text.contains("5 of 5 layers on the GPU (of 2 without their experts)"), "{text}");
    assert_eq!(machine.run(&[], &["plan", &mixture, "--n-cpu-moe", "some"]).status, 2);
}

/// Memory for cards that hold so many percent each of what a plan counts on one, besides what is taken in any case.
fn rooms(plan: &Value, percents: &[u64]) -> String {
    let bytes = |part: &str| plan["vram"][part].as_u64().unwrap();
    let layers = bytes("total") - bytes("other");
    // What is left to others, and what comes with every card.
    let room = |percent: &u64| ((256 << 20) + bytes("other") + layers * percent / 100).to_string();
    percents.iter().map(room).collect::<Vec<_>>().join(",")
}

/// Two cards that do not hold a model alone share its layers; the plan says so, and answers are those of the CPU, also
/// when one of them is full or lost.
#[test]
fn two_gpus_share_a_model() {
    let machine = Machine::new();
    let model = fixture(TRAINED);
    let plan = |settings: &[(&str, &str)], flags: &[&str]| {
        machine.json(settings, &[&["plan", &model, "-c", "128"], flags].concat())
    };
    let layers = |plan: &Value| -> Vec<u64> {
        plan["gpus"].as_array().unwrap().iter().map(|gpu| gpu["layers"].as_u64().unwrap()).collect()
    };
    let whole = plan(&[], &[]);
    let all = whole["layers"].as_u64().unwrap();
    let memory = rooms(&whole, &[75, 60]);
    // What is guessed of the kernels' code until it was measured.
    let module = ((64 << 20) / library::modules().len() + 1).to_string();
    let two = [("FAKE_CUDA_MEMORY", memory.as_str()), ("FAKE_CUDA_MODULE", module.as_str())];
    // On one alone a part of it is.
    let one = plan(&two, &["--gpu", "0"]);
    assert_eq!((&one["fits"], layers(&one).len()), (&"split".into(), 1));
    let both = plan(&two, &[]);
    assert_eq!((&both["fits"], &both["gpu_layers"]), (&"gpu".into(), &all.into()));
    let shares = layers(&both);
    assert!(shares.len() == 2 && shares[0] > shares[1] && shares[1] > 0, "{shares:?}");
    for gpu in both["gpus"].as_array().unwrap() {
        assert!(gpu["vram"]["total"].as_u64() <= gpu["available"].as_u64(), "{gpu}");
    }
    let sum = |part: &str| -> u64 {
        both["gpus"].as_array().unwrap().iter().map(|gpu| gpu["vram"][part].as_u64().unwrap()).sum()
    };
    assert_eq!(both["vram"]["total"].as_u64().unwrap(), sum("total"));
    let reasons: Vec<&str> = both["reasons"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let reason = format!("No GPU holds these layers alone: {} on Fake GPU, {} on Fake GPU 2.", shares[0], shares[1]);
    assert!(reasons.contains(&reason.as_str()), "{reasons:?}");
    let text = machine.run(&two, &["plan", &model, "-c", "128"]).stdout;
    assert!(text.contains(&format!("  Fake GPU 2: {} layers, ", shares[1])), "{text}");
    assert_eq!(layers(&plan(&two, &["--gpu", "1,0"])).len(), 2);
    // Where one holds all, one has all.
    for flags in [&["--vram", "8G,12G"][..], &["--vram", "8G,12G", "--gpu", "all"]] {
        assert_eq!(layers(&plan(&two, flags)), [all, 0], "{flags:?}");
    }

    let talk = ["run", &model, "-p", "Tell me about std::vec::Vec.", "--temp", "0", "-n", "8", "-c", "128"];
    let run = |settings: &[(&str, &str)], flags: &[&str]| machine.run(settings, &[&talk[..], flags].concat());
    let expected = run(&[], &["-ngl", "0"]).stdout;
    assert!(expected.starts_with("A draining iterator"), "{expected}");
    for flags in [&["-ngl", "99"][..], &[], &["-ngl", "99", "--gpu", "1,0"], &["-ngl", "5"]] {
        let ended = run(&two, flags);
        assert_eq!((ended.status, &ended.stdout), (0, &expected), "{flags:?}: {ended:?}");
        assert!(!ended.stderr.contains("moved to") && !ended.stderr.contains("no room"), "{}", ended.stderr);
    }
    // One is lost during the prompt: the other keeps its layers.
    for (launches, name, left) in [("40,-1", "Fake GPU", shares[1]), ("-1,40", "Fake GPU 2", shares[0])] {
        let ended = run(&[two[0], two[1], ("FAKE_CUDA_LAUNCHES", launches)], &["-ngl", "99"]);
        assert_eq!((ended.status, &ended.stdout), (0, &expected), "{launches}: {ended:?}");
        let note = format!("[{name}: {} layers moved to RAM; {left} of {all} layers are on the GPU now]", all - left);
        assert!(ended.stderr.contains(&note), "{launches}: {} instead of {note}", ended.stderr);
    }
    // More than has room: what the first does not hold goes to the second, the rest stays in RAM.
    let small = rooms(&whole, &[20, 30]);
    let tight = [("FAKE_CUDA_MEMORY", small.as_str()), two[1]];
    let fits = plan(&tight, &["-ngl", "99"]);
    assert_eq!((&fits["fits"], layers(&fits).len()), (&"no".into(), 2));
    let ended = run(&tight, &["-ngl", "99"]);
    assert_eq!((ended.status, &ended.stdout), (0, &expected), "{ended:?}");
}

#[test]
fn several_gpus_are_chosen_by_number_or_name() {
    let machine = Machine::new();
    let two = [("FAKE_CUDA_MEMORY", "2147483648,8589934592")];
    let names = |flags: &[&str]| -> Vec<String> {
        let doctor = machine.json(&two, &[&["doctor"], flags].concat());
        let gpus = doctor["gpu"]["gpus"].as_array().unwrap();
        gpus.iter().map(|gpu| gpu["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["Fake GPU 2", "Fake GPU"], "the one with the most memory");
    assert_eq!(names(&["--gpu", "0"]), ["Fake GPU", "Fake GPU 2"]);
    assert_eq!(names(&["--gpu", "gpu 2"]), ["Fake GPU 2", "Fake GPU"]);
    assert_eq!(names(&["--gpu", "0,1"]), ["Fake GPU", "Fake GPU 2"]);
    assert_eq!(names(&["--gpu", "all"]), ["Fake GPU 2", "Fake GPU"]);
    let text = |flags: &[&str]| machine.run(&two, &[&["doctor"], flags].concat()).stdout;
    let both = text(&[]);
    assert!(both.contains("GPU 1 Fake GPU 2, 8.59 GB of 8.59 GB free"), "{both}");
    assert!(both.contains("GPU 0 Fake GPU, 2.15 GB of 2.15 GB free"), "{both}");
    let one = text(&["--gpu", "1"]);
    assert!(one.contains("GPU 0 Fake GPU (not used: --gpu chooses it), ? of 2.15 GB free"), "{one}");
    let gpus = machine.json(&two, &["doctor", "--gpu", "1"])["gpu"]["gpus"].clone();
    assert_eq!((&gpus[0]["used"], &gpus[1]["used"]), (&true.into(), &false.into()));
    let trained = fixture(TRAINED);
    let plan = |flags: &[&str]| machine.json(&two, &[&["plan", &trained, "-c", "512"], flags].concat());
    for flags in [&["--gpu", "0"][..], &[]] {
        assert_eq!(plan(flags)["fits"], "gpu", "{flags:?}");
    }
    let generate = ["generate", &trained, "--ids", "3,4,5", "-n", "4", "--temp", "0", "-ngl", "99", "-c", "64"];
    let small = [("FAKE_CUDA_MEMORY", "5000000,8589934592")];
    let on = |flags: &[&str]| machine.run(&small, &[&generate[..], flags].concat());
    assert!(on(&["--gpu", "0"]).stderr.contains("there was no room for"), "the small one");
    assert!(!on(&["--gpu", "1"]).stderr.contains("there was no room for"));
    for wanted in ["7", "Radeon", "Fake", "1,Radeon"] {
        let refused = machine.run(&two, &["doctor", "--gpu", wanted]);
        assert_eq!(refused.status, 2, "{refused:?}");
        assert!(refused.stderr.contains("0: Fake GPU, 1: Fake GPU 2"), "{refused:?}");
    }
    // Twins have their number in their names.
    let twins = [two[0], ("FAKE_CUDA_NAME", "GeForce RTX 3090")];
    let doctor = machine.json(&twins, &["doctor", "--gpu", "3090 (0)"])["gpu"]["gpus"].clone();
    assert_eq!((&doctor[0]["name"], &doctor[0]["used"]), (&"GeForce RTX 3090 (0)".into(), &true.into()), "{doctor}");
    assert_eq!((&doctor[1]["name"], &doctor[1]["used"]), (&"GeForce RTX 3090 (1)".into(), &false.into()), "{doctor}");
    let none = machine.run(&[("FAKE_CUDA_DEVICES", "0")], &["doctor", "--gpu", "0"]);
    assert!(none.status == 1 && none.stderr.contains("there is no NVIDIA GPU"), "{none:?}");
    assert_eq!(machine.run(&two, &["doctor", "--gpu", "0", "--no-gpu"]).status, 2);
}

/// A context takes some hundred MiB and a moment: what no layer needs is not opened. Doctor opens all, to say whether they work.
#[test]
fn gpus_that_nothing_needs_are_not_opened() {
    let machine = Machine::new();
    let library = library::compile("emulator/libnvml.cpp");
    std::os::unix::fs::symlink(library, machine._folder.path().join("libnvidia-ml.so.1")).unwrap();
    let opened = machine.home.path("opened");
    let two = [("FAKE_CUDA_MEMORY", "2147483648,8589934592"), ("FAKE_CUDA_OPENED", opened.as_str())];
    let trained = fixture(TRAINED);
    let contexts = |arguments: &[&str]| {
        let _ = std::fs::remove_file(&opened);
        let ended = machine.run(&two, arguments);
        assert_eq!(ended.status, 0, "{ended:?}");
        (std::fs::read_to_string(&opened).unwrap_or_default(), ended)
    };
    let (none, planned) = contexts(&["plan", &trained, "-c", "128"]);
    assert_eq!(none, "");
    assert!(planned.stdout.contains("on the GPU"), "{planned:?}");
    let generate = ["generate", &trained, "--ids", "3,4,5", "-n", "2", "--temp", "0", "-c", "64"];
    for (flags, expected) in [(&["-ngl", "0"][..], ""), (&[], "0,1"), (&["-ngl", "99", "--gpu", "0"], "1,0")] {
        assert_eq!(contexts(&[&generate[..], flags].concat()).0, expected, "{flags:?}");
    }
    assert_eq!(contexts(&["doctor"]).0, "1,1");
    let (one, told) = contexts(&["doctor", "--gpu", "1"]);
    assert_eq!(one, "0,1");
    assert!(told.stdout.contains("GPU 0 Fake GPU (not used: --gpu chooses it), 2.15 GB of 2.15 GB free"), "{told:?}");
}

/// What the window keeps holds for the command line too, unless --gpu says otherwise.
#[test]
fn the_settings_choose_gpus_for_the_command_line_too() {
    let machine = Machine::new();
    let two = [("FAKE_CUDA_MEMORY", "2147483648,8589934592")];
    std::fs::create_dir_all(machine.home.data()).unwrap();
    let set = |settings: &str| std::fs::write(machine.home.data().join("settings.json"), settings).unwrap();
    let used = |flags: &[&str]| -> Vec<String> {
        let doctor = machine.json(&two, &[&["doctor"], flags].concat());
        let gpus = doctor["gpu"]["gpus"].as_array().unwrap().iter().filter(|gpu| gpu["used"] == true);
        gpus.map(|gpu| gpu["name"].as_str().unwrap().to_owned()).collect()
    };
    // As it was before there were lists.
    set(r#"{"version":1,"gpu":"GPU-01010101-0101-0101-0101-010101010101"}"#);
    assert_eq!(used(&[]), ["Fake GPU"]);
    assert_eq!(used(&["--gpu", "0,1"]), ["Fake GPU", "Fake GPU 2"]);
    assert_eq!(used(&["--gpu", "all"]), ["Fake GPU 2", "Fake GPU"]);
    set(r#"{"version":2,"gpus":{"type":"only","gpus":[]}}"#);
    let gpu = machine.json(&two, &["doctor"])["gpu"].clone();
    assert_eq!((&gpu["usable"], &gpu["reason"]["type"]), (&false.into(), &"noneChosen".into()), "{gpu}");
    assert_eq!(gpu["gpus"].as_array().unwrap().len(), 2, "{gpu}");
    let text = machine.run(&two, &["doctor"]).stdout;
    assert!(text.contains("GPU   not used: the window's settings choose none"), "{text}");
    assert!(text.contains("GPU 1 Fake GPU 2 (not used: --gpu chooses it), ? of 8.59 GB free"), "{text}");
    assert_eq!(used(&["--gpu", "1"]), ["Fake GPU 2"]);
}

/// The first model measures the GPU; what was measured decides whether layers in RAM are computed there for a prompt.
#[test]
fn long_prompts_go_through_the_gpu_where_that_was_measured_to_be_faster() {
    let machine = Machine::new();
    let model = machine.home.model("m.gguf", &ModelSpec { n_layer: 4, ..ModelSpec::llama3() });
    let ids = (0..40).map(|id| (3 + id * 7 % 200).to_string()).collect::<Vec<_>>().join(",");
    let counted = machine.home.path("counts");
    // The tokens, and how often the driver was told to work.
    let generate = |layers: &str| {
        let flags = ["generate", &model, "--ids", &ids, "-n", "4", "--temp", "0", "-c", "128", "-ngl", layers];
        let made = machine.json(&[("FAKE_CUDA_COUNTS", &counted)], &flags)["ids"].clone();
        let counts = std::fs::read_to_string(&counted).unwrap();
        let counts: Vec<u64> = counts.split(' ').map(|count| count.parse().unwrap()).collect();
        (made, counts[0] + counts[3])
    };
    let plan = |layers: &str| {
        let plan = machine.json(&[], &["plan", &model, "-c", "512", "-ngl", layers]);
        (plan["stream_from"].clone(), plan["reasons"].to_string(), plan["vram"]["other"].as_u64().unwrap())
    };
    let expected =
        machine.json(&[], &["generate", &model, "--ids", &ids, "-n", "4", "--temp", "0", "-ngl", "0"])["ids"].clone();
    generate("2");
    let limits = machine.home.data().join("measured.json");
    let known: Value = serde_json::from_slice(&std::fs::read(&limits).unwrap()).unwrap();
    let rates = &known["gpus"]["GPU-01010101-0101-0101-0101-010101010101"];
    assert!(rates["upload_bytes_per_s"].as_f64().unwrap() > 0.0 && rates["int8_ops_per_s"].as_f64().unwrap() > 0.0);
    let rate = |upload: &str| {
        let gpu = format!(
            r#""GPU-01010101-0101-0101-0101-010101010101":{{"upload_bytes_per_s":{upload},"int8_ops_per_s":1e12}}"#
        );
        let known = format!(r#"{{"ram_read_bytes_per_s":1e10,"int8_ops_per_s":1e9,"gpus":{{{gpu}}}}}"#);
        std::fs::write(&limits, known).unwrap();
    };
    rate("1e3");
    let (apart, (from, reasons, other)) = (generate("2"), plan("2"));
    assert_eq!((&apart.0, &from), (&expected, &Value::Null));
    assert!(!reasons.contains("computed on the GPU also"), "{reasons}");
    rate("1e12");
    let (streamed, (from, reasons, more)) = (generate("2"), plan("2"));
    assert_eq!(streamed.0, expected);
    assert!(streamed.1 > apart.1, "two layers more: {} after {}", streamed.1, apart.1);
    let from = from.as_u64().unwrap();
    assert!((1..=40).contains(&from) && more > other, "from {from}");
    assert!(reasons.contains(&format!("Prompts of {from} or more tokens")), "{reasons}");
    assert_eq!(plan("99").0, Value::Null, "nothing is in RAM");
}
