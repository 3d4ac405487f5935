//! [`WireError`] is this crate's error: everything that can go wrong ends as a code, numbers and an English sentence.

use crate::wire::{ErrorCode, WireError};
use std::path::Path;

pub type Result<T, E = WireError> = std::result::Result<T, E>;

impl WireError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> WireError {
        WireError { code, message: message.into(), needed: None, available: None, subject: None, retry_after: None }
    }

    pub fn internal(message: impl Into<String>) -> WireError {
        WireError::new(ErrorCode::Internal, message)
    }

    pub fn bad_argument(name: &str, message: impl Into<String>) -> WireError {
        WireError::new(ErrorCode::BadArgument, message).about(name)
    }

    pub fn about(mut self, subject: impl Into<String>) -> WireError {
        self.subject = Some(subject.into());
        self
    }

    pub fn numbers(mut self, needed: u64, available: u64) -> WireError {
        (self.needed, self.available) = (Some(needed), Some(available));
        self
    }

    /// A failed file operation on `path`.
    pub fn file(path: &Path, error: &std::io::Error) -> WireError {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::FileMissing,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
            _ => ErrorCode::FileAccess,
        };
        WireError::new(code, format!("{}: {error}", path.display())).about(path.display().to_string())
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for WireError {}

impl From<rusqlite::Error> for WireError {
    fn from(error: rusqlite::Error) -> WireError {
        let code = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => ErrorCode::DiskFull,
            _ => ErrorCode::Storage,
        };
        WireError::new(code, format!("the data base of chats failed: {error}"))
    }
}

impl From<hub::HubError> for WireError {
    fn from(error: hub::HubError) -> WireError {
        use hub::{HubError as H, Needs};
        let message = error.to_string();
        let new = |code| WireError::new(code, message.clone());
        match error {
            H::Offline { host, .. } | H::Interrupted { host, .. } => new(ErrorCode::Offline).about(host),
            H::Gated { repo, needs: Needs::Token } => new(ErrorCode::NeedsToken).about(repo),
            H::Gated { repo, needs: Needs::Terms } => new(ErrorCode::NeedsTerms).about(repo),
            H::TokenRefused => new(ErrorCode::TokenRefused),
            H::NotFound { what } => new(ErrorCode::NotFound).about(what),
            H::RateLimited { retry_after } => {
                WireError { retry_after: retry_after.map(|d| d.as_secs().max(1)), ..new(ErrorCode::RateLimited) }
            }
            H::DiskFull { folder, needed, free } => {
                new(ErrorCode::DiskFull).numbers(needed, free).about(folder.display().to_string())
            }
            H::FileTooLarge { folder, size } => {
                WireError { needed: Some(size), ..new(ErrorCode::DiskFull) }.about(folder.display().to_string())
            }
            H::Checksum { file, .. } => new(ErrorCode::ChecksumMismatch).about(file),
            H::Cancelled => new(ErrorCode::Cancelled),
            H::Busy { .. } => new(ErrorCode::Busy),
            H::BadName { name, .. } => new(ErrorCode::BadArgument).about(name),
            H::Header { file, .. } => new(ErrorCode::FileInvalid).about(file),
            H::Unreadable { path, .. } if download_folder(&path).is_none() => {
                new(ErrorCode::FileUnreadable).about(path.display().to_string())
            }
            H::Io { path, source } | H::Unreadable { path, source } => {
                match (download_folder(&path), WireError::file(&path, &source)) {
                    (Some(folder), error) if error.code != ErrorCode::DiskFull => {
                        WireError { code: ErrorCode::FolderAccess, ..error }.about(folder.display().to_string())
                    }
                    (_, error) => error,
                }
            }
            H::Server { .. } | H::Protocol { .. } | H::TooLarge { .. } | H::Tls { .. } => new(ErrorCode::HubAnswer),
        }
    }
}

/// The folder that a download goes to, for a path in the hidden one in which it grows: of that nobody has heard.
fn download_folder(path: &Path) -> Option<&Path> {
    path.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == hub::STAGING))?.parent()
}

impl From<grammar::GrammarError> for WireError {
    fn from(error: grammar::GrammarError) -> WireError {
        use grammar::GrammarError as G;
        let message = error.to_string();
        let code = match &error {
            G::NotJson { line, column, .. } => {
                return WireError::new(ErrorCode::FormatNotJson, message).about(format!("{line}:{column}"));
            }
            G::TooComplex(what) => return WireError::new(ErrorCode::FormatTooComplex, message).about(what),
            G::Vocabulary(_) => ErrorCode::ModelUnsupported,
            G::NoThread(_) => ErrorCode::Internal,
            _ => ErrorCode::FormatInvalid,
        };
        WireError::new(code, message)
    }
}

impl From<sampler::ConstraintError> for WireError {
    fn from(error: sampler::ConstraintError) -> WireError {
        let message = error.to_string();
        match error {
            sampler::ConstraintError::TooComplex(what) => {
                WireError::new(ErrorCode::FormatTooComplex, message).about(what)
            }
            _ => WireError::new(ErrorCode::FormatStuck, message),
        }
    }
}

impl From<weights::WeightsError> for WireError {
    fn from(error: weights::WeightsError) -> WireError {
        use weights::WeightsError as W;
        let message = error.to_string();
        let new = |code| WireError::new(code, message.clone());
        let about = |code, path: &Path| new(code).about(path.display().to_string());
        match &error {
            W::NotFound { path } | W::MissingPart { path, .. } => about(ErrorCode::FileMissing, path),
            W::PermissionDenied { path } | W::InUse { path } | W::Io { path, .. } | W::MapFailed { path, .. } => {
                about(ErrorCode::FileAccess, path)
            }
            // How long it should be is not known: only that the header goes beyond its end.
            W::Truncated { path, file_len, .. } => {
                WireError { available: Some(*file_len), ..about(ErrorCode::FileTruncated, path) }
            }
            W::Changed { path, expected, found } => about(ErrorCode::FileTruncated, path).numbers(*expected, *found),
            W::Unreadable { path } => about(ErrorCode::FileTruncated, path),
            W::OutOfMemory { bytes, .. } => WireError { needed: Some(*bytes), ..new(ErrorCode::RamFull) },
            W::Lock { bytes, limit, .. } => {
                WireError { needed: Some(*bytes), available: *limit, ..new(ErrorCode::RamFull) }
            }
            W::NotAFile { path } | W::NotGguf { path, .. } | W::Invalid { path, .. } => {
                about(ErrorCode::FileInvalid, path)
            }
            W::PartName { path, .. } | W::WrongPart { path, .. } | W::TooManyParts { path, .. } => {
                about(ErrorCode::FileInvalid, path)
            }
            _ => new(ErrorCode::Internal),
        }
    }
}

impl From<model::ModelError> for WireError {
    fn from(error: model::ModelError) -> WireError {
        use model::ModelError as M;
        let message = error.to_string();
        let (code, subject) = match error {
            M::UnknownArchitecture { found, .. } => (ErrorCode::ModelUnsupported, Some(found)),
            M::Unsupported(_) => (ErrorCode::ModelUnsupported, None),
            _ => (ErrorCode::FileInvalid, None),
        };
        WireError { subject, ..WireError::new(code, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};
    use std::path::PathBuf;

    #[test]
    fn a_file_that_cannot_be_read_is_not_one_that_cannot_be_opened() {
        let code = |error: hub::HubError| WireError::from(error).code;
        let (path, failed) = (PathBuf::from("/models/a.gguf"), || Error::from(ErrorKind::Other));
        let unreadable = hub::HubError::Unreadable { path: path.clone(), source: failed() };
        assert_eq!(code(unreadable), ErrorCode::FileUnreadable);
        assert_eq!(code(hub::HubError::Io { path: path.clone(), source: failed() }), ErrorCode::FileAccess);
        let growing = path.with_file_name(hub::STAGING).join("0");
        assert_eq!(code(hub::HubError::Unreadable { path: growing, source: failed() }), ErrorCode::FolderAccess);
    }
}
