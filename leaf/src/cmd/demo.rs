//! `demo`: a small network on this machine.

use std::path::PathBuf;

use clap::Args;
use overlay::console::{Exit, Failure};

use super::Context;
use crate::demo::{self, Wish};

/// What `demo` takes.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Folder to share, /usr/share/doc if none is given
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// What to search for
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// End after the download
    #[arg(long)]
    once: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// What went wrong in it.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let Arguments { share, query, once } = arguments;
    demo::run(&context.console, &context.global, Wish { share, query, once }).await
}
