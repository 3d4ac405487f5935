//! Commands about chats, and the answer that is being written.

use crate::answer::{self, Defaults, Step, Task};
use crate::app::{App, RunningAnswer, blocking, lock};
use crate::chats::{AnswerText, path_to};
use crate::error::Result;
use crate::library::id_of;
use crate::prompt::Said;
use crate::session::Session;
use crate::settings::check_sampling;
use crate::stream::Stream;
use crate::wire::*;
use engine::Cancel;
use grammar::Vocabulary;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Takes an answer's events; the window's channel.
pub type AnswerSink = Box<dyn FnMut(AnswerEvent) + Send>;

/// An answer that is about to be written.
struct Prepared {
    chat: String,
    session: Arc<Session>,
    user: Option<Message>,
    answer: Message,
    begun: AnswerText,
    path: Vec<String>,
    task: Task,
}

impl App {
    pub async fn chats(self: &Arc<Self>, query: String, deleted: bool) -> Result<Vec<ChatSummary>> {
        let app = self.clone();
        blocking(move || app.chats.list(&query, deleted)).await
    }

    pub async fn chat(self: &Arc<Self>, id: String) -> Result<Chat> {
        let app = self.clone();
        blocking(move || app.shown_chat(&id)).await
    }

    pub async fn chat_create(self: &Arc<Self>) -> Result<Chat> {
        let app = self.clone();
        blocking(move || {
            let system_prompt = lock(&app.settings).system_prompt.clone();
            app.chats.get(&app.chats.create(&system_prompt)?)
        })
        .await
    }

    pub async fn chat_rename(self: &Arc<Self>, id: String, title: String) -> Result<()> {
        let app = self.clone();
        blocking(move || app.chats.rename(&id, &title)).await
    }

    pub async fn chat_pin(self: &Arc<Self>, id: String, pinned: bool) -> Result<()> {
        let app = self.clone();
        blocking(move || app.chats.pin(&id, pinned)).await
    }

    /// Into the bin; an answer that is being written there is stopped.
    pub async fn chat_delete(self: &Arc<Self>, id: String) -> Result<()> {
        self.chat_stop(&id);
        let app = self.clone();
        blocking(move || {
            app.chats.delete(&id)?;
            app.forget(&id);
            Ok(())
        })
        .await
    }

    pub async fn chat_restore(self: &Arc<Self>, id: String) -> Result<()> {
        let app = self.clone();
        blocking(move || app.chats.restore(&id)).await
    }

    pub async fn chat_set_system_prompt(self: &Arc<Self>, id: String, text: String) -> Result<()> {
        let app = self.clone();
        blocking(move || app.chats.set_system_prompt(&id, &text)).await
    }

    /// What the answers of this chat must look like.
    ///
    /// # Errors
    /// [`ErrorCode::FormatNotJson`], [`ErrorCode::FormatInvalid`] and [`ErrorCode::FormatTooComplex`]; nothing is
    /// changed then.
    pub async fn chat_set_format(self: &Arc<Self>, id: String, format: AnswerFormat) -> Result<()> {
        let app = self.clone();
        blocking(move || {
            if let Some(form) = format.form() {
                Vocabulary::of_bytes()?.compile(&form)?;
            }
            app.chats.set_format(&id, &format)
        })
        .await
    }

    pub async fn chat_select(self: &Arc<Self>, id: String, message: String) -> Result<Chat> {
        let app = self.clone();
        blocking(move || {
            app.chats.select(&id, &message)?;
            app.shown_chat(&id)
        })
        .await
    }

    /// Loads a model that came with the program, in a new chat that the window shows first.
    pub async fn open_demo(self: &Arc<Self>, model: &Path) -> Result<()> {
        self.show_first(self.chat_create().await?.id);
        self.model_load(id_of(model), LoadSettings::default()).await
    }

    /// Before the program ends: what is being written is kept.
    pub async fn close(self: &Arc<Self>) {
        self.close_within(Duration::from_secs(2)).await;
    }

    /// The same, where writing down what the model remembers of chats may take so long. Chats that there is no time for
    /// are read again when they go on.
    pub async fn close_within(self: &Arc<Self>, time: Duration) {
        self.leave_disk_alone();
        self.chats_import_cancel();
        // An engine that does not stop in time loses what the last fifth of a second brought.
        let ended = tokio::time::timeout(Duration::from_secs(2), self.end_answer()).await;
        if let (Ok(()), Ok(session)) = (ended, self.session()) {
            let app = self.clone();
            let until = Instant::now() + time;
            let parked = blocking(move || {
                app.park(&session, Some(until), None);
                Ok(())
            });
            // A disk that hangs: what it has of the file goes when the program starts again.
            let _ = tokio::time::timeout(time + Duration::from_secs(1), parked).await;
        }
    }

    fn shown_chat(&self, id: &str) -> Result<Chat> {
        let running = lock(&self.answer).as_ref().is_some_and(|answer| answer.chat == id);
        Ok(Chat { running, ..self.chats.get(id)? })
    }

    /// Ends the answer that is being written in this chat; what there is of it stays.
    pub fn chat_stop(&self, chat: &str) {
        if let Some(answer) = lock(&self.answer).as_ref().filter(|answer| answer.chat == chat) {
            answer.cancel.cancel();
        }
    }

    /// Ends any answer and waits until it is kept; one for another program, too.
    pub(crate) async fn end_answer(&self) {
        if let Some(answer) = lock(&self.answer).as_ref() {
            answer.cancel.cancel();
        }
        self.turns.end_guest();
        while self.is_answering() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Keeps the user's message and begins the answer, which goes on in the background: the sink gets `Started` at
    /// once, `Finished` at the end.
    ///
    /// # Errors
    /// [`ErrorCode::NoModelLoaded`], [`ErrorCode::Busy`] while another answer is written, [`ErrorCode::BadArgument`].
    /// Nothing is kept then.
    pub async fn chat_send(self: &Arc<Self>, args: SendArgs, mut sink: AnswerSink) -> Result<()> {
        let app = self.clone();
        blocking(move || {
            let cancel = Cancel::new();
            {
                let mut running = lock(&app.answer);
                if running.is_some() {
                    return Err(WireError::new(ErrorCode::Busy, "another answer is being written: stop it first"));
                }
                *running = Some(RunningAnswer { chat: args.chat.clone(), cancel: cancel.clone() });
            }
            // Gives the place back however this ends.
            let place = Place(app.clone());
            app.leave_disk_alone();
            // Now that whoever takes the model away finds the answer.
            let session = app.session()?;
            let prepared = app.prepare(session, &args)?;
            sink(AnswerEvent::Started {
                user: prepared.user.clone(),
                answer: prepared.answer.clone(),
                path: prepared.path.clone(),
            });
            let builder = std::thread::Builder::new().name("answer".into());
            let started = builder.spawn(move || place.0.clone().write(prepared, &cancel, sink, place));
            started.map(drop).map_err(|error| WireError::internal(format!("no thread for the answer: {error}")))
        })
        .await
    }

    fn prepare(&self, session: Arc<Session>, args: &SendArgs) -> Result<Prepared> {
        let settings = self.settings_get();
        let sampling = args.sampling.clone().unwrap_or(settings.sampling);
        check_sampling(&sampling)?;
        let chat = self.chats.get(&args.chat)?;
        let find = |id: &str| {
            let found = chat.messages.iter().find(|message| message.id == id);
            found.ok_or_else(|| WireError::new(ErrorCode::NotFound, format!("the chat has no message {id}")))
        };
        let ask = |parent: Option<&str>, text: &str| {
            if text.trim().is_empty() {
                return Err(WireError::bad_argument("text", "the message is empty"));
            }
            let (user, answer) = self.chats.ask(&args.chat, parent, text, &session.name)?;
            Ok((Some(user), answer, AnswerText::default()))
        };
        let (user, answer, begun) = match &args.turn {
            Turn::Send { text, parent } => ask(parent.as_deref().or(chat.path.last().map(String::as_str)), text)?,
            Turn::Edit { message, text } => {
                let before = find(message)?;
                if before.role != Role::User {
                    return Err(WireError::bad_argument("message", "only the user's messages can be edited"));
                }
                ask(before.parent.as_deref(), text)?
            }
            Turn::Regenerate { message } => {
                let before = find(message)?;
                let parent = match before.role {
                    Role::User => Some(before.id.as_str()),
                    _ => before.parent.as_deref(),
                };
                let parent = parent.ok_or_else(|| WireError::bad_argument("message", "nothing to answer"))?;
                (None, self.chats.begin_answer(&args.chat, parent, &session.name)?, AnswerText::default())
            }
            Turn::Continue { message } => {
                if find(message)?.parent.is_none() {
                    return Err(WireError::bad_argument("message", "nothing to answer"));
                }
                let (answer, mut begun) = self.chats.reopen_answer(&args.chat, message)?;
                // A character that the cut went through is written again as a whole.
                begun.raw.truncate(begun.raw.strip_suffix('\u{fffd}').unwrap_or(&begun.raw).len());
                (None, answer, begun)
            }
        };
        let chat = self.chats.get(&args.chat)?;
        let path = path_to(&chat.messages, Some(answer.id.clone()));
        let task = Task {
            messages: conversation(&chat, &path[..path.len().saturating_sub(1)]),
            begun: begun.raw.clone(),
            policy: settings.context_policy,
            form: chat.format.form(),
            ..Task::new(Defaults::of(&sampling, settings.thinking))
        };
        Ok(Prepared { chat: chat.id, session, user, answer, begun, path, task })
    }

    /// On a thread of its own: the engine works on another one, so that a panic there ends neither the app nor the
    /// answer's place in the data base.
    fn write(self: Arc<Self>, prepared: Prepared, cancel: &Cancel, mut sink: AnswerSink, place: Place) {
        let Prepared { chat, session, answer, begun, task, .. } = prepared;
        let on_recovery = |notice: &RecoveryNotice| self.recovered(&session, notice);
        let (text, result) = std::thread::scope(|scope| {
            let (sender, steps) = mpsc::channel::<Step>();
            let engine = std::thread::Builder::new().name("engine".into()).spawn_scoped(scope, || {
                // The receiver lives until the sender is dropped here.
                let sender = sender;
                let _turn = self.turns.wait(cancel, &mut || drop(sender.send(Step::Waiting)))?;
                self.turn_to(&session, Some(&chat), cancel)?;
                answer::write(&session, task, cancel, &mut |step| drop(sender.send(step)))
            });
            let text = Stream::new(&self.chats, &answer.id, begun, &mut *sink, &on_recovery).run(&steps);
            let result = match engine.map(|thread| thread.join()) {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(WireError::internal(format!("the engine failed: {}", panic_text(&*panic)))),
                Err(error) => Err(WireError::internal(format!("no thread for the engine: {error}"))),
            };
            (text, result)
        });
        let (reason, stats, error) = match result {
            Ok((reason, stats)) => (reason, Some(stats), None),
            Err(error) if error.code == ErrorCode::ContextFull => (FinishReason::ContextFull, None, Some(error)),
            Err(error) if error.code == ErrorCode::Cancelled => (FinishReason::Stopped, None, None),
            Err(error) => (FinishReason::Error, None, Some(error)),
        };
        if let Some(stats) = stats {
            sink(AnswerEvent::Stats { stats });
        }
        let (message, title, error) = match self.chats.end_answer(&answer.id, &text, reason, stats) {
            Ok((message, title)) => (message, title, error),
            Err(unkept) => {
                let AnswerText { text, thinking, tool_calls, .. } = text;
                let message = Message { text, thinking, tool_calls, finish: Some(reason), stats, ..answer };
                (message, String::new(), error.or(Some(unkept)))
            }
        };
        // Whoever hears of the end can send the next message.
        drop(place);
        sink(AnswerEvent::Finished { message, reason, title, error });
        // Layers may have moved by the slider meanwhile.
        self.model_changed();
        self.measure_disk();
        // Before the sink: when that is gone, nothing of the answer holds the app any more.
        drop(self);
    }
}

/// The place of the one answer that can be written at a time.
struct Place(Arc<App>);

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.0.answer) = None;
    }
}

/// What the model gets to see.
fn conversation(chat: &Chat, path: &[String]) -> Vec<Said> {
    let mut messages = Vec::new();
    if !chat.system_prompt.trim().is_empty() {
        messages.push(Said { role: "system", text: chat.system_prompt.clone(), ..Said::default() });
    }
    for id in path {
        let Some(message) = chat.messages.iter().find(|message| message.id == *id) else { continue };
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let tool_calls = message.tool_calls.iter().map(Into::into).collect();
        let (text, thinking) = (message.text.clone(), message.thinking.clone());
        messages.push(Said { role, text, thinking, tool_calls, called: None });
    }
    messages
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a bug".into())
}
