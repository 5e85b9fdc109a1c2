//! Those who have nothing to do with an attack: a plain call, a call between two browsers, and an operator. Each runs on a
//! thread of its own, so that an attack's own work does not hold it up.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::timeout;

use crate::Scale;
use crate::browser::Browser;
use crate::control::Client;
use crate::meters::now;

/// From packet to packet of the plain call. In the short form it is that of a call, so that what the kernel keeps lasts for
/// seconds in which a busy machine runs nobody; in the long one there are enough for a 99th percentile.
fn plain_interval(scale: Scale) -> Duration {
    Duration::from_millis(scale.of(20, 5) as u64)
}

/// From packet to packet between the browsers.
const BROWSER_INTERVAL: Duration = Duration::from_millis(20);

/// From one question of the operator to the next.
const OPERATOR_INTERVAL: Duration = Duration::from_millis(50);

/// An operator who is not answered in this time is locked out.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(5);

/// A socket of this process, which is none of the server's.
#[expect(clippy::disallowed_methods, reason = "not the supervisor's")]
pub(crate) fn udp(ip: IpAddr) -> UdpSocket {
    UdpSocket::bind((ip, 0)).unwrap()
}

/// What one of them noticed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Felt {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

/// What was sent and what arrived, by number.
#[derive(Default)]
pub(crate) struct Log {
    /// What arrives at this address and this process has no time to take is not lost by the server.
    address: Option<SocketAddr>,
    sent: AtomicU64,
    arrived: Mutex<BTreeMap<u64, Duration>>,
}

impl Log {
    /// The number of the next packet.
    pub(crate) fn next(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    fn send(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::AcqRel)
    }

    fn arrive(&self, number: u64, delay: Duration) {
        self.arrived.lock().unwrap().entry(number).or_insert(delay);
    }

    /// What became of the packets from one number on, up to another.
    pub(crate) fn felt(&self, from: u64, to: u64) -> Felt {
        let arrived = self.arrived.lock().unwrap();
        let mut delays: Vec<Duration> = arrived.range(from..to).map(|(_, delay)| *delay).collect();
        delays.sort_unstable();
        let at = |share: f64| {
            let index = (delays.len() as f64 * share) as usize;
            delays
                .get(index.min(delays.len().saturating_sub(1)))
                .copied()
                .unwrap_or_default()
        };
        Felt {
            sent: to - from,
            lost: (to - from - delays.len() as u64).saturating_sub(self.address.map_or(0, dropped_at)),
            p50: at(0.5),
            p99: at(0.99),
            max: delays.last().copied().unwrap_or_default(),
        }
    }
}

/// What one of its threads does until it is told to stop.
type Part = Box<dyn FnOnce(&Log, &AtomicBool) + Send>;

/// Runs until it is dropped.
pub(crate) struct Innocent {
    pub(crate) log: Arc<Log>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Innocent {
    fn new(address: Option<SocketAddr>, parts: Vec<Part>) -> Self {
        let log = Log {
            address,
            ..Log::default()
        };
        let (log, stop) = (Arc::new(log), Arc::new(AtomicBool::new(false)));
        let threads = parts.into_iter().map(|part| {
            let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
            thread::spawn(move || part(&log, &stop))
        });
        let threads = threads.collect();
        Self { log, stop, threads }
    }

    /// RTP from one socket through the server to another.
    pub(crate) fn plain(
        scale: Scale,
        microphone: UdpSocket,
        server: SocketAddr,
        ssrc: u32,
        speaker: UdpSocket,
    ) -> Self {
        let address = speaker.local_addr().ok();
        let send = move |log: &Log, stop: &AtomicBool| {
            let mut next = now();
            while !stop.load(Ordering::Relaxed) {
                let number = log.send();
                let packet = numbered(ssrc, number);
                // The kernel tells of nobody listening; then the packet is lost.
                let _ = microphone.send_to(&packet, server);
                // Who had no time does not send a burst.
                next = (next + plain_interval(scale)).max(now());
                while let Some(left) = next.checked_sub(now()).filter(|left| !left.is_zero()) {
                    thread::park_timeout(left);
                }
            }
        };
        let receive = move |log: &Log, stop: &AtomicBool| {
            speaker.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut bytes = [0; 2_000];
            while !stop.load(Ordering::Relaxed) {
                if let Ok(len) = speaker.recv(&mut bytes)
                    && let Some((number, sent)) = read_number(&bytes[..len])
                {
                    log.arrive(number, now().saturating_sub(sent));
                }
            }
        };
        Self::new(address, vec![Box::new(send), Box::new(receive)])
    }

    /// RTP from one browser to another.
    pub(crate) fn browsers(mut sending: Browser, mut receiving: Browser, ssrc: u32, payload_type: u8) -> Self {
        let both = move |log: &Log, stop: &AtomicBool| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut next = now();
                while !stop.load(Ordering::Relaxed) {
                    let number = log.send();
                    let sent = now();
                    sending.send(ssrc, payload_type, number + 1_000, &number.to_be_bytes());
                    let end = next + BROWSER_INTERVAL;
                    let received = receiving.run_until("the packet's time", |receiving| {
                        for packet in receiving.packets.drain(..) {
                            if let Some(arrived) = packet.payload.first_chunk() {
                                log.arrive(u64::from_be_bytes(*arrived), now() - sent);
                            }
                        }
                        now() >= end
                    });
                    tokio::join!(sending.run_until("the packet's time", |_| now() >= end), received);
                    next = end.max(now());
                }
            });
        };
        Self::new(None, vec![Box::new(both)])
    }

    /// Somebody who asks the server how it is, each time on a new connection.
    pub(crate) fn operator(socket: PathBuf) -> Self {
        let ask = move |log: &Log, stop: &AtomicBool| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut interval = tokio::time::interval(OPERATOR_INTERVAL);
                interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while !stop.load(Ordering::Relaxed) {
                    interval.tick().await;
                    let (number, began) = (log.send(), now());
                    let answer = async {
                        let stream = tokio::net::UnixStream::connect(&socket).await.ok()?;
                        let answer = Client::over(stream).await.get("/health").await;
                        (answer.status < 600).then_some(())
                    };
                    if let Ok(Some(())) = timeout(OPERATOR_PATIENCE, answer).await {
                        log.arrive(number, now() - began);
                    }
                }
            });
        };
        Self::new(None, vec![Box::new(ask)])
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// How many packets the kernel dropped because nobody took them from a socket of this process.
fn dropped_at(address: SocketAddr) -> u64 {
    let (table, octets) = match address.ip() {
        IpAddr::V4(ip) => ("/proc/net/udp", ip.octets().to_vec()),
        IpAddr::V6(ip) => ("/proc/net/udp6", ip.octets().to_vec()),
    };
    let table = std::fs::read_to_string(table).unwrap();
    // Words of 32 bits, as this machine has them.
    let words = octets
        .chunks(4)
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
    let ip: String = words.map(|word| format!("{word:08X}")).collect();
    let local = format!("{ip}:{:04X}", address.port());
    let row = table.lines().find(|row| row.split_whitespace().nth(1) == Some(&local));
    let drops = row.and_then(|row| row.split_whitespace().last()?.parse().ok());
    drops.unwrap_or(0)
}

/// An opus packet of the usual size that says which one it is and when it was sent.
pub(crate) fn numbered(ssrc: u32, number: u64) -> Vec<u8> {
    let mut packet = rtp(ssrc, number as u16, (number as u32).wrapping_mul(240));
    packet.extend(number.to_be_bytes());
    packet.extend((now().as_nanos() as u64).to_be_bytes());
    packet.resize(172, 0xaa);
    packet
}

/// The header of an opus packet.
pub(crate) fn rtp(ssrc: u32, seq: u16, timestamp: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(seq.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet
}

fn read_number(packet: &[u8]) -> Option<(u64, Duration)> {
    // Reports come to the same port.
    if packet.first()? >> 6 != 2 || (192..=223).contains(packet.get(1)?) {
        return None;
    }
    let number = u64::from_be_bytes(*packet.get(12..)?.first_chunk()?);
    let sent = u64::from_be_bytes(*packet.get(20..)?.first_chunk()?);
    Some((number, Duration::from_nanos(sent)))
}
