//! `leaf`: the daemon.

use clap::Args;
use overlay::{
    config::LeafOptions,
    console::{Exit, Failure},
};

use super::Context;
use crate::daemon;

// The options of the daemon.
#[expect(missing_docs, reason = "clap would take the text for the description of the command")]
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(flatten)]
    options: LeafOptions,
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let options = arguments.options.layer(&context.environment)?;
    daemon::run(&context.surroundings(), options).await
}
