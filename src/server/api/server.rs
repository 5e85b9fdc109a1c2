//! A server as applications hold it.

use std::fmt;
use std::sync::Arc;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{Coalescing, Method, Reply, WorkerStats};

use crate::server::api::consumer::Consumer;
use crate::server::api::event_stream::EventStream;
use crate::server::api::producer::Producer;
use crate::server::api::room::{Room, RoomOptions};
use crate::server::api::transport::Transport;
#[cfg(feature = "http")]
use crate::server::model::client_memory::ClientMemory;
use crate::server::model::error::{Error, StartError};
use crate::server::model::lock;
use crate::server::model::log_settings::LogSettings;
#[cfg(feature = "http")]
use crate::server::model::record::Record;
use crate::server::model::room::RoomNode;
use crate::server::model::rtp_capabilities::RtpCapabilities;
use crate::server::model::settings::{Settings, SettingsUpdate};
use crate::server::model::shortage::Shortage;
use crate::server::model::state::{Command, OnAccept};
use crate::server::workers::shared::Shared;
use crate::server::workers::slot::WorkerInfo;
use crate::server::workers::watch;

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

impl Server {
    /// Starts a server: its workers, each on its own CPU, and waits until all are ready. Must be called within a tokio
    /// runtime (of either kind) with I/O and time enabled, which must live as long as the server. Raises this process's
    /// limit of open files to what the system allows, because each transport needs some.
    ///
    /// # Errors
    /// See [`StartError`]. Workers that came up are ended again.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        // From here on an early return, or a caller that gives up, ends the workers.
        let server = Self::of(Shared::new(settings)?);
        watch::start(server.shared()).await?;
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

    /// Makes a room. Without a `worker` it goes to the one with the fewest rooms (in turn, if several have as
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
                on_accept: OnAccept::Room(Arc::clone(&node), Box::new(placed)),
            };
            let created = shared.call(worker, |state| match state.is_closed() {
                true => Err(Error::closed("the server")),
                false => Ok(Some(command)),
            });
            match created.await {
                Ok(_) => return Ok(Room::new(shared, &node)),
                Err(Error::WorkerDied { .. }) if options.worker.is_none() && tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What waits for all clients together.
    #[cfg(feature = "http")]
    pub(crate) fn client_memory(&self) -> Arc<ClientMemory> {
        Arc::clone(&lock(&self.shared().state).client_memory)
    }

    /// Its open rooms, by id.
    pub fn rooms(&self) -> Vec<Room> {
        let state = lock(&self.shared().state);
        let rooms = state.rooms().map(|entry| Room::new(self.shared(), &entry.node));
        let mut rooms: Vec<Room> = rooms.collect();
        drop(state);
        rooms.sort_unstable_by_key(Room::id);
        rooms
    }

    /// The open room with this id.
    pub fn room(&self, id: RoomId) -> Option<Room> {
        let state = lock(&self.shared().state);
        Some(Room::new(self.shared(), &state.room(id)?.node))
    }

    /// The open transport with this id, in any room.
    pub fn transport(&self, id: TransportId) -> Option<Transport> {
        let state = lock(&self.shared().state);
        Some(Transport::new(self.shared(), state.transport(id)?))
    }

    /// The open producer with this id, in any room.
    pub fn producer(&self, id: ProducerId) -> Option<Producer> {
        let state = lock(&self.shared().state);
        Some(Producer::new(self.shared(), state.producer(id)?))
    }

    /// The open consumer with this id, in any room.
    pub fn consumer(&self, id: ConsumerId) -> Option<Consumer> {
        let state = lock(&self.shared().state);
        Some(Consumer::new(self.shared(), state.consumer(id)?))
    }

    /// All events from now on.
    pub fn events(&self) -> EventStream {
        EventStream::new(lock(&self.shared().state).events.subscribe())
    }

    /// Has all events from now on recorded, as long as the record exists. It is made with the number of the last event that is
    /// not in it.
    #[cfg(feature = "http")]
    pub(crate) fn record_events<R: Record + 'static>(&self, make: impl FnOnce(u64) -> Arc<R>) -> Arc<R> {
        lock(&self.shared().state).events.record(make)
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

    /// How its workers currently trade delay for CPU time, and CPU time for delay.
    pub fn coalescing(&self) -> Coalescing {
        lock(&self.shared().live).coalescing
    }

    /// Changes how the workers, with those that start later, trade delay for CPU time, and CPU time for delay.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`] when a time is longer than [`Coalescing::WINDOW_US_MAX`] or [`Coalescing::SPIN_US_MAX`]; the
    /// first that a worker ran into.
    pub async fn set_coalescing(&self, coalescing: Coalescing) -> Result<(), Error> {
        for (name, us, most) in [
            (
                "the coalescing window",
                coalescing.window_us_max,
                Coalescing::WINDOW_US_MAX,
            ),
            ("the time to spin", coalescing.spin_us_max, Coalescing::SPIN_US_MAX),
        ] {
            if us > most {
                let message = format!("{name} is at most {most} µs, not {us}");
                return Err(Error::InvalidParameters(message));
            }
        }
        self.shared()
            .tell_all(|live| {
                let before = std::mem::replace(&mut live.coalescing, coalescing);
                if before.measure_residence != coalescing.measure_residence {
                    for slot in &self.shared().workers.slots {
                        slot.totals().forget_residence();
                    }
                }
                Method::SetCoalescing(coalescing)
            })
            .await
    }

    /// The counters of one worker.
    pub async fn worker_stats(&self, worker: WorkerId) -> Result<WorkerStats, Error> {
        let asked = self.shared().ask(worker, Method::WorkerStats, || Ok(()));
        match asked.await? {
            Reply::WorkerStats(stats) => Ok(*stats),
            other => Err(self.shared().unexpected(worker, "WorkerStats", &other)),
        }
    }

    /// Closes all rooms and ends the workers; after [`Settings::close_timeout`] it kills them. Returns when no worker
    /// is left, also if the server was closed already.
    pub async fn close(&self) {
        self.shared().begin_close();
        self.shared().workers.ended().await;
    }

    /// A server whose workers somebody else starts.
    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self {
            owner: Arc::new(Owner { shared }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("workers", &self.workers()).finish()
    }
}
