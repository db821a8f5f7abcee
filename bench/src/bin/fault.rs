//! Misbehaves towards an ultrapeer on this machine, and tells what it did about it.
//!
//! ```text
//!   quictrack-ultrapeer --founder --listen 127.0.0.1:7780
//!   cargo run -p quictrack-bench --bin fault -- all 127.0.0.1:7780
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results are data, and errors are told")]

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use bench::fault::{Fault, play, serves};
use clap::{Parser, ValueEnum};
use tokio_util::sync::CancellationToken;

/// Misbehaves towards an ultrapeer on this machine
#[derive(Debug, Parser)]
struct Options {
    /// How: `all`, or the name of one; `list` names them
    #[arg(value_name = "FAULT", value_parser = choice)]
    choice: Choice,
    /// The ultrapeer, on an address of loopback
    #[arg(default_value = "127.0.0.1:7780")]
    address: SocketAddr,
    /// The name of its network
    #[arg(long, default_value = "public")]
    network: String,
    /// Seconds for each; as long as it takes if absent
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    All,
    List,
    One(Fault),
}

fn choice(text: &str) -> Result<Choice, String> {
    match text {
        "all" => Ok(Choice::All),
        "list" => Ok(Choice::List),
        name => Fault::from_str(name, false).map(Choice::One).map_err(|_| "there is no such fault; see `list`".into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match misbehave(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn misbehave(options: Options) -> Result<()> {
    let chosen = match options.choice {
        Choice::List => {
            for fault in Fault::all() {
                let help = fault.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
                println!("{:<15}{}", fault.name(), help.unwrap_or_default());
            }
            return Ok(());
        }
        Choice::All => Fault::all(),
        Choice::One(ref fault) => std::slice::from_ref(fault),
    };
    for &fault in chosen {
        let until = CancellationToken::new();
        let (over, patience) = (until.clone(), options.seconds.map_or_else(|| fault.patience(), Duration::from_secs));
        tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            over.cancel();
        });
        println!("{}", play(fault, &options.network, options.address, &until).await?);
    }
    serves(&options.network, options.address).await?;
    println!("an honest ultrapeer is still served");
    Ok(())
}
