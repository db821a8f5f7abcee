//! Text as the language defines it, character by character, with the tables of `regex-syntax`.

use std::sync::LazyLock;

use regex_syntax::hir::{ClassUnicode, HirKind};
use unicode_normalization::UnicodeNormalization;

static LETTERS: LazyLock<ClassUnicode> = LazyLock::new(|| class(r"[\p{L}\p{N}]"));
static MARKS: LazyLock<ClassUnicode> = LazyLock::new(|| class(r"[\p{M}]"));
/// The long-vowel sign is common to both kana and belongs to no script of its own.
static CJK: LazyLock<ClassUnicode> = LazyLock::new(|| class(r"[\p{Han}\p{Hiragana}\p{Katakana}ー]"));

fn class(pattern: &str) -> ClassUnicode {
    match regex_syntax::parse(pattern).expect("a pattern").into_kind() {
        HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => class,
        other => panic!("{other:?}"),
    }
}

fn within(class: &ClassUnicode, c: char) -> bool {
    let ranges = class.ranges();
    ranges.get(ranges.partition_point(|range| range.end() < c)).is_some_and(|range| range.start() <= c)
}

/// What stands at one position of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A word that is not of Han or kana.
    Word(String),
    /// A character of Han or kana, and the number of its run.
    Cjk(char, usize),
}

/// The positions of a text.
pub(crate) fn cells(text: &str) -> Vec<Cell> {
    let decomposed: String = text.nfkd().collect();
    let lower = decomposed.to_lowercase().replace('ς', "σ");
    let plain: String = lower.chars().filter(|c| !within(&MARKS, *c)).collect::<String>().nfc().collect();
    let mut cells = Vec::new();
    let mut word = String::new();
    let mut run = 0;
    for c in plain.chars().chain([' ']) {
        let letter = within(&LETTERS, c);
        let cjk = letter && within(&CJK, c);
        if (cjk || !letter) && !word.is_empty() {
            cells.push(Cell::Word(std::mem::take(&mut word)));
        }
        match (letter, cjk) {
            (true, true) => cells.push(Cell::Cjk(c, run)),
            (true, false) => word.push(c),
            (false, _) => {}
        }
        run += usize::from(!cjk);
    }
    cells
}

/// Letters and digits of a text.
pub(crate) fn letters(text: &str) -> usize {
    let length = |cell: &Cell| match cell {
        Cell::Word(word) => word.chars().count(),
        Cell::Cjk(..) => 1,
    };
    cells(text).iter().map(length).sum()
}

/// Words of a query that must follow each other in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phrase {
    wanted: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Word(String),
    Start(String),
    /// Characters of one run of the query: the field's must be of one run too, unless it is only one.
    Cjk(Vec<char>),
}

impl Phrase {
    /// `None` if there is no letter or digit.
    pub(crate) fn new(text: &str, prefix: bool) -> Option<Self> {
        let mut wanted = Vec::new();
        let mut last = None;
        for cell in cells(text) {
            match (cell, wanted.last_mut()) {
                (Cell::Cjk(c, run), Some(Wanted::Cjk(chars))) if last == Some(run) => chars.push(c),
                (Cell::Cjk(c, run), _) => {
                    wanted.push(Wanted::Cjk(vec![c]));
                    last = Some(run);
                }
                (Cell::Word(word), _) => {
                    wanted.push(Wanted::Word(word));
                    last = None;
                }
            }
        }
        if prefix && let Some(end @ Wanted::Word(_)) = wanted.last_mut() {
            let Wanted::Word(word) = end else { unreachable!("matched above") };
            *end = Wanted::Start(std::mem::take(word));
        }
        (!wanted.is_empty()).then_some(Self { wanted })
    }

    /// True if the field holds it.
    pub(crate) fn is_in(&self, field: &[Cell]) -> bool {
        (0..field.len()).any(|start| {
            let mut rest = &field[start..];
            self.wanted.iter().all(|wanted| match wanted.take(rest) {
                Some(after) => {
                    rest = after;
                    true
                }
                None => false,
            })
        })
    }
}

impl Wanted {
    /// What follows it, if the field begins with it.
    fn take<'a>(&self, field: &'a [Cell]) -> Option<&'a [Cell]> {
        match (self, field) {
            (Self::Word(word), [Cell::Word(have), rest @ ..]) if word == have => Some(rest),
            (Self::Start(start), [Cell::Word(have), rest @ ..]) if have.starts_with(start) => Some(rest),
            (Self::Cjk(chars), [Cell::Cjk(_, first), ..]) => {
                let (mine, rest) = field.split_at_checked(chars.len())?;
                let same =
                    |(cell, c): (&Cell, &char)| matches!(cell, Cell::Cjk(have, run) if have == c && run == first);
                mine.iter().zip(chars).all(same).then_some(rest)
            }
            _ => None,
        }
    }
}
