//! The table of keys as options of a command and as an example file.

use std::fmt::Write;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, error::ErrorKind};

use super::{ConfigError, Layer, Program, Shape, Written, definitions, options::Definition};
use crate::environment::Environment;

/// The options of a daemon, one or two for each key that has an option.
pub fn arguments(program: Program) -> Vec<Arg> {
    definitions(program)
        .filter_map(|definition| Some((definition, definition.option()?)))
        .flat_map(|(definition, value_name)| match definition.shape {
            Shape::Flag => switches(program, definition),
            _ => vec![valued(program, definition, value_name)],
        })
        .collect()
}

/// The options of a daemon for commands made with clap's derive: `#[command(flatten)] options: LeafOptions`.
/// [`Options::layer`] turns them into values.
#[derive(Clone, Debug)]
pub struct Options<const LEAF: bool> {
    matches: ArgMatches,
}

/// The options of `quictrack leaf`.
pub type LeafOptions = Options<true>;

/// The options of `quictrack-ultrapeer`.
pub type UltrapeerOptions = Options<false>;

impl<const LEAF: bool> Options<LEAF> {
    const PROGRAM: Program = if LEAF { Program::Leaf } else { Program::Ultrapeer };

    /// The values that were given; relative paths begin at the working folder.
    ///
    /// # Errors
    /// If one has no meaning.
    pub fn layer(&self, environment: &Environment) -> Result<Layer, ConfigError> {
        Layer::of_matches(Self::PROGRAM, &self.matches, environment)
    }
}

impl<const LEAF: bool> Args for Options<LEAF> {
    fn augment_args(command: Command) -> Command {
        command.args(arguments(Self::PROGRAM))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const LEAF: bool> FromArgMatches for Options<LEAF> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // Checked here too, so that a wrong value is an error of usage like any other.
        match Layer::of_matches(Self::PROGRAM, matches, &Environment::default()) {
            Ok(_) => Ok(Self { matches: matches.clone() }),
            Err(error) => Err(clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n"))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A configuration file with every key, its help and its default, all commented out.
pub fn example(program: Program) -> String {
    let mut text = format!(
        "# Configuration of {}. Every key is shown with its default; remove the `#` to set it.\n\
         # Options and environment variables (QUICTRACK_ and the key in capitals) win over this file.\n",
        program.name()
    );
    for definition in definitions(program) {
        let restart = if definition.needs_restart() { " (needs a restart)" } else { "" };
        let default = match definition.default_in_words(program) {
            Some(words) if matches!(definition.shape, Shape::Path) || words.contains(' ') => {
                format!(". Default: {words}")
            }
            _ => String::new(),
        };
        let value = example_value(program, definition);
        // Writing to a string cannot fail.
        let _ = write!(text, "\n# {}{default}{restart}\n#{} = {value}\n", definition.help(), definition.key);
    }
    text
}

/// The default as TOML, or for keys without one a value that shows the form.
fn example_value(program: Program, definition: &Definition) -> String {
    let written = definition.default(program, std::path::Path::new("~/Downloads/Quictrack"));
    let form = match (definition.key, &written) {
        ("advertise", _) => Written::Text("203.0.113.7:7780".into()),
        ("network_secret_file", _) => Written::Text("/etc/quictrack/secret".into()),
        _ => written,
    };
    form.to_toml().map(|value| value.to_string()).unwrap_or_default()
}

fn valued(program: Program, definition: &'static Definition, value_name: &'static str) -> Arg {
    let many = matches!(definition.shape, Shape::List | Shape::Paths);
    Arg::new(definition.key)
        .long(long(definition))
        .value_name(value_name)
        .action(if many { ArgAction::Append } else { ArgAction::Set })
        .help(help(program, definition))
        .help_heading(HEADING)
}

/// `--x` and `--no-x`: the one that changes the default is shown, the other undoes a file or variable.
fn switches(program: Program, definition: &'static Definition) -> Vec<Arg> {
    let on_by_default = definition.default_in_words(program) == Some("true");
    let positive = Arg::new(definition.key)
        .long(long(definition))
        .action(ArgAction::SetTrue)
        .hide(on_by_default)
        .overrides_with(format!("no_{}", definition.key));
    let negative = Arg::new(format!("no_{}", definition.key))
        .long(format!("no-{}", long(definition)))
        .action(ArgAction::SetTrue)
        .hide(!on_by_default)
        .overrides_with(definition.key);
    let help = definition.help();
    let negated = format!("Do not {}{} [env: {}=false]", help[..1].to_lowercase(), &help[1..], definition.variable());
    let shown = format!("{help} [env: {}]", definition.variable());
    [positive.help(shown), negative.help(negated)].map(|arg| arg.help_heading(HEADING)).into()
}

const HEADING: &str = "Configuration";

fn long(definition: &Definition) -> String {
    definition.key.replace('_', "-")
}

fn help(program: Program, definition: &Definition) -> String {
    let default = definition.default_in_words(program).map(|words| format!(" [default: {words}]")).unwrap_or_default();
    format!("{}{default} [env: {}]", definition.help(), definition.variable())
}
