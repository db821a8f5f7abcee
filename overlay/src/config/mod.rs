//! The configuration: one table of keys, five sources of values, one set of values in effect.
//!
//! ```text
//!   default < file < settings made at run time < environment < command line
//! ```
//!
//! The highest source that has a key gives its value; a list replaces the list below it. Every value
//! knows its origin. [`options`] is the table from which options, variables, files and [`Settings`]
//! follow; [`layers`] reads the sources; this module combines them, changes them while the program
//! runs, and shows them.
//!
//! Invariant: the [`Settings`] that a program sees always come from sources that were read and checked
//! completely. What fails to be read changes nothing.

mod layers;
mod options;
mod schedule;
mod show;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use self::{
    layers::{Layer, Place},
    options::{Definition, Settings, VARIABLE_PREFIX, definition, definitions},
    schedule::{ScheduleError, ScheduleLine},
    show::{LeafOptions, Options, UltrapeerOptions, arguments, example},
    value::{Interval, LogFilter, LogFormat, QueryRate, Rate, Setting, Shape, Size, ValueError, Volunteer, Written},
};
use crate::{
    admin::error::{ApiError, Code},
    environment::Environment,
    folders::{self, Folders},
};

/// Which of the two programs is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// `quictrack`: what people run.
    Leaf,
    /// `quictrack-ultrapeer`: headless, for operators.
    Ultrapeer,
}

impl Program {
    /// The command.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leaf => "quictrack",
            Self::Ultrapeer => "quictrack-ultrapeer",
        }
    }

    /// What the daemon is: `leaf` or `ultrapeer`; also the name of its configuration file.
    pub const fn role(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Ultrapeer => "ultrapeer",
        }
    }

    /// The command that starts the daemon.
    pub const fn start_command(self) -> &'static str {
        match self {
            Self::Leaf => "quictrack leaf",
            Self::Ultrapeer => "quictrack-ultrapeer",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Leaf => Self::Ultrapeer,
            Self::Ultrapeer => Self::Leaf,
        }
    }
}

/// Where a value in effect comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Nothing sets the key.
    Default,
    /// The configuration file.
    File,
    /// A change made while the program ran, kept in `settings.toml`.
    Settings,
    /// An environment variable.
    Environment,
    /// An option.
    CommandLine,
}

impl Origin {
    /// Its name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Settings => "settings",
            Self::Environment => "environment",
            Self::CommandLine => "command-line",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One key with its value in effect: the object `option` of the HTTP interface and of `config show`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct OptionRow {
    /// The key.
    pub key: &'static str,
    /// The value in effect, in the form in which it was written; null if there is none.
    pub value: Json,
    /// The value that it would have if nothing set it.
    pub default: Json,
    /// Where the value comes from.
    pub origin: Origin,
    /// True if a new value takes effect only after a restart.
    pub restart: bool,
}

/// What a reload or a change brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// The keys whose value in effect is a new one, in the order of the table.
    pub rows: Vec<OptionRow>,
}

impl Changes {
    /// The changed keys that take effect only after a restart.
    pub fn waiting_for_restart(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().filter(|row| row.restart).map(|row| row.key)
    }
}

/// The configuration of a running program. Shared between its parts; every method takes `&self`.
#[derive(Debug)]
pub struct Config {
    program: Program,
    paths: Folders,
    warnings: Vec<String>,
    home: Option<PathBuf>,
    layers: Mutex<Layers>,
    /// The configuration file as [`Self::file_changed`] last saw it.
    seen: Mutex<Fingerprint>,
    settings: watch::Sender<Arc<Settings>>,
}

impl Config {
    /// Reads all sources. `command_line` comes from [`Layer::of_matches`].
    ///
    /// # Errors
    /// The first value that is wrong, with its place; a file that was asked for and is absent.
    pub fn load(
        program: Program,
        paths: &Folders,
        environment: &Environment,
        command_line: Layer,
    ) -> Result<Self, ConfigError> {
        let (variables, warnings) = Layer::of_environment(program, environment)?;
        let home = environment.home().map(Path::to_owned);
        let seen = Fingerprint::of(&paths.configuration);
        let (file, settings) = read_files(program, paths, home.as_deref())?;
        let layers = Layers { file, settings, environment: variables, command_line };
        let effective = Arc::new(layers.effective(program, paths)?);
        Ok(Self {
            program,
            paths: paths.clone(),
            warnings,
            home,
            layers: Mutex::new(layers),
            seen: Mutex::new(seen),
            settings: watch::Sender::new(effective),
        })
    }

    /// Checks a configuration file without using it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check_file(program: Program, path: &Path, environment: &Environment) -> Result<(), ConfigError> {
        Layer::of_file(program, path, true, environment.home()).map(drop)
    }

    /// The values in effect.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// The values in effect, and every later set of them.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// What was strange but no error: variables that no key reads. To be shown once.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the value of a key comes from; a key that the program does not have is a default.
    pub fn origin(&self, key: &str) -> Origin {
        self.lock().origin(key)
    }

    /// True if the user set the key, in whatever way.
    pub fn is_set(&self, key: &str) -> bool {
        self.origin(key) != Origin::Default
    }

    /// All keys of the program with their values, in the order of the table.
    pub fn rows(&self) -> Vec<OptionRow> {
        let layers = self.lock();
        definitions(self.program).map(|definition| self.row(&layers, definition)).collect()
    }

    /// The values made at run time, for export.
    pub fn run_time_settings(&self) -> BTreeMap<&'static str, Json> {
        self.lock().settings.iter().map(|(key, written)| (key, written.to_json())).collect()
    }

    /// Sets keys, or with null gives them back to the origin below, for good: all of them or none.
    /// Returns what came to have a new value. Writes a file, so it may take milliseconds.
    ///
    /// # Errors
    /// An unknown key, a value without meaning, a key that the environment or command line holds
    /// ([`ConfigError::Held`]), or a file that cannot be written. Then nothing has changed.
    pub fn change(&self, changes: &BTreeMap<String, Json>) -> Result<Changes, ConfigError> {
        let mut layers = self.lock();
        let mut settings = layers.settings.clone();
        let base = layers::Base { folder: &self.paths.data, home: self.home.as_deref() };
        for (key, json) in changes {
            let definition = layers::known_key(self.program, key, &Place::Request)?;
            let origin = layers.origin(definition.key);
            if origin > Origin::Settings {
                return Err(ConfigError::Held { key: definition.key, origin });
            }
            match Written::from_json(json) {
                Some(Written::Nothing) => settings.remove(definition.key),
                Some(written) => settings.insert(self.program, definition, written, &base, Place::Request)?,
                None => {
                    let source = ValueError::new("an object is no value of this key");
                    return Err(ConfigError::Value { place: Place::Request, key: definition.key, source });
                }
            }
        }
        write_settings(&self.paths.settings_file(), &settings)?;
        self.replace(&mut layers, |layers| layers.settings = settings)
    }

    /// Reads the files again and returns what came to have a new value. Keys that need a restart are
    /// among them; they are already new in [`Self::settings`], and whoever uses them is started anew.
    ///
    /// # Errors
    /// As [`Self::load`]. Then the old values stay.
    pub fn reload(&self) -> Result<Changes, ConfigError> {
        let mut layers = self.lock();
        let (file, settings) = read_files(self.program, &self.paths, self.home.as_deref())?;
        self.replace(&mut layers, |layers| {
            layers.file = file;
            layers.settings = settings;
        })
    }

    /// Returns when the configuration file is another than at the start or at the last return. Cancel-safe.
    ///
    /// It looks every two seconds: files that are mounted into containers are exchanged in ways that
    /// file system events do not show.
    pub async fn file_changed(&self) {
        loop {
            tokio::time::sleep(FILE_POLL).await;
            let now = Fingerprint::of(&self.paths.configuration);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen != now {
                *seen = now;
                return;
            }
        }
    }

    fn replace(&self, layers: &mut Layers, edit: impl FnOnce(&mut Layers)) -> Result<Changes, ConfigError> {
        let rows = |layers: &Layers| -> Vec<OptionRow> {
            definitions(self.program).map(|definition| self.row(layers, definition)).collect()
        };
        let before = rows(layers);
        let mut edited = layers.clone();
        edit(&mut edited);
        let effective = edited.effective(self.program, &self.paths)?;
        let after = rows(&edited);
        *layers = edited;
        self.settings.send_replace(Arc::new(effective));
        let changed = before.into_iter().zip(after).filter(|(old, new)| old != new).map(|(_, new)| new);
        Ok(Changes { rows: changed.collect() })
    }

    fn row(&self, layers: &Layers, definition: &'static Definition) -> OptionRow {
        let default = definition.default(self.program, &self.paths.downloads);
        let (origin, written) = layers.value(definition.key).map_or((Origin::Default, &default), |found| found);
        OptionRow {
            key: definition.key,
            value: written.to_json(),
            default: default.to_json(),
            origin,
            restart: definition.needs_restart(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Layers> {
        // Layers are replaced whole, so a panic elsewhere cannot have left them half changed.
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time between two looks at the configuration file: short for a person who waits, free for a machine.
const FILE_POLL: Duration = Duration::from_secs(2);

/// The sources above the defaults.
#[derive(Clone, Debug)]
struct Layers {
    file: Layer,
    settings: Layer,
    environment: Layer,
    command_line: Layer,
}

impl Layers {
    /// The value of the highest source that has one.
    fn value(&self, key: &str) -> Option<(Origin, &Written)> {
        let sources = [
            (Origin::CommandLine, &self.command_line),
            (Origin::Environment, &self.environment),
            (Origin::Settings, &self.settings),
            (Origin::File, &self.file),
        ];
        sources.into_iter().find_map(|(origin, layer)| Some((origin, layer.value(key)?)))
    }

    fn origin(&self, key: &str) -> Origin {
        self.value(key).map_or(Origin::Default, |(origin, _)| origin)
    }

    fn effective(&self, program: Program, paths: &Folders) -> Result<Settings, ConfigError> {
        let value = |definition: &'static Definition| match self.value(definition.key) {
            Some((_, written)) => written.clone(),
            None => definition.default(program, &paths.downloads),
        };
        Settings::read(value).map_err(|(definition, source)| ConfigError::Value {
            place: Place::Request,
            key: definition.key,
            source,
        })
    }
}

/// What tells two versions of a file apart without reading them; `None` if it is absent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(Option<(u64, Option<SystemTime>)>);

impl Fingerprint {
    pub(crate) fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().map(|metadata| (metadata.len(), metadata.modified().ok())))
    }
}

/// The secret of a private network: the content of its file without white space around it.
///
/// # Errors
/// If the file cannot be read or is empty.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.into(), source };
    let text = Zeroizing::new(layers::read_bounded(path).map_err(unreadable)?);
    match text.trim() {
        "" => Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "the secret is empty"))),
        secret => Ok(Zeroizing::new(secret.to_owned())),
    }
}

fn read_files(program: Program, paths: &Folders, home: Option<&Path>) -> Result<(Layer, Layer), ConfigError> {
    let file = Layer::of_file(program, &paths.configuration, paths.configuration_given, home)?;
    let settings = Layer::of_file(program, &paths.settings_file(), false, home)?;
    Ok((file, settings))
}

fn write_settings(path: &Path, settings: &Layer) -> Result<(), ConfigError> {
    let table: toml::Table =
        settings.iter().filter_map(|(key, written)| Some((key.to_owned(), written.to_toml()?))).collect();
    let text = format!("# Settings made while the program ran. It writes this file anew at every change.\n{table}");
    folders::write_atomically(path, text.as_bytes(), 0o600)
        .map_err(|source| ConfigError::Unwritable { path: path.into(), source })
}

/// Why a configuration or a change of it is refused. Nothing was changed; the fault is the writer's,
/// but for [`Self::Unreadable`] and [`Self::Unwritable`], which the system may cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No program has this key.
    #[error("{place}unknown key `{key}`")]
    UnknownKey {
        /// Where it stands.
        place: Place,
        /// What stands there.
        key: String,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// Only the other program has this key.
    #[error("{place}`{key}` is a key of {}, not of {}", program.other().name(), program.name())]
    OtherProgram {
        /// Where it stands.
        place: Place,
        /// The key.
        key: &'static str,
        /// The program that was configured.
        program: Program,
    },
    /// The value has no meaning for its key.
    #[error("{place}`{key}`: {source}")]
    Value {
        /// Where the value stands.
        place: Place,
        /// Its key.
        key: &'static str,
        /// What was expected.
        source: ValueError,
    },
    /// The file is no TOML.
    #[error("{place}{message}")]
    Syntax {
        /// Where reading stopped.
        place: Place,
        /// What the TOML reader says.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `settings.toml` cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A change at run time would have no effect, because a higher source has the key.
    #[error("`{key}` is set by the {}, which a change at run time cannot override", origin.in_words())]
    Held {
        /// The key.
        key: &'static str,
        /// The source that has it.
        origin: Origin,
    },
}

impl Origin {
    const fn in_words(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "configuration file",
            Self::Settings => "settings",
            Self::Environment => "environment",
            Self::CommandLine => "command line",
        }
    }
}

impl ConfigError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::UnknownKey { key, .. } if key == "data_dir" || key == "config" => Some(
                "the folders are chosen by --data-dir and --config, or QUICTRACK_DATA_DIR and QUICTRACK_CONFIG".into(),
            ),
            Self::UnknownKey { .. } => Some("`config show` lists all keys".into()),
            Self::OtherProgram { .. } => Some("give each program a configuration file of its own".into()),
            Self::Value { key, .. } => definition(key).map(|definition| format!("{key}: {}", definition.help())),
            Self::Syntax { .. } => {
                Some("text stands in quotes, lists in brackets: join = [\"node.example:7780\"]".into())
            }
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("check its name, or make the file".into())
            }
            Self::Unreadable { .. } => Some("check that the file belongs to the user who runs the program".into()),
            Self::Unwritable { .. } => Some("check the owner of the data folder and the space on its disk".into()),
            Self::Held { key, origin: Origin::Environment } => {
                definition(key).map(|definition| format!("unset {} and restart", definition.variable()))
            }
            Self::Held { key, .. } => Some(format!("restart without --{}", key.replace('_', "-"))),
        }
    }

    /// The code of this error on the command line: `bad_config`, `permission_denied`, `conflict` or `internal`.
    pub fn code(&self) -> Code {
        match self {
            Self::Held { .. } => Code::Conflict,
            Self::Unreadable { source, .. } | Self::Unwritable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Code::PermissionDenied
            }
            Self::Unwritable { .. } => Code::Internal,
            _ => Code::BadConfig,
        }
    }

    /// The character of the line at which a file is wrong, from 1.
    pub fn position(&self) -> Option<u32> {
        match self {
            Self::UnknownKey { place, .. }
            | Self::OtherProgram { place, .. }
            | Self::Value { place, .. }
            | Self::Syntax { place, .. } => match place {
                Place::File { column, .. } => Some(*column as u32),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A refused change of the configuration as the HTTP interface answers it.
impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        let code = match error.code() {
            Code::BadConfig => Code::BadRequest,
            Code::Conflict => Code::Conflict,
            _ => Code::Internal,
        };
        let answer = Self::new(code, error.to_string());
        match error.hint() {
            Some(hint) => answer.hint(hint),
            None => answer,
        }
    }
}
