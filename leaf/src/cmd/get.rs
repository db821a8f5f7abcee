//! `get`: downloads, and waits for them.
//!
//! ```text
//!   targets ── POST downloads ── jobs ──(ends of all, then events of each)──> progress ── done | failed
//!                                  └── --detach: queued
//! ```
//!
//! The jobs are the daemon's: giving up, an interrupt and the end of this program end the waiting, never a job.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, BufRead},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use futures_util::{FutureExt, StreamExt, stream};
use overlay::{
    admin::{
        client::{Client, EventStream, segment},
        error::Code,
    },
    console::{Bar, Column, Exit, Failure, Progress as Bars, Table, harmless},
    id::ContentId,
    limits, units,
};
use serde::Serialize;
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

use super::{Context, content_text, count, peer_text, seconds, short, usage};
use crate::api::types::{Done, Download, Failed, NewDownload, NewDownloads, Priority, Progress, Queued, Reason, State};
use crate::file_id::text;

/// What to download, and where to.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Where it goes: a folder (existing, or with a `/` at the end) or, for one content, a new file
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Do not wait
    #[arg(long)]
    detach: bool,
    /// How long to wait, at most [default: while sources are found in the first 30 s]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Its rank among the downloads that wait
    #[arg(long, value_enum, default_value_t)]
    priority: Priority,
    /// Read more targets from a file, one a line; `-` is stdin
    #[arg(long, value_name = "FILE|-")]
    from: Option<PathBuf>,
    /// A content id (8 or more of its first digits), or PEER/PATH for a file or folder of a share
    #[arg(value_name = "TARGET", required_unless_present = "from")]
    target: Vec<String>,
}

/// What to download.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Content(String),
    Shared { peer: String, path: String },
}

impl Target {
    fn parse(text: &str) -> Result<Self, Failure> {
        match text.split_once('/') {
            Some((peer, path)) => {
                Ok(Self::Shared { peer: peer_text(peer.trim())?, path: path.trim_end_matches('/').to_owned() })
            }
            None => content_text(text.trim()).map(Self::Content),
        }
    }
}

/// How the wait for a job ended.
enum End {
    Done(Done),
    Failed(Failed),
    GaveUp(GaveUp),
}

/// The line `failed` of a job that goes on without being waited for.
#[derive(Serialize)]
struct GaveUp {
    id: String,
    #[serde(with = "text")]
    content: ContentId,
    /// `no_source` or `timeout`.
    reason: &'static str,
    /// Why it was paused when the command gave up.
    #[serde(skip)]
    paused: Option<Reason>,
}

/// Runs it.
///
/// # Errors
/// Malformed targets, and what the daemon refuses. Jobs that failed are told as such, and by the exit.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let left = Left::default();
    let work = async {
        let targets = targets(&arguments).await?;
        let output = arguments.output.as_deref().map(|path| output(context, path, targets.len())).transpose()?;
        let client = context.client()?;
        if arguments.detach {
            let (jobs, refused) = ask(context, &client, targets, output, arguments.priority).await?;
            let exit = queued(context, &jobs)?;
            return refused.map_or(Ok(exit), Err);
        }
        // Before anything is asked for, so that no end is missed. Without it each download is followed alone.
        let ends = client.events("downloads/ends", None).await.ok();
        let (jobs, refused) = ask(context, &client, targets, output, arguments.priority).await?;
        let exit = Box::pin(wait(context, &client, jobs, ends, arguments.timeout, &left)).await?;
        refused.map_or(Ok(exit), Err)
    };
    tokio::select! {
        biased;
        () = context.interrupted() => {
            left.tell(context)?;
            Ok(Exit::Interrupted)
        }
        result = work => result,
    }
}

/// The jobs that are waited for, by id.
#[derive(Default)]
struct Left(RefCell<BTreeMap<String, ContentId>>);

impl Left {
    fn ended(&self, id: &str) {
        self.0.borrow_mut().remove(id);
    }

    /// Tells, as if they had never been waited for, that they go on.
    fn tell(&self, context: &Context) -> Result<(), Failure> {
        let left = self.0.borrow();
        if context.console.is_json() {
            for (id, content) in left.iter() {
                context.console.typed_line("queued", &Queued { id: id.clone(), content: *content })?;
            }
        }
        if !left.is_empty() {
            let many = count(left.len() as u64, "download");
            context.console.warn(format_args!(
                "interrupted, but what was started goes on ({many}); `quictrack downloads` shows it, `quictrack downloads \
                 cancel ID` ends it"
            ));
        }
        Ok(())
    }
}

/// The targets of the command line, then those of the file.
async fn targets(arguments: &Arguments) -> Result<Vec<Target>, Failure> {
    let mut lines = arguments.target.clone();
    if let Some(file) = arguments.from.clone() {
        let shown = file.display().to_string();
        let read = spawn_blocking(move || read_lines(&file)).await;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        lines.extend(read.map_err(|error| {
            let hint = "name a file with one target a line, or `-` for stdin";
            usage(format!("cannot read the targets in {shown}: {error}")).hint(hint)
        })?);
    }
    if lines.len() > limits::CLIENT_DOWNLOADS {
        return Err(usage(format!("more than {} targets", limits::CLIENT_DOWNLOADS)));
    }
    lines.iter().map(|line| Target::parse(line)).collect()
}

/// The lines that are not blank.
fn read_lines(file: &std::path::Path) -> io::Result<Vec<String>> {
    let reader: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(io::BufReader::new(std::fs::File::open(file)?))
    };
    let lines = reader.lines().filter(|line| line.as_ref().is_ok_and(|line| !line.trim().is_empty()) || line.is_err());
    lines.take(limits::CLIENT_DOWNLOADS + 1).collect()
}

/// Where the files go, as the daemon is sent it.
fn output(context: &Context, path: &std::path::Path, targets: usize) -> Result<String, Failure> {
    let mut absolute = context.absolute(path)?;
    if std::path::Path::new(&absolute).is_dir() && !absolute.ends_with('/') {
        absolute.push('/');
    }
    if targets > 1 && !absolute.ends_with('/') {
        return Err(usage(format!("`{}` is no folder, and there are {targets} targets", path.display()))
            .hint("make the folder, or write a `/` at the end"));
    }
    Ok(absolute)
}

/// Asks for every target. What was refused is told at once, and the first of it ends the command when all else is done.
async fn ask(
    context: &Context,
    client: &Client,
    targets: Vec<Target>,
    output: Option<String>,
    priority: Priority,
) -> Result<(Vec<Download>, Option<Failure>), Failure> {
    let (mut jobs, mut refused) = (Vec::new(), None);
    let only_one = targets.len() == 1;
    for target in targets {
        let priority = Some(priority.name().to_owned());
        let mut body = NewDownload { output: output.clone(), priority, ..NewDownload::default() };
        match target {
            Target::Content(content) => body.content = Some(content),
            Target::Shared { peer, path } => (body.peer, body.path) = (Some(peer), Some(path)),
        }
        match client.post::<NewDownloads>("downloads", &body).await.map_err(|error| context.failure(error)) {
            Ok(NewDownloads::One(job)) => jobs.push(*job),
            Ok(NewDownloads::Folder { items }) => jobs.extend(items),
            Err(failure) if only_one || failure.code == Code::DaemonNotRunning => return Err(failure),
            Err(failure) => match &refused {
                // The end tells the first.
                None => refused = Some(failure),
                Some(_) => context.console.explain(&failure),
            },
        }
    }
    Ok((jobs, refused))
}

/// Tells what was asked for without waiting for it.
fn queued(context: &Context, jobs: &[Download]) -> Result<Exit, Failure> {
    let console = &context.console;
    if console.is_json() {
        for job in jobs {
            console.typed_line("queued", &Queued { id: job.id.clone(), content: job.content })?;
        }
        return Ok(Exit::Done);
    }
    let mut table = Table::new([Column::left("id"), Column::flexible("name")]);
    for job in jobs {
        table.row([&job.id, &job.name]);
    }
    console.table(&table)?;
    console.note("`quictrack downloads` shows how far they are");
    Ok(Exit::Done)
}

/// Waits for all jobs, several at once, and tells how each ends.
async fn wait(
    context: &Context,
    client: &Client,
    jobs: Vec<Download>,
    ends: Option<EventStream>,
    timeout: Option<Duration>,
    left: &Left,
) -> Result<Exit, Failure> {
    *left.0.borrow_mut() = jobs.iter().map(|job| (job.id.clone(), job.content)).collect();
    if jobs.is_empty() {
        context.console.note("there is nothing to download");
        return Ok(Exit::Done);
    }
    let bars = context.console.progress();
    let began = Instant::now();
    let head_start = if jobs.len() > limits::CLIENT_FOLLOWED { HEAD_START } else { Duration::ZERO };
    let (watches, hearers) = jobs
        .into_iter()
        .map(|job| {
            let (teller, told) = oneshot::channel();
            let id = job.id.clone();
            (Watch::new(context, client, &bars, job, began, timeout).follow(told, head_start), (id, teller))
        })
        .collect::<(Vec<_>, BTreeMap<_, _>)>();
    let mut followed = stream::iter(watches).buffer_unordered(limits::CLIENT_FOLLOWED);
    let telling = tell_ends(ends, hearers);
    tokio::pin!(telling);
    let (mut exit, mut is_telling) = (Exit::Done, true);
    loop {
        let end = tokio::select! {
            biased;
            () = &mut telling, if is_telling => {
                is_telling = false;
                continue;
            }
            end = followed.next() => end,
        };
        let Some(end) = end else { break };
        let ended = match end? {
            End::Done(done) => {
                left.ended(&done.id);
                bars.suspend(|| tell_done(context, &done))?;
                Exit::Done
            }
            End::Failed(failed) => {
                left.ended(&failed.id);
                bars.suspend(|| tell_failed(context, &failed))?;
                Exit::Failed
            }
            End::GaveUp(gave_up) => {
                left.ended(&gave_up.id);
                bars.suspend(|| tell_gave_up(context, &gave_up))?;
                if gave_up.reason == NO_SOURCE { Exit::NothingFound } else { Exit::Failed }
            }
        };
        exit = worse(exit, ended);
    }
    Ok(exit)
}

/// Tells each watch how its job ended, as the daemon tells of all. When it tells no more, each is followed alone.
async fn tell_ends(ends: Option<EventStream>, mut hearers: BTreeMap<String, oneshot::Sender<End>>) {
    let Some(mut ends) = ends else { return };
    while let Some(Ok(event)) = ends.next().await {
        let end = match event.event.as_str() {
            "done" => event.json().map(|done: Done| (done.id.clone(), End::Done(done))),
            "failed" => event.json().map(|failed: Failed| (failed.id.clone(), End::Failed(failed))),
            _ => continue,
        };
        let Ok((id, end)) = end else { return };
        if let Some(hearer) = hearers.remove(&id) {
            // It may have given up.
            let _ = hearer.send(end);
        }
    }
}

/// A failure counts more than a missing source, and that more than success.
fn worse(one: Exit, other: Exit) -> Exit {
    match (one, other) {
        (Exit::Failed, _) | (_, Exit::Failed) => Exit::Failed,
        (Exit::NothingFound, _) | (_, Exit::NothingFound) => Exit::NothingFound,
        _ => Exit::Done,
    }
}

fn tell_done(context: &Context, done: &Done) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        return console.typed_line("done", done);
    }
    console.text(harmless(&done.path))?;
    let span = Duration::from_millis(done.elapsed_ms);
    let from = count(done.sources.len() as u64, "source");
    console.note(format_args!("{} from {from} in {}", units::size(done.bytes), units::duration(span)));
    Ok(())
}

fn tell_failed(context: &Context, failed: &Failed) -> Result<(), Failure> {
    if context.console.is_json() {
        context.console.typed_line("failed", failed)?;
    }
    let (code, why, hint) = match failed.reason {
        Reason::Conflict => (Code::Conflict, "a file of other content has that name", "choose another name with -o"),
        Reason::Blocked => (Code::Conflict, "the content is blocked here", "`quictrack bans` shows what is blocked"),
        Reason::DiskFull => (Code::DiskFull, "the disk is full", "make room: it goes on by itself"),
        Reason::Cancelled | Reason::User => {
            (Code::Conflict, "it was cancelled", "`quictrack downloads retry` starts it again")
        }
    };
    let name = format!("download {} of {}", failed.id, short(&failed.content));
    context.console.explain(&Failure::new(code, format!("{name}: {why}")).hint(hint));
    Ok(())
}

fn tell_gave_up(context: &Context, gave_up: &GaveUp) -> Result<(), Failure> {
    if context.console.is_json() {
        context.console.typed_line("failed", gave_up)?;
    }
    let (code, why, hint) = if gave_up.paused == Some(Reason::DiskFull) {
        (Code::DiskFull, FULL, "make room: the download goes on by itself")
    } else if gave_up.reason == NO_SOURCE {
        (Code::NotFound, "no source was seen", "the download goes on, and begins when somebody has it")
    } else {
        (Code::Timeout, "it is not complete in time", "the download goes on; `quictrack downloads` shows it")
    };
    let name = format!("download {} of {}", gave_up.id, short(&gave_up.content));
    context.console.explain(&Failure::new(code, format!("{name}: {why}")).hint(hint));
    Ok(())
}

const FULL: &str = "it waits for room on the disk";
const NO_SOURCE: &str = "no_source";
const TIMEOUT: &str = "timeout";
/// Time that a download has to end before its own events are asked for, when there are more than can be followed at once.
const HEAD_START: Duration = Duration::from_millis(500);
/// Without a source in this time, nobody seems to have it.
const SOURCE_PATIENCE: Duration = Duration::from_secs(30);
/// Least time between two `progress` lines of a download: four a second.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// One job that is waited for.
struct Watch<'a> {
    context: &'a Context,
    client: &'a Client,
    job: Download,
    bar: Option<Bar>,
    bars: &'a Bars,
    /// When the command gives up.
    deadline: Instant,
    /// True if the deadline counts whether or not there are sources.
    is_final: bool,
    source_seen: bool,
    /// True while it is paused: time in which it cannot find a source is no time without one.
    paused: bool,
    /// Why it is paused.
    reason: Option<Reason>,
    /// When the last progress was printed.
    printed: Option<Instant>,
    /// The last progress, if it came too soon after the one before to be printed.
    held: Option<Progress>,
}

impl<'a> Watch<'a> {
    fn new(
        context: &'a Context,
        client: &'a Client,
        bars: &'a Bars,
        job: Download,
        began: Instant,
        timeout: Option<Duration>,
    ) -> Self {
        let source_seen = job.bytes > 0 || !job.sources.is_empty();
        let deadline = began + timeout.unwrap_or(SOURCE_PATIENCE);
        Self {
            context,
            client,
            job,
            bar: None,
            bars,
            deadline,
            is_final: timeout.is_some(),
            source_seen,
            paused: false,
            reason: None,
            printed: None,
            held: None,
        }
    }

    /// Follows the job's events until it ends or the command gives up.
    ///
    /// `told` says how it ended, if that comes first: most small files are done before their events are asked for.
    async fn follow(mut self, told: oneshot::Receiver<End>, head_start: Duration) -> Result<End, Failure> {
        let mut told = told.fuse();
        if !self.job.state.is_ended()
            && let Ok(Ok(end)) = timeout(head_start, &mut told).await
        {
            return Ok(end);
        }
        if !self.is_final {
            // With many jobs this one may be looked at late; then its time begins late.
            self.deadline = self.deadline.max(Instant::now() + SOURCE_PATIENCE);
        }
        if self.bars.is_shown() {
            self.bar = Some(self.bars.transfer(&self.job.name, self.job.size.unwrap_or(0)));
        }
        let path = format!("downloads/{}/events", segment(&self.job.id));
        let mut events = self.client.events(&path, None).await.map_err(|error| self.context.failure(error))?;
        loop {
            let event = tokio::select! {
                biased;
                Ok(end) = &mut told => return Ok(end),
                event = events.next() => event,
                () = sleep_until(self.deadline), if self.is_final || !self.source_seen && !self.paused => {
                    return Ok(self.give_up());
                }
                () = sleep_until(self.next_line()), if self.held.is_some() => {
                    self.print_held()?;
                    continue;
                }
            };
            let Some(event) = event else {
                return Err(Failure::new(Code::Draining, "the daemon ended before the download did")
                    .hint("it goes on when the daemon runs again"));
            };
            let event = event.map_err(|error| self.context.failure(error))?;
            let failed = |error| self.context.failure(error);
            match event.event.as_str() {
                "progress" => {
                    let progress = event.json().map_err(failed)?;
                    self.progress(progress)?;
                }
                "done" => return event.json().map(End::Done).map_err(failed),
                "failed" => return event.json().map(End::Failed).map_err(failed),
                _ => {}
            }
        }
    }

    fn give_up(&self) -> End {
        let reason = if self.source_seen || self.paused { TIMEOUT } else { NO_SOURCE };
        End::GaveUp(GaveUp { id: self.job.id.clone(), content: self.job.content, reason, paused: self.reason })
    }

    /// When the next line of progress may be printed.
    fn next_line(&self) -> Instant {
        self.printed.map_or_else(Instant::now, |at| at + PROGRESS_INTERVAL)
    }

    fn print_held(&mut self) -> Result<(), Failure> {
        let Some(progress) = self.held.take() else { return Ok(()) };
        self.printed = Some(Instant::now());
        if self.context.console.is_json() { self.context.console.typed_line("progress", &progress) } else { Ok(()) }
    }

    /// Tells once that the job is paused, and why.
    fn pause(&mut self, progress: &Progress) {
        let is_news = !self.paused || self.reason != progress.reason;
        (self.paused, self.reason) = (true, progress.reason);
        if !is_news {
            return;
        }
        let (name, id) = (harmless(&progress.name), &progress.id);
        let console = &self.context.console;
        self.bars.suspend(|| match progress.reason {
            Some(Reason::DiskFull) => {
                console.warn(format_args!("{name} waits for room on the disk; make room: it goes on by itself"));
            }
            _ => console.warn(format_args!("{name} is paused; `quictrack downloads resume {id}` goes on")),
        });
    }

    fn progress(&mut self, progress: Progress) -> Result<(), Failure> {
        self.source_seen |= progress.sources > 0 || progress.bytes > 0;
        let left = progress.eta_s.map(Duration::from_secs);
        if let Some(bar) = &self.bar {
            bar.advance(progress.bytes, progress.size.unwrap_or(0), progress.rate as f64, left);
        }
        if progress.state == State::Paused {
            self.pause(&progress);
        } else if std::mem::take(&mut self.paused) {
            self.reason = None;
            if !self.is_final {
                self.deadline = Instant::now() + SOURCE_PATIENCE;
            }
        }
        self.held = Some(progress);
        if self.next_line() <= Instant::now() {
            self.print_held()?;
        }
        Ok(())
    }
}
