//! Printing to stdout and stderr.

use std::{
    borrow::Cow,
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use anstream::AutoStream;
use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use crate::{
    admin::error::Code,
    console::{ColorChoice, Exit, Failure, GlobalOptions, Progress, Table},
};

/// Where a program prints. Cheap to clone; clones print to the same place.
#[derive(Clone)]
pub struct Console {
    json: bool,
    quiet: bool,
    out: Arc<Mutex<Stream>>,
    err: Arc<Mutex<Stream>>,
    out_is_terminal: bool,
    err_is_terminal: bool,
    /// Columns of the terminal; `None` if stdout is none.
    width: Option<usize>,
}

struct Stream {
    to: Box<dyn Write + Send>,
    color: bool,
}

impl Console {
    /// Prints to this process's stdout and stderr.
    pub fn new(options: &GlobalOptions) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let (out_color, err_color) = match options.color {
            ColorChoice::Always => (true, true),
            ColorChoice::Never => (false, false),
            ColorChoice::Auto => (may_color(&out), may_color(&err)),
        };
        let (out_is_terminal, err_is_terminal) = (out.is_terminal(), err.is_terminal());
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|_| out_is_terminal);
        Self {
            json: options.json,
            quiet: options.quiet,
            out: Arc::new(Mutex::new(Stream { to: Box::new(out), color: out_color })),
            err: Arc::new(Mutex::new(Stream { to: Box::new(err), color: err_color })),
            out_is_terminal,
            err_is_terminal,
            width,
        }
    }

    /// Prints to these writers, as to files: without color, progress or a width.
    pub fn to_writers(
        options: &GlobalOptions,
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
    ) -> Self {
        let color = options.color == ColorChoice::Always;
        Self {
            json: options.json,
            quiet: options.quiet,
            out: Arc::new(Mutex::new(Stream { to: Box::new(out), color })),
            err: Arc::new(Mutex::new(Stream { to: Box::new(err), color })),
            out_is_terminal: false,
            err_is_terminal: false,
            width: None,
        }
    }

    /// True if the reader is a program: `--json`.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// True if only errors are said: `-q`.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// True if a person reads stdout.
    pub fn is_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// Prints one JSON object as one line, at once. Commands call it only with `--json`.
    ///
    /// # Errors
    /// A reader that left, or a value that JSON cannot hold.
    pub fn line(&self, object: &impl Serialize) -> Result<(), Failure> {
        let mut line = Vec::with_capacity(256);
        object
            .serialize(&mut serde_json::Serializer::with_formatter(&mut line, HarmlessJson))
            .map_err(|error| Failure::new(Code::Internal, format!("an object cannot be printed: {error}")))?;
        line.push(b'\n');
        self.write_out(&line)
    }

    /// Prints one JSON object with its `type`, which every line of a command has.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn typed_line(&self, kind: &str, object: &impl Serialize) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Typed<'a, T: Serialize> {
            r#type: &'a str,
            #[serde(flatten)]
            object: &'a T,
        }
        self.line(&Typed { r#type: kind, object })
    }

    /// Prints a line of text to stdout. Text that comes from others goes through [`harmless`] first.
    ///
    /// # Errors
    /// A reader that left.
    pub fn text(&self, text: impl fmt::Display) -> Result<(), Failure> {
        self.write_out(format!("{text}\n").as_bytes())
    }

    /// Prints bytes to stdout as they are: completions, manuals, exports.
    ///
    /// # Errors
    /// A reader that left.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.write_out(bytes)
    }

    /// Prints a table, cut to the width of the terminal.
    ///
    /// # Errors
    /// A reader that left.
    pub fn table(&self, table: &Table) -> Result<(), Failure> {
        self.write_out(table.render(self.width, self.heading()).as_bytes())
    }

    /// How headings look.
    pub(super) fn heading(&self) -> Style {
        if lock(&self.out).color { Style::new().bold() } else { Style::new() }
    }

    /// Says something on stderr that is no result, unless `-q`. A closed stderr is ignored.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.write_err("", Style::new(), &text.to_string());
        }
    }

    /// Says on stderr what is strange but no error, unless `-q`.
    pub fn warn(&self, text: impl fmt::Display) {
        if !self.quiet {
            self.write_err("warning: ", Style::new().yellow().bold(), &text.to_string());
        }
    }

    /// Says why a command failed: `error:` and `hint:` on stderr, with `--json` the object on stdout too.
    pub fn fail(&self, failure: &Failure) {
        #[derive(Serialize)]
        struct Line<'a> {
            r#type: &'static str,
            #[serde(flatten)]
            failure: &'a Failure,
        }
        if failure.is_silent() {
            return;
        }
        if self.json {
            // If the reader left, stderr still says it.
            let _ = self.line(&Line { r#type: "error", failure });
        }
        self.explain(failure);
    }

    /// Says why something failed on stderr alone: for parts of a command that goes on, or whose own lines on
    /// stdout say it already.
    pub fn explain(&self, failure: &Failure) {
        self.write_err("error: ", Style::new().red().bold(), &failure.message);
        if let Some(hint) = &failure.hint {
            self.write_err("hint: ", Style::new().cyan().bold(), hint);
        }
    }

    /// Ends a command: says why it failed if it did, and gives what `main` returns.
    pub fn finish(&self, result: Result<Exit, Failure>) -> ExitCode {
        let exit = match result {
            Ok(exit) => exit,
            Err(failure) => {
                self.fail(&failure);
                failure.exit
            }
        };
        let _ = lock(&self.out).to.flush();
        exit.into()
    }

    /// Progress bars on stderr; they show nothing unless a person watches: a terminal, without `--json` and `-q`.
    pub fn progress(&self) -> Progress {
        Progress::new(self.err_is_terminal && !self.json && !self.quiet)
    }

    fn write_out(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = lock(&self.out);
        out.to.write_all(bytes)?;
        Ok(out.to.flush()?)
    }

    fn write_err(&self, label: &str, style: Style, text: &str) {
        let mut err = lock(&self.err);
        let text: Vec<_> = text.lines().map(harmless).collect();
        let text = text.join("\n");
        let line = if err.color { format!("{}{text}\n", label.style(style)) } else { format!("{label}{text}\n") };
        let _ = err.to.write_all(line.as_bytes());
        let _ = err.to.flush();
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("json", &self.json).field("quiet", &self.quiet).finish_non_exhaustive()
    }
}

/// Text of others made fit for a terminal: characters that move the cursor, start escape sequences or
/// change the direction of writing become `U+FFFD`, so a file name cannot pretend to be something else.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(is_harmful, "\u{fffd}"))
}

/// True for control characters (C0, DEL, C1), separators of lines, and marks of writing direction.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// JSON whose strings hold no harmful character as it is: the same value, fit for a terminal.
struct HarmlessJson;

impl serde_json::ser::Formatter for HarmlessJson {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_harmful) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let character = rest[at..].chars().next().unwrap_or_default();
            // All of them lie in the basic plane, so one unit is enough.
            write!(writer, "\\u{:04x}", u32::from(character))?;
            rest = &rest[at + character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

fn may_color(stream: &impl anstream::stream::RawStream) -> bool {
    AutoStream::choice(stream) != anstream::ColorChoice::Never
}

fn lock(stream: &Mutex<Stream>) -> std::sync::MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that can be read after it was given away.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failure_is_said_on_stderr_and_with_json_on_stdout_too() {
        let failure = Failure::new(Code::BadQuery, "unclosed quote").hint("close it").position(7);
        for (json, stdout) in [
            (false, ""),
            (
                true,
                "{\"type\":\"error\",\"code\":\"bad_query\",\"message\":\"unclosed quote\",\"hint\":\"close it\",\"position\":7}\n",
            ),
        ] {
            let (out, err) = (Shared::default(), Shared::default());
            let options = GlobalOptions { json, ..GlobalOptions::default() };
            let console = Console::to_writers(&options, out.clone(), err.clone());
            assert_eq!(console.finish(Err(failure.clone())), ExitCode::from(2));
            assert_eq!(out.text(), stdout);
            assert_eq!(err.text(), "error: unclosed quote\nhint: close it\n");
        }
    }

    #[test]
    fn a_reader_that_left_is_success_without_a_word() {
        let err = Shared::default();
        let console = Console::to_writers(&GlobalOptions::default(), Closed, err.clone());
        let result = console.text("x").map(|()| Exit::Failed);
        assert_eq!(console.finish(result), ExitCode::from(0));
        assert_eq!(err.text(), "");
    }

    #[test]
    fn names_of_others_cannot_reach_the_terminal() {
        let name = "a\u{1b}[2Jb\u{202e}gpj.exe\u{9b}\u{7f}";
        assert_eq!(harmless(name), "a\u{fffd}[2Jb\u{fffd}gpj.exe\u{fffd}\u{fffd}");
        let out = Shared::default();
        let console = Console::to_writers(&GlobalOptions::default(), out.clone(), io::sink());
        console.line(&serde_json::json!({ "name": name })).unwrap();
        assert!(!out.text().trim_end().contains(is_harmful));
        let read: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(read["name"], name);
    }

    #[test]
    fn lines_have_their_type_first() {
        let out = Shared::default();
        let console = Console::to_writers(&GlobalOptions::default(), out.clone(), io::sink());
        console.typed_line("id", &serde_json::json!({ "peer_id": "x" })).unwrap();
        assert_eq!(out.text(), "{\"type\":\"id\",\"peer_id\":\"x\"}\n");
    }
}
