//! The loop that reads a prompt and makes tokens.

use crate::choice::Choice;
use crate::core::Core;
use crate::engine::{Engine, Positions};
use crate::masks::Masks;
use crate::speculate::{Ahead, Speculator};
use crate::{Cancel, Completion, Drafts, EngineError, Event, Finish, Request};
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
    speculator: &mut Speculator,
    request: &Request,
    constraint: Option<&mut dyn Constraint>,
    cancel: &Cancel,
    on_event: &mut dyn FnMut(Event),
) -> Result<Completion, EngineError> {
    std::thread::scope(|scope| {
        let masks = constraint.map(|constraint| Masks::new(scope, constraint));
        let choice = Choice::new(request.sampling.clone(), &request.prompt, masks)?;
        write(core, engine, speculator, request, choice, cancel, on_event)
    })
}

fn write(
    core: &mut Core,
    engine: &Engine,
    speculator: &mut Speculator,
    request: &Request,
    mut choice: Choice<'_, '_>,
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
    let started = Instant::now();
    let reused = core.reuse(prompt);
    let mut run = Run {
        prompt: prompt.len() as u32,
        reused: reused as u32,
        started,
        first: None,
        ids: Vec::new(),
        context_used: 0,
        drafts: Drafts::default(),
    };

    let mut logits: Vec<f32> = Vec::new();
    match read_prompt(core, engine, prompt, Positions::Last, cancel, on_event, &mut |row| logits = row.to_vec()) {
        Err(EngineError::Cancelled) => {
            run.context_used = core.sequence_len();
            return Ok(run.end(Finish::Cancelled));
        }
        other => other?,
    }
    let read = (prompt.len() - reused, started.elapsed().as_secs_f64());
    let mut ahead = Ahead::new(speculator, core, prompt, logits, read);
    let mut text = engine.tokenizer().detokenizer();
    let finish = loop {
        let room = request.max_tokens.map_or(usize::MAX, |max| (max as usize).saturating_sub(run.ids.len()));
        if room == 0 {
            break Finish::Length;
        }
        if cancel.is_cancelled() {
            break Finish::Cancelled;
        }
        let token = choice.choose(ahead.logits())?;
        run.first.get_or_insert_with(Instant::now);
        if engine.tokenizer().is_eog(token) && !request.ignore_eog {
            break Finish::EndOfGeneration;
        }
        choice.accept(token)?;
        run.ids.push(token);
        on_event(Event::Token { id: token, text: text.push(token) });
        if choice.is_complete() {
            break Finish::EndOfGeneration;
        }
        if ahead.len() >= context as usize {
            break Finish::ContextFull;
        }
        if !ahead.is_next(token) {
            choice.begin();
        }
        match ahead.push(core, token, room - 1, cancel) {
            Err(EngineError::Cancelled) => break Finish::Cancelled,
            other => other?,
        }
        between_steps(core, engine, on_event)?;
    };
    // Bytes of a character that never became whole come out as a replacement character.
    let rest = text.finish();
    if let (Some(id), false) = (run.ids.last(), rest.is_empty()) {
        on_event(Event::Token { id: *id, text: rest });
    }
    (run.context_used, run.drafts) = (ahead.len(), ahead.end(core));
    Ok(run.end(finish))
}

/// What is known of a request while it runs.
struct Run {
    prompt: u32,
    reused: u32,
    started: Instant,
    first: Option<Instant>,
    ids: Vec<u32>,
    context_used: usize,
    drafts: Drafts,
}

impl Run {
    fn end(self, finish: Finish) -> Completion {
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        Completion {
            ids: self.ids,
            finish,
            prompt_tokens: self.prompt,
            reused_tokens: self.reused,
            prompt_seconds: (first - self.started).as_secs_f64(),
            generation_seconds: (now - first).as_secs_f64(),
            context_used: self.context_used as u32,
            drafts: self.drafts,
        }
    }
}
