//! What callers of the engine see: options, requests, events.

use backend::Device;
use model::{Split, StreamRates};
use quant::GgmlType;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A wish to stop, shared by whoever may have it. Checked between the operations of a step, so it works within one.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn new() -> Cancel {
        Cancel::default()
    }

    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The devices a model may use: the host, which can always take every layer, and accelerators.
pub struct Devices {
    pub host: Box<dyn Device>,
    /// By number, [`model::MAX_ACCELERATORS`] at most; none in the place of one that is not there now.
    pub accelerators: Vec<Option<Box<dyn Device>>>,
}

/// How a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadOptions {
    /// Tokens that a sequence may have.
    pub context: u32,
    /// Layers on each accelerator; the model's last layers first, the output layer counted as the last of all. From the
    /// first on that its accelerator cannot compute ([`model::Offload`]), layers stay on the host.
    pub gpu_layers: Split,
    /// The first so many layers of a mixture of experts leave their routed experts on the host, wherever the rest of
    /// them is.
    pub cpu_moe: u32,
    pub kv_type_k: GgmlType,
    pub kv_type_v: GgmlType,
    /// Tokens computed at once when a prompt is read.
    pub ubatch: u32,
    /// Map the file (else read it into memory).
    pub mmap: bool,
    /// Lock the mapping in RAM.
    pub mlock: bool,
    /// Rows of logits computed at once; more than 1 only pays where many positions are asked for.
    pub logits_rows: u32,
    /// RAM for the part of the model that is on the host and its buffers, in bytes. What of a mapped file does not fit
    /// is read from disk for every step, ahead of use. `None`: as much as it takes.
    pub host_ram: Option<u64>,
    pub speculation: Speculation,
    /// What was measured, where layers on the host may be computed on an accelerator for micro-batches that are large enough
    /// for that to be faster ([`model::Streaming`]). `None`: they are not.
    pub streaming: Option<StreamRates>,
}

/// Whether guesses at the next tokens are computed along with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drafting {
    Never,
    /// As many as pay, by what steps take and by how many guesses hold; none where none pays.
    WherePays,
    /// As many as there are; to measure and to test.
    Always,
}

/// Speculative decoding: when, from what, how far. It changes the speed, never the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speculation {
    pub drafting: Drafting,
    /// Guess from what followed earlier in the text. A draft model ([`crate::Engine::set_draft`]) guesses besides.
    pub lookup: bool,
    /// Guesses in a step at most. Logits are best computed for one row more ([`LoadOptions::logits_rows`]).
    pub max: u32,
}

impl Speculation {
    pub const OFF: Speculation = Speculation { drafting: Drafting::Never, lookup: false, max: 0 };
    /// From the text itself, where it pays. Together with a token these fill two tiles of a CPU's kernels.
    pub const LOOKUP: Speculation = Speculation { drafting: Drafting::WherePays, lookup: true, max: 15 };

    /// Rows of logits of its largest step.
    pub fn logits_rows(self) -> u32 {
        if self.drafting == Drafting::Never { 1 } else { self.max.saturating_add(1) }
    }
}

/// Guesses that were computed for an answer, and those of them that became a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafts {
    pub proposed: u32,
    pub accepted: u32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            context: 4096,
            gpu_layers: Split::default(),
            cpu_moe: 0,
            kv_type_k: GgmlType::F16,
            kv_type_v: GgmlType::F16,
            ubatch: 512,
            mmap: true,
            mlock: false,
            logits_rows: 1,
            host_ram: None,
            speculation: Speculation::OFF,
            streaming: None,
        }
    }
}

/// A prompt to be continued.
#[derive(Clone, Debug)]
pub struct Request {
    /// The whole sequence so far; what it shares with the sequence computed before is not computed again.
    pub prompt: Vec<u32>,
    pub sampling: sampler::Params,
    /// Tokens to make at most; `None`: until the model ends or the context is full.
    pub max_tokens: Option<u32>,
    /// Go on after an end-of-generation token.
    pub ignore_eog: bool,
}

/// What happens while a request runs, in order. A sequence of `Token`s is bytes of the answer, UTF-8 as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The prompt is being read.
    Prompt { done: u32, total: u32, reused: u32 },
    /// One more token of the answer and the whole characters it completes (may be empty).
    Token { id: u32, text: String },
    /// Layers moved to keep going.
    Recovered(Recovery),
}

/// Why layers were taken off an accelerator without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryCause {
    /// An allocation or an operation found no room.
    OutOfMemory,
    /// The accelerator is gone.
    DeviceLost,
}

/// Layers moved away from an accelerator so that work goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub cause: RecoveryCause,
    /// The accelerator that failed, or was short of memory first.
    pub accelerator: usize,
    /// To the host.
    pub layers_moved: u32,
    /// To other accelerators.
    pub layers_shifted: u32,
    /// Layers that stayed and whose routed experts moved.
    pub experts_moved: u32,
    /// Layers on accelerators now.
    pub gpu_layers: u32,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn.
    EndOfGeneration,
    /// `max_tokens` were made.
    Length,
    /// Prompt and answer fill the context: raise it, or leave out old turns and ask again.
    ContextFull,
    Cancelled,
}

/// A finished request.
#[derive(Clone, Debug)]
pub struct Completion {
    pub ids: Vec<u32>,
    pub finish: Finish,
    pub prompt_tokens: u32,
    pub reused_tokens: u32,
    /// Seconds for the prompt (up to the first token) and for the tokens after it.
    pub prompt_seconds: f64,
    pub generation_seconds: f64,
    /// Tokens of the context in use now.
    pub context_used: u32,
    pub drafts: Drafts,
}

/// Where the layers are and what our own buffers take there, in bytes; planned equals used unless layers are moving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Layer by layer.
    pub placed: model::Placement,
    /// Layers on accelerators.
    pub gpu_layers: u32,
    /// Layers before this one have their routed experts on the host; of those on accelerators, so many.
    pub cpu_moe: u32,
    pub experts_apart: u32,
    /// All layers, the output layer counted.
    pub layers: u32,
    pub host_planned: u64,
    pub host_used: u64,
    /// By number.
    pub accelerators: Vec<Held>,
    /// Bytes that went to accelerators so far for layers that are on the host ([`LoadOptions::streaming`]).
    pub streamed: u64,
    /// Where RAM does not hold the weights on the host.
    pub paged: Option<Paged>,
}

/// What one accelerator has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The device is there: it was not lost.
    pub present: bool,
    pub layers: u32,
    pub planned: u64,
    pub used: u64,
}

impl Placement {
    /// There is an accelerator that was not lost.
    pub fn has_accelerator(&self) -> bool {
        self.accelerators.iter().any(|held| held.present)
    }

    /// Bytes on all accelerators.
    pub fn accelerator_planned(&self) -> u64 {
        self.accelerators.iter().map(|held| held.planned).sum()
    }

    pub fn accelerator_used(&self) -> u64 {
        self.accelerators.iter().map(|held| held.used).sum()
    }
}

/// Weights that come from disk and go again, as counted since layers were moved last, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paged {
    /// What may be in memory at a time.
    pub budget: u64,
    pub held: u64,
    pub most_held: u64,
    /// What was asked for.
    pub read: u64,
    /// Of that, past the system's cache.
    pub direct: u64,
    /// Experts that were guessed before the router had chosen and were not in memory, and those of them that it chose.
    pub guessed: u64,
    pub guessed_right: u64,
}
