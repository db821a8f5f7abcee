//! The log: lines on stderr, a filter that can change, the last lines for whoever asks.
//!
//! ```text
//!   tracing event ──> filter ──> LogLine ──┬──> stderr, as text or JSON
//!                     (can change)         ├──> ring of the last 1,000
//!                                          └──> followers (a slow one loses the oldest)
//! ```
//!
//! One [`LogLine`] serves all three, so the page shows what the terminal shows. Fields of an event and of
//! the spans around it follow the message as `name=value`. Queries and file names are never logged above
//! `debug`; that is for those who log to keep.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use owo_colors::{OwoColorize, Style};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::broadcast;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    config::LogFormat,
    console::{ColorChoice, harmless},
    limits,
};

/// One line of the log. As JSON, these are its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogLine {
    /// RFC 3339 in UTC with microseconds.
    pub timestamp: String,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: &'static str,
    /// The module that says it.
    pub target: String,
    /// What happened, and then the fields as `name=value`.
    pub message: String,
}

/// The log of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
    log: Arc<Log>,
}

impl Telemetry {
    /// Installs the log for the whole process.
    ///
    /// # Errors
    /// If the filter has no meaning, or a log is installed already.
    pub fn install(filter: &str, format: LogFormat, color: ColorChoice) -> Result<Self, TelemetryError> {
        let color = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                io::stderr().is_terminal()
                    && anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
            }
        };
        let (telemetry, subscriber) = Self::build(filter, format, color, Box::new(io::stderr()))?;
        subscriber.try_init().map_err(|_| TelemetryError::Installed)?;
        Ok(telemetry)
    }

    /// From now on logs what `filter` lets through.
    ///
    /// # Errors
    /// If the filter has no meaning; then the old one stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
        let filter = parse_filter(filter)?;
        self.filter.reload(filter).map_err(|_| TelemetryError::Gone)
    }

    /// From now on writes lines in this form.
    pub fn set_format(&self, format: LogFormat) {
        self.log.json.store(format == LogFormat::Json, Ordering::Relaxed);
    }

    /// The last lines, oldest first: at most [`limits::LOG_LINES`].
    pub fn lines(&self) -> Vec<Arc<LogLine>> {
        self.log.lock().lines.iter().cloned().collect()
    }

    /// Every later line. A follower that is slower than the log is told how many it lost.
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogLine>> {
        self.log.followers.subscribe()
    }

    fn build(
        filter: &str,
        format: LogFormat,
        color: bool,
        to: Box<dyn Write + Send>,
    ) -> Result<(Self, impl Subscriber + Send + Sync + use<>), TelemetryError> {
        let (filter, handle) = reload::Layer::new(parse_filter(filter)?);
        let log = Arc::new(Log {
            json: AtomicBool::new(format == LogFormat::Json),
            color,
            inner: Mutex::new(Inner { to, lines: VecDeque::with_capacity(limits::LOG_LINES) }),
            followers: broadcast::Sender::new(limits::LOG_FOLLOWER_LINES),
        });
        let subscriber = Registry::default().with(filter).with(LogLayer { log: log.clone() });
        Ok((Self { filter: handle, log }, subscriber))
    }
}

/// Why the log cannot be set up or changed. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter has no meaning; its writer is at fault.
    #[error("`{filter}` is no log filter: {reason}")]
    Filter {
        /// The filter.
        filter: String,
        /// What its parser says.
        reason: String,
    },
    /// The process has a log already.
    #[error("a log is installed already")]
    Installed,
    /// The log's subscriber was dropped.
    #[error("the log is gone")]
    Gone,
}

/// Where lines go.
struct Log {
    json: AtomicBool,
    color: bool,
    inner: Mutex<Inner>,
    followers: broadcast::Sender<Arc<LogLine>>,
}

struct Inner {
    to: Box<dyn Write + Send>,
    lines: VecDeque<Arc<LogLine>>,
}

impl Log {
    fn push(&self, line: LogLine) {
        let text = if self.json.load(Ordering::Relaxed) { in_json(&line) } else { in_text(&line, self.color) };
        let line = Arc::new(line);
        let mut inner = self.lock();
        // A closed stderr is no reason to stop.
        let _ = inner.to.write_all(text.as_bytes());
        if inner.lines.len() == limits::LOG_LINES {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line.clone());
        // Sent under the lock, so that followers see the order of the ring. An error means: no followers.
        let _ = self.followers.send(line);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// Turns events into lines.
struct LogLayer {
    log: Arc<Log>,
}

/// The fields of a span as they stand in a line.
struct SpanFields(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(SpanFields(fields.rest));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(SpanFields(known)) = span.extensions_mut().get_mut::<SpanFields>() {
            known.push_str(&fields.rest);
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut message = fields.message;
        message.push_str(&fields.rest);
        for span in cx.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(known)) = span.extensions().get::<SpanFields>() {
                message.push_str(known);
            }
        }
        let metadata = event.metadata();
        self.log.push(LogLine {
            timestamp: format!("{:.6}", jiff::Timestamp::now()),
            level: level_name(*metadata.level()),
            target: metadata.target().to_owned(),
            message: cut(message.trim_start()),
        });
    }
}

/// Collects the message and the other fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            // Text with spaces keeps its ends visible by quotes.
            _ if value.is_empty() || value.contains([' ', '"', '=']) => self.record_debug(field, &value),
            name => {
                let _ = write!(self.rest, " {name}={value}");
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }
}

/// What the client of the DHT says is no news of this node: left out unless it is asked for by name.
const QUIET: &str = "mainline=off";

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(format!("{QUIET},{filter}"))
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// At most [`limits::LOG_LINE_BYTES`], ended at a character.
fn cut(message: &str) -> String {
    let end = message.floor_char_boundary(limits::LOG_LINE_BYTES);
    message[..end].to_owned()
}

fn in_json(line: &LogLine) -> String {
    // Four texts always have a form in JSON.
    serde_json::to_string(line).map(|json| json + "\n").unwrap_or_default()
}

fn in_text(line: &LogLine, color: bool) -> String {
    let message = harmless(&line.message);
    let (level_style, faint) = match (color, line.level) {
        (false, _) => (Style::new(), Style::new()),
        (true, "ERROR") => (Style::new().red().bold(), Style::new().dimmed()),
        (true, "WARN") => (Style::new().yellow().bold(), Style::new().dimmed()),
        (true, "INFO") => (Style::new().green(), Style::new().dimmed()),
        (true, _) => (Style::new().dimmed(), Style::new().dimmed()),
    };
    let level = format!("{:>5}", line.level);
    if color {
        let (timestamp, target) = (line.timestamp.style(faint), line.target.style(faint));
        return format!("{timestamp} {} {target} {message}\n", level.style(level_style));
    }
    format!("{} {level} {} {message}\n", line.timestamp, line.target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, format: LogFormat, log: impl FnOnce(&Telemetry)) -> (Telemetry, String) {
        let to = Shared::default();
        let (telemetry, subscriber) = Telemetry::build(filter, format, false, Box::new(to.clone())).unwrap();
        tracing::subscriber::with_default(subscriber, || log(&telemetry));
        let bytes = to.0.lock().unwrap().clone();
        (telemetry, String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn json_lines_have_the_four_keys() {
        let (_, text) = logged("info", LogFormat::Json, |_| tracing::info!(leaves = 3, "attached"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "overlay::telemetry::tests");
        assert_eq!(line["message"], "attached leaves=3");
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn the_filter_changes_while_the_log_runs() {
        let (telemetry, text) = logged("warn", LogFormat::Text, |telemetry| {
            tracing::info!("before");
            telemetry.set_filter("info").unwrap();
            tracing::info!("after");
            assert!(matches!(telemetry.set_filter("a=b=c"), Err(TelemetryError::Filter { .. })));
            tracing::info!("still");
        });
        assert!(!text.contains("before") && text.contains("after") && text.contains("still"), "{text}");
        assert_eq!(telemetry.lines().len(), 2);
    }

    #[test]
    fn spans_add_their_fields() {
        let (telemetry, _) = logged("info", LogFormat::Text, |_| {
            let span = tracing::info_span!("connection", peer = "abc", role = tracing::field::Empty);
            let _entered = span.enter();
            span.record("role", "leaf");
            tracing::info!(reason = "a b", "closed");
        });
        assert_eq!(telemetry.lines()[0].message, "closed reason=\"a b\" peer=abc role=leaf");
    }

    #[test]
    fn the_ring_keeps_the_last_lines_and_followers_get_the_later_ones() {
        let (telemetry, _) = logged("info", LogFormat::Text, |telemetry| {
            tracing::info!("first");
            let mut follower = telemetry.follow();
            for number in 0..limits::LOG_LINES {
                tracing::info!("line {number}");
                assert_eq!(follower.try_recv().unwrap().message, format!("line {number}"));
            }
        });
        let lines = telemetry.lines();
        assert_eq!(lines.len(), limits::LOG_LINES);
        assert_eq!(lines[0].message, "line 0");
    }

    #[test]
    fn lines_are_cut_and_stay_lines() {
        let (telemetry, text) = logged("info", LogFormat::Text, |_| {
            tracing::info!("{}", "ä".repeat(limits::LOG_LINE_BYTES));
            tracing::info!("two\nlines\u{1b}[2J");
        });
        assert_eq!(telemetry.lines()[0].message.len(), limits::LOG_LINE_BYTES);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'));
    }
}
