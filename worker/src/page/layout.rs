//! What lies where in a page: a header, then tables of slots of a fixed size, each slot with the records of one object.
//!
//! | kind of record | how it is stored | what a death in between leaves |
//! |---|---|---|
//! | id of a slot | last when the slot is taken, first when it is left | no object, or a whole one |
//! | number that must never be used twice | twice, the second time inverted | the old or the new one |
//! | what changes together ([`Twin`]) | two copies in turn, and then which one counts, with its checksum | the whole old, or the whole new one |
//! | what is stored once | as it is, and then its checksum | nothing, or all of it |
//! | counters | as they are | some are older than others |
//!
//! Whatever changes here changes the layout's hash, so that no program reads what another one has written otherwise. Slots have
//! spare words: what grows into them changes the [schema](SCHEMA).

pub mod connection;
mod place;
pub mod transport;
pub mod webrtc;

use weir_channel::message::{DropReason, NotRepaired, WebRtcFailureReason, WorkerStats};

use super::record::{Record, records};

pub use self::place::{At, Double, Sealed, Twin};
pub use self::transport::{Feedback, RemoteOfTransport, SocketCounts, TransportCounts};

/// The number of this layout.
pub const SCHEMA: u32 = 6;

/// `WEIRPAGE`.
pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"WEIRPAGE");

/// Words before the tables.
pub const HEADER_WORDS: usize = 512;

/// Where the header's words are.
pub(super) mod header {
    pub(in super::super) const MAGIC: usize = 0;
    pub(in super::super) const SCHEMA: usize = 1;
    pub(in super::super) const LAYOUT: usize = 2;
    pub(in super::super) const CAPACITY: usize = 3;
    /// Which worker writes it: no other page has the same number.
    pub(in super::super) const WRITER: usize = 6;
    pub(in super::super) const SUM: usize = 7;
    /// What the sum is of.
    pub(in super::super) const SUMMED: usize = 7;
    /// When the current turn began; 0: it waits, since [`REST`]. `weir_channel::page::TURN_OFFSET`.
    pub(in super::super) const TURN: usize = 8;
    /// Whose packets it is about: the [`super::Suspect`]. `weir_channel::page::SUSPECT_OFFSET`.
    pub(in super::super) const SUSPECT: usize = 10;
    /// When it last began to wait. `weir_channel::page::REST_OFFSET`.
    pub(in super::super) const REST: usize = 14;
    /// How many slots of each table were ever taken.
    pub(in super::super) const TAKEN: usize = 16;
    /// What was counted of everything together. `weir_channel::page::TOTALS_OFFSET`.
    pub(in super::super) const TOTALS: usize = 32;
}

/// How many tables there are.
pub const TABLES: usize = 5;

/// What slots there are, by the kind of their object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Consumers.
    Consumers,
    /// Streams of producers.
    Streams,
    /// Transports.
    Transports,
    /// What WebRTC transports have beside: keys, paths, positions.
    WebRtc,
    /// TCP connections of WebRTC transports.
    Connections,
}

impl Table {
    pub(super) const ALL: [Self; TABLES] = [
        Self::Consumers,
        Self::Streams,
        Self::Transports,
        Self::WebRtc,
        Self::Connections,
    ];

    /// The words of a slot.
    pub const fn slot_words(self) -> usize {
        match self {
            Self::Consumers | Self::Transports => 64,
            Self::Streams => 128,
            Self::WebRtc => 320,
            Self::Connections => 32,
        }
    }
}

/// How many slots of each table there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity(pub [u32; TABLES]);

impl Capacity {
    /// What fits into the page of a worker, which has 64 MiB.
    pub const WORKER: Self = Self([65_536, 8_192, 16_384, 6_144, 4_000]);

    /// Enough for a simulated room.
    pub const SIMULATION: Self = Self([64, 32, 64, 8, 8]);

    /// The words of a page with them.
    pub fn words(self) -> usize {
        Table::ALL.into_iter().fold(HEADER_WORDS, |words, table| {
            words + self.0[table as usize] as usize * table.slot_words()
        })
    }

    /// Where a table begins.
    pub fn base(self, table: Table) -> usize {
        Table::ALL
            .into_iter()
            .take(table as usize)
            .fold(HEADER_WORDS, |words, table| {
                words + self.0[table as usize] as usize * table.slot_words()
            })
    }

    pub(super) fn slots(self, table: Table) -> usize {
        self.0[table as usize] as usize
    }
}

const _: () = assert!(
    512 + 65_536 * 64 + 8_192 * 128 + 16_384 * 64 + 6_144 * 320 + 4_000 * 32 <= weir_channel::page::BYTES as usize / 8,
    "the tables fit into a page"
);
const _: () = assert!(
    header::TURN * 8 == weir_channel::page::TURN_OFFSET as usize,
    "the supervisor finds the turn clock"
);
const _: () = assert!(
    header::REST * 8 == weir_channel::page::REST_OFFSET as usize
        && header::TOTALS * 8 == weir_channel::page::TOTALS_OFFSET as usize
        && header::TAKEN + TABLES <= header::TOTALS
        && header::TOTALS + WorkerStats::WORDS <= HEADER_WORDS,
    "the supervisor finds when it waits, and the totals"
);
const _: () = assert!(
    header::SUSPECT * 8 == weir_channel::page::SUSPECT_OFFSET as usize && size_of::<Suspect>() == 32,
    "the supervisor finds the suspect"
);

/// A word that every slot begins with: whose it is.
pub(super) const ID: usize = 0;
/// What else tells the object from others of its id: a stream's encoding, a consumer's SSRCs.
pub(super) const DETAIL: usize = 1;

/// The records of a consumer.
pub mod consumer {
    use super::*;

    /// Whose streams the flow is about.
    pub const SOURCE: At<SourceOfConsumer> = At::new(2, 8);
    /// The newest numbers sent: a cache line of their own, stored before packets are protected or sent.
    pub const NEWEST: At<Newest> = At::new(8, 15);
    /// The newest number sent again in a stream of its own.
    pub const AGAIN: Double = Double(16);
    /// What flows, under which offsets.
    pub const FLOW: Twin<FlowOfConsumer> = Twin::new(18, 31);
    /// Where it has started.
    pub const START: At<StartOfFlow> = At::new(31, 32);
    /// Counters.
    pub const COUNTERS: At<ConsumerCounters> = At::new(32, 64);
}

/// The records of a stream.
pub mod stream {
    use super::*;

    /// How far it was received.
    pub const POSITION: Twin<StreamPosition> = Twin::new(2, 100);
    /// Counters.
    pub const COUNTERS: At<StreamCounts> = At::new(100, 115);
    /// What was withheld last: stored before anything is sent that came behind it.
    pub const FOLDED: Twin<FoldedOfStream> = Twin::new(115, 128);
}

records! {
    /// The newest numbers that a consumer was sent.
    pub struct Newest {
        /// The sequence number, extended: as an SRTP index, 2³² up.
        pub seq: u64,
        /// The same, inverted.
        pub seq_inverted: u64,
        /// The timestamp, extended.
        pub timestamp: u64,
        /// The picture id, extended.
        pub picture_id: u64,
        /// TL0PICIDX, extended.
        pub tl0: u64,
        /// When that was.
        pub sent_at: u64,
        /// How far the timestamps of the last two packets are from those before them.
        pub steps: [u32; 2],
    }

    /// Which producer a consumer has.
    pub struct SourceOfConsumer {
        /// Its id.
        pub producer: u64,
    }

    /// What flows to a consumer, and what is added to its numbers.
    pub struct FlowOfConsumer {
        /// To the sequence number.
        pub seq: u64,
        /// To the timestamp.
        pub timestamp: u64,
        /// To the picture id.
        pub picture_id: u64,
        /// To TL0PICIDX.
        pub tl0: u64,
        /// The epoch of the stream in which the flow has started.
        pub epoch: u32,
        /// The count of restarts of the stream that the timestamps belong to.
        pub restarts: u32,
        /// The stream whose timeline the timestamps belong to; 255: nothing was sent.
        pub timeline: u8,
        /// The stream that flows; 255: none.
        pub current: u8,
        /// The stream that its owner was last told of; 255: none.
        pub effective: u8,
        /// The slot of its producer that says what is withheld from it.
        pub slot: u8,
        /// Nothing flows until there is another start.
        pub sync_required: u8,
        /// It is paused.
        pub paused: u8,
        /// Its packets have begun to be sent again in a stream of their own.
        pub again_begun: u8,
        /// The owner was told of a profile at all.
        pub notified: u8,
    }

    /// Where what flows to a consumer has started.
    pub struct StartOfFlow {
        /// The number of the packet in its stream, extended.
        pub seq: u64,
    }

    /// What was counted of a consumer.
    pub struct ConsumerCounters {
        /// Packets given to the transport.
        pub forwarded: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Packets not given to it, by reason.
        pub dropped: [u64; DropReason::ALL.len()],
        /// Switches made.
        pub switches: u64,
        /// Picture loss indications received.
        pub pli: u64,
        /// Full intra requests received.
        pub fir: u64,
        /// Negative acknowledgements received.
        pub nack: u64,
        /// Packets sent again.
        pub repaired: u64,
        /// Their bytes.
        pub repaired_bytes: u64,
        /// Packets not sent again, by reason.
        pub not_repaired: [u64; NotRepaired::ALL.len()],
        /// For sender reports: packets sent.
        pub sent_packets: u64,
        /// And the bytes of their payloads.
        pub sent_octets: u64,
        /// The producer's payload type of the last one.
        pub payload_type: u64,
        /// Packets lost on the way to the receiver, by its last report: an `i32`.
        pub lost: u64,
    }

    /// A picture's counter, as it was written and without its wraps.
    pub struct CounterPlace {
        /// The sequence number of its packet, extended.
        pub seq: u64,
        /// The counter, extended.
        pub extended: u64,
        /// As it was written.
        pub value: u16,
        /// It was written in the wide form.
        pub wide: u8,
        /// There is one.
        pub is_some: u8,
        /// Zero.
        pub spare: u32,
    }

    /// What report blocks say of how an SSRC is received.
    pub struct ReceptionRecord {
        /// Its first sequence number.
        pub first: u32,
        /// Its newest, with its cycles.
        pub newest: u32,
        /// Packets received.
        pub received: u32,
        /// Packets expected at the last report.
        pub expected_before: u32,
        /// Packets received by then.
        pub received_before: u32,
        /// Jitter, times 16.
        pub jitter: u32,
        /// When the last packet came.
        pub arrived: u64,
        /// And its timestamp.
        pub timestamp: u64,
        /// When its sender's last report came; 0: none has.
        pub report_arrived: u64,
        /// The count of restarts that it belongs to.
        pub timeline: u32,
        /// The payload type of the last packet.
        pub payload_type: u8,
        /// Packets lost between the last two reports, in 1/256.
        pub fraction_lost: u8,
        /// Something has come.
        pub is_some: u8,
        /// Zero.
        pub spare: u8,
    }

    /// What of a stream's last packets is withheld from consumers, and folded out of their numbers.
    pub struct FoldedOfStream {
        /// The newest number that had come.
        pub newest: u64,
        /// By slot: which of the last 64 numbers up to it are withheld. The newest one's is the highest bit.
        pub latest: [u64; 4],
        /// As in [`StreamPosition`]: numbers of others have nothing to do with these.
        pub numbers_since: u32,
        /// Zero.
        pub spare: u32,
    }

    /// How far a stream was received when the last batch of it had been relayed.
    pub struct StreamPosition {
        /// The SSRC that carries it.
        pub ssrc: u32,
        /// And its retransmissions.
        pub rtx_ssrc: u32,
        /// The SSRC that carried it before.
        pub previous_ssrc: u32,
        /// What of all this is there: [`flags`].
        pub flags: u32,
        /// When that one was left.
        pub previous_until: u64,
        /// The newest sequence number, extended; 0 before the first packet.
        pub newest: u64,
        /// What is older is from before the last restart.
        pub floor: u64,
        /// The newest number as it stood in its packet.
        pub newest_wire: u16,
        /// The number of the last full intra request.
        pub fir_seq: u8,
        /// How often the last key frame request was repeated.
        pub repeats: u8,
        /// The longest pause between its pictures of late, in milliseconds.
        pub cadence_ms: u32,
        /// The newest timestamp, extended; 0 before the first packet.
        pub clock: u64,
        /// What is added to timestamps.
        pub shift: u32,
        /// What was, before the last change.
        pub shift_before: u32,
        /// The first sequence number since that change.
        pub changed_at: u64,
        /// The newest picture id.
        pub picture_id: CounterPlace,
        /// The newest one in another width.
        pub picture_id_before: CounterPlace,
        /// The newest TL0PICIDX.
        pub tl0: CounterPlace,
        /// Its first sequence number.
        pub first: u64,
        /// Counts restarts and resumptions.
        pub epoch: u32,
        /// Counts restarts.
        pub restarts: u32,
        /// The epoch in which numbers began again.
        pub numbers_since: u32,
        /// Zero.
        pub spare: u32,
        /// When a key frame was last asked for.
        pub asked_at: u64,
        /// The newest sender report: when it was sent, by its sender's clock,
        pub report_ntp: u64,
        /// the timestamp that belongs to it, extended,
        pub report_timestamp: u64,
        /// and when it came.
        pub report_arrived: u64,
        /// What the newest one of all has for a time.
        pub newest_ntp: u64,
        /// The newest report on its retransmissions.
        pub rtx_report: u64,
        /// How many packets were withheld, by slot.
        pub withheld: [u64; 4],
        /// How it is received.
        pub reception: ReceptionRecord,
        /// And its retransmissions.
        pub rtx_reception: ReceptionRecord,
    }

    /// What was counted of a stream.
    pub struct StreamCounts {
        /// Packets.
        pub packets: u64,
        /// Bytes.
        pub bytes: u64,
        /// Packets lost.
        pub lost: u64,
        /// Packets not believed.
        pub discarded: u64,
        /// Packets that came twice.
        pub duplicated: u64,
        /// Key frames.
        pub key_frames: u64,
        /// Picture loss indications sent.
        pub pli: u64,
        /// Full intra requests sent.
        pub fir: u64,
        /// Packets while the producer was paused.
        pub paused: u64,
        /// Packets repaired.
        pub repaired: u64,
        /// Retransmissions that were of no use.
        pub rtx_useless: u64,
        /// Negative acknowledgements sent.
        pub nacks: u64,
        /// Packets named in them.
        pub nacked: u64,
        /// Changes of the SSRC.
        pub ssrc_changes: u64,
        /// Packets that were too long to be kept.
        pub not_kept: u64,
    }

    /// An address.
    pub struct Address {
        /// Of IPv6, or of IPv4 as IPv6 writes it (RFC 4291 §2.5.5.2).
        pub ip: [u8; 16],
        /// The zone of a link-local one.
        pub scope: u32,
        /// The port; 0: there is no address.
        pub port: u16,
        /// It is of IPv4.
        pub is_v4: u8,
        /// Zero.
        pub spare: u8,
    }

    /// Where a batch has come from that is being worked on.
    pub struct Suspect {
        /// Its transport.
        pub transport: u64,
        /// Its first source.
        pub source: Address,
    }
}

/// What of a [`StreamPosition`] is there.
pub mod flags {
    /// An SSRC is known.
    pub const SSRC: u32 = 1;
    /// One of retransmissions is.
    pub const RTX_SSRC: u32 = 1 << 1;
    /// Nobody has declared that one.
    pub const RTX_LEARNED: u32 = 1 << 2;
    /// Another one carried the stream before.
    pub const PREVIOUS: u32 = 1 << 3;
    /// It can be selected.
    pub const AVAILABLE: u32 = 1 << 4;
    /// The payload type alone vouches for the SSRC.
    pub const LATCHED: u32 = 1 << 5;
    /// It is what it is because the one before was silent.
    pub const DOUBTFUL: u32 = 1 << 6;
    /// A key frame request waits.
    pub const KEY_FRAME_WANTED: u32 = 1 << 7;
    /// A key frame was asked for at some time.
    pub const KEY_FRAME_ASKED: u32 = 1 << 8;
    /// There is a sender report with a time.
    pub const REPORT: u32 = 1 << 9;
    /// There is a sender report.
    pub const NEWEST_REPORT: u32 = 1 << 10;
    /// There is one on retransmissions.
    pub const RTX_REPORT: u32 = 1 << 11;
    /// Nothing has been said but this.
    pub const ALL: u32 = (1 << 12) - 1;
}

/// Where the records are that are kept in two copies, and their words.
pub(super) const TWINS: [(Table, usize, usize); 6] = [
    (Table::Consumers, consumer::FLOW.0, FlowOfConsumer::WORDS),
    (Table::Streams, stream::POSITION.0, StreamPosition::WORDS),
    (Table::Streams, stream::FOLDED.0, FoldedOfStream::WORDS),
    (Table::Transports, transport::REMOTE.0, RemoteOfTransport::WORDS),
    (Table::WebRtc, webrtc::AGENT.0, webrtc::AgentRecord::WORDS),
    (Table::Connections, connection::WRITTEN.0, connection::StreamOut::WORDS),
];

/// What tells this layout from every other: names, places and sizes of all fields (FNV-1a).
pub const HASH: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    let shapes = [
        Newest::SHAPE,
        SourceOfConsumer::SHAPE,
        FlowOfConsumer::SHAPE,
        ConsumerCounters::SHAPE,
        CounterPlace::SHAPE,
        ReceptionRecord::SHAPE,
        StreamPosition::SHAPE,
        StreamCounts::SHAPE,
        FoldedOfStream::SHAPE,
        Address::SHAPE,
        RemoteOfTransport::SHAPE,
        Suspect::SHAPE,
        Feedback::SHAPE,
        TransportCounts::SHAPE,
        SocketCounts::SHAPE,
        connection::StreamOut::SHAPE,
    ];
    while index < shapes.len() {
        hash = fnv_shape(hash, shapes[index]);
        index += 1;
    }
    index = 0;
    while index < webrtc::SHAPES.len() {
        hash = fnv_shape(hash, webrtc::SHAPES[index]);
        index += 1;
    }
    let places = [
        consumer::SOURCE.0,
        consumer::NEWEST.0,
        consumer::AGAIN.0,
        consumer::FLOW.0,
        consumer::COUNTERS.0,
        stream::POSITION.0,
        stream::COUNTERS.0,
        stream::FOLDED.0,
        transport::REMOTE.0,
        transport::FEEDBACK.0,
        transport::COUNTERS.0,
        transport::SOCKETS.0,
        connection::WRITTEN.0,
    ];
    let mut index = 0;
    while index < places.len() {
        hash = fnv(hash, &[places[index] as u8]);
        index += 1;
    }
    index = 0;
    while index < webrtc::PLACES.len() {
        hash = fnv(hash, &[webrtc::PLACES[index] as u8, (webrtc::PLACES[index] >> 8) as u8]);
        index += 1;
    }
    hash
};

const fn fnv_shape(mut hash: u64, shape: &[(&str, usize, usize)]) -> u64 {
    let mut field = 0;
    while field < shape.len() {
        let (name, at, size) = shape[field];
        hash = fnv(hash, name.as_bytes());
        hash = fnv(hash, &[at as u8, (at >> 8) as u8, size as u8, (size >> 8) as u8]);
        field += 1;
    }
    hash
}

const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}
