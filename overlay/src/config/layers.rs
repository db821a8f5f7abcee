//! One source of values each: a file, the environment, the command line.
//!
//! A layer is complete and checked when it exists: every key in it belongs to the program and every
//! value has a meaning. So the layers of a running program can be combined without an error.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{ArgMatches, parser::ValueSource};
use toml::de::{DeTable, DeValue};

use crate::{
    config::{
        ConfigError, Program, Shape, VARIABLE_PREFIX, ValueError, Written, definition, definitions, options::Definition,
    },
    environment::{Environment, absolute},
    limits,
};

/// Values of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    values: BTreeMap<&'static str, Written>,
}

impl Layer {
    /// The value of a key, if this source has one.
    pub fn value(&self, key: &str) -> Option<&Written> {
        self.values.get(key)
    }

    /// The keys that this source sets, with their values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Written)> {
        self.values.iter().map(|(key, value)| (*key, value))
    }

    /// Sets a key to a text in the form of environment variables. For programs that start a node with
    /// values of their own.
    ///
    /// # Errors
    /// If the program has no such key or the text no meaning; the layer is unchanged.
    pub fn set(&mut self, program: Program, key: &str, text: &str) -> Result<(), ConfigError> {
        let place = Place::Request;
        let definition = known_key(program, key, &place)?;
        let base = Base { folder: Path::new("/"), home: None };
        self.insert_text(program, definition, text, &base, place)
    }

    /// Puts a checked value.
    pub(super) fn insert(
        &mut self,
        program: Program,
        definition: &'static Definition,
        written: Written,
        base: &Base<'_>,
        place: Place,
    ) -> Result<(), ConfigError> {
        let written = base.resolve(program, definition, written.in_shape(definition.shape));
        match definition.check(&written) {
            Ok(()) => {
                self.values.insert(definition.key, written);
                Ok(())
            }
            Err(source) => Err(ConfigError::Value { place, key: definition.key, source }),
        }
    }

    /// Puts a value that has no type of its own.
    fn insert_text(
        &mut self,
        program: Program,
        definition: &'static Definition,
        text: &str,
        base: &Base<'_>,
        place: Place,
    ) -> Result<(), ConfigError> {
        match Written::from_text(definition.shape, text) {
            Ok(written) => self.insert(program, definition, written, base, place),
            Err(source) => Err(ConfigError::Value { place, key: definition.key, source }),
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// The values of a file. A file that is absent has none, unless it was asked for.
    pub(super) fn of_file(
        program: Program,
        path: &Path,
        must_exist: bool,
        home: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        match read_bounded(path) {
            Ok(text) => Self::of_toml(program, path, &text, home),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path: path.into(), source }),
        }
    }

    /// The values of a file's text.
    pub(super) fn of_toml(program: Program, path: &Path, text: &str, home: Option<&Path>) -> Result<Self, ConfigError> {
        let place = |offset: usize| Place::in_text(path, text, offset);
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            place: place(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let base = Base { folder: path.parent().unwrap_or_else(|| Path::new("/")), home };
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut layer = Self::default();
        for (key, value) in entries {
            let definition = known_key(program, key.get_ref(), &place(key.span().start))?;
            let value_place = place(value.span().start);
            let written = match written_of_toml(value.get_ref()) {
                Ok(written) => written,
                Err(source) => return Err(ConfigError::Value { place: value_place, key: definition.key, source }),
            };
            layer.insert(program, definition, written, &base, value_place)?;
        }
        Ok(layer)
    }

    /// The values of environment variables, and a warning for each that names no key.
    pub(super) fn of_environment(
        program: Program,
        environment: &Environment,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let base = Base { folder: environment.working_folder(), home: environment.home() };
        let mut layer = Self::default();
        let mut warnings = Vec::new();
        for (name, value) in environment.with_prefix(VARIABLE_PREFIX) {
            let key = name[VARIABLE_PREFIX.len()..].to_ascii_lowercase();
            let Some(definition) = definition(&key).filter(|found| found.variable() == name) else {
                warnings.extend(unknown_variable(program, name, &key));
                continue;
            };
            let Some(text) = value.to_str() else {
                let source = ValueError::new("the value is not UTF-8");
                return Err(ConfigError::Value { place: Place::Variable(name.into()), key: definition.key, source });
            };
            // An empty variable is how container files leave a value out; only a list can be meant empty.
            let unset = text.is_empty() && !matches!(definition.shape, Shape::List | Shape::Paths);
            if definition.belongs_to(program) && !unset {
                layer.insert_text(program, definition, text, &base, Place::Variable(name.into()))?;
            }
        }
        Ok((layer, warnings))
    }

    /// The values of the options that [`super::arguments`] declares.
    ///
    /// # Errors
    /// If an option's value has no meaning.
    pub fn of_matches(program: Program, matches: &ArgMatches, environment: &Environment) -> Result<Self, ConfigError> {
        let base = Base { folder: environment.working_folder(), home: environment.home() };
        let mut layer = Self::default();
        for definition in definitions(program).filter(|definition| definition.option().is_some()) {
            let long = definition.key.replace('_', "-");
            let place = |long: &str| Place::Option(format!("--{long}"));
            if definition.shape == Shape::Flag {
                for (id, flag) in [(definition.key.to_owned(), true), (format!("no_{}", definition.key), false)] {
                    if matches.value_source(&id) == Some(ValueSource::CommandLine) && matches.get_flag(&id) {
                        layer.insert(program, definition, Written::Flag(flag), &base, place(&long))?;
                    }
                }
                continue;
            }
            let Some(values) = matches.get_many::<String>(definition.key) else { continue };
            match definition.shape {
                Shape::List | Shape::Paths => {
                    let list = Written::List(values.map(|value| Written::Text(value.clone())).collect());
                    layer.insert(program, definition, list, &base, place(&long))?;
                }
                _ => {
                    for value in values {
                        layer.insert_text(program, definition, value, &base, place(&long))?;
                    }
                }
            }
        }
        Ok(layer)
    }
}

/// Where a value stands, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In a file; line and column count from 1, the column in characters.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Character in the line, from 1.
        column: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// In an option of the command line.
    Option(String),
    /// In a request made at run time.
    Request,
}

impl Place {
    fn in_text(path: &Path, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        Self::File { path: path.into(), line, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}: ", path.display()),
            Self::Variable(name) => write!(f, "variable {name}: "),
            Self::Option(name) => write!(f, "option {name}: "),
            Self::Request => Ok(()),
        }
    }
}

/// What relative paths and addresses without a host are completed with.
pub(super) struct Base<'a> {
    pub(super) folder: &'a Path,
    pub(super) home: Option<&'a Path>,
}

impl Base<'_> {
    fn resolve(&self, program: Program, definition: &Definition, written: Written) -> Written {
        match definition.shape {
            Shape::Path | Shape::Paths => written.map_texts(&|path| match path.as_str() {
                "" => path,
                _ => absolute(Path::new(&path), self.folder, self.home).to_string_lossy().into_owned(),
            }),
            Shape::Address => written.map_texts(&|text| complete_address(program, definition, text)),
            Shape::Flag | Shape::Number | Shape::Text | Shape::List => written,
        }
    }
}

/// `:PORT` is that port of the default address.
fn complete_address(program: Program, definition: &Definition, text: String) -> String {
    let port = text.trim().strip_prefix(':').filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let default = definition.default(program, Path::new(""));
    match (port, default) {
        (Some(port), Written::Text(default)) => match default.rsplit_once(':') {
            Some((host, _)) => format!("{host}:{port}"),
            None => text,
        },
        _ => text,
    }
}

/// The definition of a key, or an error that names the nearest one.
pub(super) fn known_key(program: Program, key: &str, place: &Place) -> Result<&'static Definition, ConfigError> {
    match definition(key) {
        Some(definition) if definition.belongs_to(program) => Ok(definition),
        Some(definition) => Err(ConfigError::OtherProgram { place: place.clone(), key: definition.key, program }),
        None => Err(ConfigError::UnknownKey {
            place: place.clone(),
            key: key.to_owned(),
            nearest: nearest_key(program, key),
        }),
    }
}

/// The key that a typing error away from `key`: closer than a third of its length, at least one edit.
fn nearest_key(program: Program, key: &str) -> Option<&'static str> {
    let key: String = key.to_lowercase().replace('-', "_").chars().take(limits::QUERY_CHARS).collect();
    // `--no-lan` is `lan = false`.
    let key = key.strip_prefix("no_").unwrap_or(&key);
    let distance = |candidate: &str| strsim::damerau_levenshtein(candidate, key);
    let nearest = definitions(program).map(|definition| (distance(definition.key), definition.key)).min()?;
    let prefix = definitions(program).map(|definition| definition.key).find(|candidate| is_part(candidate, key));
    (nearest.0 <= (key.chars().count() / 3).max(2)).then_some(nearest.1).or(prefix)
}

/// True for `upload` and `upload_limit`, in either direction.
fn is_part(candidate: &str, key: &str) -> bool {
    key.len() >= 3 && (candidate.starts_with(key) || key.starts_with(&format!("{candidate}_")))
}

fn unknown_variable(program: Program, name: &str, key: &str) -> Option<String> {
    // These two choose the folders, before there is a configuration.
    if name == "QUICTRACK_DATA_DIR" || name == "QUICTRACK_CONFIG" {
        return None;
    }
    let nearest = nearest_key(program, key).and_then(definition);
    let suggestion = nearest.map(|found| format!("; did you mean {}?", found.variable())).unwrap_or_default();
    Some(format!("the environment variable {name} is not known and has no effect{suggestion}"))
}

fn written_of_toml(value: &DeValue<'_>) -> Result<Written, ValueError> {
    Ok(match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Boolean(flag) => Written::Flag(*flag),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Written::Integer)
            .map_err(|_| ValueError::new("the number is too large"))?,
        DeValue::Float(number) => {
            number.as_str().parse().map(Written::Decimal).map_err(|_| ValueError::new("the number cannot be read"))?
        }
        DeValue::Array(items) => {
            Written::List(items.iter().map(|item| written_of_toml(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Datetime(_) => return Err(ValueError::new("a date is no value of this key")),
        DeValue::Table(_) => return Err(ValueError::new("a table is no value of this key; all keys stand at the top")),
    })
}

/// The text of a file of at most [`limits::CONFIG_BYTES`].
pub(super) fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(limits::CONFIG_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::CONFIG_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB"));
    }
    Ok(text)
}
