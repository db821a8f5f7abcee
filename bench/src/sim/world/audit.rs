//! A look past the protocol: what every ultrapeer's own index says to a query, beside the truth.

use overlay::wire::{bounded::Text, mesh::Scope, search::Target};
use rustc_hash::FxHashSet;
use ultrapeer::{leaves::Session, ultrapeer::Ultrapeer};

use super::{super::workload::Class, World};

/// Contents that one answer may have.
const LIMIT: u32 = 10_000;

impl World {
    /// Asks the index of every ultrapeer for `count` made-up queries. Whatever a leaf shares whose list some home
    /// acknowledged must be among the ultrapeer's own hits, or the leaf among those that it would ask elsewhere; returns
    /// what is not. Only of use in a network of one part in which nothing is on its way.
    pub fn audit(&mut self, count: usize) -> Vec<String> {
        let mut missing = Vec::new();
        for number in 0..count {
            let class = if number % 2 == 0 { Class::Tail } else { Class::Popular };
            let query = self.library.query(&mut self.rng, class);
            let target = Target::Query(Text::new(&query.text));
            for (number, up) in self.ultrapeers.iter().enumerate().filter(|(_, up)| up.alive) {
                let scope = Scope::Shard(overlay::wire::descriptor::ShardPrefix::ALL);
                let Some(answer) = up.machine.answer(self.now, &target, LIMIT, &scope, &FxHashSet::default()) else {
                    continue;
                };
                if !answer.incomplete.is_empty() {
                    continue;
                }
                let own: FxHashSet<_> = answer.hits.iter().map(|hit| hit.content).collect();
                for content in &query.contents {
                    for holder in self.library.holders(*content) {
                        let leaf = &self.leaves[*holder as usize];
                        if leaf.core.is_none() || leaf.advertised.is_none() {
                            continue;
                        }
                        let session =
                            leaf.homes.iter().find(|(up, _)| *up == number as u32).map(|(_, session)| *session);
                        let is_here = session.is_some_and(|session| is_listed(&up.machine, session));
                        let found = if is_here {
                            own.contains(&self.library.entry(*content).content)
                        } else {
                            let handle = leaf.salt.handle(&leaf.identity.peer_id());
                            answer.candidates.iter().any(|candidate| candidate.handle == handle)
                        };
                        if !found {
                            let homes: Vec<_> = leaf.homes.iter().map(|(up, _)| *up).collect();
                            missing.push(format!(
                                "ultrapeer {number} ({}) asked {:?}: no {content} of leaf {holder} at {homes:?} with {} files; {} own hits, {} candidates",
                                if is_here { "a home" } else { "no home" },
                                query.text,
                                self.library.contents_of(*holder).count(),
                                answer.hits.len(),
                                answer.candidates.len(),
                            ));
                        }
                    }
                }
            }
        }
        missing
    }
}

fn is_listed(machine: &Ultrapeer, session: Session) -> bool {
    machine.leaves().get(session).is_some_and(|leaf| leaf.sequence().is_some())
}
