//! How long packets stay, as JSON.

use serde::{Deserialize, Serialize};
use weir_channel::message::Histogram;

/// The residence time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResidenceBucket {
    /// The lower end of the bucket, in nanoseconds; packets took at least this long.
    pub from_ns: u64,
    /// The upper end of the bucket, in nanoseconds; packets took less than this.
    pub below_ns: u64,
    /// The number of packets.
    pub count: u64,
}

impl Residence {
    /// What a histogram of nanoseconds says; `None` when nothing was counted.
    pub(super) fn of(histogram: &Histogram) -> Option<Self> {
        // A worker that has gone wrong may count in buckets that there are not, or more than can be added up.
        let counts = histogram.counts.iter().take(Histogram::BUCKETS);
        let histogram = Histogram {
            counts: counts.map(|count| (*count).min(u64::MAX >> 10)).collect(),
        };
        let us = |quantile| histogram.quantile(quantile).map(|ns| ns / 1_000);
        let counts = histogram.counts.iter().enumerate();
        let buckets = counts
            .filter(|(_, count)| **count > 0)
            .map(|(index, count)| ResidenceBucket {
                from_ns: Histogram::floor_of(index),
                below_ns: match index + 1 {
                    Histogram::BUCKETS => u64::MAX,
                    next => Histogram::floor_of(next),
                },
                count: *count,
            });
        Some(Self {
            p50: us(0.5)?,
            p99: us(0.99)?,
            p999: us(0.999)?,
            buckets: buckets.collect(),
        })
    }

    /// The packets of both.
    pub(super) fn with(&self, other: &Self) -> Option<Self> {
        let mut histogram = Histogram {
            counts: vec![0; Histogram::BUCKETS],
        };
        for bucket in self.buckets.iter().chain(&other.buckets) {
            let count = &mut histogram.counts[Histogram::index_of(bucket.from_ns)];
            *count = count.saturating_add(bucket.count);
        }
        Self::of(&histogram)
    }
}
