//! What must hold, whatever happens.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use weir_channel::id::{ConsumerId, ProducerId, RoomId};
use weir_channel::message::{Method, StatsPage};
use weir_worker::page::layout::Table;
use weir_worker::page::predecessor::Predecessor;
use weir_worker::time::Time;

use super::counters::counters;
use super::network::now;
use super::sim::ms;
use super::story::{CALL_TIME_MAX, Outcome, Story};
use super::worker::Process;
use crate::server::{Room, lock};

/// When nothing goes wrong any more, all workers serve within this time: the longest wait before a worker is replaced, and the time in
/// which a hang is noticed.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(25);

/// And then everybody is sent something within this time.
const FLOW_TIME_MAX: Duration = Duration::from_secs(2);

impl Story {
    /// What was told since.
    pub(super) fn hear(&mut self) {
        while let Some(Some(event)) = self.events.next().now_or_never() {
            let value = serde_json::to_value(&*event).unwrap();
            let mut line = format!("event {}", value["type"].as_str().unwrap());
            for key in [
                "worker",
                "pid",
                "room",
                "transport",
                "producer",
                "consumer",
                "profile",
                "rooms",
                "lost",
                "gapMs",
            ] {
                if !value[key].is_null() {
                    line += &format!(" {key}={}", value[key]);
                }
            }
            let cause = value["cause"]["kind"].as_str().unwrap_or_default();
            let is_close = value["type"].as_str().unwrap().ends_with("Closed");
            line += &format!(" {cause}");
            self.world.tell(&line);
            assert!(
                !is_close || !["workerDied", "notRestored"].contains(&cause),
                "something was lost: {value}"
            );
            assert!(value["lost"].as_u64().unwrap_or(0) == 0, "something was lost: {value}");
        }
    }

    /// Notes which clients are connected, and where enabled consumers are sent to.
    pub(super) fn know_consumers(&mut self) {
        loop {
            let connected = self.world.media.borrow_mut().next_connected();
            let Some((transport, from)) = connected else { break };
            self.world.tell(&format_args!("{} is connected", transport.id()));
            self.remotes.borrow_mut().insert(transport.id().0, from);
        }
        for consumer in self.server.rooms().iter().flat_map(Room::consumers) {
            let Some(transport) = consumer.transport().filter(|_| consumer.enabled()) else {
                continue;
            };
            let remote = self.remotes.borrow().get(&transport.id().0).copied();
            let mut media = self.world.media.borrow_mut();
            if let Some(remote) = remote
                && media
                    .listeners
                    .get(&consumer.id())
                    .is_none_or(|listener| listener.flow.0 != remote)
            {
                media.listen(&consumer, remote);
            }
        }
    }

    /// Waits until nothing is under way, and looks whether all is as it should be.
    pub(super) async fn settle(&mut self) {
        self.world.tell(&"quiet");
        for process in self.world.processes.borrow().iter() {
            process.disarm();
        }
        let began = now();
        while !self.calls.is_empty() || !self.all_serve() {
            self.meanwhile(sleep(ms(5))).await;
            let waited = now().since(began);
            assert!(waited < CALL_TIME_MAX + RECOVERY_TIME_MAX, "it does not come to rest");
        }
        self.meanwhile(sleep(ms(60))).await;
        self.hear();
        self.know_consumers();
        self.compare().await;
    }

    pub(super) fn all_serve(&self) -> bool {
        self.server.shared().workers.slots.iter().all(|slot| {
            slot.is_running()
                && slot
                    .link()
                    .is_some_and(|link| link.served_since().is_some() && link.requests() == 0)
        })
    }

    /// What the supervisor wants is what the workers have; and the books are in order.
    pub(super) async fn compare(&mut self) {
        for room in self.server.rooms() {
            let wanted = self.wanted(room.id());
            let dump = timeout(CALL_TIME_MAX, room.dump())
                .await
                .expect("in time")
                .expect("a dump");
            let transports = dump.transports.iter().map(|transport| transport.transport.to_string());
            let producers = dump.producers.iter();
            let producers = producers.map(|one| format!("{} {} {:?}", one.producer, one.paused, one.preferred_profile));
            let consumers = dump.consumers.iter();
            let consumers = consumers.map(|one| {
                format!(
                    "{} {} {:?} {:#x}",
                    one.consumer, one.paused, one.preferred_profile, one.ssrc
                )
            });
            let mut served: Vec<String> = transports.chain(producers).chain(consumers).collect();
            served.sort();
            assert_eq!(wanted, served, "what is wanted of {} and what is served", room.id());
            self.world.look();
            let left = self.world.media.borrow().counts();
            let stats = timeout(CALL_TIME_MAX, room.stats())
                .await
                .expect("in time")
                .expect("statistics");
            self.world.look();
            self.check_books(&stats, &left);
            self.check_counters(&stats);
        }
        for slot in self.server.shared().workers.slots.clone() {
            let stats = timeout(CALL_TIME_MAX, self.server.worker_stats(slot.id())).await;
            let stats = stats.expect("in time").expect("statistics");
            self.check_none_goes_back(
                &format!("{}", slot.id()),
                counters(&serde_json::to_value(stats).unwrap()),
            );
        }
    }

    /// No number of a transport or producer goes back, whatever it is called.
    fn check_counters(&mut self, stats: &StatsPage) {
        for transport in &stats.transports {
            let mut counters = counters(&serde_json::to_value(transport).unwrap());
            // What seemed to be a stranger's may turn out to be the remote's.
            counters.remove("/unrouted/unproven");
            self.check_none_goes_back(&transport.transport.to_string(), counters);
        }
        for producer in &stats.producers {
            let counters = counters(&serde_json::to_value(producer).unwrap());
            self.check_none_goes_back(&producer.producer.to_string(), counters);
        }
    }

    fn check_none_goes_back(&mut self, whose: &str, counters: BTreeMap<String, u64>) {
        for (name, count) in counters {
            let name = format!("{whose}{name}");
            let before = self.stats.get(&name).copied().unwrap_or(0);
            assert!(count >= before, "{name}: {count} after {before}");
            self.stats.insert(name, count);
        }
    }

    pub(super) fn wanted(&self, room: RoomId) -> Vec<String> {
        let state = lock(&self.server.shared().state);
        let mut wanted: Vec<String> = state
            .replay(room)
            .filter_map(|replayed| match replayed.method {
                Method::CreatePlainTransport(one) => Some(one.transport.to_string()),
                Method::CreateWebRtcTransport(one) => Some(one.transport.to_string()),
                Method::CreateProducer(one) => {
                    Some(format!("{} {} {:?}", one.producer, one.paused, one.preferred_profile))
                }
                Method::CreateConsumer(one) => Some(format!(
                    "{} {} {:?} {:#x}",
                    one.consumer, one.paused, one.preferred_profile, one.ssrc
                )),
                _ => None,
            })
            .collect();
        wanted.sort();
        wanted
    }

    /// What came is what was forwarded or dropped by name, and nothing counts backwards.
    pub(super) fn check_books(&mut self, stats: &StatsPage, left: &BTreeMap<ConsumerId, u64>) {
        let mut counts = Vec::new();
        let backlog: u64 = stats.transports.iter().map(|transport| transport.backlog_packets).sum();
        for consumer in &stats.consumers {
            let dropped: u64 = consumer.dropped.iter().map(|(_, count)| count).sum();
            assert_eq!(
                consumer.packets_in,
                consumer.packets_forwarded + dropped,
                "{consumer:?}"
            );
            // On another transport it counts anew.
            let place = self.world.media.borrow().place_of(consumer.consumer);
            counts.push((format!("{} in {place:?}", consumer.consumer), consumer.packets_in));
            counts.push((
                format!("{} out {place:?}", consumer.consumer),
                consumer.packets_forwarded,
            ));
            let before = left.get(&consumer.consumer).copied().unwrap_or(0);
            let after = self.world.media.borrow().count_of(consumer.consumer) + backlog;
            let forwarded = consumer.packets_forwarded;
            assert!(forwarded <= after, "{after} at most left for {consumer:?}");
            // What a worker has counted last may die with it.
            assert!(
                forwarded >= before || self.deaths > 0,
                "{before} at least left for {consumer:?}"
            );
        }
        for (producer, stream) in stats
            .producers
            .iter()
            .flat_map(|producer| producer.streams.iter().map(|stream| (producer.producer, stream)))
        {
            counts.push((format!("{producer} {:?}", stream.profile), stream.packets));
        }
        for (what, count) in counts {
            let before = self.stats.insert(what.clone(), count).unwrap_or(0);
            assert!(count >= before, "{what}: {count} after {before}");
        }
    }

    pub(super) async fn end(mut self) -> Outcome {
        self.faults = 0;
        self.settle().await;
        self.world.media.borrow_mut().breathe();
        self.flow().await;
        self.world.look();
        self.world.media.borrow().judge(self.deaths);
        self.close_all().await;
        let trace = self.world.trace.borrow();
        Outcome {
            digest: trace.digest(),
            deaths: self.deaths,
            calls: self.world.calls.get(),
            packets: self.world.media.borrow().packets,
            protected: self.world.media.borrow().protected,
            time: now().since(Time::from_millis(1_000)),
            cut_of: 0,
        }
    }

    /// Nothing goes wrong any more: whoever should be sent something is.
    pub(super) async fn flow(&mut self) {
        let before: Vec<_> = {
            let media = self.world.media.borrow();
            let consumers = media.listeners.values().map(|listener| listener.consumer.clone());
            consumers
                .map(|consumer| (media.count_of(consumer.id()), consumer))
                .collect()
        };
        self.meanwhile(sleep(FLOW_TIME_MAX)).await;
        self.world.look();
        let media = self.world.media.borrow();
        for (count, consumer) in before {
            let producer: ProducerId = consumer.producer().id();
            let should_flow = !consumer.closed()
                && consumer.enabled()
                && !consumer.paused()
                && !consumer.source_paused()
                && media.is_sent(producer);
            if should_flow {
                let after = media.count_of(consumer.id());
                assert!(
                    after > count,
                    "{} is sent nothing of {producer} any more",
                    consumer.id()
                );
            }
        }
    }

    pub(super) async fn close_all(&mut self) {
        for room in self.server.rooms() {
            let closed = timeout(CALL_TIME_MAX, room.close(Value::Null)).await;
            closed.expect("in time").expect("a room closes");
        }
        self.meanwhile(sleep(ms(100))).await;
        self.hear();
        for slot in &self.server.shared().workers.slots {
            let stats = timeout(CALL_TIME_MAX, self.server.worker_stats(slot.id())).await;
            let stats = stats.expect("in time").expect("statistics");
            let objects = [stats.rooms, stats.transports, stats.producers, stats.consumers];
            assert!(
                objects.iter().all(|count| *count == 0),
                "{objects:?} are left in {}",
                slot.id()
            );
        }
        for process in self
            .world
            .processes
            .borrow()
            .iter()
            .filter(|process| !process.is_dead())
        {
            assert_eq!(
                process.watching.borrow().sockets(),
                0,
                "process {} watches what is closed",
                process.pid
            );
            if let Ok(page) = Predecessor::open(Arc::clone(&process.page) as _) {
                let tables = [Table::Consumers, Table::Streams, Table::Transports, Table::WebRtc];
                let taken = tables.map(|table| page.taken(table));
                assert_eq!(taken, [0; 4], "slots of the page of process {}", process.pid);
            }
        }
        assert_eq!(self.server.shared().sockets.ports_taken(), 0, "ports are taken");
        let closed = timeout(CALL_TIME_MAX, self.server.close()).await;
        closed.expect("a server closes in time");
        self.hear();
        let alive = |process: &&Rc<Process>| !process.is_dead();
        let alive: Vec<u32> = self
            .world
            .processes
            .borrow()
            .iter()
            .filter(alive)
            .map(|process| process.pid)
            .collect();
        assert_eq!(alive, [0; 0], "processes are left");
    }
}
