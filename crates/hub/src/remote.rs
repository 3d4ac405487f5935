//! One file at one commit: resolves it to a link, and again when the link has expired.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use crate::backoff::Backoff;
use crate::files::is_hex;
use crate::http::{Http, read_body, redirect_target};
use crate::{HubError, RepoFile, check_repo, safe_path};

/// Tries of a small read before it is given up.
const SMALL_TRIES: u32 = 4;
/// Somebody looks at the window and waits for a small read: a longer pause is told instead.
const SMALL_PAUSE: Duration = Duration::from_secs(10);

/// Where the bytes are, as the Hub says it.
#[derive(Clone, Debug)]
struct Link {
    url: Url,
    etag: Option<String>,
}

#[derive(Default)]
struct Resolved {
    /// Counts the links had so far, so that several lanes that find one expired ask for one new link only.
    generation: u64,
    link: Option<Link>,
}

/// The answer to a request for a part of the file.
pub(crate) enum Part {
    /// Exactly the bytes asked for.
    Range(Response),
    /// The server ignores ranges: the whole file from its first byte.
    Whole(Response),
}

pub(crate) struct RemoteFile {
    http: Arc<Http>,
    repo: String,
    commit: String,
    path: String,
    pub size: u64,
    resolved: Mutex<Resolved>,
}

impl RemoteFile {
    pub fn new(http: Arc<Http>, repo: &str, commit: &str, file: &RepoFile) -> Result<RemoteFile, HubError> {
        check_repo(repo)?;
        safe_path(&file.path)?;
        if !is_hex(commit, 40) {
            return Err(HubError::BadName { name: commit.chars().take(100).collect(), why: "a commit has 40 digits" });
        }
        Ok(RemoteFile {
            http,
            repo: repo.to_owned(),
            commit: commit.to_owned(),
            path: file.path.clone(),
            size: file.size,
            resolved: Mutex::default(),
        })
    }

    /// The ETag of the file: its sha256 for a file in LFS.
    pub async fn etag(&self) -> Result<Option<String>, HubError> {
        Ok(self.link(None).await?.1.etag)
    }

    /// The current link, or a new one if the current one is the `expired` one.
    async fn link(&self, expired: Option<u64>) -> Result<(u64, Link), HubError> {
        let mut resolved = self.resolved.lock().await;
        match &resolved.link {
            Some(link) if expired != Some(resolved.generation) => Ok((resolved.generation, link.clone())),
            _ => {
                let link = self.resolve().await?;
                resolved.generation += 1;
                resolved.link = Some(link.clone());
                Ok((resolved.generation, link))
            }
        }
    }

    async fn resolve(&self) -> Result<Link, HubError> {
        let segments = self.repo.split('/').chain(["resolve", &self.commit]).chain(self.path.split('/'));
        let (url, response) = self.http.send(Method::HEAD, self.http.url(segments)).await?;
        let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let (size, etag, url) = match redirect_target(&url, &response) {
            Some(target) => (text("x-linked-size"), text("x-linked-etag").or(text("etag")), target),
            None if response.status() == StatusCode::OK => (text("content-length"), text("etag"), url),
            None => return Err(self.http.status_error(&response, &self.repo)),
        };
        if let Some(commit) = text("x-repo-commit")
            && commit != self.commit
        {
            return Err(self.nonsense(format!("commit {commit:.40} instead of {}", self.commit)));
        }
        match size.map(|s| s.parse::<u64>()) {
            Some(Ok(size)) if size == self.size => {}
            Some(Ok(size)) => return Err(self.nonsense(format!("{size} bytes, but the list said {}", self.size))),
            // A mirror may leave the size out of a redirect; every range is checked against it later.
            _ => {}
        }
        let etag = etag.map(|e| e.trim_start_matches("W/").trim_matches('"').to_owned()).filter(|e| e.len() <= 200);
        Ok(Link { url, etag })
    }

    /// Opens bytes `start..end`.
    ///
    /// # Errors
    /// [`HubError::Server`] with status 403 if even a fresh link is refused; [`HubError::Protocol`] if the answer is
    /// about other bytes than asked for.
    pub async fn open(&self, start: u64, end: u64) -> Result<(Url, Part), HubError> {
        let (mut generation, mut link) = self.link(None).await?;
        for fresh in [false, true] {
            let response = self.http.get_range(&link.url, start, end).await?;
            match response.status().as_u16() {
                206 => return Ok((link.url, Part::Range(self.check_range(response, start, end)?))),
                200 => return Ok((link.url, Part::Whole(self.check_whole(response)?))),
                // Expired, or signed for somebody else: resolving again shows which, as a typed error.
                401 | 403 | 404 | 410 if !fresh => (generation, link) = self.link(Some(generation)).await?,
                // Storage hosts say nothing about gates: only the Hub's own refusals are.
                status @ (401 | 403) => return Err(HubError::Server { status, what: self.path.clone() }),
                416 => return Err(self.nonsense(format!("bytes {start}-{end} do not exist"))),
                _ => return Err(self.http.status_error(&response, &self.repo)),
            }
        }
        Err(HubError::Server { status: 403, what: self.path.clone() })
    }

    fn check_range(&self, response: Response, start: u64, end: u64) -> Result<Response, HubError> {
        let expected = format!("bytes {start}-{}/{}", end - 1, self.size);
        let given = response.headers().get("content-range").and_then(|v| v.to_str().ok()).unwrap_or("no range");
        let unknown_total = format!("bytes {start}-{}/*", end - 1);
        if given != expected && given != unknown_total {
            return Err(self.nonsense(format!("{given:.60} instead of {expected}")));
        }
        self.check_length(response, end - start)
    }

    fn check_whole(&self, response: Response) -> Result<Response, HubError> {
        self.check_length(response, self.size)
    }

    fn check_length(&self, response: Response, expected: u64) -> Result<Response, HubError> {
        match response.content_length() {
            Some(length) if length != expected => {
                Err(self.nonsense(format!("{length} bytes instead of {expected} in one answer")))
            }
            _ => Ok(response),
        }
    }

    pub fn nonsense(&self, detail: String) -> HubError {
        HubError::protocol(format!("{}/{}", self.repo, self.path), detail)
    }

    /// Bytes `start..end` in memory, with a few tries.
    pub async fn read(&self, start: u64, end: u64) -> Result<Vec<u8>, HubError> {
        let mut failures = 0;
        loop {
            match self.read_once(start, end).await {
                Err(error) if error.is_transient() && failures + 1 < SMALL_TRIES => {
                    failures += 1;
                    let pause = Backoff::default().pause(failures, &error);
                    if pause > SMALL_PAUSE {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                }
                result => return result,
            }
        }
    }

    async fn read_once(&self, start: u64, end: u64) -> Result<Vec<u8>, HubError> {
        let wanted = end - start;
        let bytes = match self.open(start, end).await? {
            (url, Part::Range(response)) => read_body(response, &url, wanted, &self.path).await?,
            (url, Part::Whole(mut response)) => {
                let mut bytes = Vec::new();
                while (bytes.len() as u64) < end {
                    let chunk = response.chunk().await.map_err(|e| crate::http::transport_error(&url, e))?;
                    let Some(chunk) = chunk else { break };
                    bytes.extend_from_slice(&chunk);
                }
                bytes.truncate(end as usize);
                bytes.split_off((start as usize).min(bytes.len()))
            }
        };
        if bytes.len() as u64 != wanted {
            return Err(self.nonsense(format!("{} bytes instead of {wanted}", bytes.len())));
        }
        Ok(bytes)
    }
}
