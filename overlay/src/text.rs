//! Text to tokens: the one path that names and queries take, so that what looks alike is found.
//!
//! Text is decomposed (Unicode NFKD), put in lower case, stripped of marks (category M), recomposed, and
//! split at everything that is not a letter or digit. What remains are [`Run`]s: words, or stretches of
//! Han and kana, which have no spaces between words and are therefore indexed in bigrams.
//!
//! Invariant: a run is its own normal form, so tokenising the text of a run gives that run again.
//!
//! Every run takes positions: a word one, a CJK run one for each character. A bigram stands at its first
//! character, and a name also gets the last character of each CJK run at its own position. So a phrase
//! means the same across both scripts, and every single character can be found as a prefix.
//!
//! ```text
//!   "Café 東京都.mp3" ─ normalise ─> "cafe" "東京都" "mp3" ─ name ──> cafe@0 東京@1 京都@2 都@3 mp3@4
//!                                                        └ query ─> cafe@0 東京@1 京都@2      mp3@4
//! ```

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// A stretch of normalised letters and digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Normalised text, not empty.
    pub text: &'a str,
    /// True if it is made of Han and kana, and so becomes bigrams.
    pub cjk: bool,
}

impl<'a> Run<'a> {
    /// Positions that the run takes: one, or its characters if it is CJK.
    pub fn positions(&self) -> u32 {
        if self.cjk { self.text.chars().count() as u32 } else { 1 }
    }

    /// The tokens of a *name*, each with its position from the start of the run.
    pub fn name_tokens(&self) -> impl Iterator<Item = (u32, &'a str)> + use<'a> {
        // A word is the whole of one "window"; a CJK run has a window at each character, the last one short.
        let (text, cjk) = (self.text, self.cjk);
        text.char_indices().take(if cjk { usize::MAX } else { 1 }).enumerate().map(move |(position, (start, _))| {
            let window = &text[start..];
            (position as u32, if cjk { first_chars(window, 2) } else { window })
        })
    }

    /// The tokens of a *query*, each with its position: as [`Self::name_tokens`] without the last single
    /// character, unless that is all there is; then it stands for every token that begins with it.
    pub fn query_tokens(&self) -> impl Iterator<Item = (u32, &'a str)> + use<'a> {
        let last = if self.cjk { self.positions().max(2) - 1 } else { 1 };
        self.name_tokens().take(last as usize)
    }

    /// True if the run is a single CJK character, which a query means as a prefix.
    pub fn is_lone_cjk(&self) -> bool {
        self.cjk && self.text.chars().nth(1).is_none()
    }
}

/// Cuts texts into runs; keeps its buffer from text to text.
#[derive(Debug, Default)]
pub struct Tokenizer {
    normal: String,
}

impl Tokenizer {
    /// A tokenizer with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `each` for every run of `text`, in order.
    pub fn runs(&mut self, text: &str, mut each: impl FnMut(Run<'_>)) {
        if text.is_ascii() {
            self.normal.clear();
            self.normal.push_str(text);
            self.normal.make_ascii_lowercase();
            split_ascii(&self.normal, &mut each);
        } else {
            self.normalise(text);
            split(&self.normal, &mut each);
        }
    }

    /// Calls `each` with every token of a name and its position from the start of `text`.
    pub fn name_tokens(&mut self, text: &str, mut each: impl FnMut(&str, u32)) {
        let mut base = 0;
        self.runs(text, |run| {
            if run.cjk {
                for (position, token) in run.name_tokens() {
                    each(token, base + position);
                }
                base += run.positions();
            } else {
                each(run.text, base);
                base += 1;
            }
        });
    }

    /// Fills the buffer with the normal form of `text`, separators included.
    fn normalise(&mut self, text: &str) {
        self.normal.clear();
        let stripped = text.nfkd().flat_map(char::to_lowercase).filter(|&c| !is_combining_mark(c));
        self.normal.extend(stripped.map(plain_sigma).nfc());
    }
}

/// The final form of sigma is a matter of context that single characters do not have: both are one letter.
const fn plain_sigma(c: char) -> char {
    if c == 'ς' { 'σ' } else { c }
}

fn split_ascii(normal: &str, each: &mut impl FnMut(Run<'_>)) {
    let bytes = normal.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_alphanumeric) {
            at += 1;
        }
        if start < at {
            each(Run { text: &normal[start..at], cjk: false });
        }
        at += 1;
    }
}

fn split(normal: &str, each: &mut impl FnMut(Run<'_>)) {
    let mut open: Option<(usize, bool)> = None;
    for (at, c) in normal.char_indices() {
        let class = is_letter_or_digit(c).then(|| is_cjk(c));
        if let Some((start, cjk)) = open
            && class != Some(cjk)
        {
            each(Run { text: &normal[start..at], cjk });
            open = None;
        }
        if let (None, Some(cjk)) = (open, class) {
            open = Some((at, cjk));
        }
    }
    if let Some((start, cjk)) = open {
        each(Run { text: &normal[start..], cjk });
    }
}

/// True for categories L and N. Rust counts letters in circles and squares among the letters, which are symbols
/// (those with a plain form were decomposed).
fn is_letter_or_digit(c: char) -> bool {
    c.is_alphanumeric() && !matches!(c, '\u{1f150}'..='\u{1f189}')
}

/// True for Han and kana: the letters that are written without spaces between words. Block ranges of
/// Unicode 17 after NFKD, so without half-width and compatibility forms.
pub const fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3031}'..='\u{303c}' // marks of iteration, numerals
        | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{1aff0}'..='\u{1b16f}' // kana
        | '\u{2e80}'..='\u{2fdf}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}') // Han
}

fn first_chars(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        Tokenizer::new().runs(text, |run| out.push(run.text.to_owned()));
        out
    }

    fn name(text: &str) -> Vec<(String, u32)> {
        let mut out = Vec::new();
        Tokenizer::new().name_tokens(text, |token, position| out.push((token.to_owned(), position)));
        out
    }

    fn query(text: &str) -> Vec<String> {
        let mut out = Vec::new();
        Tokenizer::new().runs(text, |run| out.extend(run.query_tokens().map(|(at, token)| format!("{token}@{at}"))));
        out
    }

    #[test]
    fn text_is_normalised_and_split_at_everything_else() {
        for (text, want) in [
            ("01 - Track_One.FLAC", "01 track one flac"),
            ("Motörhead", "motorhead"),
            ("Mo\u{308}tley", "motley"),
            ("ﬁle № ½ ²", "file no 1 2 2"),
            ("ＡＢＣ１", "abc1"),
            ("STRASSE Straße", "strasse straße"),
            ("İstanbul ΟΔΟΣ οδος", "istanbul οδοσ οδοσ"),
            ("한국어 노래", "한국어 노래"),
            ("हिन्दी", "हनद"),
            ("日本Track東京", "日本 track 東京"),
            ("ｶﾞﾝﾀﾞﾑ", "カンタム"),
            ("🅰🅱 mix 🎵7️⃣", "mix 7"),
            ("- & …", ""),
        ] {
            assert_eq!(runs(text).join(" "), want, "{text:?}");
        }
    }

    #[test]
    fn cjk_becomes_bigrams_and_a_name_ends_with_a_single_character() {
        let want = [("cafe", 0), ("東京", 1), ("京都", 2), ("都", 3), ("mp3", 4)];
        assert_eq!(name("Café 東京都.mp3"), want.map(|(token, at)| (token.to_owned(), at)));
        assert_eq!(query("東京都"), ["東京@0", "京都@1"]);
        assert_eq!(query("都"), ["都@0"]);
        assert_eq!(query("rock"), ["rock@0"]);
    }

    proptest! {
        #[test]
        fn a_run_is_its_own_normal_form(text in "\\PC{0,40}") {
            let once = runs(&text);
            for run in &once {
                prop_assert_eq!(&runs(run), &[run.as_str()]);
            }
            prop_assert_eq!(runs(&once.join(" ")), once);
        }

        #[test]
        fn the_ascii_path_is_only_a_faster_one(text in "[ -~]{0,60}") {
            let mut slow = Vec::new();
            split(&text.to_lowercase(), &mut |run| slow.push(run.text.to_owned()));
            prop_assert_eq!(runs(&text), slow);
        }
    }
}
