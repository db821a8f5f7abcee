use proptest::prelude::*;

use super::*;

/// The normal form of a query, or the position and kind of its error.
fn read(source: &str) -> Result<String, (usize, QueryErrorKind)> {
    Query::parse(source).map(|query| query.to_string()).map_err(|error| (error.position, error.kind))
}

#[test]
fn good_queries_have_these_normal_forms() {
    for (source, want) in [
        ("Beatles", "beatles"),
        ("  the   Beatles\t-LIVE ", "the beatles -live"),
        ("Motörhead", "motorhead"),
        ("AC/DC", "\"ac dc\""),
        ("track01.mp3", "\"track01 mp3\""),
        ("\"Exact  Phrase\"", "\"exact phrase\""),
        ("“Exact Phrase”", "\"exact phrase\""),
        ("-\"b side\" x", "-\"b side\" x"),
        ("\"a \\\"b\\\" \\\\ c\\d\"", "\"a b c d\""),
        ("\"abc*\"", "abc"),
        ("\"title:x\"", "\"title x\""),
        ("\"-live\"", "live"),
        // prefixes
        ("abc*", "abc*"),
        ("-abc* d", "-abc* d"),
        ("AC/DC*", "ac/dc*"),
        ("ﬁn*", "fin*"),
        ("한국어* x", "한국어* x"),
        ("東京都*", "東京都"),
        ("都", "都"),
        ("artist:beat*", "artist:beat*"),
        // pasted names
        ("Simon & Garfunkel - Cecilia", "simon garfunkel cecilia"),
        ("12\" mix", "12 mix"),
        ("12\"mix", "\"12 mix\""),
        ("it“s x", "\"it s\" x"),
        ("Re:Zero", "\"re zero\""),
        ("http://x.org", "\"http x org\""),
        ("\"Heroes\"-Live", "heroes live"),
        ("\"Heroes\"(live)", "heroes live"),
        ("\"a\"\"b\"", "a b"),
        ("--x y", "-x y"),
        ("\"\" x", "x"),
        ("- x -", "x"),
        (":x", "x"),
        // lists
        ("ext:flac,mp3,FLAC", "ext:flac,mp3"),
        ("EXT:.Flac", "ext:flac"),
        ("ext:tar.gz,gz", "ext:gz,tar.gz"),
        ("Kind:Video,audio", "kind:audio,video"),
        ("x -ext:mp3", "x -ext:mp3"),
        // tags
        ("artist:\"Pink Floyd\" title:AC/DC", "artist:\"pink floyd\" title:\"ac dc\""),
        ("album:a,b", "album:\"a b\""),
        ("artist:-x", "artist:x"),
        ("title:x:y", "title:\"x y\""),
        // comparisons
        ("x size:10MB", "x size:10000000"),
        ("x size:>1.5KiB", "x size:>1536"),
        ("x size:=10b", "x size:10"),
        ("x size:10MB..", "x size:>=10000000"),
        ("x size:..2gb", "x size:<=2000000000"),
        ("x size:1.5MB..2MB", "x size:1500000..2000000"),
        ("x -size:<=1TiB", "x -size:<=1099511627776"),
        ("x year:1990..1999 bitrate:>=320", "x year:1990..1999 bitrate:>=320"),
        ("x duration:1h2m3s", "x duration:3723"),
        ("x duration:90..3M", "x duration:90..180"),
        ("x modified:<30d", "x modified:<720h"),
        ("x modified:1w..1Y", "x modified:168h..8760h"),
        ("x modified:=30D", "x modified:=30d"),
        ("x modified:..2w", "x modified:<=336h"),
        ("x modified:2026-01-31", "x modified:2026-01-31"),
        ("x modified:>2026-01-31", "x modified:>2026-01-31"),
        ("x modified:2024-02-29..2026-01-01", "x modified:2024-02-29..2026-01-01"),
    ] {
        assert_eq!(read(source).as_deref(), Ok(want), "{source:?}");
        assert_eq!(Query::parse(want), Query::parse(source), "{source:?}");
    }
}

#[test]
fn bad_queries_name_the_first_offending_character() {
    use QueryErrorKind as Kind;
    let empty = |filter| Kind::EmptyValue { filter };
    for (source, position, kind) in [
        ("", 1, Kind::TooBroad),
        ("  ", 1, Kind::TooBroad),
        ("- & \"\"", 1, Kind::TooBroad),
        ("-live", 1, Kind::TooBroad),
        ("size:>1GB", 1, Kind::TooBroad),
        ("-ext:mp3 year:1999", 1, Kind::TooBroad),
        ("a \"b c", 3, Kind::UnclosedQuote),
        ("é “b c", 3, Kind::UnclosedQuote),
        ("x artist:\"b", 10, Kind::UnclosedQuote),
        ("\"a\\\"", 1, Kind::UnclosedQuote),
        ("a*b", 2, Kind::MisplacedStar),
        ("*abc", 1, Kind::MisplacedStar),
        ("abc**", 4, Kind::MisplacedStar),
        ("x ext:mp*", 9, Kind::MisplacedStar),
        ("ab*", 3, Kind::ShortPrefix),
        ("x *", 3, Kind::ShortPrefix),
        ("-東京*", 4, Kind::ShortPrefix),
        ("title:ab*", 9, Kind::ShortPrefix),
        ("ext:", 5, empty("ext")),
        ("x size: 10MB", 8, empty("size")),
        ("ext:a,,b", 7, empty("ext")),
        ("kind:audio,", 12, empty("kind")),
        ("x size:>=", 10, empty("size")),
        ("x size:..", 10, empty("size")),
        ("artist:& x", 8, empty("artist")),
        ("artist:\"\" x", 8, empty("artist")),
        ("title: x", 7, empty("title")),
        ("x size:10MB..2MB", 8, Kind::SwappedRange),
        ("x duration:3m..90", 12, Kind::SwappedRange),
        ("x modified:30d..7d", 12, Kind::SwappedRange),
        ("x modified:30d", 12, Kind::ExactAge),
        ("kind:audio,song", 12, Kind::UnknownKind),
        ("x size:99999999TB", 8, Kind::TooLarge { filter: "size" }),
        ("x size:1..99999999999999999999", 11, Kind::TooLarge { filter: "size" }),
        ("x year:>99999999999999999999", 9, Kind::TooLarge { filter: "year" }),
        ("x duration:1h9999999999999999999m", 14, Kind::TooLarge { filter: "duration" }),
        ("x modified:<99999999999999y", 13, Kind::TooLarge { filter: "modified" }),
        ("x modified:2026-13-01", 17, Kind::NoMonth),
        ("x modified:>2026-00-01", 18, Kind::NoMonth),
        ("x modified:2026-02-29", 20, Kind::NoDay { days: 28 }),
        ("x modified:2026-01-01..2024-02-30", 32, Kind::NoDay { days: 29 }),
        ("x modified:2026-04-31", 20, Kind::NoDay { days: 30 }),
        ("x modified:2026-04-00", 20, Kind::NoDay { days: 30 }),
    ] {
        assert_eq!(read(source), Err((position, kind)), "{source:?}");
    }
    for (source, position) in
        [("ext:\"mp3\"", 5), ("ext:flac,\"mp3\"", 10), ("kind:\"audio\"", 6), ("x size:\"1 MB\"", 8)]
    {
        let error = Query::parse(source).unwrap_err();
        assert!(matches!(error.kind, Kind::QuotedValue { .. }) && error.position == position, "{source:?}: {error}");
    }
    for (source, position) in
        [("x duration:1h2", 15), ("x modified:<30", 15), ("x size:>1. y", 10), ("x modified:2026-01", 19)]
    {
        let found = read(source).map_err(|(position, kind)| (position, matches!(kind, Kind::UnfinishedValue { .. })));
        assert_eq!(found, Err((position, position != 10)), "{source:?}");
    }
    for (source, position) in [
        ("x size:ten", 8),
        ("x size:10XB", 10),
        ("x size:1.MB", 9),
        ("x size:=>5", 9),
        ("x size:>1..2", 10),
        ("x year:19x9", 10),
        ("x year:-5", 8),
        ("x duration:1m2h", 15),
        ("x modified:<30m", 15),
        ("x modified:2026-1-01", 18),
        ("x modified:2026-01-01..30d", 26),
    ] {
        let found = read(source).map_err(|(position, kind)| (position, matches!(kind, Kind::UnreadableValue { .. })));
        assert_eq!(found, Err((position, true)), "{source:?}");
    }
}

#[test]
fn every_refusal_says_what_why_and_what_to_do() {
    for (source, says) in [
        ("ext:\"mp3\"", "ext: takes extensions such as flac,mp3, without quotes (at character 5)"),
        ("x modified:2026-02-30", "there is no such day: this month has 28 (at character 20)"),
        ("x modified:2026-13-30", "there is no such month (at character 17)"),
        ("x year:99999999999999999999", "year: this number is too large, no file has it (at character 8)"),
        (
            "x bitrate:high",
            "bitrate: takes a whole number of kbit/s such as >=320; `h` does not belong here (at character 11)",
        ),
    ] {
        let error = Query::parse(source).unwrap_err();
        assert_eq!(error.to_string(), says);
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn limits_are_exact() {
    let words = |count: usize| vec!["a"; count].join(" ");
    assert!(read(&words(limits::QUERY_TERMS)).is_ok());
    assert_eq!(read(&words(limits::QUERY_TERMS + 1)), Err((65, QueryErrorKind::TooManyTerms)));
    assert!(read(&format!("- {} &", words(limits::QUERY_TERMS))).is_ok());
    assert_eq!(read(&format!("{} -ab*", words(limits::QUERY_TERMS))), Err((65, QueryErrorKind::TooManyTerms)));
    assert!(read(&"é".repeat(limits::QUERY_CHARS)).is_ok());
    assert_eq!(read(&"é".repeat(limits::QUERY_CHARS + 1)), Err((limits::QUERY_CHARS + 1, QueryErrorKind::TooLong)));
}

#[test]
fn tokens_of_a_phrase_carry_positions() {
    let query = Query::parse("\"東京都 x\" y京").unwrap();
    let tokens: Vec<Vec<_>> = query
        .terms()
        .iter()
        .map(|term| match &term.condition {
            Condition::Text(text) => text.tokens().iter().map(|t| (&*t.text, t.position, t.prefix)).collect(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(tokens[0], [("東京", 0, false), ("京都", 1, false), ("x", 3, false)]);
    assert_eq!(tokens[1], [("y", 0, false), ("京", 1, true)]);
}

#[test]
fn ages_and_days_are_judged_at_the_moment_of_evaluation() {
    let holds = |value: &str, modified_s, now_s| {
        let query = Query::parse(&format!("x modified:{value}")).unwrap();
        match query.terms()[1].condition {
            Condition::Modified(modified) => modified.holds(modified_s, now_s),
            ref other => panic!("{other}"),
        }
    };
    let day = 86_400;
    assert!(holds("<30d", 1, 30 * day));
    assert!(!holds("<30d", 0, 30 * day));
    assert!(holds(">=30d", 0, 30 * day));
    assert!(holds("=30d", 0, 30 * day) && holds("=30d", 1, 31 * day));
    assert!(!holds("=30d", 1, 30 * day) && !holds("=30d", 0, 31 * day));
    assert!(holds("<1h", 5_000, 0), "the future is younger than any age");
    let (start, end) = (20_484 * day, 20_485 * day - 1);
    for (value, wants) in [
        (">2026-01-31", [false, false, false, true]),
        (">=2026-01-31", [false, true, true, true]),
        ("2026-01-31", [false, true, true, false]),
        ("<2026-01-31", [true, false, false, false]),
        ("..2026-01-31", [true, true, true, false]),
    ] {
        for (at, want) in [start - 1, start, end, end + 1].into_iter().zip(wants) {
            assert_eq!(holds(value, at, 0), want, "{value} at {at}");
        }
    }
    assert!(!holds("<30d", i64::MIN, i64::MAX));
}

/// Texts that look like queries often enough to reach every branch.
fn source() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z0-9]{1,6}",
        2 => "\\PC{0,4}",
        2 => prop::sample::select(vec![
            " ", "\"", "-", "*", ":", ",", "..", ">", "<=", "=", "“", "\\", "size:", "10MB", "2026-01-31", "30d", "kind:",
            "audio", "ext:", "Artist:", "title:", "year:", "modified:", "duration:", "1h2m", "東京都", "é", "한국",
        ])
        .prop_map(str::to_owned),
        2 => Just(" ".to_owned()),
    ];
    prop::collection::vec(part, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parsing_never_panics_and_positions_lie_in_the_text(source in source()) {
        match Query::parse(&source) {
            Ok(query) => prop_assert!((1..=limits::QUERY_TERMS).contains(&query.terms().len())),
            Err(error) => prop_assert!((1..=source.chars().count() + 1).contains(&error.position)),
        }
    }

    #[test]
    fn the_normal_form_parses_to_an_equal_query(source in source()) {
        if let Ok(query) = Query::parse(&source) {
            let normal = query.to_string();
            prop_assert_eq!(Query::parse(&normal), Ok(query), "{:?} became {:?}", source, normal);
        }
    }
}
