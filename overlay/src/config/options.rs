//! The table of all keys. Everything else follows from it: options, variables, files, [`Settings`].

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use self::Preset::{Absent, Downloads, HalfTheCores, Nothing, Text};
use crate::{
    address::{JoinAddress, NetworkName},
    config::{
        Interval, LogFilter, LogFormat, Program, QueryRate, Rate, ScheduleLine, Setting, Shape, Size, ValueError,
        Volunteer, Written,
    },
};

/// One key: how it is written, for whom, with which default.
#[derive(Debug)]
pub struct Definition {
    /// Its name in files; the option has `-` for `_`.
    pub key: &'static str,
    help: &'static str,
    /// The form of its values.
    pub shape: Shape,
    traits: Traits,
    check: fn(&Written) -> Result<(), ValueError>,
}

impl Definition {
    /// What it does, in one line.
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }

    /// True if the program has this key.
    pub fn belongs_to(&self, program: Program) -> bool {
        !matches!(self.preset(program), Absent)
    }

    /// The name of its value in the help of its option, for keys that have one; switches have `""`.
    pub fn option(&self) -> Option<&'static str> {
        self.traits.option
    }

    /// True if a new value takes effect only after a restart.
    pub fn needs_restart(&self) -> bool {
        !self.traits.live
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_ascii_uppercase())
    }

    /// Its value when nothing sets it. A key of the other program has the other's default.
    pub(super) fn default(&self, program: Program, downloads: &Path) -> Written {
        let preset = match self.preset(program) {
            Absent => self.preset(program.other()),
            own => own,
        };
        let text = match preset {
            Absent | Nothing => return Written::Nothing,
            Downloads => return Written::Text(downloads.to_string_lossy().into_owned()),
            HalfTheCores => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                return Written::Integer((cores / 2).max(1) as i64);
            }
            Text(text) => text,
        };
        Written::from_text(self.shape, text).unwrap_or(Written::Nothing)
    }

    /// The default in words, for the help of the option.
    pub(super) fn default_in_words(&self, program: Program) -> Option<&'static str> {
        match self.preset(program) {
            Absent | Nothing | Text("") => None,
            Text(text) => Some(text),
            Downloads => Some("`Quictrack` in your download folder, or DATA_DIR/downloads if --data-dir is given"),
            HalfTheCores => Some("half the cores"),
        }
    }

    /// Checks that a value has a meaning.
    pub(super) fn check(&self, written: &Written) -> Result<(), ValueError> {
        (self.check)(written)
    }

    fn preset(&self, program: Program) -> &Preset {
        match program {
            Program::Leaf => &self.traits.leaf,
            Program::Ultrapeer => &self.traits.ultrapeer,
        }
    }
}

/// What environment variables of this project begin with.
pub const VARIABLE_PREFIX: &str = "QUICTRACK_";

/// The definition of a key.
pub fn definition(key: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.key == key)
}

/// The definitions of the keys that a program has, in the order of the table.
pub fn definitions(program: Program) -> impl Iterator<Item = &'static Definition> {
    DEFINITIONS.iter().filter(move |definition| definition.belongs_to(program))
}

/// A default.
#[derive(Debug)]
enum Preset {
    /// The program does not have the key.
    Absent,
    /// No value.
    Nothing,
    /// Written as in an environment variable.
    Text(&'static str),
    /// The folder that [`crate::folders::Folders`] chose.
    Downloads,
    /// Half the cores of the machine, at least one.
    HalfTheCores,
}

#[derive(Debug)]
struct Traits {
    leaf: Preset,
    ultrapeer: Preset,
    option: Option<&'static str>,
    live: bool,
}

const fn leaf(default: Preset) -> Traits {
    Traits { leaf: default, ultrapeer: Absent, option: None, live: false }
}

const fn ultrapeer(default: Preset) -> Traits {
    Traits { leaf: Absent, ultrapeer: default, option: None, live: false }
}

const fn both(leaf: Preset, ultrapeer: Preset) -> Traits {
    Traits { leaf, ultrapeer, option: None, live: false }
}

impl Traits {
    const fn option(self, value_name: &'static str) -> Self {
        Self { option: Some(value_name), ..self }
    }

    const fn live(self) -> Self {
        Self { live: true, ..self }
    }
}

fn check<T: Setting>(written: &Written) -> Result<(), ValueError> {
    T::read(written).map(drop)
}

macro_rules! options {
    ($(#[doc = $help:literal] $key:ident: $type:ty = $traits:expr;)*) => {
        static DEFINITIONS: &[Definition] = &[$(Definition {
            key: stringify!($key),
            help: $help,
            shape: <$type as Setting>::SHAPE,
            traits: $traits,
            check: check::<$type>,
        }),*];

        /// All values in effect, as their types. Keys of the other program have the other's default.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        #[allow(rustdoc::broken_intra_doc_links, reason = "texts are for terminals too, where brackets mean optional")]
        pub struct Settings {
            $(#[doc = $help] pub $key: $type,)*
        }

        impl Settings {
            /// Reads every key; fails with the first key whose value has no meaning.
            pub(super) fn read(
                value: impl Fn(&'static Definition) -> Written,
            ) -> Result<Self, (&'static Definition, ValueError)> {
                let mut definitions = DEFINITIONS.iter();
                Ok(Self {
                    $($key: {
                        let definition = definitions.next().expect("the table has a row for each field");
                        Setting::read(&value(definition)).map_err(|error| (definition, error))?
                    },)*
                })
            }
        }
    };
}

options! {
    /// Folder to share; may be repeated
    share: Vec<PathBuf> = leaf(Text("")).option("DIR").live();
    /// Gitignore pattern of files that are not shared; may be repeated
    exclude: Vec<String> = leaf(Text("*.part,*.tmp,.DS_Store,Thumbs.db,desktop.ini")).option("PATTERN").live();
    /// Folder for finished downloads
    downloads: PathBuf = leaf(Downloads).option("DIR").live();
    /// Show finished downloads in searches and browsing too
    share_downloads: bool = leaf(Text("false")).live();
    /// UDP address for other nodes
    listen: SocketAddr = both(Text("[::]:7780"), Text("[::]:7780")).option("IP:PORT").live();
    /// Address at which others reach this node, if it is not what they observe; counts after they dialled it back
    advertise: Option<SocketAddr> = both(Nothing, Nothing).option("IP:PORT").live();
    /// Node to contact first, as [PEER@]HOST[:PORT]; may be repeated
    join: Vec<JoinAddress> = both(Text(""), Text("")).option("ADDRESS").live();
    /// Names NAME[:PORT], all of whose addresses are nodes to contact if no other is found at once
    dns: Vec<JoinAddress> = both(Text(""), Text("")).live();
    /// Name of the network; nodes of other networks are refused
    network: NetworkName = both(Text("public"), Text("public")).option("NAME");
    /// File with the secret of a private network
    network_secret_file: Option<PathBuf> = both(Nothing, Nothing).option("FILE");
    /// Whether this leaf serves as an ultrapeer when the network wants one: never, auto or always
    volunteer: Volunteer = leaf(Text("auto")).option("never|auto|always").live();
    /// Start a network: be an ultrapeer at once, without the vote of others
    founder: bool = ultrapeer(Text("false")).option("");
    /// TCP address of the local page and HTTP interface, or off
    api: Option<SocketAddr> = both(Text("127.0.0.1:7780"), Text("127.0.0.1:7782")).option("IP:PORT|off");
    /// Host names by which the HTTP interface may be addressed, besides its own address
    api_hosts: Vec<String> = both(Text(""), Text(""));
    /// TCP address of metrics and probes, or off
    metrics: Option<SocketAddr> = both(Text("off"), Text("127.0.0.1:7781")).option("IP:PORT|off");
    /// Find nodes in the local network
    lan: bool = both(Text("true"), Text("true")).option("").live();
    /// Find nodes through the BitTorrent mainline DHT
    dht: bool = both(Text("true"), Text("true")).option("").live();
    /// Nodes HOST:PORT through which the DHT is entered, instead of the usual ones
    dht_bootstrap: Vec<String> = both(Text(""), Text("")).live();
    /// Ask the router to forward the port
    portmap: bool = both(Text("true"), Text("true")).option("").live();
    /// Bytes a second for all uploads together
    upload_limit: Rate = leaf(Text("off")).option("RATE").live();
    /// Bytes a second for all downloads together
    download_limit: Rate = leaf(Text("off")).option("RATE").live();
    /// Upload limits by the hour, lines such as `mon-fri 08:00-18:00 500kB` in local time
    upload_schedule: Vec<ScheduleLine> = leaf(Text("")).live();
    /// Download limits by the hour, in the same form
    download_schedule: Vec<ScheduleLine> = leaf(Text("")).live();
    /// Uploads at the same time, besides one that tries new peers
    upload_slots: NonZeroU32 = leaf(Text("4")).option("N").live();
    /// Bytes that one peer may download from here in a day
    peer_quota: Size = leaf(Text("off")).live();
    /// Time between two complete scans of the shares
    rescan_interval: Interval = leaf(Text("1h")).live();
    /// Threads that hash files
    hash_threads: NonZeroU32 = leaf(HalfTheCores).live();
    /// Leaves that are served while this node is an ultrapeer
    max_leaves: NonZeroU32 = both(Text("1000"), Text("10000")).option("N").live();
    /// Memory of index and digests while this node is an ultrapeer
    memory: Size = both(Text("512MiB"), Text("512MiB")).option("SIZE").live();
    /// Files of one leaf that are searchable; the leaf is told of the rest
    max_files_per_leaf: NonZeroU32 = both(Text("1000000"), Text("1000000")).live();
    /// Queries a second that each leaf may send on average
    query_rate: QueryRate = both(Text("0.5"), Text("0.5")).live();
    /// Queries that each leaf may send at once
    query_burst: NonZeroU32 = both(Text("10"), Text("10")).live();
    /// Connections between leaves that are relayed at the same time; 0 relays none
    relay_circuits: u32 = both(Text("8"), Text("8")).live();
    /// Bytes a second of each relayed connection
    relay_rate: Rate = both(Text("256kB"), Text("256kB")).live();
    /// Files of banned peers and address prefixes, one target a line
    ban_list: Vec<PathBuf> = both(Text(""), Text("")).live();
    /// Files of blocked content ids, one a line
    block_list: Vec<PathBuf> = both(Text(""), Text("")).live();
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,quinn=debug`
    log: LogFilter = both(Text("info"), Text("info")).live();
    /// How log lines look: text or json
    log_format: LogFormat = both(Text("text"), Text("text")).live();
}
