//! What secrets leave behind on the stack. Whoever holds keys keeps them on the heap and wipes them, so that moving them copies
//! a pointer; but the calls that derive and load them, those of libraries too, leave copies in frames that nobody uses any more.

use std::hint::black_box;

/// More than a handshake or the loading of a key uses. Writing it takes about a microsecond.
const STACK_BYTES: usize = 32 * 1024;

/// Overwrites what calls that have returned left on the stack.
#[inline(never)]
pub(crate) fn wipe_stack() {
    black_box(&mut [0_u8; STACK_BYTES]);
}

/// Runs what works with secrets, and overwrites what it left on the stack. The result must not hold secrets itself.
pub(crate) fn without_residue<T>(work: impl FnOnce() -> T) -> T {
    /// Never a part of the frame that stays.
    #[inline(never)]
    fn run<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let done = run(work);
    wipe_stack();
    done
}
