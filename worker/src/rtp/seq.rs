//! Numbers that wrap around, made into numbers that do not. Wrap arithmetic exists nowhere else.
//!
//! Each extender remembers the newest number and puts another one at its shortest distance from it. Extended numbers
//! start one full cycle up, so that what is older than the first one stays above zero.

/// RFC 3550 appendix A.1: a packet this many numbers ahead of the newest, or more, is not believed at once.
pub const MAX_DROPOUT: u16 = 3000;

/// RFC 3550 appendix A.1: a packet this many numbers behind the newest, or more, is not believed at once.
pub const MAX_MISORDER: u16 = 1500;

/// What [`SeqExtender::accept`] says of a packet. The number is the packet's extended sequence number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// The first packet of the stream.
    First(u64),
    /// Newer than the newest; perhaps after a gap.
    InOrder(u64),
    /// Not newer than the newest: late, or received before.
    Late(u64),
    /// The second of two consecutive packets far from the newest: the sender has started over. It continues right after
    /// the newest, and so do the packets that follow it.
    Restarted(u64),
    /// Too far from the newest to be believed, or from before a restart.
    Bad,
}

/// Extends the sequence numbers of one stream to 64 bits, and judges them as RFC 3550 appendix A.1 does (`update_seq`),
/// without its probation.
///
/// Until a restart the low 16 bits of the extended number are the number in the packet; after it they are not, because
/// extended numbers never jump with the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqExtender {
    /// The newest extended number; 0 before the first packet.
    newest: u64,
    /// Numbers below belong to packets from before the last restart.
    floor: u64,
    /// The newest number as it stood in the packet.
    newest_seq: u16,
    /// The number that would confirm a restart.
    restart_at: Option<u16>,
}

impl SeqExtender {
    /// Places a packet in the stream, and moves on to it if it is newer than the newest.
    #[inline]
    pub fn accept(&mut self, seq: u16) -> Arrival {
        let ahead = seq.wrapping_sub(self.newest_seq);
        if self.newest == 0 {
            self.newest = (1 << 16) + u64::from(seq);
            self.newest_seq = seq;
            return Arrival::First(self.newest);
        }
        if (1..MAX_DROPOUT).contains(&ahead) {
            self.newest += u64::from(ahead);
            self.newest_seq = seq;
            self.restart_at = None;
            return Arrival::InOrder(self.newest);
        }
        let behind = ahead.wrapping_neg();
        if behind < MAX_MISORDER {
            let ext = self.newest - u64::from(behind);
            return if ext < self.floor {
                Arrival::Bad
            } else {
                Arrival::Late(ext)
            };
        }
        self.jump(seq)
    }

    /// RFC 3550 appendix A.1: two sequential packets far away mean that the other side has restarted without telling.
    #[cold]
    fn jump(&mut self, seq: u16) -> Arrival {
        if self.restart_at != Some(seq) {
            self.restart_at = Some(seq.wrapping_add(1));
            return Arrival::Bad;
        }
        self.newest += 1;
        self.floor = self.newest;
        self.newest_seq = seq;
        self.restart_at = None;
        Arrival::Restarted(self.newest)
    }

    /// The newest extended number; `None` before the first packet.
    #[inline]
    pub fn newest(&self) -> Option<u64> {
        (self.newest != 0).then_some(self.newest)
    }
}

/// Which of the last [`Seen::WINDOW`] extended numbers have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    newest: u64,
    /// A ring: the bit of a number is at the number modulo the window.
    bits: [u64; Self::WINDOW as usize / 64],
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            newest: 0,
            bits: [0; Self::WINDOW as usize / 64],
        }
    }
}

impl Seen {
    /// How many numbers are remembered, the newest included. More than [`MAX_MISORDER`], so that whatever
    /// [`SeqExtender`] accepts as late can be judged here.
    pub const WINDOW: u64 = 2048;

    /// Notes a number. `false`: it was there already, or it is too old to know.
    #[inline]
    pub fn insert(&mut self, ext: u64) -> bool {
        let bit = 1 << (ext % 64);
        let word = (ext / 64) as usize % self.bits.len();
        if ext > self.newest {
            if ext - self.newest > 1 {
                self.forget_up_to(ext);
            }
            self.newest = ext;
            self.bits[word] |= bit;
            return true;
        }
        let known = self.newest - ext < Self::WINDOW;
        let fresh = known && self.bits[word] & bit == 0;
        self.bits[word] |= if known { bit } else { 0 };
        fresh
    }

    /// Clears the bits of the numbers between the newest and `ext`, which still tell of one window ago.
    fn forget_up_to(&mut self, ext: u64) {
        if ext - self.newest >= Self::WINDOW {
            self.bits.fill(0);
            return;
        }
        let mut number = self.newest + 1;
        while number < ext {
            // The rest of the number's word, or what of it lies before `ext`.
            let offset = number % 64;
            let count = (64 - offset).min(ext - number);
            let mask = (u64::MAX >> (64 - count)) << offset;
            let word = (number / 64) as usize % self.bits.len();
            self.bits[word] &= !mask;
            number += count;
        }
    }
}

/// Extends RTP timestamps to 64 bits. Any timestamp is accepted: what it means is for the caller to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimestampExtender {
    /// The newest extended timestamp; 0 before the first.
    newest: u64,
}

impl TimestampExtender {
    /// The timestamp at its shortest distance from the newest, which it becomes if it is newer.
    #[inline]
    pub fn extend(&mut self, ts: u32) -> u64 {
        if self.newest == 0 {
            self.newest = (1 << 32) + u64::from(ts);
            return self.newest;
        }
        let ahead = ts.wrapping_sub(self.newest as u32).cast_signed();
        // Wrapping, because a sender could drive it over the end of 64 bits with some 2³³ packets.
        let ext = self.newest.wrapping_add_signed(i64::from(ahead));
        if ahead > 0 {
            self.newest = ext;
        }
        ext
    }

    /// The newest extended timestamp; `None` before the first.
    #[inline]
    pub fn newest(&self) -> Option<u64> {
        (self.newest != 0).then_some(self.newest)
    }
}

/// Extends a counter of `BITS` bits (2 to 16) to 64: VP8's picture ids (15 or 7 bits) and TL0PICIDX (8 bits).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrapExtender<const BITS: u32> {
    /// The newest extended value; 0 before the first.
    newest: u64,
}

impl<const BITS: u32> WrapExtender<BITS> {
    /// The value, of which the low `BITS` bits count, at its shortest distance from the newest, which it becomes if it
    /// is newer.
    #[inline]
    pub fn extend(&mut self, value: u16) -> u64 {
        const { assert!(BITS >= 2 && BITS <= 16) };
        if self.newest == 0 {
            self.newest = (1 << BITS) + u64::from(value) % (1 << BITS);
            return self.newest;
        }
        // The distance in the top bits of an i16, brought down again with its sign.
        let unused = 16 - BITS;
        let ahead = (value.wrapping_sub(self.newest as u16) << unused).cast_signed() >> unused;
        let ext = self.newest.wrapping_add_signed(i64::from(ahead));
        if ahead > 0 {
            self.newest = ext;
        }
        ext
    }

    /// The newest extended value; `None` before the first.
    #[inline]
    pub fn newest(&self) -> Option<u64> {
        (self.newest != 0).then_some(self.newest)
    }
}
