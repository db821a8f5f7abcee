//! The program `quictrack-ultrapeer`: its command line, its daemon, and the daemon's HTTP.
//!
//! | module | what it is |
//! |---|---|
//! | `cli` | commands and options |
//! | `daemon` | the daemon: an ultrapeer from the first socket to the last |
//! | `api` | its endpoints |
//! | `view` | what it says of itself: `status` and `peers` |
//! | `commands` | commands that ask it |

mod api;
mod cli;
mod commands;
mod daemon;
mod view;

use clap::CommandFactory;
use overlay::{
    admin::Code,
    commands as common,
    config::Program,
    console::{Console, Exit, Failure},
    environment::Environment,
};

pub use self::cli::Cli;
use self::cli::Command;

/// Runs what the command line asks for.
///
/// # Errors
/// What the user is told.
pub async fn run(cli: Cli, environment: &Environment, console: &Console) -> Result<Exit, Failure> {
    let at = common::Surroundings { program: Program::Ultrapeer, global: &cli.global, environment, console };
    let options = cli.options.layer(environment)?;
    let Some(command) = &cli.command else {
        return daemon::run(&at, options).await;
    };
    if let Some((key, _)) = options.iter().next() {
        let option = key.replace('_', "-");
        return Err(Failure::new(Code::BadRequest, format!("--{option} must stand after the command"))
            .hint("usage: quictrack-ultrapeer [run] [OPTIONS]"));
    }
    match command {
        Command::Run(run) => daemon::run(&at, run.options.layer(environment)?).await,
        Command::Status => commands::status(&at).await,
        Command::Peers => commands::peers(&at).await,
        Command::Drain => commands::drain(&at).await,
        Command::Id => common::id(&at),
        Command::Config(arguments) => common::config(&at, arguments).await,
        Command::Completions { shell } => common::completions(console, Cli::command(), *shell),
        Command::Man => common::man(console, Cli::command()),
    }
}
