//! What crosses the border to a window: plain data, camelCase in JSON, mirrored in `ui/src/ipc/bindings.ts`.
//!
//! Numbers of bytes and tokens are JSON numbers (exact up to 2^53). Times are Unix milliseconds. A field that is not
//! known is null, never invented. Texts for people are made by the window from codes and numbers, not here.

pub mod bindings;
mod chat;
mod error;
mod hardware;
mod hub;
mod models;
mod plan;
mod settings;

pub use chat::*;
pub use error::*;
pub use hardware::*;
pub use hub::*;
pub use models::*;
pub use plan::*;
pub use settings::*;

use serde::Serialize;
use ts_rs::TS;

/// Everything the window needs to draw its first frame. Command `startup`.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Startup {
    pub version: String,
    pub settings: Settings,
    /// The language of the system, used where the settings say "auto".
    pub system_language: Language,
    /// The Hub's address that was asked for at the start; before the settings' own.
    pub hub_endpoint: Option<String>,
    /// The Hub's address where nobody says another.
    pub hub_endpoint_default: String,
    pub model: ModelState,
    pub server: ServerState,
    pub downloads: Vec<Download>,
    /// The chat to show first, if any (the demo's).
    pub open_chat: Option<String>,
    /// A chat whose answer was cut by a crash, if any: offer to go on.
    pub interrupted_chat: Option<String>,
    /// Settings or chats that were damaged and are kept under these names, if any: say so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[ts(optional, as = "Option<Vec<String>>")]
    pub kept_aside: Vec<String>,
}

/// Pushed to the window at any time (Tauri event `headroom`), besides the channel of a running answer.
#[allow(clippy::large_enum_variant)] // Events are few, and gone when they are told.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AppEvent {
    /// The loaded model, its placement or its progress changed.
    Model { state: ModelState },
    /// Layers moved without the user's wish, and why.
    Recovery { notice: RecoveryNotice },
    /// Other programs can ask the loaded model, or cannot any more.
    Server { state: ServerState },
    /// A download changed; at most ten a second for each.
    Download { download: Download },
    /// The library on disk changed: list again.
    Library,
    /// A file shall be opened: ask for it with `opened_file`.
    FileAsked,
    /// Live memory figures, about once a second while somebody looks.
    Monitor { sample: MonitorSample },
    /// What the model remembered of a chat had to go: the chat will be read again when it goes on.
    Forgotten { chat: String, title: String },
    /// How far the import of chats is; null: it has ended, as the command says how.
    Import { progress: Option<FileProgress> },
    /// How far the verification of a model is; null: it has ended. What it found is in the library.
    Verify { model_id: String, progress: Option<FileProgress> },
    /// Hardware was measured again.
    Hardware { hardware: HardwareReport },
}

/// How far a file, or several together, have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct FileProgress {
    pub bytes: u64,
    /// 0: nobody knows how long it is.
    pub total: u64,
    pub seconds_left: Option<u64>,
}
