//! The program `quictrack`: see [`leaf::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    leaf::cli::main(std::env::args_os().collect())
}
