//! Core: what own leaves that would serve as ultrapeers are worth.
//!
//! What it decides: which of them to dial back and when, what to tell them of it, and whom to invite when the network
//! wants more.
//!
//! ```text
//!   willing ──a moment──> dialled back, measured ──> told what was found, with a signed word for those who vote
//!                              ^        │ an hour
//!                              └────────┘          wanted ──> the best is invited, then the next
//! ```
//!
//! Invariants:
//! - a leaf is dialled at the address from which its packets come, as its connection has proven;
//! - what is told is what this home saw: since when the leaf has been attached, how fast it sent, what was lost, how
//!   earlier sessions ended;
//! - on the Internet, somebody in each /24 (IPv6 /48) is dialled back once in [`limits::DIAL_BACK_PAUSE`].

use std::{collections::BTreeMap, net::SocketAddr};

use overlay::{
    address::network_prefix,
    election::{Measurement, Regime, falls_short, score},
    id::PeerId,
    limits,
    machine::Outbox,
    time::Time,
    wire::{
        election::{Invitation, Measured},
        leaf::Appraisal,
    },
};
use rand::{Rng, RngExt};

use crate::leaves::Session;

/// What the appraisal of leaves depends on.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The current time.
    pub now: Time,
    /// What the network asks.
    pub regime: Regime,
    /// Whether more are wanted.
    pub demand: bool,
    /// Whether there are too few in any case: then nobody has to have been there for long.
    pub below_floor: bool,
    /// Whether there is a place for one more at an address.
    pub has_place: &'a dyn Fn(&PeerId, SocketAddr) -> bool,
    /// Signs what was found out about a leaf.
    pub sign: &'a dyn Fn(&PeerId, Measured) -> Invitation,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("now", &self.now).field("demand", &self.demand).finish_non_exhaustive()
    }
}

/// What must be done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Dial a leaf back and measure how fast it sends.
    DialBack(PeerId, SocketAddr),
    /// Tell a leaf what was found out about it.
    Tell(Session, Box<Appraisal>),
}

/// The leaves that would serve. See the module text.
#[derive(Debug, Default)]
pub struct Appraisals {
    known: BTreeMap<PeerId, Record>,
    under_way: usize,
    /// When somebody in a part of the Internet was dialled back.
    dialled: BTreeMap<u64, Time>,
    former: BTreeMap<PeerId, Former>,
    invite_at: Time,
    look_at: Option<Time>,
    /// Times that more were wanted and nobody could be invited.
    nobody: u64,
    /// When that is counted again.
    nobody_at: Time,
}

#[derive(Debug)]
struct Record {
    session: Session,
    address: SocketAddr,
    since: Time,
    /// When it is dialled back next.
    due: Time,
    under_way: bool,
    reached: Option<bool>,
    rate_kbit: Option<u32>,
    loss_ppm: u32,
    invited_at: Option<Time>,
    told: Option<(Time, Appraisal)>,
}

/// How sessions of a leaf ended.
#[derive(Clone, Copy, Debug)]
struct Former {
    sessions: u16,
    surprises: u16,
    last: Time,
}

impl Appraisals {
    /// A leaf would serve, or would not any more.
    pub fn willing(
        &mut self,
        now: Time,
        rng: &mut dyn Rng,
        session: Session,
        leaf: (PeerId, SocketAddr),
        willing: bool,
    ) {
        let (peer, address) = leaf;
        if !willing {
            self.forget(&peer, session);
        } else if self.known.len() < limits::APPRAISED && !self.known.contains_key(&peer) {
            let due = now + limits::APPRAISAL_DELAY.mul_f64(rng.random_range(0.1..1.0));
            let record = Record {
                session,
                address,
                since: now,
                due,
                under_way: false,
                reached: None,
                rate_kbit: None,
                loss_ppm: 0,
                invited_at: None,
                told: None,
            };
            self.known.insert(peer, record);
            self.wake(due);
        }
    }

    /// A leaf left: in order, or nobody knows why.
    pub fn left(&mut self, now: Time, peer: &PeerId, session: Session, in_order: bool) {
        if self.forget(peer, session) {
            let former = self.former.entry(*peer).or_insert(Former { sessions: 0, surprises: 0, last: now });
            former.sessions = former.sessions.saturating_add(1);
            former.surprises = former.surprises.saturating_add(u16::from(!in_order));
            former.last = now;
            if self.former.len() > limits::SESSIONS_REMEMBERED {
                let oldest = self.former.iter().min_by_key(|(_, former)| former.last).map(|(peer, _)| *peer);
                oldest.and_then(|peer| self.former.remove(&peer));
            }
        }
    }

    fn forget(&mut self, peer: &PeerId, session: Session) -> bool {
        let current = self.known.get(peer).is_some_and(|record| record.session == session);
        if current && self.known.remove(peer).is_some_and(|record| record.under_way) {
            self.under_way -= 1;
        }
        current
    }

    /// A leaf was dialled back.
    pub fn measured(&mut self, now: Time, peer: &PeerId, found: Measurement) {
        let Some(record) = self.known.get_mut(peer).filter(|record| record.under_way) else { return };
        (record.under_way, record.reached) = (false, Some(found.is_ok()));
        if let Ok(finding) = found {
            record.rate_kbit = finding.rate_kbit.or(record.rate_kbit);
            record.loss_ppm = finding.loss_ppm.unwrap_or(record.loss_ppm);
        }
        self.under_way -= 1;
        self.wake(now);
    }

    /// A leaf that would serve is reached at another address than the one that is known: it is looked at there.
    pub fn moved(&mut self, now: Time, peer: &PeerId, address: SocketAddr) {
        let Some(record) = self.known.get_mut(peer).filter(|record| record.address != address) else { return };
        (record.address, record.due) = (address, now);
        self.wake(now);
    }

    /// Times that more were wanted, and no leaf here could serve: counted once in [`limits::INVITATION_AGAIN`].
    pub const fn without_candidate(&self) -> u64 {
        self.nobody
    }

    /// When [`Self::look`] is due.
    pub const fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }

    fn wake(&mut self, at: Time) {
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }

    /// Dials back who is due, tells what is news, and invites. When due, and when demand changes.
    pub fn look(&mut self, env: Environment<'_>, out: &mut Outbox<Output>) {
        let now = env.now;
        self.look_at = None;
        self.former.retain(|_, former| now.since(former.last) < limits::SESSIONS_LIFETIME);
        self.dialled.retain(|_, at| now.since(*at) < limits::DIAL_BACK_PAUSE);
        if self.known.is_empty() {
            return;
        }
        self.wake(now + limits::APPRAISAL_DELAY);
        self.dial(env, out);
        let invited = self.choose(env);
        for (peer, record) in &mut self.known {
            let measured = measured(now, record, self.former.get(peer));
            let has_place = (env.has_place)(peer, record.address);
            let news = Appraisal {
                reached: record.reached,
                measured: Measured { uptime_s: 0, ..measured },
                has_place,
                demand: env.demand,
                invited: invited == Some(*peer),
                invitation: None,
            };
            let is_new = record.told.as_ref().is_none_or(|(at, told)| {
                *told != Appraisal { invited: false, ..news } || now.since(*at) >= limits::APPRAISAL_TOLD
            });
            if is_new || news.invited {
                record.told = Some((now, Appraisal { invited: false, ..news }));
                let invitation = (record.reached == Some(true)).then(|| (env.sign)(peer, measured));
                out.push(Output::Tell(record.session, Box::new(Appraisal { measured, invitation, ..news })));
            }
        }
    }

    fn dial(&mut self, env: Environment<'_>, out: &mut Outbox<Output>) {
        let now = env.now;
        let mut due: Vec<_> = self.known.iter().filter(|(_, record)| !record.under_way && record.due <= now).collect();
        due.sort_unstable_by_key(|(peer, record)| (record.due, **peer));
        let due: Vec<PeerId> = due.into_iter().map(|(peer, _)| *peer).collect();
        for peer in due {
            let Some(record) = self.known.get_mut(&peer) else { continue };
            let strict = env.regime.is_strict(record.address.ip());
            let prefix = network_prefix(record.address, 24, 48);
            if strict && (self.dialled.contains_key(&prefix) || self.dialled.len() >= limits::DIAL_BACK_PREFIXES) {
                record.due = now + limits::APPRAISAL_DELAY;
                continue;
            }
            if self.under_way >= limits::APPRAISALS {
                break;
            }
            if strict {
                self.dialled.insert(prefix, now);
            }
            (record.under_way, record.due) = (true, now + limits::APPRAISAL_INTERVAL);
            self.under_way += 1;
            out.push(Output::DialBack(peer, record.address));
        }
    }

    /// The best of those that could serve, if more are wanted and nobody was invited just now.
    fn choose(&mut self, env: Environment<'_>) -> Option<PeerId> {
        let now = env.now;
        if !env.demand || now < self.invite_at {
            return None;
        }
        let fits = |(peer, record): &(&PeerId, &Record)| {
            let measured = measured(now, record, self.former.get(*peer));
            let strict = env.regime.is_strict(record.address.ip());
            record.reached == Some(true)
                && record.invited_at.is_none_or(|at| now.since(at) >= limits::INVITATION_AGAIN)
                && (env.has_place)(peer, record.address)
                && (!strict || falls_short(&measured, !env.below_floor).is_none())
        };
        let worth = |(peer, record): &(&PeerId, &Record)| {
            let measured = measured(now, record, self.former.get(*peer));
            (score(&measured), measured.uptime_s, **peer)
        };
        let Some(best) = self.known.iter().filter(fits).max_by_key(worth).map(|(peer, _)| *peer) else {
            let asked = |record: &Record| record.invited_at.is_some_and(|at| now.since(at) < limits::INVITATION_AGAIN);
            if now >= self.nobody_at && !self.known.values().any(asked) {
                self.nobody += 1;
                self.nobody_at = now + limits::INVITATION_AGAIN;
            }
            return None;
        };
        self.known.get_mut(&best)?.invited_at = Some(now);
        self.invite_at = now + limits::INVITATION_PAUSE;
        Some(best)
    }
}

fn measured(now: Time, record: &Record, former: Option<&Former>) -> Measured {
    let (sessions, surprises) = former.map_or((0, 0), |former| (former.sessions, former.surprises));
    let orderly = u32::from(sessions - surprises.min(sessions)) + 1;
    let stability = orderly * 1000 / (u32::from(sessions) + 1);
    Measured {
        uptime_s: u32::try_from(now.since(record.since).as_secs()).unwrap_or(u32::MAX),
        bandwidth_kbit: record.rate_kbit.unwrap_or(0),
        loss_ppm: record.loss_ppm,
        stability: u16::try_from(stability).unwrap_or(1000),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay::{
        election::{Finding, Missed},
        identity::Identity,
    };
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use super::*;

    struct Bench {
        core: Appraisals,
        now: Time,
        rng: Pcg64Mcg,
        demand: bool,
        below_floor: bool,
        regime: Regime,
    }

    fn peer(number: u8) -> PeerId {
        Identity::from_seed([number; 32]).peer_id()
    }

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([20 + number, 1, 1, 1], 7780))
    }

    impl Bench {
        fn new(regime: Regime) -> Self {
            let rng = Pcg64Mcg::seed_from_u64(1);
            Self { core: Appraisals::default(), now: Time::ZERO, rng, demand: false, below_floor: false, regime }
        }

        fn willing(&mut self, number: u8) {
            let leaf = (peer(number), address(number));
            self.core.willing(self.now, &mut self.rng, Session::from(number), leaf, true);
        }

        fn look(&mut self) -> Vec<Output> {
            let mut out = Outbox::new();
            let home = Identity::from_seed([200; 32]);
            let sign = |leaf: &PeerId, measured| Invitation::sign(&home, [1; 8], leaf, measured, 5);
            let env = Environment {
                now: self.now,
                regime: self.regime,
                demand: self.demand,
                below_floor: self.below_floor,
                has_place: &|_, _| true,
                sign: &sign,
            };
            self.core.look(env, &mut out);
            out.drain().collect()
        }

        fn pass(&mut self, span: Duration) {
            self.now += span;
        }

        /// Dials back all that are due, whom it finds so fast.
        fn measure_all(&mut self, rate_kbit: impl Fn(u8) -> u32) {
            loop {
                let dialled: Vec<_> = self
                    .look()
                    .into_iter()
                    .filter_map(|output| match output {
                        Output::DialBack(peer, _) => Some(peer),
                        Output::Tell(..) => None,
                    })
                    .collect();
                if dialled.is_empty() {
                    return;
                }
                assert!(dialled.len() <= limits::APPRAISALS);
                for dialled in dialled {
                    let number = (0..200).find(|number| peer(*number) == dialled).unwrap();
                    let finding = Finding { rate_kbit: Some(rate_kbit(number)), loss_ppm: Some(0) };
                    self.core.measured(self.now, &dialled, Ok(finding));
                }
            }
        }

        fn invited(&mut self) -> Vec<Session> {
            let told = self.look().into_iter().filter_map(|output| match output {
                Output::Tell(session, told) if told.invited => Some(session),
                _ => None,
            });
            told.collect()
        }
    }

    #[test]
    fn the_best_is_invited_first_and_only_while_more_are_wanted() {
        let mut bench = Bench::new(Regime::Public);
        (1..=4).for_each(|number| bench.willing(number));
        bench.pass(limits::APPRAISAL_DELAY);
        bench.measure_all(|number| 10_000 * u32::from(number));
        bench.pass(limits::ELECTION_UPTIME);
        assert!(bench.invited().is_empty());
        bench.demand = true;
        for expected in [4, 3, 2, 1] {
            assert_eq!(bench.invited(), [expected]);
            assert!(bench.invited().is_empty(), "not two at once");
            bench.pass(limits::INVITATION_PAUSE);
        }
        assert!(bench.invited().is_empty());
        bench.pass(limits::INVITATION_AGAIN);
        assert_eq!(bench.invited(), [4]);
    }

    #[test]
    fn who_was_not_reached_or_is_slow_or_new_is_not_invited() {
        let mut bench = Bench::new(Regime::Public);
        (1..=2).for_each(|number| bench.willing(number));
        bench.demand = true;
        bench.pass(limits::APPRAISAL_DELAY);
        let mut out = bench.look();
        assert_eq!(out.iter().filter(|output| matches!(output, Output::DialBack(..))).count(), 2);
        bench.core.measured(bench.now, &peer(1), Err(Missed::Silent));
        bench.core.measured(bench.now, &peer(2), Ok(Finding { rate_kbit: Some(9_000), loss_ppm: None }));
        bench.pass(limits::ELECTION_UPTIME);
        out = bench.look();
        let told = |session| {
            out.iter().find_map(|output| match output {
                Output::Tell(told, appraisal) if *told == session => Some(**appraisal),
                _ => None,
            })
        };
        let (unreached, slow) = (told(1).unwrap(), told(2).unwrap());
        assert_eq!((unreached.reached, unreached.invitation), (Some(false), None));
        assert!(slow.invitation.is_some_and(|word| word.measured.bandwidth_kbit == 9_000) && !slow.invited);
        for number in [1, 2] {
            bench.core.measured(bench.now, &peer(number), Err(Missed::Silent));
        }
        // One that is fast, but was not there for long.
        bench.willing(3);
        bench.pass(limits::APPRAISAL_DELAY);
        bench.measure_all(|_| 50_000);
        assert!(bench.invited().is_empty());
        bench.below_floor = true;
        assert_eq!(bench.invited(), [3], "there are too few in any case");
    }

    #[test]
    fn how_sessions_ended_is_remembered_and_one_prefix_is_dialled_rarely() {
        let mut bench = Bench::new(Regime::Public);
        for _ in 0..3 {
            bench.willing(1);
            bench.core.left(bench.now, &peer(1), 1, false);
        }
        bench.willing(1);
        bench.core.left(bench.now, &peer(1), 9, true);
        bench.pass(limits::APPRAISAL_DELAY);
        let mut dialled = 0;
        for _ in 0..59 {
            dialled += bench.look().iter().filter(|output| matches!(output, Output::DialBack(..))).count();
            if let Some((key, true)) = bench.core.known.iter().next().map(|(key, record)| (*key, record.under_way)) {
                bench.core.measured(bench.now, &key, Ok(Finding::default()));
                // It comes back under another key of the same place.
                bench.core.left(bench.now, &key, 1, true);
                let leaf = (peer(100 + dialled as u8), address(1));
                bench.core.willing(bench.now, &mut bench.rng, 1, leaf, true);
            }
            bench.pass(Duration::from_secs(10));
        }
        assert_eq!(dialled, 1, "once in ten minutes");
        let former = bench.core.former[&peer(1)];
        assert_eq!((former.sessions, former.surprises), (4, 3));
        let private = measured(
            bench.now,
            bench.core.known.values().next().unwrap(),
            Some(&Former { sessions: 3, surprises: 3, last: bench.now }),
        );
        assert_eq!(private.stability, 250);
    }

    #[test]
    fn what_is_known_is_told_again_before_it_is_too_old() {
        let mut bench = Bench::new(Regime::Named);
        bench.willing(1);
        bench.pass(limits::APPRAISAL_DELAY);
        bench.measure_all(|_| 10_000);
        let tells = |out: Vec<Output>| out.iter().filter(|output| matches!(output, Output::Tell(..))).count();
        assert_eq!(tells(bench.look()), 0);
        bench.pass(limits::APPRAISAL_TOLD);
        assert_eq!(tells(bench.look()), 1);
        bench.demand = true;
        assert_eq!(tells(bench.look()), 1);
    }
}
