//! Server-sent events: the endless stream of everything, and finite streams of one search or download.
//!
//! [`EventRing`] keeps the last [`limits::EVENT_RING`] events. Followers read from the ring at their own
//! pace, so a slow one costs no memory: when the ring has overtaken it, it gets `reset` and goes on with
//! the newest. Event ids carry a boot number, so a `Last-Event-ID` from before a restart is recognised and
//! answered with `reset` too.
//!
//! [`EventLog`] is told from the beginning to each follower and then ends. An entry replaces the earlier
//! entry of the same key, so its size is bounded by what it tells about, not by how often that changed.
//!
//! ```text
//!   publish/put ──> ring or log ──(watch: something is new)──> follower ──> respond ──> `text/event-stream`
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, header, request::Parts},
    response::{IntoResponse, Response, Sse, sse},
};
use futures_util::{Stream, StreamExt, stream};
use rustc_hash::FxHashMap;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    limits,
    metrics::{QUEUE_DROPPED, Queue},
};

/// The event that tells a client to load everything again.
pub const RESET: &str = "reset";

/// One event as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What a client sends back as `Last-Event-ID`; `None` if the stream cannot be continued.
    pub id: Option<String>,
    /// Its name.
    pub event: &'static str,
    /// One line of JSON.
    pub data: Arc<str>,
}

impl Frame {
    /// An event of a stream that cannot be continued; `None` for data that is not JSON.
    pub fn of(event: &'static str, data: &impl Serialize) -> Option<Self> {
        Some(Self { id: None, event, data: to_line(event, data)? })
    }
}

/// An endless stream of events with a bounded past.
pub struct EventRing {
    boot: u64,
    state: Mutex<Ring>,
    changed: watch::Sender<()>,
}

/// Sequence numbers count from 0 in each boot; `events` holds those from `next - events.len()` on.
#[derive(Default)]
struct Ring {
    next: u64,
    events: VecDeque<(&'static str, Arc<str>)>,
}

impl Ring {
    fn oldest(&self) -> u64 {
        self.next - self.events.len() as u64
    }

    fn get(&self, sequence: u64) -> Option<&(&'static str, Arc<str>)> {
        self.events.get(usize::try_from(sequence.checked_sub(self.oldest())?).ok()?)
    }
}

impl EventRing {
    /// An empty ring. `boot` must differ from that of earlier runs: random, or the time of the start.
    pub fn new(boot: u64) -> Self {
        Self { boot, state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Appends an event for all followers and forgets the oldest beyond [`limits::EVENT_RING`].
    pub fn publish(&self, event: &'static str, data: &impl Serialize) {
        let Some(data) = to_line(event, data) else { return };
        let mut ring = lock(&self.state);
        ring.next += 1;
        ring.events.push_back((event, data));
        if ring.events.len() > limits::EVENT_RING {
            ring.events.pop_front();
        }
        drop(ring);
        self.changed.send_replace(());
    }

    /// Events from the one after `last_event_id` on, or from now on without one; first [`RESET`] if what
    /// lies between is gone. Never ends by itself.
    pub fn follow(self: &Arc<Self>, last_event_id: Option<&str>) -> impl Stream<Item = Frame> + Send + use<> {
        let position = match last_event_id {
            None => Some(lock(&self.state).next),
            Some(id) => self.position_after(id),
        };
        let follower = RingFollower { ring: Arc::clone(self), changed: self.changed.subscribe(), position };
        stream::unfold(follower, |mut follower| async move { Some((follower.next().await?, follower)) })
    }

    /// The sequence after an event id of this boot; `None` for any other text.
    fn position_after(&self, id: &str) -> Option<u64> {
        let (boot, sequence) = id.split_once('-')?;
        let (boot, sequence) = (u64::from_str_radix(boot, 16).ok()?, sequence.parse::<u64>().ok()?);
        (boot == self.boot && sequence < lock(&self.state).next).then(|| sequence + 1)
    }

    fn id(&self, sequence: u64) -> String {
        format!("{:x}-{sequence}", self.boot)
    }
}

impl fmt::Debug for EventRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRing").field("boot", &self.boot).finish_non_exhaustive()
    }
}

struct RingFollower {
    ring: Arc<EventRing>,
    changed: watch::Receiver<()>,
    /// The next sequence to send; `None` if it is not known any more.
    position: Option<u64>,
}

impl RingFollower {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            self.changed.mark_unchanged();
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            self.changed.changed().await.ok()?;
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let ring = lock(&self.ring.state);
        let Some(position) = self.position.filter(|position| *position >= ring.oldest()) else {
            if self.position.replace(ring.next).is_some() {
                QUEUE_DROPPED.increment(Queue::Events);
            }
            let id = ring.next.checked_sub(1).map(|newest| self.ring.id(newest));
            return Some(Frame { id, event: RESET, data: Arc::from("{}") });
        };
        let (event, data) = ring.get(position)?.clone();
        self.position = Some(position + 1);
        Some(Frame { id: Some(self.ring.id(position)), event, data })
    }
}

/// Turns repeated looks at a list into events: what is new or different, and what is gone.
///
/// Of each item only a hash is remembered. A list of thousands is cheaper in a [`Roster`].
#[derive(Debug)]
pub struct Changes {
    event: &'static str,
    known: BTreeMap<String, blake3::Hash>,
}

impl Changes {
    /// Nothing was seen yet; `event` is the events' name.
    pub const fn new(event: &'static str) -> Self {
        Self { event, known: BTreeMap::new() }
    }

    /// Publishes the items, by key, that differ from those of the last call in more than the fields `restless`,
    /// and for each key that is gone `{"id":KEY,"state":"removed"}`.
    pub fn publish<T: Serialize>(
        &mut self,
        ring: &EventRing,
        items: impl IntoIterator<Item = (String, T)>,
        restless: &[&str],
    ) {
        let mut now = BTreeMap::new();
        for (key, item) in items {
            let Ok(mut calm) = serde_json::to_value(&item) else { continue };
            if let Some(fields) = calm.as_object_mut() {
                fields.retain(|name, _| !restless.contains(&name.as_str()));
            }
            let calm = blake3::hash(calm.to_string().as_bytes());
            if self.known.get(&key) != Some(&calm) {
                ring.publish(self.event, &item);
            }
            now.insert(key, calm);
        }
        for gone in self.known.keys().filter(|key| !now.contains_key(*key)) {
            ring.publish(self.event, &removed(gone));
        }
        self.known = now;
    }
}

/// [`Changes`] for lists of thousands: items are compared by a part of them, and only what changed is written out.
///
/// An ultrapeer looks at 10,000 leaves every two seconds: `Changes` would make a JSON value of each every time.
#[derive(Debug)]
pub struct Roster<K, V> {
    event: &'static str,
    known: FxHashMap<K, (V, bool)>,
}

impl<K: Copy + Eq + Hash + Ord + fmt::Display, V: PartialEq> Roster<K, V> {
    /// Nothing was seen yet; `event` is the events' name.
    pub fn new(event: &'static str) -> Self {
        Self { event, known: FxHashMap::default() }
    }

    /// Publishes what `show` makes of the items whose value differs from that of the last call, and for each key
    /// that is gone `{"id":KEY,"state":"removed"}`, in the order of the keys.
    pub fn publish<T: Serialize>(
        &mut self,
        ring: &EventRing,
        items: impl IntoIterator<Item = (K, V)>,
        show: impl Fn(&K, &V) -> T,
    ) {
        for (key, value) in items {
            match self.known.get_mut(&key) {
                Some((known, seen)) if *known == value => *seen = true,
                _ => {
                    ring.publish(self.event, &show(&key, &value));
                    self.known.insert(key, (value, true));
                }
            }
        }
        let mut gone: Vec<K> = self.known.iter().filter(|(_, (_, seen))| !seen).map(|(key, _)| *key).collect();
        gone.sort_unstable();
        for key in gone {
            self.known.remove(&key);
            ring.publish(self.event, &removed(&key.to_string()));
        }
        self.known.values_mut().for_each(|(_, seen)| *seen = false);
    }
}

fn removed(key: &str) -> serde_json::Value {
    serde_json::json!({ "id": key, "state": "removed" })
}

/// A finite stream that every follower gets from the beginning.
pub struct EventLog {
    state: Mutex<Log>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Log {
    next: u64,
    entries: BTreeMap<u64, (&'static str, Arc<str>)>,
    /// Where the entry of a key is.
    places: FxHashMap<Box<str>, u64>,
    closed: bool,
}

impl EventLog {
    /// An open log without entries.
    pub fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Appends an entry, in place of the earlier one of the same key. Followers that already saw that get
    /// the new one as well.
    ///
    /// Returns false, with nothing changed, after [`Self::close`], for data that is not JSON, and when
    /// [`limits::EVENT_LOG`] other keys are there.
    pub fn put(&self, key: &str, event: &'static str, data: &impl Serialize) -> bool {
        let Some(data) = to_line(event, data) else { return false };
        let mut guard = lock(&self.state);
        let log = &mut *guard;
        if log.closed || (log.entries.len() >= limits::EVENT_LOG && !log.places.contains_key(key)) {
            return false;
        }
        if let Some(earlier) = log.places.insert(key.into(), log.next) {
            log.entries.remove(&earlier);
        }
        log.entries.insert(log.next, (event, data));
        log.next += 1;
        drop(guard);
        self.changed.send_replace(());
        true
    }

    /// Ends the stream: followers end after the last entry.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.send_replace(());
    }

    /// All entries from the beginning, or from the one after `last_event_id`, until [`Self::close`].
    pub fn follow(self: &Arc<Self>, last_event_id: Option<&str>) -> impl Stream<Item = Frame> + Send + use<> {
        let position = last_event_id.and_then(|id| id.parse::<u64>().ok()).map_or(0, |last| last.saturating_add(1));
        let follower = LogFollower { log: Arc::clone(self), changed: self.changed.subscribe(), position };
        stream::unfold(follower, |mut follower| async move { Some((follower.next().await?, follower)) }).fuse()
    }
}

impl Default for EventLog {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").finish_non_exhaustive()
    }
}

struct LogFollower {
    log: Arc<EventLog>,
    changed: watch::Receiver<()>,
    position: u64,
}

impl LogFollower {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            self.changed.mark_unchanged();
            {
                let log = lock(&self.log.state);
                if let Some((sequence, (event, data))) = log.entries.range(self.position..).next() {
                    self.position = sequence + 1;
                    return Some(Frame { id: Some(sequence.to_string()), event, data: Arc::clone(data) });
                }
                if log.closed {
                    return None;
                }
            }
            self.changed.changed().await.ok()?;
        }
    }
}

/// The answer that sends `frames` until they end, with a comment whenever
/// [`limits::EVENT_COMMENT_INTERVAL`] passes in silence.
pub fn respond(frames: impl Stream<Item = Frame> + Send + 'static) -> Response {
    let events = frames.map(|frame| {
        let event = sse::Event::default().event(frame.event).data(&*frame.data);
        Ok::<_, Infallible>(match frame.id {
            Some(id) => event.id(id),
            None => event,
        })
    });
    let comments = sse::KeepAlive::new().interval(limits::EVENT_COMMENT_INTERVAL);
    let mut response = Sse::new(events).keep_alive(comments).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The `Last-Event-ID` header, if it was sent and is text.
#[derive(Clone, Debug, Default)]
pub struct LastEventId(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
        let id = parts.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        Ok(Self(id.filter(|id| !id.is_empty()).map(str::to_owned)))
    }
}

/// One line of JSON. What cannot be written as JSON is a fault of this program and is logged.
fn to_line(event: &str, data: &impl Serialize) -> Option<Arc<str>> {
    match serde_json::to_string(data) {
        Ok(line) => Some(line.into()),
        Err(error) => {
            tracing::error!(event, %error, "event is not JSON");
            None
        }
    }
}

/// The state is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn looks_become_events_of_what_changed() {
        let ring = EventRing::new(1);
        let mut changes = Changes::new("peer");
        let item = |key: &str, state: &str, rtt: u32| {
            (key.to_owned(), serde_json::json!({ "peer": key, "state": state, "rtt": rtt }))
        };
        changes.publish(&ring, [item("a", "alive", 1), item("b", "alive", 1)], &["rtt"]);
        changes.publish(&ring, [item("a", "alive", 2), item("b", "suspect", 1)], &["rtt"]);
        changes.publish(&ring, [item("b", "suspect", 9)], &["rtt"]);
        let seen: Vec<String> = lock(&ring.state).events.iter().map(|(_, data)| data.to_string()).collect();
        let want = [
            r#"{"peer":"a","rtt":1,"state":"alive"}"#,
            r#"{"peer":"b","rtt":1,"state":"alive"}"#,
            r#"{"peer":"b","rtt":1,"state":"suspect"}"#,
            r#"{"id":"a","state":"removed"}"#,
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn a_roster_tells_what_changed_and_who_is_gone() {
        let ring = EventRing::new(1);
        let mut roster = Roster::new("peer");
        let show = |key: &u8, value: &char| serde_json::json!({ "peer": key, "at": value });
        roster.publish(&ring, [(3, 'x'), (2, 'x'), (1, 'x')], show);
        roster.publish(&ring, [(1, 'x'), (2, 'y'), (3, 'x')], show);
        roster.publish(&ring, [(2, 'y')], show);
        roster.publish(&ring, [(2, 'y'), (3, 'x')], show);
        let seen: Vec<String> = lock(&ring.state).events.iter().map(|(_, data)| data.to_string()).collect();
        let want = [
            r#"{"at":"x","peer":3}"#,
            r#"{"at":"x","peer":2}"#,
            r#"{"at":"x","peer":1}"#,
            r#"{"at":"y","peer":2}"#,
            r#"{"id":"1","state":"removed"}"#,
            r#"{"id":"3","state":"removed"}"#,
            r#"{"at":"x","peer":3}"#,
        ];
        assert_eq!(seen, want);
    }

    /// What can be read without waiting.
    fn ready(frames: &mut (impl Stream<Item = Frame> + Unpin)) -> Vec<(Option<String>, &'static str, String)> {
        let mut seen = Vec::new();
        while let Some(Some(frame)) = frames.next().now_or_never() {
            seen.push((frame.id, frame.event, frame.data.to_string()));
        }
        seen
    }

    fn entry(id: &str, event: &'static str, data: &str) -> (Option<String>, &'static str, String) {
        (Some(id.to_owned()), event, data.to_owned())
    }

    #[test]
    fn a_new_follower_starts_now_and_a_returning_one_where_it_was() {
        let ring = Arc::new(EventRing::new(0xb007));
        ring.publish("peer", &1);
        let mut fresh = Box::pin(ring.follow(None));
        ring.publish("peer", &2);
        ring.publish("share", &3);
        assert_eq!(ready(&mut fresh), [entry("b007-1", "peer", "2"), entry("b007-2", "share", "3")]);
        ring.publish("peer", &4);
        assert_eq!(ready(&mut fresh), [entry("b007-3", "peer", "4")]);
        let mut returned = Box::pin(ring.follow(Some("b007-1")));
        assert_eq!(ready(&mut returned), [entry("b007-2", "share", "3"), entry("b007-3", "peer", "4")]);
    }

    #[test]
    fn what_is_gone_or_foreign_starts_with_reset() {
        let ring = Arc::new(EventRing::new(7));
        for number in 0..limits::EVENT_RING + 2 {
            ring.publish("log", &number);
        }
        let newest = limits::EVENT_RING + 1;
        let late = || drop(ready(&mut Box::pin(ring.follow(Some("7-0")))));
        crate::metrics::watching::raises("quictrack_queue_dropped_total{queue=\"events\"}", late);
        for id in ["7-0", "8-5", "7-99999", "7", "", "x-y", "7-18446744073709551615"] {
            let mut frames = Box::pin(ring.follow(Some(id)));
            assert_eq!(ready(&mut frames), [entry(&format!("7-{newest}"), RESET, "{}")], "{id}");
            ring.publish("log", &"after");
            assert!(ready(&mut frames).iter().all(|(_, event, _)| *event == "log"));
            return_to_newest(&ring, newest);
        }
        let mut whole = Box::pin(ring.follow(Some("7-1")));
        assert_eq!(ready(&mut whole).len(), limits::EVENT_RING);
    }

    /// Forgets the last event, so that each turn of the test above sees the same ring.
    fn return_to_newest(ring: &EventRing, newest: usize) {
        let mut state = lock(&ring.state);
        state.events.pop_back();
        state.events.push_front(("log", Arc::from("again")));
        state.next = newest as u64 + 1;
    }

    #[test]
    fn a_follower_that_is_overtaken_is_reset() {
        let ring = Arc::new(EventRing::new(1));
        let mut slow = Box::pin(ring.follow(None));
        for number in 0..=limits::EVENT_RING {
            ring.publish("log", &number);
        }
        assert_eq!(ready(&mut slow), [entry(&format!("1-{}", limits::EVENT_RING), RESET, "{}")]);
    }

    #[test]
    fn a_log_is_told_from_the_beginning_and_ends() {
        let log = Arc::new(EventLog::new());
        let mut early = Box::pin(log.follow(None));
        assert!(log.put("a", "hit", &1));
        assert!(log.put("b", "hit", &2));
        assert_eq!(ready(&mut early), [entry("0", "hit", "1"), entry("1", "hit", "2")]);
        assert!(log.put("a", "hit", &3));
        log.put("", "summary", &4);
        log.close();
        assert!(!log.put("c", "hit", &5));
        let rest = [entry("2", "hit", "3"), entry("3", "summary", "4")];
        assert_eq!(ready(&mut early), rest);
        assert_eq!(early.next().now_or_never(), Some(None));
        let mut late = Box::pin(log.follow(None));
        assert_eq!(ready(&mut late), [[entry("1", "hit", "2")].as_slice(), &rest].concat());
        let mut resumed = Box::pin(log.follow(Some("1")));
        assert_eq!(ready(&mut resumed), rest);
    }

    #[test]
    fn a_log_is_bounded_by_its_keys() {
        let log = EventLog::new();
        for key in 0..limits::EVENT_LOG {
            assert!(log.put(&key.to_string(), "hit", &key));
        }
        assert!(!log.put("one more", "hit", &0));
        assert!(log.put("5", "hit", &0));
    }
}
