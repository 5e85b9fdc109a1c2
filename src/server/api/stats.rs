//! Counters and dumps: what workers have counted, with what only the supervisor knows of it, and what they know.

use weir_channel::id::WorkerId;
use weir_channel::message::{
    CodecName, ConsumerDump, ConsumerStats, DumpPage, Method, Page, ProducerDump, ProducerStats, Reply, Scope,
    StatsPage, TransportDump, TransportStats,
};

use crate::server::api::consumer::Consumer;
use crate::server::api::producer::Producer;
use crate::server::api::room::Room;
use crate::server::api::transport::Transport;
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::rtp_parameters::RtpParameters;
use crate::server::model::state::State;
use crate::server::workers::shared::Shared;

impl Shared {
    /// A page of counters.
    async fn stats(
        &self,
        worker: WorkerId,
        scope: Scope,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<StatsPage, Error> {
        match self.ask(worker, Method::Stats(scope), check).await? {
            Reply::Stats(mut page) => {
                complete(&lock(&self.state), &mut page);
                Ok(page)
            }
            other => Err(self.unexpected(worker, "Stats", &other)),
        }
    }

    /// A page of a dump.
    async fn dump(
        &self,
        worker: WorkerId,
        scope: Scope,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<DumpPage, Error> {
        match self.ask(worker, Method::Dump(scope), check).await? {
            Reply::Dump(page) => Ok(page),
            other => Err(self.unexpected(worker, "Dump", &other)),
        }
    }
}

/// The entry of a page about one thing.
fn only<T>(worker: WorkerId, mut entries: Vec<T>) -> Result<T, Error> {
    match entries.len() {
        1 => Ok(entries.remove(0)),
        several => Err(Error::Protocol {
            worker,
            reason: format!("asked about one thing, it answered about {several}"),
        }),
    }
}

/// Gives local addresses the names that remotes know them by, and codecs the names that they were declared by. What has
/// been closed meanwhile stays as the worker knows it; only a codec that nobody knows is left out.
fn complete(state: &State, page: &mut StatsPage) {
    for stats in &mut page.transports {
        if let Some(webrtc) = &mut stats.webrtc
            && let Some(tuple) = &mut webrtc.ice_selected_tuple
            && let Some(node) = state.transport(stats.transport).and_then(|node| node.webrtc())
        {
            *tuple = node.shown(*tuple);
        }
    }
    for stats in &mut page.producers {
        for stream in &mut stats.streams {
            stream.codec.take_if(|name| !is_known(name));
        }
        if let Some(node) = state.producer(stats.producer) {
            for stream in &mut stats.streams {
                name_codec(&mut stream.codec, stream.payload_type, &node.rtp_parameters);
            }
        }
    }
    for stats in &mut page.consumers {
        stats.codec.take_if(|name| !is_known(name));
        if let Some(node) = state.consumer(stats.consumer) {
            name_codec(&mut stats.codec, stats.payload_type, &node.rtp_parameters);
        }
    }
}

fn is_known(codec: &str) -> bool {
    CodecName::ALL.iter().any(|known| known.subtype() == codec)
}

/// A codec that the worker does not know is called what it was declared as.
fn name_codec(codec: &mut Option<String>, payload_type: Option<u8>, parameters: &RtpParameters) {
    let Some(name) = codec else {
        return;
    };
    let mut codecs = parameters.codecs.iter();
    if CodecName::OPAQUE.iter().any(|opaque| opaque.subtype() == name)
        && let Some(declared) = codecs.find(|codec| Some(codec.payload_type) == payload_type)
        && let Some((_, subtype)) = declared.mime_type.split_once('/')
    {
        subtype.clone_into(name);
    }
}

/// Asks for page after page about a room, and returns them as one. Each page was checked by itself when it came
/// ([`State::check_reply`]); here the pages are: that they go on where the last one ended, and that they end.
macro_rules! all_pages {
    ($room:ident, $ask:ident, $page:ident) => {{
        let mut all = $page::default();
        let link = $room.shared.workers.slot($room.worker())?.link();
        let mut pages_max = 0;
        for asked in 0_usize.. {
            pages_max = pages_max.max(lock(&$room.shared.state).pages_max($room.id()));
            if asked > pages_max {
                break;
            }
            let page = Page { cursor: all.next };
            let scope = Scope::Room { room: $room.id(), page };
            let page = $room.shared.$ask($room.worker(), scope, || $room.node.check_open());
            let page = page.await?;
            if !goes_on(&all.transports, &page.transports, |each| each.transport)
                || !goes_on(&all.producers, &page.producers, |each| each.producer)
                || !goes_on(&all.consumers, &page.consumers, |each| each.consumer)
            {
                break;
            }
            all.transports.extend(page.transports);
            all.producers.extend(page.producers);
            all.consumers.extend(page.consumers);
            all.next = page.next;
            if all.next.is_none() {
                return Ok(all);
            }
        }
        let reason = format!(
            "it answered about {} with pages that repeat each other, or do not end",
            $room.id()
        );
        if let Some(link) = link {
            link.condemn(reason.clone());
        }
        let worker = $room.worker();
        Err(Error::Protocol { worker, reason })
    }};
}

/// Whether the ids of a page are above those of the pages before.
fn goes_on<T, I: Ord>(before: &[T], page: &[T], id: impl Fn(&T) -> I) -> bool {
    before
        .last()
        .is_none_or(|last| page.first().is_none_or(|first| id(last) < id(first)))
}

impl Room {
    /// The counters of everything in the room.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn stats(&self) -> Result<StatsPage, Error> {
        all_pages!(self, stats, StatsPage)
    }

    /// Everything that the worker knows about the room, for people.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn dump(&self) -> Result<DumpPage, Error> {
        all_pages!(self, dump, DumpPage)
    }
}

/// Gives a handle its counters and its dump: the one entry of a page that is about it alone.
macro_rules! inspected {
    ($handle:ident, self.$($check:ident).+(), $refusal:literal, $entries:ident: $stats:ident, $dump:ident) => {
        impl $handle {
            /// Its counters.
            ///
            /// # Errors
            #[doc = $refusal]
            /// and what keeps the worker from answering.
            pub async fn stats(&self) -> Result<$stats, Error> {
                let worker = self.room().worker();
                let page = self.shared.stats(worker, Scope::$handle(self.id()), || self.$($check).+());
                only(worker, page.await?.$entries)
            }

            /// What the worker knows of it, for people.
            ///
            /// # Errors
            /// As for its counters.
            pub async fn dump(&self) -> Result<$dump, Error> {
                let worker = self.room().worker();
                let page = self.shared.dump(worker, Scope::$handle(self.id()), || self.$($check).+());
                only(worker, page.await?.$entries)
            }
        }
    };
}

inspected! { Transport, self.node.check_open(), "[`Error::InvalidState`] when it is closed,", transports: TransportStats, TransportDump }
inspected! { Producer, self.check_open(), "[`Error::InvalidState`] when it is closed,", producers: ProducerStats, ProducerDump }
inspected! { Consumer, self.check_known(),
    "[`Error::InvalidState`] when it is closed, [`Error::NotEnabled`] when no worker knows it,",
    consumers: ConsumerStats, ConsumerDump
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::model::rtp_parameters::RtpCodec;

    #[test]
    fn a_codec_that_is_not_known_is_called_what_it_was_declared_as() {
        let mut parameters = RtpParameters {
            codecs: vec![RtpCodec::new(CodecName::Opus, 97)],
            ..RtpParameters::default()
        };
        parameters.codecs[0].mime_type = "audio/mpeg4-generic".to_owned();
        let named = |codec: Option<&str>, payload_type| {
            let mut codec = codec.map(str::to_owned);
            name_codec(&mut codec, payload_type, &parameters);
            codec
        };
        assert_eq!(named(None, Some(97)), None);
        assert_eq!(named(Some("other-audio"), Some(97)).as_deref(), Some("mpeg4-generic"));
        assert_eq!(named(Some("other-audio"), Some(98)).as_deref(), Some("other-audio"));
        assert_eq!(named(Some("opus"), Some(97)).as_deref(), Some("opus"));
    }
}
