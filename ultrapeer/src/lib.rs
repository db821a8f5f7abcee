//! Floor 1: what an ultrapeer does for its leaves and with other ultrapeers.
//!
//! Life of a leaf: it knocks ([`driver`]), is attached and uploads its list ([`leaves`]), the list is built
//! into the index ([`index`]), and the attachment is logged to the other ultrapeers of its shard ([`attachments`]),
//! who fetch the words of the list without the files ([`digests`]).
//!
//! Life of a query: the leaf's home coordinates ([`search`]): it looks in its own index, which by the digests also names
//! the leaves elsewhere that may have matches, asks a minimum cover of their homes, and one member of each other shard,
//! merges what they find, and says in the summary how complete that is.
//!
//! | module | what it is |
//! |---|---|
//! | [`ultrapeer`] | the machine that composes the cores below |
//! | [`leaves`] | core: attached leaves and their lists |
//! | [`index`] | core: what is searchable |
//! | [`attachments`] | core: which leaf is attached where |
//! | [`appraisals`] | core: which leaves could be ultrapeers, and whom to invite |
//! | [`audits`] | core: whether other homes tell the truth about that |
//! | [`digests`] | core: the words of lists that are attached elsewhere |
//! | [`extent`] | core: which part of the leaf space is covered |
//! | [`holders`] | core: which leaves have a content, by rank at three ultrapeers |
//! | [`possession`] | core: whether leaves have what they list |
//! | [`search`] | core: coordinated searches |
//! | [`standing`] | core: standing queries, compared with what is new |
//! | [`introduce`], [`relays`] | cores: bringing leaves together, and relaying between them |
//! | [`dial_backs`] | core: leaves that want to know whether they can be dialled |
//! | `driver`, `metrics`, `view` | running it on tokio and QUIC, and what is shown of it (feature `net`) |
//! | `program` | the program `quictrack-ultrapeer` (feature `net`) |

pub mod appraisals;
pub mod attachments;
pub mod audits;
pub mod dial_backs;
pub mod digests;
#[cfg(feature = "net")]
pub mod driver;
pub mod extent;
pub mod holders;
pub mod index;
pub mod introduce;
pub mod leaves;
#[cfg(feature = "net")]
pub mod metrics;
pub mod possession;
#[cfg(feature = "net")]
pub mod program;
pub mod relays;
pub mod search;
pub mod standing;
pub mod ultrapeer;
#[cfg(feature = "net")]
pub mod view;
