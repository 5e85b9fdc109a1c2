//! What workers die in: a server with rooms, in which people send and receive over plain and WebRTC transports.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use weir::{
    Consumer, ConsumerOptions, Family, PlainTransportOptions, Producer, ProducerOptions, Remote, Room, RoomOptions,
    RtcpFeedback, RtpCodec, RtpEncoding, RtpParameters, Server, Settings, Transport, WebRtcTransportOptions,
};
use weir_channel::message::{CodecName, IceProtocol, MediaKind};
use weir_worker::webrtc::srtp::{Inbound, Outbound, Repeats};

use crate::cli::measuring::client::{Identity, Protection, Session, address_of};
use crate::cli::measuring::progress::Progress;
use crate::cli::measuring::socket::{never_block, receiver_socket};
use crate::cli::measuring::wire::{Stream, Wire};

use super::ChaosArgs;
use super::driver::{Client, Crypto, Role};
use super::source::Source;

/// Requests under way at once while rooms are set up.
const SETUP_CONCURRENCY: usize = 64;

/// Streams that a client can be sent.
const STREAMS_MAX: usize = 16;

/// The SSRC of the first producer.
const FIRST_SSRC: u32 = 1_000;

/// The server, and what is in it.
pub(super) struct Scene {
    pub server: Server,
    pub rooms: Vec<Room>,
    /// A consumer of each room that is paused and resumed while workers die. Its packets are not counted.
    pub toggled: Vec<Consumer>,
    _sink: UdpSocket,
}

/// What the driver needs.
pub(super) struct Cast {
    pub sources: Vec<Source>,
    pub clients: Vec<Client>,
}

struct Setup<'a> {
    args: &'a ChaosArgs,
    identity: Identity,
    rooms: Vec<Room>,
}

impl Scene {
    pub(super) async fn set(args: &ChaosArgs, workers: NonZeroU32) -> anyhow::Result<(Self, Cast)> {
        let settings = Settings {
            workers: Some(workers),
            rtc_ipv4: Family::Address(Ipv4Addr::LOCALHOST),
            rtc_ipv6: Family::Off,
            ..Settings::default()
        };
        let settings = match args.one_port {
            Some(one_port) => one_port.set(settings)?,
            None => settings,
        };
        let server = Server::start(settings).await.context("starting the server")?;
        let mut rooms = Vec::new();
        for _ in 0..args.rooms {
            let room = server.create_room(RoomOptions::default()).await;
            rooms.push(room.context("making a room")?);
        }
        let setup = Setup {
            args,
            identity: Identity::new(Protection::Gcm)?,
            rooms,
        };
        let (producers, mut cast) = setup.produce().await?;
        cast.clients.extend(setup.consume(&producers).await?);
        let sink = receiver_socket()?;
        let mut toggled = Vec::new();
        for (number, room) in setup.rooms.iter().enumerate() {
            let transport = plain_transport(room, sink.local_addr()?).await?;
            let producer = producers.get(number).context("a room without a producer")?;
            let options = ConsumerOptions {
                paused: true,
                ..ConsumerOptions::default()
            };
            toggled.push(transport.consume(producer.id(), options).await?);
        }
        let scene = Self {
            server,
            rooms: setup.rooms,
            toggled,
            _sink: sink,
        };
        Ok((scene, cast))
    }
}

impl Setup<'_> {
    /// Whether everybody in a room uses WebRTC. Those rooms are spread over all.
    fn is_webrtc(&self, room: usize) -> bool {
        let before = (room as f64 * self.args.webrtc).floor();
        ((room + 1) as f64 * self.args.webrtc).floor() > before
    }

    /// Producer number `n` is in room `n` modulo the number of rooms; of two in a row of one room one sends sound.
    async fn produce(&self) -> anyhow::Result<(Vec<Producer>, Cast)> {
        let mut cast = Cast {
            sources: Vec::new(),
            clients: Vec::new(),
        };
        let count = self.args.producers as usize;
        let progress = Progress::new("producers", count as u64);
        let made: Vec<_> = stream::iter(0..count)
            .map(|number| {
                let progress = &progress;
                async move {
                    let room = number % self.rooms.len();
                    let kind = match (number / self.rooms.len()) % 2 {
                        0 => MediaKind::Video,
                        _ => MediaKind::Audio,
                    };
                    let ssrc = FIRST_SSRC + number as u32;
                    let (wire, transport, session) = self.connect(number, room).await?;
                    let producer = produce(&transport, kind, ssrc).await?;
                    progress.advance();
                    anyhow::Ok((kind, ssrc, wire, session, producer))
                }
            })
            .buffered(SETUP_CONCURRENCY)
            .try_collect()
            .await?;
        let mut producers = Vec::new();
        for (number, (kind, ssrc, wire, session, producer)) in made.into_iter().enumerate() {
            let mut crypto = session.map(Crypto::of);
            if let Some(crypto) = &mut crypto {
                let stream = crypto.outbound.add_stream(ssrc, Repeats::Identical);
                let stream = stream.map_err(|refused| anyhow::anyhow!("SSRC {ssrc} is refused: {refused:?}"))?;
                crypto.stream = Some(stream);
            }
            cast.sources.push(Source::new(kind, ssrc, self.args.payload as usize));
            cast.clients.push(Client {
                wire,
                crypto,
                role: Role::Sender(number),
            });
            producers.push(producer);
        }
        Ok((producers, cast))
    }

    async fn consume(&self, producers: &[Producer]) -> anyhow::Result<Vec<Client>> {
        let count = self.args.consumers as usize;
        let progress = Progress::new("consumers", count as u64);
        stream::iter(0..count)
            .map(|number| {
                let progress = &progress;
                async move {
                    let source = number % producers.len();
                    let (wire, transport, session) = self.connect(number, source % self.rooms.len()).await?;
                    let consumer = transport
                        .consume(producers[source].id(), ConsumerOptions::default())
                        .await
                        .context("making a consumer")?;
                    let encoding = consumer.rtp_parameters().encodings.first();
                    let ssrc = encoding.and_then(|encoding| encoding.ssrc);
                    progress.advance();
                    anyhow::Ok(Client {
                        wire,
                        crypto: session.map(Crypto::of),
                        role: Role::Receiver {
                            source,
                            ssrc: ssrc.context("a consumer without an SSRC")?,
                        },
                    })
                }
            })
            .buffered(SETUP_CONCURRENCY)
            .try_collect()
            .await
    }

    /// What this sender or receiver comes by, if it uses WebRTC. In each room each kind of media, and each way, comes with each.
    fn protocol(&self, number: usize) -> IceProtocol {
        let place = number / self.rooms.len();
        let over = &self.args.webrtc_over;
        over[(place + place / 2) % over.len()].protocol()
    }

    /// A client with a transport of its own in a room.
    async fn connect(&self, number: usize, room: usize) -> anyhow::Result<(Wire, Transport, Option<Session>)> {
        if !self.is_webrtc(room) {
            let socket = client_socket()?;
            let transport = plain_transport(&self.rooms[room], socket.local_addr()?).await?;
            let tuple = transport.tuple();
            socket.connect(SocketAddr::new(tuple.local_ip, tuple.local_port))?;
            return Ok((Wire::Udp(socket), transport, None));
        }
        let protocol = self.protocol(number);
        let options = WebRtcTransportOptions {
            udp: protocol == IceProtocol::Udp,
            tcp: protocol == IceProtocol::Tcp,
            ..WebRtcTransportOptions::default()
        };
        let transport = self.rooms[room]
            .create_webrtc_transport(options)
            .await
            .context("making a transport")?;
        transport
            .set_remote_dtls_parameters(self.identity.parameters())
            .await
            .context("announcing a client's certificate")?;
        let there = address_of(&transport, protocol)?;
        let mut wire = match protocol {
            IceProtocol::Udp => {
                let socket = client_socket()?;
                socket.connect(there)?;
                Wire::Udp(socket)
            }
            IceProtocol::Tcp => Wire::Tcp(Stream::connect(there).context("opening a connection")?),
        };
        let session = self
            .identity
            .connect(&mut wire, &transport)
            .await
            .context("connecting a client")?;
        Ok((wire, transport.into(), Some(session)))
    }
}

fn client_socket() -> anyhow::Result<UdpSocket> {
    let socket = receiver_socket()?;
    never_block(&socket)?;
    Ok(socket)
}

impl Crypto {
    fn of(session: Session) -> Self {
        Self {
            outbound: Outbound::new(&session.keys.outbound),
            inbound: Inbound::new(&session.keys.inbound, STREAMS_MAX),
            checks: session.checks,
            stream: None,
        }
    }
}

async fn plain_transport(room: &Room, remote: SocketAddr) -> anyhow::Result<Transport> {
    let options = PlainTransportOptions {
        remote: Some(Remote {
            rtp: remote,
            rtcp: None,
        }),
        ..PlainTransportOptions::default()
    };
    room.create_plain_transport(options).await.context("making a transport")
}

/// A producer. Whoever receives its video may ask for it again; it comes as it was.
async fn produce(transport: &Transport, kind: MediaKind, ssrc: u32) -> anyhow::Result<Producer> {
    let name = match kind {
        MediaKind::Audio => CodecName::Opus,
        MediaKind::Video => CodecName::Vp8,
    };
    let mut codec = RtpCodec::new(name, Source::payload_type(kind));
    if kind == MediaKind::Video {
        codec.rtcp_feedback.push(RtcpFeedback::new("nack", ""));
        codec.rtcp_feedback.push(RtcpFeedback::new("nack", "pli"));
    }
    let parameters = RtpParameters {
        codecs: vec![codec],
        encodings: vec![RtpEncoding::ssrc(ssrc)],
        ..RtpParameters::default()
    };
    transport
        .produce(ProducerOptions::new(kind, parameters))
        .await
        .context("making a producer")
}
