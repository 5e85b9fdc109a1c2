//! The recordings that the demo carries with it; `tests/media/README.md` says how they were made.

use std::sync::Arc;

use anyhow::{Context, Result};
use weir::{CodecName, Profile};
use weir_recordings::Recording;

const LOW: &[u8] = include_bytes!("../../../tests/media/low.rtpdump");
const MEDIUM: &[u8] = include_bytes!("../../../tests/media/medium.rtpdump");
const HIGH: &[u8] = include_bytes!("../../../tests/media/high.rtpdump");
const OPUS: &[u8] = include_bytes!("../../../tests/media/opus.rtpdump");

/// The profiles of [`camera`], in the same order.
pub(super) const LAYERS: [Profile; 3] = [Profile::Low, Profile::Medium, Profile::High];

/// A camera that sends its picture in three sizes, the smallest first.
pub(super) fn camera() -> Result<Vec<Arc<Recording>>> {
    [LOW, MEDIUM, HIGH]
        .into_iter()
        .map(|file| load(file, CodecName::Vp8, 90_000))
        .collect()
}

/// A microphone.
pub(super) fn microphone() -> Result<Vec<Arc<Recording>>> {
    Ok(vec![load(OPUS, CodecName::Opus, 48_000)?])
}

fn load(file: &[u8], codec: CodecName, clock_rate: u32) -> Result<Arc<Recording>> {
    let recording = Recording::from_rtpdump(file, codec, clock_rate)
        .with_context(|| format!("the built-in {} recording", codec.subtype()))?;
    Ok(Arc::new(recording))
}
