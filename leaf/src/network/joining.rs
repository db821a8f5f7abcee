//! Where a leaf joins: what its user named, and the names that count as well once their turn has come.

use std::{collections::BTreeMap, sync::Arc};

use overlay::{
    address::JoinAddress,
    limits,
    metrics::{BOOTSTRAP_ATTEMPTS, BootstrapResult, BootstrapSource},
};
use tokio::time::timeout;

use super::{
    Input,
    driver::{JoinProblem, Shared, lock},
};

/// Where to join.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) targets: Vec<JoinAddress>,
    /// Names that count as well.
    pub(super) names: Vec<JoinAddress>,
    /// Whether nodes are looked for in other ways, too.
    seeks: bool,
}

impl Join {
    /// These targets, and no names yet.
    pub(super) fn new(targets: Vec<JoinAddress>, seeks: bool) -> Self {
        Self { targets, names: Vec::new(), seeks }
    }

    /// All of them, and how each came to be one.
    fn all(&self) -> Vec<(JoinAddress, BootstrapSource)> {
        let named = self.names.iter().map(|name| (name.clone(), BootstrapSource::Dns));
        let targets = self.targets.iter().map(|target| (target.clone(), BootstrapSource::Config));
        targets.chain(named).take(limits::JOIN_TARGETS).collect()
    }
}

/// Keeps the machine's join targets resolved: at the start, when they change, and while homeless.
pub(super) async fn run(shared: Arc<Shared>, known: Vec<Input>) {
    // Without a machine there is nobody to tell; the task ends with the others.
    for input in known {
        let _ = shared.machine.input(input).await;
    }
    loop {
        let (targets, seeks) = {
            let join = lock(&shared.join);
            (join.all(), join.seeks)
        };
        let has_sources = seeks || !targets.is_empty();
        let (mut addresses, mut owners, mut unresolved) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (target, source) in targets {
            let text = target.to_string();
            match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
                Ok(found) => {
                    for address in found {
                        owners.entry(address).or_insert_with(|| (text.clone(), source));
                        addresses.push(address);
                    }
                }
                Err(error) => {
                    BOOTSTRAP_ATTEMPTS.increment((source, BootstrapResult::Empty));
                    shared.problem(text.clone(), &text, JoinProblem::Name(error.to_string()));
                    unresolved.push(text);
                }
            }
        }
        shared.set_targets(owners, &unresolved);
        let _ = shared.machine.input(Input::Targets(addresses)).await;
        let _ = shared.machine.input(Input::Sources(has_sources)).await;
        // A name may lead elsewhere later; what changes is seen within the longest pause between two dials.
        let _ = timeout(limits::REDIAL_MAX, shared.join_changed.notified()).await;
    }
}
