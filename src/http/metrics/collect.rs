//! What is told of a server, and under which names. `docs/metrics.md` lists them; a test compares the two.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use weir_channel::message::{
    CounterKind, Counts, DropReason, Histogram, NotRepaired, UnroutedReason, WebRtcFailureReason,
};

use super::super::server::{Health, HealthStatus};
use super::Metrics;
use super::family::{Family, Kind, Label, Value, label};
use crate::server::{
    CONSUMER_STATES, Census, DTLS_STATES, ICE_STATES, MEDIA_KINDS, PRODUCER_STATES, RoomCensus, TRANSPORT_KINDS,
};
use crate::{Server, WorkerId, WorkerInfo, WorkerState, WorkerStats};

/// How long a worker may take to say what it has counted. Then what it said last is told.
const PATIENCE: Duration = Duration::from_secs(1);

/// The upper ends of the buckets of residence times, in nanoseconds.
const RESIDENCE_NS: [u64; 12] = [
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];

/// Everything, and what is in each room.
pub(super) async fn collect(metrics: &Metrics) -> (Vec<Family>, Vec<RoomCensus>) {
    let mut families = of_program(metrics);
    let server = metrics.server().ok();
    families.extend(of_health(metrics, server.as_ref()));
    families.extend(of_interfaces(metrics));
    let Some(server) = server else {
        return (families, Vec::new());
    };
    let workers = server.workers();
    let asked = workers
        .iter()
        .map(|worker| async { (worker.id, server.worker_totals(worker.id, PATIENCE).await) });
    let totals = futures::future::join_all(asked).await;
    let mut census = server.census();
    for worker in &workers {
        census.entry(worker.id).or_default();
    }
    families.extend(of_workers(&workers));
    families.extend(of_rooms_of_workers(&census));
    families.extend(of_ports(&server));
    let mut counted = Counted::default();
    for (worker, totals) in &totals {
        counted.add(*worker, &totals.stats, totals.is_now);
    }
    families.extend(counted.families);
    let rooms = census.into_values().flat_map(|census| census.by_room).collect();
    (families, rooms)
}

/// What is in each of the fullest rooms, at most so many.
pub(super) fn of_rooms(rooms: &[RoomCensus], most: usize) -> [Family; 3] {
    let mut fullest: Vec<_> = rooms.to_vec();
    fullest.sort_unstable_by_key(|room| (std::cmp::Reverse(room.consumers + room.producers), room.room));
    fullest.truncate(most);
    let family = |name: &'static str, help, number: fn(&RoomCensus) -> u64| {
        let mut family = Family::new(Kind::Gauge, name, help);
        for room in &fullest {
            family.push([label("room", room.room.0.to_string())], Value::Whole(number(room)));
        }
        family
    };
    [
        family("weir_room_peers", "Peers of a room; only with ?rooms=N", |room| {
            room.peers
        }),
        family(
            "weir_room_producers",
            "Producers of a room; only with ?rooms=N",
            |room| room.producers,
        ),
        family(
            "weir_room_consumers",
            "Consumers of a room; only with ?rooms=N",
            |room| room.consumers,
        ),
    ]
}

fn of_program(metrics: &Metrics) -> Vec<Family> {
    let mut build = Family::new(Kind::Info, "weir_build", "The program");
    build.push([label("version", env!("CARGO_PKG_VERSION"))], Value::Whole(1));
    let mut families = vec![
        build,
        Family::new(
            Kind::Gauge,
            "weir_start_time_seconds",
            "When the server started, in Unix time",
        )
        .of(Value::Real(metrics.0.started_ms as f64 / 1e3)),
    ];
    let gauge = |name: &'static str, help| Family::new(Kind::Gauge, name, help);
    let mut cpu = Family::new(
        Kind::Counter,
        "weir_supervisor_cpu_seconds",
        "CPU time of the process that has the control interface",
    );
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        cpu.push([], Value::Real(us as f64 / 1e6));
    }
    let mut resident = gauge("weir_supervisor_resident_bytes", "Resident memory of that process");
    if let Some(bytes) = resident_bytes() {
        resident.push([], Value::Whole(bytes));
    }
    let mut descriptors = gauge(
        "weir_supervisor_descriptors",
        "Descriptors that process has: open files and sockets",
    );
    // The size of this folder is their number, since Linux 6.2; to count them takes long.
    if let Some(open) = std::fs::metadata("/proc/self/fd")
        .ok()
        .filter(|folder| folder.len() > 0)
    {
        descriptors.push([], Value::Whole(open.len()));
    }
    let mut limit = gauge("weir_supervisor_descriptors_max", "Descriptors that process may have");
    if let Ok((limited, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        limit.push([], Value::Whole(limited));
    }
    families.extend([cpu, resident, descriptors, limit]);
    families
}

/// The second number of proc_pid_statm(5), in pages.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

fn of_health(metrics: &Metrics, server: Option<&Server>) -> [Family; 2] {
    let status = server.map_or(HealthStatus::Down, |server| Health::of_server(server).status);
    let mut health = Family::new(
        Kind::Gauge,
        "weir_health",
        "1 for the state of the server that /health tells, else 0",
    );
    for (name, state) in [
        ("ok", HealthStatus::Ok),
        ("degraded", HealthStatus::Degraded),
        ("down", HealthStatus::Down),
    ] {
        health.push([label("status", name)], Value::Whole(u64::from(status == state)));
    }
    let ready = metrics.readiness().ready;
    let help = "1 if the server takes new clients, as /ready tells";
    [
        health,
        Family::new(Kind::Gauge, "weir_ready", help).of(Value::Whole(u64::from(ready))),
    ]
}

fn of_interfaces(metrics: &Metrics) -> Vec<Family> {
    let mut clients = Family::new(Kind::Gauge, "weir_clients", "Clients of rooms that are connected");
    if let Some(app) = metrics.app() {
        clients.push(
            [label("protocol", "websocket")],
            Value::Whole(app.signalling.connected() as u64),
        );
        clients.push([label("protocol", "whip_whep")], Value::Whole(app.whip.open() as u64));
    }
    let mut families = vec![clients];
    families.extend(metrics.0.requests.families());
    families
}

fn of_ports(server: &Server) -> [Family; 2] {
    let mut used = Family::new(Kind::Gauge, "weir_ports_used", "Ports for media that transports have");
    let help = "Ports for media that are left, of the local address that has fewest";
    let mut free = Family::new(Kind::Gauge, "weir_ports_free", help);
    for (protocol, ports) in ["udp", "tcp"].into_iter().zip(server.ports()) {
        used.push([label("protocol", protocol)], Value::Whole(ports.used));
        free.push([label("protocol", protocol)], Value::Whole(ports.free));
    }
    [used, free]
}

fn by_worker(worker: WorkerId) -> Label {
    label("worker", worker.0.to_string())
}

fn of_workers(workers: &[WorkerInfo]) -> Vec<Family> {
    let mut states = Family::new(Kind::Gauge, "weir_workers", "Workers, by state");
    let name = |state| match state {
        WorkerState::Starting => "starting",
        WorkerState::Running => "running",
        WorkerState::Restarting { .. } => "restarting",
        WorkerState::Closed => "closed",
    };
    for state in ["starting", "running", "restarting", "closed"] {
        let count = workers.iter().filter(|worker| name(worker.state) == state).count();
        states.push([label("state", state)], Value::Whole(count as u64));
    }
    let family = |kind, text: (&'static str, &'static str), number: &dyn Fn(&WorkerInfo) -> Option<Value>| {
        let mut family = Family::new(kind, text.0, text.1);
        for worker in workers {
            if let Some(value) = number(worker) {
                family.push([by_worker(worker.id)], value);
            }
        }
        family
    };
    let whole = |number: u64| Some(Value::Whole(number));
    vec![
        states,
        family(
            Kind::Counter,
            ("weir_worker_restarts", "Times that a worker's process was replaced"),
            &|worker| whole(worker.restarts),
        ),
        family(
            Kind::Counter,
            (
                "weir_worker_restorations",
                "Times that a new process has taken up all that its predecessor had left",
            ),
            &|worker| whole(worker.restorations),
        ),
        family(
            Kind::Gauge,
            (
                "weir_worker_last_gap_seconds",
                "How long that took the last time, from when the death was noticed",
            ),
            &|worker| Some(Value::Real(worker.last_gap_ms? as f64 / 1e3)),
        ),
        family(
            Kind::Gauge,
            (
                "weir_worker_ping_seconds",
                "Round-trip time of the last ping to a worker",
            ),
            &|worker| Some(Value::Real(worker.ping_rtt_us? as f64 / 1e6)),
        ),
        family(
            Kind::Gauge,
            (
                "weir_worker_pending_requests",
                "Requests that a worker has not answered yet",
            ),
            &|worker| whole(worker.requests as u64),
        ),
        family(
            Kind::Gauge,
            (
                "weir_worker_overdue_requests",
                "Requests in a row that a worker has not answered in time",
            ),
            &|worker| whole(worker.timeouts.into()),
        ),
        family(
            Kind::Gauge,
            (
                "weir_quarantined_sources",
                "Sources in quarantine because worker processes died of their packets",
            ),
            &|worker| whole(worker.quarantined as u64),
        ),
    ]
}

fn of_rooms_of_workers(census: &BTreeMap<WorkerId, Census>) -> Vec<Family> {
    let gauge = |name: &'static str, help| Family::new(Kind::Gauge, name, help);
    let mut rooms = gauge("weir_rooms", "Rooms that are open");
    let mut peers = gauge("weir_peers", "Peers in rooms");
    let mut transports = gauge("weir_transports", "Transports that are open");
    let mut producers = gauge("weir_producers", "Producers that are open");
    let mut consumers = gauge("weir_consumers", "Consumers that are open");
    let mut ice = gauge("weir_ice_transports", "WebRTC transports, by the state of ICE");
    let mut dtls = gauge("weir_dtls_transports", "WebRTC transports, by the state of DTLS");
    for (worker, census) in census {
        let worker = || by_worker(*worker);
        rooms.push([worker()], Value::Whole(census.rooms));
        peers.push([worker()], Value::Whole(census.peers));
        for (family, counts, name, known) in [
            (&mut transports, &census.transports, "kind", &TRANSPORT_KINDS[..]),
            (&mut ice, &census.ice, "state", &ICE_STATES[..]),
            (&mut dtls, &census.dtls, "state", &DTLS_STATES[..]),
        ] {
            for value in known {
                let count = counts.get(value).copied().unwrap_or(0);
                family.push([worker(), label(name, *value)], Value::Whole(count));
            }
        }
        for (family, counts, states) in [
            (&mut producers, &census.producers, &PRODUCER_STATES[..]),
            (&mut consumers, &census.consumers, &CONSUMER_STATES[..]),
        ] {
            for kind in MEDIA_KINDS {
                for state in states {
                    let count = counts.get(&(kind, *state)).copied().unwrap_or(0);
                    let labels = [worker(), label("kind", kind), label("state", *state)];
                    family.push(labels, Value::Whole(count));
                }
            }
        }
    }
    vec![rooms, peers, transports, producers, consumers, ice, dtls]
}

/// What workers have counted.
#[derive(Default)]
struct Counted {
    families: Vec<Family>,
}

/// A counter of a worker as a metric.
struct Named {
    name: Cow<'static, str>,
    help: &'static str,
    /// Beside the worker.
    labels: Vec<Label>,
    /// It counts nanoseconds, and is told in seconds.
    is_time: bool,
}

impl Named {
    fn new(name: impl Into<Cow<'static, str>>, help: &'static str) -> Self {
        Self {
            name: name.into(),
            help,
            labels: Vec::new(),
            is_time: false,
        }
    }

    fn with(self, labels: impl Into<Vec<Label>>) -> Self {
        Self {
            labels: labels.into(),
            ..self
        }
    }

    fn time(self) -> Self {
        Self { is_time: true, ..self }
    }

    /// By the name of its counter; `None`: another metric tells it. A new counter is one as it is.
    fn of(counter: &'static str, help: &'static str) -> Option<Self> {
        let call = |call: &'static str| {
            Self::new("weir_syscalls", "Calls into the kernel by workers").with([label("call", call)])
        };
        let nacks = |direction: &'static str| {
            let help = "RTCP packets with negative acknowledgements (NACK)";
            Self::new("weir_nacks", help).with([label("direction", direction)])
        };
        let key_frame = |kind: &'static str, direction: &'static str| {
            let help = "Key frame requests: picture loss indications (PLI) and full intra requests (FIR)";
            let labels = [label("type", kind), label("direction", direction)];
            Self::new("weir_key_frame_requests", help).with(labels)
        };
        Some(match counter {
            // By kind and state, and by reason.
            "rooms" | "transports" | "producers" | "consumers" | "unrouted" => return None,
            "receive_calls" => call("receive"),
            "send_calls" => call("send"),
            "wait_calls" => call("wait"),
            "nacks_received" => nacks("received"),
            "nacks_sent" => nacks("sent"),
            "plis_received" => key_frame("pli", "received"),
            "plis_sent" => key_frame("pli", "sent"),
            "firs_received" => key_frame("fir", "received"),
            "firs_sent" => key_frame("fir", "sent"),
            "cpu_ns" => Self::new("weir_worker_cpu_seconds", "User and system CPU time of workers").time(),
            "spun_ns" => {
                let help = "CPU time that workers spent looking for packets instead of sleeping (spin_us_max)";
                Self::new("weir_worker_spun_seconds", help).time()
            }
            "resident_bytes" => Self::new("weir_worker_resident_bytes", "Resident memory of workers"),
            "turns" => Self::new("weir_worker_turns", help),
            "coalesced_turns" => Self::new("weir_worker_coalesced_turns", help),
            "log_lines_dropped" => Self::new("weir_worker_log_lines_dropped", help),
            "packets_offered" => Self::new(
                "weir_consumer_packets_offered",
                "Packets of producers, counted once for each consumer: forwarded or dropped",
            ),
            "packets_forwarded" => Self::new(
                "weir_consumer_packets_forwarded",
                "Those of them that were handed to the consumers' transports",
            ),
            other => Self::new(format!("weir_{other}"), help),
        })
    }
}

impl Counted {
    /// The family of this name, which comes to be when it is first named.
    fn family(&mut self, kind: Kind, name: Cow<'static, str>, help: &'static str) -> &mut Family {
        let known = self.families.iter().position(|family| family.name == name);
        let place = known.unwrap_or_else(|| {
            self.families.push(Family::new(kind, name, help));
            self.families.len() - 1
        });
        &mut self.families[place]
    }

    fn add(&mut self, worker: WorkerId, stats: &WorkerStats, is_now: bool) {
        for (counter, number) in stats.counters() {
            let Some(named) = Named::of(counter.name, counter.help) else {
                continue;
            };
            let kind = match counter.kind {
                CounterKind::Gauge => Kind::Gauge,
                CounterKind::Counter | CounterKind::Fault => Kind::Counter,
            };
            let value = match named.is_time {
                true => Value::Real(number as f64 / 1e9),
                false => Value::Whole(number),
            };
            let family = self.family(kind, named.name, named.help);
            if kind == Kind::Counter || is_now {
                let mut labels = vec![by_worker(worker)];
                labels.extend(named.labels);
                family.push(labels, value);
            }
        }
        let mut unrouted = stats.unrouted_reasons.clone();
        for (reason, count) in &stats.transports_unrouted {
            unrouted.add(*reason, *count);
        }
        self.reasons(
            worker,
            (
                "weir_consumer_packets_dropped",
                "Packets that were not forwarded to consumers, by reason",
            ),
            &DropReason::ALL,
            &stats.dropped,
        );
        self.reasons(
            worker,
            (
                "weir_not_repaired_packets",
                "Packets that receivers asked for again and did not get, by reason",
            ),
            &NotRepaired::ALL,
            &stats.not_repaired,
        );
        self.reasons(
            worker,
            (
                "weir_unrouted_packets",
                "Packets that reached no producer, and connections of nobody, by reason",
            ),
            &UnroutedReason::ALL,
            &unrouted,
        );
        self.reasons(
            worker,
            (
                "weir_webrtc_failures",
                "Failures in ICE and DTLS of WebRTC transports, by reason",
            ),
            &WebRtcFailureReason::ALL,
            &stats.webrtc_failures,
        );
        let residence = self.family(
            Kind::Histogram,
            "weir_packet_residence_seconds".into(),
            "Time from a packet's arrival at the socket to the call that sends it, while it is measured",
        );
        if let Some(histogram) = &stats.residence {
            residence.push([by_worker(worker)], distribution(histogram));
        }
    }

    /// Also those that have not happened, so that a rate of the first one is seen.
    fn reasons<R: Copy + Ord + Serialize>(
        &mut self,
        worker: WorkerId,
        (name, help): (&'static str, &'static str),
        all: &[R],
        counts: &Counts<R>,
    ) {
        let family = self.family(Kind::Counter, name.into(), help);
        for reason in all {
            let labels = [by_worker(worker), label("reason", name_of(reason))];
            family.push(labels, Value::Whole(counts.of(*reason)));
        }
    }
}

/// A reason as it is named in JSON, too.
fn name_of(reason: &impl Serialize) -> String {
    let json = serde_json::to_value(reason).unwrap_or_default();
    json.as_str().unwrap_or("unknown").to_owned()
}

fn distribution(histogram: &Histogram) -> Value {
    let mut buckets: Vec<(f64, u64)> = RESIDENCE_NS.iter().map(|ns| (*ns as f64 / 1e9, 0)).collect();
    buckets.push((f64::INFINITY, 0));
    let mut sum = 0.0;
    for bucket in histogram.residence().buckets {
        let fits = RESIDENCE_NS.iter().position(|end| bucket.below_ns <= *end);
        buckets[fits.unwrap_or(RESIDENCE_NS.len())].1 += bucket.count;
        // Nobody knows them more exactly.
        let middle = bucket.from_ns as f64 + (bucket.below_ns - bucket.from_ns) as f64 / 2.0;
        sum += middle * bucket.count as f64 / 1e9;
    }
    Value::Distribution { sum, buckets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residence_times_are_in_buckets_that_are_not_smaller_than_they_are() {
        let mut counts = vec![0; Histogram::index_of(300_000_000) + 1];
        counts[Histogram::index_of(18_000)] = 5;
        counts[Histogram::index_of(19_900)] = 2;
        counts[Histogram::index_of(300_000_000)] = 1;
        let Value::Distribution { sum, buckets } = distribution(&Histogram { counts }) else {
            panic!("a distribution");
        };
        assert!((0.28..0.32).contains(&sum), "{sum}");
        let filled: Vec<_> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.00002, 5), (0.00005, 2), (f64::INFINITY, 1)]);
    }

    #[test]
    fn a_counter_of_each_worker_is_one_family() {
        let mut counted = Counted::default();
        for worker in 1..=3 {
            counted.add(WorkerId(worker), &WorkerStats::default(), worker != 2);
        }
        let names: std::collections::BTreeSet<_> = counted.families.iter().map(|family| &family.name).collect();
        assert_eq!(names.len(), counted.families.len());
        let family = |name: &str| counted.families.iter().find(|family| family.name == name).unwrap();
        assert_eq!(family("weir_syscalls").samples.len(), 9);
        assert_eq!(
            family("weir_worker_resident_bytes").samples.len(),
            2,
            "one has not said"
        );
        assert_eq!(family("weir_kernel_drops").kind, Kind::Counter);
        assert_eq!(
            family("weir_consumer_packets_dropped").samples.len(),
            3 * DropReason::ALL.len()
        );
    }

    #[test]
    fn rooms_are_told_by_themselves_the_fullest_first_and_no_more_than_asked_for() {
        let rooms: Vec<RoomCensus> = (1..=5)
            .map(|number| RoomCensus {
                room: crate::RoomId(number),
                peers: 1,
                producers: 2,
                consumers: number,
            })
            .collect();
        let [peers, ..] = of_rooms(&rooms, 2);
        let told: Vec<_> = peers.samples.iter().map(|(labels, _)| labels[0].1.clone()).collect();
        assert_eq!(told, ["5", "4"]);
    }
}
