//! Folders that nothing leads out of: what is opened, made or named in one lies in it, whatever links another program
//! puts in the way, and whenever it does.
//!
//! On Linux the system sees to it (`openat2`, `RESOLVE_BENEATH`: links that stay inside are followed). Where it cannot, a
//! path is walked folder by folder and no link is followed. On other systems than Unix each step is looked at before it is
//! taken, which a program that swaps it in between can deceive.
//!
//! The path of the folder itself is its user's choice, links and all.

use std::{
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Where it is, for messages and for what others are told.
    path: PathBuf,
    #[cfg(unix)]
    dir: File,
}

impl Folder {
    /// Opens a folder that its user chose, and makes it first if it is not there.
    pub(crate) fn make_root(path: &Path) -> io::Result<Self> {
        match Self::root(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path)?;
                Self::root(path)
            }
            opened => opened,
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a file of this folder a name in another, or in this one. False if the name is taken. Fails with
    /// `CrossesDevices` if the other is on another file system.
    pub(crate) fn rename(&self, name: &str, to: &Self, new: &str) -> io::Result<bool> {
        match self.rename_new(name, to, new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            result => result.map(|()| true),
        }
    }
}

/// Opens a file below a folder, through links as well, as long as they end inside.
pub(crate) fn open_through_links(root: &Path, below: &Path) -> io::Result<File> {
    let folder = Folder::root(root)?;
    match folder.open(below) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Links with a path from `/` on may still end inside; what they end at is opened without following any.
            let (real_root, real) = (root.canonicalize()?, root.join(below).canonicalize()?);
            folder.open(real.strip_prefix(&real_root).map_err(|_| leads_out())?)
        }
        opened => opened,
    }
}

/// Components that lead down, and nothing else.
fn is_plain(below: &Path) -> bool {
    below.components().all(|component| matches!(component, Component::Normal(_)))
}

/// What is told of a path that leads out.
fn leads_out() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "a link in the way leads out of its folder")
}

#[cfg(unix)]
mod unix {
    use rustix::{
        fs::{AtFlags, FileType, Mode, OFlags, linkat, mkdirat, openat, statat, unlinkat},
        io::Errno,
    };

    use super::{Component, File, Folder, Path, PathBuf, io, is_plain, leads_out};
    use crate::steps::written;

    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

    impl Folder {
        /// Opens a folder that its user chose.
        pub(crate) fn root(path: &Path) -> io::Result<Self> {
            let dir = rustix::fs::open(path, FOLDER | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Self { path: path.to_owned(), dir: dir.into() })
        }

        /// The folder at a path below this one.
        pub(crate) fn folder(&self, below: &Path) -> io::Result<Self> {
            if below.as_os_str().is_empty() {
                return Ok(Self { path: self.path.clone(), dir: self.dir.try_clone()? });
            }
            Ok(Self { path: self.path.join(below), dir: self.open_below(below, FOLDER, Mode::empty())? })
        }

        /// The same, made if it is not there.
        pub(crate) fn make(&self, below: &Path) -> io::Result<Self> {
            match self.folder(below) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return opened,
            }
            let mut reached = PathBuf::new();
            for component in below.components() {
                let parent = self.folder(&reached)?;
                match mkdirat(&parent.dir, component.as_os_str(), Mode::from_raw_mode(0o777)) {
                    Err(Errno::EXIST) => {}
                    made => {
                        made?;
                        written();
                    }
                }
                reached.push(component);
            }
            self.folder(below)
        }

        /// Makes a new file for reading and writing.
        pub(crate) fn create(&self, name: &str) -> io::Result<File> {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            self.open_below(Path::new(name), flags, Mode::from_raw_mode(0o666))
        }

        /// Opens a file at a path below this folder.
        pub(crate) fn open(&self, below: &Path) -> io::Result<File> {
            self.open_regular(below, OFlags::RDONLY)
        }

        /// Opens a file of this folder to read and to change it.
        pub(crate) fn open_to_write(&self, name: &str) -> io::Result<File> {
            self.open_regular(Path::new(name), OFlags::RDWR | OFlags::NOFOLLOW)
        }

        /// Opens nothing but files: a pipe would hold its opener up for ever.
        fn open_regular(&self, below: &Path, flags: OFlags) -> io::Result<File> {
            let file = self.open_below(below, flags | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
            if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
        }

        /// True if something has this name, whatever it is.
        pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
            match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(false),
                found => Ok(found.map(|_| true)?),
            }
        }

        /// The length of a file; `None` if there is none of this name.
        pub(crate) fn length(&self, name: &str) -> io::Result<Option<u64>> {
            match statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => Ok(None),
                found => {
                    let found = found?;
                    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
                    Ok(is_file.then_some(found.st_size as u64))
                }
            }
        }

        /// Removes a file, if it is there.
        pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
            match unlinkat(&self.dir, name, AtFlags::empty()) {
                Err(Errno::NOENT) => Ok(()),
                removed => Ok(removed?),
            }
        }

        /// Makes names durable. Where folders cannot be forced to the disk the system sees to it.
        pub(crate) fn force(&self) {
            let _ = self.dir.sync_all();
        }

        pub(super) fn rename_new(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
            #[cfg(target_os = "linux")]
            {
                use rustix::fs::{RenameFlags, renameat_with};
                match renameat_with(&self.dir, name, &to.dir, new, RenameFlags::NOREPLACE) {
                    // The file system does not know how.
                    Err(Errno::INVAL | Errno::NOSYS) => {}
                    renamed => return Ok(renamed?),
                }
            }
            linkat(&self.dir, name, &to.dir, new, AtFlags::empty())?;
            Ok(unlinkat(&self.dir, name, AtFlags::empty())?)
        }

        fn open_below(&self, below: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
            if !is_plain(below) {
                return Err(leads_out());
            }
            #[cfg(target_os = "linux")]
            {
                use rustix::fs::{ResolveFlags, openat2};
                // Something was renamed meanwhile: the system asks to try again.
                const TRIES: usize = 8;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                for _ in 0..TRIES {
                    match openat2(&self.dir, below, flags | OFlags::CLOEXEC, mode, resolve) {
                        Err(Errno::AGAIN) => {}
                        // An old system, or one that forbids the call.
                        Err(Errno::NOSYS | Errno::PERM) => break,
                        Err(Errno::XDEV) => return Err(leads_out()),
                        opened => return Ok(opened?.into()),
                    }
                }
            }
            self.walk(below, flags, mode)
        }

        /// The same step by step, following no link.
        pub(super) fn walk(&self, below: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
            let refuse_links = |error| match error {
                Errno::LOOP | Errno::NOTDIR => leads_out(),
                error => error.into(),
            };
            let mut dir = self.dir.try_clone()?;
            let mut components = below.components().peekable();
            while let Some(Component::Normal(name)) = components.next() {
                let is_last = components.peek().is_none();
                let (flags, mode) = if is_last { (flags, mode) } else { (FOLDER, Mode::empty()) };
                let opened = openat(&dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode);
                dir = opened.map_err(refuse_links)?.into();
            }
            Ok(dir)
        }
    }
}

#[cfg(not(unix))]
mod other {
    use super::{File, Folder, Path, PathBuf, fs, io, is_plain, leads_out};

    impl Folder {
        /// Opens a folder that its user chose.
        pub(crate) fn root(path: &Path) -> io::Result<Self> {
            if path.metadata()?.is_dir() { Ok(Self { path: path.to_owned() }) } else { Err(leads_out()) }
        }

        /// The folder at a path below this one.
        pub(crate) fn folder(&self, below: &Path) -> io::Result<Self> {
            Self::root(&self.checked(below)?)
        }

        /// The same, made if it is not there.
        pub(crate) fn make(&self, below: &Path) -> io::Result<Self> {
            let mut reached = PathBuf::new();
            for component in below.components() {
                reached.push(component);
                match fs::create_dir(self.checked(&reached)?) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
            self.folder(below)
        }

        /// Makes a new file for reading and writing.
        pub(crate) fn create(&self, name: &str) -> io::Result<File> {
            File::options().read(true).write(true).create_new(true).open(self.checked(Path::new(name))?)
        }

        /// Opens a file at a path below this folder.
        pub(crate) fn open(&self, below: &Path) -> io::Result<File> {
            File::open(self.checked(below)?)
        }

        /// Opens a file of this folder to read and to change it.
        pub(crate) fn open_to_write(&self, name: &str) -> io::Result<File> {
            File::options().read(true).write(true).open(self.checked(Path::new(name))?)
        }

        /// True if something has this name, whatever it is.
        pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
            match self.path.join(name).symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                found => found.map(|_| true),
            }
        }

        /// The length of a file; `None` if there is none of this name.
        pub(crate) fn length(&self, name: &str) -> io::Result<Option<u64>> {
            match self.path.join(name).symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                found => found.map(|found| found.is_file().then_some(found.len())),
            }
        }

        /// Removes a file, if it is there.
        pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            }
        }

        /// The system sees to it.
        pub(crate) fn force(&self) {}

        pub(super) fn rename_new(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
            let renamed = tempfile::TempPath::try_from_path(self.path.join(name))?.persist_noclobber(to.path.join(new));
            renamed.map_err(|failed| {
                // Keeps the file: it is no temporary one.
                let _ = failed.path.keep();
                failed.error
            })
        }

        /// The path of what lies below, if no link is on the way.
        fn checked(&self, below: &Path) -> io::Result<PathBuf> {
            if !is_plain(below) {
                return Err(leads_out());
            }
            let mut path = self.path.clone();
            for component in below.components() {
                path.push(component);
                if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
                    return Err(leads_out());
                }
            }
            Ok(path)
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn links_that_lead_out_are_refused_and_those_that_stay_are_followed() {
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        for folder in [&root.join("in/deep"), &outside] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(outside.join("secret"), "s").unwrap();
        fs::write(root.join("in/file"), "f").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("../../outside/secret", root.join("in/link")).unwrap();
        symlink("in", root.join("inside")).unwrap();
        let folder = Folder::root(&root).unwrap();
        for below in
            ["absolute/secret", "relative/secret", "in/link", "../outside/secret", "/etc/passwd", "in/../in/link"]
        {
            assert!(folder.open(Path::new(below)).is_err(), "{below}");
        }
        for below in ["absolute", "relative", "absolute/new", ".."] {
            assert!(folder.make(Path::new(below)).is_err(), "{below}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert!(folder.open(Path::new("in/file")).is_ok());
        // Where the system does not know how, no link is followed at all.
        let walk = |below: &str| folder.walk(Path::new(below), OFlags::RDONLY, Mode::empty());
        for below in ["absolute/secret", "relative/secret", "in/link", "inside/file"] {
            assert_eq!(walk(below).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{below}");
        }
        assert!(walk("in/file").is_ok());
        assert!(folder.folder(Path::new("in")).unwrap().create("link").is_err(), "a link is no free name");
        assert!(folder.make(Path::new("in/deep/er")).unwrap().create("x").is_ok());
        assert!(root.join("in/deep/er/x").is_file());
        assert!(folder.open(Path::new("in")).is_err(), "a folder is no file");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn links_that_stay_inside_are_followed_on_linux() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("in")).unwrap();
        fs::write(place.path().join("in/file"), "f").unwrap();
        symlink("in", place.path().join("inside")).unwrap();
        assert!(Folder::root(place.path()).unwrap().open(Path::new("inside/file")).is_ok());
    }

    #[test]
    fn links_from_the_root_on_are_followed_if_they_end_inside() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "f").unwrap();
        fs::write(place.path().join("secret"), "s").unwrap();
        symlink(root.join("file"), root.join("inside")).unwrap();
        symlink(place.path().join("secret"), root.join("outside")).unwrap();
        assert!(open_through_links(&root, Path::new("inside")).is_ok());
        assert!(open_through_links(&root, Path::new("outside")).is_err());
    }

    #[test]
    fn a_folder_that_is_swapped_for_a_link_all_the_time_lets_nothing_out() {
        const ROUNDS: usize = 2000;
        let place = tempfile::tempdir().unwrap();
        let (root, outside) = (place.path().join("root"), place.path().join("outside"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let (folder, ended) = (Folder::root(&root).unwrap(), AtomicBool::new(false));
        let mut made = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut spare = 0;
                while !ended.load(Ordering::Relaxed) {
                    for (from, to) in [("sub", "aside"), ("link", "sub"), ("sub", "link"), ("aside", "sub")] {
                        while fs::rename(root.join(from), root.join(to)).is_err() {
                            // The folder was made anew meanwhile: out of the way with it.
                            spare += 1;
                            fs::rename(root.join(to), root.join(format!("made-{spare}"))).unwrap();
                        }
                    }
                }
            });
            // Where the other thread stands still at the wrong moment nothing can be made until it goes on.
            let mut round = 0;
            while round < ROUNDS || made == 0 && round < 1000 * ROUNDS {
                made += usize::from(
                    folder.folder(Path::new("sub")).is_ok_and(|sub| sub.create(&round.to_string()).is_ok()),
                );
                // Between the check and the making of the folder anything may happen.
                made += usize::from(
                    folder.make(Path::new("sub")).is_ok_and(|sub| sub.create(&format!("m{round}")).is_ok()),
                );
                round += 1;
            }
            ended.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(made > 0, "nothing was made at all");
    }

    #[test]
    fn a_name_is_given_once() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::make_root(&place.path().join("a/b")).unwrap();
        for name in ["one", "two"] {
            folder.create(name).unwrap();
        }
        assert!(folder.rename("one", &folder, "new").unwrap());
        assert!(!folder.rename("two", &folder, "new").unwrap());
        assert!(folder.has("two").unwrap() && !folder.has("one").unwrap());
        assert_eq!(folder.length("new").unwrap(), Some(0));
        folder.remove("new").unwrap();
        folder.remove("new").unwrap();
        assert_eq!(folder.length("new").unwrap(), None);
    }
}
