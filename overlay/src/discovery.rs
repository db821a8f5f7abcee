//! Core: where a node looks for ultrapeers, when, and which of those that it is told of it dials.
//!
//! ```text
//! too few ultrapeers ──> remembered ones, and what the user named: at once, by those who keep them
//!    ├─ 1 s ──> Look(Dns)   the names of `dns` count as named by the user from now on
//!    ├─ 2 s ──> Look(Lan) ──┐
//!    └─ 3 s ──> Look(Dht) ──┴─ Found(hints) ──> Dial, a few at a time ──> Dialled
//! enough ──> nothing
//! ```
//!
//! Invariants:
//! - a hint is never believed: it is dialled with care, and whoever answers proves its key and its network;
//! - at most [`limits::UNPROVEN_PER_MINUTE`] hints are dialled in a minute, each address once in
//!   [`limits::HINT_AGAIN`], and no more at a time than ultrapeers are missing;
//! - a source that is switched off is not asked, and what it said before is forgotten;
//! - who is in touch with enough ultrapeers asks nobody.

#[cfg(feature = "net")]
mod dht;
#[cfg(feature = "net")]
mod lan;
mod rendezvous;
#[cfg(feature = "net")]
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use rand::RngExt;

pub use self::rendezvous::Rendezvous;
#[cfg(feature = "net")]
pub use self::service::{Site, is_seeking, run};
use crate::{
    credit::TokenBucket,
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
};

/// Where a node looks. Those that come first are asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Names that the user configured.
    Dns,
    /// Nodes in the local network.
    Lan,
    /// The BitTorrent mainline DHT.
    Dht,
}

impl Source {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Dns, Self::Lan, Self::Dht];

    /// Time that those before it are given.
    pub const fn delay(self) -> Duration {
        match self {
            Self::Dns => limits::DNS_DELAY,
            Self::Lan => limits::LAN_DELAY,
            Self::Dht => limits::DHT_DELAY,
        }
    }
}

/// An address where somebody says that a node of the network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hint {
    /// Where.
    pub address: SocketAddr,
    /// Who; `None` takes anybody of the network.
    pub peer: Option<PeerId>,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Ultrapeers that it is in touch with.
    pub good: usize,
    /// How many it should be in touch with.
    pub wanted: usize,
}

/// What can happen.
#[derive(Debug)]
pub enum Input {
    /// The sources that are switched on.
    Sources(BTreeSet<Source>),
    /// How the node stands now.
    Standing(Standing),
    /// A source names addresses.
    Found(Source, Vec<Hint>),
    /// The dial of an address has ended.
    Dialled(SocketAddr),
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a source; answer with `Found` if it names any.
    Look(Source),
    /// Dial an address that a source named; answer with `Dialled`.
    Dial(Source, Hint),
}

/// When a source is asked next.
#[derive(Clone, Copy, Debug)]
struct Turn {
    at: Time,
    pause: Duration,
    /// It was asked, so what it says counts.
    asked: bool,
}

/// See the module text.
#[derive(Debug)]
pub struct Discovery {
    sources: BTreeSet<Source>,
    standing: Standing,
    /// Of the sources that are switched on, while ultrapeers are missing.
    turns: BTreeMap<Source, Turn>,
    waiting: BTreeSet<(Source, Hint)>,
    dialling: BTreeSet<SocketAddr>,
    tried: BTreeMap<SocketAddr, Time>,
    credit: TokenBucket,
    /// No hint is dialled before.
    dial_at: Time,
}

impl Default for Discovery {
    fn default() -> Self {
        // What is saved up and what is earned in a minute make the most of any minute.
        let half = limits::UNPROVEN_PER_MINUTE / 2.0;
        Self {
            sources: BTreeSet::new(),
            standing: Standing::default(),
            turns: BTreeMap::new(),
            waiting: BTreeSet::new(),
            dialling: BTreeSet::new(),
            tried: BTreeMap::new(),
            credit: TokenBucket::new(Time::ZERO, half / 60.0, half),
            dial_at: Time::ZERO,
        }
    }
}

impl Discovery {
    /// Ultrapeers that are missing.
    fn missing(&self) -> usize {
        self.standing.wanted.saturating_sub(self.standing.good)
    }

    fn stand(&mut self, now: Time, standing: Standing) {
        let was_alone = self.standing.good == 0;
        self.standing = standing;
        if self.missing() == 0 {
            self.turns.clear();
            self.waiting.clear();
        } else if standing.good == 0 && !was_alone {
            // The search begins anew.
            self.turns.clear();
            self.dial_at = now;
        }
        self.plan(now);
    }

    /// Gives each source its turn that has none.
    fn plan(&mut self, now: Time) {
        self.turns.retain(|source, _| self.sources.contains(source));
        self.waiting.retain(|(source, _)| self.sources.contains(source));
        if self.missing() > 0 {
            for source in &self.sources {
                let first = Turn { at: now + source.delay(), pause: limits::LOOK_AROUND_MIN, asked: false };
                self.turns.entry(*source).or_insert(first);
            }
        }
    }

    fn found(&mut self, now: Time, source: Source, hints: Vec<Hint>) {
        if self.turns.get(&source).is_none_or(|turn| !turn.asked) {
            return;
        }
        self.forget(now);
        for hint in hints {
            if self.waiting.len() < limits::UNPROVEN_WAITING && !self.tried.contains_key(&hint.address) {
                self.waiting.insert((source, hint));
            }
        }
    }

    fn forget(&mut self, now: Time) {
        self.tried.retain(|_, at| now.since(*at) < limits::HINT_AGAIN);
    }

    fn look(&mut self, now: Time, out: &mut Outbox<Output>) {
        let is_alone = self.standing.good == 0;
        for (source, turn) in &mut self.turns {
            if turn.at <= now {
                out.push(Output::Look(*source));
                turn.asked = true;
                turn.at = now + if is_alone { turn.pause } else { limits::LOOK_AROUND_CALM };
                turn.pause = (turn.pause * 2).min(limits::LOOK_AROUND_MAX);
            }
        }
    }

    /// Dials what waits and may be dialled. Nobody who names many addresses decides which of them come first.
    fn dial(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        self.forget(now);
        while self.dial_at <= now && self.dialling.len() < self.missing() && self.tried.len() < limits::UNPROVEN_TRIED {
            let Some(first) = self.waiting.first().map(|(source, _)| *source) else { return };
            let count = self.waiting.iter().take_while(|(source, _)| *source == first).count();
            if !self.credit.take(now) {
                self.dial_at = now + self.credit.wait(now).unwrap_or(limits::UNPROVEN_PAUSE);
                return;
            }
            let chosen = self.waiting.iter().nth(cx.rng.random_range(0..count)).copied();
            let Some((source, hint)) = chosen else { return };
            self.waiting.retain(|(_, other)| other.address != hint.address);
            self.tried.insert(hint.address, now);
            self.dialling.insert(hint.address);
            if self.standing.good > 0 {
                self.dial_at = now + limits::UNPROVEN_PAUSE;
            }
            out.push(Output::Dial(source, hint));
        }
    }
}

impl Machine for Discovery {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Sources(sources) => {
                self.sources = sources;
                self.plan(cx.now);
            }
            Input::Standing(standing) => self.stand(cx.now, standing),
            Input::Found(source, hints) => self.found(cx.now, source, hints),
            Input::Dialled(address) => {
                self.dialling.remove(&address);
            }
        }
        self.dial(cx, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        let look = self.turns.values().map(|turn| turn.at).min();
        let may_dial = !self.waiting.is_empty()
            && self.dialling.len() < self.missing()
            && self.tried.len() < limits::UNPROVEN_TRIED;
        [look, may_dial.then_some(self.dial_at)].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.look(cx.now, out);
        self.dial(cx, out);
    }
}

#[cfg(test)]
mod tests;
