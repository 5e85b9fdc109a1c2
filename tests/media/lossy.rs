//! A bad network between a program and a transport of Weir: it loses, repeats and reorders packets, always the same ones
//! for one seed, and writes down what it saw.
//!
//! A program has two ports, one for RTP and one for RTCP; a transport has one for both. The network joins them, so that to
//! Weir all of a program's packets come from one address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// How bad the network is. Shares are of 1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Packets lost one by one.
    pub(crate) loss: f64,
    /// Packets with which a burst of losses begins; the seven after it are lost too.
    pub(crate) bursts: f64,
    /// Packets that arrive twice.
    pub(crate) duplicates: f64,
    /// Packets that one to four others overtake.
    pub(crate) reordered: f64,
}

const BURST: u32 = 8;

/// A network for one program and one transport.
pub(crate) struct Network {
    /// Where the program sends RTP to.
    pub(crate) rtp_port: u16,
    /// Where the program sends RTCP to.
    pub(crate) rtcp_port: u16,
    /// Where Weir sends to.
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    weir: Arc<UdpSocket>,
    // Ends with the network.
    _tasks: JoinSet<()>,
}

/// What was seen of packets, before any were lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// By SSRC: the sequence numbers sent to Weir.
    pub(crate) into_weir: BTreeMap<u32, BTreeSet<u16>>,
    /// By SSRC: the sequence numbers sent by Weir.
    pub(crate) out_of_weir: BTreeMap<u32, BTreeSet<u16>>,
    /// By SSRC: the newest sender report in either direction, as NTP and RTP time.
    pub(crate) reports: BTreeMap<u32, (u64, u32)>,
    /// By SSRC and payload: RTP timestamps, for streams whose payloads tell their packets apart.
    pub(crate) timestamps: BTreeMap<u32, BTreeMap<Vec<u8>, u32>>,
    /// Packets that the network lost.
    pub(crate) lost: u64,
    /// Negative acknowledgements that Weir sent and that it was sent.
    pub(crate) nacks: [u64; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    IntoWeir,
    OutOfWeir,
}

impl Network {
    /// A network over which a program that receives on `program` (and for RTCP on the port above) talks to Weir.
    pub(crate) async fn start(program: u16, faults: Faults, seed: u64) -> Self {
        let [rtp, rtcp, weir] = [socket().await, socket().await, socket().await];
        let seen = Arc::<Mutex<Seen>>::default();
        let port = |socket: &UdpSocket| socket.local_addr().expect("it is bound").port();
        let address = weir.local_addr().expect("it is bound");
        let weir = Arc::new(weir);
        let mut tasks = JoinSet::new();
        let (rtp_port, rtcp_port) = (port(&rtp), port(&rtcp));
        let [rtp, rtcp] = [Arc::new(rtp), Arc::new(rtcp)];
        for (from, salt) in [(&rtp, 1), (&rtcp, 2)] {
            let carrier = Carrier::new(Way::IntoWeir, faults, seed ^ salt, &seen);
            let (from, weir) = (Arc::clone(from), Arc::clone(&weir));
            tasks.spawn(carrier.carry(from, move |packet| {
                // Not connected yet: the packet is lost, as it would be.
                let _ = weir.try_send(packet);
            }));
        }
        let carrier = Carrier::new(Way::OutOfWeir, faults, seed ^ 3, &seen);
        let to = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        tasks.spawn(carrier.carry(Arc::clone(&weir), move |packet| {
            let _ = match is_rtcp(packet) {
                true => rtcp.try_send_to(packet, to(program + 1)),
                false => rtp.try_send_to(packet, to(program)),
            };
        }));
        Self {
            rtp_port,
            rtcp_port,
            address,
            seen,
            weir,
            _tasks: tasks,
        }
    }

    /// Joins the network to a transport.
    pub(crate) async fn connect(&self, transport: u16) {
        let connected = self.weir.connect((Ipv4Addr::LOCALHOST, transport)).await;
        connected.expect("a port on loopback can be connected to");
    }

    /// What it has seen until now.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn socket() -> UdpSocket {
    let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let socket = bound.expect("loopback has ports");
    let buffers = socket2::SockRef::from(&socket);
    // The network is to lose what it is told to lose, and nothing else.
    buffers.set_recv_buffer_size(4 << 20).expect("buffers have sizes");
    socket
}

/// One direction.
struct Carrier {
    way: Way,
    faults: Faults,
    random: u64,
    burst_left: u32,
    /// Packets that others are overtaking, and how many still will.
    held: Vec<(u32, Vec<u8>)>,
    seen: Arc<Mutex<Seen>>,
}

impl Carrier {
    fn new(way: Way, faults: Faults, seed: u64, seen: &Arc<Mutex<Seen>>) -> Self {
        Self {
            way,
            faults,
            random: seed,
            burst_left: 0,
            held: Vec::new(),
            seen: Arc::clone(seen),
        }
    }

    async fn carry(mut self, from: Arc<UdpSocket>, deliver: impl Fn(&[u8])) {
        let mut buffer = vec![0; 65_536];
        loop {
            let Ok(len) = from.recv(&mut buffer).await else {
                // A refused packet is told on the socket; the next one may be taken.
                continue;
            };
            self.take(&buffer[..len], &deliver);
        }
    }

    fn take(&mut self, packet: &[u8], deliver: &impl Fn(&[u8])) {
        let lost = self.loses();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.note(self.way, packet);
            seen.lost += u64::from(lost);
        }
        for (left, _) in &mut self.held {
            *left -= 1;
        }
        if !lost {
            let overtaken = self.chance(self.faults.reordered);
            if overtaken {
                let by = 1 + (self.next() % 4) as u32;
                self.held.push((by, packet.to_vec()));
            } else {
                deliver(packet);
                if self.chance(self.faults.duplicates) {
                    deliver(packet);
                }
            }
        }
        self.held.retain(|(left, packet)| {
            if *left == 0 {
                deliver(packet);
            }
            *left > 0
        });
    }

    fn loses(&mut self) -> bool {
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return true;
        }
        if self.chance(self.faults.bursts) {
            self.burst_left = BURST - 1;
            return true;
        }
        self.chance(self.faults.loss)
    }

    fn chance(&mut self, share: f64) -> bool {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64 <= share && share > 0.0
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Seen {
    fn note(&mut self, way: Way, packet: &[u8]) {
        if is_rtcp(packet) {
            return self.note_rtcp(way, packet);
        }
        let (Some(seq), Some(timestamp), Some(ssrc)) = (be16(packet, 2), be32(packet, 4), be32(packet, 8)) else {
            return;
        };
        let seqs = match way {
            Way::IntoWeir => &mut self.into_weir,
            Way::OutOfWeir => &mut self.out_of_weir,
        };
        seqs.entry(ssrc).or_default().insert(seq);
        // Sound goes through as it is; of pictures Weir rewrites the first bytes.
        let payload = packet.get(12 + 4 * usize::from(packet[0] & 0x0f)..).unwrap_or_default();
        let tail = payload[payload.len().saturating_sub(40)..].to_vec();
        self.timestamps.entry(ssrc).or_default().insert(tail, timestamp);
    }

    fn note_rtcp(&mut self, way: Way, mut compound: &[u8]) {
        while let (Some(&kind), Some(words)) = (compound.get(1), be16(compound, 2)) {
            let len = 4 * (usize::from(words) + 1);
            match kind {
                200 => {
                    if let (Some(ssrc), Some(high), Some(low), Some(rtp)) = (
                        be32(compound, 4),
                        be32(compound, 8),
                        be32(compound, 12),
                        be32(compound, 16),
                    ) {
                        let ntp = u64::from(high) << 32 | u64::from(low);
                        self.reports.insert(ssrc, (ntp, rtp));
                    }
                }
                205 => self.nacks[usize::from(way == Way::IntoWeir)] += 1,
                _ => {}
            }
            compound = compound.get(len..).unwrap_or_default();
        }
    }
}

/// RFC 5761 §4.
fn is_rtcp(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|kind| (192..=223).contains(kind))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
