//! What goes wrong.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;
use weir_channel::id::WorkerId;

use super::network::now;
use super::sim::ms;
use super::story::Story;
use super::worker::{Cut, Process};

/// So many processes of a worker are killed before one of them has lived to serve: fewer than make the supervisor give up its rooms.
const UNSERVED_DEATHS_MAX: u32 = 4;

/// The one thing that goes wrong in a short story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Blow {
    /// The first worker is cut off after so many bytes of what it says next.
    Cut(u64),
    /// It is killed when the supervisor has gone on so many times with what was called just before.
    Await(u32),
    /// The worker with this number freezes for some time: in a turn, or while it waits.
    Freeze(WorkerId, Duration, bool),
}

impl Story {
    /// Deals a blow while calls are under way. The process that it has hit, if there was one.
    pub(super) async fn strike(&mut self, blow: Blow) -> Option<Rc<Process>> {
        let struck = match blow {
            Blow::Freeze(worker, ..) => worker,
            _ => WorkerId(1),
        };
        let process = {
            let processes = self.world.processes.borrow();
            // The first one serves; the spare of a worker has the greater number.
            let mut alive = processes.iter().filter(|process| !process.is_dead());
            Rc::clone(alive.find(|process| process.worker == struck)?)
        };
        for _ in 0..4 {
            if let Some(call) = self.call() {
                self.calls.push(call);
            }
        }
        self.world.tell(&format_args!("process {}: {blow:?}", process.pid));
        match blow {
            Blow::Cut(bytes) => {
                process.cut_at.set(Some(Cut::Bytes(bytes)));
                process.woken.notify_one();
                let began = now();
                while !process.is_dead() && now().since(began) < ms(2_000) {
                    self.meanwhile(sleep(ms(5))).await;
                }
                self.deaths += 1;
            }
            Blow::Await(times) => {
                for _ in 0..times {
                    self.meanwhile(yield_now()).await;
                }
                process.kill();
                self.deaths += 1;
            }
            Blow::Freeze(_, duration, in_turn) => process.freeze(now() + duration, in_turn),
        }
        Some(process)
    }

    pub(super) async fn go_wrong(&mut self) {
        let alive = self
            .world
            .processes
            .borrow()
            .iter()
            .filter(|process| !process.is_dead())
            .cloned()
            .collect();
        let Some(process) = self.pick::<Rc<Process>>(alive) else {
            return;
        };
        let until = now() + ms(50 + self.random.below(3_000) as u64);
        match self.random.below(10) {
            0 => {
                let chosen = self.random.below(100);
                self.world.media.borrow_mut().hold_breath(chosen, until);
                return;
            }
            1 | 2 => {
                let in_turn = self.random.chance(500);
                self.world.tell(&format_args!(
                    "process {} freezes until {until:?}, in a turn: {in_turn}",
                    process.pid
                ));
                if until.since(now()) >= ms(900) {
                    // It may be taken for hung.
                    if !self.may_die(&process) {
                        return;
                    }
                    self.deaths += 1;
                }
                process.freeze(until, in_turn);
                return;
            }
            _ if !self.may_die(&process) => return,
            3..6 => {
                let most = self.random.pick(&[30, 1_000]);
                let stores = self.random.below(most) as u64;
                self.world
                    .tell(&format_args!("process {} dies after {stores} more stores", process.pid));
                process.kill_after_stores(stores);
            }
            6 | 7 => {
                let part = self.random.below(1_001) as u64;
                self.world.tell(&format_args!(
                    "process {} is cut off at {part} ‰ of what it says next",
                    process.pid
                ));
                process.cut_at.set(Some(Cut::Part(part)));
                process.woken.notify_one();
            }
            _ => {
                // Somewhere between two things that the supervisor awaits.
                for _ in 0..self.random.below(20) {
                    self.meanwhile(yield_now()).await;
                }
                self.world.tell(&format_args!("process {} dies", process.pid));
                process.kill();
            }
        }
        self.deaths += 1;
    }

    /// Whether a process may be killed, so that its worker's rooms are not given up. Counts its death.
    pub(super) fn may_die(&mut self, process: &Process) -> bool {
        let slot = self.server.shared().workers.slot(process.worker).unwrap();
        let serves = slot.link().is_some_and(|link| link.served_since().is_some());
        let unserved = self.unserved_deaths.entry(process.worker).or_default();
        if serves {
            *unserved = 0;
        }
        *unserved += 1;
        *unserved <= UNSERVED_DEATHS_MAX
    }
}
