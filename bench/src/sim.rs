//! The simulator: the program's own cores, from a handful of nodes to whole networks, on a virtual clock.
//!
//! | module | what it is |
//! |---|---|
//! | [`scenario`] | what is simulated, from a TOML file |
//! | [`workload`] | what leaves share and look for, and the truth that searches are judged by |
//! | [`churn`], [`draw`] | sessions, and random numbers of published shapes |
//! | [`wheel`], [`links`], [`traffic`] | events, paths, bytes |
//! | [`world`] | the world that drives the cores |
//! | [`measure`], [`report`], [`plot`] | what is measured, and how it is told |
//! | [`baselines`] | models of other systems on the same leaves, files and searches |
//! | [`flow`] | a million leaves: a model of routing with measured costs |
//! | [`validate`] | whether these models give what was published |

pub mod baselines;
pub mod churn;
pub mod draw;
pub mod elections;
pub mod flow;
pub mod links;
pub mod measure;
pub mod plot;
pub mod report;
pub mod scenario;
pub mod traffic;
pub mod validate;
pub mod wheel;
pub mod workload;
pub mod world;
