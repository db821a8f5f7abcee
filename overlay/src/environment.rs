//! What a program is told by its surroundings: environment variables, home and working folder.
//!
//! Read once at the start and passed on, so that everything decided by it can be tested without
//! changing the process.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// A copy of the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    home: Option<PathBuf>,
    working_folder: PathBuf,
}

impl Environment {
    /// The environment of this process. Variables whose name is no UTF-8 are left out.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self {
            variables,
            home: etcetera::home_dir().ok(),
            working_folder: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// An environment of these variables alone: `HOME` is the home folder, `/` the working folder. With
    /// no variables it is what a demonstration runs in.
    pub fn of<N: Into<String>, V: Into<OsString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables: BTreeMap<String, OsString> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let home = variables.get("HOME").map(PathBuf::from);
        Self { variables, home, working_folder: PathBuf::from("/") }
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that holds an absolute path; others are ignored, as the XDG specification asks.
    pub fn absolute_path(&self, name: &str) -> Option<&Path> {
        self.variable(name).map(Path::new).filter(|path| path.is_absolute())
    }

    /// All variables that begin with `prefix`, sorted by name.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        let from = self.variables.range(prefix.to_owned()..);
        from.take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    /// The user's home folder. `/`, which systemd gives to users without one, counts as none.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref().filter(|home| home.is_absolute() && *home != Path::new("/"))
    }

    /// Where relative paths of options and variables begin.
    pub fn working_folder(&self) -> &Path {
        &self.working_folder
    }
}

/// An absolute path: `~/` is the home folder, and what is relative begins at `folder`.
pub fn absolute(path: &Path, folder: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(below), Some(home)) => home.join(below),
        _ => folder.join(path),
    }
}
