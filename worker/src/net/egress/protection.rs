//! What protecting the packets of all transports needs: their SRTP streams, a buffer, and how far a train has come.

use weir_channel::message::DropReason;

use super::super::send::{TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX};
use super::srtp_streams::{SrtpStreams, StreamEvents};
use crate::relay::sink::{Sent, TransportIx};
use crate::webrtc::srtp::{Profile, ProtectedTrain};

/// The longest protected message, and the longest packet with what SRTP adds to it.
const BUFFER_BYTES: usize = TRAIN_BYTES_MAX + TRAIN_SEGMENTS_MAX * Profile::RTP_OVERHEAD_MAX;

/// All transports' SRTP streams, and the buffer that their packets are protected in.
pub(super) struct Protection {
    pub(super) entries: Vec<Entry>,
    pub(super) buffer: Box<[u8]>,
    /// Streams that nobody has looked at yet.
    pub(super) begun: Vec<(TransportIx, u32)>,
    /// Transports whose peer has become unheard.
    pub(super) unheard: Vec<TransportIx>,
}

#[derive(Default)]
pub(super) struct Entry {
    pub(super) srtp: Option<Box<SrtpStreams>>,
    pub(super) failures: u64,
}

impl Protection {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            begun: Vec::with_capacity(1024),
            unheard: Vec::with_capacity(1024),
        }
    }

    #[inline]
    pub(super) fn record(&mut self, transport: TransportIx, events: StreamEvents) {
        if events.begun.is_some() || events.unheard {
            self.record_cold(transport, events);
        }
    }

    #[cold]
    fn record_cold(&mut self, transport: TransportIx, events: StreamEvents) {
        self.begun.extend(events.begun.map(|ssrc| (transport, ssrc)));
        self.unheard.extend(events.unheard.then_some(transport));
    }

    pub(super) fn detach(&mut self, transport: TransportIx) {
        if let Some(entry) = self.entries.get_mut(transport.0 as usize) {
            *entry = Entry::default();
        }
        self.begun.retain(|(begun, _)| *begun != transport);
        self.unheard.retain(|unheard| *unheard != transport);
    }

    #[inline]
    pub(super) fn streams(&self, transport: TransportIx) -> Option<&SrtpStreams> {
        self.entries.get(transport.0 as usize)?.srtp.as_deref()
    }

    #[inline]
    pub(super) fn streams_mut(&mut self, transport: TransportIx) -> Option<&mut SrtpStreams> {
        self.get_mut(transport)?.srtp.as_deref_mut()
    }

    pub(super) fn get_mut(&mut self, transport: TransportIx) -> Option<&mut Entry> {
        self.entries.get_mut(transport.0 as usize)
    }
}

/// What is protected of a train at a time: as many packets as one message can carry then.
fn step_of(segment: usize, overhead: usize) -> usize {
    (TRAIN_BYTES_MAX / (segment + overhead)).clamp(1, TRAIN_SEGMENTS_MAX) * segment
}

/// How far a train has come.
pub(super) struct Progress<'a> {
    pub(super) rest: &'a [u8],
    pub(super) segment: usize,
    /// Packets that are sent, or refused with others behind them.
    pub(super) accepted: usize,
    /// Packets that could not be protected.
    pub(super) refused: usize,
    /// Why the rest is not sent.
    pub(super) reason: Option<DropReason>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(train: &'a [u8], segment: usize) -> Self {
        Self {
            rest: train,
            segment,
            accepted: 0,
            refused: 0,
            reason: None,
        }
    }

    /// What to protect next.
    pub(super) fn next(&self, overhead: usize) -> Option<&'a [u8]> {
        let len = step_of(self.segment, overhead).min(self.rest.len());
        (len > 0).then(|| &self.rest[..len])
    }

    /// Takes note of what became of it; whether to go on.
    pub(super) fn advance(&mut self, protected: ProtectedTrain, sent: Sent) -> bool {
        self.accepted += sent.accepted;
        if sent.accepted < protected.packets {
            self.reason = Some(sent.reason);
            return false;
        }
        let mut done = protected.packets;
        if protected.refused.is_some() {
            self.refused += 1;
            self.accepted += 1;
            done += 1;
        }
        self.rest = self.rest.get(done * self.segment..).unwrap_or_default();
        true
    }

    pub(super) fn stop(&mut self, sent: Sent) {
        self.reason = Some(sent.reason);
    }
}
