//! Counters: what workers have counted, with what only the supervisor knows of it.

use weir_channel::id::WorkerId;
use weir_channel::message::{
    CodecName, ConsumerStats, DumpPage, Method, Page, ProducerStats, Reply, Scope, StatsPage, TransportStats,
};

use crate::server::api::consumer::Consumer;
use crate::server::api::producer::Producer;
use crate::server::api::room::Room;
use crate::server::api::transport::Transport;
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::rtp_parameters::RtpParameters;
use crate::server::model::state::{Command, State};
use crate::server::workers::shared::Shared;

/// A room asks its worker for no more pages than this, some millions of entries: more would be a worker that never ends.
const PAGES_MAX: usize = 10_000;

impl Shared {
    /// A page of counters.
    async fn stats(
        &self,
        worker: WorkerId,
        scope: Scope,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<StatsPage, Error> {
        let method = Method::Stats(scope);
        match self
            .ask(worker, |_| check().map(|()| Some(Command::new(method))))
            .await?
        {
            Reply::Stats(mut page) => {
                complete(&lock(&self.state), &mut page);
                Ok(page)
            }
            other => Err(self.unexpected(worker, "Stats", &other)),
        }
    }

    /// A page of a dump.
    pub(super) async fn dump(
        &self,
        worker: WorkerId,
        scope: Scope,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<DumpPage, Error> {
        let method = Method::Dump(scope);
        match self
            .ask(worker, |_| check().map(|()| Some(Command::new(method))))
            .await?
        {
            Reply::Dump(page) => Ok(page),
            other => Err(self.unexpected(worker, "Dump", &other)),
        }
    }
}

/// The entry of a page about one thing.
pub(super) fn only<T>(worker: WorkerId, mut entries: Vec<T>) -> Result<T, Error> {
    match entries.len() {
        1 => Ok(entries.remove(0)),
        several => Err(Error::Protocol {
            worker,
            reason: format!("asked about one thing, it answered about {several}"),
        }),
    }
}

fn endless(worker: WorkerId) -> Error {
    Error::Protocol {
        worker,
        reason: format!("it answered about a room with more than {PAGES_MAX} pages"),
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

impl Room {
    /// The counters of everything in the room.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn stats(&self) -> Result<StatsPage, Error> {
        let mut all = StatsPage::default();
        for _ in 0..PAGES_MAX {
            let page = Page { cursor: all.next };
            let scope = Scope::Room { room: self.id(), page };
            let page = self
                .shared
                .stats(self.worker(), scope, || self.node.check_open())
                .await?;
            all.transports.extend(page.transports);
            all.producers.extend(page.producers);
            all.consumers.extend(page.consumers);
            all.next = page.next;
            if all.next.is_none() {
                return Ok(all);
            }
        }
        Err(endless(self.worker()))
    }

    /// Everything that the worker knows about the room, for people.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn dump(&self) -> Result<DumpPage, Error> {
        let mut all = DumpPage::default();
        for _ in 0..PAGES_MAX {
            let page = Page { cursor: all.next };
            let scope = Scope::Room { room: self.id(), page };
            let page = self
                .shared
                .dump(self.worker(), scope, || self.node.check_open())
                .await?;
            all.transports.extend(page.transports);
            all.producers.extend(page.producers);
            all.consumers.extend(page.consumers);
            all.next = page.next;
            if all.next.is_none() {
                return Ok(all);
            }
        }
        Err(endless(self.worker()))
    }
}

impl Transport {
    /// Its counters.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn stats(&self) -> Result<TransportStats, Error> {
        let worker = self.room().worker();
        let page = self
            .shared
            .stats(worker, Scope::Transport(self.id()), || self.node.check_open());
        only(worker, page.await?.transports)
    }
}

impl Producer {
    /// Its counters.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn stats(&self) -> Result<ProducerStats, Error> {
        let worker = self.room().worker();
        let page = self
            .shared
            .stats(worker, Scope::Producer(self.id()), || self.check_open());
        only(worker, page.await?.producers)
    }
}

impl Consumer {
    /// Its counters.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, [`Error::NotEnabled`], and what keeps the worker from answering.
    pub async fn stats(&self) -> Result<ConsumerStats, Error> {
        let worker = self.room().worker();
        let page = self
            .shared
            .stats(worker, Scope::Consumer(self.id()), || self.check_known());
        only(worker, page.await?.consumers)
    }
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
