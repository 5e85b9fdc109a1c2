//! Where unguessable numbers come from: handed in, so that tests can choose them.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// A cryptographically secure source of random bytes.
pub trait Entropy {
    /// Fills `bytes` with bytes that nobody can guess.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// The generator of the cryptographic library, seeded by the kernel.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The process's generator.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        // The library aborts the process itself when the kernel has no randomness for it; the error of its interface is
        // for back ends that it is not built with here.
        #[expect(
            clippy::expect_used,
            reason = "going on with guessable secrets would be worse than stopping"
        )]
        self.0.fill(bytes).expect("the kernel has randomness");
    }
}

/// Bytes that follow from a seed, for tests: anybody can guess them.
#[cfg(test)]
pub(crate) struct SeededEntropy(pub(crate) u64);

#[cfg(test)]
impl Entropy for SeededEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (mixed ^ mixed >> 31) as u8;
        }
    }
}
