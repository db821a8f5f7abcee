//! The objects of the HTTP API; `status`, `peer` and `ban`, which both programs have, are in [`overlay::report`]. The daemon answers with them, the commands read them, and with `--json` print
//! them with their `type`.
//!
//! Names and meaning of the fields are promised to other programs: fields are added, never renamed, and all are
//! always there. What is unknown is `None`. Units are in the names: `_ms` milliseconds, `_s` seconds, `_at` RFC 3339
//! in UTC; sizes are bytes, rates bytes a second.

use overlay::{
    file::{self, Kind},
    id::{ContentId, PeerId},
    wire::search::{self as wire, Reachability, StopReason},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_id::text;
pub use crate::{
    download::record::{Done, Download, Failed, Priority, Progress, Queued, Reason, State},
    store::{Share, SkipReason, Skipped},
    transfer::{Via, serve::Upload},
};
pub use overlay::{config::OptionRow, report::timestamp};

/// `POST searches`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SearchRequest {
    /// What is looked for, in the query language.
    pub query: String,
    /// Contents wanted, 1 to 1,000; 60 if absent, 10,000 with `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Time for all of it; 10,000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Ask every home that holds a match; false if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// The answer that names what was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// Its name from now on.
    pub id: String,
}

/// A search with all it found so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Search {
    /// Its name.
    pub id: String,
    /// What is looked for, as it was given.
    pub query: String,
    /// Whether it goes on.
    pub state: SearchState,
    /// One for each content.
    pub hits: Vec<Hit>,
    /// How it ended; `None` while it runs.
    pub summary: Option<Summary>,
}

/// Whether a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchState {
    /// Hits may come.
    Running,
    /// It has its summary.
    Done,
}

/// A content that matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    /// What it is.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    /// The most frequent file name.
    pub name: String,
    /// From the share's name to the file, of the best source.
    pub path: String,
    /// File names, most frequent first, at most 10.
    pub names: Vec<String>,
    /// By the extension of the name.
    pub kind: Kind,
    /// Of the file that tells most.
    pub tags: Tags,
    /// Last change, of the best source.
    pub modified_at: Option<String>,
    /// Live leaves that hold it whole, this one too.
    pub sources: u32,
    /// Free upload slots of the listed peers together.
    pub free_slots: u32,
    /// The best sources, at most 8.
    pub peers: Vec<HitPeer>,
    /// Whether it is here.
    pub have: Have,
    /// How well it matches and how easily it is had: the higher, the better.
    #[serde(default)]
    pub score: u32,
}

impl Hit {
    /// A hit of the network as it is shown.
    pub fn new(hit: &wire::Hit, have: Have) -> Self {
        let names: Vec<String> = hit.names.iter().map(|name| String::from(&**name)).collect();
        let name = shown_name(hit);
        let peers: Vec<HitPeer> = hit.peers.iter().map(HitPeer::new).collect();
        Self {
            content: hit.content,
            size: hit.size,
            kind: Kind::of_name(&name),
            name,
            path: hit.path.to_string(),
            names,
            tags: Tags::from(&hit.tags),
            modified_at: timestamp(hit.modified_s),
            sources: hit.sources,
            free_slots: peers.iter().map(|peer| u32::from(peer.free_slots)).sum(),
            peers,
            have,
            score: hit.score,
        }
    }
}

/// The most frequent file name of a hit.
pub(crate) fn shown_name(hit: &wire::Hit) -> String {
    hit.names.first().map_or_else(|| file::file_name(&hit.path).to_owned(), |name| String::from(&**name))
}

/// A source of a hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HitPeer {
    /// The leaf.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub peer: PeerId,
    /// Whether others can dial it.
    pub reachability: Reachability,
    /// Upload slots that are free.
    pub free_slots: u16,
    /// Downloaders that wait.
    pub queue: u32,
}

impl HitPeer {
    fn new(peer: &wire::HitPeer) -> Self {
        Self { peer: peer.peer, reachability: peer.reachability, free_slots: peer.free_slots, queue: peer.queue }
    }
}

/// Whether a content is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Have {
    /// Not a byte.
    No,
    /// A download of it is there.
    Partial,
    /// Shared, or downloaded.
    Yes,
}

/// Media tags; only what is known is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tags {
    /// Who performs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artist: Option<String>,
    /// The collection it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub album: Option<String>,
    /// Its title.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its genre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genre: Option<String>,
    /// Year of release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub year: Option<u16>,
    /// Number within the album.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<u16>,
    /// kbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u32>,
    /// Length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u32>,
}

impl From<&file::Tags> for Tags {
    fn from(tags: &file::Tags) -> Self {
        let text = |tag: &Option<Box<str>>| tag.as_deref().map(str::to_owned);
        Self {
            artist: text(&tags.artist),
            album: text(&tags.album),
            title: text(&tags.title),
            genre: text(&tags.genre),
            year: tags.year,
            track: tags.track,
            bitrate: tags.bitrate,
            duration_s: tags.duration_s,
        }
    }
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Contents given out.
    pub hits: u32,
    /// True if no live match is missing: it stopped because all were asked, and no reason speaks against it.
    pub complete: bool,
    /// Why it ended.
    pub stopped: StopReason,
    /// Why something may be missing although all were asked.
    pub incomplete_reasons: Vec<String>,
    /// Ultrapeers that received the query, the coordinator included.
    pub ultrapeers_asked: u32,
    /// Ultrapeers that the coordinator knows to be alive.
    pub ultrapeers_total: u32,
    /// Parts of the leaf space that were asked.
    pub shards_asked: u32,
    /// Parts of the leaf space.
    pub shards_total: u32,
    /// Leaves whose lists were searched.
    pub leaves_covered: u64,
    /// Leaves that there are.
    pub leaves_total: u64,
    /// Copies of the query sent from node to node, this leaf's own included.
    pub messages: u32,
    /// Contents held back by bans.
    pub withheld: u32,
    /// From sending to the first hit.
    pub first_hit_ms: Option<f64>,
    /// From sending to the end.
    pub elapsed_ms: f64,
}

impl Summary {
    /// The end of a search of this leaf, as it is shown. `withheld` counts the contents that its own bans held
    /// back besides; they are not among the hits given out.
    pub fn new(end: &crate::search::End, withheld: u32) -> Self {
        let summary = &end.summary;
        Self {
            hits: end.hits.saturating_sub(withheld),
            complete: summary.stopped == StopReason::Exhausted && summary.incomplete.is_empty(),
            stopped: summary.stopped,
            incomplete_reasons: summary.incomplete.iter().map(|reason| reason.name().to_owned()).collect(),
            ultrapeers_asked: summary.ultrapeers_asked,
            ultrapeers_total: summary.ultrapeers_total,
            shards_asked: summary.shards_asked,
            shards_total: summary.shards_total,
            leaves_covered: summary.leaves_covered,
            leaves_total: summary.leaves_total,
            messages: summary.messages,
            withheld: summary.withheld.saturating_add(withheld),
            first_hit_ms: end.first_hit.filter(|_| end.hits > withheld).map(milliseconds),
            elapsed_ms: milliseconds(end.elapsed),
        }
    }
}

/// A line of a listing, with its `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Listed {
    /// A folder.
    Folder(Folder),
    /// A file.
    Entry(Entry),
}

/// A folder of a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Folder {
    /// From the share's name down.
    pub path: String,
    /// Its last component.
    pub name: String,
    /// Files in it and below.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A file of a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// From the share's name to the file.
    pub path: String,
    /// The file name.
    pub name: String,
    /// What it holds.
    #[serde(with = "text")]
    #[schemars(with = "String")]
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    /// Last change.
    pub modified_at: Option<String>,
    /// By the extension of the name.
    pub kind: Kind,
    /// What the file says about itself.
    pub tags: Tags,
}

impl From<&file::FileEntry> for Entry {
    fn from(entry: &file::FileEntry) -> Self {
        Self {
            path: entry.path.clone(),
            name: entry.name().to_owned(),
            content: entry.content,
            size: entry.size,
            modified_at: timestamp(entry.modified_s),
            kind: entry.kind(),
            tags: Tags::from(&entry.tags),
        }
    }
}

/// What the node moved, in steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Seconds of a step.
    pub step_s: u64,
    /// When the first step began.
    pub from_at: Option<String>,
    /// The steps.
    pub series: Series,
}

/// Bytes a second in each step, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// To others.
    pub upload: Vec<u64>,
    /// From others.
    pub download: Vec<u64>,
}

/// `POST shares`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NewShare {
    /// The folder, absolute.
    pub path: String,
}

/// A standing query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wish {
    /// Its name.
    pub id: String,
    /// What is looked for, as it was given.
    pub query: String,
    /// Whether what is found is downloaded.
    pub download: bool,
    /// Bytes above which it is not downloaded; `None` is unlimited.
    pub max_size: Option<u64>,
    /// Contents that it found, those of the last [`overlay::limits::WISH_HITS`] that are shown.
    pub hits: u64,
    /// When it was made.
    pub created_at: Option<String>,
    /// When it last found something.
    pub last_hit_at: Option<String>,
}

/// `POST wishes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WishRequest {
    /// What is looked for, in the query language.
    pub query: String,
    /// Whether to download what is found; false if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<bool>,
    /// Bytes above which it is not downloaded; unlimited if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
}

/// `POST downloads`: a content, or a file or folder of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct NewDownload {
    /// A content id, in either case, or a unique prefix of one that is known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The file name, if another than the sources'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// An absolute path: a folder if it exists as one or ends with `/`, else the new file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// `low`, `normal` or `high`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Priority>")]
    pub priority: Option<String>,
    /// A peer id or a unique prefix of one that is known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// A path in a share of that peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The answer to `POST downloads`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NewDownloads {
    /// One job for each file of a folder.
    Folder {
        /// The jobs.
        items: Vec<Download>,
    },
    /// The job of one content.
    One(Box<Download>),
}

/// `PATCH downloads/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct DownloadChange {
    /// `paused`, `queued` or `cancelled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// `low`, `normal` or `high`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Priority>")]
    pub priority: Option<String>,
}

/// Milliseconds with their fraction, to a microsecond.
fn milliseconds(span: std::time::Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay::wire::{
        bounded::{List, Text},
        search::{Incomplete, IncompleteSet},
    };
    use serde::de::DeserializeOwned;

    use super::*;

    /// The same text comes out as went in, so names and order of the fields are as promised.
    fn assert_same<T: Serialize + DeserializeOwned>(json: &str) {
        let read: T = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }

    #[test]
    fn objects_have_the_promised_fields() {
        let (content, peer) = (ContentId([0xab; 32]), PeerId([7; 32]));
        assert_same::<Hit>(&format!(
            r#"{{"content":"{content}","size":123,"name":"a b.flac","path":"Music/x/a b.flac","names":["a b.flac"],"kind":"audio","tags":{{"artist":"x","year":1999}},"modified_at":"2026-01-31T10:00:00Z","sources":2,"free_slots":5,"peers":[{{"peer":"{peer}","reachability":"public","free_slots":5,"queue":0}}],"have":"no","score":7}}"#
        ));
        assert_same::<Summary>(
            r#"{"hits":1,"complete":true,"stopped":"exhausted","incomplete_reasons":[],"ultrapeers_asked":2,"ultrapeers_total":3,"shards_asked":1,"shards_total":1,"leaves_covered":40,"leaves_total":40,"messages":2,"withheld":0,"first_hit_ms":1.9,"elapsed_ms":3.4}"#,
        );
        assert_same::<Wish>(
            r#"{"id":"a1","query":"x ext:ogg","download":true,"max_size":5,"hits":2,"created_at":"2026-01-31T10:00:00Z","last_hit_at":null}"#,
        );
        assert_same::<Listed>(r#"{"type":"folder","path":"Music/x","name":"x","files":3,"bytes":9}"#);
        assert_same::<Listed>(&format!(
            r#"{{"type":"entry","path":"Music/x.mp3","name":"x.mp3","content":"{content}","size":1,"modified_at":null,"kind":"audio","tags":{{}}}}"#
        ));
    }

    #[test]
    fn hits_of_the_network_are_shown_in_full() {
        let peer = |seed, free_slots| wire::HitPeer {
            peer: PeerId([seed; 32]),
            homes: List::default(),
            reachability: Reachability::Natted,
            free_slots,
            queue: 1,
        };
        let hit = wire::Hit {
            content: ContentId([1; 32]),
            size: 9,
            score: 0,
            names: List::default(),
            path: Text::new("Music/a.ogg"),
            modified_s: 0,
            tags: file::Tags { year: Some(1999), ..file::Tags::default() },
            sources: 2,
            networks: 2,
            peers: List::new([peer(1, 3), peer(2, 4)]),
            holders: List::default(),
        };
        let shown = Hit::new(&hit, Have::Partial);
        assert_eq!((shown.name.as_str(), shown.kind, shown.free_slots), ("a.ogg", Kind::Audio, 7));
        assert_eq!(shown.modified_at.as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(serde_json::to_string(&shown.tags).unwrap(), r#"{"year":1999}"#);
        assert_eq!(Hit::new(&wire::Hit { modified_s: i64::MAX, ..hit }, Have::No).modified_at, None);
    }

    #[test]
    fn a_search_is_complete_only_if_it_was_exhausted_without_a_reason_against() {
        let mut end = crate::search::End {
            summary: wire::Summary::default(),
            hits: 3,
            first_hit: Some(Duration::from_micros(1900)),
            elapsed: Duration::from_micros(3400),
            no_ultrapeer: false,
        };
        let shown = Summary::new(&end, 1);
        assert_eq!((shown.complete, shown.hits, shown.withheld), (true, 2, 1));
        assert_eq!((shown.first_hit_ms, shown.elapsed_ms), (Some(1.9), 3.4));
        end.summary.incomplete = IncompleteSet::default();
        end.summary.incomplete.insert(Incomplete::DigestLag);
        let shown = Summary::new(&end, 0);
        assert_eq!((shown.complete, shown.incomplete_reasons), (false, vec!["digest_lag".to_owned()]));
        end.summary = wire::Summary { stopped: StopReason::Timeout, ..wire::Summary::default() };
        assert!(!Summary::new(&end, 0).complete);
    }
}
