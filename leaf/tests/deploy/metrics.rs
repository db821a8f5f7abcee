//! The table of all metrics says what the programs say. `UPDATE_EXAMPLES=1` writes it anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
};

use crate::{
    deploy,
    support::{Bed, eventually, promtool},
};

/// Labels whose values are not listed: they tell of the build, or there are too many.
const OPEN: [&str; 5] = ["version", "revision", "route", "method", "type"];
/// The most series of a process; a histogram counts once for each set of labels.
const SERIES: usize = 1_000;
const HEAD: &str = "\
# Metrics

Every metric of both programs, as Prometheus sees it at the address of the option `metrics`. Every series is there from the start, at 0. No label ever
holds a peer, an address, a content, a file name or a query. `quictrack` has them all, because a leaf can become an ultrapeer.

| metric | type | labels | program | meaning |
|---|---|---|---|---|
";

/// A family in an exposition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    help: String,
    /// Values by label.
    labels: BTreeMap<String, BTreeSet<String>>,
    /// Sets of labels, without the bounds of buckets.
    series: BTreeSet<String>,
}

/// The families of an exposition, by name.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let family = families.entry(name.to_owned()).or_default();
            match what {
                "HELP" => rest.clone_into(&mut family.help),
                "TYPE" => rest.clone_into(&mut family.kind),
                _ => panic!("{line}"),
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let is_part = |suffix: &&str| {
            let family = name.strip_suffix(*suffix).and_then(|name| families.get(name));
            family.is_some_and(|family| family.kind == "histogram")
        };
        let name = match ["_bucket", "_sum", "_count"].iter().find(|suffix| is_part(suffix)) {
            Some(suffix) => name.strip_suffix(suffix).unwrap(),
            None => name,
        };
        let family = families.get_mut(name).unwrap_or_else(|| panic!("no type: {line}"));
        let pairs = labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty());
        let pairs: Vec<_> =
            pairs.map(|pair| pair.split_once("=\"").unwrap()).filter(|(label, _)| *label != "le").collect();
        family.series.insert(format!("{pairs:?}"));
        for (label, value) in pairs {
            family.labels.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    families
}

/// The table of what a leaf and an ultrapeer tell.
fn table(leaf: &BTreeMap<String, Family>, ultrapeer: &BTreeMap<String, Family>) -> String {
    let mut table = HEAD.to_owned();
    for (name, family) in leaf {
        let mut all = family.labels.clone();
        for (label, values) in ultrapeer.get(name).into_iter().flat_map(|family| &family.labels) {
            all.entry(label.clone()).or_default().extend(values.iter().cloned());
        }
        let labels: Vec<_> = all.iter().map(|(label, values)| in_words(label, values)).collect();
        let programs = if ultrapeer.contains_key(name) { "both" } else { "`quictrack`" };
        let Family { kind, help, .. } = family;
        writeln!(table, "| `{name}` | {kind} | {} | {programs} | {help} |", labels.join("; ")).unwrap();
    }
    table
}

fn in_words(label: &str, values: &BTreeSet<String>) -> String {
    if OPEN.contains(&label) {
        return format!("`{label}`");
    }
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    format!("`{label}`: {}", values.join(", "))
}

#[test]
fn the_table_of_metrics_is_that_of_the_programs() {
    let bed = Bed::new();
    let founder = bed.founder("u0");
    let leaf = bed.leaf("leaf", &founder, &[]);
    eventually("the leaf is in the network", || leaf.probe("/readyz").0 == 200);
    let [leaf, ultrapeer] = [&leaf, &founder].map(|daemon| {
        let text = daemon.probe("/metrics").1;
        promtool(&text);
        families(&text)
    });
    for (program, families) in [("quictrack", &leaf), ("quictrack-ultrapeer", &ultrapeer)] {
        let series: usize = families.values().map(|family| family.series.len()).sum();
        assert!(series <= SERIES, "{program} has {series} series");
    }
    let alone: Vec<_> = ultrapeer.keys().filter(|name| !leaf.contains_key(*name)).collect();
    assert!(alone.is_empty(), "only an ultrapeer has {alone:?}");
    for (name, family) in &ultrapeer {
        // Each program has routes of its own.
        if !family.labels.contains_key("route") && name != "quictrack_build_info" {
            assert_eq!(family, &leaf[name], "{name}");
        }
    }
    let (path, table) = (deploy("prometheus/metrics.md"), table(&leaf, &ultrapeer));
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &table).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    for (have, want) in committed.lines().zip(table.lines()) {
        assert_eq!(have, want, "{} is old: run this with UPDATE_EXAMPLES=1", path.display());
    }
    assert!(committed == table, "{} is old: run this with UPDATE_EXAMPLES=1", path.display());
}
