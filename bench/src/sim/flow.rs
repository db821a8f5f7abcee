//! A million leaves at flow level: the rules of routing on arrays of numbers, and the bytes of a run in full detail.
//!
//! This is a model, not the program: no core runs here. What it takes over from the program is measured in a run of the
//! cores on a small network with the same workload ([`Costs`]): what a search, an answer, a digest, a list and an
//! hour of a leaf cost on the line, and what a digest costs in memory. What it computes itself is who must be asked:
//! leaves lie in parts of the leaf space by a hash, each at three ultrapeers of its part; the coordinator looks into the
//! digests of its part, asks a member of each other part in waves of 1, 3, 9 and the rest (all at once where few matches
//! are to be expected), and each of them asks homes of the leaves that match, those of most new contents first, until
//! enough is found or nothing new is left; the coordinator asks eight homes for leaves that have nothing new, too. After 30 % of the ultrapeers died nobody has noticed yet: a leaf is found while one of its homes
//! lives.

use std::fmt::Write as _;

use overlay::limits;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

use super::{
    baselines::{Asked, KILLED},
    draw,
    report::{mean, percentiles},
    workload::Class,
    world::World,
};

/// Expected matches in the whole network below which all parts are asked at once.
const RARE: usize = 20;
/// Parts that are asked in each wave; then all others.
const WAVES: [usize; 3] = [1, 3, 9];

/// Homes that are asked at a time.
const ROUND: u64 = limits::FORWARDS_PER_ROUND as u64;

/// What things cost, from a run of the cores.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Costs {
    /// Bytes on the line of an ultrapeer for a search of its own leaf without its hits: search, summary, views.
    pub search: f64,
    /// Bytes of a hit to the leaf.
    pub leaf_hit: f64,
    /// Bytes for a query between ultrapeers and the end of its answer.
    pub query: f64,
    /// Bytes of a hit between ultrapeers.
    pub hit: f64,
    /// Bytes for a leaf that attaches: its list to one home.
    pub list: f64,
    /// Bytes for an ultrapeer that learns of a leaf: its homes and its digest. A mean over all leaves, as the next two.
    pub digest: f64,
    /// Bytes of memory of that digest.
    pub digest_memory: f64,
    /// Bytes of memory of a leaf's files at a home.
    pub file_memory: f64,
    /// Bytes a second of probes and news, for each ultrapeer.
    pub membership: f64,
}

/// How large and how busy the network is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Size {
    /// Leaves online.
    pub leaves: u32,
    /// Ultrapeers.
    pub ultrapeers: u32,
    /// Parts of the leaf space.
    pub shards: u32,
    /// Searches of a leaf an hour.
    pub queries_per_hour: f64,
    /// Times that a leaf comes in an hour.
    pub joins_per_hour: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct FlowReport {
    /// How large.
    pub size: Size,
    /// From the run of the cores.
    pub costs: Costs,
    /// Searches by class: name, number, recall, messages mean, p50, p99.
    pub searches: Vec<(String, usize, f64, [f64; 3])>,
    /// Recall right after 30 % of the ultrapeers died.
    pub after_kill: f64,
    /// Kilobits a second of an ultrapeer, both ways: queries, lists, digests, membership, keep-alives, all.
    pub kbit_s: [f64; 6],
    /// Megabytes of an ultrapeer: digests, files of its own leaves, all.
    pub memory_mb: [f64; 3],
}

impl Costs {
    /// From a world that has run quietly. Its nodes must all have joined while it ran.
    pub fn of(world: &World) -> Self {
        let kinds = |traffic: &super::traffic::Traffic, protocol: &str, names: &[&str]| {
            let kinds = traffic.kinds();
            let chosen = kinds.iter().filter(|(of, name, _)| *of == protocol && names.contains(name));
            chosen.fold((0.0, 0.0), |(messages, bytes), (_, _, count)| {
                let lines = count.bytes as f64 + count.messages as f64 * super::links::line_bytes(0).0 as f64;
                (messages + count.messages as f64, bytes + lines)
            })
        };
        let (joined, measured) = (world.joining_traffic(), world.traffic());
        let per = |bytes: f64, count: f64| if count > 0.0 { bytes / count } else { 0.0 };
        let searches = kinds(measured, "leaf", &["Search"]).0;
        let asked = kinds(measured, "leaf", &["Search", "Accepted", "Summary", "ViewAsk", "View"]).1;
        let queries = kinds(measured, "mesh", &["Query"]).0;
        let answered = kinds(measured, "mesh", &["Query", "QueryDone", "QueryCancel"]).1;
        let [leaf_hits, hits] = measured.hits();
        let loads = world.loads();
        let (attached, ups): (f64, _) = (loads.iter().map(|load| f64::from(load.leaves)).sum(), loads.len() as f64);
        let lists = kinds(joined, "leaf", &["CatalogRoot", "CatalogWant", "CatalogPart", "CatalogAck"]).1;
        // A leaf has a digest at every ultrapeer that is none of its homes, if it shares anything.
        let elsewhere = attached / limits::HOMES as f64 * (ups - limits::HOMES as f64);
        let digests = loads.iter().map(|load| load.digests as f64).sum::<f64>();
        let [pulls, attachments] = [&["DigestPart"][..], &["Attachments"]].map(|names| kinds(joined, "mesh", names));
        let pulled = per(pulls.1 + kinds(joined, "mesh", &["DigestWant"]).1, pulls.0);
        let digest = pulled * per(digests, elsewhere) + attachments.1 / attached * limits::HOMES as f64 / (ups - 1.0);
        let told = kinds(
            measured,
            "mesh",
            &[
                "Members",
                "Probe",
                "ProbeAck",
                "ProbeAsk",
                "ProbeResult",
                "Suspect",
                "Gone",
                "News",
                "Sync",
                "SyncBuckets",
                "SyncWant",
            ],
        )
        .1;
        let seconds = world.scenario().measure_s;
        Self {
            search: per(asked, searches),
            leaf_hit: per(kinds(measured, "leaf", &["Hits"]).1, leaf_hits as f64),
            query: per(answered, queries),
            hit: per(kinds(measured, "mesh", &["QueryHits"]).1, hits as f64),
            list: per(lists, attached),
            digest,
            digest_memory: per(loads.iter().map(|load| load.digest_bytes as f64).sum(), elsewhere),
            file_memory: per(
                loads.iter().map(|load| (load.index_bytes as f64 - load.digest_bytes as f64).max(0.0)).sum(),
                attached,
            ),
            membership: per(told * 2.0, seconds * loads.len() as f64),
        }
    }
}

/// What came of a search.
#[derive(Debug, Default)]
struct Searched {
    messages: u64,
    /// Hits told between ultrapeers.
    hits: u64,
    found: FxHashSet<u32>,
}

/// Who has which home.
struct Flow<'a> {
    size: &'a Size,
    homes: Vec<[u32; limits::HOMES]>,
    dead: Vec<bool>,
}

impl Flow<'_> {
    fn shard(&self, leaf: u32) -> u32 {
        (draw::mix(0x5a, u64::from(leaf), 9) % u64::from(self.size.shards)) as u32
    }

    /// A member of a part that lives.
    fn member(&self, rng: &mut Pcg64Mcg, shard: u32) -> Option<u32> {
        let members = self.size.ultrapeers / self.size.shards;
        (0..64).map(|_| rng.random_range(0..members) * self.size.shards + shard).find(|up| !self.dead[*up as usize])
    }

    /// Asks one part through `via`: adds the forwards it sends and what it finds. The first `whole` homes are asked even
    /// if they have nothing new.
    fn ask_part(&self, via: u32, leaves: &[u32], asked: &Asked, search: &mut Searched, whole: u64) {
        let found = &mut search.found;
        let lives = |up: &u32| !self.dead[*up as usize];
        let mut open: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for leaf in leaves {
            let homes: Vec<u32> = self.homes[*leaf as usize].iter().copied().filter(lives).collect();
            if homes.contains(&via) {
                found.extend(&asked.held[leaf]);
            } else if !homes.is_empty() {
                open.insert(*leaf, homes);
            }
        }
        let mut forwards = 0_u64;
        // Eight homes at a time are under way, so what they find counts when all of them have answered.
        while !open.is_empty() && (found.len() < asked.limit || !forwards.is_multiple_of(ROUND)) {
            let mut of_home: FxHashMap<u32, (FxHashSet<u32>, u32)> = FxHashMap::default();
            for (leaf, homes) in &open {
                for home in homes {
                    let (new, leaves) = of_home.entry(*home).or_default();
                    new.extend(asked.held[leaf].iter().filter(|content| !found.contains(content)));
                    *leaves += 1;
                }
            }
            let rank = |(home, (new, leaves)): (u32, (FxHashSet<u32>, u32))| (new.len() as u64, leaves, home);
            let Some((new, _, home)) = of_home.into_iter().map(rank).max() else { break };
            if new == 0 && forwards >= whole {
                break;
            }
            let mut told: FxHashSet<u32> = FxHashSet::default();
            open.retain(|leaf, homes| {
                let here = homes.contains(&home);
                if here {
                    told.extend(&asked.held[leaf]);
                }
                !here
            });
            search.hits += if forwards < whole { told.len() as u64 } else { new };
            found.extend(told);
            forwards += 1;
        }
        search.messages += forwards;
    }

    /// Searches. `None` if nobody of the asker's part lives.
    fn search(&self, rng: &mut Pcg64Mcg, asked: &Asked) -> Option<Searched> {
        // Who has lost all homes finds another while its search waits.
        let alive = self.homes[asked.asker as usize].iter().copied().find(|up| !self.dead[*up as usize]);
        let coordinator = alive.or_else(|| self.member(rng, self.shard(asked.asker)))?;
        let mut by_part: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        let mut leaves: Vec<u32> = asked.held.keys().copied().collect();
        leaves.sort_unstable();
        for leaf in leaves {
            by_part.entry(self.shard(leaf)).or_default().push(leaf);
        }
        let own = self.shard(asked.asker);
        let mut search = Searched { messages: 1, ..Searched::default() };
        let here = by_part.get(&own).map_or(&[][..], |leaves| leaves);
        self.ask_part(coordinator, here, asked, &mut search, ROUND);
        let mut others: Vec<u32> = (0..self.size.shards).filter(|shard| *shard != own).collect();
        others.shuffle(rng);
        let rare = here.len() * (self.size.shards as usize) < RARE;
        let mut waves = WAVES.into_iter();
        while !others.is_empty() && search.found.len() < asked.limit {
            let wave = if rare { others.len() } else { waves.next().unwrap_or(others.len()).min(others.len()) };
            for shard in others.drain(..wave).collect::<Vec<_>>() {
                let Some(via) = self.member(rng, shard) else { continue };
                search.messages += 1;
                let before = search.found.len();
                if let Some(leaves) = by_part.get(&shard) {
                    self.ask_part(via, leaves, asked, &mut search, 0);
                }
                search.hits += (search.found.len() - before) as u64;
            }
        }
        Some(search)
    }
}

/// Parts of the leaf space that a network needs, so that the digests of one fit half of an ultrapeer's memory.
pub fn shards(leaves: u32, costs: &Costs) -> u32 {
    let digests = f64::from(leaves) * costs.digest_memory;
    let parts = (digests / (limits::INDEX_MEMORY as f64 / 2.0)).ceil().max(1.0);
    (parts as u32).next_power_of_two()
}

/// Runs searches at flow level.
pub fn run(seed: u64, size: Size, costs: Costs, asked: &[Asked]) -> FlowReport {
    let mut rng = Pcg64Mcg::seed_from_u64(draw::mix(seed, 0xf10, 3));
    let mut flow = Flow { size: &size, homes: Vec::new(), dead: vec![false; size.ultrapeers as usize] };
    for leaf in 0..size.leaves {
        let shard = flow.shard(leaf);
        let members = size.ultrapeers / size.shards;
        let mut homes = [u32::MAX; limits::HOMES];
        for place in 0..limits::HOMES.min(members as usize) {
            homes[place] = loop {
                let home = rng.random_range(0..members) * size.shards + shard;
                if !homes.contains(&home) {
                    break home;
                }
            };
        }
        flow.homes.push(homes);
    }
    let part = |asked: &Asked, found: &FxHashSet<u32>| {
        let all: FxHashSet<u32> = asked.held.values().flatten().copied().collect();
        let possible = all.len().min(asked.limit);
        (possible > 0).then(|| found.intersection(&all).count().min(possible) as f64 / possible as f64)
    };
    let (mut hits, mut shown) = (0.0, 0.0);
    let outcomes: Vec<(&Asked, u64, Option<f64>)> = asked
        .iter()
        .filter_map(|asked| {
            let search = flow.search(&mut rng, asked)?;
            hits += search.hits as f64;
            shown += search.found.len().min(asked.limit) as f64;
            Some((asked, search.messages, part(asked, &search.found)))
        })
        .collect();
    let row = |name: &str, chosen: Vec<&(&Asked, u64, Option<f64>)>| {
        let messages: Vec<f64> = chosen.iter().map(|(_, messages, _)| *messages as f64).collect();
        let [p50, p99] = percentiles(&messages, [50, 99]).unwrap_or_default();
        let recall: Vec<f64> = chosen.iter().filter_map(|(.., recall)| *recall).collect();
        let recall = if recall.is_empty() { 1.0 } else { mean(recall.into_iter()) };
        (name.to_owned(), chosen.len(), recall, [mean(messages.into_iter()), p50, p99])
    };
    let of = |class: Class| outcomes.iter().filter(|(asked, ..)| asked.class == class).collect::<Vec<_>>();
    let searches = vec![
        row("all", outcomes.iter().collect()),
        row("popular", of(Class::Popular)),
        row("tail", of(Class::Tail)),
        row("no answer", of(Class::None)),
        row("one holder", outcomes.iter().filter(|(asked, ..)| asked.held.len() == 1).collect()),
    ];
    let number = outcomes.len().max(1) as f64;
    // Each content is told to the leaf at once and, as what is known of it gets better, at the end.
    // What goes from ultrapeer to ultrapeer is on two lines.
    let cost = costs.search
        + 2.0 * shown / number * costs.leaf_hit
        + 2.0 * ((searches[0].3[0] - 1.0).max(0.0) * costs.query + hits / number * costs.hit);
    flow.dead.iter_mut().for_each(|dead| *dead = rng.random_bool(KILLED));
    let after: Vec<f64> = asked
        .iter()
        .filter_map(|asked| {
            let found = flow.search(&mut rng, asked).map(|search| search.found).unwrap_or_default();
            part(asked, &found)
        })
        .collect();
    let after_kill = mean(after.into_iter());
    let (kbit_s, memory_mb) = loads(&size, &costs, cost);
    FlowReport { size, costs, searches, after_kill, kbit_s, memory_mb }
}

/// What an ultrapeer carries and keeps; `search` are the bytes of a search on the lines of all ultrapeers together.
fn loads(size: &Size, costs: &Costs, search: f64) -> ([f64; 6], [f64; 3]) {
    let (leaves, ups) = (f64::from(size.leaves), f64::from(size.ultrapeers));
    let mates = ups / f64::from(size.shards);
    let attached = leaves * limits::HOMES as f64 / ups;
    let known = leaves / f64::from(size.shards);
    let kilobits = |bytes_an_hour: f64| bytes_an_hour * 8.0 / 1e3 / 3_600.0;
    let asked = leaves / ups * size.queries_per_hour;
    let queries = kilobits(asked * search);
    let lists = kilobits(attached * size.joins_per_hour * costs.list);
    // What an ultrapeer learns of all leaves of its part it also tells as often.
    let digests = kilobits(2.0 * known * size.joins_per_hour * costs.digest);
    let membership = costs.membership * 8.0 / 1e3;
    let ping = 2.0 * super::links::BARE_PACKET as f64 / limits::KEEP_ALIVE.as_secs_f64();
    let links = mates - 1.0 + 2.0 * (f64::from(size.shards) - 1.0);
    let keep_alives = (attached + links) * ping * 8.0 / 1e3;
    let all = queries + lists + digests + membership + keep_alives;
    let (digest_mb, file_mb) = (known * costs.digest_memory / 1e6, attached * costs.file_memory / 1e6);
    // What a leaf costs beside its index: the target of the program, measured by `--bin leaves`.
    let leaf_mb = attached * 40e3 / 1e6;
    ([queries, lists, digests, membership, keep_alives, all], [digest_mb, file_mb, digest_mb + file_mb + leaf_mb])
}

impl FlowReport {
    /// As aligned text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Size { leaves, ultrapeers, shards, queries_per_hour, joins_per_hour } = self.size;
        writeln!(
            out,
            "FLOW LEVEL (a model with measured costs): {leaves} leaves, {ultrapeers} ultrapeers in {shards} parts, \
             {queries_per_hour} searches and {joins_per_hour} joins a leaf and hour\n"
        )?;
        writeln!(out, "{:<12}{:>9}{:>9}{:>10}{:>7}{:>7}", "searches", "number", "recall", "messages", "p50", "p99")?;
        for (name, number, recall, [mean, p50, p99]) in &self.searches {
            writeln!(out, "{name:<12}{number:>9}{:>8.2}%{mean:>10.1}{p50:>7.0}{p99:>7.0}", recall * 100.0)?;
        }
        writeln!(out, "\nrecall right after 30 % of the ultrapeers died: {:.2} %", self.after_kill * 100.0)?;
        let [queries, lists, digests, membership, keep_alives, all] = self.kbit_s;
        writeln!(
            out,
            "an ultrapeer: {all:.0} kbit/s both ways (queries {queries:.0}, lists {lists:.0}, digests {digests:.0}, \
             membership {membership:.0}, keep-alives {keep_alives:.0})"
        )?;
        let [digests, files, all] = self.memory_mb;
        writeln!(out, "and {all:.0} MB (digests {digests:.0}, files of its leaves {files:.0}, connections the rest)")?;
        let costs = &self.costs;
        writeln!(
            out,
            "costs measured on the cores: search {:.0} B, query {:.0} B, hit {:.0} B, list {:.0} B, digest {:.0} B on the \
             line and {:.0} B in memory, files of a leaf {:.0} B, membership {:.0} B/s",
            costs.search,
            costs.query,
            costs.hit,
            costs.list,
            costs.digest,
            costs.digest_memory,
            costs.file_memory,
            costs.membership
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(held: &[(u32, u32)], limit: usize) -> Asked {
        let mut by_leaf: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for (leaf, content) in held {
            by_leaf.entry(*leaf).or_default().push(*content);
        }
        Asked { asker: 0, class: Class::Tail, held: by_leaf, limit }
    }

    fn size(shards: u32) -> Size {
        Size { leaves: 2_000, ultrapeers: 64, shards, queries_per_hour: 10.0, joins_per_hour: 1.0 }
    }

    #[test]
    fn everything_is_found_and_one_holder_costs_a_forward_beside_one_for_each_part() {
        let searches: Vec<_> = (1..200).map(|leaf| asked(&[(leaf, leaf)], 60)).collect();
        for shards in [1, 8] {
            let report = run(1, size(shards), Costs::default(), &searches);
            let (_, number, recall, [mean, ..]) = &report.searches[4];
            assert_eq!((*number, *recall), (199, 1.0));
            let most = 1.0 + f64::from(shards - 1) + 1.0;
            // Now and then whoever is asked first is a home of the leaf itself.
            assert!(*mean <= most && *mean > most - 0.5, "{mean} of {most}");
            // All three homes die with 0.3^3.
            assert!((0.92..=1.0).contains(&report.after_kill), "{}", report.after_kill);
        }
    }

    #[test]
    fn popular_searches_end_when_enough_is_found() {
        let held: Vec<_> = (1..1_500).map(|leaf| (leaf, leaf)).collect();
        let report = run(1, size(8), Costs::default(), &[asked(&held, 60)]);
        let (_, _, recall, [mean, ..]) = &report.searches[0];
        assert_eq!(*recall, 1.0);
        assert!(*mean <= 12.0, "{mean}");
    }
}
