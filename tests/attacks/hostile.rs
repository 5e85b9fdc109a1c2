//! A worker that has been taken over: this program in a worker's place, on a real channel to the supervisor. It does as it is
//! told until it is told to make a transport; then it does what its attacker wants.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weir_channel::endpoint::WorkerEndpoint;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    DtlsRole, DtlsState, DumpPage, Fingerprint, FingerprintAlgorithm, Hello, IceProtocol, IceState, IceTuple, LogLevel,
    LogLine, Method, Notification, Profile, Remote, Reply, Request, Response, Scope, StatsPage, TransportStats,
};

/// By which the program knows that it is to be a worker.
pub(crate) const PROGRAM: &str = "taken-over-worker";

/// From this number on nobody knows a transport.
const UNKNOWN: u64 = 1 << 32;

/// Things of the same kind that it says between two looks at what it is told.
const AT_ONCE: usize = 64;

macro_rules! deeds {
    ($($(#[doc = $doc:literal])+ $deed:ident,)+) => {
        /// What it does.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Deed { $($(#[doc = $doc])+ $deed,)+ }

        impl Deed {
            const ALL: &[Self] = &[$(Self::$deed),+];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$deed => stringify!($deed)),+ }
            }
        }
    };
}

deeds! {
    /// Whoever asks for the counters of a room is told of one more page, again and again.
    RisingCursor,
    /// Logs without end.
    Log,
    /// Writes to standard error without end.
    Stderr,
    /// The same, but with one thing on each page.
    OneMorePage,
    /// Has a transport change its state without end.
    Events,
    /// Serves many transports, and has them change their states as often as it may.
    ManyEvents,
    /// Says that a transport's peer has shown 900 KB of certificate.
    Certificate,
    /// Speaks of what is another worker's.
    Others,
    /// Answers pings, and nothing else from the first room on.
    PingsOnly,
    /// Hands over connections without end.
    Connections,
    /// Sends descriptors with what has none.
    Descriptors,
}

/// How many transports [`Deed::ManyEvents`] waits for, and how many events it tells then: no more than are due to who serves
/// so many, and more than the log keeps.
pub(crate) struct ManyEvents {
    pub(crate) transports: u64,
    pub(crate) events: u64,
}

pub(crate) const MANY_EVENTS: ManyEvents = ManyEvents {
    transports: 200,
    events: 20_000,
};

/// The worker.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let deed = arguments.next().unwrap();
    let deed = *Deed::ALL.iter().find(|known| known.name() == deed).unwrap();
    let id = arguments
        .skip_while(|argument| argument != "--id")
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let channel = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    fcntl(&channel, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    Worker::new(deed, WorkerId(id), channel).run();
    // The supervisor has hung up.
    ExitCode::SUCCESS
}

struct Worker {
    deed: Deed,
    endpoint: WorkerEndpoint,
    /// The transports it was told of.
    transports: Vec<TransportId>,
    /// It has begun to do what it wants.
    begun: bool,
    said: u64,
    /// Of the first WebRTC transport, for TCP.
    listener: Option<TcpListener>,
    clients: Vec<TcpStream>,
}

impl Worker {
    fn new(deed: Deed, id: WorkerId, channel: OwnedFd) -> Self {
        Self {
            deed,
            endpoint: WorkerEndpoint::new(channel, Hello::new("0.1.0", id)).unwrap(),
            transports: Vec::new(),
            begun: false,
            said: 0,
            listener: None,
            clients: Vec::new(),
        }
    }

    fn run(&mut self) {
        loop {
            let floods = self.begun
                && match self.deed {
                    Deed::Log | Deed::Stderr | Deed::Events | Deed::Connections => true,
                    Deed::ManyEvents => {
                        self.transports.len() as u64 == MANY_EVENTS.transports && self.said < MANY_EVENTS.events
                    }
                    _ => false,
                };
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, self.endpoint.wants_write());
            let wait = if floods && !self.endpoint.wants_write() {
                PollTimeout::ZERO
            } else {
                PollTimeout::from(100_u8)
            };
            let _ = poll(&mut [PollFd::new(self.endpoint.as_fd(), events)], wait);
            loop {
                match self.endpoint.poll_request() {
                    Ok(Some((request, mut descriptors))) => {
                        if matches!(request.method, Method::CreateWebRtcTransport(_))
                            && let Some(listener) = descriptors.pop()
                        {
                            let listener = TcpListener::from(listener);
                            listener.set_nonblocking(false).unwrap();
                            self.listener.get_or_insert(listener);
                        }
                        self.handle(request);
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            let Ok(written) = self.endpoint.flush() else {
                return;
            };
            if floods && written && !self.say_more() {
                return;
            }
        }
    }

    fn handle(&mut self, request: Request) {
        if let Some(reply) = self.reply(&request.method) {
            let response = Response {
                id: request.id,
                result: Ok(reply),
            };
            let _ = self.endpoint.push_response(response);
        }
        match request.method {
            Method::CreatePlainTransport(created) => self.transports.push(created.transport),
            Method::CreateWebRtcTransport(created) => self.transports.push(created.transport),
            _ => return,
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.begin();
        }
    }

    /// What a worker answers.
    fn reply(&self, method: &Method) -> Option<Reply> {
        if self.deed == Deed::PingsOnly {
            let is_of_a_room = !matches!(
                method,
                Method::Ping
                    | Method::SetLogFilter(_)
                    | Method::SetCoalescing(_)
                    | Method::UseDtlsCertificate(_)
                    | Method::OpenSharedPorts(_)
            );
            return (!is_of_a_room).then_some(Reply::Done);
        }
        Some(match method {
            Method::CreateConsumer(_) => Reply::ConsumerCreated { source_paused: false },
            Method::CreateWebRtcTransport(_) => Reply::WebRtcTransportCreated {
                fingerprints: vec![Fingerprint {
                    algorithm: FingerprintAlgorithm::Sha256,
                    value: ["AB"; 32].join(":"),
                }],
            },
            Method::SetDtlsParameters { .. } => Reply::DtlsRole(DtlsRole::Client),
            Method::WorkerStats => Reply::WorkerStats(Box::default()),
            Method::Stats(Scope::Room { page, .. }) => {
                let next = page.cursor.unwrap_or(0) + 1;
                let entries = match self.deed {
                    Deed::RisingCursor => 2_000,
                    Deed::OneMorePage => 1,
                    _ => 0,
                };
                let stats = |number| TransportStats {
                    transport: TransportId(number),
                    ..TransportStats::default()
                };
                Reply::Stats(StatsPage {
                    transports: (0..entries).map(|one| stats(UNKNOWN + next * entries + one)).collect(),
                    next: (entries > 0).then_some(next),
                    ..StatsPage::default()
                })
            }
            Method::Stats(_) => Reply::Stats(StatsPage::default()),
            Method::Dump(_) => Reply::Dump(DumpPage::default()),
            _ => Reply::Done,
        })
    }

    /// What it does once.
    fn begin(&mut self) {
        let Some(transport) = self.transports.last().copied() else {
            return;
        };
        match self.deed {
            Deed::Certificate => {
                let pem = format!(
                    "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                    "A".repeat(900_000)
                );
                self.say(Notification::DtlsStateChanged {
                    transport,
                    state: DtlsState::Connected,
                    remote_certificate_pem: Some(pem),
                    failure: None,
                });
            }
            Deed::Descriptors => {
                let socket = self.endpoint.as_fd().try_clone_to_owned().unwrap();
                let state = IceState::Connected;
                let failure = None;
                let changed = Notification::IceStateChanged {
                    transport,
                    state,
                    failure,
                };
                let _ = self.endpoint.push_with_descriptor(changed, socket);
            }
            Deed::Others => {
                let remote = Remote {
                    rtp: ([192, 0, 2, 1], 9).into(),
                    rtcp: None,
                };
                // Everything there is, but its own.
                for number in (0..50).filter(|number| *number != transport.0) {
                    let (transport, producer) = (TransportId(number), ProducerId(number));
                    self.say(Notification::RemoteLearned { transport, remote });
                    self.say(Notification::IceStateChanged {
                        transport,
                        state: IceState::Disconnected,
                        failure: None,
                    });
                    self.say(Notification::DtlsStateChanged {
                        transport,
                        state: DtlsState::Failed,
                        remote_certificate_pem: None,
                        failure: None,
                    });
                    self.say(Notification::ProducerActivityChanged {
                        producer,
                        active: false,
                    });
                    self.say(Notification::SsrcChanged {
                        producer,
                        ssrc: 1,
                        previous: None,
                    });
                    self.say(Notification::EffectiveProfileChanged {
                        consumer: ConsumerId(number),
                        profile: Some(Profile::Default),
                    });
                    self.say(Notification::AudioLevels {
                        room: RoomId(number),
                        levels: vec![(producer, -1)],
                    });
                }
            }
            _ => {}
        }
    }

    /// What it does without end; `false` when nobody listens any more.
    fn say_more(&mut self) -> bool {
        for _ in 0..AT_ONCE {
            self.said += 1;
            match self.deed {
                Deed::Log => self.endpoint.push_log(LogLine {
                    level: LogLevel::Error,
                    target: "weir_worker".to_owned(),
                    text: format!("{} \r\u{202e}\u{1b}[2J {}", self.said, "x".repeat(2_000)),
                }),
                Deed::Events | Deed::ManyEvents => {
                    let all = self.transports.len() as u64;
                    if self.deed == Deed::ManyEvents && self.said > MANY_EVENTS.events {
                        return true;
                    }
                    let transport = self.transports[(self.said % all) as usize];
                    let state = if (self.said / all).is_multiple_of(2) {
                        IceState::Connected
                    } else {
                        IceState::Disconnected
                    };
                    self.say(Notification::IceStateChanged {
                        transport,
                        state,
                        failure: None,
                    });
                }
                Deed::Stderr => {
                    let line = format!("{} \r\u{202e}\u{1b}[2J {}\n", self.said, "x".repeat(2_000));
                    if std::io::stderr().write_all(line.as_bytes()).is_err() {
                        return false;
                    }
                }
                Deed::Connections => self.hand_over_a_connection(),
                _ => return true,
            }
        }
        true
    }

    /// Lets somebody connect to the transport's listener, and hands that over.
    fn hand_over_a_connection(&mut self) {
        let listener = self.listener.as_ref().unwrap();
        let local = listener.local_addr().unwrap();
        let client = TcpStream::connect(local).unwrap();
        let (connection, remote) = listener.accept().unwrap();
        let tuple = IceTuple {
            protocol: IceProtocol::Tcp,
            local,
            remote,
        };
        let transport = self.transports[0];
        let proven = Notification::ConnectionProven { transport, tuple };
        let _ = self.endpoint.push_with_descriptor(proven, connection.into());
        self.clients.push(client);
        if self.clients.len() > 64 {
            self.clients.clear();
        }
    }

    fn say(&mut self, notification: Notification) {
        let _ = self.endpoint.push_notification(notification);
    }
}
