//! What it costs to list all that a leaf shares.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{Contender, Kind, quictrack};
use crate::{bare::now, process::Usage};

/// What it took to list all that a leaf shares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Browsed {
    /// From the start of the command to its end.
    pub wall: Duration,
    /// Files that were listed.
    pub files: u64,
    /// Resident bytes: of the leaf that shares, of the one that asks, of its command.
    pub resident: [Resident; 3],
}

/// Resident bytes of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// When it began to be looked at.
    pub before: u64,
    /// The most that was seen.
    pub most: u64,
}

impl Resident {
    fn look(&mut self, process: u32) {
        let resident = Usage::of(process).map_or(0, |usage| usage.resident);
        if self.before == 0 {
            self.before = resident;
        }
        self.most = self.most.max(resident);
    }
}

impl Contender {
    /// Lists everything that the source shares, page by page, with the command `browse`; only for Quictrack.
    pub fn browse(&self) -> Result<Browsed> {
        let Kind::Quictrack { sinks, target } = &self.kind else { bail!("only Quictrack browses") };
        let peer = target.split_once('/').map_or(&**target, |(peer, _)| peer);
        let sink = sinks.first().context("somebody asks")?;
        // The ultrapeer, the source, the one that asks.
        let [_, source, asks] = &self.servers[..] else { bail!("one source is browsed") };
        let (source, asks) = (source.process(), asks.process());
        let mut browsed = Browsed::default();
        for (resident, process) in browsed.resident.iter_mut().zip([source, asks]) {
            resident.look(process);
        }
        let begun = now();
        let mut command = quictrack(sink);
        command.args(["browse", "--json", "--recursive", peer]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().context("the output is a pipe")?);
        for line in output.lines() {
            line?;
            if browsed.files.is_multiple_of(10_000) {
                for (resident, process) in browsed.resident.iter_mut().zip([source, asks, child.id()]) {
                    resident.look(process);
                }
            }
            browsed.files += 1;
        }
        browsed.wall = begun.elapsed();
        ensure!(child.wait()?.success(), "browse failed");
        for (resident, process) in browsed.resident.iter_mut().zip([source, asks]) {
            resident.look(process);
        }
        Ok(browsed)
    }
}
