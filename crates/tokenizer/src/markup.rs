//! Markup that vocabularies have without saying so: known by its text, as in llama.cpp.

use crate::vocab::{TokenKind, Vocab};

/// Texts of tokens that end a turn, in whatever vocabulary they are found: files often name only one of several.
const END_OF_GENERATION: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Texts of the token that ends a turn, where the file does not name it; the first that is there.
const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// Fill-in-the-middle markup after which nothing can follow: padding, the next repository, the next file.
const FILL_IN_END: &[&str] = &[
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// Other fill-in-the-middle markup.
const FILL_IN: &[&str] = &[
    "<|fim_prefix|>",
    "<fim-prefix>",
    "<fim_prefix>",
    "<｜fim▁begin｜>",
    "<PRE>",
    "▁<PRE>",
    "<|code_prefix|>",
    "<|prefix|>",
    "<|fim_suffix|>",
    "<fim-suffix>",
    "<fim_suffix>",
    "<｜fim▁hole｜>",
    "<SUF>",
    "▁<SUF>",
    "<|code_suffix|>",
    "<|suffix|>",
    "<|fim_middle|>",
    "<fim-middle>",
    "<fim_middle>",
    "<｜fim▁end｜>",
    "<MID>",
    "▁<MID>",
    "<|code_middle|>",
    "<|middle|>",
];

/// Makes control tokens of known markup. Files often have it as ordinary tokens; then users could type it, and turns
/// would not end.
pub(crate) fn mark_control(vocab: &mut Vocab) {
    for text in [END_OF_GENERATION, FILL_IN_END, FILL_IN].into_iter().flatten() {
        if let Some(id) = vocab.id(text.as_bytes()) {
            vocab.kinds[id as usize] = TokenKind::Control;
        }
    }
    if gemma4_end(vocab).is_some()
        && let Some(id) = vocab.id(b"</s>")
    {
        vocab.kinds[id as usize] = TokenKind::Normal;
    }
}

/// In gemma4's vocabulary, which this token tells, `</s>` is HTML.
fn gemma4_end(vocab: &Vocab) -> Option<u32> {
    vocab.id(b"<|tool_response>")
}

pub(crate) fn end_of_turn(vocab: &Vocab) -> Option<u32> {
    END_OF_TURN.iter().find_map(|text| vocab.id(text.as_bytes()))
}

/// Every token that ends a turn, in order: those that the file names, and those that are known.
pub(crate) fn end_of_generation(vocab: &Vocab, named: impl Iterator<Item = u32>) -> Vec<u32> {
    let known = END_OF_GENERATION.iter().chain(FILL_IN_END).filter_map(|text| vocab.id(text.as_bytes()));
    let mut ids: Vec<u32> = known.chain(named).collect();
    ids.sort_unstable();
    ids.dedup();
    let has = |text: &str| vocab.id(text.as_bytes()).is_some();
    let mut remove = |text: &str| ids.retain(|id| vocab.text(*id) != text.as_bytes());
    // gpt-oss and solar-open: <|end|> closes a channel, and these the turn.
    if (has("<|call|>") || has("<|calls|>")) && (has("<|return|>") || has("<|flush|>")) {
        remove("<|end|>");
    }
    if gemma4_end(vocab).is_some() {
        remove("</s>");
    }
    ids
}
