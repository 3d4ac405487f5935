//! What answers of a loaded model must look like: the tree of its tokens, made when the first one is given a form.

use crate::app::lock;
use crate::error::Result;
use crate::wire::{ErrorCode, WireError};
use engine::Cancel;
use grammar::{Form, Grammar, GrammarError, Vocabulary, Words};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokenizer::Tokenizer;

/// How often a wait looks whether it is over.
const LOOK: Duration = Duration::from_millis(10);

type Made = std::result::Result<Vocabulary, GrammarError>;

/// The tree of a model's tokens.
#[derive(Default)]
pub(crate) struct TokenTree {
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    /// On a thread of its own. Whoever waits may stop waiting: the tree is for the next one.
    Growing(JoinHandle<Made>),
    There(Arc<Made>),
}

impl TokenTree {
    /// The grammar of a form. `on_wait` is called once if the tree must be waited for.
    ///
    /// # Errors
    /// [`ErrorCode::Cancelled`], soon after it was; the form or the vocabulary cannot be used.
    pub fn grammar(
        &self,
        tokenizer: &Tokenizer,
        form: &Form,
        cancel: &Cancel,
        on_wait: &mut dyn FnMut(),
    ) -> Result<Grammar> {
        let mut waited = false;
        let made = loop {
            if let Some(made) = self.made(tokenizer)? {
                break made;
            }
            if !std::mem::replace(&mut waited, true) {
                on_wait();
            }
            if cancel.is_cancelled() {
                return Err(WireError::new(ErrorCode::Cancelled, "cancelled while the answer's format was prepared"));
            }
            std::thread::sleep(LOOK);
        };
        let vocabulary = made.as_ref().as_ref().map_err(Clone::clone)?;
        Ok(vocabulary.compile(form)?)
    }

    /// The tree if it is there. Whoever asks first has it made.
    fn made(&self, tokenizer: &Tokenizer) -> Result<Option<Arc<Made>>> {
        let mut state = lock(&self.state);
        match std::mem::take(&mut *state) {
            State::None => {
                let words = Words::new(tokenizer);
                let thread = std::thread::Builder::new().name("tokens".into()).spawn(move || words.vocabulary());
                *state = State::Growing(thread.map_err(|error| WireError::internal(format!("no thread: {error}")))?);
                Ok(None)
            }
            State::Growing(thread) if !thread.is_finished() => {
                *state = State::Growing(thread);
                Ok(None)
            }
            State::Growing(thread) => {
                let failed = |_| Err(GrammarError::Vocabulary("the tree of tokens could not be made".into()));
                let made = Arc::new(thread.join().unwrap_or_else(failed));
                *state = State::There(made.clone());
                Ok(Some(made))
            }
            State::There(made) => {
                *state = State::There(made.clone());
                Ok(Some(made))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_models::ModelSpec;

    #[test]
    fn a_wait_can_be_cancelled_and_the_tree_is_for_the_next() {
        let file = ModelSpec::qwen3().build();
        let tokenizer = Tokenizer::from_gguf(&gguf::Gguf::parse(&file, file.len() as u64).unwrap()).unwrap();
        let (tree, cancel) = (TokenTree::default(), Cancel::new());
        cancel.cancel();
        let mut waits = 0;
        let cancelled = tree.grammar(&tokenizer, &Form::Json, &cancel, &mut || waits += 1);
        assert_eq!((cancelled.map(drop).unwrap_err().code, waits), (ErrorCode::Cancelled, 1));
        assert!(matches!(*lock(&tree.state), State::Growing(_)), "it goes on");
        tree.grammar(&tokenizer, &Form::Json, &Cancel::new(), &mut || {}).unwrap();
        let mut waits = 0;
        tree.grammar(&tokenizer, &Form::Json, &cancel, &mut || waits += 1).unwrap();
        assert_eq!(waits, 0, "what is there needs no waiting");
    }

    #[test]
    fn what_fails_says_so_each_time() {
        let tree = TokenTree::default();
        *lock(&tree.state) = State::Growing(std::thread::spawn(|| panic!("as a test")));
        let file = ModelSpec::qwen3().build();
        let tokenizer = Tokenizer::from_gguf(&gguf::Gguf::parse(&file, file.len() as u64).unwrap()).unwrap();
        for _ in 0..2 {
            let failed = tree.grammar(&tokenizer, &Form::Json, &Cancel::new(), &mut || {});
            assert_eq!(failed.map(drop).unwrap_err().code, ErrorCode::ModelUnsupported);
        }
    }
}
