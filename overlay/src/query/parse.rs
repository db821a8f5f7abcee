//! The parser: one pass over the characters, without recursion.
//!
//! Curly quotes become straight ones first, so positions in characters stay what the author sees.

use super::{
    Condition, QueryError, QueryErrorKind, Term, Text, TextTag,
    value::{self, Piece, ValueError},
};
use crate::{file::Kind, limits, text::Tokenizer};

/// Reads the terms of a query.
pub(super) fn parse(source: &str) -> Result<Vec<Term>, QueryError> {
    let straight = |c| if matches!(c, '“' | '”' | '„' | '‟') { '"' } else { c };
    let chars: Vec<char> = source.chars().take(limits::QUERY_CHARS + 1).map(straight).collect();
    if chars.len() > limits::QUERY_CHARS {
        return Err(error(limits::QUERY_CHARS, QueryErrorKind::TooLong));
    }
    let mut parser = Parser { chars, at: 0, tokenizer: Tokenizer::new(), terms: Vec::new() };
    while parser.skip_space() {
        parser.term()?;
    }
    if !parser.terms.iter().any(|term| !term.negated && !term.condition.is_comparison()) {
        return Err(error(0, QueryErrorKind::TooBroad));
    }
    Ok(parser.terms)
}

/// An error at the character with that index.
const fn error(index: usize, kind: QueryErrorKind) -> QueryError {
    QueryError { position: index + 1, kind }
}

/// What stands before a colon that makes a filter.
#[derive(Clone, Copy)]
enum Filter {
    Tag(TextTag),
    Extension,
    Kind,
    Size,
    Year,
    Bitrate,
    Duration,
    Modified,
}

impl Filter {
    const ALL: [Self; 10] = [
        Self::Tag(TextTag::Artist),
        Self::Tag(TextTag::Album),
        Self::Tag(TextTag::Title),
        Self::Extension,
        Self::Kind,
        Self::Size,
        Self::Year,
        Self::Bitrate,
        Self::Duration,
        Self::Modified,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Tag(tag) => tag.name(),
            Self::Extension => "ext",
            Self::Kind => "kind",
            Self::Size => "size",
            Self::Year => "year",
            Self::Bitrate => "bitrate",
            Self::Duration => "duration",
            Self::Modified => "modified",
        }
    }

    /// What its value must be, in words.
    const fn want(self) -> &'static str {
        match self {
            Self::Tag(_) => "a word or a phrase",
            Self::Extension => "extensions such as flac,mp3",
            Self::Kind => "a list of audio, video, image, document, archive, software, other",
            Self::Size => "a size such as >10MB, 1.5GiB or 10MB..2GB",
            Self::Year => "a year such as 1999 or 1990..1999",
            Self::Bitrate => "a whole number of kbit/s such as >=320",
            Self::Duration => "seconds or a duration such as 3m or 1h2m3s",
            Self::Modified => "an age such as <30d (h, d, w, y) or a date such as >2026-01-31",
        }
    }
}

struct Parser {
    chars: Vec<char>,
    /// Index of the next character.
    at: usize,
    tokenizer: Tokenizer,
    terms: Vec<Term>,
}

impl Parser {
    /// Goes to the next term; false at the end.
    fn skip_space(&mut self) -> bool {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.peek().is_some()
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn term(&mut self) -> Result<(), QueryError> {
        let start = self.at;
        // Right behind a closing quote a dash joins, as in a pasted `"Heroes"-Live`.
        let apart = start == 0 || self.chars[start - 1].is_whitespace();
        let negated = apart && self.peek() == Some('-');
        self.at += usize::from(negated);
        let condition = self.condition();
        // What holds no letter or digit is no term, so only now is it known whether this is one too many.
        if self.terms.len() == limits::QUERY_TERMS && condition != Ok(None) {
            return Err(error(start, QueryErrorKind::TooManyTerms));
        }
        self.terms.extend(condition?.map(|condition| Term { negated, condition }));
        Ok(())
    }

    /// Takes what a dash would negate. `None` if it is a word or a phrase without letter or digit.
    fn condition(&mut self) -> Result<Option<Condition>, QueryError> {
        if self.peek() == Some('"') {
            Ok(self.phrase()?.map(Condition::Text))
        } else if let Some(filter) = self.filter() {
            self.filter_value(filter).map(Some)
        } else {
            Ok(self.word()?.map(Condition::Text))
        }
    }

    /// Takes the name and the colon of a filter if a known one stands here.
    fn filter(&mut self) -> Option<Filter> {
        let rest = &self.chars[self.at..];
        let colon = rest.iter().position(|c| !c.is_ascii_alphabetic())?;
        if rest[colon] != ':' {
            return None;
        }
        let same = |name: &str| name.len() == colon && name.chars().zip(rest).all(|(a, b)| a == b.to_ascii_lowercase());
        let filter = Filter::ALL.into_iter().find(|filter| same(filter.name()))?;
        self.at += colon + 1;
        Some(filter)
    }

    fn filter_value(&mut self, filter: Filter) -> Result<Condition, QueryError> {
        if let Filter::Tag(tag) = filter {
            let start = self.at;
            let text = if self.peek() == Some('"') { self.phrase()? } else { self.word()? };
            let empty = QueryErrorKind::EmptyValue { filter: filter.name() };
            return text.map(|text| Condition::Tag(tag, text)).ok_or_else(|| error(start, empty));
        }
        let start = self.at;
        let source: String = self.take_word().iter().collect();
        if let Some(star) = source.chars().position(|c| c == '*') {
            return Err(error(start + star, QueryErrorKind::MisplacedStar));
        }
        let value = Piece { text: &source, position: start + 1 };
        read_value(filter, value).map_err(|problem| self.value_error(filter, problem))
    }

    fn value_error(&self, filter: Filter, problem: ValueError) -> QueryError {
        let (name, want) = (filter.name(), filter.want());
        let (position, kind) = match problem {
            ValueError::Empty(position) => (position, QueryErrorKind::EmptyValue { filter: name }),
            ValueError::Unreadable(position) => match self.chars.get(position - 1).filter(|c| !c.is_whitespace()) {
                Some('"') => (position, QueryErrorKind::QuotedValue { filter: name, want }),
                Some(found) => (position, QueryErrorKind::UnreadableValue { filter: name, want, found: *found }),
                None => (position, QueryErrorKind::UnfinishedValue { filter: name, want }),
            },
            ValueError::UnknownKind(position) => (position, QueryErrorKind::UnknownKind),
            ValueError::TooLarge(position) => (position, QueryErrorKind::TooLarge { filter: name }),
            ValueError::NoMonth(position) => (position, QueryErrorKind::NoMonth),
            ValueError::NoDay { position, days } => (position, QueryErrorKind::NoDay { days }),
            ValueError::Swapped(position) => (position, QueryErrorKind::SwappedRange),
            ValueError::ExactAge(position) => (position, QueryErrorKind::ExactAge),
        };
        QueryError { position, kind }
    }

    /// Takes a phrase, opening quote included. `None` if it holds no letter or digit.
    fn phrase(&mut self) -> Result<Option<Text>, QueryError> {
        let start = self.at;
        self.at += 1;
        let mut source = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match (c, self.peek()) {
                ('"', _) => return Ok(Text::new(&mut self.tokenizer, &source, false)),
                ('\\', Some(escaped @ ('"' | '\\'))) => {
                    self.at += 1;
                    source.push(escaped);
                }
                _ => source.push(c),
            }
        }
        Err(error(start, QueryErrorKind::UnclosedQuote))
    }

    /// Takes what stands before the next space. `None` if it holds no letter or digit.
    fn word(&mut self) -> Result<Option<Text>, QueryError> {
        let start = self.at;
        let chars = self.take_word();
        let star = chars.iter().position(|c| *c == '*');
        if let Some(star) = star.filter(|star| star + 1 != chars.len()) {
            return Err(error(start + star, QueryErrorKind::MisplacedStar));
        }
        let source: String = chars[..star.unwrap_or(chars.len())].iter().collect();
        let text = Text::new(&mut self.tokenizer, &source, star.is_some());
        match star {
            Some(star) if text.as_ref().map_or(0, Text::letters) < limits::PREFIX_CHARS => {
                Err(error(start + star, QueryErrorKind::ShortPrefix))
            }
            _ => Ok(text),
        }
    }

    fn take_word(&mut self) -> &[char] {
        let rest = &self.chars[self.at..];
        let length = rest.iter().position(|c| c.is_whitespace()).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }
}

/// Reads the value of a filter that takes no words.
fn read_value(filter: Filter, value: Piece<'_>) -> Result<Condition, ValueError> {
    if value.text.is_empty() {
        return Err(ValueError::Empty(value.position));
    }
    match filter {
        Filter::Kind => list(value, kind).map(Condition::Kind),
        Filter::Size => value::compare(value, value::size).map(Condition::Size),
        Filter::Year => value::compare(value, value::whole).map(Condition::Year),
        Filter::Bitrate => value::compare(value, value::whole).map(Condition::Bitrate),
        Filter::Duration => value::compare(value, value::duration).map(Condition::Duration),
        Filter::Modified => value::modified(value).map(Condition::Modified),
        Filter::Extension | Filter::Tag(_) => list(value, extension).map(Condition::Extension),
    }
}

/// Reads the items between commas; sorted, each once.
fn list<T: Ord>(value: Piece<'_>, read: fn(Piece<'_>) -> Result<T, ValueError>) -> Result<Vec<T>, ValueError> {
    let mut items = Vec::new();
    let mut rest = Some(value);
    while let Some(piece) = rest {
        let (item, after) = piece.split_once(",").map_or((piece, None), |(item, after)| (item, Some(after)));
        if item.text.is_empty() {
            return Err(ValueError::Empty(item.position));
        }
        items.push(read(item)?);
        rest = after;
    }
    items.sort_unstable();
    items.dedup();
    Ok(items)
}

fn kind(item: Piece<'_>) -> Result<Kind, ValueError> {
    match Kind::from_name(&item.text.to_ascii_lowercase()) {
        Some(kind) => Ok(kind),
        None if item.text.starts_with('"') => Err(ValueError::Unreadable(item.position)),
        None => Err(ValueError::UnknownKind(item.position)),
    }
}

/// An extension; a leading dot is forgiven. A dot or a slash within it is readable, but in no extension, so
/// such an item matches nothing.
fn extension(item: Piece<'_>) -> Result<Box<str>, ValueError> {
    let bare = if item.text.starts_with('.') { item.from(1) } else { item };
    if bare.text.is_empty() {
        return Err(ValueError::Empty(bare.position));
    }
    match bare.text.find('"') {
        Some(at) => Err(ValueError::Unreadable(bare.from(at).position)),
        None => Ok(bare.text.to_lowercase().into()),
    }
}
