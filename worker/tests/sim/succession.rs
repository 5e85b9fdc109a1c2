//! The death of a relay, and its successor: the objects are made again by the commands that were accepted, and go on as the page
//! of the dead one says.

use std::collections::BTreeSet;
use std::sync::Arc;

use weir_channel::id::RoomId;
use weir_channel::message::{CreateConsumer, Method, WorkerError};
use weir_worker::page::Page;
use weir_worker::page::layout::Capacity;
use weir_worker::page::memory::{HeapPage, Memory};
use weir_worker::page::predecessor::Predecessor;
use weir_worker::relay::Relay;

use super::{Sim, WALL_CLOCK};

/// A relay's page, on the heap.
pub fn new_page(relay: &mut Relay) -> Arc<HeapPage> {
    let page = HeapPage::new(Capacity::SIMULATION.words());
    relay.set_page(Page::new(Memory::heap(page.clone()), Capacity::SIMULATION, 1));
    page
}

/// What was accepted, as the supervisor knows it: requests that make everything again as it is now.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    methods: Vec<Method>,
}

impl Desired {
    pub fn apply(&mut self, method: &Method) {
        let each = |methods: &mut Vec<Method>, edit: &dyn Fn(&mut Method)| methods.iter_mut().for_each(edit);
        match method {
            Method::CreateRouter { .. }
            | Method::CreatePlainTransport(_)
            | Method::CreateWebRtcTransport(_)
            | Method::CreateProducer(_)
            | Method::CreateConsumer(_)
            | Method::SetAudioLevels { .. }
            | Method::SetMaxBitrate { .. } => self.methods.push(method.clone()),
            Method::SetRemote { transport, remote } => each(&mut self.methods, &|made| match made {
                Method::CreatePlainTransport(made) if made.transport == *transport => {
                    made.remote = Some(*remote);
                    made.comedia = false;
                }
                _ => {}
            }),
            Method::SetProducerPaused { producer, paused } => each(&mut self.methods, &|made| match made {
                Method::CreateProducer(made) if made.producer == *producer => made.paused = *paused,
                _ => {}
            }),
            Method::SetConsumerPaused { consumer, paused } => each(&mut self.methods, &|made| match made {
                Method::CreateConsumer(made) if made.consumer == *consumer => made.paused = *paused,
                _ => {}
            }),
            Method::SetConsumerPreferredProfile { consumer, profile } => each(&mut self.methods, &|made| match made {
                Method::CreateConsumer(made) if made.consumer == *consumer => made.preferred_profile = *profile,
                _ => {}
            }),
            Method::SetConsumerSource(request) => {
                let is_it = |made: &mut Method| matches!(made, Method::CreateConsumer(made) if made.consumer == request.consumer);
                // Behind its producer.
                let before: Vec<Method> = self.methods.extract_if(.., is_it).collect();
                self.methods.extend(before.into_iter().map(|made| match made {
                    Method::CreateConsumer(made) => Method::CreateConsumer(CreateConsumer {
                        paused: made.paused,
                        preferred_profile: made.preferred_profile,
                        ..request.clone()
                    }),
                    other => other,
                }));
            }
            Method::CloseConsumer { consumer } => self
                .methods
                .retain(|made| !matches!(made, Method::CreateConsumer(made) if made.consumer == *consumer)),
            Method::CloseProducer { producer } => self.methods.retain(|made| match made {
                Method::CreateProducer(made) => made.producer != *producer,
                Method::CreateConsumer(made) => made.producer != *producer || made.lasting_cname.is_some(),
                _ => true,
            }),
            Method::CloseTransport { transport } => self.methods.retain(|made| match made {
                Method::CreatePlainTransport(made) => made.transport != *transport,
                Method::CreateProducer(made) => made.transport != *transport,
                Method::CreateConsumer(made) => made.transport != *transport,
                _ => true,
            }),
            _ => {}
        }
    }

    fn rooms(&self) -> BTreeSet<RoomId> {
        let room = |method: &Method| match method {
            Method::CreateRouter { room } => Some(*room),
            _ => None,
        };
        self.methods.iter().filter_map(room).collect()
    }
}

impl Sim {
    /// The relay dies here and now.
    pub fn die(&mut self) {
        self.page.kill();
    }

    /// If the relay is dead, a successor takes over.
    #[track_caller]
    pub fn succeed_if_dead(&mut self) {
        if self.page.is_dead() {
            self.succeed();
        }
    }

    /// A successor takes over from a relay that is dead.
    #[track_caller]
    pub fn succeed(&mut self) {
        let refused = self.try_succeed();
        assert!(refused.is_empty(), "{refused:?}");
    }

    /// A successor takes over from a relay that is dead; returns what it refused to make.
    pub fn try_succeed(&mut self) -> Vec<(Method, WorkerError)> {
        assert!(self.page.is_dead());
        self.sort();
        self.deaths += 1;
        let left: Arc<HeapPage> = self.page.clone();
        let predecessor = Predecessor::open(left).map(Arc::new);
        let mut relay = Relay::new(self.limits, self.seed ^ self.deaths << 32);
        relay.set_wall_clock(WALL_CLOCK);
        self.page = new_page(&mut relay);
        self.relay = relay;
        // What was gathered is lost.
        self.sink.send_gathered();
        self.sink.page = Some(self.page.clone());
        self.sink.forget_owners();
        let desired = self.desired.clone();
        if let Ok(predecessor) = predecessor {
            for room in desired.rooms() {
                self.relay.begin_adoption(room, vec![predecessor.clone()]);
            }
        }
        let mut refused = Vec::new();
        let unanswered = std::mem::take(&mut self.unanswered);
        for method in desired.methods.iter().chain(&unanswered) {
            if let Err(error) = self.relay.handle_command(self.now, method) {
                refused.push((method.clone(), error));
            }
        }
        unanswered.iter().for_each(|method| self.desired.apply(method));
        for room in desired.rooms() {
            self.relay.end_adoption(room);
        }
        // Its indices are others.
        for info in self.consumers.values_mut() {
            if let Some(index) = self.relay.transport_index(info.request.transport) {
                info.transport = index;
            }
        }
        self.sink.now = self.now;
        self.drain();
        self.run_timeouts();
        refused
    }
}
