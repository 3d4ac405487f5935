//! `cargo xtask`: everything a developer does with this repository, on a fresh machine too.

mod bundle;
mod command;
mod conformance;
mod gpu_suite;
mod kernels;
mod neon;
mod notices;
mod peer;
mod prove;
mod run;
mod setup;
mod test;
mod tidy;
mod windows;

use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "cargo xtask COMMAND

  run [--demo] [ARGS]   install what is missing, build, open the app (--demo: with the bundled tiny model loaded)
  bundle [--target TRIPLE]
                        what people install: deb and rpm on Linux, an installer on Windows; on Linux also
                        with --target x86_64-pc-windows-gnu
  test [--quick] [--seed=N|random]
                        install what is missing, run every check (--quick: without the real window; --seed: property
                        tests with other random inputs)
  tidy                  check the house: structure, lengths, unsafe, forbidden words
  bindings              rewrite ui/src/ipc/bindings.ts from the Rust types
  conformance DIR       compare with the reference data in DIR (models, quants, dequant, tokenizer, templates)
  kernels [--check] [--prove [--only=ptx,sanitizers,mutants,barriers] [--mutants=NUMBER] [--jobs=NUMBER] [--resume]]
                        compile the CUDA kernels to PTX with a pinned compiler, which is installed into target;
                        compare with what is committed and assemble it; run the tests on the PTX itself, under
                        sanitizers, and with mutants of the PTX, so many of each file, and with each of its
                        barriers left out, which must not pass; so many at once (--resume: what is left of it)
  neon [TEST]           check and test the kernels of AArch64 CPUs under an emulator (Linux)
  gpu-suite --pack FOLDER [--reference DIR] [--dev]
                        a folder with all that a machine with a GPU needs to check and measure: start gpu-suite in it
                        (--reference: with the models to compare with; --dev: unoptimized, to try it without a GPU)
  bench MODEL [ARGS]    measure the engine on a model (release build)
  bench --peer llama.cpp|ik_llama.cpp MODEL... [--rounds N] [--threads N] [--tokens N] [--depth N] [--kv f16,q8_0] [--busy] [--level avx2]
                        a table of ours beside llama.cpp, built for this machine with and without its repacking, and
                        beside the limits of the machine (--depth: also behind so many tokens, with these KV caches;
                        --busy: also beside a process that keeps a core busy)
  setup                 only install what is missing";

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => bail!("{USAGE}"),
    };
    std::env::set_current_dir(root())?;
    match name {
        "run" => run::run(rest),
        "test" => test::test(rest),
        "tidy" => tidy::tidy().map(|()| ExitCode::SUCCESS),
        "bindings" => command::cargo(&["run", "--quiet", "-p", "app", "--example", "bindings"]).done(),
        "conformance" => conformance::conformance(rest),
        "kernels" => kernels::kernels(rest),
        "neon" => neon::neon(rest),
        "gpu-suite" => gpu_suite::gpu_suite(rest),
        "bench" if rest.iter().any(|argument| argument == "--peer") => peer::bench(rest),
        "bench" => run::bench(rest),
        "bundle" => bundle::bundle(rest),
        "setup" => setup::everything().map(|()| ExitCode::SUCCESS),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("unknown command '{other}'\n\n{USAGE}"),
    }
}

/// The repository's root: two above this crate.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).unwrap_or(here)
}
