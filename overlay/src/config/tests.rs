use std::ffi::OsString;

use clap::Command;
use proptest::prelude::*;

use super::*;

/// A node in a temporary folder with a file, variables and options.
struct Node {
    folder: tempfile::TempDir,
    program: Program,
    variables: Vec<(&'static str, &'static str)>,
    options: Vec<&'static str>,
}

impl Node {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("leaf.toml"), file).unwrap();
        fs::write(folder.path().join("ultrapeer.toml"), file).unwrap();
        Self { folder, program: Program::Leaf, variables: Vec::new(), options: Vec::new() }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        let environment = Environment::of(self.variables.iter().copied());
        let command = Command::new("x").args(arguments(self.program));
        let given = ["x"].iter().chain(&self.options).map(OsString::from);
        let matches = command.try_get_matches_from(given).unwrap();
        let layer = Layer::of_matches(self.program, &matches, &environment)?;
        Config::load(self.program, &Folders::within(self.program, self.folder.path()), &environment, layer)
    }

    fn write(&self, file: &str) {
        fs::write(self.folder.path().join("leaf.toml"), file).unwrap();
    }
}

fn change(config: &Config, key: &str, value: Json) -> Result<Changes, ConfigError> {
    config.change(&BTreeMap::from([(key.to_owned(), value)]))
}

fn row(config: &Config, key: &str) -> OptionRow {
    config.rows().into_iter().find(|row| row.key == key).unwrap()
}

fn failure(file: &str) -> (String, Option<String>) {
    let error = Node::new(file).load().unwrap_err();
    let text = error.to_string();
    let name = text.find("leaf.toml").map_or(0, |at| at);
    (text[name..].to_owned(), error.hint())
}

#[test]
fn defaults_differ_by_program() {
    let mut node = Node::new("");
    let leaf = node.load().unwrap().settings();
    assert_eq!(leaf.api, Some("127.0.0.1:7780".parse().unwrap()));
    assert_eq!(leaf.metrics, None);
    assert_eq!(leaf.max_leaves.get(), 1000);
    assert_eq!(leaf.memory.bytes(), Some(512 << 20));
    assert_eq!(leaf.upload_limit.bytes_per_second(), None);
    assert_eq!(leaf.rescan_interval.duration(), Some(Duration::from_hours(1)));
    assert_eq!(leaf.exclude.len(), 5);
    assert!((leaf.query_rate.per_second() - 0.5).abs() < f64::EPSILON);
    assert!(leaf.lan && leaf.dht && leaf.portmap && !leaf.founder);
    assert_eq!(leaf.downloads, node.folder.path().join("downloads"));
    node.program = Program::Ultrapeer;
    let ultrapeer = node.load().unwrap().settings();
    assert_eq!(ultrapeer.api, Some("127.0.0.1:7782".parse().unwrap()));
    assert_eq!(ultrapeer.metrics, Some("127.0.0.1:7781".parse().unwrap()));
    assert_eq!(ultrapeer.max_leaves.get(), 10_000);
}

#[test]
fn the_highest_source_wins_and_is_the_origin() {
    let mut node = Node::new("upload_slots = 1\n");
    let value = |node: &Node| {
        let row = row(&node.load().unwrap(), "upload_slots");
        (row.value, row.origin)
    };
    assert_eq!(value(&node), (Json::from(1), Origin::File));
    change(&node.load().unwrap(), "upload_slots", Json::from(2)).unwrap();
    assert_eq!(value(&node), (Json::from(2), Origin::Settings));
    node.variables.push(("QUICTRACK_UPLOAD_SLOTS", "3"));
    assert_eq!(value(&node), (Json::from(3), Origin::Environment));
    node.options.extend(["--upload-slots", "5"]);
    assert_eq!(value(&node), (Json::from(5), Origin::CommandLine));
    assert_eq!(row(&node.load().unwrap(), "upload_slots").default, Json::from(4));
    assert_eq!(row(&node.load().unwrap(), "network").origin, Origin::Default);
}

#[test]
fn a_list_replaces_the_list_below_it() {
    let mut node = Node::new("share = [\"music\", \"~/books\", \"/srv\"]\n");
    node.variables.push(("HOME", "/home/u"));
    let folder = node.folder.path().to_owned();
    assert_eq!(
        node.load().unwrap().settings().share,
        [folder.join("music"), PathBuf::from("/home/u/books"), PathBuf::from("/srv")]
    );
    node.variables.push(("QUICTRACK_SHARE", "a, /b"));
    assert_eq!(node.load().unwrap().settings().share, [PathBuf::from("/a"), PathBuf::from("/b")]);
    node.options.extend(["--share", "c,d", "--share=/e"]);
    assert_eq!(node.load().unwrap().settings().share, [PathBuf::from("/c,d"), PathBuf::from("/e")]);
}

#[test]
fn variables_take_lists_switches_and_numbers() {
    let mut node = Node::new("join = [\"x\"]\n");
    node.variables.extend([
        ("QUICTRACK_JOIN", "[::1]:7, b"),
        ("QUICTRACK_EXCLUDE", "[\"a,b\", \"c\"]"),
        ("QUICTRACK_LAN", "false"),
        ("QUICTRACK_API", "off"),
        ("QUICTRACK_LISTEN", ":0"),
        ("QUICTRACK_NETWORK", ""),
        ("QUICTRACK_QUERY_RATE", "2"),
        ("QUICTRACK_DATA_DIR", "/x"),
        ("QUICTRACK_FOUNDER", "true"),
        ("QUICTRACK_UPLOAD_LIMITS", "1"),
        ("QUICTRACK_listen", "1"),
    ]);
    let config = node.load().unwrap();
    let settings = config.settings();
    assert_eq!(settings.join.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::1]:7", "b:7780"]);
    assert_eq!(settings.exclude, ["a,b", "c"]);
    assert!(!settings.lan);
    assert_eq!(settings.api, None);
    assert_eq!(settings.listen, "[::]:0".parse().unwrap());
    assert_eq!(config.origin("network"), Origin::Default);
    assert_eq!(row(&config, "query_rate").value, Json::from(2));
    let warnings = config.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("did you mean QUICTRACK_UPLOAD_LIMIT?"), "{warnings:?}");
    node.variables = vec![("QUICTRACK_JOIN", "")];
    assert_eq!(node.load().unwrap().settings().join, []);
}

#[test]
fn switches_of_the_command_line_go_both_ways() {
    let mut node = Node::new("dht = false\n");
    node.options.extend(["--no-lan", "--dht"]);
    let settings = node.load().unwrap().settings();
    assert!(!settings.lan && settings.dht && settings.portmap);
    node.options = vec!["--dht", "--no-dht"];
    assert!(!node.load().unwrap().settings().dht);
}

#[test]
fn mistakes_in_a_file_name_their_place_and_the_nearest_key() {
    assert_eq!(
        failure("listen = \"[::]:1\"\n\n  uplod_limit = 5\n"),
        ("leaf.toml:3:3: unknown key `uplod_limit`".into(), Some("did you mean `upload_limit`?".into()))
    );
    assert_eq!(failure("upload-limit = 5\n").1.as_deref(), Some("did you mean `upload_limit`?"));
    assert_eq!(failure("schedule = []\n").1.as_deref(), Some("`config show` lists all keys"));
    assert_eq!(
        failure("[network]\nname = 1\n").0,
        "leaf.toml:1:1: `network`: a table is no value of this key; all keys stand at the top"
    );
    assert_eq!(
        failure("founder = true\n").0,
        "leaf.toml:1:1: `founder` is a key of quictrack-ultrapeer, not of quictrack"
    );
    assert_eq!(
        failure("# ä\nupload_slots = \"many\"\n").0,
        "leaf.toml:2:16: `upload_slots`: expected a whole number from 1 to 4294967295, found \"many\""
    );
    assert!(
        failure("share = [\"a\"\nlisten = 1\n").0.starts_with("leaf.toml:2:"),
        "{:?}",
        failure("share = [\"a\"\nlisten = 1\n")
    );
    assert!(failure("lan = \"false\"\n").0.starts_with("leaf.toml:1:7: `lan`: expected true or false"));
}

#[test]
fn values_without_meaning_are_refused() {
    for line in [
        "upload_limit = 0",
        "upload_limit = \"0kB\"",
        "upload_limit = true",
        "memory = \"x\"",
        "listen = \"7780\"",
        "listen = \"off\"",
        "network = \"UP\"",
        "join = [\"a b\"]",
        "join = 5",
        "volunteer = \"maybe\"",
        "query_rate = 0",
        "query_rate = -1",
        "query_rate = inf",
        "upload_slots = 0",
        "relay_circuits = -1",
        "rescan_interval = \"5x\"",
        "log = \"chatty\"",
        "log = \"a=b=c\"",
        "log_format = \"xml\"",
        "upload_schedule = [\"mon\"]",
        "share = [\"\"]",
        "downloads = 1979-05-27",
        "max_leaves = 1.5",
    ] {
        let error = Node::new(line).load().unwrap_err();
        assert!(matches!(error, ConfigError::Value { .. }), "{line}: {error}");
        assert_eq!(error.code(), Code::BadConfig);
    }
    for line in [
        "upload_limit = 500000",
        "upload_limit = \"10Mbit/s\"",
        "peer_quota = \"1GB\"",
        "relay_circuits = 0",
        "rescan_interval = \"off\"",
        "rescan_interval = 60",
        "log = \"info,quinn=debug\"",
        "ban_list = \"/a\"",
        "query_rate = \"0.5/s\"",
        "upload_schedule = [\"mon-fri 08:00-18:00 500kB\", \"daily 22:00-06:00 off\"]",
    ] {
        Node::new(line).load().unwrap();
    }
}

#[test]
fn a_file_that_was_asked_for_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let mut places = Folders::within(Program::Leaf, folder.path());
    let load = |places: &Folders| Config::load(Program::Leaf, places, &Environment::default(), Layer::default());
    assert!(load(&places).is_ok());
    places.configuration_given = true;
    let error = load(&places).unwrap_err();
    assert_eq!((error.code(), error.hint().is_some()), (Code::BadConfig, true));
}

#[test]
fn a_secret_is_the_trimmed_content_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    assert!(read_secret(&path).is_err());
    fs::write(&path, " \n").unwrap();
    assert!(read_secret(&path).is_err());
    fs::write(&path, " open sesame\n").unwrap();
    assert_eq!(*read_secret(&path).unwrap(), "open sesame");
}

#[test]
fn changes_last_and_can_be_taken_back() {
    let node = Node::new("upload_limit = \"1MB\"\n");
    let config = node.load().unwrap();
    let mut subscriber = config.subscribe();
    let changes = change(&config, "upload_limit", Json::from("500kB")).unwrap();
    assert_eq!(changes.rows, [row(&config, "upload_limit")]);
    assert_eq!(changes.rows[0].value, Json::from("500kB"));
    assert_eq!(changes.rows[0].origin, Origin::Settings);
    assert!(subscriber.has_changed().unwrap());
    assert_eq!(subscriber.borrow_and_update().upload_limit.bytes_per_second(), Some(500_000));
    assert_eq!(node.load().unwrap().settings().upload_limit.bytes_per_second(), Some(500_000));
    assert_eq!(config.run_time_settings(), BTreeMap::from([("upload_limit", Json::from("500kB"))]));
    change(&config, "upload_limit", Json::Null).unwrap();
    assert_eq!(row(&config, "upload_limit").origin, Origin::File);
    assert_eq!(
        change(&config, "network", Json::from("home")).unwrap().waiting_for_restart().collect::<Vec<_>>(),
        ["network"]
    );
    change(&config, "join", serde_json::json!(["a", "[::1]:7"])).unwrap();
    assert_eq!(node.load().unwrap().settings().join.len(), 2);
}

#[test]
fn a_change_happens_whole_or_not_at_all() {
    let mut node = Node::new("");
    node.variables.push(("QUICTRACK_NETWORK", "home"));
    node.options.push("--no-lan");
    let config = node.load().unwrap();
    let before = config.rows();
    for (key, value, code) in [
        ("network", Json::from("x"), Code::Conflict),
        ("lan", Json::Null, Code::Conflict),
        ("uplod_limit", Json::from("1MB"), Code::BadConfig),
        ("upload_limit", Json::from(true), Code::BadConfig),
        ("upload_limit", serde_json::json!({}), Code::BadConfig),
        ("founder", Json::from(true), Code::BadConfig),
    ] {
        let changes = BTreeMap::from([("download_limit".to_owned(), Json::from("1MB")), (key.to_owned(), value)]);
        let error = config.change(&changes).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.hint().is_some());
        assert_eq!(config.rows(), before);
    }
    assert!(!node.folder.path().join("settings.toml").exists());
}

#[test]
fn a_reload_tells_what_changed_and_a_bad_file_changes_nothing() {
    let node = Node::new("upload_limit = \"1MB\"\n");
    let config = node.load().unwrap();
    assert_eq!(config.reload().unwrap(), Changes::default());
    node.write("upload_limit = \"2MB\"\nnetwork = \"home\"\n");
    let changes = config.reload().unwrap();
    assert_eq!(changes.rows.iter().map(|row| row.key).collect::<Vec<_>>(), ["network", "upload_limit"]);
    assert_eq!(changes.waiting_for_restart().collect::<Vec<_>>(), ["network"]);
    let before = config.rows();
    node.write("upload_limit = \"fast\"\n");
    assert!(config.reload().is_err());
    assert_eq!(config.rows(), before);
    assert_eq!(config.settings().upload_limit.bytes_per_second(), Some(2_000_000));
}

#[test]
fn the_example_is_a_valid_file_that_changes_nothing() {
    for program in [Program::Leaf, Program::Ultrapeer] {
        let text = example(program);
        let path = Path::new("/etc/quictrack/x.toml");
        assert_eq!(Layer::of_toml(program, path, &text, None).unwrap(), Layer::default());
        let set: String = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(""))
            .fold(String::new(), |all, line| all + line + "\n");
        let layer = Layer::of_toml(program, path, &set, Some(Path::new("/home/u"))).unwrap();
        assert_eq!(layer.iter().count(), definitions(program).count(), "{set}");
    }
}

#[test]
fn every_key_has_help_and_a_default_with_a_meaning() {
    for program in [Program::Leaf, Program::Ultrapeer] {
        for definition in definitions(program) {
            assert!(!definition.help().is_empty() && !definition.help().ends_with('.'), "{}", definition.key);
            definition.check(&definition.default(program, Path::new("/d"))).unwrap();
        }
        Command::new("x").args(arguments(program)).debug_assert();
    }
}

proptest! {
    #[test]
    fn any_file_is_answered(text in "([a-z_]{1,12}|upload_limit|join|lan|\\[|\\]|=|\"|[0-9]{1,3}| |\n|#|,){0,30}") {
        let _ = Layer::of_toml(Program::Leaf, Path::new("/x"), &text, None);
    }

    #[test]
    fn any_variable_is_answered(key in 0..30usize, text in "\\PC{0,30}") {
        let definition = definitions(Program::Leaf).nth(key).unwrap();
        let environment = Environment::of([(definition.variable(), text)]);
        let _ = Layer::of_environment(Program::Leaf, &environment);
    }

    #[test]
    fn what_is_set_at_run_time_is_read_back(slots in 1u32.., limit in 1u64..1_000_000, names in prop::collection::vec("[a-z\"\\\\,#=]{1,10}", 0..4)) {
        let node = Node::new("");
        let config = node.load().unwrap();
        let changes = BTreeMap::from([
            ("upload_slots".to_owned(), Json::from(slots)),
            ("upload_limit".to_owned(), Json::from(format!("{limit}kB"))),
            ("exclude".to_owned(), Json::from(names)),
        ]);
        config.change(&changes).unwrap();
        prop_assert_eq!(node.load().unwrap().rows(), config.rows());
    }
}
