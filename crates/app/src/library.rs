//! Installed models: GGUF files in our folder, in the user's folders, in the Hugging Face cache and beside the program.

use crate::error::Result;
use crate::store::Store;
use crate::verify;
use crate::wire::{ErrorCode, InstalledModel, ModelSource, Verified, WireError};
use model::Model;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokenizer::Tokenizer;
use weights::WeightsError;

/// Bounds for folders that anybody can fill.
const MAX_DEPTH: usize = 6;
const MAX_FILES: usize = 10_000;
/// Descriptions kept for planning.
const MAX_DESCRIBED: usize = 16;

/// Where to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    pub models: PathBuf,
    pub extra: Vec<PathBuf>,
    pub hf_cache: Option<PathBuf>,
    pub bundled: Vec<PathBuf>,
}

pub struct Library {
    store: Arc<Store>,
    /// By id: where models were when they were last looked for in these folders. Of a folder that is a whole drive that takes
    /// seconds, and each step of a slider asks for its model.
    places: Mutex<(Folders, HashMap<String, Found>)>,
    /// By path: what the header says, or why it cannot be used.
    facts: Mutex<HashMap<PathBuf, (Stamp, Result<Facts>)>>,
    described: Mutex<HashMap<PathBuf, (Stamp, Arc<Model>)>>,
    /// Whether the second file's model can guess for the first one's.
    drafts: Mutex<HashMap<[(PathBuf, Stamp); 2], bool>>,
    /// By id: what was found, and how its files were then.
    verified: Mutex<HashMap<String, (Stamps, Verified)>>,
}

/// Changes when a file is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    len: u64,
    /// Unix milliseconds.
    modified: u64,
}

/// Of a model's files, as far as they are there.
pub(crate) type Stamps = Vec<Option<Stamp>>;

/// What the list shows of a header.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    architecture: String,
    parameters: u64,
    context_max: u32,
    layers: u32,
    /// Tokens.
    vocabulary: usize,
}

#[derive(Clone)]
struct Found {
    path: PathBuf,
    source: ModelSource,
    repo: Option<String>,
}

impl Found {
    fn is_called(&self, wanted: &str) -> bool {
        let name = name_of(&self.path);
        let same = |text: &str| text.eq_ignore_ascii_case(wanted);
        let file = |wanted: &str| self.path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        let in_repo = self.repo.as_ref().is_some_and(|repo| {
            same(repo) || hub::quant_of(&name).is_some_and(|quant| same(&format!("{repo}:{quant}")))
        });
        id_of(&self.path) == wanted || same(&name) || file(wanted) || in_repo
    }
}

impl Library {
    pub fn new(store: Arc<Store>) -> Library {
        Library {
            store,
            places: Mutex::default(),
            facts: Mutex::default(),
            described: Mutex::default(),
            drafts: Mutex::default(),
            verified: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn find(&self, folders: &Folders) -> Vec<Found> {
        let found = find(folders);
        let places = found.iter().map(|found| (id_of(&found.path), found.clone())).collect();
        *lock(&self.places) = (folders.clone(), places);
        found
    }

    /// A model that is where it was.
    fn known(&self, folders: &Folders, id: &str) -> Option<Found> {
        let places = lock(&self.places);
        let (known, places) = &*places;
        (known == folders).then(|| places.get(id).cloned()).flatten().filter(|found| found.path.is_file())
    }

    /// All models, by name.
    pub fn list(&self, folders: &Folders) -> Result<Vec<InstalledModel>> {
        let mut seen = HashSet::new();
        let mut models = Vec::new();
        for found in self.find(folders) {
            let real = fs::canonicalize(&found.path).unwrap_or_else(|_| found.path.clone());
            if seen.insert(real) {
                models.push(self.installed(found)?);
            }
        }
        models.sort_by_cached_key(|model| (model.name.to_lowercase(), model.path.clone()));
        Ok(models)
    }

    /// # Errors
    /// [`ErrorCode::FileMissing`] if there is no such model any more.
    pub fn get(&self, folders: &Folders, id: &str) -> Result<InstalledModel> {
        let look = || self.find(folders).into_iter().find(|found| id_of(&found.path) == id);
        let found = self.known(folders, id).or_else(look);
        let found = found.ok_or_else(|| {
            WireError::new(
                ErrorCode::FileMissing,
                "the model is not in the library any more: its file was moved or deleted",
            )
        })?;
        self.installed(found)
    }

    /// The model that a person means by an id, a name, "owner/name" or "owner/name:QUANT", in any case.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`], or [`ErrorCode::BadArgument`] if several are meant.
    pub fn named(&self, folders: &Folders, wanted: &str) -> Result<InstalledModel> {
        let mut seen = HashSet::new();
        let mut all = self.find(folders);
        all.retain(|found| seen.insert(fs::canonicalize(&found.path).unwrap_or_else(|_| found.path.clone())));
        let (exact, loose): (Vec<Found>, Vec<Found>) =
            all.into_iter().filter(|found| found.is_called(wanted)).partition(|found| id_of(&found.path) == wanted);
        let mut meant = if exact.is_empty() { loose } else { exact };
        if meant.len() > 1 {
            let paths: Vec<String> = meant.iter().map(|found| found.path.display().to_string()).collect();
            let text = format!("'{wanted}' is the name of several models; give a path: {}", paths.join(", "));
            return Err(WireError::bad_argument("model", text));
        }
        let none = || WireError::new(ErrorCode::NotFound, format!("no model here is called '{wanted}'")).about(wanted);
        self.installed(meant.pop().ok_or_else(none)?)
    }

    fn installed(&self, found: Found) -> Result<InstalledModel> {
        let Found { path, source, repo } = found;
        let (name, parts) = (name_of(&path), parts_of(&path));
        let bytes = parts.iter().filter_map(|part| fs::metadata(part).ok()).map(|meta| meta.len()).sum();
        let (facts, problem) = match self.facts(&path) {
            Ok(facts) => (Some(facts), None),
            Err(problem) => (None, Some(problem)),
        };
        let id = id_of(&path);
        let last_used =
            self.store.lock().query_row("SELECT at FROM used WHERE model = ?1", [&id], |row| row.get(0)).optional()?;
        let verified = lock(&self.verified).get(&id).filter(|(then, _)| *then == stamps(&parts)).cloned();
        Ok(InstalledModel {
            id,
            quant: hub::quant_of(&name),
            name,
            path: path.display().to_string(),
            source,
            repo,
            architecture: facts
                .as_ref()
                .map(|facts| facts.architecture.clone())
                .or_else(|| unsupported(problem.as_ref()?)),
            parameters: facts.as_ref().map(|facts| facts.parameters),
            bytes,
            context_max: facts.as_ref().map(|facts| facts.context_max),
            layers: facts.as_ref().map(|facts| facts.layers),
            last_used,
            problem,
            verified: verified.map(|(_, verified)| verified),
        })
    }

    pub(crate) fn state_of(&self, model: &InstalledModel) -> Stamps {
        stamps(&parts_of(Path::new(&model.path)))
    }

    /// `then`: how the files were that it is about.
    pub(crate) fn keep_verified(&self, id: &str, then: Stamps, verified: Verified) {
        lock(&self.verified).insert(id.to_owned(), (then, verified));
    }

    /// The id of the model whose first file is this one, by whatever path it is listed.
    pub fn at(&self, folders: &Folders, path: &Path) -> Option<String> {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let wanted = real(path);
        let same = |found: &Found| found.path == path || real(&found.path) == wanted;
        self.find(folders).into_iter().find(same).map(|found| id_of(&found.path))
    }

    pub fn mark_used(&self, id: &str) -> Result<()> {
        self.store.lock().execute(
            "INSERT INTO used(model, at) VALUES (?1, ?2) ON CONFLICT(model) DO UPDATE SET at = excluded.at",
            params![id, crate::files::now()],
        )?;
        Ok(())
    }

    /// The model's description, for planning; read once per file.
    pub fn describe(&self, path: &Path) -> Result<Arc<Model>> {
        let stamp = stamp(path)?;
        if let Some((known, model)) = lock(&self.described).get(path)
            && *known == stamp
        {
            return Ok(model.clone());
        }
        let model = Arc::new(model::describe(&weights::read_header(path)?)?);
        let mut described = lock(&self.described);
        if described.len() >= MAX_DESCRIBED {
            described.clear();
        }
        described.insert(path.to_owned(), (stamp, model.clone()));
        Ok(model)
    }

    /// Whether the tokens of the model at `draft` mean the same as those at `path`. Vocabularies are read only where their
    /// sizes are near each other, and once.
    pub fn can_draft(&self, path: &Path, draft: &Path) -> bool {
        let size = |path| self.facts(path).map(|facts| facts.vocabulary);
        let (Ok(ours), Ok(theirs)) = (size(path), size(draft)) else { return false };
        let (Ok(old), Ok(new)) = (stamp(path), stamp(draft)) else { return false };
        if ours.abs_diff(theirs) > engine::VOCABULARY_PADDING {
            return false;
        }
        let key = [(path.to_owned(), old), (draft.to_owned(), new)];
        if let Some(known) = lock(&self.drafts).get(&key) {
            return *known;
        }
        let tokenizer = |path| weights::read_header(path).ok().and_then(|gguf| Tokenizer::from_gguf(&gguf).ok());
        let same = tokenizer(path).zip(tokenizer(draft));
        let same = same.is_some_and(|(ours, theirs)| engine::same_vocabulary(&ours, &theirs).is_ok());
        lock(&self.drafts).insert(key, same);
        same
    }

    fn facts(&self, path: &Path) -> Result<Facts> {
        let stamp = stamp(path).map_err(|error| first_part_missing(path).unwrap_or(error))?;
        if let Some((known, facts)) = lock(&self.facts).get(path)
            && *known == stamp
            // A missing part may have come since.
            && facts.is_ok()
        {
            return facts.clone();
        }
        let facts = match self.remembered(path, stamp)? {
            Some(facts) if parts_of(path).iter().all(|part| part.exists()) => Ok(facts),
            _ => self.read_facts(path, stamp),
        };
        lock(&self.facts).insert(path.to_owned(), (stamp, facts.clone()));
        facts
    }

    fn read_facts(&self, path: &Path, stamp: Stamp) -> Result<Facts> {
        let model = self.describe(path)?;
        let facts = Facts {
            architecture: model.architecture.clone(),
            parameters: model.parameters,
            context_max: model.context_length,
            layers: model.layers.len() as u32 + 1,
            vocabulary: model.vocab_size,
        };
        let text = serde_json::to_string(&facts).map_err(|error| WireError::internal(error.to_string()))?;
        self.store.lock().execute(
            "INSERT OR REPLACE INTO headers(path, len, modified, facts) VALUES (?1, ?2, ?3, ?4)",
            params![key(path), stamp.len, stamp.modified, text],
        )?;
        Ok(facts)
    }

    fn remembered(&self, path: &Path, stamp: Stamp) -> Result<Option<Facts>> {
        let text: Option<String> = self
            .store
            .lock()
            .query_row(
                "SELECT facts FROM headers WHERE path = ?1 AND len = ?2 AND modified = ?3",
                params![key(path), stamp.len, stamp.modified],
                |row| row.get(0),
            )
            .optional()?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Deletes the files of a model of our own folder, and the folders that are empty then.
    ///
    /// # Errors
    /// [`ErrorCode::BadArgument`] for a model that lies elsewhere: others' files are never deleted.
    pub fn remove(&self, folders: &Folders, id: &str) -> Result<()> {
        let model = self.get(folders, id)?;
        let path = Path::new(&model.path);
        let root = fs::canonicalize(&folders.models).map_err(|error| WireError::file(&folders.models, &error))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let folder = fs::canonicalize(folder).map_err(|error| WireError::file(folder, &error))?;
        if model.source != ModelSource::Library || !folder.starts_with(&root) {
            return Err(WireError::bad_argument("id", "only models in Headroom's own folder are deleted here"));
        }
        let parts = parts_of(path);
        verify::forget(&self.store, &parts)?;
        // The first part first: what a crash leaves is listed without it, and nobody takes it for a whole model.
        for part in parts {
            match fs::remove_file(&part) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(WireError::file(&part, &error));
                }
                _ => {}
            }
        }
        let mut empty = folder.as_path();
        // Fails, as it should, on the first folder that holds something.
        while empty != root && empty.starts_with(&root) && fs::remove_dir(empty).is_ok() {
            let Some(parent) = empty.parent() else { break };
            empty = parent;
        }
        Ok(())
    }
}

/// The architecture that a problem is about.
fn unsupported(problem: &WireError) -> Option<String> {
    problem.subject.clone().filter(|_| problem.code == ErrorCode::ModelUnsupported)
}

/// Stable as long as the file stays where it is.
pub fn id_of(path: &Path) -> String {
    Sha256::digest(key(path).as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only a cache: whatever a panic left in it is whole.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn stamp(path: &Path) -> Result<Stamp> {
    let meta = fs::metadata(path).map_err(|error| WireError::file(path, &error))?;
    let modified = meta.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(Stamp { len: meta.len(), modified: modified.map_or(0, |since| since.as_millis() as u64) })
}

fn stamps(parts: &[PathBuf]) -> Stamps {
    parts.iter().map(|part| stamp(part).ok()).collect()
}

/// The file's name without ending and part number.
pub fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // "-00001-of-00003" is 15 bytes of ASCII.
    let end = if parts_of(path).len() > 1 { stem.len() - 15 } else { stem.len() };
    stem[..end].to_owned()
}

/// All files of the model whose first file is `path`.
pub fn parts_of(path: &Path) -> Vec<PathBuf> {
    let names = path.file_name().and_then(|name| name.to_str()).and_then(gguf::split_file_names);
    names.map_or_else(
        || vec![path.to_owned()],
        |names| names.into_iter().map(|name| path.with_file_name(name)).collect(),
    )
}

/// The first file of the model that a file is a part of; any other file itself.
pub fn first_part(path: PathBuf) -> PathBuf {
    parts_of(&path).into_iter().next().unwrap_or(path)
}

/// What is wrong where other parts of a split model are there.
fn first_part_missing(path: &Path) -> Option<WireError> {
    let count = parts_of(path).len() as u64;
    let missing = WeightsError::MissingPart { path: path.to_owned(), part: 1, count };
    (count > 1 && !path.exists()).then(|| missing.into())
}

/// First files of models, also where of a split one only others are there.
fn find(folders: &Folders) -> Vec<Found> {
    let mut found = Vec::new();
    for path in walk(&folders.models) {
        let repo = repo_of(&folders.models, &path);
        found.push(Found { path, source: ModelSource::Library, repo });
    }
    for folder in &folders.extra {
        found.extend(walk(folder).into_iter().map(|path| Found { path, source: ModelSource::Folder, repo: None }));
    }
    for model in folders.hf_cache.as_deref().map(hub::cached_models).unwrap_or_default() {
        let files = model.files.into_iter().filter(|file| is_model(&file.path));
        found.extend(files.map(|file| Found {
            path: first_part(file.path),
            source: ModelSource::HfCache,
            repo: Some(model.repo.clone()),
        }));
    }
    let bundled = folders.bundled.iter().filter(|path| path.is_file());
    found.extend(bundled.map(|path| Found { path: path.clone(), source: ModelSource::Bundled, repo: None }));
    let mut seen = HashSet::new();
    found.retain(|found| seen.insert(found.path.clone()));
    found
}

/// "owner/name" of a file that was downloaded to `models/owner/name/...`.
fn repo_of(models: &Path, path: &Path) -> Option<String> {
    let inside = path.strip_prefix(models).ok()?;
    let mut parts = inside.parent()?.components().map(|part| part.as_os_str().to_str());
    let repo = format!("{}/{}", parts.next()??, parts.next()??);
    hub::check_repo(&repo).ok().map(|()| repo)
}

/// GGUF files below a folder that are models, of a split one the first for each part. A file is what somebody chose, whatever its name.
fn walk(root: &Path) -> Vec<PathBuf> {
    if root.is_file() {
        return vec![root.to_owned()];
    }
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let Ok(mut kind) = entry.file_type() else { continue };
            let path = entry.path();
            // Of most files their name is enough: asking for more takes its time on a large drive.
            if kind.is_symlink() {
                let Ok(target) = fs::metadata(&path) else { continue };
                kind = target.file_type();
            }
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if kind.is_dir() && depth < MAX_DEPTH && !hidden && entry.file_name() != hub::STAGING {
                folders.push((path, depth + 1));
            } else if kind.is_file() && is_model(&path) {
                found.push(first_part(path));
            }
            if found.len() >= MAX_FILES {
                return found;
            }
        }
    }
    found
}

fn is_model(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let lower = name.to_ascii_lowercase();
    lower.ends_with(".gguf") && !lower.contains("mmproj") && !lower.contains("imatrix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_looked_for_once_while_it_stays() {
        let place = tempfile::tempdir().unwrap();
        let library = Library::new(Arc::new(Store::open(&place.path().join("store")).unwrap().0));
        let folders = Folders { models: place.path().join("models"), ..Folders::default() };
        let path = folders.models.join("one.gguf");
        fs::create_dir(&folders.models).unwrap();
        fs::write(&path, "not a model").unwrap();
        let id = id_of(&path);
        assert_eq!(library.get(&folders, &id).unwrap().repo, None);
        // What is remembered, marked so that it is known again.
        lock(&library.places).1.get_mut(&id).unwrap().repo = Some("marked".into());
        assert_eq!(library.get(&folders, &id).unwrap().repo.as_deref(), Some("marked"));
        let others = Folders { models: place.path().join("others"), ..Folders::default() };
        assert_eq!(library.get(&others, &id).unwrap_err().code, ErrorCode::FileMissing);
        assert_eq!(library.get(&folders, &id).unwrap().repo, None, "looked for again");
        fs::remove_file(&path).unwrap();
        assert_eq!(library.get(&folders, &id).unwrap_err().code, ErrorCode::FileMissing);
    }
}
