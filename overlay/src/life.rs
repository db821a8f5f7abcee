//! The life of a daemon: when it is ready, when it reads its configuration again, when it ends.
//!
//! ```text
//!   start ──> ready ──────────────> draining ──────> exit 0
//!             READY=1, ready line   STOPPING=1          ^
//!               │    ^               first SIGINT or    │ second one: at once, 130 or 143
//!               └────┘               SIGTERM, or a request
//!               SIGHUP: RELOADING=1, then READY=1
//! ```
//!
//! A daemon that was started from a terminal drains at SIGHUP: that terminal is closing.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::server::BindError,
    config::Config,
    console::{Console, Failure},
    telemetry::Telemetry,
};

/// What a daemon is told to do. Cheap to clone; clones hear the same.
#[derive(Clone, Debug, Default)]
pub struct Life {
    draining: CancellationToken,
    reload: Arc<Notify>,
}

impl Life {
    /// A life that only requests end: for nodes inside another process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens to the signals of this process from now on, in a task that ends with the process. Called
    /// once, in a runtime, before anything that must be ended in order.
    ///
    /// # Errors
    /// If the system lets no handler be installed.
    pub fn of_process() -> io::Result<Self> {
        let life = Self::default();
        let from_terminal = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        let signals = Signals::install()?;
        tokio::spawn(life.clone().heed(signals, from_terminal));
        Ok(life)
    }

    /// Returns when the daemon must drain, at once if it already must. Cancel-safe.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// True if the daemon must drain.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// The token behind [`Self::draining`], for tasks that take one.
    pub fn token(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Tells the daemon to drain, as the first signal does.
    pub fn drain(&self) {
        if !self.draining.is_cancelled() {
            supervisor::stopping();
            self.draining.cancel();
        }
    }

    /// Returns when the configuration must be read again; once for any number of signals since the last
    /// return. Cancel-safe. For one task.
    pub async fn reload_requested(&self) {
        self.reload.notified().await;
    }

    /// Tells the daemon to read its configuration again, as SIGHUP does.
    pub fn reload(&self) {
        self.reload.notify_one();
    }

    async fn heed(self, mut signals: Signals, from_terminal: bool) {
        loop {
            match signals.next().await {
                Signal::HangUp if !from_terminal => self.reload(),
                Signal::HangUp => self.drain(),
                Signal::Interrupt | Signal::Terminate if !self.is_draining() => self.drain(),
                Signal::Interrupt => end_at_once(130),
                Signal::Terminate => end_at_once(143),
            }
        }
    }
}

/// A token that the first SIGINT or SIGTERM of this process cancels; the second ends the process at once. For commands
/// that have something to say at their end; a daemon has a [`Life`]. Call it once, in a runtime.
///
/// # Errors
/// If the system does not let this process hear its signals: then they end it as they would without this.
pub fn interruption() -> io::Result<CancellationToken> {
    let mut signals = Signals::install_ends()?;
    let interrupted = CancellationToken::new();
    let heard = interrupted.clone();
    tokio::spawn(async move {
        signals.next().await;
        heard.cancel();
        end_at_once(if signals.next().await == Signal::Terminate { 143 } else { 130 });
    });
    Ok(interrupted)
}

/// Keeps the values in effect those of the files: reads them again at SIGHUP and when the configuration
/// file changes, and makes the log follow `log` and `log_format` however they were changed. A file that is
/// wrong is reported and changes nothing. Runs until it is dropped.
pub async fn follow_configuration(config: &Config, life: &Life, telemetry: &Telemetry) {
    let mut settings = config.subscribe();
    loop {
        tokio::select! {
            () = life.reload_requested() => {
                supervisor::reloading();
                reload(config);
                supervisor::ready();
            }
            () = config.file_changed() => reload(config),
            Ok(()) = settings.changed() => {
                let settings = settings.borrow_and_update();
                telemetry.set_format(settings.log_format);
                if let Err(error) = telemetry.set_filter(settings.log.as_str()) {
                    tracing::error!(%error, "the log filter stays as it was");
                }
            }
        }
    }
}

fn reload(config: &Config) {
    match config.reload() {
        Ok(changes) if changes.rows.is_empty() => tracing::info!("configuration read again, nothing changed"),
        Ok(changes) => {
            let keys: Vec<_> = changes.rows.iter().map(|row| row.key).collect();
            tracing::info!(keys = keys.join(","), "configuration read again");
            let waiting: Vec<_> = changes.waiting_for_restart().collect();
            if !waiting.is_empty() {
                tracing::warn!(keys = waiting.join(","), "these changes take effect after a restart");
            }
        }
        Err(error) => {
            let hint = error.hint().unwrap_or_default();
            tracing::error!(hint, "the configuration stays as it was: {error}");
        }
    }
}

/// Binds the UDP socket of other nodes, with `bind`, by the rule of all listeners: an address that the user
/// set binds or fails; a default that is taken becomes a free port, with a warning. `first` is a port to try
/// before the default: the one that was chosen the last time. A default of all IPv6 addresses becomes all
/// IPv4 addresses on machines without IPv6.
///
/// # Errors
/// What the system refuses; nothing is left open.
pub fn bind_node<T>(
    address: SocketAddr,
    is_set: bool,
    first: Option<u16>,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, BindError> {
    if is_set {
        return bind(address).map_err(|error| refused(address, error));
    }
    if let Some(socket) = first.and_then(|port| bind(SocketAddr::new(address.ip(), port)).ok()) {
        return Ok(socket);
    }
    match bind(address) {
        Ok(socket) => Ok(socket),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            tracing::warn!(taken = %address, "default port taken, using a free one");
            let free = SocketAddr::new(address.ip(), 0);
            bind(free).map_err(|error| refused(free, error))
        }
        Err(_) if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) => {
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            bind_node(any, false, first, bind)
        }
        Err(error) => Err(refused(address, error)),
    }
}

fn refused(address: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { address },
        io::ErrorKind::PermissionDenied => BindError::Denied { address },
        _ => BindError::Other { address, source },
    }
}

/// The user wants it gone now: no destructor runs, files are as after a power failure, which they survive.
#[expect(clippy::exit, reason = "the second signal ends the process at once")]
fn end_at_once(code: i32) {
    std::process::exit(code);
}

/// A daemon's word that sockets are bound, the identity is loaded and the HTTP interface answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: &'static str,
    /// `leaf`, `ultrapeer` or `demo`.
    pub role: &'static str,
    /// The node.
    pub peer_id: String,
    /// The network's name.
    pub network: String,
    /// This process.
    pub pid: u32,
    /// The program's version.
    pub version: &'static str,
    /// The UDP address that other nodes use.
    pub quic: SocketAddr,
    /// The HTTP interface, if it is on, without a final `/`.
    pub api: Option<String>,
    /// The page, if there is one.
    pub web: Option<String>,
    /// The metrics, if they are on.
    pub metrics: Option<String>,
}

impl Ready {
    /// The line of a daemon that listens at these addresses.
    pub fn new(role: &'static str, peer_id: impl ToString, network: impl ToString, quic: SocketAddr) -> Self {
        Self {
            event: "ready",
            role,
            peer_id: peer_id.to_string(),
            network: network.to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            quic,
            api: None,
            web: None,
            metrics: None,
        }
    }

    /// With the HTTP interface at `url`, if it is on: [`Listener::url`]. `page` if it also serves the page.
    ///
    /// [`Listener::url`]: crate::admin::server::Listener::url
    pub fn api(mut self, url: Option<String>, page: bool) -> Self {
        self.web = url.as_ref().filter(|_| page).map(|url| format!("{url}/"));
        self.api = url;
        self
    }

    /// With the metrics of the listener at `url`, if they are on.
    pub fn metrics(mut self, url: Option<String>) -> Self {
        self.metrics = url.map(|url| format!("{url}/metrics"));
        self
    }

    /// Says it: `READY=1` to systemd, and one line on stdout, JSON or text. On a terminal the page's
    /// address carries the token, so that it can be opened with a click; elsewhere it could end in a log.
    ///
    /// # Errors
    /// A reader that left.
    pub fn announce(&self, console: &Console, token: Option<&str>) -> Result<(), Failure> {
        supervisor::ready();
        if console.is_json() {
            return console.line(self);
        }
        console.text(self.in_text(token.filter(|_| console.is_terminal())))
    }

    fn in_text(&self, token: Option<&str>) -> String {
        let mut text = format!("quictrack {} {} is ready", self.role, self.version);
        let web = self.web.as_ref().map(|web| token.map_or_else(|| web.clone(), |token| page_address(web, token)));
        let quic = self.quic.to_string();
        let rows = [
            ("peer id", Some(&self.peer_id)),
            ("network", Some(&self.network)),
            ("quic", Some(&quic)),
            ("api", self.api.as_ref()),
            ("page", web.as_ref()),
            ("metrics", self.metrics.as_ref()),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n  {name:<8} {value}");
            }
        }
        text
    }
}

/// The page's address with the token in its fragment, which browsers never send and servers never log.
pub fn page_address(web: &str, token: &str) -> String {
    format!("{web}#token={token}")
}

/// What systemd is told, if it supervises the process. Nothing happens otherwise.
pub mod supervisor {
    /// The daemon is ready, or has finished reading its configuration again.
    pub fn ready() {
        #[cfg(target_os = "linux")]
        say(&[sd_notify::NotifyState::Ready]);
    }

    /// The daemon reads its configuration again; [`ready`] must follow.
    pub fn reloading() {
        #[cfg(target_os = "linux")]
        if let Ok(now) = sd_notify::NotifyState::monotonic_usec_now() {
            say(&[sd_notify::NotifyState::Reloading, now]);
        }
    }

    /// The daemon drains.
    pub fn stopping() {
        #[cfg(target_os = "linux")]
        say(&[sd_notify::NotifyState::Stopping]);
    }

    /// Tells the watchdog of systemd, if it is on, twice in each of its periods that the runtime works.
    /// Runs until it is dropped, or returns at once without a watchdog. Cancel-safe.
    pub async fn feed_watchdog() {
        #[cfg(target_os = "linux")]
        if let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) {
            let mut ticks = tokio::time::interval(period / 2);
            loop {
                ticks.tick().await;
                say(&[sd_notify::NotifyState::Watchdog]);
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn say(states: &[sd_notify::NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "systemd cannot be notified");
        }
    }
}

/// The signals that a daemon heeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Interrupt,
    Terminate,
    /// Sent only on Unix.
    #[cfg_attr(not(unix), expect(dead_code, reason = "the other systems have no such signal"))]
    HangUp,
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None` where a closed terminal simply ends the process, or is ignored, as `nohup` wants it.
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { hang_up: Some(signal(SignalKind::hangup())?), ..Self::install_ends()? })
    }

    /// Only those that ask for the end.
    fn install_ends() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hang_up: None })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            () = heard(self.hang_up.as_mut()) => Signal::HangUp,
        }
    }
}

#[cfg(unix)]
async fn heard(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

#[cfg(windows)]
struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    terminate: tokio::signal::windows::CtrlClose,
}

#[cfg(windows)]
impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()?, terminate: tokio::signal::windows::ctrl_close()? })
    }

    fn install_ends() -> io::Result<Self> {
        Self::install()
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::error::Code;

    fn ready() -> Ready {
        Ready::new("leaf", "abc", "public", "127.0.0.1:40001".parse().unwrap())
            .api(Some("http://127.0.0.1:40002".into()), true)
    }

    #[test]
    fn the_ready_line_is_the_contract() {
        let line = serde_json::to_string(&ready().metrics(Some("http://127.0.0.1:40003".into()))).unwrap();
        let want = format!(
            "{{\"event\":\"ready\",\"role\":\"leaf\",\"peer_id\":\"abc\",\"network\":\"public\",\"pid\":{},\"version\":\"{}\",\
             \"quic\":\"127.0.0.1:40001\",\"api\":\"http://127.0.0.1:40002\",\"web\":\"http://127.0.0.1:40002/\",\
             \"metrics\":\"http://127.0.0.1:40003/metrics\"}}",
            std::process::id(),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(line, want);
        let off = serde_json::to_value(ready().api(None, true)).unwrap();
        assert!(off["api"].is_null() && off["web"].is_null() && off["metrics"].is_null());
    }

    #[test]
    fn the_token_stands_only_in_the_page_address_of_a_terminal() {
        assert!(ready().in_text(Some("secret")).contains("page     http://127.0.0.1:40002/#token=secret"));
        assert!(!ready().in_text(None).contains("token"));
    }

    #[tokio::test]
    async fn requests_are_heard_by_clones_and_by_those_who_come_late() {
        let life = Life::new();
        let other = life.clone();
        life.reload();
        life.reload();
        other.reload_requested().await;
        assert!(!other.is_draining());
        life.drain();
        life.drain();
        other.draining().await;
        assert!(other.is_draining());
    }

    #[test]
    fn a_default_that_is_taken_becomes_a_free_port_and_a_set_address_does_not() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let listen = std::net::UdpSocket::bind::<SocketAddr>;
        let free = bind_node(address, false, None, listen).unwrap();
        assert_ne!(free.local_addr().unwrap().port(), address.port());
        let failure = Failure::from(bind_node(address, true, None, listen).unwrap_err());
        assert_eq!((failure.code, failure.exit.number()), (Code::AddressInUse, 1));
        assert!(failure.hint.is_some());
        let port = free.local_addr().unwrap().port();
        drop(free);
        let again = bind_node(address, false, Some(port), listen).unwrap();
        assert_eq!(again.local_addr().unwrap().port(), port);
    }

    #[test]
    fn without_ipv6_the_default_is_all_ipv4_addresses() {
        let only_ipv4 = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(address),
            SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(97)),
        };
        let bound = bind_node("[::]:7780".parse().unwrap(), false, None, only_ipv4);
        assert_eq!(bound.unwrap(), "0.0.0.0:7780".parse().unwrap());
        assert!(bind_node("[::]:7780".parse().unwrap(), true, None, only_ipv4).is_err());
    }
}
