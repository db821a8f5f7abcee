//! Commands that ask the daemon.

use std::fmt::Display;

use axum::http::Method;
use futures_util::StreamExt;
use overlay::{
    commands::Surroundings,
    console::{Column, Exit, Failure, Table},
    report::{Peer, Status},
    units,
};

/// `status`.
pub(super) async fn status(at: &Surroundings<'_>) -> Result<Exit, Failure> {
    let status: Status = at.client()?.get("status").await.map_err(|error| at.failure(error))?;
    if at.console.is_json() {
        at.console.typed_line("status", &status)?;
        return Ok(Exit::Done);
    }
    at.console.table(&status_table(&status))?;
    for problem in &status.problems {
        at.console.warn(&problem.message);
        if let Some(hint) = &problem.hint {
            at.console.note(format_args!("hint: {hint}"));
        }
    }
    Ok(Exit::Done)
}

fn status_table(status: &Status) -> Table {
    let part = status.ultrapeer.clone().unwrap_or_default();
    let listed = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(", ") };
    let mut table = Table::new([Column::left("ultrapeer"), Column::flexible("")]);
    let mut row = |name: &str, value: &dyn Display| table.row([name, &value.to_string()]);
    row("state", &part.state);
    row("ready", &if status.ready { "yes" } else { "no" });
    row("peer id", &status.peer_id);
    row("network", &status.network);
    row("version", &status.version);
    row("uptime", &units::duration(std::time::Duration::from_secs(status.uptime_s)));
    row("listen", &listed(status.listen.iter().map(ToString::to_string).collect()));
    row("observed", &listed(status.observed.iter().map(ToString::to_string).collect()));
    row("reachability", &status.reachability);
    row("ultrapeers", &status.ultrapeers);
    row("leaves", &format_args!("{} of {}, {} in the network", part.leaves, part.max_leaves, part.digest_leaves));
    row("index", &format_args!("{} files, {}", part.index_files, units::size(part.index_bytes)));
    row("queries", &format_args!("{:.1}/s", part.queries_per_s));
    table
}

/// `peers`.
pub(super) async fn peers(at: &Surroundings<'_>) -> Result<Exit, Failure> {
    let peers: Vec<Peer> = at.list(&at.client()?, "peers").await?;
    if at.console.is_json() {
        peers.iter().try_for_each(|peer| at.console.typed_line("peer", peer))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new([
        Column::left("peer"),
        Column::left("role"),
        Column::left("state"),
        Column::flexible("address"),
        Column::right("rtt"),
    ]);
    for peer in &peers {
        let address = peer.address.map(|address| address.to_string()).unwrap_or_default();
        let rtt = peer.rtt_ms.map(|rtt| format!("{rtt:.1} ms")).unwrap_or_default();
        table.row([&peer.peer, &peer.role, &peer.state, &address, &rtt]);
    }
    if peers.is_empty() {
        at.console.note("no other ultrapeer is known and no leaf is attached");
    }
    at.console.table(&table)?;
    Ok(Exit::Done)
}

/// `drain`: asks for it and waits for the end, which is the end of the daemon's events.
pub(super) async fn drain(at: &Surroundings<'_>) -> Result<Exit, Failure> {
    let client = at.client()?;
    let mut events = client.events("events", None).await.map_err(|error| at.failure(error))?;
    client.send(Method::POST, "drain", None::<&()>).await.map_err(|error| at.failure(error))?;
    at.console.note("draining");
    // A connection that breaks is the end too: nothing but the daemon is at the other side.
    while let Some(Ok(_)) = events.next().await {}
    at.console.note("drained");
    Ok(Exit::Done)
}
