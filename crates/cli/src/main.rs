//! The program `headroom`: everything the window does, for terminals and scripts.

mod args;
mod bench;
mod chat;
mod compute;
mod dev;
mod doctor;
mod failure;
mod given;
mod imatrix;
mod inspect;
mod library;
mod load;
mod output;
mod plan;
mod program;
mod pull;
mod quantize;
mod run;
mod search;
mod serve;
mod stream;
mod text;
mod verify;

use args::{Arguments, Command};
use clap::Parser;
use failure::Failure;
use program::Program;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(args::long_names(std::env::args_os())) {
        Ok(arguments) => arguments,
        // Help and version go to standard output, and are no failure.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            let text = error.render().to_string();
            output::note(format!("error [usage]: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end()));
            return ExitCode::from(2);
        }
    };
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::note(format!("error [{}]: {}", failure.code, failure.message));
            ExitCode::from(failure.exit_status())
        }
    }
}

fn start(arguments: &Arguments) -> Result<(), Failure> {
    let (program, runtime) = Program::new(arguments)?;
    let result = run(&program, &arguments.command);
    // Nobody waits for a name server or a disk that does not answer.
    runtime.shutdown_background();
    result
}

fn run(program: &Program, command: &Command) -> Result<(), Failure> {
    match command {
        Command::Inspect(options) => inspect::inspect(program, options),
        Command::Plan(options) => plan::plan(program, options),
        Command::Tokenize(options) => text::tokenize(program, options),
        Command::Detokenize(options) => text::detokenize(program, options),
        Command::Render(options) => text::render(program, options),
        Command::Logits(options) => compute::logits(program, options),
        Command::Generate(options) => compute::generate(program, options),
        Command::Perplexity(options) => compute::perplexity(program, options),
        Command::Quantize(options) => quantize::quantize(program, options),
        Command::Imatrix(options) => imatrix::imatrix(program, options),
        Command::Bench(options) => bench::bench(program, options),
        Command::Doctor => doctor::doctor(program),
        Command::Run(options) => run::run(program, options),
        Command::Chat(options) => chat::chat(program, options),
        Command::Serve(options) => serve::serve(program, options),
        Command::Search(options) => search::search(program, options),
        Command::Files(options) => search::files(program, options),
        Command::Pull(options) => pull::pull(program, options),
        Command::List => library::list(program),
        Command::Verify(options) => verify::verify(program, options),
        Command::Remove(options) => library::remove(program, options),
        Command::Dev(options) => dev::dev(program, options),
    }
}
