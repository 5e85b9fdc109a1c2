//! Full sockets and refusals. UDP sockets on loopback are never full (the kernel takes a packet off the sender's account at
//! once), so real fullness comes from Unix datagram sockets, and the rarer errors from a back end with scripted answers.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::backlog::STALLS_MAX;
use super::*;
use crate::net::backlog::QUEUE_CHUNKS_MAX;
use crate::net::poll::{Event, Interest, Poller, Source};
use crate::net::send::{Destination, Route};
use crate::net::sockets::Side;
use crate::relay::sink::Port;

const T: TransportIx = TransportIx(0);

const fn owner(slot: u32) -> ConsumerIx {
    ConsumerIx { slot, generation: 0 }
}

fn packet(number: usize, len: usize) -> Vec<u8> {
    let mut packet = vec![number as u8; len];
    packet[..4].copy_from_slice(&(number as u32).to_be_bytes());
    packet
}

/// Puts `socket` into the table as a connected path.
fn attach<B: SendBackend>(egress: &mut Egress<B>, transport: TransportIx, socket: OwnedFd) {
    egress.sockets.attach_unchecked(transport, socket);
}

fn lost<B: SendBackend>(egress: &mut Egress<B>) -> Vec<Lost> {
    let mut lost: Vec<_> = std::iter::from_fn(|| egress.poll_lost()).collect();
    lost.reverse();
    lost
}

/// A pair of connected datagram sockets; the first one fills up when the second is not read.
fn pipe() -> (OwnedFd, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (ours.into(), theirs)
}

fn read(socket: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 65_536];
    let len = socket.recv(&mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

#[test]
fn a_full_socket_keeps_the_order_and_every_packet_has_one_fate() {
    let (ours, theirs) = pipe();
    let mut egress = Egress::new();
    attach(&mut egress, T, ours);
    let poller = Poller::new(4).unwrap();
    let path = |egress: &Egress| {
        let path = egress.sockets.get(T, Port::Rtp, Side::Connected).unwrap();
        path.try_clone_to_owned().unwrap()
    };
    let source = Source::Socket {
        transport: T,
        port: Port::Rtp,
        side: Side::Connected,
    };
    poller.add(path(&egress).as_fd(), source, Interest::ReadWrite).unwrap();
    let (mut accepted, mut dropped, mut number, mut rounds) = (Vec::new(), 0, 0, 0);
    // Until the socket, then the backlog is full, in each of three ways: packets, trains, gathered trains.
    while dropped < 30 {
        let count = [1, 5, 5][rounds % 3];
        let packets: Vec<_> = (number..number + count).map(|number| packet(number, 1000)).collect();
        let before = lost(&mut egress).len();
        assert_eq!(before, 0);
        let sent = if rounds % 3 == 2 {
            let sent = egress.gather(T, owner(rounds as u32), &packets.concat(), 1000);
            egress.flush_gathered();
            sent
        } else {
            egress.send(T, owner(rounds as u32), &packets.concat(), 1000)
        };
        if sent.accepted < count {
            assert_eq!(sent.reason, DropReason::BacklogFull);
        }
        let lost = lost(&mut egress);
        assert!(
            lost.iter()
                .all(|lost| lost.owner == owner(rounds as u32) && lost.reason == DropReason::BacklogFull)
        );
        let lost: u32 = lost.iter().map(|lost| lost.packets).sum();
        let kept = sent.accepted - lost as usize;
        accepted.extend_from_slice(&packets[..kept]);
        dropped += count - kept;
        number += count;
        rounds += 1;
    }
    assert_eq!(egress.poll_blocked(), Some(T), "reported once");
    assert_eq!(egress.poll_blocked(), None);
    assert_eq!(
        egress.sockets.stats(T).unwrap().backlog_packets,
        u64::from(QUEUE_CHUNKS_MAX)
    );
    // A Unix socket takes a train as one message, having no idea of segments.
    let mut arrived = Vec::new();
    let read_all = |arrived: &mut Vec<Vec<u8>>| {
        while let Some(message) = read(&theirs) {
            arrived.extend(message.chunks(1000).map(<[u8]>::to_vec));
        }
    };
    // The reader wakes up; room is reported, and what waited leaves in its order.
    let mut poller = poller;
    let mut ready = Vec::new();
    loop {
        read_all(&mut arrived);
        poller
            .wait(Some(std::time::Duration::from_secs(30)), &mut ready)
            .unwrap();
        let room = Event {
            source,
            is_readable: false,
            is_writable: true,
        };
        assert_eq!(ready, [room]);
        if !egress.handle_writable(T) {
            break;
        }
    }
    read_all(&mut arrived);
    assert!(arrived == accepted, "{} of {} arrived", arrived.len(), accepted.len());
    assert_eq!(egress.stats().packets_sent, accepted.len() as u64);
    assert_eq!(egress.backlog.bytes_in_use(), 0);
    // And then packets leave at once again.
    assert_eq!(egress.send(T, owner(1), &packet(1, 1000), 1000), Sent::all(1));
    assert_eq!(read(&theirs), Some(packet(1, 1000)));
    assert_eq!(egress.poll_blocked(), None);
}

#[test]
fn one_full_socket_does_not_hold_up_another() {
    let ((stuck, _unread), (free, reader)) = (pipe(), pipe());
    let mut egress = Egress::new();
    attach(&mut egress, T, stuck);
    attach(&mut egress, TransportIx(1), free);
    while egress.send(T, owner(1), &packet(0, 100), 100).accepted == 1 {}
    for number in 0..20 {
        assert_eq!(
            egress.send(TransportIx(1), owner(2), &packet(number, 100), 100),
            Sent::all(1)
        );
        assert_eq!(egress.gather(T, owner(1), &packet(number, 100), 100).accepted, 0);
        assert_eq!(
            egress.gather(TransportIx(1), owner(2), &packet(number, 50), 50),
            Sent::all(1)
        );
        egress.flush_gathered();
        assert_eq!(
            (read(&reader), read(&reader)),
            (Some(packet(number, 100)), Some(packet(number, 50)))
        );
    }
    // A reader that goes away takes its backlog along: the kernel refuses, and the packets are lost one by one.
    let waiting = egress.sockets.stats(T).unwrap().backlog_packets;
    assert_eq!(waiting, u64::from(QUEUE_CHUNKS_MAX));
    egress.detach(T);
    assert_eq!(egress.backlog.bytes_in_use(), 0);
    assert_eq!(egress.poll_blocked(), None);
}

#[test]
fn rtcp_does_not_wait() {
    let (ours, theirs) = pipe();
    let mut egress = Egress::new();
    attach(&mut egress, T, ours);
    while egress.send(T, owner(1), &packet(0, 100), 100).accepted == 1 {}
    egress.send_rtcp(T, b"a report");
    assert_eq!(egress.stats().rtcp_lost, 1);
    read(&theirs).unwrap();
    let mut theirs_fd = [PollFd::new(theirs.as_fd(), PollFlags::POLLIN)];
    poll(&mut theirs_fd, PollTimeout::ZERO).unwrap();
    egress.send_rtcp(T, b"a report");
    assert_eq!(
        egress.stats().rtcp_lost,
        1,
        "there is room for a report, although packets wait"
    );
}

/// What a [`Script`] says to one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Say {
    Ok,
    /// Of several messages only so many.
    Only(usize),
    Err(Errno),
}

/// A back end that gives scripted answers, then accepts everything, and records what it has accepted.
#[derive(Default)]
struct Script {
    says: VecDeque<Say>,
    /// (bytes, segment) of each message taken.
    taken: Vec<(Vec<u8>, usize)>,
    calls: usize,
}

impl Script {
    fn next(&mut self) -> Result<usize, Errno> {
        self.calls += 1;
        match self.says.pop_front().unwrap_or(Say::Ok) {
            Say::Ok => Ok(usize::MAX),
            Say::Only(count) => Ok(count),
            Say::Err(errno) => Err(errno),
        }
    }
}

impl SendBackend for Script {
    fn send_packet<'a>(&mut self, _socket: impl Into<Route<'a>>, packet: &[u8]) -> Result<(), Errno> {
        self.next()?;
        self.taken.push((packet.to_vec(), packet.len()));
        Ok(())
    }

    fn send_train<'a>(&mut self, _socket: impl Into<Route<'a>>, train: &[u8], segment: usize) -> Result<(), Errno> {
        assert!(train.len() > segment && train.len() <= TRAIN_BYTES_MAX);
        assert!(train.len().div_ceil(segment) <= TRAIN_SEGMENTS_MAX);
        self.next()?;
        self.taken.push((train.to_vec(), segment));
        Ok(())
    }

    fn send_batch<'a>(
        &mut self,
        _socket: impl Into<Route<'a>>,
        bytes: &[u8],
        messages: &[Message],
    ) -> Result<usize, Errno> {
        assert!((2..=BATCH_MESSAGES_MAX).contains(&messages.len()));
        let count = self.next()?.min(messages.len());
        for message in &messages[..count] {
            let packets = &bytes[message.start..message.start + message.len];
            self.taken.push((packets.to_vec(), message.segment));
        }
        Ok(count)
    }

    fn send_scattered(
        &mut self,
        _socket: BorrowedFd<'_>,
        bytes: &[u8],
        messages: &[(Message, Destination)],
    ) -> Result<usize, Errno> {
        let count = self.next()?.min(messages.len());
        for (message, _) in &messages[..count] {
            let packet = &bytes[message.start..message.start + message.len];
            self.taken.push((packet.to_vec(), message.segment));
        }
        Ok(count)
    }
}

fn scripted(says: impl IntoIterator<Item = Say>) -> Egress<Script> {
    let script = Script {
        says: says.into_iter().collect(),
        ..Script::default()
    };
    let mut egress = Egress::with_backend(script);
    attach(&mut egress, T, pipe().0);
    egress
}

/// The lengths of the messages that were taken, and of their segments.
fn shapes(egress: &mut Egress<Script>) -> Vec<(usize, usize)> {
    egress
        .backend
        .taken
        .drain(..)
        .map(|(bytes, segment)| (bytes.len(), segment))
        .collect()
}

#[test]
fn a_device_that_cannot_segment_gets_packets_from_then_on() {
    let mut egress = scripted([Say::Err(Errno::EIO); 2]);
    let train = [packet(1, 100), packet(2, 100), packet(3, 60)].concat();
    let singles = [(100, 100), (100, 100), (60, 60)];
    assert_eq!(egress.send(T, owner(1), &train, 100), Sent::all(3));
    assert_eq!(shapes(&mut egress), singles);
    assert_eq!(egress.stats().gso_refusals, 1);
    assert_eq!(egress.send(T, owner(1), &train, 100).accepted, 3);
    assert_eq!(shapes(&mut egress), singles);
    egress.gather(T, owner(1), &train, 100);
    egress.gather(T, owner(1), &packet(4, 100), 100);
    egress.flush_gathered();
    assert_eq!(shapes(&mut egress), [(100, 100), (100, 100), (60, 60), (100, 100)]);
    assert_eq!(egress.stats().gso_refusals, 1, "not tried again");
    assert_eq!(egress.stats().packets_sent, 10);
}

#[test]
fn a_train_that_is_too_long_for_the_path_costs_nothing_but_calls() {
    let mut egress = scripted([]);
    let train = [packet(1, 100), packet(2, 100)].concat();
    for refusal in [Errno::EINVAL, Errno::EMSGSIZE, Errno::EINVAL] {
        egress.backend.says = [Say::Err(refusal); 2].into();
        assert_eq!(egress.send(T, owner(1), &train, 100), Sent::all(2));
        assert_eq!(shapes(&mut egress), [(100, 100), (100, 100)]);
    }
    assert_eq!(egress.stats().gso_refusals, 3);
    // One success, and the count begins anew.
    egress.send(T, owner(1), &train, 100);
    assert_eq!(shapes(&mut egress), [(200, 100)]);
    for _ in 0..4 {
        egress.backend.says = [Say::Err(Errno::EINVAL); 2].into();
        egress.send(T, owner(1), &train, 100);
        assert_eq!(shapes(&mut egress), [(100, 100), (100, 100)]);
    }
    let calls = egress.backend.calls;
    egress.send(T, owner(1), &train, 100);
    assert_eq!(egress.backend.calls - calls, 1, "packets only, in one call");
    assert_eq!(egress.stats().gso_refusals, 7);
    assert_eq!(lost(&mut egress), []);
}

#[test]
fn packets_that_cannot_be_sent_are_lost_alone() {
    // The error is of an earlier packet, the second attempt works.
    let mut egress = scripted([Say::Err(Errno::ECONNREFUSED), Say::Ok]);
    assert_eq!(egress.send(T, owner(1), &packet(1, 50), 50), Sent::all(1));
    assert_eq!((egress.stats().pending_errors, egress.stats().send_failures), (1, 0));

    // There is no way, and no way, and no way.
    let mut egress = scripted([Say::Err(Errno::ENETUNREACH); 3]);
    let refused = Sent {
        accepted: 0,
        reason: DropReason::SendFailed,
    };
    assert_eq!(egress.send(T, owner(1), &packet(1, 50), 50), refused);
    assert_eq!(lost(&mut egress), []);
    assert_eq!(egress.stats().send_failures, 1);

    // A filter drops the second packet of a train that has to go as packets.
    let mut egress = scripted([
        Say::Err(Errno::EIO),
        Say::Err(Errno::EIO),
        Say::Only(1),
        Say::Err(Errno::EPERM),
    ]);
    let train = [packet(1, 50), packet(2, 50), packet(3, 50)].concat();
    assert_eq!(egress.send(T, owner(7), &train, 50).accepted, 3);
    let one = |slot, reason| Lost {
        owner: owner(slot),
        reason,
        packets: 1,
    };
    assert_eq!(lost(&mut egress), [one(7, DropReason::SendFailed)]);
    assert_eq!(egress.backend.taken, [(packet(1, 50), 50), (packet(3, 50), 50)]);
    assert_eq!(egress.stats().packets_sent, 2);

    // Among gathered packets of several owners the loss is counted for the right one.
    let mut egress = scripted([Say::Only(1), Say::Err(Errno::EPERM), Say::Err(Errno::EAGAIN)]);
    for (slot, len) in [(1, 50), (2, 60), (3, 70), (4, 80)] {
        egress.gather(T, owner(slot), &packet(slot as usize, len), len);
    }
    egress.flush_gathered();
    assert_eq!(lost(&mut egress), [one(2, DropReason::SendFailed)]);
    assert_eq!(egress.poll_blocked(), Some(T));
    assert_eq!(egress.sockets.stats(T).unwrap().backlog_packets, 2);
    assert!(!egress.handle_writable(T));
    assert_eq!(
        egress
            .backend
            .taken
            .iter()
            .map(|(bytes, _)| bytes.len())
            .collect::<Vec<_>>(),
        [50, 70, 80]
    );
}

#[test]
fn a_train_that_a_full_socket_stops_in_the_middle_continues_where_it_stopped() {
    // As packets, of which two go; the others wait, and then leave as one train again.
    let mut egress = scripted([
        Say::Err(Errno::EINVAL),
        Say::Err(Errno::EINVAL),
        Say::Only(2),
        Say::Err(Errno::EAGAIN),
    ]);
    let packets: Vec<_> = (0..6).map(|number| packet(number, 100)).collect();
    assert_eq!(egress.send(T, owner(1), &packets.concat(), 100).accepted, 6);
    assert_eq!(egress.sockets.stats(T).unwrap().backlog_packets, 4);
    assert_eq!(egress.send(T, owner(2), &packet(6, 100), 100).accepted, 1);
    assert_eq!(egress.gather(T, owner(2), &packet(7, 30), 30).accepted, 1);
    assert!(!egress.handle_writable(T));
    let taken: Vec<u8> = egress
        .backend
        .taken
        .iter()
        .flat_map(|(bytes, _)| bytes.clone())
        .collect();
    assert_eq!(taken, [packets.concat(), packet(6, 100), packet(7, 30)].concat());
    assert_eq!(shapes(&mut egress), [(100, 100), (100, 100), (530, 100)]);
}

/// Room is reported, and yet the kernel takes nothing: short of memory for a while, or for this packet for ever.
#[test]
fn a_packet_that_is_never_taken_does_not_block_its_transport_for_ever() {
    let mut egress = scripted([Say::Err(Errno::ENOBUFS); 2]);
    assert_eq!(egress.send(T, owner(1), &packet(1, 100), 100).accepted, 1);
    assert_eq!(egress.send(T, owner(2), &packet(2, 100), 100).accepted, 1);
    egress.backend.says = vec![Say::Err(Errno::ENOBUFS); usize::from(STALLS_MAX)].into();
    for _ in 0..STALLS_MAX {
        assert_eq!(lost(&mut egress), []);
        assert!(egress.handle_writable(T), "the second one waits");
    }
    let first = Lost {
        owner: owner(1),
        reason: DropReason::SendFailed,
        packets: 1,
    };
    assert_eq!(lost(&mut egress), [first]);
    assert!(!egress.handle_writable(T));
    assert_eq!(shapes(&mut egress), [(100, 100)]);
}

/// It must not keep the loop turning either.
#[test]
fn a_back_end_that_takes_nothing_and_names_no_error_is_a_full_socket() {
    let mut egress = scripted([Say::Only(0)]);
    egress.gather(T, owner(1), &packet(1, 50), 50);
    egress.gather(T, owner(1), &packet(2, 60), 60);
    egress.flush_gathered();
    assert_eq!(egress.sockets.stats(T).unwrap().backlog_packets, 2);
    assert!(!egress.handle_writable(T));
    assert_eq!(shapes(&mut egress), [(50, 50), (60, 60)]);
}
