//! Real worker processes are killed while WebRTC clients send and receive: they notice nothing but a moment of silence.

#![allow(clippy::unwrap_used, reason = "tests")]

mod browser;
mod control;
mod loopback;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use weir::{
    ConnectedSockets, Consumer, ConsumerOptions, DtlsState, EventKind, EventStream, IceState, Room, RoomOptions,
    Server, Settings, UnroutedReason, WebRtcFailureReason, WebRtcTransport, WebRtcTransportOptions,
};

use weir_worker::webrtc::framing::{each_whole, prefix};

use browser::{Begins, Browser};
use control::{free_ports, settings, soon};
use loopback::{on_first_worker, opus, plain_to};

const SSRC: u32 = 0x1_0001;

/// Receivers in a crowd: several frames of requests.
const CROWD: usize = 300;

/// Opus, on both sides.
const OPUS: u8 = 100;

/// How a client's packets travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Udp,
    Tcp,
}

/// A client's packets go over a TCP connection from here, framed (RFC 4571). Returns where to send them.
async fn over_tcp(server: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    tokio::spawn(async move {
        let (mut from_server, mut to_server) = stream.into_split();
        let (mut client, mut datagram) = (None, vec![0; 4_096]);
        let (mut arrived, mut bytes) = (Vec::new(), vec![0; 4_096]);
        loop {
            tokio::select! {
                received = socket.recv_from(&mut datagram) => {
                    let (len, from) = received.unwrap();
                    client = Some(from);
                    let mut frame = prefix(len).unwrap().to_vec();
                    frame.extend_from_slice(&datagram[..len]);
                    if to_server.write_all(&frame).await.is_err() {
                        return;
                    }
                }
                read = from_server.read(&mut bytes) => {
                    let Ok(len @ 1..) = read else { return };
                    arrived.extend_from_slice(&bytes[..len]);
                    let mut packets = Vec::new();
                    let cut = each_whole(&arrived, |packet| packets.push(packet.to_vec())).unwrap();
                    arrived.drain(..cut.whole);
                    for packet in packets {
                        socket.send_to(&packet, client.unwrap()).await.unwrap();
                    }
                }
            }
        }
    });
    address
}

/// A client with a transport of its own.
struct Client {
    transport: WebRtcTransport,
    browser: Browser,
}

impl Client {
    /// One that has been told everything, and has not begun.
    async fn new(room: &Room, begins: Begins) -> Self {
        Self::by(By::Udp, room, begins).await
    }

    async fn by(by: By, room: &Room, begins: Begins) -> Self {
        let options = WebRtcTransportOptions::default();
        let transport = soon("a transport", room.create_webrtc_transport(options))
            .await
            .unwrap();
        let mut browser = Browser::new(begins, OPUS).await;
        let parameters = serde_json::from_value(browser.dtls_parameters()).unwrap();
        soon("its parameters", transport.set_remote_dtls_parameters(parameters))
            .await
            .unwrap();
        let mut candidates = json!(transport.ice_candidates());
        if by == By::Tcp {
            let candidates = candidates.as_array_mut().unwrap();
            candidates.retain(|candidate| candidate["protocol"] == "tcp");
            let port = candidates[0]["port"].as_u64().unwrap() as u16;
            let there = over_tcp(([127, 0, 0, 1], port).into()).await;
            // To the client it looks like any other address.
            candidates[0]["protocol"] = json!("udp");
            candidates[0]["port"] = json!(there.port());
        }
        browser.connect(&json!({
            "iceParameters": transport.ice_parameters(),
            "iceCandidates": candidates,
            "dtlsParameters": transport.dtls_local_parameters(),
        }));
        Self { transport, browser }
    }

    async fn connect(&mut self) {
        let transport = self.transport.clone();
        self.browser
            .run_until("the client to be connected", |browser| {
                browser.connected && transport.dtls_state() == DtlsState::Connected
            })
            .await;
    }
}

/// One who speaks and one who hears it.
struct Scene {
    server: Server,
    room: Room,
    speaking: Client,
    hearing: Client,
    consumer: Consumer,
    seq: u64,
    heard: BTreeSet<u64>,
}

impl Scene {
    async fn new(settings: Settings) -> Self {
        Self::by(By::Udp, settings).await
    }

    async fn by(by: By, settings: Settings) -> Self {
        let server = Server::start(settings).await.unwrap();
        let room = soon("a room", server.create_room(on_first_worker())).await.unwrap();
        // Each side of a handshake once.
        let mut speaking = Client::by(by, &room, Begins::There).await;
        let mut hearing = Client::by(by, &room, Begins::Here).await;
        speaking.browser.declare_sent("0", SSRC);
        speaking.connect().await;
        let producing = speaking.transport.produce(opus(OPUS, SSRC));
        let producer = soon("a producer", producing).await.unwrap();
        let consuming = hearing.transport.consume(&producer, ConsumerOptions::default());
        let consumer = soon("a consumer", consuming).await.unwrap();
        let ssrc = consumer.rtp_parameters().encodings[0].ssrc.unwrap();
        hearing.browser.declare_received("0", ssrc);
        hearing.connect().await;
        Self {
            server,
            room,
            speaking,
            hearing,
            consumer,
            // The second packet is in the second cycle: receivers must know of both.
            seq: 0xffff,
            heard: BTreeSet::new(),
        }
    }

    /// Says one more packet.
    async fn say(&mut self) {
        let number = self.seq.to_be_bytes();
        self.speaking.browser.send(SSRC, OPUS, self.seq, &number);
        self.seq += 1;
        self.speaking.browser.run_until("what is in line", |_| true).await;
    }

    /// Speaks until so many more packets have been heard, of those that are said from now on.
    async fn hear(&mut self, packets: usize) {
        let began = self.seq;
        let mut heard = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while heard < packets {
            self.say().await;
            let hearing = &mut self.hearing.browser;
            tokio::select! {
                () = hearing.run_until("a packet", |hearing| !hearing.packets.is_empty()) => {}
                _ = ticks.tick() => {}
            }
            for packet in self.hearing.browser.packets.drain(..) {
                let number = number_of(&packet.payload);
                assert!(number < self.seq);
                heard += usize::from(number >= began);
                self.heard.insert(number);
            }
            assert!(self.seq < began + 5_000, "nothing is heard any more");
        }
    }

    fn is_whole(&self) -> bool {
        let transports = [&self.speaking.transport, &self.hearing.transport];
        let are_connected = |transport: &&WebRtcTransport| {
            transport.dtls_state() == DtlsState::Connected
                && matches!(transport.ice_state(), IceState::Connected | IceState::Completed)
                && !transport.closed()
        };
        transports.iter().all(are_connected) && !self.consumer.closed() && !self.room.closed()
    }
}

fn number_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload.try_into().unwrap())
}

fn kill_worker(server: &Server) {
    let pid = server.workers()[0].pid.unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

/// Waits for the restoration, before which nothing may be said that clients' owners would see as a change.
async fn restored(events: &mut EventStream) {
    soon("the restoration", async {
        loop {
            let event = events.next().await.unwrap();
            match &event.kind {
                EventKind::WorkerRestored { lost, .. } => return assert_eq!(*lost, 0),
                EventKind::WorkerDied { .. } | EventKind::WorkerStarted { .. } => {}
                EventKind::ProducerActivityChanged { .. } | EventKind::ConsumerEffectiveProfileChanged { .. } => {}
                _ => panic!("{event:?}"),
            }
        }
    })
    .await;
}

async fn nobody_notices(by: By, settings: Settings) {
    let mut scene = Scene::by(by, settings).await;
    scene.hear(10).await;
    let tuples = [&scene.speaking, &scene.hearing].map(|client| client.transport.ice_selected_tuple());
    let mut events = scene.server.events();
    let mut before = 0;
    for _ in 0..3 {
        kill_worker(&scene.server);
        restored(&mut events).await;
        scene.hear(60).await;
        assert!(scene.is_whole());
        let now = [&scene.speaking, &scene.hearing].map(|client| client.transport.ice_selected_tuple());
        assert_eq!(now, tuples);
        let stats = soon("statistics", scene.hearing.transport.stats()).await.unwrap();
        let checks = stats.webrtc.unwrap().checks;
        assert!(checks >= before, "{checks} < {before}");
        before = checks;
    }
    soon("the end", scene.server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_ports_of_their_own_notice_nothing() {
    nobody_notices(By::Udp, settings(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_a_shared_port_notice_nothing() {
    for webrtc_connected in [ConnectedSockets::Auto, ConnectedSockets::Never] {
        nobody_notices(
            By::Udp,
            Settings {
                webrtc_port: std::num::NonZeroU16::new(free_ports(1)),
                webrtc_connected,
                ..settings(1)
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_on_tcp_notice_nothing() {
    nobody_notices(By::Tcp, settings(1)).await;
    let on_shared_port = Settings {
        webrtc_port: std::num::NonZeroU16::new(free_ports(1)),
        ..settings(1)
    };
    nobody_notices(By::Tcp, on_shared_port).await;
}

/// Stops the worker's process, which then has nothing in hand.
async fn stop_worker(server: &Server) -> Pid {
    let pid = Pid::from_raw(server.workers()[0].pid.unwrap() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    soon("its stop", async {
        loop {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            // Behind the name, which is in parentheses.
            if status.rsplit(") ").next().unwrap().starts_with('T') {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    pid
}

/// A room with so many receivers that it is made again first, and not in one go.
async fn crowd(server: &Server) -> (Room, UdpSocket) {
    let room = soon("a room", server.create_room(on_first_worker())).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let there = socket.local_addr().unwrap();
    let from = plain_to(&room, there).await;
    let producer = soon("a producer", from.produce(opus(OPUS, SSRC))).await.unwrap();
    for _ in 0..CROWD {
        let to = plain_to(&room, there).await;
        let consuming = to.consume(&producer, ConsumerOptions::default());
        soon("a consumer", consuming).await.unwrap();
    }
    (room, socket)
}

/// What is said while there is no process waits until everybody is there for whom it is.
async fn everything_is_heard(by: By, settings: Settings) {
    let mut scene = Scene::by(by, settings).await;
    let _crowd = crowd(&scene.server).await;
    scene.hear(10).await;
    for _ in 0..3 {
        let mut events = scene.server.events();
        let pid = stop_worker(&scene.server).await;
        let began = scene.seq;
        // Before and after its death, as many as the receiver's socket has room for three times.
        for number in 0..30 {
            if number == 15 {
                kill(pid, Signal::SIGKILL).unwrap();
            }
            scene.say().await;
        }
        restored(&mut events).await;
        scene.hear(5).await;
        let newest = scene.heard.last().copied().unwrap();
        let missing: Vec<_> = (began..newest).filter(|number| !scene.heard.contains(number)).collect();
        assert_eq!(missing, [0; 0], "of {began} to {newest} by {by:?}");
    }
    soon("the end", scene.server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_meanwhile_is_heard() {
    for by in [By::Udp, By::Tcp] {
        everything_is_heard(by, settings(1)).await;
        for webrtc_connected in [ConnectedSockets::Auto, ConnectedSockets::Never] {
            let on_shared_port = Settings {
                webrtc_port: std::num::NonZeroU16::new(free_ports(1)),
                webrtc_connected,
                ..settings(1)
            };
            everything_is_heard(by, on_shared_port).await;
        }
    }
}

/// Whoever has listened sends it all again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_before_is_not_received_again() {
    let mut scene = Scene::new(settings(1)).await;
    let is_rtcp = |packet: &Vec<u8>| packet[0] >= 128 && (192..=223).contains(&packet[1]);
    scene.speaking.browser.recorded = Some(Vec::new());
    scene.hear(10).await;
    let speaking = &mut scene.speaking.browser;
    speaking
        .run_until("a report", |speaking| speaking.recorded.iter().flatten().any(is_rtcp))
        .await;
    let recorded = speaking.recorded.take().unwrap();
    let recorded: Vec<_> = recorded.into_iter().filter(|packet| packet[0] >= 128).collect();
    assert!(recorded.iter().filter(|packet| !is_rtcp(packet)).count() >= 10);
    // It has come: what is said behind it is heard.
    scene.hear(10).await;
    let mut events = scene.server.events();
    kill_worker(&scene.server);
    restored(&mut events).await;
    scene.hear(10).await;
    let heard = scene.heard.len();
    let candidate = scene.speaking.transport.ice_candidates()[0].clone();
    for packet in &recorded {
        let there = SocketAddr::new(candidate.ip, candidate.port);
        scene.speaking.browser.say(there, packet).await;
    }
    soon("the end of what was recorded", async {
        let mut replayed = 0;
        while replayed < recorded.len() as u64 {
            let stats = scene.speaking.transport.stats().await.unwrap();
            replayed = stats.unrouted.of(UnroutedReason::Replayed);
        }
    })
    .await;
    scene.hear(10).await;
    assert!(scene.heard.len() >= heard + 10 && scene.is_whole());
    soon("the end", scene.server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_have_not_begun_find_everything_as_they_were_told() {
    let server = Server::start(settings(1)).await.unwrap();
    let room = soon("a room", server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let mut client = Client::new(&room, Begins::Here).await;
    let mut events = server.events();
    kill_worker(&server);
    restored(&mut events).await;
    client.connect().await;
    soon("the end", server.close()).await;
}

/// Half a handshake cannot be continued: the transport says so, and the rest of the room goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_under_way_fails_and_says_so() {
    let mut scene = Scene::new(settings(1)).await;
    let mut joining = Client::new(&scene.room, Begins::There).await;
    let transport = joining.transport.clone();
    let mut events = scene.server.events();
    // The server has begun, and the client keeps its answer to itself.
    joining.browser.withholds_dtls = true;
    joining
        .browser
        .run_until("the handshake to begin", |_| {
            transport.dtls_state() == DtlsState::Connecting
        })
        .await;
    kill_worker(&scene.server);
    let failure = soon("the failure", async {
        loop {
            let event = events.next().await.unwrap();
            if let EventKind::DtlsStateChanged {
                state: DtlsState::Failed,
                failure,
                ..
            } = &event.kind
            {
                return failure.clone().unwrap();
            }
        }
    })
    .await;
    assert_eq!(failure.reason, WebRtcFailureReason::WorkerDied);
    assert!(!transport.closed());
    scene.hear(20).await;
    assert!(scene.is_whole());
    soon("the end", scene.server.close()).await;
}
