//! A producer as the relay sees it: how its packets are recognised, what of them is relayed, and who follows.

use weir_channel::id::{ProducerId, RoomId, TransportId};
use weir_channel::message::{Codec, CodecName, CreateConsumer, CreateProducer, ExtensionUri, MediaKind, Profile};

use crate::rtp::extension::{Element, ExtensionBlock, Values, Walk, elements, erase};
use crate::time::Time;

use super::cname::presentable;
use super::filters::{Filters, UnsupportedCodecs};
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::levels::Meter;
use super::limits::ENCODINGS_MAX;
use super::nack::MissingList;
use super::profile::Available;
use super::sender_clock::{ClockKey, Clocks};
use super::slots::Slots;
use super::stream::Stream;
use super::withheld::SlotSet;

/// No codec has this payload type.
const NO_CODEC: u8 = u8::MAX;

/// A track that somebody sends. What every packet needs comes first, in two cache lines; see `hot_lines`.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Producer {
    /// Its streams, lowest profile first.
    pub streams: Vec<Stream>,
    /// The codec of the packet before, and its place in `codecs`.
    last_codec: Option<(Codec, u8)>,
    /// The id of the extension with the transport sequence number.
    pub transport_cc: Option<u8>,
    /// Received and counted, not relayed.
    pub paused: bool,
    /// It sends something, on any stream.
    pub is_active: bool,
    /// Audio or video.
    pub kind: MediaKind,
    /// How many of its consumers may ask for packets again.
    pub repairing: u32,
    /// How loud it is, while somebody wants to know.
    pub meter: Meter,
    pub(super) counters: ProducerCounters,
    /// Which of its packets its consumers are withheld.
    pub filters: Filters,
    /// Its extensions, by id (index 0 is unused), up to the highest; RFC 8285 §4.3 has 255.
    extensions: Box<[Option<ExtensionUri>]>,

    /// Its id.
    pub id: ProducerId,
    /// The room it belongs to.
    pub room: RoomId,
    /// The transport it arrives on.
    pub transport: TransportKey,
    /// The media id it may be recognised by.
    pub mid: Option<String>,
    /// The profile that it prefers for consumers that prefer none.
    pub preferred_profile: Profile,
    /// What its owner was last notified of.
    pub last_notified_active: Option<bool>,
    /// It is in the relay's list of producers whose owners are to be notified.
    pub is_notification_queued: bool,
    /// Takes feedback that is not in a compound packet (RFC 5506).
    pub reduced_size: bool,
    /// The clock that the streams of its endpoint share; known with its first consumer.
    pub clock: Option<ClockKey>,
    /// Nobody has given its endpoint a name: it has the one that its sender says.
    pub is_named_by_sender: bool,
    /// All its consumers.
    pub consumers: Vec<ConsumerKey>,
    /// The ids of its extensions, by URI; 0: it has not got it.
    extension_ids: [u8; ExtensionUri::ALL.len()],
    /// What it may send, by the order of its request. That never changes.
    pub codecs: Vec<Codec>,
}

/// All of a worker's.
pub(super) type Producers = Slots<ProducerKey, Producer>;

/// What a consumer's counters are updated from. Every packet that is routed to the producer counts once in `received`, and
/// once in one of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub(super) struct ProducerCounters {
    /// Packets routed to the producer.
    pub received: u64,
    /// Handed to the consumers of each stream.
    pub dispatched: [u64; ENCODINGS_MAX],
    /// While it was paused.
    pub paused: u64,
    /// Seen before.
    pub duplicate: u64,
    /// Not believed.
    pub bad_sequence: u64,
    /// Nothing but padding.
    pub padding: u64,
}

impl Producer {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: [std::ops::Range<usize>; 2] = {
        use std::mem::offset_of;
        let filters = offset_of!(Self, filters);
        // As many streams as nearly all producers have.
        let counters = offset_of!(Self, counters.dispatched) + size_of::<u64>();
        [0..counters, filters..filters + Filters::HOT.end]
    };

    /// From a request whose parameters were checked.
    pub(super) fn new(request: &CreateProducer, transport: TransportKey) -> Self {
        let sends_again = request.codecs.iter().any(|codec| codec.nack);
        let ids = request.header_extensions.iter().map(|extension| extension.id);
        let mut extensions = vec![None; ids.max().map_or(0, |highest| usize::from(highest) + 1)].into_boxed_slice();
        let mut extension_ids = [0; ExtensionUri::ALL.len()];
        for extension in &request.header_extensions {
            extensions[usize::from(extension.id)] = Some(extension.uri);
            extension_ids[extension.uri as usize] = extension.id;
        }
        let transport_cc = Some(extension_ids[ExtensionUri::TransportWideCc as usize]).filter(|id| *id > 0);
        let mut streams: Vec<_> = request
            .encodings
            .iter()
            .map(|encoding| {
                let mut stream = Stream::new(encoding.profile, encoding.rid.clone(), encoding.ssrc);
                stream.rtx_ssrc = encoding.rtx_ssrc;
                stream.missing = sends_again.then(Box::<MissingList>::default);
                stream
            })
            .collect();
        streams.sort_by_key(|stream| stream.profile);
        Self {
            id: request.producer,
            room: request.room,
            transport,
            kind: request.kind,
            mid: request.mid.clone(),
            preferred_profile: request.preferred_profile,
            paused: request.paused,
            is_active: false,
            last_notified_active: None,
            is_notification_queued: false,
            reduced_size: request.reduced_size,
            clock: None,
            is_named_by_sender: false,
            meter: Meter::default(),
            streams,
            consumers: Vec::new(),
            extensions,
            extension_ids,
            transport_cc,
            counters: ProducerCounters::default(),
            repairing: 0,
            filters: Filters::default(),
            codecs: request.codecs.clone(),
            last_codec: None,
        }
    }

    /// What a consumer waits at that outlives its producers, and has had none in this worker.
    pub(super) fn vacant(request: &CreateConsumer, transport: TransportKey) -> Self {
        let codec = |(source, _): &(u8, u8)| Codec {
            payload_type: *source,
            name: CodecName::OtherVideo,
            clock_rate: 90_000,
            pli: false,
            fir: false,
            nack: false,
            remb: false,
            rtx: None,
        };
        let codecs = request.payload_types.iter().map(codec).collect();
        Self::sending_nothing((request.room, request.producer), transport, MediaKind::Video, codecs)
    }

    /// What its consumers wait at that outlive it. Codecs are what it has had, as what was sent is still spoken of.
    pub(super) fn vacated(&self) -> Self {
        Self::sending_nothing((self.room, self.id), self.transport, self.kind, self.codecs.clone())
    }

    /// Nobody knows it by its id, and nothing comes on its transport, which may be gone. It is there as long as it has consumers.
    fn sending_nothing(
        (room, producer): (RoomId, ProducerId),
        transport: TransportKey,
        kind: MediaKind,
        codecs: Vec<Codec>,
    ) -> Self {
        let request = CreateProducer {
            room,
            transport: TransportId(0),
            producer,
            kind,
            mid: None,
            codecs,
            encodings: Vec::new(),
            header_extensions: Vec::new(),
            preferred_profile: Profile::Default,
            reduced_size: false,
            paused: false,
        };
        Self::new(&request, transport)
    }

    /// Whether consumers wait at it for another one.
    pub(super) fn is_vacant(&self) -> bool {
        self.streams.is_empty()
    }

    /// Known by neither MID nor RID, and with one stream only.
    pub(super) fn is_unnamed(&self) -> bool {
        self.mid.is_none() && self.streams.len() == 1 && self.streams[0].rid.is_none()
    }

    /// Which extension has an id, if it is one of its own.
    #[inline]
    pub(super) fn extension(&self, id: u8) -> Option<ExtensionUri> {
        self.extensions.get(usize::from(id)).copied().flatten()
    }

    /// The codec sent under a payload type.
    pub(super) fn codec(&self, payload_type: u8) -> Option<&Codec> {
        self.codecs.iter().find(|codec| codec.payload_type == payload_type)
    }

    /// The codec of a packet, and its place in the list of them: mostly that of the packet before, which lies near.
    #[inline]
    pub(super) fn packet_codec(&mut self, payload_type: u8) -> Option<(Codec, u8)> {
        match self.last_codec {
            Some((codec, place)) if codec.payload_type == payload_type => Some((codec, place)),
            _ => self.other_packet_codec(payload_type),
        }
    }

    fn other_packet_codec(&mut self, payload_type: u8) -> Option<(Codec, u8)> {
        let place = self
            .codecs
            .iter()
            .position(|codec| codec.payload_type == payload_type)?;
        self.last_codec = Some((self.codecs[place], place as u8));
        self.last_codec
    }

    /// The slots in which a packet is withheld.
    #[inline]
    pub(super) fn withholding(&mut self, payload_type: u8, is_padding: bool) -> SlotSet {
        let place = self.packet_codec(payload_type).map_or(NO_CODEC, |(_, place)| place);
        self.filters.withholding(place, is_padding)
    }

    /// The codecs that somebody lacks who has these payload types.
    pub(super) fn unsupported_codecs(&self, payload_types: &[(u8, u8)]) -> UnsupportedCodecs {
        let lacks = |codec: &Codec| !payload_types.iter().any(|(source, _)| *source == codec.payload_type);
        let codecs = self.codecs.iter().enumerate();
        codecs
            .filter(|(_, codec)| lacks(codec))
            .fold(0, |unsupported, (index, _)| unsupported | 1 << index)
    }

    /// The name of the codec sent under a payload type.
    pub(super) fn codec_name(&self, payload_type: Option<u8>) -> Option<String> {
        Some(self.codec(payload_type?)?.name.subtype().to_owned())
    }

    /// The codec whose packets are sent again under a payload type.
    #[inline]
    pub(super) fn codec_of_rtx(&self, payload_type: u8) -> Option<&Codec> {
        self.codecs.iter().find(|codec| codec.rtx == Some(payload_type))
    }

    /// The codec that speaks for the producer: its clock rate, and how key frames are asked for. Not one that merely goes
    /// along with another, wherever that is in the list.
    pub(super) fn first_codec(&self) -> &Codec {
        let main = self.codecs.iter().find(|codec| !codec.name.is_companion());
        main.unwrap_or(&self.codecs[0]) // OK: a request without codecs is refused
    }

    /// The codec that speaks for a stream whose last packet had this payload type.
    pub(super) fn main_codec(&self, payload_type: Option<u8>) -> &Codec {
        let last = payload_type.and_then(|payload_type| self.codec(payload_type));
        last.filter(|codec| !codec.name.is_companion())
            .unwrap_or_else(|| self.first_codec())
    }

    /// Profiles on offer now.
    pub(super) fn available(&self) -> Available {
        self.streams
            .iter()
            .filter(|stream| stream.available)
            .fold(Available::NONE, |available, stream| available.with(stream.profile))
    }

    /// Whether nothing has come for longer than it lets its receivers wait even at its slowest.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        self.streams.iter().all(|stream| stream.is_silent(now, self.kind))
    }

    /// The canonical name that its sender says of itself: that of its lowest stream which has one. They are one endpoint's.
    pub(super) fn cname(&self) -> Option<&str> {
        self.streams.iter().find_map(|stream| stream.cname.as_deref())
    }

    /// The producer's endpoint is known: from now on its reports count for the clock of all that endpoint's streams.
    /// The sender's own name replaces one that was made up.
    pub(super) fn join_clock(&mut self, clocks: &mut Clocks, cname: &str, is_made_up: bool) {
        if self.clock.is_some() {
            return;
        }
        self.is_named_by_sender = is_made_up;
        let cname = self.cname().filter(|_| is_made_up).unwrap_or(cname);
        let clock = clocks.join(self.room, cname);
        self.use_clock(clocks, clock);
    }

    /// The reports of the streams count for this clock from now on.
    fn use_clock(&mut self, clocks: &mut Clocks, clock: ClockKey) {
        if let Some(before) = self.clock.replace(clock) {
            clocks.leave(before);
        }
        let Some(clock) = clocks.get_mut(self.clock) else {
            return;
        };
        for report in self.streams.iter().filter_map(|stream| stream.sender_time.report) {
            clock.on_report(report.arrived, report.ntp);
        }
    }

    /// The producer is closed.
    pub(super) fn leave_clock(&self, clocks: &mut Clocks) {
        if let Some(clock) = self.clock {
            clocks.leave(clock);
        }
    }

    /// The sender says what it is called (RFC 3550 §6.5.1).
    pub(super) fn on_cname(&mut self, encoding: u8, name: &[u8], clocks: &mut Clocks) {
        let stream = &mut self.streams[usize::from(encoding)];
        let name = presentable(name);
        if name.is_empty() || stream.cname.as_deref() == Some(&*name) {
            return;
        }
        stream.cname = Some(name.into());
        // Its reports are of the clock that all streams of this name share.
        if self.is_named_by_sender
            && self.clock.is_some()
            && let Some(name) = self.cname()
        {
            let clock = clocks.join(self.room, name);
            self.use_clock(clocks, clock);
        }
    }

    /// The slot of one more consumer from which nothing is withheld: there is nothing.
    pub(super) fn join_nothing(&mut self) -> u8 {
        self.filters.join(0).slot
    }

    /// The slot of one more consumer, for what is withheld from it.
    pub(super) fn join_slot(&mut self, request: &CreateConsumer) -> u8 {
        let joined = self.filters.join(self.unsupported_codecs(&request.payload_types));
        for stream in &mut self.streams {
            if joined.is_new {
                stream.open_slot(joined.slot);
            }
            if joined.is_taken_over {
                stream.forget_kept();
            }
        }
        joined.slot
    }

    /// Counts a packet that is not taken in, `by` 1. With `by` -1 that is taken back: the packet is taken in after all, and since
    /// it was counted, nobody has joined and nothing was paused. `is_known`: another one has come under its number.
    pub(super) fn count_refused(&mut self, encoding: u8, is_known: bool, by: i64) {
        let stream = &mut self.streams[usize::from(encoding)].counters;
        let add = |count: &mut u64| {
            debug_assert!(by > 0 || *count > 0, "what is taken back was counted");
            *count = count.wrapping_add_signed(by);
        };
        add(&mut self.counters.received);
        if is_known {
            add(&mut stream.packets);
            add(&mut stream.duplicated);
        } else {
            add(&mut stream.discarded);
        }
        if self.paused {
            add(&mut stream.paused);
            add(&mut self.counters.paused);
        } else if is_known {
            add(&mut self.counters.duplicate);
        } else {
            add(&mut self.counters.bad_sequence);
        }
    }

    /// Begins or ends measuring how loud it is.
    pub(super) fn measure_level(&mut self, is_wanted: bool) {
        let id = self.extension_id(ExtensionUri::AudioLevel);
        let id = id.filter(|_| is_wanted && self.kind == MediaKind::Audio);
        self.meter = Meter::new(id.unwrap_or_default());
    }

    /// The encoding of a profile.
    pub(super) fn encoding_of(&self, profile: Profile) -> Option<u8> {
        self.streams
            .iter()
            .position(|stream| stream.profile == profile)
            .map(|index| index as u8)
    }

    /// The encoding with an RTP stream id.
    pub(super) fn encoding_of_rid(&self, rid: &[u8]) -> Option<u8> {
        let has_rid = |stream: &Stream| stream.rid.as_ref().is_some_and(|own| own.as_bytes() == rid);
        self.streams.iter().position(has_rid).map(|index| index as u8)
    }

    /// The id of one of its extensions.
    pub(super) fn extension_id(&self, uri: ExtensionUri) -> Option<u8> {
        Some(self.extension_ids[uri as usize]).filter(|id| *id > 0)
    }

    /// The value of one of its extensions, of those in a packet.
    pub(super) fn extension_value<'a>(&self, uri: ExtensionUri, values: &Values<'a>) -> Option<&'a [u8]> {
        values.get(self.extension_id(uri)?)
    }

    /// Takes out of a packet what is not for the next hop: routing ids, hop-by-hop extensions, and what the producer did
    /// not declare. RFC 8285 §4.1.2: an erased element is padding. The time of sending becomes `now`.
    #[inline]
    pub(super) fn strip_extensions(&self, now: Time, bytes: &mut [u8], block: ExtensionBlock) {
        let mut walk = Walk::through(block);
        let mut done = block.start;
        while let Some(element) = walk.next(bytes) {
            let uri = self.extension(element.id);
            if !uri.is_some_and(ExtensionUri::is_relayed) {
                erase(bytes, element);
            } else if uri == Some(ExtensionUri::AbsSendTime) {
                write_send_time(now, bytes, element);
            }
            done = element.value + u16::from(element.len);
        }
        // What no walk can read (behind id 15, or cut off) is no element that the producer declared.
        let end = block.start + block.len;
        if let Some(rest) = bytes.get_mut(usize::from(done)..usize::from(end)) {
            rest.fill(0);
        }
    }

    /// Writes the time of sending into a packet that is sent again, if it carries one.
    pub(super) fn stamp_send_time(&self, now: Time, bytes: &mut [u8], block: ExtensionBlock) {
        let is_send_time = |element: &Element| self.extension(element.id) == Some(ExtensionUri::AbsSendTime);
        let found = elements(bytes, block).find(is_send_time);
        if let Some(element) = found {
            write_send_time(now, bytes, element);
        }
    }
}

/// abs-send-time: seconds in 6.18 fixed point, 24 bits. Receivers only take differences of it, so the relay's own
/// monotonic clock will do.
fn write_send_time(now: Time, bytes: &mut [u8], element: Element) {
    const CYCLE_NS: u64 = 64_000_000_000;
    let value = ((now.0 % CYCLE_NS) << 18) / 1_000_000_000;
    let start = usize::from(element.value);
    if let (3, Some(place)) = (element.len, bytes.get_mut(start..start + 3)) {
        place.copy_from_slice(&(value as u32).to_be_bytes()[1..]);
    }
}
