//! What audio and video files say about themselves.
//!
//! Tag parsers read hostile input: files come from strangers. So errors and panics of the parser end in
//! empty tags, its allocations are capped by the library (16 MiB), pictures are skipped, and every text is
//! trimmed to what a catalog accepts.

use std::{
    fs::File,
    io::{BufReader, Seek, SeekFrom},
};

use lofty::{
    config::{ParseOptions, ParsingMode},
    file::{AudioFile, FileType, TaggedFileExt},
    probe::Probe,
    tag::Accessor,
};
use overlay::{
    drive::guarded,
    file::{Kind, Tags, extension},
    limits,
    metrics::Task,
};

/// The tags of an open file with this name; empty if it is no media file or cannot be parsed.
pub(super) fn read(name: &str, mut file: &File) -> Tags {
    if !matches!(Kind::of_name(name), Kind::Audio | Kind::Video) {
        return Tags::default();
    }
    let Some(format) = extension(name).and_then(FileType::from_ext) else { return Tags::default() };
    if file.seek(SeekFrom::Start(0)).is_err() {
        return Tags::default();
    }
    guarded(Task::Hash, || parse(file, format)).flatten().unwrap_or_default()
}

fn parse(file: &File, format: FileType) -> Option<Tags> {
    let options = ParseOptions::new().read_cover_art(false).parsing_mode(ParsingMode::BestAttempt);
    let parsed = Probe::with_file_type(BufReader::new(file), format).options(options).read().ok()?;
    let properties = parsed.properties();
    let mut tags = Tags {
        bitrate: properties.audio_bitrate().or_else(|| properties.overall_bitrate()).filter(|rate| *rate > 0),
        duration_s: seconds(properties.duration()),
        ..Tags::default()
    };
    if let Some(tag) = parsed.primary_tag().or_else(|| parsed.first_tag()) {
        tags.artist = tag.artist().and_then(|text| trimmed(&text));
        tags.album = tag.album().and_then(|text| trimmed(&text));
        tags.title = tag.title().and_then(|text| trimmed(&text));
        tags.genre = tag.genre().and_then(|text| trimmed(&text));
        tags.year = tag.date().map(|date| date.year).filter(|year| *year > 0);
        tags.track = tag.track().and_then(|track| u16::try_from(track).ok()).filter(|track| *track > 0);
    }
    Some(tags)
}

/// Whole seconds, rounded; `None` for nothing.
fn seconds(duration: std::time::Duration) -> Option<u32> {
    let rounded = duration.saturating_add(std::time::Duration::from_millis(500)).as_secs();
    u32::try_from(rounded).ok().filter(|seconds| *seconds > 0)
}

/// A text without space or NUL around it, cut at a character's border to at most [`limits::TAG_BYTES`].
fn trimmed(text: &str) -> Option<Box<str>> {
    let space = |c: char| c.is_whitespace() || c == '\0';
    let text = text.trim_matches(space);
    let cut = text.floor_char_boundary(limits::TAG_BYTES);
    let text = text[..cut].trim_end_matches(space);
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// One second of silence, 8 kHz, 8 bit, one channel, with a title and an artist in a RIFF INFO list.
    fn wav() -> Vec<u8> {
        let info: Vec<u8> =
            [&b"INFO"[..], b"INAM\x06\0\0\0Title\0", b"IART\x08\0\0\0 Singer\0", b"ITRK\x02\0\0\x003\0"].concat();
        let mut body = b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0".to_vec();
        body.extend(b"LIST");
        body.extend((info.len() as u32).to_le_bytes());
        body.extend(info);
        body.extend(b"data");
        body.extend(8000u32.to_le_bytes());
        body.extend([0x80; 8000]);
        [&b"RIFF"[..], &(body.len() as u32).to_le_bytes(), &body].concat()
    }

    fn tags_of(name: &str, bytes: &[u8]) -> Tags {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(name, &file)
    }

    #[test]
    fn a_wave_file_tells_its_title_and_length() {
        let tags = tags_of("a.WAV", &wav());
        assert_eq!((tags.title.as_deref(), tags.artist.as_deref()), (Some("Title"), Some("Singer")));
        assert_eq!((tags.duration_s, tags.bitrate, tags.track), (Some(1), Some(64), Some(3)));
    }

    #[test]
    fn damaged_and_foreign_files_have_no_tags() {
        for name in ["a.mp3", "a.flac", "a.ogg", "a.m4a", "a.ape", "a.wv", "a.mp4", "a.wav"] {
            assert!(tags_of(name, b"").is_empty(), "{name}");
            assert!(tags_of(name, &[0xff; 5000]).title.is_none(), "{name}");
            assert!(tags_of(name, &wav()[..30]).title.is_none(), "{name}");
        }
        assert!(tags_of("a.txt", &wav()).is_empty());
    }

    #[test]
    fn text_is_trimmed_to_what_a_catalog_takes() {
        assert_eq!(trimmed(" a\0\0 ").as_deref(), Some("a"));
        assert_eq!(trimmed(" \0"), None);
        let long = trimmed(&"ä".repeat(200)).unwrap();
        assert_eq!(long.len(), limits::TAG_BYTES);
        assert_eq!(trimmed(&format!("{}ä", "x".repeat(255))).unwrap().len(), 255);
    }
}
