//! Where things lie: the data folder and what is in it, the configuration file, the download folder.
//!
//! [`Folders`] chooses the places and touches nothing. [`DataFolder`] makes the data folder, locks it
//! for one daemon, and brings data of an older version up to date. Every file is written whole or not
//! at all ([`write_atomically`]), so a power failure leaves the old or the new one.

use std::{
    cmp::Ordering,
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    admin::error::Code,
    config::Program,
    environment::{Environment, absolute},
    limits,
};

/// The places of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// `DATA_DIR`: what the node keeps.
    pub data: PathBuf,
    /// True if the user named the data folder, by option or variable.
    pub data_given: bool,
    /// The configuration file; it may be absent unless it was given.
    pub configuration: PathBuf,
    /// True if the user named the configuration file.
    pub configuration_given: bool,
    /// Where finished downloads go unless the configuration says otherwise.
    pub downloads: PathBuf,
}

impl Folders {
    /// Chooses the places by the options `--data-dir` and `--config`, the environment, and which
    /// configuration file exists.
    ///
    /// # Errors
    /// [`FolderError::NoHome`] if no data folder was given and the user has no home folder.
    pub fn choose(
        program: Program,
        data_dir: Option<&Path>,
        config: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, FolderError> {
        let here = |path: &Path| absolute(path, environment.working_folder(), environment.home());
        let given = |option: Option<&Path>, variable: &str| {
            option.or_else(|| environment.variable(variable).map(Path::new)).map(here)
        };
        let given_data = given(data_dir, "QUICTRACK_DATA_DIR");
        let given_config = given(config, "QUICTRACK_CONFIG");
        let data_given = given_data.is_some();
        let configuration_given = given_config.is_some();
        let data = given_data.or_else(|| default_data(program, environment)).ok_or(FolderError::NoHome)?;
        let file_name = format!("{}.toml", program.role());
        let configuration = match given_config {
            Some(path) => path,
            None if data_given => data.join(file_name),
            None => default_configuration(&file_name, environment),
        };
        let downloads = match download_folder(environment) {
            Some(folder) if !data_given => folder.join("Quictrack"),
            _ => data.join("downloads"),
        };
        Ok(Self { data, data_given, configuration, configuration_given, downloads })
    }

    /// The places of a node that lives in one folder, without a configuration file that must exist.
    pub fn within(program: Program, data: &Path) -> Self {
        Self {
            data: data.into(),
            data_given: true,
            configuration: data.join(format!("{}.toml", program.role())),
            configuration_given: false,
            downloads: data.join("downloads"),
        }
    }

    /// The node's secret key.
    pub fn identity_file(&self) -> PathBuf {
        self.data.join("identity.key")
    }

    /// The settings made at run time.
    pub fn settings_file(&self) -> PathBuf {
        self.data.join("settings.toml")
    }

    /// The database.
    pub fn state_file(&self) -> PathBuf {
        self.data.join("state.redb")
    }

    /// The pieces' chaining values of shared files.
    pub fn outboards(&self) -> PathBuf {
        self.data.join("outboards")
    }
}

/// The data folder, locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    folders: Folders,
    lock: File,
}

impl DataFolder {
    /// Makes the folder if it is absent, lets only its owner in, locks it, and checks the version of what
    /// is in it. Data of an older version is copied to `backup-VERSION/` and then given to `migrate`
    /// with that version; only when that succeeds does the folder count as up to date.
    ///
    /// # Errors
    /// [`FolderError::AlreadyRunning`], [`FolderError::TooNew`], or what the system refused. The data is
    /// as before unless `migrate` changed it, and then the copy is complete.
    pub fn open(
        folders: &Folders,
        migrate: impl FnOnce(&Path, &DataVersion) -> io::Result<()>,
    ) -> Result<Self, FolderError> {
        make_private_folder(&folders.data)?;
        let lock = lock(&folders.data.join("lock"))?;
        let opened = Self { folders: folders.clone(), lock };
        opened.bring_up_to_date(migrate)?;
        Ok(opened)
    }

    /// The places.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The UDP port that was chosen the last time, if one was remembered.
    pub fn remembered_port(&self) -> Option<u16> {
        read_text(&self.folders.data.join(PORT_FILE)).ok()?.trim().parse().ok()
    }

    /// Keeps the UDP port that was chosen, so that it is tried first the next time.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remember_port(&self, port: u16) -> Result<(), FolderError> {
        let path = self.folders.data.join(PORT_FILE);
        write_atomically(&path, format!("{port}\n").as_bytes(), PRIVATE_FILE)
            .map_err(|error| FolderError::io("write", &path, error))
    }

    fn bring_up_to_date(&self, migrate: impl FnOnce(&Path, &DataVersion) -> io::Result<()>) -> Result<(), FolderError> {
        let path = self.folders.data.join("version");
        let current = DataVersion::current();
        let found = match read_text(&path) {
            Ok(text) => DataVersion::parse(&text).ok_or_else(|| FolderError::TooNew { found: text.trim().into() })?,
            // Without a version there is no data yet, or only a key.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return write_version(&path),
            Err(error) => return Err(FolderError::io("read", &path, error)),
        };
        match found.compare(&current) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(FolderError::TooNew { found: found.text }),
            Ordering::Less => {
                self.back_up(&found)?;
                migrate(&self.folders.data, &found)
                    .map_err(|error| FolderError::io("migrate", &self.folders.data, error))?;
                write_version(&path)
            }
        }
    }

    /// Copies the data to `backup-VERSION/`, which appears only when it is complete. A copy that is
    /// already there was made before a migration that failed, so it is the one to keep.
    fn back_up(&self, version: &DataVersion) -> Result<(), FolderError> {
        let data = &self.folders.data;
        let backup = data.join(format!("backup-{}", version.text));
        if backup.exists() {
            return Ok(());
        }
        let copy = || -> io::Result<()> {
            let partial = tempfile::Builder::new().prefix(".backup-").tempdir_in(data)?;
            for entry in fs::read_dir(data)? {
                let entry = entry?;
                let name = entry.file_name();
                let text = name.to_string_lossy();
                let is_backup = text.starts_with("backup-") || text.starts_with(".backup-");
                let is_transient = ["lock", "api.json", "downloads"].contains(&&*text);
                if !is_backup && !is_transient {
                    copy_whole(&entry.path(), &partial.path().join(&name))?;
                }
            }
            fs::rename(partial.keep(), &backup)
        };
        copy().map_err(|error| FolderError::io("copy data to", &backup, error))
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        // The system unlocks when the file is closed; the empty file says that nobody holds it.
        let _ = self.lock.set_len(0);
    }
}

/// The version of the data, which changes only when its form does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataVersion {
    numbers: Vec<u64>,
    text: String,
}

impl DataVersion {
    /// The version that this program writes.
    const CURRENT: &'static str = "1";

    /// The version that this program writes.
    pub fn current() -> Self {
        Self::parse(Self::CURRENT).unwrap_or_else(|| Self { numbers: vec![1], text: Self::CURRENT.into() })
    }

    /// The version as the file says it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Numbers between dots; `None` for anything else.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let numbers: Option<Vec<u64>> = text.split('.').map(|number| number.parse().ok()).collect();
        numbers.filter(|numbers| numbers.len() <= 4).map(|numbers| Self { numbers, text: text.into() })
    }

    /// Compares number by number; missing ones count as 0.
    fn compare(&self, other: &Self) -> Ordering {
        let number = |version: &Self, index: usize| version.numbers.get(index).copied().unwrap_or(0);
        (0..self.numbers.len().max(other.numbers.len()))
            .map(|index| number(self, index).cmp(&number(other, index)))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// Why a folder or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// There is no place for data. The user must name one; nothing was changed.
    #[error("the user has no home folder, and no data folder is given")]
    NoHome,
    /// Another daemon has locked the data folder. Nothing was changed.
    #[error("another daemon{} already uses {}", of_process(*pid), path.display())]
    AlreadyRunning {
        /// The data folder.
        path: PathBuf,
        /// The other daemon's process, if it said so.
        pid: Option<u32>,
    },
    /// A newer version of the program wrote the data, or something that is no version. Nothing was changed.
    #[error(
        "the data was written by a newer version (data version {found}, this program reads up to {})",
        DataVersion::CURRENT
    )]
    TooNew {
        /// What the version file holds.
        found: String,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl FolderError {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The code of this error on the command line.
    pub fn code(&self) -> Code {
        match self {
            Self::AlreadyRunning { .. } => Code::AlreadyRunning,
            Self::TooNew { .. } => Code::DataTooNew,
            Self::NoHome => Code::BadConfig,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::PermissionDenied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
                _ => Code::Internal,
            },
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoHome => Some("name a data folder with --data-dir or QUICTRACK_DATA_DIR".into()),
            Self::AlreadyRunning { .. } => {
                Some("stop the other daemon, or give this one a folder of its own with --data-dir".into())
            }
            Self::TooNew { .. } => Some("use the newer program, or another folder with --data-dir".into()),
            Self::Io { path, .. } if self.code() == Code::PermissionDenied => {
                Some(format!("give {} to the user who runs the program, as with `chown`", path.display()))
            }
            Self::Io { .. } => None,
        }
    }
}

/// Writes a file whole or not at all: into a temporary file of the same folder, which is forced to the
/// disk and then takes the name. `mode` is its permission bits where there are any. Blocking.
///
/// # Errors
/// What the system says; the file is as before.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Reads a small file of JSON; `None` if there is none. Blocking.
///
/// # Errors
/// What the system says, or what is wrong with it.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut text = String::new();
    file.take(limits::CONFIG_BYTES).read_to_string(&mut text)?;
    Ok(Some(serde_json::from_str(&text)?))
}

/// Writes such a file whole or not at all. Blocking.
///
/// # Errors
/// What the system says; the file is as before.
pub fn write_json(path: &Path, value: &impl Serialize, mode: u32) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_atomically(path, text.as_bytes(), mode)
}

/// Forces a folder's entries to the disk, so that a rename in it survives a power failure.
///
/// # Errors
/// What the system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open folders and writes renames through.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Permission bits of files that hold secrets.
pub const PRIVATE_FILE: u32 = 0o600;

/// Holds the UDP port that was chosen the last time.
const PORT_FILE: &str = "port";

fn of_process(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn default_data(program: Program, environment: &Environment) -> Option<PathBuf> {
    // systemd lists several state folders with colons between them; the first is ours.
    if let Some(states) = environment.variable("STATE_DIRECTORY").and_then(|states| states.to_str()) {
        return states.split(':').next().map(PathBuf::from);
    }
    xdg(environment, "XDG_DATA_HOME", ".local/share").map(|data| data.join(program.name()))
}

/// The user's file if there is one, else the system's if there is one, else where the user's would be.
fn default_configuration(file_name: &str, environment: &Environment) -> PathBuf {
    let system = Path::new("/etc/quictrack").join(file_name);
    match xdg(environment, "XDG_CONFIG_HOME", ".config") {
        Some(user) => {
            let own = user.join("quictrack").join(file_name);
            if own.exists() || !system.exists() { own } else { system }
        }
        None => system,
    }
}

fn xdg(environment: &Environment, variable: &str, below_home: &str) -> Option<PathBuf> {
    let set = environment.absolute_path(variable).map(Path::to_owned);
    set.or_else(|| environment.home().map(|home| home.join(below_home)))
}

/// The XDG download folder: by variable, by `user-dirs.dirs`, or `Downloads`; `None` without a home.
fn download_folder(environment: &Environment) -> Option<PathBuf> {
    if let Some(set) = environment.absolute_path("XDG_DOWNLOAD_DIR") {
        return Some(set.into());
    }
    let home = environment.home()?;
    let user_dirs = xdg(environment, "XDG_CONFIG_HOME", ".config")?.join("user-dirs.dirs");
    let listed = read_text(&user_dirs).ok().and_then(|text| listed_download_folder(&text, home));
    Some(listed.unwrap_or_else(|| home.join("Downloads")))
}

/// The line `XDG_DOWNLOAD_DIR="$HOME/Downloads"` of `user-dirs.dirs`; the last one counts.
fn listed_download_folder(text: &str, home: &Path) -> Option<PathBuf> {
    let value = |line: &str| {
        let value = line.trim().strip_prefix("XDG_DOWNLOAD_DIR=")?.trim().strip_prefix('"')?.strip_suffix('"')?;
        let value = value.replace("\\\"", "\"").replace("\\\\", "\\");
        let path = match value.strip_prefix("$HOME") {
            Some(below) => home.join(below.trim_start_matches('/')),
            None => PathBuf::from(value),
        };
        path.is_absolute().then_some(path)
    };
    text.lines().filter_map(value).next_back()
}

/// Makes a folder that only its owner can look into; one that exists is made so if it is the owner's.
///
/// # Errors
/// What the system refuses.
pub fn make_private_folder(path: &Path) -> Result<(), FolderError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|error| FolderError::io("make", path, error))?;
    // A folder that was there may belong to another, as volumes of containers do: then it stays as it is.
    #[cfg(unix)]
    let _ = fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700));
    Ok(())
}

/// Locks the file for this process and writes the process into it, for the message of the next one.
fn lock(path: &Path) -> Result<File, FolderError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, PRIVATE_FILE);
    let mut file = options.open(path).map_err(|error| FolderError::io("open", path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = read_text(path).ok().and_then(|text| text.trim().parse().ok());
            return Err(FolderError::AlreadyRunning { path: path.parent().unwrap_or(path).into(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(FolderError::io("lock", path, error)),
    }
    let write = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(|error| FolderError::io("write", path, error))?;
    Ok(file)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limits::CONFIG_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn write_version(path: &Path) -> Result<(), FolderError> {
    let text = format!("{}\n", DataVersion::current().text);
    write_atomically(path, text.as_bytes(), PRIVATE_FILE).map_err(|error| FolderError::io("write", path, error))
}

/// Copies a file, or a folder with all that is in it. Links are left out: data has none.
fn copy_whole(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy_whole(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if kind.is_file() {
        fs::copy(from, to)?;
        File::open(to)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(program: Program, data: Option<&str>, variables: &[(&str, &str)]) -> Folders {
        let environment = Environment::of(variables.iter().copied());
        Folders::choose(program, data.map(Path::new), None, &environment).unwrap()
    }

    fn open(folder: &Path) -> Result<DataFolder, FolderError> {
        DataFolder::open(&Folders::within(Program::Leaf, folder), |_, _| Ok(()))
    }

    #[test]
    fn places_follow_the_xdg_folders() {
        let home = [("HOME", "/nowhere/u")];
        let leaf = choose(Program::Leaf, None, &home);
        assert_eq!(leaf.data, Path::new("/nowhere/u/.local/share/quictrack"));
        assert_eq!(leaf.configuration, Path::new("/nowhere/u/.config/quictrack/leaf.toml"));
        assert_eq!(leaf.downloads, Path::new("/nowhere/u/Downloads/Quictrack"));
        assert_eq!((leaf.data_given, leaf.configuration_given), (false, false));
        let ultrapeer = choose(Program::Ultrapeer, None, &home);
        assert_eq!(ultrapeer.data, Path::new("/nowhere/u/.local/share/quictrack-ultrapeer"));
        assert_eq!(ultrapeer.configuration, Path::new("/nowhere/u/.config/quictrack/ultrapeer.toml"));
        let moved = choose(
            Program::Leaf,
            None,
            &[
                ("HOME", "/nowhere/u"),
                ("XDG_DATA_HOME", "/d"),
                ("XDG_CONFIG_HOME", "relative"),
                ("XDG_DOWNLOAD_DIR", "/l"),
            ],
        );
        assert_eq!(moved.data, Path::new("/d/quictrack"));
        assert_eq!(moved.configuration, Path::new("/nowhere/u/.config/quictrack/leaf.toml"));
        assert_eq!(moved.downloads, Path::new("/l/Quictrack"));
    }

    #[test]
    fn a_given_data_folder_holds_configuration_and_downloads() {
        for given in [
            choose(Program::Leaf, Some("/d"), &[("HOME", "/u"), ("QUICTRACK_DATA_DIR", "/other")]),
            choose(Program::Leaf, Some("d"), &[]),
            choose(Program::Leaf, None, &[("QUICTRACK_DATA_DIR", "/d")]),
        ] {
            assert_eq!(given, Folders::within(Program::Leaf, Path::new("/d")));
        }
        let environment = Environment::of([("QUICTRACK_CONFIG", "x.toml")]);
        let given = Folders::choose(Program::Leaf, Some(Path::new("/d")), None, &environment).unwrap();
        assert_eq!((given.configuration.as_path(), given.configuration_given), (Path::new("/x.toml"), true));
    }

    #[test]
    fn a_service_keeps_everything_in_its_state_folder() {
        let service = choose(Program::Ultrapeer, None, &[("STATE_DIRECTORY", "/var/lib/q:/var/lib/r"), ("HOME", "/")]);
        assert_eq!(service.data, Path::new("/var/lib/q"));
        assert!(!service.data_given);
        assert_eq!(service.configuration, Path::new("/etc/quictrack/ultrapeer.toml"));
        assert_eq!(service.downloads, Path::new("/var/lib/q/downloads"));
        let homeless = Folders::choose(Program::Leaf, None, None, &Environment::default());
        assert!(matches!(homeless, Err(FolderError::NoHome)));
    }

    #[test]
    fn the_download_folder_is_read_from_user_dirs() {
        let listed = |text: &str| listed_download_folder(text, Path::new("/u"));
        assert_eq!(listed("# x\nXDG_DOWNLOAD_DIR=\"$HOME/Geladen\"\n"), Some("/u/Geladen".into()));
        assert_eq!(listed("XDG_DOWNLOAD_DIR=\"/a\"\nXDG_DOWNLOAD_DIR=\"/b \\\" c\""), Some("/b \" c".into()));
        assert_eq!(listed("XDG_DOWNLOAD_DIR=\"relative\"\nXDG_MUSIC_DIR=\"/m\""), None);
    }

    #[test]
    fn one_daemon_at_a_time_uses_a_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a/b");
        let first = open(&data).unwrap();
        let error = open(&data).unwrap_err();
        assert!(matches!(error, FolderError::AlreadyRunning { pid: Some(pid), .. } if pid == std::process::id()));
        assert_eq!(error.code(), Code::AlreadyRunning);
        drop(first);
        open(&data).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_gets_in() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let data = open(&folder.path().join("data")).unwrap();
        let path = &data.folders().data;
        assert_eq!(mode(path), 0o700);
        for name in ["lock", "version"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn the_port_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let data = open(folder.path()).unwrap();
        assert_eq!(data.remembered_port(), None);
        data.remember_port(40_001).unwrap();
        assert_eq!(data.remembered_port(), Some(40_001));
    }

    #[test]
    fn data_of_a_newer_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["2", "1.0.1", "99.0.0", "unreadable"] {
            fs::write(folder.path().join("version"), version).unwrap();
            assert_eq!(open(folder.path()).unwrap_err().code(), Code::DataTooNew, "{version}");
            assert_eq!(fs::read_to_string(folder.path().join("version")).unwrap(), version);
        }
        fs::write(folder.path().join("version"), "1.0\n").unwrap();
        open(folder.path()).unwrap();
    }

    #[test]
    fn data_of_an_older_version_is_copied_and_migrated() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let places = Folders::within(Program::Leaf, folder.path());
        fs::write(at("version"), "0.9").unwrap();
        fs::write(at("state.redb"), "old").unwrap();
        fs::create_dir_all(at("outboards/x")).unwrap();
        fs::write(at("outboards/x/y"), "o").unwrap();
        fs::create_dir_all(at("downloads")).unwrap();
        // A migration that fails leaves the version, so that the next start tries again.
        let failed = DataFolder::open(&places, |_, _| {
            fs::write(at("state.redb"), "half")?;
            Err(io::ErrorKind::InvalidData.into())
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(at("version")).unwrap(), "0.9");
        DataFolder::open(&places, |data, from| {
            assert_eq!((data, from.as_str()), (folder.path(), "0.9"));
            fs::write(at("state.redb"), "new")
        })
        .unwrap();
        assert_eq!(fs::read_to_string(at("state.redb")).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("backup-0.9/state.redb")).unwrap(), "old");
        assert_eq!(fs::read_to_string(at("backup-0.9/outboards/x/y")).unwrap(), "o");
        assert!(!at("backup-0.9/downloads").exists() && !at("backup-0.9/lock").exists());
        DataFolder::open(&places, |_, _| panic!("nothing to migrate")).unwrap();
    }

    #[test]
    fn files_are_replaced_whole_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_atomically(&path, b"one", PRIVATE_FILE).unwrap();
        write_atomically(&path, b"two", PRIVATE_FILE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(&folder.path().join("no/x"), b"", PRIVATE_FILE).is_err());
    }
}
