//! An event core: takes the events of its queues, polls them, and sleeps when there is nothing.
//!
//! ```text
//! news       queues that came or have to go; another mode; other bindings
//! frames     what workers have to send
//! timers     queues to look at without an event
//! activation rounds over the list, within the limit and the time
//! sleep      until an event, a timer, or a call; not at all while queues are left
//! ```

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::counters::Told;
use super::floor::{send, Floor, Out};
use super::running::{EndsAll, Parcel};
use super::seat::Seat;
use super::work::{Frame, Work};
use super::MAX_QUEUES;
use crate::engine::bottom_half::{BottomHalf, Budgets};
use crate::engine::clock::Clock;
use crate::engine::restart::{Policy, RestartPolicy};
use crate::engine::steering::{Bell, Drain, LaneReceiver};
use crate::engine::WEIGHT;
use crate::waker::Waker;
use crate::Error;

/// Until something is looked at again for which another thread has to come so far: it tells nobody.
const SHORT: Duration = Duration::from_micros(100);
/// A lost event costs so much at most.
const LONG: Duration = Duration::from_secs(16);
/// Activations of a polling core between two looks at its descriptors.
const LOOK_UP: u32 = 64;

/// A queue that another core gave away, until its packets there are worked on.
struct Arriving<'q> {
    number: usize,
    seat: Box<Seat<'q>>,
    drain: Option<Drain>,
}

/// What a sleep ended for.
struct Ready {
    /// Queues that have an event, queues whose waker was called.
    queues: ArrayVec<(usize, bool, bool), MAX_QUEUES>,
    /// The core was called.
    called: bool,
}

pub(super) struct EventCore<'r, 'q, W> {
    place: usize,
    floor: Floor<'r, 'q, W>,
    half: BottomHalf<Box<dyn RestartPolicy + Send>>,
    /// From workers.
    back: Vec<LaneReceiver<Frame>>,
    bell: Arc<Bell>,
    waker: Arc<Waker>,
    arriving: Vec<Arriving<'q>>,
    /// Frames for queues that are on their way here.
    early: Vec<Frame>,
    /// Frames out of a lane, and whether some were put into a ring since rings were flushed.
    taken: Vec<Frame>,
    sent: bool,
    /// Event core of each queue.
    owners: Vec<usize>,
    /// What was heard of [`super::Controls`] last.
    version: Option<u64>,
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
        bell: Arc<Bell>,
        waker: Arc<Waker>,
    ) -> Self {
        let queues = floor.seats.len();
        Self {
            place,
            floor,
            half: BottomHalf::new(queues, budgets, policy.make()),
            back,
            bell,
            waker,
            arriving: Vec::new(),
            early: Vec::new(),
            taken: Vec::with_capacity(WEIGHT),
            sent: false,
            owners: vec![place; queues],
            version: None,
            change: 0,
            looks: 0,
            looked_at: Duration::ZERO,
            told: Told::default(),
        }
    }

    /// Runs until all end.
    ///
    /// # Errors
    /// If a backend broke its ring, or a device failed; then all end.
    pub fn run(mut self) -> Result<(), Error> {
        let running = self.floor.running;
        let _all = EndsAll(running);
        while !running.is_ending() {
            self.news();
            self.send_frames()?;
            self.timers();
            if !self.half.is_idle() {
                self.half.run(&mut self.floor, &running.clock);
                self.hand_over();
                self.publish();
                if let Some(error) = self.floor.error.take() {
                    return Err(error);
                }
            }
            self.sleep()?;
        }
        for seat in self.floor.seats.iter_mut().flatten() {
            seat.queue.export();
        }
        Ok(())
    }

    /// Hears of changes: queues that come, queues that go, modes, bindings.
    fn news(&mut self) {
        self.open_mail();
        let version = self.floor.running.controls.version();
        let is_changed = self.version != Some(version);
        if is_changed {
            self.version = Some(version);
            self.follow();
            // Their queue may go to yet another core.
            for frame in std::mem::take(&mut self.early) {
                self.dispatch(frame);
            }
        }
        let has_come = self.seat_arrivals();
        if is_changed || has_come {
            self.let_go();
        }
    }

    fn open_mail(&mut self) {
        let running = self.floor.running;
        if !running.has_mail(self.place) {
            return;
        }
        for parcel in running.fetch(self.place) {
            match parcel {
                Parcel::Seat {
                    number,
                    seat,
                    drain,
                } => self.arriving.push(Arriving {
                    number,
                    seat,
                    drain,
                }),
                Parcel::Frame(frame) => self.dispatch(frame),
            }
        }
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

    /// Takes queues whose packets from their old core are worked on. True if there were some.
    fn seat_arrivals(&mut self) -> bool {
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
        self.arriving.len() < before
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

    /// Gives away what was let go of.
    fn hand_over(&mut self) {
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

    /// Something is there for a queue, or may be: puts it on the list.
    fn call(&mut self, number: usize) {
        if let Some(seat) = self.floor.seat(number) {
            if seat.schedule.schedule() {
                self.half.list(number);
            }
        }
    }

    /// Queues whose time has come, and those held that may go on.
    fn timers(&mut self) {
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
    }

    /// Sends what workers have handed back.
    fn send_frames(&mut self) -> Result<(), Error> {
        for at in 0..self.back.len() {
            let Some(lane) = self.back.get_mut(at).filter(|lane| !lane.is_empty()) else {
                continue;
            };
            let mut taken = std::mem::take(&mut self.taken);
            taken.extend(std::iter::from_fn(|| lane.take()).take(WEIGHT));
            // Only now: what an old core of a queue has sent on was posted before a worker could send these.
            self.open_mail();
            for seat in self.floor.seats.iter_mut().flatten() {
                seat.queue.reclaim()?;
            }
            let frames = taken.len() as u64;
            taken.drain(..).for_each(|frame| self.dispatch(frame));
            self.taken = taken;
            if let Some(lane) = self.back.get_mut(at) {
                lane.finish(frames);
            }
        }
        if std::mem::take(&mut self.sent) {
            for seat in self.floor.seats.iter_mut().flatten() {
                seat.queue.flush()?;
            }
        }
        Ok(())
    }

    /// To its queue, here or where that has gone.
    fn dispatch(&mut self, frame: Frame) {
        let number = frame.queue;
        let owner = self.owners.get(number).copied().unwrap_or(self.place);
        let stats = Arc::clone(&self.floor.stats);
        match self.floor.seat(number) {
            Some(seat) => {
                send(seat, &frame, &stats);
                self.sent = true;
                self.floor.running.buffers.give(frame.bytes);
            }
            None if owner != self.place => self.floor.running.post(owner, Parcel::Frame(frame)),
            None if number < self.owners.len() => self.early.push(frame),
            None => stats.frames_dropped.add(1),
        }
    }

    fn publish(&mut self) {
        let stats = &self.floor.stats;
        self.told.tell(stats, self.half.counters());
        let limit = self.half.policy().limit();
        stats.limit.set(limit.into());
        stats.limits.record(limit);
        let queues = self.floor.seats.iter().flatten().count();
        stats.queues.set(queues as u64);
        if let Out::Away { steering, .. } = &self.floor.out {
            self.told.tell_steering(stats, steering.counters());
            stats.lane_depth.set(steering.depth() as u64);
        }
    }

    /// How long it may sleep.
    fn pause(&self) -> Duration {
        if !self.half.is_idle() {
            return Duration::ZERO;
        }
        let now = self.floor.running.clock.now();
        let times = self.floor.seats.iter().flatten();
        let first = times.filter_map(|seat| seat.look_at).min();
        let pause = first.map_or(LONG, |at| at.saturating_sub(now));
        match self.half.is_holding() || !self.arriving.is_empty() {
            true => pause.min(SHORT),
            false => pause,
        }
    }

    /// The top half: sleeps, if there is nothing to do, and puts those queues on the list whose events have come.
    fn sleep(&mut self) -> Result<(), Error> {
        let pause = self.pause();
        if pause.is_zero() {
            // A core that never sleeps sees its events all the same, but not after each activation.
            self.looks = self.looks.wrapping_add(1);
            let others = self.floor.seats.iter().flatten().count() > 1;
            let often = if others { 4 } else { LOOK_UP };
            if !self.looks.is_multiple_of(often) {
                return Ok(());
            }
        } else {
            self.bell.rest();
            let running = self.floor.running;
            let is_called = running.has_mail(self.place)
                || running.is_ending()
                || self.version != Some(running.controls.version())
                || self.back.iter().any(|lane| !lane.is_empty());
            if is_called {
                self.bell.resume();
                return Ok(());
            }
        }
        let Ready { queues, called } = self.wait(pause)?;
        if !pause.is_zero() {
            self.bell.resume();
            self.floor.stats.wakeups.add(1);
        }
        if queues.is_empty() && !called && (pause == LONG || self.is_due()) {
            self.look_at_all();
        }
        for (number, event, called) in queues {
            let Some(seat) = self.floor.seat(number) else {
                continue;
            };
            seat.queue.woken(event, called)?;
            // A page that came home to an empty ring is no call: it is posted, and the cores run on.
            let called = called && seat.queue.was_called();
            if event {
                self.floor.stats.events.add(1);
            }
            self.call(number);
            if called {
                self.floor.running.call();
            }
        }
        Ok(())
    }

    /// Polls all descriptors.
    fn wait(&mut self, pause: Duration) -> Result<Ready, Error> {
        let mut fds = ArrayVec::<PollFd<'_>, { 2 * MAX_QUEUES + 1 }>::new();
        let mut numbers = ArrayVec::<usize, MAX_QUEUES>::new();
        fds.push(PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN));
        for (number, seat) in self.floor.seats.iter().enumerate() {
            let Some(seat) = seat else { continue };
            numbers.push(number);
            fds.push(PollFd::from_borrowed_fd(
                seat.queue.event_fd(),
                PollFlags::IN,
            ));
            fds.push(PollFd::from_borrowed_fd(seat.waker.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, Timespec::try_from(pause).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("waiting for events")(error.into())),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let called = fds.first().is_some_and(is_ready);
        let pairs = fds.get(1..).unwrap_or_default().chunks_exact(2);
        let queues = numbers
            .iter()
            .zip(pairs)
            .map(|(&number, pair)| {
                (
                    number,
                    pair.first().is_some_and(is_ready),
                    pair.last().is_some_and(is_ready),
                )
            })
            .filter(|&(_, event, called)| event || called)
            .collect();
        drop(fds);
        if called {
            self.waker.clear();
        }
        Ok(Ready { queues, called })
    }

    /// True once in each [`LONG`]: a core that never sleeps has pages to give back too, as far as they are free.
    fn is_due(&mut self) -> bool {
        let now = self.floor.running.clock.now();
        let is_due = now.saturating_sub(self.looked_at) >= LONG;
        if is_due {
            self.looked_at = now;
        }
        is_due
    }

    /// Nothing has happened for long: an event may have been lost, and pools have pages that they do not need.
    fn look_at_all(&mut self) {
        for number in 0..self.floor.seats.len() {
            if let Some(seat) = self.floor.seat(number) {
                seat.queue.idle();
                self.call(number);
            }
        }
    }
}
