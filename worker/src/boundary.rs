//! Where a panic ends: what parses the network for one session or one packet takes no more than that with it.
//!
//! Behind each of the [`Parser`]s is code that parses bytes from the network and may panic, by a mistake that nobody has found yet.
//! Its caller calls it through [`contain`], drops what was being worked on, and goes on. The panic is counted, and printed on
//! standard error by the process's panic hook. A panic elsewhere ends the process, as a bug of ours should.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

/// What is called by [`contain`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Parser {
    /// A session's DTLS engine. After a panic the session has failed.
    Dtls,
    /// STUN and ICE. After a panic the packet is dropped.
    Stun,
    /// RTCP. After a panic the compound packet is dropped.
    Rtcp,
}

impl Parser {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Dtls, Self::Stun, Self::Rtcp];
}

/// A parser has panicked. What it was given is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a parser has panicked")]
pub struct Panicked;

thread_local! {
    /// How often each has panicked. A worker has one thread.
    static PANICS: Cell<[u64; Parser::ALL.len()]> = const { Cell::new([0; Parser::ALL.len()]) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    #[cfg(test)]
    static POISONED: Cell<Option<Parser>> = const { Cell::new(None) };
}

/// Runs a parser, and returns also if it panics. The caller no longer uses what was being changed when it panicked.
///
/// # Errors
///
/// If it has panicked.
#[inline]
pub fn contain<T>(parser: Parser, run: impl FnOnce() -> T) -> Result<T, Panicked> {
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        if POISONED.get() == Some(parser) {
            panic!("as the test wants it: {parser:?}");
        }
        run()
    }));
    DEPTH.set(DEPTH.get() - 1);
    done.map_err(|_| {
        let mut panics = PANICS.get();
        panics[parser as usize] += 1;
        PANICS.set(panics);
        Panicked
    })
}

/// Whether a panic of this thread ends at [`contain`]. For the process's panic hook.
pub fn is_contained() -> bool {
    DEPTH.get() > 0
}

/// How often a parser has panicked in this thread.
pub fn panics(parser: Parser) -> u64 {
    PANICS.get()[parser as usize]
}

/// Makes a parser panic whenever it is called by this thread, until what is returned is dropped.
#[cfg(test)]
pub(crate) fn poison(parser: Parser) -> impl Drop {
    struct Antidote;
    impl Drop for Antidote {
        fn drop(&mut self) {
            POISONED.set(None);
        }
    }
    POISONED.set(Some(parser));
    Antidote
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_at_the_boundary_and_is_counted() {
        assert_eq!(contain(Parser::Stun, || 7), Ok(7));
        assert!(!is_contained());
        assert_eq!(contain(Parser::Stun, is_contained), Ok(true));
        for _ in 0..2 {
            let done: Result<(), _> = contain(Parser::Dtls, || panic!("a library's mistake"));
            assert_eq!(done, Err(Panicked));
        }
        assert!(!is_contained());
        assert_eq!(Parser::ALL.map(panics), [2, 0, 0]);
        {
            let _poison = poison(Parser::Rtcp);
            assert_eq!(contain(Parser::Rtcp, || 7), Err(Panicked));
            assert_eq!(contain(Parser::Stun, || 7), Ok(7));
        }
        assert_eq!(contain(Parser::Rtcp, || 7), Ok(7));
    }
}
