//! The query language: from what a person typed to a flat list of conditions.
//!
//! A query is at most [`limits::QUERY_TERMS`] terms that must all hold; nothing nests, so evaluating it
//! needs no recursion. Words are already normalised ([`crate::text`]), extensions and kinds are sorted
//! lists, numbers are in base units. Ages stay ages: they are resolved against the `now` that the
//! evaluator passes, so a standing query keeps meaning "younger than 30 days".
//!
//! A query travels as its source text and every receiver parses it again. Invariants: parsing never
//! panics and takes time linear in the text; [`Query`]'s `Display` is a normal form that parses to an
//! equal query, unless decomposition made it longer than [`limits::QUERY_CHARS`].
//!
//! ```text
//! query   = [ term { space term } ]
//! term    = [ "-" ] ( phrase | filter | word )
//! phrase  = '"' text '"'                    \" and \\ stand for themselves
//! word    = text without space [ "*" ]      "*" after 3 or more letters or digits: prefix
//! filter  = name ":" ( list | words | compare )
//! compare = [ "=" | ">" | ">=" | "<" | "<=" ] x  |  x ".." [ x ]  |  ".." x
//! ```
//!
//! ```text
//!   source ─ parse::parse ─> Query { terms: [ negated? condition ] }
//!              └ value: numbers, sizes, durations, dates, comparisons
//! ```

mod parse;
mod value;

use std::{fmt, str::FromStr};

pub use value::{AgeUnit, Compare, Modified};

use crate::{file::Kind, limits, text::Tokenizer};

/// A search as its evaluator sees it: every term must hold. At least one is positive and not a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    terms: Vec<Term>,
}

impl Query {
    /// Parses the source text of a query.
    pub fn parse(source: &str) -> Result<Self, QueryError> {
        parse::parse(source).map(|terms| Self { terms })
    }

    /// Its terms in the order of the source: 1 to [`limits::QUERY_TERMS`].
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(source: &str) -> Result<Self, QueryError> {
        Self::parse(source)
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{term}")?;
        }
        Ok(())
    }
}

/// One term of a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// True if files for which the condition holds are excluded.
    pub negated: bool,
    /// What must (not) hold.
    pub condition: Condition,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.negated { "-" } else { "" }, self.condition)
    }
}

/// What a term asks of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// One field of any sort holds the words, one after the other.
    Text(Text),
    /// That tag holds the words, one after the other.
    Tag(TextTag, Text),
    /// The extension, in lower case, is one of these. Sorted, not empty.
    Extension(Vec<Box<str>>),
    /// The kind is one of these. Sorted, not empty.
    Kind(Vec<Kind>),
    /// Bytes.
    Size(Compare<u64>),
    /// The tag `year`.
    Year(Compare<u64>),
    /// The tag `bitrate`, in kbit/s.
    Bitrate(Compare<u64>),
    /// The tag `duration_s`, in seconds.
    Duration(Compare<u64>),
    /// The time of the last change.
    Modified(Modified),
}

impl Condition {
    /// True for those that compare a number: alone they would ask for nearly everything.
    pub const fn is_comparison(&self) -> bool {
        matches!(self, Self::Size(_) | Self::Year(_) | Self::Bitrate(_) | Self::Duration(_) | Self::Modified(_))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Tag(tag, text) => write!(f, "{}:{text}", tag.name()),
            Self::Extension(list) => {
                // One leading dot is forgiven, so an item that begins with one needs another.
                let dotted = |item: &str| if item.starts_with('.') { format!(".{item}") } else { item.to_owned() };
                let items: Vec<_> = list.iter().map(|item| dotted(item)).collect();
                write!(f, "ext:{}", items.join(","))
            }
            Self::Kind(list) => {
                let names: Vec<_> = list.iter().map(|kind| kind.name()).collect();
                write!(f, "kind:{}", names.join(","))
            }
            Self::Size(compare) => write!(f, "size:{compare}"),
            Self::Year(compare) => write!(f, "year:{compare}"),
            Self::Bitrate(compare) => write!(f, "bitrate:{compare}"),
            Self::Duration(compare) => write!(f, "duration:{compare}"),
            Self::Modified(modified) => write!(f, "modified:{modified}"),
        }
    }
}

/// The tags that have a filter of their own for words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextTag {
    /// Who performs it.
    Artist,
    /// The collection it belongs to.
    Album,
    /// Its title.
    Title,
}

impl TextTag {
    /// The name of its filter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Artist => "artist",
            Self::Album => "album",
            Self::Title => "title",
        }
    }
}

/// Words that must follow each other within one field; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    tokens: Vec<TextToken>,
    /// Positions that they take.
    positions: u32,
    /// The runs, with one space between: the source's normal form.
    normal: String,
}

/// One token to look for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TextToken {
    /// Normalised text.
    pub text: Box<str>,
    /// Its position within the phrase, from 0 on, in the sense of [`crate::text`].
    pub position: u32,
    /// True if it stands for every token that begins with it.
    pub prefix: bool,
}

impl Text {
    /// The normalised words of `source`; the last one stands for everything that begins with it if
    /// `prefix`. `None` if there is no letter or digit.
    fn new(tokenizer: &mut Tokenizer, source: &str, prefix: bool) -> Option<Self> {
        let mut text = Self { tokens: Vec::new(), positions: 0, normal: String::new() };
        let mut last_is_word = false;
        tokenizer.runs(source, |run| {
            if !text.normal.is_empty() {
                text.normal.push(' ');
            }
            text.normal.push_str(run.text);
            text.tokens.extend(run.query_tokens().map(|(position, token)| TextToken {
                text: token.into(),
                position: text.positions + position,
                prefix: run.is_lone_cjk(),
            }));
            text.positions += run.positions();
            last_is_word = !run.cjk;
        });
        // Bigrams are never longer than two, so only a word can have something behind it.
        text.tokens.last_mut()?.prefix |= prefix && last_is_word;
        Some(text)
    }

    /// Its tokens in order of position; at least one.
    pub fn tokens(&self) -> &[TextToken] {
        &self.tokens
    }

    /// Positions that its tokens take: a word one, Han and kana one for each character.
    pub const fn positions(&self) -> u32 {
        self.positions
    }

    /// Letters and digits in it.
    fn letters(&self) -> usize {
        self.normal.chars().filter(|c| *c != ' ').count()
    }

    /// True if the last word was asked for as a prefix.
    fn ends_in_star(&self) -> bool {
        self.tokens.last().is_some_and(|token| token.prefix && !token.text.chars().all(crate::text::is_cjk))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ends_in_star() {
            write!(f, "{}*", self.normal.replace(' ', "/"))
        } else if self.normal.contains(' ') {
            write!(f, "\"{}\"", self.normal)
        } else {
            f.write_str(&self.normal)
        }
    }
}

/// Why a text is no query. The fault is its author's; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (at character {position})")]
pub struct QueryError {
    /// The first offending character, from 1. One past the end if something is missing there.
    pub position: usize,
    /// What is wrong with it.
    pub kind: QueryErrorKind,
}

impl QueryError {
    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self.kind {
            QueryErrorKind::TooLong | QueryErrorKind::TooManyTerms => "use fewer words: all of them must match",
            QueryErrorKind::UnclosedQuote => "close the phrase with a second \", or leave the quote out",
            QueryErrorKind::MisplacedStar => "put * last in a word, or the words in quotes to search for the text",
            QueryErrorKind::ShortPrefix => "write more of the word before the *",
            QueryErrorKind::EmptyValue { .. } => "write the value right after the colon, or put the text in quotes",
            QueryErrorKind::UnreadableValue { .. } | QueryErrorKind::UnfinishedValue { .. } => {
                "correct the value, or put the whole text in quotes to search for it"
            }
            QueryErrorKind::QuotedValue { .. } => {
                "leave these quotes out, or put the whole text in quotes to search for it"
            }
            QueryErrorKind::UnknownKind => {
                "the kinds are audio, video, image, document, archive, software and other; ext: names an extension"
            }
            QueryErrorKind::TooLarge { .. } => "write a smaller number",
            QueryErrorKind::NoMonth => "write a month from 01 to 12, as in 2026-01-31",
            QueryErrorKind::NoDay { .. } => "write a day that the month has, from 01 on",
            QueryErrorKind::SwappedRange => "write the smaller value first",
            QueryErrorKind::ExactAge => "write <30d for younger than 30 days, or >30d for older",
            QueryErrorKind::TooBroad => "add a word to search for, or a kind: or ext: filter",
        }
    }
}

/// What is wrong with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryErrorKind {
    /// More than [`limits::QUERY_CHARS`] characters.
    #[error("the query is longer than {} characters", limits::QUERY_CHARS)]
    TooLong,
    /// More than [`limits::QUERY_TERMS`] terms.
    #[error("the query has more than {} terms", limits::QUERY_TERMS)]
    TooManyTerms,
    /// A phrase does not end.
    #[error("this quote is never closed")]
    UnclosedQuote,
    /// A `*` that does not end a word.
    #[error("* is only allowed at the end of a word")]
    MisplacedStar,
    /// A `*` after fewer than [`limits::PREFIX_CHARS`] letters or digits.
    #[error("* needs {} or more letters or digits before it", limits::PREFIX_CHARS)]
    ShortPrefix,
    /// Nothing stands after the filter's colon, an operator, or a comma.
    #[error("{filter}: has no value here")]
    EmptyValue {
        /// The filter's name.
        filter: &'static str,
    },
    /// The value is not of the filter's sort.
    #[error("{filter}: takes {want}; `{}` does not belong here", found.escape_debug())]
    UnreadableValue {
        /// The filter's name.
        filter: &'static str,
        /// What it takes, in words.
        want: &'static str,
        /// The first character that does not fit.
        found: char,
    },
    /// The value ends where more of it must stand.
    #[error("{filter}: takes {want}; here its value ends too early")]
    UnfinishedValue {
        /// The filter's name.
        filter: &'static str,
        /// What it takes, in words.
        want: &'static str,
    },
    /// A quote in the value of a filter that takes no phrase.
    #[error("{filter}: takes {want}, without quotes")]
    QuotedValue {
        /// The filter's name.
        filter: &'static str,
        /// What it takes, in words.
        want: &'static str,
    },
    /// No kind has that name.
    #[error("there is no such kind")]
    UnknownKind,
    /// The number does not fit in 64 bits.
    #[error("{filter}: this number is too large, no file has it")]
    TooLarge {
        /// The filter's name.
        filter: &'static str,
    },
    /// The month of a date is not one of 01 to 12.
    #[error("there is no such month")]
    NoMonth,
    /// The month of a date does not have that day.
    #[error("there is no such day: this month has {days}")]
    NoDay {
        /// Days that it has.
        days: u8,
    },
    /// The first end of a range is above the second.
    #[error("the ends of this range are swapped")]
    SwappedRange,
    /// An age without comparison or range: no file is exactly that old.
    #[error("an age needs a comparison or a range")]
    ExactAge,
    /// No positive term other than comparisons.
    #[error("the query is too broad: it says nothing that a file must hold")]
    TooBroad,
}

#[cfg(test)]
mod tests;
