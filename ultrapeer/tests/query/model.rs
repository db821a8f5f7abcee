//! Files that match, by looking at each.

use overlay::file::FileEntry;

use super::{
    parse::{Bounds, Term, Wants},
    text::{Cell, cells},
};

/// The table of kinds.
const KINDS: [(&str, &str); 6] = [
    ("audio", "aac ac3 aif aiff ape dsf dts flac m4a m4b mid midi mka mp2 mp3 mpc oga ogg opus wav wma wv"),
    ("video", "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv rm rmvb vob webm wmv"),
    ("image", "avif bmp gif heic ico jpeg jpg jxl png psd svg tif tiff webp"),
    (
        "document",
        "azw3 cbr cbz chm csv djvu doc docx epub fb2 htm html md mobi odp ods odt pdf ppt pptx ps rtf srt tex txt xls xlsx",
    ),
    ("archive", "7z bz2 cab gz img iso lz4 lzma rar tar tgz txz xz zip zst"),
    ("software", "apk appimage deb dmg exe flatpak jar msi pkg rpm snap"),
];

/// The kind of an extension in lower case.
pub(crate) fn kind_of(extension: &str) -> &'static str {
    let has = |(_, list): &&(&str, &str)| list.split(' ').any(|item| item == extension);
    KINDS.iter().find(has).map_or("other", |(kind, _)| kind)
}

/// Every extension that has a kind.
pub(crate) fn extensions() -> impl Iterator<Item = (&'static str, &'static str)> {
    KINDS.iter().flat_map(|(kind, list)| list.split(' ').map(move |extension| (extension, *kind)))
}

/// A file with its words.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// As it is shared.
    pub(crate) entry: FileEntry,
    fields: Vec<Vec<Cell>>,
    artist: Vec<Cell>,
    album: Vec<Cell>,
    title: Vec<Cell>,
    extension: String,
}

impl File {
    /// Cuts its fields.
    pub(crate) fn new(entry: FileEntry) -> Self {
        let tag = |tag: &Option<Box<str>>| tag.as_deref().map_or(Vec::new(), cells);
        let (artist, album, title) = (tag(&entry.tags.artist), tag(&entry.tags.album), tag(&entry.tags.title));
        let mut fields: Vec<_> = entry.path.split('/').map(cells).collect();
        fields.extend([artist.clone(), album.clone(), title.clone(), tag(&entry.tags.genre)]);
        let name = entry.path.split('/').next_back().expect("a name");
        let extension = name.rfind('.').map_or(String::new(), |dot| name[dot + 1..].to_lowercase());
        Self { entry, fields, artist, album, title, extension }
    }

    /// True if all terms hold.
    pub(crate) fn matches(&self, terms: &[Term], now_s: i64) -> bool {
        terms.iter().all(|term| self.holds(&term.wants, now_s) != term.negated)
    }

    fn holds(&self, wants: &Wants, now_s: i64) -> bool {
        let tags = &self.entry.tags;
        match wants {
            Wants::Text(phrase) => self.fields.iter().any(|field| phrase.is_in(field)),
            Wants::Tag(name, phrase) => phrase.is_in(match &**name {
                "artist" => &self.artist,
                "album" => &self.album,
                _ => &self.title,
            }),
            Wants::Extension(list) => list.contains(&self.extension),
            Wants::Kind(list) => list.iter().any(|kind| kind == kind_of(&self.extension)),
            Wants::Number(name, bounds) => {
                let value = match &**name {
                    "size" => Some(i128::from(self.entry.size)),
                    "year" => tags.year.map(i128::from),
                    "bitrate" => tags.bitrate.map(i128::from),
                    _ => tags.duration_s.map(i128::from),
                };
                value.is_some_and(|value| inside(value, *bounds))
            }
            Wants::Age(bounds) => inside(i128::from(now_s) - i128::from(self.entry.modified_s), *bounds),
            Wants::Changed(bounds) => inside(self.entry.modified_s.into(), *bounds),
        }
    }
}

fn inside(value: i128, (low, high): Bounds) -> bool {
    low <= value && value <= high
}
