//! Flags of the commands that talk: to the model and to the Hub.

use super::{Form, Loading, Sampling, Speculating};
use clap::{Args, ValueEnum};
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
    /// Tokens that an answer may have; until the model ends it, if not given
    #[arg(short = 'n', long = "tokens")]
    pub count: Option<u32>,
    /// Go on with the conversation in this file, if there is one, and keep it there with what the model remembers of it
    #[arg(long, value_name = "FILE")]
    pub session: Option<PathBuf>,
    #[command(flatten)]
    pub form: Form,
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
pub struct Remove {
    /// An installed model: name, id, or OWNER/NAME:QUANT
    pub model: String,
    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,
}
