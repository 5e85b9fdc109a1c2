//! The channel: what a message costs to encode and decode, and how many requests a second go there and back.
//!
//! `cargo bench --bench channel`. The figures are medians of several rounds; the last part runs the worker's end in a thread
//! of its own, so it wants a second CPU.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::error::Error;
use std::hint::black_box;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weir_channel::codec::{decode, encode};
use weir_channel::endpoint::{FromWorker, SupervisorEndpoint, WorkerEndpoint};
use weir_channel::error::ChannelError;
use weir_channel::id::{ConsumerId, ProducerId, RequestId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    ConsumerStats, Counts, CreateConsumer, Deadline, DropReason, ExtensionUri, HeaderExtension, Hello, Message, Method,
    PROTOCOL_VERSION, Profile, Reply, Request, Response, StatsPage,
};

const ROUNDS: usize = 9;
const REQUESTS: u64 = 100_000;

fn main() -> ExitCode {
    // `cargo test --benches` runs benches to see that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("channel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    println!(
        "{:<34} {:>8} {:>11} {:>11}",
        "message", "bytes", "encode ns", "decode ns"
    );
    for (name, message) in messages() {
        let mut bytes = Vec::new();
        encode(&message, &mut bytes)?;
        let mut out = Vec::with_capacity(bytes.len());
        let encode_ns = time(bytes.len(), || {
            out.clear();
            encode(black_box(&message), &mut out)
        })?;
        let decode_ns = time(bytes.len(), || decode(black_box(&bytes)))?;
        println!("{name:<34} {:>8} {encode_ns:>11.0} {decode_ns:>11.0}", bytes.len());
    }
    println!();
    println!(
        "{:<34} {:>14} {:>14}",
        "requests there and back", "under way", "per second"
    );
    for under_way in [1, 8, 64, 512] {
        println!(
            "{:<34} {under_way:>14} {:>14.0}",
            "pause consumer",
            round_trips(under_way)?
        );
    }
    Ok(())
}

/// Nanoseconds per call: the median of the rounds.
fn time<T, E>(size: usize, mut call: impl FnMut() -> Result<T, E>) -> Result<f64, E> {
    let calls = (20_000_000 / (size as u32 + 500)).clamp(20, 20_000);
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(call()?);
        }
        rounds.push(start.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[ROUNDS / 2])
}

fn messages() -> Vec<(&'static str, Message)> {
    let request = |method| {
        Message::Request(Request {
            id: RequestId(123_456),
            deadline: Deadline(987_654_321_012),
            method,
        })
    };
    let consumer = |id| ConsumerStats {
        consumer: ConsumerId(id),
        effective_profile: Some(Profile::High),
        target_profile: Some(Profile::High),
        packets_in: 1_234_567,
        packets_forwarded: 1_234_000,
        bytes_forwarded: 1_480_800_000,
        bitrate: 2_500_000,
        dropped: Counts::from([(DropReason::AwaitingKeyFrame, 67), (DropReason::OtherProfile, 500)]),
        switches: 3,
        last_seq: Some(1_234_999),
        payload_type: Some(111),
        ..ConsumerStats::default()
    };
    vec![
        (
            "pause consumer",
            request(Method::SetConsumerPaused {
                consumer: ConsumerId(4_711),
                paused: true,
            }),
        ),
        (
            "create consumer",
            request(Method::CreateConsumer(CreateConsumer {
                room: RoomId(12),
                transport: TransportId(345),
                producer: ProducerId(67),
                consumer: ConsumerId(8_910),
                ssrc: 0x1234_5678,
                payload_types: vec![(96, 101), (111, 111)],
                header_extensions: vec![
                    HeaderExtension {
                        id: 3,
                        uri: ExtensionUri::AbsSendTime,
                    },
                    HeaderExtension {
                        id: 4,
                        uri: ExtensionUri::VideoOrientation,
                    },
                ],
                preferred_profile: Profile::Default,
                paused: false,
                nack: false,
                rtx: None,
                cname: "weir".to_owned(),
                cname_is_made_up: false,
                lasting_cname: None,
            })),
        ),
        (
            "done",
            Message::Response(Response {
                id: RequestId(123_456),
                result: Ok(Reply::Done),
            }),
        ),
        (
            "statistics of 1,000 consumers",
            Message::Response(Response {
                id: RequestId(1),
                result: Ok(Reply::Stats(StatsPage {
                    consumers: (0..1_000).map(consumer).collect(),
                    ..StatsPage::default()
                })),
            }),
        ),
    ]
}

/// Requests per second through a socketpair, with so many unanswered at once.
fn round_trips(under_way: u64) -> Result<f64, Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let hello = |pid| Hello {
        protocol: PROTOCOL_VERSION,
        build: "bench".into(),
        worker: WorkerId(1),
        pid,
    };
    let worker = WorkerEndpoint::new(OwnedFd::from(theirs), hello(2))?;
    let answering = std::thread::spawn(move || answer(worker));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let elapsed = runtime.block_on(async {
        let endpoint = SupervisorEndpoint::connect(OwnedFd::from(ours), hello(1), Duration::from_secs(5)).await?;
        let (sender, mut receiver) = endpoint.split();
        let start = Instant::now();
        let (mut sent, mut answered) = (0, 0);
        while answered < REQUESTS {
            while sent < REQUESTS && sent - answered < under_way {
                let method = Method::SetConsumerPaused {
                    consumer: ConsumerId(sent),
                    paused: true,
                };
                let deadline = Deadline::after(Duration::from_secs(20));
                sender
                    .send(
                        Request {
                            id: RequestId(sent),
                            deadline,
                            method,
                        },
                        Vec::new(),
                    )
                    .await?;
                sent += 1;
            }
            if let FromWorker::Response(_) = receiver.next().await? {
                answered += 1;
            }
        }
        Ok::<Duration, ChannelError>(start.elapsed())
    })?;
    drop(runtime); // and with it the task that writes, which keeps the socket open
    answering.join().map_err(|_| "the worker's end panicked")??;
    Ok(REQUESTS as f64 / elapsed.as_secs_f64())
}

/// The worker's end: reads what there is, answers it, and waits for more until the other end closes.
fn answer(mut endpoint: WorkerEndpoint) -> Result<(), ChannelError> {
    loop {
        loop {
            match endpoint.poll_request() {
                Ok(Some((request, _))) => {
                    endpoint.push_response(Response {
                        id: request.id,
                        result: Ok(Reply::Done),
                    })?;
                }
                Ok(None) => break,
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let written = match endpoint.flush() {
            Ok(written) => written,
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut flags = PollFlags::POLLIN;
        if !written {
            flags |= PollFlags::POLLOUT;
        }
        // A failing poll only makes the loop turn faster.
        let _ = poll(&mut [PollFd::new(endpoint.as_fd(), flags)], PollTimeout::NONE);
    }
}
