//! Runs the leaf's network machine on tokio and QUIC: dials, home links, search streams.
//!
//! ```text
//!   join names ──resolve──> machine ──Dial──> home link (tasks of one connection)
//!   user ──search──> machine ──Ask──> search stream ──Answer──> machine ──Show, End──> user
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use overlay::{
    address::{JoinAddress, Reach},
    bans::Rules,
    batch,
    credit::TokenBucket,
    discovery::Hint,
    drive::{Clock, Driver, Handle, Stopped, Tasks, system_rng},
    election::Regime,
    id::{ContentId, HandleSalt, PeerId},
    identity::Identity,
    introduction::Nature,
    limits,
    metrics::{BootstrapResult, BootstrapSource},
    transport::{CloseCode, Connection, DialError, Endpoint, Greeting, Sender},
    wire::{
        bounded::List,
        descriptor::{Descriptor, SignedDescriptor},
        election::{Hurdle, Invitation},
        hello::{Contact, Refuse, RefuseReason, Situation},
        leaf::{DialBackAsk, LeafMessage, LeafState, MembersAsk},
        possession::{PossessionAnswer, PossessionAsk},
        search::Hit,
    },
};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    Input, Network as Core, Output,
    home_link::HomePort,
    joining::{self, Join},
};
use crate::{
    approach::Approaches,
    candidacy::{Criterion, Machinery},
    catalog::Catalog,
    founding::{Begin, Role, Willing},
    home_audits::Picked,
    homes::Own,
    metrics::{FAILOVER, HOME_SWITCHES},
    possession::{self, Answers},
    search::{End, Request, Ticket},
    store::Shares,
    transfer::serve::Uploads,
    wishes::{Number, Source},
};

/// Where the leaf's file list comes from: what it shares, or made-up lists of load programs.
pub trait FileList: std::fmt::Debug + Send + Sync {
    /// The list as it is published now.
    fn catalog(&self) -> Arc<Catalog>;

    /// Signalled, with its sequence, when another list is published.
    fn watch_catalog(&self) -> watch::Receiver<u64>;

    /// Shows a home that a content of the list is here.
    fn prove(&self, ask: PossessionAsk) -> BoxFuture<'_, PossessionAnswer>;
}

impl FileList for Shares {
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog()
    }

    fn watch_catalog(&self) -> watch::Receiver<u64> {
        self.watch_catalog()
    }

    fn prove(&self, ask: PossessionAsk) -> BoxFuture<'_, PossessionAnswer> {
        Box::pin(possession::prove(self, ask))
    }
}

/// What the leaf's side of the network is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The name of the network.
    pub network: String,
    /// What it asks of its ultrapeers.
    pub regime: Regime,
    /// Nodes to join through.
    pub join: Vec<JoinAddress>,
    /// Whether nodes are looked for in other ways, too: by names, in the local network, in the DHT.
    pub seeks: bool,
    /// Ultrapeers of earlier sessions.
    pub remembered: Vec<SignedDescriptor>,
    /// Leaves of earlier sessions that would be ultrapeers.
    pub volunteers: Vec<Contact>,
    /// When this node serves as an ultrapeer.
    pub willing: Willing,
}

/// The leaf in its network. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) identity: Arc<Identity>,
    pub(super) machine: Handle<Core>,
    pub(super) list: Arc<dyn FileList>,
    pub(super) tasks: Tasks,
    pub(super) clock: Clock,
    pub(super) load: watch::Sender<LeafState>,
    /// Whether this node would be an ultrapeer.
    pub(super) willing: watch::Sender<bool>,
    pub(super) homes: Mutex<BTreeMap<PeerId, HomePort>>,
    pub(super) changed: watch::Sender<u64>,
    salt: HandleSalt,
    pub(super) join: Mutex<Join>,
    pub(super) join_changed: Notify,
    /// The addresses of the join targets, which target each is of, and how that came to be one.
    targets: Mutex<BTreeMap<SocketAddr, (String, BootstrapSource)>>,
    /// Where ultrapeers of earlier sessions were.
    remembered: BTreeSet<SocketAddr>,
    problems: Mutex<BTreeMap<String, JoinProblem>>,
    searches: Mutex<BTreeMap<Ticket, mpsc::Sender<SearchNews>>>,
    streams: Mutex<BTreeMap<(Ticket, PeerId), tokio::task::AbortHandle>>,
    tickets: AtomicU64,
    /// What homes are shown of the files.
    pub(super) answers: Answers,
    /// What homes are told of sources.
    pub(super) complaints: Mutex<TokenBucket>,
    wish_news: mpsc::Sender<WishNews>,
    /// Until it is taken.
    wish_news_end: Mutex<Option<mpsc::Receiver<WishNews>>>,
    begins: watch::Sender<Option<Begin>>,
    /// What is in front of this leaf.
    pub(super) nature: watch::Sender<Nature>,
    /// Where it is reached, if no home sees it there.
    elsewhere: watch::Sender<Option<SocketAddr>>,
    pub(super) approaches: Mutex<Approaches>,
    /// Leaves that were asked to dial this one, with the token that they bring.
    pub(super) pushes: Mutex<BTreeMap<(PeerId, u64), oneshot::Sender<Connection>>>,
    /// Serves those that reach this leaf.
    pub(super) uploads: OnceLock<Uploads>,
}

/// A home, for `status`.
#[derive(Clone, Copy, Debug)]
pub struct HomeStatus {
    /// Its key.
    pub peer: PeerId,
    /// Where it was dialled.
    pub address: SocketAddr,
    /// The round trip.
    pub rtt: Duration,
    /// How long it has been a home.
    pub age: Duration,
    /// Sequence of the newest list that it acknowledged.
    pub sequence: Option<u64>,
    /// Files of that list that are searchable there.
    pub acknowledged: u64,
    /// Where it sees this leaf.
    pub observed: SocketAddr,
}

/// Why a join target did not lead into the network.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JoinProblem {
    /// Its name does not resolve.
    #[error("its name has no address: {0}")]
    Name(String),
    /// It could not be dialled, or refused.
    #[error(transparent)]
    Dial(DialError),
}

/// What a search tells its user.
#[derive(Clone, Debug)]
pub enum SearchNews {
    /// A new content, or better knowledge of one that was told.
    Hit(Box<Hit>),
    /// The end; the last that comes.
    End(End),
}

/// What wishes tell their owner.
#[derive(Clone, Debug)]
pub enum WishNews {
    /// What is there already shall be searched for.
    Search(Number, Source),
    /// A content that is new to a wish.
    Found(Number, Box<Hit>),
}

impl Network {
    /// Enters the network from `endpoint`. Fails only where the system has no random numbers.
    pub fn start(
        endpoint: Endpoint,
        identity: Arc<Identity>,
        list: Arc<dyn FileList>,
        clock: Clock,
        start: Start,
        tasks: &Tasks,
    ) -> std::io::Result<Self> {
        let rng = system_rng()?;
        let (machine, driver) = Driver::new(Core::new(identity.peer_id(), &start.network, start.regime));
        let (wish_news, wish_news_end) = mpsc::channel(limits::WISH_NEWS);
        let shared = Arc::new(Shared {
            endpoint,
            identity,
            machine,
            list,
            tasks: tasks.child(),
            clock,
            load: watch::Sender::new(LeafState::default()),
            willing: watch::Sender::new(start.willing != Willing::Never),
            homes: Mutex::default(),
            changed: watch::Sender::new(0),
            salt: HandleSalt::random()?,
            join: Mutex::new(Join::new(start.join, start.seeks)),
            join_changed: Notify::new(),
            targets: Mutex::default(),
            remembered: start.remembered.iter().filter_map(|known| Some(known.open().ok()?.address)).collect(),
            problems: Mutex::default(),
            searches: Mutex::default(),
            streams: Mutex::default(),
            tickets: AtomicU64::new(1),
            answers: Answers::new(),
            complaints: Mutex::new(TokenBucket::new(clock.now(), limits::COMPLAINT_RATE, limits::COMPLAINT_BURST)),
            wish_news,
            wish_news_end: Mutex::new(Some(wish_news_end)),
            begins: watch::Sender::new(None),
            nature: watch::Sender::default(),
            elsewhere: watch::Sender::default(),
            approaches: Mutex::default(),
            pushes: Mutex::default(),
            uploads: OnceLock::new(),
        });
        let (carrier, token) = (shared.clone(), shared.tasks.token());
        shared.tasks.spawn_to_end("network", async move {
            driver.run(clock, rng, token, |_, output| carrier.carry_out(output)).await;
        });
        let known = vec![
            Input::Willing(start.willing),
            Input::Volunteers(start.volunteers),
            Input::Remembered(start.remembered),
        ];
        shared.tasks.spawn("join", joining::run(shared.clone(), known));
        Ok(Self { shared })
    }

    /// The homes, by key.
    pub fn homes(&self) -> Vec<HomeStatus> {
        let now = self.shared.clock.now();
        self.shared.homes().values().map(|home| home.status(now)).collect()
    }

    /// Signalled when homes come, go, or acknowledge a list.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Files that some home has acknowledged of the list with that sequence or a newer one; `None` if none has.
    pub fn acknowledged(&self, sequence: u64) -> Option<u64> {
        let homes = self.homes();
        let current = homes.iter().filter(|home| home.sequence.is_some_and(|acknowledged| acknowledged >= sequence));
        current.map(|home| home.acknowledged).max()
    }

    /// Files of this leaf that some home has.
    pub fn searchable(&self) -> u64 {
        self.homes().iter().map(|home| home.acknowledged).max().unwrap_or(0)
    }

    /// Whom this leaf does not deal with, and what is blocked.
    pub fn bans(&self) -> Arc<Rules> {
        self.shared.endpoint.bans()
    }

    /// Ultrapeers in the network, as the homes tell.
    pub async fn ultrapeers(&self) -> u32 {
        self.shared.machine.inspect(|core| core.homes().ultrapeers()).await.unwrap_or(0)
    }

    /// All ultrapeers that are known, and whether each is a home.
    pub async fn known(&self) -> Vec<(Descriptor, bool)> {
        let look = |core: &Core| core.homes().known().map(|(known, home)| (known.clone(), home)).collect();
        self.shared.machine.inspect(look).await.unwrap_or_default()
    }

    /// Descriptors to keep for the next session, and to name to those who ask.
    pub async fn remember(&self) -> Vec<SignedDescriptor> {
        self.shared.machine.inspect(|core| core.homes().remember()).await.unwrap_or_default()
    }

    /// Nodes that may know ultrapeers.
    pub async fn contacts(&self) -> Vec<Contact> {
        self.shared.machine.inspect(|core| core.founding().contacts()).await.unwrap_or_default()
    }

    /// Leaves that would be ultrapeers, to keep for the next session.
    pub async fn volunteers(&self) -> Vec<Contact> {
        let look = |core: &Core| core.founding().volunteers().copied().collect();
        self.shared.machine.inspect(look).await.unwrap_or_default()
    }

    /// When this node serves as an ultrapeer, from now on.
    pub async fn set_willing(&self, willing: Willing) {
        // A machine that stopped begins nothing.
        let _ = self.shared.machine.input(Input::Willing(willing)).await;
        self.offer().await;
    }

    /// What this node runs on, from now on.
    pub async fn set_machinery(&self, machinery: Machinery) {
        // As above.
        let _ = self.shared.machine.input(Input::Conditions(machinery)).await;
        self.offer().await;
    }

    /// Tells the homes whether this node would serve.
    async fn offer(&self) {
        let willing = self.shared.machine.inspect(|core| core.candidacy().is_willing()).await.unwrap_or(false);
        self.shared.willing.send_if_modified(|known| std::mem::replace(known, willing) != willing);
    }

    /// What those who vote said against this node.
    pub async fn set_hurdle(&self, hurdle: Option<Hurdle>) {
        // As above.
        let _ = self.shared.machine.input(Input::Hurdle(hurdle)).await;
    }

    /// What this leaf shows to those who vote on it.
    pub async fn invitations(&self) -> Vec<Invitation> {
        self.shared.machine.inspect(|core| core.candidacy().invitations()).await.unwrap_or_default()
    }

    /// What stands between this leaf and serving, and whether homes have reached it from outside.
    pub async fn candidacy(&self) -> (Vec<Criterion>, Option<bool>) {
        // As others see it; what more of the world can use tells more.
        let observed = self.homes().into_iter().map(|home| home.observed.ip()).max_by_key(|ip| Reach::of(*ip));
        let look = move |core: &Core| (core.candidacy().criteria(observed), core.candidacy().is_reached());
        self.shared.machine.inspect(look).await.unwrap_or_default()
    }

    /// What homes saw this leaf send, in kbit/s; `None` if none measured it.
    pub async fn upstream_kbit(&self) -> Option<u32> {
        self.shared.machine.inspect(|core| core.candidacy().upstream_kbit()).await.ok().flatten()
    }

    /// What this node is from now on; an ultrapeer with where it is dialled and what it covers.
    pub async fn set_role(&self, role: Role, own: Option<Own>) {
        // A machine that stopped dials nobody.
        let _ = self.shared.machine.input(Input::Role(role, own)).await;
    }

    /// Follows how this node is to become an ultrapeer: the latest wish, until a role is set.
    pub fn begins(&self) -> watch::Receiver<Option<Begin>> {
        self.shared.begins.subscribe()
    }

    /// Another leaf dialled this one, which is no ultrapeer: the answer.
    pub async fn refusal(&self, contact: Contact, situation: Situation) -> Refuse {
        // A guest wants something else than a home. A machine that stopped knows nobody.
        if situation != Situation::Guest {
            let _ = self.shared.machine.input(Input::Knocked(contact, situation)).await;
        }
        let now = self.shared.clock.now();
        let look = move |core: &Core| {
            let founding = core.founding();
            (core.homes().remember(), founding.situation(), founding.named_to(now, &contact))
        };
        let (mut known, situation, contacts) = self.shared.machine.inspect(look).await.unwrap_or_default();
        known.truncate(limits::ALTERNATIVES);
        Refuse { situation, contacts: List::new(contacts), ..Refuse::new(RefuseReason::NotUltrapeer, known) }
    }

    /// What went wrong with the join targets lately, by target.
    pub fn problems(&self) -> Vec<(String, JoinProblem)> {
        let problems = self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.iter().map(|(target, problem)| (target.clone(), problem.clone())).collect()
    }

    /// Other nodes to join through count from now on.
    pub fn set_join(&self, join: Vec<JoinAddress>) {
        lock(&self.shared.join).targets = join;
        self.shared.join_changed.notify_one();
    }

    /// These names are nodes to join through, too, from now on.
    pub fn set_names(&self, names: Vec<JoinAddress>) {
        lock(&self.shared.join).names = names;
        self.shared.join_changed.notify_one();
    }

    /// Dials an address where somebody says that a node of the network is, and stays attached to it if it is an
    /// ultrapeer; what came of it.
    pub async fn try_hint(&self, hint: Hint) -> BootstrapResult {
        super::home_link::try_hint(&self.shared, hint).await
    }

    /// A router says that it forwards packets to this leaf from there; `None` if none does any more.
    pub async fn set_mapped(&self, address: Option<SocketAddr>) {
        // A machine that stopped is reached nowhere.
        let _ = self.shared.machine.input(Input::Mapped(address)).await;
    }

    /// Tells the homes how busy this leaf is: how many upload slots are free, and how many wait for one.
    pub fn set_load(&self, free_slots: u16, queue: u32) {
        self.shared.load.send_if_modified(|known| {
            let load = LeafState { free_slots, queue, ..*known };
            std::mem::replace(known, load) != load
        });
    }

    /// What is in front of this leaf, as far as is known.
    pub fn nature(&self) -> Nature {
        *self.shared.nature.borrow()
    }

    /// Where this leaf is reached although no home sees it there: a router forwards that port to it, and a home came
    /// through.
    pub fn elsewhere(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.shared.elsewhere.subscribe()
    }

    /// This node listens elsewhere now: it attaches to its homes anew, which name it to others where they see it. A home
    /// lets go of the old connection when it has the new one.
    pub fn moved(&self) {
        let homes: Vec<_> = self.shared.homes().iter().map(|(peer, port)| (*peer, port.address())).collect();
        for (peer, address) in homes {
            if peer == self.shared.endpoint.peer() {
                // It moved along, and is dialled where it is now.
                if let Some(own) = self.shared.homes().get(&peer) {
                    own.connection.close(CloseCode::Replaced);
                }
                continue;
            }
            self.shared.tasks.spawn("home", super::home_link::attach(self.shared.clone(), address, Some(peer), true));
        }
    }

    /// Starts a search. News end with [`SearchNews::End`]; dropping the receiver cancels the search.
    pub async fn search(&self, request: Request) -> Result<(Ticket, mpsc::Receiver<SearchNews>), Stopped> {
        let ticket = self.shared.tickets.fetch_add(1, Ordering::Relaxed);
        let room = (request.limit as usize).saturating_mul(4).clamp(limits::HITS_PER_FRAME, limits::SEARCH_NEWS);
        let (sender, receiver) = mpsc::channel(room);
        let gone = sender.clone();
        lock(&self.shared.searches).insert(ticket, sender);
        self.shared.machine.input(Input::Search(ticket, request)).await?;
        let machine = self.shared.machine.clone();
        self.shared.tasks.spawn("search", async move {
            gone.closed().await;
            // A machine that stopped has no searches.
            let _ = machine.input(Input::Cancel(ticket)).await;
        });
        Ok((ticket, receiver))
    }

    /// Ends a search; its summary still comes.
    pub async fn cancel(&self, ticket: Ticket) {
        // A machine that stopped has no searches.
        let _ = self.shared.machine.input(Input::Cancel(ticket)).await;
    }

    /// Wishes for what a query matches, of which these contents were found before, the oldest first.
    pub async fn wish(&self, number: Number, query: Source, found: Vec<ContentId>) {
        // A machine that stopped has no wishes.
        let _ = self.shared.machine.input(Input::Wish(number, query, found)).await;
    }

    /// Wishes for it no more.
    pub async fn unwish(&self, number: Number) {
        // A machine that stopped has no wishes.
        let _ = self.shared.machine.input(Input::Unwish(number)).await;
    }

    /// A search for a wish found something.
    pub async fn wish_found(&self, number: Number, hit: Box<Hit>) {
        // A machine that stopped has no wishes.
        let _ = self.shared.machine.input(Input::WishFound(number, hit)).await;
    }

    /// What wishes tell; `None` if somebody has taken it before.
    pub fn take_wish_news(&self) -> Option<mpsc::Receiver<WishNews>> {
        lock(&self.shared.wish_news_end).take()
    }

    /// Says good-bye to all homes and waits until they heard it, at most `patience`.
    pub async fn leave(&self, patience: Duration) {
        // A machine that stopped dials nobody either.
        let _ = self.shared.machine.input(Input::Leave).await;
        let homes = std::mem::take(&mut *self.shared.homes());
        let farewells = homes.into_values().map(HomePort::leave);
        // Homes that do not listen notice by themselves.
        let _ = timeout(patience, futures_util::future::join_all(farewells)).await;
    }
}

impl Shared {
    pub(super) fn homes(&self) -> MutexGuard<'_, BTreeMap<PeerId, HomePort>> {
        lock(&self.homes)
    }

    /// Forgets a home whose connection ended. False if a newer connection to it has taken its place.
    pub(super) fn forget_home(&self, connection: &Connection) -> bool {
        let mut homes = self.homes();
        let is_current = homes.get(&connection.peer()).is_none_or(|port| port.connection.id() == connection.id());
        if is_current {
            homes.remove(&connection.peer());
        }
        is_current
    }

    pub(super) fn signal(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(super) async fn greeting(&self, insists: bool) -> Greeting {
        // Without a machine this leaf is about to end.
        let situation = self.machine.inspect(|core| core.founding().situation()).await.unwrap_or_default();
        Greeting { salt: self.salt, introduction: 0, insists, situation }
    }

    /// Puts a message for a home into its queue. A home that takes nothing is given up by those who wait for it.
    pub(super) fn say(&self, peer: &PeerId, message: impl Into<LeafMessage>) {
        if let Some(home) = self.homes().get(peer) {
            home.say(message.into());
        }
    }

    fn carry_out(self: &Arc<Self>, output: Output) {
        match output {
            Output::Dial { address, peer, insists } => {
                self.tasks.spawn("home", super::home_link::attach(self.clone(), address, peer, insists));
            }
            Output::Contact(contact) => {
                self.tasks.spawn("contact", super::home_link::contact(self.clone(), contact));
            }
            Output::Begin(begin) => {
                self.begins.send_replace(Some(begin));
            }
            Output::Measure(peer, address) => {
                let shared = self.clone();
                self.tasks.spawn("measure", async move {
                    let distance = shared.endpoint.measure(address).await;
                    // A machine that stopped measures nothing.
                    let _ = shared.machine.input(Input::Measured(peer, distance)).await;
                });
            }
            Output::Pick(home, random) => {
                let shared = self.clone();
                self.tasks.spawn("pick", async move {
                    let catalog = shared.list.catalog();
                    let picked = tokio::task::spawn_blocking(move || pick(&catalog, random)).await.ok().flatten();
                    // A machine that stopped audits nobody.
                    let _ = shared.machine.input(Input::Picked(home, picked)).await;
                });
            }
            Output::Count(count) => crate::metrics::home_audited(count),
            Output::AskMembers(peer, most) => self.say(&peer, MembersAsk { most }),
            Output::AskView(peer, ask) => self.say(&peer, ask),
            Output::AskDialBack(peer, port) => self.say(&peer, DialBackAsk { port }),
            Output::Nature(nature, elsewhere) => {
                self.nature.send_replace(nature);
                self.elsewhere.send_replace(elsewhere);
                self.load.send_modify(|state| state.reachability = nature.reachability);
            }
            Output::Release(peer, why) => {
                if let Some(home) = self.homes().get(&peer).cloned() {
                    HOME_SWITCHES.increment(why.into());
                    self.tasks.spawn("good-bye", async move {
                        let connection = home.connection.clone();
                        if timeout(limits::LEAVE_TIMEOUT, home.leave()).await.is_err() {
                            connection.close(CloseCode::Shutdown);
                        }
                    });
                }
            }
            Output::Restored(span) => FAILOVER.record_span((), span),
            Output::HomesChanged => self.signal(),
            Output::Suspect(peer) => {
                if let Some(home) = self.homes().get(&peer) {
                    home.suspect();
                }
            }
            Output::Ask(ticket, peer, search) => {
                let task = self.tasks.spawn("ask", ask(self.clone(), ticket, peer, search));
                lock(&self.streams).insert((ticket, peer), task);
            }
            Output::Drop(ticket, peer) => {
                if let Some(task) = lock(&self.streams).remove(&(ticket, peer)) {
                    task.abort();
                }
            }
            Output::Show(ticket, hit) => self.news(ticket, SearchNews::Hit(hit)),
            Output::End(ticket, end) => {
                self.news(ticket, SearchNews::End(end));
                lock(&self.searches).remove(&ticket);
            }
            Output::TellWishes(peer, wishes) => {
                if let Some(home) = self.homes().get(&peer) {
                    home.wish(wishes);
                }
            }
            Output::SearchWish(number, query) => self.wish_news(WishNews::Search(number, query)),
            Output::ShowWish(number, hit) => self.wish_news(WishNews::Found(number, hit)),
        }
    }

    fn wish_news(&self, news: WishNews) {
        if self.wish_news.try_send(news).is_err() {
            tracing::warn!(
                "what a wish found cannot be recorded as fast as it comes; it is found again after a restart"
            );
        }
    }

    fn news(&self, ticket: Ticket, news: SearchNews) {
        let full = lock(&self.searches).get(&ticket).is_some_and(|user| user.try_send(news).is_err());
        if full {
            // Its user does not read: the stream of news ends, which it sees as a search cut short.
            lock(&self.searches).remove(&ticket);
        }
    }

    /// An address could not be joined. That of a join target is the user's business, and told in the log when it
    /// is news.
    pub(super) fn join_failed(&self, address: SocketAddr, error: DialError) {
        tracing::debug!(%address, %error, "an ultrapeer could not be joined");
        if let Some((target, _)) = lock(&self.targets).get(&address) {
            self.problem(address.to_string(), target, JoinProblem::Dial(error));
        }
    }

    /// Who named an address.
    pub(super) fn source_of(&self, address: SocketAddr) -> BootstrapSource {
        let target = lock(&self.targets).get(&address).map(|(_, source)| *source);
        let other = if self.remembered.contains(&address) { BootstrapSource::Cache } else { BootstrapSource::Peer };
        target.unwrap_or(other)
    }

    pub(super) fn problem(&self, key: String, target: &str, problem: JoinProblem) {
        let mut problems = lock(&self.problems);
        let is_news = problems.get(&key).is_none_or(|known| known.to_string() != problem.to_string());
        if is_news {
            tracing::warn!(
                join = target,
                "this join target does not lead into the network, and is tried again: {problem}"
            );
        }
        problems.insert(key, problem);
        while problems.len() > limits::JOIN_TARGETS {
            problems.pop_last();
        }
    }

    /// Other addresses are those of the join targets now; what is not among them is nobody's problem any more.
    pub(super) fn set_targets(
        &self,
        addresses: BTreeMap<SocketAddr, (String, BootstrapSource)>,
        unresolved: &[String],
    ) {
        lock(&self.problems).retain(|key, problem| match problem {
            JoinProblem::Name(_) => unresolved.contains(key),
            JoinProblem::Dial(_) => key.parse().is_ok_and(|address| addresses.contains_key(&address)),
        });
        *lock(&self.targets) = addresses;
    }

    pub(super) fn forget_problems(&self) {
        lock(&self.problems).clear();
    }
}

/// A file of a list, by a random number.
fn pick(catalog: &Catalog, random: u64) -> Option<Picked> {
    let mut place = usize::try_from(random.checked_rem(catalog.files())?).ok()?;
    for chunk in catalog.chunks() {
        match place.checked_sub(chunk.files as usize) {
            Some(rest) => place = rest,
            None => {
                let files = batch::decode_chunk(catalog.chunk_bytes(&chunk.hash)?).ok()?;
                let file = files.into_iter().nth(place)?;
                return Some(Picked { content: file.content, path: file.path, sequence: catalog.sequence() });
            }
        }
    }
    None
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every operation leaves the value whole, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries one search to one home and its answers back.
async fn ask(shared: Arc<Shared>, ticket: Ticket, peer: PeerId, search: overlay::wire::search::Search) {
    let connection = shared.homes().get(&peer).map(|home| home.connection.clone());
    if let Some(connection) = connection
        && let Ok((mut sender, mut receiver)) = connection.open::<LeafMessage>().await
        && send(&mut sender, search).await
    {
        while let Ok(Some(message)) = receiver.next().await {
            let last = matches!(message, LeafMessage::Summary(_));
            if shared.machine.input(Input::Answer(ticket, peer, message)).await.is_err() || last {
                lock(&shared.streams).remove(&(ticket, peer));
                return;
            }
        }
    }
    lock(&shared.streams).remove(&(ticket, peer));
    // A machine that stopped has no searches.
    let _ = shared.machine.input(Input::AnswerLost(ticket, peer)).await;
}

async fn send(sender: &mut Sender<LeafMessage>, search: overlay::wire::search::Search) -> bool {
    sender.send(&search.into()).await.is_ok()
}
