//! Whether to begin a handshake with an unknown address: decided before any cryptography is done.
//!
//! A handshake costs the server a signature and a key exchange, the client of a spoofed packet nothing. So
//! when many are under way, diallers must first show that they receive at their address (QUIC Retry), and
//! each address prefix has a token bucket. Prefixes that use up theirs share one more, for diallers that proved
//! their address: thousands of leaves behind a few NATs come back within a minute after a restart, and whoever else
//! spends that bucket keeps no other prefix out. Loopback is exempt. Invariant: at most [`limits::HANDSHAKES`]
//! are under way and at most [`limits::HANDSHAKE_PREFIXES`] buckets of prefixes exist.

use std::{net::IpAddr, time::Duration};

use rustc_hash::FxHashMap;

use crate::{limits, time::Time};

/// What to do with a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    /// Begin it.
    Accept,
    /// Make the dialler prove its address.
    Retry,
    /// Say nothing.
    Ignore,
}

/// The doorkeeper's memory.
#[derive(Debug, Default)]
pub(super) struct Admission {
    buckets: FxHashMap<Prefix, Bucket>,
    /// For proven diallers of prefixes that used up their own.
    shared: Bucket,
}

/// The part of an address that one customer of a provider has: /24, or /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Prefix {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Prefix {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => Self::V6(*ip.octets().first_chunk().expect("6 of 16 bytes")),
        }
    }
}

/// Handshakes that were used up. It is empty again at `empty`; each one moves that by an interval.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    empty: Time,
}

impl Bucket {
    /// Takes one handshake if there is one, of `burst` at once and one each `interval`.
    fn take(&mut self, now: Time, interval: Duration, burst: u32) -> bool {
        let next = self.empty.max(now) + interval;
        let fits = next <= now + interval * burst;
        if fits {
            self.empty = next;
        }
        fits
    }
}

impl Admission {
    /// Judges a handshake from `address`, whose receipt there is `proven` or not, while `under_way` others
    /// are not finished.
    pub(super) fn judge(&mut self, now: Time, address: IpAddr, proven: bool, under_way: usize) -> Verdict {
        if under_way >= limits::HANDSHAKES {
            return Verdict::Ignore;
        }
        if address.to_canonical().is_loopback() {
            return Verdict::Accept;
        }
        let full = self.full_for(now, address);
        if !proven && (full || under_way >= limits::HANDSHAKES_BEFORE_RETRY) {
            return Verdict::Retry;
        }
        if full {
            // Proven, so it is no spoofed flood that fills the table: nothing is gained by turning it away.
            return Verdict::Accept;
        }
        let own = self.buckets.entry(Prefix::of(address)).or_default();
        if own.take(now, limits::HANDSHAKE_INTERVAL, limits::HANDSHAKE_BURST) {
            Verdict::Accept
        } else if !proven {
            Verdict::Retry
        } else if under_way >= limits::HANDSHAKES_BEFORE_RETRY {
            Verdict::Ignore // the rest is for prefixes within their own rate
        } else if self.shared.take(now, limits::HANDSHAKE_INTERVAL_SHARED, limits::HANDSHAKE_BURST_SHARED) {
            Verdict::Accept
        } else {
            Verdict::Ignore
        }
    }

    /// True if there is no bucket for `address` and no room for one, even after forgetting those that are
    /// empty again.
    fn full_for(&mut self, now: Time, address: IpAddr) -> bool {
        if self.buckets.len() >= limits::HANDSHAKE_PREFIXES && !self.buckets.contains_key(&Prefix::of(address)) {
            self.buckets.retain(|_, bucket| bucket.empty > now);
        }
        self.buckets.len() >= limits::HANDSHAKE_PREFIXES && !self.buckets.contains_key(&Prefix::of(address))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn many_handshakes_ask_for_a_proof_and_too_many_for_silence() {
        let mut admission = Admission::default();
        let mut judge = |proven, under_way| admission.judge(Time::ZERO, address("192.0.2.1"), proven, under_way);
        assert_eq!(judge(false, 0), Verdict::Accept);
        assert_eq!(judge(false, limits::HANDSHAKES_BEFORE_RETRY), Verdict::Retry);
        assert_eq!(judge(true, limits::HANDSHAKES_BEFORE_RETRY), Verdict::Accept);
        assert_eq!(judge(true, limits::HANDSHAKES), Verdict::Ignore);
    }

    #[test]
    fn a_prefix_has_a_burst_and_then_a_rate() {
        let mut admission = Admission::default();
        let at = |ms| Time::ZERO + Duration::from_millis(ms);
        let accepted = |admission: &mut Admission, now: Time, from: &str| {
            (0..1000).filter(|_| admission.judge(now, address(from), false, 0) == Verdict::Accept).count()
        };
        assert_eq!(accepted(&mut admission, at(0), "192.0.2.1"), limits::HANDSHAKE_BURST as usize);
        assert_eq!(accepted(&mut admission, at(0), "192.0.2.200"), 0);
        assert_eq!(accepted(&mut admission, at(0), "::ffff:192.0.2.7"), 0);
        assert_eq!(accepted(&mut admission, at(0), "192.0.3.1"), limits::HANDSHAKE_BURST as usize);
        assert_eq!(accepted(&mut admission, at(1000), "192.0.2.1"), 16);
        assert_eq!(accepted(&mut admission, at(0), "2001:db8::1"), limits::HANDSHAKE_BURST as usize);
        assert_eq!(accepted(&mut admission, at(0), "2001:db8:0:ffff::1"), 0);
    }

    #[test]
    fn ten_thousand_leaves_behind_four_nats_are_back_within_a_minute_and_keep_nobody_out() {
        let mut admission = Admission::default();
        let mut judge = |second: u64, from: &str, proven: bool| {
            admission.judge(Time::ZERO + Duration::from_secs(second), address(from), proven, 0) == Verdict::Accept
        };
        let mut outside = [limits::LEAVES_PER_PREFIX; 4];
        for second in 0..60 {
            for (prefix, outside) in outside.iter_mut().enumerate() {
                let nat = format!("192.0.{prefix}.1");
                // Who is not answered sends again after a second or a few; each proved its address before.
                *outside -= (0..*outside).filter(|_| judge(second, &nat, true)).count();
            }
            let other = format!("10.0.{second}.1");
            assert!(judge(second, &other, false), "another prefix waits");
        }
        assert_eq!(outside, [0; 4]);
    }

    #[test]
    fn beyond_its_own_rate_a_prefix_must_prove_addresses_and_shares_one_more_rate_with_others() {
        let mut admission = Admission::default();
        let mut judge = |from: &str, proven| admission.judge(Time::ZERO, address(from), proven, 0);
        for from in ["192.0.2.1", "192.0.3.1"] {
            while judge(from, false) == Verdict::Accept {}
            assert_eq!(judge(from, false), Verdict::Retry);
        }
        let shared = (0..1000).filter(|_| judge("192.0.2.1", true) == Verdict::Accept).count();
        assert_eq!(shared, limits::HANDSHAKE_BURST_SHARED as usize);
        assert_eq!(judge("192.0.2.1", true), Verdict::Ignore);
        assert_eq!(judge("192.0.3.1", true), Verdict::Ignore);
        assert_eq!(judge("192.0.4.1", true), Verdict::Accept);
    }

    #[test]
    fn a_flood_from_one_prefix_leaves_room_for_others() {
        let mut admission = Admission::default();
        let mut under_way = 0;
        while admission.judge(Time::ZERO, address("192.0.2.1"), true, under_way) == Verdict::Accept {
            under_way += 1;
        }
        assert_eq!(under_way, limits::HANDSHAKES_BEFORE_RETRY);
        assert_eq!(admission.judge(Time::ZERO, address("192.0.3.1"), true, under_way), Verdict::Accept);
    }

    #[test]
    fn loopback_is_exempt_from_prefix_limits() {
        let mut admission = Admission::default();
        for _ in 0..10_000 {
            assert_eq!(admission.judge(Time::ZERO, address("::1"), false, 300), Verdict::Accept);
        }
    }

    #[test]
    fn a_full_table_stays_full_and_asks_newcomers_for_a_proof() {
        let mut admission = Admission::default();
        for n in 0..2 * limits::HANDSHAKE_PREFIXES as u32 {
            admission.judge(Time::ZERO, IpAddr::V4((n << 8).into()), true, 0);
        }
        assert_eq!(admission.buckets.len(), limits::HANDSHAKE_PREFIXES);
        assert_eq!(admission.judge(Time::ZERO, address("203.0.113.1"), false, 0), Verdict::Retry);
        let later = Time::ZERO + limits::HANDSHAKE_INTERVAL;
        assert_eq!(admission.judge(later, address("203.0.113.1"), false, 0), Verdict::Accept);
        assert_eq!(admission.buckets.len(), 1);
    }
}
