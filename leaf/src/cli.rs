//! The command line of `quictrack`: what it accepts, and which command runs.
//!
//! ```text
//!   arguments ── words of a query go behind `--` ── clap ── Cli ── run ── cmd::NAME::run ── exit
//! ```
//!
//! A command is a module of [`crate::cmd`] with `Arguments` and `run`, or a function of [`overlay::commands`] if both
//! programs have it; here it is a variant of [`Command`] and a line of [`run`].

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use overlay::{
    admin::error::Code,
    commands::{
        self, ConfigArgs,
        bans::{BanArgs, UnbanArgs},
    },
    console::{self, Console, Exit, Failure, GlobalOptions},
    environment::Environment,
};

use crate::cmd::{self, Context};

/// Find files in everybody's shares, fetch them from all who have them, share your own.
#[derive(Parser, Clone, Debug)]
#[command(name = "quictrack", version = console::version(), propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Run the daemon in the foreground
    Leaf(Box<cmd::leaf::Arguments>),
    /// Search for files
    Search(cmd::search::Arguments),
    /// Download files
    Get(cmd::get::Arguments),
    /// Print an address where a player opens a content while it is downloaded
    Stream(cmd::stream::Arguments),
    /// List downloads, or act on them
    Downloads(cmd::downloads::Arguments),
    /// List uploads
    Uploads,
    /// List shared folders, add or remove them
    Shares(cmd::shares::Arguments),
    /// Be told when somebody shares what you look for
    Wish(cmd::wish::Arguments),
    /// Look into the shares of another leaf
    Browse(cmd::browse::Arguments),
    /// Show how this node is doing
    Status,
    /// Show how this node is doing, until you stop it
    Top,
    /// List the nodes that this one knows
    Peers,
    /// Open the web page of the running daemon
    Open,
    /// Deal with a peer or a range of addresses no more, or block a content
    Ban(BanArgs),
    /// Lift a ban
    Unban(UnbanArgs),
    /// List the bans and blocked contents
    Bans,
    /// Show a small network on this machine at work
    Demo(cmd::demo::Arguments),
    /// Print the id of this node; makes its key if there is none
    Id,
    /// Look for what keeps this node from working well, and say what to do
    Doctor,
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

/// Runs the program with its arguments, the first of which is its name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = query_behind_dashes(&Cli::command(), arguments);
    let cli: Cli = match console::parse(Cli::command(), arguments) {
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
    let result = runtime.block_on(async {
        let context = Context::new(cli.global.clone(), console.clone(), Environment::of_process());
        Box::pin(run(&context, cli.command)).await
    });
    // A thread may still wait for stdin.
    runtime.shutdown_background();
    console.finish(result)
}

/// Runs a command.
///
/// # Errors
/// Why it failed, as the user is to be told.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Leaf(arguments) => cmd::leaf::run(context, *arguments).await,
        Command::Demo(arguments) => cmd::demo::run(context, arguments).await,
        Command::Search(arguments) => cmd::search::run(context, arguments).await,
        Command::Get(arguments) => cmd::get::run(context, arguments).await,
        Command::Stream(arguments) => context.until_interrupted(cmd::stream::run(context, arguments)).await,
        Command::Downloads(arguments) => context.until_interrupted(cmd::downloads::run(context, arguments)).await,
        Command::Uploads => context.until_interrupted(cmd::uploads::run(context)).await,
        Command::Shares(arguments) => context.until_interrupted(cmd::shares::run(context, arguments)).await,
        Command::Wish(arguments) => context.until_interrupted(cmd::wish::run(context, arguments)).await,
        Command::Browse(arguments) => context.until_interrupted(cmd::browse::run(context, arguments)).await,
        Command::Status => context.until_interrupted(cmd::status::run(context)).await,
        Command::Top => context.until_interrupted(cmd::top::run(context)).await,
        Command::Open => context.until_interrupted(cmd::open::run(context)).await,
        Command::Peers => context.until_interrupted(cmd::peers::run(context)).await,
        Command::Ban(arguments) => {
            context.until_interrupted(commands::bans::ban(&context.surroundings(), arguments)).await
        }
        Command::Unban(arguments) => {
            context.until_interrupted(commands::bans::unban(&context.surroundings(), arguments)).await
        }
        Command::Bans => context.until_interrupted(commands::bans::bans(&context.surroundings())).await,
        Command::Id => commands::id(&context.surroundings()),
        Command::Doctor => context.until_interrupted(cmd::doctor::run(context)).await,
        Command::Config(arguments) => commands::config(&context.surroundings(), &arguments).await,
        Command::Completions { shell } => commands::completions(&context.console, Cli::command(), shell),
        Command::Man => commands::man(&context.console, Cli::command()),
    }
}

/// The positional argument that marks a command whose words are a query.
const QUERY: &str = "query";

/// In commands that take a query, an argument with one leading dash other than these is a word of it.
const SHORT_OPTIONS: [&str; 5] = ["-h", "-q", "-v", "-vv", "-V"];

/// Moves the words of a query behind `--`, in their order, so that a word such as `-live` is no option. Arguments of
/// commands without a query stay as they are.
pub fn query_behind_dashes(root: &clap::Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let (mut options, mut words) = (Vec::with_capacity(arguments.len() + 1), Vec::new());
    let mut command = root;
    let mut rest = arguments.iter();
    options.extend(rest.next().cloned());
    while let Some(argument) = rest.next() {
        let text = argument.to_str().unwrap_or_default();
        let takes_query = command.get_positionals().any(|positional| positional.get_id() == QUERY);
        if text == "--" {
            if !takes_query {
                return arguments;
            }
            words.extend(rest.cloned());
            break;
        }
        let is_option = (text.starts_with("--") && text.len() > 2) || SHORT_OPTIONS.contains(&text);
        if is_option {
            options.push(argument.clone());
            if takes_value(root, command, text) {
                options.extend(rest.next().cloned());
            }
        } else if takes_query {
            words.push(argument.clone());
        } else {
            options.push(argument.clone());
            match command.find_subcommand(text) {
                Some(found) => command = found,
                // Something else than a command stands where one may stand.
                None if command.has_subcommands() => return arguments,
                None => {}
            }
        }
    }
    if !words.is_empty() {
        options.push("--".into());
        options.append(&mut words);
    }
    options
}

/// True if the argument behind this long option is its value.
fn takes_value(root: &clap::Command, command: &clap::Command, option: &str) -> bool {
    let Some(name) = option.strip_prefix("--").filter(|name| !name.contains('=')) else { return false };
    let known = root.get_arguments().chain(command.get_arguments());
    known.filter(|argument| argument.get_long() == Some(name)).any(|argument| argument.get_action().takes_values())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        let result = query_behind_dashes(&Cli::command(), arguments);
        result.into_iter().map(|argument| argument.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn words_with_one_dash_belong_to_the_query() {
        for (line, expected) in [
            ("q search beatles -live --json", "q search --json -- beatles -live"),
            ("q search -live", "q search -- -live"),
            ("q search -vvv -hq - -q -vv", "q search -q -vv -- -vvv -hq -"),
            ("q search -h", "q search -h"),
            (
                "q --data-dir search search --limit 5 a --sort=name -b",
                "q --data-dir search search --limit 5 --sort=name -- a -b",
            ),
            ("q search a -- --json -q b", "q search -- a --json -q b"),
            ("q --json search a --data-dir /d -x", "q --json search --data-dir /d -- a -x"),
            ("q wish add --download rose -live --json", "q wish add --download --json -- rose -live"),
            ("q wish add --max-size 5MB -q a -b", "q wish add --max-size 5MB -q -- a -b"),
            ("q wish remove abc", "q wish remove abc"),
            // Other commands keep their short options.
            ("q get -o /tmp/ abcdef01", "q get -o /tmp/ abcdef01"),
            ("q get -- search -x", "q get -- search -x"),
            ("q serach -x", "q serach -x"),
            ("q", "q"),
        ] {
            assert_eq!(rewritten(line), expected, "{line}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for line in [
            "q search",
            "q search --limit 0 a",
            "q search --limit 1001 a",
            "q search --timeout 0 a",
            "q search --jsno a",
            "q get",
            "q get --priority urgent abcdef01",
            "q downloads pause",
            "q downloads priority x",
            "q shares add",
            "q wish add",
            "q wish add --max-size 0 a",
            "q wish add --max-size 5rods a",
            "q wish remove",
            "q config check",
            "q completions klingon",
            "q -q -v status",
        ] {
            let arguments = query_behind_dashes(&Cli::command(), line.split(' ').map(OsString::from).collect());
            assert!(Cli::try_parse_from(arguments).is_err(), "{line}");
        }
    }

    #[test]
    fn options_of_all_commands_stand_before_or_after_them() {
        for line in ["q --json --data-dir /d downloads pause all", "q downloads pause --json all --data-dir /d"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json, "{line}");
            assert_eq!(cli.global.data_dir.as_deref(), Some("/d".as_ref()), "{line}");
        }
    }
}
