//! The program `quictrack-ultrapeer`: its command line, its daemon, and the daemon's HTTP.
//!
//! | module | what it is |
//! |---|---|
//! | `cli` | commands and options |
//! | `daemon` | the daemon: an ultrapeer from the first socket to the last |
//! | `api` | its endpoints |
//! | `capacity` | whether this machine can keep what is offered |
//! | `view` | what it says of itself: `status` and `peers` |
//! | `commands` | commands that ask it |

mod api;
mod capacity;
mod cli;
mod commands;
mod daemon;
mod view;

use std::{ffi::OsString, process::ExitCode};

use clap::CommandFactory;
use overlay::{
    admin::Code,
    commands as common,
    config::Program,
    console::{Console, Exit, Failure, parse},
    environment::Environment,
};

pub use self::cli::Cli;
use self::cli::Command;

/// Runs the program with its arguments, the first of which is its name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let cli = match parse::<Cli>(Cli::command(), arguments) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let console = Console::new(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return console.finish(Err(Failure::new(Code::Internal, format!("no threads can be started: {error}"))));
        }
    };
    let result = runtime.block_on(Box::pin(run(cli, &Environment::of_process(), &console)));
    console.finish(result)
}

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
        Command::Ban(arguments) => common::bans::ban(&at, arguments.clone()).await,
        Command::Unban(arguments) => common::bans::unban(&at, arguments.clone()).await,
        Command::Bans => common::bans::bans(&at).await,
        Command::Id => common::id(&at),
        Command::Config(arguments) => common::config(&at, arguments).await,
        Command::Completions { shell } => common::completions(console, Cli::command(), *shell),
        Command::Man => common::man(console, Cli::command()),
    }
}
