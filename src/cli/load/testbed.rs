//! What the test runs on: a server with one worker, its room, and the sockets on the other side.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::{NonZeroU16, NonZeroU32};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use weir::{
    ConnectedSockets, Consumer, ConsumerOptions, Family, PlainTransportOptions, ProducerOptions, Remote, Room,
    RoomOptions, RtcpFeedback, RtpCodec, RtpEncoding, RtpParameters, RtxParameters, Server, Settings, Transport,
    WebRtcTransportOptions, WorkerId, WorkerStats,
};
use weir_channel::message::{Coalescing, CodecName, MediaKind};
use weir_worker::net::sockets::prepare;
use weir_worker::webrtc::srtp::{Inbound, Outbound, Repeats};

use super::cipher_baseline::CipherBaseline;
use super::client::{Identity, Session};
use super::cpu::Cpus;
use super::driver::{self, Driver, Encryption, Endpoints};
use super::raw::{self, RawSender};
use super::report::{Handshakes, Progress};
use super::traffic::{Source, SourceKind, TrainWriter};
use super::{LoadArgs, OnePort};

/// Requests under way at once while the room is set up.
const SETUP_CONCURRENCY: usize = 64;

/// Receive buffer of each receiver, in bytes.
const RECEIVER_BUFFER: usize = 4 << 20;

/// Receivers' sockets. More consumers than this share them, so that 5,000 consumers (with two sockets each in the server and
/// one in the baseline) stay below a limit of 20,000 descriptors. The worker's side of a consumer is its own in any case.
const RECEIVERS_MAX: usize = 2_000;

/// Consumers that the first reading of the worker's memory is taken with.
const MEMORY_BASE: usize = 100;

/// Streams that one client can be sent: two of each other peer.
const STREAMS_MAX: usize = 400;

/// Consumers that are paused and resumed by the test of the channel. Their packets are not counted.
const TOGGLED: usize = 32;

/// Everything that lives as long as the test.
pub(super) struct Testbed {
    args: LoadArgs,
    cpus: Cpus,
    server: Server,
    room: Room,
    /// With encryption: who the clients are.
    identity: Option<Identity>,
    built: Option<Built>,
    /// Consumers for the test of the channel, with the socket their packets end in.
    toggled: Vec<Consumer>,
    /// Resident memory of the worker per consumer beyond the first hundred, in bytes.
    pub resident_bytes_per_consumer: Option<f64>,
    /// What it took to connect the clients.
    pub handshakes: Handshakes,
}

struct Built {
    sources: Vec<Source>,
    driver: Driver,
    raw: RawSender,
    _sinks: Vec<UdpSocket>,
}

/// The sockets and transports of a room, while it is set up.
#[derive(Default)]
struct Plan {
    sources: Vec<Source>,
    senders: Vec<UdpSocket>,
    receivers: Vec<OwnedFd>,
    paths: Vec<OwnedFd>,
    /// Receivers of the baseline's own: where transports share a port, it has none of their sockets.
    sinks: Vec<OwnedFd>,
    /// For each source the paths that its packets leave on.
    targets: Vec<Vec<usize>>,
    encryption: Encryption,
}

impl Testbed {
    pub(super) async fn start(args: &LoadArgs, cpus: Cpus) -> anyhow::Result<Self> {
        let settings = Settings {
            workers: NonZeroU32::new(1),
            rtc_ipv4: Family::Address(Ipv4Addr::LOCALHOST),
            rtc_ipv6: Family::Off,
            coalescing_us_max: args.window,
            spin_us_max: args.spin,
            sandbox: args.sandbox,
            webrtc_port: args.one_port.map(|_| free_port()).transpose()?,
            webrtc_connected: match args.one_port {
                Some(OnePort::Shared) => ConnectedSockets::Never,
                Some(OnePort::Connected) | None => ConnectedSockets::Auto,
            },
            ..Settings::default()
        };
        let server = Server::start(settings).await.context("starting the server")?;
        let room = server
            .create_room(RoomOptions::default())
            .await
            .context("making a room")?;
        Ok(Self {
            args: args.clone(),
            cpus,
            server,
            room,
            identity: args.srtp.map(Identity::new).transpose()?,
            built: None,
            toggled: Vec::new(),
            resident_bytes_per_consumer: None,
            handshakes: Handshakes::default(),
        })
    }

    /// Makes the producers, consumers and sockets, and starts the threads that use them.
    pub(super) async fn populate(&mut self) -> anyhow::Result<()> {
        let mut plan = match self.args.room {
            Some(peers) => self.conference(peers as usize).await?,
            None => self.broadcast().await?,
        };
        plan.receivers.append(&mut plan.sinks);
        let mut sinks = Vec::new();
        if self.args.control {
            sinks.push(self.add_toggled(&plan).await?);
        }
        let writers = |sources: &[Source]| sources.iter().cloned().map(TrainWriter::new).collect();
        let endpoints = Endpoints {
            writers: writers(&plan.sources),
            senders: plan.senders,
            receivers: plan.receivers,
            encryption: self.args.srtp.map(|_| plan.encryption),
        };
        let baseline = |number| {
            self.args
                .srtp
                .map(|protection| CipherBaseline::new(protection, number))
                .transpose()
        };
        let paths: Vec<_> = (0..)
            .zip(plan.paths)
            .map(|(number, path)| Ok((path, baseline(number)?)))
            .collect::<anyhow::Result<_>>()?;
        self.built = Some(Built {
            driver: driver::start(self.cpus.load, endpoints)?,
            raw: raw::start(self.cpus.worker, writers(&plan.sources), paths, plan.targets)?,
            sources: plan.sources,
            _sinks: sinks,
        });
        Ok(())
    }

    /// Producers and consumers on transports of their own.
    async fn broadcast(&mut self) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        let mut producers = Vec::new();
        for index in 0..self.args.producers {
            let socket = local_socket()?;
            let transport = self.transport(&socket).await?;
            self.address(&socket, &transport)?;
            let source = Source::video(1_000 + index, self.args.burst as usize, self.args.payload as usize, 0);
            producers.push(produce(&transport, &source, self.args.nack).await?);
            if let Some(session) = self.connect(&[(&socket, &transport)]).await?.pop().flatten() {
                plan.encryption.sends(&[source.ssrc], &session)?;
                plan.encryption.checks.push((socket.try_clone()?, session.checks));
            }
            plan.sources.push(source);
            plan.targets.push(Vec::new());
            plan.senders.push(socket);
        }
        let consumers = self.args.consumers as usize;
        let paused = (consumers as f64 * self.args.paused).round() as usize;
        let progress = Progress::new("consumers", consumers as u64);
        // A client has a socket of its own, as its transport is bound to one address of it.
        let sockets = if self.identity.is_some() {
            consumers
        } else {
            consumers.min(RECEIVERS_MAX)
        };
        let receivers: Vec<UdpSocket> = (0..sockets).map(|_| self.receiver()).collect::<anyhow::Result<_>>()?;
        let mut resident_at_base = None;
        let mut made = 0;
        while made < consumers {
            // The first hundred, then the rest, with a reading of the memory in between.
            let until = if made == 0 {
                consumers.min(MEMORY_BASE)
            } else {
                consumers
            };
            let batch: Vec<Transport> = stream::iter(made..until)
                .map(|index| {
                    let producer = producers[index % producers.len()].id();
                    let this = &*self;
                    let progress = &progress;
                    let receiver = &receivers[index % receivers.len()];
                    async move {
                        let transport = this.transport(receiver).await?;
                        let options = ConsumerOptions {
                            paused: index < paused,
                            ..ConsumerOptions::default()
                        };
                        transport
                            .consume(producer, options)
                            .await
                            .context("making a consumer")?;
                        progress.advance();
                        anyhow::Ok(transport)
                    }
                })
                .buffered(SETUP_CONCURRENCY)
                .try_collect()
                .await?;
            let clients: Vec<_> = (made..until)
                .zip(&batch)
                .map(|(index, transport)| (&receivers[index % receivers.len()], transport))
                .collect();
            let sessions = self.connect(&clients).await?;
            for ((index, transport), session) in (made..until).zip(&batch).zip(sessions) {
                if let Some(session) = session {
                    let is_looked_at = index >= paused && index - paused < self.args.verify as usize;
                    plan.encryption.receives(&session, is_looked_at);
                    plan.encryption
                        .checks
                        .push((receivers[index].try_clone()?, session.checks));
                }
                let source = index % plan.sources.len();
                if index >= paused {
                    plan.sources[source].fan_out += 1;
                    plan.targets[source].push(plan.paths.len());
                    self.add_path(transport, &mut plan)?;
                }
            }
            made = until;
            let resident = self.worker_stats().await?.resident_bytes;
            match resident_at_base {
                None => resident_at_base = Some(resident),
                Some(base) => {
                    let more = (consumers - MEMORY_BASE) as f64;
                    self.resident_bytes_per_consumer = Some((resident as f64 - base as f64) / more);
                }
            }
        }
        plan.receivers = receivers.into_iter().map(OwnedFd::from).collect();
        Ok(plan)
    }

    /// Peers that send sound and pictures and receive all the others' over one transport each.
    async fn conference(&mut self, peers: usize) -> anyhow::Result<Plan> {
        let mut plan = Plan::default();
        let mut transports = Vec::new();
        let mut producers = Vec::new();
        for peer in 0..peers {
            let socket = self.receiver()?;
            let transport = self.transport(&socket).await?;
            self.address(&socket, &transport)?;
            let ssrc = 1_000 + 2 * peer as u32;
            let sources = [
                Source::opus(ssrc, peers - 1),
                Source::video(
                    ssrc + 1,
                    self.args.burst as usize,
                    self.args.payload as usize,
                    peers - 1,
                ),
            ];
            if let Some(session) = self.connect(&[(&socket, &transport)]).await?.pop().flatten() {
                plan.encryption.sends(&[ssrc, ssrc + 1], &session)?;
                plan.encryption.receives(&session, peer < self.args.verify as usize);
                plan.encryption.checks.push((socket.try_clone()?, session.checks));
            }
            for source in sources {
                producers.push((peer, produce(&transport, &source, self.args.nack).await?));
                plan.senders.push(socket.try_clone()?);
                plan.targets.push((0..peers).filter(|other| *other != peer).collect());
                plan.sources.push(source);
            }
            self.add_path(&transport, &mut plan)?;
            plan.receivers.push(socket.into());
            transports.push(transport);
        }
        let progress = Progress::new("consumers", (producers.len() * (peers - 1)) as u64);
        let pairs = producers.iter().flat_map(|(owner, producer)| {
            let others = transports.iter().enumerate().filter(move |(peer, _)| peer != owner);
            others.map(move |(_, transport)| (producer, transport))
        });
        stream::iter(pairs)
            .map(|(producer, transport)| async {
                transport.consume(producer.id(), ConsumerOptions::default()).await?;
                progress.advance();
                anyhow::Ok(())
            })
            .buffered(SETUP_CONCURRENCY)
            .try_collect::<()>()
            .await
            .context("making the consumers")?;
        Ok(plan)
    }

    /// Consumers of the first producer that all send to one socket, which nobody reads.
    async fn add_toggled(&mut self, plan: &Plan) -> anyhow::Result<UdpSocket> {
        let sink = local_socket()?;
        let producer = self
            .room
            .producers()
            .into_iter()
            .next()
            .context("there is no producer")?;
        for _ in 0..TOGGLED.min(plan.sources.len() * TOGGLED) {
            // Plain ones in any case: what is measured with them is the channel.
            let transport = self.plain_transport(sink.local_addr()?).await?;
            let options = ConsumerOptions {
                paused: true,
                ..ConsumerOptions::default()
            };
            self.toggled.push(transport.consume(producer.id(), options).await?);
        }
        Ok(sink)
    }

    /// A transport for whoever has this socket. Without encryption that is all.
    async fn transport(&self, socket: &UdpSocket) -> anyhow::Result<Transport> {
        let Some(identity) = &self.identity else {
            return self.plain_transport(socket.local_addr()?).await;
        };
        let options = WebRtcTransportOptions {
            tcp: false,
            ..WebRtcTransportOptions::default()
        };
        let transport = self
            .room
            .create_webrtc_transport(options)
            .await
            .context("making a transport")?;
        transport
            .set_remote_dtls_parameters(identity.parameters())
            .await
            .context("announcing a client's certificate")?;
        Ok(transport.into())
    }

    /// The socket that the baseline sends on instead of a transport.
    fn add_path(&self, transport: &Transport, plan: &mut Plan) -> anyhow::Result<()> {
        if self.args.one_port.is_none() {
            plan.paths.push(transport.rtp_path()?);
            return Ok(());
        }
        let (path, sink) = (local_socket()?, self.receiver()?);
        path.connect(sink.local_addr()?)?;
        sink.connect(path.local_addr()?)?;
        prepare(path.as_fd()).context("setting up a socket of the baseline")?;
        plan.paths.push(path.into());
        plan.sinks.push(sink.into());
        Ok(())
    }

    /// Has a socket send to its plain transport. A client does that when it connects.
    fn address(&self, socket: &UdpSocket, transport: &Transport) -> anyhow::Result<()> {
        if self.identity.is_none() {
            socket.connect(worker_address(transport))?;
        }
        Ok(())
    }

    /// Lets the clients connect to their WebRTC transports, and takes note of what that costs the worker.
    async fn connect(&mut self, clients: &[(&UdpSocket, &Transport)]) -> anyhow::Result<Vec<Option<Session>>> {
        let Some(identity) = &self.identity else {
            return Ok(clients.iter().map(|_| None).collect());
        };
        let before = self.worker_stats().await?.cpu_ns;
        let sessions: Vec<_> = stream::iter(clients)
            .map(|(socket, transport)| async move {
                socket.set_nonblocking(true)?;
                let transport = transport.webrtc().context("a transport that is not for WebRTC")?;
                identity.connect(socket, &transport).await.map(Some)
            })
            .buffered(SETUP_CONCURRENCY)
            .try_collect()
            .await
            .context("connecting a client")?;
        self.handshakes.count += clients.len() as u64;
        self.handshakes.worker_cpu_ns += self.worker_stats().await?.cpu_ns - before;
        Ok(sessions)
    }

    async fn plain_transport(&self, remote: SocketAddr) -> anyhow::Result<Transport> {
        let options = PlainTransportOptions {
            remote: Some(Remote {
                rtp: remote,
                rtcp: None,
            }),
            ..PlainTransportOptions::default()
        };
        self.room
            .create_plain_transport(options)
            .await
            .context("making a transport")
    }

    fn receiver(&self) -> anyhow::Result<UdpSocket> {
        let socket = local_socket()?;
        let buffered = socket2::SockRef::from(&socket);
        buffered.set_recv_buffer_size(RECEIVER_BUFFER)?;
        if self.args.gro_receivers {
            prepare(socket.as_fd()).context("setting up a receiver")?;
        } else {
            let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
            fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(socket)
    }

    pub(super) fn sources(&self) -> &[Source] {
        self.built.as_ref().map_or(&[], |built| &built.sources)
    }

    pub(super) fn driver(&self) -> anyhow::Result<&Driver> {
        Ok(&self.built.as_ref().context("the room is not set up")?.driver)
    }

    pub(super) fn raw(&self) -> anyhow::Result<&RawSender> {
        Ok(&self.built.as_ref().context("the room is not set up")?.raw)
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    pub(super) fn toggled(&self) -> &[Consumer] {
        &self.toggled
    }

    /// The descriptors that the worker has open.
    pub(super) fn worker_descriptors(&self) -> Option<usize> {
        let pid = self.server.workers().first()?.pid?;
        std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count)
    }

    pub(super) async fn worker_stats(&self) -> anyhow::Result<WorkerStats> {
        self.server
            .worker_stats(WorkerId(1))
            .await
            .context("asking the worker for its counters")
    }

    pub(super) async fn measure_residence(&self, on: bool) -> anyhow::Result<()> {
        let coalescing = Coalescing {
            window_us_max: self.args.window,
            spin_us_max: self.args.spin,
            measure_residence: on,
        };
        self.server
            .set_coalescing(coalescing)
            .await
            .context("switching the measurement of residence times")
    }

    pub(super) async fn close(self) {
        self.server.close().await;
    }
}

impl Encryption {
    /// The sources with these SSRCs are this client's.
    fn sends(&mut self, ssrcs: &[u32], session: &Session) -> anyhow::Result<()> {
        let mut outbound = Outbound::new(&session.keys.outbound);
        for ssrc in ssrcs {
            let stream = outbound.add_stream(*ssrc, Repeats::Refused);
            let stream = stream.map_err(|refused| anyhow::anyhow!("SSRC {ssrc} is refused: {refused:?}"))?;
            self.streams.push((self.outbounds.len(), stream));
        }
        self.outbounds.push(outbound);
        Ok(())
    }

    /// The next receiver is this client's.
    fn receives(&mut self, session: &Session, is_looked_at: bool) {
        let inbound = is_looked_at.then(|| Inbound::new(&session.keys.inbound, STREAMS_MAX));
        self.inbounds.push(inbound);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the load test's own side of the wire; the server's sockets are the server's"
)]
fn local_socket() -> anyhow::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding a socket on the loopback")
}

/// A port of UDP and TCP that was nobody's a moment ago.
fn free_port() -> anyhow::Result<NonZeroU16> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    NonZeroU16::new(probe.local_addr()?.port()).context("a port of number 0")
}

fn worker_address(transport: &Transport) -> SocketAddr {
    let tuple = transport.tuple();
    SocketAddr::new(tuple.local_ip, tuple.local_port)
}

/// A producer, and with `nack` one whose video is sent again under an SSRC of its own.
async fn produce(transport: &Transport, source: &Source, nack: bool) -> anyhow::Result<weir::Producer> {
    let (kind, codec) = match source.kind {
        SourceKind::Opus => (MediaKind::Audio, CodecName::Opus),
        SourceKind::Vp8 => (MediaKind::Video, CodecName::Vp8),
    };
    let mut codecs = vec![RtpCodec::new(codec, source.kind.payload_type())];
    let mut encoding = RtpEncoding::ssrc(source.ssrc);
    if nack && kind == MediaKind::Video {
        codecs[0].rtcp_feedback.push(RtcpFeedback::new("nack", ""));
        codecs.push(RtpCodec::rtx(source.kind.payload_type() + 1, &codecs[0]));
        encoding.rtx = Some(RtxParameters {
            ssrc: Some(source.ssrc | 1 << 31),
        });
    }
    let parameters = RtpParameters {
        codecs,
        encodings: vec![encoding],
        ..RtpParameters::default()
    };
    transport
        .produce(ProducerOptions::new(kind, parameters))
        .await
        .context("making a producer")
}
