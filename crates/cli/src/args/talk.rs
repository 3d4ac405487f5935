//! Flags of the commands that talk: to the model and to the Hub.

use super::{Form, Loading, Sampling, Speculating, tokens};
use crate::failure::Failure;
use app::Defaults;
use clap::{Args, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Args)]
pub struct Run {
    /// A file, or the name of an installed model
    pub model: String,
    /// What to answer; standard input, if not given
    #[arg(short = 'p', long, allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Continue the prompt as it is, without the model's chat template
    #[arg(long, conflicts_with = "system")]
    pub raw: bool,
    #[command(flatten)]
    pub talk: Talk,
}

#[derive(Args)]
pub struct Chat {
    /// A file, or the name of an installed model
    pub model: String,
    #[command(flatten)]
    pub talk: Talk,
}

/// What answering a person takes.
#[derive(Args)]
pub struct Talk {
    /// What the model is told before everything else
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Tokens that an answer may have; -1, or if not given: until the model ends it
    #[arg(short = 'n', long = "tokens", value_name = "COUNT", allow_negative_numbers = true, value_parser = tokens)]
    pub count: Option<u32>,
    /// Go on with the conversation in this file, if there is one, and keep it there with what the model remembers of it
    #[arg(long, value_name = "FILE")]
    pub session: Option<PathBuf>,
    /// Whether a model that can do both thinks before it answers; as it does by itself, if not given
    #[arg(long, value_enum, value_name = "on|off")]
    pub think: Option<OnOff>,
    #[command(flatten)]
    pub form: Form,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub loading: Loading,
    #[command(flatten)]
    pub speculating: Speculating,
}

impl Talk {
    /// What an answer is like.
    pub fn defaults(&self) -> Result<Defaults, Failure> {
        defaults(&self.sampling, self.count, self.think)
    }
}

impl Serve {
    /// What an answer is like where a request does not say.
    pub fn defaults(&self) -> Result<Defaults, Failure> {
        defaults(&self.sampling, self.count, self.think)
    }
}

/// Another seed each time unless there is one.
fn defaults(sampling: &Sampling, count: Option<u32>, think: Option<OnOff>) -> Result<Defaults, Failure> {
    let sampling = sampling.params(sampler::Params { seed: app::random(), ..sampler::Params::default() })?;
    Ok(Defaults::new(sampling, count, think.map(|think| think == OnOff::On)))
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}

#[derive(Args)]
pub struct Serve {
    /// A file, or the name of an installed model
    pub model: String,
    /// Port to listen on; 0: any that is free
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Address to listen on; nobody but this PC, if not given
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub host: IpAddr,
    /// Answer only those who send the key that is in this file
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Web pages of this origin may ask, too, such as https://example.org; * for all. Those of this PC always may
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub origins: Vec<String>,
    /// Tokens that an answer may have where a request does not say; -1, or if not given: until the model ends it
    #[arg(short = 'n', long = "tokens", value_name = "COUNT", allow_negative_numbers = true, value_parser = tokens)]
    pub count: Option<u32>,
    /// Whether a model that can do both thinks before it answers, where a request does not say
    #[arg(long, value_enum, value_name = "on|off")]
    pub think: Option<OnOff>,
    #[command(flatten)]
    pub sampling: Sampling,
    #[command(flatten)]
    pub loading: Loading,
    #[command(flatten)]
    pub speculating: Speculating,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SearchSort {
    Downloads,
    Likes,
    Trending,
    Updated,
}

#[derive(Args)]
pub struct Search {
    /// What to look for; suggestions, if nothing is given
    pub words: Vec<String>,
    /// Which come first
    #[arg(long, value_enum, default_value_t = SearchSort::Downloads)]
    pub sort: SearchSort,
    /// The next page: `next` of the page before
    #[arg(long)]
    pub cursor: Option<String>,
}

#[derive(Args)]
pub struct Files {
    /// OWNER/NAME
    pub repo: String,
}

#[derive(Args)]
pub struct Pull {
    /// OWNER/NAME, with :QUANT or without, which takes the one recommended for this PC
    #[arg(value_name = "REPO[:QUANT]")]
    pub model: String,
}

#[derive(Args)]
pub struct Verify {
    /// An installed model: name, id, or OWNER/NAME:QUANT
    pub model: String,
}

#[derive(Args)]
pub struct Remove {
    /// An installed model: name, id, or OWNER/NAME:QUANT
    pub model: String,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,
}
