//! The other side of the worker: one thread that sends to its producers and receives from its consumers.
//!
//! It never sleeps while a slice runs, so that neither the worker nor the baseline pays for waking it.
//!
//! Every packet says when it left, so whoever receives it knows how long it took.
//!
//! With encryption it protects what it sends. What some receivers get it unprotects and compares with what was sent; of the others it
//! counts the packets, because unprotecting everything would keep it from keeping up with the worker.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use weir_channel::message::Histogram;
use weir_worker::net::clock;
use weir_worker::net::poll::{Interest, Poller, Source as Ready};
use weir_worker::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch};
use weir_worker::net::residence::Residence;
use weir_worker::net::send::{BATCH_MESSAGES_MAX, KernelSend, Message, SendBackend};
use weir_worker::net::sockets::{Side, drop_count};
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::sink::{Port, TransportIx};
use weir_worker::rtp::packet::{Kind, classify};
use weir_worker::time::Time;
use weir_worker::webrtc::srtp::{Inbound, Outbound, StreamKey};

use crate::cli::measuring::client::Checks;
use crate::cli::measuring::thread::MeasuringThread;

use super::traffic::{Frame, FrameWriter, Schedule, is_ours, stamp_of};

/// How long after a slice what was sent in it may still arrive: longer, and a backlog that grows would go unnoticed.
const LATE_ARRIVALS: Duration = Duration::from_millis(30);

/// Silence of the media after which nothing more is expected.
const QUIET: Duration = Duration::from_millis(20);

/// The same while packets are missing: something else may have the worker's CPU.
const QUIET_MISSING: Duration = Duration::from_millis(500);

/// Events looked at between two looks at the schedule.
const EVENTS: usize = 64;

/// Behind schedule, so many packets are sent between two looks at the receivers.
const PACKETS_BETWEEN_LOOKS: u64 = 32;

/// A turn of the driver that took longer was not its own doing: something else had its CPU.
const STALL_NS: u64 = 500_000;

/// A peer that makes no check for 30 seconds is not sent to any more (RFC 7675).
const CHECKS_INTERVAL: Duration = Duration::from_secs(5);

/// And one that says nothing while 16,384 packets of a stream go to it is taken to be gone: at the rates of here that is a
/// moment. So each makes a check after so many packets of each source, too.
const CHECKS_PACKETS: u64 = 4_096;

/// Checks between two looks at the receivers.
const CHECKS_AT_ONCE: usize = 32;

/// What to do in a slice.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Send at the sources' rates times `scale`, and receive.
    Drive { scale: f64, duration: Duration },
    /// Receive only, for as long as the baseline sends.
    Drain { duration: Duration },
    /// Make connectivity checks, if they are due; outside of what is measured.
    KeepConsent,
}

/// What a slice brought.
#[derive(Clone, Debug, Default)]
pub(super) struct DriveSlice {
    /// Packets sent to the worker.
    pub sent: u64,
    /// What should have come back for them.
    pub expected: u64,
    /// What came back until shortly after the end.
    pub received_in_time: u64,
    /// What came back in all.
    pub received: u64,
    /// Packets that the kernel dropped at the receivers' sockets.
    pub dropped_at_receivers: u64,
    /// Packets that could not be sent.
    pub unsent: u64,
    /// Packets of receivers that look at what they get.
    pub looked_at: u64,
    /// Those of them that could not be opened, or carried something else than what was sent.
    pub wrong: u64,
    /// How long packets were sent for.
    pub elapsed_ns: u64,
    /// How long it took until the last one had come back.
    pub answered_ns: u64,
    /// How far behind its plan the sender was at the end.
    pub lag_ns: u64,
    /// How long packets took from the sender to those receivers that can read when they left, in nanoseconds.
    pub delays: Histogram,
}

impl DriveSlice {
    pub(super) fn loss_in_time(&self) -> f64 {
        1.0 - self.received_in_time as f64 / self.expected.max(1) as f64
    }

    /// The share of what was planned that the sender itself could not send.
    pub(super) fn shortfall(&self) -> f64 {
        self.lag_ns as f64 / self.elapsed_ns.max(1) as f64
    }
}

/// The thread.
pub(super) type Driver = MeasuringThread<Order, DriveSlice>;

/// What the thread works with.
pub(super) struct Endpoints {
    pub writers: Vec<FrameWriter>,
    /// For each source the connected socket that it sends on.
    pub senders: Vec<Arc<UdpSocket>>,
    /// All receivers whose packets count.
    pub receivers: Vec<Arc<UdpSocket>>,
    pub encryption: Option<Encryption>,
}

/// What the clients of WebRTC transports need beside sockets.
#[derive(Default)]
pub(super) struct Encryption {
    /// What protects the packets of one client.
    pub outbounds: Vec<Outbound>,
    /// For each source, which of them protects its packets, and as which stream.
    pub streams: Vec<(usize, StreamKey)>,
    /// For each receiver, what opens its packets if that is to be done.
    pub inbounds: Vec<Option<Inbound>>,
    /// For each client, what keeps consent.
    pub checks: Vec<(Arc<UdpSocket>, Checks)>,
}

pub(super) fn start(cpu: usize, endpoints: Endpoints) -> anyhow::Result<Driver> {
    let mut state = State::new(endpoints)?;
    Driver::start("load driver", cpu, move |order| state.slice(order))
}

struct State {
    endpoints: Endpoints,
    poller: Poller,
    ready: Vec<weir_worker::net::poll::Event>,
    batch: ReceiveBatch,
    backend: KernelSend,
    sealed: Sealed,
    checked_at: Time,
    /// Packets of all sources.
    sent_since_checks: u64,
    /// What arrives is the worker's, and can be opened.
    is_relayed: bool,
    received: u64,
    /// When the last packet came.
    answered_at: Time,
    looked_at: u64,
    wrong: u64,
    delays: Residence,
}

/// A frame as it leaves an encrypting client.
#[derive(Default)]
struct Sealed {
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

impl Sealed {
    /// Protects a frame whose first packet has this index; `false` if a packet is refused.
    fn protect(&mut self, outbound: &mut Outbound, stream: StreamKey, mut index: u64, frame: &Frame<'_>) -> bool {
        let overhead = outbound.profile().rtp_overhead();
        let room: usize = frame
            .messages
            .iter()
            .map(|message| message.len + message.packets() * overhead)
            .sum();
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        self.messages.clear();
        let mut start = 0;
        for message in frame.messages {
            let train = &frame.bytes[message.start..message.start + message.len];
            let protected = outbound.protect_train(stream, index, train, message.segment, &mut self.bytes[start..]);
            if protected.refused.is_some() {
                return false;
            }
            self.messages.push(Message {
                start,
                len: protected.bytes,
                segment: message.segment + overhead,
            });
            start += protected.bytes;
            index += message.packets() as u64;
        }
        true
    }
}

impl State {
    fn new(endpoints: Endpoints) -> anyhow::Result<Self> {
        let poller = Poller::new(EVENTS)?;
        for (index, receiver) in endpoints.receivers.iter().enumerate() {
            let source = Ready::Socket {
                transport: TransportIx(index as u32),
                port: Port::Rtp,
                side: Side::Connected,
            };
            poller
                .add(receiver.as_fd(), source, Interest::Read)
                .context("watching a receiver's socket")?;
        }
        Ok(Self {
            endpoints,
            poller,
            ready: Vec::with_capacity(EVENTS),
            batch: ReceiveBatch::new(64, DATAGRAM_BYTES_MAX),
            backend: KernelSend::new(),
            sealed: Sealed::default(),
            checked_at: clock::monotonic(),
            sent_since_checks: 0,
            is_relayed: false,
            received: 0,
            answered_at: Time::default(),
            looked_at: 0,
            wrong: 0,
            delays: Residence::new(),
        })
    }

    fn slice(&mut self, order: Order) -> anyhow::Result<DriveSlice> {
        let mut slice = DriveSlice::default();
        if let Order::KeepConsent = order {
            self.keep_consent()?;
            return Ok(slice);
        }
        let drops_before = self.drops();
        (self.received, self.looked_at, self.wrong) = (0, 0, 0);
        self.delays = Residence::new();
        self.is_relayed = matches!(order, Order::Drive { .. });
        let start = clock::monotonic();
        match order {
            Order::Drive { scale, duration } => self.drive(scale, duration, &mut slice)?,
            Order::Drain { duration } => {
                let end = start + duration;
                while clock::monotonic() < end {
                    self.receive()?;
                }
            }
            Order::KeepConsent => {}
        }
        let end = clock::monotonic();
        slice.elapsed_ns = end.since(start).as_nanos() as u64;
        while clock::monotonic() < end + LATE_ARRIVALS {
            self.receive()?;
        }
        slice.received_in_time = self.received;
        let mut last = clock::monotonic();
        let silence = |received| {
            if received < slice.expected {
                QUIET_MISSING
            } else {
                QUIET
            }
        };
        while clock::monotonic() < last + silence(self.received) {
            if self.receive()? > 0 {
                last = clock::monotonic();
            }
        }
        slice.answered_ns = slice.elapsed_ns.max(self.answered_at.since(start).as_nanos() as u64);
        slice.received = self.received;
        (slice.looked_at, slice.wrong) = (self.looked_at, self.wrong);
        slice.delays = self.delays.histogram();
        slice.dropped_at_receivers = self.drops() - drops_before;
        Ok(slice)
    }

    fn drive(&mut self, scale: f64, duration: Duration, slice: &mut DriveSlice) -> anyhow::Result<()> {
        let sources = self.endpoints.writers.len() as u64;
        let mut schedule = Schedule::new(self.endpoints.writers.iter().map(FrameWriter::source), scale);
        let start = clock::monotonic();
        let end_ns = duration.as_nanos() as u64;
        let mut last_ns = 0;
        let mut next_look = 0;
        loop {
            let now_ns = clock::monotonic().since(start).as_nanos() as u64;
            if now_ns >= end_ns {
                slice.lag_ns = schedule.lag_ns(now_ns);
                return Ok(());
            }
            if now_ns - last_ns > STALL_NS {
                schedule.postpone(now_ns - last_ns);
            }
            last_ns = now_ns;
            if let Some(source) = schedule.pop(now_ns) {
                let before = slice.sent;
                self.send(source, slice);
                self.sent_since_checks += slice.sent - before;
                if self.sent_since_checks >= CHECKS_PACKETS * sources {
                    self.make_checks()?;
                }
                if slice.sent < next_look {
                    continue;
                }
            }
            self.receive()?;
            next_look = slice.sent + PACKETS_BETWEEN_LOOKS;
        }
    }

    fn send(&mut self, source: usize, slice: &mut DriveSlice) {
        let writer = &mut self.endpoints.writers[source];
        let fan_out = writer.source().fan_out as u64;
        let index = writer.next_index();
        let frame = writer.next_frame(clock::monotonic().0);
        let (mut bytes, mut messages) = (frame.bytes, frame.messages);
        if let Some(encryption) = &mut self.endpoints.encryption {
            let (client, stream) = encryption.streams[source];
            if !self
                .sealed
                .protect(&mut encryption.outbounds[client], stream, index, &frame)
            {
                slice.unsent += frame.packets as u64;
                return;
            }
            (bytes, messages) = (&self.sealed.bytes, &self.sealed.messages);
        }
        let sent = send_all(&mut self.backend, &self.endpoints.senders[source], bytes, messages);
        slice.sent += sent;
        slice.expected += sent * fan_out;
        slice.unsent += frame.packets as u64 - sent;
    }

    /// Takes what has come to some of the receivers; says how many packets of media were in it.
    fn receive(&mut self) -> anyhow::Result<u64> {
        self.poller.wait(Some(Duration::ZERO), &mut self.ready)?;
        let mut packets = 0;
        for event in &self.ready {
            let Ready::Socket { transport, .. } = event.source else {
                continue;
            };
            let socket = self.endpoints.receivers[transport.0 as usize].as_fd();
            let received = self
                .batch
                .receive(socket, usize::MAX)
                .context("reading a receiver's socket")?;
            let now_ns = clock::monotonic().0;
            let mut reader = match &mut self.endpoints.encryption {
                _ if !self.is_relayed => Reader::Counts,
                None => Reader::Reads,
                Some(encryption) => match encryption.inbounds.get_mut(transport.0 as usize) {
                    Some(Some(inbound)) => Reader::Opens(inbound),
                    _ => Reader::Counts,
                },
            };
            for datagram in received.datagrams {
                for packet in rtp_packets(received.bytes, datagram) {
                    packets += 1;
                    let stamp = match &mut reader {
                        Reader::Counts => continue,
                        Reader::Reads => stamp_of(packet),
                        Reader::Opens(inbound) => {
                            self.looked_at += 1;
                            let stamp = open(inbound, packet);
                            self.wrong += u64::from(stamp.is_none());
                            stamp
                        }
                    };
                    if let Some(stamp) = stamp {
                        self.delays.record(stamp, now_ns, 1);
                    }
                }
            }
        }
        self.received += packets;
        if packets > 0 {
            self.answered_at = clock::monotonic();
        }
        Ok(packets)
    }

    /// Makes a check for each client, if the last are some time ago, and waits for the answers.
    fn keep_consent(&mut self) -> anyhow::Result<()> {
        if self.clients() == 0 || clock::monotonic().since(self.checked_at) < CHECKS_INTERVAL {
            return Ok(());
        }
        self.make_checks()?;
        // The worker answers them before what comes next is measured.
        let end = clock::monotonic() + QUIET;
        while clock::monotonic() < end {
            self.receive()?;
        }
        Ok(())
    }

    fn make_checks(&mut self) -> anyhow::Result<()> {
        (self.checked_at, self.sent_since_checks) = (clock::monotonic(), 0);
        let mut bytes = Vec::new();
        for first in (0..self.clients()).step_by(CHECKS_AT_ONCE) {
            if let Some(encryption) = &mut self.endpoints.encryption {
                for (socket, checks) in encryption.checks.iter_mut().skip(first).take(CHECKS_AT_ONCE) {
                    // One that is not taken is made up for by the next.
                    let _ = socket.send(checks.next(&mut bytes));
                }
            }
            self.receive()?;
        }
        Ok(())
    }

    /// Those who keep consent.
    fn clients(&self) -> usize {
        let encryption = self.endpoints.encryption.as_ref();
        encryption.map_or(0, |encryption| encryption.checks.len())
    }

    fn drops(&self) -> u64 {
        self.endpoints
            .receivers
            .iter()
            .map(|receiver| u64::from(drop_count(receiver.as_fd())))
            .sum()
    }
}

/// Hands all messages to the kernel, in as few calls as can be, and says how many packets it took.
fn send_all(backend: &mut KernelSend, socket: &UdpSocket, bytes: &[u8], messages: &[Message]) -> u64 {
    let mut sent = 0;
    for messages in messages.chunks(BATCH_MESSAGES_MAX) {
        let taken = match messages {
            [message] if message.is_train() => {
                let train = &bytes[message.start..message.start + message.len];
                backend.send_train(socket.as_fd(), train, message.segment).map(|()| 1)
            }
            messages => backend.send_batch(socket.as_fd(), bytes, messages),
        };
        let taken = &messages[..taken.unwrap_or(0)];
        sent += taken.iter().map(|message| message.packets() as u64).sum::<u64>();
    }
    sent
}

/// What a receiver does with a packet.
enum Reader<'a> {
    Counts,
    /// It is not encrypted.
    Reads,
    Opens(&'a mut Inbound),
}

/// When a packet was sent, if it can be opened and carries what the producers send.
fn open(inbound: &mut Inbound, packet: &mut [u8]) -> Option<u64> {
    let opened = inbound.unprotect_rtp(packet).ok()?;
    let packet = packet.get(..opened.len)?;
    is_ours(packet).then(|| stamp_of(packet)).flatten()
}

/// The RTP packets of a datagram or a train. A thousand receivers get a thousand sender reports each second, which are
/// nothing that was lost or is waited for.
fn rtp_packets<'a>(bytes: &'a mut [u8], datagram: &Datagram) -> impl Iterator<Item = &'a mut [u8]> {
    bytes[datagram.range()]
        .chunks_mut(datagram.segment.max(1) as usize)
        .filter(|packet| classify(packet) == Kind::Rtp)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    #[test]
    fn reports_are_no_media() {
        let train = |bytes: &[u8], segment| Datagram {
            start: 0,
            len: bytes.len() as u32,
            segment,
            source: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
        };
        let count = |bytes: &mut [u8]| {
            let train = train(bytes, 4);
            rtp_packets(bytes, &train).count()
        };
        assert_eq!(count(&mut [128, 96, 0, 1, 128, 96, 0, 2, 128, 96]), 3);
        assert_eq!(count(&mut [128, 200, 0, 6]), 0);
        // The kernel joins a shorter last packet to a train, whatever it is.
        assert_eq!(count(&mut [128, 96, 0, 1, 128, 96, 0, 2, 128, 200]), 2);
    }
}
