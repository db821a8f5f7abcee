//! Lists of bans in files: one target a line, `#` begins a comment, which is taken for the reason.

use super::{Kind, Target};
use crate::limits;

/// What a list may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListKind {
    /// Peers and prefixes: the key `ban_list`.
    Bans,
    /// Contents: the key `block_list`.
    Blocks,
}

impl ListKind {
    /// The key of the configuration that names such lists.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Bans => "ban_list",
            Self::Blocks => "block_list",
        }
    }

    const fn takes(self, target: &Target) -> bool {
        matches!(target.kind(), Kind::Content) == matches!(self, Self::Blocks)
    }
}

/// A line that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is banned.
    pub target: Target,
    /// Why, if the line says so.
    pub reason: Option<String>,
}

/// A line that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

/// What a list holds: the lines that count, at most [`limits::BANS_LISTED`], and those that do not, of which the first
/// [`limits::BAD_LINES_TOLD`] are told.
pub fn parse(text: &str, kind: ListKind) -> (Vec<Entry>, Vec<BadLine>) {
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let (target, comment) = line.split_once('#').unwrap_or((line, ""));
        let (target, comment) = (target.trim(), comment.trim());
        if target.is_empty() {
            continue;
        }
        let why = match target.parse::<Target>() {
            Ok(_) if entries.len() >= limits::BANS_LISTED => "there are too many lines before it".to_owned(),
            Ok(target) if kind.takes(&target) => {
                let reason = (!comment.is_empty()).then(|| shortened(comment));
                entries.push(Entry { target, reason });
                continue;
            }
            Ok(target) => {
                let wanted = match kind {
                    ListKind::Bans => "`ban_list` takes peers and prefixes",
                    ListKind::Blocks => "`block_list` takes contents",
                };
                format!("it is a {}, and {wanted}", target.kind().name())
            }
            Err(error) => error.to_string(),
        };
        if bad.len() < limits::BAD_LINES_TOLD {
            bad.push(BadLine { line: number, why });
        }
    }
    (entries, bad)
}

/// As many characters as a reason may have.
pub fn shortened(reason: &str) -> String {
    reason.chars().take(limits::BAN_REASON_CHARACTERS).collect()
}
