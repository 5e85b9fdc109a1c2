//! What a worker has counted in all its processes: to what the living one says, that of the dead ones is added.

use std::sync::Mutex;

use weir_channel::message::WorkerStats;
use weir_channel::page::Page;

use crate::server::model::lock;

/// What a worker has counted.
#[derive(Debug, Default)]
pub(crate) struct Totals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// In processes that are dead.
    before: WorkerStats,
    /// In all, when somebody was last told.
    told: WorkerStats,
}

impl Totals {
    /// A process says what it has counted; makes that what all have.
    pub(crate) fn complete(&self, stats: &mut WorkerStats) {
        let mut known = lock(&self.0);
        stats.add(&known.before);
        known.told = stats.clone();
    }

    /// What all have, as somebody was last told.
    #[cfg(feature = "http")]
    pub(crate) fn told(&self) -> WorkerStats {
        lock(&self.0).told.clone()
    }

    /// A process is dead, which has left this page.
    pub(crate) fn on_death(&self, page: Option<&Page>) {
        let mut known = lock(&self.0);
        let mut all = known.before.clone();
        all.add(&page.map(Page::totals).unwrap_or_default());
        // Whatever a process has written that had gone astray: nobody is told of less than before.
        let (all, told) = (all.to_words(), known.told.to_words());
        let residence = known.told.residence.take().or(known.before.residence.take());
        known.before = WorkerStats {
            residence,
            ..WorkerStats::from_words(&std::array::from_fn(|place| all[place].max(told[place])))
        };
    }

    /// The residence time is not measured any more, or anew.
    pub(crate) fn forget_residence(&self) {
        let mut known = lock(&self.0);
        known.before.residence = None;
        known.told.residence = None;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::uio::pwrite;
    use weir_channel::message::{Counts, Histogram, WebRtcFailureReason};
    use weir_channel::page::TOTALS_OFFSET;

    use super::*;

    fn counted(packets_sent: u64) -> WorkerStats {
        WorkerStats {
            packets_sent,
            webrtc_failures: Counts::from([(WebRtcFailureReason::CertificateTooLong, packets_sent)]),
            residence: Some(Histogram {
                counts: vec![packets_sent],
            }),
            rooms: 3,
            ..WorkerStats::default()
        }
    }

    fn page(left: &WorkerStats) -> Page {
        let page = Page::create().unwrap();
        let words = left.to_words().map(u64::to_ne_bytes);
        pwrite(page.as_fd(), words.as_flattened(), TOTALS_OFFSET as i64).unwrap();
        page
    }

    #[test]
    fn what_the_dead_have_counted_is_added_and_nothing_goes_back() {
        let totals = Totals::default();
        let told = |counted_now| {
            let mut stats = counted(counted_now);
            totals.complete(&mut stats);
            let failures = stats.webrtc_failures.of(WebRtcFailureReason::CertificateTooLong);
            assert_eq!(failures, stats.packets_sent);
            assert_eq!(stats.rooms, 3, "what there is is not added up");
            (stats.packets_sent, stats.residence.unwrap().total())
        };
        assert_eq!(told(10), (10, 10));
        // What was counted since somebody was told is in the page; not of the residence time.
        totals.on_death(Some(&page(&counted(12))));
        assert_eq!(told(1), (13, 11));
        assert_eq!(told(5), (17, 15));
        totals.on_death(Some(&page(&counted(2))));
        assert_eq!(told(0), (17, 15), "it had gone astray");
        totals.on_death(None);
        totals.on_death(Some(&page(&counted(4))));
        assert_eq!(told(1), (22, 16));
        totals.forget_residence();
        assert_eq!(told(1), (22, 1));
    }
}
