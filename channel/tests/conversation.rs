//! Both ends of a channel talking to each other over a real socketpair.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use common::{Worker, deadline, hello, pipe, socketpair};
use weir_channel::endpoint::{FromWorker, SupervisorEndpoint, Together};
use weir_channel::error::ChannelError;
use weir_channel::frame::MAX_FRAME;
use weir_channel::id::{RequestId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    ComediaPolicy, CreatePlainTransport, Hello, LogFilter, Method, PROTOCOL_VERSION, Reply, Request, Response,
};

#[tokio::test]
async fn a_request_is_answered_and_its_descriptors_arrive() {
    let (ours, theirs) = socketpair();
    let worker = Worker::spawn(theirs, hello(), |endpoint| {
        let mut served = Vec::new();
        while served.len() < 2 {
            common::wait_readable(endpoint);
            while let Some((request, descriptors)) = endpoint.poll_request().expect("a request") {
                for descriptor in &descriptors {
                    common::assert_close_on_exec(descriptor);
                }
                served.push((request.method.clone(), descriptors.len()));
                endpoint
                    .push_response(Response {
                        id: request.id,
                        result: Ok(Reply::Done),
                    })
                    .expect("room");
            }
            common::flush(endpoint);
        }
        served
    });
    let endpoint = SupervisorEndpoint::connect(ours, hello(), Duration::from_secs(20))
        .await
        .expect("a Hello");
    assert_eq!(endpoint.worker().worker, WorkerId(1));
    let (sender, mut receiver) = endpoint.split();
    let create = Method::CreatePlainTransport(CreatePlainTransport {
        room: RoomId(1),
        transport: TransportId(2),
        remote: None,
        comedia: true,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    });
    let (read, write) = pipe();
    let numbers = [read.as_raw_fd(), write.as_raw_fd()];
    for (id, method, descriptors) in [(1, create.clone(), vec![read, write]), (2, Method::Ping, vec![])] {
        let request = Request {
            id: RequestId(id),
            deadline: deadline(),
            method,
        };
        sender.send(request, descriptors).await.expect("queued");
        let FromWorker::Response(response) = receiver.next().await.expect("an answer") else {
            panic!("expected a response");
        };
        assert_eq!(response.id, RequestId(id));
    }
    assert_eq!(worker.join(), vec![(create, 2), (Method::Ping, 0)]);
    assert_eq!(receiver.next().await.unwrap_err(), ChannelError::Closed);
    assert!(numbers.iter().all(|number| *number > 2));
}

/// Requests in one frame are requests as any others, each with its own descriptors, in their order.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_sent_together_are_served_one_by_one() {
    let (ours, theirs) = socketpair();
    let worker = Worker::spawn(theirs, hello(), |endpoint| {
        let mut served = Vec::new();
        while served.len() < 5 {
            if !endpoint.has_buffered_input() {
                common::wait_readable(endpoint);
            }
            // One in a turn: what is left is not forgotten.
            if let Some((request, descriptors)) = endpoint.poll_request().expect("a request") {
                let inodes: Vec<u64> = descriptors.iter().map(inode).collect();
                served.push((request.id.0, inodes));
            }
        }
        served
    });
    let endpoint = SupervisorEndpoint::connect(ours, hello(), Duration::from_secs(20))
        .await
        .expect("a Hello");
    let (sender, _receiver) = endpoint.split();
    let (read, write) = pipe();
    let (other, _kept) = pipe();
    let expected = [inode(&read), inode(&write), inode(&other)];
    let request = |id| Request {
        id: RequestId(id),
        deadline: deadline(),
        method: Method::Ping,
    };
    let mut together = Together::default();
    together.push(request(1), vec![]).expect("room");
    together.push(request(2), vec![read, write]).expect("room");
    together.push(request(3), vec![]).expect("room");
    together.push(request(4), vec![other]).expect("room");
    sender.send_together(&mut together).await.expect("queued");
    assert!(together.is_empty());
    sender.send(request(5), vec![]).await.expect("queued");
    let [read, write, other] = expected;
    let served = [
        (1, vec![]),
        (2, vec![read, write]),
        (3, vec![]),
        (4, vec![other]),
        (5, vec![]),
    ];
    assert_eq!(worker.join(), served);
}

fn inode(descriptor: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(descriptor).expect("open").st_ino
}

/// What is too long for one frame is still there, and goes in two.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_long_together_are_not_lost() {
    let (ours, theirs) = socketpair();
    let worker = Worker::spawn(theirs, hello(), |endpoint| {
        let mut served = Vec::new();
        while served.len() < 3 {
            if !endpoint.has_buffered_input() {
                common::wait_readable(endpoint);
            }
            if let Some((request, descriptors)) = endpoint.poll_request().expect("a request") {
                served.push((request.id.0, descriptors.len()));
            }
        }
        served
    });
    let endpoint = SupervisorEndpoint::connect(ours, hello(), Duration::from_secs(20))
        .await
        .expect("a Hello");
    let (sender, _receiver) = endpoint.split();
    let mut together = Together::default();
    for id in 1..=3 {
        let directives = "x".repeat(MAX_FRAME / 2);
        let request = Request {
            id: RequestId(id),
            deadline: deadline(),
            method: Method::SetLogFilter(LogFilter { directives }),
        };
        let descriptors = if id == 1 { vec![] } else { vec![pipe().0] };
        together.push(request, descriptors).expect("room");
    }
    assert!(matches!(
        sender.send_together(&mut together).await,
        Err(ChannelError::Unsendable(_))
    ));
    assert_eq!(together.len(), 3);
    let mut parts = vec![together];
    while let Some(mut part) = parts.pop() {
        if sender.send_together(&mut part).await.is_err() {
            let second = part.split();
            parts.extend([second, part]);
        }
    }
    assert_eq!(worker.join(), [(1, 0), (2, 1), (3, 1)]);
}

#[tokio::test]
async fn versions_that_differ_are_named_at_both_ends() {
    let (ours, theirs) = socketpair();
    let future = Hello {
        protocol: 1_000,
        build: String::from("9.1.0"),
        ..hello()
    };
    let worker = Worker::spawn(theirs, future, |endpoint| {
        common::flush(endpoint);
        common::wait_readable(endpoint);
        endpoint.poll_request().expect_err("a mismatch")
    });
    let error = SupervisorEndpoint::connect(ours, hello(), Duration::from_secs(20))
        .await
        .expect_err("a mismatch");
    assert_eq!(
        error.to_string(),
        format!(
            "protocol version mismatch: this end speaks version {PROTOCOL_VERSION} (build 0.1.0), the peer version 1000 (build 9.1.0)"
        )
    );
    assert_eq!(
        worker.join().to_string(),
        format!(
            "protocol version mismatch: this end speaks version 1000 (build 9.1.0), the peer version {PROTOCOL_VERSION} (build 0.1.0)"
        )
    );
}
