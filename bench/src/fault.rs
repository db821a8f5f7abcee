//! A node that misbehaves, from outside: an ultrapeer or a leaf that breaks the rules against a running ultrapeer, and
//! what that one did about it.
//!
//! ```text
//!   raw       bytes that are no messages, on connections that end there
//!   conduct   an ultrapeer that is let in (hello, welcome, its own descriptor as news), and then lies
//!   made      leaves that such a one made itself
//!   leaf      a leaf that lists what it does not have
//!   guests    guests that want to be relayed to whom they were not introduced
//!   node      what such a one must do rightly, or it would not be kept
//! ```
//!
//! Invariants: only addresses of loopback are dialled; every fault is bounded in what it sends and ends after
//! [`LONGEST`]; each uses keys made for it, and leaves nothing behind.

mod conduct;
mod guests;
mod leaf;
mod made;
mod node;
mod raw;

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use overlay::{
    limits,
    transport::{CloseReason, DialError},
    wire::mesh::{MeshMessage, Probe},
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use self::{
    conduct::Conduct,
    node::{Event, Node},
    raw::Victim,
};

/// Nodes that ask to be let in at once.
const CANDIDATES: usize = 100;
/// Time after which every fault ends: somewhat longer than the victim waits for the rest of a frame, or until it has asked
/// a leaf for some of its files.
pub const LONGEST: Duration = Duration::from_secs(limits::FRAME_TIMEOUT.as_secs() + 10);
/// Time between two rounds of what is said again and again.
const ROUND: Duration = Duration::from_millis(50);
/// Time in which an honest ultrapeer must be answered.
const HONEST: Duration = Duration::from_secs(20);

/// How it misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// Greets with another network's name, and spreads a descriptor of another network
    OtherNetwork,
    /// Speaks another major version
    OtherVersion,
    /// Sends random bytes in frames and streams
    Garbage,
    /// Sends frames that are longer than they may be
    Oversized,
    /// Sends half a frame and falls silent
    Stall,
    /// Spreads descriptors that their peers did not sign, and one that nobody endorsed
    Forged,
    /// Spreads old descriptors after newer ones
    Replayed,
    /// Spreads descriptors whose time is over
    Expired,
    /// Claims again and again that everybody is suspect and gone
    GoneLiar,
    /// Tells of its leaves with sums that are never right
    LogGap,
    /// Claims twice as many leaves as a home may have
    LogFlood,
    /// Sends digests that are none: too long, too short, unordered, not compressed, or much larger than they seem
    DigestBomb,
    /// Tells of leaves and never sends their digests
    DigestMute,
    /// Asks 20,000 queries as fast as it can
    QueryFlood,
    /// Asks for 10,000 terms, and for the most frequent words only
    HardQuery,
    /// Spreads descriptors of clocks that are an hour off
    Clock,
    /// Tells of leaves that do not exist and never answers a query
    LyingHome,
    /// Claims to have newer lists of others' leaves, and finds nothing in them
    Usurper,
    /// Sends digests of its leaves with other words than their files have
    LyingDigest,
    /// Copies the lists that others tell of, and finds nothing in them
    CopiedList,
    /// Spreads descriptors that strangers endorsed, their peers themselves, and one ultrapeer only
    StrangerVotes,
    /// Withdraws, and returns with the votes that it had before
    ReplayedVotes,
    /// Is let in and answers nobody any more, again and again under one key
    SilentMember,
    /// Asks to be let in as a hundred nodes at an address where nobody answers
    CandidateFlood,
    /// Lists files, as a leaf, that it does not have
    MadeUpList,
    /// Comes as a guest to be relayed, to whom it was not introduced, or to nobody
    Guests,
}

impl Fault {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Time after which a person has seen enough of it.
    pub fn patience(self) -> Duration {
        match self {
            Self::Stall | Self::MadeUpList => LONGEST,
            Self::Guests => limits::REQUEST_TIMEOUT * 2,
            _ => Duration::from_secs(5),
        }
    }
}

/// How the victim ended an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It kept the connection.
    Kept,
    /// It ended the connection.
    Closed(CloseReason),
    /// It did not let it in.
    Refused(DialError),
    /// It linked it, and never voted for it.
    Ignored,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("kept the connection"),
            Self::Closed(reason) => write!(f, "ended it: {reason}"),
            Self::Refused(error) => write!(f, "did not let it in: {error}"),
            Self::Ignored => f.write_str("did not vote for it"),
        }
    }
}

/// What the victim did.
#[derive(Clone, Debug)]
pub struct Report {
    /// About what.
    pub fault: Fault,
    /// Messages, or pieces that are none, that were sent.
    pub sent: u64,
    /// Messages of the victim and of others that it brought, by name.
    pub heard: BTreeMap<&'static str, u64>,
    /// What was tried, and how the victim ended it.
    pub outcomes: Vec<(String, Outcome)>,
    /// Other things worth knowing.
    pub notes: Vec<String>,
}

impl Report {
    fn new(fault: Fault) -> Self {
        Self { fault, sent: 0, heard: BTreeMap::new(), outcomes: Vec::new(), notes: Vec::new() }
    }

    /// Another one about the same.
    fn empty(&self) -> Self {
        Self::new(self.fault)
    }

    fn absorb(&mut self, other: Self) {
        self.sent += other.sent;
        self.outcomes.extend(other.outcomes);
        self.notes.extend(other.notes);
    }

    fn outcome(&mut self, what: &str, outcome: Outcome) {
        self.outcomes.push((what.to_owned(), outcome));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: sent {}", self.fault.name(), self.sent)?;
        let heard: Vec<_> = self.heard.iter().map(|(name, count)| format!("{name} {count}")).collect();
        if !heard.is_empty() {
            write!(f, "; heard {}", heard.join(", "))?;
        }
        for (what, outcome) in &self.outcomes {
            write!(f, "\n  {what}: it {outcome}")?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        Ok(())
    }
}

/// Misbehaves towards the ultrapeer at `victim` until `until` is cancelled, the victim had enough, or [`LONGEST`] is
/// over.
///
/// # Errors
/// The address is not of loopback, nobody answers there, or this machine has no sockets left.
pub async fn play(fault: Fault, network: &str, victim: SocketAddr, until: &CancellationToken) -> Result<Report> {
    ensure!(
        victim.ip().to_canonical().is_loopback(),
        "{victim} is not on this machine: faults are for networks of one's own on loopback"
    );
    let until = until.child_token();
    let ended = until.clone();
    let clock = tokio::spawn(async move {
        tokio::time::sleep(LONGEST).await;
        ended.cancel();
    });
    let mut report = Report::new(fault);
    let raw = Victim { address: victim, network, until: &until };
    let result = match fault {
        Fault::OtherVersion => raw.other_version(&mut report).await,
        Fault::Garbage => raw.garbage(&mut report).await,
        Fault::Oversized => raw.oversized(&mut report).await,
        Fault::Stall => raw.stall(&mut report).await,
        Fault::MadeUpList => raw.made_up_list(&mut report).await,
        Fault::Guests => raw.guests(&mut report).await,
        Fault::OtherNetwork => match raw.other_network(&mut report).await {
            Ok(()) => lie(&raw, &mut report).await,
            error => error,
        },
        Fault::SilentMember => silent(&raw, &mut report).await,
        Fault::CandidateFlood => flood(&raw, &mut report).await,
        Fault::HardQuery => match raw.hard_query(&mut report).await {
            Ok(()) => lie(&raw, &mut report).await,
            error => error,
        },
        _ => lie(&raw, &mut report).await,
    };
    clock.abort();
    result.map(|()| report)
}

/// Is let in as an ultrapeer, and lies.
async fn lie(victim: &Victim<'_>, report: &mut Report) -> Result<()> {
    let (mut node, mut conduct) = (Node::new(victim.network)?, Conduct::new(report.fault));
    if let Err(error) = node.enter(victim.address).await? {
        report.outcome("a hello", Outcome::Refused(error));
        return Ok(());
    }
    for link in node.links() {
        let said = conduct.begin(&mut node, link)?;
        node.send(link, said).await;
    }
    let mut rounds = interval_at(Instant::now() + ROUND, ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The victim's link is the first.
    let mut first = node.links().first().copied();
    let outcome = loop {
        let event = tokio::select! {
            event = node.next() => event.context("the node lives as long as this")?,
            _ = rounds.tick() => {
                let said = conduct.repeat(&node);
                for link in node.links() {
                    node.send(link, said.iter().cloned()).await;
                }
                continue;
            }
            () = victim.until.cancelled() => break Outcome::Kept,
        };
        match event {
            Event::Up(link) => {
                let link = node.open(link);
                first.get_or_insert(link);
                let said = conduct.begin(&mut node, link)?;
                node.send(link, said).await;
            }
            Event::Heard(link, message) => {
                let said = conduct.answer(&node, &message).unwrap_or_else(|| node.honest(&message));
                node.send(link, said).await;
            }
            Event::Down(link, reason) => {
                if node.forget(link) && first == Some(link) {
                    break Outcome::Closed(reason);
                }
            }
        }
    };
    report.outcome("an ultrapeer that was let in", outcome);
    report.sent += node.sent;
    report.heard.append(&mut node.heard);
    // Those who lie about leaves are gone without a word, as if they had been killed.
    if matches!(report.fault, Fault::LyingHome | Fault::DigestMute) {
        node.vanish();
    } else {
        node.leave();
    }
    Ok(())
}

/// Is let in, answers nobody until it is held for gone, and comes back, until nobody lets it in.
async fn silent(victim: &Victim<'_>, report: &mut Report) -> Result<()> {
    let identity = node::fresh()?;
    let mut lives = 0;
    let outcome = loop {
        let mut node = Node::of(identity.clone(), node::anywhere(), victim.network)?;
        let entering = async { node.enter(victim.address).await };
        tokio::select! {
            () = victim.until.cancelled() => break Outcome::Kept,
            entered = entering => match entered {
                Ok(Ok(())) => {}
                Ok(Err(error)) => break Outcome::Refused(error),
                // Nobody votes for it any more.
                Err(_) => break Outcome::Ignored,
            },
        }
        lives += 1;
        let introduction = node.introduction();
        for link in node.links() {
            node.send(link, introduction.iter().cloned()).await;
        }
        tokio::select! {
            () = victim.until.cancelled() => break Outcome::Kept,
            () = node.is_held_for_gone() => {}
        }
        report.sent += node.sent;
    };
    report.notes.push(format!("it was let in {lives} times"));
    report.outcome("one that falls silent", outcome);
    Ok(())
}

/// Asks to be let in as many nodes at once, of another address of this machine where nobody answers.
async fn flood(victim: &Victim<'_>, report: &mut Report) -> Result<()> {
    let mut nodes = Vec::new();
    for _ in 0..CANDIDATES {
        let mut node = Node::of(node::fresh()?, node::elsewhere(), victim.network)?;
        if let Err(error) = node.dial(victim.address).await {
            report.outcome("a hello", Outcome::Refused(error));
            return Ok(());
        }
        while let Some(event) = node.next().await {
            if let Event::Up(link) = event {
                let link = node.open(link);
                node.apply_from(link, node::nowhere()).await;
                break;
            }
        }
        report.sent += node.sent;
        nodes.push(node);
    }
    victim.until.cancelled().await;
    report.outcome("many candidates", Outcome::Kept);
    Ok(())
}

/// Whether an honest node is let in by the ultrapeer at `victim`.
///
/// # Errors
/// It is not, in time.
pub async fn admits(network: &str, victim: SocketAddr) -> Result<()> {
    let mut node = Node::new(network)?;
    node.enter(victim).await??;
    node.leave();
    Ok(())
}

/// Whether the ultrapeer at `victim` still lets an honest ultrapeer in, tells it who it is, and answers its probe.
///
/// # Errors
/// It does not, in time.
pub async fn serves(network: &str, victim: SocketAddr) -> Result<()> {
    let mut node = Node::new(network)?;
    node.dial(victim).await?;
    let answered = async {
        loop {
            match node.next().await.context("the node lives as long as this")? {
                Event::Up(link) => {
                    let link = node.open(link);
                    let mut said = node.introduction();
                    said.push(Probe { token: 7 }.into());
                    node.send(link, said).await;
                }
                Event::Heard(_, message) if matches!(&*message, MeshMessage::ProbeReply(reply) if reply.token == 7) => {
                    return Ok(());
                }
                Event::Heard(link, message) => {
                    let said = node.honest(&message);
                    node.send(link, said).await;
                }
                Event::Down(_, reason) => return Err(reason.into()),
            }
        }
    };
    let answered = timeout(HONEST, answered).await.context("an honest ultrapeer gets no answer")?;
    node.leave();
    answered
}
