//! The program `quictrack-ultrapeer`: an ultrapeer without a face, for operators.

use std::process::ExitCode;

use clap::CommandFactory;
use overlay::{
    console::{Console, parse},
    environment::Environment,
};
use ultrapeer::program::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    match parse::<Cli>(Cli::command(), std::env::args_os().collect()) {
        Ok(cli) => {
            let console = Console::new(&cli.global);
            let result = Box::pin(program::run(cli, &Environment::of_process(), &console)).await;
            console.finish(result)
        }
        Err(exit) => exit.into(),
    }
}
