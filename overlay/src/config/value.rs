//! Values of the configuration: as they are written in a file, a variable or an option, and what they mean.
//!
//! A [`Written`] value keeps the form that its writer chose (`"500kB"` stays that), so showing the
//! configuration shows what was set. [`Setting::read`] turns it into its meaning or says why it has none.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value as Json;

use crate::{
    address::{JoinAddress, NetworkName},
    config::schedule::ScheduleLine,
    limits, units,
};

/// A value as its writer wrote it.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// Nothing is set: for keys without a default.
    Nothing,
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Decimal(f64),
    /// Everything else.
    Text(String),
    /// Several values.
    List(Vec<Self>),
}

impl Written {
    /// A value of an environment variable or an option, which has no type of its own: read by what the
    /// key holds. What does not fit stays text and is refused when it is read.
    pub(super) fn from_text(shape: Shape, text: &str) -> Result<Self, ValueError> {
        Ok(match shape {
            Shape::Flag => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Self::Flag(true),
                "false" | "no" | "off" | "0" => Self::Flag(false),
                _ => Self::Text(text.into()),
            },
            Shape::Number => match (text.parse::<i64>(), text.parse::<f64>()) {
                (Ok(number), _) => Self::Integer(number),
                (_, Ok(number)) if number.is_finite() => Self::Decimal(number),
                _ => Self::Text(text.into()),
            },
            Shape::Text | Shape::Path | Shape::Address => Self::Text(text.into()),
            Shape::List | Shape::Paths => Self::list_from_text(text)?,
        })
    }

    /// Comma-separated, or a TOML array when a value holds a comma. An empty text is an empty list.
    fn list_from_text(text: &str) -> Result<Self, ValueError> {
        if text.trim_start().starts_with('[') && !is_bracketed_address(text) {
            let table: toml::Table = format!("list = {text}")
                .parse()
                .map_err(|_| ValueError::new("not a TOML array, though it begins with `[`"))?;
            let list = table.get("list").cloned().unwrap_or(toml::Value::Boolean(false));
            return Ok(Self::from(list));
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        Ok(Self::List(items.map(|item| Self::Text(item.into())).collect()))
    }

    /// The value in JSON; [`Written::Nothing`] is null.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Nothing => Json::Null,
            Self::Flag(flag) => Json::from(*flag),
            Self::Integer(number) => Json::from(*number),
            Self::Decimal(number) => Json::from(*number),
            Self::Text(text) => Json::from(text.as_str()),
            Self::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
        }
    }

    /// The value in JSON as a value of the configuration; `None` for objects, which no key holds.
    pub(super) fn from_json(json: &Json) -> Option<Self> {
        Some(match json {
            Json::Null => Self::Nothing,
            Json::Bool(flag) => Self::Flag(*flag),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Self::Integer(number),
                None => Self::Decimal(number.as_f64()?),
            },
            Json::String(text) => Self::Text(text.clone()),
            Json::Array(items) => Self::List(items.iter().map(Self::from_json).collect::<Option<_>>()?),
            Json::Object(_) => return None,
        })
    }

    /// The value in TOML; [`Written::Nothing`] has no form there.
    pub(super) fn to_toml(&self) -> Option<toml::Value> {
        Some(match self {
            Self::Nothing => return None,
            Self::Flag(flag) => toml::Value::Boolean(*flag),
            Self::Integer(number) => toml::Value::Integer(*number),
            Self::Decimal(number) => toml::Value::Float(*number),
            Self::Text(text) => toml::Value::String(text.clone()),
            Self::List(items) => toml::Value::Array(items.iter().filter_map(Self::to_toml).collect()),
        })
    }

    /// One text, where there may be several, is a list of one.
    pub(super) fn in_shape(self, shape: Shape) -> Self {
        match (self, shape) {
            (Self::Text(text), Shape::List | Shape::Paths) => Self::List(vec![Self::Text(text)]),
            (written, _) => written,
        }
    }

    /// Changes every text in it.
    pub(super) fn map_texts(self, change: &impl Fn(String) -> String) -> Self {
        match self {
            Self::Text(text) => Self::Text(change(text)),
            Self::List(items) => Self::List(items.into_iter().map(|item| item.map_texts(change)).collect()),
            other => other,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl From<toml::Value> for Written {
    fn from(value: toml::Value) -> Self {
        match value {
            toml::Value::Boolean(flag) => Self::Flag(flag),
            toml::Value::Integer(number) => Self::Integer(number),
            toml::Value::Float(number) => Self::Decimal(number),
            toml::Value::String(text) => Self::Text(text),
            toml::Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            // No key holds a date or a table: as text they are refused with their own form in the message.
            other @ (toml::Value::Datetime(_) | toml::Value::Table(_)) => Self::Text(other.to_string()),
        }
    }
}

/// `[::1]:7780` begins like a TOML array but is one address of a list.
fn is_bracketed_address(text: &str) -> bool {
    text.split(',').next().is_some_and(|first| first.trim().parse::<JoinAddress>().is_ok())
}

/// What form a key's values have; decides how texts become values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A switch.
    Flag,
    /// A number without a unit.
    Number,
    /// One text.
    Text,
    /// An address to bind; `:PORT` stands for the default's address with that port.
    Address,
    /// A file or folder, relative to where it was written.
    Path,
    /// Several texts; repeated on the command line.
    List,
    /// Several files or folders; repeated on the command line.
    Paths,
}

/// A type that a key of the configuration can have.
pub trait Setting: Sized {
    /// The form of its values.
    const SHAPE: Shape;

    /// The meaning of a written value.
    ///
    /// # Errors
    /// Says what was expected; the fault is the writer's.
    fn read(written: &Written) -> Result<Self, ValueError>;
}

/// Why a value cannot be read, as a sentence that names what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl ValueError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn expected(what: &str, written: &Written) -> Self {
        Self(format!("expected {what}, found {}", written.to_json()))
    }
}

/// Bytes a second; `off` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate(Option<NonZeroU64>);

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// A limit, or none for 0.
    pub const fn new(bytes_per_second: u64) -> Self {
        Self(NonZeroU64::new(bytes_per_second))
    }

    /// Bytes a second, above 0; `None` is unlimited.
    pub fn bytes_per_second(self) -> Option<u64> {
        self.0.map(NonZeroU64::get)
    }
}

/// Bytes; `off` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size(Option<NonZeroU64>);

impl Size {
    /// Bytes, above 0; `None` is unlimited.
    pub fn bytes(self) -> Option<u64> {
        self.0.map(NonZeroU64::get)
    }
}

/// A time between two actions; `off` is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval(Option<Duration>);

impl Interval {
    /// The time, above 0; `None` is never.
    pub fn duration(self) -> Option<Duration> {
        self.0
    }
}

/// When a leaf serves as an ultrapeer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Volunteer {
    /// Not at all.
    Never,
    /// When the network wants one and this node is fit.
    Auto,
    /// Whenever this node is fit; founds a network if there is none.
    Always,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Queries a second, above 0 and finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryRate(f64);

impl QueryRate {
    /// Queries a second.
    pub fn per_second(self) -> f64 {
        self.0
    }
}

impl Setting for bool {
    const SHAPE: Shape = Shape::Flag;

    fn read(written: &Written) -> Result<Self, ValueError> {
        match written {
            Written::Flag(flag) => Ok(*flag),
            _ => Err(ValueError::expected("true or false", written)),
        }
    }
}

impl Setting for u32 {
    const SHAPE: Shape = Shape::Number;

    fn read(written: &Written) -> Result<Self, ValueError> {
        let number = match written {
            Written::Integer(number) => Self::try_from(*number).ok(),
            _ => None,
        };
        number.ok_or_else(|| ValueError::expected("a whole number from 0 to 4294967295", written))
    }
}

impl Setting for NonZeroU32 {
    const SHAPE: Shape = Shape::Number;

    fn read(written: &Written) -> Result<Self, ValueError> {
        u32::read(written)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| ValueError::expected("a whole number from 1 to 4294967295", written))
    }
}

impl Setting for QueryRate {
    const SHAPE: Shape = Shape::Number;

    fn read(written: &Written) -> Result<Self, ValueError> {
        let rate = match written {
            Written::Integer(number) => *number as f64,
            Written::Decimal(number) => *number,
            Written::Text(text) => text.trim().strip_suffix("/s").and_then(|rate| rate.parse().ok()).unwrap_or(0.0),
            _ => 0.0,
        };
        if rate.is_finite() && rate > 0.0 {
            return Ok(Self(rate));
        }
        Err(ValueError::expected("a number of queries a second above 0, such as 0.5", written))
    }
}

/// Reads `off`, or a quantity above 0; a whole number in a file counts the base unit.
fn quantity(
    written: &Written,
    what: &str,
    parse: fn(&str) -> Result<u64, units::QuantityError>,
) -> Result<Option<NonZeroU64>, ValueError> {
    let value = match written {
        Written::Text(text) if text.trim().eq_ignore_ascii_case("off") => return Ok(None),
        Written::Text(text) => parse(text).map_err(|error| ValueError(format!("expected {what}: {error}")))?,
        Written::Integer(number) => {
            parse(&number.to_string()).map_err(|error| ValueError(format!("expected {what}: {error}")))?
        }
        _ => return Err(ValueError::expected(what, written)),
    };
    NonZeroU64::new(value)
        .map(Some)
        .ok_or_else(|| ValueError(format!("0 is no limit to work with; {what} is expected")))
}

impl Setting for Rate {
    const SHAPE: Shape = Shape::Text;

    fn read(written: &Written) -> Result<Self, ValueError> {
        quantity(written, "a rate such as `500kB` or `10Mbit`, or `off`", units::parse_rate).map(Self)
    }
}

impl Setting for Size {
    const SHAPE: Shape = Shape::Text;

    fn read(written: &Written) -> Result<Self, ValueError> {
        quantity(written, "a size such as `512MiB`, or `off`", units::parse_size).map(Self)
    }
}

impl Setting for Interval {
    const SHAPE: Shape = Shape::Text;

    fn read(written: &Written) -> Result<Self, ValueError> {
        let parse = |text: &str| units::parse_duration(text).map(|span| span.as_secs());
        let seconds = quantity(written, "a duration such as `30s` or `1h30m`, or `off`", parse)?;
        Ok(Self(seconds.map(|seconds| Duration::from_secs(seconds.get()))))
    }
}

impl Setting for Volunteer {
    const SHAPE: Shape = Shape::Text;

    fn read(written: &Written) -> Result<Self, ValueError> {
        match written.text() {
            Some("never") => Ok(Self::Never),
            Some("auto") => Ok(Self::Auto),
            Some("always") => Ok(Self::Always),
            _ => Err(ValueError::expected("`never`, `auto` or `always`", written)),
        }
    }
}

impl Setting for LogFormat {
    const SHAPE: Shape = Shape::Text;

    fn read(written: &Written) -> Result<Self, ValueError> {
        match written.text() {
            Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            _ => Err(ValueError::expected("`text` or `json`", written)),
        }
    }
}

/// A tracing filter in its text form, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(Box<str>);

impl LogFilter {
    /// The filter, which [`tracing_subscriber::EnvFilter`] parses.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for LogFilter {
    const SHAPE: Shape = Shape::Text;

    fn read(written: &Written) -> Result<Self, ValueError> {
        const WHAT: &str = "a log level (off, error, warn, info, debug, trace) or a filter such as `info,quinn=debug`";
        let text = written.text().ok_or_else(|| ValueError::expected(WHAT, written))?;
        // A word alone that is no level would be taken for a target and silence the log.
        let is_level = |text: &str| text.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        if !is_level(text) && !text.contains(['=', ',', '[']) {
            return Err(ValueError::expected(WHAT, written));
        }
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(ValueError(format!("expected {WHAT}: {error}"))),
        }
    }
}

impl Setting for NetworkName {
    const SHAPE: Shape = Shape::Text;

    fn read(written: &Written) -> Result<Self, ValueError> {
        let text = written.text().ok_or_else(|| ValueError::expected("a network name", written))?;
        text.parse().map_err(|error| ValueError(format!("{error}, not {}", written.to_json())))
    }
}

impl Setting for SocketAddr {
    const SHAPE: Shape = Shape::Address;

    fn read(written: &Written) -> Result<Self, ValueError> {
        let address = written.text().and_then(|text| text.trim().parse().ok());
        address
            .ok_or_else(|| ValueError::expected("an address and port such as `127.0.0.1:7780` or `[::]:7780`", written))
    }
}

/// `off` or nothing is `None`.
impl Setting for Option<SocketAddr> {
    const SHAPE: Shape = Shape::Address;

    fn read(written: &Written) -> Result<Self, ValueError> {
        match written {
            Written::Nothing => Ok(None),
            Written::Text(text) if text.trim().eq_ignore_ascii_case("off") => Ok(None),
            _ => SocketAddr::read(written).map(Some),
        }
    }
}

impl Setting for PathBuf {
    const SHAPE: Shape = Shape::Path;

    fn read(written: &Written) -> Result<Self, ValueError> {
        match written.text() {
            Some(path) if !path.is_empty() => Ok(path.into()),
            _ => Err(ValueError::expected("a path", written)),
        }
    }
}

impl Setting for Option<PathBuf> {
    const SHAPE: Shape = Shape::Path;

    fn read(written: &Written) -> Result<Self, ValueError> {
        match written {
            Written::Nothing => Ok(None),
            _ => PathBuf::read(written).map(Some),
        }
    }
}

impl Setting for Vec<PathBuf> {
    const SHAPE: Shape = Shape::Paths;

    fn read(written: &Written) -> Result<Self, ValueError> {
        read_list(written, "a list of paths", PathBuf::read)
    }
}

impl Setting for Vec<String> {
    const SHAPE: Shape = Shape::List;

    fn read(written: &Written) -> Result<Self, ValueError> {
        read_list(written, "a list of texts", |item| match item.text() {
            Some(text) if !text.trim().is_empty() => Ok(text.trim().into()),
            _ => Err(ValueError::expected("a text", item)),
        })
    }
}

impl Setting for Vec<JoinAddress> {
    const SHAPE: Shape = Shape::List;

    fn read(written: &Written) -> Result<Self, ValueError> {
        read_list(written, "a list of addresses such as `host:7780`", |item| {
            let text = item.text().ok_or_else(|| ValueError::expected("an address such as `host:7780`", item))?;
            text.trim().parse().map_err(|error| ValueError(format!("{error}")))
        })
    }
}

impl Setting for Vec<ScheduleLine> {
    const SHAPE: Shape = Shape::List;

    fn read(written: &Written) -> Result<Self, ValueError> {
        read_list(written, "a list of lines such as `mon-fri 08:00-18:00 500kB`", |item| {
            let text =
                item.text().ok_or_else(|| ValueError::expected("a line such as `mon-fri 08:00-18:00 500kB`", item))?;
            text.parse().map_err(|error| ValueError(format!("{error}")))
        })
    }
}

/// Reads each item of a list; one text stands for a list of one.
fn read_list<T>(
    written: &Written,
    what: &str,
    read: impl Fn(&Written) -> Result<T, ValueError>,
) -> Result<Vec<T>, ValueError> {
    match written {
        Written::List(items) if items.len() > limits::CONFIG_LIST_ITEMS => {
            Err(ValueError(format!("a list holds at most {} values", limits::CONFIG_LIST_ITEMS)))
        }
        Written::List(items) => items.iter().map(read).collect(),
        Written::Text(_) => Ok(vec![read(written)?]),
        _ => Err(ValueError::expected(what, written)),
    }
}
