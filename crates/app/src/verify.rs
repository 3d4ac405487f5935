//! Whether the files of a model are still those that the Hub has: their SHA-256 is kept when they were downloaded, and other
//! programs' cache names its files by it.

use crate::app::{App, blocking, lock};
use crate::error::Result;
use crate::files::now;
use crate::library::{Library, key, parts_of};
use crate::progress::Pace;
use crate::store::Store;
use crate::wire::{AppEvent, ErrorCode, InstalledModel, Verified, VerifiedFile, WireError};
use hub::{CancellationToken, RepoFile};
use rusqlite::{Connection, OptionalExtension, params};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Keeps what the Hub said of files that are there now.
pub fn keep<'a>(store: &Store, files: impl IntoIterator<Item = (&'a RepoFile, &'a PathBuf)>) -> Result<()> {
    store.transaction(|db| {
        for (file, path) in files {
            forget_one(db, path)?;
            if let Some(sha256) = &file.sha256 {
                let sql = "INSERT INTO hashes(path, len, sha256) VALUES (?1, ?2, ?3)";
                db.execute(sql, params![real(path), file.size, sha256])?;
            }
        }
        Ok(())
    })
}

/// Before files are deleted: others that come to their places are not compared with them.
pub fn forget(store: &Store, paths: &[PathBuf]) -> Result<()> {
    store.transaction(|db| paths.iter().try_for_each(|path| forget_one(db, path)))
}

fn forget_one(db: &Connection, path: &Path) -> Result<()> {
    db.execute("DELETE FROM hashes WHERE path = ?1", [real(path)])?;
    Ok(())
}

/// The same for all ways to a file.
fn real(path: &Path) -> String {
    key(&fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}

impl App {
    /// Compares the bytes of an installed model with what the Hub said of them. [`AppEvent::Verify`] tells how far it is; what
    /// it finds is in the library, too, as long as the files stay as they are.
    ///
    /// # Errors
    /// [`ErrorCode::Cancelled`], [`ErrorCode::Busy`] while another verification runs, [`ErrorCode::FileMissing`] if there is no
    /// such model.
    pub async fn library_verify(self: &Arc<Self>, id: String) -> Result<Verified> {
        let cancel = CancellationToken::new();
        {
            let mut running = lock(&self.verifying);
            if running.is_some() {
                return Err(WireError::new(ErrorCode::Busy, "another model is being verified"));
            }
            *running = Some(cancel.clone());
        }
        let place = Verifying { app: self.clone(), model_id: id.clone() };
        let app = self.clone();
        let looked = blocking(move || {
            let model = app.library.get(&app.folders(), &id)?;
            let before = app.library.state_of(&model);
            Ok((before, look(&app.library, &model)?))
        });
        let (before, parts) = looked.await?;
        let meter = Arc::new(Meter::new(self.clone(), place.model_id.clone(), &parts));
        let mut files = Vec::new();
        for part in parts {
            files.push(part.verify(&meter, &cancel).await?);
        }
        let verified = Verified { at: now(), files };
        self.library.keep_verified(&place.model_id, before, verified.clone());
        drop(place);
        self.emit(AppEvent::Library);
        Ok(verified)
    }

    /// Calls off the verification that is running, if one is.
    pub fn library_verify_cancel(&self) {
        if let Some(cancel) = lock(&self.verifying).as_ref() {
            cancel.cancel();
        }
    }
}

/// The place of the one verification that can run at a time.
struct Verifying {
    app: Arc<App>,
    model_id: String,
}

impl Drop for Verifying {
    fn drop(&mut self) {
        *lock(&self.app.verifying) = None;
        self.app.emit(AppEvent::Verify { model_id: self.model_id.clone(), progress: None });
    }
}

/// A file before it is read.
struct Part {
    path: PathBuf,
    len: u64,
    /// To compare with.
    sha256: Option<String>,
    /// What can be told without reading all of it.
    problem: Option<WireError>,
}

fn look(library: &Library, model: &InstalledModel) -> Result<Vec<Part>> {
    let paths = parts_of(Path::new(&model.path));
    let mut parts = Vec::new();
    for path in paths {
        let known = known(library.store(), &path)?;
        let (len, problem) = match (fs::metadata(&path), &known) {
            (Err(error), _) => (0, Some(WireError::file(&path, &error))),
            (Ok(meta), Some((Some(wanted), _))) => (meta.len(), wrong_length(&path, *wanted, meta.len())),
            (Ok(meta), _) => (meta.len(), None),
        };
        parts.push(Part { path, len, sha256: known.map(|(_, sha256)| sha256), problem });
    }
    // The parser checks that every tensor lies within its file.
    if parts.iter().any(|part| part.sha256.is_none())
        && let Err(error) = weights::read_header(Path::new(&model.path))
    {
        let error = WireError::from(error);
        let about = |part: &Part| error.subject.as_deref() == part.path.to_str();
        // What is wrong between the parts, as where they are of several models, is told at the first.
        let at = parts.iter().position(about).unwrap_or(0);
        if let Some(part) = parts.get_mut(at) {
            part.problem.get_or_insert(error);
        }
    }
    Ok(parts)
}

/// Length, where that is known, and SHA-256 that a file should have.
fn known(store: &Store, path: &Path) -> Result<Option<(Option<u64>, String)>> {
    let sql = "SELECT len, sha256 FROM hashes WHERE path = ?1";
    let kept = store.lock().query_row(sql, [real(path)], |row| Ok((Some(row.get(0)?), row.get(1)?))).optional()?;
    Ok(kept.or_else(|| hub::cached_sha256(path).map(|sha256| (None, sha256))))
}

fn wrong_length(path: &Path, wanted: u64, found: u64) -> Option<WireError> {
    let name = path.display();
    let short = || WireError::new(ErrorCode::FileTruncated, format!("{name} has {found} of {wanted} bytes"));
    match found.cmp(&wanted) {
        std::cmp::Ordering::Less => Some(short().about(name.to_string()).numbers(wanted, found)),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(damaged(path)),
    }
}

fn damaged(path: &Path) -> WireError {
    let text = format!("{} is damaged: its bytes are not those that the Hub has; download it again", path.display());
    WireError::new(ErrorCode::FileDamaged, text).about(path.display().to_string())
}

impl Part {
    /// Bytes that will be read.
    fn to_read(&self) -> u64 {
        if self.sha256.is_some() && self.problem.is_none() { self.len } else { 0 }
    }

    async fn verify(self, meter: &Arc<Meter>, cancel: &CancellationToken) -> Result<VerifiedFile> {
        let Part { path, sha256, mut problem, .. } = self;
        if let (Some(wanted), None) = (&sha256, &problem) {
            let meter = meter.clone();
            let hash = hub::sha256_of_file(&path, Arc::new(move |bytes| meter.read(bytes)), cancel);
            // A disk that hangs keeps nobody waiting.
            let found = tokio::select! {
                () = cancel.cancelled() => Err(hub::HubError::Cancelled),
                found = hash => found,
            };
            problem = match found {
                Ok(found) => (found != *wanted).then(|| damaged(&path)),
                Err(hub::HubError::Cancelled) => {
                    return Err(WireError::new(ErrorCode::Cancelled, "the verification was called off"));
                }
                Err(error) => Some(error.into()),
            };
        }
        Ok(VerifiedFile { path: path.display().to_string(), compared: sha256.is_some(), problem })
    }
}

/// Tells how far it is.
struct Meter {
    app: Arc<App>,
    model_id: String,
    /// Bytes so far.
    read: Mutex<(u64, Pace)>,
}

impl Meter {
    fn new(app: Arc<App>, model_id: String, parts: &[Part]) -> Meter {
        let total = parts.iter().map(Part::to_read).fold(0, u64::saturating_add);
        let meter = Meter { app, model_id, read: Mutex::new((0, Pace::new(total))) };
        meter.read(0);
        meter
    }

    fn read(&self, bytes: u64) {
        let mut read = lock(&self.read);
        read.0 += bytes;
        let so_far = read.0;
        if let Some(progress) = read.1.after(so_far) {
            self.app.emit(AppEvent::Verify { model_id: self.model_id.clone(), progress: Some(progress) });
        }
    }
}
