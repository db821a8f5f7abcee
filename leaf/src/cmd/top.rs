//! `top`: how this node is doing, now and from then on.

use std::time::Duration;

use overlay::{
    admin::client::Client,
    console::{Exit, Failure, harmless},
    report::Status,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{Context, count, downloads, status, uploads};
use crate::api::types::{Download, State, Upload};

/// Time between two looks: what moves is seen to move, and asking costs nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Runs it: on a terminal until it is interrupted, else for one look.
///
/// # Errors
/// If no daemon answers, or it does not answer any more.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let (client, console) = (context.client()?, &context.console);
    let Some(screen) = console.screen()? else { return status::run(context).await };
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (status, downloads, uploads) = look(context, &client).await?;
        let (ended, running): (Vec<_>, Vec<_>) = downloads.into_iter().partition(|download| download.state.is_ended());
        let mut parts = vec![status::overview(&status)];
        parts.extend(status.problems.iter().map(|problem| format!("problem: {}\n", harmless(&problem.message))));
        parts.push(screen.table(&downloads::table(&running)));
        parts.push(screen.table(&uploads::table(&uploads)));
        if !ended.is_empty() {
            parts.push(format!("{} ended: `quictrack downloads`\n", count(ended.len() as u64, "download")));
        }
        parts.push("Ctrl-C ends this overview, not the node\n".to_owned());
        parts.retain(|part| !part.is_empty());
        let text = parts.join("\n");
        screen.show(&text)?;
    }
}

async fn look(context: &Context, client: &Client) -> Result<(Status, Vec<Download>, Vec<Upload>), Failure> {
    let status = client.get("status").await.map_err(|error| context.failure(error))?;
    let mut downloads: Vec<Download> = context.list(client, "downloads").await?;
    // What moves first.
    downloads.sort_by_key(|download| (download.state != State::Active, download.rate == 0));
    Ok((status, downloads, context.list(client, "uploads").await?))
}
