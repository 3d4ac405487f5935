//! Schemas and grammars that come from anywhere: small bounds on time, and an error that says what to do.

#![allow(clippy::unwrap_used)] // a test should not go on

mod common;

use common::{Random, Words, allowed};
use grammar::{Form, GrammarError};
use sampler::{Constraint, ConstraintError};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Far more than any of them takes, on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(100);

fn schema(text: impl Into<String>) -> Form {
    Form::JsonSchema(text.into())
}

fn rules(text: impl Into<String>) -> Form {
    Form::Grammar(text.into())
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

/// Compiles and, where that is possible, follows it for some steps. The longest of all that, and the error if any.
fn try_out(words: &Words, form: &Form) -> (Duration, Option<String>) {
    let started = Instant::now();
    let compiled = words.vocabulary.compile(form);
    let mut longest = started.elapsed();
    let mut grammar = match compiled {
        Ok(grammar) => grammar,
        Err(error) => return (longest, Some(error.to_string())),
    };
    let mut random = Random(1);
    for _ in 0..60 {
        let started = Instant::now();
        let tokens = match grammar.mask() {
            Ok(mask) => allowed(mask.unwrap()),
            Err(error) => return (longest.max(started.elapsed()), Some(error.to_string())),
        };
        let token = tokens[random.below(tokens.len())];
        let accepted = grammar.accept(token);
        longest = longest.max(started.elapsed());
        if let Err(error) = accepted {
            assert!(!matches!(error, ConstraintError::Refused { .. }), "{form:?}: the mask allowed {token}");
            return (longest, Some(error.to_string()));
        }
        if grammar.is_complete() {
            break;
        }
    }
    (longest, None)
}

/// Everything here either works or is refused, soon.
#[test]
fn nothing_takes_long_or_ends_the_program() {
    let nested =
        |n: usize, open: &str, inner: &str, close: &str| format!("{}{inner}{}", open.repeat(n), close.repeat(n));
    let chain = |n: usize, step: &dyn Fn(usize) -> String| {
        format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{}}}}}", list(n, |i| format!("\"d{i}\":{}", step((i + 1) % n))))
    };
    let product = |n: usize, options: usize| {
        let option = |i: usize| {
            let each =
                |j| format!("{{\"type\":\"object\",\"properties\":{{\"p{i}x{j}\":{{}}}},\"required\":[\"p{i}x{j}\"]}}");
            format!("{{\"anyOf\":[{}]}}", list(options, each))
        };
        format!("{{\"allOf\":[{}]}}", list(n, option))
    };
    // One place of a list has many names.
    let mut names = String::from("{\"anyOf\":[");
    write!(names, "{}", nested(40, "{\"type\":\"array\",\"items\":", "{\"$ref\":\"#/$defs/refs\"}", "}")).unwrap();
    let reference = |i: usize| format!("{{\"$ref\":\"#/anyOf/{}\"}}", "0".repeat(i + 1));
    write!(names, "],\"$defs\":{{\"refs\":{{\"anyOf\":[{}]}}}}}}", list(600, reference)).unwrap();
    let forms = [
        schema(nested(100_000, "[", "", "]")),
        schema(nested(90, "{\"type\":\"array\",\"items\":", "{}", "}")),
        schema(nested(60, "{\"type\":\"object\",\"properties\":{\"a\":", "{}", "}}")),
        schema(nested(90, "{\"anyOf\":[{\"type\":\"null\"},", "{}", "]}")),
        schema(chain(1900, &|next| format!("{{\"allOf\":[{{\"$ref\":\"#/$defs/d{next}\"}}]}}"))),
        schema(chain(900, &|next| format!("{{\"allOf\":[{{\"$ref\":\"#/$defs/d{next}\"}},{{\"type\":\"object\"}}]}}"))),
        schema(chain(600, &|next| format!("{{\"properties\":{{\"x\":{{\"$ref\":\"#/$defs/d{next}\"}}}}}}"))),
        schema(chain(5000, &|next| format!("{{\"properties\":{{\"x\":{{\"$ref\":\"#/$defs/d{next}\"}}}}}}"))),
        schema(names),
        schema(product(30, 2)),
        schema(product(2, 20)),
        schema(product(8, 2)),
        schema(r##"{"$ref":"#"}"##),
        schema(r##"{"allOf":[{"$ref":"#"},{"$ref":"#"}]}"##),
        schema(r##"{"anyOf":[{"$ref":"#"},{"type":"null"}]}"##),
        schema(r##"{"type":"array","items":{"$ref":"#"},"minItems":1}"##),
        schema(format!("{{\"enum\":[{}]}}", list(20_000, |i| format!("\"v{i}\"")))),
        schema(format!("{{\"anyOf\":[{}]}}", list(5000, |i| format!("{{\"const\":{i}}}")))),
        schema(format!("{{\"properties\":{{{}}}}}", list(900, |i| format!("\"p{i}\":{{}}")))),
        schema(format!("{{\"properties\":{{{}}}}}", list(9000, |i| format!("\"p{i}\":{{}}")))),
        schema(format!("{{\"allOf\":[{}]}}", list(4000, |i| format!("{{\"properties\":{{\"p{i}\":{{}}}}}}")))),
        schema(format!("{{\"patternProperties\":{{{}}}}}", list(300, |i| format!("\"a{i}.*b\":{{}}")))),
        schema(r#"{"type":"string","pattern":"^(a|b)*a(a|b){60}$"}"#),
        schema(r#"{"type":"string","pattern":"(x+x+)+y"}"#),
        schema(r#"{"type":"string","minLength":1000000,"maxLength":4000000000}"#),
        schema(r#"{"type":"array","minItems":1000000000,"items":{"type":"string"}}"#),
        schema(r#"{"type":"array","maxItems":18446744073709551615,"uniqueItems":true}"#),
        schema(r#"{"type":"number","minimum":-1e300,"maximum":1e300,"multipleOf":1e-9}"#),
        schema(r#"{"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807,"multipleOf":7919}"#),
        schema(r#"{"type":"string","format":"no-such-format"}"#),
        schema(r#"{"x-guidance":{"whitespace_pattern":"(((("},"type":"object"}"#),
        Form::Regex("(a|b)*a(a|b){3000}".into()),
        Form::Regex("((a{1,1000}){1,1000}){1,1000}".into()),
        Form::Regex("\\w{1,5000}\\d{1,5000}".into()),
        Form::Regex("(.*.*.*.*.*.*.*.*)=".into()),
        Form::Regex("(((((((a?){30}){30}){30}){30}){30}){30})".into()),
        Form::Regex(nested(95, "(", "a", ")*")),
        Form::Regex(nested(50_000, "(", "a", ")")),
        Form::Regex("[\\p{L}&&[^\\p{Lu}]]{1,200}[^\\x00-\\x{10FFFF}]".into()),
        Form::Regex("a".repeat(200_000)),
        Form::Regex(vec!["a"; 100_000].join("|")),
        Form::Regex("(?i)\\p{Greek}{40}\\p{Cyrillic}{40}".into()),
        rules("start: start"),
        rules("start: start start | \"a\" | "),
        rules("start: a{1000000}\na: b{1000000}\nb: \"x\""),
        rules("start: ((((a+)+)+)+)+\na: \"x\"?"),
        rules(format!("start: {}", nested(90, "(", "\"a\"", ")?"))),
        rules(format!("start: {}", nested(50_000, "(", "\"a\"", ")"))),
        rules(
            (0..3000)
                .map(|i| format!("r{i}: r{} r{} | \"a\"\n", (i * 7 + 1) % 3000, (i * 13 + 5) % 3000))
                .collect::<String>()
                + "start: r0",
        ),
        rules(
            (0..200).map(|i| format!("A{i}: A{} A{}\n", i + 1, i + 1)).collect::<String>() + "A200: \"a\"\nstart: A0",
        ),
        rules("start: A\nA: A \"a\""),
        rules("%import common.NOTHING\nstart: \"a\""),
        rules("start: %json { \"type\": \"object\", \"$ref\": \"#/x\" }"),
        rules("start: %lark { start: %lark { start: \"a\" } }"),
        rules("%llguidance { \"no_forcing\": 7 }\nstart: \"a\""),
        rules("start[max_tokens=3, temperature=9]: /.*/"),
        rules("start[stop=\"x\"]: /.*/\n"),
        rules("start: \"a\" @other"),
        rules("root ::= \"a\" root | \"b\""),
        rules("\u{0}\u{ffff}::::"),
    ];
    for words in [Words::bpe(), Words::real().swap_remove(0).1] {
        for form in &forms {
            let (longest, error) = try_out(&words, form);
            let start: String = format!("{form:?}").chars().take(120).collect();
            assert!(longest < LONG, "{longest:?} for {start}");
            if longest > LONG / 10 {
                eprintln!("{longest:?} for {start}");
            }
            // What is told is short, on one line, and of use.
            if let Some(error) = error {
                assert!(error.len() < 1500 && !error.contains('\n') && !error.contains("panic"), "{start}: {error}");
            }
        }
    }
}

#[test]
fn the_limits_are_told_with_numbers() {
    let words = Words::bpe();
    let error = |form: Form| words.vocabulary.compile(&form).err().unwrap();
    let large = " ".repeat(grammar::limits::MAX_TEXT + 1);
    for form in [schema(large.clone()), Form::Regex(large.clone()), rules(large.clone())] {
        assert_eq!(error(form), GrammarError::TooLarge { size: large.len(), max: grammar::limits::MAX_TEXT });
    }
    assert_eq!(error(schema("[".repeat(200))), GrammarError::TooDeep { max: grammar::limits::MAX_DEPTH });
    let GrammarError::NotJson { line, column, reason } = error(schema("{\n  \"type\": object\n}")) else { panic!() };
    assert_eq!((line, column), (2, 11));
    assert!(!reason.contains("line"), "{reason}");
    for wrong in ["[]", "1", "null", "\"a\""] {
        assert!(matches!(error(schema(wrong)), GrammarError::Invalid(_)));
    }
    // What cannot be prescribed is named.
    for keyword in ["not", "if", "contains", "dependentRequired", "unevaluatedProperties"] {
        let text = error(schema(format!("{{\"type\":\"object\",\"{keyword}\":{{}}}}"))).to_string();
        assert!(text.contains(keyword), "{text}");
    }
    let text = error(rules("start: \"a\" missing")).to_string();
    assert!(text.contains("missing"), "{text}");
    assert!(matches!(error(Form::Regex("a(?=b)".into())), GrammarError::Invalid(text) if text.contains("look-around")));
    assert!(matches!(error(rules("  \n ")), GrammarError::Invalid(_)));
}

#[test]
fn a_grammar_that_cannot_go_on_is_stuck() {
    let words = Words::bpe();
    for form in [rules("start: start"), schema(r##"{"$ref":"#"}"##), rules("start: \"a\" loop\nloop: loop")] {
        let mut grammar = match words.vocabulary.compile(&form) {
            Ok(grammar) => grammar,
            Err(GrammarError::Invalid(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        let _ = grammar.accept(words.byte(b'a'));
        assert_eq!(grammar.mask(), Err(ConstraintError::Stuck), "{form:?}");
        assert!(!grammar.is_complete());
    }
}

#[test]
fn what_is_too_complex_at_work_is_said_and_stays_said() {
    let words = Words::bpe();
    // Each position of each counter is a state of its own.
    let form = Form::Regex("(a|b|c)*a(a|b|c){2000}".into());
    let mut grammar = words.compile(form);
    let mut random = Random(3);
    let failed = (0..20_000).find_map(|_| grammar.accept(words.byte(b"abc"[random.below(3)])).err());
    let Some(ConstraintError::TooComplex(text)) = failed else { panic!("{failed:?}") };
    assert!(!text.is_empty());
    assert!(matches!(grammar.mask(), Err(ConstraintError::TooComplex(_))));
    assert!(grammar.accept(words.byte(b'a')).is_err() && !grammar.is_complete());
}
