//! Floor 1: what an ultrapeer does for its leaves.

pub mod attachments;
pub mod index;
pub mod introduce;
pub mod leaves;
pub mod search;
pub mod ultrapeer;
