//! The receiving end, holding a relay to what it promises.
//!
//! A [`StreamCheck`] sees everything that arrives for one consumer. It recognises each packet by its content
//! ([`Catalogue`]) and knows from the [`SentLog`] when it was sent. So it need not trust any number in the packet, and
//! judges all of them: what was lost inside the relay shows although the sequence numbers were rewritten, and what was
//! relayed during a pause shows although it came later.

mod catalogue;
mod stream;
#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, SentLog};
pub use stream::{Arrival, Pause, StreamCheck};

/// What is checked of a consumer's stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Check {
    /// Packets are valid RTP under the consumer's SSRC and payload type.
    WellFormed,
    /// What packets carry is what was sent, bit for bit, with the marker where it was.
    ContentIntact,
    /// Sequence numbers go up by one, always: no gap, no repetition, across pauses and switches too.
    SequenceUnbroken,
    /// A new frame has a later timestamp, as much later as it was sent with, across pauses and (where the sender reports
    /// on its streams) switches too; packets of one frame have the same.
    TimestampsAdvance,
    /// VP8 picture ids go up by one with each frame, TL0PICIDX with each frame of the base layer.
    PictureIdsContinuous,
    /// Video starts, resumes and switches with the first packet of a key frame.
    KeyFrameFirst,
    /// Between pauses, nothing of a profile is missing, and no picture is lost in a switch.
    NothingMissing,
    /// What was sent during a pause never arrives.
    SilentWhilePaused,
}

impl Check {
    /// All of them, in the order of the enum, so that `check as usize` indexes tables.
    pub const ALL: [Self; 8] = [
        Self::WellFormed,
        Self::ContentIntact,
        Self::SequenceUnbroken,
        Self::TimestampsAdvance,
        Self::PictureIdsContinuous,
        Self::KeyFrameFirst,
        Self::NothingMissing,
        Self::SilentWhilePaused,
    ];

    /// The name it goes by in machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Self::WellFormed => "well-formed",
            Self::ContentIntact => "content-intact",
            Self::SequenceUnbroken => "sequence-unbroken",
            Self::TimestampsAdvance => "timestamps-advance",
            Self::PictureIdsContinuous => "picture-ids-continuous",
            Self::KeyFrameFirst => "key-frame-first",
            Self::NothingMissing => "nothing-missing",
            Self::SilentWhilePaused => "silent-while-paused",
        }
    }

    /// What it promises, as a sentence without its full stop.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::WellFormed => "every packet is valid RTP under the consumer's SSRC and payload type",
            Self::ContentIntact => "every payload is one that was sent, bit for bit",
            Self::SequenceUnbroken => "sequence numbers go up by one, with no gap and no repetition",
            Self::TimestampsAdvance => "timestamps go forward as they were sent",
            Self::PictureIdsContinuous => "VP8 picture ids go up by one per frame, TL0PICIDX per base frame",
            Self::KeyFrameFirst => "video starts, resumes and switches on a key frame",
            Self::NothingMissing => "between pauses nothing is missing, and no picture is lost in a switch",
            Self::SilentWhilePaused => "nothing that was sent during a pause arrives",
        }
    }
}

/// Violations of one check: how many, and the first few in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    count: u64,
    examples: Vec<String>,
}

impl Faults {
    /// A broken stream breaks at every packet; the first few tell the story.
    const EXAMPLES_MAX: usize = 3;

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first of them, in words.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }

    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < Self::EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}
