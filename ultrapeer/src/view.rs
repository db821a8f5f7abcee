//! What is shown of an ultrapeer, whichever program it runs in: its part of `status`, the objects `peer`, its gauges.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use overlay::{
    id::PeerId,
    membership::State,
    metrics::{KNOWN_ULTRAPEERS, KnownState},
    report::{Peer, UltrapeerPart},
    time::Time,
    transport::{Event, Stats},
};

use crate::{
    driver::{Member, Snapshot},
    metrics as counted,
    ultrapeer::Phase,
};

/// Brings the metrics of an ultrapeer up to date; `told` is what of its totals is in them.
pub(crate) fn collect(snapshot: &Snapshot, transport: &Stats, told: &mut counted::Told) {
    counted::collect(snapshot, told);
    counted::collect_refused(transport.count(Event::LeafBanned), transport.count(Event::VersionAsked));
    let suspect = snapshot.members.iter().filter(|member| member.state == State::Suspect).count();
    KNOWN_ULTRAPEERS.set(KnownState::Alive, (snapshot.members.len() - suspect) as f64);
    KNOWN_ULTRAPEERS.set(KnownState::Suspect, suspect as f64);
}

/// Brings the gauges of an ultrapeer to nothing: this node is none any more.
pub fn collect_nothing() {
    counted::collect_nothing();
    KNOWN_ULTRAPEERS.set(KnownState::Alive, 0.0);
    KNOWN_ULTRAPEERS.set(KnownState::Suspect, 0.0);
}

/// The part `ultrapeer` of `status`.
pub fn part(snapshot: &Snapshot, rate: &Rate) -> UltrapeerPart {
    UltrapeerPart {
        state: state(snapshot.phase).to_owned(),
        leaves: snapshot.leaves.into(),
        max_leaves: snapshot.max_leaves.into(),
        index_files: snapshot.index.files,
        index_bytes: snapshot.index.memory,
        digest_leaves: snapshot.known_leaves,
        queries_per_s: rate.per_second(),
    }
}

/// Another ultrapeer of the view.
pub fn member(member: &Member) -> Peer {
    Peer {
        state: if member.state == State::Suspect { "suspect" } else { "alive" }.to_owned(),
        rtt_ms: member.rtt.map(milliseconds),
        shard_prefix: Some(member.shard.to_string()),
        connections: (member.state == State::Linked).then(|| "mesh".to_owned()).into_iter().collect(),
        ..ultrapeer(&member.peer, member.address)
    }
}

/// An own leaf.
pub fn leaf(peer: &PeerId, address: SocketAddr, rtt: Option<Duration>) -> Peer {
    Peer {
        peer: peer.to_string(),
        address: Some(address),
        role: "leaf".to_owned(),
        state: "alive".to_owned(),
        rtt_ms: rtt.map(milliseconds),
        connections: vec!["leaf".to_owned()],
        ..Peer::default()
    }
}

/// Another ultrapeer that is known, and no more.
pub fn ultrapeer(peer: &PeerId, address: SocketAddr) -> Peer {
    Peer {
        peer: peer.to_string(),
        address: Some(address),
        role: "ultrapeer".to_owned(),
        state: "cached".to_owned(),
        shard_prefix: Some(String::new()),
        ..Peer::default()
    }
}

/// The name of a phase, in `status`.
pub const fn state(phase: Phase) -> &'static str {
    match phase {
        Phase::Candidate => "candidate",
        Phase::Admitted => "admitted",
        Phase::Founder => "founder",
        Phase::Draining { .. } => "draining",
    }
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// Queries a second, over the last few samples.
#[derive(Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Time, u64)>,
}

impl Rate {
    /// Samples that the rate is taken over: with one every two seconds, the last ten.
    const SAMPLES: usize = 6;

    /// At that time so many had been answered. Called every few seconds.
    pub fn sample(&mut self, now: Time, count: u64) {
        if self.samples.len() == Self::SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, count));
    }

    /// Queries a second.
    pub fn per_second(&self) -> f64 {
        let (Some((began, first)), Some((ended, last))) = (self.samples.front(), self.samples.back()) else {
            return 0.0;
        };
        let span = ended.since(*began).as_secs_f64();
        if span > 0.0 { last.saturating_sub(*first) as f64 / span } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_samples() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), 0.0);
        for second in 0..20 {
            rate.sample(Time(second * 1_000_000), if second < 10 { 0 } else { (second - 10) * 3 });
        }
        assert!((rate.per_second() - 3.0).abs() < 1e-9);
    }
}
