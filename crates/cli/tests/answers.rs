//! `run` and `chat`.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Ended, Home, ended, fixture, has_keys};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;
use test_models::ModelSpec;

const TRAINED: &str = "rustdoc-tiny-F16.gguf";
const QUESTION: &str = "Tell me about std::vec::Vec.";
/// How the reference implementation begins its greedy answer; further on two tokens may be equally likely.
const ANSWER: &str = "A draining iterator over the elements of a `Vec`.\n\nThis `struct` is created by the";

const STATS: [&str; 13] = [
    "finish",
    "prompt_tokens",
    "reused_tokens",
    "answer_tokens",
    "first_token_ms",
    "tg_tps",
    "pp_tps",
    "context_used",
    "context",
    "thinking",
    "tool_calls",
    "drafted",
    "accepted",
];

fn talk(home: &Home, arguments: &[&str], input: &str) -> Ended {
    let mut command = home.command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    ended(child.wait_with_output().unwrap())
}

#[test]
fn run_answers_through_the_chat_template() {
    let home = Home::new();
    let ended = home.run(&["run", &fixture(TRAINED), "-p", QUESTION, "--temp", "0"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.starts_with(ANSWER), "{}", ended.stdout);
    // Only the answer goes to standard output; the numbers do not.
    assert!(ended.stdout.ends_with("more.\n"), "{}", ended.stdout);
    assert!(ended.stderr.starts_with("[prompt 21 tokens (0 reused), "), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn run_as_json() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let value = home.json(&["run", &model, "-p", QUESTION, "--temp", "0", "-n", "8", "--no-mmap", "-t", "1"]);
    has_keys(&value, &[&STATS[..], &["text", "load_s"]].concat());
    assert_eq!((&value["finish"], &value["answer_tokens"]), (&"length".into(), &8.into()));
    assert!(ANSWER.starts_with(value["text"].as_str().unwrap()), "{value}");
}

#[test]
fn run_reads_standard_input() {
    let home = Home::new();
    // Windows' shells mark what they pass on.
    for mark in ["", "\u{feff}"] {
        let ended = talk(&home, &["run", &fixture(TRAINED), "--temp", "0", "-n", "8"], &format!("{mark}{QUESTION}"));
        assert!(ANSWER.starts_with(ended.stdout.trim_end()), "{ended:?}");
        assert!(ended.stderr.starts_with("[prompt 21 tokens"), "{ended:?}");
    }
}

#[test]
fn names_of_files_are_of_any_script() {
    let home = Home::new();
    let folder = home.folder.path().join("日本語 フォルダー");
    std::fs::create_dir(&folder).unwrap();
    let model = folder.join("学習済み モデル é 🐈.gguf");
    std::fs::copy(fixture(TRAINED), &model).unwrap();
    let ended = home.run(&["run", model.to_str().unwrap(), "-p", QUESTION, "--temp", "0", "-n", "8"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ANSWER.starts_with(ended.stdout.trim_end()), "{ended:?}");
    let missing = home.fails(&["run", folder.join("無い.gguf").to_str().unwrap(), "-p", "x"], 1, "not-found");
    assert!(missing.contains("日本語 フォルダー") && missing.contains("無い.gguf"), "{missing}");
    // What is installed is found by its name.
    let library = home.data().join("models");
    std::fs::create_dir_all(&library).unwrap();
    std::fs::rename(&model, library.join("モデル.gguf")).unwrap();
    assert_eq!(home.json(&["list"])["models"][0]["name"], "モデル");
    assert_eq!(home.json(&["run", "モデル", "-p", QUESTION, "-n", "8"])["answer_tokens"], 8);
}

#[test]
fn raw_prompts_are_continued() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let arguments = ["run", &model, "--raw", "-p", "pub fn", "--temp", "0", "-n", "6"];
    let raw = home.json(&arguments);
    let ids = home.json(&["tokenize", &model, "--text", "pub fn"])["ids"].clone();
    let ids: Vec<String> = ids.as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(raw["prompt_tokens"], ids.len());
    let same = home.json(&["generate", &model, "--ids", &ids.join(","), "-n", "6", "--temp", "0"]);
    assert_eq!(raw["text"], same["text"]);
}

#[test]
fn what_begins_with_a_dash_is_no_flag_where_a_value_is_expected() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let flags = ["--presence-penalty", "-1.5", "--frequency-penalty", "-0.5", "--system", "- be brief\n- be kind"];
    let told = home.json(&[&["run", &model, "-p", "x", "-n", "1"][..], &flags].concat());
    assert_eq!(told["answer_tokens"], 1);
    let error = home.fails(&["run", &model, "-p", "x", "--temp", "-1"], 2, "usage");
    assert!(error.contains("temperature is -1"), "{error}");
}

#[test]
fn a_seed_repeats_an_answer() {
    let home = Home::new();
    let model = home.model("m.gguf", &ModelSpec::qwen3());
    let answer = |seed: &str| home.json(&["run", &model, "-p", "x", "-n", "16", "--temp", "2", "--seed", seed]);
    assert_eq!(answer("7")["text"], answer("7")["text"]);
    assert_ne!(answer("7")["text"], answer("8")["text"]);
}

#[test]
fn layers_on_a_device_give_the_same_answer() {
    let home = Home::new();
    let base = ["run", &fixture(TRAINED), "-p", QUESTION, "--temp", "0", "-n", "12"];
    let split = [&base[..], &["-ngl", "3", "--test-device", "64M"]].concat();
    assert_eq!(home.json(&base)["text"], home.json(&split)["text"]);
    // A device that is too small for what is wished is a matter of speed, not of failure.
    let small = [&base[..], &["-ngl", "7", "--test-device", "3M"]].concat();
    assert_eq!(home.json(&base)["text"], home.json(&small)["text"]);
}

#[test]
fn chat_remembers_and_reuses() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let input = format!("{QUESTION}\n\nAnd again?\n/reset\n{QUESTION}\n/quit\nnever read\n");
    let ended = talk(&home, &["chat", &model, "--temp", "0", "-n", "20", "--json"], &input);
    assert_eq!(ended.status, 0, "{ended:?}");
    let answers: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 3, "{}", ended.stdout);
    has_keys(&answers[0], &[&STATS[..], &["text"]].concat());
    let number = |index: usize, name: &str| answers[index][name].as_u64().unwrap();
    assert!(number(1, "reused_tokens") >= 21, "{}", answers[1]);
    assert!(number(1, "prompt_tokens") > 41, "{}", answers[1]);
    assert_eq!(number(2, "prompt_tokens"), 21, "forgotten");
    assert_eq!(answers[0]["text"], answers[2]["text"]);
}

#[test]
fn chat_streams_only_answers_to_a_pipe() {
    let home = Home::new();
    let ended = talk(&home, &["chat", &fixture(TRAINED), "--temp", "0"], &format!("{QUESTION}\n"));
    assert!(ended.stdout.starts_with(ANSWER) && ended.stdout.ends_with("more.\n"), "{ended:?}");
    assert!(!ended.stdout.contains('\x1b'), "{ended:?}");
}

#[test]
fn chat_takes_commands() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let ended =
        talk(&home, &["chat", &model, "--temp", "0", "-n", "4"], "/help\n/nonsense\n/system Be brief.\n/quit\n");
    assert_eq!((ended.status, ended.stdout.as_str()), (0, ""));
    assert!(ended.stderr.contains("there is no command /nonsense"), "{}", ended.stderr);
    let plain = talk(&home, &["chat", &model, "--json", "-n", "1"], "x\n").stdout;
    let told = talk(&home, &["chat", &model, "--json", "-n", "1"], "/system You are a cat\nx\n").stdout;
    let flag = talk(&home, &["chat", &model, "--json", "-n", "1", "--system", "You are a cat"], "x\n").stdout;
    let tokens = |line: &str| serde_json::from_str::<Value>(line).unwrap()["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&told) > tokens(&plain));
    assert_eq!(tokens(&told), tokens(&flag));
}

#[test]
fn a_model_that_is_too_full_is_a_failure_for_scripts() {
    let home = Home::new();
    let ended = talk(&home, &["chat", &fixture(TRAINED), "-c", "24"], &format!("{}\n", "word ".repeat(100)));
    assert_eq!(ended.status, 1);
    assert!(ended.stderr.contains("error [context-full]"), "{}", ended.stderr);
}

#[cfg(unix)]
mod interrupts {
    use super::*;
    use std::io::Read;

    /// A model that hardly ever ends an answer, and takes a moment for each token.
    fn endless(home: &Home) -> String {
        home.model("m.gguf", &ModelSpec { n_ctx: 1 << 20, n_layer: 16, n_vocab: 8192, ..ModelSpec::llama() })
    }

    /// Waits until the file of a conversation has this so many times.
    fn has(file: &str, part: &str, times: usize) {
        while !std::fs::read_to_string(file).is_ok_and(|text| text.matches(part).count() == times) {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    #[test]
    fn a_second_interrupt_and_a_kill_leave_the_conversation() {
        let home = Home::new();
        let (model, file) = (endless(&home), home.path("talk"));
        let chat = ["chat", &model, "-c", "100000", "--temp", "5", "--top-k", "0", "--session", &file];
        for (round, signal) in ["-INT", "-KILL"].into_iter().enumerate() {
            let mut command = home.command(&chat);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            writeln!(child.stdin.as_mut().unwrap(), "hello {round}").unwrap();
            let mut out = begun(&mut child);
            // Nobody may wait for what is written.
            let reader = std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
            has(&file, &format!("\"hello {round}\""), 1);
            has(&file, "\"assistant\"", round + 1);
            while child.try_wait().unwrap().is_none() {
                let pid = child.id().to_string();
                std::process::Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status().unwrap();
            }
            reader.join().unwrap().unwrap();
            let kept = std::fs::read_to_string(&file).unwrap();
            assert_eq!(kept.matches("\"hello").count(), round + 1, "{kept}");
            assert_eq!(kept.matches("\"assistant\"").count(), round + 1, "{kept}");
        }
        let ended = home.run(&["run", &model, "-c", "100000", "-p", "x", "-n", "1", "--session", &file]);
        assert_eq!(ended.status, 0, "{ended:?}");
    }

    #[test]
    fn what_was_answered_outlives_a_kill() {
        let home = Home::new();
        let (model, file) = (fixture(TRAINED), home.path("talk"));
        let mut command = home.command(&["chat", &model, "--temp", "0", "-n", "20", "--json", "--session", &file]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{QUESTION}").unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let second = home.json(&["run", &model, "-p", "And again?", "-n", "2", "--session", &file]);
        let whole = answer["prompt_tokens"].as_u64().unwrap() + answer["answer_tokens"].as_u64().unwrap();
        assert!(second["prompt_tokens"].as_u64().unwrap() > whole, "{second}");
    }

    /// Reads until the answer has begun.
    fn begun(child: &mut std::process::Child) -> std::process::ChildStdout {
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 16]).unwrap();
        out
    }

    #[test]
    fn run_stops() {
        let home = Home::new();
        let model = endless(&home);
        let mut child = home.spawn(&["run", &model, "--raw", "-p", "x", "-c", "100000", "--temp", "5", "--top-k", "0"]);
        let mut out = begun(&mut child);
        common::interrupt(&child);
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!(ended.status, 1, "{ended:?}");
        assert!(ended.stderr.contains("; stopped]") && ended.stderr.contains("error [cancelled]"), "{ended:?}");
    }

    #[test]
    fn chat_goes_on_after_a_stopped_answer() {
        let home = Home::new();
        let model = endless(&home);
        let mut command = home.command(&["chat", &model, "-c", "100000", "--temp", "5", "--top-k", "0"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "hello").unwrap();
        let mut out = begun(&mut child);
        common::interrupt(&child);
        // The next answer begins after the first one's end.
        writeln!(input, "/help\n/quit").unwrap();
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!(ended.status, 0, "{ended:?}");
        assert!(ended.stderr.contains("; stopped]") && ended.stderr.contains("/quit ends"), "{ended:?}");
    }
}

#[test]
fn a_session_goes_on_where_it_ended() {
    let home = Home::new();
    let (model, file) = (fixture(TRAINED), home.folder.path().join("talk.session").display().to_string());
    let numbers = |value: &Value| ["reused_tokens", "prompt_tokens"].map(|name| value[name].as_u64().unwrap());
    let run = |prompt: &str, more: &[&str]| {
        home.json(&[&["run", &model, "-p", prompt, "--temp", "0", "-n", "20"], more].concat())
    };
    let first = run(QUESTION, &["--session", &file]);
    assert_eq!(numbers(&first)[0], 0);
    // The same in one conversation.
    let input = format!("{QUESTION}\nAnd again?\n");
    let whole = talk(&home, &["chat", &model, "--temp", "0", "-n", "20", "--json"], &input).stdout;
    let whole: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(first["text"], whole[0]["text"]);
    let kept = std::fs::read(&file).unwrap();
    let second = run("And again?", &["--session", &file, "-ngl", "3", "--test-device", "64M"]);
    assert_eq!((&second["text"], numbers(&second)), (&whole[1]["text"], numbers(&whole[1])));
    assert!(numbers(&second)[0] > 21, "{second}");
    // And in a chat.
    std::fs::write(&file, &kept).unwrap();
    let chat = ["chat", &model, "--temp", "0", "-n", "20", "--json", "--session", &file];
    let chatted: Value = serde_json::from_str(&talk(&home, &chat, "And again?\n/quit\n").stdout).unwrap();
    assert_eq!((&chatted["text"], numbers(&chatted)), (&second["text"], numbers(&second)));
    let third = run("More.", &["--session", &file]);
    assert!(numbers(&third)[0] > numbers(&second)[1], "{third}");

    // Another model has to read it, and says so; the conversation is the same.
    let other = home.model("other.gguf", &ModelSpec::qwen3());
    std::fs::write(&file, &kept).unwrap();
    let ended = home.run(&["run", &other, "-p", "And?", "-n", "2", "--session", &file]);
    assert!(ended.stderr.contains("is read again: this belongs to another model"), "{ended:?}");
    // So has the same one where the file is damaged behind the conversation.
    std::fs::write(&file, &kept[..kept.len() - 9]).unwrap();
    let ended = home.run(&["run", &model, "-p", "And?", "-n", "2", "--session", &file]);
    assert!(ended.stderr.contains("is read again: what was saved is damaged"), "{ended:?}");
    // A file of somebody else is not taken for one, and stays.
    std::fs::write(&file, "dear diary").unwrap();
    home.fails(&["run", &model, "-p", "x", "-n", "2", "--session", &file], 1, "file-invalid");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "dear diary");
    assert_eq!(
        std::fs::read_dir(home.folder.path())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".new") })
            .count(),
        0
    );
}

#[test]
fn what_is_forgotten_is_not_kept() {
    let home = Home::new();
    let file = home.path("talk");
    let chat = ["chat", &fixture(TRAINED), "--temp", "0", "-n", "4", "--session", &file];
    assert_eq!(talk(&home, &chat, &format!("{QUESTION}\n")).status, 0);
    let kept = std::fs::read(&file).unwrap();
    assert!(String::from_utf8_lossy(&kept).contains(QUESTION) && kept.len() > 10_000);
    assert_eq!(talk(&home, &chat, "/reset\n").status, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"headroom_session\":2,\"memory\":0,\"messages\":[]}\n");
}

/// It is told before the conversation, not after it.
#[test]
fn a_session_that_cannot_be_written_is_no_conversation() {
    let home = Home::new();
    let file = home.file("file", b"");
    let ended = talk(&home, &["chat", &fixture(TRAINED), "--session", &format!("{file}/talk")], "never asked\n");
    assert_eq!((ended.status, ended.stdout.as_str()), (1, ""), "{ended:?}");
    assert!(ended.stderr.contains("error [file-access]"), "{ended:?}");
}

#[test]
fn the_form_of_an_answer_is_prescribed() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let schema = r#"{"type":"object","properties":{"kind":{"enum":["struct","trait"]},"n":{"type":"integer","maximum":99}},
        "required":["kind","n"],"additionalProperties":false}"#;
    let file = home.folder.path().join("schema.json");
    std::fs::write(&file, schema).unwrap();
    for given in [schema, file.to_str().unwrap()] {
        let ended = home.run(&["run", &model, "-p", QUESTION, "--seed", "3", "--json-schema", given]);
        assert_eq!(ended.status, 0, "{ended:?}");
        let value: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(["struct", "trait"].iter().any(|kind| value["kind"] == *kind) && value["n"].as_i64().unwrap() <= 99);
    }
    let value = home.json(&["run", &model, "-p", QUESTION, "--raw", "--json-schema", schema]);
    assert_eq!(value["finish"], "end");
    assert!(serde_json::from_str::<Value>(value["text"].as_str().unwrap()).unwrap()["n"].is_i64());
    // Every answer of a chat.
    let chat = talk(&home, &["chat", &model, "--json-schema", schema], "What is Vec?\nAnd Iterator?\n");
    assert_eq!(chat.status, 0, "{chat:?}");
    let answers: Vec<Value> =
        serde_json::Deserializer::from_str(&chat.stdout).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(answers.len(), 2, "{}", chat.stdout);
    assert!(answers.iter().all(|answer| answer["kind"].is_string()));
}

#[test]
fn a_grammar_is_followed_in_either_syntax() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let file = home.folder.path().join("grammar.txt");
    let path = file.to_str().unwrap();
    for grammar in
        ["start: (\"yes\" | \"no\") \", \" /[0-9]{3}/\n", "root ::= (\"yes\" | \"no\") \", \" [0-9] [0-9] [0-9]\n"]
    {
        std::fs::write(&file, grammar).unwrap();
        let fits = |text: &str| {
            let rest = text.strip_prefix("yes").or(text.strip_prefix("no")).and_then(|rest| rest.strip_prefix(", "));
            rest.is_some_and(|digits| digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        for seed in ["1", "2", "3"] {
            let ended = home.run(&["run", &model, "-p", QUESTION, "--temp", "1.5", "--seed", seed, "--grammar", path]);
            assert!(ended.status == 0 && fits(ended.stdout.trim_end()), "{grammar}: {ended:?}");
        }
        let value = home.json(&["generate", &model, "--ids", "1,2,3", "-n", "40", "--grammar", path]);
        assert!(fits(value["text"].as_str().unwrap()), "{value}");
    }
}

#[test]
fn a_form_that_cannot_be_used_is_a_wrong_argument() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let fails = |arguments: &[&str], code: &str, status| {
        home.fails(&[&["run", &model, "-p", "x"], arguments].concat(), status, code)
    };
    assert!(fails(&["--json-schema", "{\"type\": }"], "usage", 2).contains("line 1, column 10"));
    assert!(fails(&["--json-schema", "{\"not\": {}}"], "usage", 2).contains("not"));
    fails(&["--json-schema", "no-such-file.json"], "file-missing", 1);
    fails(&["--grammar", "no-such-file.gbnf"], "file-missing", 1);
    let large = home.folder.path().join("large");
    std::fs::write(&large, " ".repeat(300 << 10)).unwrap();
    fails(&["--grammar", large.to_str().unwrap()], "usage", 2);
    let both = home.run(&["run", &model, "-p", "x", "--json-schema", "{}", "--grammar", "g"]);
    assert_eq!(both.status, 2, "{both:?}");
}
