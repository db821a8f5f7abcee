//! The program `quictrack-ultrapeer`: see [`ultrapeer::program`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ultrapeer::program::main(std::env::args_os().collect())
}
