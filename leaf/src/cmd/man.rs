//! `man`: the manual, a page for the program and one for each command. Needs no daemon.

use clap::{Command, CommandFactory};
use overlay::console::{Exit, Failure};

use super::Context;
use crate::cli::Cli;

/// Runs it.
///
/// # Errors
/// A reader that left.
pub fn run(context: &Context) -> Result<Exit, Failure> {
    let mut program = Cli::command();
    program.build();
    let mut manual = Vec::new();
    append(&program, program.get_name(), &mut manual)?;
    context.console.bytes(&manual)?;
    Ok(Exit::Done)
}

/// The page of a command, then those of the commands in it.
fn append(command: &Command, name: &str, manual: &mut Vec<u8>) -> Result<(), Failure> {
    // Its heading is all that clap does not qualify with the names of the commands around it.
    clap_mangen::Man::new(command.clone().name(name.to_owned())).render(manual)?;
    let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set());
    for inner in inner {
        append(inner, &format!("{name}-{}", inner.get_name()), manual)?;
    }
    Ok(())
}
