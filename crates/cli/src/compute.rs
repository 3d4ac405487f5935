//! `headroom logits`, `generate`, `perplexity`

use crate::args::{Generate, Logits, Perplexity, Rows};
use crate::failure::Failure;
use crate::load::{self, Wanted};
use crate::output;
use crate::program::Program;
use engine::{Cancel, Drafting, Engine, Positions, Request};
use serde_json::json;
use tokenizer::Encode;

/// Rows of logits computed at once where many are wanted.
const LOGITS_ROWS: u32 = 32;

pub fn logits(program: &Program, options: &Logits) -> Result<(), Failure> {
    let context = u32::try_from(options.ids.len()).ok();
    let rows = if options.positions == Rows::All { LOGITS_ROWS } else { 1 };
    let wanted = Wanted { context, rows, speculating: None };
    let engine = load::load(program, &options.model, &options.loading, wanted, &Cancel::new())?.session.engine;
    check(&engine, &options.ids)?;
    let mut positions = 0u64;
    let wanted = if options.positions == Rows::All { Positions::All } else { Positions::Last };
    let mut failed = None;
    app::write_output(&options.output, &mut |out| {
        let mut written = Ok(());
        let computed = engine.logits(&options.ids, wanted, &Cancel::new(), &mut |row| {
            positions += 1;
            for value in row {
                if written.is_ok() {
                    written = out.write_all(&value.to_le_bytes());
                }
            }
        });
        written.and(computed.map_err(|error| {
            let text = error.to_string();
            failed = Some(error);
            std::io::Error::other(text)
        }))
    })
    .map_err(|error| failed.take().map_or(Failure::from(error), Failure::from))?;
    let vocab = engine.model().vocab_size;
    if program.json {
        return output::json(&json!({ "positions": positions, "vocab": vocab }));
    }
    output::line(&format!("{positions} positions x {vocab} values in {}", options.output.display()))
}

pub fn generate(program: &Program, options: &Generate) -> Result<(), Failure> {
    let whole = (options.ids.len() as u32).saturating_add(options.count);
    let sampling = options.sampling.params(sampler::Params::default())?;
    let form = options.form.read()?;
    let cancel = Cancel::new();
    let speculating = Some((&options.speculating, Drafting::WherePays));
    let wanted = Wanted { context: Some(whole), rows: 1, speculating };
    let session = load::load(program, &options.model, &options.loading, wanted, &cancel)?.session;
    let mut grammar = form.map(|form| session.grammar(&form, &cancel, &mut || {})).transpose()?;
    let engine = session.engine;
    check(&engine, &options.ids)?;
    let request = Request {
        prompt: options.ids.clone(),
        sampling,
        max_tokens: Some(options.count),
        ignore_eog: options.ignore_eos,
    };
    let constraint = grammar.as_mut().map(|grammar| grammar as &mut dyn sampler::Constraint);
    let completion = engine.generate_within(constraint, request, &cancel, &mut |_| {})?;
    let text = String::from_utf8_lossy(&engine.tokenizer().decode(&completion.ids)).into_owned();
    if program.json {
        let (drafted, accepted) = (completion.drafts.proposed, completion.drafts.accepted);
        let seconds = completion.generation_seconds;
        return output::json(&json!({
            "ids": completion.ids, "text": text, "generation_s": seconds, "drafted": drafted, "accepted": accepted,
        }));
    }
    output::line(&text)
}

fn check(engine: &Engine, ids: &[u32]) -> Result<(), Failure> {
    let vocab = engine.model().vocab_size;
    match ids.iter().find(|id| **id as usize >= vocab) {
        Some(id) => Err(Failure::usage(format!("token {id} is not in the vocabulary of {vocab}"))),
        None => Ok(()),
    }
}

pub fn perplexity(program: &Program, options: &Perplexity) -> Result<(), Failure> {
    let text = std::fs::read(&options.file).map_err(|error| Failure::io(&options.file, error))?;
    let context = options.loading.placement.context.unwrap_or(512);
    if context < 4 {
        return Err(Failure::usage("perplexity needs a context of at least 4 tokens"));
    }
    let cancel = Cancel::new();
    let wanted = Wanted { context: Some(context), rows: LOGITS_ROWS, speculating: None };
    let loaded = load::load(program, &options.model, &options.loading, wanted, &cancel)?;
    let engine = loaded.session.engine;
    let ids = engine.tokenizer().encode(&text, Encode { add_special: true, parse_special: false });
    let result = measure(&engine, &ids, context as usize)?;
    let value =
        json!({ "ppl": result.perplexity, "tokens": ids.len(), "scored": result.scored, "chunks": result.chunks });
    if program.json {
        return output::json(&value);
    }
    output::line(&format!("perplexity {:.4} over {} of {} tokens", result.perplexity, result.scored, ids.len()))
}

struct Measured {
    perplexity: f64,
    scored: usize,
    chunks: usize,
}

/// Perplexity as llama.cpp's tool measures it: chunks of `context` tokens, each from an empty cache; the tokens of a
/// chunk's second half are scored. The rest of the text that fills no chunk is left out.
fn measure(engine: &Engine, ids: &[u32], context: usize) -> Result<Measured, Failure> {
    let chunks = ids.chunks_exact(context);
    let count = chunks.len();
    if count == 0 {
        return Err(Failure::usage(format!("the text has {} tokens; at least {context} are needed", ids.len())));
    }
    let bos = engine.tokenizer().bos().filter(|_| engine.tokenizer().adds_bos());
    let first = context / 2;
    let (mut sum, mut scored) = (0f64, 0usize);
    for (index, chunk) in chunks.enumerate() {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        let mut position = first;
        engine.logits(&chunk, Positions::From(first as u32), &Cancel::new(), &mut |row| {
            if let Some(next) = chunk.get(position + 1) {
                sum += negative_log_likelihood(row, *next);
                scored += 1;
            }
            position += 1;
        })?;
        output::progress(format!("{}/{count} {:.4}", index + 1, (sum / scored as f64).exp()));
    }
    output::progress("");
    Ok(Measured { perplexity: (sum / scored as f64).exp(), scored, chunks: count })
}

fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    sum.ln() - f64::from(logits[token as usize] - max)
}
