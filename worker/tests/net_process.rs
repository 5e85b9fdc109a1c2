//! The event loop with a channel and sockets, everything but the process around it.

mod loopback;
mod supervisor;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    Coalescing, ComediaPolicy, CreatePlainTransport, Deadline, DropReason, Hello, LogFilter, LogLevel, Message, Method,
    NotTakenUp, Notification, Page, Reply, Scope, TransportStats, UnroutedReason, WorkerError,
};
use weir_worker::exit::Exit;

use loopback::{Peer, port, remote};
use supervisor::{ROOM, Supervisor, WORKER, assert_closed, rtp, ssrc_of};

/// The address of a new muxed transport that is connected to `peer`.
fn transport_to(supervisor: &mut Supervisor, transport: u64, peer: &Peer) -> std::net::SocketAddr {
    let (unconnected, connected, address) = port();
    let created = supervisor.create_transport(transport, Some(remote(peer.address)), &[unconnected, connected]);
    assert_eq!(created, Ok(Reply::Done));
    address
}

fn with_room() -> Supervisor {
    let mut supervisor = Supervisor::with_worker();
    assert_eq!(supervisor.request(Method::CreateRouter { room: ROOM }), Ok(Reply::Done));
    supervisor
}

fn transport_stats(supervisor: &mut Supervisor, transport: u64) -> TransportStats {
    let method = Method::Stats(Scope::Transport(TransportId(transport)));
    match supervisor.request(method) {
        Ok(Reply::Stats(mut page)) => page.transports.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_answers_and_leaves_when_asked() {
    let mut supervisor = Supervisor::with_worker();
    assert_eq!(supervisor.request(Method::Ping), Ok(Reply::Done));
    let unknown = Method::CloseRouter { room: RoomId(9) };
    assert_eq!(supervisor.request(unknown), Err(WorkerError::UnknownRoom(RoomId(9))));
    assert_eq!(supervisor.request(Method::Shutdown), Ok(Reply::Done));
    assert_eq!(supervisor.outlive().exit, Exit::Success);
}

#[test]
fn it_ends_with_its_channel() {
    assert_eq!(Supervisor::with_worker().hang_up().exit, Exit::ChannelLost);
    assert_eq!(Supervisor::before_hello().hang_up().exit, Exit::ChannelLost);

    let mut garbled = Supervisor::with_worker();
    garbled.write(b"\x04\0\0\0\xff\xff\xff\xff");
    assert_eq!(garbled.outlive().exit, Exit::ChannelBroken);

    let mut older = Supervisor::before_hello();
    older.send(&Message::Hello(Hello {
        protocol: 0,
        ..Hello::new("0.0.1", WORKER)
    }));
    let ended = older.outlive();
    assert_eq!(ended.exit, Exit::VersionMismatch);
    assert!(ended.reason.contains("0.0.1"), "{}", ended.reason);

    let mut lost = Supervisor::before_hello();
    lost.send(&Message::Hello(Hello::new("test", WorkerId(6))));
    assert_eq!(lost.outlive().exit, Exit::VersionMismatch);
}

#[test]
fn a_request_that_comes_too_late_does_nothing() {
    let mut supervisor = Supervisor::with_worker();
    let create = Method::CreateRouter { room: ROOM };
    supervisor.ask_until(create.clone(), &[], Deadline(1));
    assert_eq!(supervisor.answer().result, Err(WorkerError::DeadlinePassed));
    assert_eq!(supervisor.request(create), Ok(Reply::Done));
}

#[test]
fn packets_are_relayed_and_counted() {
    let mut supervisor = with_room();
    let (source, listener, stranger) = (Peer::new(), Peer::new(), Peer::new());
    let address = transport_to(&mut supervisor, 1, &source);
    transport_to(&mut supervisor, 2, &listener);
    supervisor.create_producer(1, 1, 0xaaaa);
    supervisor.create_consumer(1, 1, 2, 0xbbbb);
    for seq in 0..50 {
        source.send_to(address, &rtp(0xaaaa, seq, b"some sound"));
        let packet = listener.receive_rtp();
        assert_eq!(
            (ssrc_of(&packet), packet[1], &packet[12..]),
            (0xbbbb, 96, &b"some sound"[..])
        );
    }
    let pause = Method::SetConsumerPaused {
        consumer: ConsumerId(1),
        paused: true,
    };
    assert_eq!(supervisor.request(pause), Ok(Reply::Done));
    source.send_to(address, &rtp(0xaaaa, 50, b"unheard"));
    stranger.send_to(address, b"nonsense");
    stranger.send_to(address, &rtp(0xaaaa, 51, b"false"));
    let resume = Method::SetConsumerPaused {
        consumer: ConsumerId(1),
        paused: false,
    };
    // Packets and requests come by different ways; the counters tell when the packets are through.
    let stats = loop {
        let stats = transport_stats(&mut supervisor, 1);
        if stats.packets_received == 51 && stats.unrouted.iter().map(|(_, count)| count).sum::<u64>() == 2 {
            break stats;
        }
    };
    assert_eq!(stats.unrouted, [(UnroutedReason::ForeignSource, 2)]);
    assert_eq!(supervisor.request(resume), Ok(Reply::Done));
    source.send_to(address, &rtp(0xaaaa, 52, b"heard"));
    assert_eq!(&listener.receive_rtp()[12..], b"heard");
    assert_eq!(listener.try_receive(), None);

    let sent = transport_stats(&mut supervisor, 2);
    assert_eq!((sent.packets_sent, sent.bytes_sent), (51, 50 * 22 + 17));
    assert_eq!((sent.kernel_drops, sent.backlog_packets), (0, 0));
    assert_eq!(sent.remote, Some(remote(listener.address)));
    let stats = supervisor.stats();
    assert_eq!(
        (stats.rooms, stats.transports, stats.producers, stats.consumers),
        (1, 2, 1, 1)
    );
    assert_eq!((stats.packets_received, stats.packets_sent), (54, 51));
    assert!(stats.receive_calls >= 51 && stats.send_calls == 51 && stats.wait_calls > 0);
    assert!(stats.cpu_ns > 0 && stats.resident_bytes > 100_000);
    let page = Method::Stats(Scope::Room {
        room: ROOM,
        page: Page::default(),
    });
    let Ok(Reply::Stats(page)) = supervisor.request(page) else {
        panic!("no page")
    };
    assert_eq!(page.transports[1], sent);
    assert_eq!(page.consumers[0].packets_forwarded, 51);
    assert_eq!(page.consumers[0].dropped, [(DropReason::ConsumerPaused, 1)]);
}

#[test]
fn several_consumers_on_one_transport_get_their_packets_together() {
    let mut supervisor = with_room();
    let (source, listener) = (Peer::new(), Peer::new());
    let address = transport_to(&mut supervisor, 1, &source);
    transport_to(&mut supervisor, 2, &listener);
    for producer in 1..=5 {
        supervisor.create_producer(producer, 1, producer as u32);
        supervisor.create_consumer(producer, producer, 2, 100 + producer as u32);
    }
    for seq in 0..20 {
        for ssrc in 1..=5 {
            source.send_to(address, &rtp(ssrc, seq, &[ssrc as u8; 30]));
        }
    }
    let mut last = [None; 5];
    for _ in 0..100 {
        let packet = listener.receive_rtp();
        let stream = ssrc_of(&packet) as usize - 101;
        let seq = u16::from_be_bytes([packet[2], packet[3]]);
        let expected = last[stream].map_or(seq, |last: u16| last.wrapping_add(1));
        assert_eq!((seq, packet[12]), (expected, stream as u8 + 1));
        last[stream] = Some(seq);
    }
    let stats = supervisor.stats();
    assert_eq!(stats.packets_sent, 100);
    // One call for each turn that had something to send, not one for each consumer.
    assert!(
        stats.send_calls <= stats.turns,
        "{} calls in {} turns",
        stats.send_calls,
        stats.turns
    );
}

#[test]
fn a_remote_is_learned_and_then_strangers_are_turned_away() {
    let mut supervisor = with_room();
    let (source, stranger) = (Peer::new(), Peer::new());
    let (unconnected, connected, address) = port();
    assert_eq!(
        supervisor.create_transport(1, None, &[unconnected, connected]),
        Ok(Reply::Done)
    );
    supervisor.create_producer(1, 1, 7);
    stranger.send_to(address, b"nonsense");
    source.send_to(address, &rtp(7, 1, b"here I am"));
    let learned = Notification::RemoteLearned {
        transport: TransportId(1),
        remote: remote(source.address),
    };
    assert_eq!(supervisor.notification(), learned);
    stranger.send_to(address, &rtp(7, 2, b"me too"));
    source.send_to(address, &rtp(7, 2, b"go on"));
    let stats = loop {
        let stats = transport_stats(&mut supervisor, 1);
        if stats.packets_received + stats.unrouted.iter().map(|(_, count)| count).sum::<u64>() == 4 {
            break stats;
        }
    };
    assert_eq!(stats.packets_received, 2);
    assert_eq!(
        stats.unrouted,
        [(UnroutedReason::ForeignSource, 1), (UnroutedReason::Malformed, 1)]
    );
    // The path is connected now: what the worker sends for a consumer goes there.
    supervisor.create_producer(2, 1, 8);
    supervisor.create_consumer(1, 2, 1, 9);
    source.send_to(address, &rtp(8, 1, b"echo"));
    assert_eq!(&source.receive_rtp()[12..], b"echo");
}

/// Reports come in between.
fn is_sound(packet: &[u8]) -> bool {
    packet[1] == 96
}

/// A goodbye of one source, after an empty receiver report (RFC 3550 §6.6, §6.1).
fn goodbye(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 203, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet
}

/// The socket is connected to the old port, so packets from the new one arrive at the unconnected socket. The connected one is
/// then connected to the new port.
#[test]
fn a_sender_that_starts_over_on_another_port_is_relayed_again() {
    for says_goodbye in [true, false] {
        let mut supervisor = with_room();
        let (old, new, other, listener) = (Peer::new(), Peer::new(), Peer::new(), Peer::new());
        let (unconnected, connected, address) = port();
        assert_eq!(
            supervisor.create_transport(1, None, &[unconnected, connected]),
            Ok(Reply::Done)
        );
        let out = transport_to(&mut supervisor, 2, &listener);
        supervisor.create_producer(1, 1, 7);
        supervisor.create_consumer(1, 1, 2, 8);
        let learned = |supervisor: &mut Supervisor| loop {
            if let Notification::RemoteLearned { transport, remote } = supervisor.notification() {
                assert_eq!(transport, TransportId(1));
                return remote;
            }
        };
        old.send_to(address, &rtp(7, 1, b"old"));
        assert_eq!(&listener.receive_rtp()[12..], b"old");
        assert_eq!(learned(&mut supervisor), remote(old.address));
        new.send_to(address, &rtp(7, 2, b"too soon"));
        // It comes by another socket than the goodbye, which could be read first.
        while transport_stats(&mut supervisor, 1).unrouted != [(UnroutedReason::ForeignSource, 1)] {}
        if says_goodbye {
            old.send_to(address, &goodbye(7));
            while transport_stats(&mut supervisor, 1).rtcp_received == 0 {}
        }
        // Without a goodbye this goes on for five seconds.
        let mut seq = 2;
        let packet = loop {
            new.send_to(address, &rtp(7, seq, b"new"));
            other.send_to(address, &rtp(9, seq, b"another stream"));
            seq += 1;
            let heard = listener.receive_within(50).filter(|packet| is_sound(packet));
            if let Some(packet) = heard {
                break packet;
            }
        };
        assert_eq!(&packet[12..], b"new");
        assert_eq!(learned(&mut supervisor), remote(new.address));
        assert_eq!(transport_stats(&mut supervisor, 1).remotes_relearned, 1);
        // The path is connected to the new port: that is heard, what is sent goes there, and the old one is a stranger.
        old.send_to(address, &rtp(7, seq, b"late"));
        for seq in seq..seq + 20 {
            new.send_to(address, &rtp(7, seq, b"on"));
        }
        let mut left = 20;
        while left > 0 {
            let packet = listener.receive_rtp();
            if is_sound(&packet) {
                assert_eq!(&packet[12..], b"on");
                left -= 1;
            }
        }
        supervisor.create_producer(2, 2, 10);
        supervisor.create_consumer(2, 2, 1, 11);
        listener.send_to(out, &rtp(10, 1, b"back"));
        loop {
            let packet = new.receive_rtp();
            if packet[12..] == *b"back" {
                break;
            }
        }
    }
}

/// RFC 3550 §11: RTCP goes to the port above RTP's until the sender shows one of its own.
#[test]
fn rtcp_goes_to_the_port_above_until_another_one_is_learned() {
    let mut supervisor = with_room();
    let [source, above] = Peer::pair();
    let elsewhere = Peer::new();
    let ((unconnected, connected, address), (rtcp_unconnected, rtcp_connected, rtcp_address)) = (port(), port());
    let request = CreatePlainTransport {
        room: ROOM,
        transport: TransportId(1),
        remote: None,
        comedia: true,
        rtcp_mux: false,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    };
    let created = supervisor.request_with(
        Method::CreatePlainTransport(request),
        &[unconnected, connected, rtcp_unconnected, rtcp_connected],
    );
    assert_eq!(created, Ok(Reply::Done));
    supervisor.create_producer(1, 1, 7);
    for seq in 0..10 {
        source.send_to(address, &rtp(7, seq, b"sound"));
    }
    // A report on what came, within a second and a half.
    let report = above.receive();
    assert_eq!(report[1], 201);
    elsewhere.send_to(rtcp_address, &goodbye(7));
    loop {
        let remote = transport_stats(&mut supervisor, 1).remote.unwrap();
        if remote.rtcp.is_some() {
            assert_eq!((remote.rtp, remote.rtcp), (source.address, Some(elsewhere.address)));
            break;
        }
    }
    source.send_to(address, &rtp(7, 10, b"something to report"));
    assert_eq!(elsewhere.receive()[1], 201);
    // What comes from the port above is heard all the same.
    let before = transport_stats(&mut supervisor, 1).rtcp_received;
    above.send_to(rtcp_address, &goodbye(99));
    while transport_stats(&mut supervisor, 1).rtcp_received == before {}
}

#[test]
fn a_remote_can_be_changed_and_a_bad_one_changes_nothing() {
    let mut supervisor = with_room();
    let (source, first, second) = (Peer::new(), Peer::new(), Peer::new());
    let address = transport_to(&mut supervisor, 1, &source);
    transport_to(&mut supervisor, 2, &first);
    supervisor.create_producer(1, 1, 7);
    supervisor.create_consumer(1, 1, 2, 8);
    let mut set = |to: &str| {
        supervisor.request(Method::SetRemote {
            transport: TransportId(2),
            remote: remote(to.parse().unwrap()),
        })
    };
    source.send_to(address, &rtp(7, 1, b"one"));
    assert_eq!(&first.receive_rtp()[12..], b"one");
    assert_eq!(set(&second.address.to_string()), Ok(Reply::Done));
    source.send_to(address, &rtp(7, 2, b"two"));
    assert_eq!(&second.receive_rtp()[12..], b"two");
    assert!(
        matches!(set("255.255.255.255:9"), Err(WorkerError::Os { .. })),
        "the kernel refuses"
    );
    assert!(matches!(
        set("127.0.0.1:0"),
        Err(WorkerError::InvalidParameters(_) | WorkerError::Os { .. })
    ));
    source.send_to(address, &rtp(7, 3, b"three"));
    assert_eq!(&second.receive_rtp()[12..], b"three");
    assert_eq!(first.try_receive(), None);
    let unknown = Method::SetRemote {
        transport: TransportId(99),
        remote: remote(first.address),
    };
    assert_eq!(
        supervisor.request(unknown),
        Err(WorkerError::UnknownTransport(TransportId(99)))
    );
}

#[test]
fn descriptors_of_refused_requests_are_closed() {
    let mut supervisor = with_room();
    let expected = |expected, received| Err(WorkerError::Descriptors { expected, received });
    // Too few, too many, none wanted, not UDP.
    assert_eq!(supervisor.create_transport(1, None, &[]), expected(2, 0));
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(supervisor.create_transport(1, None, &[theirs.into()]), expected(2, 1));
    assert_closed(ours);
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(supervisor.request_with(Method::Ping, &[theirs.into()]), expected(0, 1));
    assert_closed(ours);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let again = theirs.try_clone().unwrap();
    let refused = supervisor.create_transport(1, None, &[theirs.into(), again.into()]);
    assert!(matches!(refused, Err(WorkerError::InvalidParameters(_))));
    assert_closed(ours);
    let (ours, theirs) = UnixStream::pair().unwrap();
    supervisor.ask_until(Method::Ping, &[theirs.into()], Deadline(1));
    assert_eq!(supervisor.answer().result, Err(WorkerError::DeadlinePassed));
    assert_closed(ours);
    assert_eq!(supervisor.stats().transports, 0);
}

#[test]
fn a_transport_that_cannot_be_connected_leaves_no_trace() {
    let mut supervisor = with_room();
    let (unconnected, connected, address) = port();
    let sockets = [unconnected, connected];
    let nowhere = remote("255.255.255.255:9".parse().unwrap());
    let refused = supervisor.create_transport(1, Some(nowhere), &sockets);
    assert!(
        matches!(refused, Err(WorkerError::Os { ref call, .. }) if call == "connect"),
        "{refused:?}"
    );
    assert_eq!(supervisor.stats().transports, 0);
    // Refused by the relay, after the sockets were taken.
    let elsewhere = CreatePlainTransport {
        room: RoomId(77),
        transport: TransportId(1),
        remote: None,
        comedia: true,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    };
    let refused = supervisor.request_with(Method::CreatePlainTransport(elsewhere), &sockets);
    assert_eq!(refused, Err(WorkerError::UnknownRoom(RoomId(77))));
    // The same id and the same sockets work afterwards.
    let (source, listener) = (Peer::new(), Peer::new());
    assert_eq!(
        supervisor.create_transport(1, Some(remote(source.address)), &sockets),
        Ok(Reply::Done)
    );
    transport_to(&mut supervisor, 2, &listener);
    supervisor.create_producer(1, 1, 7);
    supervisor.create_consumer(1, 1, 2, 8);
    source.send_to(address, &rtp(7, 1, b"works"));
    assert_eq!(&listener.receive_rtp()[12..], b"works");
}

/// The supervisor keeps its descriptors of all sockets, so closing the worker's does not end the sockets; a worker that
/// forgot to take them out of its epoll would be woken for ever by packets that it cannot read.
#[test]
fn packets_for_a_closed_transport_wake_nobody() {
    let mut supervisor = with_room();
    let source = Peer::new();
    let (unconnected, connected, address) = port();
    let kept: Vec<OwnedFd> = [&unconnected, &connected]
        .map(|socket| socket.as_fd().try_clone_to_owned().unwrap())
        .into();
    assert_eq!(
        supervisor.create_transport(1, Some(remote(source.address)), &[unconnected, connected]),
        Ok(Reply::Done)
    );
    let close = Method::CloseTransport {
        transport: TransportId(1),
    };
    assert_eq!(supervisor.request(close), Ok(Reply::Done));
    source.send_to(address, b"for nobody");
    Peer::new().send_to(address, b"for nobody");
    let before = supervisor.stats();
    for _ in 0..100 {
        assert_eq!(supervisor.request(Method::Ping), Ok(Reply::Done));
    }
    let after = supervisor.stats();
    assert!(
        after.turns - before.turns <= 2 * 101,
        "{} turns",
        after.turns - before.turns
    );
    assert_eq!(after.receive_calls, before.receive_calls);
    drop(kept);
}

#[test]
fn control_and_media_do_not_starve_each_other() {
    const PACKETS: u16 = 20_000;
    const COMMANDS: u64 = 20_000;
    let mut supervisor = with_room();
    let (source, listener) = (Peer::new(), Peer::new());
    let address = transport_to(&mut supervisor, 1, &source);
    transport_to(&mut supervisor, 2, &listener);
    supervisor.create_producer(1, 1, 7);
    supervisor.create_producer(2, 1, 70);
    supervisor.create_consumer(1, 1, 2, 8);
    let media = std::thread::spawn(move || {
        // Never more on the way than a socket holds, so that every packet must arrive.
        for seq in 0..PACKETS {
            source.send_to(address, &rtp(7, seq, b"on and on"));
            if seq % 32 == 31 {
                for _ in 0..32 {
                    listener.receive();
                }
            }
        }
    });
    let mut answered = 0;
    for number in 0..COMMANDS {
        let producer = ProducerId(2);
        supervisor.ask(
            if number % 2 == 0 {
                Method::SetProducerPaused { producer, paused: true }
            } else {
                Method::SetProducerPaused {
                    producer,
                    paused: false,
                }
            },
            &[],
        );
        while number - answered >= 500 {
            assert_eq!(supervisor.answer().result, Ok(Reply::Done));
            answered += 1;
        }
    }
    while answered < COMMANDS {
        assert_eq!(supervisor.answer().result, Ok(Reply::Done));
        answered += 1;
    }
    media.join().unwrap();
    let reports: u64 = (1..=2)
        .map(|transport| transport_stats(&mut supervisor, transport).rtcp_sent)
        .sum();
    assert_eq!(supervisor.stats().packets_sent - reports, u64::from(PACKETS));
}

#[test]
fn the_log_goes_through_the_channel_and_its_filter_can_be_set() {
    let mut supervisor = Supervisor::with_worker();
    let mut set = |directives: &str| {
        supervisor.request(Method::SetLogFilter(LogFilter {
            directives: directives.to_owned(),
        }))
    };
    assert_eq!(set("info"), Ok(Reply::Done));
    assert!(matches!(
        set("info,weir_worker=loudest"),
        Err(WorkerError::InvalidParameters(_))
    ));
    assert!(matches!(
        set(&"x".repeat(1_001)),
        Err(WorkerError::InvalidParameters(_))
    ));
    assert_eq!(supervisor.request(Method::Shutdown), Ok(Reply::Done));
    let Message::Notification(Notification::Log(line)) = supervisor.receive() else {
        panic!("no log line")
    };
    assert_eq!((line.level, line.text.as_str()), (LogLevel::Info, "shutting down"));
    assert_eq!(line.target, "weir_worker::process::channel");
    assert_eq!(supervisor.outlive().exit, Exit::Success);
}

#[test]
fn residence_is_measured_from_the_socket_to_the_hand_over() {
    let mut supervisor = with_room();
    let (source, listener) = (Peer::new(), Peer::new());
    let address = transport_to(&mut supervisor, 1, &source);
    transport_to(&mut supervisor, 2, &listener);
    supervisor.create_producer(1, 1, 7);
    supervisor.create_consumer(1, 1, 2, 8);
    let too_long = Coalescing {
        window_us_max: 1_001,
        spin_us_max: 0,
        measure_residence: true,
    };
    let refused = supervisor.request(Method::SetCoalescing(too_long));
    assert!(matches!(refused, Err(WorkerError::InvalidParameters(_))));
    assert_eq!(supervisor.stats().residence, None);
    let coalescing = Coalescing {
        window_us_max: 1_000,
        spin_us_max: 1_000,
        measure_residence: true,
    };
    assert_eq!(supervisor.request(Method::SetCoalescing(coalescing)), Ok(Reply::Done));
    for seq in 0..100 {
        source.send_to(address, &rtp(7, seq, b"how long?"));
        listener.receive();
    }
    let residence = supervisor.stats().residence.unwrap();
    assert_eq!(residence.total(), 100);
    assert!(residence.quantile(0.0).unwrap() > 100, "nanoseconds");
}

/// The supervisor keeps the sockets, so a second worker serves the same room on the same ports.
#[test]
fn a_room_is_adopted_by_another_worker_on_its_own_sockets() {
    let (unconnected, connected, address) = port();
    let (source, listener) = (Peer::new(), Peer::new());
    let sockets = [unconnected, connected];
    let (unconnected, connected, _) = port();
    let others = [unconnected, connected];
    let make = |supervisor: &mut Supervisor| {
        assert_eq!(supervisor.request(Method::CreateRouter { room: ROOM }), Ok(Reply::Done));
        let (from, to) = (remote(source.address), remote(listener.address));
        assert_eq!(supervisor.create_transport(1, Some(from), &sockets), Ok(Reply::Done));
        assert_eq!(supervisor.create_transport(2, Some(to), &others), Ok(Reply::Done));
        supervisor.create_producer(1, 1, 7);
        supervisor.create_consumer(1, 1, 2, 8);
    };
    let mut first = Supervisor::with_worker();
    make(&mut first);
    source.send_to(address, &rtp(7, 1, b"first"));
    assert_eq!(&listener.receive_rtp()[12..], b"first");
    assert_eq!(first.hang_up().exit, Exit::ChannelLost);

    source.send_to(address, &rtp(7, 2, b"waits"));
    let mut second = Supervisor::with_worker();
    let adopt = |pages| Method::Adopt { room: ROOM, pages };
    let page = || [weir_channel::page::Page::create().unwrap().into()];
    let expected = |expected, received| Err(WorkerError::Descriptors { expected, received });
    assert_eq!(second.request(adopt(1)), expected(1, 0));
    assert_eq!(second.request_with(adopt(0), &page()), expected(0, 1));
    assert_eq!(second.request_with(adopt(1), &page()), Ok(Reply::Done));
    let again = second.request_with(adopt(1), &page());
    assert!(matches!(again, Err(WorkerError::InvalidParameters(_))), "{again:?}");
    make(&mut second);
    let ended = Method::AdoptionEnded { room: ROOM };
    assert_eq!(second.request(ended.clone()), Ok(Reply::Done));
    let again = second.request(ended);
    assert!(matches!(again, Err(WorkerError::InvalidParameters(_))), "{again:?}");
    source.send_to(address, &rtp(7, 3, b"second"));
    assert!([b"waits", &b"second"[..]].contains(&&listener.receive_rtp()[12..]));
}

#[test]
fn a_process_that_rehearses_touches_nothing_and_then_goes_on() {
    let (source, listener) = (Peer::new(), Peer::new());
    let (unconnected, connected, address) = port();
    let sockets = [unconnected, connected];
    let (unconnected, connected, _) = port();
    let others = [unconnected, connected];
    let (from, to) = (remote(source.address), remote(listener.address));
    let make = |supervisor: &mut Supervisor| {
        assert_eq!(supervisor.request(Method::CreateRouter { room: ROOM }), Ok(Reply::Done));
        assert_eq!(supervisor.create_transport(1, Some(from), &sockets), Ok(Reply::Done));
        assert_eq!(supervisor.create_transport(2, Some(to), &others), Ok(Reply::Done));
        for (producer, ssrc) in [(1, 7), (2, 9)] {
            supervisor.create_producer(producer, 1, ssrc);
            supervisor.create_consumer(producer, producer, 2, ssrc + 1);
        }
    };
    let mut serves = Supervisor::with_worker();
    make(&mut serves);
    let mut spare = Supervisor::with_worker();
    assert_eq!(spare.request(Method::Rehearse), Ok(Reply::Done));
    make(&mut spare);
    let key_frame = Method::RequestKeyFrame {
        consumer: ConsumerId(1),
    };
    for refused in [Method::WorkerStats, Method::Rehearse, key_frame] {
        let answer = spare.request(refused);
        assert!(matches!(answer, Err(WorkerError::InvalidParameters(_))), "{answer:?}");
    }
    // What comes is for the one that serves, whichever of the two is quicker.
    for seq in 1..20 {
        source.send_to(address, &rtp(7, seq, b"of the one that serves"));
        assert_eq!(&listener.receive_rtp()[12..], b"of the one that serves");
    }
    assert_eq!(serves.stats().packets_received, 19);
    assert_eq!(serves.hang_up().exit, Exit::ChannelLost);

    source.send_to(address, &rtp(7, 20, b"waits"));
    // It has heard of the second producer that it is closed, and of the third one nothing.
    let mut go_on = vec![
        Method::RehearsalEnded,
        Method::SetCoalescing(Coalescing {
            window_us_max: 0,
            spin_us_max: 0,
            measure_residence: false,
        }),
    ];
    for method in go_on.drain(..) {
        assert_eq!(spare.request(method), Ok(Reply::Done));
    }
    let take_up = |room| Method::TakeUp {
        room,
        transports: [1, 2, 3].map(TransportId).into(),
        producers: vec![ProducerId(1), ProducerId(3)],
        consumers: vec![ConsumerId(1), ConsumerId(3)],
    };
    let early = spare.request(take_up(ROOM));
    assert!(matches!(early, Err(WorkerError::InvalidParameters(_))), "{early:?}");
    assert_eq!(spare.request(Method::Adopt { room: ROOM, pages: 0 }), Ok(Reply::Done));
    let not_taken_up = NotTakenUp {
        transports: vec![(TransportId(3), WorkerError::UnknownTransport(TransportId(3)))],
        producers: vec![(ProducerId(3), WorkerError::UnknownProducer(ProducerId(3)))],
        consumers: vec![(ConsumerId(3), WorkerError::UnknownConsumer(ConsumerId(3)))],
    };
    assert_eq!(spare.request(take_up(ROOM)), Ok(Reply::TakenUp(not_taken_up)));
    assert_eq!(spare.request(Method::AdoptionEnded { room: ROOM }), Ok(Reply::Done));
    let stats = spare.stats();
    assert_eq!((stats.transports, stats.producers, stats.consumers), (2, 1, 1));
    source.send_to(address, &rtp(7, 21, b"of the next one"));
    assert!([b"waits", &b"of the next one"[..]].contains(&&listener.receive_rtp()[12..]));
}
