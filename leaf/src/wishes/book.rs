//! The wishes of this leaf's user and what they found: kept over restarts, shown, and downloaded where that is wanted.
//!
//! ```text
//!   user ──add, remove──> list on the disk ──> network ──found──> database ──> shown, downloaded
//!                                                 └──search──> an ordinary search ──found──┘
//! ```
//!
//! What is wished for lies in `wishes.json`, what was found in the database: the first is the user's and survives a lost
//! database, the second is found again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use overlay::{
    admin::error::{ApiError, Code},
    drive::{Tasks, random_name, wall_clock_s},
    id::ContentId,
    limits,
    list_file::ListError,
    query::Query,
    wire::{bounded::Text, search::Hit as WireHit, search::Target},
    wish_list::{ListedWish, Wish as Wished, WishList},
};
use tokio::sync::mpsc;

use super::{Number, Source};
use crate::{
    api::types::{Have, Hit, Wish, timestamp},
    download::{Downloads, Request as DownloadRequest, record::Priority},
    network::{SearchNews, Service as Network, WishNews},
    search::Request,
    searches::{Known, Searches},
    store::{Database, DatabaseError, Table},
    transfer::FoundSource,
};

/// What wishes found, under the wish's id, a zero byte and the content: when, in seconds since 1970 UTC, and the hit.
const FOUND: Table<(i64, WireHit)> = Table::new("wish_hits");

/// The wishes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Book {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    network: Network,
    searches: Searches,
    downloads: Downloads,
    database: Arc<Database>,
    tasks: Tasks,
    /// Locked for as long as it is written.
    list: tokio::sync::Mutex<WishList>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_number: BTreeMap<Number, Entry>,
    next: Number,
}

#[derive(Debug)]
struct Entry {
    listed: ListedWish,
    /// When each content was found, and how.
    found: BTreeMap<ContentId, (i64, WireHit)>,
}

/// What the book works with.
#[derive(Debug)]
pub struct Parts {
    /// Tells homes, and searches.
    pub network: Network,
    /// Knows what is here.
    pub searches: Searches,
    /// Fetches what is found.
    pub downloads: Downloads,
    /// Keeps what was found.
    pub database: Arc<Database>,
}

impl Book {
    /// Goes on with the wishes of the list. Blocks on the database.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn start(parts: Parts, list: WishList, tasks: &Tasks) -> Result<Self, DatabaseError> {
        let mut entries = Entries::default();
        let limit = limits::WISHES_OF_LEAF * (limits::WISH_HITS + limits::WISH_BATCH);
        let mut found: BTreeMap<String, BTreeMap<ContentId, (i64, WireHit)>> = BTreeMap::new();
        let mut orphans = Vec::new();
        for (key, hit) in parts.database.all(&FOUND, limit)? {
            match read_key(&key).filter(|id| list.wishes().iter().any(|wish| wish.id == *id)) {
                Some(id) => drop(found.entry(id.to_owned()).or_default().insert(hit.1.content, hit)),
                // Of a wish that was removed while the database could not be written.
                None => orphans.push(key),
            }
        }
        if !orphans.is_empty() {
            let mut batch = parts.database.write()?;
            orphans.iter().try_for_each(|key| batch.remove(&FOUND, key))?;
            batch.commit()?;
        }
        for listed in list.wishes() {
            let found = found.remove(&listed.id).unwrap_or_default();
            entries.by_number.insert(entries.next, Entry { listed: listed.clone(), found });
            entries.next += 1;
        }
        let Parts { network, searches, downloads, database } = parts;
        let news = network.take_wish_news();
        let shared = Shared {
            network,
            searches,
            downloads,
            database,
            tasks: tasks.child(),
            list: tokio::sync::Mutex::new(list),
            entries: Mutex::new(entries),
        };
        let book = Self { shared: Arc::new(shared) };
        if let Some(news) = news {
            let follower = book.clone();
            book.shared.tasks.spawn("wishes", async move { follower.follow(news).await });
        }
        Ok(book)
    }

    /// Makes a wish.
    ///
    /// # Errors
    /// `bad_query`, `bad_request`, `conflict` if there are too many, `disk_full`; nothing is changed then.
    pub async fn add(&self, wished: Wished) -> Result<Wish, ApiError> {
        Query::parse(&wished.query).map_err(crate::searches::refusal)?;
        if wished.max_size == Some(0) {
            return Err(ApiError::bad_request("max_size is at least one byte").hint("leave it out for no limit"));
        }
        let id = random_name().map_err(|error| ApiError::internal(error.to_string()))?;
        let listed = ListedWish { id, wish: wished, created_s: wall_clock_s() as i64 };
        let mut list = self.shared.list.lock().await;
        let (mut changed, added) = (list.clone(), listed.clone());
        *list = blocking(move || changed.add(added).map(|()| changed)).await?.map_err(refused)?;
        drop(list);
        let query = Text::new(&listed.wish.query);
        let entry = Entry { listed, found: BTreeMap::new() };
        let shown = entry.show();
        let number = {
            let mut entries = self.entries();
            let number = entries.next;
            entries.next += 1;
            entries.by_number.insert(number, entry);
            number
        };
        self.shared.network.wish(number, query, Vec::new()).await;
        Ok(shown)
    }

    /// Removes a wish and what it found; files stay. False if there is none of that name.
    ///
    /// # Errors
    /// `disk_full`, `internal`; it stays then.
    pub async fn remove(&self, id: &str) -> Result<bool, ApiError> {
        let mut list = self.shared.list.lock().await;
        let (mut changed, name) = (list.clone(), id.to_owned());
        let (changed, is_there) =
            blocking(move || changed.remove(&name).map(|is_there| (changed, is_there))).await?.map_err(refused)?;
        *list = changed;
        drop(list);
        let removed = {
            let mut entries = self.entries();
            let number = entries.by_number.iter().find(|(_, entry)| entry.listed.id == id).map(|(number, _)| *number);
            number.and_then(|number| Some((number, entries.by_number.remove(&number)?)))
        };
        if let Some((number, entry)) = removed {
            self.shared.network.unwish(number).await;
            let gone = entry.found.into_keys().map(|content| write_key(id, &content)).collect();
            self.record(Vec::new(), gone).await;
        }
        Ok(is_there)
    }

    /// All wishes, in the order in which they were made.
    pub fn list(&self) -> Vec<Wish> {
        self.entries().by_number.values().map(Entry::show).collect()
    }

    /// What a wish found, each under when and its content; `None` if there is no such wish.
    pub fn found(&self, id: &str) -> Option<Vec<((i64, String), WireHit)>> {
        let entries = self.entries();
        let entry = entries.by_number.values().find(|entry| entry.listed.id == id)?;
        Some(entry.found.values().map(|(at, hit)| ((*at, hit.content.to_string()), hit.clone())).collect())
    }

    /// A hit as it is shown now.
    pub async fn show(&self, hit: &WireHit) -> Hit {
        Hit::new(hit, self.shared.searches.have(hit.content).await)
    }

    /// What wishes know of a content.
    pub fn known(&self, content: &ContentId) -> Known {
        let entries = self.entries();
        let mut known = Known::default();
        for (_, hit) in entries.by_number.values().filter_map(|entry| entry.found.get(content)) {
            known.add(hit);
        }
        known
    }

    /// Contents that wishes found whose ids begin with these hex digits.
    pub fn contents_from(&self, prefix: &str) -> Vec<ContentId> {
        let entries = self.entries();
        let contents = entries.by_number.values().flat_map(|entry| entry.found.keys());
        contents.filter(|content| content.to_string().starts_with(prefix)).copied().collect()
    }

    /// Who has what wishes found.
    pub fn peers(&self) -> Vec<FoundSource> {
        let entries = self.entries();
        let found = entries.by_number.values().flat_map(|entry| entry.found.values());
        let peers = found.flat_map(|(_, hit)| hit.peers.iter());
        peers.map(|peer| FoundSource { peer: peer.peer, homes: peer.homes.to_vec() }).collect()
    }

    async fn follow(&self, mut news: mpsc::Receiver<WishNews>) {
        let wishes: Vec<(Number, Source, Vec<ContentId>)> = {
            let entries = self.entries();
            let wish =
                |(number, entry): (&Number, &Entry)| (*number, Text::new(&entry.listed.wish.query), entry.by_age());
            entries.by_number.iter().map(wish).collect()
        };
        for (number, query, found) in wishes {
            self.shared.network.wish(number, query, found).await;
            let is_gone = !self.entries().by_number.contains_key(&number);
            if is_gone {
                self.shared.network.unwish(number).await;
            }
        }
        let mut batch = Vec::new();
        while news.recv_many(&mut batch, limits::WISH_BATCH).await > 0 {
            let mut found = Vec::new();
            for news in batch.drain(..) {
                match news {
                    WishNews::Found(number, hit) => found.push((number, *hit)),
                    WishNews::Search(number, query) => {
                        let searching = self.clone();
                        self.shared.tasks.spawn("wish search", async move { searching.search(number, query).await });
                    }
                }
            }
            self.take(found).await;
        }
    }

    /// Looks for what is there already.
    async fn search(&self, number: Number, query: Source) {
        let request = Request {
            target: Target::Query(query),
            limit: limits::WISH_SEARCH_LIMIT,
            timeout: limits::SEARCH_TIMEOUT,
            all: false,
        };
        let Ok((_, mut news)) = self.shared.network.search(request).await else { return };
        while let Some(news) = news.recv().await {
            match news {
                SearchNews::Hit(hit) => self.shared.network.wish_found(number, hit).await,
                SearchNews::End(end) => return crate::metrics::search_ended(&end),
            }
        }
    }

    /// Records what was found, shows it, and begins the downloads.
    async fn take(&self, found: Vec<(Number, WireHit)>) {
        let (now, bans) = (wall_clock_s() as i64, self.shared.network.bans());
        let (mut new, mut gone, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut entries = self.entries();
            for (number, mut hit) in found {
                if bans.withholds(&mut hit) {
                    continue;
                }
                // Of a wish that was removed meanwhile.
                let Some(entry) = entries.by_number.get_mut(&number) else { continue };
                let Wished { download, max_size, .. } = entry.listed.wish;
                if download && max_size.is_none_or(|most| hit.size <= most) {
                    wanted.push(hit.clone());
                }
                let id = &entry.listed.id;
                new.push((write_key(id, &hit.content), (now, hit.clone())));
                entry.found.insert(hit.content, (now, hit));
                while entry.found.len() > limits::WISH_HITS {
                    let oldest = entry.found.iter().min_by_key(|(content, (at, _))| (*at, **content));
                    let Some(content) = oldest.map(|(content, _)| *content) else { break };
                    gone.push(write_key(&entry.listed.id, &content));
                    entry.found.remove(&content);
                }
            }
        }
        self.record(new, gone).await;
        for hit in wanted {
            self.download(hit).await;
        }
    }

    async fn download(&self, hit: WireHit) {
        if self.shared.searches.have(hit.content).await != Have::No {
            return;
        }
        let sources =
            hit.peers.iter().map(|peer| FoundSource { peer: peer.peer, homes: peer.homes.to_vec() }).collect();
        let request = DownloadRequest {
            content: hit.content,
            name: Hit::new(&hit, Have::No).name,
            size: Some(hit.size),
            output: None,
            below: String::new(),
            priority: Priority::default(),
            sources,
        };
        if let Err(error) = self.shared.downloads.add(request).await {
            tracing::warn!(%error, "what a wish found could not be downloaded");
        }
    }

    /// Writes what was found, and forgets what is shown no more. What fails is found again after a restart.
    async fn record(&self, new: Vec<(Vec<u8>, (i64, WireHit))>, gone: Vec<Vec<u8>>) {
        if new.is_empty() && gone.is_empty() {
            return;
        }
        let database = self.shared.database.clone();
        let write = move || {
            let mut batch = database.write()?;
            new.iter().try_for_each(|(key, found)| batch.put(&FOUND, key, found))?;
            gone.iter().try_for_each(|key| batch.remove(&FOUND, key))?;
            batch.commit()
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%error, "what wishes found could not be recorded");
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Every operation leaves the entries whole, so a panic elsewhere does not spoil them.
        self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn show(&self) -> Wish {
        let Wished { query, download, max_size } = self.listed.wish.clone();
        Wish {
            id: self.listed.id.clone(),
            query,
            download,
            max_size,
            hits: self.found.len() as u64,
            created_at: timestamp(self.listed.created_s),
            last_hit_at: self.found.values().map(|(at, _)| *at).max().and_then(timestamp),
        }
    }

    /// The contents, the oldest first.
    fn by_age(&self) -> Vec<ContentId> {
        let mut found: Vec<_> = self.found.iter().map(|(content, (at, _))| (*at, *content)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, content)| content).collect()
    }
}

fn write_key(id: &str, content: &ContentId) -> Vec<u8> {
    [id.as_bytes(), &[0], &content.0].concat()
}

/// The wish of a key.
fn read_key(key: &[u8]) -> Option<&str> {
    let id = key.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(id).ok()
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|_| ApiError::new(Code::Draining, "the daemon is shutting down"))
}

fn refused(error: ListError) -> ApiError {
    ApiError::new(error.code(), error.to_string()).hint(error.hint())
}
