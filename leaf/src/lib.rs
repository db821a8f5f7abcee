//! Floor 2: what people run.

pub mod bitmap;
pub mod homes;
pub mod queue;
pub mod search;
pub mod swarm;
