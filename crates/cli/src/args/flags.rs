//! Flags that several commands share, and how their values are read.

use crate::failure::Failure;
use app::wire::{GpuLayers, KvType, LoadSettings};
use backend_cpu::{Simd, SimdLevel};
use clap::{Args, ValueEnum};
use engine::{Drafting, Speculation};
use quant::GgmlType;
use quantize::Mix;
use std::path::{Path, PathBuf};

/// The most tokens that any count may be.
pub const MAX_TOKENS: i64 = 1 << 24;

/// Where a model runs and what its KV cache is made of.
#[derive(Args, Clone)]
pub struct Placement {
    /// Context length in tokens
    #[arg(short = 'c', long = "ctx-size", value_parser = clap::value_parser!(u32).range(1..=MAX_TOKENS))]
    pub context: Option<u32>,
    /// Layers on the GPU, or auto
    #[arg(long = "ngl", default_value = "auto", value_parser = gpu_layers, value_name = "N|auto")]
    pub gpu_layers: GpuLayers,
    /// Layers of a mixture of experts, from the first on, whose experts are computed on the CPU while the rest of them may
    /// be on the GPU, or auto
    #[arg(long, visible_alias = "ncmoe", default_value = "auto", value_parser = cpu_moe, value_name = "N|all|auto")]
    pub n_cpu_moe: CpuMoe,
    /// Type of the K cache
    #[arg(long = "ctk", default_value = "f16", value_parser = kv_type, value_name = "TYPE")]
    pub kv_type_k: KvType,
    /// Type of the V cache
    #[arg(long = "ctv", default_value = "f16", value_parser = kv_type, value_name = "TYPE")]
    pub kv_type_v: KvType,
}

impl Placement {
    /// As the crate `app` takes it.
    pub fn settings(&self) -> LoadSettings {
        LoadSettings {
            gpu_layers: self.gpu_layers,
            cpu_moe: self.n_cpu_moe.0,
            context: self.context,
            kv_type_k: self.kv_type_k,
            kv_type_v: self.kv_type_v,
            draft: None,
        }
    }
}

/// Layers whose experts are on the CPU; `None`: the planner's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuMoe(pub Option<u32>);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOffAuto {
    On,
    Off,
    Auto,
}

/// How a model is loaded and computed.
#[derive(Args, Clone)]
pub struct Loading {
    #[command(flatten)]
    pub placement: Placement,
    /// Threads that compute; all physical cores, if not given
    #[arg(short = 't', long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Tokens computed at once when a prompt is read; 512 and, where weights come from disk, as many as pay, if not given
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8192))]
    pub ubatch: Option<u32>,
    /// Keep activations in f32 instead of 8 bits
    #[arg(long)]
    pub exact: bool,
    /// Instructions to compute with, such as avx2, for comparisons; the best that the CPU has, if not given
    #[arg(long, value_parser = simd_level, value_name = "LEVEL")]
    pub simd: Option<SimdLevel>,
    /// Flash attention is how attention is computed here; the flag is accepted for scripts
    #[arg(long = "fa", value_enum, default_value_t = OnOffAuto::Auto)]
    pub flash_attention: OnOffAuto,
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    pub no_mmap: bool,
    /// Lock the weights in RAM
    #[arg(long)]
    pub mlock: bool,
    /// Offer a test device with this many bytes for layers (K, M, G allowed)
    #[arg(long, value_parser = bytes, hide = true)]
    pub test_device: Option<u64>,
}

/// Speculative decoding: several tokens in a step, guessed ahead. The tokens stay the same.
#[derive(Args, Clone)]
pub struct Speculating {
    /// Guess tokens ahead: as far as it pays (auto; bench: off), always, or never
    #[arg(long, value_enum)]
    pub speculate: Option<OnOffAuto>,
    /// Tokens guessed in a step at most
    #[arg(long, default_value_t = engine::Speculation::LOOKUP.max, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub draft_max: u32,
    /// Do not guess from what stands earlier in the text
    #[arg(long)]
    pub no_lookup: bool,
    /// A smaller model of the same vocabulary that guesses: a file, or the name of an installed model
    #[arg(long, visible_alias = "md", value_name = "MODEL")]
    pub draft_model: Option<String>,
}

impl Speculating {
    /// `default`: where the flags do not say when.
    pub fn speculation(&self, default: Drafting) -> Speculation {
        let drafting = match self.speculate {
            Some(OnOffAuto::On) => Drafting::Always,
            Some(OnOffAuto::Off) => Drafting::Never,
            Some(OnOffAuto::Auto) => Drafting::WherePays,
            None if self.draft_model.is_some() => Drafting::WherePays,
            None => default,
        };
        Speculation { drafting, lookup: !self.no_lookup, max: self.draft_max }
    }
}

#[derive(Args, Clone)]
pub struct Sampling {
    /// How varied answers are; 0: always the likeliest token [default: 0.8]
    #[arg(long = "temp", value_name = "TEMPERATURE", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Choose among this many of the likeliest tokens; 0: all [default: 40]
    #[arg(long, value_name = "COUNT")]
    pub top_k: Option<u32>,
    /// Choose among the fewest tokens whose probabilities sum to this; 1: all [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Choose among tokens at least this many times as likely as the likeliest; 0: all [default: 0.05]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Make tokens that came recently less likely; 1: off [default: 1]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    pub repeat_penalty: Option<f32>,
    /// How many tokens are recent, for all three penalties [default: 64]
    #[arg(long, value_name = "COUNT")]
    pub repeat_last_n: Option<u32>,
    /// The same by a fixed amount; 0: off [default: 0]
    #[arg(long, value_name = "AMOUNT", allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// The same by an amount for each time that a token came; 0: off [default: 0]
    #[arg(long, value_name = "AMOUNT", allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// The same number gives the same answer; another one each time, if not given
    #[arg(long)]
    pub seed: Option<u64>,
}

impl Sampling {
    /// Sampling parameters from the flags, over `base`.
    ///
    /// # Errors
    /// A parameter out of its range, which is the same as a wrong flag.
    pub fn params(&self, base: sampler::Params) -> Result<sampler::Params, Failure> {
        let params = sampler::Params {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(base.repeat_penalty),
            repeat_last_n: self.repeat_last_n.unwrap_or(base.repeat_last_n),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            seed: self.seed.unwrap_or(base.seed),
            ..base
        };
        params.validate().map_err(Failure::usage)?;
        Ok(params)
    }
}

/// What an answer must look like.
#[derive(Args, Clone)]
#[group(multiple = false)]
pub struct Form {
    /// The answer is JSON that is valid under this schema: a file, or the schema itself
    #[arg(long, value_name = "FILE|JSON", allow_hyphen_values = true)]
    pub json_schema: Option<String>,
    /// The answer is a text of this grammar, in GBNF or Lark's syntax
    #[arg(long, value_name = "FILE")]
    pub grammar: Option<PathBuf>,
}

impl Form {
    /// # Errors
    /// A file that cannot be read.
    pub fn read(&self) -> Result<Option<grammar::Form>, Failure> {
        let read = |path: &Path| {
            let size = std::fs::metadata(path).map_err(|error| Failure::io(path, error))?.len();
            if size > grammar::limits::MAX_TEXT as u64 {
                let max = grammar::limits::MAX_TEXT;
                return Err(Failure::usage(format!("{} has {size} bytes; at most {max} are taken", path.display())));
            }
            crate::given::text_of_file(path)
        };
        match (&self.json_schema, &self.grammar) {
            // A schema is an object; no file is called like one.
            (Some(text), _) if text.trim_start().starts_with('{') => Ok(Some(grammar::Form::JsonSchema(text.clone()))),
            (Some(file), _) => Ok(Some(grammar::Form::JsonSchema(read(Path::new(file))?))),
            (None, Some(file)) => Ok(Some(grammar::Form::Grammar(read(file)?))),
            (None, None) => Ok(None),
        }
    }
}

/// The tokens of an answer; -1 is no limit, as in other programs of the field.
pub fn tokens(text: &str) -> Result<u32, String> {
    match text {
        "-1" => Ok(u32::MAX),
        text => text.parse().map_err(|_| format!("'{text}' is neither a number of tokens nor -1, which is no limit")),
    }
}

pub fn ggml_type(text: &str) -> Result<GgmlType, String> {
    GgmlType::from_name(text).ok_or_else(|| format!("there is no type '{text}'"))
}

pub fn mix(text: &str) -> Result<Mix, String> {
    let all = || Mix::all().map(Mix::name).collect::<Vec<_>>().join(", ");
    Mix::from_name(text).ok_or_else(|| format!("there is no such type to write; there are {}", all()))
}

fn kv_type(text: &str) -> Result<KvType, String> {
    let all = || KvType::ALL.map(|ty| ty.ggml_type().name().to_lowercase()).join(", ");
    KvType::from_name(text)
        .ok_or_else(|| format!("a KV cache of type {text} is not supported; supported are {}", all()))
}

/// The name of a level in one word.
fn simd_word(level: SimdLevel) -> String {
    level.name().to_lowercase().replace(' ', "-")
}

fn simd_level(text: &str) -> Result<SimdLevel, String> {
    let here = || SimdLevel::ALL.into_iter().filter(|level| Simd::with(*level).is_some());
    here().find(|level| simd_word(*level).eq_ignore_ascii_case(text)).ok_or_else(|| {
        let all: Vec<String> = here().map(simd_word).collect();
        format!("this CPU has {}", all.join(", "))
    })
}

fn cpu_moe(text: &str) -> Result<CpuMoe, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(CpuMoe(None));
    }
    let layers = if text.eq_ignore_ascii_case("all") { Ok(u32::MAX) } else { text.parse() };
    layers.map(|layers| CpuMoe(Some(layers))).map_err(|_| format!("'{text}' is neither a number nor all nor auto"))
}

fn gpu_layers(text: &str) -> Result<GpuLayers, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(GpuLayers::Auto);
    }
    text.parse().map(|layers| GpuLayers::Fixed { layers }).map_err(|_| format!("'{text}' is neither a number nor auto"))
}

/// "1500", "12G", "512M", "64K" (powers of 1024).
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim().trim_end_matches(['B', 'b']).trim_end_matches('i');
    let (digits, shift) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 10),
        Some('m' | 'M') => (&text[..text.len() - 1], 20),
        Some('g' | 'G') => (&text[..text.len() - 1], 30),
        Some('t' | 'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: f64 = digits.parse().map_err(|_| format!("'{text}' is not a number of bytes"))?;
    if !(number >= 0.0 && number < 1e6 * (1u64 << 40) as f64) {
        return Err(format!("'{text}' is outside what memory can be"));
    }
    Ok((number * (1u64 << shift) as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("1500"), Ok(1500));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert!(bytes("-1").is_err() && bytes("x").is_err() && bytes("").is_err() && bytes("nan").is_err());
    }
}
