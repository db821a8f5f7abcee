//! Commands and options.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use overlay::{
    commands::{
        ConfigArgs,
        bans::{BanArgs, UnbanArgs},
    },
    config::UltrapeerOptions,
    console::{GlobalOptions, version},
};

/// Ultrapeer of a Quictrack network, headless. Without a command it runs the daemon.
#[derive(Parser, Clone, Debug)]
#[command(name = "quictrack-ultrapeer", version = version(), propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// The daemon's options, if there is no command.
    #[command(flatten)]
    pub options: UltrapeerOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Run the daemon in the foreground
    Run(Run),
    /// Show how the daemon is doing
    Status,
    /// List other ultrapeers and the leaves of this one
    Peers,
    /// Hand over the leaves and end the daemon; returns when that is done
    Drain,
    /// Deal with a peer or a range of addresses no more, or block a content
    Ban(BanArgs),
    /// Lift a ban
    Unban(UnbanArgs),
    /// List the bans and blocked contents
    Bans,
    /// Print the id of this node; makes its key if there is none
    Id,
    /// Show, check, export or import the configuration
    Config(ConfigArgs),
    /// Print the script by which a shell completes this command
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual
    Man,
}

/// The options of the daemon.
#[derive(Args, Clone, Debug)]
pub struct Run {
    #[command(flatten)]
    pub(super) options: UltrapeerOptions,
}
