//! The kernel lets a user have only so many unread descriptors in flight (as many as RLIMIT_NOFILE), and offers nothing to wait
//! for when there are more. Requests with descriptors then wait, and arrive.
//!
//! Alone in its program, because it lowers limits and privileges of the whole process.

mod common;

use std::os::fd::{AsFd, OwnedFd};

use common::{PATIENCE, deadline, flush, hello, pipe, socketpair, wait_readable};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, setuid};
use weir_channel::descriptors::{receive, send_with_descriptors};
use weir_channel::endpoint::{SupervisorEndpoint, WorkerEndpoint};
use weir_channel::error::ChannelError;
use weir_channel::id::{RequestId, RoomId, TransportId};
use weir_channel::message::{ComediaPolicy, CreatePlainTransport, Method, Request};

/// Requests with four descriptors each.
const REQUESTS: u64 = 16;
const LIMIT: u64 = 128;

fn descriptors() -> Vec<OwnedFd> {
    let (read, write) = pipe();
    let more = [&read, &write].map(|descriptor| descriptor.try_clone().expect("a number"));
    [read, write].into_iter().chain(more).collect()
}

#[test]
fn requests_wait_for_the_kernel() {
    // Root may have any number in flight; the user who is nobody may not. An ordinary user stays who he is.
    if Uid::effective().is_root() {
        setuid(Uid::from_raw(65_534)).expect("root may");
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
    setrlimit(Resource::RLIMIT_NOFILE, LIMIT, hard).expect("lowered");

    // The limit is there: this is what the kernel says.
    let (ours, theirs) = socketpair();
    let refused = std::iter::repeat_with(|| send_with_descriptors(ours.as_fd(), b"x", &descriptors()))
        .take(LIMIT as usize)
        .find_map(Result::err);
    assert_eq!(refused, Some(Errno::ETOOMANYREFS));
    // As long as nobody reads these, nobody can send more. The worker's end reads later, in a thread of its own.
    let (socket, worker_socket) = socketpair();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut endpoint = WorkerEndpoint::new(worker_socket, hello()).expect("a Hello fits");
    flush(&mut endpoint);
    let (sender, mut receiver) = runtime
        .block_on(SupervisorEndpoint::connect(socket, hello(), PATIENCE))
        .expect("a Hello")
        .split();
    let request = |id| Request {
        id: RequestId(id),
        deadline: deadline(),
        method: Method::CreatePlainTransport(CreatePlainTransport {
            room: RoomId(1),
            transport: TransportId(id),
            remote: None,
            comedia: true,
            rtcp_mux: false,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        }),
    };
    runtime.block_on(async {
        for id in 1..=REQUESTS {
            sender.send(request(id), descriptors()).await.expect("queued");
        }
        for _ in 0..100 {
            tokio::task::yield_now().await; // the writer has tried
        }
        assert!(
            endpoint.poll_request().expect("no error").is_none(),
            "the kernel has not let it pass"
        );
        // Somebody reads: it goes on.
        while receive(theirs.as_fd(), &mut [0; 1]).is_ok() {}
        let worker = std::thread::spawn(move || {
            let mut ids = Vec::new();
            while ids.len() < REQUESTS as usize {
                match endpoint.poll_request().expect("a request") {
                    Some((request, descriptors)) => {
                        assert_eq!(descriptors.len(), 4);
                        ids.push(request.id.0);
                    }
                    None => wait_readable(&endpoint),
                }
            }
            ids
        });
        assert_eq!(
            receiver.next().await.unwrap_err(),
            ChannelError::Closed,
            "the worker has seen all and gone"
        );
        assert_eq!(worker.join().expect("no panic"), (1..=REQUESTS).collect::<Vec<_>>());
    });
}
