//! One HTTP client for everything: bounded answers, the token only to the Hub's own host, statuses as typed errors.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::{HubConfig, HubError, Needs};

/// A whole answer of the API must have arrived after this time.
const API_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A transfer may be slow, but not silent for longer than this.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest JSON answer: a tree page of 1,000 files is about 0.4 MB.
const MAX_JSON: u64 = 16 << 20;
const MAX_REDIRECTS: usize = 5;
/// No server is waited for longer, whatever it asks for.
const LONGEST_WAIT: u64 = 3600;

/// A token; it never shows in debug output.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0.trim())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

pub(crate) struct Http {
    client: Client,
    endpoint: Url,
    token: Option<HeaderValue>,
}

impl Http {
    pub fn new(config: &HubConfig) -> Result<Http, HubError> {
        let endpoint = config.endpoint.clone();
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host().is_none() {
            return Err(HubError::BadName {
                name: endpoint.to_string(),
                why: "the Hub address must begin with https:// or http://",
            });
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls_config(&endpoint)?)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(&config.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        if is_loopback(&endpoint) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| HubError::Tls { detail: chain(&e) })?;
        let token = config.token.as_ref().and_then(Secret::header);
        Ok(Http { client, endpoint, token })
    }

    /// Whether the Hub has been sent a token.
    fn has_token(&self) -> bool {
        self.token.is_some() && self.may_see_token(&self.endpoint)
    }

    /// The endpoint's URL with more path segments, each escaped.
    pub fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// The token goes to the Hub itself, and only where nobody can read it on the way.
    fn may_see_token(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin() && (url.scheme() == "https" || is_loopback(url))
    }

    fn request(&self, method: Method, url: &Url) -> reqwest::RequestBuilder {
        let request = self.client.request(method, url.clone());
        match &self.token {
            Some(token) if self.may_see_token(url) => request.header(AUTHORIZATION, token),
            _ => request,
        }
    }

    /// Bytes `start..end` of a file as they are stored, across redirects. The status is the caller's to judge.
    pub async fn get_range(&self, url: &Url, start: u64, end: u64) -> Result<Response, HubError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(Method::GET, &url).header("accept-encoding", "identity");
            let request = request.header("range", format!("bytes={start}-{}", end.saturating_sub(1)));
            let response = request.send().await.map_err(|e| transport_error(&url, e))?;
            match redirect_target(&url, &response) {
                Some(next) => url = next,
                None => return Ok(response),
            }
        }
        Err(HubError::protocol(url.host_str().unwrap_or_default(), "too many redirects"))
    }

    /// Sends and follows redirects that stay on the Hub (a renamed repository). The last answer may still be a
    /// redirect: one that leads elsewhere.
    pub async fn send(&self, method: Method, url: Url) -> Result<(Url, Response), HubError> {
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(method.clone(), &url).timeout(API_TIMEOUT);
            let request = request.header("accept-encoding", "identity");
            let response = request.send().await.map_err(|e| transport_error(&url, e))?;
            match redirect_target(&url, &response) {
                Some(next) if next.origin() == self.endpoint.origin() => url = next,
                _ => return Ok((url, response)),
            }
        }
        Err(HubError::protocol(url.path(), "too many redirects"))
    }

    /// A JSON answer of the API with its headers; `what` names it in errors.
    pub async fn json<T: DeserializeOwned>(&self, url: Url, what: &str) -> Result<(T, HeaderMap), HubError> {
        let (url, response) = self.send(Method::GET, url).await?;
        if response.status() != StatusCode::OK {
            return Err(self.status_error(&response, what));
        }
        let headers = response.headers().clone();
        let body = read_body(response, &url, MAX_JSON, what).await?;
        let value = serde_json::from_slice(&body).map_err(|e| HubError::protocol(what, e.to_string()))?;
        Ok((value, headers))
    }

    /// The typed error of an answer that is not a success.
    pub fn status_error(&self, response: &Response, what: &str) -> HubError {
        let code = response.headers().get("x-error-code").and_then(|v| v.to_str().ok()).unwrap_or("");
        let gated = |needs| HubError::Gated { repo: what.to_owned(), needs };
        match (response.status().as_u16(), code) {
            (_, "RepoNotFound" | "EntryNotFound" | "RevisionNotFound") => HubError::NotFound { what: what.to_owned() },
            (401, "GatedRepo") if !self.has_token() => gated(Needs::Token),
            (401 | 403, "GatedRepo") => gated(Needs::Terms),
            (401, _) if self.has_token() => HubError::TokenRefused,
            // The Hub answers so, too, when a repository does not exist and nobody is logged in.
            (401, _) | (404, _) => HubError::NotFound { what: what.to_owned() },
            (429, _) => HubError::RateLimited { retry_after: retry_after(response.headers()) },
            (status, _) => HubError::Server { status, what: what.to_owned() },
        }
    }
}

/// rustls on ring, trusting the system's certificates.
fn tls_config(endpoint: &Url) -> Result<rustls::ClientConfig, HubError> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let builder = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
    };
    let tls_error = |e: rustls::Error| HubError::Tls { detail: e.to_string() };
    match builder().map_err(tls_error)?.with_platform_verifier() {
        Ok(config) => Ok(config.with_no_client_auth()),
        // Without certificates a Hub on this machine still works.
        Err(_) if endpoint.scheme() == "http" => {
            let none = rustls::RootCertStore::empty();
            Ok(builder().map_err(tls_error)?.with_root_certificates(none).with_no_client_auth())
        }
        Err(error) => Err(tls_error(error)),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Where a redirect leads, if it is one to an http(s) address; never from https down to http.
pub(crate) fn redirect_target(url: &Url, response: &Response) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    let target = url.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    let allowed = target.scheme() == "https" || (target.scheme() == "http" && url.scheme() == "http");
    allowed.then_some(target)
}

/// The time to wait, an hour at most: `Retry-After` in seconds, or `t=` of the draft `RateLimit` header.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let seconds = text("retry-after").and_then(|v| v.trim().parse::<u64>().ok()).or_else(|| {
        let fields = text("ratelimit")?.split(';').find_map(|f| f.trim().strip_prefix("t="))?;
        fields.parse::<u64>().ok()
    });
    seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

pub(crate) async fn read_body(mut response: Response, url: &Url, limit: u64, what: &str) -> Result<Vec<u8>, HubError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| transport_error(url, e))? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(HubError::TooLarge { what: what.to_owned(), limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

pub(crate) fn transport_error(url: &Url, error: reqwest::Error) -> HubError {
    let host = url.host_str().unwrap_or("the server").to_owned();
    let (connect, timeout) = (error.is_connect(), error.is_timeout());
    // The address may be a signed link: it stays out of the message.
    let detail = chain(&error.without_url());
    match (connect, timeout) {
        (true, _) => HubError::Offline { host, detail },
        (_, true) => HubError::Interrupted { host, detail: "no answer in time".to_owned() },
        _ => HubError::Interrupted { host, detail },
    }
}

/// An error with its causes; the outermost alone says only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(endpoint: &str) -> Http {
        let mut config = HubConfig::new(endpoint.parse().unwrap());
        config.token = Some(Secret::new("hf_secret"));
        Http::new(&config).unwrap()
    }

    fn sends_token(endpoint: &str, url: &str) -> bool {
        let request = http(endpoint).request(Method::GET, &url.parse().unwrap()).build().unwrap();
        request.headers().contains_key(AUTHORIZATION)
    }

    #[test]
    fn the_token_goes_only_to_the_hub() {
        assert!(sends_token("https://huggingface.co", "https://huggingface.co/a/b"));
        assert!(!sends_token("https://huggingface.co", "https://cdn.huggingface.co/a"));
        assert!(!sends_token("https://huggingface.co", "http://huggingface.co/a"));
        assert!(!sends_token("https://huggingface.co", "https://huggingface.co:444/a"));
        assert!(!sends_token("http://mirror.example", "http://mirror.example/a"), "readable on the way");
        assert!(sends_token("http://127.0.0.1:8000", "http://127.0.0.1:8000/a"));
        assert!(!sends_token("http://127.0.0.1:8000", "http://127.0.0.1:8001/a"));
    }

    #[test]
    fn secrets_do_not_print() {
        let mut config = HubConfig::new("https://huggingface.co".parse().unwrap());
        config.token = Some(Secret::new("hf_secret"));
        assert!(!format!("{config:?}").contains("hf_secret"));
    }

    #[test]
    fn urls_are_escaped() {
        let http = http("https://mirror.example/hf/");
        let url = http.url(["a", "b", "resolve", "refs/pr/1", "x y#?.gguf"]);
        assert_eq!(url.as_str(), "https://mirror.example/hf/a/b/resolve/refs%2Fpr%2F1/x%20y%23%3F.gguf");
    }

    #[test]
    fn waiting_times() {
        let headers = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
        };
        assert_eq!(retry_after(&headers("retry-after", "7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("ratelimit", "\"api\";r=0;t=42")), Some(Duration::from_secs(42)));
        assert_eq!(retry_after(&headers("retry-after", "18446744073709551615")), Some(Duration::from_secs(3600)));
        assert_eq!(retry_after(&headers("retry-after", "soon")), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
