//! The commands of `quictrack`, one module each; those that both programs have are in [`overlay::commands`].
//!
//! A command reads its arguments, asks the daemon over the local HTTP API (or needs none), and prints: results to
//! stdout, as tables for people or one JSON object a line; everything else to stderr. What it returns is the exit.

pub mod browse;
pub mod demo;
pub mod doctor;
pub mod downloads;
pub mod get;
pub mod leaf;
pub mod open;
pub mod peers;
pub mod search;
pub mod shares;
pub mod status;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod top;
pub mod uploads;
pub mod wish;

use std::{future::Future, path::Path, sync::OnceLock, time::Duration};

use overlay::{
    admin::{
        client::{Client, ClientError},
        error::Code,
    },
    commands::Surroundings,
    config::Program,
    console::{Console, Exit, Failure, GlobalOptions},
    environment::Environment,
    id::{ContentId, PeerId},
    life,
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// The options of every command.
    pub global: GlobalOptions,
    /// Where it prints.
    pub console: Console,
    /// What the program is told by its surroundings.
    pub environment: Environment,
    interrupted: OnceLock<CancellationToken>,
}

impl Context {
    /// The context of a command of this process.
    pub fn new(global: GlobalOptions, console: Console, environment: Environment) -> Self {
        Self { global, console, environment, interrupted: OnceLock::new() }
    }

    /// The same, for a command that `interrupted` interrupts instead of a signal.
    pub fn interrupted_by(self, interrupted: CancellationToken) -> Self {
        Self { interrupted: interrupted.into(), ..self }
    }

    /// What the commands of both programs are given of it.
    pub fn surroundings(&self) -> Surroundings<'_> {
        let Self { global, console, environment, .. } = self;
        Surroundings { program: Program::Leaf, global, environment, console }
    }

    /// [`Surroundings::client`].
    ///
    /// # Errors
    /// If no daemon runs on the data folder.
    pub fn client(&self) -> Result<Client, Failure> {
        self.surroundings().client()
    }

    /// [`Surroundings::failure`].
    pub fn failure(&self, error: ClientError) -> Failure {
        self.surroundings().failure(error)
    }

    /// [`Surroundings::list`].
    ///
    /// # Errors
    /// As [`Self::failure`].
    pub async fn list<T: DeserializeOwned>(&self, client: &Client, path: &str) -> Result<Vec<T>, Failure> {
        self.surroundings().list(client, path).await
    }

    /// Returns when the user interrupts the command. Cancel-safe.
    pub async fn interrupted(&self) {
        self.interrupt().cancelled().await;
    }

    /// Runs a command that an interrupt simply ends.
    ///
    /// # Errors
    /// Those of the command.
    pub async fn until_interrupted(
        &self,
        command: impl Future<Output = Result<Exit, Failure>>,
    ) -> Result<Exit, Failure> {
        tokio::select! {
            biased;
            () = self.interrupted() => Ok(Exit::Interrupted),
            result = command => result,
        }
    }

    /// An absolute path as the daemon is sent it: what is relative begins at the caller's folder, and a `/` at the
    /// end is kept.
    ///
    /// # Errors
    /// For a path that is empty or not UTF-8.
    pub fn absolute(&self, path: &Path) -> Result<String, Failure> {
        let whole = self.environment.working_folder().join(path);
        let whole = std::path::absolute(&whole).map_err(|error| usage(format!("`{}`: {error}", path.display())))?;
        match whole.into_os_string().into_string() {
            Ok(text) if !path.as_os_str().is_empty() => Ok(text),
            Ok(_) => Err(usage("a path is empty")),
            Err(text) => Err(usage(format!("the path `{}` is not UTF-8", text.display()))),
        }
    }

    fn interrupt(&self) -> &CancellationToken {
        // Where signals cannot be heard the system's own way of interrupting stays.
        self.interrupted.get_or_init(|| life::interruption().unwrap_or_default())
    }
}

/// Seconds of an option: `2`, `0.5`, `1m30s`; more than none and at most a year.
fn seconds(text: &str) -> Result<Duration, String> {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    let decimal = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let span = match decimal {
        Some(span) => span,
        None => overlay::units::parse_duration(text).map_err(|error| error.to_string())?,
    };
    if span.as_millis() == 0 || span > YEAR {
        return Err("expected seconds, more than 0 and at most a year".into());
    }
    Ok(span)
}

/// Characters below which a shortened identifier is refused.
const PREFIX_MIN: usize = 8;
/// Characters of a shortened content id in tables: unique among a billion contents with a chance of 99.6 %.
const SHORT: usize = 14;

/// The form of a content id or a prefix of one, in lower case. Which content is meant, the daemon knows.
fn content_text(text: &str) -> Result<String, Failure> {
    let wrong = |why: String| {
        usage(format!("`{text}` is no content id: {why}")).hint("`quictrack search` shows the ids of what it finds")
    };
    if text.len() == ContentId::TEXT_LEN {
        return text.parse::<ContentId>().map(|id| id.to_string()).map_err(|error| wrong(error.to_string()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong("its characters are 0-9 and a-f".into()));
    }
    if !(PREFIX_MIN..ContentId::TEXT_LEN).contains(&text.len()) {
        return Err(wrong(format!("it has 64 digits, of which the first {PREFIX_MIN} or more may be given")));
    }
    Ok(text.to_ascii_lowercase())
}

/// The form of a peer id or a prefix of one, in lower case. Which peer is meant, the daemon knows.
fn peer_text(text: &str) -> Result<String, Failure> {
    let wrong = |why: String| {
        usage(format!("`{text}` is no peer id: {why}"))
            .hint("`quictrack peers` lists peers, and so does `quictrack search --json` for each content")
    };
    if text.len() == PeerId::TEXT_LEN {
        return text.parse::<PeerId>().map(|id| id.to_string()).map_err(|error| wrong(error.to_string()));
    }
    if !text.bytes().all(|byte| byte.is_ascii_alphabetic() || (b'2'..=b'7').contains(&byte)) {
        return Err(wrong("its characters are a-z and 2-7".into()));
    }
    if !(PREFIX_MIN..PeerId::TEXT_LEN).contains(&text.len()) {
        return Err(wrong(format!("it has 52 characters, of which the first {PREFIX_MIN} or more may be given")));
    }
    Ok(text.to_ascii_lowercase())
}

/// The beginning of an identifier, for tables.
fn short(id: &impl ToString) -> String {
    let mut text = id.to_string();
    text.truncate(SHORT);
    text
}

/// A number of things: `1 file`, `2 files`.
fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// A failure of usage.
fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::BadRequest, message)
}
