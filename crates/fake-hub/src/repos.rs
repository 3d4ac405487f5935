//! Repositories: paths to blobs, one snapshot per commit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// SHA-256 in lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[derive(Clone)]
enum Content {
    Memory(Bytes),
    Disk(Arc<PathBuf>),
}

/// The bytes of one file.
#[derive(Clone)]
pub(crate) struct Blob {
    content: Content,
    pub size: u64,
    pub sha256: String,
}

impl Blob {
    pub fn from_bytes(bytes: Bytes) -> Blob {
        Blob { size: bytes.len() as u64, sha256: sha256_hex(&bytes), content: Content::Memory(bytes) }
    }

    pub fn from_file(path: PathBuf) -> io::Result<Blob> {
        let mut hash = Sha256::new();
        let size = io::copy(&mut File::open(&path)?, &mut hash)?;
        Ok(Blob { size, sha256: hex(&hash.finalize()), content: Content::Disk(Arc::new(path)) })
    }

    /// Up to `len` bytes from `offset`.
    pub fn read(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let end = self.size.min(offset.saturating_add(len));
        let start = offset.min(end);
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.slice(start as usize..end as usize)),
            Content::Disk(path) => {
                let mut file = File::open(path.as_ref())?;
                file.seek(SeekFrom::Start(start))?;
                let mut buffer = vec![0; (end - start) as usize];
                file.read_exact(&mut buffer)?;
                Ok(buffer.into())
            }
        }
    }

    /// The stand-in for git's object id (40 digits) of a file that is not kept in LFS.
    pub fn oid(&self) -> &str {
        &self.sha256[..40]
    }
}

pub(crate) type Tree = BTreeMap<String, Blob>;

pub(crate) struct Repo {
    pub id: String,
    pub downloads: u64,
    pub likes: u64,
    pub gated: bool,
    pub last_modified: String,
    /// As the Hub reads it in the header of one of the files.
    pub parameters: Option<u64>,
    commits: Vec<(String, Tree)>,
}

impl Repo {
    /// An empty repository; the `age`-th newest.
    pub fn new(id: &str, age: u64) -> Repo {
        let last_modified = format!("2026-10-{:02}T12:00:00.000Z", 1 + age % 28);
        Repo {
            id: id.to_owned(),
            downloads: 1000 + age,
            likes: 10,
            gated: false,
            last_modified,
            parameters: None,
            commits: Vec::new(),
        }
    }

    pub fn commit(&mut self, path: &str, blob: Blob) {
        let mut tree = self.commits.last().map(|c| c.1.clone()).unwrap_or_default();
        tree.insert(path.to_owned(), blob);
        let listing: String = tree.iter().map(|(path, blob)| format!("{path} {}\n", blob.sha256)).collect();
        let id = sha256_hex(format!("{} {}\n{listing}", self.id, self.commits.len()).as_bytes());
        self.commits.push((id[..40].to_owned(), tree));
    }

    pub fn head(&self) -> &str {
        self.commits.last().map_or("", |c| &c.0)
    }

    /// The commit and its files for a branch name or commit id.
    pub fn at(&self, revision: &str) -> Option<(&str, &Tree)> {
        let found = match revision {
            "main" => self.commits.last(),
            id => self.commits.iter().find(|c| c.0 == id),
        };
        found.map(|(id, tree)| (id.as_str(), tree))
    }

    /// A blob of any commit by its content.
    pub fn blob(&self, sha256: &str) -> Option<Blob> {
        self.commits.iter().flat_map(|c| c.1.values()).find(|b| b.sha256 == sha256).cloned()
    }

    pub fn has_gguf(&self) -> bool {
        self.commits.last().is_some_and(|c| c.1.keys().any(|p| p.ends_with(".gguf")))
    }
}

/// Whether the Hub keeps a file of this name in LFS.
pub(crate) fn in_lfs(path: &str) -> bool {
    [".gguf", ".bin", ".safetensors", ".dat"].iter().any(|end| path.ends_with(end))
}
