//! Reasoning is split from the answer the same way however the stream is cut.

use chat_template::{AnswerParser, CallMarks, Part};
use proptest::prelude::*;

/// The reasoning and the answer of a stream that arrives in `parts`.
fn split<'a>(prompt: &str, parts: impl IntoIterator<Item = &'a str>) -> (String, String) {
    let mut parser = AnswerParser::new(prompt, CallMarks::default());
    let mut pieces: Vec<Part> = parts.into_iter().flat_map(|part| parser.push(part)).collect();
    pieces.extend(parser.finish());
    let (mut thinking, mut answer) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            Part::Thinking(text) => thinking.push_str(&text),
            Part::Text(text) => answer.push_str(&text),
            Part::ToolCall(call) => panic!("{call:?}"),
        }
    }
    (thinking, answer)
}

#[track_caller]
fn check(prompt: &str, text: &str, thinking: &str, answer: &str) {
    let expected = (thinking.to_owned(), answer.to_owned());
    assert_eq!(split(prompt, [text]), expected, "whole: {text:?}");
    for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
        assert_eq!(split(prompt, [&text[..at], &text[at..]]), expected, "cut at {at}: {text:?}");
    }
    // Every two cuts, where that is affordable.
    let cuts: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
    for &a in cuts.iter().filter(|_| cuts.len() < 120) {
        for &b in cuts.iter().filter(|b| **b > a) {
            assert_eq!(split(prompt, [&text[..a], &text[a..b], &text[b..]]), expected, "cut at {a} and {b}: {text:?}");
        }
    }
    let chars: Vec<String> = text.chars().map(String::from).collect();
    assert_eq!(split(prompt, chars.iter().map(String::as_str)), expected, "by characters: {text:?}");
}

#[test]
fn separates_the_blocks_of_each_family() {
    check("", "<think>\nLet me see.\n</think>\n\nIt is 4.", "Let me see.", "It is 4.");
    check("", "<think>東京</think>答え", "東京", "答え");
    check("", "[THINK]a[/THINK]b", "a", "b");
    check("", "<seed:think>a</seed:think>b", "a", "b");
    check("", "<thinking>a</thinking>\nb", "a", "b");
    check("", "◁think▷a◁/think▷b", "a", "b");
    check("", "<|inner_prefix|>a<|inner_suffix|>b", "a", "b");
    check("", "<|channel>thought\nhm\n<channel|>b", "hm", "b");
    check("", "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "a", "b");
    check("", "<think>a</think><response>b</response>", "a", "b");
    check("", "Here are my reasoning steps:\na\n[BEGIN FINAL RESPONSE]\nb\n[END FINAL RESPONSE]", "a", "b\n");
}

#[test]
fn separates_the_messages_of_newer_families() {
    let solar = "<|think|>a<|end|><|begin|>assistant<|content|>b <|x|><|end|>";
    check("<|begin|>assistant", solar, "a", "b <|x|>");
    check("<|begin|>assistant", "<|content|>b<|end|>", "", "b");
    let kimi = "a<|close|>think<|sep|><|open|>response<|sep|>b<|close|>response<|sep|>";
    check("<|open|>think<|sep|>", kimi, "a", "b");
    check("<|open|>response<|sep|>", "b<|close|>response<|sep|><|close|>message<|sep|>", "", "b");
    check("", "<mm:think>a</mm:think>b", "a", "b");
    check("<think:opensource>", "a</think:opensource>b", "a", "b");
    check("", "<|START_THINKING|>a<|END_THINKING|><|START_TEXT|>b<|END_TEXT|>", "a", "b");
    check("", "<answer>b</answer>", "", "<answer>b</answer>");
}

#[test]
fn continues_a_block_that_the_prompt_opened() {
    check("<|im_start|>assistant\n<think>\n", "I see.\n</think>\n\nYes.", "I see.", "Yes.");
    check("<|im_start|>assistant\n<think>\n", "<think>\nI see.</think>Yes.", "I see.", "Yes.");
    check("[THINK]", "a", "a", "");
    check("<think>\n\n</think>\n\n", "Yes.", "", "Yes.");
}

#[test]
fn leaves_other_text_alone() {
    check("", "", "", "");
    check("", "  Plain text.\n", "", "  Plain text.\n");
    check("", "The tag <think> opens and </think> closes.", "", "The tag <think> opens and </think> closes.");
    check("", "<thin", "", "<thin");
    check("", "<table><tr>", "", "<table><tr>");
    check("", " \n", "", " \n");
    check("", "<think>\n\n</think>\n\nNo thought.", "", "No thought.");
    check("", "<think>cut off </thi", "cut off </thi", "");
    check("", "<think>one</think>\n<think>two</think>three", "onetwo", "three");
    check("", "<think>a < b </ c</think>d", "a < b </ c", "d");
}

#[test]
fn reads_harmony_channels() {
    let text = "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant<|channel|>final<|message|>Hi <|x|>";
    check("<|start|>assistant", text, "Think.", "Hi <|x|>");
    check("<|start|>assistant", "<|channel|>final<|message|>Hi<|return|>", "", "Hi");
    check(
        "<|start|>assistant<|channel|>analysis<|message|>",
        "a<|end|><|start|>assistant<|channel|>final<|message|>b",
        "a",
        "b",
    );
    check("<|start|>assistant<|channel|>final<|message|>", "b<", "", "b<");
    check("", "<|start|>assistant<|message|>b", "", "b");
}

#[test]
fn pieces_come_as_soon_as_they_are_certain() {
    let mut parser = AnswerParser::new("", CallMarks::default());
    assert_eq!(parser.push("<think>one"), [Part::Thinking("one".into())]);
    assert_eq!(parser.push(" two"), [Part::Thinking(" two".into())]);
    assert_eq!(parser.push("</think>"), []);
    assert_eq!(parser.push("\n\n"), []);
    // `<` may begin the mark that some models put after the answer.
    assert_eq!(parser.push("three <"), [Part::Text("three ".into())]);
    assert_eq!(parser.finish(), [Part::Text("<".into())]);
    let mut parser = AnswerParser::new("", CallMarks::default());
    assert_eq!(parser.push("one <"), [Part::Text("one <".into())]);
}

proptest! {
    /// Any text made of marks and fragments, cut anywhere.
    #[test]
    fn cuts_do_not_matter(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("<think>"), Just("</think>"), Just("<|channel|>"), Just("analysis"), Just("<|message|>"),
                Just("<|end|>"), Just("<|start|>"), Just("<response>"), Just("</response>"), Just("[THINK]"),
                Just("<|content|>"), Just("<|open|>response<|sep|>"), Just("<"), Just("/"), Just("|"), Just(" "), Just("\n"), Just("語"), Just("think>"),
            ],
            0..12,
        ),
        cuts in proptest::collection::vec(0usize..100, 0..6),
        prompt in prop_oneof![Just(""), Just("<think>"), Just("<|start|>assistant<|channel|>analysis<|message|>")],
    ) {
        let text = parts.concat();
        let mut cuts: Vec<usize> =
            cuts.into_iter().map(|c| c.min(text.len())).filter(|c| text.is_char_boundary(*c)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|w| &text[w[0]..w[1]]);
        prop_assert_eq!(split(prompt, pieces), split(prompt, [text.as_str()]));
    }
}
