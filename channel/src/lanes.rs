//! What waits to be written: two lanes of encoded frames. No socket in here; both ends use it.
//!
//! Control (commands, their answers, events) overtakes bulk (pages of counters and dumps, log lines). A frame that has been
//! begun is finished first, whatever its lane, because frames do not interleave. Within a lane, order is kept; so an answer
//! in the control lane may arrive before an earlier one in the bulk lane, never before an earlier one of its own lane.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;

use crate::message::{Message, Method, Notification, Reply, Response};

/// Which of the two queues a message waits in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    /// Frames of this lane go first.
    Control,
    /// Goes when no control frame waits.
    Bulk,
}

impl Lane {
    /// The lane of a message. The Hello goes first, with control.
    pub fn of(message: &Message) -> Self {
        match message {
            Message::Request(request) => Self::of_method(&request.method),
            Message::Response(Response {
                result: Ok(Reply::WorkerStats(_) | Reply::Stats(_) | Reply::Dump(_)),
                ..
            })
            | Message::Notification(Notification::Log(_) | Notification::LogLinesDropped { .. }) => Self::Bulk,
            Message::Hello(_) | Message::Response(_) | Message::Notification(_) | Message::Requests(_) => Self::Control,
        }
    }

    /// The lane of a request: what is answered with counters or a dump is bulk.
    pub fn of_method(method: &Method) -> Self {
        match method {
            Method::WorkerStats | Method::Stats(_) | Method::Dump(_) => Self::Bulk,
            _ => Self::Control,
        }
    }
}

/// What a waiting frame costs beside its bytes: the entry in the queue and its allocation, generously. So one bound on the
/// cost bounds bytes and frames: 1 MiB of cost is at most 8,192 frames.
pub const FRAME_COST: usize = 128;

/// What a waiting descriptor costs: 2 MiB of cost hold at most 512 of them.
pub const DESCRIPTOR_COST: usize = 4096;

/// What a frame of `bytes` bytes with `descriptors` descriptors costs while it waits.
pub const fn cost_of(bytes: usize, descriptors: usize) -> usize {
    bytes + FRAME_COST + descriptors * DESCRIPTOR_COST
}

/// The most frames that go into one write.
const BATCH: usize = 128;

/// One encoded frame that waits.
#[derive(Debug)]
pub struct QueuedFrame {
    /// The frame, prefix included.
    pub bytes: Vec<u8>,
    /// What travels beside it.
    pub descriptors: Vec<OwnedFd>,
    /// A log line, which counts against the allowance for log lines. Has no descriptors.
    pub is_log: bool,
}

impl QueuedFrame {
    /// A frame with nothing beside it.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            descriptors: Vec::new(),
            is_log: false,
        }
    }

    fn cost(&self) -> usize {
        cost_of(self.bytes.len(), self.descriptors.len())
    }
}

/// A lane, and what waits in it.
#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<QueuedFrame>,
    cost: usize,
}

/// The two lanes of one direction.
#[derive(Debug, Default)]
pub struct Lanes {
    control: Queue,
    bulk: Queue,
    /// What the log lines in the bulk lane cost.
    log_cost: usize,
    /// The frame at the front of this lane has been begun, with so many bytes written.
    begun: Option<(Lane, usize)>,
}

/// What goes into the next write.
#[derive(Debug)]
pub struct Batch<'a> {
    slices: [IoSlice<'a>; BATCH],
    len: usize,
    /// Travel with the first byte. Not empty only when the batch is one frame from its beginning.
    pub descriptors: &'a [OwnedFd],
}

impl<'a> Batch<'a> {
    /// The bytes, in order; never none.
    pub fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.len]
    }
}

/// What a write has taken out of the lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// The cost of the control frames that are wholly written.
    pub control: usize,
    /// The cost of the bulk frames that are wholly written.
    pub bulk: usize,
}

impl Lanes {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.control.frames.is_empty() && self.bulk.frames.is_empty()
    }

    /// What waits in a lane costs this much, log lines included.
    pub fn cost(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control => self.control.cost,
            Lane::Bulk => self.bulk.cost,
        }
    }

    /// What the waiting log lines cost.
    pub fn log_cost(&self) -> usize {
        self.log_cost
    }

    /// Queues a frame.
    pub fn push(&mut self, lane: Lane, frame: QueuedFrame) {
        let cost = frame.cost();
        if frame.is_log {
            self.log_cost += cost;
        }
        let queue = self.queue(lane);
        queue.cost += cost;
        queue.frames.push_back(frame);
    }

    /// What to write next; `None` when nothing waits.
    pub fn next_batch(&self) -> Option<Batch<'_>> {
        let (begun, written) = match self.begun {
            Some((lane, written)) => (Some(lane), written),
            None => (None, 0),
        };
        let frames = match begun {
            // The begun frame, then all of the control lane, then the rest of the bulk lane.
            Some(Lane::Bulk) => self
                .bulk
                .frames
                .range(..1)
                .chain(&self.control.frames)
                .chain(self.bulk.frames.range(1..)),
            // The empty range in front gives both arms the same type.
            _ => self
                .bulk
                .frames
                .range(..0)
                .chain(&self.control.frames)
                .chain(self.bulk.frames.range(0..)),
        };
        let mut batch = Batch {
            slices: [IoSlice::new(&[]); BATCH],
            len: 0,
            descriptors: &[],
        };
        for (position, frame) in frames.take(BATCH).enumerate() {
            // The descriptors of a begun frame went with its first byte.
            let skip = if position == 0 { written } else { 0 };
            let has_descriptors = skip == 0 && !frame.descriptors.is_empty();
            if has_descriptors && position > 0 {
                break; // it starts the next write, alone
            }
            batch.slices[position] = IoSlice::new(&frame.bytes[skip..]);
            batch.len = position + 1;
            if has_descriptors {
                batch.descriptors = &frame.descriptors;
                break;
            }
        }
        (batch.len > 0).then_some(batch)
    }

    /// The first `count` bytes of [`Lanes::next_batch`] are written, and its descriptors with them. Closes this end's copies
    /// of the descriptors.
    pub fn advance(&mut self, count: usize) -> Drained {
        let mut drained = Drained::default();
        let mut left = count;
        while left > 0 {
            let (lane, written) = self.begun.take().unwrap_or_else(|| {
                let lane = if self.control.frames.is_empty() {
                    Lane::Bulk
                } else {
                    Lane::Control
                };
                (lane, 0)
            });
            let queue = self.queue(lane);
            let Some(frame) = queue.frames.front_mut() else {
                debug_assert!(false, "more bytes written than waited");
                break;
            };
            let rest = frame.bytes.len() - written;
            if left < rest {
                // Its descriptors went with the first byte; they need not stay open until the last.
                let closed = std::mem::take(&mut frame.descriptors).len();
                queue.cost -= closed * DESCRIPTOR_COST;
                match lane {
                    Lane::Control => drained.control += closed * DESCRIPTOR_COST,
                    Lane::Bulk => drained.bulk += closed * DESCRIPTOR_COST,
                }
                self.begun = Some((lane, written + left));
                break;
            }
            left -= rest;
            let Some(frame) = queue.frames.pop_front() else { break };
            let cost = frame.cost();
            queue.cost -= cost;
            match lane {
                Lane::Control => drained.control += cost,
                Lane::Bulk => drained.bulk += cost,
            }
            if frame.is_log {
                self.log_cost -= cost;
            }
        }
        drained
    }

    /// Throws away all that waits, and closes its descriptors.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use proptest::prelude::*;

    use super::*;

    fn frame(text: &str) -> QueuedFrame {
        QueuedFrame::plain(text.as_bytes().to_vec())
    }

    fn with_descriptor(text: &str) -> QueuedFrame {
        QueuedFrame {
            descriptors: vec![File::open("/dev/null").unwrap().into()],
            ..frame(text)
        }
    }

    /// The next batch as text, with a `+` in front when descriptors travel with it.
    fn batch(lanes: &Lanes) -> String {
        let Some(batch) = lanes.next_batch() else {
            return String::new();
        };
        let bytes: Vec<u8> = batch.slices().iter().flat_map(|slice| slice.to_vec()).collect();
        let mark = if batch.descriptors.is_empty() { "" } else { "+" };
        format!("{mark}{}", String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn control_overtakes_bulk_but_not_a_frame_that_was_begun() {
        let mut lanes = Lanes::new();
        lanes.push(Lane::Bulk, frame("[page1]"));
        lanes.push(Lane::Bulk, frame("[page2]"));
        lanes.push(Lane::Control, frame("[a]"));
        assert_eq!(batch(&lanes), "[a][page1][page2]");
        lanes.advance(5); // all of a, two bytes of page1
        lanes.push(Lane::Control, frame("[b]"));
        lanes.push(Lane::Control, frame("[c]"));
        assert_eq!(batch(&lanes), "age1][b][c][page2]");
        lanes.advance(6); // the rest of page1, one byte of b
        lanes.push(Lane::Control, frame("[d]"));
        assert_eq!(batch(&lanes), "b][c][d][page2]");
        lanes.advance(8);
        assert_eq!(batch(&lanes), "[page2]");
        lanes.advance(7);
        assert!(lanes.is_empty());
        assert_eq!((lanes.cost(Lane::Control), lanes.cost(Lane::Bulk)), (0, 0));
    }

    #[test]
    fn a_frame_with_descriptors_is_sent_alone_and_its_rest_without() {
        let mut lanes = Lanes::new();
        lanes.push(Lane::Control, frame("[a]"));
        lanes.push(Lane::Control, with_descriptor("[transport]"));
        lanes.push(Lane::Control, with_descriptor("[another]"));
        lanes.push(Lane::Control, frame("[b]"));
        assert_eq!(batch(&lanes), "[a]");
        lanes.advance(3);
        assert_eq!(batch(&lanes), "+[transport]");
        let drained = lanes.advance(1);
        assert_eq!(
            drained.control, DESCRIPTOR_COST,
            "the descriptor is closed as soon as it is sent"
        );
        assert_eq!(batch(&lanes), "transport]");
        lanes.advance(10);
        assert_eq!(batch(&lanes), "+[another]");
        lanes.advance(9);
        assert_eq!(batch(&lanes), "[b]");
    }

    #[test]
    fn lanes_of_messages() {
        use crate::id::{RequestId, RoomId};
        use crate::message::{DumpPage, LogLevel, LogLine, Page, Scope, StatsPage, WorkerError};
        let response = |result| {
            Message::Response(Response {
                id: RequestId(1),
                result,
            })
        };
        let notification = Message::Notification;
        let line = LogLine {
            level: LogLevel::Info,
            target: String::new(),
            text: String::new(),
        };
        for (message, lane) in [
            (response(Ok(Reply::Done)), Lane::Control),
            (response(Err(WorkerError::DeadlinePassed)), Lane::Control),
            (
                response(Ok(Reply::ConsumerCreated { source_paused: false })),
                Lane::Control,
            ),
            (response(Ok(Reply::WorkerStats(Box::default()))), Lane::Bulk),
            (response(Ok(Reply::Stats(StatsPage::default()))), Lane::Bulk),
            (response(Ok(Reply::Dump(DumpPage::default()))), Lane::Bulk),
            (notification(Notification::Log(line)), Lane::Bulk),
            (notification(Notification::LogLinesDropped { count: 1 }), Lane::Bulk),
        ] {
            assert_eq!(Lane::of(&message), lane, "{message:?}");
        }
        let room = RoomId(1);
        let page = Page::default();
        for (method, lane) in [
            (Method::Ping, Lane::Control),
            (Method::CreateRouter { room }, Lane::Control),
            (Method::Shutdown, Lane::Control),
            (Method::WorkerStats, Lane::Bulk),
            (Method::Stats(Scope::Room { room, page }), Lane::Bulk),
            (Method::Dump(Scope::Room { room, page }), Lane::Bulk),
            (Method::Dump(Scope::Consumer(crate::id::ConsumerId(1))), Lane::Bulk),
        ] {
            assert_eq!(Lane::of_method(&method), lane, "{method:?}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Queue a frame of this many bytes, with so many descriptors.
        Push { lane: Lane, len: usize, descriptors: usize },
        /// The socket takes up to this many bytes.
        Write { count: usize },
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let lane = prop_oneof![Just(Lane::Control), Just(Lane::Bulk)];
        prop_oneof![
            (lane, 6_usize..40, prop_oneof![4 => Just(0), 1 => 1_usize..=2])
                .prop_map(|(lane, len, descriptors)| Step::Push { lane, len, descriptors }),
            (1_usize..120).prop_map(|count| Step::Write { count }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is queued and however the socket takes it: whole frames come out, each once, in order within its lane; control
        /// frames wait for no bulk frame that was not begun; descriptors go with the first byte of their frame, once; and the
        /// cost of what came out is the cost of what went in.
        #[test]
        fn any_order_of_pushes_and_writes(steps in prop::collection::vec(any_step(), 0..200)) {
            let mut lanes = Lanes::new();
            let mut stream = Vec::new();
            let mut sent_descriptors = Vec::new(); // (offset in the stream, how many)
            let mut pushed = 0_u32;
            let mut went_in = Drained::default();
            let mut came_out = Drained::default();
            let drain_all = std::iter::repeat_n(Step::Write { count: 7 }, 4000);
            for step in steps.into_iter().chain(drain_all) {
                match step {
                    Step::Push { lane, len, descriptors } => {
                        // A frame says its lane, its number, how many descriptors it has, and how long it is.
                        let mut bytes = vec![if lane == Lane::Control { b'c' } else { b'b' }, descriptors as u8];
                        bytes.push(len as u8);
                        bytes.extend_from_slice(&pushed.to_le_bytes()[..3]);
                        bytes.resize(len, 0);
                        pushed += 1;
                        let descriptors: Vec<OwnedFd> =
                            (0..descriptors).map(|_| File::open("/dev/null").unwrap().into()).collect();
                        let cost = cost_of(len, descriptors.len());
                        match lane {
                            Lane::Control => went_in.control += cost,
                            Lane::Bulk => went_in.bulk += cost,
                        }
                        let is_log = lane == Lane::Bulk && descriptors.is_empty();
                        lanes.push(lane, QueuedFrame { bytes, descriptors, is_log });
                    }
                    Step::Write { count } => {
                        let Some(batch) = lanes.next_batch() else { continue };
                        let bytes: Vec<u8> = batch.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                        prop_assert!(!bytes.is_empty());
                        if lanes.begun.is_none() && lanes.cost(Lane::Control) > 0 {
                            prop_assert_eq!(bytes[0], b'c', "control overtakes what was not begun");
                        }
                        if !batch.descriptors.is_empty() {
                            prop_assert_eq!(batch.slices().len(), 1);
                            sent_descriptors.push((stream.len(), batch.descriptors.len()));
                        }
                        let count = count.min(bytes.len());
                        stream.extend_from_slice(&bytes[..count]);
                        let drained = lanes.advance(count);
                        came_out.control += drained.control;
                        came_out.bulk += drained.bulk;
                    }
                }
            }
            prop_assert!(lanes.is_empty());
            prop_assert_eq!(came_out, went_in);
            prop_assert_eq!((lanes.cost(Lane::Control), lanes.cost(Lane::Bulk), lanes.log_cost()), (0, 0, 0));
            // Read the stream back.
            let mut last = std::collections::HashMap::new();
            let mut expected_descriptors = Vec::new();
            let mut at = 0;
            let mut count = 0;
            while at < stream.len() {
                let (lane, descriptors, len) = (stream[at], stream[at + 1], usize::from(stream[at + 2]));
                let number = u32::from_le_bytes([stream[at + 3], stream[at + 4], stream[at + 5], 0]);
                prop_assert!(lane == b'c' || lane == b'b');
                prop_assert!(last.insert(lane, number).is_none_or(|before| before < number), "order within a lane");
                if descriptors > 0 {
                    expected_descriptors.push((at, usize::from(descriptors)));
                }
                at += len;
                count += 1;
            }
            prop_assert_eq!(count, pushed);
            prop_assert_eq!(sent_descriptors, expected_descriptors);
        }
    }
}
