//! Files and queries of few letters, so that they meet often.

use overlay::{
    file::{FileEntry, Tags},
    id::ContentId,
};
use proptest::{prelude::*, sample::select};

/// The moment of all look-ups: 2026-02-02T02:40:00Z.
pub(crate) const NOW_S: i64 = 1_770_000_000;
const DAY_S: i64 = 86_400;

/// Words as they stand in names: pieces that are one letter, or many, or none, in several scripts.
const WORDS: &[&str] = &[
    "ace",
    "Ace",
    "ACER",
    "spade",
    "spades",
    "a",
    "dc",
    "x1",
    "01",
    "1",
    "1999",
    "foo",
    "title",
    "Élan",
    "E\u{301}lan",
    "elan",
    "ﬁsh",
    "fish",
    "Straße",
    "İstanbul",
    "istanbul",
    "ΟΔΟΣ",
    "οδος",
    "हिन्दी",
    "한국어",
    "한국",
    "２",
    "½",
    "№1",
    "東京都",
    "東京",
    "京都",
    "東",
    "京",
    "都",
    "の",
    "ガ",
    "ｶﾞ",
    "か\u{3099}",
    "カ",
    "タワー",
    "ー",
    "々",
    "〇",
    "⽉",
    "月",
    "Ж",
    "Й",
    "И\u{306}",
    "ﷺ",
    "Ⅷ",
    "viii",
];
/// What stands between them.
const GAPS: &[&str] = &[
    " ", " ", " ", "-", "_", ".", "", "", "'", "’", "(", "&", " - ", "…", "🎵", "🅰", "\u{fe0f}", "\u{301}", "\u{200d}",
    "・", "　", "\"", "“", "*", ":", ",", "\\",
];
const ENDS: &[&str] = &[
    "", "", ".mp3", ".MP3", ".flac", ".Flac", ".txt", ".tar.gz", ".gz", ".", ".a b", ".jpg", ".exe", ".mkv", ".7z",
    ".x", ".ext:mp3", ".ÉE", ".mp\"3",
];

/// A piece; half of the time one of few.
fn piece() -> impl Strategy<Value = &'static str> {
    prop_oneof![select(vec!["ace", "Spade", "東京", "Élan", "01"]), select(WORDS)]
}

/// A text of the given words and gaps.
fn text_of(gaps: &'static [&'static str], words: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let pair = (piece(), select(gaps));
    let last = prop_oneof![9 => piece().prop_map(str::to_owned), 1 => "[ab]{1,3}"];
    (prop::collection::vec(pair, words), last)
        .prop_map(|(pairs, last)| pairs.into_iter().flat_map(|(word, gap)| [word, gap]).collect::<String>() + &last)
}

fn component() -> impl Strategy<Value = String> {
    text_of(GAPS, 0..3)
}

fn size() -> impl Strategy<Value = u64> {
    let edges = vec![
        1,
        2,
        999,
        1000,
        1001,
        1023,
        1024,
        1025,
        1536,
        1_500_000,
        1 << 20,
        10_000_000,
        1 << 30,
        2_000_000_000,
        (1 << 53) - 1,
    ];
    prop_oneof![select(edges), 1u64..3000]
}

fn modified_s() -> impl Strategy<Value = i64> {
    // Days: 2026-01-30 to 2026-02-01, 2024-02-28 to 2024-03-01, 1970-01-01, and one before.
    let days = select(vec![20_483, 20_484, 20_485, 19_781, 19_782, 19_783, 0, -1]);
    let ages = select(vec![3600, DAY_S, 7 * DAY_S, 30 * DAY_S, 31 * DAY_S, 365 * DAY_S, -DAY_S]);
    let near = -1i64..=1;
    prop_oneof![
        (days, near.clone()).prop_map(|(day, near)| day * DAY_S + near),
        (ages, near).prop_map(|(age, near)| NOW_S - age + near),
        NOW_S - 60 * DAY_S..NOW_S,
        select(vec![i64::MIN, i64::MAX]),
    ]
}

fn tags() -> impl Strategy<Value = Tags> {
    let text = || prop::option::weighted(0.3, text_of(GAPS, 0..3).prop_map(Into::into));
    let year = prop::option::weighted(0.4, 1998u16..2002);
    let bitrate = prop::option::weighted(0.4, select(vec![128u32, 256, 320]));
    let duration = prop::option::weighted(0.4, select(vec![59u32, 60, 90, 179, 180, 181, 3723]));
    (text(), text(), text(), text(), year, bitrate, duration).prop_map(
        |(artist, album, title, genre, year, bitrate, duration_s)| Tags {
            artist,
            album,
            title,
            genre,
            year,
            track: year,
            bitrate,
            duration_s,
        },
    )
}

fn any_file() -> impl Strategy<Value = FileEntry> {
    let path = (prop::collection::vec(component(), 1..3), component(), select(ENDS));
    (path, size(), modified_s(), tags(), 0u8..8).prop_map(|((folders, name, end), size, modified_s, tags, content)| {
        FileEntry {
            path: format!("{}/{name}{end}", folders.join("/")),
            content: ContentId([content; 32]),
            size,
            modified_s,
            tags,
        }
    })
}

/// What a leaf shares, and where its list is cut.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    files: Vec<FileEntry>,
    cuts: Vec<prop::sample::Index>,
}

impl Share {
    /// Names and folders as somebody would paste them.
    pub(crate) fn pasted(&self) -> impl Iterator<Item = String> {
        self.files.iter().step_by(7).flat_map(|file| file.path.split('/').map(str::to_owned))
    }

    /// Its chunks, in path order.
    pub(crate) fn chunks(&self) -> Vec<Vec<FileEntry>> {
        let mut files = self.files.clone();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut.index(files.len() + 1)).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        for cut in cuts.into_iter().rev() {
            chunks.push(files.split_off(cut));
        }
        chunks.push(files);
        chunks
    }
}

/// Up to 30 files in up to 3 chunks.
pub(crate) fn any_share() -> impl Strategy<Value = Share> {
    (prop::collection::vec(any_file(), 0..30), prop::collection::vec(any::<prop::sample::Index>(), 0..3))
        .prop_map(|(files, cuts)| Share { files, cuts })
}

/// A word of a query that is what it seems: it begins with no dash, quote or name of a filter.
fn word() -> impl Strategy<Value = String> {
    const INNER: &[&str] = &["", "", "-", "_", ".", "'", "’", "&", "/", "🎵", "\"", "“", ",", "\u{301}"];
    prop_oneof![6 => piece().prop_map(str::to_owned), 3 => text_of(INNER, 1..3)]
}

fn words() -> impl Strategy<Value = String> {
    const PREFIXES: &[&str] = &[
        "ace*",
        "ACE*",
        "spa*",
        "éla*",
        "ﬁs*",
        "a/sp*",
        "ac/d*",
        "東京/f*",
        "京x*",
        "ist*",
        "οδο*",
        "한국어*",
        "東京都*",
        "1/2/3*",
    ];
    const QUOTED: &[&str] = &[" ", " ", "-", "*", ":", "\\\"", "\\\\", "\\", " - "];
    prop_oneof![
        5 => word(),
        2 => select(PREFIXES).prop_map(str::to_owned),
        3 => (text_of(QUOTED, 0..3), select(vec![("\"", "\""), ("“", "”"), ("„", "“")]))
            .prop_map(|(text, (open, close))| format!("{open}{text}{close}")),
    ]
}

fn comparison() -> impl Strategy<Value = String> {
    let sized = select(vec![
        "1000",
        "1kB",
        "1KiB",
        "1.5kib",
        "1000b",
        "1.5MB",
        "10MB",
        "1GiB",
        "2gb",
        "0",
        "0.001TB",
        "9007199254740991",
    ]);
    let lasting = select(vec!["59", "60", "90", "1m", "3m", "1h2m3s", "0h3m", "2m60s"]);
    let aged = select(vec!["1h", "1d", "24h", "1w", "7d", "30d", "31D", "1y", "365d", "0d"]);
    let dated =
        select(vec!["2026-01-31", "2026-02-01", "2024-02-29", "2024-03-01", "1970-01-01", "0000-01-01", "9999-12-31"]);
    let compared = |name: &'static str, values: prop::sample::Select<&'static str>| {
        let operator = select(vec!["", "=", ">", ">=", "<", "<="]);
        let range = select(vec!["..", "a..", "..b", "a..b"]);
        prop_oneof![
            (operator, values.clone()).prop_map(move |(operator, x)| format!("{name}:{operator}{x}")),
            (range, values.clone(), values).prop_map(move |(range, a, b)| match range {
                ".." | "a..b" => format!("{name}:{a}..{b}"),
                "a.." => format!("{name}:{a}.."),
                _ => format!("{name}:..{b}"),
            }),
        ]
    };
    prop_oneof![
        compared("size", sized),
        compared("year", select(vec!["1998", "1999", "2000", "0", "18446744073709551615"])),
        compared("bitrate", select(vec!["128", "256", "320", "0320"])),
        compared("Duration", lasting),
        compared("modified", aged),
        compared("MODIFIED", dated),
    ]
}

fn term() -> impl Strategy<Value = String> {
    const LISTS: &[&str] = &[
        "ext:mp3",
        "EXT:FLAC,mp3",
        "ext:.gz",
        "ext:tar.gz",
        "ext:ée,txt",
        "ext:x,",
        "kind:audio",
        "Kind:Audio,VIDEO",
        "kind:other",
        "kind:document,archive",
        "kind:image,software",
        "ext:ext:mp3",
    ];
    let tag = (select(vec!["artist", "Album", "TITLE"]), words()).prop_map(|(tag, words)| format!("{tag}:{words}"));
    prop_oneof![6 => words(), 2 => tag, 2 => select(LISTS).prop_map(str::to_owned), 2 => comparison()]
}

/// A query that is mostly well formed.
pub(crate) fn good_query() -> impl Strategy<Value = String> {
    let term = (prop::bool::weighted(0.25), term())
        .prop_map(|(negated, term)| if negated { format!("-{term}") } else { term });
    let gap = select(vec![" ", " ", "  ", "\t", "　", " - ", " & "]);
    prop::collection::vec((term, gap), 1..4)
        .prop_map(|terms| terms.into_iter().map(|(term, gap)| term + gap).collect::<String>())
}

/// Any text, often close to a query.
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    const PARTS: &[&str] = &[
        " ",
        " ",
        "\"",
        "“",
        "”",
        "-",
        "--",
        "*",
        ":",
        ",",
        "..",
        ".",
        ">",
        "<=",
        "=",
        "\\",
        "\\\"",
        "size:",
        "10MB",
        "1.5KiB",
        "1e3",
        "+1",
        "-0",
        "18446744073709551615",
        "18446744073709551616",
        "0.0000000000009094947017729282379150390625TiB",
        "9223372036854775807h",
        "2562047788015215h",
        "2026-01-31",
        "2026-02-29",
        "2024-02-29",
        "2026-1-01",
        "30d",
        "3m",
        "1h2m3s",
        "kind:",
        "audio",
        "song",
        "KIND:Audio",
        "ext:",
        "flac,mp3",
        "tar.gz",
        "Artist:",
        "title:",
        "Re:Zero",
        "AC/DC",
        "year:",
        "bitrate:",
        "modified:",
        "duration:",
        "東",
        "京都",
        "ｶﾞ",
        "e\u{301}",
        "\u{301}",
        "😀",
        "🅰",
        "abc*",
        "ab*",
        "x",
    ];
    let part = prop_oneof![
        6 => select(PARTS).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9]{1,4}",
        1 => "\\PC{0,3}",
        1 => good_query(),
    ];
    let long = (select(vec!["a ", "é", "- ", "a -b ", "x"]), 30usize..520).prop_map(|(part, count)| part.repeat(count));
    prop_oneof![12 => prop::collection::vec(part, 0..9).prop_map(|parts| parts.concat()), 1 => long]
}
