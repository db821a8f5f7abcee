//! What the daemon says of itself: `status`, `peers`, and the gauges of its metrics.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use overlay::{
    admin::probes::Readiness,
    config::Config,
    drive::{Clock, Stopped},
    id::PeerId,
    metrics::{KNOWN_ULTRAPEERS, KnownState, REACHABILITY, Reachability},
    report::{Peer, Problem, Status},
    startup::Daemon,
    time::Time,
    transport::Endpoint,
    wire::{descriptor::SignedDescriptor, election::Hurdle},
};
use tokio::sync::watch;

use super::capacity::{self, Machine};
use crate::{
    driver::{JoinError, JoinStatus, Service, Snapshot, settings_of},
    ultrapeer::Phase,
    view::{Rate, leaf, member, part, ultrapeer},
};

/// Looks at the running ultrapeer.
#[derive(Debug)]
pub(super) struct View {
    service: Service,
    endpoint: Endpoint,
    readiness: Readiness,
    clock: Clock,
    network: String,
    config: Arc<Config>,
    machine: Machine,
    /// Ultrapeers of earlier sessions.
    cached: Vec<(PeerId, SocketAddr)>,
    /// True once another node dialled this one.
    reached: AtomicBool,
    /// Where a router says that it forwards packets to it.
    mapped: watch::Receiver<Option<SocketAddr>>,
    rate: Mutex<Rate>,
}

impl View {
    pub(super) fn new(daemon: &Daemon, service: Service, remembered: &[SignedDescriptor]) -> Arc<Self> {
        REACHABILITY.set_only(Reachability::Unknown);
        let cached = remembered.iter().filter_map(|signed| signed.open().ok());
        Arc::new(Self {
            service,
            endpoint: daemon.endpoint.clone(),
            readiness: daemon.readiness.clone(),
            clock: daemon.clock,
            network: daemon.config.settings().network.to_string(),
            config: daemon.config.clone(),
            machine: Machine::look(),
            cached: cached.map(|descriptor| (descriptor.peer, descriptor.address)).collect(),
            reached: AtomicBool::new(false),
            mapped: daemon.map_port(),
            rate: Mutex::default(),
        })
    }

    /// Another node dialled this one and proved its key.
    pub(super) fn was_reached(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Where a router says that it forwards packets to this node.
    pub(super) fn mapped(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.mapped.clone()
    }

    /// Where others see it, a router forwards packets to it.
    fn is_mapped(&self, snapshot: &Snapshot) -> bool {
        let mapped = *self.mapped.borrow();
        mapped.is_some() && mapped == snapshot.address
    }

    fn reachability(&self, snapshot: &Snapshot) -> Reachability {
        // Those who let it in dialled it back.
        if snapshot.phase != Phase::Admitted && !self.reached.load(Ordering::Relaxed) {
            Reachability::Unknown
        } else if self.is_mapped(snapshot) {
            Reachability::Mapped
        } else {
            Reachability::Public
        }
    }

    pub(super) async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.service.snapshot().await
    }

    /// Brings the gauges up to date. Called every few seconds.
    pub(super) fn collect(&self, snapshot: &Snapshot) {
        self.service.collect(snapshot);
        REACHABILITY.set_only(self.reachability(snapshot));
        KNOWN_ULTRAPEERS.set(KnownState::Cached, self.cached(snapshot).count() as f64);
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).sample(self.clock.now(), snapshot.queries);
    }

    /// The object `status`.
    pub(super) fn status(&self, snapshot: &Snapshot) -> Status {
        let reachability = match self.reachability(snapshot) {
            Reachability::Mapped => "mapped",
            Reachability::Public => "public",
            _ => "unknown",
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: "ultrapeer".to_owned(),
            peer_id: self.endpoint.peer().to_string(),
            network: self.network.clone(),
            uptime_s: self.clock.now().since(Time::ZERO).as_secs(),
            listen: Some(self.endpoint.local_address()),
            observed: snapshot.address.into_iter().collect(),
            reachability: reachability.to_owned(),
            ready: self.readiness.report().ready,
            problems: self.problems(snapshot),
            ultrapeers: snapshot.ultrapeers.into(),
            shards: snapshot.shards.into(),
            shard_prefix: Some(snapshot.shard.to_string()),
            ultrapeer: Some(part(snapshot, &self.rate.lock().unwrap_or_else(PoisonError::into_inner))),
            ..Status::default()
        }
    }

    fn problems(&self, snapshot: &Snapshot) -> Vec<Problem> {
        let mut problems = problems(snapshot.phase, &self.service.join_status(), snapshot.hurdle);
        problems.extend(self.advice());
        problems
    }

    /// What is offered and this machine cannot keep.
    pub(super) fn advice(&self) -> Vec<Problem> {
        capacity::advice(&settings_of(&self.config, &self.config.settings()), self.machine)
    }

    /// The objects `peer`: other ultrapeers, then own leaves, each by id.
    pub(super) fn peers(&self, snapshot: &Snapshot) -> Vec<Peer> {
        let leaves = snapshot.attached.iter().map(|known| leaf(&known.peer, known.address, known.rtt));
        let mut peers: Vec<Peer> = self.other_ultrapeers(snapshot).chain(leaves).collect();
        peers.sort_by(|a, b| (b.role.as_str(), &a.peer).cmp(&(a.role.as_str(), &b.peer)));
        peers
    }

    /// The objects `peer` of other ultrapeers.
    pub(super) fn other_ultrapeers<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = Peer> + 'a {
        let members = snapshot.members.iter().map(member);
        members.chain(self.cached(snapshot).map(|(peer, address)| ultrapeer(peer, *address)))
    }

    /// Remembered ultrapeers that are not members now.
    fn cached<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a (PeerId, SocketAddr)> {
        self.cached.iter().filter(|(peer, _)| snapshot.members.iter().all(|member| member.peer != *peer))
    }
}

/// What is wrong with the nodes it was told to join, that it is in no network, and why others do not let it in.
fn problems(phase: Phase, targets: &[JoinStatus], hurdle: Option<Hurdle>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = targets.iter().filter_map(join_problem).collect();
    let is_mismatch = |problem: &Problem| problem.code != "unreachable";
    if let Some(hurdle) = hurdle {
        problems.push(not_admitted(hurdle));
    } else if phase == Phase::Candidate && !problems.iter().any(is_mismatch) {
        problems.push(nobody_found(targets));
    }
    problems
}

/// A target that cannot be reached, or does not fit this node.
fn join_problem(target: &JoinStatus) -> Option<Problem> {
    let error = target.error.as_ref()?;
    let (code, hint) = match error {
        JoinError::Name(_) => ("unreachable", "check the name, and that this machine can ask a name server"),
        JoinError::Dial(error) => (error.problem()?, error.hint()),
    };
    let message = format!("cannot join through {}: {error}", target.target);
    Some(Problem { code: code.to_owned(), message, hint: Some(hint.to_owned()) })
}

/// It was found by others, and they do not let it in (yet).
fn not_admitted(hurdle: Hurdle) -> Problem {
    let (code, hint) = match hurdle {
        Hurdle::Reachable => {
            ("unreachable", "let UDP through to this port, or name the address where it is reached with --advertise")
        }
        Hurdle::Bandwidth | Hurdle::Loss => {
            ("not_admitted", "an ultrapeer needs 10 Mbit/s upstream and a line that loses less than 1 %")
        }
        Hurdle::Prefix => (
            "not_admitted",
            "another ultrapeer of the same /24 (IPv6 /48) or /16 (/32) must go first; run it in another network",
        ),
        Hurdle::Silent => ("not_admitted", "it answers too rarely to serve: check its line and its load"),
        Hurdle::Untrue => {
            ("not_admitted", "others believe it again after some hours; if it is not changed, report this")
        }
        _ => ("not_admitted", "it keeps asking; nothing is to be done"),
    };
    let message = format!("this node is not let in as an ultrapeer: {}", hurdle.text());
    Problem { code: code.to_owned(), message, hint: Some(hint.to_owned()) }
}

fn nobody_found(targets: &[JoinStatus]) -> Problem {
    let failed = targets.iter().filter_map(|target| Some((&target.target, target.error.as_ref()?)));
    let reasons: Vec<String> = failed.map(|(target, error)| format!("{target}: {error}")).collect();
    let (message, hint) = if targets.is_empty() {
        ("no ultrapeer is known", "name a node of the network with --join, or begin a network with --founder")
    } else {
        ("no ultrapeer was found", "check the addresses given with --join; the node keeps trying")
    };
    let message = if reasons.is_empty() { message.to_owned() } else { format!("{message}: {}", reasons.join("; ")) };
    Problem { code: "no_ultrapeer".to_owned(), message, hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use overlay::{
        transport::DialError,
        wire::hello::{RefuseReason, Situation},
    };

    use super::*;

    fn target(error: Option<JoinError>) -> JoinStatus {
        JoinStatus { target: "node.example:7780".to_owned(), error }
    }

    #[test]
    fn a_target_of_another_network_is_named_even_when_another_one_led_in() {
        let address = "192.0.2.1:7780".parse().unwrap();
        let wrong = target(Some(JoinError::Dial(DialError::WrongNetwork { address })));
        for phase in [Phase::Candidate, Phase::Admitted] {
            let problems = problems(phase, &[target(None), wrong.clone()], None);
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].code, "wrong_network");
            assert!(problems[0].message.contains("node.example:7780"));
        }
    }

    #[test]
    fn only_a_candidate_misses_others() {
        let address = "192.0.2.1:7780".parse().unwrap();
        let silent = [target(Some(JoinError::Dial(DialError::Timeout { address })))];
        let codes = |problems: &[Problem]| problems.iter().map(|problem| problem.code.clone()).collect::<Vec<_>>();
        assert_eq!(codes(&problems(Phase::Founder, &silent, None)), ["unreachable"]);
        let full = DialError::Refused {
            address,
            reason: RefuseReason::NotUltrapeer,
            alternatives: Vec::new(),
            peer: PeerId([7; 32]),
            situation: Situation::Settled,
            contacts: Vec::new(),
        };
        assert!(problems(Phase::Founder, &[target(Some(JoinError::Dial(full)))], None).is_empty());
        let missing = problems(Phase::Candidate, &silent, None);
        assert_eq!(codes(&missing), ["unreachable", "no_ultrapeer"]);
        assert!(missing.iter().all(|problem| problem.message.contains("no answer from 192.0.2.1:7780")), "{missing:?}");
        let shut_out = problems(Phase::Candidate, &[target(None)], Some(Hurdle::Reachable));
        assert_eq!(codes(&shut_out), ["unreachable"]);
        assert!(shut_out[0].message.contains("not reached from outside"), "{shut_out:?}");
        assert!(problems(Phase::Candidate, &[], None)[0].hint.as_ref().unwrap().contains("--founder"));
    }
}
