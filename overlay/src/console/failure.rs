//! Why a command failed, and what the shell is told.

use std::{borrow::Cow, fmt, io, process::ExitCode};

use serde::Serialize;

use crate::{config::ConfigError, folders::FolderError};

/// What the shell is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Done; a daemon that drained; an empty list; a reader that left. 0.
    Done,
    /// Failed. 1.
    Failed,
    /// The command line, an id, a query or the configuration is wrong. 2.
    Usage,
    /// What was asked for is not there. 3.
    NothingFound,
    /// The user interrupted the command. 130.
    Interrupted,
}

impl Exit {
    /// The number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NothingFound => 3,
            Self::Interrupted => 130,
        }
    }

    /// The exit that belongs to an error code, of the command line or of the HTTP interface.
    pub fn of_code(code: &str) -> Self {
        match code {
            "bad_request" | "bad_query" | "bad_config" => Self::Usage,
            "not_found" => Self::NothingFound,
            "interrupted" => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why a command failed: shown as `error:` and `hint:` on stderr and, with `--json`, as an object on stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// A word for programs: a code of the HTTP interface or of the command line.
    pub code: Cow<'static, str>,
    /// What failed and why, for people.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The first offending character of a query or of a line of a file, from 1.
    pub position: Option<u64>,
    /// What the shell is told.
    #[serde(skip)]
    pub exit: Exit,
    /// True if nothing is to be said: the reader left.
    #[serde(skip)]
    silent: bool,
}

impl Failure {
    /// A failure with the exit that belongs to its code.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let code = code.into();
        let exit = Exit::of_code(&code);
        Self { code, message: message.into(), hint: None, position: None, exit, silent: false }
    }

    /// With what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the first offending character, from 1.
    pub fn position(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }

    /// With another exit than its code has.
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The end of a command whose reader left: success, without a word.
    pub fn reader_left() -> Self {
        Self { silent: true, exit: Exit::Done, ..Self::new("interrupted", "the reader of the output left") }
    }

    /// The daemon of this data folder does not answer; `start` is the command that starts one.
    pub fn daemon_not_running(start: &str) -> Self {
        Self::new("daemon_not_running", "no daemon is running for this data folder")
            .hint(format!("start one with `{start}`, or name another folder with --data-dir"))
    }

    /// An address that the user gave cannot be bound, because another program has it.
    pub fn address_in_use(address: std::net::SocketAddr, key: &str) -> Self {
        Self::new("address_in_use", format!("the address {address} is in use by another program"))
            .hint(format!("set `{key}` to another address; port 0 picks a free one"))
    }

    /// True if nothing is to be said.
    pub fn is_silent(&self) -> bool {
        self.silent
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { hint: error.hint(), position: error.position(), ..Self::new(error.code(), error.to_string()) }
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        // Folders are places, not usage: none of their errors is the command line's.
        Self { hint: error.hint(), ..Self::new(error.code(), error.to_string()) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::reader_left(),
            io::ErrorKind::PermissionDenied => Self::new("permission_denied", error.to_string()),
            io::ErrorKind::AddrInUse => Self::new("address_in_use", error.to_string()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::new("disk_full", error.to_string()),
            _ => Self::new("internal", error.to_string()),
        }
    }
}

/// An error with a chain of causes: the failure in it if there is one, else `internal` with all causes.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(failure) => return failure,
            Err(error) => error,
        };
        let error = match error.downcast::<ConfigError>() {
            Ok(config) => return config.into(),
            Err(error) => error,
        };
        match error.downcast::<FolderError>() {
            Ok(folder) => folder.into(),
            Err(error) => {
                let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
                let message = format!("{error:#}");
                kind.map_or_else(
                    || Self::new("internal", &*message),
                    |kind| Self { message: message.clone(), ..io::Error::from(kind).into() },
                )
            }
        }
    }
}
