//! The worker's end: non-blocking, no runtime, no thread, no clock; polled by the worker's own event loop.
//!
//! A turn of the loop, with the socket registered for reading while [`WorkerEndpoint::wants_read`] and for writing while
//! [`WorkerEndpoint::wants_write`] (level-triggered):
//!
//! 1. [`WorkerEndpoint::poll_request`] up to the turn's bound of requests; push what they yield.
//! 2. [`WorkerEndpoint::flush`].
//! 3. Wait, but not when [`WorkerEndpoint::has_buffered_input`]: what has been read already makes no descriptor readable.
//!
//! # When the supervisor does not read
//! The worker never waits for it, and loses no response and no event. Requests are answered by one response each, so the
//! worker stops *reading requests* while much is queued ([`WorkerEndpoint::is_congested`]); what is left to grow are events
//! of the media, which are rare (profile switches, learned addresses), and they may grow to [`QUEUED_MAX`]. Beyond that the
//! channel ends with [`ChannelError::Overflow`]; a supervisor that hangs so long has killed this worker before. Log lines
//! have an allowance of their own ([`LOG_MAX`]); what exceeds it is dropped and counted, and the count is reported as soon as
//! it fits.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{Fill, Inbound, Side, shut_down, write_batch};
use crate::error::{ChannelError, kind_of};
use crate::frame::{self, FrameError, MAX_FRAME};
use crate::lanes::{Lane, Lanes, QueuedFrame, cost_of};
use crate::log;
use crate::message::{Hello, LogLine, Message, Notification, Request, Response, WorkerError};

/// The worker is congested from this cost of waiting responses and events on: 7,500 of some 12 bytes, a third of a second of
/// the highest command rate.
const CONTROL_HIGH: usize = 1 << 20;

/// The worker is congested from this cost of waiting pages on. Each request adds one page of at most [`MAX_FRAME`], so no more
/// than that plus one page ever waits.
const BULK_HIGH: usize = 2 << 20;

/// Waiting log lines may cost this much: 1,000 of ordinary length, 58 of the longest.
pub const LOG_MAX: usize = 256 << 10;

/// All that waits may cost this much: nearly half a million events, which the media of a thousand rooms does not make in
/// minutes, in memory that a machine can spare for one worker that is about to end.
pub const QUEUED_MAX: usize = 64 << 20;

/// The worker's end of a channel.
#[derive(Debug)]
pub struct WorkerEndpoint {
    socket: OwnedFd,
    inbound: Inbound,
    lanes: Lanes,
    congested: bool,
    /// Dropped since the last report, and since the start.
    log_lines_unreported: u64,
    log_lines_dropped: u64,
    /// What ended the channel.
    ended: Option<ChannelError>,
}

impl WorkerEndpoint {
    /// Takes the socket and queues `hello` as the first frame.
    ///
    /// # Errors
    /// When `hello` does not fit a frame.
    pub fn new(socket: OwnedFd, hello: Hello) -> Result<Self, ChannelError> {
        let mut endpoint = Self {
            socket,
            inbound: Inbound::new(Side::Worker, hello.clone()),
            lanes: Lanes::new(),
            congested: false,
            log_lines_unreported: 0,
            log_lines_dropped: 0,
            ended: None,
        };
        endpoint.push(&Message::Hello(hello))?;
        Ok(endpoint)
    }

    /// The supervisor's Hello, once it has been read.
    pub fn supervisor(&self) -> Option<&Hello> {
        self.inbound.peer.as_ref()
    }

    /// The next request, with the descriptors that came with it; `None` when there is none now, or while
    /// [`WorkerEndpoint::is_congested`]. Never blocks. The caller bounds how often it calls this in a turn.
    ///
    /// # Errors
    /// What ended the channel: the supervisor's end closed, a Hello that does not match, anything that is not a request, a
    /// frame or descriptors that were refused. Every later call returns the same.
    pub fn poll_request(&mut self) -> Result<Option<(Request, Vec<OwnedFd>)>, ChannelError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        self.try_poll_request().map_err(|error| self.end(error))
    }

    fn try_poll_request(&mut self) -> Result<Option<(Request, Vec<OwnedFd>)>, ChannelError> {
        if self.congested {
            return Ok(None);
        }
        loop {
            let had_hello = self.inbound.peer.is_some();
            match self.inbound.next_message()? {
                None => {
                    if self.inbound.fill(self.socket.as_fd())? == Fill::WouldBlock {
                        return Ok(None);
                    }
                }
                Some((Message::Request(request), descriptors)) => return Ok(Some((request, descriptors))),
                Some((Message::Hello(_), _)) if !had_hello => {}
                Some((other, _)) => {
                    return Err(ChannelError::WrongDirection {
                        sender: "supervisor",
                        kind: kind_of(&other),
                    });
                }
            }
        }
    }

    /// Queues the one answer to a request. An answer that does not fit a frame is replaced by an error that says so, so that
    /// the request is answered all the same.
    ///
    /// # Errors
    /// When the channel has ended, or ends with this by [`ChannelError::Overflow`].
    pub fn push_response(&mut self, response: Response) -> Result<(), ChannelError> {
        let id = response.id;
        match self.push(&Message::Response(response)) {
            Err(ChannelError::Unsendable(FrameError::TooLong { .. })) => self.push(&Message::Response(Response {
                id,
                result: Err(WorkerError::TooMany {
                    noun: String::from("bytes in one answer; ask for less at once"),
                    limit: MAX_FRAME as u32, // 1 MiB
                }),
            })),
            other => other,
        }
    }

    /// Queues an event. A [`Notification::Log`] is queued as by [`WorkerEndpoint::push_log`]; the count of a
    /// [`Notification::LogLinesDropped`], of lines dropped elsewhere in the worker, is added to the next report.
    ///
    /// # Errors
    /// When the channel has ended, or ends with this by [`ChannelError::Overflow`].
    pub fn push_notification(&mut self, notification: Notification) -> Result<(), ChannelError> {
        match notification {
            Notification::Log(line) => {
                self.push_log(line);
                Ok(())
            }
            Notification::LogLinesDropped { count } => {
                self.log_lines_unreported = self.log_lines_unreported.saturating_add(count);
                self.report_dropped_log_lines();
                Ok(())
            }
            other => self.push(&Message::Notification(other)),
        }
    }

    /// Queues an event that a descriptor comes with. It is closed here when it is on its way.
    ///
    /// # Errors
    /// As [`WorkerEndpoint::push_notification`].
    pub fn push_with_descriptor(
        &mut self,
        notification: Notification,
        descriptor: OwnedFd,
    ) -> Result<(), ChannelError> {
        self.push_with(&Message::Notification(notification), vec![descriptor])
    }

    /// Queues a log line if the allowance for log lines is not used up, else counts it as dropped. Never fails.
    pub fn push_log(&mut self, line: LogLine) {
        if self.ended.is_some() {
            return;
        }
        self.report_dropped_log_lines();
        let frame = frame::encode(&Message::Notification(Notification::Log(log::bounded(line))));
        let queued = frame.is_ok_and(|frame| self.log_lines_unreported == 0 && self.try_push_log_frame(frame));
        if !queued {
            self.log_lines_dropped += 1;
            self.log_lines_unreported += 1;
        }
    }

    /// How many log lines [`WorkerEndpoint::push_log`] has dropped since the start.
    pub fn log_lines_dropped(&self) -> u64 {
        self.log_lines_dropped
    }

    /// Writes what waits, as much as the socket takes. `true` when nothing waits any more.
    ///
    /// # Errors
    /// When the channel has ended, or ends now because the supervisor is gone.
    pub fn flush(&mut self) -> Result<bool, ChannelError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let flushed = loop {
            match write_batch(self.socket.as_fd(), &mut self.lanes) {
                Ok(Some(_)) => self.report_dropped_log_lines(),
                Ok(None) => break true,
                // If memory is short, or the supervisor has not read descriptors for too long, the loop comes back too, because it
                // waits for the socket to become writable.
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS) => break false,
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(self.end(ChannelError::Closed)),
                Err(errno) => return Err(self.end(ChannelError::Os { call: "sendmsg", errno })),
            }
        };
        self.update_congestion();
        Ok(flushed)
    }

    /// Whether so much waits for the supervisor that requests are not read.
    pub fn is_congested(&self) -> bool {
        self.congested
    }

    /// Whether to wait for the socket to become readable.
    pub fn wants_read(&self) -> bool {
        !self.congested && self.ended.is_none()
    }

    /// Whether to wait for the socket to become writable: something waits. Call [`WorkerEndpoint::flush`] first.
    pub fn wants_write(&self) -> bool {
        !self.lanes.is_empty() && self.ended.is_none()
    }

    /// Whether [`WorkerEndpoint::poll_request`] may have a request without the socket becoming readable.
    pub fn has_buffered_input(&self) -> bool {
        !self.congested && self.inbound.has_unread() && self.ended.is_none()
    }

    /// Queues a message in its lane.
    fn push(&mut self, message: &Message) -> Result<(), ChannelError> {
        self.push_with(message, Vec::new())
    }

    fn push_with(&mut self, message: &Message, descriptors: Vec<OwnedFd>) -> Result<(), ChannelError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let frame = frame::encode(message).map_err(ChannelError::Unsendable)?;
        let queued_bytes =
            self.lanes.cost(Lane::Control) + self.lanes.cost(Lane::Bulk) + cost_of(frame.len(), descriptors.len());
        if queued_bytes > QUEUED_MAX {
            return Err(self.end(ChannelError::Overflow {
                queued_bytes,
                max: QUEUED_MAX,
            }));
        }
        self.lanes.push(
            Lane::of(message),
            QueuedFrame {
                descriptors,
                ..QueuedFrame::plain(frame)
            },
        );
        self.update_congestion();
        Ok(())
    }

    /// Queues the number of dropped lines, if there are any and the report fits.
    fn report_dropped_log_lines(&mut self) {
        let count = self.log_lines_unreported;
        if count == 0 {
            return;
        }
        let report = frame::encode(&Message::Notification(Notification::LogLinesDropped { count }));
        if report.is_ok_and(|frame| self.try_push_log_frame(frame)) {
            self.log_lines_unreported = 0;
        }
    }

    /// Queues a frame among the log lines if the allowance for them is not used up.
    fn try_push_log_frame(&mut self, frame: Vec<u8>) -> bool {
        if self.lanes.log_cost() + cost_of(frame.len(), 0) > LOG_MAX {
            return false;
        }
        self.lanes.push(
            Lane::Bulk,
            QueuedFrame {
                is_log: true,
                ..QueuedFrame::plain(frame)
            },
        );
        true
    }

    /// Congestion starts at the high marks and ends at half of them, so that the worker does not flicker between the two.
    fn update_congestion(&mut self) {
        let share = if self.congested { 2 } else { 1 };
        let pages = self.lanes.cost(Lane::Bulk) - self.lanes.log_cost();
        self.congested = self.lanes.cost(Lane::Control) >= CONTROL_HIGH / share || pages >= BULK_HIGH / share;
    }

    /// Ends the channel with its first error. What waits is written as far as the socket takes it at once: among it may be the
    /// Hello, from which the supervisor learns what does not match, or the log lines that explain the end.
    fn end(&mut self, error: ChannelError) -> ChannelError {
        while let Ok(Some(_)) = write_batch(self.socket.as_fd(), &mut self.lanes) {}
        self.lanes.clear();
        shut_down(self.socket.as_fd());
        self.ended.get_or_insert(error).clone()
    }
}

impl AsFd for WorkerEndpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};

    use super::*;
    use crate::descriptors::receive;
    use crate::id::{RequestId, WorkerId};
    use crate::message::Reply;

    #[test]
    fn congestion_ends_at_half_of_where_it_began() {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        setsockopt(&theirs, sockopt::SndBuf, &1).unwrap(); // the least there is, so that the queue shrinks slowly
        let mut endpoint = WorkerEndpoint::new(theirs, Hello::new("0.1.0", WorkerId(1))).unwrap();
        while endpoint.lanes.cost(Lane::Control) < CONTROL_HIGH {
            assert!(!endpoint.is_congested());
            let response = Response {
                id: RequestId(1),
                result: Ok(Reply::Done),
            };
            endpoint.push_response(response).unwrap();
        }
        assert!(endpoint.is_congested());
        let mut seen_between = false;
        let mut buffer = vec![0; 1 << 20];
        while !endpoint.lanes.is_empty() {
            endpoint.flush().unwrap();
            while receive(ours.as_fd(), &mut buffer).is_ok() {}
            let cost = endpoint.lanes.cost(Lane::Control);
            assert_eq!(endpoint.is_congested(), cost >= CONTROL_HIGH / 2, "at a cost of {cost}");
            seen_between |= (CONTROL_HIGH / 2..CONTROL_HIGH).contains(&cost);
        }
        assert!(seen_between, "the queue shrank through the middle");
    }
}
