//! `conformance DIR`: see the library. Exit status 1 if anything differs by more than the data's own tolerances.

use std::process::ExitCode;

fn main() -> ExitCode {
    match conformance::run(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}
