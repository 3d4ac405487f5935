//! The one table of commands and flags.

mod flags;
mod talk;

pub use flags::*;
pub use talk::*;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quant::GgmlType;
use quantize::Mix;
use std::ffi::OsString;
use std::path::PathBuf;

/// Above the flags that every command takes.
const FOR_ALL: &str = "Options of all commands";

#[derive(Parser)]
#[command(name = "headroom", version, about = "Run large GGUF language models on a PC short of memory")]
pub struct Arguments {
    /// Print one JSON object instead of text
    #[arg(long, global = true, help_heading = FOR_ALL)]
    pub json: bool,
    /// Settings, models and chats are in this folder
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the Hub, before HF_ENDPOINT
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Leave the GPU alone: everything runs on the CPU
    #[arg(long, global = true, help_heading = FOR_ALL)]
    pub no_gpu: bool,
    /// Take these GPUs: numbers or parts of their names, as `headroom doctor` shows them, separated by commas; or all
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "N|NAME,...|all")]
    #[arg(value_delimiter = ',', conflicts_with = "no_gpu")]
    pub gpu: Vec<String>,
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
    /// Convert a model to a smaller type, such as F16 to Q4_K_M
    Quantize(Quantize),
    /// Measure over a text which columns of a model's matrices matter, for quantize --imatrix
    Imatrix(Measure),
    /// Measure prompt and generation speed
    Bench(Bench),
    /// What this machine can do: hardware, driver, bandwidths
    Doctor,
    /// Answer one prompt
    Run(Run),
    /// A conversation in the terminal
    Chat(Chat),
    /// Let other programs use a model, over HTTP as OpenAI's: chats, completions, tools
    Serve(Serve),
    /// Models on the Hub
    Search(Search),
    /// The quantizations of a repository on the Hub
    Files(Files),
    /// Download a model: resumes what was begun, verifies what has arrived
    Pull(Pull),
    /// Installed models
    List,
    /// Compare an installed model's bytes with what the Hub said of them
    Verify(Verify),
    /// Delete an installed model
    Remove(Remove),
    /// Tools for developers
    Dev(Dev),
}

/// Flags with one dash and several letters, as other programs of the field spell them.
const SINGLE_DASH: &[&str] = &["-ngl", "-ctk", "-ctv", "-fa", "-md", "-ncmoe"];

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
    /// A file, or the name of an installed model
    pub model: String,
}

#[derive(Args)]
pub struct Plan {
    /// A file, the name of an installed model, or on the Hub REPO/FILE.gguf or REPO:QUANT
    pub model: String,
    #[command(flatten)]
    pub placement: Placement,
    /// RAM to plan for, in bytes (K, M, G allowed); what is available now, if not given
    #[arg(long, value_parser = bytes)]
    pub ram: Option<u64>,
    /// Video memory to plan for, in bytes (K, M, G allowed); of several GPUs: 8G,12G
    #[arg(long, value_parser = bytes, value_delimiter = ',', value_name = "BYTES")]
    pub vram: Vec<u64>,
    /// A smaller model that guesses tokens; what it takes is counted
    #[arg(long, visible_alias = "md", value_name = "MODEL")]
    pub draft_model: Option<String>,
}

#[derive(Args)]
pub struct Tokenize {
    /// A file, or the name of an installed model
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
    /// The text itself
    #[arg(long, allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Bytes as hexadecimal digits
    #[arg(long)]
    pub hex: Option<String>,
    /// A file with the text
    #[arg(long)]
    pub file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Detokenize {
    /// A file, or the name of an installed model
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
    /// The text of the token that begins a prompt
    #[arg(long, default_value = "")]
    pub bos: String,
    /// The text of the token that ends an answer
    #[arg(long, default_value = "")]
    pub eos: String,
    /// JSON with messages, tools and whatever else the template reads
    #[arg(long)]
    pub input: PathBuf,
    /// The time that strftime_now tells, such as 2025-07-26T12:34:56
    #[arg(long)]
    pub now: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rows {
    All,
    Last,
}

#[derive(Args)]
pub struct Logits {
    /// A file, or the name of an installed model
    pub model: String,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,
    /// Where the values go
    #[arg(short = 'o', long)]
    pub output: PathBuf,
    /// Of which positions
    #[arg(long, value_enum, default_value_t = Rows::All)]
    pub positions: Rows,
    #[command(flatten)]
    pub loading: Loading,
}

#[derive(Args)]
pub struct Generate {
    /// A file, or the name of an installed model
    pub model: String,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,
    /// Tokens to make
    #[arg(short = 'n', long = "tokens")]
    pub count: u32,
    /// Go on after an end-of-generation token
    #[arg(long)]
    pub ignore_eos: bool,
    #[command(flatten)]
    pub form: Form,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub loading: Loading,
    #[command(flatten)]
    pub speculating: Speculating,
}

#[derive(Args)]
pub struct Perplexity {
    /// A file, or the name of an installed model
    pub model: String,
    /// A file with the text
    #[arg(long)]
    pub file: PathBuf,
    #[command(flatten)]
    pub loading: Loading,
}

#[derive(Args)]
pub struct Quantize {
    /// A model, best F16, BF16 or F32; for a split one, any part
    #[arg(value_name = "IN")]
    pub input: String,
    /// The file to write; it appears when it is complete
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Q4_K_M, Q6_K, IQ4_XS, MXFP4, ...; a wrong one lists all
    #[arg(value_name = "TYPE", value_parser = mix)]
    pub mix: Mix,
    /// An importance matrix in GGUF: which columns matter more
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Threads that convert; all cores, if not given
    #[arg(short = 't', long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

#[derive(Args)]
pub struct Measure {
    /// A file, or the name of an installed model
    pub model: String,
    /// A text like those that the model will be used for
    #[arg(long)]
    pub file: PathBuf,
    /// Where the importance matrix goes
    #[arg(short = 'o', long)]
    pub output: PathBuf,
    /// Tokens computed together
    #[arg(short = 'c', long = "ctx-size", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=MAX_TOKENS))]
    pub context: u32,
    /// Pieces of the text at most
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    /// Threads that compute; all cores, if not given
    #[arg(short = 't', long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

#[derive(Args)]
pub struct Bench {
    /// A file, or the name of an installed model
    pub model: String,
    /// Tokens of the prompt
    #[arg(short = 'p', long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(0..=MAX_TOKENS))]
    pub prompt: u32,
    /// Tokens to generate
    #[arg(short = 'n', long = "tokens", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=MAX_TOKENS))]
    pub count: u32,
    /// Tokens in the context beforehand
    #[arg(short = 'd', long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=MAX_TOKENS))]
    pub depth: u32,
    /// Repetitions
    #[arg(short = 'r', long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    #[command(flatten)]
    pub loading: Loading,
    #[command(flatten)]
    pub speculating: Speculating,
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
    /// Write the pages of the manual into a folder, for packages
    Man {
        /// Where they go; it is there
        folder: PathBuf,
    },
}

#[derive(Args)]
pub struct Rowwise {
    /// Type of the blocks, such as Q4_K
    #[arg(long = "type", value_parser = ggml_type)]
    pub ty: GgmlType,
    /// Values in a row
    #[arg(long = "cols")]
    pub columns: usize,
    /// f32 importance of each column, for quantizing
    #[arg(long)]
    pub imatrix: Option<PathBuf>,
    /// The file to read
    pub input: PathBuf,
    /// The file to write
    pub output: PathBuf,
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
    fn flags_of_the_field_are_known() {
        let words = "headroom bench m.gguf -ngl 12 -ctk q8_0 -fa on -p 64 -ncmoe 3 -md small.gguf --draft-max 8";
        let arguments = Arguments::try_parse_from(long_names(words.split(' ').map(OsString::from))).unwrap();
        let Command::Bench(bench) = arguments.command else { panic!("not bench") };
        assert_eq!(bench.loading.placement.gpu_layers, app::wire::GpuLayers::Fixed { layers: 12 });
        assert_eq!(bench.loading.placement.kv_type_k, app::wire::KvType::Q8_0);
        assert_eq!(bench.loading.placement.n_cpu_moe, CpuMoe(Some(3)));
        assert_eq!(bench.prompt, 64);
        assert_eq!(bench.speculating.draft_model.as_deref(), Some("small.gguf"));
        let speculation = bench.speculating.speculation(engine::Drafting::Never);
        assert_eq!((speculation.drafting, speculation.max), (engine::Drafting::WherePays, 8));
    }

    #[test]
    fn every_flag_says_what_it_is_for() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let told = argument.get_help().is_some_and(|help| !help.to_string().is_empty());
                assert!(told, "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = Arguments::command();
        command.build();
        check(&command);
    }

    #[test]
    fn minus_one_is_no_limit_as_elsewhere() {
        let parsed = |count: &str| {
            let words = ["headroom", "run", "m.gguf", "-n", count].map(OsString::from);
            Arguments::try_parse_from(words).map(|arguments| match arguments.command {
                Command::Run(run) => run.talk.count,
                _ => panic!("not run"),
            })
        };
        assert_eq!(parsed("-1").ok(), Some(Some(u32::MAX)));
        assert_eq!(parsed("7").ok(), Some(Some(7)));
        assert!(parsed("-2").is_err() && parsed("many").is_err());
    }

    #[test]
    fn instructions_are_those_of_the_cpu() {
        let parsed = |level: &str| {
            let words = ["headroom", "bench", "m.gguf", "--simd", level].map(OsString::from);
            Arguments::try_parse_from(words).map(|arguments| match arguments.command {
                Command::Bench(bench) => bench.loading.simd,
                _ => panic!("not bench"),
            })
        };
        for level in backend_cpu::SimdLevel::ALL {
            let found = parsed(&level.name().to_lowercase().replace(' ', "-"));
            let there = backend_cpu::Simd::with(level).is_some();
            assert_eq!(found.ok(), there.then_some(Some(level)), "{level:?}");
        }
        assert!(parsed("mmx").is_err());
    }
}
