//! Killed at every step: what a leaf writes survives its death between any two writes.
//!
//! A process of its own downloads a file and hashes a share, and ends itself without a word at the first write, the
//! next one at the second, and so on until one comes through. After each death another one, that lives, must find
//! everything: the file whole, once, under its name; nothing left over; the share listed.

use std::{env, fs, path::Path, process::Command};

use overlay::id::ContentId;

use super::{
    Request,
    support::{MIB, Network, Node, bytes, check, done, request},
};
use crate::{steps, transfer::FoundSource};

/// Tells the process that is killed in which folder it works, and at which step it ends.
const FOLDER: &str = "QUICTRACK_TEST_FOLDER";
const STEP: &str = "QUICTRACK_TEST_STEP";
/// Printed by a process that came through.
const THROUGH: &str = "came through";
/// Steps after which something is wrong with the test. One that is not killed takes some dozens.
const MANY: u64 = 500;

/// What happens in the process that may be killed. Without its folder it is no test of its own, and passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_may_end_early() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let network = Network::default();
    let data = data();
    let (mut files, small) = (vec![("x/a.bin", &*data)], small());
    files.extend(small.iter().map(|(name, data)| (*name, &**data)));
    let source = Node::new(&network, 1, &files).await;
    if let Some(step) = env::var(STEP).ok().and_then(|step| step.parse().ok()) {
        steps::end_at(step);
    }
    let node = Node::at(&network, 2, Path::new(&folder)).await;
    let mut events = node.downloads.subscribe();
    // The small ones come together.
    let sources = vec![FoundSource { peer: source.peer, homes: vec![] }];
    let wanted = |(name, data): &(&str, Vec<u8>)| Request {
        name: (*name).into(),
        size: Some(data.len() as u64),
        sources: sources.clone(),
        ..request(data)
    };
    let mut requests: Vec<Request> = small.iter().map(wanted).collect();
    requests.push(request(&data));
    let known: Vec<_> = node.downloads.list().into_iter().map(|job| job.content).collect();
    requests.retain(|request| !known.contains(&request.content));
    node.downloads.add_all(requests).await.unwrap();
    let all = small.iter().map(|(_, data)| data).chain([&data]);
    for data in all {
        let content = request(data).content.to_string();
        check(&done(node.outcome(&content, &mut events).await), data);
    }
    node.shares.settled(None).await;
    let listed: Vec<_> = own().iter().map(|(name, _)| node.shares.catalog().find(&format!("Share/{name}"))).collect();
    for ((name, data), file) in own().iter().zip(listed) {
        assert_eq!(file.map(|file| file.content), Some(ContentId(*blake3::hash(data).as_bytes())), "{name}");
    }
    let content = request(&data).content;
    assert!(node.shares.open(content).await.is_ok_and(|served| served.is_some()), "it is served on");
    node.stop().await;
    println!("{THROUGH}");
}

fn data() -> Vec<u8> {
    bytes(MIB + 77)
}

fn small() -> [(&'static str, Vec<u8>); 3] {
    ["s1", "s2", "s3"].map(|name| (name, name.repeat(500).into_bytes()))
}

fn own() -> [(&'static str, Vec<u8>); 3] {
    ["one", "two", "three"].map(|name| (name, name.repeat(1000).into_bytes()))
}

/// Lives in `folder` until its end or that step. True if it came through.
fn live(folder: &Path, step: Option<u64>) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "download::kills::a_life_that_may_end_early", "--nocapture"]).env(FOLDER, folder);
    if let Some(step) = step {
        command.env(STEP, step.to_string());
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let through = said.contains(THROUGH);
    // A death at a step is no failed assertion.
    assert!(through || (step.is_some() && said.contains(steps::LAST_WORDS)), "step {step:?}: {said}");
    through
}

/// Dies at that step and lives again. False if there is no such step any more.
fn survives(step: u64) -> bool {
    let folder = tempfile::tempdir().unwrap();
    for (name, data) in own() {
        let path = folder.path().join("Share").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, data).unwrap();
    }
    let through = live(folder.path(), Some(step));
    assert!(live(folder.path(), None), "after a death at step {step}");
    let names = |below: &str| {
        let files = fs::read_dir(folder.path().join(below)).map(|files| files.map(|file| file.unwrap().file_name()));
        let mut names: Vec<_> = files.into_iter().flatten().map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("downloads"), [".partial", "a file.bin", "s1", "s2", "s3"], "step {step}");
    assert_eq!(names("downloads/.partial"), [""; 0], "step {step}");
    assert_eq!(names("jobs"), [""; 0], "step {step}");
    for (name, data) in small().into_iter().chain([("a file.bin", data())]) {
        assert!(fs::read(folder.path().join("downloads").join(name)).unwrap() == data, "{name}, step {step}");
    }
    !through
}

#[test]
fn nothing_is_lost_or_left_over_whichever_write_is_the_last() {
    // Several at a time: each waits for disks and connections.
    const AT_ONCE: u64 = 4;
    let mut deaths = 0;
    for first in (1..MANY).step_by(AT_ONCE as usize) {
        let lives: Vec<bool> = std::thread::scope(|scope| {
            let lives: Vec<_> = (first..first + AT_ONCE).map(|step| scope.spawn(move || survives(step))).collect();
            lives.into_iter().map(|life| life.join().unwrap()).collect()
        });
        deaths += lives.iter().filter(|died| **died).count();
        if lives.contains(&false) {
            assert!(deaths > 30, "only {deaths} steps were met");
            return;
        }
    }
    panic!("more than {MANY} steps");
}
