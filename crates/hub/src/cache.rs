//! The Hugging Face cache of other programs, through `hf-hub`'s knowledge of its layout.
//!
//! `hf_hub::Cache` knows where a repository lies and follows `refs/main`; it cannot list what is there, which is done here.

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo};

use crate::{Secret, check_repo};

/// Bounds for a folder that anybody can write to.
const MAX_REPOS: usize = 10_000;
const MAX_FILES: usize = 2_000;
const MAX_DEPTH: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// Path in the repository, with `/`.
    pub name: String,
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedModel {
    /// `owner/name`.
    pub repo: String,
    pub commit: String,
    /// All GGUF files of the snapshot, by name.
    pub files: Vec<CachedFile>,
}

/// The repositories with GGUF files in a cache (`.../huggingface/hub`): those of `main`, as last fetched.
pub fn cached_models(cache_dir: &Path) -> Vec<CachedModel> {
    let cache = Cache::new(cache_dir.to_owned());
    let Ok(entries) = std::fs::read_dir(cache_dir) else { return Vec::new() };
    let folders = entries.flatten().take(MAX_REPOS).filter_map(|e| e.file_name().into_string().ok());
    let mut models: Vec<CachedModel> = folders.filter_map(|folder| cached_model(&cache, &folder)).collect();
    models.sort_by(|a, b| a.repo.cmp(&b.repo));
    models
}

fn cached_model(cache: &Cache, folder: &str) -> Option<CachedModel> {
    let id = folder.strip_prefix("models--")?.replacen("--", "/", 1);
    check_repo(&id).ok()?;
    let repo = Repo::model(id.clone());
    if repo.folder_name() != folder {
        return None;
    }
    let root = cache.path().join(folder);
    let commit = std::fs::read_to_string(root.join("refs").join(repo.revision())).ok()?.trim().to_owned();
    if !crate::files::is_hex(&commit, 40) {
        return None;
    }
    let snapshot = root.join("snapshots").join(&commit);
    let mut files = Vec::new();
    collect(&snapshot, String::new(), 0, &mut files);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    (!files.is_empty()).then_some(CachedModel { repo: id, commit, files })
}

/// Adds the GGUF files below `folder`. Links to blobs are followed: that is how the cache works; unfinished blobs have
/// no link.
fn collect(folder: &Path, prefix: String, depth: usize, files: &mut Vec<CachedFile>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if files.len() >= MAX_FILES {
            return;
        }
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        let name = format!("{prefix}{name}");
        if metadata.is_dir() && depth < MAX_DEPTH {
            collect(&path, format!("{name}/"), depth + 1, files);
        } else if metadata.is_file() && name.to_ascii_lowercase().ends_with(".gguf") {
            files.push(CachedFile { name, path, size: metadata.len() });
        }
    }
}

/// The SHA-256 of a file of such a cache: where it is a link, what it links to is called by it. Nothing is read.
pub fn cached_sha256(path: &Path) -> Option<String> {
    let blob = std::fs::canonicalize(path).ok()?;
    let name = blob.file_name()?.to_str()?;
    let in_blobs = blob.parent()?.file_name()? == "blobs";
    (in_blobs && crate::files::is_hex(name, 64)).then(|| name.to_ascii_lowercase())
}

/// The token that `hf auth login` has stored beside this cache.
pub fn token_from_cache(cache_dir: &Path) -> Option<Secret> {
    Cache::new(cache_dir.to_owned()).token().map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_others_have_downloaded() {
        let home = tempfile::tempdir().unwrap();
        let hub = home.path().join("hub");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let root = hub.join("models--unsloth--Qwen3-0.6B-GGUF");
        let snapshot = root.join("snapshots").join(commit);
        std::fs::create_dir_all(snapshot.join("BF16")).unwrap();
        std::fs::create_dir_all(root.join("refs")).unwrap();
        std::fs::create_dir_all(root.join("blobs")).unwrap();
        std::fs::write(root.join("refs/main"), commit).unwrap();
        std::fs::write(root.join("blobs/x.incomplete"), "half").unwrap();
        std::fs::write(snapshot.join("m-Q8_0.gguf"), "12345").unwrap();
        std::fs::write(snapshot.join("BF16/m.gguf"), "1").unwrap();
        std::fs::write(snapshot.join("README.md"), "x").unwrap();
        std::fs::create_dir_all(hub.join("models--evil--..")).unwrap();
        std::fs::create_dir_all(hub.join("datasets--a--b")).unwrap();
        std::fs::write(home.path().join("token"), "hf_abc\n").unwrap();

        let models = cached_models(&hub);
        assert_eq!(models.len(), 1);
        assert_eq!((models[0].repo.as_str(), models[0].commit.as_str()), ("unsloth/Qwen3-0.6B-GGUF", commit));
        let names: Vec<_> = models[0].files.iter().map(|f| (f.name.as_str(), f.size)).collect();
        assert_eq!(names, [("BF16/m.gguf", 1), ("m-Q8_0.gguf", 5)]);
        assert!(token_from_cache(&hub).is_some());
        assert!(cached_models(&home.path().join("missing")).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_to_blobs_are_followed() {
        let home = tempfile::tempdir().unwrap();
        let commit = "f".repeat(40);
        let root = home.path().join("models--a--b");
        let snapshot = root.join("snapshots").join(&commit);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(root.join("refs")).unwrap();
        std::fs::create_dir_all(root.join("blobs")).unwrap();
        std::fs::write(root.join("refs/main"), &commit).unwrap();
        std::fs::write(root.join("blobs/abc"), "123").unwrap();
        std::os::unix::fs::symlink("../../blobs/abc", snapshot.join("m.gguf")).unwrap();
        std::os::unix::fs::symlink("../../blobs/gone", snapshot.join("n.gguf")).unwrap();
        let models = cached_models(home.path());
        assert_eq!(models[0].files.len(), 1, "a link to nothing is no model");
        assert_eq!(models[0].files[0].size, 3);
        assert_eq!(cached_sha256(&models[0].files[0].path), None, "not the name of a hash");
        let hash = "Ab".repeat(32);
        std::fs::write(root.join("blobs").join(&hash), "123").unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{hash}"), snapshot.join("h.gguf")).unwrap();
        assert_eq!(cached_sha256(&snapshot.join("h.gguf")), Some(hash.to_lowercase()));
        std::fs::write(snapshot.join(&hash), "123").unwrap();
        assert_eq!(cached_sha256(&snapshot.join(&hash)), None, "no blob");
    }
}
