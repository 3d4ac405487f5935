//! `cargo xtask neon`: the kernels of AArch64, tested on any Linux machine.

use crate::command::{Step, cargo};
use crate::setup::{self, AARCH64_ROOT};
use anyhow::Result;
use std::process::ExitCode;

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// CPUs that are emulated: one with all instructions, one without i8mm, and one without dotprod, too.
const CPUS: [&str; 3] = ["max", "cortex-a76", "cortex-a72"];

pub fn neon(arguments: &[String]) -> Result<ExitCode> {
    let of = |verb: &str, more: &[&str]| -> Step {
        let words = [verb, "-p", "backend-cpu", "--target", TARGET].into_iter().chain(more.iter().copied());
        cargo(&words.map(String::from).chain(arguments.iter().cloned()).collect::<Vec<_>>())
    };
    if cfg!(all(target_arch = "aarch64", target_os = "linux")) {
        return of("test", &[]).done();
    }
    setup::for_neon(TARGET)?;
    let lints = ["clippy", "-p", "backend-cpu", "--all-targets", "--quiet", "--target", TARGET, "--", "-D", "warnings"];
    cargo(&lints).run()?;
    for (index, cpu) in CPUS.into_iter().enumerate() {
        // The first one has every level; the others prove that they choose what they have.
        of("test", if index == 0 { &[] } else { &["--lib"] })
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", format!("qemu-aarch64 -cpu {cpu} -L {AARCH64_ROOT}"))
            .env("HEADROOM_EMULATED_CPU", cpu)
            .run()?;
    }
    Ok(ExitCode::SUCCESS)
}
