//! Core: searches that this ultrapeer coordinates for its leaves.
//!
//! What it decides: whom to ask and when, what the asker gets, when a search ends, and what may be said of
//! its completeness.
//!
//! ```text
//! start    own index first; if that is not enough, a minimum cover of the other homes, a round at a time
//! hits     merged by content; new contents and better knowledge go to the asker as they come
//! silence  after `FORWARD_PATIENCE` the next home of the same leaves is asked as well
//! end      limit reached, everyone answered, time over, or cancelled: one summary
//! ```
//!
//! Invariants:
//! - the asker gets at most `limit` distinct contents, and exactly one summary, last;
//! - `exhausted` without a reason means: every leaf of the view was searched by some home of it, and the
//!   logs that say so were current.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use overlay::{
    id::{ContentId, PeerId, QueryId},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::List,
        leaf::{Accepted, LeafMessage},
        mesh::{Query, QueryDone},
        search::{HITS_CAP, Hit, HitPeer, Hits, Incomplete, IncompleteSet, Reachability, Search, StopReason, Summary},
    },
};
use rustc_hash::FxHashMap;

use crate::{attachments::Attachments, index::rank::availability};

/// A search, numbered by the driver: where its answer goes. Never reused.
pub type Ticket = u64;

/// What must be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send to the asker. After a summary the ticket is closed.
    ToAsker(Ticket, LeafMessage),
    /// Send to another ultrapeer.
    ToMesh(PeerId, Query),
}

/// What the rest of the ultrapeer knows and a search needs.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The current time.
    pub now: Time,
    /// Who has which leaf.
    pub attachments: &'a Attachments,
    /// Ultrapeers in the view, this one included.
    pub ultrapeers: u32,
    /// True if a live ultrapeer's log is not current.
    pub lagging: bool,
    /// Ultrapeers that no link leads to.
    pub unlinked: &'a BTreeSet<PeerId>,
}

/// What an ultrapeer's own index says to a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Contents that match, best first, at most as many as were wanted.
    pub hits: Vec<Hit>,
    /// True if more match than were wanted.
    pub more: bool,
    /// True if the look-up was cut because it cost too much.
    pub capped: bool,
    /// Contents held back by the operator's block list.
    pub withheld: u32,
}

/// How searches ended, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The summary that the asker got.
    pub summary: Summary,
    /// Distinct contents that the asker got.
    pub hits: u32,
    /// When it began.
    pub began: Time,
    /// When its first hit was sent.
    pub first_hit: Option<Time>,
}

/// All searches under way. See the module text.
#[derive(Debug, Default)]
pub struct Searches {
    active: BTreeMap<Ticket, Active>,
    by_id: BTreeMap<QueryId, Ticket>,
    ended: Vec<Ended>,
}

#[derive(Debug)]
struct Active {
    id: QueryId,
    search: Search,
    began: Time,
    deadline: Time,
    first_hit: Option<Time>,
    merged: FxHashMap<ContentId, Merged>,
    asked: BTreeMap<PeerId, Asked>,
    more: bool,
    incomplete: IncompleteSet,
    withheld: u32,
}

#[derive(Debug)]
struct Merged {
    hit: Hit,
    /// The part of its score that is not availability; the best that any ultrapeer says.
    fit: u32,
    /// By handle: the place in the hit's names of the holder's own.
    holders: FxHashMap<u64, Option<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Nothing came yet; another home is asked as well at that time.
    Waiting(Time),
    /// Nothing came in time; its answer still counts.
    Late,
    /// Hits came, the end did not.
    Answering,
    Done,
    Failed,
}

impl Searches {
    /// Searches under way.
    pub fn len(&self) -> usize {
        self.active.len()
    }

    /// True if none is under way.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// How searches ended since this was last called.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Begins a search with what the own index says. `id` is this ultrapeer's own name for it towards others.
    pub fn start(
        &mut self,
        environment: Environment<'_>,
        ticket: Ticket,
        id: QueryId,
        search: Search,
        answer: Answer,
        out: &mut Outbox<Output>,
    ) {
        let now = environment.now;
        let timeout = std::time::Duration::from_millis(u64::from(search.timeout_ms));
        let mut active = Active {
            id,
            deadline: now + timeout.min(limits::SEARCH_TIMEOUT_MAX),
            search,
            began: now,
            first_hit: None,
            merged: FxHashMap::default(),
            asked: BTreeMap::new(),
            more: answer.more,
            incomplete: IncompleteSet::default(),
            withheld: answer.withheld,
        };
        out.push(Output::ToAsker(ticket, Accepted { ultrapeers: environment.ultrapeers }.into()));
        if answer.capped {
            active.incomplete.insert(Incomplete::WorkCap);
        }
        active.take_hits(now, ticket, answer.hits, out);
        self.by_id.insert(id, ticket);
        self.active.insert(ticket, active);
        self.go_on(environment, ticket, out);
    }

    /// Hits came from another ultrapeer.
    pub fn hits(&mut self, now: Time, from: PeerId, id: QueryId, hits: Vec<Hit>, out: &mut Outbox<Output>) {
        let Some((ticket, active)) = self.find(id) else { return };
        let Some(asked) = active.asked.get_mut(&from).filter(|asked| **asked != Asked::Done) else { return };
        *asked = Asked::Answering;
        active.take_hits(now, ticket, hits, out);
    }

    /// Another ultrapeer has no more.
    pub fn done(&mut self, environment: Environment<'_>, from: PeerId, done: QueryDone, out: &mut Outbox<Output>) {
        let Some((ticket, active)) = self.find(done.id) else { return };
        let Some(asked) = active.asked.get_mut(&from).filter(|asked| **asked != Asked::Done) else { return };
        *asked = Asked::Done;
        active.more |= done.more;
        active.withheld = active.withheld.saturating_add(done.withheld);
        if done.capped {
            active.incomplete.insert(Incomplete::WorkCap);
        }
        self.go_on(environment, ticket, out);
    }

    /// The link to another ultrapeer is lost: it answers no query any more.
    pub fn unlinked(&mut self, environment: Environment<'_>, peer: PeerId, out: &mut Outbox<Output>) {
        let waiting: Vec<_> = self
            .active
            .iter_mut()
            .filter_map(|(ticket, active)| {
                let asked = active.asked.get_mut(&peer).filter(|asked| **asked != Asked::Done)?;
                *asked = Asked::Failed;
                Some(*ticket)
            })
            .collect();
        for ticket in waiting {
            self.go_on(environment, ticket, out);
        }
    }

    /// The asker withdrew its search. No answer is sent any more.
    pub fn cancel(&mut self, now: Time, ticket: Ticket) {
        if let Some(active) = self.active.remove(&ticket) {
            self.by_id.remove(&active.id);
            self.ended.push(active.ended(now, StopReason::Cancelled));
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.active.values().map(Active::next_deadline).min()
    }

    /// Gives up on what takes too long.
    pub fn on_deadline(&mut self, environment: Environment<'_>, out: &mut Outbox<Output>) {
        let now = environment.now;
        let due: Vec<_> =
            self.active.iter().filter(|(_, active)| active.next_deadline() <= now).map(|(ticket, _)| *ticket).collect();
        for ticket in due {
            let Some(active) = self.active.get_mut(&ticket) else { continue };
            if active.deadline <= now {
                self.finish(environment, ticket, StopReason::Timeout, out);
                continue;
            }
            for asked in active.asked.values_mut() {
                if matches!(asked, Asked::Waiting(until) if *until <= now) {
                    *asked = Asked::Late;
                }
            }
            self.go_on(environment, ticket, out);
        }
    }

    fn find(&mut self, id: QueryId) -> Option<(Ticket, &mut Active)> {
        let ticket = *self.by_id.get(&id)?;
        self.active.get_mut(&ticket).map(|active| (ticket, active))
    }

    /// Asks the next homes, or ends the search.
    fn go_on(&mut self, environment: Environment<'_>, ticket: Ticket, out: &mut Outbox<Output>) {
        let Some(active) = self.active.get_mut(&ticket) else { return };
        let full = active.merged.len() >= active.search.limit as usize;
        let (answering, excluded) = active.standing(environment.unlinked);
        let cover = environment.attachments.cover(&answering, &excluded);
        let waiting = active.waiting();
        let unknown = active.more || waiting > 0 || !cover.ask.is_empty();
        if full && unknown && !active.search.all {
            return self.finish(environment, ticket, StopReason::Limit, out);
        }
        let round = if active.search.all { usize::MAX } else { limits::FORWARDS_PER_ROUND };
        for (home, _) in cover.ask.iter().take(round.saturating_sub(waiting)) {
            active.asked.insert(*home, Asked::Waiting(environment.now + limits::FORWARD_PATIENCE));
            let query = Query { id: active.id, target: active.search.target.clone(), limit: active.search.limit };
            out.push(Output::ToMesh(*home, query));
        }
        let missed = active.missed(environment.attachments);
        if active.waiting() > 0 || (missed > 0 && active.may_still_answer()) {
            return;
        }
        // A list that was cut at the limit, here or elsewhere, is no exhaustion.
        let stopped = if full && active.more { StopReason::Limit } else { StopReason::Exhausted };
        self.finish(environment, ticket, stopped, out);
    }

    fn finish(&mut self, environment: Environment<'_>, ticket: Ticket, stopped: StopReason, out: &mut Outbox<Output>) {
        let Some(mut active) = self.active.remove(&ticket) else { return };
        self.by_id.remove(&active.id);
        let done: BTreeSet<_> =
            active.asked.iter().filter(|(_, asked)| **asked == Asked::Done).map(|(peer, _)| *peer).collect();
        let silent: BTreeSet<_> = active.asked.keys().filter(|peer| !done.contains(peer)).copied().collect();
        let cover = environment.attachments.cover(&done, &silent);
        let missed = cover.lost + cover.ask.iter().map(|(_, leaves)| leaves).sum::<usize>();
        if stopped == StopReason::Exhausted {
            if missed > 0 {
                active.incomplete.insert(Incomplete::HomeSilent);
            }
            if environment.lagging {
                active.incomplete.insert(Incomplete::DigestLag);
            }
        }
        let total = environment.attachments.leaves();
        let mut ended = active.ended(environment.now, stopped);
        ended.summary.ultrapeers_total = environment.ultrapeers.max(ended.summary.ultrapeers_asked);
        ended.summary.leaves_total = total as u64;
        ended.summary.leaves_covered = (total - missed) as u64;
        out.push(Output::ToAsker(ticket, ended.summary.clone().into()));
        self.ended.push(ended);
    }
}

impl Active {
    /// Those whose answer counts or is awaited, and those that must not be asked (again).
    fn standing(&self, unlinked: &BTreeSet<PeerId>) -> (BTreeSet<PeerId>, BTreeSet<PeerId>) {
        let mut answering = BTreeSet::new();
        let mut excluded = unlinked.clone();
        for (peer, asked) in &self.asked {
            match asked {
                Asked::Waiting(_) | Asked::Answering | Asked::Done => answering.insert(*peer),
                Asked::Late | Asked::Failed => excluded.insert(*peer),
            };
        }
        (answering, excluded)
    }

    /// Homes from which an answer is expected soon.
    fn waiting(&self) -> usize {
        self.asked.values().filter(|asked| matches!(asked, Asked::Waiting(_) | Asked::Answering)).count()
    }

    /// Leaves that no home has been searched for, to its end.
    fn missed(&self, attachments: &Attachments) -> usize {
        let (done, open): (Vec<_>, Vec<_>) = self.asked.iter().partition(|(_, asked)| **asked == Asked::Done);
        let peers = |asked: Vec<(&PeerId, &Asked)>| asked.into_iter().map(|(peer, _)| *peer).collect();
        let cover = attachments.cover(&peers(done), &peers(open));
        cover.lost + cover.ask.iter().map(|(_, leaves)| leaves).sum::<usize>()
    }

    /// True while a home that is late may be the only one to know some leaves.
    fn may_still_answer(&self) -> bool {
        self.asked.values().any(|asked| *asked == Asked::Late)
    }

    fn next_deadline(&self) -> Time {
        let patience = self.asked.values().filter_map(|asked| match asked {
            Asked::Waiting(until) => Some(*until),
            _ => None,
        });
        patience.fold(self.deadline, Time::min)
    }

    /// Merges hits, and sends the asker what is new to it.
    fn take_hits(&mut self, now: Time, ticket: Ticket, hits: Vec<Hit>, out: &mut Outbox<Output>) {
        let mut news = Vec::new();
        for hit in hits {
            let content = hit.content;
            if let Some(known) = self.merged.get_mut(&content) {
                if known.merge(hit) {
                    news.push(content);
                }
            } else if self.merged.len() < self.search.limit as usize {
                self.merged.insert(content, Merged::new(hit));
                news.push(content);
            } else {
                self.more = true;
            }
        }
        if !news.is_empty() {
            self.first_hit.get_or_insert(now);
        }
        let known = news.iter().filter_map(|content| self.merged.get(content)).map(Merged::for_asker);
        for hits in frames(known) {
            out.push(Output::ToAsker(ticket, Hits { hits }.into()));
        }
    }

    fn ended(&self, now: Time, stopped: StopReason) -> Ended {
        debug_assert!(now >= self.began, "time does not run backwards");
        let asked = self.asked.len() as u32;
        let summary = Summary {
            stopped,
            incomplete: self.incomplete,
            ultrapeers_asked: 1 + asked,
            ultrapeers_total: 1 + asked,
            shards_asked: 1,
            shards_total: 1,
            leaves_covered: 0,
            leaves_total: 0,
            messages: asked,
            withheld: self.withheld,
        };
        Ended { summary, hits: self.merged.len() as u32, began: self.began, first_hit: self.first_hit }
    }
}

impl Merged {
    fn new(mut hit: Hit) -> Self {
        let listed = |name: &u8| usize::from(*name) < hit.names.len();
        let holders = hit.holders.iter().map(|holder| (holder.handle, holder.name.filter(listed))).collect();
        hit.holders = List::default();
        Self { fit: fit(&hit), hit, holders }
    }

    /// Takes over what another home knows. True if the asker should learn of it.
    fn merge(&mut self, other: Hit) -> bool {
        let known = self.hit.clone();
        let best_before = known.peers.first().map(|peer| peer.peer);
        self.merge_sources(&other);
        self.merge_names(&other);
        self.fit = self.fit.max(fit(&other));
        if other.tags.known() > self.hit.tags.known() {
            self.hit.tags = other.tags;
        }
        // A content has one size; when two are claimed, the one of more sources is the likelier.
        if other.sources > known.sources {
            self.hit.size = other.size;
        }
        let best = self.hit.peers.first().map(|peer| peer.peer);
        if best != best_before && best == other.peers.first().map(|peer| peer.peer) {
            (self.hit.path, self.hit.modified_s) = (other.path, other.modified_s);
        }
        self.hit.score = self.fit + availability(self.hit.networks, has_free_slot(&self.hit));
        self.hit != known
    }

    /// Counts each holder once. Networks are not told one by one: two ultrapeers' are taken to overlap as much as
    /// their holders do.
    fn merge_sources(&mut self, other: &Hit) {
        let apart = self.holders.len() + other.holders.len();
        let new = other.holders.iter().filter(|holder| !self.holders.contains_key(&holder.handle)).count();
        let together = self.holders.len() + new;
        let hit = &mut self.hit;
        hit.sources = hit.sources.max(other.sources).max(together as u32);
        let networks = u64::from(hit.networks.saturating_add(other.networks)) * together as u64 / apart.max(1) as u64;
        hit.networks = hit.networks.max(other.networks).max(networks as u32).min(hit.sources);
        hit.peers = merge_peers(&hit.peers, &other.peers);
    }

    /// Orders the names of both by how many holders have them.
    fn merge_names(&mut self, other: &Hit) {
        let names = union(&self.hit.names, &other.names);
        let place = |name: &_| names.iter().position(|known| known == name).map(|place| place as u8);
        for holder in &*other.holders {
            let name = holder.name.and_then(|name| other.names.get(usize::from(name)));
            self.holders.entry(holder.handle).or_insert_with(|| name.and_then(place));
        }
        let mut counts = vec![0u32; names.len()];
        for name in self.holders.values().flatten() {
            counts[usize::from(*name)] += 1;
        }
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|place| (Reverse(counts[*place]), &names[*place]));
        let mut moved = vec![None; names.len()];
        for (new, old) in order.iter().take(limits::HIT_NAMES).enumerate() {
            moved[*old] = Some(new as u8);
        }
        for name in self.holders.values_mut() {
            *name = name.and_then(|old| moved[usize::from(old)]);
        }
        self.hit.names = List::new(order.into_iter().map(|place| names[place].clone()));
    }

    /// The hit without the handles, which are for ultrapeers only.
    fn for_asker(&self) -> Hit {
        self.hit.clone()
    }
}

fn fit(hit: &Hit) -> u32 {
    hit.score.saturating_sub(availability(hit.networks, has_free_slot(hit)))
}

/// The sources with free slots are listed first, so the first tells of all.
fn has_free_slot(hit: &Hit) -> bool {
    hit.peers.first().is_some_and(|peer| peer.free_slots > 0)
}

fn union<T: Clone + PartialEq>(first: &[T], second: &[T]) -> Vec<T> {
    let new = second.iter().filter(|item| !first.contains(item));
    first.iter().chain(new).cloned().collect()
}

/// Sources by both, each with all homes that know it, in the order of [`crate::index::rank`].
fn merge_peers(first: &[HitPeer], second: &[HitPeer]) -> List<HitPeer, { limits::HIT_PEERS }> {
    let mut peers = first.to_vec();
    for peer in second {
        match peers.iter_mut().find(|known| known.peer == peer.peer) {
            Some(known) => known.homes = List::new(union(&known.homes, &peer.homes)),
            None => peers.push(peer.clone()),
        }
    }
    let public = |peer: &HitPeer| peer.reachability == Reachability::Public;
    peers.sort_by_key(|peer| (peer.free_slots == 0, !public(peer), peer.queue, peer.peer));
    List::new(peers)
}

/// Cuts hits into frames that stay below half of the frame's cap.
pub fn frames(hits: impl IntoIterator<Item = Hit>) -> Vec<List<Hit, { limits::HITS_PER_FRAME }>> {
    let mut frames = Vec::new();
    let mut frame = Vec::new();
    let mut bytes = 0;
    for hit in hits {
        let size = encoded_bytes(&hit);
        if frame.len() == limits::HITS_PER_FRAME || (bytes + size > HITS_CAP / 2 && !frame.is_empty()) {
            frames.push(List::new(std::mem::take(&mut frame)));
            bytes = 0;
        }
        bytes += size;
        frame.push(hit);
    }
    if !frame.is_empty() {
        frames.push(List::new(frame));
    }
    frames
}

/// An upper bound of a hit's encoded size, without encoding it.
fn encoded_bytes(hit: &Hit) -> usize {
    let names: usize = hit.names.iter().map(|name| name.len() + 2).sum();
    let tags = [&hit.tags.artist, &hit.tags.album, &hit.tags.title, &hit.tags.genre];
    let tags: usize = tags.into_iter().flatten().map(|tag| tag.len() + 3).sum();
    160 + names + hit.path.len() + tags + hit.peers.len() * (48 + 32 * limits::HOMES) + hit.holders.len() * 12
}

#[cfg(test)]
mod tests {
    use overlay::wire::{
        bounded::Text,
        mesh::{AttachmentChange, Attachments as Frame},
        search::{Holder, Target},
    };

    use super::*;

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn hit(content: u8, leaves: &[u64], home: u8) -> Hit {
        let peers = leaves.iter().map(|leaf| HitPeer {
            peer: peer(100 + *leaf as u8),
            homes: List::new([peer(home)]),
            reachability: Reachability::Unknown,
            free_slots: 1,
            queue: 0,
        });
        Hit {
            content: ContentId([content; 32]),
            size: 1,
            score: 1,
            names: List::new([Text::new("name")]),
            path: Text::new("share/name"),
            modified_s: 0,
            tags: overlay::file::Tags::default(),
            sources: leaves.len() as u32,
            networks: leaves.len() as u32,
            peers: List::new(peers),
            holders: List::new(leaves.iter().map(|leaf| Holder { handle: *leaf, name: Some(0) })),
        }
    }

    fn search(limit: u32, all: bool) -> Search {
        Search { id: QueryId(1), target: Target::Query(Text::new("x")), limit, timeout_ms: 5_000, all }
    }

    fn log(homes: &[(u8, &[u64])]) -> Attachments {
        let mut log = Attachments::new(peer(0));
        for (home, leaves) in homes {
            let changes = leaves.iter().map(|handle| AttachmentChange { handle: *handle, sequence: Some(1) });
            let changes = List::new(changes);
            if *home == 0 {
                for handle in *leaves {
                    log.own_change(*handle, Some(1));
                }
            } else {
                log.heard(peer(*home), Frame { reset: true, caught_up: true, changes });
            }
        }
        log
    }

    struct Bed {
        log: Attachments,
        unlinked: BTreeSet<PeerId>,
        searches: Searches,
        now: Time,
        hits: BTreeMap<ContentId, Hit>,
        asked: Vec<PeerId>,
        summary: Option<Summary>,
    }

    impl Bed {
        fn new(homes: &[(u8, &[u64])]) -> Self {
            Self {
                log: log(homes),
                unlinked: BTreeSet::new(),
                searches: Searches::default(),
                now: Time(1),
                hits: BTreeMap::new(),
                asked: Vec::new(),
                summary: None,
            }
        }

        fn step(&mut self, act: impl FnOnce(&mut Searches, Environment<'_>, &mut Outbox<Output>)) {
            let mut out = Outbox::new();
            let environment = Environment {
                now: self.now,
                attachments: &self.log,
                ultrapeers: 4,
                lagging: false,
                unlinked: &self.unlinked,
            };
            act(&mut self.searches, environment, &mut out);
            for output in out.drain() {
                match output {
                    Output::ToMesh(peer, _) => self.asked.push(peer),
                    Output::ToAsker(_, LeafMessage::Hits(frame)) => {
                        self.hits.extend(frame.hits.into_iter().map(|hit| (hit.content, hit)));
                    }
                    Output::ToAsker(_, LeafMessage::Summary(summary)) => {
                        assert!(self.summary.replace(summary).is_none(), "one summary");
                    }
                    Output::ToAsker(..) => {}
                }
            }
        }

        fn start(&mut self, search: Search, hits: Vec<Hit>) {
            let answer = Answer { hits, ..Answer::default() };
            self.step(|searches, environment, out| searches.start(environment, 1, QueryId(9), search, answer, out));
        }

        fn answer(&mut self, from: u8, hits: Vec<Hit>) {
            self.step(|searches, environment, out| {
                searches.hits(environment.now, peer(from), QueryId(9), hits, out);
                let done = QueryDone { id: QueryId(9), more: false, capped: false, withheld: 0 };
                searches.done(environment, peer(from), done, out);
            });
        }

        fn wait(&mut self, span: std::time::Duration) {
            self.now += span;
            self.step(Searches::on_deadline);
        }

        fn summary(&self) -> &Summary {
            self.summary.as_ref().expect("the search has ended")
        }
    }

    #[test]
    fn when_all_leaves_are_here_nobody_else_is_asked() {
        let mut bed = Bed::new(&[(0, &[1, 2]), (1, &[1]), (2, &[2])]);
        bed.start(search(60, false), vec![hit(7, &[1, 2], 0)]);
        let summary = bed.summary();
        assert_eq!(summary.stopped, StopReason::Exhausted);
        assert!(summary.incomplete.is_empty());
        assert_eq!((summary.ultrapeers_asked, summary.messages, summary.leaves_covered), (1, 0, 2));
    }

    #[test]
    fn a_leaf_known_to_two_homes_counts_once() {
        let mut bed = Bed::new(&[(0, &[1]), (1, &[1, 2])]);
        bed.start(search(60, false), vec![hit(7, &[1], 0)]);
        bed.answer(1, vec![hit(7, &[1, 2], 1)]);
        let hit = &bed.hits[&ContentId([7; 32])];
        assert_eq!(hit.sources, 2);
        assert!(hit.holders.is_empty(), "handles stay among ultrapeers");
        assert_eq!(hit.peers.iter().find(|peer| peer.peer == self::peer(101)).map(|peer| peer.homes.len()), Some(2));
    }

    #[test]
    fn a_silent_home_is_replaced_by_the_next() {
        let mut bed = Bed::new(&[(1, &[1]), (2, &[1])]);
        bed.start(search(60, false), vec![]);
        assert_eq!(bed.asked, [peer(1)]);
        bed.wait(limits::FORWARD_PATIENCE);
        assert_eq!(bed.asked, [peer(1), peer(2)]);
        bed.answer(2, vec![hit(7, &[1], 2)]);
        let summary = bed.summary();
        assert_eq!((summary.stopped, summary.incomplete.is_empty()), (StopReason::Exhausted, true));
    }

    #[test]
    fn a_late_home_that_alone_knows_a_leaf_is_awaited() {
        let mut bed = Bed::new(&[(1, &[1]), (2, &[1, 2])]);
        bed.start(search(60, false), vec![]);
        bed.wait(limits::FORWARD_PATIENCE);
        assert_eq!(bed.asked, [peer(2), peer(1)]);
        bed.answer(1, vec![]);
        assert!(bed.summary.is_none());
        bed.answer(2, vec![hit(7, &[2], 2)]);
        assert_eq!((bed.summary().stopped, bed.hits.len()), (StopReason::Exhausted, 1));
    }

    #[test]
    fn time_runs_out_when_nobody_answers() {
        let mut bed = Bed::new(&[(1, &[1])]);
        bed.start(search(60, false), vec![]);
        bed.wait(limits::FORWARD_PATIENCE);
        bed.wait(std::time::Duration::from_secs(5));
        assert_eq!((bed.summary().stopped, bed.summary().leaves_covered), (StopReason::Timeout, 0));
    }

    #[test]
    fn a_lost_home_without_replacement_makes_it_incomplete() {
        let mut bed = Bed::new(&[(1, &[1]), (2, &[2])]);
        bed.start(search(60, false), vec![]);
        bed.answer(1, vec![]);
        bed.unlinked.insert(peer(2));
        bed.step(|searches, environment, out| searches.unlinked(environment, peer(2), out));
        let summary = bed.summary();
        assert_eq!(summary.stopped, StopReason::Exhausted);
        assert!(summary.incomplete.contains(Incomplete::HomeSilent));
        assert_eq!((summary.leaves_covered, summary.leaves_total), (1, 2));
    }

    #[test]
    fn the_limit_stops_before_others_are_asked_and_is_never_exceeded() {
        let mut bed = Bed::new(&[(0, &[1]), (1, &[2])]);
        bed.start(search(2, false), vec![hit(1, &[1], 0), hit(2, &[1], 0), hit(3, &[1], 0)]);
        assert_eq!(bed.summary().stopped, StopReason::Limit);
        assert_eq!((bed.hits.len(), bed.asked.len()), (2, 0));
    }

    #[test]
    fn exactly_as_many_as_the_limit_is_still_exhaustion() {
        let mut bed = Bed::new(&[(0, &[1])]);
        bed.start(search(2, false), vec![hit(1, &[1], 0), hit(2, &[1], 0)]);
        assert_eq!(bed.summary().stopped, StopReason::Exhausted);
    }

    #[test]
    fn a_search_for_everything_asks_all_homes_although_the_limit_is_reached() {
        let mut bed = Bed::new(&[(0, &[1]), (1, &[2])]);
        bed.start(search(1, true), vec![hit(1, &[1], 0)]);
        assert_eq!(bed.asked, [peer(1)]);
        bed.answer(1, vec![hit(1, &[2], 1), hit(2, &[2], 1)]);
        assert_eq!(bed.summary().stopped, StopReason::Limit);
        assert_eq!(bed.hits[&ContentId([1; 32])].sources, 2);
    }

    #[test]
    fn a_look_up_that_was_cut_is_said_so_and_what_it_found_is_given() {
        for all in [false, true] {
            let mut bed = Bed::new(&[(0, &[1]), (1, &[2])]);
            let answer = Answer { hits: vec![hit(7, &[1], 0)], capped: true, ..Answer::default() };
            bed.step(|searches, environment, out| {
                searches.start(environment, 1, QueryId(9), search(60, all), answer, out);
            });
            bed.answer(1, vec![hit(8, &[2], 1)]);
            let summary = bed.summary();
            assert_eq!((summary.stopped, bed.hits.len()), (StopReason::Exhausted, 2));
            assert!(summary.incomplete.contains(Incomplete::WorkCap));
        }
    }

    /// A hit as a home tells it: its holders with the names they use, and the best of them.
    fn told(home: u8, holders: &[(u64, &str)], best: (u64, u16)) -> Hit {
        let handles: Vec<u64> = holders.iter().map(|(handle, _)| *handle).collect();
        let mut names: Vec<_> = holders.iter().map(|(_, name)| Text::new(name)).collect();
        names.sort();
        names.dedup();
        let place = |name: &str| names.iter().position(|known| **known == *name).map(|place| place as u8);
        let mut told = hit(7, &handles, home);
        told.holders = List::new(holders.iter().map(|(handle, name)| Holder { handle: *handle, name: place(name) }));
        told.peers = List::new(
            told.peers
                .iter()
                .filter(|peer| peer.peer == self::peer(100 + best.0 as u8))
                .cloned()
                .map(|peer| HitPeer { free_slots: best.1, ..peer }),
        );
        told.path = Text::new(&format!("share/{}", best.0));
        told.names = List::new(names);
        told.score = 400_000 + availability(told.networks, best.1 > 0);
        told
    }

    #[test]
    fn what_homes_tell_of_a_content_is_one_hit_in_any_order() {
        let parts = [
            told(1, &[(1, "a"), (2, "a")], (1, 0)),
            told(2, &[(2, "a"), (3, "b"), (4, "b")], (3, 2)),
            told(3, &[(4, "b"), (5, "c"), (6, "b")], (5, 1)),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
            let mut merged = Merged::new(parts[order[0]].clone());
            assert!(merged.merge(parts[order[1]].clone()) && merged.merge(parts[order[2]].clone()));
            let hit = merged.for_asker();
            assert_eq!(hit.names.iter().map(|name| &**name).collect::<Vec<_>>(), ["b", "a", "c"], "{order:?}");
            assert_eq!((hit.sources, &*hit.path), (6, "share/3"), "{order:?}");
            assert_eq!(hit.peers.iter().map(|peer| peer.peer).collect::<Vec<_>>(), [peer(103), peer(105), peer(101)]);
            assert_eq!(hit.score, 400_000 + availability(hit.networks, true));
            assert!(hit.score > parts[1].score, "more sources, a higher score");
            assert!(!merged.merge(parts[order[2]].clone()), "nothing new");
        }
    }

    #[test]
    fn frames_stay_below_their_cap_with_the_longest_names() {
        let mut big = hit(1, &(0..256).collect::<Vec<_>>(), 0);
        big.path = Text::new(&"p".repeat(limits::PATH_BYTES));
        big.names = List::new((0..limits::HIT_NAMES).map(|_| Text::new(&"n".repeat(limits::NAME_BYTES))));
        for hits in frames(std::iter::repeat_n(big, 200)) {
            let mut buffer = Vec::new();
            overlay::wire::frame::encode(&LeafMessage::from(Hits { hits }), &mut buffer).expect("below its cap");
        }
    }
}
