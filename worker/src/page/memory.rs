//! The memory that a page is kept in: words that are stored one by one, in the order in which the program stores them.
//!
//! A process that is killed leaves a prefix of its stores. The compiler must not change their order for that to mean anything, so
//! each is a release store, which on the machines that matter is an ordinary one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where a page lies.
#[derive(Clone, Debug)]
pub struct Memory(Place);

#[derive(Clone, Debug)]
enum Place {
    /// There is none: nothing is kept.
    Nowhere,
    /// Mapped for as long as the process lives.
    Mapped(&'static [AtomicU64]),
    /// On the heap, where a simulation looks at it afterwards.
    Heap(Arc<HeapPage>),
}

impl Memory {
    /// No memory: whoever keeps something there keeps it nowhere.
    pub const fn nowhere() -> Self {
        Self(Place::Nowhere)
    }

    /// Memory that is there for good.
    pub const fn mapped(words: &'static [AtomicU64]) -> Self {
        Self(Place::Mapped(words))
    }

    /// Memory on the heap.
    pub const fn heap(page: Arc<HeapPage>) -> Self {
        Self(Place::Heap(page))
    }

    /// How many words there are.
    pub fn words(&self) -> usize {
        match &self.0 {
            Place::Nowhere => 0,
            Place::Mapped(words) => words.len(),
            Place::Heap(page) => page.words().len(),
        }
    }

    /// Stores one word; what lies outside is stored nowhere.
    #[inline]
    pub fn store(&self, at: usize, value: u64) {
        self.store_all(at, [value]);
    }

    /// Stores words one after the other; what lies outside is stored nowhere.
    #[inline]
    pub fn store_all(&self, at: usize, values: impl IntoIterator<Item = u64, IntoIter: ExactSizeIterator>) {
        let values = values.into_iter();
        match &self.0 {
            Place::Nowhere => {}
            Place::Mapped(words) => {
                if let Some(words) = words.get(at..at + values.len()) {
                    for (word, value) in words.iter().zip(values) {
                        word.store(value, Ordering::Release);
                    }
                }
            }
            Place::Heap(page) => values
                .enumerate()
                .for_each(|(offset, value)| page.store(at + offset, value)),
        }
    }

    /// The word at a place; 0 if it lies outside.
    #[inline]
    pub fn load(&self, at: usize) -> u64 {
        let words = match &self.0 {
            Place::Nowhere => return 0,
            Place::Mapped(words) => words,
            Place::Heap(page) => page.words(),
        };
        words.get(at).map_or(0, |word| word.load(Ordering::Acquire))
    }
}

/// A page on the heap, for simulations: its writer can be made to die at any of its stores.
pub struct HeapPage {
    words: Box<dyn AsRef<[AtomicU64]> + Send + Sync>,
    /// What the death of the writer entails.
    on_death: Box<dyn Fn() + Send + Sync>,
    stores: AtomicU64,
    /// The writer is dead after so many stores.
    lives_for: AtomicU64,
    is_dead: AtomicBool,
}

impl HeapPage {
    /// A page of so many words, all zeroes.
    pub fn new(words: usize) -> Arc<Self> {
        let words: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self::over(words, || {})
    }

    /// A page in memory that others see, too. `on_death` is called at the moment at which its writer dies.
    pub fn over(
        words: impl AsRef<[AtomicU64]> + Send + Sync + 'static,
        on_death: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            words: Box::new(words),
            on_death: Box::new(on_death),
            stores: AtomicU64::new(0),
            lives_for: AtomicU64::new(u64::MAX),
            is_dead: AtomicBool::new(false),
        })
    }

    /// How many words have been stored.
    pub fn stores(&self) -> u64 {
        self.stores.load(Ordering::Relaxed)
    }

    /// From the moment on at which it would store the word after so many, the writer is dead: it stores nothing more.
    pub fn kill_after(&self, stores: u64) {
        self.lives_for.store(stores, Ordering::Relaxed);
    }

    /// Kills the writer here and now.
    pub fn kill(&self) {
        if !self.is_dead.swap(true, Ordering::Relaxed) {
            (self.on_death)();
        }
    }

    /// Whether the writer is dead: whatever else it does from now on, nobody sees.
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::Relaxed)
    }

    fn words(&self) -> &[AtomicU64] {
        (*self.words).as_ref()
    }

    fn store(&self, at: usize, value: u64) {
        if self.stores() >= self.lives_for.load(Ordering::Relaxed) {
            self.kill();
        }
        if self.is_dead() {
            return;
        }
        self.stores.fetch_add(1, Ordering::Relaxed);
        if let Some(word) = self.words().get(at) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for HeapPage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("HeapPage");
        shown.field("stores", &self.stores()).field("is_dead", &self.is_dead());
        shown.finish_non_exhaustive()
    }
}

impl AsRef<[AtomicU64]> for HeapPage {
    fn as_ref(&self) -> &[AtomicU64] {
        self.words()
    }
}
