//! Core: this leaf's standing queries: which home has them, what is looked for besides, and what was found before.
//!
//! What it decides: which home is told the wishes, when each is searched for, and which hits are new.
//!
//! ```text
//!   wishes ──> one home, the nearest; another as soon as it is about to end or lost
//!   told, or told again after a gap ──> an ordinary search for each, for what is there already
//!   hits, of the home or of a search ──> new contents of a wish, each once
//! ```
//!
//! One home is enough: it has others keep the wishes, and a home that would know them besides would send everything once
//! more. If it is lost without a word, what was shared until another home was told is found by the search; if it says that
//! it is about to end, the other one is told first and there is no gap.
//!
//! Invariants:
//! - each content is given once for each wish, of the last [`limits::WISH_HITS`] contents;
//! - a home is told at most once in [`limits::WISHES_TELL_PAUSE`];
//! - searches for wishes leave the user half of what a home allows.

#[cfg(feature = "net")]
pub mod book;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use overlay::{
    credit::TokenBucket,
    id::{ContentId, PeerId},
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        bounded::{List, Text},
        leaf::{Wish as WireWish, Wishes as WireWishes},
        search::Hit,
    },
};

use crate::search::HomeFacts;

/// A wish, numbered by the driver. Never reused within a session.
pub type Number = u32;

/// The source text of a query.
pub type Source = Text<{ limits::QUERY_BYTES }>;

/// What must be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// A home shall have these wishes, in place of those that it was told before.
    Tell(PeerId, WireWishes),
    /// Search for what is there already.
    Search(Number, Source),
    /// A content that is new to a wish.
    Found(Number, Box<Hit>),
}

/// The wishes. See the module text.
#[derive(Debug)]
pub struct Wishes {
    me: PeerId,
    wishes: BTreeMap<Number, Wish>,
    /// Who has them.
    home: Option<PeerId>,
    /// True if it said that it is about to end: what it knows until then it tells.
    is_draining: bool,
    /// When the home must be told.
    tell_at: Option<Time>,
    told_at: Option<Time>,
    searches: TokenBucket,
    /// When there is credit for the next search.
    search_from: Time,
}

#[derive(Debug)]
struct Wish {
    query: Source,
    found: Contents,
    /// When it is to be searched for.
    search_at: Option<Time>,
}

/// The last contents that a wish found.
#[derive(Debug, Default)]
struct Contents {
    known: BTreeSet<ContentId>,
    /// The oldest first.
    order: VecDeque<ContentId>,
}

impl Contents {
    /// False if it is known.
    fn insert(&mut self, content: ContentId) -> bool {
        if !self.known.insert(content) {
            return false;
        }
        self.order.push_back(content);
        if self.order.len() > limits::WISH_HITS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Wishes {
    /// None, of the leaf with that key.
    pub fn new(me: PeerId) -> Self {
        Self {
            me,
            wishes: BTreeMap::new(),
            home: None,
            is_draining: false,
            tell_at: None,
            told_at: None,
            searches: TokenBucket::new(Time::ZERO, limits::WISH_SEARCH_RATE, limits::WISH_SEARCH_BURST),
            search_from: Time::ZERO,
        }
    }

    /// The leaf has one more wish, which found these contents before, the oldest first. Beyond
    /// [`limits::WISHES_OF_LEAF`] homes would not take them: the caller has no more.
    pub fn add(&mut self, now: Time, number: Number, query: Source, found: Vec<ContentId>) {
        let mut contents = Contents::default();
        for content in found {
            contents.insert(content);
        }
        let search_at = self.home.map(|_| now + limits::WISH_SEARCH_DELAY);
        self.wishes.entry(number).or_insert(Wish { query, found: contents, search_at });
        self.tell_soon(now);
    }

    /// The leaf has a wish no more.
    pub fn remove(&mut self, now: Time, number: Number) {
        if self.wishes.remove(&number).is_some() {
            self.tell_soon(now);
        }
    }

    /// A home welcomed this leaf. If it had the wishes, it has them no more: this is another connection.
    pub fn attached(&mut self, now: Time, peer: &PeerId) {
        if self.home.as_ref() == Some(peer) && !self.wishes.is_empty() {
            self.tell_at = Some(now);
            self.search_all(now);
        }
    }

    /// A home says that it is about to end.
    pub fn draining(&mut self, peer: &PeerId) {
        self.is_draining |= self.home.as_ref() == Some(peer);
    }

    /// The homes changed, or what is known of them.
    pub fn homes_changed(&mut self, now: Time, homes: &[HomeFacts], out: &mut Outbox<Output>) {
        let present = self.home.and_then(|peer| homes.iter().find(|home| home.peer == peer));
        if present.is_some_and(serves) {
            return;
        }
        let next = homes.iter().filter(|home| serves(home)).min_by_key(|home| (home.rtt_us, home.peer));
        // One that is about to end is better than none.
        let next = next.or(present).or_else(|| homes.iter().min_by_key(|home| home.peer)).map(|home| home.peer);
        if next == self.home {
            return;
        }
        let left = present.map(|home| home.peer);
        let is_gap = left.is_none() || !std::mem::take(&mut self.is_draining);
        (self.home, self.is_draining) = (next, false);
        (self.tell_at, self.told_at) = (None, None);
        if next.is_none() {
            return;
        }
        if is_gap {
            // Nobody listened for a while, perhaps: others say that the home is gone.
            self.search_all(now);
        }
        if !self.wishes.is_empty() {
            self.tell(now, out);
            out.extend(left.map(|peer| Output::Tell(peer, WireWishes::default())));
        }
    }

    /// There is something that matches a wish.
    pub fn hit(&mut self, number: Number, hit: Hit, out: &mut Outbox<Output>) {
        let Some(wish) = self.wishes.get_mut(&number) else { return };
        // What only this leaf has is no news to its user.
        let is_own = hit.sources <= 1 && hit.peers.iter().any(|source| source.peer == self.me);
        if !is_own && wish.found.insert(hit.content) {
            out.push(Output::Found(number, Box::new(hit)));
        }
    }

    /// When [`Self::on_deadline`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let search = self.wishes.values().filter_map(|wish| wish.search_at).min();
        let search = search.filter(|_| self.home.is_some()).map(|at| at.max(self.search_from));
        [search, self.tell_at].into_iter().flatten().min()
    }

    /// Tells the home, and begins searches.
    pub fn on_deadline(&mut self, now: Time, out: &mut Outbox<Output>) {
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell(now, out);
        }
        if self.home.is_none() {
            return;
        }
        let is_due = |wish: &Wish| wish.search_at.is_some_and(|at| at <= now);
        for (number, wish) in self.wishes.iter_mut().filter(|(_, wish)| is_due(wish)) {
            if !self.searches.take(now) {
                break;
            }
            wish.search_at = None;
            out.push(Output::Search(*number, wish.query.clone()));
        }
        self.search_from = now + self.searches.wait(now).unwrap_or_default();
    }

    fn search_all(&mut self, now: Time) {
        for wish in self.wishes.values_mut() {
            wish.search_at = Some(now + limits::WISH_SEARCH_DELAY);
        }
    }

    fn tell_soon(&mut self, now: Time) {
        if self.home.is_some() {
            let earliest = self.told_at.map_or(now, |at| now.max(at + limits::WISHES_TELL_PAUSE));
            self.tell_at.get_or_insert(earliest);
        }
    }

    fn tell(&mut self, now: Time, out: &mut Outbox<Output>) {
        let Some(home) = self.home else { return };
        (self.tell_at, self.told_at) = (None, Some(now));
        let wish = |(number, wish): (&Number, &Wish)| WireWish { number: *number, query: wish.query.clone() };
        out.push(Output::Tell(home, WireWishes { wishes: List::new(self.wishes.iter().map(wish)) }));
    }
}

/// True if a home is neither about to end nor gone as others say.
fn serves(home: &HomeFacts) -> bool {
    home.rtt_us != u64::MAX
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay::{
        file::Tags,
        wire::{
            leaf::Allowance,
            search::{HitPeer, Reachability},
        },
    };
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    fn hit(content: u8, source: u8) -> Hit {
        let source = HitPeer {
            peer: peer(source),
            homes: List::default(),
            reachability: Reachability::Public,
            free_slots: 1,
            queue: 0,
        };
        Hit {
            content: ContentId([content; 32]),
            size: 1,
            score: 1,
            names: List::default(),
            path: Text::default(),
            modified_s: 0,
            tags: Tags::default(),
            sources: 1,
            networks: 1,
            peers: List::new([source]),
            holders: List::default(),
        }
    }

    /// Homes by key: whether each is neither about to end nor gone.
    fn homes(known: &[(u8, bool)]) -> Vec<HomeFacts> {
        let allowance = Allowance { interval_us: 0, burst: 0 };
        let rtt = |(byte, serves): &(u8, bool)| if *serves { u64::from(*byte) } else { u64::MAX };
        known.iter().map(|home| HomeFacts { peer: peer(home.0), rtt_us: rtt(home), allowance }).collect()
    }

    struct Bed {
        core: Wishes,
        now: Time,
        out: Outbox<Output>,
    }

    impl Bed {
        fn new() -> Self {
            Self { core: Wishes::new(peer(200)), now: Time(1_000_000), out: Outbox::new() }
        }

        fn homes(&mut self, known: &[(u8, bool)]) -> Vec<Output> {
            self.core.homes_changed(self.now, &homes(known), &mut self.out);
            self.out.drain().collect()
        }

        fn add(&mut self, number: Number, query: &str) {
            self.core.add(self.now, number, Text::new(query), Vec::new());
        }

        /// What is done within a time.
        fn run(&mut self, span: Duration) -> Vec<Output> {
            let end = self.now + span;
            while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.core.on_deadline(self.now, &mut self.out);
                assert!(self.core.next_deadline().is_none_or(|at| at > self.now), "busy loop");
            }
            self.now = end;
            self.out.drain().collect()
        }
    }

    /// Who was told which wishes, in order.
    fn told(outputs: &[Output]) -> Vec<(u8, Vec<Number>)> {
        let tell = |output: &Output| match output {
            Output::Tell(peer, wishes) => Some((peer.0[0], wishes.wishes.iter().map(|wish| wish.number).collect())),
            _ => None,
        };
        outputs.iter().filter_map(tell).collect()
    }

    fn searched(outputs: &[Output]) -> Vec<Number> {
        let search = |output: &Output| match output {
            Output::Search(number, _) => Some(*number),
            _ => None,
        };
        outputs.iter().filter_map(search).collect()
    }

    #[test]
    fn one_home_has_the_wishes_and_each_is_searched_for_once() {
        let mut bed = Bed::new();
        bed.add(1, "rose");
        assert!(bed.run(Duration::from_mins(1)).is_empty(), "nobody is there to be told");
        assert_eq!(told(&bed.homes(&[(3, true), (2, true)])), [(2, vec![1])]);
        assert_eq!(searched(&bed.run(limits::WISH_SEARCH_DELAY)), [1]);
        assert!(bed.homes(&[(3, true), (2, true), (1, true)]).is_empty(), "a nearer one is no reason to move");
        bed.add(2, "tulip");
        bed.core.remove(bed.now, 1);
        let outputs = bed.run(Duration::from_mins(10));
        assert_eq!((told(&outputs), searched(&outputs)), (vec![(2, vec![2])], vec![2]));
    }

    #[test]
    fn a_home_that_ends_in_order_leaves_no_gap_and_one_that_is_lost_is_made_up_for() {
        let mut bed = Bed::new();
        bed.add(1, "rose");
        bed.homes(&[(2, true), (3, true)]);
        bed.run(Duration::from_mins(1));
        bed.core.draining(&peer(2));
        assert_eq!(told(&bed.homes(&[(2, false), (3, true)])), [(3, vec![1]), (2, vec![])]);
        assert!(searched(&bed.run(Duration::from_mins(1))).is_empty());
        // Others say that it is gone: it may have been for a while.
        assert_eq!(told(&bed.homes(&[(3, false), (5, true)])), [(5, vec![1]), (3, vec![])]);
        assert_eq!(searched(&bed.run(Duration::from_mins(1))), [1]);
        assert_eq!(told(&bed.homes(&[(4, true)])), [(4, vec![1])]);
        assert_eq!(searched(&bed.run(Duration::from_mins(1))), [1]);
        // None for a while, and the same one again.
        assert!(bed.homes(&[]).is_empty());
        assert!(bed.run(Duration::from_mins(1)).is_empty());
        assert_eq!(told(&bed.homes(&[(4, true)])), [(4, vec![1])]);
        assert_eq!(searched(&bed.run(Duration::from_mins(1))), [1]);
        // Another connection to it, where nothing is known of the one before.
        bed.core.attached(bed.now, &peer(4));
        let outputs = bed.run(Duration::from_mins(1));
        assert_eq!((told(&outputs), searched(&outputs)), (vec![(4, vec![1])], vec![1]));
    }

    #[test]
    fn many_changes_are_told_at_once_and_many_searches_leave_the_user_some() {
        let mut bed = Bed::new();
        bed.homes(&[(2, true)]);
        bed.run(Duration::from_mins(1));
        for number in 0..limits::WISHES_OF_LEAF as Number {
            bed.add(number, "rose");
            bed.now += Duration::from_millis(10);
        }
        let outputs = bed.run(Duration::from_secs(3));
        assert_eq!(told(&outputs).len(), 1, "half a second of changes");
        assert_eq!(told(&outputs)[0].1.len(), limits::WISHES_OF_LEAF);
        assert!(searched(&outputs).len() <= limits::WISH_SEARCH_BURST as usize + 1);
        let rest = searched(&bed.run(Duration::from_mins(4)));
        assert_eq!(searched(&outputs).len() + rest.len(), limits::WISHES_OF_LEAF);
        assert_eq!(rest.last(), Some(&(limits::WISHES_OF_LEAF as Number - 1)));
    }

    #[test]
    fn what_was_found_before_or_is_only_here_or_was_not_wished_for_is_no_news() {
        let mut bed = Bed::new();
        bed.core.add(bed.now, 1, Text::new("rose"), vec![ContentId([5; 32])]);
        for (number, hit) in [(1, hit(5, 1)), (1, hit(6, 200)), (2, hit(7, 1))] {
            bed.core.hit(number, hit, &mut bed.out);
        }
        assert!(bed.out.is_empty());
        bed.core.hit(1, Hit { sources: 2, ..hit(6, 200) }, &mut bed.out);
        assert_eq!(bed.out.drain().count(), 1);
    }

    #[test]
    fn no_more_contents_are_remembered_than_there_may_be() {
        let mut bed = Bed::new();
        let content = |number: usize| ContentId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let most = limits::WISH_HITS;
        bed.core.add(bed.now, 1, Text::new("rose"), (0..most).map(content).collect());
        let mut found = |number: usize| {
            bed.core.hit(1, Hit { content: content(number), ..hit(0, 1) }, &mut bed.out);
            bed.out.drain().count()
        };
        assert_eq!((found(0), found(most - 1), found(most)), (0, 0, 1));
        assert_eq!((found(1), found(0)), (0, 1), "the oldest was forgotten, and no other");
    }

    proptest! {
        /// However often it is told, each content is news to each wish once.
        #[test]
        fn each_content_of_a_wish_is_given_once(hits in vec((0..4_u32, 0..10_u8), 0..200)) {
            let mut bed = Bed::new();
            (0..3).for_each(|number| bed.add(number, "rose"));
            for (number, content) in &hits {
                bed.core.hit(*number, hit(*content, 1), &mut bed.out);
            }
            let found = bed.out.drain().filter_map(|output| match output {
                Output::Found(number, hit) => Some((number, hit.content.0[0])),
                _ => None,
            });
            let found: Vec<_> = found.collect();
            let expected: BTreeSet<_> = hits.into_iter().filter(|(number, _)| *number < 3).collect();
            prop_assert_eq!(found.len(), expected.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}
