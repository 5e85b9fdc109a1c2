//! What monitoring systems are told: numbers that `docs/metrics.md` lists, that never go back, and that cost nobody anything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod exposition;
mod loopback;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use control::{Answer, Client, settings, soon};
use exposition::{Scrape, documented};
use loopback::{on_first_worker, opus, plain_to};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir::http::{ControlOptions, Limits, Metrics, app, metrics, metrics_limits, serve};
use weir::{ConsumerOptions, PeerOptions, PlainTransportOptions, RoomOptions, Server, Settings, WorkerState};

/// A server, or one that is still to come, and where its metrics are.
struct Monitored {
    metrics: Metrics,
    address: SocketAddr,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Monitored {
    async fn new(limits: Limits) -> Self {
        let known = Metrics::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (close, closing) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, metrics(known.clone(), address), limits, closing));
        Self {
            metrics: known,
            address,
            close,
            serving,
        }
    }

    fn options(&self) -> ControlOptions {
        ControlOptions {
            metrics: self.metrics.clone(),
            ..ControlOptions::default()
        }
    }

    async fn connect(&self) -> Client {
        Client::over(TcpStream::connect(self.address).await.unwrap()).await
    }

    async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let own = self.address.to_string();
        let mut all = vec![("host", own.as_str())];
        all.extend(headers);
        self.connect().await.say(method, target, &all, "").await
    }

    async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[]).await
    }

    async fn scrape(&self) -> Scrape {
        let answer = self.get("/metrics?rooms=10").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        Scrape::read(&answer.text)
    }

    /// Numbers that were gathered after now: the CPU time is another one.
    async fn fresh(&self) -> Scrape {
        let gathered = |scrape: &Scrape| scrape.number("weir_supervisor_cpu_seconds_total", &[]);
        let before = gathered(&self.scrape().await);
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        soon("other numbers", async {
            loop {
                ticks.tick().await;
                let scrape = self.scrape().await;
                if gathered(&scrape) > before {
                    return scrape;
                }
            }
        })
        .await
    }

    async fn end(self) {
        self.close.send_replace(true);
        soon("the end of what tells metrics", self.serving).await.unwrap();
    }
}

async fn start(settings: Settings) -> Server {
    soon("the server", Server::start(settings)).await.unwrap()
}

/// A packet of Opus.
fn packet(ssrc: u32, number: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(number.to_be_bytes());
    packet.extend((u32::from(number) * 960).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xf8; 40]);
    packet
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_served() {
    let monitored = Monitored::new(metrics_limits(Limits::default())).await;
    let server = start(settings(2)).await;
    let control = monitored.metrics.counted(app(server.clone(), monitored.options()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.sock");
    let (_socket, listener) = weir::http::ControlSocket::bind(&path).unwrap();
    let (close, closing) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, control, Limits::default(), closing));
    let mut client = Client::connect(&path).await;
    client.get("/rooms").await.expect(200);
    client.get("/rooms/99").await.refuses(404, "notFound", "99");
    client.get("/no/such/route").await.refuses(404, "unknownRoute", "route");

    let room = server.create_room(on_first_worker()).await.unwrap();
    let capabilities = room.rtp_capabilities().clone();
    room.create_peer(PeerOptions::new("alice", capabilities)).unwrap();
    let transport = room
        .create_plain_transport(PlainTransportOptions::default())
        .await
        .unwrap();
    let producer = transport.produce(opus(111, 7)).await.unwrap();
    transport.consume(&producer, ConsumerOptions::default()).await.unwrap();
    producer.pause(serde_json::Value::Null).await.unwrap();

    let scrape = monitored.scrape().await;
    let documented = documented(include_str!("../docs/metrics.md"));
    assert_eq!(scrape.kinds, documented);
    // Its labels are what the table says, too, and none can take whatever somebody likes.
    let known = BTreeSet::from([
        "call",
        "direction",
        "kind",
        "le",
        "method",
        "protocol",
        "reason",
        "room",
        "route",
        "state",
        "status",
        "type",
        "version",
        "worker",
    ]);
    for (series, _) in &scrape.samples {
        assert!(
            series.labels.keys().all(|label| known.contains(label.as_str())),
            "{series:?}"
        );
    }
    let number = |name: &str, labels: &[(&str, &str)]| scrape.number(name, labels);
    assert_eq!(number("weir_ready", &[]), 1.0);
    assert_eq!(number("weir_health", &[("status", "ok")]), 1.0);
    assert_eq!(number("weir_workers", &[("state", "running")]), 2.0);
    assert_eq!(number("weir_rooms", &[("worker", "1")]), 1.0);
    assert_eq!(number("weir_rooms", &[("worker", "2")]), 0.0);
    assert_eq!(number("weir_peers", &[("worker", "1")]), 1.0);
    let audio = |state| [("worker", "1"), ("kind", "audio"), ("state", state)];
    assert_eq!(number("weir_producers", &audio("paused")), 1.0);
    assert_eq!(number("weir_consumers", &audio("source_paused")), 1.0);
    assert_eq!(
        number("weir_room_consumers", &[("room", &room.id().0.to_string())]),
        1.0
    );
    assert_eq!(number("weir_ports_used", &[("protocol", "udp")]), 1.0);
    let asked = |route, status| [("route", route), ("method", "GET"), ("status", status)];
    assert_eq!(number("weir_http_requests_total", &asked("/rooms", "200")), 1.0);
    assert_eq!(number("weir_http_requests_total", &asked("/rooms/{id}", "404")), 1.0);
    assert_eq!(number("weir_http_requests_total", &asked("none", "404")), 1.0);

    // Rooms are told by themselves only to those who want them.
    let plain = monitored.get("/metrics").await;
    assert!(!plain.text.contains("weir_room_peers"), "{}", plain.text);
    assert_eq!(
        plain.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let open = monitored.ask("GET", "/metrics", &accept).await;
    assert_eq!(
        open.headers["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(open.text.ends_with("\n# EOF\n"));
    assert_eq!(
        Scrape::read(&open.text).samples.len(),
        Scrape::read(&plain.text).samples.len()
    );
    close.send_replace(true);
    soon("the end of the control interface", serving).await.unwrap();
    monitored.end().await;
    soon("the server's end", server.close()).await;
}

/// Dashboards and rules ask for nothing that there is not.
#[test]
fn what_is_deployed_names_only_metrics_that_there_are() {
    let documented = documented(include_str!("../docs/metrics.md"));
    for (file, text) in [
        ("dashboard", include_str!("../deploy/grafana/weir.json")),
        ("alerts", include_str!("../deploy/prometheus/weir.rules.yml")),
    ] {
        let mut named = 0;
        for (at, _) in text.match_indices("weir_") {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || before == '_' || before == ':' {
                continue;
            }
            let name: String = text[at..]
                .chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                .collect();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|ending| name.strip_suffix(ending))
                .filter(|family| documented.get(*family).is_some_and(|kind| kind == "histogram"));
            let family = family.unwrap_or(&name);
            assert!(documented.contains_key(family), "the {file} names {name}");
            named += 1;
        }
        assert!(named > 10, "{file}: {named}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../deploy/grafana/weir.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has its own id");
    for panel in panels {
        let place = &panel["gridPos"];
        let right = place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap();
        assert!(right <= 24, "{}", panel["title"]);
        assert!(
            panel["type"] == "row" || !panel["targets"].as_array().unwrap().is_empty(),
            "{panel}"
        );
    }
}

/// Media that is relayed until it is told to stop.
async fn media(server: &Server) -> (JoinHandle<()>, u64) {
    let room = server.create_room(on_first_worker()).await.unwrap();
    let comedia = PlainTransportOptions {
        comedia: true,
        ..PlainTransportOptions::default()
    };
    let sending = room.create_plain_transport(comedia).await.unwrap();
    let producer = sending.produce(opus(111, 7)).await.unwrap();
    let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let receiving = plain_to(&room, receiver.local_addr().unwrap()).await;
    for paused in [false, true] {
        let options = ConsumerOptions {
            paused,
            ..ConsumerOptions::default()
        };
        receiving.consume(&producer, options).await.unwrap();
    }
    let tuple = sending.tuple();
    let to = (tuple.bound_ip, tuple.local_port);
    let id = room.id().0;
    let microphone = tokio::spawn(async move {
        let _receiver = receiver;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        for number in 0_u16.. {
            socket.send_to(&packet(7, number), to).await.unwrap();
            // No RTP, and of no stream.
            socket.send_to(b"nonsense that is long enough", to).await.unwrap();
            socket.send_to(&packet(8, number), to).await.unwrap();
            ticks.tick().await;
        }
    });
    (microphone, id)
}

#[tokio::test]
async fn no_counter_goes_back_when_a_worker_is_killed_and_packets_add_up() {
    let monitored = Monitored::new(metrics_limits(Limits::default())).await;
    let server = start(settings(1)).await;
    let _control = app(server.clone(), monitored.options());
    let (microphone, _) = media(&server).await;
    let mut scrapes = Vec::new();
    let flows = |scrape: &Scrape| scrape.number("weir_consumer_packets_forwarded_total", &[("worker", "1")]);
    for kills in 0..3_u64 {
        let before = scrapes.last().map_or(0.0, flows);
        // It flows, also after a death.
        soon("packets that were counted", async {
            loop {
                let scrape = monitored.fresh().await;
                let flowing = flows(&scrape) > before + 20.0;
                scrapes.push(scrape);
                if flowing {
                    break;
                }
            }
        })
        .await;
        let worker = &server.workers()[0];
        assert_eq!(worker.restarts, kills);
        kill(Pid::from_raw(worker.pid.unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        soon("its successor", async {
            while server.workers()[0].restarts == kills || server.workers()[0].state != WorkerState::Running {
                scrapes.push(monitored.scrape().await);
                ticks.tick().await;
            }
        })
        .await;
    }
    scrapes.push(monitored.fresh().await);
    for pair in scrapes.windows(2) {
        let later: BTreeMap<_, _> = pair[1]
            .samples
            .iter()
            .map(|(series, number)| (series, *number))
            .collect();
        for (series, number) in &pair[0].samples {
            if pair[0].is_counter(series) {
                let now = later.get(series).copied();
                assert!(
                    now.is_some_and(|now| now >= *number),
                    "{series:?}: {number}, then {now:?}"
                );
            }
        }
    }
    let last = scrapes.last().unwrap();
    assert_eq!(last.number("weir_worker_restarts_total", &[("worker", "1")]), 3.0);
    let dropped = last.sum("weir_consumer_packets_dropped_total", &[]);
    let forwarded = flows(last);
    assert!(forwarded > 60.0 && dropped > 60.0, "{forwarded}, {dropped}");
    let offered = last.number("weir_consumer_packets_offered_total", &[("worker", "1")]);
    assert_eq!(offered, forwarded + dropped, "each packet is somewhere");
    for reason in ["unknownStream", "malformed"] {
        let unrouted = last.number("weir_unrouted_packets_total", &[("worker", "1"), ("reason", reason)]);
        assert!(unrouted > 10.0, "{reason}: {unrouted}");
    }
    microphone.abort();
    monitored.end().await;
    soon("the server's end", server.close()).await;
}

#[tokio::test]
async fn a_worker_that_hangs_holds_nobody_up_and_what_it_said_last_is_told() {
    let monitored = Monitored::new(metrics_limits(Limits::default())).await;
    let server = start(settings(2)).await;
    let _control = app(server.clone(), monitored.options());
    let (microphone, _) = media(&server).await;
    soon("packets that were counted", async {
        while monitored
            .fresh()
            .await
            .sum("weir_packets_received_total", &[("worker", "1")])
            == 0.0
        {}
    })
    .await;
    let before = monitored.fresh().await;
    let pid = Pid::from_raw(server.workers()[0].pid.unwrap().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let after = monitored.fresh().await;
    kill(pid, Signal::SIGCONT).unwrap();
    let packets = |scrape: &Scrape| scrape.number("weir_packets_received_total", &[("worker", "1")]);
    assert!(packets(&after) >= packets(&before));
    let says = |worker| after.find("weir_worker_resident_bytes", &[("worker", worker)]);
    assert!(says("2").is_some(), "the others are asked as ever");
    microphone.abort();
    monitored.end().await;
    soon("the server's end", server.close()).await;
}

#[tokio::test]
async fn probes_are_told_when_the_server_starts_serves_and_closes() {
    let monitored = Monitored::new(metrics_limits(Limits::default())).await;
    let unready = async |because: &str| {
        for target in ["/ready", "/health"] {
            let answer = monitored.get(target).await;
            assert_eq!(answer.status, 503, "{}", answer.text);
            assert!(answer.text.contains(because), "{}", answer.text);
        }
        let scrape = monitored.fresh().await;
        assert_eq!(scrape.number("weir_ready", &[]), 0.0);
        assert_eq!(scrape.number("weir_health", &[("status", "down")]), 1.0);
    };
    unready("the server is starting").await;
    let server = start(settings(2)).await;
    let control = app(server.clone(), monitored.options());
    assert_eq!(monitored.get("/ready").await.expect(200)["ready"], true);
    assert_eq!(monitored.get("/health").await.expect(200)["status"], "ok");
    assert_eq!(monitored.ask("HEAD", "/ready", &[]).await.status, 200);

    // A worker less, and it still takes rooms.
    let pid = Pid::from_raw(server.workers()[0].pid.unwrap().try_into().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    for _ in 0..20 {
        assert_eq!(monitored.get("/ready").await.status, 200);
        assert_eq!(monitored.get("/health").await.status, 200);
    }
    soon("the server's end", server.close()).await;
    unready("the server is closing").await;
    drop((control, server));
    unready("the server is closing").await;
    monitored.end().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused() {
    let monitored = Monitored::new(metrics_limits(Limits::default())).await;
    for method in ["POST", "DELETE", "PUT", "BREW"] {
        monitored
            .ask(method, "/metrics", &[])
            .await
            .refuses(405, "methodNotAllowed", "GET");
    }
    for target in ["/", "/rooms", "/metrics/", "/stats"] {
        monitored.get(target).await.refuses(404, "unknownRoute", "/metrics");
    }
    for query in [
        "rooms=0",
        "rooms=1001",
        "rooms=-1",
        "rooms=x",
        "rooms=",
        "room=1",
        "rooms=1&rooms=2",
    ] {
        let answer = monitored.get(&format!("/metrics?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
    }
    // Another site that has its name lead here, and somebody's proxy.
    for headers in [
        &[("host", "evil.example")][..],
        &[("host", "localhost"), ("x-forwarded-for", "192.0.2.1")],
        &[],
    ] {
        let answer = monitored.connect().await.say("GET", "/metrics", headers, "").await;
        answer.refuses(403, "noStrangers", "metrics_listen");
        // A probe says nothing of itself.
        let answer = monitored.connect().await.say("GET", "/ready", headers, "").await;
        assert_eq!(answer.status, 503, "{}", answer.text);
    }
    let mut stream = TcpStream::connect(monitored.address).await.unwrap();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let mut said = Vec::new();
    let _ = soon("the end of a head too long", stream.read_to_end(&mut said)).await;
    assert!(said.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&said));
    monitored.end().await;
}

#[tokio::test]
async fn whoever_opens_many_connections_or_never_reads_displaces_itself() {
    let limits = Limits {
        strangers: 8,
        strangers_per_network: 8,
        stall: Duration::from_millis(100),
        ..metrics_limits(Limits::default())
    };
    let monitored = Monitored::new(limits).await;
    let server = start(settings(1)).await;
    let _control = app(server.clone(), monitored.options());
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(monitored.address).await.unwrap());
    }
    assert_eq!(monitored.get("/ready").await.status, 200);
    // Asks again and again, and never reads.
    let mut greedy = TcpStream::connect(monitored.address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    soon("the server to hang up", async {
        while greedy.write_all(request).await.is_ok() {}
    })
    .await;
    assert_eq!(monitored.get("/metrics").await.status, 200);
    monitored.end().await;
    soon("the server's end", server.close()).await;
}

/// Ten thousand consumers, as `cargo test --release --test http_metrics -- --ignored --nocapture` measures them.
#[tokio::test]
#[ignore = "takes a while, and says something only in release, on a machine with nothing else to do"]
async fn a_scrape_of_ten_thousand_consumers_is_cheap() {
    const CONSUMERS: usize = 10_000;
    let monitored = Monitored::new(metrics_limits(Limits::default())).await;
    let server = start(settings(1)).await;
    let _control = app(server.clone(), monitored.options());
    let room = server.create_room(RoomOptions::default()).await.unwrap();
    let transport = room
        .create_plain_transport(PlainTransportOptions::default())
        .await
        .unwrap();
    let producer = transport.produce(opus(111, 7)).await.unwrap();
    let mut transports = Vec::new();
    for _ in 0..50 {
        transports.push(plain_to(&room, "127.0.0.1:9".parse().unwrap()).await);
    }
    for number in 0..CONSUMERS {
        let paused = ConsumerOptions {
            paused: true,
            ..ConsumerOptions::default()
        };
        transports[number % 50].consume(&producer, paused).await.unwrap();
    }
    let worker_cpu = async || {
        monitored
            .fresh()
            .await
            .number("weir_worker_cpu_seconds_total", &[("worker", "1")])
    };
    let own_cpu = async || monitored.fresh().await.number("weir_supervisor_cpu_seconds_total", &[]);
    let mut took = Vec::new();
    let (worker_before, own_before) = (worker_cpu().await, own_cpu().await);
    let began = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(1_050));
    for _ in 0..20 {
        ticks.tick().await;
        let began = tokio::time::Instant::now();
        let answer = monitored.get("/metrics").await;
        took.push(began.elapsed());
        assert!(answer.text.contains("weir_consumers{"));
    }
    let (worker_after, own_after) = (worker_cpu().await, own_cpu().await);
    let elapsed = began.elapsed().as_secs_f64();
    took.sort();
    println!(
        "scrape of {CONSUMERS} consumers: median {:?}, longest {:?}; CPU a scrape of the supervisor (with the test's client): {:.2} ms; \
         of the worker, with all it does in a second: {:.3} % of a core",
        took[10],
        took[19],
        (own_after - own_before) / 22.0 * 1e3,
        (worker_after - worker_before) / elapsed * 100.0
    );
    monitored.end().await;
    soon("the server's end", server.close()).await;
}
