//! Descriptors of the supervisor, counted: a program of its own, so that no other test opens any meanwhile.

mod loopback;
mod processes;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weir::{EventKind, PlainTransportOptions, RoomOptions, Server};

use processes::{descriptors, gone, settings, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_deaths_leak_no_descriptor_and_no_process() {
    let own = std::process::id();
    let mut baseline = None;
    for round in 0..200 {
        // A server for each death: within one, the back-off would make this take long.
        let server = Server::start(settings(1)).await.unwrap();
        let mut events = server.events();
        let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
        let transport = soon(room.create_plain_transport(PlainTransportOptions {
            rtcp_mux: round % 2 == 0,
            ..PlainTransportOptions::default()
        }))
        .await
        .unwrap();
        let pid = server.workers()[0].pid.unwrap();
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        while !matches!(soon(events.next()).await.unwrap().kind, EventKind::WorkerDied { .. }) {}
        assert!(!transport.closed());
        gone(pid).await;
        // Every other round the successor is up when the server closes.
        if round % 2 == 0 {
            while !matches!(
                soon(events.next()).await.unwrap().kind,
                EventKind::WorkerRestored { .. }
            ) {}
        }
        soon(server.close()).await;
        drop((server, events, room, transport));
        // The tasks and the thread of the server let go of the last descriptors when they are next scheduled.
        let settled = soon(async {
            loop {
                let now = descriptors(own);
                match baseline {
                    Some(count) if now.len() > count => tokio::task::yield_now().await,
                    _ => return now,
                }
            }
        });
        let now = settled.await;
        // In the first round the runtime opens what it keeps.
        // What another thread had not let go of yet when it was first counted is gone later; it never becomes more.
        baseline = match baseline {
            None if round == 0 => None,
            None => Some(now.len()),
            Some(count) => {
                assert!(now.len() <= count, "round {round}, after {count}: {now:?}");
                Some(now.len())
            }
        };
    }
}
