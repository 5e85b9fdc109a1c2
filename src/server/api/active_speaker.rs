//! Who of a room is speaking: the loudest, once it has been the loudest for long enough (differences §10).

use std::collections::VecDeque;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_channel::id::ProducerId;

use crate::server::api::peer::Peer;
use crate::server::api::producer::Producer;
use crate::server::api::room::Room;
use crate::server::model::error::Error;

/// Whoever is not this loud (in dBov) does not become the active speaker, however quiet the others are.
const LEVEL_MIN: i8 = -80;

/// So many times in a row another one must be the loudest to take over: 2 s, because levels come every 500 ms.
const TAKE_OVER: usize = 4;

/// The rule alone: it is told the loudest of each period, and knows who is active (pure).
#[derive(Debug, Default)]
pub(crate) struct SpeakerRule {
    active: Option<ProducerId>,
    /// The loudest of the last periods, the newest last; `None` for a period without any level.
    history: VecDeque<Option<(ProducerId, i8)>>,
}

impl SpeakerRule {
    /// Who is active.
    pub(crate) fn active(&self) -> Option<ProducerId> {
        self.active
    }

    /// Takes up the loudest of a period, if anybody was heard. `speaks` says whether a producer is open and not paused.
    /// Returns whether there is another active speaker now, or none any more.
    ///
    /// The first to speak is active at once, and so is whoever speaks when the active one has closed or paused. Silence
    /// alone changes nothing.
    pub(crate) fn on_levels(&mut self, loudest: Option<(ProducerId, i8)>, speaks: impl Fn(ProducerId) -> bool) -> bool {
        let before = self.active;
        self.active = before.filter(|producer| speaks(*producer));
        let required = if self.active.is_some() {
            TAKE_OVER
        } else {
            self.history.clear();
            1
        };
        if self.history.len() == TAKE_OVER {
            self.history.pop_front();
        }
        self.history.push_back(loudest);
        if let Some((candidate, _)) = loudest
            && speaks(candidate)
            && self.history.len() >= required
            && self.won(candidate, required)
        {
            self.active = Some(candidate);
        }
        self.active != before
    }

    /// Whether a producer was the loudest of each of the last periods, and loud enough.
    fn won(&self, candidate: ProducerId, periods: usize) -> bool {
        let last = self.history.iter().rev().take(periods);
        last.copied()
            .all(|entry| entry.is_some_and(|(producer, level)| producer == candidate && level >= LEVEL_MIN))
    }
}

/// Who is speaking.
#[derive(Clone, Debug)]
pub struct ActiveSpeaker {
    /// The producer that is heard.
    pub producer: Producer,
    /// The peer that owns the producer, if any.
    pub peer: Option<Peer>,
}

/// Follows who is speaking in a room, until it is dropped or closed, or the room is.
#[derive(Debug)]
pub struct ActiveSpeakerDetector {
    active: watch::Receiver<Option<ActiveSpeaker>>,
    task: JoinHandle<()>,
}

impl ActiveSpeakerDetector {
    /// Must be called within a tokio runtime.
    pub(crate) async fn create(room: &Room) -> Result<Self, Error> {
        let mut levels = room.audio_levels().await?;
        let (sender, active) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut rule = SpeakerRule::default();
            while let Some(levels) = levels.next().await {
                let known: Option<ActiveSpeaker> = sender.borrow().clone();
                let loudest = levels
                    .first()
                    .map(|loudest| (loudest.producer.id(), loudest.level_dbov));
                let producers = levels.iter().map(|level| &level.producer);
                let producers = producers.chain(known.as_ref().map(|speaker| &speaker.producer));
                let producers: Vec<&Producer> = producers.collect();
                let find = |id| producers.iter().find(|producer| producer.id() == id);
                let speaks = |id| find(id).is_some_and(|producer| !producer.closed() && !producer.paused());
                if rule.on_levels(loudest, speaks) {
                    let producer = rule.active().and_then(|id| find(id).copied().cloned());
                    sender.send_replace(producer.map(|producer| ActiveSpeaker {
                        peer: producer.peer(),
                        producer,
                    }));
                }
            }
        });
        Ok(Self { active, task })
    }

    /// Who is speaking now.
    pub fn active(&self) -> Option<ActiveSpeaker> {
        self.active.borrow().clone()
    }

    /// Waits until another producer is active, or none (`Some(None)`), because the active one has closed or paused. If
    /// there were several changes since the last call, it returns the last one. `None`: the detector is closed.
    pub async fn changed(&mut self) -> Option<Option<ActiveSpeaker>> {
        self.active.changed().await.ok()?;
        Some(self.active.borrow_and_update().clone())
    }

    /// Whether it is closed: by itself or with its room.
    pub fn closed(&self) -> bool {
        self.active.has_changed().is_err()
    }

    /// Closes it. If nobody else listens to the room, its worker stops measuring.
    pub fn close(&self) {
        self.task.abort();
    }
}

impl Drop for ActiveSpeakerDetector {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use weir_channel::message::{CodecName, MediaKind, Notification};

    use super::*;
    use crate::server::fake::{server, settings, soon};
    use crate::server::{PlainTransportOptions, ProducerOptions, RoomOptions, RtpCodec, RtpEncoding, RtpParameters};

    const ANN: ProducerId = ProducerId(1);
    const BOB: ProducerId = ProducerId(2);

    /// One period: who is the loudest, with which level, who is closed or paused then, and who is active after it.
    type Row = (Option<(ProducerId, i8)>, &'static [ProducerId], Option<ProducerId>);

    fn check(rows: &[Row]) {
        let mut rule = SpeakerRule::default();
        let mut before = None;
        for (index, (loudest, mute, active)) in rows.iter().enumerate() {
            let changed = rule.on_levels(*loudest, |producer| !mute.contains(&producer));
            assert_eq!(rule.active(), *active, "period {index} of {rows:?}");
            assert_eq!(changed, before != *active, "period {index} of {rows:?}");
            before = *active;
        }
    }

    const fn ann(level: i8) -> Option<(ProducerId, i8)> {
        Some((ANN, level))
    }

    const fn bob(level: i8) -> Option<(ProducerId, i8)> {
        Some((BOB, level))
    }

    #[test]
    fn the_first_to_speak_is_active_at_once() {
        check(&[
            (None, &[], None),
            (ann(-30), &[], Some(ANN)),
            (ann(-30), &[], Some(ANN)),
        ]);
        check(&[(ann(-80), &[], Some(ANN))]);
        check(&[(ann(-81), &[], None), (ann(-127), &[], None), (bob(0), &[], Some(BOB))]);
    }

    #[test]
    fn taking_over_needs_four_periods_in_a_row() {
        check(&[
            (ann(-30), &[], Some(ANN)),
            (bob(-20), &[], Some(ANN)),
            (bob(-20), &[], Some(ANN)),
            (bob(-20), &[], Some(ANN)),
            (bob(-20), &[], Some(BOB)),
        ]);
        // Each of these breaks the row: the other one, silence, being too quiet.
        for breach in [ann(-20), None, bob(-81)] {
            check(&[
                (ann(-30), &[], Some(ANN)),
                (bob(-20), &[], Some(ANN)),
                (bob(-20), &[], Some(ANN)),
                (bob(-20), &[], Some(ANN)),
                (breach, &[], Some(ANN)),
                (bob(-20), &[], Some(ANN)),
                (bob(-20), &[], Some(ANN)),
                (bob(-20), &[], Some(ANN)),
                (bob(-20), &[], Some(BOB)),
            ]);
        }
    }

    #[test]
    fn silence_alone_clears_nobody() {
        let silence: Row = (None, &[], Some(ANN));
        let mut rows = vec![(ann(-30), &[] as &[ProducerId], Some(ANN))];
        rows.extend([silence; 20]);
        check(&rows);
    }

    #[test]
    fn an_active_speaker_that_is_gone_is_cleared_and_the_next_one_does_not_wait() {
        check(&[
            (ann(-30), &[], Some(ANN)),
            (None, &[ANN], None),
            (bob(-60), &[ANN], Some(BOB)),
        ]);
        check(&[(ann(-30), &[], Some(ANN)), (bob(-60), &[ANN], Some(BOB))]);
        // What was heard before does not count any more.
        check(&[
            (ann(-30), &[], Some(ANN)),
            (bob(-60), &[], Some(ANN)),
            (bob(-60), &[], Some(ANN)),
            (None, &[ANN], None),
            (ann(-10), &[], Some(ANN)),
            (bob(-60), &[], Some(ANN)),
            (bob(-60), &[], Some(ANN)),
        ]);
    }

    #[test]
    fn the_last_word_of_one_who_has_gone_does_not_count() {
        check(&[(ann(-30), &[ANN], None), (ann(-30), &[], Some(ANN))]);
        check(&[
            (ann(-30), &[], Some(ANN)),
            (bob(-20), &[], Some(ANN)),
            (bob(-20), &[], Some(ANN)),
            (bob(-20), &[], Some(ANN)),
            (bob(-20), &[BOB], Some(ANN)),
        ]);
    }

    #[tokio::test]
    async fn a_detector_tells_who_speaks_until_its_room_closes() {
        let (server, mut fake) = server(settings()).await;
        let room = fake
            .accepting(server.create_room(RoomOptions::default()))
            .await
            .unwrap();
        let options = PlainTransportOptions::default();
        let transport = fake.accepting(room.create_plain_transport(options)).await.unwrap();
        let mut producers = Vec::new();
        for ssrc in [1, 2] {
            let rtp_parameters = RtpParameters {
                codecs: vec![RtpCodec::new(CodecName::Opus, 100)],
                encodings: vec![RtpEncoding::ssrc(ssrc)],
                ..RtpParameters::default()
            };
            let options = ProducerOptions::new(MediaKind::Audio, rtp_parameters);
            producers.push(fake.accepting(transport.produce(options)).await.unwrap());
        }
        let mut detector = fake.accepting(room.create_active_speaker_detector()).await.unwrap();
        assert!(detector.active().is_none() && !detector.closed());
        let heard = |producer: &Producer| Notification::AudioLevels {
            room: room.id(),
            levels: vec![(producer.id(), -30)],
        };
        fake.notify(heard(&producers[0])).await;
        let speaker = soon(detector.changed()).await.unwrap().unwrap();
        assert_eq!(speaker.producer.id(), producers[0].id());
        assert!(speaker.peer.is_none());
        for _ in 0..4 {
            fake.notify(heard(&producers[1])).await;
        }
        let speaker = soon(detector.changed()).await.unwrap().unwrap();
        assert_eq!(speaker.producer.id(), producers[1].id());
        // A pause clears, at the next half second.
        fake.accepting(producers[1].pause(serde_json::Value::Null))
            .await
            .unwrap();
        let nobody = Notification::AudioLevels {
            room: room.id(),
            levels: Vec::new(),
        };
        fake.notify(nobody).await;
        assert!(soon(detector.changed()).await.unwrap().is_none());
        fake.accepting(room.close(serde_json::Value::Null)).await.unwrap();
        assert!(soon(detector.changed()).await.is_none());
        assert!(detector.closed());
    }
}
