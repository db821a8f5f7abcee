//! Commands about bans, which both programs have: `ban`, `unban`, `bans`.

use std::time::Duration;

use clap::Args;

use super::Surroundings;
use crate::{
    admin::{bans::BanRequest, client::segment},
    console::{Column, Exit, Failure, Table, harmless},
    report::Ban,
    units,
};

/// Whom or what to ban.
#[derive(Args, Clone, Debug)]
pub struct BanArgs {
    /// A peer id, an address or a range of addresses such as 192.0.2.0/24, or a content id, which is blocked; of ids 8
    /// or more first characters will do
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Time after which it is forgotten, such as 12h or 30d; for good without it
    #[arg(long = "for", value_name = "DURATION", value_parser = span)]
    pub span: Option<Duration>,
    /// Why, for whoever reads the list
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Which ban to lift.
#[derive(Args, Clone, Debug)]
pub struct UnbanArgs {
    /// Its target as `bans` shows it; of ids 8 or more first characters will do
    #[arg(value_name = "TARGET")]
    pub target: String,
}

fn span(text: &str) -> Result<Duration, String> {
    let span = units::parse_duration(text).map_err(|error| error.to_string())?;
    if span < Duration::from_secs(1) { Err("at least a second".to_owned()) } else { Ok(span) }
}

/// `ban`.
///
/// # Errors
/// What the daemon refuses: a target that is none, that is not known, or that is this node; a list that is full.
pub async fn ban(at: &Surroundings<'_>, arguments: BanArgs) -> Result<Exit, Failure> {
    let BanArgs { target, span, reason } = arguments;
    let request = BanRequest { target, for_s: span.map(|span| span.as_secs()), reason };
    let ban: Ban = at.client()?.post("bans", &request).await.map_err(|error| at.failure(error))?;
    if at.console.is_json() {
        at.console.typed_line("ban", &ban)?;
        return Ok(Exit::Done);
    }
    let what = if ban.kind == "content" { "blocked" } else { "banned" };
    let until = ban.expires_at.map_or_else(String::new, |at| format!(" until {at}"));
    at.console.note(format_args!("{} is {what}{until}", ban.target));
    Ok(Exit::Done)
}

/// `unban`.
///
/// # Errors
/// `not_found` if there is no such ban, `conflict` if it stands in a file.
pub async fn unban(at: &Surroundings<'_>, arguments: UnbanArgs) -> Result<Exit, Failure> {
    let path = format!("bans/{}", segment(&arguments.target));
    at.client()?.delete(&path).await.map_err(|error| at.failure(error))?;
    at.console.note(format_args!("the ban of {} is lifted", harmless(&arguments.target)));
    Ok(Exit::Done)
}

/// `bans`.
///
/// # Errors
/// What the daemon refuses.
pub async fn bans(at: &Surroundings<'_>) -> Result<Exit, Failure> {
    let bans: Vec<Ban> = at.list(&at.client()?, "bans").await?;
    if at.console.is_json() {
        bans.iter().try_for_each(|ban| at.console.typed_line("ban", ban))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new([
        Column::left("kind"),
        Column::left("target"),
        Column::left("origin"),
        Column::left("expires"),
        Column::flexible("reason"),
    ]);
    for ban in &bans {
        let expires = ban.expires_at.as_deref().unwrap_or("never");
        table.row([&ban.kind, &ban.target, &ban.origin, expires, ban.reason.as_deref().unwrap_or_default()]);
    }
    at.console.table(&table)?;
    if bans.is_empty() {
        at.console
            .note(format_args!("nobody is banned and nothing is blocked; `{} ban TARGET` does", at.program.name()));
    }
    Ok(Exit::Done)
}
