//! The event loop's end of the channel: requests in, responses and notifications out.

use std::os::fd::AsFd;
use std::time::Duration;

use tracing::info;
use weir_channel::message::{Method, Notification};

use crate::exit::Exit;
use crate::net::poll::{Interest, Source};
use crate::net::shell::{PollBackend, Shell};
use crate::time::Time;

use super::ended::Ended;
use super::event_loop::EventLoop;

/// Requests that are always served in a turn: at 3 µs each, 100 µs.
const REQUESTS_MIN: u64 = 32;

/// Requests that are served for each millisecond since the last time: twice the 20,000 a second that must be possible,
/// at 3 µs each an eighth of the worker's time.
const REQUESTS_PER_MS: u64 = 40;

/// The same while rooms are still adopted when their time before all media is over: 4 ms at most.
const REQUESTS_MIN_ADOPTING: u64 = 256;

/// How long the last answers may take to be written.
const FINISH_TIME_MAX: Duration = Duration::from_secs(1);

impl<S: Shell> EventLoop<S> {
    /// Serves as many requests as it is time for. Returns how many those were.
    pub(super) fn serve_channel(&mut self, mut now: Time) -> Result<u64, Ended> {
        let elapsed_us = now.since(self.requests_served).as_micros() as u64;
        let least = match self.adoptions.is_empty() {
            true => REQUESTS_MIN,
            false => REQUESTS_MIN_ADOPTING,
        };
        let allowed = least + elapsed_us.saturating_mul(REQUESTS_PER_MS) / 1_000;
        self.requests_served = now;
        let mut done = 0;
        while done < allowed.min(REQUESTS_PER_MS * 100) || self.adoptions.come_before_packets(now) {
            let Some((request, descriptors)) = self.endpoint.poll_request()? else {
                break;
            };
            let is_room_there = matches!(request.method, Method::AdoptionEnded { .. });
            done += match &request.method {
                Method::TakeUp {
                    transports,
                    producers,
                    consumers,
                    ..
                } => (transports.len() + producers.len() + consumers.len()) as u64,
                _ => 1,
            };
            let response = self.handle_request(now, request, descriptors);
            self.endpoint.push_response(response)?;
            if !self.adoptions.is_empty() {
                now = S::monotonic();
            }
            // Who is in a room that is there now gets something before the next one is made, when that has taken long enough.
            if self.is_leaving || is_room_there && !self.adoptions.come_before_packets(now) {
                break;
            }
        }
        Ok(done)
    }

    /// Tells the supervisor what has happened, and writes what waits for it.
    pub(super) fn send_notifications(&mut self) -> Result<(), Ended> {
        if let Some(sandbox) = self.sandbox.take() {
            self.endpoint.push_notification(Notification::Sandboxed(sandbox))?;
        }
        if self.rehearsal.goes_on() {
            self.drop_actions();
        }
        loop {
            if self.endpoint.is_congested() {
                self.endpoint.flush()?;
            }
            // Changes of profiles wait in the relay, where only the latest of each consumer counts.
            let notification = if self.endpoint.is_congested() {
                self.relay.poll_urgent_notification()
            } else {
                self.relay.poll_notification()
            };
            let Some(notification) = notification else { break };
            self.endpoint.push_notification(notification)?;
        }
        while let Some((notification, descriptor)) = self.webrtc.poll_notification() {
            match descriptor {
                Some(descriptor) => self.endpoint.push_with_descriptor(notification, descriptor)?,
                None => self.endpoint.push_notification(notification)?,
            }
        }
        while let Some(line) = self.log.pop() {
            self.endpoint.push_log(line);
        }
        let count = self.log.take_dropped();
        if count > 0 {
            self.counters.log_lines_dropped += count;
            self.endpoint
                .push_notification(Notification::LogLinesDropped { count })?;
        }
        if self.endpoint.wants_write() {
            self.endpoint.flush()?;
        }
        let interest = match (self.endpoint.wants_read(), self.endpoint.wants_write()) {
            (true, false) => Interest::Read,
            (true, true) => Interest::ReadWrite,
            (false, _) => Interest::Write,
        };
        if interest != self.channel_interest {
            self.poller
                .modify(self.endpoint.as_fd(), Source::Channel, interest)
                .map_err(|errno| Ended::new(Exit::EventLoop, format!("epoll_ctl: {errno}")))?;
            self.channel_interest = interest;
        }
        Ok(())
    }

    /// Writes what is still to be said, and ends.
    pub fn finish(&mut self) -> Ended {
        info!("shutting down");
        let (webrtc, mut io) = self.webrtc_and_io();
        webrtc.close_all(S::monotonic(), &mut io);
        let until = S::monotonic() + FINISH_TIME_MAX;
        loop {
            if let Err(ended) = self.send_notifications() {
                return ended;
            }
            let left = until.since(S::monotonic());
            if !self.endpoint.wants_write() || left.is_zero() {
                return Ended::new(Exit::Success, "asked to shut down");
            }
            self.poller
                .wait_for_channel(self.endpoint.as_fd(), Interest::Write, left);
        }
    }
}
