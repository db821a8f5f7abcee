//! A shared file as the network sees it: its entry in a catalog, its media tags, its kind.

use serde::{Deserialize, Serialize};

use crate::{id::ContentId, limits};

/// One file of a leaf's catalog. Encoded in catalog chunks, so its field order is part of the wire format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// From the share's name to the file, `/` between components: `Music/x/a b.flac`. Of an
    /// [unlisted](Self::unlisted) file `/` and its content id.
    pub path: String,
    /// BLAKE3 of the bytes.
    pub content: ContentId,
    /// Bytes; never 0, empty files are not shared.
    pub size: u64,
    /// Seconds since 1970 UTC of the last change, as the file system tells it.
    pub modified_s: i64,
    /// What the file says about itself.
    pub tags: Tags,
}

impl FileEntry {
    /// A file that is served to whoever looks its content up, and is in no search and no listing: nothing is told of
    /// it but content and size. Its share has no name, which no share can have.
    pub fn unlisted(content: ContentId, size: u64) -> Self {
        Self { path: unlisted_path(&content), content, size, modified_s: 0, tags: Tags::default() }
    }

    /// True for what [`Self::unlisted`] makes.
    pub fn is_unlisted(&self) -> bool {
        is_unlisted(&self.path)
    }

    /// The file name: the last component of the path.
    pub fn name(&self) -> &str {
        file_name(&self.path)
    }

    /// The kind by the extension of the name.
    pub fn kind(&self) -> Kind {
        Kind::of_name(self.name())
    }

    /// Checks what decoding cannot: lengths, and that the path is made of plain components.
    /// A catalog with one bad entry is refused whole, because its sender is broken or hostile.
    pub fn check(&self) -> Result<(), FileEntryError> {
        if self.path.len() > limits::PATH_BYTES {
            return Err(FileEntryError::PathTooLong);
        }
        if self.is_unlisted() && *self != Self::unlisted(self.content, self.size) {
            return Err(FileEntryError::NotUnlisted);
        }
        let is_listed = self.path.contains('/') && is_plain(&self.path);
        if !self.is_unlisted() && !is_listed {
            return Err(FileEntryError::PathNotPlain);
        }
        if self.size == 0 || self.size > limits::FILE_BYTES {
            return Err(FileEntryError::Size);
        }
        let text = [&self.tags.artist, &self.tags.album, &self.tags.title, &self.tags.genre];
        if text.into_iter().flatten().any(|tag| tag.len() > limits::TAG_BYTES) {
            return Err(FileEntryError::TagTooLong);
        }
        Ok(())
    }
}

/// Why an entry of a catalog is unacceptable. The fault is its sender's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileEntryError {
    /// The path is longer than [`limits::PATH_BYTES`].
    #[error("path too long")]
    PathTooLong,
    /// The path lacks a share name, or holds an empty, `.`, `..` or NUL component.
    #[error("path is not made of plain components below a share")]
    PathNotPlain,
    /// The path has no share's name, as that of an unlisted file, but tells more than an unlisted file does.
    #[error("an unlisted file that tells more than content and size")]
    NotUnlisted,
    /// The size is 0 or above [`limits::FILE_BYTES`].
    #[error("size out of range")]
    Size,
    /// A tag is longer than [`limits::TAG_BYTES`].
    #[error("tag too long")]
    TagTooLong,
}

/// Media tags. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tags {
    /// Who performs it.
    pub artist: Option<Box<str>>,
    /// The collection it belongs to.
    pub album: Option<Box<str>>,
    /// Its title.
    pub title: Option<Box<str>>,
    /// Its genre, as the file spells it.
    pub genre: Option<Box<str>>,
    /// Year of release.
    pub year: Option<u16>,
    /// Number within the album, from 1.
    pub track: Option<u16>,
    /// kbit/s, averaged over the file.
    pub bitrate: Option<u32>,
    /// Length in seconds, rounded.
    pub duration_s: Option<u32>,
}

impl Tags {
    /// How many are known.
    pub fn known(&self) -> usize {
        let texts = [&self.artist, &self.album, &self.title, &self.genre];
        let numbers = [self.year.map(u32::from), self.track.map(u32::from), self.bitrate, self.duration_s];
        texts.into_iter().flatten().count() + numbers.into_iter().flatten().count()
    }

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a file is, judged by its extension alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "net", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Music and speech.
    Audio,
    /// Moving pictures.
    Video,
    /// Still pictures.
    Image,
    /// Text to read.
    Document,
    /// Files packed into one.
    Archive,
    /// Programs and packages.
    Software,
    /// Everything else.
    Other,
}

impl Kind {
    /// All kinds, in the order of the query language's table.
    pub const ALL: [Self; 7] =
        [Self::Audio, Self::Video, Self::Image, Self::Document, Self::Archive, Self::Software, Self::Other];

    /// The kind of a file name.
    pub fn of_name(name: &str) -> Self {
        extension(name).map_or(Self::Other, |ext| Self::of_extension(&ext.to_lowercase()))
    }

    /// The kind of an extension that is already in lower case.
    pub fn of_extension(extension: &str) -> Self {
        match extension {
            "aac" | "ac3" | "aif" | "aiff" | "ape" | "dsf" | "dts" | "flac" | "m4a" | "m4b" | "mid" | "midi"
            | "mka" | "mp2" | "mp3" | "mpc" | "oga" | "ogg" | "opus" | "wav" | "wma" | "wv" => Self::Audio,
            "3gp" | "avi" | "flv" | "m2ts" | "m4v" | "mkv" | "mov" | "mp4" | "mpeg" | "mpg" | "mts" | "ogv" | "rm"
            | "rmvb" | "vob" | "webm" | "wmv" => Self::Video,
            "avif" | "bmp" | "gif" | "heic" | "ico" | "jpeg" | "jpg" | "jxl" | "png" | "psd" | "svg" | "tif"
            | "tiff" | "webp" => Self::Image,
            "azw3" | "cbr" | "cbz" | "chm" | "csv" | "djvu" | "doc" | "docx" | "epub" | "fb2" | "htm" | "html"
            | "md" | "mobi" | "odp" | "ods" | "odt" | "pdf" | "ppt" | "pptx" | "ps" | "rtf" | "srt" | "tex" | "txt"
            | "xls" | "xlsx" => Self::Document,
            "7z" | "bz2" | "cab" | "gz" | "img" | "iso" | "lz4" | "lzma" | "rar" | "tar" | "tgz" | "txz" | "xz"
            | "zip" | "zst" => Self::Archive,
            "apk" | "appimage" | "deb" | "dmg" | "exe" | "flatpak" | "jar" | "msi" | "pkg" | "rpm" | "snap" => {
                Self::Software
            }
            _ => Self::Other,
        }
    }

    /// Its name in queries and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Image => "image",
            Self::Document => "document",
            Self::Archive => "archive",
            Self::Software => "software",
            Self::Other => "other",
        }
    }

    /// The kind of that name, in lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// True for a path that is made of plain components: none of them is empty, `.` or `..`, or holds a NUL.
pub fn is_plain(path: &str) -> bool {
    path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'))
}

/// The path of an unlisted file with that content. Such paths are neighbours in a catalog.
pub fn unlisted_path(content: &ContentId) -> String {
    format!("{UNLISTED}{content}")
}

/// True for the path of an unlisted file.
pub fn is_unlisted(path: &str) -> bool {
    path.starts_with(UNLISTED)
}

/// What the paths of unlisted files, and no others, begin with.
pub const UNLISTED: &str = "/";

/// The last component of a path.
pub fn file_name(path: &str) -> &str {
    // Names are short: a search of bytes is twice as fast as one of characters.
    path.bytes().rposition(|byte| byte == b'/').map_or(path, |slash| &path[slash + 1..])
}

/// The text after the last dot of a file name; `None` without a dot or with nothing behind it.
pub fn extension(name: &str) -> Option<&str> {
    let dot = name.bytes().rposition(|byte| byte == b'.')?;
    Some(&name[dot + 1..]).filter(|extension| !extension.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> FileEntry {
        FileEntry { path: path.into(), content: ContentId([0; 32]), size: 1, modified_s: 0, tags: Tags::default() }
    }

    #[test]
    fn paths_are_plain_components_below_a_share() {
        assert_eq!(entry("Music/x/a b.flac").check(), Ok(()));
        for path in ["a", "a//b", "a/", "a/../b", "./a", "a/\0"] {
            assert_eq!(entry(path).check(), Err(FileEntryError::PathNotPlain), "{path:?}");
        }
    }

    #[test]
    fn unlisted_files_tell_content_and_size_alone() {
        let unlisted = FileEntry::unlisted(ContentId([7; 32]), 9);
        assert!(unlisted.is_unlisted() && !entry("a/b").is_unlisted());
        assert_eq!(unlisted.check(), Ok(()));
        let year = Tags { year: Some(1999), ..Tags::default() };
        for talkative in [
            FileEntry { path: "/a/b".into(), ..unlisted.clone() },
            FileEntry { path: "/a".into(), ..unlisted.clone() },
            FileEntry { content: ContentId([8; 32]), ..unlisted.clone() },
            FileEntry { modified_s: 1, ..unlisted.clone() },
            FileEntry { tags: year, ..unlisted.clone() },
        ] {
            assert_eq!(talkative.check(), Err(FileEntryError::NotUnlisted), "{talkative:?}");
        }
        assert_eq!(FileEntry { size: 0, ..unlisted }.check(), Err(FileEntryError::Size));
    }

    #[test]
    fn kinds_follow_the_extension_without_case() {
        assert_eq!(Kind::of_name("A.FLAC"), Kind::Audio);
        assert_eq!(Kind::of_name("archive.tar.gz"), Kind::Archive);
        assert_eq!(Kind::of_name("README"), Kind::Other);
        assert_eq!(Kind::of_name("dot."), Kind::Other);
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
    }
}
