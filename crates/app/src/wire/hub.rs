use super::{Plan, WireError};
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum HubSort {
    Downloads,
    Likes,
    Trending,
    Updated,
}

/// Command `hub_search`.
#[derive(Clone, Debug, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct HubQuery {
    pub text: String,
    pub sort: HubSort,
    /// From the page before.
    pub cursor: Option<String>,
    /// [`HubModel::parameters`] are wanted. The Hub's answer is then many times as long.
    pub parameters: bool,
}

#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct HubModel {
    pub repo: String,
    pub downloads: Option<u64>,
    pub likes: Option<u64>,
    pub updated: Option<u64>,
    pub gated: bool,
    /// null: not asked for, or the Hub does not know.
    pub parameters: Option<u64>,
    /// From the built-in list: family and a word on what it is good for ("chat", "reasoning", "code", "small").
    pub note: Option<String>,
}

#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct HubPage {
    pub models: Vec<HubModel>,
    pub next: Option<String>,
}

/// How near a quantization is to the original, by bits per weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Quality {
    Original,
    NearOriginal,
    VeryGood,
    Balanced,
    Reduced,
    VisiblyWorse,
}

/// One quantization of a repository. Command `hub_model`; rows come first without `plan`, which `hub_plan` fills.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct QuantRow {
    pub quant: String,
    pub files: Vec<String>,
    pub bytes: u64,
    /// Null until the header is known; the same for all rows, as a repository holds one model.
    pub header: Option<HeaderFacts>,
    /// Null until the header is known.
    pub bits_per_weight: Option<f64>,
    pub quality: Option<Quality>,
    pub plan: Option<Plan>,
    /// The one to take on this PC, with why ("fitsGpu", "fitsRam", "bestQuality", "smallest").
    pub recommended: Option<String>,
    /// The id in the library if it is there already.
    pub installed: Option<String>,
    /// Why there is no plan.
    pub problem: Option<WireError>,
}

/// What a file's header says of its model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct HeaderFacts {
    pub architecture: String,
    pub parameters: u64,
    /// The most tokens the model was trained for.
    pub context_max: u32,
}

#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct HubModelPage {
    pub repo: String,
    pub commit: String,
    pub gated: bool,
    pub quants: Vec<QuantRow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum DownloadState {
    Queued,
    Running,
    /// The connection is gone; it goes on by itself.
    Waiting,
    Paused,
    Verifying,
    Done,
    Failed,
    Cancelled,
}

/// A download, kept over restarts. Commands `downloads`, `download_start {repo, commit, quant}`, `download_pause`,
/// `download_resume`, `download_cancel` (deletes what was fetched), all `{id}`.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Download {
    pub id: String,
    pub repo: String,
    pub quant: String,
    pub state: DownloadState,
    pub bytes: u64,
    pub total: u64,
    pub bytes_per_second: f64,
    pub seconds_left: Option<u64>,
    /// The model in the library, when done.
    pub model_id: Option<String>,
    pub error: Option<WireError>,
}
