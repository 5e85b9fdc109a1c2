//! What remotes report: how our streams reach them, what they can take, when they leave (RFC 3550 §6, RFC 3611, REMB).

use std::time::Duration;

use crate::rtp::rtcp::RtcpItem;
use crate::rtp::rtcp::xr::Delay;
use crate::time::Time;

use super::keys::TransportKey;
use super::stream::{INACTIVE_AFTER, Stream};
use super::{Action, Relay};

/// A BYE makes a stream unavailable at most this often. More would change nothing: its silence does so as soon.
const BYE_INTERVAL: Duration = INACTIVE_AFTER;

impl Relay {
    /// What reports say, and whatever else is not a request for packets or pictures.
    pub(super) fn on_report(&mut self, now: Time, key: TransportKey, feedback: RtcpItem) {
        match feedback {
            RtcpItem::SenderReport { ssrc, ntp, rtp, .. } => self.on_sender_report(now, key, ssrc, ntp, rtp),
            RtcpItem::ReceiverReport { block, .. } => {
                // Of streams that are not ours, and of retransmissions, there is nothing to remember.
                let consumer = self.transports[key].consumer_ssrcs.get(&block.ssrc);
                if let Some(consumer) = consumer.and_then(|key| self.consumers.get_mut(*key))
                    && consumer.ssrc == block.ssrc
                {
                    consumer.transmission.on_block(now, &block, &mut consumer.round_trip);
                    let (transport, time) = (&mut self.transports[key], block.last_sender_report);
                    if let Some(echo) = &mut transport.reports.echo
                        && !consumer.transmission.has_reported(time)
                        && echo.is_answered_by(time, self.reports.wall_clock.ntp(now))
                    {
                        transport.reports.echo = None;
                        let transport = transport.index;
                        self.actions.push_back(Action::Echoed { transport });
                    }
                }
            }
            RtcpItem::Remb { bps } => self.transports[key].reports.remote_bitrate = Some(bps),
            RtcpItem::ReferenceTime { ssrc, ntp } => {
                self.transports[key].reports.on_reference_time(now, ssrc, ntp);
            }
            RtcpItem::DelaySinceReference { sender, delay } => self.on_delay(now, key, sender, delay),
            RtcpItem::Bye { ssrc } => self.on_bye(now, key, ssrc),
            _ => {}
        }
    }

    fn on_sender_report(&mut self, now: Time, transport: TransportKey, ssrc: u32, ntp: u64, rtp: u32) {
        let transport = &self.transports[transport];
        let Some((key, encoding)) = transport.ssrcs.get(&ssrc).copied() else {
            // Retransmissions have reports of their own. They say nothing of the media's clock.
            if let Some((key, encoding)) = transport.rtx_ssrcs.get(&ssrc) {
                let stream = &mut self.producers[*key].streams[usize::from(*encoding)];
                stream.rtx_report = Some(ntp);
                stream.rtx_reception.on_sender_report(now);
            }
            return;
        };
        let producer = &mut self.producers[key];
        let stream = &mut producer.streams[usize::from(encoding)];
        if stream.ssrc != Some(ssrc) {
            return;
        }
        let tells_time = stream.on_sender_report(now, ntp, rtp);
        stream.reception.on_sender_report(now);
        if stream.becomes_unkept() {
            self.unkept.push((key, encoding));
        }
        if tells_time && let Some(clock) = self.reports.clocks.get_mut(producer.clock) {
            clock.on_report(now, ntp);
        }
    }

    /// A sender has answered our reference time.
    fn on_delay(&mut self, now: Time, transport: TransportKey, sender: u32, delay: Delay) {
        let transport = &self.transports[transport];
        if delay.ssrc != self.ssrc {
            return;
        }
        let Some(way) = transport
            .reports
            .references
            .round_trip(now, delay.reference, delay.since)
        else {
            return;
        };
        if let Some((producer, encoding)) = transport.ssrcs.get(&sender) {
            let stream = &mut self.producers[*producer].streams[usize::from(*encoding)];
            stream.round_trip.measured(way);
        }
    }

    /// A source says that it leaves. That is its silence foretold, and means what silence means after a second: the
    /// stream is off the offer if another one of its producer still comes, and not otherwise, as then nothing better is
    /// on offer (differences §2.8). Packets that still come bring it back, like after any silence; a producer is closed
    /// by its owner and by nobody else. Of a source that says BYE over and over, one BYE an interval counts: what follows from it
    /// costs something for each consumer.
    fn on_bye(&mut self, now: Time, transport: TransportKey, ssrc: u32) {
        let Some((key, encoding)) = self.transports[transport].ssrcs.get(&ssrc).copied() else {
            return;
        };
        let streams = &mut self.producers[key].streams;
        streams[usize::from(encoding)].latch.on_bye(now);
        let stream = &streams[usize::from(encoding)];
        let lives = |stream: &Stream| {
            stream.available && stream.last_media.is_some_and(|last| now.since(last) < INACTIVE_AFTER)
        };
        let others = streams
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != usize::from(encoding));
        let is_heard = stream.last_bye.is_none_or(|last| now.since(last) >= BYE_INTERVAL);
        if is_heard
            && stream.ssrc == Some(ssrc)
            && stream.available
            && others.into_iter().any(|(_, stream)| lives(stream))
        {
            streams[usize::from(encoding)].last_bye = Some(now);
            self.on_stream_unavailable(now, key, encoding);
        }
    }
}
