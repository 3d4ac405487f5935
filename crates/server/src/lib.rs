//! A loaded model for other programs, over HTTP: the part of OpenAI's interface that chats and continues texts.
//!
//! One answer is written at a time; those who ask meanwhile wait in order. Who hangs up ends the answer.

mod answers;
mod error;
mod gate;
mod request;
mod response;
mod routes;
mod stop_words;

pub use gate::Access;

use answers::Answers;
use app::Session;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use serde_json::{Map, Value};
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Bytes of a request: the longest conversations, nothing else.
const LARGEST_REQUEST: usize = 32 << 20;

/// What is served.
pub struct Serving {
    pub session: Session,
    /// Where a request says nothing else. Its seed is not used: each answer gets another one.
    pub sampling: sampler::Params,
    /// Tokens of an answer where a request says nothing else.
    pub max_tokens: Option<u32>,
    /// What the model's template reads where a request says nothing else, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    pub access: Access,
}

/// What the routes share.
struct Shared {
    answers: Answers,
    sampling: sampler::Params,
    max_tokens: Option<u32>,
    variables: Map<String, Value>,
}

/// Serves until `end` comes; the answer that is being written then ends, too.
///
/// # Errors
/// The system takes the listener away.
pub async fn serve(
    listener: TcpListener,
    serving: Serving,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let Serving { session, sampling, max_tokens, variables, access } = serving;
    let access = access.at(listener.local_addr()?);
    let shared = Arc::new(Shared { answers: Answers::new(session), sampling, max_tokens, variables });
    let closing = shared.clone();
    let router = Router::new()
        .route("/v1/models", get(routes::models))
        .route("/v1/models/{name}", get(routes::model))
        .route("/v1/chat/completions", post(routes::chat))
        .route("/v1/completions", post(routes::completion))
        .route("/health", get(routes::health))
        .fallback(routes::nothing)
        .method_not_allowed_fallback(routes::wrong_method)
        .layer(DefaultBodyLimit::max(LARGEST_REQUEST))
        .layer(from_fn_with_state(Arc::new(access), gate::gate))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            end.await;
            closing.answers.close();
        })
        .await
}
