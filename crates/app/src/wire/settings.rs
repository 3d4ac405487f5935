use super::WireError;
use serde::{Deserialize, Serialize};
use ts_rs::TS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Language {
    En,
    Ja,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum LanguageChoice {
    /// As the system says.
    Auto,
    En,
    Ja,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum Theme {
    System,
    Light,
    Dark,
}

/// What to do when a chat reaches the end of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub enum ContextPolicy {
    /// Stop and say so.
    Stop,
    /// Leave out the oldest turns, keep the system prompt, and say how many went.
    DropOldest,
}

/// How tokens are chosen. Ranges are checked where they are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default)]
pub struct Sampling {
    /// 0: always the likeliest token.
    pub temperature: f32,
    /// 0: off.
    pub top_k: u32,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    /// null: another one each time.
    pub seed: Option<u32>,
    /// Tokens an answer may have; null: until the model ends or the context is full.
    pub max_tokens: Option<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            max_tokens: None,
        }
    }
}

/// A GPU as it is remembered, also while it is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct GpuName {
    /// [`Gpu::id`](super::Gpu)
    pub id: String,
    /// Empty: not known.
    pub name: String,
}

/// Which GPUs take layers; kept in the settings, and what `--gpu` means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum GpuChoice {
    /// All that there are, the one with the most memory first.
    #[default]
    All,
    /// Those of these that are there, in this order; all where none of them is. An empty list is none at all.
    Only { gpus: Vec<GpuName> },
}

/// Whether other programs can ask the loaded model, over HTTP and from this PC alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerSettings {
    pub on: bool,
    /// At least 1024: below, systems want rights that nobody should give.
    pub port: u16,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings { on: false, port: 8080 }
    }
}

/// How the server for other programs is doing. Event `server`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, TS)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ServerState {
    #[default]
    Off,
    /// `url`: what other programs call the base URL.
    On {
        url: String,
    },
    Failed {
        error: WireError,
    },
}

/// The user's settings, kept as `settings.json` with a version. Commands `settings_get`, `settings_set`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    pub language: LanguageChoice,
    pub theme: Theme,
    /// Where downloads go. null: the default folder.
    pub models_folder: Option<String>,
    /// More folders with GGUF files, shown in the library and never written to.
    pub extra_folders: Vec<String>,
    /// Show models that other programs keep in the Hugging Face cache.
    pub use_hf_cache: bool,
    /// null: https://huggingface.co, or HF_ENDPOINT.
    pub hub_endpoint: Option<String>,
    /// Whether a token is stored; the token itself never goes to the window.
    pub has_hub_token: bool,
    pub context_policy: ContextPolicy,
    /// Whether models that can do both think before they answer; null: as each does by itself.
    pub thinking: Option<bool>,
    pub system_prompt: String,
    pub sampling: Sampling,
    /// Threads for computing; null: as many as there are physical cores.
    pub threads: Option<u32>,
    /// Leave one core to other programs.
    pub leave_responsive: bool,
    /// The GPUs that layers go to, from the next load on.
    pub gpus: GpuChoice,
    /// Bytes on disk for what models remember of chats, so that these need not be read again; 0: none.
    pub chat_memory: u64,
    pub server: ServerSettings,
    /// Load settings last used, by model id.
    pub load: std::collections::BTreeMap<String, super::LoadSettings>,
    pub inspector_open: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            language: LanguageChoice::Auto,
            theme: Theme::System,
            models_folder: None,
            extra_folders: Vec::new(),
            use_hf_cache: true,
            hub_endpoint: None,
            has_hub_token: false,
            context_policy: ContextPolicy::Stop,
            thinking: None,
            system_prompt: String::new(),
            sampling: Sampling::default(),
            threads: None,
            leave_responsive: false,
            gpus: GpuChoice::All,
            chat_memory: 4_000_000_000,
            server: ServerSettings::default(),
            load: Default::default(),
            inspector_open: true,
        }
    }
}
