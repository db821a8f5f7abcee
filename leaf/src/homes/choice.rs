//! Which of several ultrapeers becomes a home: how far away they are, in whose network, and luck.
//!
//! One home in three is chosen at random, so that nobody can make sure to be one by being near. The others are the
//! nearest of a sample, in networks of their own where there are enough. Distances are measured once, when there is a
//! choice at all; a home that turns out far worse than one that was measured is exchanged, at most one in a while.

use std::{collections::BTreeSet, time::Duration};

use overlay::{
    address::network_prefix,
    id::PeerId,
    limits,
    machine::{Context, Outbox},
    time::Time,
};
use rand::RngExt;

use super::{Distance, Homes, Output};

/// The slow exchange of a home for a better one.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// When it is looked again whether a home is far worse than another ultrapeer.
    look_at: Option<Time>,
    /// Who is measured for that.
    challenger: Option<PeerId>,
    /// Who is to become a home, and in whose place.
    under_way: Option<(PeerId, PeerId)>,
}

impl Exchange {
    /// There is a home: from now on it is looked around now and then.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) {
        let pause = limits::LOOK_AROUND.mul_f64(cx.rng.random_range(0.75..1.25));
        self.look_at.get_or_insert(cx.now + pause);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// The home that is to be left.
    pub(super) fn replaced(&self) -> Option<PeerId> {
        self.under_way.map(|(_, old)| old)
    }

    pub(super) fn done(&mut self) {
        self.under_way = None;
    }

    /// The dial of an ultrapeer failed.
    pub(super) fn failed(&mut self, peer: &PeerId) {
        if self.under_way.is_some_and(|(new, _)| new == *peer) {
            self.under_way = None;
        }
    }
}

impl Homes {
    /// The ultrapeer to dial next; `None` if there is none, or they are being measured.
    pub(super) fn choose(&mut self, cx: &mut Context<'_>, room: usize, out: &mut Outbox<Output>) -> Option<PeerId> {
        let now = cx.now;
        let candidates = self.candidates(now);
        let preferred = self.preferred.iter().position(|peer| candidates.contains(peer));
        if let Some(place) = preferred {
            return self.preferred.remove(place);
        }
        let pool = self.in_new_networks(candidates);
        if pool.is_empty() {
            return None;
        }
        if self.wild.is_none() {
            self.wild = Some(pool[cx.rng.random_range(0..pool.len())]);
            return self.wild;
        }
        if self.serving(now) > 0 {
            if self.is_measuring() {
                return None;
            }
            let is_away = |peer: &PeerId| matches!(self.known[peer].distance, Distance::Away(_));
            if pool.len() > room && !pool.iter().any(is_away) && self.measure_some(cx, &pool, out) {
                return None;
            }
        }
        // Those that were measured first, and those that did not answer last.
        let away = |peer: &PeerId| match self.known[peer].distance {
            Distance::Away(distance) => (0, distance),
            Distance::Unknown | Distance::Measuring(_) => (1, Duration::ZERO),
            Distance::Silent => (2, Duration::ZERO),
        };
        let nearest = pool.iter().map(away).min()?;
        let nearest: Vec<_> = pool.iter().filter(|peer| away(peer) == nearest).collect();
        Some(*nearest[cx.rng.random_range(0..nearest.len())])
    }

    /// Ultrapeers that could be dialled now, by key.
    fn candidates(&self, now: Time) -> Vec<PeerId> {
        let under_way: BTreeSet<_> = self.targets.values().filter_map(|target| target.dialling).collect();
        let candidates = self.known.iter().filter(|(peer, known)| {
            !self.homes.contains_key(*peer)
                && (self.homes.is_empty() || !self.is_distrusted(now, peer))
                && known.attempts.is_due(now)
                && self.covers(known)
                && !under_way.contains(&known.descriptor.address)
        });
        candidates.map(|(peer, _)| *peer).collect()
    }

    /// Those whose network has no home of this leaf yet; all if there is none.
    fn in_new_networks(&self, candidates: Vec<PeerId>) -> Vec<PeerId> {
        let homes = self.homes.values().filter(|home| home.serves(self.seen)).map(|home| home.address);
        let dialled = self.known.values().filter_map(|known| known.attempts.dialling);
        let taken: BTreeSet<_> = homes.chain(dialled).map(network_of).collect();
        let is_new = |peer: &&PeerId| !taken.contains(&network_of(self.known[*peer].descriptor.address));
        let new: Vec<_> = candidates.iter().filter(is_new).copied().collect();
        if new.is_empty() { candidates } else { new }
    }

    /// Begins to measure a sample. False if there is no credit for it.
    fn measure_some(&mut self, cx: &mut Context<'_>, pool: &[PeerId], out: &mut Outbox<Output>) -> bool {
        let mut rest: Vec<_> =
            pool.iter().copied().filter(|peer| self.known[peer].distance == Distance::Unknown).collect();
        let mut begun = 0;
        while begun < limits::MEASURED && !rest.is_empty() && self.measures.take(cx.now) {
            let peer = rest.swap_remove(cx.rng.random_range(0..rest.len()));
            self.measure(cx.now, peer, out);
            begun += 1;
        }
        begun > 0
    }

    fn measure(&mut self, now: Time, peer: PeerId, out: &mut Outbox<Output>) {
        if let Some(known) = self.known.get_mut(&peer) {
            // The driver gives up before that.
            known.distance = Distance::Measuring(now + limits::PING_TIMEOUT * 2);
            out.push(Output::Measure(peer, known.descriptor.address));
        }
    }

    pub(super) fn is_measuring(&self) -> bool {
        self.known.values().any(|known| matches!(known.distance, Distance::Measuring(_)))
    }

    /// A measurement ended.
    pub(super) fn measured(
        &mut self,
        cx: &mut Context<'_>,
        peer: PeerId,
        distance: Option<Duration>,
        out: &mut Outbox<Output>,
    ) {
        let Some(known) = self.known.get_mut(&peer) else { return };
        if !matches!(known.distance, Distance::Measuring(_)) {
            return;
        }
        known.distance = distance.map_or(Distance::Silent, Distance::Away);
        if self.exchange.challenger == Some(peer) {
            self.exchange.challenger = None;
            self.compare(cx.now, peer, out);
        }
    }

    /// Gives up measurements that nobody ended.
    pub(super) fn end_measuring(&mut self, now: Time) {
        for known in self.known.values_mut() {
            if matches!(known.distance, Distance::Measuring(until) if until <= now) {
                known.distance = Distance::Silent;
            }
        }
    }

    /// Looks now and then whether there is somebody far better than the worst home.
    pub(super) fn look(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        if self.exchange.look_at.is_none_or(|at| at > now) {
            return;
        }
        self.exchange = Exchange::default();
        self.exchange.begin(cx);
        if self.holding(now) != limits::HOMES || self.dialling() > 0 {
            return;
        }
        let Some(worst) = self.worst(now) else { return };
        if self.homes[&worst].rtt.is_none_or(|rtt| rtt <= limits::FAR_WORSE) {
            return; // nobody can be far better
        }
        let candidates = self.candidates(now);
        let nearest = candidates.iter().filter_map(|peer| match self.known[peer].distance {
            Distance::Away(distance) => Some((distance, *peer)),
            _ => None,
        });
        let nearest = nearest.min().map(|(_, peer)| peer);
        let challenger =
            nearest.or_else(|| (!candidates.is_empty()).then(|| candidates[cx.rng.random_range(0..candidates.len())]));
        if let Some(peer) = challenger
            && self.measures.take(now)
        {
            self.exchange.challenger = Some(peer);
            self.measure(now, peer, out);
        }
    }

    /// Exchanges the worst home if it was far worse than another ultrapeer at two looks in a row.
    fn compare(&mut self, now: Time, challenger: PeerId, out: &mut Outbox<Output>) {
        let Distance::Away(distance) = self.known[&challenger].distance else { return };
        let Some(worst) = self.worst(now) else { return };
        let Some(home) = self.homes.get_mut(&worst) else { return };
        let far_worse = home.rtt.is_some_and(|rtt| rtt > distance * 2 + limits::FAR_WORSE);
        let twice = std::mem::replace(&mut home.slow, far_worse) && far_worse;
        if twice && self.serving(now) == limits::HOMES && self.known[&challenger].attempts.is_due(now) {
            self.exchange.under_way = Some((challenger, worst));
            self.dial(challenger, out);
        }
    }

    /// The home that is furthest away, other than the one chosen at random and this very node, of those with the list; the
    /// youngest of equals.
    pub(super) fn worst(&self, now: Time) -> Option<PeerId> {
        let may_go = |peer: &PeerId| self.wild != Some(*peer) && *peer != self.me;
        let homes = self.homes.iter().filter(|(peer, home)| home.serves(now) && home.has_list && may_go(peer));
        homes.max_by_key(|(_, home)| (home.rtt, home.since)).map(|(peer, _)| *peer)
    }

    /// When a dial is due, or a measurement is given up.
    pub(super) fn seek_deadline(&self) -> Option<Time> {
        let measuring = self.known.values().filter_map(|known| match known.distance {
            Distance::Measuring(until) => Some(until),
            _ => None,
        });
        // While some are measured nobody else is dialled.
        let measuring = measuring.max();
        if self.serving(self.seen) + self.dialling() >= self.wanted(self.seen) && !self.homes.is_empty() {
            return measuring;
        }
        if measuring.is_some() && !self.homes.is_empty() {
            return measuring;
        }
        let known = self.known.iter().filter(|(peer, known)| !self.homes.contains_key(*peer) && self.covers(known));
        let targets = self.targets.values().filter(|_| self.homes.is_empty());
        let attempts = known.map(|(_, known)| &known.attempts).chain(targets);
        let next = attempts.filter(|attempts| attempts.dialling.is_none()).map(|attempts| attempts.at).min();
        next.map(|at| at.max(self.seek_at))
    }
}

/// The network of an address: its /16, or /32 of IPv6.
fn network_of(address: std::net::SocketAddr) -> u64 {
    network_prefix(address, 16, 32)
}
