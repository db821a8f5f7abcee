//! Core: whether this leaf asks to be let in as an ultrapeer because the network wants more, and what stands in its way.
//!
//! ```text
//!   homes ──appraisals──┐
//!   own conditions ─────┴──> invited ──> asks ──> let in, or not: rests
//! ```
//!
//! One that serves in any case, or begins a network, does so by [`crate::founding`].
//!
//! Invariants:
//! - what this leaf believes of itself decides only whether it is willing: never on battery or a metered link, never with
//!   too little memory, unless its user wants it to serve in any case;
//! - between two attempts, and after it served, it rests, so that it does not change its role again and again.

use std::{collections::BTreeMap, time::Duration};

use overlay::{
    election::Regime,
    id::PeerId,
    limits,
    time::Time,
    wire::{
        election::{Hurdle, Invitation, Measured},
        leaf::Appraisal,
    },
};

use crate::founding::{Role, Willing};

/// What this node knows of the machine that it runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machinery {
    /// Bytes that it may use for index and digests.
    pub memory: u64,
    /// What it runs on.
    pub power: Power,
    /// True if its link to the Internet is paid by the byte.
    pub is_metered: bool,
}

/// What a machine runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// The mains, or nobody knows: a server says nothing of it.
    #[default]
    Mains,
    /// A battery.
    Battery,
}

impl Machinery {
    fn has_memory(&self) -> bool {
        self.memory >= limits::ELECTION_MEMORY
    }

    fn has_power(&self) -> bool {
        self.power == Power::Mains && !self.is_metered
    }
}

/// One condition for serving as an ultrapeer, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// Which: `volunteer reachable uptime bandwidth loss memory power prefix demand`.
    pub name: &'static str,
    /// Whether it holds; `None` if nobody knows yet.
    pub met: Option<bool>,
    /// What is.
    pub have: Option<String>,
    /// What should be.
    pub want: String,
}

/// Whether to ask. See the module text.
#[derive(Debug)]
pub struct Candidacy {
    regime: Regime,
    willing: Willing,
    machinery: Machinery,
    appraisals: BTreeMap<PeerId, Appraisal>,
    /// What this node is.
    role: Role,
    /// True since it began to ask.
    asks: bool,
    /// Before that time it does not ask.
    rests_until: Time,
    /// Why the last attempt failed.
    hurdle: Option<Hurdle>,
}

impl Candidacy {
    /// In a network of that kind.
    pub fn new(regime: Regime) -> Self {
        Self {
            regime,
            willing: Willing::Never,
            machinery: Machinery::default(),
            appraisals: BTreeMap::new(),
            role: Role::Leaf,
            asks: false,
            rests_until: Time::ZERO,
            hurdle: None,
        }
    }

    /// When this node serves, from now on.
    pub fn set_willing(&mut self, willing: Willing) {
        if willing != self.willing {
            // Its user has changed his mind.
            self.rests_until = Time::ZERO;
        }
        self.willing = willing;
    }

    /// What it runs on, from now on.
    pub fn set_machinery(&mut self, machinery: Machinery) {
        self.machinery = machinery;
    }

    /// True if this node would serve if it were invited.
    pub fn is_willing(&self) -> bool {
        match self.willing {
            Willing::Never => false,
            Willing::Auto => self.machinery.has_memory() && self.machinery.has_power(),
            Willing::Always => true,
        }
    }

    /// A home says what it found out.
    pub fn appraised(&mut self, home: PeerId, appraisal: Appraisal) {
        if self.appraisals.len() < limits::APPRAISALS_KEPT || self.appraisals.contains_key(&home) {
            self.appraisals.insert(home, appraisal);
        }
    }

    /// A home is one no more. What it found out holds as long as others do not know better.
    pub fn lost(&mut self, home: &PeerId) {
        if self.appraisals.len() > 1 {
            self.appraisals.remove(home);
        } else if let Some(appraisal) = self.appraisals.get_mut(home) {
            (appraisal.invited, appraisal.demand) = (false, false);
        }
    }

    /// True if this node should ask to be let in now; it does so from then on, until its role changes.
    pub fn begins(&mut self, now: Time) -> bool {
        let invited = self.appraisals.values().any(|appraisal| appraisal.invited);
        let begins = invited
            && self.willing == Willing::Auto
            && self.is_willing()
            && self.role == Role::Leaf
            && !self.asks
            && now >= self.rests_until;
        if begins {
            (self.asks, self.hurdle) = (true, None);
            self.appraisals.values_mut().for_each(|appraisal| appraisal.invited = false);
        }
        begins
    }

    /// What it shows to those who vote on it.
    pub fn invitations(&self) -> Vec<Invitation> {
        let invitations = self.appraisals.values().filter_map(|appraisal| appraisal.invitation);
        invitations.take(limits::INVITATIONS).collect()
    }

    /// What this node is from now on. A candidate that is a leaf again was not let in; an ultrapeer that is one again
    /// was not needed any more, or its user said so.
    pub fn set_role(&mut self, now: Time, role: Role) {
        let rest = match (self.role, role) {
            (Role::Candidate, Role::Leaf) => limits::CANDIDATE_REST,
            (Role::Ultrapeer, Role::Leaf) => limits::RETIRED_REST,
            _ => Duration::ZERO,
        };
        self.rests_until = self.rests_until.max(now + rest);
        (self.role, self.asks) = (role, false);
    }

    /// What voters said against this node.
    pub fn refused(&mut self, hurdle: Option<Hurdle>) {
        self.hurdle = hurdle;
    }

    /// What stands between this leaf and serving, in the order of asking. `observed` is where others see it.
    pub fn criteria(&self, observed: Option<std::net::IpAddr>) -> Vec<Criterion> {
        let strict = observed.is_some_and(|address| self.regime.is_strict(address));
        let measured = self.measured();
        let row = |name, met, have: Option<String>, want: &str| Criterion { name, met, have, want: want.to_owned() };
        let asked = |met: Option<bool>| if strict { met } else { Some(true) };
        let wanted = |want: &str| if strict { want.to_owned() } else { format!("{want}; not asked in this network") };
        let machinery = &self.machinery;
        let power = match (machinery.power, machinery.is_metered) {
            (Power::Battery, _) => "battery",
            (Power::Mains, true) => "a metered link",
            (Power::Mains, false) => "mains",
        };
        let willing = match self.willing {
            Willing::Never => "never",
            Willing::Auto => "auto",
            Willing::Always => "always",
        };
        let told: Vec<_> = self.appraisals.values().collect();
        let reached = told.iter().filter(|appraisal| appraisal.reached == Some(true)).count();
        let tried = told.iter().filter(|appraisal| appraisal.reached.is_some()).count();
        let all = |holds: fn(&Appraisal) -> bool| (!told.is_empty()).then(|| told.iter().all(|told| holds(told)));
        let demand = match (all(|told| !told.demand), self.hurdle) {
            (None, _) => None,
            (Some(true), _) => Some("there are enough ultrapeers".to_owned()),
            (Some(false), Some(hurdle)) => {
                Some(format!("more are wanted, but of this one voters said: {}", hurdle.text()))
            }
            (Some(false), None) => Some("more ultrapeers are wanted".to_owned()),
        };
        let bandwidth = measured.filter(|measured| measured.bandwidth_kbit > 0);
        vec![
            row("volunteer", Some(self.willing != Willing::Never), Some(willing.to_owned()), "auto or always"),
            row(
                "reachable",
                (tried > 0).then_some(reached > 0),
                (tried > 0).then(|| format!("reached from outside by {reached} of {tried} homes")),
                "reached from outside",
            ),
            Criterion {
                name: "uptime",
                met: asked(measured.map(|measured| u64::from(measured.uptime_s) >= limits::ELECTION_UPTIME.as_secs())),
                have: measured.map(|measured| duration(measured.uptime_s)),
                want: wanted(&format!("seen for {}", duration(limits::ELECTION_UPTIME.as_secs() as u32))),
            },
            Criterion {
                name: "bandwidth",
                met: asked(bandwidth.map(|measured| measured.bandwidth_kbit >= limits::ELECTION_BANDWIDTH_KBIT)),
                have: bandwidth.map(|measured| format!("sends {} Mbit/s", tenths(measured.bandwidth_kbit, 1_000))),
                want: wanted(&format!("{} Mbit/s", limits::ELECTION_BANDWIDTH_KBIT / 1_000)),
            },
            Criterion {
                name: "loss",
                met: asked(measured.map(|measured| measured.loss_ppm < limits::ELECTION_LOSS_PPM)),
                have: measured.map(|measured| format!("{} % of packets lost", tenths(measured.loss_ppm, 10_000))),
                want: wanted(&format!("under {} %", limits::ELECTION_LOSS_PPM / 10_000)),
            },
            row(
                "memory",
                Some(machinery.has_memory()),
                Some(format!("{} MiB for index and digests", machinery.memory >> 20)),
                &format!("{} MiB", limits::ELECTION_MEMORY >> 20),
            ),
            row("power", Some(machinery.has_power()), Some(power.to_owned()), "mains, and a link that is not metered"),
            row(
                "prefix",
                all(|told| told.has_place),
                all(|told| told.has_place)
                    .map(|free| if free { "a free place" } else { "taken by another ultrapeer nearby" }.to_owned()),
                "a free place in this part of the Internet",
            ),
            row("demand", all(|told| !told.demand).map(|enough| !enough), demand, "the network wants more ultrapeers"),
        ]
    }

    /// What homes found out: the median of rates, the least loss, the longest time.
    fn measured(&self) -> Option<Measured> {
        let mut rates: Vec<_> = self.appraisals.values().map(|told| told.measured.bandwidth_kbit).collect();
        rates.retain(|rate| *rate > 0);
        rates.sort_unstable();
        let of = |read: fn(&Measured) -> u32| self.appraisals.values().map(move |told| read(&told.measured));
        Some(Measured {
            uptime_s: of(|measured| measured.uptime_s).max()?,
            bandwidth_kbit: rates.get(rates.len() / 2).copied().unwrap_or(0),
            loss_ppm: of(|measured| measured.loss_ppm).min()?,
            stability: self.appraisals.values().map(|told| told.measured.stability).min()?,
        })
    }

    /// What homes saw this leaf send, in kbit/s; `None` if none measured it.
    pub fn upstream_kbit(&self) -> Option<u32> {
        self.measured().map(|measured| measured.bandwidth_kbit).filter(|kbit| *kbit > 0)
    }

    /// How others reach this leaf: `None` if no home tried.
    pub fn is_reached(&self) -> Option<bool> {
        let mut tried = self.appraisals.values().filter_map(|appraisal| appraisal.reached).peekable();
        tried.peek().copied().map(|_| tried.any(|reached| reached))
    }
}

/// With one decimal.
fn tenths(number: u32, unit: u32) -> String {
    let tenths = u64::from(number) * 10 / u64::from(unit);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn duration(seconds: u32) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, _) => format!("{hours}h{minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use overlay::identity::Identity;

    use super::*;

    fn peer(number: u8) -> PeerId {
        Identity::from_seed([number; 32]).peer_id()
    }

    const GOOD: Machinery = Machinery { memory: limits::ELECTION_MEMORY, power: Power::Mains, is_metered: false };

    fn volunteer(machinery: Machinery) -> Candidacy {
        let mut core = Candidacy::new(Regime::Public);
        core.set_willing(Willing::Auto);
        core.set_machinery(machinery);
        core
    }

    fn invited(home: u8) -> Appraisal {
        let measured = Measured { uptime_s: 7_200, bandwidth_kbit: 94_200, loss_ppm: 500, stability: 1000 };
        let word = Invitation::sign(&Identity::from_seed([home; 32]), [0; 8], &peer(99), measured, 1);
        Appraisal {
            reached: Some(true),
            measured,
            has_place: true,
            demand: true,
            invited: true,
            invitation: Some(word),
        }
    }

    #[test]
    fn who_is_willing_asks_when_invited_and_rests_after_a_failure() {
        let (mut core, now) = (volunteer(GOOD), Time::ZERO);
        assert!(!core.begins(now));
        core.appraised(peer(1), Appraisal { invited: false, ..invited(1) });
        assert!(!core.begins(now));
        core.appraised(peer(2), invited(2));
        assert!(core.begins(now));
        assert_eq!(core.invitations().len(), 2);
        core.appraised(peer(2), invited(2));
        assert!(!core.begins(now), "it asks already");
        core.set_role(now, Role::Candidate);
        core.set_role(now, Role::Leaf);
        assert!(!core.begins(now), "it rests");
        let later = now + limits::CANDIDATE_REST;
        assert!(core.begins(later));
        core.set_role(later, Role::Candidate);
        core.set_role(later, Role::Ultrapeer);
        core.appraised(peer(2), invited(2));
        assert!(!core.begins(later), "it serves");
        core.set_role(later, Role::Leaf);
        assert!(!core.begins(later + limits::RETIRED_REST - Duration::from_secs(1)));
        assert!(core.begins(later + limits::RETIRED_REST));
    }

    #[test]
    fn conditions_of_its_own_keep_a_volunteer_from_asking() {
        let battery = Machinery { power: Power::Battery, ..GOOD };
        let metered = Machinery { is_metered: true, ..GOOD };
        let small = Machinery { memory: limits::ELECTION_MEMORY - 1, ..GOOD };
        for machinery in [battery, metered, small] {
            let mut core = volunteer(machinery);
            core.appraised(peer(1), invited(1));
            assert!(!core.is_willing() && !core.begins(Time::ZERO), "{machinery:?}");
            core.set_willing(Willing::Always);
            assert!(core.is_willing(), "its user wants it in any case");
        }
        let mut core = volunteer(GOOD);
        core.appraised(peer(1), invited(1));
        core.set_willing(Willing::Never);
        assert!(!core.is_willing() && !core.begins(Time::ZERO));
    }

    #[test]
    fn criteria_say_what_is_and_what_should_be() {
        let mut core = volunteer(GOOD);
        let public = Some("203.0.113.9".parse().unwrap());
        let met =
            |core: &Candidacy, name: &str, at| core.criteria(at).into_iter().find(|row| row.name == name).unwrap().met;
        assert_eq!(core.criteria(public).len(), 9);
        for unknown in ["reachable", "uptime", "bandwidth", "loss", "prefix", "demand"] {
            assert_eq!(met(&core, unknown, public), None, "{unknown}");
        }
        core.appraised(peer(1), invited(1));
        assert!(core.criteria(public).iter().all(|row| row.met == Some(true)), "{:?}", core.criteria(public));
        let slow = Measured { uptime_s: 65, bandwidth_kbit: 2_340, loss_ppm: 20_000, stability: 1000 };
        core.appraised(
            peer(1),
            Appraisal { measured: slow, demand: false, has_place: false, reached: Some(false), ..invited(1) },
        );
        for short in ["reachable", "uptime", "bandwidth", "loss", "prefix", "demand"] {
            assert_eq!(met(&core, short, public), Some(false), "{short}");
        }
        let have: Vec<_> = core.criteria(public).into_iter().filter_map(|row| row.have).collect();
        for words in ["1m5s", "sends 2.3 Mbit/s", "2.0 % of packets lost"] {
            assert!(have.iter().any(|have| have == words), "{words} in {have:?}");
        }
        let private = Some("10.0.0.1".parse().unwrap());
        for waived in ["uptime", "bandwidth", "loss"] {
            assert_eq!(met(&core, waived, private), Some(true), "{waived}");
        }
    }
}
