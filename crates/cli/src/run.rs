//! `headroom run`

use crate::args::{Run, Talk};
use crate::failure::Failure;
use crate::given;
use crate::load::{self, Loaded, Wanted};
use crate::output;
use crate::program::Program;
use crate::stream::{self, Printer};
use app::wire::{ErrorCode, FinishReason};
use app::{Resumed, Said, Session, TalkFile, Task};
use engine::{Cancel, Drafting};
use std::io::{IsTerminal, Read};

pub fn run(program: &Program, options: &Run) -> Result<(), Failure> {
    let defaults = options.talk.defaults()?;
    let prompt = prompt(options)?;
    let form = options.talk.form.read()?;
    let interrupts = program.interrupts();
    let cancel = interrupts.begin();
    let Loaded { session, seconds, .. } = open(program, &options.model, &options.talk, &cancel)?;
    let raw = options.raw || !session.has_template();
    if raw && !options.raw {
        output::note("the model has no chat template: the prompt is continued as it is");
    }
    let (begun, file) = resume(&session, &options.talk)?;
    // A text that is continued is no part of a conversation.
    let mut messages = if raw { Vec::new() } else { begun.clone() };
    messages.push(said("user", &prompt));
    let task = Task { messages: messages.clone(), raw, form, ..Task::new(defaults) };
    let mut printer = Printer::new(program.json);
    let answered = session.answer(task, &cancel, &mut |step| printer.step(step));
    let (reason, stats) = answered.map_err(|error| match error.code {
        ErrorCode::ContextFull => Failure::new("context-full", format!("{error}: a larger -c makes room")),
        _ => error.into(),
    })?;
    let (answer, printed) = printer.finish();
    if let Some(mut file) = file.filter(|_| reason != FinishReason::Stopped) {
        messages.push(answer.clone());
        let said = if raw { &begun } else { &messages };
        note(&mut file, said, true)?;
        // One that was too long was called off, which is no wish to leave this out.
        keep(file, said, &session, &interrupts.begin());
    }
    printed?;
    if program.json {
        let mut value = stream::to_json(&answer, reason, &stats);
        value["load_s"] = seconds.into();
        output::json(&value)?;
    } else {
        output::note(stream::summary(reason, &stats));
    }
    match reason {
        FinishReason::Stopped => Err(Failure::new("cancelled", "stopped before the answer's end")),
        _ => Ok(()),
    }
}

fn prompt(options: &Run) -> Result<String, Failure> {
    let text = match &options.prompt {
        Some(text) => text.clone(),
        None if std::io::stdin().is_terminal() => return Err(Failure::usage("give a prompt with -p TEXT")),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| Failure::new("io", error))?;
            given::text(bytes, "the prompt on standard input")?
        }
    };
    match text.trim().is_empty() {
        true => Err(Failure::usage("the prompt is empty")),
        false => Ok(text),
    }
}

pub fn open(program: &Program, model: &str, talk: &Talk, cancel: &Cancel) -> Result<Loaded, Failure> {
    let speculating = Some((&talk.speculating, Drafting::WherePays));
    load::load(program, model, &talk.loading, Wanted { context: None, rows: 1, speculating }, cancel)
}

/// The conversation so far, and its file: of that which `--session` names, beginning with what `--system` says.
pub fn resume(session: &Session, talk: &Talk) -> Result<(Vec<Said>, Option<TalkFile>), Failure> {
    let opened = talk.session.as_ref().map(|path| TalkFile::open(path, session)).transpose()?;
    let (file, resumed) = opened.map_or((None, Resumed::default()), |(file, resumed)| (Some(file), resumed));
    if let Some(Err(error)) = resumed.remembered {
        output::note(format!("the conversation is read again: {error}"));
    }
    if let Some(text) = resumed.unanswered {
        output::note(format!("what was said last has no answer, and is left out: {text}"));
    }
    let mut messages = resumed.messages;
    if let Some(text) = &talk.system {
        messages.retain(|message| message.role != "system");
        messages.insert(0, said("system", text));
    }
    Ok((messages, file))
}

/// Has the file hold the conversation; tells where, if that is not the file that was named. [`TalkFile::note`]
pub fn note(file: &mut TalkFile, messages: &[Said], ended: bool) -> Result<(), Failure> {
    let before = file.path().to_owned();
    file.note(messages, ended)?;
    if file.path() != before {
        let (before, now) = (before.display(), file.path().display());
        output::note(format!("another program has written {before}: this conversation is kept in {now} from now on"));
    }
    Ok(())
}

/// The same with what the model remembers, without which the conversation is read again the next time.
pub fn keep(mut file: TalkFile, messages: &[Said], session: &Session, cancel: &Cancel) {
    // Whether that could be done before the disk was full, or a network drive was gone.
    let there = file.note(messages, true).is_ok();
    if let Err(error) = file.keep(messages, session, cancel) {
        let path = file.path().display();
        output::note(match there {
            true => format!("the conversation is kept in {path}, what the model remembers of it is not: {error}"),
            false => format!("what was said last is not in {path}: {error}"),
        });
    }
}

pub fn said(role: &'static str, text: &str) -> Said {
    Said { role, text: text.into(), ..Said::default() }
}
