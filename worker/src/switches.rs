//! Settings of the server that workers obey, as far as they are yes or no.

/// Declares the settings of the server that a worker obeys from its start: each an option that is `yes` or `no`.
macro_rules! switches {
    ($($(#[$doc:meta])+ $name:ident: $option:literal,)+) => {
        /// Settings of the server that a worker obeys from its start.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Switches { $($(#[$doc])+ pub $name: bool,)+ }

        impl Switches {
            /// Each with its option.
            pub(crate) fn options(&mut self) -> [(&'static str, &mut bool); [$($option),+].len()] {
                [$(($option, &mut self.$name)),+]
            }
        }
    };
}

switches! {
    /// Whether DTLS 1.3 is spoken with those who offer it.
    dtls_13: "--dtls-13",
    /// Whether a peer is believed that has a SHA-1 or SHA-224 fingerprint only.
    dtls_weak_fingerprints: "--dtls-weak-fingerprints",
    /// Whether the last group of pictures is kept of senders that answer no key frame requests.
    gop_cache: "--gop-cache",
    /// Whether packets of video that are a little shorter than others of their train are padded to their size.
    equalize_packets: "--equalize-packets",
}
