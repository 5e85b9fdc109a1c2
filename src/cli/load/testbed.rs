//! What the test runs on: a server with one worker, its rooms, and the sockets on the other side.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use weir::{
    Consumer, ConsumerOptions, Family, PlainTransportOptions, ProducerOptions, Remote, Room, RoomOptions, RtcpFeedback,
    RtpCodec, RtpEncoding, RtpParameters, RtxParameters, Server, Settings, Transport, WebRtcTransportOptions, WorkerId,
    WorkerStats,
};
use weir_channel::message::{Coalescing, CodecName, IceProtocol, MediaKind};

use crate::cli::measuring::client::{Identity, Session, address_of};
use crate::cli::measuring::cpu::Cpus;
use crate::cli::measuring::socket::local_socket;
use crate::cli::measuring::wire::Wire;

use super::LoadArgs;
use super::cipher_baseline::CipherBaseline;
use super::driver::{self, Driver, Endpoints};
use super::plan::Plan;
use super::raw::{self, Path, RawSender};
use super::report::Handshakes;
use super::traffic::{FrameWriter, Source, SourceKind};

/// Requests under way at once while rooms are set up.
pub(super) const SETUP_CONCURRENCY: usize = 64;

/// Consumers that are paused and resumed by the test of the channel. Their packets are not counted.
const TOGGLED: usize = 32;

/// Everything that lives as long as the test.
pub(super) struct Testbed {
    pub args: LoadArgs,
    cpus: Cpus,
    server: Server,
    rooms: Vec<Room>,
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

impl Testbed {
    pub(super) async fn start(args: &LoadArgs, cpus: Cpus) -> anyhow::Result<Self> {
        let settings = Settings {
            workers: NonZeroU32::new(1),
            rtc_ipv4: Family::Address(Ipv4Addr::LOCALHOST),
            rtc_ipv6: Family::Off,
            coalescing_us_max: args.window.us_max(),
            spin_us_max: args.spin,
            sandbox: args.sandbox,
            ..Settings::default()
        };
        let settings = match args.one_port {
            Some(one_port) => one_port.set(settings)?,
            None => settings,
        };
        let server = Server::start(settings).await.context("starting the server")?;
        Ok(Self {
            args: args.clone(),
            cpus,
            server,
            rooms: Vec::new(),
            identity: args.srtp.map(Identity::new).transpose()?,
            built: None,
            toggled: Vec::new(),
            resident_bytes_per_consumer: None,
            handshakes: Handshakes::default(),
        })
    }

    /// Makes the producers, consumers and sockets, and starts the threads that use them.
    pub(super) async fn populate(&mut self) -> anyhow::Result<()> {
        let mut plan = match self.args.rooms() {
            Some((rooms, peers)) => self.populate_rooms(rooms, peers).await?,
            None => self.broadcast().await?,
        };
        plan.receivers.append(&mut plan.sinks);
        let mut sinks = Vec::new();
        if self.args.control {
            sinks.push(self.add_toggled(&plan).await?);
        }
        let writers = |of: fn(&Source) -> Source| plan.sources.iter().map(of).map(FrameWriter::new).collect();
        let baseline_writers = writers(Source::for_baseline);
        let endpoints = Endpoints {
            writers: writers(Source::clone),
            senders: plan.senders,
            receivers: plan.receivers,
            encryption: self.args.srtp.map(|_| plan.encryption),
        };
        let cipher = |number| {
            let protection = self.args.srtp;
            protection
                .map(|protection| CipherBaseline::new(protection, number))
                .transpose()
        };
        let paths = (0..).zip(plan.paths).map(|(number, (connected, remote))| {
            anyhow::Ok(Path {
                connected,
                remote,
                cipher: cipher(number)?,
            })
        });
        let paths = paths.collect::<anyhow::Result<_>>()?;
        self.built = Some(Built {
            driver: driver::start(self.cpus.load, endpoints)?,
            raw: raw::start(self.cpus.worker, baseline_writers, paths, plan.shared, plan.targets)?,
            sources: plan.sources,
            _sinks: sinks,
        });
        Ok(())
    }

    /// Consumers of the first producer that all send to one socket, which nobody reads.
    async fn add_toggled(&mut self, plan: &Plan) -> anyhow::Result<UdpSocket> {
        let sink = local_socket()?;
        let room = self.rooms.first().context("there is no room")?;
        let producer = room.producers().into_iter().next().context("there is no producer")?;
        for _ in 0..TOGGLED.min(plan.sources.len() * TOGGLED) {
            // Plain ones in any case: what is measured with them is the channel.
            let transport = self.plain_transport(room, sink.local_addr()?).await?;
            let options = ConsumerOptions {
                paused: true,
                ..ConsumerOptions::default()
            };
            self.toggled.push(transport.consume(producer.id(), options).await?);
        }
        Ok(sink)
    }

    /// Makes another room, and returns its place among all.
    pub(super) async fn add_room(&mut self) -> anyhow::Result<usize> {
        let room = self.server.create_room(RoomOptions::default()).await;
        self.rooms.push(room.context("making a room")?);
        Ok(self.rooms.len() - 1)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.identity.is_some()
    }

    /// A transport for whoever has this socket. Without encryption that is all.
    pub(super) async fn transport(&self, room: usize, socket: &UdpSocket) -> anyhow::Result<Transport> {
        let room = &self.rooms[room];
        let Some(identity) = &self.identity else {
            return self.plain_transport(room, socket.local_addr()?).await;
        };
        let options = WebRtcTransportOptions {
            tcp: false,
            ..WebRtcTransportOptions::default()
        };
        let transport = room
            .create_webrtc_transport(options)
            .await
            .context("making a transport")?;
        transport
            .set_remote_dtls_parameters(identity.parameters())
            .await
            .context("announcing a client's certificate")?;
        Ok(transport.into())
    }

    /// Has a socket send to its plain transport. A client does that when it connects.
    pub(super) fn address(&self, socket: &UdpSocket, transport: &Transport) -> anyhow::Result<()> {
        if self.identity.is_none() {
            socket.connect(worker_address(transport))?;
        }
        Ok(())
    }

    /// Lets the clients connect to their WebRTC transports, and takes note of what that costs the worker.
    pub(super) async fn connect(
        &mut self,
        clients: &[(&UdpSocket, &Transport)],
    ) -> anyhow::Result<Vec<Option<Session>>> {
        let Some(identity) = &self.identity else {
            return Ok(clients.iter().map(|_| None).collect());
        };
        let before = self.worker_stats().await?.cpu_ns;
        let sessions: Vec<_> = stream::iter(clients)
            .map(|(socket, transport)| async move {
                let transport = transport.webrtc().context("a transport that is not for WebRTC")?;
                socket.set_nonblocking(true)?;
                socket.connect(address_of(&transport, IceProtocol::Udp)?)?;
                let mut wire = Wire::Udp(socket.try_clone()?);
                identity.connect(&mut wire, &transport).await.map(Some)
            })
            .buffered(SETUP_CONCURRENCY)
            .try_collect()
            .await
            .context("connecting a client")?;
        self.handshakes.count += clients.len() as u64;
        self.handshakes.worker_cpu_ns += self.worker_stats().await?.cpu_ns - before;
        Ok(sessions)
    }

    async fn plain_transport(&self, room: &Room, remote: SocketAddr) -> anyhow::Result<Transport> {
        let options = PlainTransportOptions {
            remote: Some(Remote {
                rtp: remote,
                rtcp: None,
            }),
            ..PlainTransportOptions::default()
        };
        room.create_plain_transport(options).await.context("making a transport")
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

    pub(super) fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    pub(super) fn toggled(&self) -> &[Consumer] {
        &self.toggled
    }

    /// The descriptors that the worker has open.
    pub(super) fn worker_descriptors(&self) -> Option<usize> {
        std::fs::read_dir(format!("{}/fd", self.worker_directory()?))
            .ok()
            .map(Iterator::count)
    }

    /// The number of times that the worker has gone to sleep, as the kernel counts it.
    pub(super) fn worker_sleeps(&self) -> anyhow::Result<u64> {
        let directory = self.worker_directory().context("the worker is gone")?;
        let status = std::fs::read_to_string(format!("{directory}/status")).context("reading the worker's status")?;
        let sleeps = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let sleeps = sleeps.and_then(|count| count.trim().parse().ok());
        sleeps.context("the kernel does not count a process's sleeps (voluntary_ctxt_switches)")
    }

    fn worker_directory(&self) -> Option<String> {
        Some(format!("/proc/{}", self.server.workers().first()?.pid?))
    }

    pub(super) async fn worker_stats(&self) -> anyhow::Result<WorkerStats> {
        self.server
            .worker_stats(WorkerId(1))
            .await
            .context("asking the worker for its counters")
    }

    pub(super) async fn measure_residence(&self, on: bool) -> anyhow::Result<()> {
        let coalescing = Coalescing {
            window_us_max: self.args.window.us_max(),
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

fn worker_address(transport: &Transport) -> SocketAddr {
    let tuple = transport.tuple();
    SocketAddr::new(tuple.local_ip, tuple.local_port)
}

/// A producer, and with `nack` one whose video is sent again under an SSRC of its own.
pub(super) async fn produce(transport: &Transport, source: &Source, nack: bool) -> anyhow::Result<weir::Producer> {
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
