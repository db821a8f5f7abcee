//! The local HTTP of both programs: what their APIs, the web page, the probes and the command line stand on.
//!
//! ```text
//!   listener ── Host, Origin, token ── route ── extractors ── handler ── answer or ApiError
//!   (server)         (auth)           (index)     (error)       │
//!                                                               ├── Page                (list)
//!                                                               └── server-sent events  (events)
//! ```
//!
//! The API serves the one user of this machine. It must stand against web pages in the same browser
//! (DNS rebinding, cross-site requests), against other users of the machine (token), and against clients
//! that stall; so every request passes [`auth::Guard`] before anything reads it, and the endpoints are
//! declared in [`index::Api`] alone, from which routes, list and OpenAPI document are made.
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | binds, serves with limits, stops without a connection left |
//! | [`auth`] | tokens, `Host`, `Origin`, security headers |
//! | [`error`] | codes, [`ApiError`], strict extractors |
//! | [`index`] | the endpoints |
//! | [`list`], [`events`] | pages, server-sent events |
//! | [`common`], [`bans`] | the endpoints that both programs have |
//! | [`client`], [`handoff`] | the command line's side, and the files by which it finds the daemon |
//! | [`probes`] | the listener for metrics and health |

pub mod auth;
pub mod bans;
pub mod client;
pub mod common;
pub mod error;
pub mod events;
pub mod handoff;
pub mod index;
pub mod list;
pub mod probes;
pub mod server;

pub use error::{ApiError, Code};
