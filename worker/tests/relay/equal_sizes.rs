//! Packets of a picture that differ by a few bytes leave as one train: the shorter ones are padded. Whoever takes the padding
//! away has what was sent, and nobody is sent anything longer than what came.

use std::collections::{BTreeMap, HashMap};

use weir_channel::id::ConsumerId;
use weir_channel::message::{CodecName, MediaKind, Profile};
use weir_worker::relay::limits::{RING_CHUNK_BYTES, TRAIN_BYTES_MAX, TRAIN_PACKETS_MAX, TRAIN_PADDING_MAX};
use weir_worker::relay::sink::{Port, TransportIx};
use weir_worker::webrtc::srtp::{
    Inbound, MasterKey, Outbound, Profile as Protection, Repeats, StreamKey, UnprotectError, nearest,
};

use crate::sim::judge::expected_bytes;
use crate::sim::random::Random;
use crate::sim::repair::{RTX, RTX_OUT, repairing};
use crate::sim::reports::{Said, said};
use crate::sim::stream::{Mark, Packet};
use crate::sim::track::{ABS_SEND_TIME, MID, Track, codec};
use crate::sim::wire::{self, Rtp};
use crate::sim::{Arrival, Sim, for_each_seed, ms, single, ssrc_of, train};

/// A packet with so many more bytes of payload, in front of its mark, and so much padding.
fn reshaped(packet: &Packet, longer: usize, padding: u8) -> Packet {
    let mut rtp = Rtp::read(&packet.bytes);
    let filled_to = rtp.payload.len() - Mark::LEN;
    rtp.payload.splice(filled_to..filled_to, vec![0x2a; longer]);
    rtp.padding = padding;
    Packet {
        bytes: rtp.write(),
        mark: packet.mark,
    }
}

/// A frame of packets that are so long in all, of which some end in padding.
fn frame_of(track: &mut Track, lens: &[(usize, u8)]) -> Vec<Packet> {
    let key = track.stream().frame == 0;
    track.stream().payload_len = 60;
    let frame = track.stream().frame_of(lens.len(), key);
    let of_len = |(packet, (len, padding)): (&Packet, &(usize, u8))| {
        let longer = len.checked_sub(packet.bytes.len() + usize::from(*padding));
        reshaped(packet, longer.expect("a packet is longer than its header"), *padding)
    };
    frame.iter().zip(lens).map(of_len).collect()
}

/// Keeps them for [`Sim::judge_bytes`].
fn remember(sim: &mut Sim, packets: &[Packet]) {
    let originals = sim.log.originals.get_or_insert_default();
    originals.extend(
        packets
            .iter()
            .map(|packet| ((packet.mark.stream, packet.mark.seq), packet.bytes.clone())),
    );
}

/// How long each packet of each train is, and how much of it is padding.
fn leaving(sim: &mut Sim) -> Vec<Vec<(usize, u8)>> {
    let of_packet = |packet: &Vec<u8>| (packet.len(), Rtp::read(packet).padding);
    let trains = sim.trains();
    trains
        .iter()
        .map(|train| train.packets.iter().map(of_packet).collect())
        .collect()
}

fn camera_and_viewer(sim: &mut Sim, codec: CodecName) -> (Track, ConsumerId) {
    let room = sim.room();
    let sender = sim.transport(room);
    let receiver = sim.transport(room);
    let track = sim.camera(sender, codec);
    let viewer = sim.consumer(receiver, &track);
    (track, viewer)
}

#[test]
fn what_is_a_little_shorter_is_padded_to_the_longest_of_its_train() {
    const P: u8 = TRAIN_PADDING_MAX as u8;
    type Lens<'a> = &'a [(usize, u8)];
    let cases: &[(Lens<'_>, &[Lens<'_>])] = &[
        // As browsers split a frame: the last ones are longer by a byte.
        (
            &[(1_101, 0), (1_101, 0), (1_102, 0)],
            &[&[(1_102, 1), (1_102, 1), (1_102, 0)]],
        ),
        // Or the first.
        (
            &[(1_102, 0), (1_101, 0), (1_101, 0)],
            &[&[(1_102, 0), (1_102, 1), (1_101, 0)]],
        ),
        // Sizes that need nothing are left alone; the last may be shorter as it is.
        (
            &[(1_100, 0), (1_100, 0), (1_099, 0)],
            &[&[(1_100, 0), (1_100, 0), (1_099, 0)]],
        ),
        (&[(1_100, 0)], &[&[(1_100, 0)]]),
        // At most 16 bytes, of each of them.
        (&[(1_084, 0), (1_100, 0)], &[&[(1_100, P), (1_100, 0)]]),
        (&[(1_083, 0), (1_100, 0)], &[&[(1_083, 0)], &[(1_100, 0)]]),
        (
            &[(1_090, 0), (1_100, 0), (1_107, 0)],
            &[&[(1_100, 10), (1_100, 0)], &[(1_107, 0)]],
        ),
        (
            &[(1_100, 0), (1_080, 0), (1_100, 0)],
            &[&[(1_100, 0), (1_080, 0)], &[(1_100, 0)]],
        ),
        // What is padded already is padded more, as far as a byte can count.
        (&[(1_100, 7), (1_102, 0)], &[&[(1_102, 9), (1_102, 0)]]),
        (&[(1_100, 253), (1_102, 0)], &[&[(1_102, 255), (1_102, 0)]]),
        (&[(1_100, 254), (1_102, 0)], &[&[(1_100, 254)], &[(1_102, 0)]]),
        (
            &[(1_100, 255), (1_100, 255), (900, 0)],
            &[&[(1_100, 255), (1_100, 255), (900, 0)]],
        ),
        (
            &[(1_100, 0), (1_099, 200), (1_100, 9)],
            &[&[(1_100, 0), (1_100, 201), (1_100, 9)]],
        ),
    ];
    for codec in [
        CodecName::Vp8,
        CodecName::Vp9,
        CodecName::H264,
        CodecName::H265,
        CodecName::Av1,
        CodecName::OtherVideo,
    ] {
        let mut sim = Sim::new(1);
        let (mut track, viewer) = camera_and_viewer(&mut sim, codec);
        // It starts.
        let first = track.stream().key_frame(2);
        sim.send(track.transport(), &first);
        sim.received(viewer);
        for (lens, expected) in cases {
            let frame = frame_of(&mut track, lens);
            remember(&mut sim, &frame);
            sim.trains();
            sim.send(track.transport(), &frame);
            let received = sim.received(viewer);
            assert_eq!(leaving(&mut sim), *expected, "{codec:?}: {lens:?}");
            let sent: Vec<_> = frame.iter().map(|packet| packet.mark).collect();
            assert_eq!(received.iter().map(|packet| packet.mark()).collect::<Vec<_>>(), sent);
            sim.judge_bytes(&received, &track.request, &sim.consumers[&viewer].request);
        }
        let padded = sim.sink.padded;
        assert_eq!((padded.packets, padded.bytes), (8, 1 + 1 + 1 + 16 + 10 + 2 + 2 + 1));
        sim.check_accounts();
    }
}

#[test]
fn frames_of_browsers_leave_as_one_train_each() {
    let mut sim = Sim::new(8);
    let (mut track, _) = camera_and_viewer(&mut sim, CodecName::Vp8);
    let table = include_str!("../../../tests/browser/frame-sizes.tsv");
    let rows = table.lines().filter(|line| !line.starts_with('#')).skip(1);
    let mut frames = 0;
    for row in rows {
        let sizes = row.rsplit('\t').next().expect("a row has columns").split(' ');
        let lens: Vec<_> = sizes.map(|size| (size.parse().expect("a size"), 0)).collect();
        let frame = frame_of(&mut track, &lens);
        sim.send(track.transport(), &frame);
        assert_eq!(sim.trains().len(), 1, "{row}");
        frames += 1;
    }
    assert!(frames > 10);
    let padded = sim.sink.padded;
    assert!(
        padded.packets > 0 && padded.packets == padded.bytes,
        "by a byte each: {padded:?}"
    );
}

#[test]
fn what_arrives_as_trains_and_alone_leaves_as_one() {
    let mut sim = Sim::new(2);
    let (mut track, viewer) = camera_and_viewer(&mut sim, CodecName::Vp8);
    let sender = track.transport();
    let source = sim.addresses[&sender];
    // The kernel joins equal ones.
    let packets = frame_of(&mut track, &[(900, 0), (900, 0), (900, 0), (901, 0), (901, 0)]);
    let arrivals = [train(source, &packets[..3]), train(source, &packets[3..])];
    sim.deliver(sender, Port::Rtp, &arrivals);
    let marks: Vec<_> = packets.iter().map(|packet| packet.mark).collect();
    assert_eq!(sim.marks(viewer), marks);
    assert_eq!(leaving(&mut sim), [[(901, 1), (901, 1), (901, 1), (901, 0), (901, 0)]]);
    // Two frames, too, if they are there at once.
    let mut packets = frame_of(&mut track, &[(900, 0), (899, 0)]);
    packets.extend(frame_of(&mut track, &[(902, 0), (902, 0), (300, 0)]));
    sim.send(sender, &packets);
    assert_eq!(leaving(&mut sim), [[(902, 2), (902, 3), (902, 0), (902, 0), (300, 0)]]);
    // Picture ids that are written wider count, too.
    track.stream().picture_id_bits = 7;
    let packets = frame_of(&mut track, &[(900, 0), (901, 0), (901, 0)]);
    sim.send(sender, &packets);
    assert_eq!(leaving(&mut sim), [[(902, 1), (902, 0), (902, 0)]]);
}

#[test]
fn switched_off_every_packet_is_as_long_as_it_was() {
    let mut sim = Sim::new(3);
    let (mut track, _) = camera_and_viewer(&mut sim, CodecName::Vp8);
    sim.relay.equalize_packets(false);
    let packets = frame_of(&mut track, &[(1_101, 0), (1_101, 3), (1_102, 0), (1_101, 0)]);
    sim.send(track.transport(), &packets);
    assert_eq!(
        leaving(&mut sim),
        [vec![(1_101, 0), (1_101, 3)], vec![(1_102, 0), (1_101, 0)]]
    );
    assert_eq!(sim.sink.padded.packets, 0);
}

/// Sound leaves alone; what little there would be to gain is not worth an old telephone that plays its padding.
#[test]
fn sound_is_never_padded() {
    for name in CodecName::ALL
        .into_iter()
        .filter(|name| name.kind() == MediaKind::Audio)
    {
        let mut sim = Sim::new(4);
        let (mut track, viewer) = camera_and_viewer(&mut sim, name);
        let packets: Vec<_> = (0..6).map(|at| reshaped(&track.stream().sound(), at, 0)).collect();
        sim.send(track.transport(), &packets);
        let received = sim.received(viewer);
        assert_eq!(received.len(), 6);
        assert!(received.iter().all(|packet| packet.rtp.padding == 0));
    }
}

/// Nothing but a header: with padding it would be a packet that probes the path, which the next relay throws away.
#[test]
fn what_has_no_payload_gets_no_padding() {
    let mut sim = Sim::new(5);
    let (mut track, _) = camera_and_viewer(&mut sim, CodecName::Vp9);
    let sender = track.transport();
    let first = track.stream().key_frame(1);
    sim.send(sender, &first);
    sim.trains();
    let empty = |track: &mut Track, padding: u8| {
        let packet = track.stream().delta_frame(1).remove(0);
        let payload = Vec::new();
        let rtp = Rtp::read(&packet.bytes);
        Rtp {
            payload,
            padding,
            ..rtp
        }
        .write()
    };
    let mut packets: Vec<_> = (0..3).map(|_| empty(&mut track, 0)).collect();
    // And one that probes the path: it goes nowhere.
    packets.insert(1, empty(&mut track, 4));
    let mut longer = Rtp::read(&empty(&mut track, 0));
    longer.payload = vec![1; 9];
    packets.push(longer.write());
    let source = sim.addresses[&sender];
    let arrivals: Vec<_> = packets.iter().map(|packet| single(source, packet)).collect();
    sim.deliver(sender, Port::Rtp, &arrivals);
    assert_eq!(leaving(&mut sim), [vec![(12, 0); 3], vec![(21, 0)]]);
}

#[test]
fn trains_stay_within_what_the_kernel_takes_and_packets_within_what_is_kept() {
    let mut sim = Sim::new(6);
    let (mut track, viewer) = camera_and_viewer(&mut sim, CodecName::Vp9);
    // More than one message, by number and by bytes; each of them begins with the shorter size.
    for (len, fitting) in [(200, TRAIN_PACKETS_MAX), (1_400, TRAIN_BYTES_MAX / 1_400)] {
        let lens: Vec<_> = (0..2 * fitting)
            .map(|at| (len - usize::from(at % fitting == 0), 0))
            .collect();
        let packets = frame_of(&mut track, &lens);
        sim.send(track.transport(), &packets);
        let trains = leaving(&mut sim);
        assert_eq!(trains.iter().map(Vec::len).collect::<Vec<_>>(), [fitting, fitting]);
        assert!(trains.iter().flatten().all(|(sent, _)| *sent == len));
    }
    assert_eq!(sim.marks(viewer).len(), 0, "taken above");
    // One byte more, and it could not be sent again.
    for (lens, expected) in [
        ([RING_CHUNK_BYTES - 5, RING_CHUNK_BYTES], &[2][..]),
        ([RING_CHUNK_BYTES - 5, RING_CHUNK_BYTES + 1], &[1, 1]),
        ([RING_CHUNK_BYTES + 5, RING_CHUNK_BYTES + 6], &[1, 1]),
    ] {
        let packets = frame_of(&mut track, &lens.map(|len| (len, 0)));
        sim.send(track.transport(), &packets);
        assert_eq!(
            leaving(&mut sim).iter().map(Vec::len).collect::<Vec<_>>(),
            expected,
            "{lens:?}"
        );
    }
}

#[test]
fn reports_count_payloads_without_padding() {
    let mut sim = Sim::new(7);
    let (mut track, viewer) = camera_and_viewer(&mut sim, CodecName::Vp8);
    let lens = [(700, 0), (701, 0), (702, 40), (703, 0)];
    let packets = frame_of(&mut track, &lens);
    sim.send(track.transport(), &packets);
    let received = sim.received(viewer);
    assert!(received[..3].iter().all(|packet| packet.rtp.padding > 0));
    sim.advance(ms(1_100));
    let expected: usize = lens.iter().map(|(len, padding)| len - 12 - usize::from(*padding)).sum();
    let rtcp = std::mem::take(&mut sim.sink.rtcp);
    let reports = rtcp.iter().flat_map(|(_, _, packet)| said(packet));
    let mut octets = reports.filter_map(|said| match said {
        Said::SenderReport { packets, octets, .. } => Some((packets, octets)),
        _ => None,
    });
    assert_eq!(octets.next_back(), Some((4, expected as u32)));
    // What was handed to the network is counted as it was.
    assert_eq!(sim.stats(viewer).bytes_forwarded, 4 * 703);
}

/// Whoever was sent a packet under a number is sent the same bytes under it again: by the first one of several viewers whose
/// numbers were patched into it, after a pause, after a switch, from the group of pictures that is kept.
#[test]
fn what_is_sent_again_is_padded_as_it_was_or_not_at_all() {
    for_each_seed(60, |seed| Play::new(seed).run(120));
}

/// A receiver's side of SRTP: what was protected under each index.
struct Protected {
    outbound: Outbound,
    inbound: Inbound,
    stream: StreamKey,
    sent: BTreeMap<u64, Vec<u8>>,
}

impl Protected {
    fn new(ssrc: u32, profile: Protection) -> Self {
        let key = MasterKey::new(profile, &vec![7; profile.key_len()], &vec![9; profile.salt_len()]);
        let key = key.expect("a key of its length");
        let mut outbound = Outbound::new(&key);
        let stream = outbound.add_stream(ssrc, Repeats::Identical).expect("a stream");
        Self {
            outbound,
            inbound: Inbound::new(&key, 8),
            stream,
            sent: BTreeMap::new(),
        }
    }

    /// Protects a train, which comes out again; `again`: under indices that were used.
    fn carry(&mut self, bytes: &[u8], segment: usize, again: bool) {
        let next = self.outbound.next_index(self.stream);
        let seq = u16::from_be_bytes([bytes[2], bytes[3]]);
        let first = nearest(next, seq).expect("an index");
        let mut room = vec![0; bytes.len() + 64 * bytes.len().div_ceil(segment)];
        let protected = self
            .outbound
            .protect_train(self.stream, first, bytes, segment, &mut room);
        assert_eq!(protected.refused, None);
        room.truncate(protected.bytes);
        let overhead = self.outbound.profile().rtp_overhead();
        for (packet, plain) in room.chunks_mut(segment + overhead).zip(bytes.chunks(segment)) {
            let cipher = packet.to_vec();
            match self.inbound.unprotect_rtp(packet) {
                Ok(unprotected) => {
                    assert!(!again);
                    assert_eq!(&packet[..unprotected.len], plain);
                    self.sent.insert(unprotected.index, cipher);
                }
                Err(error) => {
                    assert!(again && error == UnprotectError::Replayed, "{error:?}");
                    assert!(
                        self.sent.values().any(|sent| *sent == cipher),
                        "other bytes under an index"
                    );
                }
            }
        }
    }
}

/// A camera with one layer or two whose frames are of any sizes, over a path that loses; and viewers that come and go.
struct Play {
    sim: Sim,
    random: Random,
    track: Track,
    viewers: Vec<ConsumerId>,
    /// What each viewer was sent first, by sequence number.
    sent: BTreeMap<(ConsumerId, u16), Vec<u8>>,
    octets: BTreeMap<ConsumerId, u64>,
    protected: BTreeMap<(TransportIx, u32), Protected>,
    /// The longest packet of each receive batch.
    longest: HashMap<usize, usize>,
    /// Padding that was added, in packets and bytes.
    padded: (u64, u64),
    again: usize,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut sim = Sim::new(seed);
        let mut random = Random::new(seed);
        let room = sim.room();
        let sender = sim.transport(room);
        let name = random.pick(&[CodecName::Vp8, CodecName::Vp8, CodecName::Vp9]);
        let layers = random.pick(&[&[Profile::Default][..], &[Profile::Low, Profile::High]]);
        let mut track = sim.track(sender, name, layers, |request| {
            request.codecs[0].nack = true;
            request.codecs[0].rtx = Some(RTX);
            // A second one, which not everybody has.
            let mut other = codec(name);
            other.payload_type = 120;
            request.codecs.push(other);
        });
        for stream in &mut track.streams {
            stream.picture_id_bits = random.pick(&[7, 15, 15]);
            stream.extensions = [(ABS_SEND_TIME, vec![1, 2, 3]), (MID, b"0".to_vec())].to_vec();
            stream.extensions.truncate(random.below(3));
        }
        let shared = sim.transport(room);
        let viewers = (0..5).map(|at| {
            let receiver = if at < 2 { shared } else { sim.transport(room) };
            sim.consumer_with(receiver, &track, |request| {
                request.payload_types = vec![(track.request.codecs[0].payload_type, 110 + at)];
                if at != 1 {
                    request.payload_types.push((120, 115));
                }
                repairing(request, at % 2 == 0);
                if at == 3 {
                    request
                        .header_extensions
                        .iter_mut()
                        .for_each(|own| own.id = 15 - own.id);
                }
            })
        });
        let viewers = viewers.collect();
        sim.log.originals = Some(HashMap::new());
        Self {
            sim,
            random,
            track,
            viewers,
            sent: BTreeMap::new(),
            octets: BTreeMap::new(),
            protected: BTreeMap::new(),
            longest: HashMap::new(),
            padded: (0, 0),
            again: 0,
        }
    }

    fn run(&mut self, steps: usize) {
        for step in 0..steps {
            match self.random.below(12) {
                0 => {
                    let profile = self.random.pick(&[Profile::Low, Profile::High, Profile::Default]);
                    let viewer = self.random.pick(&self.viewers);
                    self.sim.prefer(viewer, profile);
                }
                1 => {
                    let viewer = self.random.pick(&self.viewers);
                    match self.random.chance(500) {
                        true => self.sim.pause(viewer),
                        false => self.sim.resume(viewer),
                    }
                }
                2 if self.random.chance(300) => {
                    self.sim.pause_producer(self.track.id());
                    self.send_frames(false);
                    self.sim.resume_producer(self.track.id());
                }
                2..5 => self.ask_again(),
                _ => self.send_frames(step == 0),
            }
            let pause = self.random.below(150) as u64;
            self.sim.advance(ms(pause));
            self.take_in();
        }
        let padded = self.sim.sink.padded;
        assert_eq!((padded.packets, padded.bytes), self.padded);
        assert!(
            self.padded.0 > 10 && self.again > 10,
            "{:?}, {} sent again",
            self.padded,
            self.again
        );
        self.sim.check_accounts();
        self.check_reports();
    }

    /// Frames of all layers, some of them lost, in one batch.
    fn send_frames(&mut self, key: bool) {
        let random = &mut self.random;
        let mut packets = Vec::new();
        for stream in &mut self.track.streams {
            for _ in 0..random.range(1..4) {
                stream.payload_type = match random.chance(100) {
                    true => 120,
                    false => self.track.request.codecs[0].payload_type,
                };
                let count = random.range(1..9);
                stream.payload_len = random.pick(&[60, 300, 1_100]);
                let key = key || random.chance(150);
                let frame = stream.frame_of(count, key);
                // Near-equal, or anything.
                let apart = random.pick(&[0, 1, 3, 17, 200]);
                packets.extend(frame.iter().map(|packet| {
                    let padding = random.pick(&[0, 0, 0, 0, 1, 20, 243, 255]);
                    reshaped(packet, random.below(apart + 1), padding)
                }));
            }
        }
        packets.retain(|_| !random.chance(80));
        if random.chance(200) && packets.len() > 3 {
            let at = random.below(packets.len() - 2);
            packets.swap(at, at + 1);
        }
        let source = self.sim.addresses[&self.track.transport()];
        let mut arrivals: Vec<Arrival> = Vec::new();
        let mut rest = &packets[..];
        while let Some(first) = rest.first() {
            // As the kernel joins.
            let mut end = 1;
            while end < rest.len() && rest[end - 1].bytes.len() == first.bytes.len() {
                if rest[end].bytes.len() > first.bytes.len() || !random.chance(700) {
                    break;
                }
                end += 1;
            }
            arrivals.push(train(source, &rest[..end]));
            rest = &rest[end..];
        }
        remember(&mut self.sim, &packets);
        let longest = packets.iter().map(|packet| packet.bytes.len()).max();
        self.sim.deliver(self.track.transport(), Port::Rtp, &arrivals);
        let batch = self.sim.log.batch;
        self.longest.insert(batch, longest.unwrap_or(0));
    }

    /// Judges what has left.
    fn take_in(&mut self) {
        let trains = self.sim.sink.trains.clone();
        for train in &trains {
            let bytes = train.packets.concat();
            let ssrc = ssrc_of(&bytes);
            let protected = self.protected.entry((train.transport, ssrc));
            let profile = Protection::ALL[ssrc as usize % Protection::ALL.len()];
            let protected = protected.or_insert_with(|| Protected::new(ssrc, profile));
            protected.carry(&bytes, train.segment, false);
            for packet in &train.packets {
                assert!(packet.len() <= train.segment);
                // Picture ids get a second byte.
                let widened = usize::from(self.track.request.codecs[0].name == CodecName::Vp8);
                if let Some(longest) = self.longest.get(&train.batch) {
                    assert!(packet.len() <= longest + widened, "longer than what came");
                }
            }
        }
        for viewer in self.viewers.clone() {
            let received = self.sim.received(viewer);
            let request = self.sim.consumers[&viewer].request.clone();
            self.sim.judge_bytes(&received, &self.track.request, &request);
            for packet in received {
                let mark = packet.mark();
                let originals = self.sim.log.originals.as_ref().expect("they are kept");
                let padding = Rtp::read(&originals[&(mark.stream, mark.seq)]).padding;
                if packet.rtp.padding > padding {
                    let train = &trains[packet.train];
                    assert_eq!(packet.bytes.len(), train.segment, "padded to no use");
                    self.padded.0 += 1;
                    self.padded.1 += u64::from(packet.rtp.padding - padding);
                }
                *self.octets.entry(viewer).or_default() += packet.rtp.payload.len() as u64;
                self.sent.insert((viewer, packet.rtp.seq), packet.bytes);
            }
        }
        self.sim.trains();
        self.sim.sink.resent.clear();
    }

    /// A viewer asks for some of what it was sent last.
    fn ask_again(&mut self) {
        let viewer = self.random.pick(&self.viewers);
        let request = self.sim.consumers[&viewer].request.clone();
        let seqs: Vec<u16> = self
            .sent
            .keys()
            .filter(|key| key.0 == viewer)
            .map(|key| key.1)
            .collect();
        if seqs.is_empty() {
            return;
        }
        let seqs: Vec<u16> = (0..10).map(|_| self.random.pick(&seqs)).collect();
        self.sim
            .send_rtcp(request.transport, &wire::nack(1, request.ssrc, &seqs));
        let transport = self.sim.index(request.transport);
        for (at, to, bytes) in std::mem::take(&mut self.sim.sink.resent) {
            assert_eq!(to, transport);
            self.again += 1;
            let again = Rtp::read(&bytes);
            // Without RTX, at all or for this payload type.
            if again.ssrc == request.ssrc {
                assert_eq!(bytes, self.sent[&(viewer, again.seq)]);
                let protected = self.protected.get_mut(&(to, again.ssrc)).expect("it was sent before");
                protected.carry(&bytes, bytes.len(), true);
                let mark = Mark::read(&again.payload).expect("a whole packet");
                let originals = self.sim.log.originals.as_ref().expect("they are kept");
                let added = again.padding - Rtp::read(&originals[&(mark.stream, mark.seq)]).padding;
                self.padded.0 += u64::from(added > 0);
                self.padded.1 += u64::from(added);
                *self.octets.entry(viewer).or_default() += again.payload.len() as u64;
                continue;
            }
            assert_eq!(
                (again.payload_type, again.padding),
                (RTX_OUT, 0),
                "RFC 4588 §4: without padding"
            );
            let seq = u16::from_be_bytes([again.payload[0], again.payload[1]]);
            let before = Rtp::read(&self.sent[&(viewer, seq)]);
            assert_eq!(again.payload[2..], before.payload);
            // With the original's padding taken away, and under its numbers, it is the original.
            let mark = Mark::read(&before.payload).expect("a whole packet");
            let originals = self.sim.log.originals.as_ref().expect("they are kept");
            let plain = Rtp {
                padding: 0,
                ..Rtp::read(&originals[&(mark.stream, mark.seq)])
            };
            let restored = Rtp {
                seq,
                ssrc: before.ssrc,
                payload_type: before.payload_type,
                payload: again.payload[2..].to_vec(),
                ..again
            };
            let expected = expected_bytes(&plain.write(), at, &restored, &self.track.request, &request);
            assert_eq!(Rtp::read(&expected), restored);
        }
    }

    /// Sender reports count what the viewers have as payloads.
    fn check_reports(&mut self) {
        self.sim.sink.rtcp.clear();
        self.send_frames(true);
        self.take_in();
        self.sim.advance(ms(2_000));
        self.take_in();
        let mut reported = BTreeMap::new();
        for (_, transport, packet) in std::mem::take(&mut self.sim.sink.rtcp) {
            for said in said(&packet) {
                if let Said::SenderReport { ssrc, octets, .. } = said {
                    reported.insert((transport, ssrc), octets);
                }
            }
        }
        for viewer in &self.viewers {
            let info = &self.sim.consumers[viewer];
            if let Some(octets) = reported.get(&(info.transport, info.request.ssrc)) {
                assert_eq!(u64::from(*octets), self.octets[viewer]);
            }
        }
        assert!(!reported.is_empty());
    }
}
