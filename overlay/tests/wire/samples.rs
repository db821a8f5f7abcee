//! One sample of every message: the values behind the golden bytes. They fill every field, so that a field
//! that moves or changes its type changes the bytes.

use std::{net::SocketAddr, num::NonZeroU16};

use overlay::{
    batch,
    file::{FileEntry, Tags},
    id::{ContentId, HandleSalt, PeerId, QueryId},
    identity::Identity,
    introduction::{Mapping, Nature, Way},
    limits,
    wire::{
        bounded::{Blob, List, Text},
        descriptor::{Descriptor, Endorsement, ShardPrefix, SignedDescriptor, network_tag},
        election::*,
        hello::{Contact, Goodbye, Hello, Refuse, RefuseReason, Situation, Welcome},
        leaf::*,
        mesh::*,
        possession::*,
        search::*,
        transfer::*,
    },
};

fn identity() -> Identity {
    Identity::from_seed([1; 32])
}

fn address() -> SocketAddr {
    "192.0.2.7:7780".parse().unwrap()
}

fn address_v6() -> SocketAddr {
    "[2001:db8::7]:7781".parse().unwrap()
}

fn descriptor() -> SignedDescriptor {
    let descriptor = Descriptor {
        peer: identity().peer_id(),
        network: network_tag("public"),
        address: address(),
        shard: ShardPrefix { bits: 0b101 << 29, length: 3 },
        capacity: 10_000,
        sequence: 300,
        lifetime_s: 7200,
        admission: 299,
        volunteer: true,
    };
    let endorsement = Endorsement::sign(&Identity::from_seed([2; 32]), &descriptor, 35);
    descriptor.sign_endorsed(&identity(), [endorsement])
}

fn local() -> SocketAddr {
    "192.168.0.7:7780".parse().unwrap()
}

fn nature() -> Nature {
    Nature { reachability: Reachability::Natted, mapping: Mapping::Steady }
}

fn side() -> Side {
    Side { address: address(), nature: nature(), local: List::new([local()]) }
}

fn measured() -> Measured {
    Measured { uptime_s: 7_300, bandwidth_kbit: 40_000, loss_ppm: 120, stability: 990 }
}

fn invitation(measured: Measured) -> Invitation {
    Invitation::sign(&identity(), network_tag("public"), &PeerId([8; 32]), measured, 1_800_000_000)
}

fn hello() -> Hello {
    Hello {
        network: Text::new("public"),
        proof: Some([2; 32]),
        agent: Text::new("quictrack/0.1.0"),
        capabilities: 5,
        observed: address(),
        salt: HandleSalt([0xa7; 16]),
        introduction: 77,
        insists: true,
        situation: Situation::Volunteer,
    }
}

fn welcome() -> Welcome {
    Welcome {
        proof: None,
        agent: Text::new("quictrack-ultrapeer/0.1.0"),
        capabilities: 0,
        observed: address_v6(),
        descriptor: Some(descriptor()),
    }
}

fn refuse() -> Refuse {
    let contacts = List::new([Contact { peer: PeerId([11; 32]), address: address_v6() }]);
    let situation = Situation::Homeless;
    Refuse { situation, contacts, ..Refuse::new(RefuseReason::Full, vec![descriptor()]) }
}

fn goodbye() -> Goodbye {
    Goodbye { alternatives: List::new([descriptor(), descriptor()]) }
}

fn members() -> Members {
    let gone = List::new([PeerId([3; 32])]);
    Members { descriptors: List::new([descriptor()]), gone, total: 20, view: 0xfedc_ba98_7654_3210 }
}

fn tags() -> Tags {
    Tags {
        artist: Some("Ada".into()),
        album: Some("Notes".into()),
        title: Some("Überfahrt".into()),
        genre: Some("Folk".into()),
        year: Some(1999),
        track: Some(4),
        bitrate: Some(320),
        duration_s: Some(241),
    }
}

fn hit() -> Hit {
    let peer = HitPeer {
        peer: PeerId([4; 32]),
        homes: List::new([PeerId([5; 32])]),
        reachability: Reachability::Natted,
        free_slots: 3,
        queue: 200,
    };
    Hit {
        content: ContentId([6; 32]),
        size: 1 << 40,
        score: 70_000,
        names: List::new([Text::new("a b.flac"), Text::new("ä.flac")]),
        path: Text::new("Music/x/a b.flac"),
        modified_s: -1,
        tags: tags(),
        sources: 129,
        networks: 128,
        peers: List::new([peer]),
        holders: List::new([Holder { handle: 1, name: Some(1) }, Holder { handle: u64::MAX, name: None }]),
    }
}

/// In the order of their numbers.
pub(crate) fn leaf() -> Vec<LeafMessage> {
    let measured = measured();
    let chunk = ChunkRef { hash: [7; 32], bytes: 70_000, files: 1000 };
    let root = catalog_root([&chunk.hash]);
    let statement = RootStatement { root, files: 1000, sequence: 9, lifetime_s: 86_400, home: PeerId([9; 32]) };
    let mut incomplete = IncompleteSet::default();
    incomplete.insert(Incomplete::HomeSilent);
    let summary = Summary {
        stopped: StopReason::Timeout,
        incomplete,
        ultrapeers_asked: 3,
        ultrapeers_total: 4,
        shards_asked: 1,
        shards_total: 2,
        leaves_covered: 500,
        leaves_total: 70_000,
        messages: 5,
        withheld: 6,
    };
    let search = Search {
        id: QueryId(11),
        target: Target::Query(Text::new("ada notes")),
        limit: 60,
        timeout_ms: 10_000,
        all: true,
    };
    let possession = PossessionAsk { content: ContentId([6; 32]), piece: 300, group: 63 };
    let proof = GroupProof {
        tops: List::new([[11; 32], [12; 32]]),
        pieces: List::new([[13; 32]]),
        groups: List::new([[14; 32]]),
        data: Blob::new(vec![1, 2, 3]).unwrap(),
    };
    vec![
        hello().into(),
        welcome().into(),
        refuse().into(),
        goodbye().into(),
        members().into(),
        CatalogRoot::sign(&identity(), &statement, vec![chunk]).into(),
        CatalogWant { sequence: 9, chunks: List::new([0, 300]) }.into(),
        CatalogPart { sequence: 9, chunk: 1, last: true, data: Blob::new(vec![1, 2, 3]).unwrap() }.into(),
        CatalogAck { sequence: 9, files: 1000 }.into(),
        LeafState { free_slots: 4, queue: 300, reachability: Reachability::Mapped }.into(),
        search.into(),
        Accepted { ultrapeers: 4 }.into(),
        Hits { hits: List::new([hit()]) }.into(),
        summary.into(),
        Introduce {
            target: PeerId([8; 32]),
            homes: List::new([PeerId([9; 32])]),
            way: Some(Way::Push),
            token: 401,
            nature: nature(),
            local: List::new([local()]),
        }
        .into(),
        Introduced::At(Box::new(Whereabouts {
            addresses: List::new([address(), address_v6()]),
            nature: nature(),
            local: List::new([local()]),
            observed: address_v6(),
            relays: List::new([descriptor()]),
        }))
        .into(),
        Introduction {
            session: 400,
            peer: PeerId([10; 32]),
            way: Some(Way::Punch),
            token: 401,
            side: side(),
            observed: address_v6(),
        }
        .into(),
        IntroductionReply { session: 400, accept: true, nature: nature(), local: List::new([local()]) }.into(),
        Ping { token: 500 }.into(),
        Pong { token: 500 }.into(),
        Allowance { interval_us: 2_000_000, burst: 10 }.into(),
        MembersAsk { most: 100 }.into(),
        ViewAsk { token: 9, known: Some(0xfedc_ba98_7654_3210) }.into(),
        View { token: 9, total: 20, view: 0xfedc_ba98_7654_3210, sketch: Blob::new(vec![5; limits::SKETCH_BYTES]) }
            .into(),
        Volunteers { leaves: List::new([Contact { peer: PeerId([11; 32]), address: address() }]) }.into(),
        Volunteer { willing: true }.into(),
        Wishes { wishes: List::new([Wish { number: 300, query: Text::new("ada notes") }]) }.into(),
        WishHits { number: 300, hits: List::new([hit()]) }.into(),
        Appraisal {
            reached: Some(true),
            measured,
            has_place: true,
            demand: true,
            invited: false,
            invitation: Some(invitation(measured)),
        }
        .into(),
        possession.into(),
        Possession { ask: possession, answer: PossessionAnswer::Proven(Box::new(proof)) }.into(),
        Complaint { source: PeerId([4; 32]), content: ContentId([6; 32]), homes: List::new([PeerId([5; 32])]) }.into(),
        DialBackAsk { port: NonZeroU16::new(50_000) }.into(),
        DialledBack { reached: Some(true) }.into(),
        RelayOffer { token: 401, peer: PeerId([10; 32]) }.into(),
        RelayOpen { token: 401, peer: PeerId([8; 32]) }.into(),
        RelayReady { refused: Some(RelayRefusal::Quota) }.into(),
        Carried { packet: Blob::new(vec![7; 9]).unwrap() }.into(),
    ]
}

/// In the order of their numbers.
pub(crate) fn mesh() -> Vec<MeshMessage> {
    let list = AttachedList { sequence: 9, place: 0xa5, chunks: List::new([ChunkName(1), ChunkName(u64::MAX)]) };
    let came = AttachmentChange { handle: 1 << 60, list: Some(list) };
    let left = AttachmentChange { handle: 2, list: None };
    let caught_up = Some(AttachmentSum { leaves: 3, sum: 1 << 50 });
    let mut incomplete = IncompleteSet::default();
    incomplete.insert(Incomplete::WorkCap);
    let prefix = ShardPrefix { bits: 0b101 << 29, length: 3 };
    let name = DigestName { handle: 1 << 60, chunk: ChunkName(300) };
    let key = |byte| ContentKey([byte; 8]);
    let holding = HoldingChange { handle: 1 << 60, added: List::new([key(1)]), removed: List::new([key(2), key(3)]) };
    let told = ToldHolder { handle: 1 << 60, home: PeerId([5; 32]) };
    let query = |scope| Query {
        id: QueryId(12),
        target: Target::Content(ContentId([6; 32])),
        limit: 1000,
        all: true,
        scope,
        known: List::new([ContentKey([7; 8])]),
    };
    let done = QueryDone {
        id: QueryId(12),
        more: true,
        incomplete,
        withheld: 1,
        ultrapeers_asked: 2,
        messages: 3,
        leaves_covered: 400,
        leaves_total: 500,
    };
    let claim = Claim { peer: PeerId([3; 32]), sequence: 301 };
    let ask = ProofAsk { handle: 1 << 60, sequence: 9, chunk: Some(ChunkName(300)) };
    let statement =
        RootStatement { root: [7; 32], files: 1000, sequence: 9, lifetime_s: 86_400, home: PeerId([9; 32]) };
    let proof = ListProof {
        leaf: identity().peer_id(),
        salt: HandleSalt([0xa7; 16]),
        signed: SignedRoot::sign(&identity(), &statement),
        chunks: List::new([[7; 32]]),
    };
    let wish = WishChange { name: 1 << 60, query: Some(Text::new("ada notes")) };
    let unwish = WishChange { name: 2, query: None };
    let invitation = invitation(measured());
    vec![
        hello().into(),
        welcome().into(),
        refuse().into(),
        goodbye().into(),
        News { members: List::new([Aged { descriptor: descriptor(), age_s: 400 }]), gone: List::new([claim]) }.into(),
        Attachments { reset: true, caught_up, changes: List::new([came, left]) }.into(),
        query(Scope::Shard(prefix)).into(),
        QueryHits {
            id: QueryId(12),
            hits: List::new([hit()]),
            known: List::new([KnownContent { key: ContentKey([7; 8]), sources: 300 }]),
        }
        .into(),
        done.into(),
        MeshIntroduce {
            session: 13,
            asker: PeerId([4; 32]),
            target: PeerId([8; 32]),
            way: None,
            token: 401,
            side: side(),
        }
        .into(),
        MeshIntroduced { session: 13, answer: Ok(Box::new(Agreed { side: side(), relay: Some(descriptor()) })) }.into(),
        Follow { prefix }.into(),
        DigestWant { digests: List::new([name]) }.into(),
        DigestPart { name, bytes: 70_000, last: true, data: Blob::new(vec![1, 2, 3]).unwrap() }.into(),
        QueryCancel { id: QueryId(12) }.into(),
        Probe { token: 600 }.into(),
        ProbeReply { token: 600, load: Load { leaves: 700, capacity: 10_000 } }.into(),
        ProbeFor { token: 601, target: PeerId([8; 32]) }.into(),
        ProbeResult { token: 601, target: PeerId([8; 32]), reached: true }.into(),
        Suspect { suspects: List::new([claim]) }.into(),
        Sync { digest: 0xfedc_ba98_7654_3210 }.into(),
        SyncBuckets { buckets: List::new((0..256).map(|bucket| bucket << 32)) }.into(),
        SyncWant { buckets: [0b101; 32] }.into(),
        Holdings { reset: true, sum: 1 << 50, changes: List::new([holding]) }.into(),
        HoldingsAsk.into(),
        QueryHolders { id: QueryId(12), is_settled: true, holders: List::new([told]) }.into(),
        ask.into(),
        Proof { ask, answer: ProofAnswer::Proven(proof) }.into(),
        ProofPart { name, bytes: 70_000, last: true, data: Blob::new(vec![1, 2, 3]).unwrap() }.into(),
        MeshWishes { reset: true, whole: true, lifetime_s: 600, changes: List::new([wish, unwish]) }.into(),
        MeshWishHits { name: 1 << 60, hits: List::new([hit()]) }.into(),
        Apply { descriptor: descriptor(), invitations: List::new([invitation]), meeting: true }.into(),
        Verdict { admission: 299, answer: VerdictAnswer::Refused(Hurdle::Prefix, 600) }.into(),
        Meeting { total: 7, lowest: PeerId([3; 32]), voters: List::new([descriptor()]) }.into(),
        SourceComplaint { source: PeerId([4; 32]), content: ContentId([6; 32]) }.into(),
    ]
}

/// In the order of their numbers.
pub(crate) fn transfer() -> Vec<TransferMessage> {
    let content = ContentId([6; 32]);
    let entry =
        FileEntry { path: "Music/a.flac".into(), content, size: 1 << 33, modified_s: 1_700_000_000, tags: tags() };
    let folder = FolderEntry { path: Text::new("Music/x"), files: 12, bytes: 1 << 41 };
    let after = Cursor::File(Text::new("Music/a.flac"));
    vec![
        hello().into(),
        welcome().into(),
        refuse().into(),
        goodbye().into(),
        Open { content, homes: List::new([PeerId([3; 32])]) }.into(),
        NotHeld { reason: DenyReason::Changed }.into(),
        Opened { size: 1 << 33, complete: true, tops: List::new([[11; 32], [12; 32]]) }.into(),
        Have { first: 1024, bits: Blob::new(vec![0xf0, 0x0f]).unwrap() }.into(),
        Queued { position: 300 }.into(),
        Granted { turn_bytes: 1 << 28 }.into(),
        Revoked { position: 2 }.into(),
        Want { content, first: 300, count: 4 }.into(),
        Pieces { first: 300, count: 4, bytes: 4 << 20 }.into(),
        Denied { reason: DenyReason::Busy }.into(),
        WantSegment { content, segment: 7 }.into(),
        Segment { pieces: List::new([[13; 32]]) }.into(),
        WantGroups { content, piece: 8000 }.into(),
        Groups { groups: List::new([[14; 32]]) }.into(),
        Browse { path: Text::new("Music"), recursive: true, after: after.clone(), limit: 500 }.into(),
        Page { folders: List::new([folder]), entries: List::new([entry]), next: Some(after) }.into(),
        Others { others: List::new([Other { peer: PeerId([15; 32]), homes: List::new([PeerId([3; 32])]) }]) }.into(),
        Suggest { first: 300, count: 4 }.into(),
        Appetite { wants: false }.into(),
        WantPart { content, piece: 8000, first: 63, count: 1 }.into(),
        Spoiled { content, piece: 8000 }.into(),
        WantFiles { contents: List::new([content, ContentId([7; 32])]) }.into(),
        Files { files: List::new([Blob::new(vec![1, 2, 3]), None]) }.into(),
    ]
}

/// Inputs of the decoders that take no frames, by their place in the corpus.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let content = ContentId([9; 32]);
    let file = |path: &str| FileEntry { path: path.into(), content, size: 1 << 33, modified_s: -1, tags: tags() };
    let bare = |path: &str| FileEntry { tags: Tags::default(), ..file(path) };
    let files = [FileEntry::unlisted(content, 5), file("Music/a.flac"), bare("Music/b/c.txt")];
    let chunk = batch::encode_chunk(&files);
    let packed = batch::cut(&chunk).next().and_then(Result::ok).unwrap_or_default();
    let signed = postcard::to_stdvec(&descriptor()).unwrap_or_default();
    let plain = descriptor().open().ok().and_then(|plain| postcard::to_stdvec(&plain).ok()).unwrap_or_default();
    let every = "abc* \"a phrase\" -live artist:x ext:flac,mp3 kind:audio size:1MB..2GiB year:>=1999 duration:1h2m modified:<30d";
    vec![
        ("chunk/files", chunk),
        ("chunk/packed", packed),
        ("descriptor/signed", signed),
        ("descriptor/plain", plain),
        ("query/every", every.into()),
        ("query/dates", "東京 modified:2024-02-29..2026-01-31 \u{201c}a\u{201d} Re:Zero AC/DC".into()),
    ]
}
