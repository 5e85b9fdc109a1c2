//! A receiver: takes what arrives for one consumer and judges it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use weir::{Consumer, Profile};
use weir_recordings::check::{Arrival, Check, StreamCheck};
use weir_recordings::vp8::Resolution;
use weir_recordings::{SentLog, rtp};

use super::reporter::{DemoEventKind, Reporter, written};

/// The longest datagram there is.
const DATAGRAM_LEN_MAX: usize = 65_535;

/// A consumer, and what judges its packets.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) name: &'static str,
    /// Which producer of the setup.
    pub(super) source: usize,
    pub(super) consumer: Consumer,
    /// The profiles of the source's tracks.
    pub(super) profiles: Vec<Profile>,
    pub(super) sent: Arc<SentLog>,
    pub(super) reporter: Reporter,
    check: Mutex<StreamCheck>,
    progress: watch::Sender<Progress>,
}

/// How far a consumer's stream has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Progress {
    /// How often it started, pauses included.
    pub(super) starts: u64,
    /// How often it switched.
    pub(super) switches: u64,
    /// Which track of its source flows.
    pub(super) track: Option<usize>,
    /// The size in the last key frame.
    pub(super) resolution: Option<Resolution>,
    /// When its last packet came, counted from the start of the demo in milliseconds.
    pub(super) last_packet_ms: Option<u64>,
}

impl Receiver {
    pub(super) fn new(
        name: &'static str,
        source: usize,
        consumer: Consumer,
        profiles: Vec<Profile>,
        sent: Arc<SentLog>,
        check: StreamCheck,
        reporter: Reporter,
    ) -> Self {
        Self {
            name,
            source,
            consumer,
            profiles,
            sent,
            reporter,
            check: Mutex::new(check),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// What was judged so far. As long as it is held, nothing more is.
    pub(super) fn check(&self) -> MutexGuard<'_, StreamCheck> {
        self.check.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the stream has come.
    pub(super) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// A view of the progress that can be waited on.
    pub(super) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Takes packets for as long as the socket gives any. If it fails, what was forwarded and never taken shows in the
    /// verdict.
    pub(super) async fn receive(self: Arc<Self>, socket: UdpSocket) {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        while let Ok(len) = socket.recv(&mut buffer).await {
            let datagram = &buffer[..len];
            if !rtp::is_rtcp(datagram) {
                self.take(datagram);
            }
        }
    }

    fn take(&self, datagram: &[u8]) {
        let mut check = self.check();
        let faults_before = Check::ALL.map(|one| check.faults(one).count());
        let arrival = check.receive(datagram, &self.sent);
        let resolution = check.resolution();
        for one in Check::ALL {
            let faults = check.faults(one);
            if faults_before[one as usize] == 0
                && let Some(text) = faults.examples().first()
            {
                self.reporter.report(DemoEventKind::Fault {
                    consumer: self.name,
                    check: one.name(),
                    text: text.clone(),
                });
            }
        }
        let track = check.track();
        drop(check);

        let profile = |track: usize| self.profiles.get(track).copied().unwrap_or_default();
        match arrival {
            Arrival::Started { track } => self.reporter.report(DemoEventKind::Started {
                consumer: self.name,
                profile: profile(track),
                resolution: written(resolution),
            }),
            Arrival::Switched { from, to } => self.reporter.report(DemoEventKind::Switched {
                consumer: self.name,
                from: profile(from),
                to: profile(to),
                resolution: written(resolution),
            }),
            Arrival::Continued | Arrival::Wrong => {}
        }
        let now_ms = self.reporter.elapsed_ms();
        self.progress.send_modify(|progress| {
            progress.starts += u64::from(matches!(arrival, Arrival::Started { .. }));
            progress.switches += u64::from(matches!(arrival, Arrival::Switched { .. }));
            progress.track = track;
            progress.resolution = resolution;
            progress.last_packet_ms = Some(now_ms);
        });
    }
}
