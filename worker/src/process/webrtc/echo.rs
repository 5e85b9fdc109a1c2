//! The second way to find out whether a client receives what is sent where it has moved to: sender reports, which receivers answer
//! ([`Relay::write_echo_request`](crate::relay::Relay::write_echo_request)).
//!
//! Clients that answer our check need none. Those that do not, and whose ICE credentials nobody has told us, prove themselves by these.

use std::time::Duration;

use weir_channel::message::IceTuple;

use crate::net::shell::Shell;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::entropy::{Entropy as _, SystemEntropy};

use super::{IoContext, TransportEntry, WebRtc};

/// For so long the answer to a check is waited for: all browsers give one.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// From one to the next. Receivers report about once a second.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most that a transport sends at once without an answer, wherever its client says that it is: with what is sent there for other
/// reasons, less than ten packets go to somebody who has not asked for them.
const REQUESTS_MAX: u32 = 8;

/// After so long it may send one more.
const REFILL: Duration = Duration::from_secs(10);

/// What a transport has sent to find out whether its client receives it.
#[derive(Debug)]
pub(super) struct EchoRequests {
    /// Where to.
    tuple: Option<IceTuple>,
    due: Time,
    left: u32,
    refilled_at: Time,
}

impl Default for EchoRequests {
    fn default() -> Self {
        Self {
            tuple: None,
            due: Time::default(),
            left: REQUESTS_MAX,
            refilled_at: Time::default(),
        }
    }
}

impl EchoRequests {
    /// Begins with another tuple, or ends; whether that is new.
    fn begin(&mut self, now: Time, tuple: Option<IceTuple>) -> bool {
        let is_new = self.tuple != tuple;
        if is_new {
            self.tuple = tuple;
            self.due = now + FIRST_WAIT;
        }
        is_new
    }

    /// When to send the next one.
    pub(super) fn due(&self) -> Option<Time> {
        let refilled = self.refilled_at + REFILL;
        self.tuple.map(|_| match self.left {
            0 => self.due.max(refilled),
            _ => self.due,
        })
    }

    /// Where to send one now, if it is time.
    fn take(&mut self, now: Time) -> Option<IceTuple> {
        while self.left < REQUESTS_MAX && self.refilled_at + REFILL <= now {
            self.left += 1;
            self.refilled_at = self.refilled_at + REFILL;
        }
        if self.left == REQUESTS_MAX {
            self.refilled_at = now;
        }
        let tuple = self.tuple.filter(|_| self.due <= now && self.left > 0)?;
        self.left -= 1;
        self.due = now + INTERVAL;
        Some(tuple)
    }
}

impl TransportEntry {
    /// Waits for an echo from where the client should be sent media, and is not yet.
    pub(super) fn await_echo(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        let awaited = self.transport.awaited_tuple(now).filter(|_| self.inbound.is_some());
        if self.echo_requests.begin(now, awaited) {
            io.relay.forget_echo_requests(transport);
        }
    }
}

impl WebRtc {
    /// Sends what a client should answer, if it is time.
    pub(super) fn request_echo(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        let entry = self.transports.get_mut(transport.0 as usize).and_then(Option::as_mut);
        if let Some(tuple) = entry.and_then(|entry| entry.echo_requests.take(now)) {
            let mut random = [0; 4];
            SystemEntropy::new().fill(&mut random);
            let packet = io.relay.write_echo_request(now, transport, u32::from_ne_bytes(random));
            if !packet.is_empty() {
                io.egress.send_report_to(transport, tuple, packet);
            }
        }
    }

    /// The client of a transport has answered.
    pub(in crate::process) fn on_echo(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
    ) {
        self.with(now, io, transport, |entry, output, _| {
            entry.echo_requests.left = REQUESTS_MAX;
            if let Some(tuple) = entry.echo_requests.tuple {
                entry.transport.on_echo(now, &tuple, output);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use weir_channel::message::IceProtocol;

    use super::*;

    fn tuple(port: u16) -> IceTuple {
        IceTuple {
            protocol: IceProtocol::Udp,
            local: ([192, 0, 2, 1], 5_000).into(),
            remote: ([198, 51, 100, 7], port).into(),
        }
    }

    /// How many are sent in so many seconds by a client that says each second that it is elsewhere, or each 5 s.
    fn sent(seconds: u64, moves_every: u64) -> usize {
        let mut requests = EchoRequests::default();
        let mut sent = 0;
        for ms in 0..seconds * 1_000 {
            let now = Time::from_millis(100_000 + ms);
            requests.begin(now, Some(tuple((ms / 1_000 / moves_every) as u16)));
            sent += usize::from(requests.take(now).is_some());
        }
        sent
    }

    #[test]
    fn a_client_that_does_not_answer_is_asked_a_few_times_wherever_it_says_it_is() {
        assert_eq!(sent(3, 100), 3);
        for moves_every in [1, 5, 1_000] {
            assert!((8..=10).contains(&sent(20, moves_every)));
            assert!(sent(200, moves_every) <= 29);
        }
    }

    #[test]
    fn it_is_asked_when_its_answer_to_a_check_would_have_come() {
        let mut requests = EchoRequests::default();
        let begun = Time::from_millis(1_000);
        assert!(requests.begin(begun, Some(tuple(1))));
        assert!(!requests.begin(begun, Some(tuple(1))));
        assert_eq!(requests.take(begun), None);
        assert_eq!(requests.due(), Some(begun + FIRST_WAIT));
        assert_eq!(requests.take(begun + FIRST_WAIT), Some(tuple(1)));
        assert_eq!(requests.due(), Some(begun + FIRST_WAIT + INTERVAL));
        requests.begin(begun + FIRST_WAIT, None);
        assert_eq!(requests.due(), None);
    }
}
