//! A metric with all its labels, before it is written.

use std::borrow::Cow;

/// What kind of metric it is, which says how its name ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It never goes back while the server runs: `_total`.
    Counter,
    Gauge,
    /// Always 1, for its labels: `_info`.
    Info,
    Histogram,
}

/// A label, and its value.
pub(super) type Label = (&'static str, Cow<'static, str>);

/// A metric with all its labels.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Without the ending that the kind gives it.
    pub(super) name: Cow<'static, str>,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<(Vec<Label>, Value)>,
}

/// A number, or several.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
    Distribution {
        sum: f64,
        /// How many there were, by the upper end of each bucket; the last one's is `f64::INFINITY`.
        buckets: Vec<(f64, u64)>,
    },
}

impl Family {
    pub(super) fn new(kind: Kind, name: impl Into<Cow<'static, str>>, help: &'static str) -> Self {
        Self {
            name: name.into(),
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// One number without labels.
    pub(super) fn of(mut self, value: Value) -> Self {
        self.samples.push((Vec::new(), value));
        self
    }

    pub(super) fn push(&mut self, labels: impl Into<Vec<Label>>, value: Value) {
        self.samples.push((labels.into(), value));
    }
}

/// A label.
pub(super) fn label(name: &'static str, value: impl Into<Cow<'static, str>>) -> Label {
    (name, value.into())
}
