//! Who of a producer's consumers lacks which of its codecs: consumers that lack the same ones share a slot, in which their
//! packets are withheld (`withheld.rs`).

use super::withheld::{ALL_SLOTS, SLOTS, SlotSet};

/// The codecs of a producer that somebody lacks, one bit for each.
pub type UnsupportedCodecs = u16;

/// The slots of one producer.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Filters {
    /// What is withheld in any slot: mostly nothing.
    anywhere: UnsupportedCodecs,
    slots: [Filter; SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Filter {
    unsupported: UnsupportedCodecs,
    consumers: u32,
    /// Somebody has used it.
    is_counted: bool,
}

/// Where a consumer has got to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Joined {
    pub(super) slot: u8,
    /// Nothing was counted there yet.
    pub(super) is_new: bool,
    /// It was for others, who are gone: what was counted there has another meaning from now on.
    pub(super) is_taken_over: bool,
}

impl Filters {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: std::ops::Range<usize> = 0..std::mem::offset_of!(Self, slots);

    /// The slot of one more consumer. When all slots are others' the consumer gets one in which less is withheld than it lacks:
    /// what it lacks and is not withheld there, it sees as gaps.
    pub(super) fn join(&mut self, unsupported: UnsupportedCodecs) -> Joined {
        // The first slot is for those that lack nothing, so that there is always one that fits.
        let slots = if unsupported == 0 { 0..1 } else { 1..SLOTS };
        let is_same = |slot: &usize| self.slots[*slot].is_counted && self.slots[*slot].unsupported == unsupported;
        let is_new = |slot: &usize| !self.slots[*slot].is_counted;
        let is_left = |slot: &usize| self.slots[*slot].consumers == 0;
        let fits = |slot: &usize| self.slots[*slot].unsupported & !unsupported == 0 && self.slots[*slot].is_counted;
        let most = |slot: &usize| self.slots[*slot].unsupported.count_ones();
        let slot = slots
            .clone()
            .find(is_same)
            .or_else(|| slots.clone().find(is_new))
            .or_else(|| slots.clone().find(is_left))
            .or_else(|| slots.clone().filter(fits).max_by_key(most))
            .unwrap_or(0);
        let filter = &mut self.slots[slot];
        let is_left = filter.consumers == 0;
        let joined = Joined {
            slot: slot as u8,
            is_new: !filter.is_counted,
            is_taken_over: filter.is_counted && is_left && slot != 0 && filter.unsupported != unsupported,
        };
        if joined.is_new || joined.is_taken_over {
            filter.unsupported = if slot == 0 { 0 } else { unsupported };
        }
        filter.is_counted = true;
        filter.consumers += 1;
        self.anywhere = self.slots.iter().fold(0, |all, filter| all | filter.unsupported);
        joined
    }

    /// A consumer leaves its slot, in which is counted on: who comes next may start with what was kept from before.
    pub(super) fn leave(&mut self, slot: u8) {
        self.slots[usize::from(slot)].consumers -= 1;
    }

    /// The slots in which a codec's packets are withheld. With padding alone every packet is, in all of them.
    #[inline]
    pub fn withholding(&self, codec: u8, is_padding: bool) -> SlotSet {
        if is_padding {
            return ALL_SLOTS;
        }
        let bit = 1 << (codec & 0x0f);
        let mut slots = 0;
        if self.anywhere & bit == 0 {
            return slots;
        }
        for (slot, filter) in self.slots.iter().enumerate() {
            slots |= u8::from(filter.unsupported & bit != 0) << slot;
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(slot: u8, is_new: bool, is_taken_over: bool) -> Joined {
        Joined {
            slot,
            is_new,
            is_taken_over,
        }
    }

    #[test]
    fn who_lacks_the_same_shares_a_slot() {
        let mut filters = Filters::default();
        assert_eq!(filters.join(0b110), joined(1, true, false));
        assert_eq!(filters.join(0), joined(0, true, false));
        assert_eq!(filters.join(0b110), joined(1, false, false));
        assert_eq!(filters.join(0), joined(0, false, false));
        assert_eq!(filters.join(0b10), joined(2, true, false));
        assert_eq!(filters.withholding(0, false), 0);
        assert_eq!(filters.withholding(1, false), 0b110);
        assert_eq!(filters.withholding(2, false), 0b010);
        assert_eq!(filters.withholding(0, true), ALL_SLOTS);
        // Left by both, it is counted on, and is theirs who lack the same; others take a new one first.
        filters.leave(1);
        filters.leave(1);
        assert_eq!(filters.withholding(2, false), 0b010);
        assert_eq!(filters.join(0b1000), joined(3, true, false));
        assert_eq!(filters.join(0b110), joined(1, false, false));
        filters.leave(1);
        assert_eq!(filters.join(0b1_0000), joined(1, false, true));
        assert_eq!(filters.withholding(2, false), 0);
    }

    #[test]
    fn when_slots_run_out_a_slot_is_shared_in_which_nothing_is_withheld_that_somebody_wants() {
        let mut filters = Filters::default();
        for unsupported in [0b0001, 0b0010, 0b0110] {
            assert!(filters.join(unsupported).is_new);
        }
        assert_eq!(
            filters.join(0b1110),
            joined(3, false, false),
            "the most of what it lacks"
        );
        assert_eq!(filters.join(0b1000), joined(0, true, false));
        assert_eq!(filters.withholding(3, false), 0, "nobody's slot was changed");
    }
}
