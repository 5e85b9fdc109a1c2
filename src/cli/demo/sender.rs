//! A sender: replays recordings into a producer at their true pace, and reports on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weir_recordings::{Replay, SentLog};

/// How often each stream is reported on. RFC 3550 §6.2 allows more often than its five seconds for a session this small.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// A sender that was kept from running for longer than this goes on where it was, late, as a real one would: it does not
/// throw everything it missed into the network at once.
const LAG_MAX: Duration = Duration::from_millis(200);

/// Payload-specific feedback (RFC 4585 §6.1), which carries key frame requests.
const RTCP_PAYLOAD_SPECIFIC_FEEDBACK: u8 = 206;

/// Everything a sender needs.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) replay: Replay,
    /// Connected to the producer's transport.
    pub(super) socket: UdpSocket,
    pub(super) sent: Arc<SentLog>,
    /// Key frame requests that came back. A recording cannot follow them; the next key frame is never far.
    pub(super) key_frame_requests: Arc<AtomicU64>,
    pub(super) cname: &'static str,
    /// Becomes true when enough was sent.
    pub(super) stop: watch::Receiver<bool>,
}

impl Sender {
    /// Sends until it is stopped.
    pub(super) async fn run(mut self) -> Result<()> {
        let start = Instant::now();
        let mut lag = Duration::ZERO;
        let mut next_report = Duration::ZERO;
        let mut feedback = vec![0; 2048];
        let mut stop = self.stop.clone();
        loop {
            let elapsed = start.elapsed().saturating_sub(lag);
            let next_due = self.replay.next_due();
            let late = elapsed.saturating_sub(next_due);
            if late > LAG_MAX {
                lag += late;
                continue;
            }
            while let Some(due) = self.replay.poll(elapsed) {
                self.sent.begin(due.origin, due.ordinal);
                match self.socket.send(due.bytes).await {
                    Ok(_) => self.sent.finish(due.bytes.len()),
                    Err(_) => self.sent.fail(),
                }
            }
            if elapsed >= next_report {
                next_report = elapsed + REPORT_INTERVAL;
                self.report(elapsed).await?;
            }
            let wake = start + lag + self.replay.next_due().min(next_report);
            tokio::select! {
                () = sleep_until(wake) => {}
                // An error here is the echo of a send that failed, and is counted there.
                Ok(len) = self.socket.recv(&mut feedback) => self.on_feedback(&feedback[..len]),
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    /// Reports on every stream. All of them share the clock, which is how a relay knows what belongs together.
    async fn report(&self, elapsed: Duration) -> Result<()> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a sender report states the wall clock (RFC 3550 §6.4.1)"
        )]
        let wall_clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for track in 0..self.replay.tracks().len() {
            let report = self
                .replay
                .sender_report(track, elapsed, wall_clock, self.cname)
                .context("cannot write a sender report")?;
            // RTCP is sent again and again; one that is lost is not missed.
            let _ = self.socket.send(&report).await;
        }
        Ok(())
    }

    /// Counts the key frame requests in a compound packet (RFC 3550 §6.1: its packets carry their length in words, less
    /// one).
    fn on_feedback(&self, mut compound: &[u8]) {
        while let &[_, packet_type, high, low, ..] = compound {
            if packet_type == RTCP_PAYLOAD_SPECIFIC_FEEDBACK {
                self.key_frame_requests.fetch_add(1, Ordering::Relaxed);
            }
            let len = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
            compound = compound.get(len..).unwrap_or_default();
        }
    }
}
