//! Recognising packets by their content, and knowing when each was sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weir_channel::message::CodecName;

use crate::recording::{RecordedPacket, Recording};
use crate::replay::Origin;

/// The packets of a source, found by the media they carry: what is left of a packet when everything is taken away that a
/// relay rewrites.
#[derive(Debug)]
pub struct Catalogue {
    tracks: Vec<Arc<Recording>>,
    by_media: HashMap<Box<[u8]>, Vec<Origin>>,
}

impl Catalogue {
    /// Lists the packets of recordings that are replayed together.
    pub fn new(tracks: &[Arc<Recording>]) -> Self {
        let mut by_media: HashMap<Box<[u8]>, Vec<Origin>> = HashMap::new();
        for (track, recording) in tracks.iter().enumerate() {
            for (packet, recorded) in recording.packets().iter().enumerate() {
                let media = &recording.bytes_of(recorded)[recorded.media_at..];
                by_media.entry(media.into()).or_default().push(Origin { track, packet });
            }
        }
        Self {
            tracks: tracks.to_vec(),
            by_media,
        }
    }

    /// The recordings, in the order of [`Origin::track`].
    pub fn tracks(&self) -> &[Arc<Recording>] {
        &self.tracks
    }

    /// The codec of the source.
    pub fn codec(&self) -> Option<CodecName> {
        self.tracks.first().map(|track| track.codec())
    }

    /// The packets that carry exactly this media; more than one when a source repeats itself.
    pub fn find(&self, media: &[u8]) -> &[Origin] {
        self.by_media.get(media).map_or(&[], Vec::as_slice)
    }

    /// The packet of that origin, which must be of this catalogue.
    pub fn packet(&self, origin: Origin) -> &RecordedPacket {
        &self.tracks[origin.track].packets()[origin.packet]
    }

    /// How many packets a replay sends before it repeats itself.
    pub fn round_len(&self) -> u64 {
        self.tracks.iter().map(|track| track.packets().len() as u64).sum()
    }

    /// The media time of a packet, in ticks of its clock from the start of the replay, if it was sent under this ordinal.
    pub fn media_time(&self, origin: Origin, ordinal: u64) -> u64 {
        let recording = &self.tracks[origin.track];
        let rounds = ordinal / self.round_len().max(1);
        let frame = &recording.frames()[recording.packets()[origin.packet].frame];
        rounds * u64::from(recording.timestamp_span()) + u64::from(frame.timestamp_offset)
    }

    /// The packet that a looping replay sends after this one.
    pub fn next(&self, origin: Origin) -> Origin {
        let packets = self.tracks[origin.track].packets().len();
        Origin {
            track: origin.track,
            packet: (origin.packet + 1) % packets,
        }
    }
}

/// Which packets were sent, and in which order: the sender writes it, receivers and whoever pauses things read it.
///
/// Packets are counted from 0 over the whole source; the *mark* of a moment is how many had been begun. A packet with an
/// ordinal less than the mark was on its way; all others were sent later.
#[derive(Debug)]
pub struct SentLog {
    /// One more than the ordinal of the last sending of each packet; 0 for none yet.
    last: Vec<Vec<AtomicU64>>,
    begun: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

impl SentLog {
    /// A log for a source on which nothing was sent yet.
    pub fn new(tracks: &[Arc<Recording>]) -> Self {
        let empty = |track: &Arc<Recording>| track.packets().iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            last: tracks.iter().map(empty).collect(),
            begun: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// To be called by the one sender before it hands a packet to the kernel.
    pub fn begin(&self, origin: Origin, ordinal: u64) {
        // The receiver of this packet must find its ordinal, hence the order of the two.
        self.last[origin.track][origin.packet].store(ordinal + 1, Ordering::SeqCst);
        self.begun.store(ordinal + 1, Ordering::SeqCst);
    }

    /// To be called by the sender when the kernel has taken the packet.
    pub fn finish(&self, len: usize) {
        self.bytes.fetch_add(len as u64, Ordering::SeqCst);
        self.finished.fetch_add(1, Ordering::SeqCst);
    }

    /// To be called by the sender when the kernel has refused the packet.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }

    /// The mark of this moment.
    pub fn mark(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// How many packets the kernel has taken.
    pub fn packets(&self) -> u64 {
        self.finished.load(Ordering::SeqCst)
    }

    /// How many the kernel has refused.
    pub fn failures(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }

    /// The bytes of the packets that the kernel has taken, RTP headers included.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    /// The ordinal under which a packet was sent last; `None` if it was not sent.
    pub fn ordinal(&self, origin: Origin) -> Option<u64> {
        self.last
            .get(origin.track)?
            .get(origin.packet)?
            .load(Ordering::SeqCst)
            .checked_sub(1)
    }
}
