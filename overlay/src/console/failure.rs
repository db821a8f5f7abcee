//! Why a command failed, and what the shell is told.

use std::{fmt, io, process::ExitCode};

use serde::Serialize;

use crate::{
    admin::{
        client::ClientError,
        error::{ApiError, Code},
        server::BindError,
    },
    config::{ConfigError, Program},
    folders::FolderError,
};

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
    pub const fn of_code(code: Code) -> Self {
        match code {
            Code::BadRequest | Code::BadQuery | Code::BadConfig => Self::Usage,
            Code::NotFound => Self::NothingFound,
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
    /// A word for programs.
    pub code: Code,
    /// What failed and why, for people.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The first offending character of a query or of a line of a file, from 1.
    pub position: Option<u32>,
    /// What the shell is told.
    #[serde(skip)]
    pub exit: Exit,
    /// True if nothing is to be said: the reader left.
    #[serde(skip)]
    silent: bool,
}

impl Failure {
    /// A failure with the exit that belongs to its code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let exit = Exit::of_code(code);
        Self { code, message: message.into(), hint: None, position: None, exit, silent: false }
    }

    /// With what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the first offending character, from 1.
    pub fn position(mut self, position: u32) -> Self {
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
        Self { silent: true, exit: Exit::Done, ..Self::new(Code::Internal, "the reader of the output left") }
    }

    /// The daemon of this data folder does not answer.
    pub fn daemon_not_running(program: Program) -> Self {
        Self::new(Code::DaemonNotRunning, "no daemon is running for this data folder")
            .hint(format!("start one with `{}`, or name another folder with --data-dir", program.start_command()))
    }

    /// A request to the daemon of `program` that failed.
    pub fn of_client(error: ClientError, program: Program) -> Self {
        match error {
            ClientError::NotRunning(_) => Self::daemon_not_running(program),
            ClientError::Refused(error) => error.into(),
            other => Self::new(other.code(), other.to_string()),
        }
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
        Self { hint: error.hint(), ..Self::new(error.code(), error.to_string()) }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { hint: error.hint, position: error.position, ..Self::new(error.code, error.message) }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        // An address that this machine does not have is wrong configuration, yet exits as all listeners do.
        Self::new(error.code(), error.to_string()).hint(error.hint()).exit(Exit::Failed)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::reader_left(),
            io::ErrorKind::PermissionDenied => Self::new(Code::PermissionDenied, error.to_string()),
            io::ErrorKind::AddrInUse => Self::new(Code::AddressInUse, error.to_string()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::new(Code::DiskFull, error.to_string()).hint("make room on that disk")
            }
            _ => Self::new(Code::Internal, error.to_string()),
        }
    }
}

/// An error with a chain of causes: the failure in it if there is one, else all causes in one message.
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
        let error = match error.downcast::<FolderError>() {
            Ok(folder) => return folder.into(),
            Err(error) => error,
        };
        let kind = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let plain = kind.map_or_else(|| Self::new(Code::Internal, ""), |kind| io::Error::from(kind).into());
        Self { message: format!("{error:#}"), ..plain }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn exits_follow_the_codes() {
        for (code, exit) in [
            (Code::BadQuery, 2),
            (Code::BadConfig, 2),
            (Code::NotFound, 3),
            (Code::Conflict, 1),
            (Code::NoUltrapeer, 1),
            (Code::AlreadyRunning, 1),
            (Code::DaemonNotRunning, 1),
        ] {
            assert_eq!(Failure::new(code, "x").exit.number(), exit, "{code}");
        }
    }

    #[test]
    fn chains_of_causes_keep_the_code_of_what_is_known() {
        let full = Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull)).context("cannot write x").unwrap_err();
        let failure = Failure::from(full);
        assert_eq!(failure.code, Code::DiskFull);
        assert!(failure.message.starts_with("cannot write x: "), "{failure}");
        let folder = Failure::from(anyhow::Error::from(FolderError::NoHome));
        assert_eq!((folder.code, folder.exit.number()), (Code::BadConfig, 2));
        assert!(Failure::from(anyhow::Error::from(Failure::reader_left())).is_silent());
    }

    #[test]
    fn a_missing_daemon_is_named_with_the_command_that_starts_it() {
        let failure = Failure::of_client(ClientError::NotRunning(String::new()), Program::Leaf);
        assert_eq!((failure.code, failure.exit.number()), (Code::DaemonNotRunning, 1));
        assert!(failure.hint.unwrap().contains("`quictrack leaf`"));
    }
}
