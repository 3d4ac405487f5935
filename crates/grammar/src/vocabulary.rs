//! The tokens of a model as a tree of bytes.

use crate::error::GrammarError;
use crate::form::Form;
use crate::grammar::Grammar;
use crate::limits;
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use std::collections::HashMap;
use std::sync::Arc;
use tokenizer::{TokenKind, Tokenizer};
use toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

/// A model's tokens, ready for any number of grammars. Made once per model: it takes half a second of a core and some
/// 400 bytes for each token.
pub struct Vocabulary {
    factory: ParserFactory,
}

/// What a [`Vocabulary`] is made of. Taking it from a tokenizer is the smaller part of the work; the rest can be done on
/// another thread.
pub struct Words {
    words: Vec<Vec<u8>>,
    ends: Vec<u32>,
}

impl Words {
    /// Control tokens are in it under their names, which no text can contain: a grammar may ask for them, and they are
    /// never part of a string.
    pub fn new(tokenizer: &Tokenizer) -> Words {
        let mut words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32).map(|id| word(tokenizer, id)).collect();
        keep_one_of_each(&mut words, tokenizer);
        Words { words, ends: tokenizer.end_of_generation().to_vec() }
    }

    /// # Errors
    /// [`GrammarError::Vocabulary`] for one that is too large.
    pub fn vocabulary(self) -> Result<Vocabulary, GrammarError> {
        Vocabulary::of_words(self.words, &self.ends)
    }
}

impl Vocabulary {
    /// # Errors
    /// As [`Words::vocabulary`].
    pub fn new(tokenizer: &Tokenizer) -> Result<Vocabulary, GrammarError> {
        Words::new(tokenizer).vocabulary()
    }

    /// The 256 bytes: to find out whether a schema or grammar can be used before there is a model.
    ///
    /// # Errors
    /// A bug.
    pub fn of_bytes() -> Result<Vocabulary, GrammarError> {
        let words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        Vocabulary::of_words(words, &[])
    }

    fn of_words(words: Vec<Vec<u8>>, ends: &[u32]) -> Result<Vocabulary, GrammarError> {
        let nodes = nodes(&words);
        if nodes > limits::MAX_NODES || words.len() >= 1 << 24 {
            let text = format!("{} tokens make a tree of {nodes} nodes, of {} at most", words.len(), limits::MAX_NODES);
            return Err(GrammarError::Vocabulary(text));
        }
        let end = ends.first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        drop(words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(ends);
        }
        // The model chooses how it writes what is prescribed: no tokens are forced, and no tokenizer is needed.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = limits::parser();
        Ok(Vocabulary { factory })
    }

    /// Reads a schema or grammar.
    ///
    /// # Errors
    /// It is wrong, asks for what cannot be prescribed, or goes beyond the [`limits`].
    pub fn compile(&self, form: &Form) -> Result<Grammar, GrammarError> {
        let compile = || {
            let parser = self.factory.create_parser(form.grammar()?);
            parser.map_err(|error| GrammarError::told(&error.to_string()))
        };
        // A nested schema takes more stack than a thread has as a rule.
        let parser = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("grammar".into()).stack_size(limits::STACK);
            let thread =
                thread.spawn_scoped(scope, compile).map_err(|error| GrammarError::NoThread(error.to_string()))?;
            thread.join().unwrap_or_else(|_| Err(GrammarError::TooComplex("its compiler failed".into())))
        })?;
        let trie = self.factory.tok_env().tok_trie();
        Grammar::new(parser, trie.vocab_size(), trie.eos_tokens())
    }
}

/// Sets of tokens that a mask takes or leaves as a whole where its place in a string allows it: those that can be within a
/// JSON string of any length, and of a bounded one. Each costs copies of the tree. The library's own list has white space
/// too, which makes nothing faster.
fn slices() -> Vec<String> {
    [1, 2, 3].map(|at| SlicedBiasComputer::general_slices().swap_remove(at)).into()
}

/// The bytes by which the tree knows a token; none for one that cannot be part of a prescribed answer.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let word = match tokenizer.token_kind(id) {
        TokenKind::Control => [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.token_text(id)].concat(),
        _ if tokenizer.is_eog(id) => [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.token_text(id)].concat(),
        TokenKind::Unknown | TokenKind::Unused => return Vec::new(),
        TokenKind::Normal | TokenKind::UserDefined | TokenKind::Byte => {
            let bytes = tokenizer.token_bytes(id);
            // No text has this byte. It would pass for a control token.
            if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) { Vec::new() } else { bytes }
        }
    };
    if word.len() > limits::MAX_TOKEN { Vec::new() } else { word }
}

/// Of tokens with the same bytes the one that text becomes stays: not a byte's own token, and the first.
fn keep_one_of_each(words: &mut [Vec<u8>], tokenizer: &Tokenizer) {
    let mut kept: HashMap<Vec<u8>, usize> = HashMap::with_capacity(words.len());
    for id in 0..words.len() {
        if words[id].is_empty() {
            continue;
        }
        let is_byte = |id: usize| tokenizer.token_kind(id as u32) == TokenKind::Byte;
        match kept.get_mut(&words[id]) {
            Some(other) if is_byte(*other) && !is_byte(id) => words[std::mem::replace(other, id)].clear(),
            Some(_) => words[id].clear(),
            None => drop(kept.insert(words[id].clone(), id)),
        }
    }
}

/// Nodes of the tree: one for each beginning of a word, and the root.
fn nodes(words: &[Vec<u8>]) -> usize {
    let mut sorted: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    let shared = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let new = sorted.windows(2).map(|pair| pair[1].len() - shared(pair[0], pair[1])).sum::<usize>();
    1 + sorted.first().map_or(0, |first| first.len()) + new
}
