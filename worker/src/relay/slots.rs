//! Objects by generational key, each at the beginning of a cache line.
//!
//! A `SlotMap` keeps an object's generation behind the object, so that objects of whole lines do not stay on whole lines, and
//! each look-up touches a line for the generation alone. Here generations lie close together, sixteen bytes for two objects,
//! and what is aligned stays so.

use std::ops::{Index, IndexMut};

use slotmap::{Key, SlotMap};

/// Objects by key. Keys are a `SlotMap`'s: an old one finds nothing, and never another object.
#[derive(Debug)]
pub(super) struct Slots<K: Key, V> {
    keys: SlotMap<K, ()>,
    /// By the index in the key.
    objects: Vec<Option<V>>,
}

impl<K: Key, V> Slots<K, V> {
    /// No objects.
    pub(super) fn new() -> Self {
        Self {
            keys: SlotMap::with_key(),
            objects: Vec::new(),
        }
    }

    /// Takes an object in.
    pub(super) fn insert(&mut self, object: V) -> K {
        self.insert_with_key(|_| object)
    }

    /// Takes in an object that knows its key.
    pub(super) fn insert_with_key(&mut self, make: impl FnOnce(K) -> V) -> K {
        let key = self.keys.insert(());
        let place = Self::place(key);
        if place >= self.objects.len() {
            self.objects.resize_with(place + 1, || None);
        }
        self.objects[place] = Some(make(key));
        key
    }

    /// Gives an object away.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        self.keys.remove(key)?;
        self.objects.get_mut(Self::place(key))?.take()
    }

    /// An object, if it is still there.
    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        if !self.keys.contains_key(key) {
            return None;
        }
        self.objects.get(Self::place(key))?.as_ref()
    }

    /// Where an object lies that a key means, or meant once. Nothing of it is read.
    #[inline]
    pub(super) fn record(&self, key: K) -> Option<&Option<V>> {
        self.objects.get(Self::place(key))
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn record_mut(&mut self, key: K) -> Option<&mut Option<V>> {
        self.objects.get_mut(Self::place(key))
    }

    /// An object, to be changed, if it is still there.
    #[inline]
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        if !self.keys.contains_key(key) {
            return None;
        }
        self.objects.get_mut(Self::place(key))?.as_mut()
    }

    /// Whether an object is still there.
    pub(super) fn contains_key(&self, key: K) -> bool {
        self.keys.contains_key(key)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many places there are, with those that are free.
    pub(super) fn places(&self) -> usize {
        self.objects.len()
    }

    /// What is at a place.
    pub(super) fn at(&self, place: usize) -> Option<&V> {
        self.objects.get(place)?.as_ref()
    }

    /// The same, to be changed.
    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut V> {
        self.objects.get_mut(place)?.as_mut()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The place of what a key means.
    #[inline]
    pub(super) fn place(key: K) -> usize {
        // The lower half is the index; the other the generation.
        key.data().as_ffi() as u32 as usize
    }
}

impl<K: Key, V> Index<K> for Slots<K, V> {
    type Output = V;

    #[inline]
    fn index(&self, key: K) -> &V {
        self.get(key).expect("a key of an object that is still there")
    }
}

impl<K: Key, V> IndexMut<K> for Slots<K, V> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut V {
        self.get_mut(key).expect("a key of an object that is still there")
    }
}

#[cfg(test)]
mod tests {
    use slotmap::DefaultKey;

    use super::*;

    /// As large as a line, and as aligned.
    #[derive(Debug, PartialEq, Eq)]
    #[repr(align(64))]
    struct Line(bool);

    #[test]
    fn old_keys_find_nothing() {
        let mut slots: Slots<DefaultKey, Line> = Slots::new();
        let first = slots.insert(Line(false));
        let other = slots.insert(Line(true));
        assert_eq!(slots.remove(first), Some(Line(false)));
        assert_eq!(slots.remove(first), None);
        // It gets the same place.
        let second = slots.insert(Line(true));
        assert_ne!(first, second);
        assert_eq!(slots.get(first), None);
        assert!(!slots.contains_key(first));
        assert_eq!(slots[second], Line(true));
        slots[second].0 = false;
        assert_eq!((&slots[second], &slots[other]), (&Line(false), &Line(true)));
        assert_eq!(slots.len(), 2);
    }

    #[test]
    fn objects_begin_lines_and_nothing_lies_between() {
        let mut slots: Slots<DefaultKey, Line> = Slots::new();
        let keys: Vec<_> = (0..100).map(|_| slots.insert(Line(true))).collect();
        let addresses: Vec<_> = keys.iter().map(|key| &raw const slots[*key] as usize).collect();
        assert!(addresses.iter().all(|address| address % 64 == 0));
        assert!(addresses.windows(2).all(|two| two[1] - two[0] == 64));
    }
}
