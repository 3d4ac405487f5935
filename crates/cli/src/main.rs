//! The program `headroom`: everything the window does, for terminals and scripts.

mod args;
mod bench;
mod compute;
mod dev;
mod failure;
mod inspect;
mod load;
mod output;
mod plan;
mod text;

use args::{Arguments, Command};
use clap::Parser;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    // clap itself prints usage errors and ends with status 2.
    let arguments = Arguments::parse_from(args::long_names(std::env::args_os()));
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error [{}]: {}", failure.code, failure.message);
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let json = arguments.json;
    match &arguments.command {
        Command::Inspect(options) => inspect::inspect(options, json),
        Command::Plan(options) => plan::plan(options, json),
        Command::Tokenize(options) => text::tokenize(options, json),
        Command::Detokenize(options) => text::detokenize(options),
        Command::Render(options) => text::render(options),
        Command::Logits(options) => compute::logits(options, json),
        Command::Generate(options) => compute::generate(options, json),
        Command::Perplexity(options) => compute::perplexity(options, json),
        Command::Bench(options) => bench::bench(options, json),
        Command::Dev(options) => dev::dev(options),
    }
}
