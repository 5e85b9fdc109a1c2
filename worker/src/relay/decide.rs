//! Whether a packet goes to a consumer. Pure: nothing is changed here, nothing decided elsewhere.
//!
//! ```text
//!               packet of `target`            packet of `current`
//!   Idle        key frame (or audio): Start   -
//!   Flowing     forward                       (current == target)
//!   Switching   key frame: Start              forward, until the target's key frame is there
//!   sync        key frame: Start              key frame: Start
//! ```

use weir_channel::message::DropReason;

use super::packet::PacketMeta;

/// What a consumer is sent, and what it should be sent.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Flow {
    /// The number on which it started, of those that the consumer's packets have (see [`PacketMeta::folded`]); what is older belongs to
    /// the time before, unless it was [`Overtaken`].
    pub first_seq: u64,
    /// The stream's epoch when the flow started; another one means that it must start again.
    pub epoch: u32,
    /// The encoding that flows.
    pub current: Option<u8>,
    /// The encoding that should flow.
    pub target: Option<u8>,
    /// It is sent a kept group of pictures first, and then what comes now.
    pub is_catching_up: bool,
    /// The flow has to start again before anything more is forwarded.
    pub sync_required: bool,
    /// The flow starts on key frames only.
    pub needs_key_frame: bool,
    /// The transport knows where to send.
    pub connected: bool,
}

impl Flow {
    /// Nothing flows yet.
    pub fn new(needs_key_frame: bool, connected: bool) -> Self {
        Self {
            first_seq: 0,
            epoch: 0,
            current: None,
            target: None,
            is_catching_up: false,
            sync_required: true,
            needs_key_frame,
            connected,
        }
    }
}

/// What belongs to a flow's start though its number is lower than that of the packet on which the flow started.
#[derive(Clone, Copy, Debug)]
pub struct Overtaken {
    /// The timestamp of the start.
    pub timestamp: u64,
    /// The lowest number of a packet that belongs to the start by its timestamp.
    pub early_seq: u64,
}

impl Default for Overtaken {
    fn default() -> Self {
        Self {
            timestamp: 0,
            early_seq: u64::MAX,
        }
    }
}

/// What happens to a packet at a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Goes out with the offsets that are in force.
    Forward,
    /// Goes out as the first packet of a start, a resumption or a switch: new offsets.
    Start,
    /// Does not go out.
    Drop(DropReason),
}

/// Decides about one packet. `payload_type` is the consumer's own for the packet's codec, if it has one; `slot` says what is withheld
/// from the consumer.
#[inline]
pub fn decide(
    packet: &PacketMeta,
    flow: &Flow,
    overtaken: &Overtaken,
    slot: u8,
    payload_type: Option<u8>,
) -> Disposition {
    if !flow.connected {
        return Disposition::Drop(DropReason::NoRemote);
    }
    if payload_type.is_none() {
        return Disposition::Drop(DropReason::UnsupportedPayloadType);
    }
    let encoding = Some(packet.encoding);
    if encoding == flow.current && !flow.sync_required && packet.epoch == flow.epoch {
        if flow.is_catching_up {
            return if packet.key_frame {
                Disposition::Start
            } else {
                Disposition::Drop(DropReason::AwaitingKeyFrame)
            };
        }
        let is_of_the_start = || packet.seq >= overtaken.early_seq && packet.timestamp == overtaken.timestamp;
        return if packet.folded(slot) >= flow.first_seq || is_of_the_start() {
            Disposition::Forward
        } else {
            Disposition::Drop(DropReason::BeforeSwitch)
        };
    }
    if encoding != flow.target && encoding != flow.current {
        return Disposition::Drop(DropReason::OtherProfile);
    }
    if packet.key_frame || !flow.needs_key_frame {
        Disposition::Start
    } else {
        Disposition::Drop(DropReason::AwaitingKeyFrame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(encoding: u8, seq: u64, key_frame: bool) -> PacketMeta {
        PacketMeta {
            start: 0,
            len: 12,
            seq,
            timestamp: 0,
            encoding,
            payload_type: 96,
            key_frame,
            epoch: 1,
            payload_start: 12,
            payload_len: 0,
            padding_added: 0,
            vp8: None,
            extension: None,
            withheld: Default::default(),
            first: seq,
            may_be_preceded: false,
            next: u32::MAX,
        }
    }

    #[test]
    fn table() {
        use Disposition::{Drop, Forward, Start};
        use DropReason::{AwaitingKeyFrame, BeforeSwitch, NoRemote, OtherProfile, UnsupportedPayloadType};
        const KEY: bool = true;
        const DELTA: bool = false;
        let flow = |current, target, sync_required| Flow {
            current,
            target,
            epoch: 1,
            first_seq: 100,
            is_catching_up: false,
            sync_required,
            needs_key_frame: true,
            connected: true,
        };
        let rows = [
            // Idle: waits for the target's key frame.
            (flow(None, Some(2), true), packet(2, 100, DELTA), Drop(AwaitingKeyFrame)),
            (flow(None, Some(2), true), packet(2, 100, KEY), Start),
            (flow(None, Some(2), true), packet(0, 100, KEY), Drop(OtherProfile)),
            (flow(None, None, true), packet(0, 100, KEY), Drop(OtherProfile)),
            // Flowing.
            (flow(Some(2), Some(2), false), packet(2, 100, DELTA), Forward),
            (flow(Some(2), Some(2), false), packet(2, 100, KEY), Forward),
            (flow(Some(2), Some(2), false), packet(2, 99, DELTA), Drop(BeforeSwitch)),
            (flow(Some(2), Some(2), false), packet(1, 100, KEY), Drop(OtherProfile)),
            // Switching: the old one flows until the new one's key frame.
            (flow(Some(0), Some(2), false), packet(0, 100, DELTA), Forward),
            (
                flow(Some(0), Some(2), false),
                packet(2, 5, DELTA),
                Drop(AwaitingKeyFrame),
            ),
            (flow(Some(0), Some(2), false), packet(2, 5, KEY), Start),
            // After a resumption either may start, on a key frame.
            (
                flow(Some(0), Some(2), true),
                packet(0, 100, DELTA),
                Drop(AwaitingKeyFrame),
            ),
            (flow(Some(0), Some(2), true), packet(0, 100, KEY), Start),
            (flow(Some(0), Some(2), true), packet(2, 100, KEY), Start),
            // The stream restarted, or the producer was resumed.
            (
                Flow {
                    epoch: 0,
                    ..flow(Some(2), Some(2), false)
                },
                packet(2, 100, DELTA),
                Drop(AwaitingKeyFrame),
            ),
            (
                Flow {
                    epoch: 0,
                    ..flow(Some(2), Some(2), false)
                },
                packet(2, 100, KEY),
                Start,
            ),
            // Audio starts with any packet.
            (
                Flow {
                    needs_key_frame: false,
                    ..flow(None, Some(0), true)
                },
                packet(0, 1, DELTA),
                Start,
            ),
            // No remote.
            (
                Flow {
                    connected: false,
                    ..flow(Some(2), Some(2), false)
                },
                packet(2, 100, KEY),
                Drop(NoRemote),
            ),
        ];
        for (flow, packet, expected) in rows {
            assert_eq!(
                decide(&packet, &flow, &Overtaken::default(), 0, Some(96)),
                expected,
                "{flow:?} {packet:?}"
            );
        }
        let flowing = flow(Some(2), Some(2), false);
        // What was withheld before does not count.
        for (withheld, expected) in [(4, Forward), (5, Drop(BeforeSwitch))] {
            let packet = PacketMeta {
                withheld: [0, withheld, 9, 9],
                ..packet(2, 104, DELTA)
            };
            assert_eq!(decide(&packet, &flowing, &Overtaken::default(), 1, Some(96)), expected);
        }
        assert_eq!(
            decide(&packet(2, 100, KEY), &flowing, &Overtaken::default(), 0, None),
            Drop(UnsupportedPayloadType)
        );
    }
}
