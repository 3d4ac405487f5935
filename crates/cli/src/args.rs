//! The one table of commands and flags.

use clap::{Args, Parser, Subcommand, ValueEnum};
use quant::GgmlType;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "headroom", version, about = "Run large GGUF language models on a PC short of memory")]
pub struct Arguments {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// What a model file holds
    Inspect(Inspect),
    /// What goes where and how fast it will be, before loading
    Plan(Plan),
    /// Text to token ids
    Tokenize(Tokenize),
    /// Token ids to bytes, on standard output
    Detokenize(Detokenize),
    /// A conversation through the model's chat template
    Render(Render),
    /// Logits of a sequence of token ids, as raw little-endian f32
    Logits(Logits),
    /// Continue a sequence of token ids
    Generate(Generate),
    /// Perplexity of a text
    Perplexity(Perplexity),
    /// Measure prompt and generation speed
    Bench(Bench),
    /// Tools for developers
    Dev(Dev),
}

/// Flags with one dash and several letters, as other programs of the field spell them.
const SINGLE_DASH: &[&str] = &["-ngl", "-ctk", "-ctv", "-fa"];

/// Turns `-ngl` and its kind into long flags, which is what the parser knows.
pub fn long_names(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    arguments
        .map(|argument| match argument.to_str() {
            Some(text) if SINGLE_DASH.contains(&text) => format!("-{text}").into(),
            _ => argument,
        })
        .collect()
}

#[derive(Args)]
pub struct Inspect {
    pub model: String,
}

#[derive(Args)]
pub struct Plan {
    /// A file, the name of an installed model, or REPO/FILE.gguf on the Hub
    pub model: String,
    #[command(flatten)]
    pub placement: Placement,
    /// RAM to plan for, in bytes (K, M, G allowed); what is available now, if not given
    #[arg(long, value_parser = bytes)]
    pub ram: Option<u64>,
    /// Video memory to plan for, in bytes (K, M, G allowed)
    #[arg(long, value_parser = bytes)]
    pub vram: Option<u64>,
}

#[derive(Args)]
pub struct Tokenize {
    pub model: String,
    #[command(flatten)]
    pub source: TextSource,
    /// Add no BOS or EOS, and take special tokens in the text as plain text
    #[arg(long)]
    pub no_special: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct TextSource {
    #[arg(long, allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Bytes as hexadecimal digits
    #[arg(long)]
    pub hex: Option<String>,
    #[arg(long)]
    pub file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Detokenize {
    pub model: String,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,
}

#[derive(Args)]
pub struct Render {
    /// Take the template, BOS and EOS of this model
    #[arg(long, conflicts_with = "template", required_unless_present = "template")]
    pub model: Option<String>,
    /// A Jinja template
    #[arg(long)]
    pub template: Option<PathBuf>,
    #[arg(long, default_value = "")]
    pub bos: String,
    #[arg(long, default_value = "")]
    pub eos: String,
    /// JSON with messages, tools and whatever else the template reads
    #[arg(long)]
    pub input: PathBuf,
    /// The time that strftime_now tells, such as 2025-07-26T12:34:56
    #[arg(long)]
    pub now: Option<String>,
}

/// Where a model runs and what its KV cache is made of.
#[derive(Args, Clone)]
pub struct Placement {
    /// Context length in tokens
    #[arg(short = 'c', long = "ctx-size")]
    pub context: Option<u32>,
    /// Layers on the GPU, or auto
    #[arg(long = "ngl", default_value = "auto", value_parser = gpu_layers, value_name = "N|auto")]
    pub gpu_layers: planner::GpuLayers,
    /// Type of the K cache
    #[arg(long = "ctk", default_value = "f16", value_parser = kv_type, value_name = "TYPE")]
    pub kv_type_k: GgmlType,
    /// Type of the V cache
    #[arg(long = "ctv", default_value = "f16", value_parser = kv_type, value_name = "TYPE")]
    pub kv_type_v: GgmlType,
}

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
    #[arg(short = 't', long)]
    pub threads: Option<usize>,
    /// Tokens computed at once when a prompt is read
    #[arg(long, default_value_t = 512)]
    pub ubatch: u32,
    /// Keep activations in f32 instead of 8 bits
    #[arg(long)]
    pub exact: bool,
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

#[derive(Args, Clone)]
pub struct Sampling {
    /// 0: always the likeliest token
    #[arg(long = "temp")]
    pub temperature: Option<f32>,
    #[arg(long)]
    pub top_k: Option<u32>,
    #[arg(long)]
    pub top_p: Option<f32>,
    #[arg(long)]
    pub min_p: Option<f32>,
    #[arg(long)]
    pub repeat_penalty: Option<f32>,
    #[arg(long)]
    pub repeat_last_n: Option<u32>,
    #[arg(long)]
    pub presence_penalty: Option<f32>,
    #[arg(long)]
    pub frequency_penalty: Option<f32>,
    #[arg(long)]
    pub seed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    All,
    Last,
}

#[derive(Args)]
pub struct Logits {
    pub model: String,
    #[arg(long, value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,
    /// Where the values go
    #[arg(short = 'o', long)]
    pub output: PathBuf,
    #[arg(long, value_enum, default_value_t = Rows::All)]
    pub positions: Rows,
    #[command(flatten)]
    pub loading: Loading,
}

#[derive(Args)]
pub struct Generate {
    pub model: String,
    #[arg(long, value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,
    /// Tokens to make
    #[arg(short = 'n', long = "tokens")]
    pub count: u32,
    /// Go on after an end-of-generation token
    #[arg(long)]
    pub ignore_eos: bool,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub loading: Loading,
}

#[derive(Args)]
pub struct Perplexity {
    pub model: String,
    #[arg(long)]
    pub file: PathBuf,
    #[command(flatten)]
    pub loading: Loading,
}

#[derive(Args)]
pub struct Bench {
    pub model: String,
    /// Tokens of the prompt
    #[arg(short = 'p', long, default_value_t = 512)]
    pub prompt: u32,
    /// Tokens to generate
    #[arg(short = 'n', long = "tokens", default_value_t = 64)]
    pub count: u32,
    /// Tokens in the context beforehand
    #[arg(short = 'd', long, default_value_t = 0)]
    pub depth: u32,
    /// Repetitions
    #[arg(short = 'r', long, default_value_t = 5)]
    pub repeat: u32,
    #[command(flatten)]
    pub loading: Loading,
}

#[derive(Args)]
pub struct Dev {
    #[command(subcommand)]
    pub command: DevCommand,
}

#[derive(Subcommand)]
pub enum DevCommand {
    /// Rows of packed blocks to rows of f32
    Dequantize(Rowwise),
    /// Rows of f32 to rows of packed blocks
    Quantize(Rowwise),
}

#[derive(Args)]
pub struct Rowwise {
    #[arg(long = "type", value_parser = ggml_type)]
    pub ty: GgmlType,
    /// Values in a row
    #[arg(long = "cols")]
    pub columns: usize,
    /// f32 importance of each column, for quantizing
    #[arg(long)]
    pub imatrix: Option<PathBuf>,
    pub input: PathBuf,
    pub output: PathBuf,
}

fn ggml_type(text: &str) -> Result<GgmlType, String> {
    GgmlType::from_name(text).ok_or_else(|| format!("there is no type '{text}'"))
}

fn kv_type(text: &str) -> Result<GgmlType, String> {
    let ty = ggml_type(text)?;
    match ty {
        GgmlType::F32 | GgmlType::F16 | GgmlType::Q8_0 => Ok(ty),
        _ => Err(format!("a KV cache of type {ty} is not supported; supported are f32, f16, q8_0")),
    }
}

fn gpu_layers(text: &str) -> Result<planner::GpuLayers, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(planner::GpuLayers::Auto);
    }
    text.parse().map(planner::GpuLayers::Fixed).map_err(|_| format!("'{text}' is neither a number nor auto"))
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
    use clap::CommandFactory;

    #[test]
    fn the_table_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes("1500"), Ok(1500));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert!(bytes("-1").is_err() && bytes("x").is_err() && bytes("").is_err() && bytes("nan").is_err());
    }

    #[test]
    fn flags_of_the_field_are_known() {
        let words = ["headroom", "bench", "m.gguf", "-ngl", "12", "-ctk", "q8_0", "-fa", "on", "-p", "64"];
        let arguments = Arguments::try_parse_from(long_names(words.iter().map(OsString::from))).unwrap();
        let Command::Bench(bench) = arguments.command else { panic!("not bench") };
        assert_eq!(bench.loading.placement.gpu_layers, planner::GpuLayers::Fixed(12));
        assert_eq!(bench.loading.placement.kv_type_k, GgmlType::Q8_0);
        assert_eq!(bench.prompt, 64);
    }
}
