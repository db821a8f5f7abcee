//! Floor 2: what people run.

pub mod homes;
pub mod search;
