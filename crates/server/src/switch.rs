//! The server as the window's settings switch it on and off.

use crate::{Access, Serving, serve};
use app::App;
use app::wire::{ErrorCode, ServerSettings, ServerState, WireError};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;

/// Serves whatever model the app has loaded, to this PC alone.
pub struct Switch {
    app: Arc<App>,
    running: Mutex<Option<Running>>,
}

struct Running {
    port: u16,
    end: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Switch {
    pub fn new(app: Arc<App>) -> Switch {
        Switch { app, running: Mutex::default() }
    }

    /// Begins, ends or changes its port as the settings say now, and tells the window.
    pub async fn follow(&self) {
        let mut running = self.running.lock().await;
        let ServerSettings { on, port } = self.app.settings_get().server;
        running.take_if(|running| running.ended.is_finished());
        if running.as_ref().map(|running| running.port) == on.then_some(port) {
            return;
        }
        if let Some(running) = running.take() {
            running.end().await;
        }
        let started = if on { Some(self.start(port).await) } else { None };
        self.app.served(match started {
            None => ServerState::Off,
            Some(Ok(started)) => {
                *running = Some(started);
                ServerState::On { url: format!("http://127.0.0.1:{port}/v1") }
            }
            Some(Err(error)) => failed(port, &error),
        });
    }

    /// Before the program ends: answers that are being written end.
    pub async fn end(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.end().await;
        }
    }

    async fn start(&self, port: u16) -> io::Result<Running> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let (end, ending) = oneshot::channel();
        let app = self.app.clone();
        let serving = Serving { app: app.clone(), defaults: None, access: Access::default() };
        let ended = tokio::spawn(async move {
            if let Err(error) = serve(listener, serving, async { drop(ending.await) }).await {
                app.served(failed(port, &error));
            }
        });
        Ok(Running { port, end, ended })
    }
}

impl Running {
    async fn end(self) {
        // Neither is there any more where it has ended by itself.
        let _ = self.end.send(());
        let _ = self.ended.await;
    }
}

fn failed(port: u16, error: &io::Error) -> ServerState {
    let text = format!("the server cannot use port {port}: {error}");
    ServerState::Failed { error: WireError::new(ErrorCode::PortTaken, text).about(port.to_string()) }
}
