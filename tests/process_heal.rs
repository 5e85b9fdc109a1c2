//! Real worker processes are killed while media flows, and everything goes on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod counters;
mod loopback;
mod processes;

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use weir::{
    Consumer, ConsumerOptions, EventKind, EventStream, MirrorOptions, PlainTransportOptions, Producer, Remote, Room,
    RoomOptions, Server, Settings, Transport, WorkerId,
};

use counters::{assert_none_goes_back, counters};
use loopback::{on_first_worker, opus};
use processes::{descriptors, settings, soon};

/// A packet of opus every 20 ms.
const INTERVAL: Duration = Duration::from_millis(20);

/// A packet whose last bytes are its number.
fn packet(ssrc: u32, number: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend((number as u16).to_be_bytes());
    packet.extend(number.wrapping_mul(960).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet
}

/// A room with a microphone that sends all the time, and two that hear it.
struct Scene {
    room: Room,
    sending: Transport,
    producer: Producer,
    consumers: Vec<Consumer>,
    receivers: Vec<UdpSocket>,
    microphone: JoinHandle<()>,
}

impl Scene {
    async fn new(server: &Server, ssrc: u32) -> Self {
        let room = soon(server.create_room(on_first_worker())).await.unwrap();
        let comedia = PlainTransportOptions {
            comedia: true,
            ..PlainTransportOptions::default()
        };
        let sending = soon(room.create_plain_transport(comedia)).await.unwrap();
        let producer = soon(sending.produce(opus(111, ssrc))).await.unwrap();
        let (mut consumers, mut receivers) = (Vec::new(), Vec::new());
        for rtcp_mux in [true, false] {
            let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let options = PlainTransportOptions {
                rtcp_mux,
                remote: Some(Remote {
                    rtp: receiver.local_addr().unwrap(),
                    rtcp: None,
                }),
                ..PlainTransportOptions::default()
            };
            let transport = soon(room.create_plain_transport(options)).await.unwrap();
            consumers.push(
                soon(transport.consume(&producer, ConsumerOptions::default()))
                    .await
                    .unwrap(),
            );
            receivers.push(receiver);
        }
        let tuple = sending.tuple();
        let port = (tuple.bound_ip, tuple.local_port);
        let microphone = tokio::spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0.. {
                ticks.tick().await;
                socket.send_to(&packet(ssrc, number), port).await.unwrap();
            }
        });
        Self {
            room,
            sending,
            producer,
            consumers,
            receivers,
            microphone,
        }
    }

    /// What has come is thrown away; returns when so many more have come to each receiver.
    async fn hear(&self, packets: usize) {
        let mut buffer = [0; 2_000];
        for (receiver, consumer) in self.receivers.iter().zip(&self.consumers) {
            while receiver.try_recv(&mut buffer).is_ok() {}
            let ssrc = consumer.rtp_parameters().encodings[0].ssrc.unwrap();
            let mut heard = 0;
            while heard < packets {
                let len = soon(receiver.recv(&mut buffer)).await.unwrap();
                let is_rtp = !(192..224).contains(&buffer[1]);
                if is_rtp {
                    assert_eq!(buffer[8..12], ssrc.to_be_bytes());
                    assert_eq!(len, 16);
                    heard += 1;
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        let consumers = self.consumers.iter().all(|consumer| !consumer.closed());
        consumers && !self.room.closed() && !self.sending.closed() && !self.producer.closed()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.microphone.abort();
    }
}

fn kill_worker(server: &Server) -> u32 {
    let pid = server.workers()[0].pid.unwrap();
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    pid
}

/// Waits for the restoration; returns how many rooms it was of, and how many things were lost. Nothing may close before.
async fn restored(events: &mut EventStream) -> (u64, u64) {
    soon(async {
        loop {
            let event = events.next().await.unwrap();
            match &event.kind {
                EventKind::WorkerRestored { rooms, lost, .. } => return (*rooms, *lost),
                EventKind::RoomClosed { .. }
                | EventKind::TransportClosed { .. }
                | EventKind::ProducerClosed { .. }
                | EventKind::ConsumerClosed { .. } => panic!("{event:?}"),
                _ => {}
            }
        }
    })
    .await
}

async fn three_rooms() -> (Server, Vec<Scene>) {
    let server = Server::start(settings(1)).await.unwrap();
    let mut scenes = Vec::new();
    for ssrc in [0x1_0001, 0x1_0002, 0x1_0003] {
        scenes.push(Scene::new(&server, ssrc).await);
    }
    for scene in &scenes {
        scene.hear(1).await;
    }
    (server, scenes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_goes_on_after_a_kill_and_no_caller_sees_an_error() {
    let (server, scenes) = three_rooms().await;
    let mirror = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = mirror.local_addr().unwrap();
    let options = MirrorOptions::everything_to(address);
    soon(scenes[2].sending.start_mirroring(options)).await.unwrap();
    soon(scenes[1].consumers[0].pause(Value::Null)).await.unwrap();
    let mut events = server.events();
    kill_worker(&server);
    // Whatever the moment at which each of these comes, it is carried out, once.
    let (paused, resumed, created, closed, stats, room) = tokio::join!(
        scenes[0].producer.pause(Value::Null),
        scenes[1].consumers[0].resume(Value::Null),
        scenes[0].room.create_plain_transport(PlainTransportOptions::default()),
        scenes[2].consumers[1].close(Value::Null),
        scenes[2].room.stats(),
        server.create_room(RoomOptions::default()),
    );
    paused.unwrap();
    resumed.unwrap();
    closed.unwrap();
    stats.unwrap();
    soon(room.unwrap().close(Value::Null)).await.unwrap();
    soon(created.unwrap().close(Value::Null)).await.unwrap();
    let restored = soon(async {
        loop {
            if let EventKind::WorkerRestored { rooms, lost, .. } = events.next().await.unwrap().kind {
                return (rooms, lost);
            }
        }
    })
    .await;
    assert!(restored.0 >= 3 && restored.1 == 0, "{restored:?}");
    soon(scenes[0].producer.resume(Value::Null)).await.unwrap();
    scenes[0].hear(5).await;
    scenes[1].hear(5).await;
    assert!(scenes[0].is_whole() && scenes[1].is_whole());
    assert!(scenes[2].consumers[1].closed() && !scenes[2].consumers[0].closed());
    let mut buffer = [0; 100];
    while mirror.try_recv(&mut buffer).is_ok() {}
    for _ in 0..3 {
        soon(mirror.recv(&mut buffer)).await.unwrap();
    }
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_in_a_row_cost_nothing_for_good() {
    let (server, scenes) = three_rooms().await;
    let mut events = server.events();
    let own = std::process::id();
    let mut counts = Vec::new();
    for round in 0..20 {
        kill_worker(&server);
        assert_eq!(restored(&mut events).await, (3, 0));
        for scene in &scenes {
            scene.hear(2).await;
            assert!(scene.is_whole());
        }
        // So long that the next death is not taken for one at the start.
        scenes[0].hear(55).await;
        counts.push(descriptors(own).len());
        let info = server.workers().remove(0);
        assert_eq!((info.restarts, info.restorations), (round + 1, round + 1));
    }
    // Other tests of this program come and go meanwhile, and a spare may be on its way.
    let (first, last) = counts.split_at(10);
    let least = |counts: &[usize]| *counts.iter().min().unwrap();
    assert!(least(last) <= least(first), "{counts:?}");
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_dies_while_it_adopts_has_a_successor() {
    let (server, scenes) = three_rooms().await;
    let mut events = server.events();
    kill_worker(&server);
    for _ in 0..3 {
        let pid = soon(async {
            loop {
                if let EventKind::WorkerStarted { pid, .. } = events.next().await.unwrap().kind {
                    return pid;
                }
            }
        })
        .await;
        // At this moment it is being told what to make. It may be reaped already if it was killed before.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
    for scene in &scenes {
        scene.hear(5).await;
        assert!(scene.is_whole());
    }
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_a_worker_without_a_process_wait_for_it() {
    let server = Server::start(Settings {
        request_timeout: Duration::from_secs(30),
        ..settings(1)
    })
    .await
    .unwrap();
    let mut events = server.events();
    // Two deaths without a second of service in between: now there is a back-off.
    kill_worker(&server);
    assert_eq!(restored(&mut events).await, (0, 0));
    kill_worker(&server);
    let died = soon(async {
        loop {
            if let EventKind::WorkerDied { restart_in_ms, .. } = events.next().await.unwrap().kind
                && restart_in_ms != Some(0)
            {
                return;
            }
        }
    });
    died.await;
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    soon(room.stats()).await.unwrap();
    soon(server.close()).await;
}

/// Every counter that anybody can read of a server: its worker's, and those of all that is in the rooms, in both shapes.
async fn all_counters(server: &Server, scenes: &[Scene]) -> BTreeMap<String, u64> {
    fn json(answer: impl serde::Serialize) -> Value {
        serde_json::to_value(answer).unwrap()
    }
    let mut answers = vec![(
        "worker".to_owned(),
        json(soon(server.worker_stats(WorkerId(1))).await.unwrap()),
    )];
    for room in scenes.iter().map(|scene| &scene.room) {
        let id = room.id();
        answers.push((format!("{id}"), json(soon(room.stats()).await.unwrap())));
        for transport in room.transports() {
            answers.push((
                format!("{id} transports"),
                json(soon(transport.get_stats()).await.unwrap()),
            ));
        }
        for producer in room.producers() {
            answers.push((
                format!("{id} producers"),
                json(soon(producer.get_stats()).await.unwrap()),
            ));
        }
        for consumer in room.consumers() {
            answers.push((
                format!("{id} consumers"),
                json(soon(consumer.get_stats()).await.unwrap()),
            ));
        }
    }
    let mut all = BTreeMap::new();
    for (whose, answer) in answers {
        all.extend(
            counters(&answer)
                .into_iter()
                .map(|(name, count)| (format!("{whose}{name}"), count)),
        );
    }
    all
}

/// A receiver report (RFC 3550 §6.4.2) that says so many packets lost, and a negative acknowledgement (RFC 4585 §6.2.1).
fn losses(ssrc: u32, lost: u8) -> Vec<u8> {
    let mut packet = vec![0x81, 201, 0, 7, 0, 0, 0, 9];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0, 0, 0, lost]);
    packet.extend([0; 16]);
    packet.extend([0x81, 205, 0, 3, 0, 0, 0, 9]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0; 4]);
    packet
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_number_that_anybody_can_read_goes_back_over_a_death() {
    let (server, scenes) = three_rooms().await;
    let scene = &scenes[0];
    let mirror = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = MirrorOptions::everything_to(mirror.local_addr().unwrap());
    soon(scene.sending.start_mirroring(options)).await.unwrap();
    let tuple = scene.sending.tuple();
    let port = (tuple.bound_ip, tuple.local_port);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger.send_to(&[0x80; 30], port).await.unwrap();
    let to = scene.consumers[0].transport().unwrap().tuple();
    let ssrc = scene.consumers[0].rtp_parameters().encodings[0].ssrc.unwrap();
    scene.receivers[0]
        .send_to(&losses(ssrc, 77), (to.bound_ip, to.local_port))
        .await
        .unwrap();
    // More than the kernel keeps for a worker that does not read.
    let pid = Pid::from_raw(server.workers()[0].pid.unwrap() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    for _ in 0..30_000 {
        stranger.send_to(&[0x80; 1_200], port).await.unwrap();
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let awaited = [
        "worker/cpuNs",
        "worker/kernelDrops",
        "worker/packetsSent",
        "worker/turns",
        "/bytesForwarded",
        "/bytesSent",
        "/kernelDrops",
        "/nackCount",
        "/packetCount",
        "/packetsMirrored",
        "/packetsSent",
        "/rtcpReceived",
        "/rtcpSent",
        "/unrouted/foreignSource",
    ];
    for attempt in 0.. {
        let all = all_counters(&server, &scenes).await;
        let is_counted = |name: &&str| all.iter().any(|(counter, count)| counter.ends_with(name) && *count > 0);
        let missing: Vec<_> = awaited.into_iter().filter(|name| !is_counted(name)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(attempt < 500, "{missing:?}");
        scene.hear(1).await;
    }
    let mut events = server.events();
    for _ in 0..3 {
        let before = all_counters(&server, &scenes).await;
        kill_worker(&server);
        assert_eq!(restored(&mut events).await, (3, 0));
        assert_none_goes_back(&before, &all_counters(&server, &scenes).await);
        assert_eq!(soon(scene.consumers[0].stats()).await.unwrap().packets_lost, 77);
        for scene in &scenes {
            scene.hear(55).await;
        }
    }
    soon(server.close()).await;
}
