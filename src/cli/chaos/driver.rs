//! The other side of the wire: one thread that sends what all producers send, answers what they are asked for, receives what all
//! consumers get, and asks for what is missing.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use weir_channel::message::{IceProtocol, MediaKind};
use weir_worker::net::clock;
use weir_worker::net::poll::{Event, Interest, Poller, Source as Ready};
use weir_worker::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch};
use weir_worker::net::scheduling;
use weir_worker::net::sockets::{Side, stamp_arrivals};
use weir_worker::relay::sink::{Port, TransportIx};
use weir_worker::rtp::nack::NackWriter;
use weir_worker::rtp::packet::{Kind, classify};
use weir_worker::rtp::rtcp::{self, RtcpItem};
use weir_worker::webrtc::srtp::{Inbound, Outbound, StreamKey, UnprotectError};

use crate::cli::measuring::client::Checks;
use crate::cli::measuring::cpu;
use crate::cli::measuring::wire::Wire;

use super::judge::{Arrived, Counts, Judge};
use super::losses::{Losses, Lost, Origin, Way};
use super::source::{Source, number_of};

/// Events looked at between two looks at the schedule.
const EVENTS: usize = 256;

/// The thread sleeps no longer, so that orders do not wait.
const NAP: Duration = Duration::from_millis(1);

/// What comes to a client is read within this time, even when thousands of them get something at once.
const READ_WITHIN_NS: u64 = 1_000_000_000;

/// The thread looks for orders each time that it has read what is ready, be the machine as busy as it may.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

/// What is missing is asked for so often, and by each receiver again after twice that.
const ASKING_INTERVAL_NS: u64 = 20_000_000;

/// A peer that makes no check for 30 seconds is not sent to any more (RFC 7675). A successor wants to hear of everybody early.
const CHECKS_INTERVAL_NS: u64 = 2_000_000_000;

/// Checks between two looks at the sockets.
const CHECKS_AT_ONCE: usize = 16;

/// The SSRC under which receivers ask.
const ASKING_SSRC: u32 = 1;

/// What RTCP may grow by.
const RTCP_ROOM: usize = 64;

/// What the client of a WebRTC transport has.
pub(super) struct Crypto {
    pub outbound: Outbound,
    pub inbound: Inbound,
    pub checks: Checks,
    /// Of a sender: the stream that protects its packets.
    pub stream: Option<StreamKey>,
}

/// Who is at a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// Of this source.
    Sender(usize),
    /// Of this source's packets, under this SSRC.
    Receiver { source: usize, ssrc: u32 },
}

/// A client, and the way to its transport.
pub(super) struct Client {
    pub wire: Wire,
    pub crypto: Option<Crypto>,
    pub role: Role,
}

/// What is asked of the thread.
enum Order {
    /// Send so many packets a second in all from now on.
    SetRate(f64),
    /// A worker is struck, at this time.
    Struck(u64),
    /// Say how things are, and begin anew to look for the longest waits.
    Look,
}

/// How things are.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// For each receiver the longest wait since the last look, in nanoseconds.
    pub waits_ns: Vec<u64>,
    /// For each receiver when the newest packet that it has got was sent.
    pub newest_ns: Vec<u64>,
    /// Of all receivers, since the beginning.
    pub counts: Counts,
    /// What they have not got, since the beginning.
    pub lost: Lost,
    /// What came by the network, since the beginning.
    pub traffic: Traffic,
    /// Packets that were sent, since the beginning.
    pub sent: u64,
    /// Packets that the kernel did not take.
    pub unsent: u64,
    pub key_frame_requests: u64,
}

/// What clients make of what comes, beside their judges.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Traffic {
    /// Packets that could not be opened, or that hold something else than what was sent.
    pub wrong: u64,
    /// Of TCP: packets of which a dead worker had written a part, and the next one zeroes for the rest.
    pub cut_off: u64,
    /// Packets that were sent again because the server asked.
    pub sent_again: u64,
    /// Connections that have ended.
    pub connections_lost: u64,
}

/// The thread, from outside.
#[derive(Debug)]
pub(super) struct Driver {
    orders: Sender<Order>,
    looks: Receiver<anyhow::Result<Look>>,
}

impl Driver {
    pub(super) fn start(cpu: usize, sources: Vec<Source>, clients: Vec<Client>) -> anyhow::Result<Self> {
        let mut state = State::new(sources, clients)?;
        let (orders, incoming) = channel();
        let (outgoing, looks) = channel();
        thread::Builder::new()
            .name("chaos driver".into())
            .spawn(move || {
                cpu::pin(cpu);
                // Where that is forbidden the figures suffer, nothing else.
                let _ = scheduling::prefer_latency();
                if let Err(error) = state.run(&incoming, &outgoing) {
                    let _ = outgoing.send(Err(error));
                }
            })
            .context("starting the thread that sends and receives")?;
        Ok(Self { orders, looks })
    }

    /// Sends so many packets a second in all from now on.
    pub(super) fn set_rate(&self, packets_per_second: f64) -> anyhow::Result<()> {
        self.orders
            .send(Order::SetRate(packets_per_second))
            .ok()
            .context("the thread that sends and receives is gone")
    }

    /// A worker is struck now: what is lost is counted by whether it was sent before.
    pub(super) fn note_struck(&self, now_ns: u64) {
        // Whoever looks hears if the thread is gone.
        let _ = self.orders.send(Order::Struck(now_ns));
    }

    pub(super) fn look(&self) -> anyhow::Result<Look> {
        // An order to nobody has no answer either.
        let _ = self.orders.send(Order::Look);
        match self.looks.recv_timeout(LOOK_WITHIN) {
            Ok(look) => look,
            Err(RecvTimeoutError::Timeout) => {
                bail!("the thread that sends and receives has not answered for {LOOK_WITHIN:?}")
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that sends and receives is gone"),
        }
    }
}

struct State {
    sources: Vec<Source>,
    clients: Vec<Client>,
    /// For each source its client.
    senders: Vec<usize>,
    /// For each client its judge, if it receives.
    judges: Vec<Option<Judge>>,
    poller: Poller,
    ready: Vec<Event>,
    batch: ReceiveBatch,
    buffer: Vec<u8>,
    check: Vec<u8>,
    asked_ns: u64,
    checked_ns: u64,
    next_check: usize,
    /// A packet of TCP.
    packet: Vec<u8>,
    traffic: Traffic,
    /// What is to be said of each source when a packet of it is lost.
    origins: Vec<Origin>,
    losses: Losses,
    sent: u64,
    unsent: u64,
}

impl State {
    fn new(sources: Vec<Source>, clients: Vec<Client>) -> anyhow::Result<Self> {
        let poller = Poller::new(EVENTS)?;
        let mut senders = vec![0; sources.len()];
        let origin = |(source, one): (usize, &Source)| Origin {
            source,
            kind: one.kind,
            way: Way::Plain,
            receivers: 0,
        };
        let mut origins: Vec<Origin> = sources.iter().enumerate().map(origin).collect();
        let mut judges = Vec::with_capacity(clients.len());
        for (index, client) in clients.iter().enumerate() {
            let source = Ready::Socket {
                transport: TransportIx(index as u32),
                port: Port::Rtp,
                side: Side::Connected,
            };
            poller
                .add(client.wire.as_fd(), source, Interest::Read)
                .context("watching a client's socket")?;
            // A receiver has a packet when it is in its socket. When this thread reads it is its own affair: it plays thousands of them.
            if let Wire::Udp(socket) = &client.wire {
                stamp_arrivals(socket.as_fd(), true).context("having the kernel stamp what comes")?;
            }
            judges.push(match client.role {
                Role::Sender(source) => {
                    senders[source] = index;
                    origins[source].way = Way::of(client);
                    None
                }
                Role::Receiver { source, .. } => {
                    origins[source].receivers += 1;
                    Some(Judge::new())
                }
            });
        }
        Ok(Self {
            sources,
            clients,
            senders,
            judges,
            poller,
            ready: Vec::with_capacity(EVENTS),
            batch: ReceiveBatch::new(64, DATAGRAM_BYTES_MAX),
            buffer: vec![0; 4_096],
            check: Vec::new(),
            asked_ns: 0,
            checked_ns: 0,
            next_check: 0,
            packet: vec![0; DATAGRAM_BYTES_MAX],
            traffic: Traffic::default(),
            origins,
            losses: Losses::default(),
            sent: 0,
            unsent: 0,
        })
    }

    /// Until nobody gives orders any more.
    fn run(&mut self, orders: &Receiver<Order>, looks: &Sender<anyhow::Result<Look>>) -> anyhow::Result<()> {
        loop {
            match orders.try_recv() {
                Ok(Order::SetRate(rate)) => self.set_rate(rate),
                Ok(Order::Struck(now_ns)) => self.losses.on_struck(now_ns),
                Ok(Order::Look) => {
                    let look = self.look();
                    if looks.send(Ok(look)).is_err() {
                        return Ok(());
                    }
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            let next_ns = self.send_due();
            let wait = Duration::from_nanos(next_ns.saturating_sub(clock::monotonic().0)).min(NAP);
            self.receive(wait)?;
            self.ask();
            self.make_checks();
        }
    }

    fn set_rate(&mut self, packets_per_second: f64) {
        let count = self.sources.len() as f64;
        let now_ns = clock::monotonic().0;
        for (number, source) in self.sources.iter_mut().enumerate() {
            source.set_rate(now_ns, packets_per_second / count, number as f64 / count);
        }
    }

    fn look(&mut self) -> Look {
        let mut look = Look {
            traffic: self.traffic,
            lost: self.losses.lost,
            sent: self.sent,
            unsent: self.unsent,
            key_frame_requests: self.sources.iter().map(|source| source.key_frame_requests).sum(),
            ..Look::default()
        };
        let now_ns = clock::monotonic().0;
        for (client, judge) in self.clients.iter().zip(&mut self.judges) {
            let (Role::Receiver { source, .. }, Some(judge)) = (client.role, judge) else {
                continue;
            };
            // Whoever still waits has waited as well, unless what has come is only not read yet.
            let awaited_ns = judge.next().map_or(u64::MAX, |next| self.sources[source].sent_at(next));
            let waiting_ns = Some(now_ns.saturating_sub(awaited_ns)).filter(|wait| *wait >= READ_WITHIN_NS);
            look.waits_ns.push(judge.take_wait().max(waiting_ns.unwrap_or(0)));
            let newest = judge.next().and_then(|next| next.checked_sub(1));
            look.newest_ns
                .push(newest.map_or(0, |newest| self.sources[source].sent_at(newest)));
            look.counts.add(judge.counts);
        }
        look
    }

    /// Sends what is due, and says when the next packet is.
    fn send_due(&mut self) -> u64 {
        let mut next_ns = u64::MAX;
        for (number, source) in self.sources.iter_mut().enumerate() {
            let now_ns = clock::monotonic().0;
            if source.due_ns <= now_ns {
                let client = &mut self.clients[self.senders[number]];
                let (index, packet) = source.next_packet(now_ns);
                match send(client, index, packet, &mut self.buffer) {
                    true => self.sent += 1,
                    false => self.unsent += 1,
                }
            }
            next_ns = next_ns.min(source.due_ns);
        }
        next_ns
    }

    /// Takes what has come, or comes in this time.
    fn receive(&mut self, wait: Duration) -> anyhow::Result<()> {
        self.poller.wait(Some(wait), &mut self.ready)?;
        for event in &self.ready {
            let Ready::Socket { transport, .. } = event.source else {
                continue;
            };
            let index = transport.0 as usize;
            let mut ear = Ear {
                client: &mut self.clients[index],
                judge: self.judges[index].as_mut(),
                sources: &mut self.sources,
                traffic: &mut self.traffic,
                buffer: &mut self.buffer,
            };
            match &mut ear.client.wire {
                Wire::Udp(socket) => {
                    let received = self
                        .batch
                        .receive(socket.as_fd(), usize::MAX)
                        .context("reading a client's socket")?;
                    let now_ns = clock::monotonic().0;
                    let realtime_ns = clock::realtime_ns();
                    for (datagram, stamp_ns) in received.datagrams.iter().zip(received.arrivals.iter()) {
                        let at_ns = match stamp_ns {
                            0 => now_ns,
                            stamp_ns => now_ns.saturating_sub(realtime_ns.saturating_sub(*stamp_ns)),
                        };
                        let train = &mut received.bytes[datagram.range()];
                        for packet in train.chunks_mut(datagram.segment.max(1) as usize) {
                            ear.hear(at_ns, packet);
                        }
                    }
                }
                Wire::Tcp(stream) => {
                    let has_ended = has_ended(stream.read());
                    let at_ns = clock::monotonic().0;
                    while let Wire::Tcp(stream) = &mut ear.client.wire
                        && let Some(len) = stream.take(&mut self.packet)
                    {
                        ear.hear(at_ns, &mut self.packet[..len]);
                    }
                    if has_ended {
                        self.traffic.connections_lost += 1;
                        let connection = self.clients[index].wire.as_fd();
                        self.poller.remove(connection).context("a connection that has ended")?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets receivers of video ask for what is missing, if it is time.
    fn ask(&mut self) {
        let now_ns = clock::monotonic().0;
        if now_ns.saturating_sub(self.asked_ns) < ASKING_INTERVAL_NS {
            return;
        }
        self.asked_ns = now_ns;
        for (client, judge) in self.clients.iter_mut().zip(&mut self.judges) {
            let (Role::Receiver { source, ssrc }, Some(judge)) = (client.role, judge) else {
                continue;
            };
            let mut nack = NackWriter::new(ASKING_SSRC, ssrc);
            judge.ask(now_ns, 2 * ASKING_INTERVAL_NS, |number, seq| {
                // What does not fit is asked for later.
                let _ = nack.push(number, seq);
            });
            let way = Way::of(client);
            for number in judge.take_lost() {
                let sent_ns = self.sources[source].sent_at(number);
                self.losses.add(self.origins[source], number, sent_ns, way);
            }
            if !nack.is_empty() && self.sources[source].kind == MediaKind::Video {
                send_rtcp(client, nack.packet(), &mut self.buffer);
            }
        }
    }

    /// Makes some of the checks that are due.
    fn make_checks(&mut self) {
        let now_ns = clock::monotonic().0;
        if self.next_check >= self.clients.len() {
            if now_ns.saturating_sub(self.checked_ns) < CHECKS_INTERVAL_NS {
                return;
            }
            self.checked_ns = now_ns;
            self.next_check = 0;
        }
        let end = (self.next_check + CHECKS_AT_ONCE).min(self.clients.len());
        for client in &mut self.clients[self.next_check..end] {
            if let Some(crypto) = &mut client.crypto {
                // One that is lost is made again soon.
                let _ = client.wire.send(crypto.checks.next(&mut self.check));
            }
        }
        self.next_check = end;
    }
}

/// Whether nothing more will come by a connection.
fn has_ended(read: io::Result<()>) -> bool {
    read.is_err_and(|error| !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted))
}

/// What one client needs to understand what comes.
struct Ear<'a> {
    client: &'a mut Client,
    judge: Option<&'a mut Judge>,
    sources: &'a mut [Source],
    traffic: &'a mut Traffic,
    buffer: &'a mut [u8],
}

impl Ear<'_> {
    fn hear(&mut self, at_ns: u64, packet: &mut [u8]) {
        let client = &mut *self.client;
        match (classify(packet), client.role, &mut self.judge) {
            (Kind::Rtp, Role::Receiver { source, ssrc }, Some(judge)) => {
                // Whatever is missing of a packet that was cut off, its last byte is.
                let is_cut_off = client.wire.protocol() == IceProtocol::Tcp && packet.last() == Some(&0);
                match read(client.crypto.as_mut(), ssrc, at_ns, packet) {
                    Some(arrived) => judge.on_packet(arrived, |number| self.sources[source].sent_at(number)),
                    None if is_cut_off => self.traffic.cut_off += 1,
                    None => self.traffic.wrong += 1,
                }
            }
            (Kind::Rtcp, Role::Sender(source), _) => {
                let source = &mut self.sources[source];
                self.traffic.sent_again += obey(client, source, packet, self.buffer);
            }
            // Answers to checks, and reports that nobody needs.
            _ => {}
        }
    }
}

/// Sends one packet of a source. Whether the kernel took it.
fn send(client: &mut Client, index: u64, packet: &[u8], buffer: &mut [u8]) -> bool {
    let Some(crypto) = &mut client.crypto else {
        return client.wire.send(packet);
    };
    let Some(stream) = crypto.stream else { return false };
    let protected = crypto
        .outbound
        .protect_train(stream, index, packet, packet.len(), buffer);
    protected.refused.is_none() && client.wire.send(&buffer[..protected.bytes])
}

fn send_rtcp(client: &mut Client, packet: &[u8], buffer: &mut [u8]) {
    let Some(crypto) = &mut client.crypto else {
        // What is lost is asked for again.
        let _ = client.wire.send(packet);
        return;
    };
    let Some(room) = buffer.get_mut(..packet.len() + RTCP_ROOM) else {
        return;
    };
    room[..packet.len()].copy_from_slice(packet);
    if let Ok(len) = crypto.outbound.protect_rtcp(room, packet.len()) {
        let _ = client.wire.send(&room[..len]);
    }
}

/// Reads a packet that a receiver has got; `None` if it holds something else than what was sent.
fn read(crypto: Option<&mut Crypto>, ssrc: u32, at_ns: u64, packet: &mut [u8]) -> Option<Arrived> {
    let seq = u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?);
    let (number, digest) = match crypto {
        // Without encryption the number says all.
        None => number_of(packet).map(|number| (number, number))?,
        Some(crypto) => {
            let tag = packet.get(packet.len().checked_sub(8)?..)?.try_into().ok()?;
            let number = match crypto.inbound.unprotect_rtp(packet) {
                Ok(unprotected) => number_of(&packet[..unprotected.len])?,
                // Under an index that came before. Whether it is the same packet, its tag says.
                Err(UnprotectError::Replayed) => 0,
                Err(_) => return None,
            };
            (number, u64::from_be_bytes(tag))
        }
    };
    (packet[8..12] == ssrc.to_be_bytes()).then_some(Arrived {
        at_ns,
        seq,
        number,
        digest,
    })
}

/// Does what the server asks a sender for. Returns how many packets were sent again.
fn obey(client: &mut Client, source: &mut Source, packet: &mut [u8], buffer: &mut [u8]) -> u64 {
    let packet = match &mut client.crypto {
        None => packet,
        Some(crypto) => match crypto.inbound.unprotect_rtcp(packet) {
            Ok(unprotected) => &mut packet[..unprotected.len],
            Err(_) => return 0,
        },
    };
    let mut missing = Vec::new();
    let mut is_key_frame_wanted = false;
    let ssrc = source.ssrc;
    // What cannot be read asks for nothing.
    let _ = rtcp::parse(packet, |item| match item {
        RtcpItem::Pli { media_ssrc: asked } | RtcpItem::Fir { ssrc: asked, .. } if asked == ssrc => {
            is_key_frame_wanted = true;
        }
        RtcpItem::Nack {
            media_ssrc, pid, blp, ..
        } if media_ssrc == ssrc => {
            missing.push(pid);
            let others = (0..16).filter(|bit| blp & 1 << bit != 0);
            missing.extend(others.map(|bit| pid.wrapping_add(bit + 1)));
        }
        _ => {}
    });
    if is_key_frame_wanted {
        source.want_key_frame();
    }
    let again = missing.into_iter().filter_map(|seq| source.sent_before(seq));
    again
        .map(|(index, packet)| u64::from(send(client, index, packet, buffer)))
        .sum()
}
