//! What goes wrong, and how often.

use std::collections::VecDeque;
use std::time::Duration;

/// Flips every bit of the byte at `offset` in the next `times` storage answers that contain it.
#[derive(Clone, Copy, Debug)]
pub struct WrongBytes {
    pub offset: u64,
    pub times: u32,
}

/// An answer given instead of the real one.
#[derive(Clone, Debug)]
pub struct Canned {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Canned {
    pub fn status(status: u16) -> Canned {
        Canned { status, headers: Vec::new(), body: String::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Canned {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<String>) -> Canned {
        self.body = body.into();
        self
    }

    /// 429 with `Retry-After` in seconds.
    pub fn rate_limited(seconds: u64) -> Canned {
        Canned::status(429).header("retry-after", &seconds.to_string())
    }
}

/// All off by default.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Totals of body bytes served by the storage (over all connections, in ascending order) at which the connection
    /// that reaches them is cut. Each is used once.
    pub cuts: VecDeque<u64>,
    /// Every storage answer is cut after this many bytes of body.
    pub cut_every: Option<u64>,
    /// The storage's line, shared by all connections.
    pub bytes_per_second: Option<u64>,
    pub wrong_bytes: Option<WrongBytes>,
    /// The storage answers 200 with the whole file.
    pub ignore_range: bool,
    /// The storage announces a file this many bytes longer than it is.
    pub longer_by: u64,
    /// The hub announces another ETag (sha256) than the file has.
    pub wrong_etag: Option<String>,
    /// How long a signed link works.
    pub link_lifetime: Duration,
    /// How often a signed link works.
    pub link_uses: Option<u32>,
    /// The storage refuses every link with 403.
    pub refuse_links: bool,
    /// Next answers of the API, of `resolve`, of the storage.
    pub api: VecDeque<Canned>,
    pub resolve: VecDeque<Canned>,
    pub storage: VecDeque<Canned>,
    /// Entries on a page of the tree.
    pub tree_page: usize,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            cuts: VecDeque::new(),
            cut_every: None,
            bytes_per_second: None,
            wrong_bytes: None,
            ignore_range: false,
            longer_by: 0,
            wrong_etag: None,
            link_lifetime: Duration::from_secs(3600),
            link_uses: None,
            refuse_links: false,
            api: VecDeque::new(),
            resolve: VecDeque::new(),
            storage: VecDeque::new(),
            tree_page: 1000,
        }
    }
}
