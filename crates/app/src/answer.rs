//! Writing an answer: prompt, tokens, and what to do when the context is full. Runs on the engine's thread.

use crate::chats::MAX_TEXT;
use crate::error::Result;
use crate::prescribed::Prescribed;
use crate::prompt::{Conversation, Prompt, Said};
use crate::session::Session;
use crate::wire::{AnswerStats, ContextPolicy, ErrorCode, FinishReason, RecoveryNotice, Sampling, WireError};
use chat_template::{AnswerParser, Part, THINKING};
use engine::{Cancel, Event, Finish, Request};
use grammar::Form;
use sampler::Constraint;
use serde_json::{Map, Value};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};
use tokenizer::Encode;

/// How often the figures of an answer are told while it is written.
const TELL: Duration = Duration::from_secs(1);

/// A conversation to be answered.
pub struct Task {
    /// System prompt (if any) and messages, the user's last one at the end.
    pub messages: Vec<Said>,
    /// Tools that the model may want to be called, as its template takes them. Nothing is called here.
    pub tools: Vec<Value>,
    /// What else the template reads, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// The last message is to be continued as it is, without a template.
    pub raw: bool,
    /// What the model has written of this answer already.
    pub begun: String,
    pub sampling: sampler::Params,
    pub max_tokens: Option<u32>,
    pub policy: ContextPolicy,
    /// What the answer must look like.
    pub form: Option<Form>,
}

/// [`Task::variables`] for a model that shall think before it answers, or shall not; `None`: as it does by itself.
pub fn thinking(wanted: Option<bool>) -> Map<String, Value> {
    wanted.into_iter().flat_map(|wanted| THINKING.map(|word| (word.to_owned(), wanted.into()))).collect()
}

/// What an answer is like where nobody says otherwise.
#[derive(Clone, Debug)]
pub struct Defaults {
    pub sampling: sampler::Params,
    pub max_tokens: Option<u32>,
    /// [`Task::variables`]
    pub variables: Map<String, Value>,
}

impl Defaults {
    /// `think`: as for [`thinking`].
    pub fn new(sampling: sampler::Params, max_tokens: Option<u32>, think: Option<bool>) -> Defaults {
        Defaults { sampling, max_tokens, variables: thinking(think) }
    }

    /// As the window's settings say it.
    pub(crate) fn of(sampling: &Sampling, think: Option<bool>) -> Defaults {
        Defaults::new(params(sampling), sampling.max_tokens, think)
    }
}

/// Another number each time, for seeds and names; no secret.
pub fn random() -> u64 {
    // Every hasher of the standard library starts from a random state.
    RandomState::new().build_hasher().finish()
}

fn params(sampling: &Sampling) -> sampler::Params {
    sampler::Params {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
        repeat_penalty: sampling.repeat_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        seed: sampling.seed.map_or_else(random, u64::from),
        ..sampler::Params::default()
    }
}

impl Task {
    /// A task without its text.
    pub fn new(Defaults { sampling, max_tokens, variables }: Defaults) -> Task {
        Task {
            messages: Vec::new(),
            tools: Vec::new(),
            variables,
            raw: false,
            begun: String::new(),
            sampling,
            max_tokens,
            policy: ContextPolicy::Stop,
            form: None,
        }
    }
}

/// Takes an answer apart as it comes; a text that is continued as it is has no parts.
#[derive(Debug, Default)]
pub struct Apart(Option<AnswerParser>);

impl Apart {
    pub fn new(parser: AnswerParser) -> Apart {
        Apart(Some(parser))
    }

    pub fn push(&mut self, text: String) -> Vec<Part> {
        match &mut self.0 {
            Some(parser) => parser.push(&text),
            None => vec![Part::Text(text)],
        }
    }

    /// What was held back because more could have come; nothing the second time.
    pub fn finish(&mut self) -> Vec<Part> {
        self.0.take().map(AnswerParser::finish).unwrap_or_default()
    }
}

/// How long an answer is. Nobody reads more than [`MAX_TEXT`], and a model that has tokens as long as books would fill memory
/// and disk.
struct Length {
    written: usize,
    full: bool,
}

impl Length {
    /// Whether this still belongs to the answer.
    fn takes(&mut self, text: &str) -> bool {
        self.full |= self.written >= MAX_TEXT && !text.is_empty();
        self.written += if self.full { 0 } else { text.len() };
        !self.full
    }

    /// Why an answer ended that was stopped.
    fn stopped(&self) -> FinishReason {
        if self.full { FinishReason::Length } else { FinishReason::Stopped }
    }
}

/// What happens meanwhile, in order.
#[derive(Debug)]
pub enum Step {
    /// The model writes another answer first.
    Waiting,
    /// What the answer must look like is prepared, which takes a moment the first time.
    Preparing,
    /// The prompt is made; once. What takes the answer apart.
    Prompt(Apart),
    Reading {
        done: u32,
        total: u32,
    },
    /// As the model writes it; never empty.
    Text(String),
    /// The figures so far, about once a second.
    Stats(AnswerStats),
    Dropped {
        turns: u32,
        tokens: u32,
    },
    Recovery(RecoveryNotice),
}

/// Writes the answer; blocks. `cancel` ends it, which this does itself where the answer is as long as any may be.
///
/// # Errors
/// [`ErrorCode::ContextFull`] with numbers if not even the prompt fits, and failures of template, file and host.
pub fn write(
    session: &Session,
    mut task: Task,
    cancel: &Cancel,
    on_step: &mut dyn FnMut(Step),
) -> Result<(FinishReason, AnswerStats)> {
    let context = session.context();
    let tokenizer = session.engine.tokenizer();
    let begun = Encode { add_special: false, parse_special: true };
    let mut answer = if task.begun.is_empty() { Vec::new() } else { tokenizer.encode(&task.begun, begun) };
    let mut stats = Stats::new(context);
    // Room that dropping turns must leave, so that it is not done for every token.
    let room = (context / 8).clamp(1, 512);
    let mut prompt = render(session, &task)?;
    let form = task.form.take();
    let grammar = form.map(|form| session.grammar(&form, cancel, &mut || on_step(Step::Preparing))).transpose()?;
    let mut prescribed = grammar.map(|grammar| match task.raw {
        true => Prescribed::at_once(grammar, tokenizer),
        false => Prescribed::new(grammar, tokenizer, &prompt.text, session.format.reasoning_mark(&prompt.text)),
    });
    if let Some(prescribed) = &mut prescribed {
        answer.iter().try_for_each(|token| prescribed.accept(*token))?;
    }
    on_step(Step::Prompt(match prescribed {
        _ if task.raw => Apart::default(),
        Some(_) => Apart::new(AnswerParser::verbatim(&prompt.text)),
        None => Apart::new(session.format.parser(&prompt.text)),
    }));
    let mut length = Length { written: task.begun.len(), full: false };
    let mut made = 0;
    loop {
        if !make_room(session, &mut task, &mut prompt, answer.len() as u32 + room, cancel, on_step)? {
            return Ok((length.stopped(), stats.done()));
        }
        let needed = prompt.ids.len() + answer.len();
        let ids: Vec<u32> = prompt.ids.iter().chain(&answer).copied().collect();
        // Where turns were dropped, now or before, what follows them is not read again if the model allows it.
        if task.policy == ContextPolicy::DropOldest
            && let Err(error) = session.engine.shift(&ids)
        {
            tracing::warn!("{error}");
        }
        if needed >= context as usize && made > 0 {
            return Ok((FinishReason::ContextFull, stats.done()));
        }
        if needed >= context as usize {
            let text = format!("the conversation has {needed} tokens, the context holds {context}");
            return Err(WireError::new(ErrorCode::ContextFull, text).numbers(needed as u64 + 1, context.into()));
        }
        let request = Request {
            prompt: ids,
            sampling: task.sampling.clone(),
            max_tokens: task.max_tokens.map(|max| max.saturating_sub(made)),
            ignore_eog: false,
        };
        let constraint = prescribed.as_mut().map(|prescribed| prescribed as &mut dyn Constraint);
        let completion = session.engine.generate_within(constraint, request, cancel, &mut |event| match event {
            Event::Prompt { done, total, reused } => {
                stats.reading(total, reused);
                on_step(Step::Reading { done, total });
            }
            Event::Token { text, .. } => {
                match length.takes(&text) {
                    true if text.is_empty() => {}
                    true => on_step(Step::Text(text)),
                    false => cancel.cancel(),
                }
                if let Some(stats) = stats.token() {
                    on_step(Step::Stats(stats));
                }
            }
            Event::Recovered(recovery) => on_step(Step::Recovery(session.notice(&recovery, true))),
        })?;
        stats.add(&completion);
        made += completion.ids.len() as u32;
        answer.extend(&completion.ids);
        let reason = match completion.finish {
            Finish::EndOfGeneration => FinishReason::End,
            Finish::Length => FinishReason::Length,
            Finish::Cancelled => length.stopped(),
            Finish::ContextFull => {
                let can_go_on = task.policy == ContextPolicy::DropOldest && !old_turns(&task.messages).is_empty();
                if can_go_on && !completion.ids.is_empty() {
                    continue;
                }
                FinishReason::ContextFull
            }
        };
        return Ok((reason, stats.done()));
    }
}

fn render(session: &Session, task: &Task) -> Result<Prompt> {
    let tokenizer = session.engine.tokenizer();
    match task.messages.last().filter(|_| task.raw) {
        Some(Said { text, .. }) => {
            let ids = tokenizer.encode(text, Encode { add_special: true, parse_special: true });
            Ok(Prompt { text: text.clone(), ids })
        }
        None => {
            let now = chrono::Local::now().naive_local();
            let said = Conversation { messages: &task.messages, tools: &task.tools, variables: &task.variables };
            session.format.prompt(tokenizer, &said, now)
        }
    }
}

/// Leaves out the oldest turns, if that is the user's wish, until `room` tokens are free behind the prompt. False: stopped
/// before.
fn make_room(
    session: &Session,
    task: &mut Task,
    prompt: &mut Prompt,
    room: u32,
    cancel: &Cancel,
    on_step: &mut dyn FnMut(Step),
) -> Result<bool> {
    let fits = |prompt: &Prompt| prompt.ids.len() as u64 + u64::from(room) <= u64::from(session.context());
    if task.policy != ContextPolicy::DropOldest || fits(prompt) {
        return Ok(true);
    }
    let turns = old_turns(&task.messages);
    let Some(last) = turns.last() else { return Ok(true) };
    let (before, first) = (prompt.ids.len(), turns[0].start);
    // As few as possible, found by halves: each try reads the whole conversation.
    let all = std::mem::take(&mut task.messages);
    let without = |end: usize| -> Vec<Said> { all[..first].iter().chain(&all[end..]).cloned().collect() };
    let (mut too_few, mut enough) = (0, turns.len());
    task.messages = without(last.end);
    *prompt = render(session, task)?;
    while too_few + 1 < enough {
        if cancel.is_cancelled() {
            return Ok(false);
        }
        let tried = (too_few + enough) / 2;
        let messages = std::mem::replace(&mut task.messages, without(turns[tried - 1].end));
        let found = render(session, task)?;
        if fits(&found) {
            (enough, *prompt) = (tried, found);
        } else {
            (too_few, task.messages) = (tried, messages);
        }
    }
    let tokens = before.saturating_sub(prompt.ids.len()) as u32;
    on_step(Step::Dropped { turns: enough as u32, tokens });
    Ok(true)
}

/// Each message of the user with the answers to it, but the last.
fn old_turns(messages: &[Said]) -> Vec<std::ops::Range<usize>> {
    let Some(first) = messages.iter().position(|said| said.role != "system") else { return Vec::new() };
    let later = messages.iter().enumerate().skip(first + 1).filter(|(_, said)| said.role == "user");
    let starts: Vec<usize> = std::iter::once(first).chain(later.map(|(at, _)| at)).collect();
    starts.windows(2).map(|turn| turn[0]..turn[1]).collect()
}

/// What is known of an answer, over all its requests.
struct Stats {
    started: Instant,
    first_token_ms: Option<f64>,
    prompt_seconds: f64,
    generation_seconds: f64,
    /// Tokens of the prompt that were computed.
    computed: u32,
    /// Tokens of the answer but each request's first one, which is the prompt's work.
    generated: u32,
    /// As of the finished requests.
    shown: AnswerStats,
    /// The request that runs: its first token's time, and how many there are.
    run: Option<(Instant, u32)>,
    told: Instant,
}

impl Stats {
    fn new(context: u32) -> Stats {
        Stats {
            started: Instant::now(),
            first_token_ms: None,
            prompt_seconds: 0.0,
            generation_seconds: 0.0,
            computed: 0,
            generated: 0,
            shown: AnswerStats { context, ..AnswerStats::default() },
            run: None,
            told: Instant::now(),
        }
    }

    /// A request's prompt is being read.
    fn reading(&mut self, prompt: u32, reused: u32) {
        self.shown.prompt_tokens = prompt;
        self.shown.reused_tokens = reused;
    }

    /// One more token; the figures, if it is time to tell them.
    fn token(&mut self) -> Option<AnswerStats> {
        let now = Instant::now();
        self.first_token_ms.get_or_insert_with(|| (now - self.started).as_secs_f64() * 1e3);
        let (first, count) = self.run.get_or_insert((now, 0));
        *count += 1;
        let (seconds, count) = ((now - *first).as_secs_f64(), *count);
        // One token says nothing of speed.
        if count < 2 || now - self.told < TELL {
            return None;
        }
        self.told = now;
        Some(AnswerStats {
            answer_tokens: self.shown.answer_tokens + count,
            first_token_ms: self.first_token_ms.unwrap_or_default(),
            tokens_per_second: rate(self.generated + count - 1, self.generation_seconds + seconds),
            context_used: (self.shown.prompt_tokens + count).min(self.shown.context),
            ..self.shown
        })
    }

    /// A request has ended.
    fn add(&mut self, completion: &engine::Completion) {
        self.run = None;
        self.reading(completion.prompt_tokens, completion.reused_tokens);
        self.shown.answer_tokens += completion.ids.len() as u32;
        self.shown.context_used = completion.context_used;
        self.shown.drafted += completion.drafts.proposed;
        self.shown.accepted += completion.drafts.accepted;
        // Of a prompt whose reading was stopped the context holds what was read.
        let read = completion.prompt_tokens.min(completion.context_used);
        self.computed += read.saturating_sub(completion.reused_tokens);
        self.generated += (completion.ids.len() as u32).saturating_sub(1);
        self.prompt_seconds += completion.prompt_seconds;
        self.generation_seconds += completion.generation_seconds;
    }

    fn done(mut self) -> AnswerStats {
        self.shown.first_token_ms = self.first_token_ms.unwrap_or(0.0);
        self.shown.tokens_per_second = rate(self.generated, self.generation_seconds);
        self.shown.prompt_tokens_per_second = rate(self.computed, self.prompt_seconds);
        self.shown
    }
}

fn rate(count: u32, seconds: f64) -> f64 {
    if seconds > 0.0 { f64::from(count) / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_an_end() {
        let piece = "é".repeat(MAX_TEXT / 4);
        let mut length = Length { written: 0, full: false };
        assert!([&piece, "", &piece, ""].map(|text| length.takes(text)) == [true; 4], "the last one may be longer");
        assert_eq!(length.stopped(), FinishReason::Stopped);
        assert!(!length.takes("x") && !length.takes(&piece) && !length.takes(""));
        assert_eq!(length.stopped(), FinishReason::Length);
        // What was written before it was gone on with counts.
        let mut length = Length { written: MAX_TEXT - 1, full: false };
        assert!(length.takes(&piece) && !length.takes("x"));
    }

    #[test]
    fn a_text_that_is_continued_has_no_parts() {
        let text = "<think>Hm</think>";
        let mut plain = Apart::default();
        assert_eq!(plain.push(text.into()), [Part::Text(text.into())]);
        assert_eq!(plain.finish(), []);
        let mut apart = Apart::new(AnswerParser::new("<think>", chat_template::CallMarks::of_template("")));
        let parts = [apart.push("Hm</think>Y".into()), apart.push("es".into()), apart.finish()].concat();
        assert_eq!(parts.first(), Some(&Part::Thinking("Hm".into())));
        assert_eq!(apart.finish(), []);
    }

    #[test]
    fn figures_are_told_once_a_second_from_the_second_token_on() {
        let mut stats = Stats::new(100);
        let long_ago = stats.told - 2 * TELL;
        stats.reading(90, 60);
        stats.told = long_ago;
        assert_eq!(stats.token(), None, "one token says nothing of speed");
        let told = stats.token().unwrap();
        assert_eq!((told.prompt_tokens, told.reused_tokens, told.answer_tokens), (90, 60, 2));
        assert_eq!((told.context_used, told.context), (92, 100));
        assert!(told.tokens_per_second > 0.0);
        assert_eq!(stats.token(), None, "not every token");
        // After turns were dropped, another request goes on with the same answer.
        stats.add(&engine::Completion {
            ids: vec![1; 3],
            finish: Finish::ContextFull,
            prompt_tokens: 90,
            reused_tokens: 60,
            prompt_seconds: 1.0,
            generation_seconds: 2.0,
            context_used: 93,
            drafts: engine::Drafts { proposed: 5, accepted: 2 },
        });
        stats.reading(40, 10);
        stats.token();
        stats.told = long_ago;
        let told = stats.token().unwrap();
        assert_eq!((told.answer_tokens, told.context_used), (5, 42));
        let whole = stats.done();
        assert_eq!((whole.answer_tokens, whole.tokens_per_second), (3, 1.0));
        assert_eq!((whole.drafted, whole.accepted), (5, 2));
    }

    #[test]
    fn a_prompt_whose_reading_was_stopped_was_read_as_far_as_it_came() {
        let mut stats = Stats::new(2000);
        stats.reading(1000, 100);
        stats.add(&engine::Completion {
            ids: Vec::new(),
            finish: Finish::Cancelled,
            prompt_tokens: 1000,
            reused_tokens: 100,
            prompt_seconds: 2.0,
            generation_seconds: 0.0,
            context_used: 300,
            drafts: engine::Drafts::default(),
        });
        assert_eq!(stats.done().prompt_tokens_per_second, 100.0);
    }

    #[test]
    fn whole_turns_go_and_the_system_prompt_and_the_last_turn_stay() {
        let said = |roles: &[&'static str]| -> Vec<Said> {
            roles.iter().map(|role| Said { role, text: String::new(), ..Said::default() }).collect()
        };
        let all = said(&["system", "user", "assistant", "user", "user", "assistant", "user"]);
        assert_eq!(old_turns(&all), [1..3, 3..4, 4..6]);
        // A chat may begin with an answer.
        assert_eq!(old_turns(&said(&["assistant", "user", "assistant"])), vec![0..1; 1]);
        for none in [&["user"][..], &["system"], &["system", "user", "assistant"], &[]] {
            assert!(old_turns(&said(none)).is_empty());
        }
    }
}
