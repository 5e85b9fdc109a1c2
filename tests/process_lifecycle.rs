//! Real worker processes: they start, take rooms, and end.

#![allow(clippy::unwrap_used, reason = "tests")]

mod loopback;
mod processes;

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::Value;
use weir::{EventKind, PlainTransportOptions, PortRange, RoomOptions, Server, Settings, WorkerState};

use processes::{descriptors, is_alive, settings, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_start_and_end_with_their_server() {
    let server = Server::start(settings(2)).await.unwrap();
    let workers = server.workers();
    assert_eq!(workers.len(), 2);
    let mut pids = Vec::new();
    for (index, worker) in workers.iter().enumerate() {
        assert_eq!((worker.id.0, worker.state), (index as u32 + 1, WorkerState::Running));
        assert_eq!((worker.rooms, worker.restarts, &worker.last_exit), (0, 0, &None));
        pids.push(worker.pid.unwrap());
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    let mut events = server.events();
    soon(server.close()).await;
    assert_eq!(soon(events.next()).await.unwrap().kind, EventKind::ServerClosed);
    assert!(soon(events.next()).await.is_none());
    // Not even a zombie is left.
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert!(
        server
            .workers()
            .iter()
            .all(|worker| worker.state == WorkerState::Closed)
    );
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_worker_is_pinned_to_its_own_cpu_of_those_allowed() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = cpus_allowed(&status);
    let count = allowed.len() as u32 + 1; // one more than there are, so that two share the first
    let server = Server::start(settings(count)).await.unwrap();
    for (index, worker) in server.workers().iter().enumerate() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid.unwrap())).unwrap();
        let cpu = allowed[index % allowed.len()];
        assert_eq!((cpus_allowed(&status), worker.cpu), (vec![cpu], Some(cpu)));
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        assert!(status.contains("Threads:\t1"), "{status}");
    }
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_memory_runs_out_a_worker_goes_before_its_supervisor() {
    let score = |pid: u32| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let own = score(std::process::id());
    let server = Server::start(settings(2)).await.unwrap();
    for worker in server.workers() {
        assert_eq!(score(worker.pid.unwrap()), (own + 300).min(1_000));
    }
    soon(server.close()).await;
}

/// The CPUs of a process, from a line like `Cpus_allowed_list: 0-1,3`.
fn cpus_allowed(status: &str) -> Vec<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = list.unwrap().trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<usize>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_gets_no_descriptor_but_its_own() {
    // What careless code leaves open for its children: `dup` does not set CLOEXEC.
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let _leak = nix::unistd::dup(&file).unwrap();
    let first = Server::start(settings(1)).await.unwrap();
    let second = Server::start(settings(1)).await.unwrap();
    for server in [&first, &second] {
        let pid = server.workers()[0].pid.unwrap();
        let idle = descriptors(pid);
        let stdio: Vec<&str> = (0..3).map(|fd| idle[&fd].as_str()).collect();
        assert_eq!(&stdio[..2], ["/dev/null", "/dev/null"]);
        assert!(stdio[2].starts_with("pipe:"));
        let sockets = idle.values().filter(|target| target.starts_with("socket:")).count();
        assert_eq!(sockets, 1, "the channel: {idle:?}");
        let others: BTreeSet<&str> = idle
            .range(3..)
            .map(|(_, target)| target.as_str())
            .filter(|target| !target.starts_with("socket:"))
            .collect();
        // Its epoll, and where it reads how much memory it has. Of its page the mapping is enough.
        let statm = format!("/proc/{pid}/statm");
        let own = |target: &&str| target.starts_with("anon_inode:") || *target == statm;
        assert!(others.iter().all(own), "{idle:?}");
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"));
        assert!(maps.is_ok_and(|maps| maps.contains("weir-page")), "its page is mapped");

        let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
        let transport = soon(room.create_plain_transport(PlainTransportOptions::default()))
            .await
            .unwrap();
        let with_transport = descriptors(pid);
        assert_eq!(
            with_transport.len(),
            idle.len() + 2,
            "door and path: {with_transport:?}"
        );
        soon(transport.close(Value::Null)).await.unwrap();
        assert_eq!(descriptors(pid), idle);
    }
    soon(first.close()).await;
    soon(second.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_rooms_spread_over_two_workers() {
    let server = Server::start(settings(2)).await.unwrap();
    let rooms = soon(join_all((0..1_000).map(|_| server.create_room(RoomOptions::default())))).await;
    let rooms: Vec<weir::Room> = rooms.into_iter().collect::<Result<_, _>>().unwrap();
    let load: Vec<usize> = server.workers().iter().map(|worker| worker.rooms).collect();
    assert_eq!(load, [500, 500]);
    let transports = rooms
        .iter()
        .map(|room| room.create_plain_transport(PlainTransportOptions::default()));
    let transports = soon(join_all(transports)).await;
    let ports: BTreeSet<u16> = transports
        .iter()
        .map(|transport| transport.as_ref().unwrap().tuple().local_port)
        .collect();
    assert_eq!(ports.len(), 1_000);
    for worker in server.workers() {
        let stats = soon(server.worker_stats(worker.id)).await.unwrap();
        assert_eq!((stats.rooms, stats.transports), (500, 500));
    }
    soon(join_all(rooms.iter().map(|room| room.close(Value::Null)))).await;
    assert!(server.rooms().is_empty());
    for worker in server.workers() {
        let stats = soon(server.worker_stats(worker.id)).await.unwrap();
        assert_eq!((worker.rooms, stats.rooms, stats.transports), (0, 0, 0));
    }
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_ends_the_workers() {
    let server = Server::start(settings(2)).await.unwrap();
    let pids: Vec<u32> = server.workers().iter().map(|worker| worker.pid.unwrap()).collect();
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    let mut events = server.events();
    let clone = server.clone();
    drop(server);
    assert!(!clone.closed());
    drop(clone);
    assert!(room.closed(), "a handle on a room does not keep the server");
    while soon(events.next()).await.is_some() {}
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn a_single_threaded_runtime_is_enough() {
    let server = Server::start(settings(1)).await.unwrap();
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    soon(room.close(Value::Null)).await.unwrap();
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_worker_for_each_cpu_is_the_default() {
    let server = Server::start(Settings {
        workers: None,
        ..settings(1)
    })
    .await
    .unwrap();
    let cpus = std::thread::available_parallelism().unwrap();
    assert_eq!(server.workers().len(), cpus.get());
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_of_a_closed_transport_is_free_at_once_although_a_spare_has_had_it_too() {
    let mut others = BTreeSet::new();
    let server = loop {
        let port = loopback::free_ports(2);
        // RTP has one, RTCP the other; another program may have them by then.
        assert!(others.insert(port), "no ports stay free: {others:?}");
        let only_two = Settings {
            rtc_ports: PortRange::new(port, port + 1).unwrap(),
            ..settings(1)
        };
        if let Ok(server) = Server::start(only_two).await {
            break server;
        }
    };
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    for _ in 0..200 {
        let transport = soon(room.create_plain_transport(PlainTransportOptions::default())).await;
        soon(transport.unwrap().close(Value::Null)).await.unwrap();
    }
    soon(server.close()).await;
}
