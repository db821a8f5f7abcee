//! The bans of a daemon: the list on disk, the files that an operator keeps, and the endpoint that follows.
//!
//! ```text
//!   ban, unban ──> bans.json ──┐
//!   ban_list, block_list ──────┴─> book ── rules ──> endpoint ──> connections, and whoever watches
//! ```
//!
//! A file is read again when it changes, when its key changes, and when the configuration is read again. One that cannot
//! be read is told in the log, and what it said before stays in force.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::{
    Ban, Book, Lifted, Origin, Rules, Target,
    list::{Entry, ListKind, parse},
};
use crate::{
    config::{ConfigError, Fingerprint, Settings},
    console::Failure,
    drive::wall_clock_s,
    id::{ContentId, PeerId},
    limits,
    list_file::{self, ListError, ListFile},
    metrics::{BANS, BanReason, BanScope, Role},
    transport::Endpoint,
};

/// The list of bans that were made at run time.
pub static LIST: list_file::ListKind = list_file::ListKind {
    file: "bans.json",
    most: limits::BANS,
    full: "bans are there already",
    make_room: "lift some with `unban`, or keep them in a file that `ban_list` or `block_list` names",
    mend: "mend the file, or remove it and make its bans anew",
};

/// Seconds since 1970 UTC.
pub fn now_s() -> i64 {
    i64::try_from(wall_clock_s()).unwrap_or(i64::MAX)
}

/// What a daemon knows of peers and contents that somebody names by the beginning of their ids.
pub trait Known: Debug + Send + Sync + 'static {
    /// Peers, and what each is.
    fn peers(&self) -> BoxFuture<'_, Vec<(PeerId, Role)>>;

    /// Contents whose ids begin with these hex digits.
    fn contents_from<'a>(&'a self, digits: &'a str) -> BoxFuture<'a, Vec<ContentId>>;
}

/// Why a ban was not made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// It is this node.
    #[error("{0} is this node itself")]
    Itself(PeerId),
    /// The list is full or cannot be written.
    #[error(transparent)]
    List(#[from] ListError),
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    Stopped,
}

/// A list in a file, as it was last read.
#[derive(Debug)]
struct Listed {
    seen: Fingerprint,
    entries: Vec<Entry>,
}

/// Lists by what they may hold and where they lie.
type Lists = BTreeMap<(ListKind, PathBuf), Listed>;

/// The bans of a daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bans {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    /// Locked for as long as it is written, so that the last one written is the last state.
    list: tokio::sync::Mutex<ListFile<Ban>>,
    lists: tokio::sync::Mutex<Lists>,
    book: Mutex<Book>,
    known: OnceLock<Arc<dyn Known>>,
}

impl Bans {
    /// Reads the list of a data folder and the lists that the settings name, and puts them in force. Blocking.
    ///
    /// # Errors
    /// If one of them cannot be read: exit 2 mostly. A line that is wrong is told in the log.
    pub fn load(data_dir: &Path, settings: &Settings, endpoint: Endpoint) -> Result<Self, Failure> {
        let list = ListFile::<Ban>::load(data_dir, &LIST)?;
        let mut book = Book::new(list.items().iter().cloned());
        book.expire(now_s());
        let mut lists = Lists::new();
        for (kind, path) in named(settings) {
            let listed = read(kind, &path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
            lists.insert((kind, path), listed);
        }
        fill(&mut book, &lists, endpoint.peer());
        let shared = Shared {
            endpoint,
            list: tokio::sync::Mutex::new(list),
            lists: tokio::sync::Mutex::new(lists),
            book: Mutex::new(book),
            known: OnceLock::new(),
        };
        let bans = Self { shared: Arc::new(shared) };
        let rules = bans.book().rules();
        count(&Rules::default(), &rules, &[]);
        bans.shared.endpoint.set_bans(rules);
        Ok(bans)
    }

    /// Names are looked up there from now on. Only the first one counts.
    pub fn set_known(&self, known: Arc<dyn Known>) {
        // A daemon has one node.
        let _ = self.shared.known.set(known);
    }

    /// Where names are looked up, once the node runs.
    pub fn known(&self) -> Option<&Arc<dyn Known>> {
        self.shared.known.get()
    }

    /// All bans, by target.
    pub fn all(&self) -> Vec<(Ban, Origin)> {
        let now_s = now_s();
        let book = self.book();
        book.iter().filter(|(ban, _)| !ban.has_expired(now_s)).map(|(ban, origin)| (ban.clone(), origin)).collect()
    }

    /// Makes a ban, in place of an earlier one of its target. Returns it as it is in force: a list may say more.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add(&self, ban: Ban) -> Result<(Ban, Origin), AddError> {
        let own = self.shared.endpoint.peer();
        if ban.target == Target::Peer(own) {
            return Err(AddError::Itself(own));
        }
        let (now_s, target) = (now_s(), ban.target);
        let mut list = self.shared.list.lock().await;
        let kept = list.items().iter().filter(|known| known.target != target && !known.has_expired(now_s));
        let items = kept.chain([&ban]).cloned().collect();
        store(&mut list, items).await?;
        let shown = {
            let mut book = self.book();
            book.expire(now_s);
            book.add(ban.clone());
            book.get(&target).map_or((ban, Origin::Settings), |(ban, origin)| (ban.clone(), origin))
        };
        drop(list);
        self.put_in_force().await;
        Ok(shown)
    }

    /// Lifts a ban that was made at run time.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub async fn lift(&self, target: &Target) -> Result<Lifted, AddError> {
        let mut list = self.shared.list.lock().await;
        if self.book().get(target).is_some_and(|(_, origin)| origin == Origin::File) {
            return Ok(Lifted::Listed);
        }
        let changed: Vec<_> = list.items().iter().filter(|ban| ban.target != *target).cloned().collect();
        if changed.len() < list.items().len() {
            store(&mut list, changed).await?;
        }
        let lifted = self.book().lift(target);
        drop(list);
        self.put_in_force().await;
        Ok(lifted)
    }

    /// Keeps the bans those of the files and of the time. Runs until it is dropped.
    pub async fn follow(self, mut settings: watch::Receiver<Arc<Settings>>) {
        loop {
            let next = self.book().next_expiry();
            let left = next.map_or(limits::BAN_LIST_LOOK, |at| Duration::from_secs(at.abs_diff(now_s())));
            let again = tokio::select! {
                changed = settings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    true
                }
                () = sleep(left.min(limits::BAN_LIST_LOOK)) => false,
            };
            let current = settings.borrow_and_update().clone();
            let changed = self.read_again(&current, again).await;
            let expired = self.book().expire(now_s());
            if changed || expired {
                self.put_in_force().await;
            }
        }
    }

    /// Reads the lists that changed, or all. True if there is anything new.
    async fn read_again(&self, settings: &Settings, all: bool) -> bool {
        let mut lists = self.shared.lists.lock().await;
        let before = std::mem::take(&mut *lists);
        let (wanted, known) = (named(settings), before.len());
        let reading = spawn_blocking(move || {
            let mut before = before;
            let (mut now, mut changed) = (Lists::new(), false);
            for (kind, path) in wanted {
                let key = (kind, path);
                let old = before.remove(&key);
                let is_same = old.as_ref().is_some_and(|old| old.seen == Fingerprint::of(&key.1));
                let listed = if is_same && !all {
                    old
                } else {
                    match read(kind, &key.1) {
                        Ok(listed) => {
                            changed |= old.is_none_or(|old| old.entries != listed.entries);
                            Some(listed)
                        }
                        Err(error) => {
                            tracing::error!(path = %key.1.display(), %error, "this list of bans stays as it was");
                            // Looked at again when it is another one.
                            old.map(|old| Listed { seen: Fingerprint::of(&key.1), ..old })
                        }
                    }
                };
                if let Some(listed) = listed {
                    now.insert(key, listed);
                }
            }
            (now, changed || !before.is_empty())
        });
        let Ok((now, changed)) = reading.await else { return false };
        let changed = changed || now.len() != known;
        *lists = now;
        if changed {
            fill(&mut self.book(), &lists, self.shared.endpoint.peer());
        }
        changed
    }

    async fn put_in_force(&self) {
        let peers = match self.known() {
            Some(known) => known.peers().await,
            None => Vec::new(),
        };
        // Locked until it is done, so that what is in force last is what the book says last.
        let book = self.book();
        let (rules, before) = (book.rules(), self.shared.endpoint.bans());
        if rules != *before {
            count(&before, &rules, &peers);
            self.shared.endpoint.set_bans(rules);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every operation leaves the book whole, so a panic elsewhere does not spoil it.
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn store(list: &mut ListFile<Ban>, items: Vec<Ban>) -> Result<(), AddError> {
    let mut changed = list.clone();
    let storing = spawn_blocking(move || changed.store(items).map(|()| changed));
    *list = storing.await.map_err(|_| AddError::Stopped)??;
    Ok(())
}

/// The lists that the settings name.
fn named(settings: &Settings) -> Vec<(ListKind, PathBuf)> {
    let bans = settings.ban_list.iter().map(|path| (ListKind::Bans, path.clone()));
    bans.chain(settings.block_list.iter().map(|path| (ListKind::Blocks, path.clone()))).collect()
}

/// Reads a list, and tells what is wrong in it. Blocking.
fn read(kind: ListKind, path: &Path) -> io::Result<Listed> {
    let seen = Fingerprint::of(path);
    let mut bytes = Vec::new();
    File::open(path)?.take(limits::BAN_LIST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits::BAN_LIST_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 128 MiB"));
    }
    let (entries, bad) = parse(&String::from_utf8_lossy(&bytes), kind);
    for bad in bad {
        let place = format!("{}:{}", path.display(), bad.line);
        tracing::warn!(place, why = bad.why, "this line of {} does not count", kind.key());
    }
    tracing::info!(path = %path.display(), targets = entries.len(), "{} read", kind.key());
    Ok(Listed { seen, entries })
}

/// What the lists say goes into the book. This node itself is left out.
fn fill(book: &mut Book, lists: &Lists, own: PeerId) {
    let created_s = now_s();
    let entries = lists.values().flat_map(|listed| &listed.entries);
    let others = entries.filter(|entry| {
        let is_own = entry.target == Target::Peer(own);
        if is_own {
            tracing::warn!("a list of bans names this node itself, which does not count");
        }
        !is_own
    });
    let bans = others.map(|Entry { target, reason }| Ban {
        target: *target,
        reason: reason.clone(),
        created_s,
        expires_s: None,
    });
    if !book.set_listed(bans) {
        tracing::error!(
            most = limits::BANS_LISTED,
            "the lists of bans are too long; what is left of them does not count"
        );
    }
}

/// Counts what is banned now and was not before.
fn count(before: &Rules, now: &Rules, known: &[(PeerId, Role)]) {
    for target in now.banned_beside(before) {
        let scope = match target {
            Target::Prefix(_) => BanScope::Prefix,
            Target::Peer(peer) if known.contains(&(peer, Role::Ultrapeer)) => BanScope::Ultrapeer,
            _ => BanScope::Leaf,
        };
        BANS.increment((scope, BanReason::Operator));
    }
}
