//! Hugging Face: search, files, remote headers, resumable verified downloads.
//!
//! Everything goes through one client of our own ([`Hub`]); nothing is sent unless the caller asks for it. Configuration
//! is passed in ([`HubConfig`]): this crate reads no environment variable. docs/hub.md says what of `hf-hub` is used and why
//! not more, and how a download survives cuts, kills and full disks.

mod backoff;
mod cache;
mod download;
mod error;
mod files;
mod header;
mod http;
mod names;
mod recommended;
mod remote;
mod search;

use std::path::PathBuf;
use std::sync::Arc;

pub use cache::{CachedFile, CachedModel, cached_models, cached_sha256, token_from_cache};
pub use download::{
    Disk, DownloadOptions, DownloadRequest, Downloader, OsDisk, PendingDownload, Progress, STAGING, State, discard,
    pending, pending_bytes, replace_file, sha256_of_file,
};
pub use error::{HubError, Needs};
pub use files::{GgufChoice, RepoFile, RepoFiles, quant_of};
pub use http::Secret;
pub use names::{check_repo, check_revision, safe_path};
pub use recommended::{RECOMMENDED, Recommended};
pub use search::{ModelSummary, Page, SearchQuery, Sort};
pub use tokio_util::sync::CancellationToken;
pub use url::Url;

use http::Http;

/// The Hub's public address.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How to reach the Hub.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Usually [`DEFAULT_ENDPOINT`]; programs pass HF_ENDPOINT here.
    pub endpoint: Url,
    /// Sent only to the endpoint's own origin, and only over https or to this machine.
    pub token: Option<Secret>,
    pub user_agent: String,
    /// The Hugging Face cache (`.../huggingface/hub`) in which other programs keep models.
    pub cache_dir: Option<PathBuf>,
}

impl HubConfig {
    pub fn new(endpoint: Url) -> HubConfig {
        let user_agent = concat!("headroom/", env!("CARGO_PKG_VERSION")).to_owned();
        HubConfig { endpoint, token: None, user_agent, cache_dir: None }
    }
}

/// A client of the Hub; cheap to clone.
#[derive(Clone)]
pub struct Hub {
    http: Arc<Http>,
    cache_dir: Option<PathBuf>,
}

impl Hub {
    /// # Errors
    /// [`HubError::BadName`] for an endpoint that is not http(s), [`HubError::Tls`] without system certificates.
    pub fn new(config: HubConfig) -> Result<Hub, HubError> {
        Ok(Hub { http: Arc::new(Http::new(&config)?), cache_dir: config.cache_dir })
    }

    pub(crate) fn http(&self) -> Arc<Http> {
        self.http.clone()
    }

    /// GGUF models that other programs have already downloaded into the Hugging Face cache.
    pub fn cached_models(&self) -> Vec<CachedModel> {
        self.cache_dir.as_deref().map(cached_models).unwrap_or_default()
    }
}
