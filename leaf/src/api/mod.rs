//! The local HTTP API of a leaf.
//!
//! | module | what it is |
//! |---|---|
//! | [`http`] | the endpoints |
//! | [`types`] | the objects of requests and answers, which the commands read and print |

pub mod http;
pub mod types;
