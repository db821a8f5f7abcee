//! Messages between leaves.
//!
//! ```text
//! control stream   both: Hello, Welcome | Refuse, Goodbye
//! one stream each  downloader: Open          uploader: NotHeld | Opened, Have.., then Queued.., Granted, Revoked
//!                  downloader: Want          uploader: Pieces and the raw bytes | Denied
//!                  downloader: WantSegment   uploader: Segment | Denied
//!                  downloader: WantGroups    uploader: Groups | Denied
//!                  downloader: WantPart      uploader: Pieces and the raw bytes | Denied
//!                  downloader: Spoiled
//!                  downloader: WantFiles     uploader: Queued.., then Files.. | NotHeld
//!                  downloader: Browse        uploader: Page | Denied
//! ```
//!
//! Meanwhile, on the stream of the session: `Others` and `Suggest` from the uploader, `Appetite` from the downloader.
//!
//! The stream of [`Open`] is the *session* of one content: it lives as long as the downloader wants the
//! content from this uploader. While a slot is granted, [`Want`] is answered; values and pages are always.
//! Nothing that an uploader says is believed: values and bytes are checked against the content id.

use serde::{Deserialize, Serialize};

use super::{
    bounded::{Blob, List, Text},
    hello::{Goodbye, HELLO_CAP, Hello, REFUSE_CAP, Refuse, Welcome},
    messages,
};
use crate::{
    file::{FileEntry, is_plain},
    id::{ContentId, PeerId},
    limits,
    verify::{SEGMENT_PIECES, Value},
};

messages! {
    /// What leaves say to each other.
    pub enum TransferMessage {
        /// The first frame of the side that dialled.
        1 Hello(Hello) up to HELLO_CAP,
        /// It is let in.
        2 Welcome(Welcome) up to HELLO_CAP,
        /// It is not.
        3 Refuse(Refuse) up to REFUSE_CAP,
        /// The sender leaves in order.
        4 Goodbye(Goodbye) up to REFUSE_CAP,
        /// The downloader wants a content: begins its session.
        5 Open(Open) up to limits::HOMES * 32 + 64,
        /// The uploader does not have it. Ends the session.
        6 NotHeld(NotHeld) up to 64,
        /// The uploader has it, or a part of it.
        7 Opened(Opened) up to limits::TOPS * 32 + 64,
        /// Which pieces a holder of a part has.
        8 Have(Have) up to limits::HAVE_PART_BYTES + 64,
        /// The downloader waits for a slot.
        9 Queued(Queued) up to 64,
        /// It has a slot: [`Want`] is answered from now on.
        10 Granted(Granted) up to 64,
        /// Its turn is over; it waits again.
        11 Revoked(Revoked) up to 64,
        /// Asks for pieces.
        12 Want(Want) up to 64,
        /// They follow, as raw bytes behind this frame.
        13 Pieces(Pieces) up to 64,
        /// No.
        14 Denied(Denied) up to 64,
        /// Asks for the piece values of a segment.
        15 WantSegment(WantSegment) up to 64,
        /// These are they.
        16 Segment(Segment) up to SEGMENT_PIECES as usize * 32 + 64,
        /// Asks for the group values of a piece.
        17 WantGroups(WantGroups) up to 64,
        /// These are they.
        18 Groups(Groups) up to limits::GROUPS_PER_PIECE * 32 + 64,
        /// Asks for a page of the uploader's shares.
        19 Browse(Browse) up to 2 * limits::PATH_BYTES + 64,
        /// This is it.
        20 Page(Page) up to limits::PAGE_BYTES,
        /// Others who have a part of the session's content.
        21 Others(Others) up to limits::OTHERS_TOLD * (limits::HOMES + 1) * 33 + 64,
        /// Which pieces the uploader would rather send than others.
        22 Suggest(Suggest) up to 64,
        /// The downloader has nothing to ask for now, or has again.
        23 Appetite(Appetite) up to 64,
        /// Asks for some groups of a piece of which others came wrong from elsewhere.
        24 WantPart(WantPart) up to 64,
        /// What the receiver sent for a piece was wrong.
        25 Spoiled(Spoiled) up to 64,
        /// Asks for many small files at once.
        26 WantFiles(WantFiles) up to limits::BUNDLE_FILES * 32 + 64,
        /// These are they, or some of them.
        27 Files(Files) up to limits::FILES_BYTES,
    }
}

/// The downloader wants a content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Which.
    pub content: ContentId,
    /// The homes through which others may ask to be introduced to the downloader, for what it has of the content. Without
    /// any it is named to nobody.
    pub homes: List<PeerId, { limits::HOMES }>,
}

/// Others who have something of the content. Never addresses: whoever wants to reach one asks for an introduction, and it
/// agrees first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// They, or some of them.
    pub others: List<Other, { limits::OTHERS_TOLD }>,
}

/// Somebody else who has something of the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Who.
    pub peer: PeerId,
    /// Its homes, as it told them.
    pub homes: List<PeerId, { limits::HOMES }>,
}

/// Pieces that the uploader has sent to the fewest. A downloader that asks for these first has something that others lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggest {
    /// The first.
    pub first: u64,
    /// How many, in `1..=`[`limits::RUN_PIECES`].
    pub count: u32,
}

/// Asks for neighbouring groups of a piece, which are answered as [`Pieces`] of that piece alone, with the bytes of these
/// groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantPart {
    /// Of which content; its session must be open and granted.
    pub content: ContentId,
    /// Which piece, from 0.
    pub piece: u64,
    /// The first group.
    pub first: u32,
    /// How many, in `1..=`[`limits::GROUPS_PER_PIECE`].
    pub count: u32,
}

/// The uploader sent something wrong: before it is left for that, it may look whether its disk is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoiled {
    /// Of which content.
    pub content: ContentId,
    /// Which piece, from 0.
    pub piece: u64,
}

/// Asks for small contents, whole and without a session for each. The stream waits for one slot for all of them, and ends
/// with the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantFiles {
    /// Which.
    pub contents: List<ContentId, { limits::BUNDLE_FILES }>,
}

/// Small contents in the order in which they were asked for, going on where the message before ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The bytes of each; `None` if it is not here, is larger than [`limits::SMALL_FILE_BYTES`], or is one too many for
    /// [`limits::RUN_BYTES`].
    pub files: List<Option<Blob<{ limits::SMALL_FILE_BYTES }>>, { limits::BUNDLE_FILES }>,
}

/// Whether the downloader would ask for something if it had a slot. One that would not gives its slot or its turn to
/// others, and keeps its place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appetite {
    /// True if it would; so it is from the beginning.
    pub wants: bool,
}

/// The uploader has nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotHeld {
    /// Why.
    pub reason: DenyReason,
}

/// The uploader has the content or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Bytes of the content: a claim until its last piece is verified.
    pub size: u64,
    /// True if it has all pieces; otherwise [`Have`] follows.
    pub complete: bool,
    /// The segment values, as many as the size demands.
    pub tops: List<Value, { limits::TOPS }>,
}

/// A part of the bitmap of pieces that the uploader has verified: replaces what it said of these before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The first piece that the part speaks of, a multiple of 8.
    pub first: u64,
    /// One bit for each piece, the first one highest.
    pub bits: Blob<{ limits::HAVE_PART_BYTES }>,
}

/// The downloader waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its place in the queue, from 1.
    pub position: u32,
}

/// The downloader has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Bytes after which the turn ends if others wait then.
    pub turn_bytes: u64,
}

/// The downloader's turn is over. Requests that were accepted are still answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its new place in the queue, from 1.
    pub position: u32,
}

/// Asks for a run of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Of which content; its session must be open and granted.
    pub content: ContentId,
    /// The first piece.
    pub first: u64,
    /// How many, in `1..=`[`limits::RUN_PIECES`].
    pub count: u32,
}

/// The head of a run of pieces; its bytes follow on the stream without frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// The first piece, as asked.
    pub first: u64,
    /// How many, as asked.
    pub count: u32,
    /// Bytes that follow: what these pieces have by the content's size.
    pub bytes: u64,
}

/// A request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Why.
    pub reason: DenyReason,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DenyReason {
    /// The content, the piece or the folder is not here.
    NotHeld,
    /// The session has no slot now.
    NotGranted,
    /// The file is no longer what was hashed.
    Changed,
    /// The queue or the number of requests is at its cap.
    Busy,
    /// The operator or user blocked it.
    Blocked,
    /// The request makes no sense: out of range, or too much at once.
    Malformed,
    /// The peer had as much today as one peer may have.
    Quota,
}

impl DenyReason {
    /// The reason in words, for logs and messages.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotHeld => "it does not have this",
            Self::NotGranted => "it gave no slot",
            Self::Changed => "its file has changed",
            Self::Busy => "it is busy",
            Self::Blocked => "it blocks this",
            Self::Malformed => "it does not understand the request",
            Self::Quota => "it has sent as much as it gives to one peer in a day",
        }
    }
}

/// Asks for the piece values of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantSegment {
    /// Of which content.
    pub content: ContentId,
    /// Which segment, from 0.
    pub segment: u64,
}

/// The piece values of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// As many as the size demands.
    pub pieces: List<Value, { SEGMENT_PIECES as usize }>,
}

/// Asks for the group values of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantGroups {
    /// Of which content.
    pub content: ContentId,
    /// Which piece, from 0.
    pub piece: u64,
}

/// The group values of a piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// As many as the size demands.
    pub groups: List<Value, { limits::GROUPS_PER_PIECE }>,
}

/// Asks for a page of a share. Folders come first, then files, each in the order of their paths' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Browse {
    /// The folder, from the share's name down; empty for the list of shares.
    pub path: Text<{ limits::PATH_BYTES }>,
    /// True for everything below it, false for what lies directly in it.
    pub recursive: bool,
    /// Where the page before ended.
    pub after: Cursor,
    /// Folders and files together that the page may have; more than [`limits::PAGE_ENTRIES`] count as that.
    pub limit: u16,
}

/// A place in a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cursor {
    /// Before its beginning.
    #[default]
    Start,
    /// Behind the folder of this path.
    Folder(Text<{ limits::PATH_BYTES }>),
    /// Behind all folders and the file of this path.
    File(Text<{ limits::PATH_BYTES }>),
}

impl Cursor {
    /// True if a listing that goes on from here is shorter than one that goes on from `other`.
    pub fn is_after(&self, other: &Self) -> bool {
        let rank = |cursor: &Self| match cursor {
            Self::Start => (0, String::new()),
            Self::Folder(path) => (1, path.to_string()),
            Self::File(path) => (2, path.to_string()),
        };
        rank(self) > rank(other)
    }
}

impl Page {
    /// What of a page answers `request`: plain folders and acceptable files at or below its path, whatever else its
    /// sender lists. `None` if the next page begins where one of these began, so that the listing has no end.
    pub fn answering(self, request: &Browse) -> Option<Self> {
        if self.next.as_ref().is_some_and(|next| !next.is_after(&request.after)) {
            return None;
        }
        let path = &*request.path;
        let is_below = |other: &str| {
            other.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with('/'))
        };
        let is_folder = |folder: &FolderEntry| is_below(&folder.path) && is_plain(&folder.path);
        let is_file = |file: &FileEntry| is_below(&file.path) && !file.is_unlisted() && file.check().is_ok();
        Some(Self {
            folders: List::new(self.folders.into_iter().filter(is_folder)),
            entries: List::new(self.entries.into_iter().filter(is_file)),
            next: self.next,
        })
    }
}

/// A page of a share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Folders.
    pub folders: List<FolderEntry, { limits::PAGE_ENTRIES }>,
    /// Files. Not to be believed before [`Self::answering`].
    pub entries: List<FileEntry, { limits::PAGE_ENTRIES }>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A folder of a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderEntry {
    /// From the share's name to the folder, without a `/` at the end.
    pub path: Text<{ limits::PATH_BYTES }>,
    /// Files anywhere below it.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        file::Tags,
        wire::{DecodeError, frame},
    };

    fn round_trip(message: impl Into<TransferMessage>) -> usize {
        let message = message.into();
        let mut bytes = Vec::new();
        frame::encode(&message, &mut bytes).expect("fits its cap");
        let (decoded, used) = frame::decode(&bytes).expect("decodes").expect("is whole");
        assert_eq!((decoded, used), (Some(message), bytes.len()));
        bytes.len()
    }

    #[test]
    fn of_a_page_only_what_was_asked_for_counts_and_it_must_lead_on() {
        let file = |path: &str| FileEntry {
            path: path.into(),
            content: ContentId([1; 32]),
            size: 1,
            modified_s: 0,
            tags: Tags::default(),
        };
        let folder = |path: &str| FolderEntry { path: Text::new(path), files: 1, bytes: 1 };
        let request = |path: &str, after| Browse { path: Text::new(path), recursive: false, after, limit: 9 };
        let paths = ["Music/x", "Music/x/y", "Music/xy", "Music", "Music/x/../../etc", "/etc/x", "", "Music/x//y"];
        let page = |next| Page {
            folders: List::new(paths.map(folder)),
            entries: List::new(paths.map(file).into_iter().chain([FileEntry::unlisted(ContentId([2; 32]), 1)])),
            next,
        };
        let answer = page(None).answering(&request("Music/x", Cursor::Start)).expect("it ends");
        assert_eq!(answer.folders.iter().map(|folder| &*folder.path).collect::<Vec<_>>(), ["Music/x", "Music/x/y"]);
        assert_eq!(answer.entries.iter().map(|file| &*file.path).collect::<Vec<_>>(), ["Music/x", "Music/x/y"]);
        let all = page(None).answering(&request("", Cursor::Start)).expect("it ends");
        assert_eq!((all.folders.len(), all.entries.len()), (4, 3));

        let cursors = ["", "a", "b"].map(|path| [Cursor::Folder(Text::new(path)), Cursor::File(Text::new(path))]);
        let [[f0, e0], [f1, e1], [f2, e2]] = cursors;
        let order = [Cursor::Start, f0, f1, f2, e0, e1, e2];
        for (at, after) in order.iter().enumerate() {
            for (to, next) in order.iter().enumerate() {
                let leads_on = page(Some(next.clone())).answering(&request("", after.clone())).is_some();
                assert_eq!(leads_on, to > at, "{after:?} {next:?}");
            }
        }
    }

    #[test]
    fn the_largest_of_each_kind_fits_its_cap() {
        let content = ContentId([0xff; 32]);
        let value = [0xff; 32];
        let path = Text::new(&"x".repeat(limits::PATH_BYTES));
        let peer = PeerId([0xff; 32]);
        let homes = List::new([peer; limits::HOMES]);
        round_trip(Open { content, homes: homes.clone() });
        round_trip(Others { others: List::new(vec![Other { peer, homes }; limits::OTHERS_TOLD]) });
        round_trip(Suggest { first: u64::MAX, count: u32::MAX });
        round_trip(Appetite { wants: true });
        round_trip(WantPart { content, piece: u64::MAX, first: u32::MAX, count: u32::MAX });
        round_trip(Spoiled { content, piece: u64::MAX });
        round_trip(NotHeld { reason: DenyReason::NotHeld });
        round_trip(Opened { size: u64::MAX, complete: false, tops: List::new(vec![value; limits::TOPS]) });
        round_trip(Have { first: u64::MAX, bits: Blob::new(vec![0xff; limits::HAVE_PART_BYTES]).expect("fits") });
        round_trip(Queued { position: u32::MAX });
        round_trip(Granted { turn_bytes: u64::MAX });
        round_trip(Revoked { position: u32::MAX });
        round_trip(Want { content, first: u64::MAX, count: u32::MAX });
        round_trip(Pieces { first: u64::MAX, count: u32::MAX, bytes: u64::MAX });
        round_trip(Denied { reason: DenyReason::Malformed });
        round_trip(WantSegment { content, segment: u64::MAX });
        round_trip(Segment { pieces: List::new(vec![value; SEGMENT_PIECES as usize]) });
        round_trip(WantGroups { content, piece: u64::MAX });
        round_trip(Groups { groups: List::new(vec![value; limits::GROUPS_PER_PIECE]) });
        let after = Cursor::File(path.clone());
        round_trip(Browse { path, recursive: true, after, limit: u16::MAX });
    }

    #[test]
    fn the_bytes_of_a_request_are_these() {
        let mut bytes = Vec::new();
        let want = Want { content: ContentId([7; 32]), first: 300, count: 4 };
        frame::encode(&TransferMessage::Want(want), &mut bytes).expect("fits");
        let mut expected = vec![35, 0, 0, 0, 12, 0];
        expected.extend([7; 32]);
        expected.extend([0xac, 0x02, 4]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn more_values_than_a_list_may_have_are_refused() {
        let mut body = vec![1];
        body.extend([0, 0x81, 0x10]);
        body.extend(vec![0; (limits::TOPS + 1) * 32]);
        let refused = <TransferMessage as crate::wire::Message>::decode(7, &body);
        assert_eq!(refused, Err(DecodeError::Malformed { message: "Opened" }));
    }
}
