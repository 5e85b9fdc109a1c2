//! Where a record lies in a slot, and how it is kept there.

use std::marker::PhantomData;

use super::super::record::Record;

/// Where a record lies in a slot, in words.
#[derive(PartialEq, Eq, Debug)]
pub struct At<R>(pub(in super::super) usize, PhantomData<R>);

/// Where a record lies that is kept in two copies: a word that says which one counts, and the copies.
#[derive(Debug)]
pub struct Twin<R>(pub(in super::super) usize, PhantomData<R>);

/// Where a record lies that is there as a whole or not at all: a word with its checksum, and the record.
#[derive(Debug)]
pub struct Sealed<R>(pub(in super::super) usize, PhantomData<R>);

/// Where a number lies that is stored twice.
#[derive(Clone, Copy, Debug)]
pub struct Double(pub(in super::super) usize);

macro_rules! copied {
    ($($name:ident),*) => {$(
        impl<R> Clone for $name<R> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<R> Copy for $name<R> {}
    )*};
}

copied!(At, Twin, Sealed);

impl<R: Record> At<R> {
    pub(super) const fn new(at: usize, end: usize) -> Self {
        assert!(at + R::WORDS <= end, "the record overlaps with what follows");
        Self(at, PhantomData)
    }
}

impl<R: Record> Twin<R> {
    pub(super) const fn new(at: usize, end: usize) -> Self {
        assert!(at + 1 + 2 * R::WORDS <= end, "the copies overlap with what follows");
        Self(at, PhantomData)
    }
}

impl<R: Record> Sealed<R> {
    pub(super) const fn new(at: usize, end: usize) -> Self {
        assert!(at + 1 + R::WORDS <= end, "the record overlaps with what follows");
        Self(at, PhantomData)
    }
}
