//! A supervisor's side of the channel, blocking and in a few lines, around an event loop that runs in a thread.

#![allow(dead_code, reason = "each test binary uses its part of this module")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use weir_channel::codec;
use weir_channel::descriptors::{receive, send_with_descriptors};
use weir_channel::frame::{self, Decoder};
use weir_channel::id::{ConsumerId, ProducerId, RequestId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, CreateConsumer, CreatePlainTransport, CreateProducer, Deadline, Encoding, Hello,
    MediaKind, Message, Method, Notification, Profile, Remote, Reply, Request, Response, WorkerError, WorkerStats,
};

use weir_worker::log;
use weir_worker::process::Ended;
use weir_worker::process::{EventLoop, Start};
use weir_worker::webrtc::dtls;

pub(crate) const WORKER: WorkerId = WorkerId(5);
pub(crate) const ROOM: RoomId = RoomId(1);

/// No test waits longer for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Supervisor {
    socket: UnixStream,
    decoder: Decoder,
    received: VecDeque<Message>,
    next_id: u64,
    pub(crate) notifications: Vec<Notification>,
    /// What has come with them.
    pub(crate) descriptors: VecDeque<OwnedFd>,
    worker: Option<JoinHandle<Ended>>,
}

impl Supervisor {
    /// A worker that has said hello.
    pub(crate) fn with_worker() -> Self {
        let mut supervisor = Self::before_hello();
        supervisor.send(&Message::Hello(Hello::new("test", WORKER)));
        assert!(matches!(
            supervisor.receive(),
            Message::Hello(Hello { worker: WORKER, .. })
        ));
        supervisor
    }

    /// A worker to which nothing was said.
    pub(crate) fn before_hello() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let worker = std::thread::spawn(move || {
            let (subscriber, queue, filter) = log::subscriber();
            let start = Start {
                channel: theirs.into(),
                id: WORKER,
                dtls: dtls::Settings::default(),
                log: queue,
                log_filter: filter,
            };
            tracing::subscriber::with_default(subscriber, || EventLoop::new(start).unwrap().run())
        });
        Self {
            socket: ours,
            decoder: Decoder::new(),
            received: VecDeque::new(),
            next_id: 1,
            notifications: Vec::new(),
            descriptors: VecDeque::new(),
            worker: Some(worker),
        }
    }

    pub(crate) fn send(&mut self, message: &Message) {
        self.write(&frame::encode(message).unwrap());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next message.
    pub(crate) fn receive(&mut self) -> Message {
        while self.received.is_empty() {
            let mut bytes = [0; 16 << 10];
            let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let patience = PollTimeout::try_from(PATIENCE).unwrap();
            assert_ne!(poll(&mut ready, patience), Ok(0), "the worker says nothing");
            let received = receive(self.socket.as_fd(), &mut bytes).unwrap();
            assert!(received.bytes > 0, "the worker has closed the channel");
            self.descriptors.extend(received.descriptors);
            let mut input = &bytes[..received.bytes];
            while let Some(frame) = self.decoder.next_frame(&mut input).unwrap() {
                self.received.push_back(codec::decode(frame.body).unwrap());
            }
        }
        self.received.pop_front().unwrap()
    }

    /// Asks, without waiting for the answer.
    pub(crate) fn ask(&mut self, method: Method, descriptors: &[OwnedFd]) -> RequestId {
        self.ask_until(method, descriptors, Deadline::after(PATIENCE))
    }

    pub(crate) fn ask_until(&mut self, method: Method, descriptors: &[OwnedFd], deadline: Deadline) -> RequestId {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let frame = frame::encode(&Message::Request(Request { id, deadline, method })).unwrap();
        if descriptors.is_empty() {
            self.write(&frame);
        } else {
            let sent = send_with_descriptors(self.socket.as_fd(), &frame, descriptors).unwrap();
            self.write(&frame[sent..]);
        }
        id
    }

    /// The next answer; notifications that come before it are kept.
    pub(crate) fn answer(&mut self) -> Response {
        loop {
            match self.receive() {
                Message::Response(response) => return response,
                Message::Notification(notification) => self.notifications.push(notification),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks and waits for the answer.
    pub(crate) fn request(&mut self, method: Method) -> Result<Reply, WorkerError> {
        self.request_with(method, &[])
    }

    pub(crate) fn request_with(&mut self, method: Method, descriptors: &[OwnedFd]) -> Result<Reply, WorkerError> {
        let id = self.ask(method, descriptors);
        let response = self.answer();
        assert_eq!(response.id, id);
        response.result
    }

    /// The next notification that is not a log line.
    pub(crate) fn notification(&mut self) -> Notification {
        loop {
            if let Some(at) = self
                .notifications
                .iter()
                .position(|one| !matches!(one, Notification::Log(_)))
            {
                return self.notifications.remove(at);
            }
            match self.receive() {
                Message::Notification(notification) => self.notifications.push(notification),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn stats(&mut self) -> WorkerStats {
        match self.request(Method::WorkerStats) {
            Ok(Reply::WorkerStats(stats)) => *stats,
            other => panic!("{other:?}"),
        }
    }

    /// Closes the channel and waits for the worker's end.
    pub(crate) fn hang_up(self) -> Ended {
        let Self { socket, worker, .. } = self;
        drop(socket);
        worker.unwrap().join().unwrap()
    }

    /// Waits for the worker's end with the channel open.
    pub(crate) fn outlive(mut self) -> Ended {
        self.worker.take().unwrap().join().unwrap()
    }

    /// A muxed transport of the room, on `sockets`.
    pub(crate) fn create_transport(
        &mut self,
        transport: u64,
        remote: Option<Remote>,
        sockets: &[OwnedFd],
    ) -> Result<Reply, WorkerError> {
        let request = CreatePlainTransport {
            room: ROOM,
            transport: TransportId(transport),
            remote,
            comedia: remote.is_none(),
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        };
        self.request_with(Method::CreatePlainTransport(request), sockets)
    }

    /// An audio producer with one known SSRC.
    pub(crate) fn create_producer(&mut self, producer: u64, transport: u64, ssrc: u32) {
        let request = CreateProducer {
            room: ROOM,
            transport: TransportId(transport),
            producer: ProducerId(producer),
            kind: MediaKind::Audio,
            mid: None,
            codecs: vec![Codec {
                payload_type: 111,
                name: CodecName::Opus,
                clock_rate: 48_000,
                pli: false,
                fir: false,
                nack: false,
                remb: false,
                rtx: None,
            }],
            encodings: vec![Encoding {
                ssrc: Some(ssrc),
                rid: None,
                profile: Profile::Default,
                rtx_ssrc: None,
            }],
            header_extensions: vec![],
            preferred_profile: Profile::Default,
            paused: false,
            reduced_size: true,
        };
        assert_eq!(self.request(Method::CreateProducer(request)), Ok(Reply::Done));
    }

    pub(crate) fn create_consumer(&mut self, consumer: u64, producer: u64, transport: u64, ssrc: u32) {
        let request = CreateConsumer {
            room: ROOM,
            transport: TransportId(transport),
            producer: ProducerId(producer),
            consumer: ConsumerId(consumer),
            ssrc,
            payload_types: vec![(111, 96)],
            header_extensions: vec![],
            preferred_profile: Profile::Default,
            paused: false,
            nack: false,
            rtx: None,
            cname: "weir".to_owned(),
            cname_is_made_up: false,
            lasting_cname: None,
        };
        let created = Reply::ConsumerCreated { source_paused: false };
        assert_eq!(self.request(Method::CreateConsumer(request)), Ok(created));
    }
}

/// An RTP packet of sound.
pub(crate) fn rtp(ssrc: u32, seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 960).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

pub(crate) fn ssrc_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[8..12].try_into().unwrap())
}

/// That the worker has closed its copy of a descriptor: the other end reads an end of file.
pub(crate) fn assert_closed(mut other_end: UnixStream) {
    other_end.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(other_end.read(&mut [0]).unwrap(), 0);
}
