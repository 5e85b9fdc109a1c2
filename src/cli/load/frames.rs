//! How large the frames of a source are, and how they are cut into packets.
//!
//! Sizes are drawn with a seed, so two runs with the same options send the same packets.

use crate::cli::measuring::random::Random;

/// Video frames per second.
pub(super) const VIDEO_RATE: f64 = 30.0;

/// Opus packets per second, of 20 ms each.
pub(super) const OPUS_RATE: f64 = 50.0;

/// The bytes of an Opus packet with its RTP header, at least and at most: a voice at about 50 kbit/s.
const OPUS_BYTES: [usize; 2] = [120, 160];

/// A key frame this many frames, where frames are all alike.
const KEY_FRAME_INTERVAL: usize = 120;

/// Likewise for an encoder, at least and at most: 3 to 5 seconds, which is as often as people who join, or lose packets, ask for one.
const KEY_FRAME_INTERVALS: [usize; 2] = [90, 150];

/// How many times larger than the other frames key frames are, at least and at most.
const KEY_FRAME_FACTORS: [f64; 2] = [6.0, 10.0];

/// How much the other frames differ: the standard deviation of the logarithm of their sizes, about 0.4 of the mean.
const DEVIATION: f64 = 0.4;

/// How much of a frame's deviation the next one has too: what moves goes on moving.
const PERSISTENCE: f64 = 0.8;

/// Multiples of the mean that no frame is below or above: encoders have bounds too.
const DEVIATION_BOUNDS: [f64; 2] = [0.2, 4.0];

/// In front of what a frame is cut into: the RTP header (12 bytes), the payload descriptor of VP8 (5) and the first byte of the
/// payload, which says whether it is a key frame.
pub(super) const HEADER_BYTES: usize = 18;

/// What the frames of a source are like.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Frames {
    /// All alike: so many packets, the longest of which have so many bytes.
    Alike { packets: usize, packet_bytes: usize },
    /// Packets of Opus, each a frame.
    Opus,
    /// Those of a video encoder that keeps to a bitrate, in packets of at most so many bytes.
    Encoder { bitrate_bps: f64, packet_bytes_max: usize },
}

/// How a frame is cut into packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// Into equal ones; a frame that does not divide is rounded up.
    Equal,
    /// As browsers do: the first ones are equal and, if the frame does not divide, the last ones one byte longer.
    NearlyEqual,
}

impl Cut {
    /// Writes the sizes of the packets of a frame, in place of what was there; none is longer than `packet_bytes_max`.
    pub(super) fn apply(self, frame_bytes: usize, packet_bytes_max: usize, sizes: &mut Vec<usize>) {
        let packets = frame_bytes.div_ceil(packet_bytes_max - HEADER_BYTES).max(1);
        let (bytes, longer) = (HEADER_BYTES + frame_bytes / packets, frame_bytes % packets);
        sizes.clear();
        match self {
            Self::Equal => sizes.resize(packets, bytes + usize::from(longer > 0)),
            Self::NearlyEqual => {
                sizes.resize(packets - longer, bytes);
                sizes.resize(packets, bytes + 1);
            }
        }
    }
}

/// Draws one frame after the other.
#[derive(Clone, Debug)]
pub(super) struct FrameSizes {
    frames: Frames,
    cut: Cut,
    random: Random,
    /// Frames until the next key frame; `None` before the first one.
    until_key_frame: Option<usize>,
    /// How far the last frame was from the mean, in standard deviations.
    deviation: f64,
}

impl FrameSizes {
    pub(super) fn new(frames: Frames, cut: Cut, seed: u64) -> Self {
        Self {
            frames,
            cut,
            random: Random::new(seed),
            until_key_frame: None,
            deviation: 0.0,
        }
    }

    /// Writes the sizes of the next frame's packets, in place of what was there, and says whether it is a key frame. The
    /// first one is.
    pub(super) fn next(&mut self, sizes: &mut Vec<usize>) -> bool {
        match self.frames {
            Frames::Alike { packets, packet_bytes } => {
                let shorter = match self.cut {
                    Cut::Equal => 0,
                    // Any remainder is as likely as any other.
                    Cut::NearlyEqual => self.random.between([0, packets - 1]),
                };
                sizes.clear();
                sizes.resize(shorter, packet_bytes - 1);
                sizes.resize(packets, packet_bytes);
                self.is_key_frame([KEY_FRAME_INTERVAL; 2])
            }
            Frames::Opus => {
                sizes.clear();
                sizes.push(self.random.between(OPUS_BYTES));
                false
            }
            Frames::Encoder {
                bitrate_bps,
                packet_bytes_max,
            } => {
                let is_key_frame = self.is_key_frame(KEY_FRAME_INTERVALS);
                let factor = match is_key_frame {
                    true => {
                        let [least, most] = KEY_FRAME_FACTORS;
                        least + self.random.share() * (most - least)
                    }
                    false => self.next_factor(),
                };
                let bytes = mean_bytes(bitrate_bps) * factor;
                self.cut.apply(bytes as usize, packet_bytes_max, sizes);
                is_key_frame
            }
        }
    }

    fn is_key_frame(&mut self, interval: [usize; 2]) -> bool {
        let left = match self.until_key_frame {
            // Who has begun at the same time as others does not make the next one at the same time, too.
            None if interval[0] < interval[1] => Some(self.random.between([1, interval[1]])),
            None | Some(0) => Some(self.random.between(interval)),
            Some(_) => None,
        };
        let is_key_frame = left.is_some();
        self.until_key_frame = left.or(self.until_key_frame).map(|frames| frames - 1);
        is_key_frame
    }

    /// How large the next frame is, in multiples of the mean: log-normal, and like the last one.
    fn next_factor(&mut self) -> f64 {
        let news = self.random.normal() * (1.0 - PERSISTENCE * PERSISTENCE).sqrt();
        self.deviation = PERSISTENCE * self.deviation + news;
        let [least, most] = DEVIATION_BOUNDS;
        let factor = (DEVIATION * self.deviation - DEVIATION * DEVIATION / 2.0).exp();
        factor.clamp(least, most)
    }
}

/// The mean of frames that are no key frames, so that with the key frames the bitrate comes out.
fn mean_bytes(bitrate_bps: f64) -> f64 {
    let interval = (KEY_FRAME_INTERVALS[0] + KEY_FRAME_INTERVALS[1]) as f64 / 2.0;
    let factor = (KEY_FRAME_FACTORS[0] + KEY_FRAME_FACTORS[1]) / 2.0;
    bitrate_bps / 8.0 / VIDEO_RATE * interval / (interval - 1.0 + factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENCODER: Frames = Frames::Encoder {
        bitrate_bps: 800_000.0,
        packet_bytes_max: 1_200,
    };

    /// The sizes of the packets of each frame, and whether it is a key frame.
    fn draw(frames: Frames, cut: Cut, seed: u64, count: usize) -> Vec<(Vec<usize>, bool)> {
        let mut drawn = FrameSizes::new(frames, cut, seed);
        (0..count)
            .map(|_| {
                let mut sizes = Vec::new();
                let is_key_frame = drawn.next(&mut sizes);
                (sizes, is_key_frame)
            })
            .collect()
    }

    fn bytes(sizes: &[usize]) -> f64 {
        sizes.iter().map(|size| (size - HEADER_BYTES) as f64).sum()
    }

    #[test]
    fn an_encoder_keeps_to_its_bitrate_and_its_frames_differ_as_real_ones_do() {
        let frames = draw(ENCODER, Cut::NearlyEqual, 1, 100_000);
        let total: f64 = frames.iter().map(|(sizes, _)| bytes(sizes)).sum();
        let bitrate_bps = total * 8.0 * VIDEO_RATE / frames.len() as f64;
        assert!((780_000.0..820_000.0).contains(&bitrate_bps), "{bitrate_bps}");
        let others: Vec<f64> = frames
            .iter()
            .filter(|(_, is_key)| !is_key)
            .map(|(sizes, _)| bytes(sizes))
            .collect();
        let mean = others.iter().sum::<f64>() / others.len() as f64;
        let variance = others.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / others.len() as f64;
        assert!(
            (0.35..0.45).contains(&(variance.sqrt() / mean)),
            "{}",
            variance.sqrt() / mean
        );
        // Frames are like the ones before them.
        let with_next: f64 = others.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
        assert!(with_next / others.len() as f64 / variance > 0.5);
        for (sizes, is_key_frame) in &frames {
            let factor = bytes(sizes) / mean;
            let expected = if *is_key_frame { 5.8..10.2 } else { 0.15..4.1 };
            assert!(expected.contains(&factor), "{factor} in {sizes:?}");
        }
    }

    #[test]
    fn key_frames_come_every_few_seconds_and_not_everywhere_at_once() {
        let mut seconds = Vec::new();
        for seed in 0..100 {
            let frames = draw(ENCODER, Cut::Equal, seed, 1_000);
            let places: Vec<usize> = (0..1_000).filter(|place| frames[*place].1).collect();
            assert_eq!(places[0], 0, "the first frame is one");
            assert!(places[1] <= 150);
            assert!(
                places[1..]
                    .windows(2)
                    .all(|pair| (90..=150).contains(&(pair[1] - pair[0]))),
                "{places:?}"
            );
            seconds.push(places[1]);
        }
        seconds.sort_unstable();
        seconds.dedup();
        assert!(seconds.len() > 30, "{seconds:?}");
    }

    #[test]
    fn a_seed_gives_the_same_frames_again_and_another_one_others() {
        let frames = draw(ENCODER, Cut::NearlyEqual, 7, 100);
        assert_eq!(frames, draw(ENCODER, Cut::NearlyEqual, 7, 100));
        assert_ne!(frames, draw(ENCODER, Cut::NearlyEqual, 8, 100));
        assert_ne!(
            draw(Frames::Opus, Cut::Equal, 7, 100),
            draw(Frames::Opus, Cut::Equal, 8, 100)
        );
    }

    /// The baseline sends equal packets where the senders' are nearly so: as many, and none shorter.
    #[test]
    fn both_cuts_make_as_many_packets_of_the_same_frames() {
        let frames = [
            draw(ENCODER, Cut::Equal, 3, 2_000),
            draw(ENCODER, Cut::NearlyEqual, 3, 2_000),
        ];
        for ((equal, one), (nearly, other)) in frames[0].iter().zip(&frames[1]) {
            assert_eq!((equal.len(), one), (nearly.len(), other));
            assert_eq!(equal.iter().max(), nearly.iter().max());
        }
    }

    #[test]
    fn frames_are_cut_into_packets_that_fit() {
        let cut = |cut: Cut, frame_bytes, packet_bytes_max| {
            let mut sizes = vec![9, 9];
            cut.apply(frame_bytes, packet_bytes_max, &mut sizes);
            sizes
        };
        assert_eq!(cut(Cut::NearlyEqual, 10, 28), [28]);
        assert_eq!(cut(Cut::NearlyEqual, 11, 28), [23, 24]);
        assert_eq!(cut(Cut::NearlyEqual, 3_251, 1_118), [1_101, 1_102, 1_102]);
        assert_eq!(cut(Cut::Equal, 3_251, 1_118), [1_102, 1_102, 1_102]);
        assert_eq!(cut(Cut::Equal, 3_249, 1_118), [1_101, 1_101, 1_101]);
        assert_eq!(cut(Cut::NearlyEqual, 0, 1_118), [18]);
        for (sizes, _) in draw(ENCODER, Cut::NearlyEqual, 5, 2_000) {
            assert!(sizes.iter().all(|size| *size <= 1_200), "{sizes:?}");
        }
    }

    /// What `tests/browser/scenarios/frames.mjs` has captured.
    #[test]
    fn frames_are_cut_as_browsers_cut_them() {
        let table = include_str!("../../../tests/browser/frame-sizes.tsv");
        let rows: Vec<&str> = table.lines().filter(|line| !line.starts_with('#')).skip(1).collect();
        for browser in ["chromium", "firefox"] {
            assert!(rows.iter().any(|row| row.starts_with(browser)), "nothing of {browser}");
        }
        for row in rows {
            let packets = row.rsplit('\t').next().expect("a column");
            let captured: Vec<usize> = packets.split(' ').map(|size| size.parse().expect(row)).collect();
            let longest = *captured.iter().max().expect(row);
            let mut sizes = Vec::new();
            Cut::NearlyEqual.apply(bytes(&captured) as usize, longest, &mut sizes);
            assert_eq!(sizes, captured);
        }
    }

    #[test]
    fn sound_is_of_120_to_160_bytes() {
        let packets = draw(Frames::Opus, Cut::Equal, 1, 1_000);
        let sizes = || packets.iter().map(|(sizes, _)| sizes[0]);
        assert!(
            packets
                .iter()
                .all(|(sizes, is_key_frame)| sizes.len() == 1 && !is_key_frame)
        );
        assert_eq!((sizes().min(), sizes().max()), (Some(120), Some(160)));
    }

    #[test]
    fn frames_that_are_alike_are_so_but_for_a_byte() {
        let alike = Frames::Alike {
            packets: 4,
            packet_bytes: 1_102,
        };
        for (place, (sizes, is_key_frame)) in draw(alike, Cut::Equal, 1, 300).iter().enumerate() {
            assert_eq!(sizes, &[1_102; 4]);
            assert_eq!(*is_key_frame, place.is_multiple_of(120));
        }
        let mut seen = [false; 4];
        for (sizes, _) in draw(alike, Cut::NearlyEqual, 1, 300) {
            let shorter = sizes.iter().filter(|size| **size == 1_101).count();
            assert!(
                sizes[..shorter].iter().all(|size| *size == 1_101)
                    && sizes[shorter..].iter().all(|size| *size == 1_102)
            );
            seen[shorter] = true;
        }
        assert_eq!(seen, [true; 4]);
    }
}
