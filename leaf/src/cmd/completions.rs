//! `completions`: what a shell needs to complete the command line. Needs no daemon.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use overlay::console::{Exit, Failure};

use super::Context;
use crate::cli::Cli;

/// For which shell.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Runs it.
///
/// # Errors
/// A reader that left.
pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "quictrack", &mut script);
    context.console.bytes(&script)?;
    Ok(Exit::Done)
}
