//! The families that leaves and ultrapeers have in common.

use std::sync::OnceLock;

use metrics::Counter;
use rustc_hash::FxHashMap;

use super::{Counters, Family, Gauges, Histograms, Label, SECONDS, tally::Tally};
use crate::wire::{self, Message};

crate::labels! {
    /// What a node does for the network.
    pub enum Role as "role" {
        /// Shares, searches, transfers.
        Leaf = "leaf",
        /// Indexes and answers searches.
        Ultrapeer = "ultrapeer",
    }

    /// How other nodes can reach this one.
    pub enum Reachability as "state" {
        /// At its own address.
        Public = "public",
        /// Through a mapped port.
        Mapped = "mapped",
        /// Only with help.
        Natted = "natted",
        /// Nobody has tried yet.
        Unknown = "unknown",
    }

    /// Seen from this node.
    pub enum Direction as "direction" {
        /// From the other side.
        In = "in",
        /// From this side.
        Out = "out",
    }

    /// What a connection is for.
    pub enum ConnectionKind as "kind" {
        /// Between leaf and ultrapeer.
        Leaf = "leaf",
        /// Between ultrapeers.
        Mesh = "mesh",
        /// Between leaves.
        Transfer = "transfer",
    }

    /// Why a connection ended.
    pub enum CloseReason as "reason" {
        /// Silence.
        Idle = "idle",
        /// This node had no use for it any more.
        Local = "local",
        /// The other node had no use for it any more.
        Remote = "remote",
        /// The other node forgot it.
        Reset = "reset",
        /// The versions do not fit.
        Version = "version",
        /// Wrong network, wrong secret, banned.
        Auth = "auth",
        /// One side has no room.
        Overload = "overload",
        /// One side stops.
        Shutdown = "shutdown",
    }

    /// How a handshake ended.
    pub enum HandshakeResult as "result" {
        /// Connected.
        Ok = "ok",
        /// Nothing came in time.
        Timeout = "timeout",
        /// The other side said no.
        Refused = "refused",
        /// The address must be proved first.
        Retried = "retried",
        /// Dropped without an answer.
        Ignored = "ignored",
        /// The cryptography failed.
        Tls = "tls",
        /// The versions do not fit.
        Version = "version",
        /// A limit of this node.
        Limit = "limit",
    }

    /// What bytes are sent for.
    pub enum ByteClass as "class" {
        /// Beginning, ending and keeping up what is between nodes.
        Control = "control",
        /// Searches, wishes and their hits.
        Query = "query",
        /// File lists.
        Catalog = "catalog",
        /// What ultrapeers tell each other of the lists.
        Digest = "digest",
        /// Contents.
        Transfer = "transfer",
        /// What is passed on for others.
        Relay = "relay",
    }

    /// What is wrong with a message.
    pub enum MessageError as "reason" {
        /// It cannot be read.
        Decode = "decode",
        /// It is longer than its type may be.
        Oversize = "oversize",
        /// It does not belong there.
        Unexpected = "unexpected",
        /// Its signature is wrong.
        Signature = "signature",
    }

    /// A bounded queue.
    pub enum Queue as "queue" {
        /// Control messages to send.
        Control = "control",
        /// Hits to send.
        Hits = "hits",
        /// Queries to send or to answer.
        Queries = "queries",
        /// Digests to send.
        Digests = "digests",
        /// File lists to index.
        Catalog = "catalog",
        /// Uploads that wait for a slot.
        Upload = "upload",
        /// Events for followers of the local HTTP.
        Events = "events",
    }

    /// What was held back because it came too often.
    pub enum LimitedAction as "action" {
        /// A connection.
        Connect = "connect",
        /// A handshake.
        Handshake = "handshake",
        /// A search.
        Query = "query",
        /// A change of a file list.
        Catalog = "catalog",
        /// The wish to reach a leaf.
        Introduction = "introduction",
        /// A relayed connection.
        Relay = "relay",
        /// The wish to be dialled back.
        Dialback = "dialback",
    }

    /// What a ban keeps out.
    pub enum BanScope as "scope" {
        /// A node that is not known as an ultrapeer.
        Leaf = "leaf",
        /// An ultrapeer.
        Ultrapeer = "ultrapeer",
        /// A range of addresses.
        Prefix = "prefix",
    }

    /// Why somebody is banned.
    pub enum BanReason as "reason" {
        /// The operator of this node said so, by a command or in a list.
        Operator = "operator",
        /// It broke the protocol.
        Protocol = "protocol",
        /// It sent contents that are not what they should be.
        Corrupt = "corrupt",
        /// It failed too many audits.
        Audit = "audit",
        /// It did far more often what it may do seldom.
        Flood = "flood",
    }

    /// Where an ultrapeer's address came from.
    pub enum BootstrapSource as "source" {
        /// Remembered from earlier.
        Cache = "cache",
        /// Given by the user.
        Config = "config",
        /// A name's addresses.
        Dns = "dns",
        /// The local network.
        Lan = "lan",
        /// The public hash table.
        Dht = "dht",
        /// Another node.
        Peer = "peer",
    }

    /// What came of it.
    pub enum BootstrapResult as "result" {
        /// An ultrapeer.
        Ok = "ok",
        /// No address.
        Empty = "empty",
        /// The other side said no.
        Refused = "refused",
        /// No answer.
        Timeout = "timeout",
        /// A node of another network.
        WrongNetwork = "wrong_network",
        /// A node that has another secret.
        WrongSecret = "wrong_secret",
        /// A node of another version.
        Version = "version",
    }

    /// What is believed of an ultrapeer.
    pub enum KnownState as "state" {
        /// It answers.
        Alive = "alive",
        /// It did not answer lately.
        Suspect = "suspect",
        /// It is remembered from earlier.
        Cached = "cached",
    }

    /// Where a panic happened.
    pub enum Task as "task" {
        /// The driver of a connection.
        Connection = "connection",
        /// The driver of a stream.
        Stream = "stream",
        /// The scan of the shares.
        Scan = "scan",
        /// The hashing of files.
        Hash = "hash",
        /// The local HTTP.
        Api = "api",
        /// Elsewhere.
        Other = "other",
    }
}

/// Upper bounds for round trips: loopback to a satellite with a full queue.
const ROUND_TRIP_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

crate::families! {
    /// Whether `/readyz` says yes.
    pub static READY: Gauges<()> = "quictrack_ready", "1 while the node is in the network and answers.";
    /// Whether the node is leaving.
    pub static DRAINING: Gauges<()> = "quictrack_draining", "1 while the node is leaving in order.";
    /// The role: 1 for one, 0 for the others.
    pub static ROLE: Gauges<Role> = "quictrack_role", "1 for the role that the node has now.";
    /// The reachability: 1 for one, 0 for the others.
    pub static REACHABILITY: Gauges<Reachability> = "quictrack_reachability", "1 for the way in which others reach the node.";
    /// Open connections. Use [`OpenConnection`].
    static CONNECTIONS: Gauges<(ConnectionKind, Direction)> = "quictrack_connections", "Open QUIC connections.";
    /// Connections opened. Use [`OpenConnection`].
    static CONNECTIONS_OPENED: Counters<(ConnectionKind, Direction)> =
        "quictrack_connections_opened_total", "QUIC connections that were established.";
    /// Connections ended. Use [`OpenConnection`].
    static CONNECTIONS_CLOSED: Counters<(ConnectionKind, CloseReason)> =
        "quictrack_connections_closed_total", "Established QUIC connections that ended, by reason.";
    /// Handshakes by outcome.
    pub static HANDSHAKES: Counters<(Direction, HandshakeResult)> =
        "quictrack_handshakes_total", "QUIC handshakes by outcome.";
    /// Time of successful handshakes, up to the welcome.
    pub static HANDSHAKE_DURATION: Histograms<Direction> =
        "quictrack_handshake_duration_seconds", "Time of successful handshakes up to the welcome.", SECONDS;
    /// Round trips, as QUIC estimates them.
    pub static RTT: Histograms<ConnectionKind> =
        "quictrack_rtt_seconds", "Round trips as QUIC estimates them, sampled per connection.", ROUND_TRIP_SECONDS;
    /// Bytes of UDP payloads.
    pub(super) static UDP_BYTES: Counters<Direction> =
        "quictrack_udp_bytes_total", "Bytes of the UDP payloads of all connections.";
    /// UDP packets.
    pub(super) static UDP_DATAGRAMS: Counters<Direction> =
        "quictrack_udp_datagrams_total", "UDP datagrams of all connections.";
    /// QUIC packets sent.
    pub(super) static SENT_PACKETS: Counters<ConnectionKind> =
        "quictrack_quic_sent_packets_total", "QUIC packets that were sent.";
    /// QUIC packets lost.
    pub(super) static LOST_PACKETS: Counters<ConnectionKind> =
        "quictrack_quic_lost_packets_total", "QUIC packets that were sent and taken for lost.";
    /// Times that QUIC slowed down.
    pub(super) static CONGESTION_EVENTS: Counters<ConnectionKind> =
        "quictrack_quic_congestion_events_total", "Times that QUIC sent less because packets were lost or marked.";
    /// Messages sent and received.
    pub static MESSAGES: Messages = "quictrack_messages_total", "Protocol messages by type and direction.";
    /// Bytes of the protocol.
    pub static PROTOCOL_BYTES: Counters<(ByteClass, Direction)> =
        "quictrack_protocol_bytes_total", "Bytes of messages and contents, without what QUIC adds, by what they are for.";
    /// Messages that were refused.
    pub static MESSAGE_ERRORS: Counters<MessageError> =
        "quictrack_message_errors_total", "Messages that were refused, by what is wrong with them.";
    /// Items in a queue.
    pub static QUEUE_LENGTH: Gauges<Queue> =
        "quictrack_queue_length", "Items that wait in a queue; of several of one kind, in the fullest.";
    /// Room of a queue.
    pub static QUEUE_CAPACITY: Gauges<Queue> = "quictrack_queue_capacity", "Items that a queue takes.";
    /// Items that found a queue full.
    pub static QUEUE_DROPPED: Counters<Queue> =
        "quictrack_queue_dropped_total", "Items that were dropped because a queue was full; lists of leaves, because they did not come.";
    /// What came too often.
    pub static RATE_LIMITED: Counters<LimitedAction> =
        "quictrack_rate_limited_total", "Requests of others that were refused because they came too often.";
    /// Bans that came into force.
    pub static BANS: Counters<(BanScope, BanReason)> =
        "quictrack_bans_total", "Times that a node or a range of addresses came to be kept out, for good or for a while, by what it is and why.";
    /// Attempts to find the network.
    pub static BOOTSTRAP_ATTEMPTS: Counters<(BootstrapSource, BootstrapResult)> =
        "quictrack_bootstrap_attempts_total", "Attempts to find an ultrapeer, by source and result.";
    /// Ultrapeers known, by what is believed of them.
    pub static KNOWN_ULTRAPEERS: Gauges<KnownState> =
        "quictrack_known_ultrapeers", "Ultrapeers that the node knows, by what it believes of them.";
    /// Time of HTTP requests. Recorded by [`super::RouteCounters`].
    pub(super) static HTTP_REQUEST_DURATION: Histograms<()> =
        "quictrack_http_request_duration_seconds", "Time from a request to the head of its answer.", SECONDS;
    /// Panics that ended a task, never the program.
    pub static TASK_PANICS: Counters<Task> = "quictrack_task_panics_total", "Panics that ended a task.";
    /// Threads of the runtime.
    pub(super) static RUNTIME_WORKERS: Gauges<()> = "quictrack_runtime_workers", "Worker threads of the runtime.";
    /// Tasks of the runtime.
    pub(super) static RUNTIME_TASKS: Gauges<()> = "quictrack_runtime_alive_tasks", "Tasks that have not ended.";
    /// Tasks that wait for a worker.
    pub(super) static RUNTIME_QUEUE: Gauges<()> =
        "quictrack_runtime_global_queue_depth", "Tasks in the queue that all workers share.";
    /// Busy time of the workers.
    pub(super) static RUNTIME_BUSY: Counters<()> =
        "quictrack_runtime_busy_seconds_total", "Time that all workers were busy, in whole seconds.";
    /// How often workers found nothing to do.
    pub(super) static RUNTIME_PARKS: Counters<()> =
        "quictrack_runtime_parks_total", "Times that a worker found nothing to do and slept.";
}

/// Messages by type and direction. The types are those of the three protocols' tables; a type that two
/// protocols share is counted together.
pub struct Messages {
    name: &'static str,
    help: &'static str,
    types: OnceLock<Types>,
}

/// What is counted of all types, and where.
struct Types {
    /// The number of a type, and what it is for.
    by_name: FxHashMap<&'static str, (usize, ByteClass)>,
    /// For each type one for each direction.
    handles: Vec<Counter>,
    counts: Tally,
}

impl Messages {
    /// A family that does nothing until it is declared.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, types: OnceLock::new() }
    }

    /// Counts a message whose frame has `bytes`.
    pub fn count(&self, message: &impl Message, bytes: usize, direction: Direction) {
        let Some(types) = self.types.get() else { return };
        if let Some((number, class)) = types.by_name.get(message.name()) {
            types.counts.add(number * Direction::ALL.len() + Label::position(direction), 1);
            PROTOCOL_BYTES.add((*class, direction), bytes as u64);
        }
    }

    /// Names of all messages, each once.
    fn types() -> Vec<&'static str> {
        let tables =
            [wire::leaf::LeafMessage::TABLE, wire::mesh::MeshMessage::TABLE, wire::transfer::TransferMessage::TABLE];
        let mut names: Vec<_> = tables.into_iter().flatten().map(|(_, name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Family for Messages {
    fn name(&self) -> &'static str {
        self.name
    }

    fn series(&self) -> usize {
        Self::types().len() * Direction::ALL.len()
    }

    fn declare(&self) {
        metrics::describe_counter!(self.name, self.help);
        let handle = |name: &str, direction: Direction| {
            let value = Label::value(direction);
            metrics::counter!(self.name, "type" => snake_case(name), "direction" => value)
        };
        self.types.get_or_init(|| {
            let names = Self::types();
            let of_type = |name| Direction::ALL.iter().map(move |direction| handle(name, *direction));
            let handles: Vec<_> = names.iter().copied().flat_map(of_type).collect();
            let counts = Tally::new(handles.len());
            let by_name = names.into_iter().enumerate().map(|(number, name)| (name, (number, class_of(name))));
            Types { by_name: by_name.collect(), handles, counts }
        });
    }

    fn collect(&self) {
        if let Some(Types { handles, counts, .. }) = self.types.get() {
            counts.tell(handles);
        }
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Messages").field(&self.name).finish()
    }
}

/// `CatalogRoot` -> `catalog_root`: label values are written like all other names of Prometheus.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (place, letter) in name.char_indices() {
        if place > 0 && letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// What a message is for, by its name.
fn class_of(name: &str) -> ByteClass {
    let has = |table: &[(u16, &str, usize)]| table.iter().any(|(_, known, _)| *known == name);
    match name {
        "Search" | "Accepted" | "Hits" | "Summary" | "Query" | "QueryHits" | "QueryHolders" | "QueryDone"
        | "QueryCancel" | "Wishes" | "WishHits" => ByteClass::Query,
        "CatalogRoot" | "CatalogWant" | "CatalogPart" | "CatalogAck" => ByteClass::Catalog,
        "Attachments" | "Follow" | "DigestWant" | "DigestPart" | "ProofAsk" | "Proof" | "ProofPart" | "Holdings"
        | "HoldingsAsk" => ByteClass::Digest,
        "RelayOffer" | "RelayOpen" | "RelayReady" | "Carried" => ByteClass::Relay,
        // All that only leaves say to each other is about contents.
        _ if has(wire::transfer::TransferMessage::TABLE)
            && !has(wire::leaf::LeafMessage::TABLE)
            && !has(wire::mesh::MeshMessage::TABLE) =>
        {
            ByteClass::Transfer
        }
        _ => ByteClass::Control,
    }
}

/// What a connection sent, received and lost; how far that is in the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of UDP payloads, in and out.
    pub bytes: [u64; Direction::ALL.len()],
    /// UDP packets, in and out.
    pub datagrams: [u64; Direction::ALL.len()],
    /// QUIC packets sent.
    pub sent: u64,
    /// Of those, lost ones.
    pub lost: u64,
    /// Times that QUIC slowed down.
    pub congestions: u64,
}

impl Traffic {
    /// Counts what came since `self`, and becomes `now`.
    pub fn advance(&mut self, kind: ConnectionKind, now: Self) {
        let before = std::mem::replace(self, now);
        for direction in [Direction::In, Direction::Out] {
            let place = Label::position(direction);
            UDP_BYTES.add(direction, now.bytes[place].saturating_sub(before.bytes[place]));
            UDP_DATAGRAMS.add(direction, now.datagrams[place].saturating_sub(before.datagrams[place]));
        }
        SENT_PACKETS.add(kind, now.sent.saturating_sub(before.sent));
        LOST_PACKETS.add(kind, now.lost.saturating_sub(before.lost));
        CONGESTION_EVENTS.add(kind, now.congestions.saturating_sub(before.congestions));
    }
}

/// An open connection in the metrics: counted as open until it is closed, or dropped by a stop.
#[derive(Debug)]
pub struct OpenConnection {
    kind: ConnectionKind,
    direction: Direction,
    reason: CloseReason,
}

impl OpenConnection {
    /// Counts a connection that was established just now.
    pub fn begin(kind: ConnectionKind, direction: Direction) -> Self {
        CONNECTIONS.increment((kind, direction));
        CONNECTIONS_OPENED.increment((kind, direction));
        Self { kind, direction, reason: CloseReason::Shutdown }
    }

    /// What a ban of the other side keeps out.
    pub fn scope(&self) -> BanScope {
        match (self.kind, self.direction) {
            (ConnectionKind::Mesh, _) | (ConnectionKind::Leaf, Direction::Out) => BanScope::Ultrapeer,
            (ConnectionKind::Leaf, Direction::In) | (ConnectionKind::Transfer, _) => BanScope::Leaf,
        }
    }

    /// Counts its end.
    pub fn close(mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        CONNECTIONS.decrement((self.kind, self.direction));
        CONNECTIONS_CLOSED.increment((self.kind, self.reason));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::watching::raises, *};

    #[test]
    fn connections_are_counted_from_their_welcome_to_their_end() {
        for kind in ConnectionKind::ALL {
            for direction in Direction::ALL {
                let labels = format!("kind=\"{}\",direction=\"{}\"", kind.value(), direction.value());
                let begin = || OpenConnection::begin(*kind, *direction);
                let mut open = None;
                raises(&format!("quictrack_connections{{{labels}}}"), || open = Some(begin()));
                raises(&format!("quictrack_connections_opened_total{{{labels}}}"), || drop(begin()));
            }
            for reason in CloseReason::ALL {
                let series = format!(
                    "quictrack_connections_closed_total{{kind=\"{}\",reason=\"{}\"}}",
                    kind.value(),
                    reason.value()
                );
                raises(&series, || OpenConnection::begin(*kind, Direction::In).close(*reason));
            }
        }
    }

    #[test]
    fn only_what_came_since_the_last_time_is_counted_of_traffic() {
        for kind in ConnectionKind::ALL {
            let mut known = Traffic::default();
            let now = Traffic { bytes: [7, 8], datagrams: [1, 2], sent: 5, lost: 1, congestions: 1 };
            let mut more = now;
            more.lost += 1;
            let lost = format!("quictrack_quic_lost_packets_total{{kind=\"{}\"}}", kind.value());
            for family in ["sent_packets", "lost_packets", "congestion_events"] {
                let series = format!("quictrack_quic_{family}_total{{kind=\"{}\"}}", kind.value());
                raises(&series, || Traffic::default().advance(*kind, now));
            }
            known.advance(*kind, now);
            assert_eq!(known, now);
            raises(&lost, || known.advance(*kind, more));
        }
        for direction in ["in", "out"] {
            for family in ["bytes", "datagrams"] {
                let series = format!("quictrack_udp_{family}_total{{direction=\"{direction}\"}}");
                let now = Traffic { bytes: [7, 8], datagrams: [1, 2], ..Traffic::default() };
                raises(&series, || Traffic::default().advance(ConnectionKind::Leaf, now));
            }
        }
    }

    #[test]
    fn who_is_kept_out_is_told_apart() {
        let scope = |kind, direction| OpenConnection::begin(kind, direction).scope();
        assert_eq!(scope(ConnectionKind::Mesh, Direction::In), BanScope::Ultrapeer);
        assert_eq!(scope(ConnectionKind::Leaf, Direction::Out), BanScope::Ultrapeer, "a home");
        assert_eq!(scope(ConnectionKind::Leaf, Direction::In), BanScope::Leaf);
        assert_eq!(scope(ConnectionKind::Transfer, Direction::Out), BanScope::Leaf);
    }

    #[test]
    fn bytes_of_messages_are_for_what_they_say() {
        for (name, class) in [
            ("Hello", ByteClass::Control),
            ("Probe", ByteClass::Control),
            ("Search", ByteClass::Query),
            ("CatalogPart", ByteClass::Catalog),
            ("DigestPart", ByteClass::Digest),
            ("Pieces", ByteClass::Transfer),
            ("Carried", ByteClass::Relay),
        ] {
            assert!(Messages::types().contains(&name), "there is no {name}");
            assert_eq!(class_of(name), class, "{name}");
        }
        let classes: Vec<_> = Messages::types().into_iter().map(class_of).collect();
        for class in ByteClass::ALL {
            assert!(classes.contains(class), "no message is for {}", class.value());
        }
    }
}
