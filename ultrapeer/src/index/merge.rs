//! The making of one run from several.
//!
//! A merge reads runs that do not change meanwhile, goes on for as long as it is told to, and leaves out the
//! chunks that were gone when it began: the numbers of all files behind them move down. It reads each table from its
//! first entry to the last, always the least of all heads next.

use std::sync::Arc;

use super::{
    contents, dictionary,
    runs::{Fixed, Run},
};

/// A merge of neighbouring runs.
#[derive(Debug)]
pub(super) struct Merging {
    sources: Vec<Source>,
    words: dictionary::Builder,
    contents: contents::Builder,
    /// Weight of the chunks that are taken over.
    weight: usize,
    token: Vec<u8>,
}

/// A run that is merged.
#[derive(Debug)]
struct Source {
    run: Arc<Fixed>,
    /// Numbers of its chunks that are taken over.
    kept: Box<[u32]>,
    moves: Moves,
    words: dictionary::Walk,
    contents: contents::Walk,
}

/// Where files go: stretches, ascending, of those that are taken over.
#[derive(Debug, Default)]
struct Moves(Vec<Move>);

#[derive(Debug)]
struct Move {
    start: u32,
    end: u32,
    to: u32,
}

impl Moves {
    /// Appends a stretch that is not empty.
    fn push(&mut self, start: u32, end: u32, to: u32) {
        match self.0.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => self.0.push(Move { start, end, to }),
        }
    }

    /// The stretches from the one on that ends above `file`.
    fn from(&self, file: u32) -> &[Move] {
        &self.0[self.0.partition_point(|stretch| stretch.end <= file)..]
    }

    fn of(&self, file: u32) -> Option<u32> {
        let stretch = self.from(file).first().filter(|stretch| stretch.start <= file)?;
        Some(file - stretch.start + stretch.to)
    }

    /// Calls `each` with the parts of a span that are taken over, where they go.
    #[inline]
    fn each_part(&self, (start, end): (u32, u32), mut each: impl FnMut(u32, u32)) {
        for stretch in self.from(start).iter().take_while(|stretch| stretch.start < end) {
            let (from, until) = (start.max(stretch.start), end.min(stretch.end));
            each(from - stretch.start + stretch.to, until - stretch.start + stretch.to);
        }
    }
}

impl Merging {
    /// Of runs in their order, without the chunks that are gone now.
    pub(super) fn new(runs: &[Arc<Run>]) -> Self {
        let mut files = 0;
        let source = |run: &Arc<Run>| {
            let fixed = run.fixed();
            let kept: Box<[u32]> =
                (0..fixed.slots.len() as u32).filter(|number| run.chunk(*number).is_some()).collect();
            let mut moves = Moves::default();
            for number in &kept {
                let (start, end) = (run.start(*number), run.start(number + 1));
                if start < end {
                    moves.push(start, end, files);
                }
                files += end - start;
            }
            let (words, contents) = (dictionary::Walk::new(&fixed.words), contents::Walk::new(&fixed.contents));
            Source { run: Arc::clone(fixed), kept, moves, words, contents }
        };
        let sources: Vec<Source> = runs.iter().map(source).collect();
        let records = sources.iter().map(|source| source.run.contents.len()).sum();
        Self {
            sources,
            words: dictionary::Builder::default(),
            contents: contents::Builder::new(records, files),
            weight: runs.iter().map(|run| run.live()).sum(),
            token: Vec::new(),
        }
    }

    /// True if it takes that run in.
    pub(super) fn has(&self, run: &Run) -> bool {
        self.sources.iter().any(|source| Arc::ptr_eq(&source.run, run.fixed()))
    }

    /// Runs that it takes in.
    pub(super) fn runs(&self) -> usize {
        self.sources.len()
    }

    /// The chunks of the new run: which run each was in, and its number there.
    pub(super) fn kept(&self) -> impl Iterator<Item = (usize, u32)> {
        self.sources.iter().enumerate().flat_map(|(run, source)| source.kept.iter().map(move |number| (run, *number)))
    }

    /// Goes on for about that many entries. True if all is done.
    pub(super) fn step(&mut self, mut entries: usize) -> bool {
        while entries > 0 && self.step_token(&mut entries) {}
        while entries > 0 && self.step_content() {
            entries -= 1;
        }
        self.sources.iter().all(|source| source.words.is_done() && source.contents.head().is_none())
    }

    /// Merges the least token; false if there is none.
    fn step_token(&mut self, entries: &mut usize) -> bool {
        let heads = self.sources.iter().map(|source| &source.words).filter(|walk| !walk.is_done());
        let Some(least) = heads.min_by(|a, b| a.first.cmp(&b.first).then_with(|| a.token.cmp(&b.token))) else {
            return false;
        };
        let first = least.first;
        self.token.clone_from(&least.token);
        for Source { run, moves, words, .. } in &mut self.sources {
            if words.is_done() || words.first != first || words.token != self.token {
                continue;
            }
            for span in words.list(&run.words) {
                moves.each_part(span, |start, end| self.words.push(start, end));
                *entries = entries.saturating_sub(1);
            }
            words.advance(&run.words);
        }
        self.words.end_token(&self.token);
        true
    }

    /// Takes over the least content; false if there is none.
    fn step_content(&mut self) -> bool {
        let heads = self.sources.iter_mut().filter_map(|source| Some((source.contents.head()?, source)));
        // Of equals the one of the first source.
        let Some(((key, file), source)) = heads.min_by_key(|((key, _), _)| *key) else { return false };
        if let Some(file) = source.moves.of(file) {
            self.contents.push(key, file);
        }
        source.contents.advance(&source.run.contents);
        true
    }

    /// What of the new run does not change, once all is done.
    pub(super) fn finish(self) -> Fixed {
        let kept =
            || self.sources.iter().flat_map(|source| source.kept.iter().map(|number| (&source.run, *number as usize)));
        let slots = kept().map(|(run, number)| run.slots[number]).collect();
        let mut starts = vec![0];
        for (run, number) in kept() {
            starts.push(starts[starts.len() - 1] + run.starts[number + 1] - run.starts[number]);
        }
        let starts = starts.into();
        Fixed { words: self.words.finish(), contents: self.contents.finish(), slots, starts, weight: self.weight }
    }
}
