//! Core: who the ultrapeers are. Every ultrapeer knows every other by its signed descriptor.
//!
//! What it decides: which descriptors count, whom to dial, when a member is gone, and what to tell others.
//!
//! Invariants:
//! - a member is in the view only with a descriptor whose signature was checked, of this network, not
//!   expired, and the newest heard of (highest sequence);
//! - a member that was found gone returns only with a newer descriptor or by a link of its own, so stale
//!   gossip resurrects nobody;
//! - every pair of members has one link: the lower key dials, the higher only after some patience.
//!
//! Flow: a link comes up, both sides send all they know; whatever is new is passed on to all other links
//! once. A lost link makes its member suspect: it is dialled again, and is gone after [`limits::SUSPICION`].
//! Members that are gone are dialled now and then, which is how a partition heals.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use rand::{Rng, RngExt};

use crate::{
    id::PeerId,
    identity::Identity,
    limits,
    machine::{Context, Machine, Outbox},
    time::Time,
    wire::{
        bounded::List,
        descriptor::{Descriptor, ShardPrefix, SignedDescriptor, network_tag},
        leaf::Members,
    },
};

/// What can happen to the membership.
#[derive(Debug)]
pub enum Input {
    /// This node is reached at this address: as set by its operator, as bound, or as others observe it.
    Address(SocketAddr),
    /// This node serves as an ultrapeer from now on.
    Join,
    /// This node stops serving; others are told.
    Withdraw,
    /// Descriptors came from a linked member, a welcome, or the list of earlier sessions (`from` is `None`).
    Heard {
        /// The link they came by.
        from: Option<PeerId>,
        /// What came.
        descriptors: Vec<SignedDescriptor>,
    },
    /// A link to a member is up.
    LinkUp(PeerId),
    /// The link to a member is gone.
    LinkDown {
        /// The member.
        peer: PeerId,
        /// True if it said good-bye.
        in_order: bool,
    },
    /// A dial that this core asked for failed.
    DialFailed(PeerId),
}

/// What the driver must do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Dial a member; answer with `LinkUp` or `DialFailed`.
    Dial {
        /// Whom.
        peer: PeerId,
        /// Where.
        address: SocketAddr,
    },
    /// Send descriptors over a link.
    Send {
        /// The link.
        to: PeerId,
        /// What to send.
        members: Members,
    },
    /// A member joined the view, or its descriptor changed.
    Joined(PeerId),
    /// A member left the view.
    Left(PeerId),
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Members with a link, this node included if it serves.
    pub alive: usize,
    /// Members whose link was lost.
    pub suspect: usize,
    /// Descriptors that were refused: bad signature, malformed, or of another network.
    pub refused: u64,
}

/// The membership. See the module text.
#[derive(Debug)]
pub struct Membership {
    identity: Arc<Identity>,
    network: [u8; 8],
    capacity: u32,
    serving: bool,
    address: Option<SocketAddr>,
    sequence: u64,
    own: Option<SignedDescriptor>,
    refresh_at: Option<Time>,
    members: BTreeMap<PeerId, Member>,
    /// Links that are up, also to nodes that do not serve (yet).
    links: BTreeSet<PeerId>,
    gone: BTreeMap<PeerId, Gone>,
    gone_dial_at: Option<Time>,
    view: u64,
    refused: u64,
}

#[derive(Debug)]
struct Member {
    signed: SignedDescriptor,
    descriptor: Descriptor,
    expires: Time,
    link: Link,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    /// Not linked since `since`; the next dial is due at `dial_at` (`None` while one is under way).
    Down {
        since: Time,
        suspect: bool,
        dial_at: Option<Time>,
        pause: Duration,
    },
}

/// A member that was found gone: kept so that old news of it is recognised and a return is noticed.
#[derive(Debug)]
struct Gone {
    sequence: u64,
    address: SocketAddr,
}

impl Membership {
    /// An empty view of the network of that name.
    ///
    /// `first_sequence` must be larger than any that this identity used before: seconds since 1970 do.
    pub fn new(identity: Arc<Identity>, network: &str, capacity: u32, first_sequence: u64) -> Self {
        Self {
            identity,
            network: network_tag(network),
            capacity,
            serving: false,
            address: None,
            sequence: first_sequence,
            own: None,
            refresh_at: None,
            members: BTreeMap::new(),
            links: BTreeSet::new(),
            gone: BTreeMap::new(),
            gone_dial_at: None,
            view: 0,
            refused: 0,
        }
    }

    /// True if this node serves as an ultrapeer.
    pub fn is_serving(&self) -> bool {
        self.serving
    }

    /// This node's own descriptor, once it serves and knows its address.
    pub fn own(&self) -> Option<&SignedDescriptor> {
        self.own.as_ref()
    }

    /// Ultrapeers in the view, this node included if it serves.
    pub fn total(&self) -> u32 {
        self.members.len() as u32 + u32::from(self.serving)
    }

    /// The view in one number: equal views have equal numbers.
    pub fn view(&self) -> u64 {
        self.view
    }

    /// True if that ultrapeer is in the view.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.members.contains_key(peer)
    }

    /// True if a link leads to that node.
    pub fn is_linked(&self, peer: &PeerId) -> bool {
        self.links.contains(peer)
    }

    /// All members other than this node, by key: descriptor, and whether a link to it is up.
    pub fn iter(&self) -> impl Iterator<Item = (&Descriptor, bool)> {
        self.members.values().map(|member| (&member.descriptor, member.link == Link::Up))
    }

    /// Up to `count` members to name as alternatives, linked ones only, chosen at random.
    pub fn alternatives(&self, count: usize, rng: &mut dyn Rng) -> Vec<SignedDescriptor> {
        let mut linked: Vec<_> = self.members.values().filter(|member| member.link == Link::Up).collect();
        let count = count.min(linked.len());
        for place in 0..count {
            let pick = rng.random_range(place..linked.len());
            linked.swap(place, pick);
        }
        linked.truncate(count);
        linked.into_iter().map(|member| member.signed.clone()).collect()
    }

    /// The whole view as frames for a newcomer, own descriptor first.
    pub fn snapshot(&self) -> Vec<Members> {
        let all: Vec<_> = self.own.iter().chain(self.members.values().map(|member| &member.signed)).collect();
        let mut frames: Vec<_> = all
            .chunks(limits::MEMBERS_PER_FRAME)
            .map(|part| self.frame(part.iter().map(|signed| (*signed).clone()), []))
            .collect();
        if frames.is_empty() {
            frames.push(self.frame([], []));
        }
        frames
    }

    /// A frame of news under the current view.
    pub fn frame(
        &self,
        descriptors: impl IntoIterator<Item = SignedDescriptor>,
        gone: impl IntoIterator<Item = PeerId>,
    ) -> Members {
        Members { descriptors: List::new(descriptors), gone: List::new(gone), total: self.total(), view: self.view }
    }

    /// What a member says of itself.
    pub fn get(&self, peer: &PeerId) -> Option<&Descriptor> {
        self.members.get(peer).map(|member| &member.descriptor)
    }

    /// The signed descriptor of a member.
    pub fn descriptor_of(&self, peer: &PeerId) -> Option<&SignedDescriptor> {
        self.members.get(peer).map(|member| &member.signed)
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> Stats {
        let alive = self.members.values().filter(|member| member.link == Link::Up).count();
        Stats { alive: alive + usize::from(self.serving), suspect: self.members.len() - alive, refused: self.refused }
    }

    fn renew_own(&mut self, now: Time, out: &mut Outbox<Output>) {
        let (true, Some(address)) = (self.serving, self.address) else { return };
        self.sequence += 1;
        let descriptor = self.describe(address, limits::DESCRIPTOR_LIFETIME_S);
        let signed = descriptor.sign(&self.identity);
        self.own = Some(signed.clone());
        self.refresh_at = Some(now + limits::DESCRIPTOR_REFRESH);
        self.pass_on(&signed, None, out);
    }

    fn describe(&self, address: SocketAddr, lifetime_s: u32) -> Descriptor {
        Descriptor {
            peer: self.identity.peer_id(),
            network: self.network,
            address,
            shard: ShardPrefix::ALL,
            capacity: self.capacity,
            sequence: self.sequence,
            lifetime_s,
        }
    }

    fn pass_on(&self, signed: &SignedDescriptor, except: Option<PeerId>, out: &mut Outbox<Output>) {
        for peer in self.links.iter().filter(|peer| Some(**peer) != except) {
            out.push(Output::Send { to: *peer, members: self.frame([signed.clone()], []) });
        }
    }

    fn hear(&mut self, cx: &mut Context<'_>, from: Option<PeerId>, signed: SignedDescriptor, out: &mut Outbox<Output>) {
        let descriptor = match signed.open() {
            Ok(descriptor) if descriptor.network == self.network => descriptor,
            _ => {
                self.refused += 1;
                return;
            }
        };
        let peer = descriptor.peer;
        if peer == self.identity.peer_id() {
            // News of an earlier life of this key: outbid it, so that ours counts.
            if descriptor.sequence > self.sequence {
                self.sequence = descriptor.sequence;
                self.renew_own(cx.now, out);
            }
            return;
        }
        let known = self.members.get(&peer).map(|member| member.descriptor.sequence);
        let past = self.gone.get(&peer).map(|gone| gone.sequence);
        // Straight from the peer itself even an old descriptor proves that it lives.
        let by_itself = from == Some(peer);
        if known.is_some_and(|known| descriptor.sequence <= known)
            || past.is_some_and(|past| descriptor.sequence <= past && !by_itself)
        {
            return;
        }
        if descriptor.lifetime_s == 0 {
            self.remove(cx.now, peer, descriptor.sequence, descriptor.address, out);
            self.pass_on(&signed, from, out);
            return;
        }
        if known.is_none() && self.members.len() >= limits::MEMBERS {
            self.refused += 1;
            return;
        }
        self.gone.remove(&peer);
        let expires = cx.now + descriptor.lifetime();
        let link = self.members.get(&peer).map(|member| member.link);
        if link.is_none() {
            self.view ^= view_bits(&peer);
        }
        let link = link.unwrap_or_else(|| self.first_link(cx.now, &peer));
        self.members.insert(peer, Member { signed: signed.clone(), descriptor, expires, link });
        self.pass_on(&signed, from, out);
        out.push(Output::Joined(peer));
    }

    fn first_link(&self, now: Time, peer: &PeerId) -> Link {
        if self.links.contains(peer) {
            return Link::Up;
        }
        let courtesy = if self.identity.peer_id() < *peer { Duration::ZERO } else { limits::DIAL_COURTESY };
        Link::Down { since: now, suspect: false, dial_at: Some(now + courtesy), pause: limits::REDIAL_MIN }
    }

    fn remove(&mut self, now: Time, peer: PeerId, sequence: u64, address: SocketAddr, out: &mut Outbox<Output>) {
        if self.members.remove(&peer).is_some() {
            self.view ^= view_bits(&peer);
            out.push(Output::Left(peer));
        }
        self.gone.insert(peer, Gone { sequence, address });
        self.gone_dial_at.get_or_insert(now + limits::GONE_REDIAL);
        if self.gone.len() > limits::GONE_MEMBERS {
            let oldest = self.gone.iter().min_by_key(|(_, gone)| gone.sequence).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.gone.remove(&peer));
        }
    }

    fn link_up(&mut self, peer: PeerId, out: &mut Outbox<Output>) {
        self.links.insert(peer);
        if let Some(member) = self.members.get_mut(&peer) {
            member.link = Link::Up;
        }
        for members in self.snapshot() {
            out.push(Output::Send { to: peer, members });
        }
    }

    fn link_down(&mut self, now: Time, peer: PeerId, in_order: bool, out: &mut Outbox<Output>) {
        self.links.remove(&peer);
        let Some(member) = self.members.get_mut(&peer) else { return };
        if in_order {
            let (sequence, address) = (member.descriptor.sequence, member.descriptor.address);
            self.remove(now, peer, sequence, address, out);
        } else {
            member.link = Link::Down { since: now, suspect: true, dial_at: Some(now), pause: limits::REDIAL_MIN };
        }
    }

    fn dial_failed(&mut self, cx: &mut Context<'_>, peer: PeerId) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        if let Link::Down { dial_at, pause, .. } = &mut member.link {
            let jitter = cx.rng.random_range(0.75..1.25);
            *dial_at = Some(cx.now + pause.mul_f64(jitter));
            *pause = (*pause * 2).min(limits::REDIAL_MAX);
        }
    }

    fn withdraw(&mut self, out: &mut Outbox<Output>) {
        if !self.serving {
            return;
        }
        self.serving = false;
        self.view ^= view_bits(&self.identity.peer_id());
        self.refresh_at = None;
        self.own = None;
        if let Some(address) = self.address {
            self.sequence += 1;
            let farewell = self.describe(address, 0).sign(&self.identity);
            self.pass_on(&farewell, None, out);
        }
    }

    /// When a suspect counts as gone: at once if it never had a link and cannot be reached for as long.
    fn gone_at(member: &Member) -> Option<Time> {
        match member.link {
            Link::Down { since, suspect: true, .. } => Some(since + limits::SUSPICION),
            // Never linked: give it the whole handshake before believing that it is not there.
            Link::Down { since, suspect: false, .. } => Some(since + limits::HANDSHAKE_TIMEOUT + limits::SUSPICION),
            Link::Up => None,
        }
    }
}

/// A member's part in [`Membership::view`]. Keys are as good as random, so a part of one will do.
fn view_bits(peer: &PeerId) -> u64 {
    u64::from_le_bytes(*peer.0.first_chunk().expect("a key has 32 bytes"))
}

impl Machine for Membership {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, cx: &mut Context<'_>, input: Input, out: &mut Outbox<Output>) {
        match input {
            Input::Address(address) if self.address != Some(address) => {
                self.address = Some(address);
                self.renew_own(cx.now, out);
            }
            Input::Address(_) => {}
            Input::Join if !self.serving => {
                self.serving = true;
                self.view ^= view_bits(&self.identity.peer_id());
                self.renew_own(cx.now, out);
            }
            Input::Join => {}
            Input::Withdraw => self.withdraw(out),
            Input::Heard { from, descriptors } => {
                for signed in descriptors {
                    self.hear(cx, from, signed, out);
                }
            }
            Input::LinkUp(peer) => self.link_up(peer, out),
            Input::LinkDown { peer, in_order } => self.link_down(cx.now, peer, in_order, out),
            Input::DialFailed(peer) => self.dial_failed(cx, peer),
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        let members = self.members.values().flat_map(|member| {
            let dial = match member.link {
                Link::Down { dial_at, .. } => dial_at,
                Link::Up => None,
            };
            [Self::gone_at(member), dial, (member.link != Link::Up).then_some(member.expires)]
        });
        members.chain([self.refresh_at, self.gone_dial_at]).flatten().min()
    }

    fn on_deadline(&mut self, cx: &mut Context<'_>, out: &mut Outbox<Output>) {
        let now = cx.now;
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.renew_own(now, out);
        }
        let gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| {
                let expired = member.link != Link::Up && member.expires <= now;
                expired || Self::gone_at(member).is_some_and(|at| at <= now)
            })
            .map(|(peer, member)| (*peer, member.descriptor.sequence, member.descriptor.address))
            .collect();
        for (peer, sequence, address) in gone {
            self.remove(now, peer, sequence, address, out);
        }
        for (peer, member) in &mut self.members {
            if let Link::Down { dial_at, .. } = &mut member.link
                && dial_at.is_some_and(|at| at <= now)
            {
                *dial_at = None;
                out.push(Output::Dial { peer: *peer, address: member.descriptor.address });
            }
        }
        if self.gone_dial_at.is_some_and(|at| at <= now) {
            let pick = cx.rng.random_range(0..self.gone.len().max(1));
            if let Some((peer, gone)) = self.gone.iter().nth(pick) {
                out.push(Output::Dial { peer: *peer, address: gone.address });
            }
            self.gone_dial_at = (!self.gone.is_empty()).then(|| now + limits::GONE_REDIAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_pcg::Pcg32;

    use super::*;

    /// Members that exchange messages at once, with links that come up whenever one is dialled.
    struct Net {
        nodes: BTreeMap<PeerId, Membership>,
        links: Vec<(PeerId, PeerId)>,
        dead: Vec<PeerId>,
        rng: Pcg32,
        now: Time,
    }

    impl Net {
        fn new(count: u8) -> Self {
            let nodes = (1..=count).map(|seed| {
                let identity = Arc::new(Identity::from_seed([seed; 32]));
                (identity.peer_id(), Membership::new(identity, "test", 100, 1_000))
            });
            let mut net = Self {
                nodes: nodes.collect(),
                links: Vec::new(),
                dead: Vec::new(),
                rng: Pcg32::new(1, 1),
                now: Time::ZERO,
            };
            for (index, peer) in net.ids().into_iter().enumerate() {
                let address = SocketAddr::from(([192, 0, 2, index as u8 + 1], 7780));
                net.input(peer, Input::Address(address));
                net.input(peer, Input::Join);
            }
            net
        }

        fn ids(&self) -> Vec<PeerId> {
            self.nodes.keys().copied().collect()
        }

        fn input(&mut self, at: PeerId, input: Input) {
            let mut out = Outbox::new();
            let node = self.nodes.get_mut(&at).expect("a node");
            node.handle(&mut Context::new(self.now, &mut self.rng), input, &mut out);
            self.carry_out(at, &mut out);
        }

        fn carry_out(&mut self, at: PeerId, out: &mut Outbox<Output>) {
            for output in out.drain().collect::<Vec<_>>() {
                match output {
                    Output::Dial { peer, .. } if self.dead.contains(&peer) => self.input(at, Input::DialFailed(peer)),
                    Output::Dial { peer, .. } => self.link(at, peer),
                    Output::Send { to, members } => {
                        let descriptors = members.descriptors.into_vec();
                        self.input(to, Input::Heard { from: Some(at), descriptors });
                    }
                    Output::Joined(_) | Output::Left(_) => {}
                }
            }
        }

        fn link(&mut self, a: PeerId, b: PeerId) {
            if self.links.contains(&(a, b)) || self.links.contains(&(b, a)) {
                return;
            }
            self.links.push((a, b));
            for (at, peer) in [(a, b), (b, a)] {
                let own = self.nodes[&peer].own().cloned();
                self.input(at, Input::Heard { from: Some(peer), descriptors: own.into_iter().collect() });
                self.input(at, Input::LinkUp(peer));
            }
        }

        fn cut(&mut self, peer: PeerId) {
            let (cut, kept): (Vec<_>, Vec<_>) = self.links.iter().partition(|(a, b)| *a == peer || *b == peer);
            self.links = kept;
            for (a, b) in cut {
                let other = if a == peer { b } else { a };
                self.input(other, Input::LinkDown { peer, in_order: false });
                self.input(peer, Input::LinkDown { peer: other, in_order: false });
            }
        }

        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            while let Some((at, due)) = self
                .nodes
                .iter()
                .filter(|(peer, _)| !self.dead.contains(peer))
                .filter_map(|(peer, node)| Some((*peer, node.next_deadline()?)))
                .min_by_key(|(_, due)| *due)
                .filter(|(_, due)| *due <= end)
            {
                self.now = self.now.max(due);
                let mut out = Outbox::new();
                let node = self.nodes.get_mut(&at).expect("a node");
                node.on_deadline(&mut Context::new(self.now, &mut self.rng), &mut out);
                assert!(node.next_deadline().is_none_or(|next| next > self.now), "busy loop");
                self.carry_out(at, &mut out);
            }
            self.now = end;
        }

        fn views(&self) -> Vec<u64> {
            let alive = self.nodes.iter().filter(|(peer, _)| !self.dead.contains(peer));
            alive.map(|(_, node)| node.view()).collect()
        }
    }

    #[test]
    fn joining_any_one_is_enough_to_know_all() {
        let mut net = Net::new(8);
        let ids = net.ids();
        for pair in ids.windows(2) {
            net.link(pair[0], pair[1]);
        }
        net.run(Duration::from_secs(5));
        assert!(net.nodes.values().all(|node| node.total() == 8));
        assert!(net.views().windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(net.links.len(), 8 * 7 / 2, "a full mesh, one link for each pair");
    }

    #[test]
    fn a_dead_member_leaves_every_view_and_old_news_does_not_bring_it_back() {
        let mut net = Net::new(4);
        let ids = net.ids();
        for peer in &ids[1..] {
            net.link(ids[0], *peer);
        }
        net.run(Duration::from_secs(2));
        let last_words = net.nodes[&ids[3]].own().cloned().expect("it serves");
        net.dead.push(ids[3]);
        net.cut(ids[3]);
        net.run(Duration::from_secs(5));
        assert!(ids[..3].iter().all(|peer| net.nodes[peer].total() == 3));
        net.input(ids[0], Input::Heard { from: Some(ids[1]), descriptors: vec![last_words] });
        assert_eq!(net.nodes[&ids[0]].total(), 3);
    }

    #[test]
    fn a_cut_member_returns_by_itself() {
        let mut net = Net::new(3);
        let ids = net.ids();
        net.link(ids[0], ids[1]);
        net.link(ids[0], ids[2]);
        net.run(Duration::from_secs(2));
        net.dead.push(ids[2]);
        net.cut(ids[2]);
        net.run(Duration::from_mins(10));
        assert_eq!(net.nodes[&ids[0]].total(), 2);
        net.dead.clear();
        net.run(Duration::from_mins(10));
        assert!(net.nodes.values().all(|node| node.total() == 3));
    }

    #[test]
    fn who_withdraws_is_gone_at_once() {
        let mut net = Net::new(3);
        let ids = net.ids();
        net.link(ids[0], ids[1]);
        net.link(ids[0], ids[2]);
        net.run(Duration::from_secs(2));
        net.input(ids[2], Input::Withdraw);
        assert_eq!(net.nodes[&ids[0]].total(), 2);
        assert_eq!(net.nodes[&ids[1]].total(), 2);
    }

    #[test]
    fn descriptors_of_another_network_are_refused() {
        let mut net = Net::new(1);
        let at = net.ids()[0];
        let stranger = Arc::new(Identity::from_seed([99; 32]));
        let mut other = Membership::new(stranger, "other", 1, 1);
        let mut out = Outbox::new();
        let mut cx = Context::new(Time::ZERO, &mut net.rng);
        other.handle(&mut cx, Input::Address("192.0.2.9:1".parse().expect("an address")), &mut out);
        other.handle(&mut cx, Input::Join, &mut out);
        let descriptors = other.own().cloned().into_iter().collect();
        net.input(at, Input::Heard { from: None, descriptors });
        assert_eq!(net.nodes[&at].total(), 1);
        assert_eq!(net.nodes[&at].stats().refused, 1);
    }
}
