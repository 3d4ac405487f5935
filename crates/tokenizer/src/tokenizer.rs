//! The tokenizer as others hold it.

use crate::bpe::{Bpe, unescape};
use crate::decode::Detokenizer;
use crate::special::{Part, Specials};
use crate::vocab::Vocab;
use crate::{TokenKind, TokenizerError, markup, spm};
use gguf::Gguf;

/// What is done to a text besides encoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encode {
    /// Add BOS and EOS where the vocabulary says so.
    pub add_special: bool,
    /// Take the texts of control tokens for those tokens. Never for what a user typed.
    pub parse_special: bool,
}

enum Kind {
    Spm,
    Bpe(Box<Bpe>),
}

/// Text to tokens and back.
pub struct Tokenizer {
    vocab: Vocab,
    kind: Kind,
    specials: Specials,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    adds_bos: bool,
    adds_eos: bool,
    add_space_prefix: bool,
    /// White space after special tokens belongs to them (phi-3).
    strips_after_special: bool,
    end_of_generation: Vec<u32>,
}

impl Tokenizer {
    /// # Errors
    /// No vocabulary, a kind of tokenizer that is not supported, or a damaged vocabulary.
    pub fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let model = gguf.metadata.str("tokenizer.ggml.model").ok_or(TokenizerError::Missing("tokenizer.ggml.model"))?;
        let mut vocab = Vocab::from_gguf(gguf)?;
        markup::mark_control(&mut vocab);
        let pre = gguf.metadata.str("tokenizer.ggml.pre");
        let kind = match model {
            "llama" => Kind::Spm,
            "gpt2" => Kind::Bpe(Box::new(Bpe::new(gguf, &vocab, pre)?)),
            "gemma4" => Kind::Bpe(Box::new(Bpe::new(gguf, &vocab, Some("gemma4"))?)),
            other => return Err(TokenizerError::Unsupported(other.chars().take(64).collect())),
        };
        let size = vocab.len();
        let special = |name: &str| {
            let id = gguf.metadata.u64(&format!("tokenizer.ggml.{name}_token_id"))?;
            u32::try_from(id).ok().filter(|id| (*id as usize) < size)
        };
        let is_spm = matches!(kind, Kind::Spm);
        let default_id = |id: u32| (is_spm && size > id as usize).then_some(id);
        let flag = |name: &str| gguf.metadata.bool(&format!("tokenizer.ggml.{name}"));
        let is_gemma4 = matches!(&kind, Kind::Bpe(bpe) if bpe.pretokenizer.kind.names.contains(&"gemma4"));
        let adds_bos = match &kind {
            Kind::Spm => true,
            Kind::Bpe(bpe) => bpe.pretokenizer.kind.adds_bos,
        };
        let name = gguf.metadata.str("general.name").unwrap_or_default().to_lowercase();
        let (eos, eot) = (special("eos").or(default_id(2)), special("eot").or(markup::end_of_turn(&vocab)));
        let named = ["eom", "fim_pad", "fim_rep", "fim_sep"].into_iter().filter_map(special).chain(eos).chain(eot);
        Ok(Tokenizer {
            specials: Specials::new(&vocab)?,
            end_of_generation: markup::end_of_generation(&vocab, named),
            bos: special("bos").or(default_id(1)),
            eos,
            eot,
            // Early gemma4 files deny it, and the model does not work without.
            adds_bos: flag("add_bos_token").unwrap_or(adds_bos) || is_gemma4,
            adds_eos: flag("add_eos_token").unwrap_or(false),
            add_space_prefix: flag("add_space_prefix").unwrap_or(is_spm),
            strips_after_special: ["phi-3", "phi3"].iter().any(|phi| name.contains(phi)),
            vocab,
            kind,
        })
    }

    /// Tokens of `text`, which need not be UTF-8.
    pub fn encode(&self, text: impl AsRef<[u8]>, options: Encode) -> Vec<u32> {
        let text = text.as_ref();
        let mut ids = Vec::with_capacity(text.len() / 3 + 4);
        if options.add_special && self.adds_bos {
            ids.extend(self.bos);
        }
        // The start counts as a special token, but takes no white space.
        let (mut after_special, mut strips) = (true, false);
        for part in self.specials.parts(text, options.parse_special) {
            match part {
                Part::Token(id) => {
                    ids.push(id);
                    (after_special, strips) = (true, self.strips_after(id));
                }
                Part::Text(range) => {
                    let mut text = &text[range];
                    while let (true, Some(rest)) = (strips, text.split_first().filter(|(first, _)| is_space(**first))) {
                        text = rest.1;
                    }
                    if !text.is_empty() {
                        self.encode_part(text, after_special, &mut ids);
                        (after_special, strips) = (false, false);
                    }
                }
            }
        }
        if options.add_special && self.adds_eos {
            ids.extend(self.eos);
        }
        ids
    }

    fn strips_after(&self, id: u32) -> bool {
        self.strips_after_special && !matches!(self.vocab.text(id), b"<unk>" | b"<s>" | b"<|endoftext|>")
    }

    fn encode_part(&self, text: &[u8], after_special: bool, ids: &mut Vec<u32>) {
        match &self.kind {
            Kind::Bpe(bpe) => bpe.encode(&self.vocab, text, ids),
            Kind::Spm => {
                let mut escaped = Vec::new();
                if self.add_space_prefix && after_special {
                    escaped.extend_from_slice(spm::SPACE.as_bytes());
                }
                escaped.extend(spm::escape(text));
                spm::encode(&self.vocab, &escaped, ids);
            }
        }
    }

    /// The bytes of `ids`, special tokens written out. The space that encoding puts before a text is taken off again.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut out: Vec<u8> = ids.iter().flat_map(|id| self.token_bytes(*id)).collect();
        let plain_start = ids.first().is_some_and(|id| !self.is_special(*id));
        if self.add_space_prefix && plain_start && matches!(self.kind, Kind::Spm) && out.first() == Some(&b' ') {
            out.remove(0);
        }
        out
    }

    /// The bytes that one token stands for; a special token's own text. Empty for ids that do not exist.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let text = self.vocab.text(id);
        match (self.vocab.kind(id), &self.kind) {
            (TokenKind::Byte, _) => self.vocab.byte_value(id).map_or_else(|| text.to_vec(), |byte| vec![byte]),
            (TokenKind::Normal | TokenKind::Unused, Kind::Spm) => unescape(text),
            (TokenKind::Normal | TokenKind::Unused, Kind::Bpe(bpe)) => bpe.read(text),
            _ => text.to_vec(),
        }
    }

    /// Streams the bytes of tokens as whole characters.
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(self)
    }

    /// The token's text as the vocabulary writes it.
    pub fn token_text(&self, id: u32) -> &[u8] {
        self.vocab.text(id)
    }

    /// The token with exactly this text.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocab.id(text.as_bytes())
    }

    pub fn token_kind(&self, id: u32) -> TokenKind {
        self.vocab.kind(id)
    }

    fn is_special(&self, id: u32) -> bool {
        matches!(self.vocab.kind(id), TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown)
    }

    /// Every token that ends a turn, in order.
    pub fn end_of_generation(&self) -> &[u32] {
        &self.end_of_generation
    }

    /// Whether the model ends its turn with this token.
    pub fn is_eog(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }

    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that ends a turn: named by the file, or known by its text.
    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The file names a pre-tokenizer that is not known here; GPT-2's rules are used, and answers may be worse.
    pub fn unknown_pretokenizer(&self) -> bool {
        matches!(&self.kind, Kind::Bpe(bpe) if bpe.pretokenizer.unknown)
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
