use super::{GpuReason, LoadSettings, Plan, WireError};
use serde::Serialize;
use ts_rs::TS;

/// Where an installed model's file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum ModelSource {
    /// Our models folder: may be deleted here.
    Library,
    /// One of the user's extra folders.
    Folder,
    /// The Hugging Face cache of other programs.
    HfCache,
    /// Came with the program (the demo model).
    Bundled,
}

/// An installed model. Command `library`.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct InstalledModel {
    /// Stable as long as the file stays where it is.
    pub id: String,
    pub name: String,
    pub path: String,
    pub source: ModelSource,
    /// "owner/name" if it was downloaded.
    pub repo: Option<String>,
    pub quant: Option<String>,
    pub architecture: Option<String>,
    pub parameters: Option<u64>,
    pub bytes: u64,
    pub context_max: Option<u32>,
    pub layers: Option<u32>,
    pub last_used: Option<u64>,
    /// Why it cannot be loaded, if so.
    pub problem: Option<WireError>,
    /// What its verification has found since the program began, if its files are still as they were then.
    pub verified: Option<Verified>,
}

/// What the verification of a model found. Command `library_verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    pub at: u64,
    /// In the order of the parts.
    pub files: Vec<VerifiedFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedFile {
    pub path: String,
    /// Its SHA-256 was compared with the one that the Hub gave. Where none is known, only the header was looked at, and
    /// whether the file is as long as that says.
    pub compared: bool,
    pub problem: Option<WireError>,
}

/// The model of a file that the program was asked to open. Command `opened_file`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct OpenedFile {
    pub model_id: String,
    /// It was not in the library before.
    pub added: bool,
}

/// What loading is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum LoadStage {
    /// The driver compiles the GPU's kernels.
    Compiling(Compiling),
    Layers,
}

/// How many modules of the GPU's kernels the driver has compiled. It keeps the result, so that only the first time, and the
/// first after an update, takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Compiling {
    pub done: u32,
    pub of: u32,
}

impl Compiling {
    pub(crate) fn new(done: usize, of: usize) -> Compiling {
        Compiling { done: done as u32, of: of as u32 }
    }
}

/// The loaded model. Command `model_state`, event `model`.
#[allow(clippy::large_enum_variant)] // There is one at a time.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ModelState {
    None,
    Loading {
        model_id: String,
        name: String,
        stage: LoadStage,
        /// Of this stage, 0..1
        progress: f32,
    },
    Ready {
        loaded: LoadedModel,
    },
    Failed {
        model_id: String,
        name: String,
        error: WireError,
    },
}

/// A GPU of the loaded model.
#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct GpuUse {
    pub name: String,
    /// Layers that are on it now, and the bytes that our buffers take.
    pub layers: u32,
    pub used: u64,
    /// It does not answer any more.
    pub lost: bool,
}

#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct LoadedModel {
    pub model_id: String,
    pub name: String,
    /// As asked for.
    pub settings: LoadSettings,
    /// As planned for the placement that holds now.
    pub plan: Plan,
    /// What layers on their way to a GPU wait for.
    pub compiling: Option<Compiling>,
    /// Layers on GPUs now; differs from the plan while layers move.
    pub gpu_layers: u32,
    /// Layers before this one have their routed experts in RAM now.
    pub cpu_moe: u32,
    /// Bytes our buffers really take now.
    pub ram_used: u64,
    pub vram_used: u64,
    /// The devices that take layers, or why there are none.
    pub gpus: Vec<GpuUse>,
    pub gpu_reason: Option<GpuReason>,
    /// The model's chat template is missing: a plain one is used.
    pub template_missing: bool,
    /// Why the draft model of the settings is not used, if so.
    pub draft_problem: Option<Box<WireError>>,
    /// Whether it thinks before it answers can be chosen: [`Settings::thinking`](super::Settings::thinking).
    pub thinking_switch: bool,
}

/// Layers were moved to keep going, or could be moved back.
#[derive(Clone, Debug, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryNotice {
    /// "vramFull", "deviceLost"; "vramFree": there is room again; "gpuBack": a lost GPU answers again
    pub cause: String,
    /// The GPU that it is about, where there is more than one.
    pub gpu: Option<String>,
    /// To RAM; with the last two those that can go back.
    pub layers_moved: u32,
    /// To other GPUs.
    pub layers_shifted: u32,
    /// Layers that stay on GPUs and whose routed experts were moved, or can go back.
    pub experts_moved: u32,
    pub gpu_layers: u32,
    pub layers: u32,
    /// An answer was running and went on.
    pub during_answer: bool,
}
