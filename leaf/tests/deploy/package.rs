//! The Debian package: it installs into a clean root, what it brings works, and nothing stays when it goes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{deploy, support::Program, text_of, tool};

/// Every file of the package, in the order of their names.
const FILES: [&str; 20] = [
    "etc/quictrack/leaf.toml",
    "etc/quictrack/ultrapeer.toml",
    "lib/systemd/system/quictrack-ultrapeer.service",
    "usr/bin/quictrack",
    "usr/bin/quictrack-ultrapeer",
    "usr/lib/sysctl.d/60-quictrack.conf",
    "usr/lib/systemd/user/quictrack.service",
    "usr/share/bash-completion/completions/quictrack",
    "usr/share/bash-completion/completions/quictrack-ultrapeer",
    "usr/share/doc/quictrack/README.deploy.md",
    "usr/share/doc/quictrack/README.md",
    "usr/share/doc/quictrack/changelog.Debian.gz",
    "usr/share/doc/quictrack/changelog.gz",
    "usr/share/doc/quictrack/copyright",
    "usr/share/fish/vendor_completions.d/quictrack-ultrapeer.fish",
    "usr/share/fish/vendor_completions.d/quictrack.fish",
    "usr/share/man/man1/quictrack-ultrapeer.1.gz",
    "usr/share/man/man1/quictrack.1.gz",
    "usr/share/zsh/vendor-completions/_quictrack",
    "usr/share/zsh/vendor-completions/_quictrack-ultrapeer",
];

/// The files below a folder, by their paths from `root`, without dpkg's own.
fn files(root: &Path, folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            all.extend(files(root, &path));
        } else if !name.starts_with("var/l") {
            all.push(name);
        }
    }
    all.sort_unstable();
    all
}

/// A root with nothing but an empty database of dpkg.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["info", "updates", "triggers"] {
            fs::create_dir_all(folder.path().join("var/lib/dpkg").join(name)).unwrap();
        }
        fs::write(folder.path().join("var/lib/dpkg/status"), "").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs dpkg on it, whoever runs the test. There is nothing in it that the package could depend on.
    fn dpkg(&self, arguments: &[&str]) -> String {
        let root = format!("--root={}", self.0.path().display());
        let forced = ["--force-not-root", "--force-script-chrootless", "--force-depends", "--force-bad-path"];
        tool("dpkg", &[&[root.as_str()], &forced[..], arguments].concat())
    }
}

#[test]
fn the_package_installs_works_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Program::Leaf.path().parent().unwrap().to_owned();
    assert!(Program::Ultrapeer.path().starts_with(&programs));
    tool("debian/build", &[programs.to_str().unwrap(), folder.path().to_str().unwrap()]);
    let built: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [package] = &built[..] else { panic!("{built:?}") };

    let root = Root::new();
    root.dpkg(&["--install", package.to_str().unwrap()]);
    assert_eq!(files(root.0.path(), root.0.path()), FILES);
    assert!(root.dpkg(&["--status", "quictrack"]).contains("Status: install ok installed"));
    for name in ["quictrack", "quictrack-ultrapeer"] {
        let program = root.path(&format!("usr/bin/{name}"));
        let version = format!("{name} {} ", env!("CARGO_PKG_VERSION"));
        assert!(tool(program.to_str().unwrap(), &["--version"]).starts_with(&version));
        let manual = root.path(&format!("usr/share/man/man1/{name}.1.gz"));
        assert!(tool("gzip", &["-dc", manual.to_str().unwrap()]).contains(&format!(".TH {name} 1")));
        let completions = root.path(&format!("usr/share/bash-completion/completions/{name}"));
        tool("bash", &["-n", completions.to_str().unwrap()]);
    }
    let unit = fs::read_to_string(root.path("lib/systemd/system/quictrack-ultrapeer.service")).unwrap();
    assert_eq!(unit, text_of("systemd/quictrack-ultrapeer.service"));

    // What its operator wrote survives an update and the removal, and goes with the rest.
    let configuration = root.path("etc/quictrack/ultrapeer.toml");
    fs::write(&configuration, "founder = true\n").unwrap();
    root.dpkg(&["--install", package.to_str().unwrap()]);
    root.dpkg(&["--remove", "quictrack"]);
    assert_eq!(fs::read_to_string(&configuration).unwrap(), "founder = true\n");
    root.dpkg(&["--purge", "quictrack"]);
    assert_eq!(files(root.0.path(), root.0.path()), [""; 0]);
}

#[test]
fn the_licence_is_that_of_the_workspace() {
    let licence = fs::read_to_string(deploy("../LICENSE-MIT")).unwrap();
    let words = |text: &str| text.split_whitespace().filter(|word| *word != ".").collect::<Vec<_>>().join(" ");
    let (copyright, licence) = (words(&text_of("debian/copyright")), words(&licence));
    let terms = licence.split_once("Permission is").unwrap().1;
    assert!(copyright.contains(terms), "debian/copyright does not have the terms of LICENSE-MIT");
}
