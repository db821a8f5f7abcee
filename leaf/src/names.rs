//! File names that others chose, made safe for this machine's file systems.

use std::path::{Path, PathBuf};

/// Bytes of a file name: `NAME_MAX` on Linux, and the least of the common file systems.
pub const NAME_BYTES: usize = 255;

/// `name` as a single, harmless path component of at most [`NAME_BYTES`].
///
/// Separators, control and direction characters become `_`; so do names that mean something else to a
/// system: `.`, `..`, devices of Windows, a dot or space at the end, and the dot that would hide the file.
/// An empty name is `_`.
pub fn safe_name(name: &str) -> String {
    let mut safe: String = name.chars().map(|c| if is_unsafe(c) { '_' } else { c }).collect();
    if safe.starts_with('.') {
        safe.replace_range(..1, "_");
    }
    if safe.ends_with(['.', ' ']) {
        safe.replace_range(safe.len() - 1.., "_");
    }
    if safe.is_empty() || is_reserved(&safe) {
        safe.insert(0, '_');
    }
    shorten(&safe, NAME_BYTES)
}

/// The folder of a file that others place at `path` (components separated by `/`), below `root`: each
/// component is made safe, so the folder never lies outside.
pub fn folder_below(root: &Path, path: &str) -> PathBuf {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    let mut folder = root.to_owned();
    folder.extend(folders.split('/').filter(|component| !component.is_empty()).map(safe_name));
    folder
}

/// `name` as the `number`th of several files that want it: `a.flac`, `a (2).flac`, ... Number 1 is the name itself.
pub fn numbered(name: &str, number: u32) -> String {
    if number <= 1 {
        return name.to_owned();
    }
    let (stem, extension) = split(name);
    let suffix = format!(" ({number}){extension}");
    format!("{}{suffix}", cut(stem, NAME_BYTES.saturating_sub(suffix.len())))
}

fn is_unsafe(c: char) -> bool {
    matches!(c,
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'
        // Direction: marks, embeddings, overrides, isolates.
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Line and paragraph separators, and the byte order mark.
        | '\u{2028}' | '\u{2029}' | '\u{feff}')
        || c.is_control()
}

/// Names of devices on Windows, with any extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

/// The name without its extension, and the extension with its dot; long ones do not count as one.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= 16 => name.split_at(dot),
        _ => (name, ""),
    }
}

fn shorten(name: &str, bytes: usize) -> String {
    if name.len() <= bytes {
        return name.to_owned();
    }
    let (stem, extension) = split(name);
    format!("{}{extension}", cut(stem, bytes - extension.len()))
}

/// As much of `text` as fits, cut between characters.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folders_of_others_stay_below_the_root() {
        let root = Path::new("/downloads");
        assert_eq!(folder_below(root, "Music/x/a.flac"), Path::new("/downloads/Music/x"));
        assert_eq!(folder_below(root, "a.flac"), root);
        assert!(folder_below(root, "../../etc//passwd").starts_with(root));
        assert!(!folder_below(root, "../../etc/passwd").to_string_lossy().contains(".."));
    }

    #[test]
    fn names_become_single_components() {
        for (name, safe) in [
            ("a b.flac", "a b.flac"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("..", "__"),
            (".", "_"),
            ("", "_"),
            (".bashrc", "_bashrc"),
            ("a\0b\n", "a_b_"),
            ("a\u{202e}cod.exe", "a_cod.exe"),
            ("con.txt", "_con.txt"),
            ("COM1", "_COM1"),
            ("end. ", "end._"),
            ("naïve 日本.txt", "naïve 日本.txt"),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
    }

    #[test]
    fn long_names_keep_their_extension() {
        let name = format!("{}.flac", "ä".repeat(200));
        let safe = safe_name(&name);
        assert!(safe.len() <= NAME_BYTES && safe.ends_with("ä.flac"));
        let second = numbered(&safe, 2);
        assert!(second.len() <= NAME_BYTES && second.ends_with(" (2).flac"));
    }

    proptest! {
        #[test]
        fn every_name_is_safe(name in any::<String>(), number in 1u32..2000) {
            for safe in [safe_name(&name), numbered(&safe_name(&name), number)] {
                prop_assert!(!safe.is_empty() && safe.len() <= NAME_BYTES);
                prop_assert!(!safe.contains(['/', '\\', '\0']) && safe != "." && safe != ".." && !safe.starts_with('.'));
            }
            prop_assert_eq!(safe_name(&safe_name(&name)), safe_name(&name));
        }
    }
}
