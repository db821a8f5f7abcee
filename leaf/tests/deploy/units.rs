//! The units of systemd: without a mistake, shut as far as they can be, and fed by the programs.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use overlay::limits;

use crate::{
    support::{Bed, Program, send_signal, within},
    text_of, tool,
};

/// The units, and the worst rating that each may have, in tenths: 0 is shut, 100 is open.
const UNITS: [(&str, u32); 2] = [("quictrack-ultrapeer.service", 15), ("quictrack.service", 70)];
/// The time between two words to the watchdog is half of this.
const WATCHDOG: Duration = Duration::from_millis(200);

#[test]
fn units_have_no_mistake_and_are_shut() {
    let folder = tempfile::tempdir().unwrap();
    for (name, worst) in UNITS {
        // The program must be there to be judged.
        let program = folder.path().join("program");
        fs::copy("/bin/true", &program).unwrap();
        let text = text_of(&format!("systemd/{name}"));
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        assert!(start.starts_with("/usr/bin/quictrack"), "{start}");
        let unit = folder.path().join(name);
        fs::write(&unit, text.replace(start, program.to_str().unwrap())).unwrap();
        let path = unit.to_str().unwrap();
        // What it does not know it only mentions.
        let said = tool("systemd-analyze", &["verify", "--man=no", path]);
        assert!(!said.contains(name), "{said}");
        tool("systemd-analyze", &["security", "--offline=true", &format!("--threshold={worst}"), path]);
    }
}

#[test]
fn buffers_are_as_large_as_the_programs_want_them() {
    let text = text_of("systemd/60-quictrack.conf");
    for key in ["net.core.rmem_max", "net.core.wmem_max"] {
        assert!(text.contains(&format!("{key} = {}", limits::SOCKET_BUFFER)), "{key}: {text}");
    }
}

/// A daemon under something that listens as systemd does; killed when it is dropped.
struct Supervised {
    child: Child,
    socket: UnixDatagram,
}

impl Supervised {
    fn start(program: Program, bed: &Bed, name: &str, options: &[&str]) -> Self {
        let path = bed.path(&format!("{name}.notify"));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let child = program
            .command(None, &bed.path(name), options)
            .env("NOTIFY_SOCKET", Path::new(&path))
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, socket }
    }

    /// Waits for a word, and returns the names of what came before it or with it.
    fn says(&self, word: &str) -> BTreeSet<String> {
        let (mut said, mut buffer) = (BTreeSet::new(), [0; 4096]);
        loop {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {word} ({error}): {said:?}"));
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let others = message.lines().filter(|line| *line != word);
            said.extend(others.map(|line| line.split('=').next().unwrap().to_owned()));
            if message.lines().any(|line| line == word) {
                return said;
            }
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Fails if it has ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn programs_tell_systemd_how_they_are() {
    let bed = Bed::new();
    let free = ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--no-lan", "--no-dht"];
    for (program, name, command) in
        [(Program::Ultrapeer, "ultrapeer", &["--founder"][..]), (Program::Leaf, "leaf", &["leaf"])]
    {
        let mut daemon = Supervised::start(program, &bed, name, &[command, &free[..]].concat());
        let before = daemon.says("READY=1");
        assert!(before.is_empty(), "{name} says {before:?} before it is ready");
        daemon.says("WATCHDOG=1");
        daemon.says("WATCHDOG=1");
        send_signal(&daemon.child, "HUP");
        // systemd must know when, to tell this reload from an earlier one.
        assert!(daemon.says("RELOADING=1").contains("MONOTONIC_USEC"), "{name}");
        daemon.says("READY=1");
        send_signal(&daemon.child, "TERM");
        daemon.says("STOPPING=1");
        let status = within(Duration::from_secs(30), "it ends", || daemon.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{name}");
    }
}
