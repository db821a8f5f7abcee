//! `browse`: what another leaf shares.

use clap::Args;
use overlay::{
    admin::{Code, client::segment},
    console::{Column, Exit, Failure, Table, harmless},
    limits, units,
};

use super::{Context, count, peer_text, short};
use crate::api::types::Listed;

/// Whose shares, and where in them.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Everything below, not one folder
    #[arg(long)]
    recursive: bool,
    /// A peer id, or 8 or more of its first characters
    #[arg(value_name = "PEER")]
    peer: String,
    /// A folder, from the share's name down [default: all shares]
    #[arg(value_name = "PATH", default_value = "", hide_default_value = true)]
    path: String,
}

/// Pages in a row that list nothing and still name a next one. Chosen: an honest peer sends none; one whose files this
/// release does not understand may send some.
const EMPTY_PAGES: usize = 16;

/// Runs it. Prints page by page, for a share may hold a million files.
///
/// # Errors
/// `not_found` for a peer or path that is not known, `peer_unreachable`, `timeout`.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let peer = peer_text(&arguments.peer)?;
    let folder = arguments.path.trim_matches('/');
    let path = format!("browse/{peer}?path={}&recursive={}", segment(folder), arguments.recursive);
    let client = context.client()?;
    let (mut cursor, mut listed, mut empty, mut first_file) = (None, 0, 0, None);
    loop {
        let page = context.surroundings().page::<Listed>(&client, &path, cursor.as_deref()).await?;
        listed += page.items.len();
        if context.console.is_json() {
            page.items.iter().try_for_each(|item| context.console.line(item))?;
        } else {
            context.console.table(&table(&page.items, arguments.recursive))?;
        }
        first_file = first_file.or_else(|| page.items.iter().find_map(path_of_file));
        empty = if page.items.is_empty() { empty + 1 } else { 0 };
        if listed > limits::LISTING_ITEMS || empty > EMPTY_PAGES {
            return Err(Failure::new(Code::PeerUnreachable, "the peer's listing has no end")
                .hint("name a folder of it, or browse another peer"));
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if !context.console.is_json() {
        match first_file {
            Some(file) => context.console.note(format_args!(
                "download one with `quictrack get {}/{}`, or a folder in the same way",
                arguments.peer,
                shell_word(&harmless(&file))
            )),
            None if listed == 0 => context.console.note("nothing is shared there"),
            None => {}
        }
    }
    Ok(Exit::Done)
}

/// `text` as one word of a shell: a name of others must not end its quotes and begin a command.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn path_of_file(item: &Listed) -> Option<String> {
    match item {
        Listed::Entry(entry) => Some(entry.path.clone()),
        Listed::Folder(_) => None,
    }
}

fn table(items: &[Listed], whole_paths: bool) -> Table {
    let mut table = Table::new([
        Column::left("content"),
        Column::right("size"),
        Column::left("modified"),
        Column::flexible("name"),
    ]);
    for item in items {
        match item {
            Listed::Folder(folder) => {
                let name = if whole_paths { &folder.path } else { &folder.name };
                table.row([
                    "",
                    &units::size(folder.bytes).to_string(),
                    &count(folder.files, "file"),
                    &format!("{name}/"),
                ]);
            }
            Listed::Entry(entry) => {
                let name = if whole_paths { &entry.path } else { &entry.name };
                let day = entry.modified_at.as_deref().and_then(|time| time.split('T').next()).unwrap_or_default();
                table.row([&short(&entry.content), &units::size(entry.size).to_string(), day, name]);
            }
        }
    }
    table
}
