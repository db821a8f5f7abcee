//! `wish`: what this leaf is told of when somebody shares it.

use clap::{Args, Subcommand};
use overlay::{
    admin::client::{Client, segment},
    console::{Column, Exit, Failure, Table, harmless},
    units,
};

use super::{Context, search, short, usage};
use crate::api::types::{Hit, Wish, WishRequest};

/// What to do with wishes; without anything, list them.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand, Clone, Debug)]
enum Action {
    /// Wish for something from now on
    Add {
        /// Download what is found
        #[arg(long)]
        download: bool,
        /// Bytes above which nothing is downloaded, such as 500MB; `off` is unlimited
        #[arg(long, value_name = "SIZE", value_parser = most)]
        max_size: Option<Most>,
        /// Words, "phrases", -exclusions and filters such as ext:flac size:>10MB artist:name
        #[arg(required = true, value_name = "QUERY")]
        query: Vec<String>,
    },
    /// List the wishes
    List,
    /// List what a wish found
    Hits {
        /// The wish, as the list shows it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Wish for something no more; what was downloaded stays
    Remove {
        /// The wish, as the list shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// A size, or none.
#[derive(Clone, Copy, Debug)]
struct Most(Option<u64>);

fn most(text: &str) -> Result<Most, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Most(None));
    }
    match units::parse_size(text) {
        Ok(0) => Err("at least one byte, or `off` for no limit".to_owned()),
        Ok(size) => Ok(Most(Some(size))),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs it.
///
/// # Errors
/// `bad_query`, `conflict`, `not_found`, and what the daemon refuses otherwise.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let client = context.client()?;
    match arguments.action {
        None | Some(Action::List) => list(context, &client).await?,
        Some(Action::Add { download, max_size, query }) => {
            let max_size = max_size.and_then(|Most(size)| size);
            let request = WishRequest { query: query.join(" "), download: Some(download), max_size };
            add(context, &client, &request).await?;
        }
        Some(Action::Hits { id }) => hits(context, &client, &id).await?,
        Some(Action::Remove { id }) => remove(context, &client, &id).await?,
    }
    Ok(Exit::Done)
}

async fn add(context: &Context, client: &Client, request: &WishRequest) -> Result<(), Failure> {
    let wish: Wish = client.post("wishes", request).await.map_err(|error| context.failure(error))?;
    if context.console.is_json() {
        return context.console.typed_line("wish", &wish);
    }
    let end = if wish.download { "is downloaded when somebody shares it" } else { "is told when somebody shares it" };
    context.console.note(format_args!("{}: what matches {end}; `quictrack wish hits {}` shows it", wish.id, wish.id));
    Ok(())
}

async fn list(context: &Context, client: &Client) -> Result<(), Failure> {
    let wishes: Vec<Wish> = context.list(client, "wishes").await?;
    let console = &context.console;
    if console.is_json() {
        return wishes.iter().try_for_each(|wish| console.typed_line("wish", wish));
    }
    console.table(&table(&wishes))?;
    if wishes.is_empty() {
        console.note("there is no wish; make one with `quictrack wish add WORDS`");
    }
    Ok(())
}

async fn hits(context: &Context, client: &Client, id: &str) -> Result<(), Failure> {
    let hits: Vec<Hit> = context.list(client, &format!("{}/hits", path(id)?)).await?;
    let console = &context.console;
    if console.is_json() {
        return hits.iter().try_for_each(|hit| console.typed_line("hit", hit));
    }
    console.table(&search::table(&hits.iter().collect::<Vec<_>>()))?;
    match hits.last() {
        Some(hit) => console.note(format_args!("download one with `quictrack get {}`", short(&hit.content))),
        None => console.note("nobody shares it yet"),
    }
    Ok(())
}

async fn remove(context: &Context, client: &Client, id: &str) -> Result<(), Failure> {
    client.delete(&path(id)?).await.map_err(|error| context.failure(error))?;
    context.console.note(format_args!("{id} is wished for no more"));
    Ok(())
}

/// Where the daemon has a wish.
fn path(id: &str) -> Result<String, Failure> {
    let is_one =
        (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if is_one {
        return Ok(format!("wishes/{}", segment(id)));
    }
    Err(usage(format!("`{}` is no id of a wish", harmless(id))).hint("`quictrack wish list` shows them"))
}

fn table(wishes: &[Wish]) -> Table {
    let mut table = Table::new([
        Column::left("id"),
        Column::right("found"),
        Column::left("last found"),
        Column::left("downloads"),
        Column::flexible("query"),
    ]);
    for wish in wishes {
        let downloads = match (wish.download, wish.max_size) {
            (false, _) => String::new(),
            (true, None) => "all".to_owned(),
            (true, Some(most)) => format!("up to {}", units::size(most)),
        };
        let last = wish.last_hit_at.as_deref().unwrap_or_default();
        table.row([wish.id.as_str(), &wish.hits.to_string(), last, &downloads, &wish.query]);
    }
    table
}
