//! What the server, the handles on its objects and the tasks that watch its workers share, and how they command a worker.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use weir_channel::endpoint::FromWorker;
use weir_channel::id::WorkerId;
use weir_channel::lanes::Lane;
use weir_channel::message::{Coalescing, DtlsCertificate, LogFilter, Method, Reply};

use crate::server::model::error::{Error, StartError};
use crate::server::model::ids::Ids;
use crate::server::model::lock;
use crate::server::model::log_settings::LogSettings;
use crate::server::model::settings::Settings;
use crate::server::model::state::{Command, State};
use crate::server::workers::descriptors::raise_descriptor_limit;
use crate::server::workers::dtls_certificate;
use crate::server::workers::link::{First, Inheritance, Link, Queues};
use crate::server::workers::pollers::Pollers;
use crate::server::workers::slot::Slot;
use crate::server::workers::slots::Workers;
use crate::server::workers::sockets::{LocalAddresses, SharedPorts, SocketMaker};

/// How long a port is waited for that a spare may have, and how often it is looked at.
const SPARES_TIME_MAX: Duration = Duration::from_millis(500);
const SPARES_STEP: Duration = Duration::from_millis(1);

/// What the server, the handles on its objects and the tasks that watch its workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    /// Where it was started, and lives.
    pub(crate) runtime: Handle,
    pub(crate) addresses: LocalAddresses,
    pub(crate) sockets: Arc<SocketMaker>,
    /// The ports that WebRTC transports share, if they do.
    pub(crate) shared_ports: Option<Arc<SharedPorts>>,
    pub(crate) ids: Arc<Ids>,
    pub(crate) state: Mutex<State>,
    pub(crate) workers: Workers,
    pub(crate) live: Mutex<Live>,
    /// Held while workers are told a change of settings, so that two at once reach all workers in the same order.
    telling: tokio::sync::Mutex<()>,
}

/// Settings that change while the server runs. A worker that is started later gets them too.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) log: LogSettings,
    pub(crate) coalescing: Coalescing,
    dtls_certificate: DtlsCertificate,
}

impl Live {
    pub(crate) fn log_filter(&self) -> LogFilter {
        LogFilter {
            directives: self.log.directives(),
        }
    }

    pub(crate) fn startup_requests(&self) -> Vec<Method> {
        vec![
            Method::SetLogFilter(self.log_filter()),
            Method::SetCoalescing(self.coalescing),
            Method::UseDtlsCertificate(self.dtls_certificate.clone()),
        ]
    }
}

/// The name of an answer, which may be long.
fn name_of(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done => "Done",
        Reply::ConsumerCreated { .. } => "ConsumerCreated",
        Reply::WebRtcTransportCreated { .. } => "WebRtcTransportCreated",
        Reply::DtlsRole(_) => "DtlsRole",
        Reply::WorkerStats(_) => "WorkerStats",
        Reply::Stats(_) => "Stats",
        Reply::Dump(_) => "Dump",
        Reply::TakenUp(_) => "TakenUp",
    }
}

impl Shared {
    /// A server without its workers. Must be called within a tokio runtime.
    pub(crate) fn new(settings: Settings) -> Result<Arc<Self>, StartError> {
        settings.check().map_err(StartError::Settings)?;
        raise_descriptor_limit();
        let ids = Arc::new(Ids::default());
        let addresses = LocalAddresses::find(&settings)?;
        let sockets = Arc::new(SocketMaker::new(&settings));
        sockets.probe(addresses, settings.rtc_tcp)?;
        let workers = Workers::new(&settings)?;
        let shared_ports = SharedPorts::open(&settings, addresses, &sockets, workers.count())?.map(Arc::new);
        let state = State::new(Arc::clone(&ids));
        Ok(Arc::new(Self {
            runtime: Handle::current(),
            addresses,
            sockets,
            shared_ports,
            state: Mutex::new(state),
            ids,
            workers,
            live: Mutex::new(Live {
                log: settings.log(),
                coalescing: Coalescing {
                    window_us_max: settings.coalescing_us_max,
                    spin_us_max: settings.spin_us_max,
                    measure_residence: false,
                },
                dtls_certificate: dtls_certificate::load_or_make(&settings)?,
            }),
            telling: tokio::sync::Mutex::new(()),
            settings,
        }))
    }

    /// Commands a worker. `plan` is called with the state locked, when the worker's queue has capacity: it checks that
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

    /// Makes sockets. Of a transport that was closed just now a spare may still have copies, so that its port is taken: then they are made when the
    /// spares have done what their workers have.
    pub(crate) async fn make_sockets<T>(
        &self,
        make: impl Fn(&SocketMaker) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let until = Instant::now() + SPARES_TIME_MAX;
        loop {
            let links = self.workers.slots.iter().filter_map(|slot| slot.link());
            let is_behind = links.into_iter().any(|link| link.is_spare_behind());
            match make(&self.sockets) {
                Err(Error::PortsExhausted { .. } | Error::PortTaken { .. }) if is_behind && Instant::now() < until => {
                    sleep(SPARES_STEP).await;
                }
                made => return made,
            }
        }
    }

    /// Has a worker close something that is not closed yet, by commands that are queued with nothing in between.
    pub(crate) async fn close(
        &self,
        worker: WorkerId,
        closed: impl Fn() -> bool,
        plan: impl FnOnce(&mut State) -> Vec<Command>,
    ) -> Result<(), Error> {
        let slot = self.workers.slot(worker)?;
        let plan = |state: &mut State| Ok(if closed() { Vec::new() } else { plan(state) });
        match slot.call(&self.state, Lane::Control, Vec::new(), plan).await {
            // Its worker's death has closed it.
            Err(Error::WorkerDied { .. }) if closed() => Ok(()),
            other => other.map(drop),
        }
    }

    /// As [`Shared::call`], for questions about counters, which commands overtake.
    pub(crate) async fn ask(
        &self,
        worker: WorkerId,
        question: Method,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Reply, Error> {
        let slot = self.workers.slot(worker)?;
        let plan = |_: &mut State| check().map(|()| vec![Command::new(question)]);
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
            reason: format!("to {method} it answered {}", name_of(reply)),
        }
    }

    /// Changes a live setting and tells all running workers.
    pub(crate) async fn tell_all(&self, change: impl FnOnce(&mut Live) -> Method) -> Result<(), Error> {
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

    /// Lets a process take a worker's place: what it is told first. A change of the live settings comes before this or after
    /// it, never in between.
    pub(crate) fn take_over(
        &self,
        slot: &Slot,
        (link, queues): (&Arc<Link>, &mut Queues),
        process: (u32, Option<Vec<FromWorker>>),
        pollers: Option<&Pollers>,
        inheritance: Option<&Inheritance>,
    ) -> First {
        let live = lock(&self.live);
        let mut settings = Vec::new();
        // Without them it waits with its own.
        if let Some(descriptors) = pollers.and_then(|pollers| pollers.descriptors().ok()) {
            settings.push((Method::UsePollers, descriptors));
        }
        settings.extend(live.startup_requests().into_iter().map(|method| (method, Vec::new())));
        let quarantined = slot.quarantined();
        if !quarantined.is_empty() {
            settings.push((Method::SetQuarantine(quarantined), Vec::new()));
        }
        if let Some(shared_ports) = &self.shared_ports {
            match shared_ports.descriptors(slot.id()) {
                Ok(descriptors) => {
                    let method = Method::OpenSharedPorts(shared_ports.request(slot.id()));
                    settings.push((method, descriptors));
                }
                Err(error) => {
                    tracing::error!(worker = slot.id().0, %error, "a worker cannot be given its WebRTC port, and takes no WebRTC transports");
                }
            }
        }
        let first = link.take_over(queues, &self.state, process, settings, inheritance);
        slot.set_running(Arc::clone(link));
        first
    }

    pub(crate) fn begin_close(&self) {
        lock(&self.state).close();
        self.workers.begin_close();
    }
}
