//! `headroom tokenize`, `detokenize`, `render`

use crate::args::{Detokenize, Render, TextSource, Tokenize};
use crate::failure::Failure;
use crate::given;
use crate::program::Program;
use crate::{load, output};
use chat_template::{RenderInput, Template, TemplateTokens};
use serde_json::json;
use tokenizer::{Encode, Tokenizer};

pub fn tokenize(program: &Program, options: &Tokenize) -> Result<(), Failure> {
    let tokenizer = Tokenizer::from_gguf(&load::header(program, &options.model)?)?;
    let special = !options.no_special;
    let ids = tokenizer.encode(&bytes(&options.source)?, Encode { add_special: special, parse_special: special });
    if program.json {
        return output::json(&json!({ "ids": ids }));
    }
    output::line(&ids.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
}

fn bytes(source: &TextSource) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &source.text {
        return Ok(text.as_bytes().to_vec());
    }
    if let Some(hex) = &source.hex {
        // A sign is no digit, but part of a number.
        let digits = |pair: &&str| pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digit = |at: usize| hex.get(at..at + 2).filter(digits).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        return (0..hex.len())
            .step_by(2)
            .map(|at| digit(at).ok_or_else(|| Failure::usage("--hex needs pairs of hexadecimal digits")))
            .collect();
    }
    let path = source.file.as_deref().ok_or_else(|| Failure::usage("give --text, --hex or --file"))?;
    std::fs::read(path).map_err(|error| Failure::io(path, error))
}

pub fn detokenize(program: &Program, options: &Detokenize) -> Result<(), Failure> {
    let tokenizer = Tokenizer::from_gguf(&load::header(program, &options.model)?)?;
    if let Some(id) = options.ids.iter().find(|id| **id as usize >= tokenizer.vocab_size()) {
        return Err(Failure::usage(format!("token {id} is not in the vocabulary of {}", tokenizer.vocab_size())));
    }
    let bytes = tokenizer.decode(&options.ids);
    if program.json {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return output::json(&json!({ "text": String::from_utf8_lossy(&bytes), "hex": hex }));
    }
    output::bytes(&bytes)
}

pub fn render(program: &Program, options: &Render) -> Result<(), Failure> {
    let template = match (&options.model, &options.template) {
        (Some(model), _) => {
            let header = load::header(program, model)?;
            let tokenizer = Tokenizer::from_gguf(&header)?;
            let source = header
                .metadata
                .str("tokenizer.chat_template")
                .ok_or_else(|| Failure::new("template", "the model has no chat template: give one with --template"))?;
            let text = |id: Option<u32>| {
                id.map(|id| String::from_utf8_lossy(tokenizer.token_text(id)).into_owned()).unwrap_or_default()
            };
            Template::parse(source, TemplateTokens { bos: text(tokenizer.bos()), eos: text(tokenizer.eos()) })?
        }
        (None, Some(path)) => {
            let source = given::text_of_file(path)?;
            Template::parse(&source, TemplateTokens { bos: options.bos.clone(), eos: options.eos.clone() })?
        }
        (None, None) => return Err(Failure::usage("give --model or --template")),
    };
    let input = given::text_of_file(&options.input)?;
    let input: RenderInput = serde_json::from_str(&input)
        .map_err(|error| Failure::usage(format!("{}: {error}", options.input.display())))?;
    let now = match &options.now {
        Some(text) => chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S")
            .map_err(|error| Failure::usage(format!("--now: {error}")))?,
        None => chrono::Local::now().naive_local(),
    };
    let prompt = template.render(&input, now)?;
    if program.json {
        return output::json(&json!({ "prompt": prompt }));
    }
    output::bytes(prompt.as_bytes())
}
