//! An event core: takes the events of its queues, polls them, and sleeps when there is nothing.
//!
//! ```text
//! pass       each kind of work that was raised, once, the lowest first (`kinds`)
//!   controls   another mode, other bindings
//!   mail       queues and frames of other cores
//!   arrivals   queues that were given to this core
//!   frames     what workers have to send
//!   timers     queues to look at without an event
//!   receive    an activation: rounds over the list, within the limit and the time
//! sleep      until an event, a timer, or a call; not at all while queues are left
//! ```

mod frames;
mod moves;
mod top_half;

use std::sync::Arc;
use std::time::Duration;

use super::counters::Told;
use super::floor::{Floor, Out};
use super::kinds::{Signal, ARRIVALS, CONTROLS, FRAMES, MAIL, RECEIVE, TIMERS};
use super::running::EndsAll;
use super::seat::Seat;
use super::work::{Frame, Work};
use crate::engine::bottom_half::{BottomHalf, Budgets};
use crate::engine::clock::Clock;
use crate::engine::pending::{Kinds, Vector};
use crate::engine::punctual::Punctual;
use crate::engine::restart::{Policy, RestartPolicy};
use crate::engine::steering::{Drain, LaneReceiver};
use crate::engine::WEIGHT;
use crate::Error;

/// A queue that another core gave away, until its packets there are worked on.
struct Arriving<'q> {
    number: usize,
    seat: Box<Seat<'q>>,
    drain: Option<Drain>,
}

pub(super) struct EventCore<'r, 'q, W> {
    place: usize,
    floor: Floor<'r, 'q, W>,
    half: BottomHalf<Box<dyn RestartPolicy + Send>>,
    /// From workers.
    back: Vec<LaneReceiver<Frame>>,
    signal: Arc<Signal>,
    /// Kinds that this core has raised for itself.
    own: Kinds,
    arriving: Vec<Arriving<'q>>,
    /// Frames for queues that are on their way here.
    early: Vec<Frame>,
    /// Frames out of a lane, and whether some were put into a ring since rings were flushed.
    taken: Vec<Frame>,
    sent: bool,
    /// Event core of each queue.
    owners: Vec<usize>,
    /// The last change of a connection's worker that was followed.
    change: u64,
    looks: u32,
    /// When all queues were last looked at for their own sake.
    looked_at: Duration,
    told: Told,
}

impl<'r, 'q, W: Work> EventCore<'r, 'q, W> {
    pub fn new(
        place: usize,
        floor: Floor<'r, 'q, W>,
        (budgets, policy): (Budgets, Policy),
        back: Vec<LaneReceiver<Frame>>,
        signal: Arc<Signal>,
    ) -> Self {
        let queues = floor.seats.len();
        Self {
            place,
            floor,
            half: BottomHalf::new(queues, budgets, policy.make()),
            back,
            signal,
            // What is wanted at the beginning nobody raises.
            own: CONTROLS.into(),
            arriving: Vec::new(),
            early: Vec::new(),
            taken: Vec::with_capacity(WEIGHT),
            sent: false,
            owners: vec![place; queues],
            change: 0,
            looks: 0,
            looked_at: Duration::ZERO,
            told: Told::default(),
        }
    }

    /// What serves each kind of work.
    fn vector() -> Vector<Self, Error> {
        Vector::default()
            .register(CONTROLS, Self::controls)
            .register(MAIL, Self::mail)
            .register(ARRIVALS, Self::arrivals)
            .register(FRAMES, Self::frames)
            .register(TIMERS, Self::timers)
            .register(RECEIVE, Self::receive)
    }

    /// Runs until all end.
    ///
    /// # Errors
    /// If a backend broke its ring, or a device failed; then all end.
    pub fn run(mut self) -> Result<(), Error> {
        let running = self.floor.running;
        let _all = EndsAll(running);
        let _punctual = Punctual::begin();
        let vector = Self::vector();
        // What an earlier run left of it is not so any more.
        self.tell_queues();
        while !running.is_ending() {
            let raised = self.signal.pending.take();
            self.floor.stats.raised.add((!raised.is_empty()).into());
            let kinds = std::mem::take(&mut self.own).union(raised);
            self.own = vector.serve(&mut self, kinds)?;
            self.sleep()?;
        }
        for seat in self.floor.seats.iter_mut().flatten() {
            seat.queue.export();
        }
        Ok(())
    }

    /// One activation over the queues on the list.
    fn receive(&mut self) -> Result<Kinds, Error> {
        let running = self.floor.running;
        self.half.run(&mut self.floor, &running.clock);
        self.hand_over();
        self.publish();
        match self.floor.error.take() {
            Some(error) => Err(error),
            None => Ok(self.more().union(self.timed())),
        }
    }

    /// What came of an action: queues on the list, frames in rings that nobody has published.
    fn more(&self) -> Kinds {
        let mut kinds = Kinds::NONE;
        if !self.half.is_idle() {
            kinds = kinds.and(RECEIVE);
        }
        if self.sent {
            kinds = kinds.and(FRAMES);
        }
        kinds
    }

    /// To look at the time, if a queue waits for one.
    fn timed(&self) -> Kinds {
        let mut seats = self.floor.seats.iter().flatten();
        match self.half.is_holding() || seats.any(|seat| seat.look_at.is_some()) {
            true => TIMERS.into(),
            false => Kinds::NONE,
        }
    }

    /// Something is there for a queue, or may be: puts it on the list.
    fn call(&mut self, number: usize) {
        if let Some(seat) = self.floor.seat(number) {
            if seat.schedule.schedule() {
                self.half.list(number);
            }
        }
    }

    /// Queues whose time has come, and those held that may go on.
    fn timers(&mut self) -> Result<Kinds, Error> {
        let now = self.floor.running.clock.now();
        for number in 0..self.floor.seats.len() {
            let Some(seat) = self.floor.seat(number) else {
                continue;
            };
            if seat.is_due(now) {
                seat.look_at = None;
                self.floor.stats.looks.add(1);
                self.call(number);
            }
        }
        if self.half.is_holding() {
            let has_room = self.floor.depth() < self.floor.limits.high;
            let seats = &self.floor.seats;
            self.half.release(|number| {
                let seat = seats.get(number).and_then(Option::as_ref);
                seat.is_none_or(|seat| {
                    let is_over = seat.pressure.deadline().is_some_and(|at| at <= now);
                    has_room || is_over || seat.schedule.is_disabling()
                })
            });
        }
        Ok(self.more().union(self.timed()))
    }

    fn publish(&mut self) {
        let stats = &self.floor.stats;
        self.told.tell(stats, self.half.counters());
        let limit = self.half.policy().limit();
        stats.limit.set(limit.into());
        stats.limits.record(limit);
        if let Out::Away { steering, .. } = &self.floor.out {
            self.told.tell_steering(stats, steering.counters());
            stats.lane_depth.set(steering.depth() as u64);
        }
    }
}
