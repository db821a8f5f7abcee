//! Paths as bytes and as text.

use std::path::{Path, PathBuf};

/// A path as the file system spells it, to be a key.
#[cfg(unix)]
pub(super) fn to_bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}

/// A path from [`to_bytes`].
#[cfg(unix)]
pub(super) fn from_bytes(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).into()
}

/// A path as the file system spells it, with `/` between components, to be a key.
#[cfg(not(unix))]
pub(super) fn to_bytes(path: &Path) -> Vec<u8> {
    path.to_string_lossy().replace('\\', "/").into_bytes()
}

/// A path from [`to_bytes`].
#[cfg(not(unix))]
pub(super) fn from_bytes(bytes: &[u8]) -> PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// A path as the network sees it: text with `/` between components; what is no UTF-8 shows as U+FFFD.
pub(super) fn shown(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_text_repairs() {
        let path = from_bytes(b"a/b\xff/c");
        assert_eq!(to_bytes(&path), b"a/b\xff/c");
        assert_eq!(shown(&path), "a/b\u{fffd}/c");
    }
}
