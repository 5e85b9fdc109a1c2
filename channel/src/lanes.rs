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
    /// Goes first.
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
            Message::Hello(_) | Message::Response(_) | Message::Notification(_) => Self::Control,
        }
    }

    /// The lane of a request: what is answered with counters or a dump is bulk.
    pub fn of_method(method: &Method) -> Self {
        match method {
            Method::WorkerStats
            | Method::RoomStats { .. }
            | Method::TransportStats { .. }
            | Method::ProducerStats { .. }
            | Method::ConsumerStats { .. }
            | Method::RoomDump { .. } => Self::Bulk,
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
    /// A log line, which had to find room among the log lines.
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
