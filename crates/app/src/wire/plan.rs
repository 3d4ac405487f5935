use quant::GgmlType;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

/// Types of a KV cache, the most exact first.
#[expect(non_camel_case_types)] // ggml's names
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    F32,
    F16,
    BF16,
    Q8_0,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
    IQ4_NL,
}

impl KvType {
    pub const ALL: [KvType; 9] = [
        KvType::F32,
        KvType::F16,
        KvType::BF16,
        KvType::Q8_0,
        KvType::Q5_1,
        KvType::Q5_0,
        KvType::Q4_1,
        KvType::Q4_0,
        KvType::IQ4_NL,
    ];

    pub fn ggml_type(self) -> GgmlType {
        match self {
            KvType::F32 => GgmlType::F32,
            KvType::F16 => GgmlType::F16,
            KvType::BF16 => GgmlType::BF16,
            KvType::Q8_0 => GgmlType::Q8_0,
            KvType::Q5_1 => GgmlType::Q5_1,
            KvType::Q5_0 => GgmlType::Q5_0,
            KvType::Q4_1 => GgmlType::Q4_1,
            KvType::Q4_0 => GgmlType::Q4_0,
            KvType::IQ4_NL => GgmlType::IQ4_NL,
        }
    }

    /// The type of this name, in small letters or capitals.
    pub fn from_name(name: &str) -> Option<KvType> {
        let ty = GgmlType::from_name(name)?;
        KvType::ALL.into_iter().find(|known| known.ggml_type() == ty)
    }
}

/// "Auto" is a state, not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GpuLayers {
    Auto,
    Fixed { layers: u32 },
}

/// How to load a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadSettings {
    pub gpu_layers: GpuLayers,
    /// So many of the first layers of a mixture of experts leave their routed experts in RAM; null: the planner's choice.
    pub cpu_moe: Option<u32>,
    /// Tokens; null: the planner's choice.
    pub context: Option<u32>,
    pub kv_type_k: KvType,
    pub kv_type_v: KvType,
    /// Id of an installed model that guesses for this one ([`crate::App::draft_models`]); null: none.
    pub draft: Option<String>,
}

impl Default for LoadSettings {
    fn default() -> Self {
        LoadSettings {
            gpu_layers: GpuLayers::Auto,
            cpu_moe: None,
            context: None,
            kv_type_k: KvType::F16,
            kv_type_v: KvType::F16,
            draft: None,
        }
    }
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Fits {
    Gpu,
    Split,
    Ram,
    Disk,
    No,
}

/// Bytes of one memory by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct MemoryParts {
    pub weights: u64,
    pub kv: u64,
    pub compute: u64,
    pub other: u64,
    pub total: u64,
}

/// What one GPU is given.
#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct GpuShare {
    pub name: String,
    pub layers: u32,
    pub parts: MemoryParts,
    pub available: u64,
}

/// One reason for the plan's choices, for the window to put into words.
#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// "noAccelerator", "allOnAccelerator", "acceleratorHolds", "acceleratorTooSmall", "beyondAccelerator", "acceleratorLacks",
    /// "expertsInRam", "promptsStreamed", "severalAccelerators", "contextReduced", "contextBeyondTraining", "weightsFromDisk",
    /// "ramShort", "kvLarge", "draftModel"
    pub code: String,
    /// English.
    pub text: String,
    pub needed: Option<u64>,
    pub available: Option<u64>,
}

/// Speed as a range, tokens per second. Null until the hardware was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    pub tg_low: f64,
    pub tg_high: f64,
    /// Null where only the speed of answers is known.
    pub pp_low: Option<f64>,
    pub pp_high: Option<f64>,
}

/// Commands `plan` (installed model) and part of `hub_model`. Takes below 16 ms.
#[derive(Clone, Debug, PartialEq, Serialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Layers on GPUs, of `layers` (the output layer is the last one).
    pub gpu_layers: u32,
    pub layers: u32,
    /// What the planner would choose.
    pub recommended_gpu_layers: u32,
    /// More than this does not fit.
    pub max_gpu_layers: u32,
    /// Layers before this one leave their routed experts in RAM.
    pub cpu_moe: u32,
    /// Layers that have routed experts (0: no mixture of experts), and those on GPUs whose experts are in RAM.
    pub expert_layers: u32,
    pub experts_apart: u32,
    pub context: u32,
    /// The most tokens the model was trained for.
    pub context_max: u32,
    pub fits: Fits,
    pub ram: MemoryParts,
    /// Of all GPUs.
    pub vram: MemoryParts,
    pub ram_available: u64,
    pub vram_available: u64,
    /// The same by GPU, also of those that are given nothing.
    pub gpus: Vec<GpuShare>,
    /// Prompts of so many tokens or more are computed on a GPU also in what is in RAM; null: none are.
    pub stream_from: Option<u32>,
    pub forecast: Option<Forecast>,
    pub reasons: Vec<Reason>,
}
