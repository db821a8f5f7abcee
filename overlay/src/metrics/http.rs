//! Requests of the local HTTP, by route template.
//!
//! Routes are known when an API is put together, so their series are created there, from the same
//! declarations. What fits no route is counted together, or a scanner could invent labels.

use std::time::Duration;

use metrics::Counter;
use rustc_hash::FxHashMap;

use super::HTTP_REQUEST_DURATION;

const NAME: &str = "quictrack_http_requests_total";
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The counters of every route of an API.
pub struct HttpRequests {
    routes: FxHashMap<String, Vec<(&'static str, RouteCounters)>>,
    unmatched: RouteCounters,
}

impl HttpRequests {
    /// Creates the series of all `(method, template)` at 0.
    pub fn register(routes: impl Iterator<Item = (&'static str, String)>) -> Self {
        let mut table: FxHashMap<String, Vec<(&'static str, RouteCounters)>> = FxHashMap::default();
        for (method, template) in routes {
            let counters = RouteCounters::new(method, template.clone());
            table.entry(template).or_default().push((method, counters));
        }
        Self { routes: table, unmatched: RouteCounters::new("other", "unmatched".to_owned()) }
    }

    /// The counters of a request. `HEAD` counts as the `GET` that it is.
    pub fn of(&self, method: &str, template: Option<&str>) -> &RouteCounters {
        let method = if method == "HEAD" { "GET" } else { method };
        let methods = template.and_then(|template| self.routes.get(template));
        let route = methods.and_then(|methods| methods.iter().find(|(known, _)| *known == method));
        route.map_or(&self.unmatched, |(_, counters)| counters)
    }
}

impl std::fmt::Debug for HttpRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpRequests").field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}

/// The counters of one method of one route.
pub struct RouteCounters([Counter; CLASSES.len()]);

impl RouteCounters {
    fn new(method: &'static str, route: String) -> Self {
        Self(
            CLASSES.map(|class| metrics::counter!(NAME, "route" => route.clone(), "method" => method, "code" => class)),
        )
    }

    /// Notes an answer by its status and the time until its head was ready.
    pub fn record(&self, status: u16, elapsed: Duration) {
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.0[class].increment(1);
        HTTP_REQUEST_DURATION.record_span((), elapsed);
    }
}

impl std::fmt::Debug for RouteCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RouteCounters")
    }
}

/// The family exists by its description even in a process that serves no API.
pub(super) fn describe() {
    metrics::describe_counter!(NAME, "Requests of the local HTTP API by route template, method and class of status.");
}
