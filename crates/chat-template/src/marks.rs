//! The marks by which families of models tell their reasoning from their answers.

/// How a family of models marks its reasoning.
pub(crate) struct Marks {
    pub open: &'static str,
    pub close: &'static str,
    /// Marks that some models put around the answer that follows, the one before it first; they are not shown.
    pub answer: &'static [&'static str],
}

pub(crate) const MARKS: [Marks; 16] = [
    // DeepSeek, Qwen, GLM, Kimi K2, MiniMax, Nemotron, SmolLM3, Granite (which wraps its answer), Hunyuan (likewise).
    Marks { open: "<think>", close: "</think>", answer: &["<response>", "</response>", "<answer>", "</answer>"] },
    Marks { open: "<thinking>", close: "</thinking>", answer: &[] },
    Marks { open: "<thought>", close: "</thought>", answer: &[] },
    Marks { open: "<reasoning>", close: "</reasoning>", answer: &[] },
    // Mistral: Magistral, Ministral.
    Marks { open: "[THINK]", close: "[/THINK]", answer: &[] },
    // ByteDance Seed-OSS.
    Marks { open: "<seed:think>", close: "</seed:think>", answer: &[] },
    // Cohere Command.
    Marks {
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
        answer: &["<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"],
    },
    // Apertus.
    Marks { open: "<|inner_prefix|>", close: "<|inner_suffix|>", answer: &[] },
    // Gemma 4.
    Marks { open: "<|channel>thought", close: "<channel|>", answer: &[] },
    // Kimi-VL.
    Marks { open: "◁think▷", close: "◁/think▷", answer: &[] },
    // Apriel.
    Marks {
        open: "Here are my reasoning steps:",
        close: "[BEGIN FINAL RESPONSE]",
        answer: &["[END FINAL RESPONSE]", "<|end|>"],
    },
    // Sky-T1, OpenThinker.
    Marks {
        open: "<|begin_of_thought|>",
        close: "<|end_of_thought|>",
        answer: &["<|begin_of_solution|>", "<|end_of_solution|>"],
    },
    // Upstage Solar Open: each part is a message of its own.
    Marks {
        open: "<|think|>",
        close: "<|end|>",
        answer: &["<|content|>", "<|begin|>assistant", "<|end|>", "<|flush|>"],
    },
    // Moonshot Kimi K3.
    Marks {
        open: "<|open|>think<|sep|>",
        close: "<|close|>think<|sep|>",
        answer: &["<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"],
    },
    // MiniMax M3.
    Marks { open: "<mm:think>", close: "</mm:think>", answer: &[] },
    // Tencent Hunyuan 3.
    Marks { open: "<think:opensource>", close: "</think:opensource>", answer: &[] },
];

/// The mark with which a model of this template may open its reasoning after `prompt`; `None` where the prompt has opened
/// or closed it, or the template knows of none.
pub fn reasoning_mark(template: &str, prompt: &str) -> Option<&'static str> {
    let tail = prompt.trim_end();
    if MARKS.iter().any(|marks| tail.ends_with(marks.open) || tail.ends_with(marks.close)) {
        return None;
    }
    let own = MARKS.iter().map(|marks| marks.open).find(|mark| template.contains(mark));
    own.or_else(|| Some(crate::harmony::CHANNEL).filter(|mark| template.contains(mark) && !tail.ends_with(mark)))
}

/// The family whose mark before an answer satisfies `is_mark`. Only control tokens count: what looks like XML may be
/// what the user asked for.
pub(crate) fn answer_that_opens(is_mark: impl Fn(&str) -> bool) -> Option<usize> {
    MARKS.iter().position(|marks| marks.answer.first().is_some_and(|mark| mark.starts_with("<|") && is_mark(mark)))
}
