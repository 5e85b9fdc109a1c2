//! How loud one producer is: the audio levels that its packets carry (RFC 6464), averaged.

use crate::rtp::extension::{ExtensionBlock, elements};

/// The levels of one producer since the last time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// The extension's id with this producer; 0: nobody wants to know.
    id: u8,
    /// The sum of the levels, in −dBov.
    sum: u32,
    count: u32,
}

impl Meter {
    /// Measures the extension with this id; 0: none.
    pub(super) fn new(id: u8) -> Self {
        Self { id, ..Self::default() }
    }

    /// Takes in the level of a packet, if it has one and somebody wants to know.
    #[inline]
    pub(super) fn on_packet(&mut self, packet: &[u8], block: Option<ExtensionBlock>) {
        if self.id != 0 {
            self.measure(packet, block);
        }
    }

    fn measure(&mut self, packet: &[u8], block: Option<ExtensionBlock>) {
        let element = block.and_then(|block| elements(packet, block).find(|element| element.id == self.id));
        // RFC 6464 §3: one bit for voice, seven for the level in −dBov.
        if let Some([level]) = element.as_ref().map(|element| element.value(packet)) {
            self.sum = self.sum.saturating_add(u32::from(level & 0x7f));
            self.count = self.count.saturating_add(1);
        }
    }

    /// The average in dBov, −127 to 0, and begins anew; `None` if there was no level.
    pub(super) fn take(&mut self) -> Option<i8> {
        let (sum, count) = (std::mem::take(&mut self.sum), std::mem::take(&mut self.count));
        let average = sum.checked_div(count)?;
        Some(-(average.min(127) as i8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::extension::Form;

    #[test]
    fn averages_are_truncated_towards_zero_and_overflow_nothing() {
        let packet = |level: u8| [0x10, level, 0x21, 9, 9, 0];
        let block = Some(ExtensionBlock {
            start: 0,
            len: 5,
            form: Form::OneByte,
        });
        let mut meter = Meter {
            id: 1,
            ..Meter::default()
        };
        assert_eq!(meter.take(), None);
        // The highest bit is voice activity, and no level.
        for level in [10, 0x80 | 11] {
            meter.on_packet(&packet(level), block);
        }
        assert_eq!(meter.take(), Some(-10));
        assert_eq!(meter.take(), None);
        for _ in 0..1_000 {
            meter.on_packet(&packet(127), block);
        }
        assert_eq!(meter.take(), Some(-127));
        meter.on_packet(&packet(0), block);
        assert_eq!(meter.take(), Some(0));
        // Without the extension, of another length, or under another id: no level.
        meter.on_packet(&packet(5), None);
        meter.on_packet(
            &[0x11, 5, 5, 0],
            Some(ExtensionBlock {
                start: 0,
                len: 4,
                form: Form::OneByte,
            }),
        );
        Meter { id: 3, ..meter }.on_packet(&packet(5), block);
        assert_eq!(meter.take(), None);
    }
}
