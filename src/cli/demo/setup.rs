//! Everything that takes part: the server, its rooms, who produces and who consumes.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use weir::{
    ConsumerOptions, ConsumerRtp, Event, EventKind, Family, PlainTransportOptions, Producer, ProducerOptions, Profile,
    Remote, Room, RoomOptions, RtpCodec, RtpEncoding, RtpParameters, Server, Settings,
};
use weir_recordings::{Catalogue, Recording, Replay, SentLog, StreamCheck};

use super::receiver::Receiver;
use super::recordings::{self, LAYERS};
use super::reporter::{DemoEvent, DemoEventKind, Reporter};
use super::sender::Sender;

/// Receive buffer of each receiver's socket. On loopback nothing is lost unless a socket overflows, and a demo on a busy
/// machine must not lose for that.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The server, its rooms, and everything that sends and receives.
#[derive(Debug)]
pub(super) struct Setup {
    server: Server,
    /// The producers; receivers refer to them by position.
    pub(super) sources: Vec<Source>,
    /// The consumers.
    pub(super) receivers: Vec<Arc<Receiver>>,
    reporter: Reporter,
    waiting: Vec<Sender>,
    sender_tasks: JoinSet<Result<()>>,
    receiver_tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    worker_deaths: AtomicU64,
}

/// A producer, and what it sends.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) name: &'static str,
    pub(super) room: &'static str,
    pub(super) producer: Producer,
    pub(super) tracks: Vec<Arc<Recording>>,
    pub(super) profiles: Vec<Profile>,
    pub(super) sent: Arc<SentLog>,
    pub(super) key_frame_requests: Arc<AtomicU64>,
}

/// The names that the script uses. It acts on the first room; the second shows that it does not notice.
pub(super) mod name {
    pub(in crate::cli::demo) const CAMERA: &str = "camera";
    pub(in crate::cli::demo) const ANA: &str = "ana";
    pub(in crate::cli::demo) const BEN: &str = "ben";
    pub(in crate::cli::demo) const CLEO: &str = "cleo";
}

impl Setup {
    /// Starts the server and creates everything that takes part. Nothing is sent yet.
    pub(super) async fn assemble(workers: Option<NonZeroU32>, reporter: Reporter) -> Result<Self> {
        let settings = Settings {
            workers,
            rtc_ipv4: Family::Address(Ipv4Addr::LOCALHOST),
            rtc_ipv6: Family::Off,
            ..Settings::default()
        };
        let server = Server::start(settings).await.context("cannot start the server")?;
        let mut setup = Self {
            server,
            sources: Vec::new(),
            receivers: Vec::new(),
            reporter,
            waiting: Vec::new(),
            sender_tasks: JoinSet::new(),
            receiver_tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
            worker_deaths: AtomicU64::new(0),
        };
        match setup.populate().await {
            Ok(()) => Ok(setup),
            Err(error) => {
                setup.close().await;
                Err(error)
            }
        }
    }

    async fn populate(&mut self) -> Result<()> {
        let stage = self.server.create_room(RoomOptions::default()).await?;
        let camera = self.add_camera(&stage, name::CAMERA, "stage").await?;
        let microphone = self.add_microphone(&stage, "microphone", "stage").await?;
        self.add_receiver(&stage, name::ANA, camera, Profile::Default).await?;
        self.add_receiver(&stage, name::BEN, camera, Profile::Medium).await?;
        self.add_receiver(&stage, name::CLEO, camera, Profile::High).await?;
        self.add_receiver(&stage, "dora", microphone, Profile::Default).await?;

        let foyer = self.server.create_room(RoomOptions::default()).await?;
        let camera = self.add_camera(&foyer, "camera 2", "foyer").await?;
        let microphone = self.add_microphone(&foyer, "microphone 2", "foyer").await?;
        self.add_receiver(&foyer, "eli", camera, Profile::Low).await?;
        self.add_receiver(&foyer, "fay", microphone, Profile::Default).await?;
        Ok(())
    }

    /// A simulcast camera. Its transport learns where it sends from.
    async fn add_camera(&mut self, room: &Room, name: &'static str, room_name: &'static str) -> Result<usize> {
        let tracks = recordings::camera()?;
        let encodings = std::iter::zip(&tracks, LAYERS)
            .map(|(track, profile)| RtpEncoding::layer(track.ssrc(), profile))
            .collect();
        self.add_source(room, (name, room_name), tracks, encodings, true).await
    }

    /// A microphone. Its transport is made with the address that it sends from.
    async fn add_microphone(&mut self, room: &Room, name: &'static str, room_name: &'static str) -> Result<usize> {
        let tracks = recordings::microphone()?;
        let encodings = tracks.iter().map(|track| RtpEncoding::ssrc(track.ssrc())).collect();
        self.add_source(room, (name, room_name), tracks, encodings, false).await
    }

    async fn add_source(
        &mut self,
        room: &Room,
        (name, room_name): (&'static str, &'static str),
        tracks: Vec<Arc<Recording>>,
        encodings: Vec<RtpEncoding>,
        comedia: bool,
    ) -> Result<usize> {
        let first = tracks.first().context("a source without a track")?;
        let (codec, payload_type) = (first.codec(), first.payload_type());
        let socket = bind().await?;
        let remote = Remote {
            rtp: socket.local_addr()?,
            rtcp: None,
        };
        let options = PlainTransportOptions {
            remote: (!comedia).then_some(remote),
            comedia,
            app_data: json!({ "name": name }),
            ..PlainTransportOptions::default()
        };
        let transport = room.create_plain_transport(options).await?;
        socket
            .connect((transport.tuple().local_ip, transport.tuple().local_port))
            .await?;
        let profiles = encodings.iter().map(|encoding| encoding.profile.unwrap_or_default());
        let profiles = profiles.collect();
        let rtp_parameters = RtpParameters {
            codecs: vec![RtpCodec::new(codec, payload_type)],
            encodings,
            ..RtpParameters::default()
        };
        let options = ProducerOptions {
            app_data: json!({ "name": name }),
            ..ProducerOptions::new(codec.kind(), rtp_parameters)
        };
        let producer = transport.produce(options).await?;

        let sent = Arc::new(SentLog::new(&tracks));
        let key_frame_requests = Arc::new(AtomicU64::new(0));
        self.waiting.push(Sender {
            replay: Replay::new(tracks.clone()).with_context(|| format!("the recordings of {name}"))?,
            socket,
            sent: Arc::clone(&sent),
            key_frame_requests: Arc::clone(&key_frame_requests),
            cname: "demo@weir",
            stop: self.stop.subscribe(),
        });
        self.sources.push(Source {
            name,
            room: room_name,
            producer,
            tracks,
            profiles,
            sent,
            key_frame_requests,
        });
        Ok(self.sources.len() - 1)
    }

    async fn add_receiver(
        &mut self,
        room: &Room,
        name: &'static str,
        source_index: usize,
        preferred_profile: Profile,
    ) -> Result<()> {
        let source = &self.sources[source_index];
        let socket = bind().await?;
        SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        let options = PlainTransportOptions {
            remote: Some(Remote {
                rtp: socket.local_addr()?,
                rtcp: None,
            }),
            app_data: json!({ "name": name }),
            ..PlainTransportOptions::default()
        };
        let transport = room.create_plain_transport(options).await?;
        // Every receiver wants another payload type than the producer's, so that the mapping shows.
        let payload_types = source
            .producer
            .rtp_parameters()
            .codecs
            .iter()
            .map(|codec| codec.payload_type);
        let payload_type = 100 + self.receivers.len() as u8;
        let options = ConsumerOptions {
            preferred_profile,
            rtp: ConsumerRtp {
                payload_types: payload_types.map(|theirs| (theirs, payload_type)).collect(),
                ..ConsumerRtp::default()
            },
            app_data: json!({ "name": name }),
            ..ConsumerOptions::default()
        };
        let consumer = transport.consume(&source.producer, options).await?;
        let ssrc = consumer
            .rtp_parameters()
            .encodings
            .first()
            .and_then(|encoding| encoding.ssrc);
        let ssrc = ssrc.with_context(|| format!("{name}'s consumer has no SSRC"))?;
        let catalogue = Arc::new(Catalogue::new(&source.tracks));
        let receiver = Arc::new(Receiver::new(
            name,
            source_index,
            consumer,
            source.profiles.clone(),
            Arc::clone(&source.sent),
            StreamCheck::new(catalogue, ssrc, payload_type),
            self.reporter.clone(),
        ));
        self.receiver_tasks.spawn(Arc::clone(&receiver).receive(socket));
        self.receivers.push(receiver);
        Ok(())
    }

    /// Everybody who produces begins, at once, and the clock too.
    pub(super) fn start_senders(&mut self) {
        self.reporter.start();
        for sender in self.waiting.drain(..) {
            self.sender_tasks.spawn(sender.run());
        }
    }

    /// Everybody who produces has sent their last packet when this returns.
    ///
    /// # Errors
    /// When one of them had to give up before.
    pub(super) async fn stop_senders(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        while let Some(ended) = self.sender_tasks.join_next().await {
            ended.context("a sender panicked")??;
        }
        Ok(())
    }

    /// Ends it all. No worker is left when this returns.
    pub(super) async fn close(mut self) {
        self.sender_tasks.shutdown().await;
        self.receiver_tasks.shutdown().await;
        self.server.close().await;
    }

    /// The server they all use.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// How long it has been going.
    pub(super) fn elapsed(&self) -> Duration {
        self.reporter.elapsed()
    }

    /// Reports a step of the script.
    pub(super) fn report(&self, target: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.reporter.report(DemoEventKind::Step { target, text });
    }

    /// The server says something.
    pub(super) fn on_event(&self, event: &Event) -> DemoEvent {
        if matches!(event.kind, EventKind::WorkerDied { .. }) {
            self.worker_deaths.fetch_add(1, Ordering::Relaxed);
        }
        self.reporter.event(DemoEventKind::Server {
            event: Box::new(event.clone()),
        })
    }

    /// How many worker processes died so far.
    pub(super) fn worker_deaths(&self) -> u64 {
        self.worker_deaths.load(Ordering::Relaxed)
    }

    /// The source with this name; the script names only those there are.
    pub(super) fn source(&self, name: &str) -> Option<(usize, &Source)> {
        self.sources.iter().enumerate().find(|(_, source)| source.name == name)
    }

    /// The receiver with this name.
    pub(super) fn receiver(&self, name: &str) -> Option<&Arc<Receiver>> {
        self.receivers.iter().find(|receiver| receiver.name == name)
    }
}

/// A socket of ours on loopback.
async fn bind() -> Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("cannot open a UDP socket on loopback")
}
