//! Real worker processes die of what looks like packets, and of what does not.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "sockets of the test's own")]

mod loopback;
mod processes;

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir::{
    CloseCause, Consumer, ConsumerOptions, DeathCause, EventKind, EventStream, Room, Server, Settings, Transport,
    UnroutedReason, WorkerId,
};

use loopback::{on_first_worker, opus, plain_to};
use processes::{settings, soon};

/// They take whole CPUs.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// So many copies of each packet keep a worker busy.
const COPIES: usize = 60;

/// Somebody who sends to a transport as fast as possible.
struct Flood {
    address: SocketAddr,
    transport: Transport,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// One in a room, whose packets go to many.
    async fn to(room: &Room, ssrc: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let transport = plain_to(room, address).await;
        let producer = soon(transport.produce(opus(111, ssrc))).await.unwrap();
        // Nobody reads there.
        let nowhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Each on a transport of its own, so that the worker sends them while it works on the packet, and not afterwards together.
        for _ in 0..COPIES {
            let receiving = plain_to(room, nowhere.local_addr().unwrap()).await;
            soon(receiving.consume(&producer, ConsumerOptions::default()))
                .await
                .unwrap();
        }
        let tuple = transport.tuple();
        let port = SocketAddr::new(tuple.bound_ip, tuple.local_port);
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let _nowhere = nowhere;
                let mut packet = [0; 500];
                (packet[0], packet[1]) = (0x80, 111);
                packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
                for number in 0_u32.. {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
                    packet[4..8].copy_from_slice(&number.wrapping_mul(960).to_be_bytes());
                    let _ = socket.send_to(&packet, port);
                }
            }
        });
        Self {
            address,
            transport,
            is_over,
            thread: Some(thread),
        }
    }

    async fn quarantined_packets(&self) -> u64 {
        self.unrouted(UnroutedReason::Quarantined).await
    }

    async fn unrouted(&self, reason: UnroutedReason) -> u64 {
        let stats = soon(self.transport.stats()).await.unwrap();
        stats.unrouted.of(reason)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A room with one who speaks a little, and one who hears that.
struct Bystander {
    room: Room,
    consumer: Consumer,
    speaker: UdpSocket,
    port: SocketAddr,
    receiver: tokio::net::UdpSocket,
    spoken: u32,
}

impl Bystander {
    async fn new(server: &Server) -> Self {
        let room = soon(server.create_room(on_first_worker())).await.unwrap();
        let speaker = UdpSocket::bind("127.0.0.1:0").unwrap();
        let receiver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sending = plain_to(&room, speaker.local_addr().unwrap()).await;
        let receiving = plain_to(&room, receiver.local_addr().unwrap()).await;
        let producer = soon(sending.produce(opus(111, 0x1_0001))).await.unwrap();
        let consumer = soon(receiving.consume(&producer, ConsumerOptions::default()))
            .await
            .unwrap();
        let tuple = sending.tuple();
        Self {
            room,
            consumer,
            speaker,
            port: SocketAddr::new(tuple.bound_ip, tuple.local_port),
            receiver,
            spoken: 0,
        }
    }

    /// It is heard for so long that the next death is not taken for one at the start, after which there would be a delay.
    async fn is_heard_for_a_second(&mut self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..55 {
            ticks.tick().await;
            self.is_heard().await;
        }
    }

    /// What is said is heard.
    async fn is_heard(&mut self) {
        let mut buffer = [0; 2_000];
        while self.receiver.try_recv(&mut buffer).is_ok() {}
        soon(async {
            loop {
                let mut packet = vec![0x80, 111];
                packet.extend((self.spoken as u16).to_be_bytes());
                packet.extend(self.spoken.wrapping_mul(960).to_be_bytes());
                packet.extend(0x1_0001_u32.to_be_bytes());
                packet.extend([7; 20]);
                self.spoken += 1;
                self.speaker.send_to(&packet, self.port).unwrap();
                let heard = tokio::time::timeout(Duration::from_millis(20), self.receiver.recv(&mut buffer));
                if let Ok(Ok(_)) = heard.await
                    && buffer[1] & 0x7f == 111
                {
                    return;
                }
            }
        })
        .await;
        assert!(!self.room.closed() && !self.consumer.closed());
    }
}

/// Ends the worker's process by a signal; what happens until its successor has taken over.
async fn end_by(server: &Server, events: &mut EventStream, flood: &Flood, signal: Signal) -> Vec<EventKind> {
    // Whoever spoke last was heard in an earlier turn of the event loop.
    for _ in 0..3 {
        soon(flood.transport.stats()).await.unwrap();
    }
    let pid = soon(async {
        loop {
            match server.workers()[0].pid {
                Some(pid) => return pid,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    kill(Pid::from_raw(pid as i32), signal).unwrap();
    let mut happened = Vec::new();
    loop {
        let event = soon(events.next()).await.unwrap().kind.clone();
        let is_restored = matches!(event, EventKind::WorkerRestored { .. });
        happened.push(event);
        if is_restored {
            return happened;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_packets_kill_is_quarantined_and_then_its_room_given_up() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = Server::start(settings(1)).await.unwrap();
    let mut bystander = Bystander::new(&server).await;
    let room = soon(server.create_room(on_first_worker())).await.unwrap();
    let flood = Flood::to(&room, 7).await;
    let mut events = server.events();
    let punishes = |event: &EventKind| {
        matches!(
            event,
            EventKind::SourceQuarantined { .. } | EventKind::RoomClosed { .. }
        )
    };

    // Whoever kills a worker that is busy names its busiest sender, again and again.
    for signal in [Signal::SIGKILL, Signal::SIGKILL, Signal::SIGABRT, Signal::SIGABRT] {
        bystander.is_heard_for_a_second().await;
        let happened = end_by(&server, &mut events, &flood, signal).await;
        assert!(!happened.iter().any(punishes), "{happened:?}");
    }
    bystander.is_heard().await;

    // What only a process does to itself, in the middle of its work.
    let mut deaths = 0;
    let quarantined = loop {
        deaths += 1;
        assert!(deaths < 20, "the worker is never busy");
        bystander.is_heard_for_a_second().await;
        let happened = end_by(&server, &mut events, &flood, Signal::SIGILL).await;
        if let Some(event) = happened.into_iter().find(punishes) {
            break event;
        }
    };
    let expected = EventKind::SourceQuarantined {
        worker: WorkerId(1),
        ip: flood.address.ip(),
        port: Some(flood.address.port()),
        transport: Some(flood.transport.id()),
        room: Some(room.id()),
        for_s: 60,
    };
    assert_eq!(quarantined, expected);
    assert!(deaths >= 2);
    assert_eq!(server.workers()[0].quarantined, 1);
    let dropped = flood.quarantined_packets().await;
    while flood.quarantined_packets().await <= dropped {}
    bystander.is_heard().await;

    // It goes on with packets of somebody else in the room.
    let other = Flood::to(&room, 8).await;
    let mut deaths = 0;
    let closed = loop {
        deaths += 1;
        assert!(deaths < 20, "the worker is never busy");
        bystander.is_heard_for_a_second().await;
        let happened = end_by(&server, &mut events, &other, Signal::SIGILL).await;
        let closed = happened.iter().find_map(|event| match event {
            EventKind::RoomClosed { room, cause, .. } => Some((*room, cause.clone())),
            _ => None,
        });
        if let Some(closed) = closed {
            let lost = happened.iter().find_map(|event| match event {
                EventKind::WorkerRestored { rooms, lost, .. } => Some((*rooms, *lost)),
                _ => None,
            });
            assert_eq!(lost, Some((1, 1)));
            break closed;
        }
    };
    let CloseCause::NotRestored { worker, reason } = closed.1 else {
        panic!("{closed:?}");
    };
    assert_eq!((closed.0, worker), (room.id(), WorkerId(1)));
    assert!(
        reason.starts_with("worker 1 has died 3 times in a row while it worked on packets to this room"),
        "{reason}"
    );
    assert!(room.closed() && other.transport.closed());
    bystander.is_heard().await;
    soon(server.close()).await;
}

/// Stops the worker's process, in the middle of a turn or between two; what happens until its successor has taken over.
async fn stop(server: &Server, events: &mut EventStream) -> Vec<EventKind> {
    let pid = Pid::from_raw(server.workers()[0].pid.unwrap() as i32);
    let mut happened = Vec::new();
    kill(pid, Signal::SIGSTOP).unwrap();
    loop {
        let event = soon(events.next()).await.unwrap().kind.clone();
        let is_restored = matches!(event, EventKind::WorkerRestored { .. });
        happened.push(event);
        if is_restored {
            return happened;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_in_its_work_is_replaced_in_a_second_and_nobody_blamed_for_a_stop() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let settings = Settings {
        // The pings are not what finds it.
        ping_interval: Duration::from_secs(600),
        ping_timeout: Duration::from_secs(5),
        ..settings(1)
    };
    let server = Server::start(settings).await.unwrap();
    let mut bystander = Bystander::new(&server).await;
    let room = soon(server.create_room(on_first_worker())).await.unwrap();
    let flood = Flood::to(&room, 7).await;
    let mut events = server.events();
    let mut deaths = 0;
    for _ in 0..3 {
        bystander.is_heard_for_a_second().await;
        let happened = stop(&server, &mut events).await;
        for event in &happened {
            match event {
                EventKind::WorkerDied { cause, .. } => {
                    let found_by_clock = [
                        DeathCause::Stuck { turn_ms: 1_000 },
                        DeathCause::Frozen { rest_ms: 1_000 },
                    ];
                    assert!(found_by_clock.contains(cause), "{cause}");
                    deaths += 1;
                }
                EventKind::SourceQuarantined { .. } | EventKind::RoomClosed { .. } => panic!("{happened:?}"),
                _ => {}
            }
        }
        bystander.is_heard().await;
    }
    assert_eq!(deaths, 3);
    assert_eq!(flood.unrouted(UnroutedReason::Stale).await, 0, "so young it is played");
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_waited_for_seconds_is_dropped_and_counted() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = Server::start(settings(1)).await.unwrap();
    let mut bystander = Bystander::new(&server).await;
    let room = soon(server.create_room(on_first_worker())).await.unwrap();
    let flood = Flood::to(&room, 7).await;
    let mut events = server.events();
    // Until a delay is long enough.
    loop {
        let happened = end_by(&server, &mut events, &flood, Signal::SIGKILL).await;
        let waited = happened.iter().find_map(|event| match event {
            EventKind::WorkerDied { restart_in_ms, .. } => *restart_in_ms,
            _ => None,
        });
        if waited >= Some(2_000) {
            break;
        }
        assert_eq!(flood.unrouted(UnroutedReason::Stale).await, 0);
    }
    while flood.unrouted(UnroutedReason::Stale).await == 0 {}
    bystander.is_heard().await;
    // One who sends without end never lets a socket become empty. Half a second later it is relayed all the same.
    soon(async {
        loop {
            let stale = flood.unrouted(UnroutedReason::Stale).await;
            let before = soon(flood.transport.stats()).await.unwrap().packets_received;
            bystander.is_heard().await;
            let after = soon(flood.transport.stats()).await.unwrap().packets_received;
            if after > before && flood.unrouted(UnroutedReason::Stale).await == stale {
                return;
            }
        }
    })
    .await;
    soon(server.close()).await;
}

/// Writes nonsense over the newest numbers of a consumer, in whichever page has it. The supervisor is this process.
fn scribble(consumer: &Consumer) {
    const CONSUMERS_AT: u64 = 512 * 8;
    const SLOT: u64 = 64 * 8;
    let folder = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut scribbled = 0;
    for entry in folder.flatten() {
        let is_page = std::fs::read_link(entry.path()).is_ok_and(|name| name.to_string_lossy().contains("weir-page"));
        let Some(page) = is_page.then(|| std::fs::File::options().read(true).write(true).open(entry.path())) else {
            continue;
        };
        let Ok(page) = page else { continue };
        for slot in 0..64 {
            let mut id = [0; 8];
            let at = CONSUMERS_AT + slot * SLOT;
            page.read_exact_at(&mut id, at).unwrap();
            if u64::from_ne_bytes(id) == consumer.id().0 | 1 << 63 {
                page.write_all_at(&0x1234_u64.to_ne_bytes(), at + 9 * 8).unwrap();
                scribbled += 1;
            }
        }
    }
    assert!(scribbled > 0, "no page has the consumer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_successor_refuses_closes_alone() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = Server::start(settings(1)).await.unwrap();
    let mut bystander = Bystander::new(&server).await;
    // A second consumer of the same producer, on the same transport.
    let producer = bystander.room.producers().remove(0);
    let transport = bystander.consumer.transport().unwrap();
    let doomed = soon(transport.consume(&producer, ConsumerOptions::default()))
        .await
        .unwrap();
    bystander.is_heard_for_a_second().await;
    let mut events = server.events();
    let pid = server.workers()[0].pid.unwrap();
    // It does not write any more.
    kill(Pid::from_raw(pid as i32), Signal::SIGSTOP).unwrap();
    scribble(&doomed);
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    let mut closed = Vec::new();
    let lost = loop {
        match &soon(events.next()).await.unwrap().kind {
            EventKind::ConsumerClosed { consumer, cause, .. } => closed.push((*consumer, cause.clone())),
            EventKind::WorkerRestored { rooms, lost, .. } => break (*rooms, *lost),
            event @ (EventKind::RoomClosed { .. }
            | EventKind::TransportClosed { .. }
            | EventKind::ProducerClosed { .. }) => {
                panic!("{event:?}")
            }
            _ => {}
        }
    };
    assert_eq!(lost, (1, 1));
    let [
        (
            consumer,
            CloseCause::NotRestored {
                worker: WorkerId(1),
                reason,
            },
        ),
    ] = closed.as_slice()
    else {
        panic!("{closed:?}");
    };
    assert_eq!(*consumer, doomed.id());
    assert!(reason.contains("do not fit together"), "{reason}");
    assert!(doomed.closed());
    bystander.is_heard().await;
    soon(server.close()).await;
}
