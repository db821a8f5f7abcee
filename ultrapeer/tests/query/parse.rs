//! The grammar, read from left to right: a list of terms, or the position of what cannot be meant.

use super::text::{Phrase, letters};

/// A term.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    /// With a dash.
    pub(crate) negated: bool,
    /// What it asks.
    pub(crate) wants: Wants,
}

/// What a term asks.
#[derive(Clone, Debug)]
pub(crate) enum Wants {
    /// Of any field.
    Text(Phrase),
    /// Of one tag: `artist`, `album`, `title`.
    Tag(String, Phrase),
    /// One of these, in lower case.
    Extension(Vec<String>),
    /// One of these.
    Kind(Vec<String>),
    /// A number of the file within both bounds.
    Number(String, Bounds),
    /// An age in seconds within both bounds.
    Age(Bounds),
    /// A time of change, in seconds since 1970, within both bounds.
    Changed(Bounds),
}

/// Both included.
pub(crate) type Bounds = (i128, i128);
/// What was read, or the position of the first character that cannot be meant.
pub(crate) type Read<T> = Result<T, usize>;

const FILTERS: [&str; 10] =
    ["artist", "album", "title", "ext", "kind", "size", "year", "bitrate", "duration", "modified"];
const KINDS: [&str; 7] = ["audio", "video", "image", "document", "archive", "software", "other"];
const DAY: i128 = 86_400;

/// Reads a query.
pub(crate) fn parse(text: &str) -> Read<Vec<Term>> {
    let curly = |c| if "“”„‟".contains(c) { '"' } else { c };
    let chars: Vec<char> = text.chars().map(curly).collect();
    if chars.len() > 512 {
        return Err(513);
    }
    let mut terms = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if chars[at].is_whitespace() {
            at += 1;
            continue;
        }
        let start = at;
        let apart = at == 0 || chars[at - 1].is_whitespace();
        let negated = chars[at] == '-' && apart;
        at += usize::from(negated);
        let wants = wants(&chars, &mut at);
        if terms.len() == 32 && !matches!(wants, Ok(None)) {
            return Err(start + 1);
        }
        terms.extend(wants?.map(|wants| Term { negated, wants }));
    }
    let asks = |term: &Term| {
        !term.negated && matches!(term.wants, Wants::Text(_) | Wants::Tag(..) | Wants::Extension(_) | Wants::Kind(_))
    };
    if terms.iter().any(asks) { Ok(terms) } else { Err(1) }
}

fn wants(chars: &[char], at: &mut usize) -> Read<Option<Wants>> {
    if chars.get(*at) == Some(&'"') {
        return Ok(phrase(chars, at)?.map(Wants::Text));
    }
    let rest: String = chars[*at..].iter().take_while(|c| !c.is_whitespace()).collect();
    let name = rest.split_once(':').map(|(name, _)| name.to_ascii_lowercase());
    let Some(name) = name.filter(|name| FILTERS.contains(&&**name)) else {
        return Ok(word(chars, at)?.map(Wants::Text));
    };
    *at += name.len() + 1;
    let start = *at;
    if ["artist", "album", "title"].contains(&&*name) {
        let text = if chars.get(*at) == Some(&'"') { phrase(chars, at)? } else { word(chars, at)? };
        return text.map(|text| Some(Wants::Tag(name, text))).ok_or(start + 1);
    }
    let value: Vec<char> = chars[start..].iter().copied().take_while(|c| !c.is_whitespace()).collect();
    *at += value.len();
    if let Some(star) = value.iter().position(|c| *c == '*') {
        return Err(start + star + 1);
    }
    let value = Value { chars: &value, position: start + 1 };
    if value.chars.is_empty() {
        return Err(value.position);
    }
    Ok(Some(match &*name {
        "ext" => Wants::Extension(list(value, extension)?),
        "kind" => Wants::Kind(list(value, kind)?),
        "size" => Wants::Number(name, compare(value, &size)?),
        "duration" => Wants::Number(name, compare(value, &duration)?),
        "modified" => modified(value)?,
        _ => Wants::Number(name, compare(value, &whole)?),
    }))
}

/// From its opening quote to behind its closing one.
fn phrase(chars: &[char], at: &mut usize) -> Read<Option<Phrase>> {
    let open = *at;
    let mut text = String::new();
    *at += 1;
    loop {
        match (chars.get(*at), chars.get(*at + 1)) {
            (None, _) => return Err(open + 1),
            (Some('"'), _) => break,
            (Some('\\'), Some(c @ ('"' | '\\'))) => {
                text.push(*c);
                *at += 2;
            }
            (Some(c), _) => {
                text.push(*c);
                *at += 1;
            }
        }
    }
    *at += 1;
    Ok(Phrase::new(&text, false))
}

/// Up to the next space.
fn word(chars: &[char], at: &mut usize) -> Read<Option<Phrase>> {
    let start = *at;
    while chars.get(*at).is_some_and(|c| !c.is_whitespace()) {
        *at += 1;
    }
    let text: String = chars[start..*at].iter().collect();
    let Some((before, after)) = text.split_once('*') else { return Ok(Phrase::new(&text, false)) };
    let star = start + before.chars().count() + 1;
    if !after.is_empty() || letters(before) < 3 {
        return Err(star);
    }
    Ok(Phrase::new(before, true))
}

/// A part of the query and where it begins.
#[derive(Clone, Copy)]
struct Value<'a> {
    chars: &'a [char],
    position: usize,
}

impl<'a> Value<'a> {
    fn after(self, count: usize) -> Self {
        Self { chars: &self.chars[count..], position: self.position + count }
    }

    fn digits(self) -> &'a [char] {
        let count = self.chars.iter().take_while(|c| c.is_ascii_digit()).count();
        &self.chars[..count]
    }

    fn text(self) -> String {
        self.chars.iter().collect()
    }
}

fn list(value: Value<'_>, item: fn(Value<'_>) -> Read<String>) -> Read<Vec<String>> {
    let mut position = value.position;
    let mut items = Vec::new();
    for chars in value.chars.split(|c| *c == ',') {
        items.push(item(Value { chars, position })?);
        position += chars.len() + 1;
    }
    Ok(items)
}

fn kind(item: Value<'_>) -> Read<String> {
    let name = item.text().to_ascii_lowercase();
    if KINDS.contains(&&*name) { Ok(name) } else { Err(item.position) }
}

fn extension(item: Value<'_>) -> Read<String> {
    let item = if item.chars.first() == Some(&'.') { item.after(1) } else { item };
    match item.chars.iter().position(|c| *c == '"') {
        Some(quote) => Err(item.position + quote),
        None if item.chars.is_empty() => Err(item.position),
        None => Ok(item.text().to_lowercase()),
    }
}

/// A number as all comparisons take it.
fn compare(value: Value<'_>, number: &dyn Fn(Value<'_>) -> Read<i128>) -> Read<Bounds> {
    let number = |value: Value<'_>| if value.chars.is_empty() { Err(value.position) } else { number(value) };
    match value.chars {
        ['>', '=', ..] => Ok((number(value.after(2))?, i128::MAX)),
        ['<', '=', ..] => Ok((i128::MIN, number(value.after(2))?)),
        ['>', ..] => Ok((number(value.after(1))? + 1, i128::MAX)),
        ['<', ..] => Ok((i128::MIN, number(value.after(1))? - 1)),
        ['=', ..] => number(value.after(1)).map(|x| (x, x)),
        _ => match value.chars.windows(2).position(|pair| pair == ['.', '.']) {
            None => number(value).map(|x| (x, x)),
            Some(0) => Ok((i128::MIN, number(value.after(2))?)),
            Some(dots) => {
                let low = number(Value { chars: &value.chars[..dots], ..value })?;
                let high = value.after(dots + 2);
                let high = if high.chars.is_empty() { i128::MAX } else { number(high)? };
                if low <= high { Ok((low, high)) } else { Err(value.position) }
            }
        },
    }
}

/// Digits as a number of at most 64 bits.
fn small(value: Value<'_>) -> Read<i128> {
    let digits = value.digits();
    let mut sum = 0i128;
    for digit in digits {
        sum = sum * 10 + i128::from(digit.to_digit(10).expect("a digit"));
        if sum > i128::from(u64::MAX) {
            return Err(value.position);
        }
    }
    if digits.is_empty() { Err(value.position) } else { Ok(sum) }
}

fn whole(value: Value<'_>) -> Read<i128> {
    let number = small(value)?;
    let rest = value.after(value.digits().len());
    if rest.chars.is_empty() { Ok(number) } else { Err(rest.position) }
}

fn size(value: Value<'_>) -> Read<i128> {
    let number = small(value)?;
    let mut rest = value.after(value.digits().len());
    let mut decimals = Vec::new();
    if rest.chars.first() == Some(&'.') {
        decimals = rest.after(1).digits().to_vec();
        if decimals.is_empty() {
            return Err(rest.position);
        }
        rest = rest.after(1 + decimals.len());
    }
    let unit: i128 = match &*rest.text().to_ascii_lowercase() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "tb" => 1000 * 1000 * 1000 * 1000,
        "kib" => 1024,
        "mib" => 1024 * 1024,
        "gib" => 1024 * 1024 * 1024,
        "tib" => 1024 * 1024 * 1024 * 1024,
        _ => return Err(rest.position),
    };
    // Written multiplication of the decimals by the unit; what stands before the point are whole bytes.
    let mut product: Vec<i128> = decimals.iter().map(|c| i128::from(c.to_digit(10).expect("a digit")) * unit).collect();
    for place in (1..product.len()).rev() {
        product[place - 1] += product[place] / 10;
    }
    let bytes = number * unit + product.first().map_or(0, |first| first / 10);
    if bytes <= i128::from(u64::MAX) { Ok(bytes) } else { Err(value.position) }
}

fn duration(value: Value<'_>) -> Read<i128> {
    if value.digits().len() == value.chars.len() {
        return small(value);
    }
    let mut rest = value;
    let mut units = &[('h', 3600), ('m', 60), ('s', 1)][..];
    let mut total = 0;
    small(rest)?;
    while !rest.chars.is_empty() {
        let number = small(rest)?;
        let letter = rest.after(rest.digits().len());
        let is = |c: &char, unit: char| c.eq_ignore_ascii_case(&unit);
        let unit = letter.chars.first().and_then(|c| units.iter().position(|(unit, _)| is(c, *unit)));
        let unit = unit.ok_or(letter.position)?;
        total += number * units[unit].1;
        if total > i128::from(u64::MAX) {
            return Err(rest.position);
        }
        units = &units[unit + 1..];
        rest = letter.after(1);
    }
    Ok(total)
}

fn modified(value: Value<'_>) -> Read<Wants> {
    if value.chars.contains(&'-') {
        let (low, high) = compare(value, &day)?;
        let start = if low == i128::MIN { low } else { low * DAY };
        let end = if high == i128::MAX { high } else { high * DAY + DAY - 1 };
        return Ok(Wants::Changed((start, end)));
    }
    let seconds = |value: Value<'_>| age(value).map(|(count, unit)| count * unit);
    let bounds = compare(value, &seconds)?;
    match value.chars {
        ['=', ..] => age(value.after(1)).map(|(count, unit)| Wants::Age((count * unit, (count + 1) * unit - 1))),
        ['<' | '>', ..] => Ok(Wants::Age(bounds)),
        _ if value.text().contains("..") => Ok(Wants::Age(bounds)),
        _ => Err(value.position),
    }
}

/// A number and seconds of its unit.
fn age(value: Value<'_>) -> Read<(i128, i128)> {
    let count = small(value)?;
    let unit = value.after(value.digits().len());
    let hours = match unit.chars {
        ['h' | 'H'] => 1,
        ['d' | 'D'] => 24,
        ['w' | 'W'] => 24 * 7,
        ['y' | 'Y'] => 24 * 365,
        _ => return Err(unit.position),
    };
    if count * hours * 3600 <= i128::from(i64::MAX) { Ok((count, hours * 3600)) } else { Err(value.position) }
}

/// Days since 1970.
fn day(value: Value<'_>) -> Read<i128> {
    let (year, rest) = figures(value, 4)?;
    let month_at = dash(rest)?;
    let (month, rest) = figures(month_at, 2)?;
    if !(1..=12).contains(&month) {
        return Err(month_at.position);
    }
    let day_at = dash(rest)?;
    let (day, rest) = figures(day_at, 2)?;
    if day == 0 || day > month_days(year, month) {
        return Err(day_at.position);
    }
    if !rest.chars.is_empty() {
        return Err(rest.position);
    }
    let year_days = |year| if month_days(year, 2) == 29 { 366 } else { 365 };
    let years: i128 =
        if year >= 1970 { (1970..year).map(year_days).sum() } else { -(year..1970).map(year_days).sum::<i128>() };
    Ok(years + (1..month).map(|month| month_days(year, month)).sum::<i128>() + day - 1)
}

fn figures(value: Value<'_>, count: usize) -> Read<(i128, Value<'_>)> {
    let have = value.digits().len();
    if have < count {
        return Err(value.position + have);
    }
    let number: String = value.chars[..count].iter().collect();
    Ok((number.parse().expect("digits"), value.after(count)))
}

fn dash(value: Value<'_>) -> Read<Value<'_>> {
    if value.chars.first() == Some(&'-') { Ok(value.after(1)) } else { Err(value.position) }
}

const fn month_days(year: i128, month: i128) -> i128 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 400 == 0 => 29,
        2 if year % 100 == 0 => 28,
        2 if year % 4 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}
