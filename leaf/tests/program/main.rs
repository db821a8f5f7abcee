//! `quictrack` from outside: real processes on loopback, driven by the command line, in a network of real ultrapeers.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod downloads;
mod http;
mod life;
mod network;
mod shares;
