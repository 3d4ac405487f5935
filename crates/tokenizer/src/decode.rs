//! Streaming: characters come out when they are whole.

use crate::Tokenizer;

/// Turns tokens into text piece by piece. A character whose bytes are spread over tokens comes out with the last of
/// them; bytes that can never become a character come out as U+FFFD.
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u8>,
}

impl<'a> Detokenizer<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Detokenizer<'a> {
        Detokenizer { tokenizer, pending: Vec::new() }
    }

    /// The characters that `id` completes; may be empty.
    pub fn push(&mut self, id: u32) -> String {
        self.pending.extend(self.tokenizer.token_bytes(id));
        self.take(false)
    }

    /// What is left, with U+FFFD for a character that never became whole.
    pub fn finish(mut self) -> String {
        self.take(true)
    }

    fn take(&mut self, end: bool) -> String {
        let mut out = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    // The prefix was just found to be valid.
                    out.push_str(std::str::from_utf8(good).unwrap_or_default());
                    match error.error_len() {
                        Some(length) => {
                            out.push('\u{fffd}');
                            rest = &bad[length..];
                        }
                        None if end => {
                            out.push('\u{fffd}');
                            rest = &[];
                            break;
                        }
                        // The start of a character: more may come.
                        None => {
                            rest = bad;
                            break;
                        }
                    }
                }
            }
        }
        self.pending = rest.to_vec();
        out
    }
}
