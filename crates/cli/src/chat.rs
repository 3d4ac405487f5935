//! `headroom chat`

use crate::args::Chat;
use crate::failure::Failure;
use crate::given::MARK;
use crate::load::Loaded;
use crate::output;
use crate::program::{Interrupts, Program};
use crate::run::{keep, note, open, resume, said};
use crate::stream::{self, Printer};
use app::wire::{AnswerStats, ErrorCode, FinishReason};
use app::{Defaults, Said, Session, Step, TalkFile, Task};
use engine::Cancel;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{BufRead, IsTerminal};
use std::time::{Duration, Instant};

/// An answer that is being written goes into the file this often.
const KEEP: Duration = Duration::from_secs(1);

const HELP: &str =
    "/quit ends, /reset forgets the conversation, /system TEXT tells the model what it is; Ctrl-C stops an answer";

pub fn chat(program: &Program, options: &Chat) -> Result<(), Failure> {
    let defaults = options.talk.defaults()?;
    let form = options.talk.form.read()?;
    let interrupts = program.interrupts();
    let cancel = interrupts.begin();
    let Loaded { session, .. } = open(program, &options.model, &options.talk, &cancel)?;
    if let Some(form) = &form {
        // Before anybody has typed anything.
        session.grammar(form, &cancel, &mut || {})?;
    }
    interrupts.end();
    let policy = program.visit(None)?.settings_get().context_policy;
    let (messages, file) = resume(&session, &options.talk)?;
    let json = program.json;
    let mut talk = Conversation { json, session, messages, file, policy, defaults, form };
    // Who cannot write there shall know it before the conversation.
    talk.note(true)?;
    let mut input = Input::new()?;
    if input.asks() {
        talk.greet();
    }
    let ended = converse(&mut talk, &mut input, &interrupts);
    // Also after a failure. Ctrl-C calls it off: the conversation is in the file already.
    if let Some(file) = talk.file.take() {
        keep(file, &talk.messages, &talk.session, &interrupts.begin());
    }
    ended
}

fn converse(talk: &mut Conversation, input: &mut Input, interrupts: &Interrupts) -> Result<(), Failure> {
    while let Some(text) = input.next()? {
        let done = match Line::new(&text) {
            Line::Nothing => Ok(()),
            Line::Quit => break,
            Line::Help => {
                output::note(HELP);
                Ok(())
            }
            Line::Unknown(command) => {
                output::note(format!("there is no command {command}: {HELP}"));
                Ok(())
            }
            Line::Reset => {
                let system = talk.system().map(str::to_owned);
                talk.reset(system.as_deref())
            }
            Line::System(text) => talk.reset(Some(text).filter(|text| !text.is_empty())),
            Line::Say(text) => {
                let said = talk.say(text, &interrupts.begin());
                interrupts.end();
                said
            }
        };
        match done {
            // The conversation can be made shorter; scripts must know.
            Err(failure) if input.asks() => output::note(format!("error [{}]: {}", failure.code, failure.message)),
            other => other?,
        }
    }
    Ok(())
}

struct Conversation {
    json: bool,
    session: Session,
    messages: Vec<Said>,
    /// Has all of them at any time.
    file: Option<TalkFile>,
    policy: app::wire::ContextPolicy,
    defaults: Defaults,
    form: Option<grammar::Form>,
}

impl Conversation {
    fn greet(&self) {
        let placement = self.session.engine.placement();
        let layers = output::layers(placement.gpu_layers, placement.layers, placement.experts_apart);
        output::note(format!("{}: {layers}, context {}", self.session.name, self.session.context()));
        if !self.session.has_template() {
            output::note("the model has no chat template: a plain one is used");
        }
        output::note(HELP);
    }

    fn system(&self) -> Option<&str> {
        self.messages.first().filter(|said| said.role == "system").map(|said| said.text.as_str())
    }

    /// Begins anew: what was said before is neither in the file any more, nor in what the model remembers.
    fn reset(&mut self, system: Option<&str>) -> Result<(), Failure> {
        self.messages = system.map(|text| said("system", text)).into_iter().collect();
        self.session.engine.forget()?;
        self.note(true)?;
        let file = self.file.as_mut().map(|file| file.keep(&self.messages, &self.session, &Cancel::new()));
        Ok(file.transpose().map(drop)?)
    }

    /// [`TalkFile::note`]
    fn note(&mut self, ended: bool) -> Result<(), Failure> {
        self.file.as_mut().map_or(Ok(()), |file| note(file, &self.messages, ended))
    }

    fn say(&mut self, text: &str, cancel: &Cancel) -> Result<(), Failure> {
        self.messages.push(said("user", text));
        // Of a disk that is full is told when there is an answer.
        let _ = self.note(false);
        let mut printer = Printer::new(self.json);
        let answered = self.answer(&mut printer, cancel);
        let (answer, printed) = printer.finish();
        let any = !answer.text.is_empty() || !answer.tool_calls.is_empty();
        match &answered {
            Ok(_) if any => self.messages.push(answer.clone()),
            // What could not be answered is not part of the conversation.
            _ => drop(self.messages.pop()),
        }
        // Before anything is printed: that may be the end of the program.
        let kept = self.note(true);
        let (reason, stats) = answered?;
        printed?;
        match self.json {
            true => output::json(&stream::to_json(&answer, reason, &stats))?,
            false => output::note(stream::summary(reason, &stats)),
        }
        kept
    }

    fn answer(&mut self, printer: &mut Printer, cancel: &Cancel) -> Result<(FinishReason, AnswerStats), Failure> {
        let task = Task {
            messages: self.messages.clone(),
            policy: self.policy,
            form: self.form.clone(),
            ..Task::new(self.defaults.clone())
        };
        let mut kept = Instant::now();
        let (file, messages) = (&mut self.file, &mut self.messages);
        let answered = self.session.answer(task, cancel, &mut |step| {
            let written = matches!(step, Step::Text(_));
            printer.step(step);
            if let Some(file) = file.as_mut().filter(|_| written && kept.elapsed() >= KEEP) {
                messages.push(printer.so_far());
                // As before.
                let _ = note(file, messages, false);
                messages.pop();
                kept = Instant::now();
            }
        });
        answered.map_err(|error| match error.code {
            ErrorCode::ContextFull => {
                Failure::new("context-full", format!("{error}: /reset, or a larger -c, makes room"))
            }
            _ => error.into(),
        })
    }
}

/// What a person typed.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Say(&'a str),
    Quit,
    Reset,
    System(&'a str),
    Help,
    Unknown(&'a str),
}

impl Line<'_> {
    fn new(text: &str) -> Line<'_> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let is_command = |word: &str| word.len() > 1 && word[1..].bytes().all(|b| b.is_ascii_lowercase());
        match word {
            "" => Line::Nothing,
            "/quit" | "/exit" => Line::Quit,
            "/reset" => Line::Reset,
            "/system" => Line::System(rest.trim()),
            "/help" => Line::Help,
            // A path is not meant as a command.
            word if word.starts_with('/') && rest.is_empty() && is_command(word) => Line::Unknown(word),
            _ => Line::Say(text),
        }
    }
}

/// Where messages come from: a person at a terminal, who may paste several lines at once, or lines of a pipe.
enum Input {
    Terminal(Box<DefaultEditor>),
    Pipe(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Input {
    fn new() -> Result<Input, Failure> {
        // The editor draws on standard output, which may be the way to a file.
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            return Ok(Input::Terminal(Box::new(DefaultEditor::new().map_err(|error| Failure::new("io", error))?)));
        }
        Ok(Input::Pipe(std::io::stdin().lock().lines()))
    }

    fn asks(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// `None` at the end, which is also Ctrl-C at the prompt.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Input::Terminal(editor) => match editor.readline("> ") {
                Ok(text) => {
                    // Only for the arrow keys, in memory.
                    let _ = editor.add_history_entry(text.as_str());
                    Ok(Some(text))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
                Err(error) => Err(Failure::new("io", error)),
            },
            Input::Pipe(lines) => {
                let line = lines.next().transpose().map_err(|error| Failure::new("io", error))?;
                Ok(line.map(|line| line.trim_start_matches(MARK).to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn commands_are_told_from_messages() {
        assert_eq!(Line::new("  hello /quit "), Line::Say("hello /quit"));
        assert_eq!(Line::new("/quit"), Line::Quit);
        assert_eq!(Line::new("/system You are\na cat"), Line::System("You are\na cat"));
        assert_eq!(Line::new("/help"), Line::Help);
        assert_eq!(Line::new("/rest"), Line::Unknown("/rest"));
        assert_eq!(Line::new("/usr/bin is what?"), Line::Say("/usr/bin is what?"));
        assert_eq!(Line::new("/usr/bin"), Line::Say("/usr/bin"));
        assert_eq!(Line::new("/"), Line::Say("/"));
        assert_eq!(Line::new(" \n"), Line::Nothing);
    }
}
