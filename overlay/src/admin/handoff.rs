//! The files by which commands find and open the daemon: two tokens that stay, and `api.json` that is there
//! only while the daemon runs.
//!
//! All are 0600 and written whole or not at all. The functions block, which is fine at start and stop.

use std::{fmt, fs, io, path::Path};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::{
    admin::auth::{TokenHash, Tokens},
    folders,
};

const API_FILE: &str = "api.json";
const TOKEN_FILE: &str = "api-token";
const READ_ONLY_TOKEN_FILE: &str = "api-token-readonly";

/// Random bytes of a token: 256 bits, which nobody guesses.
const TOKEN_BYTES: usize = 32;
/// Characters below which a token that a user wrote himself is refused: 16 hex digits are 64 bits.
const TOKEN_CHARS_MIN: usize = 16;

/// How to reach a running daemon: the content of `api.json`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiFile {
    /// `http://ADDRESS`, without a path.
    pub url: String,
    /// The full token.
    pub token: String,
    /// The process.
    pub pid: u32,
    /// `leaf` or `ultrapeer`.
    pub role: String,
    /// The daemon's version.
    pub version: String,
}

impl ApiFile {
    /// Writes it to the data folder, in place of an older one.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let json = serde_json::to_string(self)?;
        write_private(data_dir, API_FILE, json.as_bytes())
    }

    /// Reads it; `None` if no daemon left one. What cannot be read is an error of kind `InvalidData`.
    pub fn read(data_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(data_dir.join(API_FILE)) {
            Ok(json) => match serde_json::from_slice(&json) {
                Ok(file) => Ok(Some(file)),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes it; one that is gone already is fine.
    pub fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(API_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for ApiFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiFile").field("url", &self.url).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// The texts of a daemon's tokens.
#[derive(Clone)]
pub struct TokenTexts {
    /// Opens everything.
    pub full: String,
    /// Opens what changes nothing, and searches.
    pub read_only: String,
}

impl TokenTexts {
    /// Reads both tokens from the data folder and makes those that are missing.
    ///
    /// A file with less than 16 characters is refused (`InvalidData`) and not replaced, for someone put it there.
    pub fn load_or_make(data_dir: &Path) -> io::Result<Self> {
        Ok(Self { full: load_or_make(data_dir, TOKEN_FILE)?, read_only: load_or_make(data_dir, READ_ONLY_TOKEN_FILE)? })
    }

    /// What the server keeps.
    pub fn hashes(&self) -> Tokens {
        Tokens { full: TokenHash::of(&self.full), read_only: TokenHash::of(&self.read_only) }
    }
}

impl fmt::Debug for TokenTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenTexts(..)")
    }
}

fn load_or_make(data_dir: &Path, name: &str) -> io::Result<String> {
    let usable = |text: &str| text.len() >= TOKEN_CHARS_MIN && text.bytes().all(|byte| byte.is_ascii_graphic());
    match fs::read(data_dir.join(name)).map(|bytes| String::from_utf8_lossy(bytes.trim_ascii()).into_owned()) {
        Ok(text) if usable(&text) => Ok(text),
        Ok(_) => {
            let message = format!("{} holds no token; remove it to have one made", data_dir.join(name).display());
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; TOKEN_BYTES];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let token = HEXLOWER.encode(&random);
            write_private(data_dir, name, token.as_bytes())?;
            Ok(token)
        }
        Err(error) => Err(error),
    }
}

fn write_private(data_dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    folders::write_atomically(&data_dir.join(name), &[content, b"\n"].concat(), folders::PRIVATE_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let made = TokenTexts::load_or_make(dir.path()).unwrap();
        let read = TokenTexts::load_or_make(dir.path()).unwrap();
        assert_eq!((made.full.len(), &made.full, &made.read_only), (64, &read.full, &read.read_only));
        assert_ne!(made.full, made.read_only);
        fs::write(dir.path().join(TOKEN_FILE), " \n").unwrap();
        assert_eq!(TokenTexts::load_or_make(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        TokenTexts::load_or_make(dir.path()).unwrap();
        api_file().write(dir.path()).unwrap();
        for name in [TOKEN_FILE, READ_ONLY_TOKEN_FILE, API_FILE] {
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn api_json_lives_as_long_as_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ApiFile::read(dir.path()).unwrap(), None);
        api_file().write(dir.path()).unwrap();
        assert_eq!(ApiFile::read(dir.path()).unwrap(), Some(api_file()));
        assert!(!format!("{:?}", api_file()).contains("secret"));
        ApiFile::remove(dir.path()).unwrap();
        ApiFile::remove(dir.path()).unwrap();
        assert_eq!(ApiFile::read(dir.path()).unwrap(), None);
        fs::write(dir.path().join(API_FILE), "{").unwrap();
        assert_eq!(ApiFile::read(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    fn api_file() -> ApiFile {
        ApiFile {
            url: "http://127.0.0.1:1".into(),
            token: "secret".into(),
            pid: 1,
            role: "leaf".into(),
            version: "0.1.0".into(),
        }
    }
}
