//! Options that stand before or after every command, and how a command line is parsed with them.

use std::{ffi::OsString, io::Write, path::PathBuf};

use clap::{ArgAction, Args, Command, FromArgMatches, ValueEnum, error::ErrorKind};

use crate::{
    admin::error::Code,
    config::{Config, Layer, Program},
    console::{Console, Exit, Failure},
    environment::Environment,
    folders::{FolderError, Folders},
};

// The options of every command. With clap's derive: `#[command(flatten)] global: GlobalOptions`.
#[expect(missing_docs, reason = "clap would take the text for the description of the whole command")]
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalOptions {
    /// Folder of everything that the node keeps [env: QUICTRACK_DATA_DIR]
    #[arg(long, value_name = "DIR", global = true, help_heading = HEADING)]
    pub data_dir: Option<PathBuf>,
    /// Configuration file [env: QUICTRACK_CONFIG]
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    pub config: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
    /// Say only errors
    #[arg(short, long, global = true, help_heading = HEADING, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log more; twice, everything
    #[arg(short, long, global = true, help_heading = HEADING, action = ArgAction::Count)]
    pub verbose: u8,
    /// When to use colors
    #[arg(long, value_name = "WHEN", global = true, help_heading = HEADING, value_enum, default_value_t)]
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

    /// Reads the configuration of a daemon, as `-q` and `-v` change it. `command_line` holds its other options.
    ///
    /// # Errors
    /// The first value that is wrong; no place for data.
    pub fn configuration(
        &self,
        program: Program,
        environment: &Environment,
        mut command_line: Layer,
    ) -> Result<Config, Failure> {
        if let Some(filter) = self.log_filter() {
            command_line.set(program, "log", filter)?;
        }
        let folders = self.folders(program, environment)?;
        Ok(Config::load(program, &folders, environment, command_line)?)
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

/// Parses a command line into a type made with clap's derive: `parse::<Cli>(Cli::command(), arguments)`.
///
/// `Err` is the exit of a program that ends here: help and version are printed to stdout, errors of usage
/// to stderr and with `--json` to stdout too; without a command the short help is printed to stderr.
pub fn parse<T: FromArgMatches>(mut command: Command, arguments: Vec<OsString>) -> Result<T, Exit> {
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let parsed = command.try_get_matches_from_mut(arguments).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| end(&mut command, &error, json))
}

/// Says why a command line is none, and with which exit the program ends.
fn end(command: &mut Command, error: &clap::Error, json: bool) -> Exit {
    match error.kind() {
        // A reader that left has what it wanted, here and below.
        ErrorKind::DisplayHelp => {
            let _ = error.print();
            Exit::Done
        }
        // Of the program, also behind a command.
        ErrorKind::DisplayVersion => {
            let _ = write!(anstream::stdout(), "{}", command.render_version());
            Exit::Done
        }
        ErrorKind::MissingSubcommand if !json => {
            let _ = write!(anstream::stderr(), "{}", command.render_help().ansi());
            Exit::Usage
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            let _ = error.print();
            Exit::Usage
        }
        _ => {
            let console = Console::new(&GlobalOptions { json, ..GlobalOptions::default() });
            console.fail(&usage_failure(error));
            Exit::Usage
        }
    }
}

const HEADING: &str = "Global options";

/// An error of usage: clap's first paragraph is what and why, the rest what to do next.
fn usage_failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let text = text.trim();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let (message, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => "a command is missing",
        _ => message,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, arguments};

    fn command() -> Command {
        let daemon = Command::new("leaf").args(arguments(Program::Leaf));
        GlobalOptions::augment_args(Command::new("quictrack").version(version()).subcommand(daemon))
    }

    fn options(arguments: &[&str]) -> GlobalOptions {
        let matches = command().try_get_matches_from(arguments).unwrap();
        GlobalOptions::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn options_leave_the_description_of_the_command_alone() {
        let command = GlobalOptions::augment_args(Command::new("x").about("does x"));
        assert_eq!(command.get_about().map(ToString::to_string).as_deref(), Some("does x"));
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        let given = ["--data-dir", "/d", "--config=/c", "--json", "-vv", "--color", "never"];
        let before: Vec<&str> = ["quictrack"].into_iter().chain(given).chain(["leaf"]).collect();
        let after: Vec<&str> = ["quictrack", "leaf"].into_iter().chain(given).collect();
        let expected = GlobalOptions {
            data_dir: Some("/d".into()),
            config: Some("/c".into()),
            json: true,
            quiet: false,
            verbose: 2,
            color: ColorChoice::Never,
        };
        assert_eq!(options(&before), expected);
        assert_eq!(options(&after), expected);
    }

    #[test]
    fn errors_of_usage_say_what_to_do_next() {
        let failure = |arguments: &[&str]| usage_failure(&command().try_get_matches_from(arguments).unwrap_err());
        let typo = failure(&["quictrack", "laef"]);
        assert_eq!((typo.code, typo.exit), (Code::BadRequest, Exit::Usage));
        assert!(typo.message.contains("'laef'") && !typo.message.contains('\n'), "{typo:?}");
        assert!(typo.hint.unwrap().contains("'leaf'"));
        assert!(failure(&["quictrack", "leaf", "--uploads"]).hint.is_some());
    }

    #[test]
    fn help_version_and_mistakes_have_their_exits() {
        let exit = |arguments: &[&str]| {
            let arguments = arguments.iter().map(OsString::from).collect();
            parse::<GlobalOptions>(command(), arguments).unwrap_err()
        };
        assert_eq!(exit(&["quictrack", "--version"]), Exit::Done);
        assert_eq!(exit(&["quictrack", "leaf", "--help"]), Exit::Done);
        assert_eq!(exit(&["quictrack", "-q", "-v"]), Exit::Usage);
        let missing = command().subcommand_required(true);
        let arguments = ["quictrack", "--data-dir", "/d"].iter().map(OsString::from).collect();
        assert_eq!(parse::<GlobalOptions>(missing, arguments).unwrap_err(), Exit::Usage);
    }

    #[test]
    fn verbosity_holds_the_log_filter() {
        let folder = tempfile::tempdir().unwrap();
        let global = GlobalOptions { data_dir: Some(folder.path().into()), quiet: true, ..GlobalOptions::default() };
        let config = global.configuration(Program::Leaf, &Environment::default(), Layer::default()).unwrap();
        assert_eq!((config.settings().log.as_str(), config.origin("log")), ("error", Origin::CommandLine));
        for verbose in 1..4 {
            let filter = GlobalOptions { verbose, ..GlobalOptions::default() }.log_filter().unwrap();
            Layer::default().set(Program::Ultrapeer, "log", filter).unwrap();
        }
    }
}
