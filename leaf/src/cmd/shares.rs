//! `shares`: which folders everybody can search.

use std::{path::PathBuf, time::Duration};

use axum::http::Method;
use clap::{Args, Subcommand};
use overlay::{
    admin::{
        client::{Client, segment},
        error::Code,
    },
    console::{Column, Exit, Failure, Table, harmless},
    report::Status,
    units,
};

use super::{Context, count};
use crate::{
    api::types::{NewShare, Share, Skipped},
    store::{ShareState, SkipReason},
};

/// What to do with shares; without anything, list them.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Share a folder from now on
    Add {
        /// Return when everybody can find its files
        #[arg(long)]
        wait: bool,
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Stop sharing a folder
    Remove {
        /// The folder, or the share's name
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Look for changes now
    Rescan {
        /// Return when everybody can find what was added
        #[arg(long)]
        wait: bool,
    },
    /// List the files that are not shared, and why
    Skipped,
}

/// Runs it.
///
/// # Errors
/// `not_found`, `conflict`, and what the daemon refuses otherwise.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let client = Asking { context, client: context.client()? };
    match arguments.action {
        None => client.list().await?,
        Some(Action::Add { wait, folder }) => client.add(&folder, wait).await?,
        Some(Action::Remove { folder }) => client.remove(&folder).await?,
        Some(Action::Rescan { wait }) => client.rescan(wait).await?,
        Some(Action::Skipped) => client.skipped().await?,
    }
    Ok(Exit::Done)
}

struct Asking<'a> {
    context: &'a Context,
    client: Client,
}

impl Asking<'_> {
    async fn list(&self) -> Result<(), Failure> {
        let shares: Vec<Share> = self.shares().await?;
        self.show(&shares)?;
        if shares.is_empty() {
            self.context.console.note("nothing is shared; add a folder with `quictrack shares add DIR`");
        }
        Ok(())
    }

    async fn add(&self, folder: &std::path::Path, wait: bool) -> Result<(), Failure> {
        let console = &self.context.console;
        let body = NewShare { path: self.context.absolute(folder)? };
        let mut share: Share = self.client.post("shares", &body).await.map_err(|error| self.context.failure(error))?;
        if wait {
            let ended = self.wait(Some(&share.name)).await?;
            share = ended.into_iter().find(|ended| ended.name == share.name).ok_or_else(|| gone(&share.name))?;
        }
        if console.is_json() {
            return console.typed_line("share", &share);
        }
        let (name, files) = (harmless(&share.name).into_owned(), count(share.files, "file"));
        if wait {
            console.note(format_args!("{name}: {files}, {}, found by everybody", units::size(share.bytes)));
        } else {
            console.note(format_args!("{name} is shared; `quictrack shares` shows how far it is"));
        }
        Ok(())
    }

    async fn remove(&self, folder: &std::path::Path) -> Result<(), Failure> {
        let path = self.context.absolute(folder)?;
        let path = path.trim_end_matches('/');
        let given = folder.to_string_lossy();
        let shares = self.shares().await?;
        let by_path = shares.iter().find(|share| share.path.trim_end_matches('/') == path);
        let share = by_path.or_else(|| shares.iter().find(|share| share.name == given));
        let Some(share) = share else {
            return Err(
                Failure::new(Code::NotFound, format!("`{given}` is no share")).hint("`quictrack shares` lists them")
            );
        };
        let path = format!("shares/{}", segment(&share.name));
        self.client.delete(&path).await.map_err(|error| self.context.failure(error))?;
        self.context.console.note(format_args!("{} is not shared any more", harmless(&share.name)));
        Ok(())
    }

    async fn rescan(&self, wait: bool) -> Result<(), Failure> {
        let asked = self.client.send(Method::POST, "shares/rescan", None::<&()>).await;
        asked.map_err(|error| self.context.failure(error))?;
        if wait {
            let shares = self.wait(None).await?;
            return self.show(&shares);
        }
        self.context.console.note("looking for changes; `quictrack shares` shows how far it is");
        Ok(())
    }

    async fn skipped(&self) -> Result<(), Failure> {
        let skipped: Vec<Skipped> = self.context.list(&self.client, "shares/skipped").await?;
        let console = &self.context.console;
        if console.is_json() {
            return skipped.iter().try_for_each(|file| console.typed_line("skipped", file));
        }
        let mut table = Table::new([Column::left("reason"), Column::left("path")]);
        for file in &skipped {
            table.row([reason_in_words(file.reason), &file.path]);
        }
        console.table(&table)?;
        if skipped.is_empty() {
            console.note("every file of the shares is shared");
        }
        Ok(())
    }

    /// Returns when a share, or all that are there, is hashed and a home's index has everything.
    async fn wait(&self, name: Option<&str>) -> Result<Vec<Share>, Failure> {
        /// Short for a person who waits, nothing for a daemon on this machine.
        const POLL: Duration = Duration::from_millis(200);
        let console = &self.context.console;
        let bar = console.progress().spinner("looking");
        let mut told = false;
        loop {
            let shares = self.shares().await?;
            let meant = || shares.iter().filter(|share| name.is_none_or(|name| share.name == name));
            if let Some(name) = name.filter(|_| meant().next().is_none()) {
                return Err(gone(name));
            }
            if let Some(missing) = meant().find(|share| name.is_some() && share.state == ShareState::Missing) {
                return Err(Failure::new(Code::NotFound, format!("the folder {} is not there", missing.path))
                    .hint("is its disk mounted?"));
            }
            let settled = |share: &Share| matches!(share.state, ShareState::Watching | ShareState::Missing);
            if meant().all(|share| settled(share) && share.pending_files == 0) {
                let status: Status = self.client.get("status").await.map_err(|error| self.context.failure(error))?;
                if is_acknowledged(&status) {
                    return Ok(shares);
                }
                bar.say("waiting for an ultrapeer to have it all");
                if !status.ready && !told {
                    told = true;
                    console.note("no ultrapeer yet; `quictrack status` shows why");
                }
            } else {
                bar.say(&progress(meant()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn shares(&self) -> Result<Vec<Share>, Failure> {
        self.context.list(&self.client, "shares").await
    }

    fn show(&self, shares: &[Share]) -> Result<(), Failure> {
        let console = &self.context.console;
        if console.is_json() {
            return shares.iter().try_for_each(|share| console.typed_line("share", share));
        }
        console.table(&table(shares))
    }
}

/// What a person who waits wants to know: how far it is, and how fast.
fn progress<'a>(shares: impl Iterator<Item = &'a Share>) -> String {
    let (mut files, mut pending, mut bytes, mut rate, mut looking) = (0, 0, 0, 0, false);
    for share in shares {
        files += share.files;
        pending += share.pending_files;
        bytes += share.pending_bytes;
        rate += share.rate;
        looking |= share.state == ShareState::Scanning;
    }
    let (done, left) = (count(files, "file"), count(pending, "file"));
    let more = if looking { " or more" } else { "" };
    format!("{done} listed, {left}{more} to hash ({}), {}/s", units::size(bytes), units::size(rate))
}

/// True if some home's index has the list as it is now. What it takes no more of, `status` tells as a problem.
fn is_acknowledged(status: &Status) -> bool {
    let (Some(shares), Some(catalog)) = (status.shares, status.catalog) else { return false };
    status.ready && catalog.files >= shares.files && catalog.current
}

fn gone(name: &str) -> Failure {
    Failure::new(Code::NotFound, format!("the share `{name}` was removed"))
}

fn table(shares: &[Share]) -> Table {
    let mut table = Table::new([
        Column::left("name"),
        Column::left("state"),
        Column::right("files"),
        Column::right("size"),
        Column::right("to hash"),
        Column::right("skipped"),
        Column::left("set by"),
        Column::flexible("folder"),
    ]);
    for share in shares {
        let pending = match share.pending_files {
            0 => String::new(),
            files => format!("{files} ({})", units::size(share.pending_bytes)),
        };
        table.row([
            &share.name,
            state_in_words(share.state),
            &share.files.to_string(),
            &units::size(share.bytes).to_string(),
            &pending,
            &share.skipped.to_string(),
            share.origin.name(),
            &share.path,
        ]);
    }
    table
}

const fn state_in_words(state: ShareState) -> &'static str {
    match state {
        ShareState::Scanning => "scanning",
        ShareState::Hashing => "hashing",
        ShareState::Watching => "watching",
        ShareState::Missing => "missing",
    }
}

const fn reason_in_words(reason: SkipReason) -> &'static str {
    match reason {
        SkipReason::Unreadable => "unreadable",
        SkipReason::Changed => "changed",
        SkipReason::Symlink => "symlink",
        SkipReason::Empty => "empty",
        SkipReason::Excluded => "excluded",
        SkipReason::Name => "name",
    }
}
