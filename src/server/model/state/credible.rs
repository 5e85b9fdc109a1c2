//! Whether what a worker says can be true: of what is its own, in the order that was asked for, and no longer than it can
//! be. A worker that says something else has been taken over, or has gone wrong; the sentence says what it said.
//!
//! What is closed here may be open there still, because answers about counters are overtaken by others. So what nobody
//! knows (any more) is left out, and only what is known to be somebody else's is held against a worker.

use std::collections::BTreeSet;
use std::fmt::Display;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    AUDIO_LEVELS_MAX, ConsumerDump, ConsumerStats, DumpPage, FINGERPRINTS_MAX, Histogram, Method, Notification,
    ProducerDump, ProducerStats, Reply, Sandbox, Scope, StatsPage, TransportDump, TransportStats, WorkerError,
};
use weir_channel::text::{cut, visible};
use weir_worker::relay::limits::PAGE_ENTRIES_MAX;
use weir_worker::webrtc::dtls::settings::CERTIFICATE_BYTES_MAX;

use super::State;

/// The longest certificate in PEM (RFC 7468): base64 in lines of 64 characters, each with its end, between two lines of
/// less than 64.
const CERTIFICATE_PEM_BYTES_MAX: usize = {
    let base64 = CERTIFICATE_BYTES_MAX.div_ceil(3) * 4;
    base64 + 2 * base64.div_ceil(64) + 2 * 64
};

/// The longest name of a codec, a profile of SRTP, a MID or a RID. All are shorter; MIDs and RIDs have at most 32 bytes.
const NAME_BYTES_MAX: usize = 64;

/// The longest reason that a worker gives for something; more is cut.
pub(super) const REASON_BYTES_MAX: usize = 256;

/// The longest fingerprint: 64 bytes of SHA-512, as `AB:CD:…`.
const FINGERPRINT_BYTES_MAX: usize = 3 * 64 - 1;

/// The most streams of a producer; it has at most three encodings.
const STREAMS_MAX: usize = 16;

/// The most entries of a list in a dump: a producer's names up to 1,000 consumers.
const DUMP_LIST_MAX: usize = 1_000;

/// The most layers that a sandbox has or lacks.
const SANDBOX_LAYERS_MAX: usize = 16;

type Credible = Result<(), String>;

impl State {
    /// Whether a worker may say this unasked.
    pub(crate) fn check_notification(&self, worker: WorkerId, notification: &Notification) -> Credible {
        match notification {
            Notification::RemoteLearned { transport, .. }
            | Notification::IceStateChanged { transport, .. }
            | Notification::IceSelectedTupleChanged { transport, .. }
            | Notification::SocketWanted { transport, .. }
            | Notification::ConnectionProven { transport, .. }
            | Notification::SocketClosed { transport, .. }
            | Notification::ChecksRefused { transport, .. } => self.check_transport(worker, *transport),
            Notification::DtlsStateChanged {
                transport,
                remote_certificate_pem,
                ..
            } => {
                let bytes = remote_certificate_pem.as_ref().map_or(0, String::len);
                at_most("bytes of a certificate", bytes, CERTIFICATE_PEM_BYTES_MAX)?;
                self.check_transport(worker, *transport)
            }
            Notification::EffectiveProfileChanged { consumer, .. } => {
                let room = self.consumers.get(consumer).map(|node| node.room.worker);
                check_owner(worker, consumer, room)
            }
            Notification::ProducerActivityChanged { producer, .. } | Notification::SsrcChanged { producer, .. } => {
                let owner = self.producers.get(producer).map(|node| node.transport.room.worker);
                check_owner(worker, producer, owner)
            }
            Notification::AudioLevels { room, levels } => {
                at_most("audio levels", levels.len(), AUDIO_LEVELS_MAX)?;
                let owner = self.rooms.get(room).map(|entry| entry.node.worker);
                check_owner(worker, room, owner)
            }
            Notification::Sandboxed(sandbox) => check_sandbox(sandbox),
            Notification::Log(_) | Notification::LogLinesDropped { .. } => Ok(()),
        }
    }

    fn check_transport(&self, worker: WorkerId, transport: TransportId) -> Credible {
        let owner = self.transports.get(&transport).map(|node| node.room.worker);
        check_owner(worker, transport, owner)
    }

    /// Whether a worker may answer this. What it says of things that nobody knows any more is left out.
    pub(crate) fn check_reply(&self, method: &Method, reply: &mut Reply) -> Credible {
        match (method, reply) {
            (Method::Stats(scope), Reply::Stats(page)) => {
                check_stats(page)?;
                self.check_page(*scope, page)
            }
            (Method::Dump(scope), Reply::Dump(page)) => {
                check_dump(page)?;
                self.check_page(*scope, page)
            }
            (_, Reply::WebRtcTransportCreated { fingerprints }) => {
                at_most("fingerprints", fingerprints.len(), FINGERPRINTS_MAX)?;
                let longest = fingerprints.iter().map(|fingerprint| fingerprint.value.len()).max();
                at_most("bytes of a fingerprint", longest.unwrap_or(0), FINGERPRINT_BYTES_MAX)
            }
            (_, Reply::WorkerStats(stats)) => {
                let buckets = stats.residence.as_ref().map_or(0, |histogram| histogram.counts.len());
                at_most("buckets of a histogram", buckets, Histogram::BUCKETS)
            }
            (
                Method::TakeUp {
                    transports,
                    producers,
                    consumers,
                    ..
                },
                Reply::TakenUp(others),
            ) => {
                check_among(transports, &mut others.transports)?;
                check_among(producers, &mut others.producers)?;
                check_among(consumers, &mut others.consumers)
            }
            (Method::TakeUp { .. }, _) => Err("it was asked to take up a room, and answered something else".to_owned()),
            // Whoever has asked is told that the answer belongs to another question.
            _ => Ok(()),
        }
    }

    fn check_page<P: Entries>(&self, scope: Scope, page: &mut P) -> Credible {
        let (transports, producers, consumers, next) = page.parts();
        let entries = transports.len() + producers.len() + consumers.len();
        let Scope::Room { room, page: asked } = scope else {
            at_most("entries about one thing", entries, 1)?;
            let is_other = match scope {
                Scope::Transport(id) => transports.first().is_some_and(|entry| entry.id() != id),
                Scope::Producer(id) => producers.first().is_some_and(|entry| entry.id() != id),
                Scope::Consumer(id) => consumers.first().is_some_and(|entry| entry.id() != id),
                Scope::Room { .. } => false,
            };
            return match is_other {
                true => Err("asked about one thing, it answered about another".to_owned()),
                false => Ok(()),
            };
        };
        at_most("entries of a page", entries, PAGE_ENTRIES_MAX)?;
        if let Some(next) = next {
            if asked.cursor.is_some_and(|cursor| next <= cursor) {
                return Err("its pages about a room do not go on".to_owned());
            }
            if entries == 0 {
                return Err("a page about a room is empty, and was not the last".to_owned());
            }
        }
        check_entries(transports, room, |id| Some(self.transports.get(&id)?.room.id))?;
        check_entries(producers, room, |id| Some(self.producers.get(&id)?.transport.room.id))?;
        check_entries(consumers, room, |id| Some(self.consumers.get(&id)?.room.id))
    }

    /// How many pages about a room make sense. Each but the last has an entry at least, and usually some fifty; things may
    /// come and go in between.
    pub(crate) fn pages_max(&self, room: RoomId) -> usize {
        let known = self.rooms.get(&room).map_or(0, |entry| entry.desired.len());
        64 + known / 8
    }
}

/// What a worker says that it could not take up is what it was asked to.
fn check_among<I: Copy + Ord + Display>(asked: &[I], answered: &mut [(I, WorkerError)]) -> Credible {
    at_most("things not taken up", answered.len(), asked.len())?;
    let asked: BTreeSet<_> = asked.iter().collect();
    for (id, error) in answered {
        if !asked.contains(id) {
            return Err(format!("it was not asked to take up {id}"));
        }
        let reason = std::mem::replace(error, WorkerError::DeadlinePassed);
        *error = bounded_refusal(reason);
    }
    Ok(())
}

/// A reason that a worker gives, as it may be kept and shown.
pub(crate) fn bounded_refusal(mut error: WorkerError) -> WorkerError {
    match &mut error {
        WorkerError::OtherRoom { entity: text, .. }
        | WorkerError::SsrcInUse { owner: text, .. }
        | WorkerError::MidInUse { mid: text, .. }
        | WorkerError::TooMany { noun: text, .. }
        | WorkerError::InvalidParameters(text) => bound_reason(text),
        WorkerError::Os { call, reason } => {
            bound_reason(call);
            bound_reason(reason);
        }
        WorkerError::UnknownRoom(_)
        | WorkerError::UnknownTransport(_)
        | WorkerError::UnknownProducer(_)
        | WorkerError::UnknownConsumer(_)
        | WorkerError::DuplicateRoom(_)
        | WorkerError::DuplicateTransport(_)
        | WorkerError::DuplicateProducer(_)
        | WorkerError::DuplicateConsumer(_)
        | WorkerError::Mirrored(_)
        | WorkerError::NotWebRtc(_)
        | WorkerError::NotPlain(_)
        | WorkerError::DtlsParametersSet(_)
        | WorkerError::DeadlinePassed
        | WorkerError::Descriptors { .. } => {}
    }
    error
}

/// A longer sentence is about what a request says, which nobody but its sender reads.
fn bound_reason(text: &mut String) {
    cut(text, 4 * REASON_BYTES_MAX);
    *text = visible(text).into_owned();
}

/// An entry of a page.
trait Entry {
    type Id: Copy + Ord + Display;

    fn id(&self) -> Self::Id;
}

/// A page of entries.
trait Entries {
    type Transport: Entry<Id = TransportId>;
    type Producer: Entry<Id = ProducerId>;
    type Consumer: Entry<Id = ConsumerId>;

    #[expect(clippy::type_complexity, reason = "three lists and the cursor")]
    fn parts(
        &mut self,
    ) -> (
        &mut Vec<Self::Transport>,
        &mut Vec<Self::Producer>,
        &mut Vec<Self::Consumer>,
        Option<u64>,
    );
}

macro_rules! entries {
    ($page:ident: $transport:ident, $producer:ident, $consumer:ident) => {
        impl Entry for $transport {
            type Id = TransportId;

            fn id(&self) -> TransportId {
                self.transport
            }
        }

        impl Entry for $producer {
            type Id = ProducerId;

            fn id(&self) -> ProducerId {
                self.producer
            }
        }

        impl Entry for $consumer {
            type Id = ConsumerId;

            fn id(&self) -> ConsumerId {
                self.consumer
            }
        }

        impl Entries for $page {
            type Transport = $transport;
            type Producer = $producer;
            type Consumer = $consumer;

            fn parts(
                &mut self,
            ) -> (
                &mut Vec<$transport>,
                &mut Vec<$producer>,
                &mut Vec<$consumer>,
                Option<u64>,
            ) {
                (
                    &mut self.transports,
                    &mut self.producers,
                    &mut self.consumers,
                    self.next,
                )
            }
        }
    };
}

entries! { StatsPage: TransportStats, ProducerStats, ConsumerStats }
entries! { DumpPage: TransportDump, ProducerDump, ConsumerDump }

/// Entries of a room's page rise by their ids, and are of the room. Those of what is gone are left out.
fn check_entries<E: Entry>(entries: &mut Vec<E>, room: RoomId, room_of: impl Fn(E::Id) -> Option<RoomId>) -> Credible {
    if !entries.is_sorted_by(|one, next| one.id() < next.id()) {
        return Err("a page about a room names things twice, or out of order".to_owned());
    }
    let other = |entry: &&E| room_of(entry.id()).is_some_and(|known| known != room);
    if let Some(entry) = entries.iter().find(other) {
        return Err(format!("asked about {room}, it answered about {}", entry.id()));
    }
    entries.retain(|entry| room_of(entry.id()).is_some());
    Ok(())
}

fn check_owner(worker: WorkerId, object: impl Display, owner: Option<WorkerId>) -> Credible {
    match owner {
        Some(owner) if owner != worker => Err(format!("it spoke of {object}, which {owner} serves")),
        _ => Ok(()),
    }
}

fn check_sandbox(sandbox: &Sandbox) -> Credible {
    let layers = sandbox.holds.len().max(sandbox.lacks.len());
    at_most("layers of a sandbox", layers, SANDBOX_LAYERS_MAX)?;
    let longest = sandbox.lacks.iter().map(|lack| lack.reason.len()).max();
    at_most("bytes of a reason", longest.unwrap_or(0), REASON_BYTES_MAX)
}

fn check_stats(page: &StatsPage) -> Credible {
    let srtp_profiles = page
        .transports
        .iter()
        .filter_map(|stats| stats.webrtc.as_ref()?.srtp_profile.as_ref());
    let streams = page.producers.iter().flat_map(|stats| &stats.streams);
    let codecs = streams.filter_map(|stream| stream.codec.as_ref());
    let codecs = codecs.chain(page.consumers.iter().filter_map(|stats| stats.codec.as_ref()));
    check_names(srtp_profiles.chain(codecs))?;
    let most = page.producers.iter().map(|stats| stats.streams.len()).max();
    at_most("streams of a producer", most.unwrap_or(0), STREAMS_MAX)
}

fn check_dump(page: &DumpPage) -> Credible {
    let of_transport = |dump: &TransportDump| dump.ssrcs.len().max(dump.mids.len()).max(dump.rids.len());
    let of_producer = |dump: &ProducerDump| dump.consumers.len().max(dump.available_profiles.len());
    let lists = page.transports.iter().map(of_transport);
    let longest = lists.chain(page.producers.iter().map(of_producer)).max();
    at_most("entries of a list", longest.unwrap_or(0), DUMP_LIST_MAX)?;
    let names = page
        .transports
        .iter()
        .flat_map(|dump| dump.mids.iter().chain(&dump.rids));
    check_names(names.map(|(name, _)| name))
}

fn check_names<'a>(names: impl Iterator<Item = &'a String>) -> Credible {
    let longest = names.map(String::len).max();
    at_most("bytes of a name", longest.unwrap_or(0), NAME_BYTES_MAX)
}

fn at_most(what: &str, number: usize, max: usize) -> Credible {
    match number > max {
        true => Err(format!("it sent {number} {what}, and there are at most {max}")),
        false => Ok(()),
    }
}
