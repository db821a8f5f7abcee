//! `downloads`: what is fetched, and what shall become of it.

use clap::{Args, Subcommand};
use overlay::{
    admin::client::{Client, segment},
    console::{Column, Exit, Failure, Table, harmless},
    units,
};

use super::{Context, count, short, usage};
use crate::api::types::{Download, DownloadChange, Priority, State};

/// What to do with downloads; without anything, list them.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Stop a download and keep what it has
    Pause(Which),
    /// Go on with a paused download
    Resume(Which),
    /// Give a download up
    Cancel(Which),
    /// Try a download again that failed or was cancelled
    Retry(Which),
    /// Start a waiting download earlier or later than others
    Priority {
        /// The download, or its content
        #[arg(value_name = "ID")]
        id: String,
        /// Its rank
        #[arg(value_enum, value_name = "LEVEL")]
        level: Priority,
    },
    /// Forget the downloads that ended; files stay
    Clear,
}

#[derive(Args, Clone, Debug)]
struct Which {
    /// The download, its content, or `all`
    #[arg(value_name = "ID|all")]
    id: String,
}

/// Runs it.
///
/// # Errors
/// `not_found` for a download that is not known; `conflict` for one that cannot do that now.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let (which, state, fits): (_, _, fn(State) -> bool) = match arguments.action {
        None => return list(context).await,
        Some(Action::Clear) => return clear(context).await,
        Some(Action::Priority { id, level }) => {
            let id = id_text(&id)?;
            let change = DownloadChange { priority: Some(level.name().to_owned()), ..DownloadChange::default() };
            let changed = apply(context, &context.client()?, &id, &change).await?;
            show(context, &[changed])?;
            return Ok(Exit::Done);
        }
        Some(Action::Pause(which)) => (which, State::Paused, |state| !state.is_ended() && state != State::Paused),
        Some(Action::Resume(which)) => (which, State::Queued, |state| state == State::Paused),
        Some(Action::Cancel(which)) => (which, State::Cancelled, |state| !state.is_ended()),
        Some(Action::Retry(which)) => (which, State::Queued, |state| matches!(state, State::Failed | State::Cancelled)),
    };
    let change = DownloadChange { state: Some(state.name().to_owned()), ..DownloadChange::default() };
    let ids = if which.id == "all" { None } else { Some(vec![id_text(&which.id)?]) };
    let client = context.client()?;
    let ids = match ids {
        Some(ids) => ids,
        None => {
            let all: Vec<Download> = context.list(&client, "downloads").await?;
            all.into_iter().filter(|download| fits(download.state)).map(|download| download.id).collect()
        }
    };
    let mut changed = Vec::with_capacity(ids.len());
    for id in ids {
        changed.push(apply(context, &client, &id, &change).await?);
    }
    show(context, &changed)?;
    Ok(Exit::Done)
}

async fn apply(context: &Context, client: &Client, id: &str, change: &DownloadChange) -> Result<Download, Failure> {
    let path = format!("downloads/{}", segment(id));
    client.patch(&path, change).await.map_err(|error| context.failure(error))
}

async fn list(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let downloads: Vec<Download> = context.list(&client, "downloads").await?;
    let console = &context.console;
    if console.is_json() {
        downloads.iter().try_for_each(|download| console.typed_line("download", download))?;
        return Ok(Exit::Done);
    }
    console.table(&table(&downloads))?;
    if downloads.is_empty() {
        console.note("no downloads; find something with `quictrack search` and fetch it with `quictrack get`");
    }
    Ok(Exit::Done)
}

async fn clear(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let downloads: Vec<Download> = context.list(&client, "downloads").await?;
    let mut forgotten = 0;
    for download in downloads.iter().filter(|download| download.state.is_ended()) {
        let path = format!("downloads/{}", segment(&download.id));
        client.delete(&path).await.map_err(|error| context.failure(error))?;
        forgotten += 1;
    }
    context.console.note(format_args!("{} forgotten", count(forgotten, "download")));
    Ok(Exit::Done)
}

fn show(context: &Context, changed: &[Download]) -> Result<(), Failure> {
    let console = &context.console;
    if console.is_json() {
        return changed.iter().try_for_each(|download| console.typed_line("download", download));
    }
    for download in changed {
        console.note(format_args!("{}: {}", harmless(&download.name), download.state.name()));
    }
    if changed.is_empty() {
        console.note("there is no such download now");
    }
    Ok(())
}

/// One row for each.
pub(super) fn table(downloads: &[Download]) -> Table {
    let mut table = Table::new([
        Column::left("id"),
        Column::left("state"),
        Column::right("done"),
        Column::right("size"),
        Column::right("rate"),
        Column::right("left"),
        Column::right("sources"),
        Column::left("content"),
        Column::flexible("name"),
    ]);
    for download in downloads {
        let state = match (&download.reason, download.queue_position) {
            (Some(reason), _) => format!("{} ({})", download.state.name(), reason.name()),
            (None, Some(place)) => format!("{} ({place})", download.state.name()),
            (None, None) => download.state.name().to_owned(),
        };
        let left = download.eta_s.map(|left| units::duration(std::time::Duration::from_secs(left)).to_string());
        let rate = if download.rate == 0 { String::new() } else { units::rate(download.rate as f64).to_string() };
        table.row([
            &download.id,
            &state,
            &download.size.map(|size| percent(download.bytes, size)).unwrap_or_default(),
            &download.size.map(|size| units::size(size).to_string()).unwrap_or_default(),
            &rate,
            &left.unwrap_or_default(),
            &download.sources.len().to_string(),
            &short(&download.content),
            &download.name,
        ]);
    }
    table
}

fn percent(bytes: u64, size: u64) -> String {
    format!("{} %", u128::from(bytes) * 100 / u128::from(size.max(1)))
}

/// The form of a download's id or of a content id, in lower case.
fn id_text(text: &str) -> Result<String, Failure> {
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(usage(format!("`{text}` is no id of a download")).hint("`quictrack downloads` lists them"));
    }
    Ok(text.to_ascii_lowercase())
}
