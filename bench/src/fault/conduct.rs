//! What a misbehaving ultrapeer says once it is let in: where it differs from an honest one.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use overlay::{
    batch,
    id::{PeerId, QueryId},
    limits,
    wire::{
        bounded::{Blob, List, Text},
        decode_exact,
        descriptor::{Descriptor, Endorsement, ShardPrefix, SignedDescriptor, network_tag},
        encode_into,
        mesh::{
            AttachedList, AttachmentChange, AttachmentSum, Attachments, ChunkName, Claim, DigestName, DigestPart,
            MeshMessage, News, Query, Scope, Suspect, SyncWant,
        },
        search::Target,
    },
};
use ultrapeer::index::Segment;

use super::{
    Fault,
    made::{MadeLeaf, file},
    node::{self, LIFETIME_S, Node, aged, log, news},
};

/// Words of every list of files.
pub(super) const FREQUENT: &str = "the of and a in to mp3 txt jpg";
/// Leaves that a flood claims: twice as many as a home may have.
const FLOOD_LEAVES: u64 = 2 * limits::LEAVES_OF_HOME as u64;
/// Queries of a flood, in all and at once.
const FLOOD_QUERIES: u64 = 20_000;
const FLOOD_QUERIES_AT_ONCE: u64 = 1_000;
/// Leaves that a home with wrong digests made itself: one wrong digest of a leaf is enough to be asked no more of it.
const MADE_LEAVES: u64 = 20;
/// Chunks of each: twelve of all of them are audited.
const MADE_CHUNKS: u64 = 12 * limits::AUDIT_DIGESTS as u64 / MADE_LEAVES;
/// Times that claims are repeated.
const CLAIM_ROUNDS: u64 = 100;
/// Sequences of an hour: they grow by 2^16 a second.
const HOUR: u64 = 3_600 << 16;

/// See the module text.
#[derive(Debug)]
pub(super) struct Conduct {
    fault: Fault,
    /// Ultrapeers that it heard of, with their sequences.
    known: BTreeMap<PeerId, u64>,
    /// Lists of others' leaves that it claims.
    claimed: BTreeMap<u64, AttachedList>,
    /// Leaves of its own making, by handle.
    made: BTreeMap<u64, MadeLeaf>,
    rounds: u64,
}

impl Conduct {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault, known: BTreeMap::new(), claimed: BTreeMap::new(), made: BTreeMap::new(), rounds: 0 }
    }

    /// What it says when a link is up.
    pub(super) fn begin(&mut self, node: &mut Node, link: u64) -> Result<Vec<MeshMessage>> {
        let mut said = node.introduction();
        match self.fault {
            Fault::OtherNetwork => {
                let stranger = node::fresh()?;
                let elsewhere =
                    Descriptor { network: network_tag("elsewhere"), ..node.descriptor(&stranger, node.sequence) };
                said.push(news([aged(elsewhere.sign(&stranger), 0)]));
            }
            Fault::Forged => {
                let (stranger, endorsed) = (node::fresh()?, node::fresh()?);
                let victim = node.peer_at(link).context("a link that is up")?;
                let of_stranger = node.descriptor(&stranger, node.sequence);
                let of_victim = Descriptor { peer: victim, ..node.descriptor(&stranger, u64::MAX >> 1) };
                let nowhere = Descriptor { address: ([127, 0, 0, 1], 0).into(), ..of_stranger };
                let genuine = node.descriptor(&endorsed, node.sequence).sign(&endorsed);
                said.push(news([
                    aged(of_stranger.sign(&node.identity), 0),
                    aged(of_victim.sign(&node.identity), 0),
                    aged(nowhere.sign(&stranger), 0),
                    aged(endorsed_by_nobody(&genuine)?, 0),
                ]));
            }
            Fault::Replayed => {
                let old = node.describe();
                node.sequence += 5;
                said.extend([news([aged(node.describe(), 0)]), news([aged(old, 0)])]);
                let stranger = node::fresh()?;
                for sequence in [9, 7] {
                    said.push(news([aged(node.descriptor(&stranger, sequence).sign(&stranger), 0)]));
                }
            }
            Fault::Expired => {
                let stranger = node::fresh()?;
                let of_stranger = node.descriptor(&stranger, node.sequence);
                let brief = Descriptor { lifetime_s: 60, ..of_stranger };
                said.push(news([
                    aged(of_stranger.sign(&stranger), LIFETIME_S),
                    aged(of_stranger.sign(&stranger), u32::MAX),
                    aged(brief.sign(&stranger), 61),
                ]));
            }
            Fault::Clock => {
                let now = node.sequence;
                for sequence in [now + HOUR, now - HOUR] {
                    let stranger = node::fresh()?;
                    let of_stranger = node.descriptor(&stranger, sequence);
                    said.push(news([aged(of_stranger.sign(&stranger), 0), aged(of_stranger.sign(&stranger), 3_600)]));
                    let endless = Descriptor { lifetime_s: limits::DESCRIPTOR_LIFETIME_MAX_S + 3_600, ..of_stranger };
                    said.push(news([aged(endless.sign(&stranger), 0)]));
                }
                // Its own clock goes forward an hour, and is set right again.
                let right = node.describe();
                node.sequence = now + HOUR;
                said.extend([news([aged(node.describe(), 0)]), news([aged(right, 0)])]);
            }
            Fault::StrangerVotes => {
                let [one, two, alone, own] = [node::fresh()?, node::fresh()?, node::fresh()?, node::fresh()?];
                let of = |identity| node.descriptor(identity, node.sequence);
                let vote = |by, on| Endorsement::sign(by, &of(on), 1);
                said.push(news([
                    aged(of(&alone).sign_endorsed(&alone, [vote(&one, &alone), vote(&two, &alone)]), 0),
                    aged(of(&own).sign_endorsed(&own, [vote(&own, &own), vote(&node.identity, &own)]), 0),
                ]));
            }
            Fault::ReplayedVotes => {
                let (farewell, back) = node.withdraw_and_return();
                said.extend([news([aged(farewell, 0)]), news([aged(back, 0)])]);
            }
            Fault::GoneLiar => said.push(SyncWant { buckets: [0xff; limits::SYNC_BUCKETS / 8] }.into()),
            Fault::LyingDigest | Fault::CopiedList => {
                let leaves = (0..MADE_LEAVES).map(|leaf| MadeLeaf::new(node, leaf, MADE_CHUNKS));
                self.made = leaves.map(|leaf| (leaf.handle(), leaf)).collect();
            }
            Fault::LogGap => said.push(log(false, [], AttachmentSum { leaves: 3, sum: 3 })),
            Fault::HardQuery => {
                let letters: Vec<_> =
                    (0..limits::QUERY_BYTES / 2).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
                let letters = letters.iter().fold(String::new(), |all, letter| format!("{all}{letter} "));
                let scopes = [Scope::Home, Scope::Shard(ShardPrefix::ALL)];
                let texts = [letters.as_str(), FREQUENT];
                let both = texts.into_iter().flat_map(|text| scopes.iter().map(move |scope| (text, scope.clone())));
                said.extend(both.zip(0..).map(|((text, scope), id)| query(id, text, limits::FORWARD_LIMIT, scope)));
            }
            _ => {}
        }
        Ok(said)
    }

    /// What it answers; `None`: what an honest node does.
    pub(super) fn answer(&mut self, node: &Node, message: &MeshMessage) -> Option<Vec<MeshMessage>> {
        if let MeshMessage::News(News { members, .. }) = message {
            let opened = members.iter().filter_map(|member| member.descriptor.read().ok());
            self.known.extend(opened.map(|descriptor| (descriptor.peer, descriptor.sequence)));
        }
        match (self.fault, message) {
            (Fault::LogGap, MeshMessage::Follow(_)) => {
                Some(vec![log(true, claims(node, 3), AttachmentSum { leaves: 3, sum: 3 })])
            }
            (Fault::LogFlood, MeshMessage::Follow(_)) => Some(flood(node)),
            (Fault::DigestBomb | Fault::DigestMute | Fault::LyingHome, MeshMessage::Follow(_)) => {
                let claims = claims(node, BOMBS);
                let sum = sum_of(&claims);
                Some(vec![log(true, claims, sum)])
            }
            (Fault::LyingDigest, MeshMessage::Follow(_)) => {
                let claims: Vec<_> = self.made.values().map(MadeLeaf::claim).collect();
                let sum = sum_of(&claims);
                // As many in each frame as it may have bytes.
                let mut frames: Vec<_> = claims.chunks(4).map(in_part).collect();
                frames.push(log(false, [], sum));
                Some(frames)
            }
            // None of them is a word of the file.
            (Fault::LyingDigest, MeshMessage::DigestWant(want)) => {
                Some(want.digests.iter().flat_map(|name| parts(*name, &digest(u64::MAX), 0)).collect())
            }
            (Fault::LyingDigest, MeshMessage::ProofAsk(ask)) => {
                self.made.get(&ask.handle).map(|leaf| leaf.prove(node.peer(), *ask))
            }
            (Fault::CopiedList, MeshMessage::Attachments(frame)) => {
                let theirs = frame.changes.iter().filter_map(|change| Some((change.handle, change.list.clone()?)));
                self.claimed.extend(theirs);
                Some(Vec::new())
            }
            // The best that it can prove is a leaf of its own.
            (Fault::CopiedList, MeshMessage::ProofAsk(ask)) => {
                self.made.values().next().map(|leaf| leaf.prove(node.peer(), *ask))
            }
            (Fault::DigestBomb, MeshMessage::DigestWant(want)) => {
                Some(want.digests.iter().flat_map(|name| bomb(node, *name)).collect())
            }
            (Fault::DigestMute | Fault::LyingHome, MeshMessage::DigestWant(_))
            | (Fault::LyingHome, MeshMessage::Query(_)) => Some(Vec::new()),
            (Fault::Usurper, MeshMessage::Follow(_)) => Some(self.claims_of_others(true)),
            (Fault::Usurper, MeshMessage::Attachments(frame)) => {
                let theirs = frame.changes.iter().filter_map(|change| Some((change.handle, change.list.as_ref()?)));
                let before = self.claimed.len();
                for (handle, list) in theirs {
                    let chunks = List::new([ChunkName(number(node, handle))]);
                    self.claimed.insert(handle, AttachedList { sequence: u64::MAX, place: list.place, chunks });
                }
                Some(if self.claimed.len() > before { self.claims_of_others(false) } else { Vec::new() })
            }
            (Fault::Usurper, MeshMessage::DigestWant(want)) => {
                Some(want.digests.iter().flat_map(|name| parts(*name, &digest(name.chunk.0), 0)).collect())
            }
            _ => None,
        }
    }

    /// What it says to all, now and then.
    pub(super) fn repeat(&mut self, node: &Node) -> Vec<MeshMessage> {
        self.rounds += 1;
        match self.fault {
            Fault::GoneLiar if self.rounds <= CLAIM_ROUNDS => {
                let others = self.known.iter().filter(|(peer, _)| **peer != node.peer());
                let claims: Vec<_> =
                    others.map(|(peer, sequence)| Claim { peer: *peer, sequence: *sequence }).collect();
                let suspects = Suspect { suspects: List::new(claims.iter().copied()) };
                let gone = News { members: List::default(), gone: List::new(claims) };
                vec![suspects.into(), gone.into()]
            }
            Fault::QueryFlood if self.rounds <= FLOOD_QUERIES / FLOOD_QUERIES_AT_ONCE => {
                let first = self.rounds * FLOOD_QUERIES_AT_ONCE;
                let scope = |id| if id % 2 == 0 { Scope::Home } else { Scope::Shard(ShardPrefix::ALL) };
                (first..first + FLOOD_QUERIES_AT_ONCE).map(|id| query(id, FREQUENT, 10, scope(id))).collect()
            }
            Fault::CopiedList => self.claims_of_others(true),
            _ => Vec::new(),
        }
    }

    /// Others' leaves, as if they were attached here.
    fn claims_of_others(&self, reset: bool) -> Vec<MeshMessage> {
        let change =
            |(handle, list): (&u64, &AttachedList)| AttachmentChange { handle: *handle, list: Some(list.clone()) };
        let changes: Vec<_> = self.claimed.iter().map(change).take(limits::ATTACHMENTS_PER_FRAME).collect();
        let sum = sum_of(&changes);
        vec![log(reset, changes, sum)]
    }
}

/// Kinds of digests that are none.
const BOMBS: u64 = 5;

/// A number that is this node's own, the same each time.
fn number(node: &Node, at: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.peer().0).update(&at.to_le_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Leaves that do not exist, with one chunk each, whose name tells which leaf it is.
fn claims(node: &Node, leaves: u64) -> Vec<AttachmentChange> {
    (0..leaves).map(|leaf| claim(node, leaf)).collect()
}

fn claim(node: &Node, leaf: u64) -> AttachmentChange {
    let list = AttachedList { sequence: 1, place: leaf as u8, chunks: List::new([ChunkName(leaf)]) };
    AttachmentChange { handle: number(node, leaf), list: Some(list) }
}

fn sum_of(changes: &[AttachmentChange]) -> AttachmentSum {
    let lists = changes.iter().filter_map(|change| Some((change.handle, change.list.as_ref()?)));
    lists.fold(AttachmentSum::default(), |all, (handle, list)| AttachmentSum {
        leaves: all.leaves + 1,
        sum: all.sum ^ AttachedList::sum(handle, list.sequence, &list.chunks),
    })
}

/// The beginning of a log, or more of it.
fn in_part(changes: &[AttachmentChange]) -> MeshMessage {
    Attachments { reset: false, caught_up: None, changes: List::new(changes.iter().cloned()) }.into()
}

/// The log of a home with more leaves than there can be.
fn flood(node: &Node) -> Vec<MeshMessage> {
    let (mut frames, mut sum) = (Vec::new(), AttachmentSum::default());
    for first in (0..FLOOD_LEAVES).step_by(limits::ATTACHMENTS_PER_FRAME) {
        let changes: Vec<_> =
            (first..first + limits::ATTACHMENTS_PER_FRAME as u64).map(|leaf| claim(node, leaf)).collect();
        let more = sum_of(&changes);
        sum = AttachmentSum { leaves: sum.leaves + more.leaves, sum: sum.sum ^ more.sum };
        frames.push(Attachments { reset: first == 0, caught_up: None, changes: List::new(changes) });
    }
    if let Some(last) = frames.last_mut() {
        last.caught_up = Some(sum);
    }
    frames.into_iter().map(MeshMessage::from).collect()
}

/// The digest of a made-up chunk.
fn digest(word: u64) -> Vec<u8> {
    Segment::build(&[file(word)]).map(|segment| segment.digest()).unwrap_or_default()
}

/// A digest whose parts claim that it has `more` bytes more.
fn parts(name: DigestName, digest: &[u8], more: u32) -> Vec<MeshMessage> {
    let blobs: Vec<_> = batch::cut(digest).filter_map(|part| part.ok().and_then(Blob::new)).collect();
    let count = blobs.len();
    let part = |(at, data)| DigestPart { name, bytes: digest.len() as u32 + more, last: at + 1 == count, data }.into();
    blobs.into_iter().enumerate().map(part).collect()
}

/// What is no digest, of another kind for each leaf.
fn bomb(node: &Node, name: DigestName) -> Vec<MeshMessage> {
    let raw = |bytes: Option<Vec<u8>>, claimed: usize| {
        let data = bytes.and_then(Blob::new).unwrap_or_default();
        vec![DigestPart { name, bytes: claimed as u32, last: true, data }.into()]
    };
    match name.chunk.0 % BOMBS {
        // Much more than it says, from few bytes.
        0 => raw(zstd::bulk::compress(&vec![0; 32 << 20], 19).ok(), limits::DIGEST_WIRE_BYTES),
        // Longer than it is.
        1 => parts(name, &digest(1), 1),
        2 => parts(name, &words(&[(0, b"b"), (0, b"a")]), 0),
        // No zstd.
        3 => raw(Some(node.peer().0.to_vec()), 32),
        // Each begins with all of a very long one: written out they would fill the memory.
        _ => {
            let long = vec![b'a'; limits::DIGEST_BYTES / 16];
            let tails: Vec<_> = (b'b'..=b'z').map(|last| [last]).collect();
            let more = tails.iter().map(|tail| (long.len(), &tail[..]));
            parts(name, &words(&[(0, &long[..])].into_iter().chain(more).collect::<Vec<_>>()), 0)
        }
    }
}

/// A digest of words of one file, each given by how many bytes it has in common with the one before, and its rest.
fn words(given: &[(usize, &[u8])]) -> Vec<u8> {
    let mut out = vec![1];
    write_number(&mut out, given.len());
    let genuine = digest(1);
    for (shared, rest) in given {
        write_number(&mut out, *shared);
        write_number(&mut out, rest.len());
        out.extend_from_slice(rest);
        // The only file, as a genuine digest ends with it.
        out.extend_from_slice(&genuine[genuine.len().saturating_sub(2)..]);
    }
    out
}

fn write_number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// That descriptor with an endorsement by one who is no ultrapeer, and whose signature is not right.
fn endorsed_by_nobody(signed: &SignedDescriptor) -> Result<SignedDescriptor> {
    let nobody = node::fresh()?;
    let endorsement =
        Endorsement { by: nobody.peer_id().first_bytes(), score: 1, signature: nobody.sign(b"nothing", b"nothing") };
    let mut bytes = Vec::new();
    encode_into(signed, &mut bytes);
    // It ends with the number of endorsements, which was none.
    bytes.pop();
    bytes.push(1);
    encode_into(&endorsement, &mut bytes);
    Ok(decode_exact("SignedDescriptor", &bytes)?)
}

fn query(id: u64, text: &str, limit: u32, scope: Scope) -> MeshMessage {
    Query { id: QueryId(id), target: Target::Query(Text::new(text)), limit, all: false, scope, known: List::default() }
        .into()
}
