//! Sending much, from threads that block.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::Scale;
use crate::meters::now;

/// Numbers that look random and are the same on every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// How long a flood lasts.
pub(crate) fn time(scale: Scale) -> Duration {
    Duration::from_secs(scale.of(1, 10) as u64)
}

/// Does something again and again for the time of a flood, on a thread of its own: as often as it can in the long form, 20,000
/// times a second in the short one, which leaves CPUs to the others. Returns how often.
pub(crate) async fn flood(scale: Scale, mut act: impl FnMut(u64) + Send + 'static) -> u64 {
    let per_second = match scale {
        Scale::Short => 20_000,
        Scale::Long => u64::MAX,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = tokio::task::spawn_blocking(move || {
        let (began, mut done) = (now(), 0);
        loop {
            let passed = now() - began;
            if passed >= time(scale) || stopped.load(Ordering::Relaxed) {
                return done;
            }
            let due = (passed.as_micros() as u64).saturating_mul(per_second) / 1_000_000;
            for _ in 0..due.saturating_sub(done).min(64) {
                act(done);
                done += 1;
            }
            if due <= done {
                thread::park_timeout(Duration::from_millis(1));
            }
        }
    });
    // When the attack is given up in the middle, so is the flood.
    let _stop = Stop(stop);
    thread.await.unwrap()
}

/// Says stop when it is dropped.
pub(crate) struct Stop(pub(crate) Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends, and does not mind if the kernel says that nobody listens.
pub(crate) fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    let _ = socket.send_to(bytes, to);
}

/// What has come to a socket, by kind (RFC 7983 §7, RFC 5761 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) media: u64,
    pub(crate) rtcp: u64,
    pub(crate) stun: u64,
    pub(crate) dtls: u64,
    pub(crate) bytes: u64,
}

impl std::ops::AddAssign for Came {
    fn add_assign(&mut self, other: Self) {
        self.media += other.media;
        self.rtcp += other.rtcp;
        self.stun += other.stun;
        self.dtls += other.dtls;
        self.bytes += other.bytes;
    }
}

/// Takes everything that has come to a socket.
pub(crate) fn take(socket: &UdpSocket) -> Came {
    socket.set_nonblocking(true).unwrap();
    let mut came = Came::default();
    let mut bytes = [0; 65_536];
    while let Ok(len) = socket.recv(&mut bytes) {
        came.bytes += len as u64;
        match (bytes[0], bytes[1]) {
            (128..=191, 192..=223) => came.rtcp += 1,
            (128..=191, _) => came.media += 1,
            (0..=3, _) => came.stun += 1,
            (20..=63, _) => came.dtls += 1,
            _ => {}
        }
    }
    came
}
