//! The searches that users started: each has an id, a log of its events, and is kept for an hour.
//!
//! A search is told twice: as events while it runs (every hit, better knowledge of a hit, the summary), and
//! as an object at any time. Both come from the same log, so they cannot differ. What was found is also the
//! memory from which a shortened content id, a file name and first sources of a download are taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use overlay::{
    admin::{
        error::{ApiError, Code},
        events::EventLog,
    },
    drive::{Clock, Tasks, random_name},
    id::ContentId,
    limits,
    query::{Query, QueryError},
    time::Time,
    wire::{bounded::Text, search::Hit as WireHit, search::Target},
};
use tokio::time::timeout;

use crate::{
    api::types::{Have, Hit, Search, SearchRequest, SearchState, Summary, shown_name},
    download::{Downloads, record::State},
    network::{SearchNews, Service as Network},
    search::{Request, Ticket},
    store::Shares,
    transfer::FoundSource,
};

/// All searches of this daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Searches {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    network: Network,
    shares: Shares,
    downloads: Downloads,
    clock: Clock,
    tasks: Tasks,
    book: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    query: String,
    ticket: Ticket,
    log: Arc<EventLog>,
    order: Vec<ContentId>,
    hits: BTreeMap<ContentId, (Hit, WireHit)>,
    summary: Option<Summary>,
    ended: Option<Time>,
}

/// What searches told of a content.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its most frequent name.
    pub name: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
    /// Who has it.
    pub sources: Vec<FoundSource>,
}

impl Known {
    /// A hit tells of the content.
    pub(crate) fn add(&mut self, hit: &WireHit) {
        self.name = Some(shown_name(hit));
        self.size = Some(hit.size);
        for peer in &*hit.peers {
            if self.sources.iter().all(|source| source.peer != peer.peer) {
                self.sources.push(FoundSource { peer: peer.peer, homes: peer.homes.to_vec() });
            }
        }
    }

    /// This, and what it lacks of the other.
    pub(crate) fn or(mut self, other: Self) -> Self {
        let known: Vec<_> = self.sources.iter().map(|source| source.peer).collect();
        self.sources.extend(other.sources.into_iter().filter(|source| !known.contains(&source.peer)));
        Self { name: self.name.or(other.name), size: self.size.or(other.size), sources: self.sources }
    }
}

impl Searches {
    /// No search yet.
    pub fn new(network: Network, shares: Shares, downloads: Downloads, clock: Clock, tasks: &Tasks) -> Self {
        let shared = Shared { network, shares, downloads, clock, tasks: tasks.child(), book: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Starts a search and returns its id. Waits, within the search's time, until this leaf has a home.
    ///
    /// Fails with `bad_query`, `bad_request`, `rate_limited` or `no_ultrapeer`; nothing is left then.
    pub async fn start(&self, request: SearchRequest) -> Result<String, ApiError> {
        let query = request.query.clone();
        Query::parse(&query).map_err(refusal)?;
        let (limit, span, all) = bounds(&request)?;
        if !self.make_room() {
            return Err(ApiError::new(Code::RateLimited, format!("{} searches run already", limits::SEARCHES_KEPT))
                .hint("wait until some end, or end them: DELETE searches/{id}")
                .retry_after(Duration::from_secs(1)));
        }
        let began = self.shared.clock.now();
        self.wait_for_home(span).await?;
        let left = span.saturating_sub(self.shared.clock.now().since(began)).max(Duration::from_millis(1));
        let target = Target::Query(Text::new(&query));
        let started = self.shared.network.search(Request { target, limit, timeout: left, all }).await;
        let (ticket, news) = started.map_err(|_| ApiError::new(Code::Draining, "the daemon is shutting down"))?;
        let id = random_name().map_err(|error| ApiError::internal(error.to_string()))?;
        let log = Arc::new(EventLog::new());
        let entry = Entry { query, ticket, log, order: Vec::new(), hits: BTreeMap::new(), summary: None, ended: None };
        self.book().insert(id.clone(), entry);
        let (searches, name) = (self.clone(), id.clone());
        self.shared.tasks.spawn("search", async move { searches.follow(&name, news).await });
        Ok(id)
    }

    /// A search as it stands.
    pub fn get(&self, id: &str) -> Option<Search> {
        self.book().get(id).map(|entry| entry.show(id))
    }

    /// All searches, by id.
    pub fn list(&self) -> Vec<(String, Search)> {
        self.book().iter().map(|(id, entry)| (id.clone(), entry.show(id))).collect()
    }

    /// The events of a search, from its beginning.
    pub fn events(&self, id: &str) -> Option<Arc<EventLog>> {
        self.book().get(id).map(|entry| entry.log.clone())
    }

    /// Cancels a search if it runs, and forgets it once its followers have got its summary. False if there is
    /// none.
    pub async fn remove(&self, id: &str) -> bool {
        let Some((ticket, log)) = self.book().get(id).map(|entry| (entry.ticket, entry.log.clone())) else {
            return false;
        };
        self.shared.network.cancel(ticket).await;
        let ended = async {
            let mut frames = std::pin::pin!(log.follow(None));
            while frames.next().await.is_some() {}
        };
        // A machine that has stopped gives no summary.
        let _ = timeout(limits::CANCEL_PATIENCE, ended).await;
        log.close();
        self.book().remove(id);
        true
    }

    /// A search's hits, best first, and its summary, once it has ended; `None` if it is not known or was cut
    /// short.
    pub async fn finished(&self, id: &str) -> Option<(Vec<Hit>, Summary)> {
        let mut frames = std::pin::pin!(self.events(id)?.follow(None));
        while frames.next().await.is_some() {}
        let book = self.book();
        let entry = book.get(id)?;
        let mut hits: Vec<_> = entry.hits.values().collect();
        hits.sort_by_key(|(hit, wire)| (std::cmp::Reverse(wire.score), hit.content));
        Some((hits.into_iter().map(|(hit, _)| hit.clone()).collect(), entry.summary.clone()?))
    }

    /// What recent searches told of a content.
    pub fn known(&self, content: &ContentId) -> Known {
        let book = self.book();
        let mut known = Known::default();
        for (_, wire) in book.values().filter_map(|entry| entry.hits.get(content)) {
            known.add(wire);
        }
        known
    }

    /// Contents of recent hits whose ids begin with these hex digits.
    pub fn contents_from(&self, prefix: &str) -> Vec<ContentId> {
        let book = self.book();
        let contents = book.values().flat_map(|entry| entry.hits.keys());
        contents.filter(|content| content.to_string().starts_with(prefix)).copied().collect()
    }

    /// Peers that recent hits named, with their homes.
    pub fn peers(&self) -> Vec<FoundSource> {
        let book = self.book();
        let hits = book.values().flat_map(|entry| entry.hits.values());
        let mut peers: BTreeMap<_, _> = BTreeMap::new();
        for peer in hits.flat_map(|(_, wire)| wire.peers.iter()) {
            peers.insert(peer.peer, peer.homes.to_vec());
        }
        peers.into_iter().map(|(peer, homes)| FoundSource { peer, homes }).collect()
    }

    async fn wait_for_home(&self, span: Duration) -> Result<(), ApiError> {
        let network = &self.shared.network;
        let mut changes = network.watch();
        let attached = async {
            while network.homes().is_empty() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(span, attached).await.map_err(|_| {
            ApiError::new(Code::NoUltrapeer, "no ultrapeer was reached in time").hint(
                "see `quictrack status` for what was tried; name a node to join with --join ADDRESS or the key `join`",
            )
        })
    }

    async fn follow(&self, id: &str, mut news: tokio::sync::mpsc::Receiver<SearchNews>) {
        // Contents that this leaf's own bans hold back.
        let mut withheld = BTreeSet::new();
        while let Some(news) = news.recv().await {
            match news {
                SearchNews::Hit(mut wire) => {
                    if self.shared.network.bans().withholds(&mut wire) {
                        withheld.insert(wire.content);
                        continue;
                    }
                    // Another source of it is known by now.
                    withheld.remove(&wire.content);
                    let have = self.have(wire.content).await;
                    let hit = Hit::new(&wire, have);
                    let mut book = self.book();
                    let Some(entry) = book.get_mut(id) else { return };
                    entry.log.put(&hit.content.to_string(), "hit", &hit);
                    if !entry.hits.contains_key(&hit.content) {
                        entry.order.push(hit.content);
                    }
                    entry.hits.insert(hit.content, (hit, *wire));
                }
                SearchNews::End(end) => {
                    crate::metrics::search_ended(&end);
                    let mut book = self.book();
                    let Some(entry) = book.get_mut(id) else { return };
                    // What was shown before it was banned stays shown.
                    withheld.retain(|content| !entry.hits.contains_key(content));
                    let summary = Summary::new(&end, withheld.len() as u32);
                    entry.log.put("summary", "summary", &summary);
                    entry.log.close();
                    entry.summary = Some(summary);
                    entry.ended = Some(self.shared.clock.now());
                    return;
                }
            }
        }
        // The news ended without a summary: the daemon is shutting down.
        if let Some(entry) = self.book().get_mut(id) {
            entry.log.close();
            entry.ended = Some(self.shared.clock.now());
        }
    }

    /// Whether a content is here.
    pub async fn have(&self, content: ContentId) -> Have {
        match self.shared.downloads.get(&content.to_string()).map(|job| job.state) {
            Some(State::Done | State::Cancelled | State::Failed) | None => {}
            Some(_) => return Have::Partial,
        }
        // Not the job, but the file counts: it may be gone.
        if self.shared.shares.open(content).await.is_ok_and(|here| here.is_some()) { Have::Yes } else { Have::No }
    }

    /// Forgets searches that ended an hour ago, and the oldest that ended when there are too many. False if so
    /// many run that there is no room for one more.
    fn make_room(&self) -> bool {
        let now = self.shared.clock.now();
        let mut book = self.book();
        book.retain(|_, entry| entry.ended.is_none_or(|ended| now.since(ended) < limits::SEARCH_KEPT));
        while book.len() >= limits::SEARCHES_KEPT {
            let oldest = book.iter().filter_map(|(id, entry)| Some((entry.ended?, id.clone()))).min();
            let Some((_, id)) = oldest else { return false };
            book.remove(&id);
        }
        true
    }

    fn book(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Every operation leaves the book whole, so a panic elsewhere does not spoil it.
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn show(&self, id: &str) -> Search {
        Search {
            id: id.to_owned(),
            query: self.query.clone(),
            state: if self.ended.is_some() { SearchState::Done } else { SearchState::Running },
            hits: self.order.iter().filter_map(|content| self.hits.get(content)).map(|(hit, _)| hit.clone()).collect(),
            summary: self.summary.clone(),
        }
    }
}

/// What the author of a malformed query is told.
pub(crate) fn refusal(error: QueryError) -> ApiError {
    let position = u32::try_from(error.position).unwrap_or(u32::MAX);
    ApiError::new(Code::BadQuery, error.to_string()).position(position).hint(error.hint())
}

fn bounds(request: &SearchRequest) -> Result<(u32, Duration, bool), ApiError> {
    let all = request.all.unwrap_or(false);
    let limit = match request.limit {
        Some(limit) if !(1..=limits::SEARCH_LIMIT_MAX).contains(&limit) => {
            let message = format!("limit must be 1 to {}, not {limit}", limits::SEARCH_LIMIT_MAX);
            return Err(ApiError::bad_request(message).hint("to get everything, ask for all"));
        }
        _ if all => limits::SEARCH_LIMIT_ALL,
        Some(limit) => limit,
        None => limits::SEARCH_LIMIT,
    };
    let span = request.timeout_ms.map_or(limits::SEARCH_TIMEOUT, Duration::from_millis);
    if span.is_zero() {
        return Err(
            ApiError::bad_request("a search needs a millisecond or more").hint("leave `timeout_ms` out for 10 s")
        );
    }
    // No search takes that long: who waits longer only waits for nothing.
    Ok((limit, span.min(limits::SEARCH_TIMEOUT_MAX), all))
}
