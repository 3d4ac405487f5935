//! Who may ask. A server for this PC alone is still within reach of every web page that its user opens: names that a page's
//! owner points to this PC, and pages of other origins, are turned away.

use crate::error::Problem;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, HOST,
    ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What a request must bring as `Authorization: Bearer KEY`.
    pub key: Option<String>,
    /// Origins of web pages that may ask besides those of this PC; `*` for all.
    pub origins: Vec<String>,
    /// Nobody but this PC can ask.
    local: bool,
}

impl Access {
    pub fn new(key: Option<String>, origins: Vec<String>) -> Access {
        Access { key, origins, local: false }
    }

    pub(crate) fn at(self, address: SocketAddr) -> Access {
        Access { local: address.ip().is_loopback(), ..self }
    }

    fn takes_host(&self, host: &str) -> bool {
        !self.local || is_here(host)
    }

    fn takes_origin(&self, origin: &str) -> bool {
        let here = origin.split_once("://").is_some_and(|(_, host)| is_here(host));
        here || self.origins.iter().any(|allowed| allowed == "*" || allowed.trim_end_matches('/') == origin)
    }

    fn takes_key(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.key else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        given.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|given| same(given.trim(), key))
    }
}

/// Whether `host`, with a port or without, is a name that only this PC has for itself.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Takes as long for every key of this length.
fn same(given: &str, key: &str) -> bool {
    given.len() == key.len() && given.bytes().zip(key.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

pub async fn gate(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let (host, origin) = (header(&request, HOST), header(&request, ORIGIN));
    if let Some(host) = host.filter(|host| !access.takes_host(host)) {
        return refused(format!("{host} is not a name of this PC"));
    }
    if let Some(origin) = origin.as_deref().filter(|origin| !access.takes_origin(origin)) {
        return refused(format!("pages of {origin} may not ask: `headroom serve --allow-origin` lets them"));
    }
    let mut response = if request.method() == Method::OPTIONS && origin.is_some() {
        StatusCode::NO_CONTENT.into_response()
    } else if request.uri().path() != "/health" && !access.takes_key(request.headers()) {
        Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "the API key is missing or wrong").into_response()
    } else {
        next.run(request).await
    };
    if let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(&origin).ok()) {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type, *"));
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// What is no text is no name that anybody has.
fn header(request: &Request, name: HeaderName) -> Option<String> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or("?").to_owned())
}

fn refused(message: String) -> Response {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_pc_are_taken() {
        let local = Access::default().at(([127, 0, 0, 1], 80).into());
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.1.2.3", "[::1]:8080", "[::1]"] {
            assert!(local.takes_host(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org:8080", "192.168.0.2", "[::2]", "", "127.0.0.1.example.org"] {
            assert!(!local.takes_host(host), "{host}");
        }
        assert!(Access::default().at(([0, 0, 0, 0], 80).into()).takes_host("my-pc:8080"));
    }

    #[test]
    fn pages_of_other_origins_are_not_taken_unless_named() {
        let access = Access::new(None, vec!["https://example.org/".into()]);
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://example.org", "http://[::1]:1"] {
            assert!(access.takes_origin(origin), "{origin}");
        }
        for origin in ["https://example.com", "http://example.org", "null", "http://localhost.example.com", ""] {
            assert!(!access.takes_origin(origin), "{origin}");
        }
        assert!(Access::new(None, vec!["*".into()]).takes_origin("https://example.com"));
    }

    #[test]
    fn keys_are_compared_whole() {
        let access = Access::new(Some("secret".into()), Vec::new());
        let headers = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())]);
        assert!(access.takes_key(&headers("Bearer secret")));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer Secret", "secret", "Basic secret", "Bearer "] {
            assert!(!access.takes_key(&headers(wrong)), "{wrong}");
        }
        assert!(!access.takes_key(&HeaderMap::new()));
    }
}
