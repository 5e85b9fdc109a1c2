//! The server: rooms and what is in them, and the worker processes that serve them.

mod active_speaker;
mod audio_levels;
mod consumer;
mod desired;
mod dtls_certificate;
mod dump;
mod error;
mod event;
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "fuzzing needs less of it"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod fake;
mod get_stats;
mod limits;
mod peer;
mod peer_notification;
mod pending;
mod periodic_stats;
mod placement;
mod ports;
mod producer;
mod room;
mod rtc_stats;
mod rtp_capabilities;
#[allow(dead_code, unused_imports, reason = "the protocol uses it")]
mod rtp_parameters;
mod rtp_streamer;
mod settings;
mod shortage;
mod sockets;
mod state;
mod steering;
mod supervision;
#[cfg(test)]
mod tests;
mod transport;
mod worker_log;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::lanes::Lane;
use weir_channel::message::{Coalescing, DtlsCertificate, LogFilter, Method, Reply, WorkerStats};

pub use self::active_speaker::{ActiveSpeaker, ActiveSpeakerDetector};
pub use self::audio_levels::{AudioLevelsStream, ProducerLevel};
pub use self::consumer::{Consumer, EnableOptions};
pub use self::dump::{PeerDump, RoomDump, ServerDump, WorkerDump};
pub use self::error::{DeathCause, Error, StartError};
pub use self::event::{AudioLevel, CloseCause, Event, EventKind, EventStream, Originator};
pub use self::peer::{Joined, Peer, PeerInfo, PeerOptions};
pub use self::peer_notification::{ConsumerInfo, PeerNotification, PeerNotifications};
pub(crate) use self::periodic_stats::{STATS_INTERVAL_MAX, STATS_INTERVAL_MIN};
#[cfg(feature = "http")]
pub(crate) use self::periodic_stats::{StatsStream, Subject};
pub use self::producer::Producer;
pub use self::room::{IpFamily, PlainTransportOptions, Room, RoomOptions};
pub use self::rtc_stats::{
    InboundRtpStats, LocalBandwidth, OutboundRtpStats, RemoteBandwidth, RtcStats, RtcTransportStats, RtcTuple,
    RtpStreamRtcStats,
};
pub(crate) use self::rtp_capabilities::ProducerMapping;
pub use self::rtp_capabilities::{RtpCapabilities, RtpCodecCapability, RtpHeaderExtensionCapability};
pub use self::rtp_parameters::{
    ConsumerRtp, RtcpFeedback, RtcpParameters, RtpCodec, RtpEncoding, RtpHeaderExtension, RtpParameters, RtxParameters,
};
pub(crate) use self::rtp_parameters::{known_capabilities, known_parameters};
pub use self::rtp_streamer::{RtpStreamer, RtpStreamerOptions};
pub use self::settings::{ConnectedSockets, Family, LogSettings, LogTag, PortRange, Settings, SettingsUpdate};
pub use self::shortage::Shortage;
#[cfg(feature = "http")]
pub(crate) use self::shortage::leave_reserve;
pub use self::steering::Side;
pub use self::supervision::{WorkerInfo, WorkerState};
#[cfg(feature = "http")]
pub(crate) use self::transport::shown_tuple;
pub use self::transport::{
    ConsumerOptions, Direction, IceCandidate, IceCandidateType, IceParameters, IceTcpType, MirrorOptions, Mirroring,
    ProducerOptions, Transport, TransportKind, Tuple, WebRtcTransport, WebRtcTransportOptions,
};

use self::room::RoomNode;
use self::sockets::{Doors, LocalAddresses, SocketMaker};
use self::state::{Command, Note, State};
use self::supervision::{Link, Slot, Workers};

/// A running server: its workers, and the rooms they serve. Cheap to clone; when the last clone is dropped, the workers
/// end as if [`Server::close`] had been called, but nobody waits for them.
///
/// ```no_run
/// use weir::{Family, PlainTransportOptions, RoomOptions, Server, Settings};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::start(Settings {
///     rtc_ipv4: Family::Address("127.0.0.1".parse()?),
///     ..Settings::default()
/// })
/// .await?;
/// let room = server.create_room(RoomOptions::default()).await?;
/// let transport = room
///     .create_plain_transport(PlainTransportOptions {
///         comedia: true,
///         ..PlainTransportOptions::default()
///     })
///     .await?;
/// println!("send RTP to {}:{}", transport.tuple().local_ip, transport.tuple().local_port);
/// server.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Server {
    owner: Arc<Owner>,
}

/// Held by [`Server`]s only, not by the handles on their objects: the last one to go ends the workers.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.begin_close();
    }
}

/// What the server, the handles on its objects and the tasks that watch its workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// Where it was started, and lives.
    pub(crate) runtime: Handle,
    pub(crate) addresses: LocalAddresses,
    pub(crate) sockets: Arc<SocketMaker>,
    /// The ports that WebRTC transports share, if they do.
    pub(crate) doors: Option<Arc<Doors>>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) state: Mutex<State>,
    pub(crate) workers: Workers,
    live: Mutex<Live>,
    /// Held while a change of settings is told, so that two at once reach all workers in the same order.
    telling: tokio::sync::Mutex<()>,
}

/// Settings that change while the server runs. A worker that is started later gets them too.
#[derive(Clone, Debug)]
struct Live {
    log: LogSettings,
    coalescing: Coalescing,
    dtls_certificate: Option<DtlsCertificate>,
}

impl Live {
    fn log_filter(&self) -> LogFilter {
        LogFilter {
            directives: self.log.directives(),
        }
    }

    fn first_words(&self) -> Vec<Method> {
        let certificate = self.dtls_certificate.clone();
        let settings = [
            Method::SetLogFilter(self.log_filter()),
            Method::SetCoalescing(self.coalescing),
        ];
        settings
            .into_iter()
            .chain(certificate.map(Method::UseDtlsCertificate))
            .collect()
    }
}

impl Server {
    /// Starts a server: its workers, each on its own CPU, and waits until all are ready. Must be called within a tokio
    /// runtime (of either kind) with I/O and time enabled, which must live as long as the server. Raises this process's
    /// limit of open files to what the system allows, because each transport needs some.
    ///
    /// # Errors
    /// See [`StartError`]. Workers that came up are ended again.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        let shared = Shared::new(settings)?;
        // From here on an early return, or a caller that gives up, ends the workers.
        let server = Self {
            owner: Arc::new(Owner { shared }),
        };
        supervision::start(server.shared()).await?;
        Ok(server)
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.shared().settings
    }

    /// What its workers log now.
    pub fn log_settings(&self) -> LogSettings {
        lock(&self.shared().live).log.clone()
    }

    /// Whether it is closed, or about to be.
    pub fn closed(&self) -> bool {
        lock(&self.shared().state).is_closed()
    }

    /// The number of its workers, with dead ones that will be replaced.
    pub fn num_workers(&self) -> usize {
        self.shared().workers.count()
    }

    /// Its workers, by id.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        self.shared().workers.describe(&lock(&self.shared().state))
    }

    /// What the system lacks for new transports, while it lacks it.
    pub fn shortage(&self) -> Option<Shortage> {
        self.shared().sockets.shortage()
    }

    /// Returns when the server has shown that it is alive: its runtime has run a new task that had access to the state
    /// of all rooms and workers. If the server hangs (something holds a lock, or all threads of the runtime), this does
    /// not return. It is for watchdogs. The server watches its workers itself.
    pub async fn prove_alive(&self) {
        let server = self.clone();
        let look = self.shared().runtime.spawn(async move { drop(server.workers()) });
        if look.await.is_err() {
            // It has panicked, or the runtime is shutting down.
            std::future::pending().await
        }
    }

    /// Makes a room. Without a wish for a worker it goes to the one with the fewest rooms (in turn, if several have as
    /// few), and to another one if that worker dies in the meantime.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when a codec of `media_codecs` is not one that can be relayed or a header extension not
    /// one that can be announced, [`Error::NotFound`] when
    /// there is no such worker, [`Error::NoWorker`] when none is running, [`Error::InvalidState`]
    /// when the server is closed.
    pub async fn create_room(&self, options: RoomOptions) -> Result<Room, Error> {
        let shared = self.shared();
        let all;
        let media_codecs = match &options.media_codecs {
            Some(media_codecs) => media_codecs,
            None => {
                all = RtpCapabilities::supported().codecs;
                &all
            }
        };
        let mut capabilities = RtpCapabilities::for_room(media_codecs).map_err(Error::InvalidParameters)?;
        match &options.header_extensions {
            Some(wanted) => capabilities.announce(wanted).map_err(Error::InvalidParameters)?,
            None => capabilities.keep_header_extensions(&RtpCapabilities::BROWSER_EXTENSIONS),
        }
        let mut tries = shared.workers.count();
        loop {
            if self.closed() {
                return Err(Error::closed("the server"));
            }
            tries -= 1;
            let placed = shared.workers.place(&shared.state, options.worker)?;
            let id = shared.ids.room();
            let worker = placed.worker();
            let node = RoomNode::new(id, worker, capabilities.clone(), options.app_data.clone());
            let command = Command {
                method: Method::CreateRouter { room: id },
                note: Note::Room(Arc::clone(&node), placed),
            };
            let created = shared.call(worker, |state| match state.is_closed() {
                true => Err(Error::closed("the server")),
                false => Ok(Some(command)),
            });
            match created.await {
                Ok(_) => return Ok(Room::new(Arc::clone(shared), node)),
                Err(Error::WorkerDied { .. }) if options.worker.is_none() && tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Its open rooms, by id.
    pub fn rooms(&self) -> Vec<Room> {
        let state = lock(&self.shared().state);
        let mut rooms: Vec<Room> = state
            .rooms()
            .map(|entry| Room::new(Arc::clone(self.shared()), Arc::clone(&entry.node)))
            .collect();
        drop(state);
        rooms.sort_unstable_by_key(Room::id);
        rooms
    }

    /// The open room with this id.
    pub fn room(&self, id: RoomId) -> Option<Room> {
        let state = lock(&self.shared().state);
        let node = Arc::clone(&state.room(id)?.node);
        Some(Room::new(Arc::clone(self.shared()), node))
    }

    /// The open transport with this id, in any room.
    pub fn transport(&self, id: TransportId) -> Option<Transport> {
        let node = lock(&self.shared().state).transport(id).cloned()?;
        Some(Transport::new(Arc::clone(self.shared()), node))
    }

    /// The open producer with this id, in any room.
    pub fn producer(&self, id: ProducerId) -> Option<Producer> {
        let node = lock(&self.shared().state).producer(id).cloned()?;
        Some(Producer::new(Arc::clone(self.shared()), node))
    }

    /// The open consumer with this id, in any room.
    pub fn consumer(&self, id: ConsumerId) -> Option<Consumer> {
        let node = lock(&self.shared().state).consumer(id).cloned()?;
        Some(Consumer::new(Arc::clone(self.shared()), node))
    }

    /// All events from now on.
    pub fn events(&self) -> EventStream {
        lock(&self.shared().state).events.subscribe()
    }

    /// Changes what the workers log, with those that start later.
    ///
    /// # Errors
    /// The first that a worker ran into; the others have been told.
    pub async fn update_settings(&self, update: SettingsUpdate) -> Result<(), Error> {
        self.shared()
            .tell_all(|live| {
                if let Some(level) = update.log_level {
                    live.log.level = level;
                }
                if let Some(tags) = update.log_tags {
                    live.log.tags = tags;
                }
                Method::SetLogFilter(live.log_filter())
            })
            .await
    }

    /// How its workers currently trade delay for fewer calls into the kernel.
    pub fn coalescing(&self) -> Coalescing {
        lock(&self.shared().live).coalescing
    }

    /// Changes how the workers, with those that start later, trade delay for fewer calls into the kernel.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when the window is longer than 1,000 µs; the first that a worker ran into.
    pub async fn set_coalescing(&self, coalescing: Coalescing) -> Result<(), Error> {
        if coalescing.window_us_max > 1_000 {
            return Err(Error::InvalidParameters(format!(
                "the coalescing window is at most 1000 µs, not {}",
                coalescing.window_us_max
            )));
        }
        self.shared()
            .tell_all(|live| {
                live.coalescing = coalescing;
                Method::SetCoalescing(coalescing)
            })
            .await
    }

    /// The counters of one worker.
    pub async fn worker_stats(&self, worker: WorkerId) -> Result<WorkerStats, Error> {
        let reply = self
            .shared()
            .ask(worker, |_| Ok(Some(Command::new(Method::WorkerStats))))
            .await?;
        match reply {
            Reply::WorkerStats(stats) => Ok(stats),
            other => Err(self.shared().unexpected(worker, "WorkerStats", &other)),
        }
    }

    /// Closes all rooms and ends the workers; after [`Settings::close_timeout`] it kills them. Returns when no worker
    /// is left, also if the server was closed already.
    pub async fn close(&self) {
        self.shared().begin_close();
        self.shared().workers.ended().await;
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("workers", &self.workers()).finish()
    }
}

impl Shared {
    /// A server without its workers. Must be called within a tokio runtime.
    fn new(settings: Settings) -> Result<Arc<Self>, StartError> {
        settings.check().map_err(StartError::Settings)?;
        sockets::raise_descriptor_limit();
        let ids = Arc::new(Ids::default());
        let addresses = LocalAddresses::find(&settings)?;
        let sockets = Arc::new(SocketMaker::new(&settings));
        sockets.rehearse(addresses, settings.rtc_tcp)?;
        let workers = Workers::new(&settings)?;
        let doors = Doors::open(&settings, addresses, &sockets, workers.count())?.map(Arc::new);
        let mut state = State::new(Arc::clone(&ids));
        state.doors.clone_from(&doors);
        Ok(Arc::new(Self {
            runtime: Handle::current(),
            addresses,
            sockets,
            doors,
            state: Mutex::new(state),
            ids,
            workers,
            live: Mutex::new(Live {
                log: settings.log.clone(),
                coalescing: Coalescing {
                    window_us_max: settings.coalescing_us_max,
                    measure_residence: false,
                },
                dtls_certificate: dtls_certificate::load(&settings)?,
            }),
            telling: tokio::sync::Mutex::new(()),
            settings,
        }))
    }

    /// Commands a worker. `plan` is called with the state locked, when there is room in the worker's queue: it checks that
    /// the command still makes sense and returns it, or `None` when there is nothing to do. Commands are queued in the
    /// order in which their plans were called.
    pub(crate) async fn call(
        &self,
        worker: WorkerId,
        plan: impl FnOnce(&mut State) -> Result<Option<Command>, Error>,
    ) -> Result<Reply, Error> {
        self.call_with_descriptors(worker, Vec::new(), plan).await
    }

    /// As [`Shared::call`], with descriptors for the worker.
    pub(crate) async fn call_with_descriptors(
        &self,
        worker: WorkerId,
        descriptors: Vec<OwnedFd>,
        plan: impl FnOnce(&mut State) -> Result<Option<Command>, Error>,
    ) -> Result<Reply, Error> {
        let slot = self.workers.slot(worker)?;
        let plan = |state: &mut State| Ok(Vec::from_iter(plan(state)?));
        slot.call(&self.state, Lane::Control, descriptors, plan).await
    }

    /// As [`Shared::call`], for several commands that are queued with nothing in between. What the worker answers to the
    /// last one is returned.
    pub(crate) async fn call_all(
        &self,
        worker: WorkerId,
        plan: impl FnOnce(&mut State) -> Result<Vec<Command>, Error>,
    ) -> Result<Reply, Error> {
        let slot = self.workers.slot(worker)?;
        slot.call(&self.state, Lane::Control, Vec::new(), plan).await
    }

    /// As [`Shared::call`], for questions about counters, which commands overtake.
    pub(crate) async fn ask(
        &self,
        worker: WorkerId,
        plan: impl FnOnce(&mut State) -> Result<Option<Command>, Error>,
    ) -> Result<Reply, Error> {
        let slot = self.workers.slot(worker)?;
        let plan = |state: &mut State| Ok(Vec::from_iter(plan(state)?));
        slot.call(&self.state, Lane::Bulk, Vec::new(), plan).await
    }

    /// Sends a worker what nobody waits for.
    pub(crate) fn send_follow_ups(&self, worker: WorkerId, state: &mut State) {
        match self.workers.slot(worker).ok().and_then(|slot| slot.link()) {
            Some(link) => link.follow_up(state),
            // Its rooms are closed, or about to be.
            None => drop(state.take_follow_ups()),
        }
    }

    /// An answer that does not belong to the question.
    pub(crate) fn unexpected(&self, worker: WorkerId, method: &str, reply: &Reply) -> Error {
        Error::Protocol {
            worker,
            reason: format!("to {method} it answered {reply:?}"),
        }
    }

    /// Changes a live setting and tells all running workers.
    async fn tell_all(&self, change: impl FnOnce(&mut Live) -> Method) -> Result<(), Error> {
        let _turn = self.telling.lock().await;
        if lock(&self.state).is_closed() {
            return Err(Error::closed("the server"));
        }
        let (method, running) = {
            let mut live = lock(&self.live);
            (change(&mut live), self.workers.running())
        };
        let calls = running
            .into_iter()
            .map(|worker| self.call(worker, |_| Ok(Some(Command::new(method.clone())))));
        let results = futures::future::join_all(calls).await;
        results
            .into_iter()
            // One that died meanwhile is told when it starts again.
            .filter(|result| !matches!(result, Err(Error::WorkerDied { .. })))
            .collect::<Result<Vec<Reply>, Error>>()
            .map(drop)
    }

    /// Tells a worker that has just started what it must know, and lets it take commands. A change of the live settings
    /// comes before this or after it, never in between.
    pub(crate) fn introduce(&self, slot: &Slot, link: Arc<Link>) {
        let live = lock(&self.live);
        for method in live.first_words() {
            // Should it fail, the end of the conversation says why.
            let _ = link.say(method, self.settings.request_timeout);
        }
        if let Some(doors) = &self.doors {
            match doors.descriptors(slot.id()) {
                Ok(descriptors) => {
                    let method = Method::OpenSharedPorts(doors.request(slot.id()));
                    let _ = link.say_with(method, self.settings.request_timeout, descriptors);
                }
                Err(error) => {
                    tracing::error!(worker = slot.id().0, %error, "a worker cannot be given its WebRTC port, and takes no WebRTC transports");
                }
            }
        }
        slot.set_running(link);
    }

    fn begin_close(&self) {
        lock(&self.state).close();
        self.workers.begin_close();
    }
}

/// Hands out ids, unique for the life of the server.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    rooms: AtomicU64,
    transports: AtomicU64,
    producers: AtomicU64,
    consumers: AtomicU64,
}

impl Ids {
    fn room(&self) -> RoomId {
        RoomId(Self::next(&self.rooms))
    }

    pub(crate) fn transport(&self) -> TransportId {
        TransportId(Self::next(&self.transports))
    }

    pub(crate) fn producer(&self) -> ProducerId {
        ProducerId(Self::next(&self.producers))
    }

    pub(crate) fn consumer(&self) -> ConsumerId {
        ConsumerId(Self::next(&self.consumers))
    }

    fn next(counter: &AtomicU64) -> u64 {
        counter.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number nobody can guess: SipHash under fresh random keys from the system.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0_u8)
}
