//! The only place that prints, and the vocabulary of failing: [`Console`], [`Failure`], [`Exit`].
//!
//! stdout is data: tables and text for people, or with `--json` one object a line. stderr is talk:
//! errors, warnings, progress. A reader that stops reading is no failure: printing then returns a
//! [`Failure`] that ends the command silently with success.
//!
//! ```text
//!   main ──> Console::new ──> command(&console) -> Result<Exit, Failure> ──> console.finish(result) -> ExitCode
//! ```

mod failure;
mod options;
mod printer;
mod progress;
mod screen;
mod table;

pub use self::{
    failure::{Exit, Failure},
    options::{ColorChoice, GlobalOptions, parse, revision, version},
    printer::{Console, harmless},
    progress::{Bar, Progress},
    screen::Screen,
    table::{Align, Column, Table},
};
