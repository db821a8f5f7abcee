//! `peers`: the nodes that this one knows.

use overlay::{
    console::{Column, Exit, Failure, Table},
    report::Peer,
};

use super::Context;

/// Runs it.
///
/// # Errors
/// If no daemon answers.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let peers: Vec<Peer> = context.list(&client, "peers").await?;
    let console = &context.console;
    if console.is_json() {
        peers.iter().try_for_each(|peer| console.typed_line("peer", peer))?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new([
        Column::left("peer"),
        Column::left("role"),
        Column::left("state"),
        Column::left("home"),
        Column::right("round trip"),
        Column::left("address"),
        Column::flexible("connections"),
    ]);
    for peer in &peers {
        table.row([
            peer.peer.as_str(),
            &peer.role,
            &peer.state,
            if peer.home { "yes" } else { "" },
            &peer.rtt_ms.map(|rtt| format!("{rtt:.1} ms")).unwrap_or_default(),
            &peer.address.map(|address| address.to_string()).unwrap_or_default(),
            &peer.connections.join(", "),
        ]);
    }
    console.table(&table)?;
    if peers.is_empty() {
        console.note("no other node is known; name one with --join or the key `join`");
    }
    Ok(Exit::Done)
}
