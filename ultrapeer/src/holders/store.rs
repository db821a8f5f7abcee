//! What homes told this ultrapeer of the contents of their leaves.
//!
//! Soft state: each home's is kept as long as it is confirmed, and [`limits::HOLDINGS_KEPT`] longer than the home is in
//! the view, because by then another home of its leaves has told it. Nothing of it is believed: whoever is named is
//! asked, so that a forged holding costs a question.

use std::collections::{BTreeMap, BTreeSet};

use overlay::{
    id::PeerId,
    limits,
    time::Time,
    wire::mesh::{ContentKey, Holdings, ToldHolder},
};

use super::ranking::mix;

/// What homes told. See the module text.
#[derive(Debug)]
pub(super) struct Store {
    homes: BTreeMap<PeerId, Home>,
    holdings: usize,
    /// Holdings that fit.
    room: usize,
    refused: u64,
    look_at: Option<Time>,
}

#[derive(Debug)]
struct Home {
    held: BTreeSet<(ContentKey, u64)>,
    /// Of all that was told, whether or not there was room for it.
    sum: u64,
    /// True if there was no room for some.
    is_cut: bool,
    heard: Time,
    /// The home is gone: when it is forgotten.
    forget_at: Option<Time>,
    /// Before that time it is not asked to repeat itself.
    ask_at: Time,
}

impl Store {
    /// With room for that many holdings.
    pub(super) fn new(room: usize) -> Self {
        Self { homes: BTreeMap::new(), holdings: 0, room, refused: 0, look_at: None }
    }

    pub(super) fn set_room(&mut self, room: usize) {
        self.room = room;
    }

    /// Holdings, and those that were refused because their home told more than its share.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.holdings, self.refused)
    }

    /// A home tells. True if it shall tell all of it once more.
    pub(super) fn heard(&mut self, now: Time, peer: PeerId, frame: Holdings) -> bool {
        let held = self.homes.get(&peer).map_or(0, |home| home.held.len());
        let most = self.most(held + limits::HOLDINGS_PER_FRAME);
        let home = self.homes.entry(peer).or_insert_with(|| Home {
            held: BTreeSet::new(),
            sum: 0,
            is_cut: false,
            heard: now,
            forget_at: None,
            ask_at: now,
        });
        home.heard = now;
        if frame.reset {
            self.holdings -= home.held.len();
            (home.held, home.sum, home.is_cut) = (BTreeSet::new(), 0, false);
        }
        for change in frame.changes {
            for key in change.removed {
                home.sum = home.sum.wrapping_sub(Holdings::part(change.handle, key));
                self.holdings -= usize::from(home.held.remove(&(key, change.handle)));
            }
            for key in change.added {
                home.sum = home.sum.wrapping_add(Holdings::part(change.handle, key));
                if home.held.len() >= most || self.holdings >= self.room {
                    home.is_cut = true;
                    self.refused += 1;
                } else {
                    self.holdings += usize::from(home.held.insert((key, change.handle)));
                }
            }
        }
        // All of it is told again, so a place or two are no reason.
        let has_room = |held: usize, room: usize| held < room - room / 8;
        let is_roomy = home.is_cut && has_room(home.held.len(), most) && has_room(self.holdings, self.room);
        let must_repeat = (home.sum != frame.sum || is_roomy) && home.ask_at <= now;
        if must_repeat {
            home.ask_at = now + limits::HOLDINGS_ASK;
        } else if home.held.is_empty() && home.sum == 0 && frame.sum == 0 {
            self.homes.remove(&peer);
        }
        self.look_at.get_or_insert(now + limits::HOLDINGS_LOOK);
        must_repeat
    }

    /// The most that one home may fill, which has or will have that many at most.
    fn most(&self, held: usize) -> usize {
        let share = self.room / limits::HOLDINGS_SHARE;
        if held <= share || self.homes.is_empty() {
            return share;
        }
        let mut all: Vec<_> = self.homes.values().map(|home| home.held.len()).collect();
        let middle = (all.len() - 1) / 2;
        share.max(4 * *all.select_nth_unstable(middle).1)
    }

    /// The home is in the view, or is not (any more) and is forgotten after a while.
    pub(super) fn set_member(&mut self, now: Time, peer: &PeerId, is_member: bool) {
        if let Some(home) = self.homes.get_mut(peer) {
            home.forget_at = if is_member { None } else { home.forget_at.or(Some(now + limits::HOLDINGS_KEPT)) };
        }
    }

    /// Who is said to have a content: at most `most`, some of them at random if there are more.
    pub(super) fn holders(&self, key: ContentKey, seed: u64, most: usize) -> Vec<ToldHolder> {
        let mut found = BTreeMap::new();
        for (peer, home) in &self.homes {
            let room = limits::HOLDERS_SEEN - found.len();
            let held = home.held.range((key, 0)..=(key, u64::MAX)).take(room);
            found.extend(held.map(|(_, handle)| (*handle, *peer)));
        }
        let mut holders: Vec<_> = found.into_iter().map(|(handle, home)| ToldHolder { handle, home }).collect();
        holders.sort_by_key(|holder| mix(seed, holder.handle));
        holders.truncate(most);
        holders
    }

    /// All that is known: which home told that a leaf has a content.
    #[cfg(test)]
    pub(super) fn told(&self) -> impl Iterator<Item = (PeerId, u64, ContentKey)> + '_ {
        let of_home = |(peer, home): (&PeerId, &Home)| {
            let told = home.held.iter().map(|(key, handle)| (*peer, *handle, *key));
            told.collect::<Vec<_>>()
        };
        self.homes.iter().flat_map(of_home)
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// Forgets homes that are gone or did not confirm what they told.
    pub(super) fn on_deadline(&mut self, now: Time) {
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.homes.retain(|_, home| {
            let is_over =
                home.forget_at.is_some_and(|at| at <= now) || now.since(home.heard) >= limits::HOLDINGS_LIFETIME;
            self.holdings -= if is_over { home.held.len() } else { 0 };
            !is_over
        });
        self.look_at = (!self.homes.is_empty()).then(|| now + limits::HOLDINGS_LOOK);
    }
}
