//! Which profile a consumer should get. Pure: two preferences and the available profiles in, the answer out.
//!
//! The documented rule of v2 (differences §4), not its code (§3.6, which inverts the producer's preference): a preference is
//! a cap. The consumer's own counts if it has one, else the producer's. Without any, the highest on offer. If
//! everything on offer lies above the cap, the lowest.

use weir_channel::message::Profile;

/// The profiles that a producer offers now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Available(u8);

impl Available {
    /// No profile.
    pub const NONE: Self = Self(0);

    /// With `profile` as well.
    #[must_use]
    pub const fn with(self, profile: Profile) -> Self {
        Self(self.0 | 1 << profile as u8)
    }

    /// Without `profile`.
    #[must_use]
    pub const fn without(self, profile: Profile) -> Self {
        Self(self.0 & !(1 << profile as u8))
    }

    /// Whether `profile` is available.
    pub const fn contains(self, profile: Profile) -> bool {
        self.0 & (1 << profile as u8) != 0
    }

    /// From the lowest up.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Profile> {
        [Profile::Default, Profile::Low, Profile::Medium, Profile::High]
            .into_iter()
            .filter(move |profile| self.contains(*profile))
    }
}

/// What a consumer should be sent; `None` when no profile is available.
pub fn select(available: Available, own: Profile, source: Profile) -> Option<Profile> {
    let cap = match (own, source) {
        (Profile::Default, Profile::Default) => Profile::High,
        (Profile::Default, source) => source,
        (own, _) => own,
    };
    // `Profile::Default` on offer is the only stream there is, and lies below every cap.
    available
        .iter()
        .rev()
        .find(|profile| *profile <= cap)
        .or_else(|| available.iter().next())
}

#[cfg(test)]
mod tests {
    use Profile::{Default as D, High as H, Low as L, Medium as M};

    use super::*;

    fn check(available: &[Profile], own: Profile, source: Profile, expected: Option<Profile>) {
        let offer = available
            .iter()
            .fold(Available::NONE, |offer, profile| offer.with(*profile));
        assert_eq!(
            select(offer, own, source),
            expected,
            "{available:?}, own {own}, source {source}"
        );
    }

    #[test]
    fn documented_rule() {
        // Nothing on offer.
        check(&[], D, D, None);
        check(&[], H, L, None);
        // Without simulcast every preference gets the only stream.
        check(&[D], D, D, Some(D));
        check(&[D], L, D, Some(D));
        check(&[D], H, L, Some(D));
        // No preference: the highest.
        check(&[L, M, H], D, D, Some(H));
        check(&[L, M], D, D, Some(M));
        check(&[L], D, D, Some(L));
        // The own preference is a cap.
        check(&[L, M, H], L, D, Some(L));
        check(&[L, M, H], M, D, Some(M));
        check(&[L, M, H], H, D, Some(H));
        check(&[L, H], M, D, Some(L));
        // The producer's preference counts where the consumer has none.
        check(&[L, M, H], D, L, Some(L));
        check(&[L, M, H], D, M, Some(M));
        check(&[L, H], D, M, Some(L));
        // The own preference wins over the producer's, both ways.
        check(&[L, M, H], H, L, Some(H));
        check(&[L, M, H], L, H, Some(L));
        check(&[L, M, H], M, L, Some(M));
        // Everything above the cap: the lowest there is.
        check(&[M, H], L, D, Some(M));
        check(&[H], L, D, Some(H));
        check(&[H], D, L, Some(H));
        check(&[M, H], D, L, Some(M));
    }

    #[test]
    fn offer_comes_and_goes() {
        let offer = Available::NONE.with(L).with(H);
        assert!(offer.contains(L) && !offer.contains(M) && offer.contains(H));
        assert_eq!(offer.without(H).iter().collect::<Vec<_>>(), [L]);
        assert_eq!(offer.without(M), offer);
    }
}
