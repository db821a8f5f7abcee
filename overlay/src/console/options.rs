//! Options that stand before or after every command, and how a command line is parsed with them.

use std::{ffi::OsString, path::PathBuf};

use clap::{ArgAction, Args, Command, ValueEnum, error::ErrorKind};

use crate::{
    admin::error::Code,
    config::Program,
    console::{Console, Exit, Failure},
    environment::Environment,
    folders::{FolderError, Folders},
};

/// The options of every command. With clap's derive: `#[command(flatten)] global: GlobalOptions`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Global options")]
pub struct GlobalOptions {
    /// Folder of everything that the node keeps [env: QUICTRACK_DATA_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [env: QUICTRACK_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Say only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more; twice, everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// When to use colors
    #[arg(long, value_name = "WHEN", global = true, value_enum, default_value_t)]
    pub color: ColorChoice,
}

impl GlobalOptions {
    /// The places that the options and the environment choose.
    ///
    /// # Errors
    /// As [`Folders::choose`].
    pub fn folders(&self, program: Program, environment: &Environment) -> Result<Folders, FolderError> {
        Folders::choose(program, self.data_dir.as_deref(), self.config.as_deref(), environment)
    }

    /// The log filter that `-q`, `-v` and `-vv` stand for; `None` leaves it to the configuration. Other
    /// crates stay one level quieter, so that the own lines can be found.
    pub fn log_filter(&self) -> Option<&'static str> {
        match (self.quiet, self.verbose) {
            (true, _) => Some("error"),
            (false, 0) => None,
            (false, 1) => {
                Some("info,overlay=debug,ultrapeer=debug,leaf=debug,quictrack=debug,quictrack_ultrapeer=debug")
            }
            (false, _) => {
                Some("debug,overlay=trace,ultrapeer=trace,leaf=trace,quictrack=trace,quictrack_ultrapeer=trace")
            }
        }
    }
}

/// When to use colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The source revision that the program was built from: `QUICTRACK_REVISION` at build time.
pub const fn revision() -> &'static str {
    match option_env!("QUICTRACK_REVISION") {
        Some(revision) if !revision.is_empty() => revision,
        _ => "unknown",
    }
}

/// Version and revision, for [`Command::version`]: clap puts the name in front.
pub fn version() -> String {
    format!("{} (revision {})", env!("CARGO_PKG_VERSION"), revision())
}

/// Parses a command line. `Err` is the exit of a command that ends here: help and version are printed to
/// stdout, errors of usage to stderr and with `--json` to stdout too; without arguments the short help is
/// printed to stderr.
pub fn parse(command: Command, arguments: Vec<OsString>) -> Result<clap::ArgMatches, Exit> {
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let error = match command.try_get_matches_from(arguments) {
        Ok(matches) => return Ok(matches),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Err(Exit::Done)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            let _ = error.print();
            Err(Exit::Usage)
        }
        _ => {
            let console = Console::new(&GlobalOptions { json, ..GlobalOptions::default() });
            console.fail(&usage_failure(&error));
            Err(Exit::Usage)
        }
    }
}

/// An error of usage: clap's first paragraph is what and why, the rest what to do next.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.trim();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let message = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "a command is missing"
    } else {
        message
    };
    let failure = Failure::new(Code::BadRequest, message.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    let tip = rest.lines().map(str::trim).find_map(|line| line.strip_prefix("tip: "));
    let usage = rest.lines().map(str::trim).find(|line| line.starts_with("Usage: "));
    match (tip, usage) {
        (Some(tip), _) => failure.hint(tip),
        (None, Some(usage)) => failure.hint(format!("{}; --help says more", usage.replacen("Usage", "usage", 1))),
        (None, None) => failure.hint("--help says more"),
    }
}
