//! `config`: what the configuration says, and whether a file is right. Needs no daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use overlay::{
    config::{Config, Layer, Program},
    console::{Column, Exit, Failure, Table},
    environment::absolute,
};

use super::Context;

/// What to do with the configuration.
#[derive(Args, Clone, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Show every key with its value
    Show {
        /// Also where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check a configuration file
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Runs it.
///
/// # Errors
/// `bad_config`, with the place of the mistake.
pub fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.action {
        Action::Show { origin } => show(context, origin),
        Action::Check { file } => {
            let environment = &context.environment;
            let path = absolute(&file, environment.working_folder(), None);
            Config::check_file(Program::Leaf, &path, environment)?;
            context.console.note(format_args!("{} is right", file.display()));
            Ok(Exit::Done)
        }
    }
}

fn show(context: &Context, origin: bool) -> Result<Exit, Failure> {
    let config = Config::load(Program::Leaf, &context.folders()?, &context.environment, Layer::default())?;
    let console = &context.console;
    for warning in config.warnings() {
        console.warn(warning);
    }
    let rows = config.rows();
    if console.is_json() {
        rows.iter().try_for_each(|row| console.typed_line("option", row))?;
        return Ok(Exit::Done);
    }
    let mut columns = vec![Column::left("key"), Column::flexible("value")];
    if origin {
        columns.push(Column::left("origin"));
    }
    let mut table = Table::new(columns);
    for row in &rows {
        let value = match &row.value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        };
        table.row([row.key, &value, row.origin.name()].into_iter().take(if origin { 3 } else { 2 }));
    }
    console.table(&table)?;
    Ok(Exit::Done)
}
