//! The example files of `deploy/` say what the program says. `UPDATE_EXAMPLES=1` writes them anew.

#![cfg(feature = "net")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use overlay::{
    config::{self, Config, Program},
    environment::Environment,
};

fn committed(program: Program) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("deploy/config").join(format!("{}.toml", program.role()))
}

#[test]
fn example_files_are_those_of_the_program() {
    for program in [Program::Leaf, Program::Ultrapeer] {
        let path = committed(program);
        if std::env::var_os("UPDATE_EXAMPLES").is_some() {
            fs::write(&path, config::example(program)).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text == config::example(program), "{} is old: run this with UPDATE_EXAMPLES=1", path.display());
    }
}

#[test]
fn example_files_are_accepted_as_they_are_and_with_every_key_set() {
    let folder = tempfile::tempdir().unwrap();
    for program in [Program::Leaf, Program::Ultrapeer] {
        let path = committed(program);
        Config::check_file(program, &path, &Environment::default()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let keys = text.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
        let all_set = folder.path().join("all.toml");
        fs::write(&all_set, keys.collect::<Vec<_>>().join("\n")).unwrap();
        Config::check_file(program, &all_set, &Environment::default()).unwrap();
    }
}
