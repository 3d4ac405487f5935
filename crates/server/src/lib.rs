//! A loaded model for other programs, over HTTP: the part of OpenAI's interface that chats and continues texts.
//!
//! One answer is written at a time; those who ask meanwhile wait in order, as the window does with its chats. Who hangs up
//! ends the answer.

mod answers;
mod error;
mod gate;
mod request;
mod response;
mod routes;
mod stop_words;
mod switch;

pub use gate::Access;
pub use switch::Switch;

use answers::Answers;
use app::{App, Defaults};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Bytes of a request: the longest conversations, nothing else.
const LARGEST_REQUEST: usize = 32 << 20;

/// Those who still read get this long when the server ends.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is served.
pub struct Serving {
    /// Whose loaded model answers, as it is when a request comes.
    pub app: Arc<App>,
    /// Where a request says nothing else; `None`: as the app's settings say then. The seed is not used: each answer gets
    /// another one.
    pub defaults: Option<Defaults>,
    pub access: Access,
}

/// What the routes share.
struct Shared {
    answers: Answers,
    defaults: Option<Defaults>,
}

/// Serves until `end` comes; the answer that is being written then ends, too, and this within three seconds.
///
/// # Errors
/// The system takes the listener away.
pub async fn serve(
    listener: TcpListener,
    serving: Serving,
    end: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let Serving { app, defaults, access } = serving;
    let access = access.at(listener.local_addr()?);
    let shared = Arc::new(Shared { answers: Answers::new(app), defaults });
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
    let (told, ending) = oneshot::channel();
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        end.await;
        closing.answers.close();
        let _ = told.send(());
    });
    let patient = async {
        ending.await.ok()?;
        tokio::time::sleep(PATIENCE).await;
        Some(())
    };
    tokio::select! {
        served = served.into_future() => served,
        Some(()) = patient => Ok(()),
    }
}
