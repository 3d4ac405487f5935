//! The hub: `/api/models...` and `/{repo}/resolve/...`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::HeaderMap;
use axum::http::{Response, Uri};
use serde_json::{Value, json};

use crate::faults::Canned;
use crate::repos::{Repo, in_lfs};
use crate::{Party, Shared, World, files};

pub(crate) type Answer = Response<Body>;

pub(crate) async fn hub(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let (method, uri, headers) = (request.method().as_str(), request.uri(), request.headers());
    let answer = route(&shared, method, uri, headers);
    let target = uri.path_and_query().map_or("/", |t| t.as_str());
    shared.log(Party::Hub, method, target, headers, answer.status().as_u16());
    answer
}

fn route(shared: &Arc<Shared>, method: &str, uri: &Uri, headers: &HeaderMap) -> Answer {
    if !matches!(method, "GET" | "HEAD") {
        return error(405, None, "Method Not Allowed");
    }
    let segments: Vec<String> = uri.path().trim_start_matches('/').split('/').map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let mut world = shared.world();
    let token = bearer(headers);
    if token.as_ref().is_some_and(|t| !world.tokens.contains_key(t)) {
        return error(401, None, "Invalid credentials in Authorization header");
    }
    let query = Query(uri.query().unwrap_or(""));
    match segments.as_slice() {
        ["api", rest @ ..] => {
            if let Some(canned) = world.faults.api.pop_front() {
                return canned_answer(canned);
            }
            match rest {
                ["models"] => search(&world, shared, &query),
                ["models", owner, name, rest @ ..] => {
                    let id = format!("{owner}/{name}");
                    let Some(repo) = world.repos.get(&id) else { return repo_not_found(token.is_some()) };
                    match rest {
                        [] => info(repo, "main", &query),
                        ["revision", revision] => info(repo, revision, &query),
                        ["tree", revision] => tree(repo, revision, &query, shared, world.faults.tree_page),
                        _ => error(404, None, "Not Found"),
                    }
                }
                _ => error(404, None, "Not Found"),
            }
        }
        [owner, name, "resolve", revision, path @ ..] => {
            if let Some(canned) = world.faults.resolve.pop_front() {
                return canned_answer(canned);
            }
            let id = format!("{owner}/{name}");
            files::resolve(&mut world, shared, token.as_deref(), &id, revision, &path.join("/"), method == "HEAD")
        }
        _ => error(404, None, "Not Found"),
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned)
}

pub(crate) fn repo_not_found(with_token: bool) -> Answer {
    // Without a token the Hub does not say whether a private repository exists.
    let status = if with_token { 404 } else { 401 };
    error(status, Some("RepoNotFound"), "Repository not found")
}

pub(crate) fn error(status: u16, code: Option<&str>, message: &str) -> Answer {
    let mut builder = Response::builder().status(status).header("x-error-message", message);
    if let Some(code) = code {
        builder = builder.header("x-error-code", code);
    }
    let body = Body::from(json!({ "error": message }).to_string());
    builder.body(body).unwrap_or_else(|_| Response::new(Body::empty()))
}

pub(crate) fn canned_answer(canned: Canned) -> Answer {
    let builder = canned.headers.iter().fold(Response::builder().status(canned.status), |b, (k, v)| b.header(k, v));
    builder.body(Body::from(canned.body)).unwrap_or_else(|_| error(500, None, "bad canned answer"))
}

fn json_answer(value: &Value, next: Option<String>) -> Answer {
    let mut builder = Response::builder().header("content-type", "application/json; charset=utf-8");
    if let Some(next) = next {
        builder = builder.header("link", format!("<{next}>; rel=\"next\""));
    }
    builder.body(Body::from(value.to_string())).unwrap_or_else(|_| error(500, None, "bad header"))
}

/// One model as the API shows it; with `expand[]` only the named fields.
fn model(repo: &Repo, revision_sha: &str, query: &Query<'_>) -> Value {
    let mut all = json!({
        "id": repo.id, "modelId": repo.id, "sha": revision_sha, "author": repo.id.split('/').next(),
        "downloads": repo.downloads, "likes": repo.likes, "lastModified": repo.last_modified, "private": false,
        "gated": if repo.gated { json!("manual") } else { json!(false) },
        "tags": if repo.has_gguf() { json!(["gguf", "text-generation", "license:apache-2.0"]) } else { json!([]) },
        "pipeline_tag": "text-generation", "createdAt": "2026-01-01T00:00:00.000Z", "trendingScore": repo.likes,
    });
    if let Some(total) = repo.parameters {
        all["gguf"] =
            json!({ "total": total, "architecture": "llama", "context_length": 4096, "chat_template": "{{ x }}" });
    }
    let expand: Vec<String> = query.all("expand[]").chain(query.all("expand")).collect();
    if !expand.is_empty()
        && let Some(map) = all.as_object_mut()
    {
        map.retain(|key, _| key == "id" || expand.iter().any(|e| e == key));
    }
    all
}

fn search(world: &World, shared: &Shared, query: &Query<'_>) -> Answer {
    let lower = |key: &str| query.get(key).map(|v| v.to_lowercase());
    let (text, author, filter) = (lower("search"), lower("author"), lower("filter"));
    let mut found: Vec<&Repo> = world
        .repos
        .values()
        .filter(|r| text.as_ref().is_none_or(|t| t.split_whitespace().all(|w| r.id.to_lowercase().contains(w))))
        .filter(|r| author.as_ref().is_none_or(|a| r.id.to_lowercase().starts_with(&format!("{a}/"))))
        .filter(|r| filter.as_deref() != Some("gguf") || r.has_gguf())
        .collect();
    match query.get("sort").as_deref() {
        Some("downloads") => found.sort_by_key(|r| std::cmp::Reverse(r.downloads)),
        Some("likes" | "trendingScore") => found.sort_by_key(|r| std::cmp::Reverse(r.likes)),
        Some("lastModified") => found.sort_by(|a, b| b.last_modified.cmp(&a.last_modified)),
        None => {}
        Some(_) => return error(400, None, "Invalid sort parameter"),
    }
    let limit = query.number("limit").unwrap_or(1000).clamp(1, 1000);
    let start = query.number("cursor").unwrap_or(0);
    let page: Vec<Value> = found.iter().skip(start).take(limit).map(|r| model(r, r.head(), query)).collect();
    let next = (start + limit < found.len()).then(|| query.next_page("/api/models", start + limit, shared));
    json_answer(&json!(page), next)
}

fn info(repo: &Repo, revision: &str, query: &Query<'_>) -> Answer {
    match repo.at(revision) {
        Some((sha, _)) => json_answer(&model(repo, sha, query), None),
        None => error(404, Some("RevisionNotFound"), "Invalid rev id"),
    }
}

fn tree(repo: &Repo, revision: &str, query: &Query<'_>, shared: &Shared, page: usize) -> Answer {
    let Some((sha, tree)) = repo.at(revision) else {
        return error(404, Some("RevisionNotFound"), "Invalid rev id");
    };
    let recursive = query.get("recursive").is_some_and(|v| v == "true" || v == "1");
    let mut entries: Vec<Value> = Vec::new();
    let mut folders = std::collections::BTreeSet::new();
    for (path, blob) in tree {
        if let Some((folder, _)) = path.split_once('/') {
            if folders.insert(folder.to_owned()) {
                entries.push(json!({ "type": "directory", "oid": sha, "size": 0, "path": folder }));
            }
            if !recursive {
                continue;
            }
        }
        let mut entry = json!({ "type": "file", "oid": blob.oid(), "size": blob.size, "path": path });
        if in_lfs(path) {
            entry["lfs"] = json!({ "oid": blob.sha256, "size": blob.size, "pointerSize": 135 });
        }
        entries.push(entry);
    }
    let start = query.number("cursor").unwrap_or(0);
    let path = format!("/api/models/{}/tree/{revision}", repo.id);
    let next = (start + page < entries.len()).then(|| query.next_page(&path, start + page, shared));
    let entries: Vec<Value> = entries.into_iter().skip(start).take(page).collect();
    json_answer(&json!(entries), next)
}

/// Query parameters in the order given.
struct Query<'a>(&'a str);

impl Query<'_> {
    fn all<'b>(&'b self, key: &'b str) -> impl Iterator<Item = String> + 'b {
        let pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(move |(k, _)| decode(k) == key).map(|(_, v)| decode(&v.replace('+', " ")))
    }

    fn get(&self, key: &str) -> Option<String> {
        self.all(key).next()
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.get(key)?.parse().ok()
    }

    fn next_page(&self, path: &str, start: usize, shared: &Shared) -> String {
        let kept: Vec<&str> = self.0.split('&').filter(|p| !p.is_empty() && !p.starts_with("cursor=")).collect();
        format!("http://{}{path}?{}&cursor={start}", shared.hub, kept.join("&"))
    }
}

/// Percent-decoding; what is not valid stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
