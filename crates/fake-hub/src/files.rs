//! `resolve` on the hub and the bytes on the storage.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use axum::http::header::HeaderMap;
use bytes::Bytes;

use crate::api::{Answer, canned_answer, error, repo_not_found};
use crate::repos::{Blob, in_lfs, sha256_hex};
use crate::{Party, Shared, World};

/// A body chunk: small enough that cuts and rates are felt, large enough to be fast.
const CHUNK: u64 = 64 * 1024;

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis())
}

fn signature(sha256: &str, expires: u128, nonce: u64) -> String {
    sha256_hex(format!("a secret of the storage|{sha256}|{expires}|{nonce}").as_bytes())[..32].to_owned()
}

/// `HEAD|GET /{repo}/resolve/{revision}/{path}`: a redirect to the storage, or the bytes of a small file.
pub(crate) fn resolve(
    world: &mut World,
    shared: &Shared,
    token: Option<&str>,
    id: &str,
    revision: &str,
    path: &str,
    head_only: bool,
) -> Answer {
    let Some(repo) = world.repos.get(id) else { return repo_not_found(token.is_some()) };
    if repo.gated {
        match token.map(|t| world.tokens.get(t).is_some_and(|accepted| accepted.contains(id))) {
            None => return error(401, Some("GatedRepo"), "Access to this model is restricted. Please log in."),
            Some(false) => return error(403, Some("GatedRepo"), "You are not in the authorized list."),
            Some(true) => {}
        }
    }
    let Some((commit, tree)) = repo.at(revision) else {
        return error(404, Some("RevisionNotFound"), "Invalid rev id");
    };
    let Some(blob) = tree.get(path) else { return error(404, Some("EntryNotFound"), "Entry not found") };
    let builder = Response::builder().header("x-repo-commit", commit).header("accept-ranges", "bytes");
    if !in_lfs(path) {
        let body = if head_only { Ok(Bytes::new()) } else { blob.read(0, blob.size) };
        let builder = builder.header("etag", format!("\"{}\"", blob.oid())).header("content-length", blob.size);
        return match body {
            Ok(bytes) => builder.body(Body::from(bytes)).unwrap_or_else(|_| error(500, None, "bad header")),
            Err(e) => error(500, None, &e.to_string()),
        };
    }
    let (sha256, size) = (blob.sha256.clone(), blob.size);
    let expires = now_ms() + world.faults.link_lifetime.as_millis();
    let nonce = world.log.len() as u64;
    let etag = world.faults.wrong_etag.clone().unwrap_or_else(|| sha256.clone());
    let signature = signature(&sha256, expires, nonce);
    let link =
        format!("http://{}/blobs/{id}/{sha256}?Expires={expires}&Nonce={nonce}&Signature={signature}", shared.storage);
    builder
        .status(302)
        .header("x-linked-etag", format!("\"{etag}\""))
        .header("x-linked-size", size)
        .header("location", link)
        .body(Body::from("Found. Redirecting"))
        .unwrap_or_else(|_| error(500, None, "bad header"))
}

pub(crate) async fn storage(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let (method, uri, headers) = (request.method().as_str(), request.uri(), request.headers());
    let target = uri.path_and_query().map_or("/", |t| t.as_str());
    let answer = serve_blob(&shared, target, headers);
    shared.log(Party::Storage, method, target, headers, answer.status().as_u16());
    answer
}

fn serve_blob(shared: &Arc<Shared>, target: &str, headers: &HeaderMap) -> Answer {
    let mut world = shared.world();
    if let Some(canned) = world.faults.storage.pop_front() {
        return canned_answer(canned);
    }
    let forbidden = || error(403, None, "AccessDenied: the link has expired or is not signed");
    let Some(blob) = signed_blob(&mut world, target) else { return forbidden() };
    let size = blob.size;
    let range = headers.get("range").and_then(|v| v.to_str().ok()).filter(|_| !world.faults.ignore_range);
    let builder = Response::builder()
        .header("etag", format!("\"{}\"", &blob.sha256[..32]))
        .header("accept-ranges", "bytes")
        .header("content-type", "application/octet-stream");
    let announced = size + world.faults.longer_by;
    let (builder, start, end) = match range.map(|r| parse_range(r, size)) {
        None => (builder.status(200).header("content-length", announced), 0, size),
        Some(None) => {
            let builder = builder.status(416).header("content-range", format!("bytes */{size}"));
            return builder.body(Body::empty()).unwrap_or_else(|_| error(500, None, "bad header"));
        }
        Some(Some((start, end))) => {
            let range = format!("bytes {start}-{}/{announced}", end - 1);
            (builder.status(206).header("content-length", end - start).header("content-range", range), start, end)
        }
    };
    let cut_at = world.faults.cut_every.map(|n| start + n);
    let flip = match &mut world.faults.wrong_bytes {
        Some(wrong) if wrong.times > 0 && (start..end).contains(&wrong.offset) => {
            wrong.times -= 1;
            Some(wrong.offset)
        }
        _ => None,
    };
    drop(world);
    let body = BodyState { shared: shared.clone(), blob, at: start, end, cut_at, flip };
    let stream = futures_util::stream::unfold(Some(body), |state| async {
        let mut state = state?;
        match state.next_chunk().await {
            Ok(chunk) if chunk.is_empty() => None,
            Ok(chunk) => Some((Ok(chunk), Some(state))),
            Err(e) => Some((Err(e), None)),
        }
    });
    builder.body(Body::from_stream(stream)).unwrap_or_else(|_| error(500, None, "bad header"))
}

/// The blob of `/blobs/{owner}/{name}/{sha256}?Expires&Nonce&Signature` if the link is good.
fn signed_blob(world: &mut World, target: &str) -> Option<Blob> {
    let (path, query) = target.split_once('?')?;
    let [owner, name, sha256]: [&str; 3] =
        path.strip_prefix("/blobs/")?.split('/').collect::<Vec<_>>().try_into().ok()?;
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let expires: u128 = value("Expires")?.parse().ok()?;
    let good = value("Signature")? == signature(sha256, expires, value("Nonce")?.parse().ok()?);
    if !good || expires < now_ms() || world.faults.refuse_links {
        return None;
    }
    if let Some(allowed) = world.faults.link_uses {
        let uses = world.link_uses.entry(target.to_owned()).or_default();
        *uses += 1;
        if *uses > allowed {
            return None;
        }
    }
    let repo = world.repos.get(&format!("{owner}/{name}"))?;
    repo.blob(sha256)
}

/// `bytes=a-b` or `bytes=a-` as a half-open range within `size`; `None` if it cannot be satisfied.
fn parse_range(value: &str, size: u64) -> Option<(u64, u64)> {
    let (start, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let start: u64 = start.parse().ok()?;
    let end = match last {
        "" => size,
        last => last.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    (start < end).then_some((start, end))
}

/// The error that makes the server close the connection. What was handed out before is sent first: without a pause the
/// server would throw it away unsent.
async fn cut() -> io::Error {
    tokio::task::yield_now().await;
    io::Error::new(io::ErrorKind::ConnectionReset, "cut on request")
}

struct BodyState {
    shared: Arc<Shared>,
    blob: Blob,
    at: u64,
    end: u64,
    cut_at: Option<u64>,
    flip: Option<u64>,
}

impl BodyState {
    /// The next bytes, nothing at the end, an error where the connection is cut.
    async fn next_chunk(&mut self) -> io::Result<Bytes> {
        if self.cut_at.is_some_and(|at| self.at >= at) {
            return Err(cut().await);
        }
        let rate = self.shared.world().faults.bytes_per_second;
        let chunk = rate.map_or(CHUNK, |r| (r / 20).clamp(1, CHUNK));
        let mut len = chunk.min(self.end - self.at).min(self.cut_at.map_or(u64::MAX, |at| at - self.at));
        if len == 0 {
            return Ok(Bytes::new());
        }
        if let Some(rate) = rate {
            let turn = self.reserve_line(Duration::from_secs_f64(len as f64 / rate as f64));
            tokio::time::sleep_until(turn).await;
        }
        {
            let mut world = self.shared.world();
            if let Some(&total) = world.faults.cuts.front()
                && world.served + len > total
            {
                len = total.saturating_sub(world.served);
                if len == 0 {
                    world.faults.cuts.pop_front();
                }
            }
            world.served += len;
        }
        if len == 0 {
            return Err(cut().await);
        }
        let mut bytes = self.blob.read(self.at, len)?;
        if let Some(offset) = self.flip
            && (self.at..self.at + len).contains(&offset)
        {
            let mut changed = bytes.to_vec();
            changed[(offset - self.at) as usize] ^= 0xff;
            bytes = changed.into();
        }
        self.at += len;
        Ok(bytes)
    }

    /// When the shared line has carried the bytes of a chunk that takes `time`.
    fn reserve_line(&self, time: Duration) -> tokio::time::Instant {
        let mut world = self.shared.world();
        let now = tokio::time::Instant::now();
        let turn = world.line_free_at.map_or(now, |free| free.max(now)) + time;
        world.line_free_at = Some(turn);
        turn
    }
}
