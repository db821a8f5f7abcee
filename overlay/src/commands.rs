//! Commands that both programs have: `id`, `config`, `completions`, `man`, which need no daemon, and [`bans`].

pub mod bans;

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use clap_complete::Shell;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    admin::{
        Code,
        bans::BanRequest,
        client::{Client, ClientError},
        list::Page,
    },
    bans::{
        Ban,
        keeper::{self, now_s},
    },
    config::{Config, ConfigError, Layer, OptionRow, Program},
    console::{Column, Console, Exit, Failure, GlobalOptions, Table},
    drive::{random_name, wall_clock_s},
    environment::Environment,
    folders::{self, DataFolder, Folders, PRIVATE_FILE},
    identity::Identity,
    limits,
    list_file::ListFile,
    query::Query,
    report,
    shared_folders::SharedFolders,
    wish_list::{ListedWish, Wish, WishList},
};

/// Where a command runs: for which program, with which options, in which environment.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The program.
    pub program: Program,
    /// The options of every command.
    pub global: &'a GlobalOptions,
    /// The environment.
    pub environment: &'a Environment,
    /// Where to print.
    pub console: &'a Console,
}

impl Surroundings<'_> {
    /// The places that the options and the environment choose.
    ///
    /// # Errors
    /// If there is no place for data.
    pub fn folders(&self) -> Result<Folders, Failure> {
        Ok(self.global.folders(self.program, self.environment)?)
    }

    /// A client of the daemon that runs on the chosen data folder.
    ///
    /// # Errors
    /// `daemon_not_running`; no place for data.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::of_data_dir(&self.folders()?.data).map_err(|error| self.failure(error))
    }

    /// What the user is told when the daemon gave no answer to use.
    pub fn failure(&self, error: ClientError) -> Failure {
        let failure = Failure::of_client(error, self.program);
        match &self.global.data_dir {
            Some(folder) if failure.code == Code::DaemonNotRunning => {
                let start = format!("{} --data-dir {}", self.program.start_command(), folder.display());
                failure.hint(format!("start one with `{start}`, or name another folder with --data-dir"))
            }
            _ => failure,
        }
    }

    /// Everything of a list of the daemon, page by page, at most [`limits::LIST_ITEMS`] items.
    ///
    /// # Errors
    /// As [`Self::failure`].
    pub async fn list<T: DeserializeOwned>(&self, client: &Client, path: &str) -> Result<Vec<T>, Failure> {
        let mut items = Vec::new();
        let mut cursor = None;
        loop {
            let page: Page<T> = self.page(client, path, cursor.as_deref()).await?;
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() || items.len() >= limits::LIST_ITEMS {
                return Ok(items);
            }
        }
    }

    /// One page of a list of the daemon: the first, or that of a cursor. `path` may have a query.
    ///
    /// # Errors
    /// As [`Self::failure`].
    pub async fn page<T: DeserializeOwned>(
        &self,
        client: &Client,
        path: &str,
        cursor: Option<&str>,
    ) -> Result<Page<T>, Failure> {
        let join = if path.contains('?') { '&' } else { '?' };
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let path = format!("{path}{join}limit={}{cursor}", limits::LIST_LIMIT_MAX);
        client.get(&path).await.map_err(|error| self.failure(error))
    }
}

/// `id`: prints the node's id, and makes its key if there is none.
///
/// # Errors
/// The data folder or the key cannot be used.
pub fn id(at: &Surroundings<'_>) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Id {
        peer_id: String,
    }
    let folders = at.folders()?;
    let identity = match Identity::load(&folders.identity_file())? {
        Some(identity) => identity,
        None => {
            folders::make_private_folder(&folders.data)?;
            Identity::load_or_create(&folders.identity_file())?
        }
    };
    let peer_id = identity.peer_id().to_string();
    if at.console.is_json() {
        at.console.typed_line("id", &Id { peer_id })?;
    } else {
        at.console.text(peer_id)?;
    }
    Ok(Exit::Done)
}

// The options of `config`. Without a subcommand it shows the values in effect.
#[expect(missing_docs, reason = "clap would take the text for the description of the command")]
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: Option<ConfigCommand>,
}

/// What to do with the configuration.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigCommand {
    /// Show all values in effect
    Show {
        /// Show where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check a configuration file without using it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Write what was set, shared, wished for and banned at run time to a file, or to stdout with `-`; without keys and tokens
    Export {
        /// The file
        file: PathBuf,
    },
    /// Take over the settings, shares, wishes and bans of an exported file
    Import {
        /// The file, or `-` for stdin
        file: PathBuf,
    },
}

/// What `config export` writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Export {
    /// The form of this file.
    quictrack_export: u32,
    settings: BTreeMap<String, Value>,
    /// Folders that were shared at run time.
    #[serde(default)]
    shares: Vec<PathBuf>,
    /// Standing queries.
    #[serde(default)]
    wishes: Vec<Wish>,
    /// Bans that were made at run time.
    #[serde(default)]
    bans: Vec<Ban>,
}

impl Export {
    /// What is in it, in words.
    fn summary(&self) -> String {
        let Self { settings, shares, wishes, bans, .. } = self;
        let (settings, shares, wishes, bans) = (settings.len(), shares.len(), wishes.len(), bans.len());
        format!("{settings} settings, {shares} shares, {wishes} wishes and {bans} bans")
    }
}

/// The form of exported files.
const EXPORT_FORM: u32 = 1;

/// `config`.
///
/// # Errors
/// A configuration that cannot be read or changed: exit 2.
pub async fn config(at: &Surroundings<'_>, arguments: &ConfigArgs) -> Result<Exit, Failure> {
    match &arguments.command {
        None => show(at, false),
        Some(ConfigCommand::Show { origin }) => show(at, *origin),
        Some(ConfigCommand::Check { file }) => check(at, file),
        Some(ConfigCommand::Export { file }) => export(at, file),
        Some(ConfigCommand::Import { file }) => import(at, file).await,
    }
}

fn load(at: &Surroundings<'_>) -> Result<Config, Failure> {
    let folders = at.folders()?;
    let config = Config::load(at.program, &folders, at.environment, Layer::default())?;
    for warning in config.warnings() {
        at.console.warn(warning);
    }
    Ok(config)
}

fn show(at: &Surroundings<'_>, origin: bool) -> Result<Exit, Failure> {
    print_options(at.console, &load(at)?.rows(), origin)?;
    Ok(Exit::Done)
}

fn print_options(console: &Console, rows: &[OptionRow], origin: bool) -> Result<(), Failure> {
    if console.is_json() {
        return rows.iter().try_for_each(|row| console.typed_line("option", row));
    }
    let mut columns = vec![Column::left("key"), Column::flexible("value")];
    if origin {
        columns.push(Column::left("origin"));
    }
    let mut table = Table::new(columns);
    for row in rows {
        // Surplus cells are dropped.
        table.row([row.key, &in_words(&row.value), row.origin.name()]);
    }
    console.table(&table)
}

/// A value as it stands in an environment variable.
fn in_words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(in_words).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn check(at: &Surroundings<'_>, file: &Path) -> Result<Exit, Failure> {
    Config::check_file(at.program, file, at.environment)?;
    let message = format!("{} is a valid configuration of {}", file.display(), at.program.name());
    if at.console.is_json() {
        at.console
            .typed_line("check", &report::Check { name: "config".to_owned(), ok: Some(true), message, hint: None })?;
    } else {
        at.console.text(message)?;
    }
    Ok(Exit::Done)
}

fn export(at: &Surroundings<'_>, file: &Path) -> Result<Exit, Failure> {
    let settings = load(at)?.run_time_settings().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let shared = SharedFolders::load(&at.folders()?.data)?;
    let shares = shared.paths().map(Path::to_owned).collect();
    let wishes = WishList::load(&at.folders()?.data)?.wishes().iter().map(|listed| listed.wish.clone()).collect();
    let now_s = now_s();
    let banned = ListFile::<Ban>::load(&at.folders()?.data, &keeper::LIST)?;
    let bans = banned.items().iter().filter(|ban| !ban.has_expired(now_s)).cloned().collect();
    let export = Export { quictrack_export: EXPORT_FORM, settings, shares, wishes, bans };
    let mut text = serde_json::to_string_pretty(&export).map_err(std::io::Error::from)?;
    text.push('\n');
    if file == Path::new("-") {
        at.console.bytes(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    folders::write_atomically(file, text.as_bytes(), PRIVATE_FILE)?;
    at.console.note(format_args!("{} written to {}", export.summary(), file.display()));
    Ok(Exit::Done)
}

/// Through the daemon if one runs, so that it follows; else into its files.
async fn import(at: &Surroundings<'_>, file: &Path) -> Result<Exit, Failure> {
    let unreadable = |why: String| {
        Failure::new(Code::BadConfig, format!("{} holds no exported settings: {why}", file.display()))
            .hint("`config export` writes such files")
    };
    let text = read(file)?;
    let mut export: Export = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let now_s = now_s();
    export.bans.retain(|ban| !ban.has_expired(now_s));
    if export.quictrack_export != EXPORT_FORM {
        return Err(unreadable(format!("its form is {}, known is {EXPORT_FORM}", export.quictrack_export)));
    }
    if at.program == Program::Ultrapeer && !(export.shares.is_empty() && export.wishes.is_empty()) {
        return Err(unreadable(
            "an ultrapeer shares and wishes nothing, and these are the settings of a leaf".to_owned(),
        ));
    }
    if export.shares.iter().any(|path| !path.is_absolute()) {
        return Err(unreadable("a share is no absolute path".to_owned()));
    }
    for wish in &export.wishes {
        let query = &wish.query;
        Query::parse(query).map_err(|error| unreadable(format!("the wish `{query}` is no query: {error}")))?;
    }
    match at.client() {
        Ok(client) => match client.patch::<Value>("config", &export.settings).await {
            Err(ClientError::NotRunning(_)) => import_into_files(at, &export)?,
            other => {
                other.map_err(|error| at.failure(error))?;
                share(at, &client, &export.shares).await?;
                wish(at, &client, &export.wishes).await?;
                ban(at, &client, &export.bans).await?;
            }
        },
        Err(_) => import_into_files(at, &export)?,
    }
    at.console.note(format_args!("{} taken over", export.summary()));
    Ok(Exit::Done)
}

fn import_into_files(at: &Surroundings<'_>, export: &Export) -> Result<(), Failure> {
    let folders = at.folders()?;
    let _data = DataFolder::open(&folders, |_, _| Ok(()))?;
    load(at)?.change(&export.settings)?;
    let mut shared = SharedFolders::load(&folders.data)?;
    for path in &export.shares {
        shared.set(path, true)?;
    }
    let mut list = WishList::load(&folders.data)?;
    for wish in &export.wishes {
        // What is wished for already is not wished for twice.
        if list.wishes().iter().all(|listed| listed.wish != *wish) {
            list.add(ListedWish { id: random_name()?, wish: wish.clone(), created_s: wall_clock_s() as i64 })?;
        }
    }
    let mut banned = ListFile::<Ban>::load(&folders.data, &keeper::LIST)?;
    let mut bans = banned.items().to_vec();
    bans.retain(|known| export.bans.iter().all(|ban| ban.target != known.target));
    bans.extend(export.bans.iter().cloned());
    Ok(banned.store(bans)?)
}

/// Shares folders through the daemon. One that is not there is told and left out.
async fn share(at: &Surroundings<'_>, client: &Client, folders: &[PathBuf]) -> Result<(), Failure> {
    for path in folders {
        match client.post::<Value>("shares", &serde_json::json!({ "path": path })).await {
            Ok(_) => {}
            Err(ClientError::Refused(error)) => at.console.warn(&error.message),
            Err(error) => return Err(at.failure(error)),
        }
    }
    Ok(())
}

/// Makes wishes through the daemon, but for those that it has. One that it refuses is told and left out.
async fn wish(at: &Surroundings<'_>, client: &Client, wishes: &[Wish]) -> Result<(), Failure> {
    if wishes.is_empty() {
        return Ok(());
    }
    let known: Vec<Wish> = at.list(client, "wishes").await?;
    for wish in wishes.iter().filter(|wish| !known.contains(wish)) {
        match client.post::<Value>("wishes", wish).await {
            Ok(_) => {}
            Err(ClientError::Refused(error)) => at.console.warn(&error.message),
            Err(error) => return Err(at.failure(error)),
        }
    }
    Ok(())
}

/// Makes bans through the daemon, but for those that it has. One that it refuses is told and left out.
async fn ban(at: &Surroundings<'_>, client: &Client, bans: &[Ban]) -> Result<(), Failure> {
    if bans.is_empty() {
        return Ok(());
    }
    let known: Vec<report::Ban> = at.list(client, "bans").await?;
    for Ban { target, reason, expires_s, .. } in bans {
        let target = target.to_string();
        if known.iter().any(|known| known.target == target) {
            continue;
        }
        let for_s = expires_s.map(|at| at.abs_diff(now_s()).max(1));
        match client.post::<Value>("bans", &BanRequest { target, for_s, reason: reason.clone() }).await {
            Ok(_) => {}
            Err(ClientError::Refused(error)) => at.console.warn(&error.message),
            Err(error) => return Err(at.failure(error)),
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(limits::CONFIG_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limits::CONFIG_BYTES).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(source) => Err(ConfigError::Unreadable { path: file.into(), source }.into()),
    }
}

/// `completions SHELL`: the script by which a shell completes the command.
///
/// # Errors
/// A reader that left.
pub fn completions(console: &Console, mut command: clap::Command, shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    console.bytes(&script)?;
    Ok(Exit::Done)
}

/// `man`: the manual, a page for the program and one for each command, commands of commands too.
///
/// # Errors
/// A reader that left.
pub fn man(console: &Console, mut program: clap::Command) -> Result<Exit, Failure> {
    program.build();
    let mut manual = Vec::new();
    append_page(&program, program.get_name(), &mut manual)?;
    console.bytes(&manual)?;
    Ok(Exit::Done)
}

/// The page of a command, then those of the commands in it.
fn append_page(command: &clap::Command, name: &str, manual: &mut Vec<u8>) -> Result<(), Failure> {
    // Its heading is all that clap does not qualify with the names of the commands around it.
    clap_mangen::Man::new(command.clone().name(name.to_owned())).render(manual)?;
    let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set());
    for inner in inner {
        append_page(inner, &format!("{name}-{}", inner.get_name()), manual)?;
    }
    Ok(())
}
