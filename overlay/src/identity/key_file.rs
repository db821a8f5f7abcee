//! The file that keeps a node's identity: one line of 64 hexadecimal digits, the secret half of its key.
//!
//! Readable by its owner only. It is written once, whole, under its final name, and never changed: two
//! programs that start at once agree on the first one's key.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use zeroize::Zeroizing;

use super::Identity;

/// Bytes of a key file that are read; it has 65.
const READ_BYTES: u64 = 256;

/// Why there is no identity. The file was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It exists and cannot be read.
    #[error("cannot read the key file {}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not exist and cannot be written, or the system has no random numbers.
    #[error("cannot write the key file {}: {source}", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner can read it.
    #[error("the key file {} can be read by others (mode {mode:03o})", .path.display())]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is shorter or longer than a key.
    #[error("the key file {} holds {have} characters instead of 64", .path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// Characters without white space at the end, at most 256.
        have: usize,
    },
    /// It holds something else than hexadecimal digits.
    #[error("the key file {} does not hold 64 hexadecimal digits", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

impl KeyFileError {
    /// What the user can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Write { .. } => "check that this user may read and write the data folder",
            Self::Permissions { .. } => {
                "make it private with `chmod 600`; if others may have read it, remove it to get a new key"
            }
            Self::Length { .. } | Self::Malformed { .. } => {
                "restore it from a backup, or remove it to get a new key and a new id"
            }
        }
    }
}

impl Identity {
    /// A new identity from the system's random numbers.
    pub fn generate() -> io::Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Self::from_seed(*seed))
    }

    /// The identity kept in `path`; if there is no such file, a new one, which is then kept there. The folder
    /// must exist.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        match load(path)? {
            Some(identity) => Ok(identity),
            None => create(path),
        }
    }

    /// The identity kept in `path`, or `None` if there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>, KeyFileError> {
        load(path)
    }
}

fn load(path: &Path) -> Result<Option<Identity>, KeyFileError> {
    let failed = |source| KeyFileError::Read { path: path.into(), source };
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    check_permissions(path, &file.metadata().map_err(failed)?)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_BYTES as usize));
    io::Read::read_to_end(&mut io::Read::take(file, READ_BYTES), &mut bytes).map_err(failed)?;
    let digits = bytes.trim_ascii_end();
    if digits.len() != 64 {
        return Err(KeyFileError::Length { path: path.into(), have: digits.len() });
    }
    let mut seed = Zeroizing::new([0; 32]);
    match HEXLOWER_PERMISSIVE.decode_mut(digits, seed.as_mut_slice()) {
        Ok(_) => Ok(Some(Identity::from_seed(*seed))),
        Err(_) => Err(KeyFileError::Malformed { path: path.into() }),
    }
}

fn create(path: &Path) -> Result<Identity, KeyFileError> {
    match write(path) {
        // Another program was faster: its key counts.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path)?.ok_or(error),
        result => result,
    }
    .map_err(|source| KeyFileError::Write { path: path.into(), source })
}

fn write(path: &Path) -> io::Result<Identity> {
    let identity = Identity::generate()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Temporary files are born with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut line = Zeroizing::new(HEXLOWER.encode(identity.seed().as_slice()));
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    // The name must survive a crash too. Systems that cannot sync a folder keep it by themselves.
    let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    Ok(identity)
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyFileError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path.into(), mode });
    }
    Ok(())
}

/// Elsewhere the data folder of a user is private by itself.
#[cfg(not(unix))]
fn check_permissions(_: &Path, _: &fs::Metadata) -> Result<(), KeyFileError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        assert!(Identity::load(&path).unwrap().is_none());
        let first = Identity::load_or_create(&path).unwrap();
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.peer_id(), second.peer_id());
        assert_eq!(fs::read(&path).unwrap().len(), 65);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_programs_that_start_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let start = || {
            std::thread::spawn({
                let path = path.clone();
                move || Identity::load_or_create(&path).unwrap().peer_id()
            })
        };
        let programs: Vec<_> = (0..8).map(|_| start()).collect();
        let keys: Vec<_> = programs.into_iter().map(|program| program.join().unwrap()).collect();
        assert!(keys.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[cfg(unix)]
    #[test]
    fn broken_and_public_files_are_refused_and_kept() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.key");
        let attempt = |content: &str, mode: u32| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::load_or_create(&path).unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            error
        };
        assert!(matches!(attempt("", 0o600), KeyFileError::Length { have: 0, .. }));
        assert!(matches!(attempt(&"a".repeat(63), 0o600), KeyFileError::Length { have: 63, .. }));
        assert!(matches!(attempt(&"g".repeat(64), 0o600), KeyFileError::Malformed { .. }));
        assert!(matches!(attempt(&"a".repeat(64), 0o640), KeyFileError::Permissions { mode: 0o640, .. }));
    }
}
