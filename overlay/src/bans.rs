//! Core: who is not dealt with here, and what is neither given, fetched nor shown.
//!
//! A ban has a target: a peer by its key, a range of addresses, or a content. It was made at run time, for a while or for
//! good, or it stands in a file that an operator keeps.
//!
//! | module | what it is |
//! |---|---|
//! | [`rules`] | what is banned at this moment, for those who must ask fast |
//! | [`list`] | lists in files |
//! | `keeper` | the bans of a daemon: its list on disk, the files, and who must follow |
//!
//! Invariants: a target is banned once, and what a file says goes before what was made at run time, which it does not
//! erase; what has expired is not there; the rules follow from the book alone.

#[cfg(feature = "net")]
pub mod keeper;
pub mod list;
pub mod rules;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

pub use self::rules::Rules;
use crate::{
    address::Prefix,
    id::{ContentId, PeerId},
    limits,
};

/// What a ban is about. Displaying it gives a text that parses to the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A node, wherever it is.
    Peer(PeerId),
    /// All nodes in a range of addresses.
    Prefix(Prefix),
    /// A content, whoever has it.
    Content(ContentId),
}

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A node.
    Peer,
    /// A range of addresses.
    Prefix,
    /// A content.
    Content,
}

impl Kind {
    /// Its name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Prefix => "prefix",
            Self::Content => "content",
        }
    }
}

impl Target {
    /// What it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Peer(_) => Kind::Peer,
            Self::Prefix(_) => Kind::Prefix,
            Self::Content(_) => Kind::Content,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Content(content) => content.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    /// Reads a whole peer id, a whole content id, an address, or a range of addresses.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.contains('/') || text.parse::<IpAddr>().is_ok() {
            let prefix = text.parse().map_err(|error: crate::address::AddressError| TargetError(error.to_string()))?;
            return Ok(Self::Prefix(prefix));
        }
        let id = match text.len() {
            PeerId::TEXT_LEN => text.parse().map(Self::Peer),
            ContentId::TEXT_LEN => text.parse().map(Self::Content),
            _ => {
                return Err(TargetError(format!("`{text}` is no peer id, content id or address prefix")));
            }
        };
        id.map_err(|error| TargetError(error.to_string()))
    }
}

impl Serialize for Target {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is no target of a ban. The fault is the writer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

/// Where a ban comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It was made at run time.
    Settings,
    /// It stands in a list.
    File,
}

impl Origin {
    /// Its name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::File => "file",
        }
    }
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// What it is about.
    pub target: Target,
    /// Why, in the words of whoever made it.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was made, or first read, in seconds since 1970 UTC.
    pub created_s: i64,
    /// From when it counts no more, in seconds since 1970 UTC; `None` is never.
    #[serde(default)]
    pub expires_s: Option<i64>,
}

impl Ban {
    /// True if it counts no more.
    pub fn has_expired(&self, now_s: i64) -> bool {
        self.expires_s.is_some_and(|at| at <= now_s)
    }
}

/// What became of a wish to lift a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// It is lifted.
    Lifted,
    /// It stands in a list, and is lifted there only.
    Listed,
    /// There is none.
    Unknown,
}

/// All bans: at most [`limits::BANS`] made at run time and [`limits::BANS_LISTED`] of lists.
#[derive(Clone, Debug, Default)]
pub struct Book {
    made: BTreeMap<Target, Ban>,
    listed: BTreeMap<Target, Ban>,
}

impl Book {
    /// Of bans that were made at run time.
    pub fn new(made: impl IntoIterator<Item = Ban>) -> Self {
        let made = made.into_iter().take(limits::BANS).map(|ban| (ban.target, ban)).collect();
        Self { made, listed: BTreeMap::new() }
    }

    /// Takes a ban that is made at run time, in place of an earlier one of its target. False if there is no room.
    pub fn add(&mut self, ban: Ban) -> bool {
        if self.made.len() >= limits::BANS && !self.made.contains_key(&ban.target) {
            return false;
        }
        self.made.insert(ban.target, ban);
        true
    }

    /// Lifts a ban that was made at run time, unless a list has its target as well.
    pub fn lift(&mut self, target: &Target) -> Lifted {
        if self.listed.contains_key(target) {
            return Lifted::Listed;
        }
        if self.made.remove(target).is_some() { Lifted::Lifted } else { Lifted::Unknown }
    }

    /// The lists say this now. What they said before keeps the time at which it was first read. False if some had no
    /// room.
    pub fn set_listed(&mut self, listed: impl IntoIterator<Item = Ban>) -> bool {
        let before = std::mem::take(&mut self.listed);
        for ban in listed {
            if self.listed.len() >= limits::BANS_LISTED && !self.listed.contains_key(&ban.target) {
                return false;
            }
            let created_s = before.get(&ban.target).map_or(ban.created_s, |known| known.created_s);
            self.listed.insert(ban.target, Ban { created_s, ..ban });
        }
        true
    }

    /// Forgets what has expired. True if that was anything.
    pub fn expire(&mut self, now_s: i64) -> bool {
        let before = self.made.len();
        self.made.retain(|_, ban| !ban.has_expired(now_s));
        self.made.len() < before
    }

    /// When the next one expires, in seconds since 1970 UTC.
    pub fn next_expiry(&self) -> Option<i64> {
        self.made.values().filter_map(|ban| ban.expires_s).min()
    }

    /// All bans, each target once, by target.
    pub fn iter(&self) -> impl Iterator<Item = (&Ban, Origin)> {
        let made = self.made.values().filter(|ban| !self.listed.contains_key(&ban.target));
        let mut all: Vec<_> = made.map(|ban| (ban, Origin::Settings)).collect();
        all.extend(self.listed.values().map(|ban| (ban, Origin::File)));
        all.sort_unstable_by_key(|(ban, _)| ban.target);
        all.into_iter()
    }

    /// The ban of a target.
    pub fn get(&self, target: &Target) -> Option<(&Ban, Origin)> {
        let listed = self.listed.get(target).map(|ban| (ban, Origin::File));
        listed.or_else(|| self.made.get(target).map(|ban| (ban, Origin::Settings)))
    }

    /// What is banned.
    pub fn rules(&self) -> Rules {
        Rules::new(self.made.keys().chain(self.listed.keys()).copied())
    }
}
