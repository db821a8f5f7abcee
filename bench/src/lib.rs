//! Measurements of Quictrack, and what they need.
//!
//! | module | what it is |
//! |---|---|
//! | [`corpus`] | made-up file lists that resemble real ones |

pub mod corpus;
