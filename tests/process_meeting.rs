//! Meetings come and go and leave nothing behind: no object, no descriptor, no memory. A program of its own, so that no
//! other test opens descriptors meanwhile.

mod loopback;
mod meeting;
mod processes;

use weir::{RoomOptions, Server};

use loopback::PATIENCE;
use processes::{descriptors, settings, soon};

/// What a worker holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    descriptors: usize,
    rooms: u64,
    transports: u64,
    producers: u64,
    consumers: u64,
}

impl Held {
    async fn by(server: &Server) -> Self {
        let worker = &server.workers()[0];
        let stats = soon(server.worker_stats(worker.id)).await.expect("counters");
        Self {
            descriptors: descriptors(worker.pid.expect("it runs")).len(),
            rooms: stats.rooms,
            transports: stats.transports,
            producers: stats.producers,
            consumers: stats.consumers,
        }
    }
}

fn supervisor_descriptors() -> usize {
    descriptors(std::process::id()).len()
}

async fn meetings(rounds: usize, peers: u32) {
    let server = soon(Server::start(settings(1))).await.expect("the server starts");
    let mut held = Vec::new();
    let mut supervisor_held = Vec::new();
    let mut resident = Vec::new();
    for round in 0..rounds {
        let room = soon(server.create_room(RoomOptions::default())).await.expect("a room");
        let (members, consumers) = soon(meeting::convene(&room, peers)).await.expect("a meeting");
        assert_eq!(consumers, 2 * (peers * (peers - 1)) as usize);
        let worker = server.workers()[0].id;
        let stats = soon(server.worker_stats(worker)).await.expect("counters");
        assert_eq!(
            (stats.transports, stats.producers, stats.consumers),
            (2 * u64::from(peers), 2 * u64::from(peers), consumers as u64)
        );
        // Some meetings end because everybody leaves, some because the room is closed.
        if round % 2 == 0 {
            soon(meeting::adjourn(members)).await.expect("they leave");
            assert!(room.peers().is_empty());
        }
        soon(room.close(serde_json::Value::Null)).await.expect("it closes");
        assert!(server.rooms().is_empty());
        held.push(Held::by(&server).await);
        supervisor_held.push(supervisor_descriptors());
        resident.push(
            soon(server.worker_stats(worker))
                .await
                .expect("counters")
                .resident_bytes,
        );
    }
    // What the first meeting made the runtime and the allocators keep, the later ones use again.
    for (round, now) in held.iter().enumerate().skip(1) {
        assert_eq!(*now, held[0], "after meeting {round}");
    }
    // The supervisor has some more while the spare of a worker that has grown is replaced by a larger one: there are two of them then.
    let least = supervisor_held.iter().copied().min().expect("at least one meeting");
    let settles = async {
        while supervisor_descriptors() > least {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, settles).await.is_ok(),
        "the supervisor keeps {} descriptors; after each meeting it had {supervisor_held:?}",
        supervisor_descriptors()
    );
    assert_eq!((held[0].transports, held[0].producers, held[0].consumers), (0, 0, 0));
    // What a meeting leaves resident depends on what its last frees gave back to the system, and varies twofold. A leak
    // raises even the most of the second half above the most of the first.
    let most = |of: &[u64]| of.iter().copied().max().expect("at least one meeting");
    let (early, late) = (most(&resident[..rounds / 2]), most(&resident[rounds / 2..]));
    assert!(
        late <= early + early / 4,
        "the worker grows with every meeting: {resident:?}"
    );
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meetings_leave_nothing() {
    meetings(6, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_hundred_meetings_of_fifty_leave_nothing() {
    meetings(100, 50).await;
}
