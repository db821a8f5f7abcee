//! Measurements of Quictrack that anyone can run. They print; they never pass or fail by the clock.
//!
//! | measurement | what it tells |
//! |---|---|
//! | `cargo run --release -p quictrack-bench --bin first_hit` | how long a search takes, beside one round trip on an open connection |
//! | `cargo run --release -p quictrack-bench --bin transfer` | how fast a download is, beside plain streams of QUIC and TCP, `sendme` and `rqbit` |
//! | `cargo run --release -p quictrack-bench --bin scan` | how fast a share is hashed, beside plain reading and `b3sum`; `--library 1000000`: what a million files cost |
//! | `cargo run --release -p quictrack-bench --bin leaves` | what ten thousand leaves cost an ultrapeer, idle and when all come back at once, beside bare QUIC connections |
//! | `cargo run --release -p quictrack-bench --features rivals --bin index` | size and speed of an ultrapeer's index, beside tantivy and SQLite |
//! | `cargo run --release -p quictrack-bench --bin sim -- bench/scenarios/kill.toml --repeat 20` | what whole networks find and cost, quiet, under churn and when a third of the ultrapeers dies; `--baselines`: beside other designs; `validate`: these beside published results; `flow`: a million leaves |
//! | `cargo run --release -p quictrack-bench --bin reach` | by which way leaves behind NATs of each kind come together, and how long that takes |
//! | `cargo run --release -p quictrack-bench --bin page` | what the web page costs a browser with thousands of results and transfers, beside a plain page of as many rows |
//! | `cargo run --release -p quictrack-bench --bin swarm` | how long a crowd of downloaders of one file takes, simulated, beside what is possible |
//!
//! `cargo run -p quictrack-bench --bin fault -- all ADDRESS` measures nothing: it misbehaves towards an ultrapeer on this
//! machine in every way that [`fault`] knows, and tells what that one did.
//!
//! `first_hit` and `transfer` run whole nodes, each with a socket of its own on loopback: the first all in one process,
//! the second each in one of its own. All measure what they are compared with in the same run: the ratios carry over
//! to other machines, the times do not. Everything shares the cores of this machine, so more nodes than cores wait for
//! each other. `--help` lists what can be changed. Temporary files go where `TMPDIR` says; those of `transfer` into
//! memory (`/dev/shm`) unless it is set.
//!
//! | module | what it is |
//! |---|---|
//! | [`any_key`] | the TLS of bare connections |
//! | [`bare`] | what searches are compared with: a round trip |
//! | [`bed`] | a small network in this process |
//! | [`contest`] | programs that move a file from one process to another |
//! | [`corpus`] | made-up file lists that resemble real ones |
//! | [`crowd`] | thousands of leaves in this process, with the leaf's own network code |
//! | [`fault`] | nodes that misbehave towards an ultrapeer |
//! | [`idle`] | a bare QUIC server that holds connections, in a process of its own |
//! | [`library`] | a leaf with a large library, as its user meets it |
//! | [`plain`] | what downloads are compared with: plain streams |
//! | [`process`] | a real ultrapeer as a process of its own; memory and CPU of processes |
//! | [`packages`], [`mix`] | real file lists, and queries made from them |
//! | [`engine`], `rivals` | the index, and what it is compared with |
//! | [`clock`] | CPU time |
//! | [`sim`] | the simulator: the program's cores on a virtual clock, and models of other systems |
//! | [`swarm`] | many downloaders of one file on a virtual clock, with the program's cores |
//! | [`table`] | percentiles, and how results are printed |

pub mod any_key;
pub mod bare;
pub mod bed;
pub mod clock;
pub mod contest;
pub mod corpus;
pub mod crowd;
pub mod engine;
pub mod fault;
pub mod idle;
pub mod library;
pub mod mix;
pub mod packages;
pub mod plain;
pub mod process;
#[cfg(feature = "rivals")]
pub mod rivals;
pub mod sim;
pub mod swarm;
pub mod table;
