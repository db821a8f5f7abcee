//! The local HTTP API of a leaf: what it speaks.
//!
//! | module | what it is |
//! |---|---|
//! | [`types`] | the objects of requests and answers, which the commands read and print |

pub mod types;
