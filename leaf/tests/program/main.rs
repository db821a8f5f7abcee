//! `quictrack` from outside: real processes on loopback, driven by the command line, in a network of real ultrapeers.

#[path = "../support/mod.rs"]
mod support;

mod bans;
mod commands;
mod discovery;
mod disk;
mod doctor;
mod downloads;
mod election;
mod founding;
mod hostile;
mod http;
mod life;
mod names;
mod namespace;
mod nat;
mod network;
mod shares;
mod wishes;
