//! A local HTTP server that behaves like the Hugging Face Hub, with faults on request; for tests.
//!
//! Two listeners on 127.0.0.1 stand for the two parties of a real download: the *hub* (API, `resolve`, tokens, gates)
//! and the *storage* (signed links that expire, ranges). A client that sends its token to the storage is caught in
//! [`FakeHub::log`].

mod api;
mod faults;
mod files;
mod repos;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::http::HeaderMap;
use bytes::Bytes;

pub use faults::{Canned, Faults, WrongBytes};
pub use repos::sha256_hex;
use repos::{Blob, Repo};

/// Which of the two listeners answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Hub,
    Storage,
}

/// One request as it arrived, with the status it got.
#[derive(Clone, Debug)]
pub struct Logged {
    pub party: Party,
    pub method: String,
    /// Path and query.
    pub target: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub accept_encoding: Option<String>,
    pub status: u16,
}

#[derive(Default)]
struct World {
    repos: BTreeMap<String, Repo>,
    /// Token to the repositories whose terms its owner has accepted.
    tokens: BTreeMap<String, BTreeSet<String>>,
    faults: Faults,
    log: Vec<Logged>,
    /// Body bytes that the storage has handed out.
    served: u64,
    /// Uses of each signed link.
    link_uses: BTreeMap<String, u32>,
    /// When the shared line is free again, for [`Faults::bytes_per_second`].
    line_free_at: Option<tokio::time::Instant>,
}

pub(crate) struct Shared {
    world: Mutex<World>,
    storage: SocketAddr,
    hub: SocketAddr,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // A panic in a handler must not turn every later answer into a panic.
        self.world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn log(&self, party: Party, method: &str, target: &str, headers: &HeaderMap, status: u16) {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        self.world().log.push(Logged {
            party,
            method: method.to_owned(),
            target: target.to_owned(),
            range: text("range"),
            authorization: text("authorization"),
            accept_encoding: text("accept-encoding"),
            status,
        });
    }
}

/// The running server; it stops when dropped.
pub struct FakeHub {
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeHub {
    /// Starts on free ports. Works inside and outside an async runtime: the server has its own thread.
    pub fn start() -> io::Result<FakeHub> {
        FakeHub::start_on(0)
    }

    /// Starts the hub on `port` (0: any) and the storage on a free one.
    pub fn start_on(port: u16) -> io::Result<FakeHub> {
        let bind = |port| -> io::Result<std::net::TcpListener> {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (hub, storage) = (bind(port)?, bind(0)?);
        let shared = Arc::new(Shared {
            world: Mutex::new(World::default()),
            storage: storage.local_addr()?,
            hub: hub.local_addr()?,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let state = shared.clone();
        let thread = std::thread::Builder::new().name("fake-hub".into()).spawn(move || {
            runtime.block_on(async move {
                let serve = |listener: std::net::TcpListener, router: Router| async move {
                    match tokio::net::TcpListener::from_std(listener) {
                        Ok(listener) => axum::serve(listener, router).await,
                        Err(error) => Err(error),
                    }
                };
                let hub_router = Router::new().fallback(api::hub).with_state(state.clone());
                let storage_router = Router::new().fallback(files::storage).with_state(state);
                tokio::select! {
                    _ = serve(hub, hub_router) => {}
                    _ = serve(storage, storage_router) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(FakeHub { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`, to be used as HF_ENDPOINT.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.shared.hub)
    }

    /// `127.0.0.1:PORT` of the storage host.
    pub fn storage_addr(&self) -> SocketAddr {
        self.shared.storage
    }

    /// Adds or replaces a file. Each call makes a new commit on `main`; older commits stay reachable.
    pub fn add_bytes(&self, repo: &str, path: &str, bytes: impl Into<Vec<u8>>) {
        self.add(repo, path, Blob::from_bytes(Bytes::from(bytes.into())));
    }

    /// Like [`FakeHub::add_bytes`] for a file on disk, which is read when it is asked for.
    pub fn add_disk_file(&self, repo: &str, path: &str, file: PathBuf) -> io::Result<()> {
        self.add(repo, path, Blob::from_file(file)?);
        Ok(())
    }

    fn add(&self, repo: &str, path: &str, blob: Blob) {
        let mut world = self.shared.world();
        let count = world.repos.len() as u64;
        world.repos.entry(repo.to_owned()).or_insert_with(|| Repo::new(repo, count)).commit(path, blob);
    }

    /// The newest commit of a repository (40 hexadecimal digits).
    pub fn commit(&self, repo: &str) -> Option<String> {
        self.shared.world().repos.get(repo).map(|r| r.head().to_owned())
    }

    /// What the search sorts by.
    pub fn set_popularity(&self, repo: &str, downloads: u64, likes: u64) {
        if let Some(r) = self.shared.world().repos.get_mut(repo) {
            (r.downloads, r.likes) = (downloads, likes);
        }
    }

    /// What the Hub has read in a header of the repository.
    pub fn set_parameters(&self, repo: &str, parameters: u64) {
        if let Some(repo) = self.shared.world().repos.get_mut(repo) {
            repo.parameters = Some(parameters);
        }
    }

    /// The repository asks for accepted terms from now on.
    pub fn gate(&self, repo: &str) {
        if let Some(r) = self.shared.world().repos.get_mut(repo) {
            r.gated = true;
        }
    }

    /// A token that the hub knows and the gated repositories whose terms its owner has accepted.
    pub fn add_token(&self, token: &str, accepted: &[&str]) {
        self.shared.world().tokens.insert(token.to_owned(), accepted.iter().map(|s| (*s).to_owned()).collect());
    }

    /// Changes what goes wrong from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.world().faults);
    }

    /// All requests so far.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.world().log.clone()
    }

    pub fn clear_log(&self) {
        self.shared.world().log.clear();
    }

    /// Body bytes that the storage has handed out so far.
    pub fn served(&self) -> u64 {
        self.shared.world().served
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread only serves; a panic in it has already failed the requests that the test looks at.
            let _ = thread.join();
        }
    }
}
