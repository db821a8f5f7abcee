//! What is known of ultrapeers and of homes.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use overlay::{
    limits,
    machine::Context,
    time::Time,
    wire::descriptor::{Descriptor, SignedDescriptor},
};
use rand::RngExt;

use super::Why;

#[derive(Debug)]
pub(super) struct Known {
    pub(super) signed: SignedDescriptor,
    pub(super) descriptor: Descriptor,
    pub(super) attempts: Attempts,
    pub(super) distance: Distance,
    /// A home told of it, or it was one. Whoever else named it may have made it up.
    pub(super) vouched: bool,
}

/// Addresses that only nodes which were no homes named, and where nobody answered.
#[derive(Debug, Default)]
pub(super) struct Vain {
    since: BTreeMap<SocketAddr, Time>,
}

impl Vain {
    /// True if such an address may be dialled.
    pub(super) fn allows(&mut self, now: Time, address: &SocketAddr) -> bool {
        self.since.retain(|_, since| now.since(*since) < limits::HINT_AGAIN);
        self.since.len() < limits::HINTS_FAILED && !self.since.contains_key(address)
    }

    /// Nobody answered there.
    pub(super) fn note(&mut self, now: Time, address: SocketAddr) {
        if self.since.len() < limits::HINTS_FAILED {
            self.since.insert(address, now);
        }
    }
}

/// How far away an ultrapeer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distance {
    Unknown,
    /// It is being measured, and given up at that time.
    Measuring(Time),
    Away(Duration),
    Silent,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Attempts {
    /// The address that is dialled now. It is kept apart from the known one, which may change meanwhile.
    pub(super) dialling: Option<SocketAddr>,
    pub(super) at: Time,
    pub(super) pause: Duration,
    pub(super) failures: u32,
}

#[derive(Debug)]
pub(super) struct Home {
    pub(super) address: SocketAddr,
    pub(super) since: Time,
    pub(super) total: u32,
    pub(super) rtt: Option<Duration>,
    pub(super) has_list: bool,
    /// Others say that it is gone, and it has not answered since.
    pub(super) suspected: bool,
    /// Sequence of the descriptor with which it is gone, or ends. With a later one it is back.
    pub(super) gone_with: u64,
    /// When it counts no more, because it drains or covers another part of the leaf space.
    pub(super) ends: Option<(Time, Why)>,
    pub(super) released: bool,
    /// When it was last asked for members.
    pub(super) asked: Option<Time>,
    /// It was far worse than another at the last look.
    pub(super) slow: bool,
}

impl Attempts {
    pub(super) fn new(now: Time) -> Self {
        Self { dialling: None, at: now, pause: limits::REDIAL_MIN, failures: 0 }
    }

    pub(super) fn failed(&mut self, cx: &mut Context<'_>) {
        self.dialling = None;
        self.failures += 1;
        self.at = cx.now + self.pause.mul_f64(cx.rng.random_range(0.75..1.25));
        self.pause = (self.pause * 2).min(limits::REDIAL_MAX);
    }

    /// A moment later, another for each leaf: those that lost the same home do not return in step.
    pub(super) fn postpone(&mut self, cx: &mut Context<'_>) {
        self.at = self.at.max(cx.now + limits::REDIAL_MIN.mul_f64(cx.rng.random_range(0.0..2.0)));
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.dialling.is_none() && self.at <= now
    }
}

impl Home {
    /// True if it counts as one of the homes that there should be.
    pub(super) fn serves(&self, now: Time) -> bool {
        !self.suspected && !self.released && self.ends.is_none_or(|(at, _)| at > now)
    }
}
