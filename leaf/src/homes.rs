//! Core: which ultrapeers this leaf is attached to.
//!
//! What it decides: whom to dial, when, and how many homes to keep. Invariants:
//! - the leaf keeps `min(3, U)` homes, U being the ultrapeers that it knows; any node that it is told to
//!   join is enough to learn all others;
//! - join targets are tried for ever, with growing pauses, while the leaf has no home;
//! - pauses are jittered, so that leaves that lost the same home do not return in step.
//!
//! Flow: candidates come from join targets, from earlier sessions, from refusals and from homes; a dial
//! ends in a home, a refusal that names others, or a pause.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use overlay::{
    id::PeerId,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::{
        descriptor::{Descriptor, SignedDescriptor, network_tag},
        leaf::Members,
    },
};
use rand::RngExt;

/// What can happen to the homes.
#[derive(Debug)]
pub enum Input {
    /// Addresses that the leaf is told to join, as they resolve now. Replaces the earlier ones.
    Targets(Vec<SocketAddr>),
    /// Descriptors from earlier sessions, a refusal or a good-bye.
    Alternatives(Vec<SignedDescriptor>),
    /// A home tells which ultrapeers there are.
    Members {
        /// The home.
        from: PeerId,
        /// What it tells.
        members: Members,
    },
    /// A dial ended in a welcome.
    Attached {
        /// The ultrapeer.
        peer: PeerId,
        /// Where it was dialled.
        address: SocketAddr,
        /// Its descriptor, if it knows its own address already.
        descriptor: Option<SignedDescriptor>,
    },
    /// A dial ended otherwise. A refusal's alternatives come before, as an input of their own.
    DialFailed(SocketAddr),
    /// A home is gone.
    Lost(PeerId),
    /// The leaf says good-bye: nobody is dialled from now on.
    Leave,
}

/// What the driver must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Dial an ultrapeer; answer with `Attached` or `DialFailed`.
    Dial {
        /// Where.
        address: SocketAddr,
        /// Who must be there; `None` for a join target, where anyone will do.
        peer: Option<PeerId>,
    },
    /// The set of homes changed.
    Changed,
}

/// The homes. See the module text.
#[derive(Debug)]
pub struct Homes {
    me: PeerId,
    network: [u8; 8],
    targets: BTreeMap<SocketAddr, Attempts>,
    known: BTreeMap<PeerId, Known>,
    homes: BTreeMap<PeerId, Home>,
    leaving: bool,
}

#[derive(Debug)]
struct Known {
    signed: SignedDescriptor,
    descriptor: Descriptor,
    attempts: Attempts,
}

#[derive(Debug, Clone, Copy)]
struct Attempts {
    /// The address that is dialled now. It is kept apart from the known one, which may change meanwhile.
    dialling: Option<SocketAddr>,
    at: Time,
    pause: Duration,
}

#[derive(Debug)]
struct Home {
    address: SocketAddr,
    since: Time,
    view: BTreeSet<PeerId>,
    view_number: Option<u64>,
    total: u32,
}

impl Attempts {
    fn new(now: Time) -> Self {
        Self { dialling: None, at: now, pause: limits::REDIAL_MIN }
    }

    fn failed(&mut self, cx: &mut Context<'_>) {
        self.dialling = None;
        self.at = cx.now + self.pause.mul_f64(cx.rng.random_range(0.75..1.25));
        self.pause = (self.pause * 2).min(limits::REDIAL_MAX);
    }

    /// A moment later, another for each leaf: those that lost the same home do not return in step.
    fn postpone(&mut self, cx: &mut Context<'_>) {
        self.at = self.at.max(cx.now + limits::REDIAL_MIN.mul_f64(cx.rng.random_range(0.0..2.0)));
    }

    fn is_due(&self, now: Time) -> bool {
        self.dialling.is_none() && self.at <= now
    }
}

impl Homes {
    /// No home yet, in the network of that name.
    pub fn new(me: PeerId, network: &str) -> Self {
        Self {
            me,
            network: network_tag(network),
            targets: BTreeMap::new(),
            known: BTreeMap::new(),
            homes: BTreeMap::new(),
            leaving: false,
        }
    }

    /// The homes by key: where they were dialled, and since when they are homes.
    pub fn iter(&self) -> impl Iterator<Item = (PeerId, SocketAddr, Time)> {
        self.homes.iter().map(|(peer, home)| (*peer, home.address, home.since))
    }

    /// How many homes there are.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// True if the leaf is not in the network.
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// Ultrapeers in the network, as the homes tell: the largest of their counts.
    pub fn ultrapeers(&self) -> u32 {
        self.homes.values().map(|home| home.total).max().unwrap_or(0)
    }

    /// All ultrapeers that are known: descriptor, and whether it is a home.
    pub fn known(&self) -> impl Iterator<Item = (&Descriptor, bool)> {
        self.known.values().map(|known| (&known.descriptor, self.homes.contains_key(&known.descriptor.peer)))
    }

    /// Descriptors to keep for the next session, and to name to those who ask: homes first.
    pub fn remember(&self) -> Vec<SignedDescriptor> {
        let (homes, others): (Vec<_>, Vec<_>) = self.known.iter().partition(|(peer, _)| self.homes.contains_key(*peer));
        let all = homes.into_iter().chain(others).map(|(_, known)| known.signed.clone());
        all.take(limits::REMEMBERED_ULTRAPEERS).collect()
    }

    /// True if the homes do not agree on who the ultrapeers are: more than 2 % of the larger view is
    /// missing from another.
    pub fn views_differ(&self) -> bool {
        let homes: Vec<_> = self.homes.values().filter(|home| home.view_number.is_some()).collect();
        homes.iter().enumerate().any(|(index, a)| {
            homes[index + 1..].iter().any(|b| {
                a.view_number != b.view_number && {
                    let differing = a.view.symmetric_difference(&b.view).count();
                    differing * 50 > a.view.len().max(b.view.len())
                }
            })
        })
    }

    /// How many homes to keep.
    fn wanted(&self) -> usize {
        if self.leaving {
            return 0;
        }
        let known = self.known.len().max(self.homes.len()).max(1);
        limits::HOMES.min(known)
    }

    fn learn(&mut self, now: Time, signed: SignedDescriptor) -> Option<PeerId> {
        let descriptor = signed.open().ok()?;
        if descriptor.network != self.network || descriptor.peer == self.me {
            return None;
        }
        let peer = descriptor.peer;
        if descriptor.lifetime_s == 0 {
            self.known.remove(&peer);
            return None;
        }
        let full = self.known.len() >= limits::MEMBERS;
        match self.known.get_mut(&peer) {
            Some(known) if known.descriptor.sequence >= descriptor.sequence => {}
            Some(known) => {
                // It moved: whatever became of the old address says nothing of the new one.
                if known.descriptor.address != descriptor.address {
                    known.attempts = Attempts::new(now);
                }
                (known.signed, known.descriptor) = (signed, descriptor);
            }
            None if full => return None,
            None => {
                self.known.insert(peer, Known { signed, descriptor, attempts: Attempts::new(now) });
            }
        }
        Some(peer)
    }

    fn members(&mut self, now: Time, from: PeerId, members: Members) {
        let (total, view) = (members.total, members.view);
        for peer in &*members.gone {
            if !self.homes.contains_key(peer) {
                self.known.remove(peer);
            }
            if let Some(home) = self.homes.get_mut(&from) {
                home.view.remove(peer);
            }
        }
        for signed in members.descriptors {
            if let Some(peer) = self.learn(now, signed)
                && let Some(home) = self.homes.get_mut(&from)
            {
                home.view.insert(peer);
            }
        }
        if let Some(home) = self.homes.get_mut(&from) {
            (home.total, home.view_number) = (total, Some(view));
        }
    }

    fn attached(&mut self, now: Time, peer: PeerId, address: SocketAddr, descriptor: Option<SignedDescriptor>) {
        if let Some(target) = self.targets.get_mut(&address) {
            *target = Attempts::new(now);
        }
        if let Some(signed) = descriptor {
            self.learn(now, signed);
        }
        if let Some(known) = self.known.get_mut(&peer) {
            known.attempts = Attempts::new(now);
        }
        let home = Home { address, since: now, view: BTreeSet::new(), view_number: None, total: 1 };
        self.homes.insert(peer, home);
    }

    fn dial_failed(&mut self, cx: &mut Context<'_>, address: SocketAddr) {
        if let Some(target) = self.targets.get_mut(&address) {
            target.failed(cx);
        }
        for known in self.known.values_mut() {
            if known.attempts.dialling == Some(address) {
                known.attempts.failed(cx);
            }
        }
    }

    /// Dials as many as are needed and due: known ultrapeers at random, and join targets while homeless.
    fn seek(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        if self.leaving {
            return;
        }
        let dialling = self.known.values().filter(|known| known.attempts.dialling.is_some()).count()
            + self.targets.values().filter(|target| target.dialling.is_some()).count();
        let mut room = self.wanted().saturating_sub(self.homes.len() + dialling);
        let mut under_way: BTreeSet<_> = self.targets.values().filter_map(|target| target.dialling).collect();
        let mut due: Vec<_> = self
            .known
            .iter()
            .filter(|(peer, known)| !self.homes.contains_key(*peer) && known.attempts.is_due(cx.now))
            .map(|(peer, known)| (*peer, known.descriptor.address))
            .filter(|(_, address)| !under_way.contains(address))
            .collect();
        while room > 0 && !due.is_empty() {
            let (peer, address) = due.swap_remove(cx.rng.random_range(0..due.len()));
            if let Some(known) = self.known.get_mut(&peer) {
                known.attempts.dialling = Some(address);
            }
            out.push(Output::Dial { address, peer: Some(peer) });
            room -= 1;
        }
        if !self.homes.is_empty() {
            return;
        }
        // A target where a known ultrapeer is dialled already would be dialled twice: the second connection would
        // only replace the first.
        under_way.extend(self.known.values().filter_map(|known| known.attempts.dialling));
        for (address, target) in &mut self.targets {
            if target.is_due(cx.now) && !under_way.contains(address) {
                target.dialling = Some(*address);
                out.push(Output::Dial { address: *address, peer: None });
            }
        }
    }
}

impl Machine for Homes {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Targets(addresses) => {
                self.targets.retain(|address, _| addresses.contains(address));
                for address in addresses.into_iter().take(limits::JOIN_TARGETS) {
                    self.targets.entry(address).or_insert_with(|| Attempts::new(cx.now));
                }
            }
            Input::Alternatives(descriptors) => {
                for signed in descriptors {
                    self.learn(cx.now, signed);
                }
            }
            Input::Members { from, members } => self.members(cx.now, from, members),
            Input::Attached { peer, address, descriptor } => {
                self.attached(cx.now, peer, address, descriptor);
                out.push(Output::Changed);
            }
            Input::DialFailed(address) => self.dial_failed(cx, address),
            Input::Lost(peer) => {
                if self.homes.remove(&peer).is_some() {
                    out.push(Output::Changed);
                }
                // A home that was lost is tried again after a moment, as it may only have restarted, unless the
                // others have found it gone.
                let told = self.homes.values().any(|home| home.view_number.is_some());
                if told && !self.homes.values().any(|home| home.view.contains(&peer)) {
                    self.known.remove(&peer);
                } else if let Some(known) = self.known.get_mut(&peer) {
                    known.attempts.failed(cx);
                }
                if self.homes.is_empty() {
                    self.targets.values_mut().for_each(|target| target.postpone(cx));
                }
            }
            Input::Leave => self.leaving = true,
        }
        self.seek(cx, out);
    }

    fn next_deadline(&self) -> Option<Time> {
        if self.homes.len() >= self.wanted() {
            return None;
        }
        let known = self.known.iter().filter(|(peer, _)| !self.homes.contains_key(*peer));
        let targets = self.targets.values().filter(|_| self.homes.is_empty());
        let attempts = known.map(|(_, known)| &known.attempts).chain(targets);
        attempts.filter(|attempts| attempts.dialling.is_none()).map(|attempts| attempts.at).min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        self.seek(cx, out);
        // Whatever is due and was not dialled, for want of room or because somebody is dialled there, is looked at
        // again after a moment.
        let later = cx.now + limits::REDIAL_MIN;
        let known = self.known.values_mut().map(|known| &mut known.attempts);
        for attempts in known.chain(self.targets.values_mut()).filter(|attempts| attempts.is_due(cx.now)) {
            attempts.at = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use overlay::{
        identity::Identity,
        wire::{bounded::List, descriptor::ShardPrefix},
    };
    use rand_pcg::Pcg32;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 7780))
    }

    fn ultrapeer(seed: u8) -> (PeerId, SignedDescriptor) {
        let identity = Identity::from_seed([seed; 32]);
        let descriptor = Descriptor {
            peer: identity.peer_id(),
            network: network_tag("test"),
            address: address(seed),
            shard: ShardPrefix::ALL,
            capacity: 1,
            sequence: 1,
            lifetime_s: 7_200,
        };
        (identity.peer_id(), descriptor.sign(&identity))
    }

    struct Bed {
        homes: Homes,
        rng: Pcg32,
        now: Time,
    }

    impl Bed {
        fn new() -> Self {
            Self { homes: Homes::new(PeerId([0; 32]), "test"), rng: Pcg32::new(3, 3), now: Time(1) }
        }

        fn input(&mut self, input: Input) -> Vec<Output> {
            let mut out = Outbox::new();
            self.homes.handle(&mut Context::new(self.now, &mut self.rng), input, &mut out);
            out.drain().collect()
        }

        fn next(&mut self) -> Vec<Output> {
            self.now = self.homes.next_deadline().expect("something is due");
            let mut out = Outbox::new();
            self.homes.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut out);
            assert!(self.homes.next_deadline().is_none_or(|next| next > self.now), "busy loop");
            out.drain().collect()
        }

        fn attach(&mut self, seed: u8, members: &[u8]) -> Vec<Output> {
            let (peer, signed) = ultrapeer(seed);
            self.input(Input::Attached { peer, address: address(seed), descriptor: Some(signed) });
            let descriptors = List::new(members.iter().map(|seed| ultrapeer(*seed).1));
            let view = members.iter().map(|seed| u64::from(*seed)).sum();
            let members = Members { descriptors, gone: List::default(), total: members.len() as u32, view };
            self.input(Input::Members { from: peer, members })
        }
    }

    #[test]
    fn who_leaves_dials_nobody() {
        let mut bed = Bed::new();
        bed.input(Input::Targets(vec![address(1)]));
        bed.attach(1, &[1, 2, 3]);
        assert_eq!(bed.input(Input::Leave), []);
        assert_eq!(bed.input(Input::Lost(ultrapeer(1).0)), [Output::Changed]);
        assert_eq!(bed.input(Input::Targets(vec![address(1), address(9)])), []);
        assert_eq!(bed.homes.next_deadline(), None);
    }

    #[test]
    fn one_target_leads_to_three_homes() {
        let mut bed = Bed::new();
        assert_eq!(bed.input(Input::Targets(vec![address(1)])), [Output::Dial { address: address(1), peer: None }]);
        let dials = bed.attach(1, &[1, 2, 3, 4, 5]);
        assert_eq!(dials.len(), 2, "{dials:?}");
        for dial in dials {
            let Output::Dial { address: SocketAddr::V4(at), peer: Some(_) } = dial else { panic!("a dial") };
            bed.attach(at.ip().octets()[3], &[1, 2, 3, 4, 5]);
        }
        assert_eq!((bed.homes.len(), bed.homes.next_deadline()), (3, None));
        assert!(!bed.homes.views_differ());
    }

    #[test]
    fn targets_are_tried_for_ever_with_bounded_pauses() {
        let mut bed = Bed::new();
        bed.input(Input::Targets(vec![address(1)]));
        for _ in 0..50 {
            let before = bed.now;
            bed.input(Input::DialFailed(address(1)));
            assert_eq!(bed.next(), [Output::Dial { address: address(1), peer: None }]);
            assert!(bed.now.since(before) <= limits::REDIAL_MAX.mul_f64(1.25));
        }
    }

    #[test]
    fn leaves_that_lose_their_only_home_together_return_one_after_the_other() {
        let mut returns = BTreeSet::new();
        for seed in 0..100 {
            let mut bed = Bed { rng: Pcg32::new(seed, 3), ..Bed::new() };
            bed.input(Input::Targets(vec![address(1)]));
            bed.attach(1, &[1]);
            assert_eq!(bed.input(Input::Lost(ultrapeer(1).0)), [Output::Changed], "nobody dials at once");
            let before = bed.now;
            assert!(!bed.next().is_empty());
            returns.insert(bed.now.since(before).as_millis());
        }
        assert!(returns.len() > 50, "{returns:?}");
        assert!(returns.iter().all(|pause| *pause < limits::REDIAL_MIN.as_millis() * 2), "{returns:?}");
    }

    #[test]
    fn an_address_is_dialled_once_whether_it_is_a_target_or_that_of_a_known_ultrapeer() {
        let mut bed = Bed::new();
        bed.input(Input::Targets(vec![address(1)]));
        bed.attach(1, &[1]);
        bed.input(Input::Lost(ultrapeer(1).0));
        let mut under_way = 0;
        for _ in 0..20 {
            under_way += bed.next().len();
            assert!(under_way <= 1);
            if under_way == 1 && bed.homes.next_deadline().is_none() {
                break;
            }
        }
        assert_eq!(under_way, 1);
        // Either name of it is free again once the dial has failed.
        bed.input(Input::DialFailed(address(1)));
        assert!((0..20).any(|_| !bed.next().is_empty()));
    }

    #[test]
    fn a_refusal_that_names_others_leads_to_them() {
        let mut bed = Bed::new();
        bed.input(Input::Targets(vec![address(9)]));
        let dials = bed.input(Input::Alternatives(vec![ultrapeer(1).1]));
        assert_eq!(dials, [], "one dial is under way, one home is wanted");
        let dials = bed.input(Input::DialFailed(address(9)));
        assert_eq!(dials, [Output::Dial { address: address(1), peer: Some(ultrapeer(1).0) }]);
    }

    #[test]
    fn a_lost_home_is_replaced() {
        let mut bed = Bed::new();
        for seed in 1..=3 {
            bed.attach(seed, &[1, 2, 3, 4]);
        }
        bed.input(Input::DialFailed(address(4)));
        assert_eq!(bed.homes.next_deadline(), None);
        assert_eq!(bed.input(Input::Lost(ultrapeer(2).0)), [Output::Changed]);
        let mut dialled = Vec::new();
        for _ in 0..20 {
            if dialled.is_empty() {
                dialled = bed.next();
            }
        }
        assert!(matches!(&dialled[..], [Output::Dial { peer: Some(_), .. }]), "{dialled:?}");
    }

    #[test]
    fn an_ultrapeer_that_returns_elsewhere_is_dialled_there_although_the_old_dial_is_under_way() {
        let mut bed = Bed::new();
        for seed in 1..=3 {
            bed.attach(seed, &[1, 2, 3]);
        }
        bed.input(Input::Lost(ultrapeer(2).0));
        let old = Output::Dial { address: address(2), peer: Some(ultrapeer(2).0) };
        assert_eq!(bed.next(), [old]);
        let identity = Identity::from_seed([2; 32]);
        let mut descriptor = ultrapeer(2).1.open().expect("it is sound");
        (descriptor.address, descriptor.sequence) = (address(9), 2);
        let descriptors = List::new([descriptor.sign(&identity)]);
        let members = Members { descriptors, gone: List::default(), total: 3, view: 6 };
        let new = Output::Dial { address: address(9), peer: Some(ultrapeer(2).0) };
        assert_eq!(bed.input(Input::Members { from: ultrapeer(1).0, members }), [new]);
        assert_eq!(bed.input(Input::DialFailed(address(2))), []);
    }

    #[test]
    fn a_lost_home_that_the_others_found_gone_is_not_dialled() {
        let mut bed = Bed::new();
        for seed in 1..=3 {
            bed.attach(seed, &[1, 2, 3]);
        }
        for seed in [1, 3] {
            let gone = List::new([ultrapeer(2).0]);
            let members = Members { descriptors: List::default(), gone, total: 2, view: 4 };
            bed.input(Input::Members { from: ultrapeer(seed).0, members });
        }
        assert_eq!(bed.input(Input::Lost(ultrapeer(2).0)), [Output::Changed]);
        assert_eq!(bed.homes.next_deadline(), None, "two homes of two ultrapeers");
    }

    #[test]
    fn homes_that_tell_of_different_ultrapeers_are_noticed() {
        let mut bed = Bed::new();
        bed.attach(1, &[1, 2]);
        bed.attach(2, &[1, 2, 3]);
        assert!(bed.homes.views_differ());
    }
}
