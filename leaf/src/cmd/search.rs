//! `search`: asks the network and prints what it has.
//!
//! A content is printed once. With `--sort found` that is when it is first seen; otherwise the hits are kept, better
//! knowledge of a content in place of older, and printed in order at the end. The summary comes last, also when the
//! user interrupts.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use overlay::{
    admin::{
        client::{Client, ClientError, segment},
        error::{ApiError, Code},
    },
    console::{Column, Exit, Failure, Table, harmless},
    id::ContentId,
    limits, units,
    wire::search::StopReason,
};
use tokio::time::{Instant, timeout};

use super::{Context, SHORT, count, seconds, short};
use crate::api::types::{Created, Have, Hit, SearchRequest, Summary};

/// What to search for.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// How many different contents to find, at most [default: 60]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::SEARCH_LIMIT_MAX)))]
    limit: Option<u32>,
    /// How long to search, at most
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    timeout: Duration,
    /// Find everything: 10,000 contents, every ultrapeer that may know one
    #[arg(long)]
    all: bool,
    /// What comes first; `found` prints at once
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Words, "phrases", -exclusions and filters such as ext:flac size:>10MB artist:name
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,
}

/// The order of the hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// The best first.
    #[default]
    Rank,
    /// The largest first.
    Size,
    /// The most widely held first.
    Sources,
    /// By name.
    Name,
    /// As they come.
    Found,
}

/// Runs it.
///
/// # Errors
/// `bad_query`, `no_ultrapeer`, `daemon_not_running`, and what the daemon refuses otherwise.
pub async fn run(context: &Context, arguments: Arguments) -> Result<Exit, Failure> {
    let client = context.client()?;
    let began = Instant::now();
    let request = SearchRequest {
        query: arguments.query.join(" "),
        limit: arguments.limit,
        timeout_ms: Some(u64::try_from(arguments.timeout.as_millis()).unwrap_or(u64::MAX)),
        all: arguments.all.then_some(true),
    };
    let mut found = Found::new(context, arguments.sort);
    let spinner = context.console.progress().spinner("searching");
    let summary = tokio::select! {
        biased;
        () = context.interrupted() => None,
        ended = follow(context, &client, &request, &mut found) => Some(ended?),
    };
    drop(spinner);
    let Some(summary) = summary else {
        let summary = withdraw(&client, &mut found).await?;
        let summary = summary.unwrap_or_else(|| cut_short(&found, began.elapsed()));
        found.finish(&summary)?;
        return Ok(Exit::Interrupted);
    };
    found.finish(&summary)?;
    if summary.messages == 0 && summary.hits == 0 && summary.stopped == StopReason::Timeout {
        return Err(Failure::new(Code::NoUltrapeer, "no ultrapeer was found in time")
            .hint("`quictrack status` shows what keeps this node from the network"));
    }
    Ok(if summary.hits == 0 && found.hits.is_empty() { Exit::NothingFound } else { Exit::Done })
}

/// Starts the search and takes its events up to the summary.
async fn follow(
    context: &Context,
    client: &Client,
    request: &SearchRequest,
    found: &mut Found<'_>,
) -> Result<Summary, Failure> {
    let created: Created = client.post("searches", request).await.map_err(|error| context.failure(error))?;
    let path = format!("searches/{}/events", segment(&created.id));
    found.id = Some(created.id);
    let mut events = client.events(&path, None).await.map_err(|error| context.failure(error))?;
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| context.failure(error))?;
        let parsed = |error: ClientError| context.failure(error);
        match event.event.as_str() {
            "hit" => found.take(event.json().map_err(parsed)?)?,
            "summary" => return event.json().map_err(parsed),
            "error" => return Err(event.json::<ApiError>().map_err(parsed)?.into()),
            _ => {}
        }
    }
    Err(Failure::new(Code::Draining, "the daemon ended before the search did")
        .hint("`quictrack status` shows whether it runs again"))
}

/// Ends a search that the user interrupted. The summary, if the daemon still tells it.
async fn withdraw(client: &Client, found: &mut Found<'_>) -> Result<Option<Summary>, Failure> {
    /// The user waits, and the daemon is on this machine.
    const PATIENCE: Duration = Duration::from_secs(2);
    let Some(id) = found.id.clone() else { return Ok(None) };
    let path = format!("searches/{}", segment(&id));
    let ending = async {
        let mut events = client.events(&format!("{path}/events"), None).await.ok();
        // Forgotten already or gone: there is nothing left to end.
        let _ended = client.delete(&path).await;
        while let Some(event) = events.as_mut()?.next().await {
            let event = event.ok()?;
            match event.event.as_str() {
                "hit" => found.news.push(event.json().ok()?),
                "summary" => return event.json().ok(),
                _ => {}
            }
        }
        None
    };
    let summary = timeout(PATIENCE, ending).await.ok().flatten();
    for hit in std::mem::take(&mut found.news) {
        found.take(hit)?;
    }
    Ok(summary)
}

/// The summary of a search that was interrupted before anything was known of its end.
fn cut_short(found: &Found<'_>, elapsed: Duration) -> Summary {
    Summary {
        hits: u32::try_from(found.hits.len()).unwrap_or(u32::MAX),
        complete: false,
        stopped: StopReason::Cancelled,
        incomplete_reasons: Vec::new(),
        ultrapeers_asked: 0,
        ultrapeers_total: 0,
        shards_asked: 0,
        shards_total: 0,
        leaves_covered: 0,
        leaves_total: 0,
        messages: 0,
        withheld: 0,
        first_hit_ms: found.first.map(|first| first.as_micros() as f64 / 1000.0),
        elapsed_ms: elapsed.as_micros() as f64 / 1000.0,
    }
}

/// What was found so far, and what of it was printed.
struct Found<'a> {
    context: &'a Context,
    sort: Sort,
    began: Instant,
    id: Option<String>,
    hits: BTreeMap<ContentId, Hit>,
    /// Hits that came after the interrupt.
    news: Vec<Hit>,
    first: Option<Duration>,
}

impl<'a> Found<'a> {
    fn new(context: &'a Context, sort: Sort) -> Self {
        let hits = BTreeMap::new();
        Self { context, sort, began: Instant::now(), id: None, hits, news: Vec::new(), first: None }
    }

    /// A hit came: a new content, or better knowledge of one.
    fn take(&mut self, hit: Hit) -> Result<(), Failure> {
        self.first.get_or_insert_with(|| self.began.elapsed());
        let is_new = !self.hits.contains_key(&hit.content);
        if self.sort == Sort::Found && is_new {
            self.print_now(&hit)?;
        }
        if is_new && self.hits.len() >= limits::SEARCH_LIMIT_ALL as usize {
            return Ok(());
        }
        self.hits.insert(hit.content, hit);
        Ok(())
    }

    fn print_now(&self, hit: &Hit) -> Result<(), Failure> {
        let console = &self.context.console;
        if console.is_json() {
            return console.typed_line("hit", hit);
        }
        let (content, size, name) = (short(&hit.content), units::size(hit.size).to_string(), harmless(&hit.name));
        console.progress().suspend(|| console.text(format_args!("{content:SHORT$}  {size:>9}  {name}")))
    }

    /// Prints what is not yet printed, and the summary.
    fn finish(&self, summary: &Summary) -> Result<(), Failure> {
        let console = &self.context.console;
        let hits = self.sorted();
        if console.is_json() {
            if self.sort != Sort::Found {
                hits.iter().try_for_each(|hit| console.typed_line("hit", hit))?;
            }
            return console.typed_line("summary", summary);
        }
        if self.sort != Sort::Found {
            console.table(&table(&hits))?;
        }
        console.note(in_words(summary));
        if let Some(hit) = hits.first() {
            console.note(format_args!("download one with `quictrack get {}`", short(&hit.content)));
        }
        Ok(())
    }

    fn sorted(&self) -> Vec<&Hit> {
        let mut hits: Vec<&Hit> = self.hits.values().collect();
        hits.sort_by(|a, b| (&a.name, a.content).cmp(&(&b.name, b.content)));
        // Stable, so equal ones stay in the order of names.
        match self.sort {
            Sort::Rank => hits.sort_by_key(|hit| Reverse(hit.score)),
            Sort::Size => hits.sort_by_key(|hit| Reverse(hit.size)),
            Sort::Sources => hits.sort_by_key(|hit| Reverse(hit.sources)),
            Sort::Name | Sort::Found => {}
        }
        hits
    }
}

/// Hits for people.
pub(super) fn table(hits: &[&Hit]) -> Table {
    let mut table = Table::new([
        Column::left("content"),
        Column::right("size"),
        Column::right("sources"),
        Column::right("free slots"),
        Column::left("here"),
        Column::flexible("name"),
        Column::flexible("folder"),
    ]);
    for hit in hits {
        let folder = hit.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let here = match hit.have {
            Have::No => "",
            Have::Partial => "partly",
            Have::Yes => "yes",
        };
        table.row([
            &short(&hit.content),
            &units::size(hit.size).to_string(),
            &hit.sources.to_string(),
            &hit.free_slots.to_string(),
            here,
            &hit.name,
            folder,
        ]);
    }
    table
}

/// The summary for people.
fn in_words(summary: &Summary) -> String {
    let found = count(summary.hits.into(), "content");
    let asked = format!("{} of {} ultrapeers asked", summary.ultrapeers_asked, summary.ultrapeers_total);
    let end = match summary.stopped {
        StopReason::Exhausted if summary.complete => "complete".to_owned(),
        StopReason::Exhausted => format!("may be incomplete ({})", summary.incomplete_reasons.join(", ")),
        StopReason::Limit => "stopped at the limit; --all finds the rest".to_owned(),
        StopReason::Timeout => "the time was over; --timeout gives more".to_owned(),
        StopReason::Cancelled => "interrupted".to_owned(),
    };
    let withheld = match summary.withheld {
        0 => String::new(),
        withheld => format!(", {withheld} withheld"),
    };
    format!("{found}{withheld} in {:.1} ms, {asked}: {end}", summary.elapsed_ms)
}
