//! Where an answer stands: what is prescribed for it must not hold for the reasoning before it.

use chat_template::{AnswerParser, Part, Stage, reasoning_mark};

/// The stage after each piece.
fn stages(prompt: &str, pieces: &[&str]) -> Vec<Stage> {
    let mut parser = AnswerParser::verbatim(prompt);
    let mut stages = vec![parser.stage()];
    for piece in pieces {
        parser.push(piece);
        stages.push(parser.stage());
    }
    stages
}

#[test]
fn an_answer_begins_after_the_reasoning() {
    use Stage::{Answer, Reasoning, Start};
    assert_eq!(stages("", &["{", "}"]), [Start, Answer, Answer]);
    assert_eq!(
        stages("", &["<think>", "hm", "</think>", "\n\n", "{"]),
        [Start, Reasoning, Reasoning, Start, Start, Answer]
    );
    assert_eq!(
        stages("<think>\n", &["hm", "</", "think", ">\n", "{"]),
        [Reasoning, Reasoning, Reasoning, Reasoning, Start, Answer]
    );
    assert_eq!(
        stages("", &["<th", "ink>"]),
        [Start, Reasoning, Reasoning],
        "the beginning of a mark is not yet an answer"
    );
    assert_eq!(stages("<think>\n\n</think>\n\n", &["{"]), [Start, Answer]);
    let harmony = [
        "<|channel|>",
        "analysis",
        "<|message|>",
        "hm",
        "<|end|>",
        "<|start|>",
        "assistant",
        "<|channel|>",
        "final",
        "<|message|>",
        "{",
    ];
    let mut expected = vec![Reasoning; 12];
    expected[0] = Start;
    expected[10..].fill(Answer);
    assert_eq!(stages("<|start|>assistant", &harmony), expected);
    assert_eq!(stages("<|start|>assistant<|channel|>final<|message|>", &["{"]), [Answer, Answer]);
}

#[test]
fn within_a_prescribed_answer_nothing_is_a_mark() {
    let text = "<think>hm</think>\n\n{\"name\": \"</answer>\", \"parameters\": \"<response>\"}";
    let mut parser = AnswerParser::verbatim("");
    let mut parts = parser.push(text);
    parts.extend(parser.finish());
    let [Part::Thinking(thinking), Part::Text(answer)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!((thinking.as_str(), answer.as_str()), ("hm", &text[19..]));
}

#[test]
fn the_mark_that_opens_reasoning_is_told_by_the_template() {
    assert_eq!(reasoning_mark("{% if '<think>' in content %}", "<|im_start|>assistant\n"), Some("<think>"));
    assert_eq!(reasoning_mark("... <|channel|>analysis ...", "<|start|>assistant"), Some("<|channel|>"));
    assert_eq!(reasoning_mark("<|channel>thought", "<|turn>model\n"), Some("<|channel>thought"));
    assert_eq!(reasoning_mark("a plain one", ""), None);
    for prompt in ["<think>\n", "<think>\n\n</think>\n\n"] {
        assert_eq!(reasoning_mark("<think>", prompt), None, "{prompt}");
    }
}
