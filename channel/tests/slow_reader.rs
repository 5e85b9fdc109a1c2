//! A reader that stops reading never blocks the other end, and costs neither responses nor events; log lines may be lost,
//! and are counted.

mod common;

use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;

use common::{PATIENCE, Worker, deadline, flush, hello, pipe, socketpair, wait_for, wait_readable};
use nix::poll::PollFlags;
use weir_channel::endpoint::{
    FromWorker, LANE_MAX, LOG_MAX, QUEUED_MAX, RequestSender, SupervisorEndpoint, WorkerEndpoint, WorkerReceiver,
};
use weir_channel::error::ChannelError;
use weir_channel::id::{ConsumerId, RequestId, RoomId, TransportId};
use weir_channel::lanes::{DESCRIPTOR_COST, cost_of};
use weir_channel::message::{
    ComediaPolicy, CreatePlainTransport, LogLevel, LogLine, Method, Notification, Page, Profile, Reply, Request,
    Response, Scope, StatsPage,
};

fn request(id: u64, method: Method) -> Request {
    Request {
        id: RequestId(id),
        deadline: deadline(),
        method,
    }
}

fn done(id: RequestId) -> Response {
    Response {
        id,
        result: Ok(Reply::Done),
    }
}

fn event(number: u64) -> Notification {
    Notification::EffectiveProfileChanged {
        consumer: ConsumerId(number),
        profile: Some(Profile::Low),
    }
}

fn line(number: usize) -> LogLine {
    LogLine {
        level: LogLevel::Info,
        target: String::from("weir_worker"),
        text: format!("line {number}"),
    }
}

/// A page of counters of some 60 KiB.
fn page(next: u64) -> Reply {
    let consumer = weir_channel::message::ConsumerStats {
        consumer: ConsumerId(u64::MAX),
        packets_in: u64::MAX,
        packets_forwarded: u64::MAX,
        bytes_forwarded: u64::MAX,
        ..Default::default()
    };
    Reply::Stats(StatsPage {
        consumers: vec![consumer; 1300],
        next: Some(next),
        ..StatsPage::default()
    })
}

async fn connect(socket: OwnedFd) -> (RequestSender, WorkerReceiver) {
    SupervisorEndpoint::connect(socket, hello(), PATIENCE)
        .await
        .expect("a Hello")
        .split()
}

/// What a worker's end says when it meets the supervisor's Hello (connecting needs a second thread).
fn connected_worker(runtime: &tokio::runtime::Runtime) -> (WorkerEndpoint, RequestSender, WorkerReceiver) {
    let (ours, theirs) = socketpair();
    let mut endpoint = WorkerEndpoint::new(theirs, hello()).expect("a Hello fits");
    flush(&mut endpoint);
    let (sender, receiver) = runtime.block_on(connect(ours));
    (endpoint, sender, receiver)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The supervisor sends and sends, and reads nothing, until the worker has become congested. Then it reads: every request that
/// was accepted is answered once and in order, every event is there, and of the log lines as many as were not dropped.
#[test]
fn a_supervisor_that_stops_reading() {
    let runtime = runtime();
    let (mut endpoint, sender, mut receiver) = connected_worker(&runtime);

    // A sender that never waits for answers; stopped by the queues, not by a number.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let sending = runtime.spawn(async move {
        let mut id = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            id += 1;
            sender
                .send(request(id, Method::Ping), Vec::new())
                .await
                .expect("accepted");
        }
        id
    });

    // The worker answers all it gets, and adds an event and a line for each, until it is congested.
    let mut answered = 0;
    let mut logged = 0;
    while !endpoint.is_congested() {
        while let Some((request, _)) = endpoint.poll_request().expect("a request") {
            endpoint.push_response(done(request.id)).expect("room");
            endpoint.push_notification(event(request.id.0)).expect("room");
            endpoint.push_log(line(logged));
            answered += 1;
            logged += 1;
        }
        endpoint.flush().expect("the supervisor lives");
        if !endpoint.is_congested() && !endpoint.has_buffered_input() {
            wait_readable(&endpoint);
        }
    }
    assert!(endpoint.wants_write() && !endpoint.wants_read());
    assert!(
        endpoint.poll_request().expect("no error").is_none(),
        "back pressure instead of loss"
    );
    // Events do not stop: the media goes on. Nor do the log lines.
    for number in 0..20_000 {
        endpoint.push_notification(event(1_000_000 + number)).expect("room");
        endpoint.push_log(line(logged));
        logged += 1;
    }
    let dropped = endpoint.log_lines_dropped();
    assert!(dropped > 0, "{logged} lines do not fit");
    assert!(
        !endpoint.flush().expect("the supervisor lives"),
        "nobody reads, and flush says so instead of waiting"
    );
    stop.store(true, std::sync::atomic::Ordering::Relaxed);

    // Now the supervisor reads. The worker goes on in a thread of its own, to the last request.
    let reading = runtime.spawn(async move {
        let mut responses = Vec::new();
        let mut events = Vec::new();
        let (mut lines, mut reported) = (0, 0);
        let end = loop {
            match receiver.next().await {
                Ok(FromWorker::Response(response)) => responses.push(response.id.0),
                Ok(FromWorker::Notification(Notification::EffectiveProfileChanged { consumer, .. })) => {
                    events.push(consumer.0)
                }
                Ok(FromWorker::Notification(Notification::Log(_))) => lines += 1,
                Ok(FromWorker::Notification(Notification::LogLinesDropped { count })) => reported += count,
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        (responses, events, lines, reported, end)
    });
    let requests = loop {
        endpoint.flush().expect("the supervisor lives");
        while let Some((request, _)) = endpoint.poll_request().expect("a request") {
            endpoint.push_response(done(request.id)).expect("room");
            answered += 1;
        }
        if sending.is_finished() {
            let sent = runtime.block_on(async { sending.await.expect("no panic") });
            break sent;
        }
    };
    while answered < requests {
        match endpoint.poll_request().expect("a request") {
            Some((request, _)) => {
                endpoint.push_response(done(request.id)).expect("room");
                answered += 1;
            }
            None if endpoint.is_congested() => flush(&mut endpoint),
            None => wait_readable(&endpoint),
        }
    }
    flush(&mut endpoint);
    let dropped = endpoint.log_lines_dropped();
    drop(endpoint);

    let (responses, events, lines, reported, end) = runtime.block_on(reading).expect("no panic");
    assert_eq!(
        responses,
        (1..=requests).collect::<Vec<_>>(),
        "each request has its answer, in order"
    );
    let during: Vec<u64> = events.iter().copied().filter(|number| *number < 1_000_000).collect();
    assert_eq!(during, (1..=during.len() as u64).collect::<Vec<_>>());
    assert_eq!(events.len() - during.len(), 20_000);
    assert_eq!(
        (lines + reported as usize, reported),
        (logged, dropped),
        "each line has arrived or is counted"
    );
    assert_eq!(end, ChannelError::Closed);
}

#[test]
fn log_lines_have_an_allowance_and_the_number_dropped_arrives_in_its_place() {
    let runtime = runtime();
    let (mut endpoint, _sender, mut receiver) = connected_worker(&runtime);
    // Nothing is flushed: all of it waits in the queue.
    let mut pushed = 0;
    while endpoint.log_lines_dropped() < 10 {
        endpoint.push_log(line(pushed));
        pushed += 1;
        assert!(pushed * cost_of(1, 0) < LOG_MAX * 2, "the allowance has an end");
    }
    // Lines that were dropped before they came here count too.
    endpoint
        .push_notification(Notification::LogLinesDropped { count: 5 })
        .expect("never fails");
    assert_eq!(endpoint.log_lines_dropped(), 10);
    assert!(!endpoint.is_congested(), "log lines do not stop requests");
    flush(&mut endpoint); // writes the lines, and then, as there is room, the number
    endpoint.push_log(line(pushed));
    flush(&mut endpoint);
    drop(endpoint);
    let mut arrived = Vec::new();
    runtime.block_on(async {
        while let Ok(FromWorker::Notification(notification)) = receiver.next().await {
            arrived.push(match notification {
                Notification::Log(line) => line.text,
                Notification::LogLinesDropped { count } => format!("{count} dropped"),
                other => panic!("{other:?}"),
            });
        }
    });
    let kept = pushed - 10;
    let mut expected: Vec<String> = (0..kept).map(|number| line(number).text).collect();
    expected.push(String::from("15 dropped"));
    expected.push(line(pushed).text);
    assert_eq!(arrived, expected);
}

#[test]
fn a_log_line_as_long_as_may_be_finds_room() {
    let runtime = runtime();
    let (mut endpoint, _sender, _receiver) = connected_worker(&runtime);
    endpoint.push_log(LogLine {
        level: LogLevel::Error,
        target: "t".repeat(100_000),
        text: "x".repeat(10_000_000),
    });
    assert_eq!(endpoint.log_lines_dropped(), 0, "it is cut");
}

#[test]
fn events_without_end_end_the_channel() {
    let runtime = runtime();
    let (mut endpoint, _sender, _receiver) = connected_worker(&runtime);
    let mut pushed = 0_usize;
    let error = loop {
        match endpoint.push_notification(event(pushed as u64)) {
            Ok(()) => pushed += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ChannelError::Overflow { queued_bytes, max: QUEUED_MAX } if queued_bytes > QUEUED_MAX));
    assert!(pushed > 400_000, "{pushed} events were kept before");
    assert_eq!(endpoint.flush(), Err(error.clone()));
    assert_eq!(endpoint.push_response(done(RequestId(1))), Err(error.clone()));
    assert_eq!(endpoint.poll_request().map(drop), Err(error));
    endpoint.push_log(line(1)); // is not worth an error
}

/// Pages wait in the bulk lane; answers and events that come later arrive earlier. Pages stop requests too.
#[test]
fn control_overtakes_pages() {
    let runtime = runtime();
    let (mut endpoint, sender, mut receiver) = connected_worker(&runtime);
    let stats = Method::Stats(Scope::Room {
        room: RoomId(1),
        page: Page::default(),
    });
    runtime.block_on(async {
        for id in 1..=200 {
            sender
                .send(request(id, stats.clone()), Vec::new())
                .await
                .expect("queued");
        }
        sender
            .send(request(999, Method::Ping), Vec::new())
            .await
            .expect("queued");
    });
    let mut pages = 0;
    let mut pinged = false;
    while !endpoint.is_congested() {
        match endpoint.poll_request().expect("a request") {
            Some((
                Request {
                    id,
                    method: Method::Ping,
                    ..
                },
                _,
            )) => {
                pinged = true;
                endpoint.push_response(done(id)).expect("room");
            }
            Some((Request { id, .. }, _)) => {
                pages += 1;
                let result = Ok(page(id.0));
                endpoint.push_response(Response { id, result }).expect("room");
            }
            None => wait_readable(&endpoint),
        }
    }
    assert!(pages < 100, "{pages} pages are enough");
    endpoint.flush().expect("the supervisor lives"); // fills the socket, and stops inside a page
    endpoint.push_notification(event(1)).expect("room");

    // The socket holds pages already, and the page that was begun goes first; but then comes the event.
    let worker = std::thread::spawn(move || {
        flush(&mut endpoint);
        while !pinged || pages < 200 {
            match endpoint.poll_request().expect("a request") {
                Some((
                    Request {
                        id,
                        method: Method::Ping,
                        ..
                    },
                    _,
                )) => {
                    pinged = true;
                    endpoint.push_response(done(id)).expect("room");
                }
                Some((Request { id, .. }, _)) => {
                    pages += 1;
                    let result = Ok(page(id.0));
                    endpoint.push_response(Response { id, result }).expect("room");
                }
                None if endpoint.is_congested() => flush(&mut endpoint),
                None => {
                    flush(&mut endpoint);
                    wait_readable(&endpoint);
                }
            }
        }
        flush(&mut endpoint);
    });
    let mut order = Vec::new();
    runtime.block_on(async {
        while order.len() < 202 {
            match receiver.next().await.expect("the worker lives") {
                FromWorker::Response(response) => order.push(response.id.0),
                FromWorker::Notification(_) | FromWorker::WithDescriptor(..) => order.push(0),
            }
        }
    });
    worker.join().expect("no panic");
    let event_at = order.iter().position(|id| *id == 0).expect("the event arrives");
    assert!(
        event_at < 30,
        "the event was overtaken by {event_at} pages, more than socket and page in progress hold"
    );
    order.retain(|id| (1..=200).contains(id));
    assert_eq!(order, (1..=200).collect::<Vec<_>>(), "pages stay in order");
}

/// Polls `future` while everything else gets its turn; `None` when that does not help. Single-threaded runtimes only, where
/// a turn of everything else is what `yield_now` gives.
async fn stalled<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..1000 {
        if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// A worker that reads nothing: its lane fills, senders wait and nobody else does; what was accepted arrives, in order, when
/// it reads again.
#[tokio::test]
async fn a_worker_that_stops_reading() {
    let (ours, theirs) = socketpair();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let worker = Worker::spawn(theirs, hello(), move |endpoint| {
        resumed.recv_timeout(PATIENCE).expect("the word to go on");
        let mut requests = Vec::new();
        let (mut shutdown, mut stats) = (false, false);
        while !shutdown || !stats {
            match endpoint.poll_request().expect("a request") {
                Some((request, _)) => {
                    shutdown |= request.method == Method::Shutdown;
                    stats |= request.method == Method::WorkerStats;
                    requests.push((request.id.0, request.method));
                }
                None => wait_readable(endpoint),
            }
        }
        requests
    });
    let (sender, mut receiver) = connect(ours).await;
    let mut accepted = 0;
    while let Some(outcome) = stalled(sender.send(request(accepted + 1, Method::Ping), Vec::new())).await {
        outcome.expect("accepted");
        accepted += 1;
        assert!(accepted < 1_000_000, "the lane has an end");
    }
    assert!(
        accepted as usize > LANE_MAX / cost_of(30, 0),
        "{accepted} requests found room"
    );
    // The send that waited is dropped; it has queued nothing. The other lane has room of its own.
    let bulk = sender.send(request(1_000_000, Method::WorkerStats), Vec::new());
    stalled(bulk).await.expect("not stalled").expect("accepted");
    resume.send(()).expect("the worker waits");
    sender
        .send(request(accepted + 1, Method::Shutdown), Vec::new())
        .await
        .expect("accepted now");
    assert_eq!(
        receiver.next().await.unwrap_err(),
        ChannelError::Closed,
        "the worker has exited"
    );

    let requests = worker.join();
    let control = requests.iter().filter(|(_, method)| *method != Method::WorkerStats);
    let control: Vec<u64> = control.map(|(id, _)| *id).collect();
    assert_eq!(control, (1..=accepted + 1).collect::<Vec<_>>());
    assert_eq!(requests.len(), control.len() + 1);
}

/// Descriptors that wait for a worker that reads nothing are few, and are closed with the channel.
#[tokio::test]
async fn descriptors_for_a_worker_that_stops_reading() {
    let (ours, theirs) = socketpair();
    let mut worker = WorkerEndpoint::new(theirs, hello()).expect("a Hello fits");
    flush(&mut worker);
    let (sender, receiver) = connect(ours).await;
    let mut reads = Vec::new();
    loop {
        let (read, write) = pipe();
        let copies = (0..3)
            .map(|_| write.try_clone().expect("a number"))
            .chain([write.try_clone().expect("a number")]);
        let create = request(reads.len() as u64, create_plain_transport());
        let sent = stalled(sender.send(create, copies.collect())).await;
        drop(write);
        reads.push(read);
        match sent {
            Some(outcome) => outcome.expect("accepted"),
            None => break,
        }
        assert!(reads.len() < 2000, "the lane has an end");
    }
    // Some are in the socket, the worker's from now on; the others wait here.
    let mut in_socket = 0;
    let waiting = LANE_MAX / (4 * DESCRIPTOR_COST);
    drop(receiver);
    assert_eq!(
        sender.send(request(1, Method::Ping), Vec::new()).await,
        Err(ChannelError::ClosedHere)
    );
    let mut received = Vec::new();
    let end = loop {
        match worker.poll_request() {
            Ok(Some((_, descriptors))) => {
                assert_eq!(descriptors.len(), 4);
                in_socket += 1;
                received.push(descriptors);
            }
            Ok(None) => wait_readable(&worker),
            Err(error) => break error,
        }
    };
    assert_eq!(end, ChannelError::Closed);
    assert!(
        reads.len() - 1 - in_socket <= waiting,
        "at most {waiting} requests with four descriptors wait"
    );
    for read in &reads[in_socket..] {
        assert!(wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP));
    }
    drop(received);
    for read in &reads {
        assert!(wait_for(read.as_fd(), PollFlags::POLLIN).contains(PollFlags::POLLHUP));
    }
}

fn create_plain_transport() -> Method {
    Method::CreatePlainTransport(CreatePlainTransport {
        room: RoomId(1),
        transport: TransportId(2),
        remote: None,
        comedia: true,
        rtcp_mux: false,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    })
}
