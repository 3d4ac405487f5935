//! Guessing ahead on the command line: the same tokens, figures of what held, a draft model that must fit.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Home, fixture};
use serde_json::Value;
use test_models::ModelSpec;

const TRAINED: &str = "rustdoc-tiny-F16.gguf";

fn repeating() -> String {
    let ids: Vec<String> = (0..40).map(|i| (i % 9 * 37 + 11).to_string()).collect();
    ids.join(",")
}

#[test]
fn guesses_do_not_show_in_the_tokens() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let ids = repeating();
    for sampling in [&["--temp", "0"][..], &["--temp", "0.7", "--seed", "5", "--repeat-penalty", "1.1"]] {
        let of = |more: &[&str]| {
            let arguments = [&["generate", &model, "--ids", &ids, "-n", "40", "--ignore-eos"], sampling, more].concat();
            home.json(&arguments)
        };
        let plain = of(&["--speculate", "off"]);
        assert_eq!((&plain["drafted"], &plain["accepted"]), (&0.into(), &0.into()));
        for how in [&["--speculate", "on"][..], &["--speculate", "on", "--no-lookup", "-md", &model], &[]] {
            let guessed = of(how);
            assert_eq!(guessed["ids"], plain["ids"], "{how:?}");
            let [drafted, accepted] = ["drafted", "accepted"].map(|key| guessed[key].as_u64().unwrap());
            assert!(accepted <= drafted && (drafted > 0 || how.is_empty()), "{guessed}");
        }
    }
    // The model itself is always right.
    let arguments = ["generate", &model, "--ids", &ids, "-n", "40", "--ignore-eos", "--temp", "0"];
    let whole =
        home.json(&[&arguments[..], &["--speculate", "on", "--no-lookup", "-md", &model, "--draft-max", "4"]].concat());
    assert_eq!((&whole["drafted"], &whole["accepted"]), (&31.into(), &31.into()));
}

#[test]
fn the_figures_say_what_held() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let count = |value: &Value, key: &str| value[key].as_u64().unwrap();
    let arguments = ["-p", "Tell me about std::vec::Vec.", "--temp", "0", "-n", "24", "--speculate", "on"];
    let run = home.json(&[&["run", &model][..], &arguments, &["-md", &model]].concat());
    assert!(count(&run, "accepted") > 8 && count(&run, "drafted") >= count(&run, "accepted"), "{run}");
    let ended = home.run(&[&["run", &model][..], &arguments, &["-md", &model]].concat());
    assert!(ended.stderr.contains(" guessed ahead held; context "), "{}", ended.stderr);
    let bench = ["bench", &model, "-p", "0", "-n", "24", "-r", "1"];
    assert_eq!(count(&home.json(&bench)["tg"], "drafted"), 0, "measures one by one");
    let with = home.json(&[&bench[..], &["--speculate", "on", "-md", &model]].concat());
    assert!(count(&with["tg"], "accepted") > 8, "{with}");
}

#[test]
fn a_draft_model_of_another_vocabulary_is_refused() {
    let home = Home::new();
    let other = home.model("other.gguf", &ModelSpec::llama());
    let said = home.fails(&["run", &fixture(TRAINED), "-p", "x", "-md", &other], 1, "draft-vocabulary");
    assert!(said.contains("token ") && said.contains("same family"), "{said}");
    home.fails(&["run", &fixture(TRAINED), "-p", "x", "-md", "nowhere.gguf"], 1, "not-found");
}

#[test]
fn a_plan_counts_the_draft_model() {
    let home = Home::new();
    let model = fixture(TRAINED);
    let alone = home.json(&["plan", &model, "--ram", "8G"]);
    let with = home.json(&["plan", &model, "--ram", "8G", "--draft-model", &model]);
    for part in ["weights", "kv"] {
        let of = |plan: &Value| plan["ram"][part].as_u64().unwrap();
        assert_eq!(of(&with), 2 * of(&alone), "{part}");
    }
    let said = with["reasons"].to_string();
    assert!(said.contains("draft model"), "{said}");
}
