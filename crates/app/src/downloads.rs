//! The queue of downloads, kept over restarts. What is on the disk is the hub crate's matter; here is who waits,
//! who runs, and what the user wants.

use crate::error::Result;
use crate::library::id_of;
use crate::store::Store;
use crate::verify;
use crate::wire::{AppEvent, Download, DownloadState, ErrorCode, WireError};
use hub::{CancellationToken, DownloadRequest, Downloader, HubError, Progress, State};
use rusqlite::params;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Downloads at a time; the others wait.
const AT_A_TIME: usize = 2;
/// After the hub crate has given up on a lost connection, it is tried again this often.
const RETRY: Duration = Duration::from_secs(20);

type Events = Arc<dyn Fn(AppEvent) + Send + Sync>;
/// Makes a downloader as the settings are now.
type GetDownloader = Arc<dyn Fn() -> Result<Downloader> + Send + Sync>;

#[derive(Clone)]
pub struct Downloads(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    downloader: GetDownloader,
    events: Events,
    runtime: Handle,
    slots: Semaphore,
    entries: Mutex<Vec<Entry>>,
    /// Held while one is looked for and queued, so that a double click does not queue two, and while one is deleted, so
    /// that nobody takes its folder meanwhile.
    changing: Mutex<()>,
}

struct Entry {
    request: DownloadRequest,
    shown: Download,
    /// While a task works on it.
    task: Option<CancellationToken>,
    /// What the user wants after the task has stopped.
    wish: Wish,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    Pause,
    Cancel,
}

/// What is left to do of a download that nobody works on.
enum Next {
    Nothing,
    /// Its state is kept.
    Keep,
    GoOn,
    Delete {
        fetched: bool,
    },
}

impl Entry {
    /// Neither done nor given up.
    fn is_wanted(&self) -> bool {
        !matches!(self.shown.state, DownloadState::Done | DownloadState::Cancelled)
    }

    /// Nobody works on it any more, as the user wished.
    fn stopped(&mut self) -> Next {
        (self.shown.bytes_per_second, self.shown.seconds_left) = (0.0, None);
        if self.wish == Wish::Cancel {
            let fetched = self.shown.state != DownloadState::Done;
            self.shown.state = DownloadState::Cancelled;
            return Next::Delete { fetched };
        }
        self.shown.state = DownloadState::Paused;
        Next::Keep
    }
}

impl Downloads {
    /// Reads the list.
    pub fn open(store: Arc<Store>, downloader: GetDownloader, events: Events, runtime: Handle) -> Result<Downloads> {
        let entries = read(&store)?;
        let inner = Inner {
            store,
            downloader,
            events,
            runtime,
            slots: Semaphore::new(AT_A_TIME),
            entries: Mutex::new(entries),
            changing: Mutex::new(()),
        };
        Ok(Downloads(Arc::new(inner)))
    }

    /// Goes on with everything that was not paused.
    pub fn go_on(&self) {
        let queued: Vec<String> = self
            .list()
            .into_iter()
            .filter(|download| download.state == DownloadState::Queued)
            .map(|download| download.id)
            .collect();
        queued.iter().for_each(|id| self.spawn(id));
    }

    pub fn list(&self) -> Vec<Download> {
        self.0.entries().iter().map(|entry| entry.shown.clone()).collect()
    }

    /// Queues a model. One that is in the list goes on; one of other bytes for the same files, as an older commit has
    /// them, is given up: both would end in the same place.
    pub fn start(&self, request: DownloadRequest, quant: &str) -> Result<Download> {
        let text = serde_json::to_string(&request).map_err(|error| WireError::internal(error.to_string()))?;
        let ids = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<String> {
            let entries = self.0.entries();
            entries.iter().filter(|entry| entry.is_wanted() && wanted(entry)).map(|e| e.shown.id.clone()).collect()
        };
        for older in ids(&|entry| entry.request.collides(&request) && !entry.request.is_same(&request)) {
            match self.cancel(&older) {
                Err(error) if error.code == ErrorCode::NotFound => {}
                cancelled => cancelled?,
            }
        }
        let _one_at_a_time = self.0.changing();
        for known in ids(&|entry| entry.request.is_same(&request)) {
            let idle = self.0.with(&known, |entry| {
                let idle = entry.task.is_none();
                if idle {
                    // The Hub may have forgotten the commit under which it was begun.
                    entry.request = request.clone();
                }
                entry.wish = Wish::Run;
                // Given up just now, it cannot be called back.
                entry.is_wanted().then_some(idle)
            })?;
            let Some(idle) = idle else { continue };
            if idle {
                self.0.store.lock().execute("UPDATE downloads SET request = ?2 WHERE n = ?1", params![known, text])?;
            }
            self.resume(&known)?;
            return self.0.with(&known, |entry| entry.shown.clone());
        }
        let id = {
            let db = self.0.store.lock();
            db.execute("INSERT INTO downloads(quant, request, state) VALUES (?1, ?2, 'queued')", params![quant, text])?;
            db.last_insert_rowid().to_string()
        };
        let entry = entry(id.clone(), quant, request, DownloadState::Queued, 0);
        let shown = entry.shown.clone();
        self.0.entries().push(entry);
        (self.0.events)(AppEvent::Download { download: shown.clone() });
        self.spawn(&id);
        Ok(shown)
    }

    pub fn pause(&self, id: &str) -> Result<()> {
        self.stop(id, Wish::Pause)
    }

    /// Stops and deletes what was fetched; a finished one only leaves the list.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.stop(id, Wish::Cancel)
    }

    fn stop(&self, id: &str, wish: Wish) -> Result<()> {
        let next = self.0.with(id, |entry| {
            if !entry.is_wanted() && (wish == Wish::Pause || entry.shown.state == DownloadState::Cancelled) {
                return Next::Nothing;
            }
            entry.wish = wish;
            match &entry.task {
                // It does the rest when it has stopped.
                Some(task) => {
                    task.cancel();
                    Next::Nothing
                }
                None => entry.stopped(),
            }
        })?;
        self.0.finish(id, next).map(drop)
    }

    pub fn resume(&self, id: &str) -> Result<()> {
        let start = self.0.with(id, |entry| {
            // A queued one has no task where nobody went on with what the last run left.
            let waits =
                matches!(entry.shown.state, DownloadState::Paused | DownloadState::Failed | DownloadState::Queued);
            let idle = waits && entry.task.is_none();
            entry.wish = Wish::Run;
            if idle {
                entry.shown.error = None;
                entry.shown.state = DownloadState::Queued;
            }
            idle
        })?;
        if start {
            self.0.changed(id)?;
            self.spawn(id);
        }
        Ok(())
    }

    fn spawn(&self, id: &str) {
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        // One that is gone, stopped or begun by now needs no task.
        let needed = self.0.with(id, |entry| {
            let needed = entry.wish == Wish::Run && entry.task.is_none();
            if needed {
                entry.task = Some(token);
            }
            needed
        });
        if !needed.unwrap_or(false) {
            return;
        }
        let (inner, id) = (self.0.clone(), id.to_owned());
        self.0.runtime.spawn(async move {
            let result = inner.run(&id, &cancel).await;
            // Data base work; short, but blocking.
            let ended = tokio::task::spawn_blocking(move || {
                if inner.ended(&id, result)? {
                    Downloads(inner).spawn(&id);
                }
                Ok(())
            });
            if let Ok(Err(error)) | Err(error) = ended.await.map_err(|e| WireError::internal(e.to_string())) {
                tracing::error!("a download could not be recorded: {error}");
            }
        });
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn with<T>(&self, id: &str, work: impl FnOnce(&mut Entry) -> T) -> Result<T> {
        let mut entries = self.entries();
        let entry = entries.iter_mut().find(|entry| entry.shown.id == id);
        entry.map(work).ok_or_else(|| WireError::new(ErrorCode::NotFound, format!("there is no download {id}")))
    }

    /// The model's files, the first first.
    async fn run(&self, id: &str, cancel: &CancellationToken) -> Result<Vec<PathBuf>, HubError> {
        let _slot = tokio::select! {
            slot = self.slots.acquire() => slot.map_err(|_| HubError::Cancelled)?,
            () = cancel.cancelled() => return Err(HubError::Cancelled),
        };
        let Ok(request) = self.with(id, |entry| entry.request.clone()) else { return Err(HubError::Cancelled) };
        loop {
            self.show(id, |shown| (shown.state, shown.error) = (DownloadState::Running, None));
            let downloader = match (self.downloader)() {
                Ok(downloader) => downloader,
                Err(error) => return Err(HubError::BadName { name: error.message, why: "see Settings" }),
            };
            let progress = |progress: Progress| self.show(id, |shown| update(shown, &progress));
            match downloader.download(&request, progress, cancel).await {
                Ok(paths) => return Ok(paths),
                Err(error) if error.is_transient() => {
                    let wait = match &error {
                        HubError::RateLimited { retry_after: Some(wait) } => (*wait).max(RETRY),
                        _ => RETRY,
                    };
                    let error = WireError::from(error);
                    self.show(id, |shown| (shown.state, shown.error) = (DownloadState::Waiting, Some(error)));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = cancel.cancelled() => return Err(HubError::Cancelled),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes what is shown and tells the window.
    fn show(&self, id: &str, change: impl FnOnce(&mut Download)) {
        let changed = self.with(id, |entry| {
            change(&mut entry.shown);
            entry.shown.clone()
        });
        if let Ok(download) = changed {
            (self.events)(AppEvent::Download { download });
        }
    }

    /// Keeps how a task ended; true: the user has wished since that it goes on.
    fn ended(&self, id: &str, result: Result<Vec<PathBuf>, HubError>) -> Result<bool> {
        let done = result.is_ok();
        if let Ok(paths) = &result {
            let request = self.with(id, |entry| entry.request.clone())?;
            // The model is there all the same.
            if let Err(error) = verify::keep(&self.store, request.files.iter().zip(paths)) {
                tracing::warn!("it is not kept what the files of {} should be: {error}", request.repo);
            }
        }
        // All at once: what the user wishes from here on finds a download without a task.
        let next = self.with(id, |entry| {
            let cancelled = entry.task.take().is_some_and(|task| task.is_cancelled());
            match result {
                Ok(paths) => {
                    entry.shown.state = DownloadState::Done;
                    entry.shown.bytes = entry.shown.total;
                    entry.shown.seconds_left = None;
                    entry.shown.model_id = paths.first().map(|path| id_of(path));
                    Next::Keep
                }
                Err(HubError::Cancelled) if cancelled && entry.wish == Wish::Run => {
                    entry.shown.state = DownloadState::Queued;
                    Next::GoOn
                }
                Err(HubError::Cancelled) => entry.stopped(),
                // The user has given it up: how it failed is no matter.
                Err(_) if entry.wish == Wish::Cancel => entry.stopped(),
                Err(error) => {
                    (entry.shown.state, entry.shown.error) = (DownloadState::Failed, Some(WireError::from(error)));
                    Next::Keep
                }
            }
        })?;
        let go_on = self.finish(id, next)?;
        if done {
            (self.events)(AppEvent::Library);
        }
        Ok(go_on)
    }

    /// Does what is left to do of a download without a task; true: it needs a new one.
    fn finish(&self, id: &str, next: Next) -> Result<bool> {
        match next {
            Next::Nothing => Ok(false),
            Next::Keep => self.changed(id).map(|()| false),
            Next::GoOn => self.changed(id).map(|()| true),
            Next::Delete { fetched } => {
                let deleted = self.delete(id, fetched);
                if let Err(error) = &deleted {
                    let failed = |entry: &mut Entry| {
                        (entry.shown.state, entry.shown.error) = (DownloadState::Failed, Some(error.clone()));
                    };
                    self.with(id, failed)?;
                    self.changed(id)?;
                }
                deleted.map(|()| false)
            }
        }
    }

    /// Takes it off the list; `fetched`: with what is there of it.
    fn delete(&self, id: &str, fetched: bool) -> Result<()> {
        let _one_at_a_time = self.changing();
        let request = self.with(id, |entry| entry.request.clone())?;
        let again = |entry: &Entry| entry.shown.id != id && entry.is_wanted() && entry.request.is_same(&request);
        // Begun again meanwhile: that one goes on with the bytes.
        if fetched && !self.entries().iter().any(again) {
            hub::discard(&request)?;
        }
        self.store.lock().execute("DELETE FROM downloads WHERE n = ?1", [id])?;
        self.show(id, |shown| shown.state = DownloadState::Cancelled);
        self.entries().retain(|entry| entry.shown.id != id);
        Ok(())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Keeps the state and tells the window.
    fn changed(&self, id: &str) -> Result<()> {
        let download = self.with(id, |entry| entry.shown.clone())?;
        let state = match download.state {
            DownloadState::Paused => "paused",
            DownloadState::Failed => "failed",
            DownloadState::Done => "done",
            _ => "queued",
        };
        self.store
            .lock()
            .execute("UPDATE downloads SET state = ?2, bytes = ?3 WHERE n = ?1", params![id, state, download.bytes])?;
        (self.events)(AppEvent::Download { download });
        Ok(())
    }
}

fn update(shown: &mut Download, progress: &Progress) {
    shown.state = match progress.state {
        State::Starting | State::Downloading | State::Done => DownloadState::Running,
        State::Waiting { .. } => DownloadState::Waiting,
        State::Verifying => DownloadState::Verifying,
    };
    (shown.bytes, shown.total) = (progress.bytes, progress.total);
    shown.bytes_per_second = progress.bytes_per_s;
    shown.seconds_left = progress.seconds_left.map(|seconds| seconds.ceil() as u64);
}

fn entry(id: String, quant: &str, request: DownloadRequest, state: DownloadState, bytes: u64) -> Entry {
    let total = request.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let shown = Download {
        id,
        repo: request.repo.clone(),
        quant: quant.to_owned(),
        state,
        bytes,
        total,
        bytes_per_second: 0.0,
        seconds_left: None,
        model_id: None,
        error: None,
    };
    Entry { request, shown, task: None, wish: Wish::Run }
}

/// The list as the last run left it. Finished ones have served their time.
fn read(store: &Store) -> Result<Vec<Entry>> {
    let db = store.lock();
    db.execute("DELETE FROM downloads WHERE state = 'done'", [])?;
    let mut statement = db.prepare("SELECT n, quant, request, state FROM downloads ORDER BY n")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
    })?;
    let mut entries = Vec::new();
    for row in rows {
        let (n, quant, request, state) = row?;
        let Ok(request) = serde_json::from_str::<DownloadRequest>(&request) else {
            tracing::warn!("download {n} cannot be read and is left out");
            continue;
        };
        let state = match state.as_str() {
            "paused" => DownloadState::Paused,
            "failed" => DownloadState::Failed,
            _ => DownloadState::Queued,
        };
        let bytes = hub::pending_bytes(&request);
        entries.push(entry(n.to_string(), &quant, request, state, bytes));
    }
    Ok(entries)
}
