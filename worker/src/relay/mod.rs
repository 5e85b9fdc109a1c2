//! The pure core: packets and commands in; packets, notifications and actions out. No socket, no clock, no thread.
//!
//! The same input gives the same output, byte for byte: time and the seed are arguments, and nothing depends on the order
//! of a hash map. After its objects are created, relaying allocates nothing.
//!
//! A packet's path: [`receive`](self) (whose is it?) → `stream` (its place in the sequence; what has none yet waits in `held`) →
//! `fanout` (trains, and for each consumer [`decide`](decide::decide), [`rewrite`], [`sink`]). A command's path: `command`, then `layer_selection` (who follows
//! which stream). What happened is read by `inspect`.
//!
//! Once a second each transport is sent reports on the streams that arrive on it and on those that leave on it (`report`), and
//! what it reports itself is kept (`incoming_reports`). Ten or twenty times a second its sender is sent transport-wide feedback:
//! which packets have come, and when ([`twcc`]).
//!
//! **After every call of a `handle_*` method, call [`Relay::send_pending_byes`], then drain [`Relay::poll_action`] and
//! [`Relay::poll_notification`].**

mod activity;
mod catch_up;
mod cname;
mod command;
mod consumer;
mod echo;
mod fanout;
mod forward;
mod held;
#[cfg(test)]
mod hot_lines;
mod incoming_reports;
mod inspect;
mod key_frame_requests;
mod keys;
mod layer_selection;
mod levels;
mod losses;
mod media_totals;
mod newcomers;
mod parameters;
mod producer;
mod profile_changes;
mod receive;
mod repair;
mod report;
mod retransmit;
mod routes;
mod routing;
mod rtx;
mod slots;
mod ssrc_latch;
mod stream;
mod transport;
mod transport_reports;
mod used_indices;
mod vp8_ids;
mod workspace;

pub mod arrivals;
pub mod datagram;
pub mod decide;
pub mod filters;
pub mod gop;
pub mod key_frame_assembly;
pub mod keyframe;
pub mod limits;
pub mod nack;
pub mod packet;
pub mod profile;
pub mod rate;
pub mod reception;
pub mod rewrite;
pub mod ring;
pub mod rtt;
pub mod sender_clock;
pub mod sink;
pub mod succession;
pub mod transmission;
pub mod twcc;
pub mod withheld;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{DropReason, Method, Notification, Remote, Reply, WorkerError};

use crate::page::Page;
use crate::page::predecessor::Predecessor;
use crate::rtp::rtcp::RtcpItem;
use crate::switches::Switches;
use crate::time::{Time, WallClock};

use self::activity::Activity;
use self::catch_up::CatchingUp;
use self::consumer::Consumers;
use self::held::HeldPackets;
use self::key_frame_requests::KeyFrameRequests;
use self::keys::{ConsumerKey, ProducerKey, TransportKey};
use self::levels::AudioLevels;
use self::limits::Limits;
use self::losses::Losses;
use self::media_totals::MediaTotals;
use self::producer::Producers;
use self::profile_changes::ProfileChanges;
use self::report::Reports;
use self::retransmit::IncomingNacks;
use self::sink::{ConsumerIx, Sink, TransportIx};
use self::slots::Slots;
use self::transport::Transports;
use self::twcc::FeedbackQueue;
use self::workspace::Workspace;

/// All rooms of one worker.
#[derive(Debug)]
pub struct Relay {
    limits: Limits,
    random: Random,
    /// The SSRC that key frame requests come from.
    ssrc: u32,
    hash: FixedState,
    /// Packets of a train that are a little shorter than the longest one are padded.
    equalizes_packets: bool,

    rooms: HashMap<RoomId, Room, FixedState>,
    transports: Transports,
    producers: Producers,
    consumers: Consumers,
    transport_of_id: HashMap<TransportId, TransportKey, FixedState>,
    producer_of_id: HashMap<ProducerId, ProducerKey, FixedState>,
    consumer_of_id: HashMap<ConsumerId, ConsumerKey, FixedState>,
    /// By [`TransportIx`].
    transport_of_index: Vec<Option<TransportKey>>,

    /// Of all producers.
    streams: usize,
    workspace: Box<Workspace>,
    /// Stands in for it while it is lent out.
    no_workspace: Option<Box<Workspace>>,
    /// Packets that go on with nothing yet.
    held: HeldPackets,
    /// What the RTCP packet at hand says.
    said: Vec<RtcpItem>,
    key_frame_requests: KeyFrameRequests,
    /// What streams miss.
    losses: Losses,
    /// What receivers miss.
    nacks: IncomingNacks,
    activity: Activity,
    catching_up: CatchingUp,
    reports: Reports,
    feedback: FeedbackQueue,
    audio_levels: AudioLevels,
    media_totals: MediaTotals,

    /// What a successor needs is kept there.
    page: Page,
    /// Of rooms whose objects are being made again: what their last workers have left, the latest first.
    predecessors: BTreeMap<RoomId, Vec<Arc<Predecessor>>>,
    /// Streams that are to be kept.
    unkept: Vec<(ProducerKey, u8)>,

    /// Packets that were for somebody.
    accepted: u64,
    actions: VecDeque<Action>,
    notifications: VecDeque<Notification>,
    profile_changes: ProfileChanges,
}

/// What belongs to a room, as the relay sees it; ordered, so that pages of it can be read while it changes.
#[derive(Debug, Default)]
struct Room {
    transports: BTreeSet<TransportId>,
    producers: BTreeSet<ProducerId>,
    consumers: BTreeSet<ConsumerId>,
    /// When its audio levels are due next, if anybody wants them.
    levels_due: Option<Time>,
}

/// Something the shell has to do for the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect the transport's path to the remote that its packets came from.
    Connect {
        /// The transport.
        transport: TransportIx,
        /// The remote.
        remote: Remote,
    },
    /// Close the transport's sockets.
    Close {
        /// The transport. Its index is free for another one from now on.
        transport: TransportIx,
    },
    /// Keep no more of an SSRC that was sent under than how far its packet indices are used.
    Retire {
        /// The WebRTC transport that it was sent on.
        transport: TransportIx,
        /// The SSRC.
        ssrc: u32,
    },
    /// Keep no more of an SSRC that a producer sent under than how far its packet indices have come.
    Forget {
        /// The WebRTC transport that it was received on.
        transport: TransportIx,
        /// The SSRC.
        ssrc: u32,
    },
    /// The dead worker that a consumer is continued for may have sent so far under an SSRC.
    Spent {
        /// The WebRTC transport that it is sent on.
        transport: TransportIx,
        /// The SSRC.
        ssrc: u32,
        /// One more than the last SRTP index.
        next: u64,
    },
    /// A consumer's numbers find no place in the page. No successor could go on with its transport's keys, so they must not be kept.
    Unkept {
        /// The WebRTC transport that it is sent on.
        transport: TransportIx,
    },
    /// What was asked with [`Relay::write_echo_request`] has been received, by whoever is at the address to which that was sent.
    Echoed {
        /// The transport.
        transport: TransportIx,
    },
}

impl Relay {
    /// An empty relay. `seed` decides every random number it will use.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let mut random = Random(seed);
        let hash = FixedState::with_seed(random.next());
        let ssrc = random.next() as u32;
        // Its own numbers, so that the time of a report changes nothing but the times of reports.
        let reports = Reports::new(ssrc, seed ^ u64::from(ssrc) << 32);
        Self {
            limits,
            ssrc,
            random,
            hash: hash.clone(),
            equalizes_packets: true,
            rooms: HashMap::with_hasher(hash.clone()),
            transports: Slots::new(),
            producers: Slots::new(),
            consumers: Slots::new(),
            transport_of_id: HashMap::with_hasher(hash.clone()),
            producer_of_id: HashMap::with_hasher(hash.clone()),
            consumer_of_id: HashMap::with_hasher(hash.clone()),
            transport_of_index: Vec::new(),
            streams: 0,
            workspace: Box::new(Workspace::new()),
            no_workspace: Some(Box::new(Workspace::empty())),
            held: HeldPackets::new(),
            // More than a packet of 1,200 bytes can say.
            said: Vec::with_capacity(512),
            key_frame_requests: KeyFrameRequests::default(),
            losses: Losses::default(),
            nacks: IncomingNacks::new(),
            activity: Activity::default(),
            catching_up: CatchingUp::default(),
            reports,
            feedback: FeedbackQueue::new(ssrc),
            audio_levels: AudioLevels::default(),
            media_totals: MediaTotals::default(),
            page: Page::nowhere(),
            predecessors: BTreeMap::new(),
            unkept: Vec::new(),
            // A batch can teach a transport two addresses.
            accepted: 0,
            actions: VecDeque::with_capacity(2),
            notifications: VecDeque::with_capacity(2),
            profile_changes: ProfileChanges::default(),
        }
    }

    /// Does what the server's settings say.
    pub fn obey(&mut self, switches: Switches) {
        self.set_gops_max(if switches.gop_cache { gop::GOPS_MAX } else { 0 });
        self.equalize_packets(switches.equalize_packets);
    }

    /// Does what the supervisor asks. The methods that are about the worker as a whole (ping, settings, its own counters,
    /// shutdown) are the process's, and refused here. What the sink has gathered must have left before.
    pub fn handle_command(&mut self, now: Time, method: &Method) -> Result<Reply, WorkerError> {
        let done = self.do_command(now, method);
        // Before anybody is told that it was done.
        self.keep_positions();
        done
    }

    /// Whether packets of video that are up to [`TRAIN_PADDING_MAX`](limits::TRAIN_PADDING_MAX) bytes shorter than others of their
    /// train are padded to their size (RFC 3550 §5.1), so that the kernel takes the train as one message. By default they are.
    pub fn equalize_packets(&mut self, on: bool) {
        self.equalizes_packets = on;
    }

    /// Keeps the last group of pictures of so many senders that answer no key frame requests, at most; 0: of none. The default
    /// is [`GOPS_MAX`](gop::GOPS_MAX).
    pub fn set_gops_max(&mut self, gops_max: u32) {
        self.key_frame_requests.gops.max = gops_max;
    }

    /// What time it is. To be called now and then, so that reports follow when the wall clock is set.
    pub fn set_wall_clock(&mut self, clock: WallClock) {
        self.reports.wall_clock = clock;
    }

    /// Sends the BYEs of transports that are closed. To be called before their sockets are: after each command,
    /// before [`Relay::poll_action`].
    pub fn send_pending_byes(&mut self, sink: &mut impl Sink) {
        self.reports.send_pending_byes(sink);
    }

    /// The dense index of a transport.
    pub fn transport_index(&self, id: TransportId) -> Option<TransportIx> {
        self.transport_of_id.get(&id).map(|key| key.index())
    }

    /// The next thing the shell has to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next notification of the supervisor.
    pub fn poll_notification(&mut self) -> Option<Notification> {
        self.poll_urgent_notification()
            .or_else(|| self.profile_changes.poll(&mut self.consumers, &self.producers))
            .or_else(|| self.activity.poll(&mut self.producers))
    }

    /// The next notification that must not wait here. Changes of effective profiles and of activity may: however often they
    /// change, only the latest counts, so there is never more than one for each consumer or producer.
    pub fn poll_urgent_notification(&mut self) -> Option<Notification> {
        self.notifications.pop_front()
    }

    /// The number of packets so far that were for somebody.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// When [`Relay::handle_timeout`] wants to be called; a time that has passed means now.
    pub fn next_timeout(&self) -> Option<Time> {
        [
            self.key_frame_requests.next_timeout(),
            self.audio_levels.next_timeout(),
            self.losses.next_timeout(),
            self.activity.next_timeout(),
            self.reports.next_timeout(),
            self.feedback.next_timeout(),
            self.catching_up.next_timeout(),
            self.held.next_timeout(),
            self.profile_changes.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: requests for missing packets, key frame requests that were held back, the check for silent
    /// streams, changes of profiles that were held back, transport-wide feedback, reports, audio levels.
    /// [`Relay::keep_positions`] is to follow when all that the sink has gathered has left.
    pub fn handle_timeout(&mut self, now: Time, sink: &mut impl Sink) {
        self.repeat_key_frame_requests(now);
        self.check_activity(now);
        self.profile_changes.check(now, &mut self.consumers);
        self.audio_levels.notify(
            now,
            &mut self.rooms,
            &self.producer_of_id,
            &mut self.producers,
            &mut self.notifications,
        );
        self.losses
            .send_nacks(now, self.ssrc, &mut self.producers, &mut self.transports, sink);
        self.release_waiting(now, sink);
        self.catching_up.send(
            now,
            &mut self.consumers,
            &self.producers,
            &mut self.workspace.held,
            &self.page,
            sink,
        );
        while let Some(key) = self.catching_up.pop_stranded() {
            self.request_key_frame_for(now, key);
        }
        self.send_key_frame_requests(sink);
        self.feedback.send(now, &mut self.transports, &self.page, sink);
        self.reports.send(
            now,
            &mut self.transports,
            &mut self.producers,
            &mut self.consumers,
            &self.page,
            sink,
        );
    }

    /// Sends the key frame requests that are due.
    fn send_key_frame_requests(&mut self, sink: &mut impl Sink) {
        for (key, encoding) in &self.key_frame_requests.due {
            if let Some(producer) = self.producers.get_mut(*key) {
                let stream = &mut producer.streams[usize::from(*encoding)];
                if stream.becomes_unkept() {
                    self.unkept.push((*key, *encoding));
                }
            }
        }
        self.key_frame_requests
            .send(self.ssrc, &mut self.producers, &mut self.transports, sink);
    }

    /// Sends reports that would be due soon: to be called in a turn that has relayed packets, so that none has to be begun for
    /// them alone.
    pub fn report_early(&mut self, now: Time, sink: &mut impl Sink) {
        self.reports.send_early(
            now,
            &mut self.transports,
            &mut self.producers,
            &mut self.consumers,
            &self.page,
            sink,
        );
    }

    /// The sink had taken packets of a consumer but could not send them after all.
    pub fn handle_lost(&mut self, owner: ConsumerIx, reason: DropReason, packets: u32) {
        if let Some(consumer) = self.consumers.get_mut(ConsumerKey::from_index(owner)) {
            consumer.on_lost(reason, packets);
        }
    }

    /// Whether packets that were sent under an SSRC may have to be sent again as they were: under their own numbers, because
    /// the receiver asks for what it lacks and knows no retransmission format (RFC 4588).
    pub fn repeats_packets(&self, transport: TransportIx, ssrc: u32) -> bool {
        let Some(transport) = self.transport_key(transport).map(|key| &self.transports[key]) else {
            return false;
        };
        let consumer = transport.consumer_ssrcs.get(&ssrc);
        let consumer = consumer.and_then(|consumer| self.consumers.get(*consumer));
        consumer.is_some_and(|consumer| consumer.repair.is_some() && consumer.rtx_ssrc.is_none())
    }

    /// How many rooms, transports, producers and consumers there are.
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        (
            self.rooms.len() as u64,
            self.transports.len() as u64,
            self.producer_of_id.len() as u64,
            self.consumers.len() as u64,
        )
    }

    fn transport_key(&self, index: TransportIx) -> Option<TransportKey> {
        self.transport_of_index.get(index.0 as usize).copied().flatten()
    }
}

/// Numbers that look random, from a seed. SplitMix64: enough to begin sequence numbers somewhere, and nothing more is asked of it.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// The next number.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
