//! Both ends of a channel talking to each other over a real socketpair.

mod common;

use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{Worker, deadline, hello, pipe, socketpair};
use weir_channel::endpoint::{FromWorker, SupervisorEndpoint};
use weir_channel::error::ChannelError;
use weir_channel::id::{RequestId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    ComediaPolicy, CreatePlainTransport, Hello, Method, PROTOCOL_VERSION, Reply, Request, Response,
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
