//! A leaf and an ultrapeer inside this process: what they leave behind when they end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use leaf::{
    api::types::SearchRequest,
    founding::Willing,
    node::{Node, Start},
    role,
    store::{ShareSpec, SharesConfig},
    transfer::serve::UploadLimits,
};
use overlay::{
    address::JoinAddress,
    config::Origin,
    drive::{Clock, Tasks},
    election::Regime,
    identity::Identity,
    metrics::{self, Build},
    transport::{Arrival, Arrivals, BindMode, CloseCode, Endpoint, Settings},
    wire::hello::RefuseReason,
};
use tokio::time::timeout;
use ultrapeer::{
    driver::{Service, Start as UltrapeerStart},
    metrics::RoleReason,
    ultrapeer::{Retirement, Terms},
};

/// Only against hanging for ever.
const PATIENCE: Duration = Duration::from_secs(30);

fn bind() -> (Endpoint, Arrivals, Arc<Identity>) {
    let identity = Arc::new(Identity::generate().unwrap());
    let settings = Settings { network: "test".to_owned(), secret: None, agent: "test".to_owned() };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (endpoint, arrivals) = Endpoint::bind(address, BindMode::Given, &identity, settings).unwrap();
    (endpoint, arrivals, identity)
}

/// An ultrapeer that is a network of its own.
fn found(tasks: &Tasks) -> (Service, Endpoint) {
    let (endpoint, mut arrivals, identity) = bind();
    let start = UltrapeerStart {
        network: "test".to_owned(),
        settings: ultrapeer::leaves::Settings::default(),
        terms: Terms::operated("test", false),
        join: Vec::new(),
        founder: true,
        expects_names: false,
        advertise: None,
        remembered: Vec::new(),
        contacts: Vec::new(),
    };
    let service = Service::start(endpoint.clone(), identity, Clock::new(), start, tasks).unwrap();
    let receiver = service.clone();
    tasks.spawn("arrivals", async move {
        while let Some(arrival) = arrivals.next().await {
            match arrival {
                Arrival::Leaf(offer) => receiver.leaf(offer),
                Arrival::Mesh(offer) => receiver.mesh(offer),
                Arrival::Transfer(offer) => offer.refuse(RefuseReason::NotServed, Vec::new()),
            }
        }
    });
    (service, endpoint)
}

/// What a leaf is configured to share.
fn sharing(data: &Path, share: &Path) -> SharesConfig {
    SharesConfig {
        shares: vec![ShareSpec { path: share.to_owned(), origin: Origin::CommandLine }],
        exclude: Vec::new(),
        rescan_interval: Duration::from_hours(1),
        hash_threads: 1,
        downloads: data.join("downloads"),
        share_downloads: false,
    }
}

fn join(data: &Path, share: &Path, through: &Endpoint, tasks: &Tasks) -> Node {
    join_as(data, share, through, role::Settings::default(), tasks)
}

fn join_as(data: &Path, share: &Path, through: &Endpoint, role: role::Settings, tasks: &Tasks) -> Node {
    let (endpoint, arrivals, identity) = bind();
    let address = through.local_address();
    fs::create_dir_all(data).unwrap();
    let start = Start {
        network: "test".to_owned(),
        regime: Regime::of("test", false),
        join: vec![JoinAddress { peer: None, host: address.ip().to_string(), port: address.port() }],
        seeks: false,
        shares: sharing(data, share),
        data: data.to_owned(),
        uploads: UploadLimits { slots: 4, rate: None, quota: None },
        download_rate: None,
        role,
    };
    Node::start(endpoint, arrivals, identity, Clock::new(), start, tasks).unwrap()
}

/// Waits until a home's index has all of the leaf's list.
async fn acknowledged(node: &Node) {
    let sequence = node.shares().settled(None).await;
    let mut changes = node.network().watch();
    while !node.network().homes().iter().any(|home| home.sequence.is_some_and(|have| have >= sequence)) {
        changes.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_was_stopped_leaves_no_task_and_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    fs::create_dir(&share).unwrap();
    fs::write(share.join("a needle.txt"), "sharp").unwrap();
    let (network_tasks, leaf_tasks) = (Tasks::new(), Tasks::new());
    let (service, home) = found(&network_tasks);
    let node = join(&folder.path().join("leaf"), &share, &home, &leaf_tasks);
    timeout(PATIENCE, acknowledged(&node)).await.expect("its list is indexed");
    let request = SearchRequest { query: "needle".to_owned(), ..SearchRequest::default() };
    let search = node.searches().start(request).await.unwrap();
    let finished = timeout(PATIENCE, node.searches().finished(&search)).await.expect("the search ends");
    let (hits, summary) = finished.unwrap();
    assert_eq!((hits.len(), summary.complete), (1, true));
    assert!(!leaf_tasks.is_empty() && node.endpoint().connections() > 0);

    timeout(PATIENCE, node.stop()).await.expect("it stops");
    node.endpoint().close(CloseCode::Shutdown);
    timeout(PATIENCE, node.endpoint().wait_idle()).await.expect("its connections end");
    assert_eq!(leaf_tasks.shutdown(PATIENCE).await, 0);
    assert_eq!((leaf_tasks.len(), leaf_tasks.panics()), (0, 0));
    assert_eq!((node.endpoint().connections(), node.endpoint().tasks()), (0, 0));

    drop(service);
    network_tasks.cancel();
    home.close(CloseCode::Shutdown);
    timeout(PATIENCE, home.wait_idle()).await.expect("its connections end");
    assert_eq!(network_tasks.shutdown(PATIENCE).await, 0);
    assert_eq!((network_tasks.panics(), home.connections(), home.tasks()), (0, 0, 0));
}

#[tokio::test]
async fn a_folder_that_is_shared_while_settings_change_stays_shared() {
    let folder = tempfile::tempdir().unwrap();
    let [share, more, data] = ["share", "more", "leaf"].map(|name| folder.path().join(name));
    fs::create_dir(&share).unwrap();
    fs::create_dir(&more).unwrap();
    let (network_tasks, leaf_tasks) = (Tasks::new(), Tasks::new());
    let (_service, home) = found(&network_tasks);
    let node = join(&data, &share, &home, &leaf_tasks);
    // The folder is known to the task before it is on record.
    let (added, configured) = tokio::join!(node.add_share(more), node.configure_shares(sharing(&data, &share)));
    added.unwrap();
    configured.unwrap();
    let names: Vec<String> = node.shares().list().into_iter().map(|share| share.name).collect();
    assert_eq!(names, ["more", "share"]);
    timeout(PATIENCE, node.stop()).await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_volunteer_serves_no_longer_is_counted() {
    let build = Build { version: "0.1.0", revision: "unknown", role: metrics::Role::Leaf };
    let counters = metrics::install(build, &[leaf::metrics::FAMILIES, ultrapeer::metrics::FAMILIES]).unwrap();
    let (network_tasks, leaf_tasks) = (Tasks::new(), Tasks::new());
    let (_service, home) = found(&network_tasks);
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    fs::create_dir(&share).unwrap();
    for (why, word) in
        [(Retirement::Unreachable, "unreachable"), (Retirement::Distrusted, "audit"), (Retirement::Surplus, "surplus")]
    {
        let settings = role::Settings { willing: Willing::Always, ..role::Settings::default() };
        let node = join_as(&folder.path().join(word), &share, &home, settings, &leaf_tasks);
        let serves = async |wanted: bool| {
            let mut changes = node.role().watch();
            timeout(PATIENCE, changes.wait_for(|serves| *serves == wanted)).await.expect(word).unwrap();
        };
        serves(true).await;
        node.role().step_down(RoleReason::from(why)).await;
        serves(false).await;
        let series = format!("quictrack_role_changes_total{{to=\"leaf\",reason=\"{word}\"}} 1");
        let text = counters.render();
        assert!(text.lines().any(|line| line == series), "no {series}: {text}");
        timeout(PATIENCE, node.stop()).await.expect("it stops");
    }
    let offered = "quictrack_role_changes_total{to=\"ultrapeer\",reason=\"operator\"} 3";
    assert!(counters.render().lines().any(|line| line == offered), "each offered itself");
}
