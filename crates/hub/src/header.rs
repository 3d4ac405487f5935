//! The header of a remote GGUF file: a few MB instead of the whole file.

use gguf::{Gguf, GgufError};

use crate::remote::RemoteFile;
use crate::{Hub, HubError, RepoFile};

/// The first request; headers with a vocabulary of 150,000 tokens take 5-10 MB, small ones less than this.
const FIRST: u64 = 1 << 20;
/// No header is read further than this.
const MAX_HEADER: u64 = 64 << 20;

impl Hub {
    /// The header of one file (also of one part of a split model), read by Range.
    ///
    /// # Errors
    /// [`HubError::Header`] if the file is not usable GGUF, [`HubError::TooLarge`] for a header above 64 MiB, and those
    /// of [`Hub::files`].
    pub async fn header(&self, repo: &str, commit: &str, file: &RepoFile) -> Result<Gguf, HubError> {
        let bad = |source| HubError::Header { file: file.path.clone(), source };
        let remote = RemoteFile::new(self.http.clone(), repo, commit, file)?;
        let mut prefix: Vec<u8> = Vec::new();
        let mut wanted = FIRST;
        loop {
            let end = wanted.min(file.size);
            if end > prefix.len() as u64 {
                prefix.extend(remote.read(prefix.len() as u64, end).await?);
            }
            match Gguf::parse(&prefix, file.size) {
                Ok(gguf) => return Ok(gguf),
                Err(GgufError::Incomplete { needed_at_least }) if (prefix.len() as u64) < file.size => {
                    if needed_at_least > MAX_HEADER || end >= MAX_HEADER {
                        return Err(HubError::TooLarge {
                            what: format!("the header of {}", file.path),
                            limit: MAX_HEADER,
                        });
                    }
                    wanted = needed_at_least.max(end * 2).min(MAX_HEADER);
                }
                Err(source) => return Err(bad(source)),
            }
        }
    }

    /// The header of a model whose parts are `files` (first to last), merged into one.
    ///
    /// # Errors
    /// As [`Hub::header`], and [`HubError::Header`] if the parts do not belong together.
    pub async fn model_header(&self, repo: &str, commit: &str, files: &[RepoFile]) -> Result<Gguf, HubError> {
        let mut parts = Vec::with_capacity(files.len());
        for file in files {
            parts.push(self.header(repo, commit, file).await?);
        }
        match parts.len() {
            0 => Err(HubError::protocol(repo, "the model has no files")),
            1 => Ok(parts.remove(0)),
            _ => gguf::merge_splits(parts).map_err(|source| HubError::Header { file: files[0].path.clone(), source }),
        }
    }
}
