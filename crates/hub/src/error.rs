//! What can go wrong, with numbers and what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a gated repository refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// No token was sent.
    Token,
    /// The token's owner has not accepted the repository's terms (or waits for approval).
    Terms,
}

#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("cannot reach {host}: {detail}. Check the connection and the Hub address, then try again")]
    Offline { host: String, detail: String },
    #[error("the connection to {host} was lost: {detail}. What has arrived is kept; try again to resume")]
    Interrupted { host: String, detail: String },
    #[error("{}", gated_text(repo, *needs))]
    Gated { repo: String, needs: Needs },
    #[error("the Hub does not accept the token. Make a new one at huggingface.co/settings/tokens and enter it")]
    TokenRefused,
    #[error("{what} was not found on the Hub. Check the name; a private repository needs a token")]
    NotFound { what: String },
    #[error("the Hub asks to wait{}", retry_text(*retry_after))]
    RateLimited { retry_after: Option<Duration> },
    #[error("the disk of {} is full: {needed} bytes needed, {free} bytes free. Free some space, then resume", folder.display())]
    DiskFull { folder: PathBuf, needed: u64, free: u64 },
    #[error("{} cannot hold a file of {size} bytes (FAT32 ends at 4 GiB). Choose a folder on another disk", folder.display())]
    FileTooLarge { folder: PathBuf, size: u64 },
    #[error(
        "{file} arrived damaged twice (sha256 {actual} instead of {expected}) and was not kept. \
         Try again later or choose another repository"
    )]
    Checksum { file: String, expected: String, actual: String },
    #[error("cancelled; what has arrived is kept and resumes later")]
    Cancelled,
    #[error("{} is being downloaded already, perhaps by another window", folder.display())]
    Busy { folder: PathBuf },
    #[error("the server answered {status} for {what}. Try again later")]
    Server { status: u16, what: String },
    #[error("the server's answer about {what} makes no sense: {detail}")]
    Protocol { what: String, detail: String },
    #[error("{what} is larger than {limit} bytes and was not read")]
    TooLarge { what: String, limit: u64 },
    #[error("the name {name:?} is not allowed: {why}")]
    BadName { name: String, why: &'static str },
    #[error("the GGUF header of {file} is not usable: {source}")]
    Header { file: String, source: gguf::GgufError },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} could not be read: {source}; its disk may be failing", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("secure connections cannot be set up: {detail}. Install the system's certificates (ca-certificates)")]
    Tls { detail: String },
}

fn gated_text(repo: &str, needs: Needs) -> String {
    match needs {
        Needs::Token => format!(
            "{repo} asks to accept its terms: open huggingface.co/{repo}, accept them, then enter your token in Settings"
        ),
        Needs::Terms => format!(
            "your token is known, but the terms of {repo} are not accepted yet: open huggingface.co/{repo} and accept them"
        ),
    }
}

fn retry_text(after: Option<Duration>) -> String {
    after.map_or(". Try again in some minutes".to_owned(), |d| format!(". Try again in {} s", d.as_secs().max(1)))
}

impl HubError {
    /// A stable word for programs to act on.
    pub fn code(&self) -> &'static str {
        match self {
            HubError::Offline { .. } => "offline",
            HubError::Interrupted { .. } => "interrupted",
            HubError::Gated { needs: Needs::Token, .. } => "gated_needs_token",
            HubError::Gated { needs: Needs::Terms, .. } => "gated_needs_terms",
            HubError::TokenRefused => "token_refused",
            HubError::NotFound { .. } => "not_found",
            HubError::RateLimited { .. } => "rate_limited",
            HubError::DiskFull { .. } => "disk_full",
            HubError::FileTooLarge { .. } => "file_too_large",
            HubError::Checksum { .. } => "checksum",
            HubError::Cancelled => "cancelled",
            HubError::Busy { .. } => "busy",
            HubError::Server { .. } => "server",
            HubError::Protocol { .. } => "protocol",
            HubError::TooLarge { .. } => "too_large",
            HubError::BadName { .. } => "bad_name",
            HubError::Header { .. } => "bad_header",
            HubError::Io { .. } => "io",
            HubError::Unreadable { .. } => "unreadable",
            HubError::Tls { .. } => "tls",
        }
    }

    /// Whether the same request may succeed a little later without anybody doing something.
    pub fn is_transient(&self) -> bool {
        match self {
            HubError::Offline { .. } | HubError::Interrupted { .. } | HubError::RateLimited { .. } => true,
            HubError::Server { status, .. } => *status >= 500 || *status == 408,
            _ => false,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> HubError {
        let path = path.to_owned();
        move |source| HubError::Io { path, source }
    }

    pub(crate) fn protocol(what: impl Into<String>, detail: impl Into<String>) -> HubError {
        HubError::Protocol { what: what.into(), detail: detail.into() }
    }
}
