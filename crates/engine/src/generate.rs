//! The loop that reads a prompt and makes tokens.

use crate::choice::Choice;
use crate::core::Core;
use crate::engine::{Engine, Positions};
use crate::{Cancel, Completion, EngineError, Event, Finish, Request};
use sampler::Constraint;
use std::time::Instant;

/// Feeds `tokens[reused..]` in micro-batches; `reused` is what the cache holds already.
pub(crate) fn read_prompt(
    core: &mut Core,
    engine: &Engine,
    tokens: &[u32],
    positions: Positions,
    cancel: &Cancel,
    on_event: &mut dyn FnMut(Event),
    logits: &mut dyn FnMut(&[f32]),
) -> Result<(), EngineError> {
    let ubatch = engine.layout().params.ubatch as usize;
    let recurrent = engine.layout().is_recurrent();
    let reused = core.sequence_len();
    let total = tokens.len() as u32;
    on_event(Event::Prompt { done: reused as u32, total, reused: reused as u32 });
    let mut done = reused;
    // An edited last message begins here.
    core.keep_states();
    while done < tokens.len() {
        let mut end = tokens.len().min(done + ubatch);
        if recurrent && end == tokens.len() && end - done > 1 {
            // The last token comes alone, so that the answer can be made again from the state before it.
            end -= 1;
        }
        let batch = &tokens[done..end];
        let rows: Vec<u32> =
            (0..batch.len() as u32).filter(|row| positions.wants(done + *row as usize, tokens.len())).collect();
        core.feed(batch, &rows, cancel, logits)?;
        done = end;
        if done + 1 == tokens.len() {
            core.keep_states();
        }
        between_steps(core, engine, on_event)?;
        on_event(Event::Prompt { done: done as u32, total, reused: reused as u32 });
    }
    Ok(())
}

/// What may happen between two steps: layers move because somebody wishes it or other programs need the memory,
/// recoveries are told.
fn between_steps(core: &mut Core, engine: &Engine, on_event: &mut dyn FnMut(Event)) -> Result<(), EngineError> {
    engine.apply_wish(core)?;
    core.relieve()?;
    let recoveries = core.take_recoveries();
    if !recoveries.is_empty() {
        engine.publish(core);
    }
    recoveries.into_iter().for_each(|recovery| on_event(Event::Recovered(recovery)));
    Ok(())
}

pub(crate) fn generate(
    core: &mut Core,
    engine: &Engine,
    request: &Request,
    constraint: Option<&mut dyn Constraint>,
    cancel: &Cancel,
    on_event: &mut dyn FnMut(Event),
) -> Result<Completion, EngineError> {
    let context = engine.layout().params.context;
    let prompt = &request.prompt;
    if prompt.is_empty() {
        return Err(EngineError::Invalid("the prompt is empty".into()));
    }
    if prompt.len() > context as usize {
        return Err(EngineError::ContextFull { needed: prompt.len() as u32, context });
    }
    let mut choice = Choice::new(request.sampling.clone(), prompt, constraint)?;
    let started = Instant::now();
    let reused = core.reuse(prompt);
    let mut run = Run { prompt: prompt.len() as u32, reused: reused as u32, started, first: None, ids: Vec::new() };

    let mut logits: Vec<f32> = Vec::new();
    match read_prompt(core, engine, prompt, Positions::Last, cancel, on_event, &mut |row| logits = row.to_vec()) {
        Err(EngineError::Cancelled) => return Ok(run.end(core, Finish::Cancelled)),
        other => other?,
    }
    let mut text = engine.tokenizer().detokenizer();
    loop {
        if request.max_tokens.is_some_and(|max| run.ids.len() as u32 >= max) {
            return Ok(run.end_with_text(core, Finish::Length, text, on_event));
        }
        if cancel.is_cancelled() {
            return Ok(run.end_with_text(core, Finish::Cancelled, text, on_event));
        }
        let token = choice.choose(&logits)?;
        run.first.get_or_insert_with(Instant::now);
        if engine.tokenizer().is_eog(token) && !request.ignore_eog {
            return Ok(run.end_with_text(core, Finish::EndOfGeneration, text, on_event));
        }
        choice.accept(token)?;
        run.ids.push(token);
        on_event(Event::Token { id: token, text: text.push(token) });
        if choice.is_complete() {
            return Ok(run.end_with_text(core, Finish::EndOfGeneration, text, on_event));
        }
        if core.sequence_len() >= context as usize {
            return Ok(run.end_with_text(core, Finish::ContextFull, text, on_event));
        }
        match core.feed(&[token], &[0], cancel, &mut |row| logits = row.to_vec()) {
            Err(EngineError::Cancelled) => return Ok(run.end_with_text(core, Finish::Cancelled, text, on_event)),
            other => other?,
        }
        between_steps(core, engine, on_event)?;
    }
}

/// What is known of a request while it runs.
struct Run {
    prompt: u32,
    reused: u32,
    started: Instant,
    first: Option<Instant>,
    ids: Vec<u32>,
}

impl Run {
    /// Ends the answer's text: bytes of a character that never became whole come out as a replacement character.
    fn end_with_text(
        self,
        core: &Core,
        finish: Finish,
        text: tokenizer::Detokenizer<'_>,
        on_event: &mut dyn FnMut(Event),
    ) -> Completion {
        let rest = text.finish();
        if let (Some(id), false) = (self.ids.last(), rest.is_empty()) {
            on_event(Event::Token { id: *id, text: rest });
        }
        self.end(core, finish)
    }

    fn end(self, core: &Core, finish: Finish) -> Completion {
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        Completion {
            ids: self.ids,
            finish,
            prompt_tokens: self.prompt,
            reused_tokens: self.reused,
            prompt_seconds: (first - self.started).as_secs_f64(),
            generation_seconds: (now - first).as_secs_f64(),
            context_used: core.sequence_len() as u32,
        }
    }
}
