//! Who of a producer's consumers lacks which of its codecs: consumers that lack the same ones share a slot, in which their
//! packets are withheld (`withheld.rs`).

use weir_channel::message::CreateConsumer;

use super::Relay;
use super::consumer::Consumer;
use super::slots::ProducerKey;
use super::withheld::{ALL_SLOTS, SLOTS, SlotSet};

/// The codecs of a producer that somebody lacks, one bit for each.
pub type Lacked = u16;

/// The slots of one producer.
#[derive(Debug, Default)]
pub struct Filters {
    slots: [Filter; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Filter {
    lacked: Lacked,
    consumers: u32,
}

impl Filters {
    /// The slot of one more consumer, and whether it is a new one. When all slots are others' the consumer gets one in which
    /// less is withheld than it lacks: what it lacks and is not withheld there, it sees as gaps.
    pub fn join(&mut self, lacked: Lacked) -> (u8, bool) {
        // The first slot is for those that lack nothing, so that there is always one that fits.
        let slots = if lacked == 0 { 0..1 } else { 1..SLOTS };
        let is_same = |slot: &usize| self.slots[*slot].consumers > 0 && self.slots[*slot].lacked == lacked;
        let is_free = |slot: &usize| self.slots[*slot].consumers == 0;
        let fits = |slot: &usize| !is_free(slot) && self.slots[*slot].lacked & !lacked == 0;
        let slot = slots
            .clone()
            .find(is_same)
            .or_else(|| slots.clone().find(is_free))
            .or_else(|| {
                slots
                    .clone()
                    .filter(fits)
                    .max_by_key(|slot| self.slots[*slot].lacked.count_ones())
            })
            .unwrap_or(0);
        let filter = &mut self.slots[slot];
        let is_new = filter.consumers == 0;
        if is_new {
            filter.lacked = if slot == 0 { 0 } else { lacked };
        }
        filter.consumers += 1;
        (slot as u8, is_new)
    }

    /// A consumer leaves its slot; whether nobody is left in it.
    pub fn leave(&mut self, slot: u8) -> bool {
        let filter = &mut self.slots[usize::from(slot)];
        filter.consumers -= 1;
        filter.consumers == 0
    }

    /// The slots in which a codec's packets are withheld. With padding alone every packet is, in all of them.
    #[inline]
    pub fn withholding(&self, codec: u8, is_padding: bool) -> SlotSet {
        if is_padding {
            return ALL_SLOTS;
        }
        let bit = 1 << (codec & 0x0f);
        let mut slots = 0;
        for (slot, filter) in self.slots.iter().enumerate() {
            slots |= u8::from(filter.lacked & bit != 0) << slot;
        }
        slots
    }
}

impl Relay {
    /// What the consumer will be withheld.
    pub(super) fn join_slot(&mut self, producer: ProducerKey, request: &CreateConsumer) -> u8 {
        let producer = &mut self.producers[producer];
        let (slot, is_new) = producer.filters.join(producer.lacked(&request.payload_types));
        if is_new {
            producer.streams.iter_mut().for_each(|stream| stream.open_slot(slot));
        }
        slot
    }

    /// The consumer leaves its slot.
    pub(super) fn leave_slot(&mut self, consumer: &Consumer) {
        let producer = &mut self.producers[consumer.producer];
        let slot = consumer.rewriter.offsets().slot;
        if producer.filters.leave(slot) {
            producer.streams.iter_mut().for_each(|stream| stream.close_slot(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lacks_the_same_shares_a_slot() {
        let mut filters = Filters::default();
        assert_eq!(filters.join(0b110), (1, true));
        assert_eq!(filters.join(0), (0, true));
        assert_eq!(filters.join(0b110), (1, false));
        assert_eq!(filters.join(0), (0, false));
        assert_eq!(filters.join(0b10), (2, true));
        assert_eq!(filters.withholding(0, false), 0);
        assert_eq!(filters.withholding(1, false), 0b110);
        assert_eq!(filters.withholding(2, false), 0b010);
        assert_eq!(filters.withholding(0, true), ALL_SLOTS);
        assert!(!filters.leave(1));
        assert!(filters.leave(1));
        assert_eq!(filters.join(0b1000), (1, true));
        assert_eq!(filters.withholding(2, false), 0);
    }

    #[test]
    fn when_slots_run_out_a_slot_is_shared_in_which_nothing_is_withheld_that_somebody_wants() {
        let mut filters = Filters::default();
        for lacked in [0b0001, 0b0010, 0b0110] {
            assert!(filters.join(lacked).1);
        }
        assert_eq!(filters.join(0b1110), (3, false), "the most of what it lacks");
        assert_eq!(filters.join(0b1000), (0, true));
        assert_eq!(filters.withholding(3, false), 0, "nobody's slot was changed");
    }
}
