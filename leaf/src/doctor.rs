//! Pure: what `doctor` makes of what it saw.

use std::net::{IpAddr, SocketAddr};

use overlay::{
    address::Reach,
    introduction::Mapping,
    report::{Check, Status},
};

/// What ultrapeers said of this machine.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Where they see it.
    pub observed: Vec<SocketAddr>,
    /// Addresses of this machine itself.
    pub own: Vec<IpAddr>,
    /// How ports are chosen, as far as they can tell.
    pub mapping: Mapping,
    /// Whether one of them could dial it; `None` if none tried.
    pub reached: Option<bool>,
    /// The UDP port of this machine.
    pub port: u16,
}

/// A check that went well.
pub fn good(name: &str, message: impl Into<String>) -> Check {
    Check { name: name.to_owned(), ok: Some(true), message: message.into(), hint: None }
}

/// A check that did not.
pub fn bad(name: &str, message: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { ok: Some(false), hint: Some(hint.into()), ..good(name, message) }
}

/// A check that could not be tried.
pub fn untried(name: &str, message: impl Into<String>) -> Check {
    Check { ok: None, ..good(name, message) }
}

impl Seen {
    /// Where others see this machine, what is in front of it, and whether they can dial it.
    pub fn checks(&self) -> Vec<Check> {
        if self.observed.is_empty() {
            let why = "no ultrapeer was reached that could tell";
            return ["addresses", "nat", "reachable"].into_iter().map(|name| untried(name, why)).collect();
        }
        let seen: Vec<_> = self.observed.iter().map(ToString::to_string).collect();
        vec![good("addresses", format!("others see this machine at {}", seen.join(", "))), self.nat(), self.reachable()]
    }

    /// True if a NAT lies between this machine and those that see it.
    fn is_behind_nat(&self) -> bool {
        self.observed.iter().any(|seen| !self.own.contains(&seen.ip().to_canonical()))
    }

    fn nat(&self) -> Check {
        if !self.is_behind_nat() {
            let site = self.observed.iter().all(|seen| Reach::of(seen.ip()) != Reach::World);
            let whose =
                if site { "only ultrapeers of this machine or site were asked" } else { "its address is its own" };
            return good("nat", format!("there is no NAT in front of this machine: {whose}"));
        }
        match self.mapping {
            Mapping::Steady => good(
                "nat",
                "there is a NAT that keeps one port for all destinations: leaves behind such NATs reach each other \
                 through them",
            ),
            Mapping::Changing if self.reached == Some(true) => good(
                "nat",
                "there is a NAT that takes another port for each destination, and lets others in nevertheless",
            ),
            Mapping::Changing => bad(
                "nat",
                "there is a NAT that takes another port for each destination (a symmetric one): leaves behind other \
                 NATs are reached over relays only, which are slow",
                format!(
                    "set the router to forward UDP port {} to this machine, or its kind of NAT to `full cone` or \
                     `endpoint independent`; or use IPv6",
                    self.port
                ),
            ),
            Mapping::Unknown => {
                untried("nat", "there is a NAT; of which kind would be known if a second ultrapeer was reached")
            }
        }
    }

    fn reachable(&self) -> Check {
        match self.reached {
            None => untried("reachable", "no ultrapeer tried to dial this machine from outside"),
            Some(true) => good("reachable", "an ultrapeer dialled this machine from outside and was answered"),
            Some(false) => Check {
                hint: Some(format!(
                    "for faster transfers and to be able to volunteer, let UDP port {} through the firewall of this \
                     machine, and forward it on the router",
                    self.port
                )),
                ..good(
                    "reachable",
                    "ultrapeers could not dial this machine from outside: others are dialled by it, or come through \
                     its NAT with the help of its homes",
                )
            },
        }
    }
}

/// What a daemon that runs says of itself.
pub fn of_daemon(status: &Status) -> Check {
    let running =
        format!("a daemon runs, and is {}", if status.ready { "in the network" } else { "not in the network" });
    match status.problems.first() {
        None => good("daemon", running),
        Some(first) => {
            let all: Vec<_> = status.problems.iter().map(|problem| problem.message.as_str()).collect();
            let hint = first.hint.clone().unwrap_or_else(|| "`quictrack status` tells more".to_owned());
            bad("daemon", format!("{running}, but: {}", all.join("; ")), hint)
        }
    }
}

/// Whether what a disk has free is enough.
pub fn of_disk(name: &str, folder: &str, free: Option<u64>, margin: u64) -> Check {
    match free {
        None => untried(name, format!("the system does not tell what is free in {folder}")),
        Some(free) if free < margin => {
            bad(name, format!("the disk of {folder} is full"), "make room on it, or choose another folder")
        }
        Some(free) => good(name, format!("{} free in {folder}", overlay::units::size(free))),
    }
}

/// Whether the clock can be right: shares, lists and wishes carry times.
pub fn of_clock(now_s: u64) -> Check {
    /// 2026-01-01: before the first release.
    const FIRST: u64 = 1_767_225_600;
    if now_s < FIRST {
        return bad("clock", "the clock of this machine is years behind", "set the clock, best by NTP");
    }
    good("clock", "the clock is plausible")
}

#[cfg(test)]
mod tests {
    use overlay::report::Problem;

    use super::*;

    fn seen(observed: &[&str], own: &str, mapping: Mapping, reached: Option<bool>) -> Seen {
        let observed = observed.iter().map(|address| address.parse().unwrap()).collect();
        Seen { observed, own: vec![own.parse().unwrap()], mapping, reached, port: 7780 }
    }

    fn oks(checks: &[Check]) -> Vec<(&str, Option<bool>)> {
        checks.iter().map(|check| (check.name.as_str(), check.ok)).collect()
    }

    #[test]
    fn kinds_of_nat_are_told_apart() {
        for (seen, nat, reachable, says) in [
            (
                seen(&["203.0.113.1:7780"], "203.0.113.1", Mapping::Unknown, Some(true)),
                Some(true),
                Some(true),
                "no NAT",
            ),
            (seen(&["127.0.0.1:7780"], "127.0.0.1", Mapping::Unknown, Some(true)), Some(true), Some(true), "site"),
            (seen(&["203.0.113.1:7780"], "10.0.0.1", Mapping::Steady, Some(false)), Some(true), Some(true), "one port"),
            (seen(&["203.0.113.1:7780"], "10.0.0.1", Mapping::Unknown, Some(false)), None, Some(true), "second"),
            (
                seen(&["203.0.113.1:9"], "10.0.0.1", Mapping::Changing, Some(false)),
                Some(false),
                Some(true),
                "symmetric",
            ),
            (seen(&["203.0.113.1:9"], "10.0.0.1", Mapping::Changing, None), Some(false), None, "symmetric"),
            (
                seen(&["203.0.113.1:9"], "10.0.0.1", Mapping::Changing, Some(true)),
                Some(true),
                Some(true),
                "lets others",
            ),
        ] {
            let checks = seen.checks();
            assert_eq!(oks(&checks), [("addresses", Some(true)), ("nat", nat), ("reachable", reachable)], "{seen:?}");
            assert!(checks[1].message.contains(says), "{}", checks[1].message);
            assert_eq!(checks[1].hint.is_some(), nat == Some(false));
            assert_eq!(checks[2].hint.is_some(), seen.reached == Some(false));
        }
        assert!(Seen::default().checks().iter().all(|check| check.ok.is_none()));
    }

    #[test]
    fn problems_of_a_daemon_are_told_with_the_hint_of_the_first() {
        let problem =
            |message: &str| Problem { message: message.into(), hint: Some("mend it".into()), ..Problem::default() };
        let status = Status { problems: vec![problem("one"), problem("two")], ..Status::default() };
        let check = of_daemon(&status);
        assert_eq!((check.ok, check.hint.as_deref()), (Some(false), Some("mend it")));
        assert!(check.message.ends_with("one; two"));
        assert_eq!(of_daemon(&Status { ready: true, ..Status::default() }).ok, Some(true));
    }

    #[test]
    fn disks_and_clocks_are_judged() {
        assert_eq!(of_disk("disk", "/x", None, 5).ok, None);
        assert_eq!(of_disk("disk", "/x", Some(4), 5).ok, Some(false));
        assert_eq!(of_disk("disk", "/x", Some(5), 5).ok, Some(true));
        assert_eq!((of_clock(0).ok, of_clock(1_800_000_000).ok), (Some(false), Some(true)));
    }
}
