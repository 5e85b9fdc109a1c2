//! What a peer can do wrong, and what each end says about it. The peer is a bare socket.

mod common;
#[path = "common/messages.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod messages;

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use common::{PATIENCE, hello, pipe, socketpair, wait_for};
use nix::poll::PollFlags;
use weir_channel::codec::CodecError;
use weir_channel::descriptors::{DescriptorError, MAX_DESCRIPTORS, receive, send, send_with_descriptors};
use weir_channel::endpoint::{FromWorker, RequestSender, SupervisorEndpoint, WorkerEndpoint, WorkerReceiver};
use weir_channel::error::ChannelError;
use weir_channel::frame::{self, Decoder, FrameError, MAX_FRAME};
use weir_channel::id::{RequestId, TransportId, WorkerId};
use weir_channel::log::{TARGET_MAX, TEXT_MAX};
use weir_channel::message::{
    Deadline, Hello, IceProtocol, IceTuple, LogLevel, LogLine, Message, Method, Notification, PROTOCOL_VERSION, Reply,
    Request, WorkerError,
};

fn frame_of(message: &Message) -> Vec<u8> {
    frame::encode(message).expect("fits")
}

fn our_hello() -> Vec<u8> {
    frame_of(&Message::Hello(hello()))
}

fn ping() -> Message {
    messages::request(Method::Ping)
}

fn pong() -> Message {
    messages::response(Ok(Reply::Done))
}

fn connection_proven() -> Notification {
    Notification::ConnectionProven {
        transport: TransportId(7),
        tuple: IceTuple {
            protocol: IceProtocol::Tcp,
            local: ([192, 0, 2, 1], 443).into(),
            remote: ([203, 0, 113, 9], 4_444).into(),
        },
    }
}

/// A worker's end to which a bare socket has said `stream` and then, if `closed`, closed.
fn worker_hears(stream: &[u8], closed: bool) -> (WorkerEndpoint, Option<OwnedFd>) {
    let (ours, theirs) = socketpair();
    let endpoint = WorkerEndpoint::new(theirs, hello()).expect("a Hello fits");
    assert_eq!(send(ours.as_fd(), &[IoSlice::new(stream)]), Ok(stream.len()));
    (endpoint, (!closed).then_some(ours))
}

/// The requests that a worker gets out of a stream, and what ends it.
fn worker_outcome(stream: &[u8]) -> (usize, ChannelError) {
    let (mut endpoint, _) = worker_hears(stream, true);
    let mut requests = 0;
    loop {
        match endpoint.poll_request() {
            Ok(Some(_)) => requests += 1,
            Ok(None) => panic!("the stream has an end"),
            Err(error) => {
                // It stays ended, for every use.
                assert_eq!(endpoint.poll_request().map(drop), Err(error.clone()));
                assert_eq!(endpoint.flush(), Err(error.clone()));
                assert!(!endpoint.wants_read() && !endpoint.wants_write() && !endpoint.has_buffered_input());
                return (requests, error);
            }
        }
    }
}

/// The messages that a supervisor gets out of a stream after the Hello, and what ends it.
async fn supervisor_outcome(stream: &[u8]) -> (usize, ChannelError) {
    let (sender, mut receiver, peer) = supervisor_hears(stream).await;
    drop(peer);
    let mut count = 0;
    loop {
        match receiver.next().await {
            Ok(_) => count += 1,
            Err(error) => {
                assert_eq!(receiver.next().await.map(drop), Err(error.clone()), "it stays ended");
                let Message::Request(request) = ping() else {
                    unreachable!()
                };
                assert_eq!(
                    sender.send(request, Vec::new()).await,
                    Err(error.clone()),
                    "for the senders too"
                );
                return (count, error);
            }
        }
    }
}

/// A supervisor's end to which a bare socket has said its Hello and `stream`.
async fn supervisor_hears(stream: &[u8]) -> (RequestSender, WorkerReceiver, OwnedFd) {
    let (ours, theirs) = socketpair();
    let stream = [&our_hello(), stream].concat();
    assert_eq!(send(theirs.as_fd(), &[IoSlice::new(&stream)]), Ok(stream.len()));
    let endpoint = SupervisorEndpoint::connect(ours, hello(), PATIENCE)
        .await
        .expect("a Hello");
    let (sender, receiver) = endpoint.split();
    (sender, receiver, theirs)
}

/// What stops a supervisor from connecting to a peer that says `stream` and closes.
async fn connect_outcome(stream: &[u8]) -> ChannelError {
    let (ours, theirs) = socketpair();
    assert_eq!(send(theirs.as_fd(), &[IoSlice::new(stream)]), Ok(stream.len()));
    drop(theirs);
    SupervisorEndpoint::connect(ours, hello(), PATIENCE)
        .await
        .expect_err("no channel comes of this")
}

/// (name, what a peer says after its Hello, messages that are understood, what ends the channel). `valid` is one message that
/// the peer may send.
fn faulty_streams(valid: &Message) -> Vec<(&'static str, Vec<u8>, usize, ChannelError)> {
    let hello_len = our_hello().len() as u64;
    let valid = frame_of(valid);
    let after_valid = hello_len + valid.len() as u64;
    let too_long = (MAX_FRAME as u32 + 1).to_le_bytes();
    let garbage = [&3_u32.to_le_bytes()[..], b"\xee\xee\xee"].concat();
    let trailing = {
        let mut longer = valid.clone();
        longer[0] += 1;
        longer.push(0);
        longer
    };
    let truncated = {
        let mut shorter = valid.clone();
        shorter[0] -= 1;
        shorter.pop();
        shorter
    };
    vec![
        ("closed", vec![], 0, ChannelError::Closed),
        ("closed after a message", valid.clone(), 1, ChannelError::Closed),
        (
            "closed in a prefix",
            [&valid[..], &[9, 0, 0]].concat(),
            1,
            ChannelError::ClosedInFrame {
                received: 3,
                expected: 4,
            },
        ),
        (
            "closed in a body",
            [&valid[..], &valid[..valid.len() - 1]].concat(),
            1,
            ChannelError::ClosedInFrame {
                received: valid.len() - 1,
                expected: valid.len(),
            },
        ),
        (
            "too long",
            [&valid[..], &too_long, b"whatever"].concat(),
            1,
            ChannelError::Frame {
                offset: after_valid,
                error: FrameError::TooLong { len: MAX_FRAME + 1 },
            },
        ),
        (
            "garbage",
            garbage,
            0,
            ChannelError::Codec {
                offset: hello_len,
                error: CodecError::Garbage(String::from(
                    "invalid value: integer `238`, expected variant index 0 <= i < 4",
                )),
            },
        ),
        (
            "an empty frame",
            [&valid[..], &[0; 4]].concat(),
            1,
            ChannelError::Codec {
                offset: after_valid,
                error: CodecError::Truncated { len: 0 },
            },
        ),
        (
            "a frame that goes on after its message",
            trailing,
            0,
            ChannelError::Codec {
                offset: hello_len,
                error: CodecError::Trailing {
                    used: valid.len() - 4,
                    len: valid.len() - 3,
                },
            },
        ),
        (
            "a frame that ends before its message",
            truncated,
            0,
            ChannelError::Codec {
                offset: hello_len,
                error: CodecError::Truncated { len: valid.len() - 5 },
            },
        ),
    ]
}

#[test]
fn what_a_worker_says_of_a_faulty_supervisor() {
    let mut cases = faulty_streams(&ping());
    for (kind, message) in [("Response", pong()), ("Hello", Message::Hello(hello()))]
        .into_iter()
        .chain(
            messages::notifications()
                .into_iter()
                .map(|event| ("Notification", Message::Notification(event))),
        )
    {
        let stream = [frame_of(&ping()), frame_of(&message)].concat();
        let sender = "supervisor";
        cases.push((kind, stream, 1, ChannelError::WrongDirection { sender, kind }));
    }
    for (name, stream, requests, error) in cases {
        let outcome = worker_outcome(&[our_hello(), stream].concat());
        assert_eq!(outcome, (requests, error), "{name}");
    }
}

#[tokio::test]
async fn what_a_supervisor_says_of_a_faulty_worker() {
    let mut cases = faulty_streams(&pong());
    for (kind, message) in [("Request", ping()), ("Hello", Message::Hello(hello()))] {
        let stream = [frame_of(&pong()), frame_of(&message)].concat();
        cases.push((kind, stream, 1, ChannelError::WrongDirection { sender: "worker", kind }));
    }
    for (name, stream, messages, error) in cases {
        assert_eq!(supervisor_outcome(&stream).await, (messages, error), "{name}");
    }
}

/// (name, the whole stream, what ends the channel) for streams that never come to a valid Hello.
fn faulty_hellos() -> Vec<(&'static str, Vec<u8>, ChannelError)> {
    let other_version = Hello {
        protocol: PROTOCOL_VERSION + 1,
        build: String::from("0.9.9"),
        ..hello()
    };
    let mismatch = ChannelError::VersionMismatch {
        ours: PROTOCOL_VERSION,
        our_build: String::from("0.1.0"),
        theirs: PROTOCOL_VERSION + 1,
        their_build: String::from("0.9.9"),
    };
    let mut extended = frame_of(&Message::Hello(other_version.clone()));
    extended[0] += 3;
    extended.extend_from_slice(&[1, 2, 3]);
    let mut trailing = our_hello();
    trailing[0] += 1;
    trailing.push(0);
    let other_worker = Hello::new("0.1.0", WorkerId(2));
    vec![
        ("nothing", vec![], ChannelError::Closed),
        (
            "half a Hello",
            our_hello()[..7].to_vec(),
            ChannelError::ClosedInFrame {
                received: 7,
                expected: our_hello().len(),
            },
        ),
        (
            "another version",
            frame_of(&Message::Hello(other_version)),
            mismatch.clone(),
        ),
        ("another version, whose Hello has more fields", extended, mismatch),
        (
            "our version, whose Hello has more fields",
            trailing,
            ChannelError::Codec {
                offset: 0,
                error: CodecError::Trailing {
                    used: our_hello().len() - 4,
                    len: our_hello().len() - 3,
                },
            },
        ),
        (
            "another worker's Hello",
            frame_of(&Message::Hello(other_worker)),
            ChannelError::WrongWorker {
                expected: WorkerId(1),
                got: WorkerId(2),
            },
        ),
        (
            "a request",
            frame_of(&ping()),
            ChannelError::HelloExpected { got: "Request" },
        ),
        (
            "a response",
            frame_of(&pong()),
            ChannelError::HelloExpected { got: "Response" },
        ),
        (
            "a protocol of text",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            ChannelError::Frame {
                offset: 0,
                error: FrameError::TooLong {
                    len: u32::from_le_bytes(*b"GET ") as usize,
                },
            },
        ),
    ]
}

#[tokio::test]
async fn what_both_say_of_a_faulty_hello() {
    for (name, stream, error) in faulty_hellos() {
        assert_eq!(worker_outcome(&stream), (0, error.clone()), "{name}");
        assert_eq!(connect_outcome(&stream).await, error, "{name}");
    }
}

/// The clear sentences, as an operator reads them.
#[test]
fn sentences() {
    let mut sentences: Vec<String> = faulty_hellos()
        .into_iter()
        .map(|(_, _, error)| error.to_string())
        .collect();
    sentences.extend(
        faulty_streams(&ping())
            .into_iter()
            .map(|(_, _, _, error)| error.to_string()),
    );
    sentences.extend(
        [
            ChannelError::ClosedHere,
            ChannelError::HelloTimeout {
                after: Duration::from_secs(5),
            },
            ChannelError::WrongDirection {
                sender: "worker",
                kind: "Request",
            },
            DescriptorError::TooMany { count: 7 }.into(),
            DescriptorError::Astray.into(),
            ChannelError::DescriptorsFromWorker { count: 1 },
            ChannelError::Overflow {
                queued_bytes: 67_108_900,
                max: 67_108_864,
            },
            ChannelError::Unsendable(FrameError::TooLong { len: 2_000_000 }),
            ChannelError::Os {
                call: "sendmsg",
                errno: nix::errno::Errno::ENOBUFS,
            },
        ]
        .map(|error| error.to_string()),
    );
    insta::assert_snapshot!(sentences.join("\n"));
}

/// The other way round: a supervisor that dies with the worker's words unread.
#[test]
fn a_worker_takes_a_reset_for_a_close() {
    let (mut endpoint, peer) = worker_hears(&[our_hello(), frame_of(&ping())].concat(), false);
    assert_eq!(endpoint.flush(), Ok(true));
    drop(peer); // with the worker's Hello unread
    assert!(
        endpoint
            .poll_request()
            .expect("what was sent before is read first")
            .is_some()
    );
    assert_eq!(endpoint.poll_request().map(drop), Err(ChannelError::Closed));
}

/// And a supervisor.
#[tokio::test]
async fn a_supervisor_says_hello_before_it_gives_up() {
    let (ours, theirs) = socketpair();
    let other = Hello {
        protocol: PROTOCOL_VERSION + 1,
        ..hello()
    };
    send(theirs.as_fd(), &[IoSlice::new(&frame_of(&Message::Hello(other)))]).expect("room");
    let outcome = SupervisorEndpoint::connect(ours, hello(), PATIENCE).await;
    assert!(matches!(outcome, Err(ChannelError::VersionMismatch { .. })));
    let mut buffer = [0; 1000];
    let received = receive(theirs.as_fd(), &mut buffer).expect("the supervisor's Hello");
    assert_eq!(&buffer[..received.bytes], our_hello());
}

/// A worker that finds the versions to differ has told the supervisor its own, whichever of the two looks first.
#[test]
fn a_worker_says_hello_before_it_gives_up() {
    let other = Hello {
        protocol: PROTOCOL_VERSION + 1,
        ..hello()
    };
    let (mut endpoint, peer) = worker_hears(&frame_of(&Message::Hello(other)), false);
    assert!(matches!(
        endpoint.poll_request(),
        Err(ChannelError::VersionMismatch { .. })
    ));
    let mut buffer = [0; 1000];
    let received = receive(peer.expect("open").as_fd(), &mut buffer).expect("the worker's Hello");
    assert_eq!(&buffer[..received.bytes], our_hello());
}

#[test]
fn a_worker_waits_for_what_has_not_come() {
    let (mut endpoint, peer) = worker_hears(&our_hello()[..9], false);
    let peer = peer.expect("open");
    assert_eq!(endpoint.poll_request().map(|request| request.is_none()), Ok(true));
    assert_eq!(endpoint.supervisor(), None);
    let rest = [&our_hello()[9..], &frame_of(&ping()), &frame_of(&ping())[..5]].concat();
    send(peer.as_fd(), &[IoSlice::new(&rest)]).expect("room");
    assert!(endpoint.poll_request().expect("valid").is_some());
    assert_eq!(endpoint.supervisor(), Some(&hello()));
    assert!(
        endpoint.has_buffered_input(),
        "half a request has been read; only another poll can tell"
    );
    assert!(endpoint.poll_request().expect("valid").is_none());
    assert!(!endpoint.has_buffered_input());
}

/// Nobody trusts a worker: its log lines are made harmless on arrival.
#[tokio::test]
async fn log_lines_arrive_printable() {
    let line = |target: &str, text: &str| {
        Notification::Log(LogLine {
            level: LogLevel::Info,
            target: target.to_owned(),
            text: text.to_owned(),
        })
    };
    let long = "x".repeat(100_000);
    let stream = [line("a\nb", "\u{1b}[31mred"), line(&long, &long)].map(|line| frame_of(&Message::Notification(line)));
    let (_sender, mut receiver, _peer) = supervisor_hears(&stream.concat()).await;
    let escaped = line(r"a\nb", r"\u{1b}[31mred");
    assert!(matches!(receiver.next().await, Ok(FromWorker::Notification(heard)) if heard == escaped));
    let cut = line(&long[..TARGET_MAX], &long[..TEXT_MAX]);
    assert!(matches!(receiver.next().await, Ok(FromWorker::Notification(heard)) if heard == cut));
}

/// A worker that dies with requests unread resets the connection; what it said before is read all the same.
#[tokio::test]
async fn a_reset_is_a_close_after_the_last_words() {
    let (sender, mut receiver, peer) = supervisor_hears(&frame_of(&pong())).await;
    let Message::Request(request) = ping() else {
        unreachable!()
    };
    sender.send(request, Vec::new()).await.expect("queued");
    drop(peer); // with the supervisor's Hello unread, if not the request
    // The writer finds nobody to write to; that must not cost what the worker has said.
    for _ in 0..3 {
        let Message::Request(request) = ping() else {
            unreachable!()
        };
        sender
            .send(request, Vec::new())
            .await
            .expect("accepted: how the worker ended is not known yet");
        tokio::task::yield_now().await;
    }
    assert!(matches!(receiver.next().await, Ok(FromWorker::Response(_))));
    assert_eq!(receiver.next().await.unwrap_err(), ChannelError::Closed);
}

#[tokio::test(start_paused = true)]
async fn no_hello_in_time() {
    let (ours, theirs) = socketpair();
    let after = Duration::from_secs(5);
    let outcome = SupervisorEndpoint::connect(ours, hello(), after).await;
    assert_eq!(
        outcome.expect_err("nobody speaks"),
        ChannelError::HelloTimeout { after }
    );
    // The socket is closed: the supervisor's Hello is followed by the end.
    let mut heard = Vec::new();
    loop {
        wait_readable_while_tokio_runs(&theirs).await;
        let mut buffer = [0; 1000];
        match receive(theirs.as_fd(), &mut buffer).expect("readable").bytes {
            0 => break,
            count => heard.extend_from_slice(&buffer[..count]),
        }
    }
    assert_eq!(heard, our_hello());
}

/// A supervisor that was stopped, or got no CPU, finds a Hello that came long ago.
#[tokio::test(start_paused = true)]
async fn a_hello_that_lies_in_the_channel_is_read_before_time_is_up() {
    for stopped_at in [4_999, 0].repeat(30) {
        let (ours, theirs) = socketpair();
        let connecting = tokio::spawn(SupervisorEndpoint::connect(ours, hello(), Duration::from_secs(5)));
        tokio::time::sleep(Duration::from_millis(stopped_at)).await;
        let mut worker = WorkerEndpoint::new(theirs, hello()).expect("a socket");
        if stopped_at > 0 {
            assert!(worker.flush().expect("somebody listens"));
            tokio::time::advance(Duration::from_secs(7)).await;
        } else {
            // The worker did not run either.
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_secs(7)).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(worker.flush().expect("somebody listens"));
        }
        let connected = connecting.await.expect("it does not panic");
        connected.expect("the Hello was there");
    }
}

async fn wait_readable_while_tokio_runs(socket: &OwnedFd) {
    let socket = socket.try_clone().expect("a number");
    tokio::task::spawn_blocking(move || wait_for(socket.as_fd(), PollFlags::POLLIN))
        .await
        .expect("it became readable");
}

#[tokio::test]
async fn descriptors_that_a_worker_has_no_reason_to_send_end_the_channel_and_are_closed() {
    let proven = frame_of(&Message::Notification(connection_proven()));
    for (frame, count) in [(frame_of(&pong()), 1), (proven, 2)] {
        let (_sender, mut receiver, peer) = supervisor_hears(&[]).await;
        let (read, write) = pipe();
        let descriptors: Vec<_> = (0..count).map(|_| write.try_clone().expect("a number")).collect();
        drop(write);
        send_with_descriptors(peer.as_fd(), &frame, &descriptors).expect("sent");
        drop(descriptors);
        assert_eq!(
            receiver.next().await.unwrap_err(),
            ChannelError::DescriptorsFromWorker { count }
        );
        assert!(wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP));
    }
}

#[tokio::test]
async fn a_worker_hands_over_a_connection() {
    let (_sender, mut receiver, peer) = supervisor_hears(&[]).await;
    let (read, write) = pipe();
    let frame = frame_of(&Message::Notification(connection_proven()));
    send_with_descriptors(peer.as_fd(), &frame, &[write]).expect("sent");
    // One that came without it: the supervisor had no number left.
    send_with_descriptors(peer.as_fd(), &frame, &[]).expect("sent");
    let with = receiver.next().await.expect("heard");
    assert!(matches!(&with, FromWorker::WithDescriptor(said, Some(_)) if *said == connection_proven()));
    let without = receiver.next().await.expect("heard");
    assert!(matches!(&without, FromWorker::WithDescriptor(said, None) if *said == connection_proven()));
    drop(with);
    assert!(wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP));
}

#[test]
fn descriptors_of_a_refused_frame_are_closed() {
    let garbage = [&3_u32.to_le_bytes()[..], b"\xee\xee\xee"].concat();
    let response = frame_of(&pong());
    let too_long = (MAX_FRAME as u32 + 1).to_le_bytes();
    for (name, frame) in [
        ("garbage", &garbage[..]),
        ("the wrong way", &response),
        ("too long", &too_long),
    ] {
        let (mut endpoint, peer) = worker_hears(&our_hello(), false);
        let peer = peer.expect("open");
        let (read, write) = pipe();
        send_with_descriptors(peer.as_fd(), frame, &[write]).expect("sent");
        let error = endpoint.poll_request().expect_err(name);
        assert_ne!(error, ChannelError::Closed, "{name}");
        drop(endpoint); // what was not given to anybody goes with the endpoint at the latest
        assert!(
            wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP),
            "{name}"
        );
    }
}

#[test]
fn too_many_descriptors_end_the_channel_and_are_closed() {
    let (mut endpoint, peer) = worker_hears(&our_hello(), false);
    let (reads, writes): (Vec<_>, Vec<_>) = (0..=MAX_DESCRIPTORS).map(|_| pipe()).unzip();
    send_with_descriptors(peer.expect("open").as_fd(), &frame_of(&ping()), &writes).expect("sent");
    drop(writes);
    let error = endpoint.poll_request().expect_err("too many");
    assert_eq!(
        error,
        DescriptorError::TooMany {
            count: MAX_DESCRIPTORS + 1
        }
        .into()
    );
    for read in &reads {
        assert!(wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP));
    }
}

#[tokio::test]
async fn a_supervisor_does_not_send_too_much_and_stays_connected() {
    let (sender, mut receiver, peer) = supervisor_hears(&frame_of(&pong())).await;
    let request = |method| Request {
        id: RequestId(1),
        deadline: Deadline(0),
        method,
    };
    let (reads, writes): (Vec<_>, Vec<_>) = (0..=MAX_DESCRIPTORS).map(|_| pipe()).unzip();
    assert_eq!(
        sender.send(request(Method::Ping), writes).await,
        Err(DescriptorError::TooMany {
            count: MAX_DESCRIPTORS + 1
        }
        .into())
    );
    for read in &reads {
        assert!(wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP));
    }
    let directives = "x".repeat(MAX_FRAME);
    let long = request(Method::SetLogFilter(weir_channel::message::LogFilter { directives }));
    assert!(matches!(
        sender.send(long, Vec::new()).await,
        Err(ChannelError::Unsendable(FrameError::TooLong { .. }))
    ));
    assert!(
        matches!(receiver.next().await, Ok(FromWorker::Response(_))),
        "the channel is not harmed"
    );
    drop(peer);
}

/// An answer that does not fit is answered all the same.
#[test]
fn an_answer_too_long_becomes_an_error() {
    let (mut endpoint, peer) = worker_hears(&[our_hello(), frame_of(&ping())].concat(), false);
    let (request, _) = endpoint.poll_request().expect("valid").expect("a request");
    let text = "x".repeat(MAX_FRAME);
    let response = weir_channel::message::Response {
        id: request.id,
        result: Err(WorkerError::InvalidParameters(text)),
    };
    endpoint.push_response(response).expect("room");
    assert_eq!(endpoint.flush(), Ok(true));
    let mut buffer = [0; 1000];
    let received = receive(peer.expect("open").as_fd(), &mut buffer).expect("readable");
    let mut input = &buffer[..received.bytes];
    let mut decoder = Decoder::new();
    decoder.next_frame(&mut input).expect("valid").expect("the Hello");
    let frame = decoder.next_frame(&mut input).expect("valid").expect("the response");
    let Ok(Message::Response(response)) = weir_channel::codec::decode(frame.body) else {
        panic!("a response")
    };
    assert_eq!(response.id, request.id);
    assert_eq!(
        response.result.expect_err("too long").to_string(),
        "the worker is at its limit of 1048576 bytes in one answer; ask for less at once"
    );
}
