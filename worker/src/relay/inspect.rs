//! Counters and dumps, in pages. A cursor is a kind and an id, so a page can follow another while objects come and go.

use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{
    ConsumerDump, ConsumerStats, DumpPage, ProducerDump, ProducerStats, Scope, StatsPage, StreamStats, TransportDump,
    WorkerError,
};

use crate::time::Time;

use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::limits::PAGE_ENTRIES_MAX;
use super::{Relay, Room};

/// Consumers listed in a producer's dump.
const DUMP_CONSUMERS_MAX: usize = 1_000;

/// Routing entries listed in a transport's dump.
const DUMP_ROUTES_MAX: usize = 100;

/// Entries of one page of a dump: a producer's entry can name 1,000 consumers (about 10 KiB), a transport's 300 routes.
const DUMP_ENTRIES_MAX: usize = 50;

/// What a page's entry is about.
enum Entry {
    Transport(TransportId),
    Producer(ProducerId),
    Consumer(ConsumerId),
}

impl Entry {
    /// The cursor behind this entry: its kind in the two highest bits, its id in the others.
    fn cursor(&self) -> u64 {
        match self {
            Self::Transport(id) => id.0,
            Self::Producer(id) => 1 << 62 | id.0,
            Self::Consumer(id) => 2 << 62 | id.0,
        }
    }
}

impl Room {
    /// Its members behind a cursor: transports, then producers, then consumers.
    fn entries_after(&self, cursor: Option<u64>) -> impl Iterator<Item = Entry> {
        let (kind, id) = cursor.map_or((0, None), |cursor| (cursor >> 62, Some(cursor & !(3 << 62))));
        let after = move |section: u64| match (kind == section, id) {
            (true, Some(id)) => id.saturating_add(1),
            _ if kind > section => u64::MAX, // behind us
            _ => 0,
        };
        let transports = self
            .transports
            .range(TransportId(after(0))..)
            .copied()
            .map(Entry::Transport);
        let producers = self
            .producers
            .range(ProducerId(after(1))..)
            .copied()
            .map(Entry::Producer);
        let consumers = self
            .consumers
            .range(ConsumerId(after(2))..)
            .copied()
            .map(Entry::Consumer);
        transports.chain(producers).chain(consumers)
    }
}

impl Relay {
    /// What a page about the scope has entries of, at most so many, and where the next page starts.
    fn entries(&self, scope: Scope, max: usize) -> Result<(Vec<Entry>, Option<u64>), WorkerError> {
        let only = |entry| (vec![entry], None);
        Ok(match scope {
            Scope::Room { room, page } => {
                let members = self.rooms.get(&room).ok_or(WorkerError::UnknownRoom(room))?;
                let mut entries = members.entries_after(page.cursor);
                let taken: Vec<_> = entries.by_ref().take(max).collect();
                let next = entries.next().and(taken.last()).map(Entry::cursor);
                (taken, next)
            }
            Scope::Transport(id) => only(Entry::Transport(id)),
            Scope::Producer(id) => only(Entry::Producer(id)),
            Scope::Consumer(id) => only(Entry::Consumer(id)),
        })
    }

    pub(super) fn stats(&mut self, now: Time, scope: Scope) -> Result<StatsPage, WorkerError> {
        let (entries, next) = self.entries(scope, PAGE_ENTRIES_MAX)?;
        let mut page = StatsPage {
            next,
            ..StatsPage::default()
        };
        for entry in entries {
            match entry {
                Entry::Transport(id) => {
                    let transport = &self.transports[self.find_transport(id)?];
                    transport.keep_counters(&self.page);
                    page.transports.push(transport.stats());
                }
                Entry::Producer(id) => page
                    .producers
                    .push(self.stats_of_producer(now, self.find_producer(id)?)),
                Entry::Consumer(id) => {
                    let key = self.find_consumer(id)?;
                    page.consumers.push(self.stats_of_consumer(now, key));
                }
            }
        }
        Ok(page)
    }

    pub(super) fn dump(&self, scope: Scope) -> Result<DumpPage, WorkerError> {
        let (entries, next) = self.entries(scope, DUMP_ENTRIES_MAX)?;
        let mut page = DumpPage {
            next,
            ..DumpPage::default()
        };
        for entry in entries {
            match entry {
                Entry::Transport(id) => page.transports.push(self.dump_transport(self.find_transport(id)?)),
                Entry::Producer(id) => page.producers.push(self.dump_producer(self.find_producer(id)?)),
                Entry::Consumer(id) => page.consumers.push(self.dump_consumer(self.find_consumer(id)?)),
            }
        }
        Ok(page)
    }

    fn stats_of_producer(&self, now: Time, key: ProducerKey) -> ProducerStats {
        let producer = &self.producers[key];
        producer
            .streams
            .iter()
            .for_each(|stream| stream.keep_counters(&self.page));
        ProducerStats {
            producer: producer.id,
            paused: producer.paused,
            streams: producer
                .streams
                .iter()
                .map(|stream| StreamStats {
                    codec: producer.codec_name(stream.reception.payload_type()),
                    ..stream.stats(now, producer.kind)
                })
                .collect(),
        }
    }

    fn stats_of_consumer(&mut self, now: Time, key: ConsumerKey) -> ConsumerStats {
        let consumer = &mut self.consumers[key];
        let producer = &self.producers[consumer.producer];
        consumer.update_counters(&producer.counters);
        // What somebody has seen never goes back.
        consumer.keep_counters(&self.page, &producer.counters);
        consumer.stats(now, producer)
    }

    fn dump_transport(&self, key: TransportKey) -> TransportDump {
        let transport = &self.transports[key];
        let mut ssrcs: Vec<_> = transport
            .ssrcs
            .iter()
            .map(|(ssrc, (producer, _))| (*ssrc, self.producers[*producer].id))
            .collect();
        ssrcs.sort_unstable();
        ssrcs.truncate(DUMP_ROUTES_MAX);
        let producers = || {
            transport
                .producers
                .iter()
                .map(|key| &self.producers[*key])
                .take(DUMP_ROUTES_MAX)
        };
        TransportDump {
            transport: transport.id,
            remote: transport.remote,
            comedia: transport.kind.comedia(),
            rtcp_mux: transport.kind.rtcp_mux(),
            ssrcs,
            mids: producers()
                .filter_map(|producer| Some((producer.mid.clone()?, producer.id)))
                .collect(),
            rids: producers()
                .flat_map(|producer| {
                    producer
                        .streams
                        .iter()
                        .filter_map(|stream| Some((stream.rid.clone()?, producer.id)))
                })
                .take(DUMP_ROUTES_MAX)
                .collect(),
            mirror: None,
        }
    }

    fn dump_producer(&self, key: ProducerKey) -> ProducerDump {
        let producer = &self.producers[key];
        ProducerDump {
            producer: producer.id,
            transport: self.transports[producer.transport].id,
            kind: producer.kind,
            paused: producer.paused,
            preferred_profile: producer.preferred_profile,
            available_profiles: producer.available().iter().collect(),
            consumers: producer
                .consumers
                .iter()
                .take(DUMP_CONSUMERS_MAX)
                .map(|key| self.consumers[*key].id)
                .collect(),
        }
    }

    fn dump_consumer(&self, key: ConsumerKey) -> ConsumerDump {
        let consumer = &self.consumers[key];
        let producer = &self.producers[consumer.producer];
        let profile = |encoding: Option<u8>| encoding.map(|encoding| producer.streams[usize::from(encoding)].profile);
        ConsumerDump {
            consumer: consumer.id,
            producer: producer.id,
            transport: self.transports[consumer.transport].id,
            ssrc: consumer.ssrc,
            preferred_profile: consumer.preferred_profile,
            effective_profile: profile(consumer.effective),
            target_profile: profile(consumer.flow.target),
            paused: consumer.paused,
            source_paused: producer.paused,
            sync_required: consumer.flow.sync_required,
            rtx_ssrc: consumer.rtx_ssrc,
        }
    }
}
