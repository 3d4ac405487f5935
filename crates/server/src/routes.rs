//! What can be asked.

use crate::Shared;
use crate::error::Problem;
use crate::request::{ChatRequest, Common, CompletionRequest, Conversation};
use crate::response::{self, Head};
use app::{Defaults, Session, Task, random};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

type Body = Result<Bytes, BytesRejection>;

pub async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let loaded = shared.answers.session().ok().map(|session| described(&session));
    Json(json!({ "object": "list", "data": Vec::from_iter(loaded) }))
}

pub async fn model(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    match shared.answers.session().ok().filter(|session| session.name == name) {
        Some(session) => Ok(Json(described(&session))),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "model_not_found", format!("{name} is not loaded"))),
    }
}

pub async fn nothing() -> Problem {
    let text = "there is /v1/chat/completions, /v1/completions, /v1/models and /health";
    Problem::new(StatusCode::NOT_FOUND, "not_found", text)
}

pub async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "another method is wanted here")
}

pub async fn chat(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Problem> {
    let request: ChatRequest = parse(body)?;
    let knows_tools = shared.answers.session()?.knows_tools();
    let Conversation { messages, tools, variables: asked, begun, form } = request.conversation(knows_tools)?;
    let mut task = Task { messages, tools, begun, form, ..shared.task(&request.common)? };
    task.variables.extend(asked);
    shared.answer(task, &request.common, true).await
}

pub async fn completion(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Problem> {
    let mut request: CompletionRequest = parse(body)?;
    let task = shared.task(&request.common)?;
    let common = std::mem::take(&mut request.common);
    let (text, form) = request.text(&common)?;
    let task = Task { messages: vec![text], form, raw: true, ..task };
    shared.answer(task, &common, false).await
}

fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = body.map_err(|rejection| Problem::new(rejection.status(), "invalid_request", rejection.body_text()))?;
    serde_json::from_slice(&body).map_err(|error| Problem::request(error.to_string()))
}

fn described(session: &Session) -> Value {
    json!({ "id": session.name, "object": "model", "created": 0, "owned_by": "headroom", "context_length": session.context() })
}

impl Shared {
    /// A task without its text.
    fn task(&self, common: &Common) -> Result<Task, Problem> {
        let Defaults { sampling, max_tokens, variables } =
            self.defaults.clone().unwrap_or_else(|| self.answers.defaults());
        let sampling = common.sampling(&sampling, random())?;
        Ok(Task::new(Defaults { sampling, max_tokens: common.max_tokens(max_tokens), variables }))
    }

    async fn answer(&self, task: Task, common: &Common, chat: bool) -> Result<Response, Problem> {
        let kind = if chat { "chatcmpl" } else { "cmpl" };
        let model = self.answers.session()?.name.clone();
        let head = Head { id: format!("{kind}-{:016x}", random()), model, chat, usage: common.wants_usage() };
        let answer = self.answers.begin(task, common.stop()).await?;
        Ok(match common.stream.unwrap_or(false) {
            true => response::streamed(head, answer),
            false => response::whole(head, answer).await,
        })
    }
}
