//! Queues that come to an event core and go from it, by what is wanted.
//!
//! ```text
//! controls   what is wanted now: modes, bindings; queues of others are let go of
//! mail       queues, and frames for them, that another core gave
//! arrivals   a queue is seated when the workers have finished what its old core sent
//! ```

use super::{Arriving, EventCore};
use crate::engine::cores::floor::Out;
use crate::engine::cores::kinds::ARRIVALS;
use crate::engine::cores::running::Parcel;
use crate::engine::cores::work::Work;
use crate::engine::pending::Kinds;
use crate::Error;

impl<W: Work> EventCore<'_, '_, W> {
    /// Somebody wants something else than before.
    pub(super) fn controls(&mut self) -> Result<Kinds, Error> {
        self.follow();
        // Their queue may go to yet another core.
        for frame in std::mem::take(&mut self.early) {
            self.dispatch(frame);
        }
        self.let_go();
        Ok(self.more())
    }

    /// Takes what other cores gave.
    pub(super) fn mail(&mut self) -> Result<Kinds, Error> {
        let mut kinds = Kinds::NONE;
        for parcel in self.floor.running.fetch(self.place) {
            match parcel {
                Parcel::Seat {
                    number,
                    seat,
                    drain,
                } => {
                    kinds = kinds.and(ARRIVALS);
                    self.arriving.push(Arriving {
                        number,
                        seat,
                        drain,
                    });
                }
                Parcel::Frame(frame) => self.dispatch(frame),
            }
        }
        Ok(kinds.union(self.more()))
    }

    /// Does what is wanted now.
    fn follow(&mut self) {
        let running = self.floor.running;
        let controls = &running.controls;
        let wanted = controls.wanted();
        self.owners = wanted.owners(self.floor.seats.len());
        if let Out::Away { steering, .. } = &mut self.floor.out {
            if let Some(mapping) = &wanted.mapping {
                steering.remap(|place| mapping.get(place).copied().unwrap_or(0));
            }
            let (changes, last) = wanted.changes_since(self.change);
            for (connection, worker) in changes {
                match worker {
                    Some(worker) => {
                        if let Err(error) = steering.bind(connection, worker) {
                            tracing::warn!("{error}");
                        }
                    }
                    None => steering.unbind(&connection),
                }
            }
            self.change = last;
        }
        drop(wanted);
        let mode = controls.mode();
        for number in 0..self.floor.seats.len() {
            let Some(seat) = self.floor.seat(number) else {
                continue;
            };
            if seat.moderation.mode() != mode {
                seat.moderation.set_mode(mode);
                self.call(number);
            }
        }
    }

    /// Takes queues whose packets from their old core are worked on. The others are looked at in the next pass: nobody tells.
    pub(super) fn arrivals(&mut self) -> Result<Kinds, Error> {
        let before = self.arriving.len();
        let mut at = 0;
        while let Some(next) = self.arriving.get(at) {
            if next.drain.as_ref().is_some_and(|drain| !drain.is_over()) {
                at += 1;
                continue;
            }
            let Arriving { number, seat, .. } = self.arriving.remove(at);
            let mode = self.floor.running.controls.mode();
            if let Some(place) = self.floor.seats.get_mut(number) {
                let seat = place.insert(*seat);
                seat.moderation.set_mode(mode);
                // An event may have come to nobody: it is looked at in any case.
                let listed = seat.schedule.enable() || seat.schedule.schedule();
                if listed {
                    self.half.list(number);
                }
                self.floor.stats.queues_taken.add(1);
                self.floor.running.interrupts.follow(number, self.place);
            }
            for frame in std::mem::take(&mut self.early) {
                self.dispatch(frame);
            }
        }
        if self.arriving.len() < before {
            self.tell_queues();
            self.let_go();
        }
        let more = self.more();
        Ok(match self.arriving.is_empty() {
            true => more,
            false => more.and(ARRIVALS),
        })
    }

    /// Lets go of queues that another core is to have. One that is polled now goes when it is completed.
    fn let_go(&mut self) {
        for number in 0..self.floor.seats.len() {
            let is_ours = self.owners.get(number) == Some(&self.place);
            let Some(seat) = self.floor.seat(number) else {
                continue;
            };
            if is_ours && seat.schedule.is_disabling() {
                let _ = seat.schedule.enable();
            } else if !is_ours && !seat.schedule.is_disabling() && seat.schedule.disable() {
                self.floor.leaving.push(number);
            }
        }
        self.hand_over();
    }

    /// How many it has now: also of a core that has given all away and does nothing else any more.
    pub(super) fn tell_queues(&self) {
        let queues = self.floor.seats.iter().flatten().count();
        self.floor.stats.queues.set(queues as u64);
    }

    /// Gives away what was let go of.
    pub(super) fn hand_over(&mut self) {
        while let Some(number) = self.floor.leaving.pop() {
            let owner = self.owners.get(number).copied().unwrap_or(self.place);
            if owner == self.place {
                // Wanted back meanwhile.
                if let Some(seat) = self.floor.seat(number) {
                    if seat.schedule.enable() || seat.schedule.schedule() {
                        self.half.list(number);
                    }
                }
                continue;
            }
            let Some(mut seat) = self.floor.seats.get_mut(number).and_then(Option::take) else {
                continue;
            };
            // Before the next core can tell that it has it: a queue is counted once or, on its way, not at all.
            self.tell_queues();
            seat.look_at = None;
            let drain = match &self.floor.out {
                Out::Away { steering, .. } => Some(steering.drain()),
                Out::Here { .. } => None,
            };
            let seat = Box::new(seat);
            let parcel = Parcel::Seat {
                number,
                seat,
                drain,
            };
            self.floor.running.post(owner, parcel);
        }
    }
}
