//! What a leaf says of itself: `status`, `peers`, and what is wrong.

use std::collections::BTreeMap;

use overlay::{
    config::Volunteer,
    drive::wall_clock_s,
    report::{CatalogTotal, Home, Peer, Problem, SharesTotal, Status},
    wire::search::Reachability,
};

use crate::{
    api::http::State,
    candidacy::Criterion,
    catalog::Catalog,
    download::record::{Download, Reason},
    network::{HomeStatus, JoinProblem},
    node::Node,
    store::{Share, ShareState, Shares, WATCH_LIMIT_HINT},
};
use ultrapeer::view;

/// `status`, whole.
pub async fn status(state: &State) -> Status {
    let node = &state.node;
    let homes = node.network().homes();
    let shares = node.shares().list();
    let catalog = node.shares().catalog();
    let downloads = node.downloads().list();
    let uploads = node.uploads().list();
    let mut observed: Vec<_> = homes.iter().map(|home| home.observed).collect();
    observed.sort_unstable();
    observed.dedup();
    let ultrapeers = node.network().ultrapeers().await;
    let snapshot = node.role().snapshot().await;
    let (criteria, reached) = node.network().candidacy().await;
    let known = node.network().nature().reachability;
    let serves = node.role().is_ultrapeer();
    let serving = snapshot.as_ref().filter(|_| serves);
    observed.extend(serving.and_then(|snapshot| snapshot.address).filter(|address| !observed.contains(address)));
    let wish = state.common.config.settings().volunteer;
    let reachability = reachability(serves, reached, known);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: if serves { "ultrapeer" } else { "leaf" }.to_owned(),
        peer_id: node.peer().to_string(),
        network: node.network_name().to_owned(),
        uptime_s: node.uptime().as_secs(),
        listen: Some(node.endpoint().local_address()),
        observed,
        reachability: reachability.to_owned(),
        volunteer: Some(volunteer(wish).to_owned()),
        ready: node.is_in_network() && !state.readiness.is_draining(),
        problems: problems(node, &shares, &homes, &downloads),
        homes: Some(homes.iter().map(home).collect()),
        ultrapeers: u64::from(serving.map_or(ultrapeers, |snapshot| snapshot.ultrapeers)),
        shards: serving.map_or_else(|| u64::from(ultrapeers > 0), |snapshot| snapshot.shards.into()),
        shard_prefix: serving.map(|snapshot| snapshot.shard.to_string()),
        shares: Some(SharesTotal {
            files: shares.iter().map(|share| share.files).sum(),
            bytes: shares.iter().map(|share| share.bytes).sum(),
            pending_files: shares.iter().map(|share| share.pending_files).sum(),
        }),
        catalog: Some(CatalogTotal {
            files: catalog.files(),
            acknowledged: node.network().searchable(),
            current: node.network().acknowledged(catalog.sequence()).is_some(),
        }),
        downloads: Some(counts(
            &["queued", "active", "stalled", "paused", "done", "cancelled", "failed"],
            downloads.iter().map(|job| name(&job.state)),
        )),
        uploads: Some(counts(&["queued", "active"], uploads.iter().map(|upload| name(&upload.state)))),
        upload_rate: Some(uploads.iter().map(|upload| upload.rate).sum()),
        download_rate: Some(downloads.iter().map(|job| job.rate).sum()),
        election: Some(criteria.into_iter().map(|row| criterion(row, reachability)).collect()),
        ultrapeer: snapshot.as_ref().map(|snapshot| node.role().part(snapshot)),
    }
}

/// Every state once, also those that nothing is in.
fn counts(states: &[&str], items: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = states.iter().map(|state| ((*state).to_owned(), 0)).collect();
    for state in items {
        *counts.entry(state).or_default() += 1;
    }
    counts
}

/// How others reach this node. Whoever was let in was reached; homes say of their leaves what they found, of those that
/// would serve on their own account.
const fn reachability(serves: bool, reached: Option<bool>, known: Reachability) -> &'static str {
    match (known, reached) {
        (Reachability::Mapped, _) => "mapped",
        _ if serves => "public",
        (Reachability::Public, _) | (_, Some(true)) => "public",
        (Reachability::Natted, _) | (_, Some(false)) => "natted",
        (Reachability::Unknown, None) => "unknown",
    }
}

/// A criterion as others read it. Homes that look at it as a candidate may not have tried to reach it yet, when as a leaf it
/// is known to be reached or not.
fn criterion(criterion: Criterion, reachability: &str) -> overlay::report::Criterion {
    let Criterion { name, mut met, mut have, want } = criterion;
    if name == "reachable" && met.is_none() && reachability != "unknown" {
        met = Some(matches!(reachability, "public" | "mapped"));
        have = Some(reachability.to_owned());
    }
    overlay::report::Criterion { name: name.to_owned(), met, have, want: Some(want) }
}

const fn volunteer(volunteer: Volunteer) -> &'static str {
    match volunteer {
        Volunteer::Never => "never",
        Volunteer::Auto => "auto",
        Volunteer::Always => "always",
    }
}

/// The name that a variant has in JSON.
fn name(variant: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(variant).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

fn home(home: &HomeStatus) -> Home {
    let since_s = wall_clock_s().saturating_sub(home.age.as_secs());
    Home {
        peer: home.peer.to_string(),
        address: Some(home.address),
        rtt_ms: Some(home.rtt.as_secs_f64() * 1e3),
        since_at: crate::api::types::timestamp(since_s as i64),
        acknowledged: home.acknowledged,
    }
}

/// Ultrapeers that this leaf knows, leaves that recent hits named, and what an ultrapeer in it is linked with.
pub async fn peers(node: &Node) -> Vec<Peer> {
    let homes = node.network().homes();
    let rtt = |peer| homes.iter().find(|home| home.peer == peer).map(|home| home.rtt.as_secs_f64() * 1e3);
    let known = node.network().known().await;
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    for source in node.searches().peers().into_iter().filter(|source| source.peer != node.peer()) {
        let peer = Peer {
            peer: source.peer.to_string(),
            role: "leaf".to_owned(),
            state: "cached".to_owned(),
            ..Peer::default()
        };
        peers.insert(peer.peer.clone(), peer);
    }
    for (descriptor, is_home) in known {
        let peer = Peer {
            peer: descriptor.peer.to_string(),
            address: Some(descriptor.address),
            role: "ultrapeer".to_owned(),
            state: if is_home { "alive" } else { "cached" }.to_owned(),
            home: is_home,
            shard_prefix: Some(descriptor.shard.to_string()),
            rtt_ms: rtt(descriptor.peer),
            connections: if is_home { vec!["leaf".to_owned()] } else { Vec::new() },
        };
        peers.insert(peer.peer.clone(), peer);
    }
    // A home that does not know its own address yet has no descriptor. This node is no peer of itself.
    for home in homes.iter().filter(|home| home.peer != node.peer()) {
        peers.entry(home.peer.to_string()).or_insert_with(|| Peer {
            peer: home.peer.to_string(),
            address: Some(home.address),
            role: "ultrapeer".to_owned(),
            state: "alive".to_owned(),
            home: true,
            shard_prefix: Some(String::new()),
            rtt_ms: Some(home.rtt.as_secs_f64() * 1e3),
            connections: vec!["leaf".to_owned()],
        });
    }
    if let Some(snapshot) = node.role().snapshot().await {
        for member in snapshot.members.iter().map(view::member) {
            let known = peers.entry(member.peer.clone()).or_insert_with(|| member.clone());
            known.connections.extend(member.connections);
            (known.state, known.rtt_ms) = (member.state, known.rtt_ms.or(member.rtt_ms));
        }
        for leaf in snapshot.attached.iter().filter(|leaf| leaf.peer != node.peer()) {
            let shown = view::leaf(&leaf.peer, leaf.address, leaf.rtt);
            peers.insert(shown.peer.clone(), shown);
        }
    }
    peers.into_values().collect()
}

fn problems(node: &Node, shares: &[Share], homes: &[HomeStatus], downloads: &[Download]) -> Vec<Problem> {
    let mut problems: Vec<_> =
        node.network().problems().into_iter().filter_map(|(target, problem)| join_problem(&target, &problem)).collect();
    if !node.is_in_network() {
        problems.push(Problem {
            code: "no_ultrapeer".to_owned(),
            message: "this leaf is attached to no ultrapeer".to_owned(),
            hint: Some("name a node of the network with --join ADDRESS or the key `join`".to_owned()),
        });
    }
    for share in shares.iter().filter(|share| share.state == ShareState::Missing) {
        problems.push(Problem {
            code: "share_missing".to_owned(),
            message: format!("the folder {} of the share {} is not there", share.path, share.name),
            hint: Some("mount or restore it; its files are searchable again without being hashed anew".to_owned()),
        });
    }
    problems.extend(watch_limit(node.shares()));
    problems.extend(full_disk(node, downloads));
    problems.extend(truncation(&node.shares().catalog(), homes));
    problems
}

/// Shares in which changes are found late.
fn watch_limit(shares: &Shares) -> Option<Problem> {
    let limited = shares.beyond_watch_limit();
    (!limited.is_empty()).then(|| Problem {
        code: "watch_limit".to_owned(),
        message: format!("the system watches no more folders; in {} changes are found by rescans", limited.join(", ")),
        hint: Some(format!("{WATCH_LIMIT_HINT}, or use `quictrack shares rescan`")),
    })
}

/// A list that is not searchable whole. Homes may differ: the one that takes the least decides, because a search
/// asks any of them.
fn truncation(catalog: &Catalog, homes: &[HomeStatus]) -> Option<Problem> {
    let current = homes.iter().filter(|home| home.sequence == Some(catalog.sequence()));
    let taken = current.map(|home| home.acknowledged).min().filter(|taken| *taken < catalog.files())?;
    let (files, left_out) = (catalog.files(), catalog.files() - taken);
    let message = format!("an ultrapeer takes {taken} of this leaf's {files} files; the last {left_out} are not found");
    Some(Problem {
        code: "catalog_truncated".to_owned(),
        message,
        hint: Some("share fewer folders, or exclude what nobody looks for; paths are taken in order".to_owned()),
    })
}

/// What waits for room on a disk.
fn full_disk(node: &Node, downloads: &[Download]) -> Option<Problem> {
    let waiting = downloads.iter().filter(|job| job.reason == Some(Reason::DiskFull)).count();
    let message = match (waiting, node.is_data_disk_full()) {
        (0, false) => return None,
        (0, true) => "the disk of the data folder is full: nothing new can be recorded".to_owned(),
        (1, _) => "a download waits for room on the disk".to_owned(),
        (many, _) => format!("{many} downloads wait for room on the disk"),
    };
    let hint = "make room: everything goes on by itself".to_owned();
    Some(Problem { code: "disk_full".to_owned(), message, hint: Some(hint) })
}

fn join_problem(target: &str, problem: &JoinProblem) -> Option<Problem> {
    let (code, hint) = match problem {
        JoinProblem::Name(_) => ("unreachable", "check the name, and that this machine can ask a name server"),
        JoinProblem::Dial(error) => (error.problem()?, error.hint()),
    };
    let message = format!("cannot join through {target}: {problem}");
    Some(Problem { code: code.to_owned(), message, hint: Some(hint.to_owned()) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use overlay::{
        file::{FileEntry, Tags},
        id::ContentId,
        identity::Identity,
    };

    use super::*;
    use crate::catalog::Change;

    #[test]
    fn what_is_known_of_a_leaf_counts_until_it_is_looked_at_as_a_candidate() {
        let row = |name, met| Criterion { name, met, have: None, want: "x".to_owned() };
        let told = |name, met, reachability| criterion(row(name, met), reachability).met;
        for (reachability, met) in
            [("public", Some(true)), ("mapped", Some(true)), ("natted", Some(false)), ("unknown", None)]
        {
            assert_eq!(told("reachable", None, reachability), met, "{reachability}");
        }
        assert_eq!(told("reachable", Some(false), "public"), Some(false), "what homes found in the candidate");
        assert_eq!(told("uptime", None, "public"), None);
    }

    #[test]
    fn a_list_that_a_home_does_not_take_whole_is_a_problem() {
        let mut catalog = Catalog::new(3);
        let file = |path: &str| FileEntry {
            path: path.to_owned(),
            content: ContentId([1; 32]),
            size: 1,
            modified_s: 0,
            tags: Tags::default(),
        };
        catalog.apply(vec![Change::Upsert(file("m/a")), Change::Upsert(file("m/b")), Change::Upsert(file("m/c"))]);
        let home = |seed: u8, sequence: u64, acknowledged: u64| HomeStatus {
            peer: Identity::from_seed([seed; 32]).peer_id(),
            address: ([127, 0, 0, 1], 1).into(),
            rtt: Duration::ZERO,
            age: Duration::ZERO,
            sequence: Some(sequence),
            acknowledged,
            observed: ([127, 0, 0, 1], 2).into(),
        };
        let now = catalog.sequence();
        assert!(truncation(&catalog, &[]).is_none());
        assert!(truncation(&catalog, &[home(1, now, 3), home(2, now - 1, 1)]).is_none(), "an old list tells nothing");
        let problem = truncation(&catalog, &[home(1, now, 3), home(2, now, 2)]).unwrap();
        assert_eq!(problem.code, "catalog_truncated");
        assert!(problem.message.contains("2 of this leaf's 3 files"), "{}", problem.message);
    }
}
