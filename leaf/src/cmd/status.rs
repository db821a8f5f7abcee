//! `status`: how this node is doing.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use overlay::{
    console::{Console, Exit, Failure, harmless},
    report::{Criterion, Status, UltrapeerPart},
    units,
};

use super::{Context, count};

/// Runs it.
///
/// # Errors
/// If no daemon answers.
pub async fn run(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let status: Status = client.get("status").await.map_err(|error| context.failure(error))?;
    let console = &context.console;
    if console.is_json() {
        console.typed_line("status", &status)?;
    } else {
        console.bytes(overview(&status).as_bytes())?;
        problems(console, &status);
    }
    Ok(Exit::Done)
}

/// What a person wants to know first, as text.
pub(super) fn overview(status: &Status) -> String {
    let line = |(label, text): &(&str, String)| format!("{label:<13} {}", harmless(text));
    rows(status).iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// The same as lines with a label.
fn rows(status: &Status) -> Vec<(&'static str, String)> {
    let uptime = units::duration(Duration::from_secs(status.uptime_s));
    let mut rows = vec![
        ("node", status.peer_id.clone()),
        ("program", format!("{} {}, up {uptime}", status.role, status.version)),
        ("network", format!("{}, {}", status.network, if status.ready { "connected" } else { "not connected" })),
        ("address", address(status)),
    ];
    if let Some(homes) = &status.homes {
        for home in homes {
            let rtt = home.rtt_ms.map(|rtt| format!(", {rtt:.1} ms")).unwrap_or_default();
            let files = count(home.acknowledged, "file");
            rows.push(("home", format!("{}{}{rtt}, has {files}", home.peer, at(home.address))));
        }
    }
    rows.push(("ultrapeers", format!("{} in {}", status.ultrapeers, count(status.shards, "shard"))));
    if let (Some(shares), Some(catalog)) = (status.shares, status.catalog) {
        let pending = match shares.pending_files {
            0 => String::new(),
            pending => format!(", {pending} to hash"),
        };
        rows.push(("shares", format!("{}, {}{pending}", count(shares.files, "file"), units::size(shares.bytes))));
        rows.push(("known to net", format!("{} of {}", catalog.acknowledged, count(catalog.files, "file"))));
    }
    for (label, counts, rate) in
        [("downloads", &status.downloads, status.download_rate), ("uploads", &status.uploads, status.upload_rate)]
    {
        if let Some(counts) = counts {
            rows.push((label, format!("{}, {}", states(counts), units::rate(rate.unwrap_or_default() as f64))));
        }
    }
    if let Some(ultrapeer) = &status.ultrapeer {
        rows.push(("ultrapeer", service(ultrapeer)));
    } else if let Some(volunteer) = &status.volunteer {
        rows.push(("volunteer", volunteering(volunteer).to_owned()));
        if volunteer != "never" {
            let criteria = status.election.iter().flatten().filter(|criterion| criterion.name != "volunteer");
            rows.extend(criteria.map(|known| ("", criterion(known))));
        }
    }
    rows
}

/// When this node serves as an ultrapeer.
fn volunteering(volunteer: &str) -> &'static str {
    match volunteer {
        "never" => "never: this node is a leaf only",
        "always" => "always: this node serves as an ultrapeer as soon as others let it in",
        _ => "auto: this node serves as an ultrapeer when all of these hold",
    }
}

/// One condition, whether it holds, and why.
fn criterion(criterion: &Criterion) -> String {
    let have = criterion.have.as_deref().unwrap_or("not known yet");
    let want = criterion.want.as_deref().unwrap_or_default();
    match criterion.met {
        Some(true) => format!("{:<9} yes: {have}", criterion.name),
        Some(false) => format!("{:<9} no:  {have}; wanted: {want}", criterion.name),
        None => format!("{:<9} ?    {have}; wanted: {want}", criterion.name),
    }
}

fn address(status: &Status) -> String {
    let observed: Vec<String> = status.observed.iter().map(ToString::to_string).collect();
    let seen = if observed.is_empty() { String::new() } else { format!(", seen as {}", observed.join(", ")) };
    let listen = status.listen.map_or_else(|| "none".to_owned(), |address| address.to_string());
    format!("{listen}{seen}, reachability {}", status.reachability)
}

/// Where a node is, if that is known.
fn at(address: Option<SocketAddr>) -> String {
    address.map(|address| format!(" at {address}")).unwrap_or_default()
}

fn states(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> =
        counts.iter().filter(|(_, number)| **number > 0).map(|(state, number)| format!("{number} {state}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn service(ultrapeer: &UltrapeerPart) -> String {
    format!(
        "{}, {} of {} leaves, {} ({}) in the index, {:.1} queries/s",
        ultrapeer.state,
        ultrapeer.leaves,
        ultrapeer.max_leaves,
        count(ultrapeer.index_files, "file"),
        units::size(ultrapeer.index_bytes),
        ultrapeer.queries_per_s
    )
}

fn problems(console: &Console, status: &Status) {
    for problem in &status.problems {
        let hint = problem.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        console.warn(format_args!("{}{hint}", problem.message));
    }
}
