//! Counts by reason, and histograms: counters that are more than one number.
//!
//! Between the processes they are lists of numbers. In JSON, where people read them, counts are an object with a member for
//! each reason, and a histogram is quantiles and buckets.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares an enum of things that are counted apart, and lists them.
macro_rules! reasons {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $reason:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "camelCase")]
        pub enum $name { $($(#[$doc])* $reason,)+ }

        impl $name {
            /// All of them, in the order of the enum.
            pub const ALL: [Self; [$(Self::$reason),+].len()] = [$(Self::$reason),+];
        }
    };
}

pub(super) use reasons;

/// How often each of several things has happened: sorted, each once, and only those that have happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts<R>(Vec<(R, u64)>);

impl<R: Copy + Ord> Counts<R> {
    /// It has happened so many times more.
    pub fn add(&mut self, reason: R, times: u64) {
        if times == 0 {
            return;
        }
        match self.0.binary_search_by_key(&reason, |(known, _)| *known) {
            Ok(index) => self.0[index].1 = self.0[index].1.saturating_add(times),
            Err(index) => self.0.insert(index, (reason, times)),
        }
    }

    /// How often one of them has happened.
    pub fn of(&self, reason: R) -> u64 {
        let found = self.0.binary_search_by_key(&reason, |(known, _)| *known);
        found.map_or(0, |index| self.0[index].1)
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |total, (_, count)| total.saturating_add(*count))
    }
}

impl<R> Default for Counts<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R> Deref for Counts<R> {
    type Target = [(R, u64)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a, R> IntoIterator for &'a Counts<R> {
    type Item = &'a (R, u64);
    type IntoIter = std::slice::Iter<'a, (R, u64)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<R: PartialEq> PartialEq<&[(R, u64)]> for Counts<R> {
    fn eq(&self, other: &&[(R, u64)]) -> bool {
        self.0 == *other
    }
}

impl<R: PartialEq, const N: usize> PartialEq<[(R, u64); N]> for Counts<R> {
    fn eq(&self, other: &[(R, u64); N]) -> bool {
        self.0 == other
    }
}

impl<R: Copy + Ord> FromIterator<(R, u64)> for Counts<R> {
    fn from_iter<I: IntoIterator<Item = (R, u64)>>(counts: I) -> Self {
        let mut all = Self::default();
        for (reason, count) in counts {
            all.add(reason, count);
        }
        all
    }
}

impl<R: Copy + Ord, const N: usize> From<[(R, u64); N]> for Counts<R> {
    fn from(counts: [(R, u64); N]) -> Self {
        counts.into_iter().collect()
    }
}

impl<R: Serialize> Serialize for Counts<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_map(self.0.iter().map(|(reason, count)| (reason, count))),
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de, R: Copy + Ord + Deserialize<'de>> Deserialize<'de> for Counts<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => BTreeMap::<R, u64>::deserialize(deserializer).map(Self::from_iter),
            false => Vec::<(R, u64)>::deserialize(deserializer).map(Self::from_iter),
        }
    }
}

/// A histogram with a relative error of at most 1/16: bucket `i` counts values whose index, by
/// [`Histogram::index_of`], is `i`. In JSON it is a [`Residence`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Histogram {
    /// One count per bucket; trailing empty buckets are left out.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Enough for any `u64`.
    pub const BUCKETS: usize = 16 + 60 * 16;

    /// Values below 16 have a bucket each; above, each power of two has 16.
    pub fn index_of(value: u64) -> usize {
        if value < 16 {
            return value as usize;
        }
        let exponent = 63 - value.leading_zeros() as usize; // 4..=63
        let fraction = ((value >> (exponent - 4)) & 15) as usize;
        16 + (exponent - 4) * 16 + fraction
    }

    /// The smallest value of a bucket.
    pub fn floor_of(index: usize) -> u64 {
        if index < 16 {
            return index as u64;
        }
        let exponent = (index - 16) / 16 + 4;
        let fraction = ((index - 16) % 16) as u64;
        (16 + fraction) << (exponent - 4)
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts
            .iter()
            .take(Self::BUCKETS)
            .fold(0, |total, count| total.saturating_add(*count))
    }

    /// The value below which `quantile` (0.0..=1.0) of the counted values lie; `None` when nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = ((quantile.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
        let mut seen: u64 = 0;
        for (index, count) in self.counts.iter().take(Self::BUCKETS).enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return Some(Self::floor_of(index));
            }
        }
        None
    }

    /// Adds what another one has counted. Buckets that there are not, from a worker that has gone wrong, are left out.
    pub fn add(&mut self, other: &Self) {
        let used = other.counts.len().min(Self::BUCKETS);
        if self.counts.len() < used {
            self.counts.resize(used, 0);
        }
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
    }

    /// The same for people. The values are nanoseconds.
    pub fn residence(&self) -> Residence {
        let us = |quantile| self.quantile(quantile).map_or(0, |ns| ns / 1_000);
        let counts = self.counts.iter().take(Self::BUCKETS).enumerate();
        let buckets = counts
            .filter(|(_, count)| **count > 0)
            .map(|(index, count)| ResidenceBucket {
                from_ns: Self::floor_of(index),
                below_ns: match index + 1 {
                    Self::BUCKETS => u64::MAX,
                    next => Self::floor_of(next),
                },
                count: *count,
            });
        Residence {
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
            buckets: buckets.collect(),
        }
    }
}

impl From<Residence> for Histogram {
    fn from(residence: Residence) -> Self {
        let mut histogram = Self::default();
        for bucket in residence.buckets {
            let index = Self::index_of(bucket.from_ns);
            if histogram.counts.len() <= index {
                histogram.counts.resize(index + 1, 0);
            }
            histogram.counts[index] = histogram.counts[index].saturating_add(bucket.count);
        }
        histogram
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => self.residence().serialize(serializer),
            false => self.counts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => Residence::deserialize(deserializer).map(Self::from),
            // A worker that has gone wrong may say more buckets than there are.
            false => Vec::deserialize(deserializer).map(|mut counts| {
                counts.truncate(Self::BUCKETS);
                Self { counts }
            }),
        }
    }
}

/// The residence time of packets in the worker, from arrival at the socket to the call that sends them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Residence {
    /// The median, in microseconds.
    pub p50: u64,
    /// 99 % of the packets took at most this long, in microseconds.
    pub p99: u64,
    /// 99.9 % of the packets took at most this long, in microseconds.
    pub p999: u64,
    /// The histogram: buckets with at least one packet, the shortest time first.
    pub buckets: Vec<ResidenceBucket>,
}

/// Packets with about the same residence time. A bucket's upper end is at most 1/16 above its lower end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ResidenceBucket {
    /// The lower end of the bucket, in nanoseconds; packets took at least this long.
    pub from_ns: u64,
    /// The upper end of the bucket, in nanoseconds; packets took less than this.
    pub below_ns: u64,
    /// The number of packets.
    pub count: u64,
}

/// A counter that several workers have: theirs together are the sum.
pub(super) trait Sum {
    fn add_up(&mut self, other: &Self);
}

impl Sum for u64 {
    fn add_up(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
}

impl<R: Copy + Ord> Sum for Counts<R> {
    fn add_up(&mut self, other: &Self) {
        for (reason, count) in other.iter() {
            self.add(*reason, *count);
        }
    }
}

impl Sum for Option<Histogram> {
    fn add_up(&mut self, other: &Self) {
        if let Some(other) = other {
            self.get_or_insert_default().add(other);
        }
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use schemars::{JsonSchema, Schema, SchemaGenerator};

    use super::{Counts, Histogram, Residence};

    impl<R: JsonSchema> JsonSchema for Counts<R> {
        fn inline_schema() -> bool {
            true
        }

        fn schema_name() -> Cow<'static, str> {
            format!("CountsOf{}", R::schema_name()).into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            BTreeMap::<R, u64>::json_schema(generator)
        }
    }

    impl JsonSchema for Histogram {
        fn schema_name() -> Cow<'static, str> {
            Residence::schema_name()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            Residence::json_schema(generator)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::DropReason;

    #[test]
    fn counts_are_sorted_and_only_of_what_has_happened() {
        let counts = Counts::from([
            (DropReason::Padding, 2),
            (DropReason::Duplicate, 0),
            (DropReason::ConsumerPaused, 1),
            (DropReason::Padding, u64::MAX),
        ]);
        assert_eq!(
            counts,
            [(DropReason::ConsumerPaused, 1), (DropReason::Padding, u64::MAX)]
        );
        assert_eq!(
            (counts.of(DropReason::Padding), counts.of(DropReason::Duplicate)),
            (u64::MAX, 0)
        );
        assert_eq!(counts.total(), u64::MAX);
    }

    fn histogram(counts: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for (ns, count) in counts {
            let mut counts = vec![0; Histogram::index_of(*ns) + 1];
            counts[Histogram::index_of(*ns)] = *count;
            histogram.add(&Histogram { counts });
        }
        histogram
    }

    #[test]
    fn residence_is_told_in_microseconds_and_in_buckets() {
        let counted = histogram(&[(64_000, 99), (1_024_000, 1)]);
        let found = counted.residence();
        assert_eq!((found.p50, found.p99, found.p999), (63, 63, 1015));
        let buckets = [(63_488, 65_536, 99), (1_015_808, 1_048_576, 1)];
        let buckets = buckets.map(|(from_ns, below_ns, count)| ResidenceBucket {
            from_ns,
            below_ns,
            count,
        });
        assert_eq!(found.buckets, buckets);
        assert_eq!(Histogram::from(found), counted);
        let longest = histogram(&[(u64::MAX, 1)]).residence();
        assert_eq!(longest.buckets[0].below_ns, u64::MAX);
        // A worker that counts in buckets that there are not, and more than can be added up.
        let mut counts = vec![0; Histogram::BUCKETS + 100];
        counts[7] = u64::MAX;
        counts[8] = u64::MAX;
        counts[Histogram::BUCKETS + 99] = 1;
        let wrong = Histogram { counts };
        let mut sum = Histogram::default();
        sum.add(&wrong);
        for histogram in [sum, wrong] {
            assert_eq!((histogram.total(), histogram.residence().buckets.len()), (u64::MAX, 2));
        }
        let beyond = Histogram {
            counts: [vec![0; Histogram::BUCKETS + 99], vec![1]].concat(),
        };
        assert_eq!((beyond.total(), beyond.residence().p50), (0, 0));
    }
}
