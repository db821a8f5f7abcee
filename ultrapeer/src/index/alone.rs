//! Chunks on their own: what standing queries need, which are compared with what is new and not with all there is.
//!
//! A query is filed under its rarest word, or under a beginning of words or the items of a list filter if those are
//! rarer: every file that matches holds one of its [`Key`]s, so a chunk that holds none need not be looked at.

use std::sync::Arc;

use overlay::{file::FileEntry, query::Query};

use super::{
    ChunkSlot, Index, LeafSlot, Snapshot,
    lookup::{Plan, Wanted},
    segment::{KeptSegment, Segment},
};

/// What every file that matches a query holds, or one of a few such.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A token.
    Token(Box<str>),
    /// A token that begins so.
    Prefix(Box<str>),
}

impl Snapshot {
    /// The keys of a query that the fewest files of this state hold.
    pub fn keys(&self, query: &Query) -> Vec<Key> {
        let plan = Plan::new(query);
        let rarest = plan.required().iter().min_by_key(|wanted| self.holding(wanted));
        match rarest {
            None => Vec::new(),
            Some(Wanted::Token(token)) => vec![Key::Token((*token).into())],
            Some(Wanted::Prefix(prefix)) => vec![Key::Prefix((*prefix).into())],
            Some(Wanted::AnyOf(tokens)) => tokens.iter().map(|token| Key::Token(token.as_str().into())).collect(),
        }
    }

    /// A state that holds one chunk of a leaf.
    pub fn of(leaf: LeafSlot, segment: Arc<Segment>) -> Arc<Self> {
        let mut index = Index::new();
        index.add(leaf, segment);
        index.publish();
        index.reader().snapshot()
    }

    /// What is kept of a chunk; `None` if it is not of this state, or a digest.
    pub fn kept(&self, slot: ChunkSlot) -> Option<KeptSegment> {
        self.chunk(slot)?.side.files().cloned().map(KeptSegment::of)
    }

    /// Files that hold what is wanted; of prefixes and lists that may be too many.
    fn holding(&self, wanted: &Wanted<'_>) -> u64 {
        let of_all = |holding: &dyn Fn(&super::dictionary::Dictionary) -> u64| {
            self.runs.iter().map(|run| holding(run.words())).sum::<u64>()
        };
        match wanted {
            Wanted::Token(token) => of_all(&|words| words.holding(token.as_bytes())),
            Wanted::Prefix(prefix) => of_all(&|words| words.holding_prefixed(prefix.as_bytes(), super::RARITY_TOKENS)),
            Wanted::AnyOf(tokens) => of_all(&|words| tokens.iter().map(|token| words.holding(token.as_bytes())).sum()),
        }
    }
}

impl Segment {
    /// Calls `each` for every token, ascending.
    pub fn each_token(&self, mut each: impl FnMut(&str)) {
        self.words.each_token(|token, _| {
            // They were text when the segment was made, or were checked to be.
            if let Ok(token) = std::str::from_utf8(token) {
                each(token);
            }
        });
    }
}

impl KeptSegment {
    /// The places of those of its files whose contents are not among `before`, which ascend; `None` if that is all.
    pub fn without(&self, before: &[overlay::id::ContentId]) -> Option<Vec<u16>> {
        let contents = self.contents();
        let is_new = |(place, content)| before.binary_search(content).is_err().then_some(place);
        let new: Vec<u16> = (0..).zip(contents).filter_map(is_new).collect();
        (new.len() < contents.len()).then_some(new)
    }

    /// The segment of some of its files, named by their ascending places; `None`: of all.
    pub fn build_some(&self, places: Option<&[u16]>) -> Segment {
        let Some(places) = places else { return self.build() };
        let is_meant = |place: u16| places.binary_search(&place).is_ok();
        let files: Vec<FileEntry> =
            (0..).zip(self.files()).filter(|(place, _)| is_meant(*place)).map(|(_, file)| file).collect();
        Segment::build(&files).expect("some of the files of a segment are a segment")
    }
}

#[cfg(test)]
mod tests {
    use overlay::{file::Tags, id::ContentId};

    use super::*;

    fn file(path: &str, content: u8) -> FileEntry {
        FileEntry {
            path: path.into(),
            content: ContentId([content; 32]),
            size: 1,
            modified_s: 0,
            tags: Tags::default(),
        }
    }

    fn keys(snapshot: &Snapshot, query: &str) -> Vec<Key> {
        snapshot.keys(&query.parse().expect("a query"))
    }

    #[test]
    fn a_query_is_filed_under_what_fewest_files_hold() {
        let files = [file("Music/red rose.mp3", 1), file("Music/red tulip.ogg", 2), file("Music/rosette.txt", 3)];
        let snapshot = Snapshot::of(LeafSlot(1), Arc::new(Segment::build(&files).expect("a segment")));
        let token = |text: &str| vec![Key::Token(text.into())];
        assert_eq!(keys(&snapshot, "red tulip"), token("tulip"));
        assert_eq!(keys(&snapshot, "music \"red rose\" -tulip"), token("rose"));
        assert_eq!(keys(&snapshot, "ros* music"), [Key::Prefix("ros".into())]);
        assert_eq!(keys(&snapshot, "music ext:ogg"), token(":ext:ogg"));
        assert_eq!(keys(&snapshot, "ext:ogg,flac size:>1").len(), 2);
        assert_eq!(keys(&snapshot, "artist:nobody music"), token("nobody"));
    }

    #[test]
    fn files_that_were_there_before_are_told_apart() {
        let files = [file("a", 1), file("b", 2), file("c", 3)];
        let kept = Segment::build(&files).expect("a segment").kept();
        let before = [ContentId([2; 32]), ContentId([9; 32])];
        assert_eq!(kept.without(&before), Some(vec![0, 2]));
        assert_eq!(kept.without(&before[1..]), None);
        let some = kept.build_some(Some(&[0, 2]));
        let mut tokens = Vec::new();
        some.each_token(|token| tokens.push(token.to_owned()));
        assert_eq!((some.files(), tokens), (2, vec![":kind:other".to_owned(), "a".to_owned(), "c".to_owned()]));
    }
}
