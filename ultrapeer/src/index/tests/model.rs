//! The query language by definition: cut every field of one file into tokens, compare.

use overlay::{
    file::{FileEntry, Kind},
    query::{Compare, Condition, Modified, Query, Text, TextTag},
};

const DAY_S: i64 = 86_400;

/// True if the file fulfils every term.
pub(super) fn matches(query: &Query, file: &FileEntry, now_s: i64) -> bool {
    query.terms().iter().all(|term| holds(&term.condition, file, now_s) != term.negated)
}

fn holds(condition: &Condition, file: &FileEntry, now_s: i64) -> bool {
    let tags = &file.tags;
    let name = file.path.split('/').next_back().unwrap();
    let extension = name.rfind('.').map_or(String::new(), |dot| name[dot + 1..].to_lowercase());
    match condition {
        Condition::Text(text) => {
            let tags = [&tags.artist, &tags.album, &tags.title, &tags.genre];
            let mut fields = file.path.split('/').chain(tags.into_iter().flatten().map(|tag| &**tag));
            fields.any(|field| field_holds(field, text))
        }
        Condition::Tag(tag, text) => {
            let field = match tag {
                TextTag::Artist => &tags.artist,
                TextTag::Album => &tags.album,
                TextTag::Title => &tags.title,
            };
            field.as_ref().is_some_and(|field| field_holds(field, text))
        }
        Condition::Extension(list) => list.iter().any(|item| **item == *extension),
        Condition::Kind(list) => {
            let kind = match &*extension {
                "mp3" | "flac" => Kind::Audio,
                "txt" => Kind::Document,
                _ => Kind::Other,
            };
            list.contains(&kind)
        }
        Condition::Size(x) => compares(x, file.size),
        Condition::Year(x) => tags.year.is_some_and(|year| compares(x, year.into())),
        Condition::Bitrate(x) => tags.bitrate.is_some_and(|bitrate| compares(x, bitrate.into())),
        Condition::Duration(x) => tags.duration_s.is_some_and(|duration| compares(x, duration.into())),
        Condition::Modified(Modified::Age(x)) => compares(x, now_s - file.modified_s),
        Condition::Modified(Modified::Aged(..)) => unreachable!("never asked for"),
        Condition::Modified(Modified::Day(x)) => compares(x, file.modified_s / DAY_S),
    }
}

fn compares<T: Ord>(compare: &Compare<T>, value: T) -> bool {
    match compare {
        Compare::Equal(x) => value == *x,
        Compare::Above(x) => value > *x,
        Compare::AtLeast(x) => value >= *x,
        Compare::Below(x) => value < *x,
        Compare::AtMost(x) => value <= *x,
        Compare::Between(x, y) => value >= *x && value <= *y,
    }
}

/// True if the field, letter for letter, holds the tokens at their places. The alphabet of the tests is
/// ASCII, one accented letter, and three Han characters.
fn field_holds(field: &str, text: &Text) -> bool {
    let cells = cells(field);
    let at = |cell: usize, wanted: &overlay::query::TextToken| {
        cells.get(cell).is_some_and(|options| {
            options
                .iter()
                .any(|token| if wanted.prefix { token.starts_with(&*wanted.text) } else { **token == *wanted.text })
        })
    };
    (0..cells.len()).any(|start| text.tokens().iter().all(|wanted| at(start + wanted.position as usize, wanted)))
}

/// For each word, and each Han character, the tokens that stand there.
fn cells(field: &str) -> Vec<Vec<String>> {
    let plain: Vec<char> = field.to_lowercase().replace('é', "e").chars().collect();
    let han = |c: char| "東京都".contains(c);
    let mut cells: Vec<Vec<String>> = Vec::new();
    let mut word = String::new();
    for (index, c) in plain.iter().copied().chain([' ']).enumerate() {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            cells.push(vec![std::mem::take(&mut word)]);
        }
        if han(c) {
            let next = plain.get(index + 1).copied().filter(|next| han(*next));
            cells.push(vec![next.map_or_else(|| c.to_string(), |next| format!("{c}{next}"))]);
        }
    }
    cells
}
