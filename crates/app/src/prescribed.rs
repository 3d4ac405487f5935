//! An answer whose form is prescribed: free where the model thinks, bound from the answer's first token on.
//!
//! A model that thinks does so as ever, within the marks of its family; only the end of its turn is not allowed there.
//! Where it may think but need not, it has the choice: the mark that opens reasoning, or the prescribed answer. Between
//! the reasoning and the answer it may write the line breaks that it has learned to write, once.

use chat_template::{AnswerParser, Part, Stage};
use grammar::Grammar;
use sampler::{Constraint, ConstraintError, Mask};
use tokenizer::{Detokenizer, Encode, TokenKind, Tokenizer};

/// Line breaks after the reasoning, as models write them.
const BREAKS: [&str; 2] = ["\n", "\n\n"];

/// The constraint of one answer.
pub struct Prescribed<'a> {
    grammar: Grammar,
    tokenizer: &'a Tokenizer,
    gate: Gate,
    /// Follows the answer until its text begins.
    parser: AnswerParser,
    text: Detokenizer<'a>,
    /// As long as it holds, unless it is the grammar's own.
    mask: Option<Mask>,
}

enum Gate {
    /// The answer begins, unless one of these tokens comes: the first of those that open reasoning, or line breaks.
    Start {
        opening: Vec<u32>,
        breaks: Vec<u32>,
    },
    /// The rest of the tokens that open reasoning.
    Opening(Vec<u32>),
    Reasoning,
    Answer,
}

impl<'a> Prescribed<'a> {
    /// For the answer to `prompt`, which may open reasoning with `mark`.
    pub fn new(grammar: Grammar, tokenizer: &'a Tokenizer, prompt: &str, mark: Option<&str>) -> Prescribed<'a> {
        let parser = AnswerParser::verbatim(prompt);
        let opening = mark.map(|mark| tokenizer.encode(mark, Encode { add_special: false, parse_special: true }));
        // A mark that is written with letters may be the beginning of the answer.
        let own = |id: &u32| matches!(tokenizer.token_kind(*id), TokenKind::Control | TokenKind::UserDefined);
        let opening = opening.filter(|ids| ids.first().is_some_and(own)).unwrap_or_default();
        let gate = match parser.stage() {
            Stage::Start => Gate::Start { opening, breaks: Vec::new() },
            Stage::Reasoning => Gate::Reasoning,
            Stage::Answer => Gate::Answer,
        };
        Prescribed { grammar, tokenizer, gate, parser, text: tokenizer.detokenizer(), mask: None }
    }

    /// For a text that is continued, where nothing is reasoning.
    pub fn at_once(grammar: Grammar, tokenizer: &'a Tokenizer) -> Prescribed<'a> {
        let mut prescribed = Prescribed::new(grammar, tokenizer, "", None);
        prescribed.gate = Gate::Answer;
        prescribed
    }

    /// Follows what is no part of the answer, and finds out whether the answer begins after it.
    fn follow(&mut self, token: u32) -> Result<(), ConstraintError> {
        let text = self.text.push(token);
        let parts = self.parser.push(&text);
        self.gate = match self.parser.stage() {
            Stage::Reasoning => Gate::Reasoning,
            Stage::Start => Gate::Start { opening: Vec::new(), breaks: self.breaks() },
            Stage::Answer => {
                // A token that closes the reasoning and begins the answer: the grammar has not seen its text.
                let begun = |part: &Part| matches!(part, Part::Text(text) if !text.trim().is_empty());
                if parts.iter().any(begun) {
                    return Err(ConstraintError::Refused { token });
                }
                Gate::Answer
            }
        };
        Ok(())
    }

    fn breaks(&self) -> Vec<u32> {
        let encode = |text: &&str| self.tokenizer.encode(text, Encode { add_special: false, parse_special: false });
        let alone = |ids: Vec<u32>| if let [id] = ids[..] { Some(id) } else { None };
        BREAKS.iter().map(encode).filter_map(alone).collect()
    }
}

impl Constraint for Prescribed<'_> {
    fn mask(&mut self) -> Result<Option<&Mask>, ConstraintError> {
        if self.mask.is_some() {
            return Ok(self.mask.as_ref());
        }
        let size = self.tokenizer.vocab_size();
        let mask = match &self.gate {
            Gate::Answer => return self.grammar.mask(),
            Gate::Start { opening, breaks } => {
                let mut mask = self.grammar.mask()?.cloned().unwrap_or_else(|| Mask::all(size));
                opening.first().into_iter().chain(breaks).for_each(|id| mask.set(*id, true));
                mask
            }
            Gate::Opening(rest) => {
                let mut mask = Mask::none(size);
                rest.first().into_iter().for_each(|id| mask.set(*id, true));
                mask
            }
            Gate::Reasoning => {
                let mut mask = Mask::all(size);
                self.tokenizer.end_of_generation().iter().for_each(|id| mask.set(*id, false));
                mask
            }
        };
        Ok(Some(self.mask.insert(mask)))
    }

    fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.mask = None;
        match &mut self.gate {
            Gate::Answer => self.grammar.accept(token),
            Gate::Start { opening, breaks } => {
                // What the grammar takes is the answer.
                let refused = match self.grammar.accept(token) {
                    Ok(()) => {
                        self.gate = Gate::Answer;
                        return Ok(());
                    }
                    Err(refused) => refused,
                };
                if opening.first() == Some(&token) {
                    let rest = opening.split_off(1);
                    self.follow(token)?;
                    if !rest.is_empty() {
                        self.gate = Gate::Opening(rest);
                    }
                    return Ok(());
                }
                if breaks.contains(&token) {
                    breaks.clear();
                    return Ok(());
                }
                Err(refused)
            }
            Gate::Opening(rest) => {
                if rest.first() != Some(&token) {
                    return Err(ConstraintError::Refused { token });
                }
                let rest = rest.split_off(1);
                self.follow(token)?;
                if !rest.is_empty() {
                    self.gate = Gate::Opening(rest);
                }
                Ok(())
            }
            Gate::Reasoning if self.tokenizer.is_eog(token) => Err(ConstraintError::Refused { token }),
            Gate::Reasoning => self.follow(token),
        }
    }

    fn is_complete(&self) -> bool {
        matches!(self.gate, Gate::Answer) && self.grammar.is_complete()
    }
}
