//! A worker that does what a test tells it, at the other end of a real channel; no process.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use weir_channel::endpoint::{SupervisorEndpoint, WorkerEndpoint};
use weir_channel::error::ChannelError;
use weir_channel::id::{ConsumerId, ProducerId, TransportId, WorkerId};
use weir_channel::message::{
    ConsumerStats, DtlsRole, DumpPage, Fingerprint, FingerprintAlgorithm, Hello, Method, Notification, ProducerStats,
    Reply, Request, Response, Scope, StatsPage, TransportDump, TransportStats, WorkerError,
};

use super::api::server::Server;
use super::model::error::DeathCause;
use super::model::event::CloseCause;
use super::model::lock;
use super::model::settings::{Family, Settings};
use super::workers::link::{End, First, Link, Pulse, converse};
use super::workers::shared::Shared;
use super::workers::slot::WorkerState;

/// A bound on waiting for what must happen, so that a fault fails a test instead of hanging it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits what must happen.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens before patience runs out")
}

pub(crate) fn settings() -> Settings {
    Settings {
        workers: std::num::NonZeroU32::new(1),
        rtc_ipv4: Family::Address([127, 0, 0, 1].into()),
        rtc_ipv6: Family::Off,
        // Never started; the fakes take the workers' places.
        worker_binary: Some("/bin/true".into()),
        ..Settings::default()
    }
}

/// A server whose only worker is a fake.
pub(crate) async fn server(settings: Settings) -> (Server, Fake) {
    let shared = Shared::new(settings).unwrap();
    let fake = Fake::connect(&shared, WorkerId(1)).await;
    (Server::of(shared), fake)
}

/// As [`server`], with a worker that accepts everything.
pub(crate) async fn obliging_server(settings: Settings) -> Server {
    let (server, mut fake) = server(settings).await;
    tokio::spawn(async move {
        while let Some((request, _)) = fake.request().await {
            let reply = fake.oblige(&request.method);
            fake.answer(&request, Ok(reply)).await;
        }
    });
    server
}

/// Of the certificate that fakes have.
pub(crate) fn fingerprint() -> Fingerprint {
    Fingerprint {
        algorithm: FingerprintAlgorithm::Sha256,
        value: ["AB"; 32].join(":"),
    }
}

/// The worker's end.
pub(crate) struct Fake {
    endpoint: WorkerEndpoint,
    /// The same socket, to wait for.
    ready: UnixStream,
    paused: HashMap<ProducerId, bool>,
    _conversation: JoinHandle<()>,
}

impl Fake {
    async fn connect(shared: &Arc<Shared>, worker: WorkerId) -> Self {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .unwrap();
        let ready = UnixStream::from_std(theirs.try_clone().unwrap().into()).unwrap();
        let mut endpoint = WorkerEndpoint::new(theirs, Hello::new("fake", worker)).unwrap();
        endpoint.flush().unwrap();
        let supervisor = SupervisorEndpoint::connect(ours, Hello::new("test", worker), PATIENCE)
            .await
            .unwrap();
        let pulse = Pulse {
            interval: shared.settings.ping_interval,
            timeout: shared.settings.ping_timeout,
        };
        let slot = Arc::clone(shared.workers.slot(worker).unwrap());
        let (link, mut queues) = Link::new(
            worker,
            shared.settings.request_timeout,
            pulse,
            shared.shared_ports.clone(),
            (slot.restorations(), slot.totals()),
        );
        slot.set_running(Arc::clone(&link));
        let shared = Arc::clone(shared);
        let end = tokio::spawn(async move {
            let first = First::default();
            let on_pulse = |rtt| slot.set_ping_rtt(rtt);
            let end = converse(&link, &mut queues, first, supervisor.split(), &shared.state, on_pulse).await;
            // What the watch task does when several processes in a row have died.
            let cause = match end {
                End::Channel(error) => DeathCause::NotStarted {
                    reason: error.to_string(),
                },
                End::Hung => DeathCause::Hung {
                    timeout_ms: shared.settings.ping_timeout.as_millis() as u64,
                },
                End::StoodStill(_) => DeathCause::Stuck { turn_ms: 1_000 },
                End::Protocol(reason) => DeathCause::Protocol { reason },
                End::Misbehaved(reason) => DeathCause::Misbehaved { reason },
            };
            {
                let mut state = lock(&shared.state);
                link.end(&cause);
                slot.set_dead(WorkerState::Restarting { after_ms: 100 }, cause.clone());
                state.close_rooms_of(worker, &CloseCause::WorkerDied { worker, cause });
            }
            link.resolve_all();
        });
        Self {
            endpoint,
            ready,
            paused: HashMap::new(),
            _conversation: end,
        }
    }

    /// The next request that is not a ping (those are answered); `None` when the supervisor has closed the channel.
    pub(crate) async fn request(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        loop {
            match self.any_request().await? {
                (request, _) if request.method == Method::Ping => self.answer(&request, Ok(Reply::Done)).await,
                other => return Some(other),
            }
        }
    }

    /// The next request, pings included.
    pub(crate) async fn any_request(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        loop {
            self.ready.readable().await.unwrap();
            let polled = self
                .ready
                .try_io(Interest::READABLE, || match self.endpoint.poll_request() {
                    Ok(None) => Err(ErrorKind::WouldBlock.into()),
                    other => Ok(other),
                });
            match polled {
                Ok(Ok(request)) => return request,
                Ok(Err(_)) => return None,
                Err(_) => {}
            }
        }
    }

    pub(crate) async fn answer(&mut self, request: &Request, result: Result<Reply, WorkerError>) {
        let id = request.id;
        self.endpoint.push_response(Response { id, result }).unwrap();
        self.flush().await;
    }

    pub(crate) async fn notify(&mut self, notification: Notification) {
        self.try_notify(notification).await.unwrap();
    }

    /// An error says that nobody listens any more.
    pub(crate) async fn try_notify(&mut self, notification: Notification) -> Result<(), ChannelError> {
        self.endpoint.push_notification(notification)?;
        while !self.endpoint.flush()? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// As [`Fake::notify`], with a descriptor.
    pub(crate) async fn notify_with(&mut self, notification: Notification, descriptor: OwnedFd) {
        self.endpoint.push_with_descriptor(notification, descriptor).unwrap();
        self.flush().await;
    }

    /// The second worker of a server whose first is a fake.
    pub(crate) async fn beside(server: &Server) -> Self {
        Self::connect(server.shared(), WorkerId(2)).await
    }

    async fn flush(&mut self) {
        while !self.endpoint.flush().unwrap() {
            tokio::task::yield_now().await;
        }
    }

    /// What an obliging worker answers.
    pub(crate) fn oblige(&mut self, method: &Method) -> Reply {
        match method {
            Method::CreateProducer(request) => {
                self.paused.insert(request.producer, request.paused);
            }
            Method::SetProducerPaused { producer, paused } => {
                self.paused.insert(*producer, *paused);
            }
            Method::CreateConsumer(request) | Method::SetConsumerSource(request) => {
                return Reply::ConsumerCreated {
                    source_paused: self.paused[&request.producer],
                };
            }
            Method::Stats(Scope::Transport(transport)) => {
                return Reply::Stats(StatsPage {
                    transports: vec![transport_stats(*transport)],
                    ..StatsPage::default()
                });
            }
            Method::Stats(Scope::Producer(producer)) => {
                let stats = ProducerStats {
                    producer: *producer,
                    paused: self.paused[producer],
                    streams: Vec::new(),
                };
                return Reply::Stats(StatsPage {
                    producers: vec![stats],
                    ..StatsPage::default()
                });
            }
            Method::Stats(Scope::Consumer(consumer)) => {
                return Reply::Stats(StatsPage {
                    consumers: vec![consumer_stats(*consumer)],
                    ..StatsPage::default()
                });
            }
            Method::Dump(Scope::Transport(transport)) => {
                return Reply::Dump(DumpPage {
                    transports: vec![transport_dump(*transport)],
                    ..DumpPage::default()
                });
            }
            Method::Dump(Scope::Room { .. }) => return Reply::Dump(DumpPage::default()),
            Method::CreateWebRtcTransport(_) => {
                return Reply::WebRtcTransportCreated {
                    fingerprints: vec![fingerprint()],
                };
            }
            Method::SetDtlsParameters { parameters, .. } => {
                return Reply::DtlsRole(match parameters.role {
                    DtlsRole::Server => DtlsRole::Client,
                    DtlsRole::Client | DtlsRole::Auto => DtlsRole::Server,
                });
            }
            _ => {}
        }
        Reply::Done
    }

    /// Answers the next request as an obliging worker does, and returns what it was.
    pub(crate) async fn accept(&mut self) -> Method {
        let (request, _) = soon(self.request()).await.expect("a request");
        let reply = self.oblige(&request.method);
        self.answer(&request, Ok(reply)).await;
        request.method
    }

    /// Runs a call while this worker accepts the one request it makes.
    pub(crate) async fn accepting<T>(&mut self, call: impl Future<Output = T>) -> T {
        soon(async { tokio::join!(call, self.accept()).0 }).await
    }
}

/// What is known of a transport that nobody uses.
fn transport_dump(transport: TransportId) -> TransportDump {
    TransportDump {
        transport,
        remote: None,
        comedia: false,
        rtcp_mux: true,
        mirror: None,
        ssrcs: Vec::new(),
        mids: Vec::new(),
        rids: Vec::new(),
    }
}

/// Counters of a transport to which nothing has come.
pub(crate) fn transport_stats(transport: TransportId) -> TransportStats {
    TransportStats {
        transport,
        ..TransportStats::default()
    }
}

/// Counters of a consumer to which nothing has flowed.
pub(crate) fn consumer_stats(consumer: ConsumerId) -> ConsumerStats {
    ConsumerStats {
        consumer,
        ..ConsumerStats::default()
    }
}
