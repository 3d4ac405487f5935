//! llama.cpp's grammars.

mod common;

use common::{Words, draw};
use grammar::{Form, GrammarError};

/// JSON as llama.cpp ships it, in its form with a white space rule that contains itself.
const JSON: &str = r##"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= ([ \t\n] ws)?
"##;

#[track_caller]
fn check(words: &Words, grammar: &str, good: &[&str], bad: &[&str]) {
    for (texts, fits) in [(good, true), (bad, false)] {
        for text in texts {
            assert_eq!(words.takes(words.compile(Form::Grammar(grammar.into())), text), fits, "{grammar}: {text:?}");
        }
    }
}

#[test]
fn rules_mean_what_they_say() {
    let words = Words::bpe();
    check(&words, "root ::= \"a\" | \"b\" \"c\"", &["a", "bc"], &["b", "abc"]);
    check(&words, "root ::= [a-c]+ [^a-c\\n] .", &["abx\n", "c]é"], &["x", "ab\n."]);
    check(&words, "root ::= (\"x\" | \"y\"){2,3} \"z\"{2} \"-\"?", &["xyzz", "xxxzz-"], &["xzz", "xyxyzz", "xyz"]);
    check(&words, "root ::= a-b \"!\"\na-b ::= \"q\" a-b | \"\"", &["!", "qq!"], &["qq"]);
    check(&words, "root ::= one\n  | two # either\none ::= \"1\"\ntwo ::= \"2\" {1,}", &["1", "22"], &["12", "3"]);
    check(&words, "root ::= \"\\u65e5\\U0000672c\\x41\\t\\\"\\\\\"", &["日本A\t\"\\"], &["日本"]);
    check(&words, "root ::= \"(\" root \")\" | \"x\"", &["x", "((x))"], &["((x)", "()"]);
    check(&words, "root ::= [\\]\\[^-] [a\\-z]", &["]a", "^-", "-z", "[a"], &["]b"]);
    check(&words, "root ::= <|im_start|> \"a\"", &[], &["a", "<|im_start|>a"]);
}

#[test]
fn the_grammar_for_json_writes_json() {
    for words in [Words::bpe(), Words::spm()] {
        check(
            &words,
            JSON,
            &["{}", "{ \"a\" : [1, -2.5e1, {\"b\":null}],\n\t\"c\": \"\\u00e9\\n日本\" }"],
            &["[]", "{\"a\":}", "{\"a\" 1}", "{\"a\":01}"],
        );
        let mut whole = 0;
        for seed in 0..40 {
            let Some(ids) = draw(&words, words.compile(Form::Grammar(JSON.into())), seed, 600) else { continue };
            let text = words.text(&ids);
            match serde_json::from_str::<serde_json::Value>(&text) {
                // It is JSON; a number may have any size there.
                Err(error) if error.to_string().contains("out of range") => continue,
                read => drop(read.unwrap_or_else(|error| panic!("{error}: {text}"))),
            }
            whole += 1;
        }
        assert!(whole >= 20, "only {whole} came to an end");
    }
}

#[test]
fn mistakes_are_told_with_their_line() {
    let words = Words::bpe();
    for (grammar, tells) in [
        ("root ::= \"a\" missing", "missing"),
        ("start ::= \"a\"", "root"),
        ("root ::= \"a\"\nroot ::= \"b\"", "twice"),
        ("root ::= \"a\n\"b\"\n", "line"),
        ("root ::= (\"a\"", ") is expected"),
        ("root ::= \"a\"\nb ::= [z-a]", "line 2"),
        ("root ::= \"\\q\"", "escaped"),
        ("root ::= []", "between brackets"),
        ("root ::= \"a\"{x}", "repetitions"),
        ("root ::= \"a\" )", "end of the line"),
        ("root ::= \"\\uD800\"", "digits"),
        ("root ::= <a b>", ">"),
    ] {
        match words.vocabulary.compile(&Form::Grammar(grammar.into())) {
            Err(GrammarError::Invalid(text)) => assert!(text.contains(tells), "{grammar}: {text}"),
            other => panic!("{grammar}: {:?}", other.err()),
        }
    }
}
