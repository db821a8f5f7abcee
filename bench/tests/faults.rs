//! A real network on loopback, and nodes that misbehave in it: whatever they do, searches find everything and are
//! complete once they are gone, say why they are not while they are there, and every node lives on.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not as it must be")]

use std::{future::Future, path::PathBuf, time::Duration};

use bench::{
    bed::Bed,
    fault::{Fault, Outcome, Report, admits, play, serves},
};
use leaf::api::types::{SearchRequest, Summary};
use overlay::{
    limits,
    transport::{CloseCode, CloseReason, DialError, Event},
    wire::hello::RefuseReason,
};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use ultrapeer::driver::Snapshot;

/// Only against hanging for ever.
const PATIENCE: Duration = Duration::from_mins(1);
/// Leaves that share one file each; one more searches.
const LEAVES: usize = 4;

/// A network, and the folders that it shares.
struct Net {
    bed: Bed,
    _files: TempDir,
}

/// A fault under way.
struct Misbehaving {
    task: JoinHandle<anyhow::Result<Report>>,
    until: CancellationToken,
}

impl Net {
    async fn new(ultrapeers: usize) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut shares = Vec::new();
        for leaf in 0..LEAVES {
            let share = files.path().join(format!("share{leaf}"));
            std::fs::create_dir(&share).unwrap();
            std::fs::write(share.join(format!("the treasure number{leaf}.txt")), format!("gold {leaf}")).unwrap();
            shares.push(vec![share]);
        }
        shares.push(Vec::<PathBuf>::new());
        Self { bed: Bed::start(ultrapeers, shares).await.unwrap(), _files: files }
    }

    /// Searches for the file of every leaf: how many were found, and the summary.
    async fn search(&self) -> (usize, Summary) {
        let searches = self.bed.leaves().last().unwrap().searches();
        let request = SearchRequest { query: "treasure".into(), ..SearchRequest::default() };
        let id = searches.start(request).await.unwrap();
        let (hits, summary) = timeout(PATIENCE, searches.finished(&id)).await.expect("a search hangs").unwrap();
        assert!(searches.remove(&id).await);
        (hits.len(), summary)
    }

    /// Searches until all is found and said to be complete. A search never says so and misses something.
    async fn is_complete(&self, when: &str) {
        self.search_until(when, |_, summary| summary.complete).await;
    }

    async fn search_until(&self, when: &str, holds: impl Fn(usize, &Summary) -> bool) {
        let mut last = None;
        let searching = async {
            loop {
                let (hits, summary) = self.search().await;
                assert!(!summary.complete || hits == LEAVES, "{when}: {hits} hits and complete: {summary:?}");
                if holds(hits, &summary) {
                    return;
                }
                last = Some(summary);
            }
        };
        assert!(timeout(PATIENCE, searching).await.is_ok(), "{when}: {last:?}");
    }

    /// Looks at the first ultrapeer until `holds`.
    async fn eventually(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) {
        self.all_eventually(what, |snapshots| holds(&snapshots[0])).await;
    }

    /// Looks at all ultrapeers until `holds`.
    async fn all_eventually(&self, what: &str, holds: impl Fn(&[Snapshot]) -> bool) {
        let mut last = Vec::new();
        let looking = async {
            loop {
                let snapshots = self.snapshots().await;
                if holds(&snapshots) {
                    return;
                }
                let seen = |now: Snapshot| (now.refused, now.digests, now.audits, now.ultrapeers, now.queries);
                last = snapshots.into_iter().map(seen).collect();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(timeout(PATIENCE, looking).await.is_ok(), "{what}: {last:?}");
    }

    async fn snapshots(&self) -> Vec<Snapshot> {
        let mut snapshots = Vec::new();
        for (ultrapeer, _) in self.bed.ultrapeers() {
            snapshots.push(ultrapeer.snapshot().await.unwrap());
        }
        snapshots
    }

    fn begin(&self, fault: Fault) -> Misbehaving {
        let (until, network) = (CancellationToken::new(), self.bed.network());
        let (over, address) = (until.clone(), self.bed.ultrapeers()[0].1.local_address());
        let task = tokio::spawn(async move { play(fault, network, address, &over).await });
        Misbehaving { task, until }
    }

    /// All of it: while it misbehaves `seen` must come about; then the network must be as before.
    async fn suffers(&self, fault: Fault, seen: impl Future<Output = ()>) -> Report {
        let misbehaving = self.begin(fault);
        seen.await;
        misbehaving.until.cancel();
        self.recovers(misbehaving).await
    }

    /// The same of one that ends by itself.
    async fn suffers_to_its_end(&self, fault: Fault) -> Report {
        self.recovers(self.begin(fault)).await
    }

    async fn recovers(&self, misbehaving: Misbehaving) -> Report {
        let report = timeout(PATIENCE, misbehaving.task).await.expect("a fault has an end").unwrap().unwrap();
        let after = format!("after {report}");
        self.eventually(&after, |snapshot| snapshot.ultrapeers as usize == self.bed.ultrapeers().len()).await;
        self.is_complete(&after).await;
        serves(self.bed.network(), self.bed.ultrapeers()[0].1.local_address()).await.expect(&after);
        assert_eq!(self.bed.panics(), 0, "{after}");
        report
    }
}

/// All were closed with this. Who stands still for a tenth of a second sends more after that, and hears in one breath that it is
/// closed and that nobody there knows of the connection any more (RFC 9000 10.3), of which QUIC tells it the latter; what
/// the victim counts tells why.
fn closed_with(report: &Report, code: CloseCode) {
    let expected = |reason| matches!(reason, CloseReason::Reset) || reason == CloseReason::Remote(code);
    let is_expected = |outcome: &Outcome| matches!(outcome, Outcome::Closed(reason) if expected(reason.clone()));
    assert!(report.outcomes.iter().all(|(_, outcome)| is_expected(outcome)), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_messages_end_their_connection_and_nothing_else() {
    let net = Net::new(1).await;
    let events = |event| net.bed.ultrapeers()[0].1.stats().count(event);
    let stall = net.begin(Fault::Stall);

    // These end by themselves: the victim hangs up.
    for fault in [Fault::Garbage, Fault::Oversized] {
        let before = events(Event::MalformedFrame);
        let misbehaving = net.begin(fault);
        let report = timeout(PATIENCE, misbehaving.task).await.unwrap().unwrap().unwrap();
        closed_with(&report, CloseCode::Violation);
        assert_eq!(events(Event::MalformedFrame) - before, report.outcomes.len() as u64, "{report}");
        net.is_complete("after bytes that are no messages").await;
    }
    let report = timeout(PATIENCE, net.begin(Fault::OtherVersion).task).await.unwrap().unwrap().unwrap();
    let errors: Vec<_> = report.outcomes.iter().map(|(_, outcome)| outcome).collect();
    let [Outcome::Refused(older), Outcome::Refused(newer)] = errors[..] else { panic!("{report}") };
    assert!(matches!(older, DialError::PeerOlder { .. }) && matches!(newer, DialError::PeerNewer { .. }), "{report}");

    // Half a frame is waited for, and then the connection ends.
    let report =
        timeout(PATIENCE, stall.task).await.expect("half a frame is not waited for for ever").unwrap().unwrap();
    closed_with(&report, CloseCode::Silent);
    assert_eq!(events(Event::StalledFrame), report.outcomes.len() as u64);
    net.is_complete("after half a frame").await;
    serves(net.bed.network(), net.bed.ultrapeers()[0].1.local_address()).await.unwrap();
    assert_eq!(net.bed.panics(), 0);
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_about_ultrapeers_are_counted_and_change_nothing() {
    let net = Net::new(3).await;
    let refused = async || net.bed.ultrapeers()[0].0.snapshot().await.unwrap().refused;
    let before = refused().await;
    let seen = net.eventually("another network", |now| now.refused.other_network > before.other_network);
    let report = net.suffers(Fault::OtherNetwork, seen).await;
    assert!(matches!(report.outcomes[0].1, Outcome::Refused(DialError::WrongNetwork { .. })), "{report}");

    let before = refused().await;
    let seen = net.eventually("forged ones", |now| {
        now.refused.forged >= before.forged + 2 && now.refused.malformed > before.malformed
    });
    net.suffers(Fault::Forged, seen).await;

    let before = refused().await;
    let seen = net.eventually("old ones", |now| now.refused.outdated >= before.outdated + 2);
    net.suffers(Fault::Replayed, seen).await;

    let before = refused().await;
    let seen = net.eventually("those whose time is over", |now| now.refused.expired >= before.expired + 3);
    net.suffers(Fault::Expired, seen).await;

    let before = refused().await;
    let seen = net.eventually("lifetimes of no clock", |now| now.refused.malformed >= before.malformed + 2);
    net.suffers(Fault::Clock, seen).await;

    // Everybody is said to be gone: nobody leaves the view, and its speaker runs out of credit.
    let before = refused().await;
    let seen = async {
        net.eventually("claims without credit", |now| now.refused.claims > before.claims).await;
        net.is_complete("while everybody is said to be gone").await;
    };
    net.suffers(Fault::GoneLiar, seen).await;
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_of_strangers_and_of_former_times_let_nobody_in() {
    let net = Net::new(3).await;
    // Of all: who hears from another first that it withdrew once more has no look at the votes.
    let unendorsed = |now: &[Snapshot]| now.iter().map(|now| now.refused.unendorsed).sum::<u64>();
    for (fault, count) in [(Fault::StrangerVotes, 2), (Fault::ReplayedVotes, 1)] {
        let before = unendorsed(&net.snapshots().await);
        let seen = async {
            net.all_eventually("too few votes", |now| unendorsed(now) >= before + count).await;
            // At most the one that spread them.
            net.eventually("no more ultrapeers", |now| now.ultrapeers <= 4).await;
            net.is_complete("while strangers say that they serve").await;
        };
        net.suffers(fault, seen).await;
    }
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_only_those_who_vote_is_soon_not_let_in_any_more() {
    let net = Net::new(3).await;
    let report = net.suffers_to_its_end(Fault::SilentMember).await;
    assert_eq!(report.outcomes[0].1, Outcome::Ignored, "{report}");
    assert_eq!(report.notes, [format!("it was let in {} times", limits::SHORT_LIVES)]);
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_candidates_that_cannot_be_reached_leave_room_for_others() {
    let net = Net::new(3).await;
    let victim = net.bed.ultrapeers()[0].1.local_address();
    let before = net.bed.ultrapeers()[0].0.snapshot().await.unwrap().ballots;
    let seen = async {
        net.eventually("refused candidates", |now| now.ballots.limited > before.limited).await;
        admits(net.bed.network(), victim).await.unwrap();
        net.is_complete("while many want to be let in").await;
    };
    net.suffers(Fault::CandidateFlood, seen).await;
    let now = net.bed.ultrapeers()[0].0.snapshot().await.unwrap();
    assert!(now.ballots.dialled > before.dialled);
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies_about_leaves_are_told_in_the_summary_and_end_with_the_liar() {
    let net = Net::new(3).await;
    let says =
        |reason: &'static str| move |_, summary: &Summary| summary.incomplete_reasons.iter().any(|said| said == reason);

    // A log whose sums are wrong is never current.
    let report = net.suffers(Fault::LogGap, net.search_until("sums are wrong", says("digest_lag"))).await;
    assert!(report.heard["Follow"] >= 2, "it is asked anew: {report}");

    // Leaves that nobody can ask for: all that is there is found, and the summary says what is not known.
    let seen =
        net.search_until("a home is silent", |hits, summary| hits == LEAVES && says("home_silent")(hits, summary));
    net.suffers(Fault::LyingHome, seen).await;

    // Its leaves are asked for, as their digests never come; it says that they have nothing.
    let failed = async || net.bed.ultrapeers()[0].0.snapshot().await.unwrap().digests.failed;
    let before = failed().await;
    let seen = async {
        net.eventually("digests that do not come", |now| now.digests.failed > before).await;
        net.is_complete("while digests do not come").await;
    };
    net.suffers(Fault::DigestMute, seen).await;

    let before = failed().await;
    let seen = async {
        net.eventually("digests that are none", |now| now.digests.failed >= before + 5).await;
        net.is_complete("while digests are none").await;
    };
    net.suffers(Fault::DigestBomb, seen).await;

    // Whose homes are all here loses nothing by a home that claims to have newer lists.
    let seen = async {
        net.eventually("lists are claimed", |now| now.digests.leaves >= LEAVES).await;
        net.is_complete("while others' leaves are claimed").await;
    };
    net.suffers(Fault::Usurper, seen).await;
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lies_about_leaves_and_is_asked_for_proof_is_distrusted() {
    let net = Net::new(3).await;
    let failed = async || net.bed.ultrapeers()[0].0.snapshot().await.unwrap().audits.failed;
    let strikes = limits::AUDIT_STRIKES as u64;

    // Its leaves are nowhere else: what they have is not known any more, and that is said.
    let before = failed().await;
    let seen = async {
        net.eventually("wrong digests", |now| {
            now.audits.failed >= before + strikes && now.audits.distrusted == 1 && now.digests.uncovered > 0
        })
        .await;
        net.search_until("a liar's leaves cannot be searched", |hits, summary| {
            hits == LEAVES && summary.incomplete_reasons.iter().any(|reason| reason == "home_silent")
        })
        .await;
    };
    net.suffers(Fault::LyingDigest, seen).await;

    // Others have the leaves whose lists it copies.
    let before = failed().await;
    let seen = async {
        net.eventually("copied lists", |now| now.audits.failed >= before + strikes && now.audits.distrusted == 2).await;
        net.is_complete("while lists are copied").await;
    };
    let report = net.suffers(Fault::CopiedList, seen).await;
    assert!(report.heard["ProofAsk"] >= strikes, "{report}");
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_that_lists_what_it_does_not_have_is_dropped_and_turned_away() {
    let net = Net::new(1).await;
    let strikes = limits::POSSESSION_STRIKES as u64;
    // It ends when its home has had enough. Until then others may have found what it lists.
    let misbehaving = net.begin(Fault::MadeUpList);
    let report = timeout(PATIENCE, misbehaving.task).await.expect("it is dropped").unwrap().unwrap();
    let [(_, first), (_, again)] = &report.outcomes[..] else { panic!("{report}") };
    assert_eq!(*first, Outcome::Closed(CloseReason::Remote(CloseCode::Banned)), "{report}");
    assert!(matches!(again, Outcome::Refused(DialError::Refused { reason: RefuseReason::Banned, .. })), "{report}");
    assert_eq!(report.heard["PossessionAsk"], strikes, "{report}");
    let stats = net.bed.ultrapeers()[0].0.snapshot().await.unwrap().possessions;
    assert_eq!((stats.failed, stats.dropped), (strikes, 1));
    let searches = net.bed.leaves().last().unwrap().searches();
    let request = SearchRequest { query: "word1".into(), ..SearchRequest::default() };
    let id = searches.start(request).await.unwrap();
    let (hits, summary) = timeout(PATIENCE, searches.finished(&id)).await.expect("a search hangs").unwrap();
    assert!(hits.is_empty() && summary.complete, "its list is withdrawn");

    // Honest leaves prove what they are asked for, and stay.
    net.eventually("honest leaves prove what they list", |now| now.possessions.proven >= LEAVES as u64).await;
    net.is_complete("after a liar").await;
    let stats = net.bed.ultrapeers()[0].0.snapshot().await.unwrap().possessions;
    assert_eq!((stats.failed, stats.dropped), (strikes, 1));
    assert_eq!(net.bed.panics(), 0);
    net.bed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_anybody_may_ask_or_claim_harms_nobody_else() {
    let net = Net::new(3).await;
    let queries = net.bed.ultrapeers()[0].0.snapshot().await.unwrap().queries;
    let seen = async {
        net.eventually("queries are answered", |now| now.queries > queries + 1_000).await;
        serves(net.bed.network(), net.bed.ultrapeers()[0].1.local_address()).await.unwrap();
        net.is_complete("while queries pour in").await;
    };
    net.suffers(Fault::QueryFlood, seen).await;

    let report = net.suffers(Fault::HardQuery, net.is_complete("while queries are hard")).await;
    let violation = Outcome::Closed(CloseReason::Remote(CloseCode::Violation));
    assert!(report.outcomes[..2].iter().all(|(_, outcome)| *outcome == violation), "{report}");
    assert!(report.notes.iter().any(|note| note.contains("Summary")), "{report}");

    // No more than a home may have is believed.
    let most = limits::LEAVES_OF_HOME as u64;
    let seen = net.eventually("leaves are claimed", |now| now.known_leaves >= most);
    net.suffers(Fault::LogFlood, seen).await;
    net.bed.stop().await;
}

#[tokio::test]
async fn faults_stay_on_this_machine() {
    for address in ["192.0.2.1:7780", "[2001:db8::1]:7780", "0.0.0.0:7780"] {
        let refused = play(Fault::Garbage, "public", address.parse().unwrap(), &CancellationToken::new()).await;
        assert!(refused.unwrap_err().to_string().contains("not on this machine"), "{address}");
    }
}

/// Who was not introduced is relayed to nobody; who wants nothing keeps no place from others for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_relayed_to_nobody_and_keep_no_place() {
    let net = Net::new(1).await;
    let misbehaving = net.begin(Fault::Guests);
    let report = timeout(PATIENCE, misbehaving.task).await.expect("guests are sent away").unwrap().unwrap();
    assert_eq!(report.outcomes.len(), 4, "{report}");
    for (what, outcome) in &report.outcomes {
        // The word of the end may be lost; then it is told that nobody knows it there.
        let ended = matches!(outcome, Outcome::Closed(CloseReason::Remote(_) | CloseReason::Reset));
        assert!(ended, "{what}: {report}");
    }
    assert_eq!(report.heard["RelayReady"], 1, "{report}");
    let snapshot = net.bed.ultrapeers()[0].0.snapshot().await.unwrap();
    assert_eq!(snapshot.attached.len(), LEAVES + 1, "a guest is no leaf");
    net.is_complete("after guests").await;
    assert_eq!(net.bed.panics(), 0);
    net.bed.stop().await;
}
