//! The top half of an event core: when it sleeps, how long, and what it finds when it wakes. It touches no packet.

use std::os::fd::AsFd;
use std::time::Duration;

use arrayvec::ArrayVec;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::EventCore;
use crate::engine::clock::Clock;
use crate::engine::cores::kinds::FRAMES;
use crate::engine::cores::work::Work;
use crate::engine::cores::MAX_QUEUES;
use crate::Error;

/// Until something is looked at again for which another thread has to come so far: it tells nobody.
const SHORT: Duration = Duration::from_micros(100);
/// A lost event costs so much at most.
const LONG: Duration = Duration::from_secs(16);
/// Activations of a polling core between two looks at its descriptors.
const LOOK_UP: u32 = 64;

/// What a sleep ended for.
struct Ready {
    /// Queues that have an event, queues whose waker was called.
    queues: ArrayVec<(usize, bool, bool), MAX_QUEUES>,
    /// The core was called.
    called: bool,
}

impl<W: Work> EventCore<'_, '_, W> {
    /// How long it may sleep.
    fn pause(&self) -> Duration {
        if !self.half.is_idle() || self.own.contains(FRAMES) {
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
    pub(super) fn sleep(&mut self) -> Result<(), Error> {
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
            self.signal.bell.rest();
            if !self.signal.pending.is_empty() || self.floor.running.is_ending() {
                self.signal.bell.resume();
                return Ok(());
            }
        }
        let Ready { queues, called } = self.wait(pause)?;
        if !pause.is_zero() {
            self.signal.bell.resume();
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
        self.own = self.own.union(self.more());
        Ok(())
    }

    /// Polls all descriptors.
    fn wait(&mut self, pause: Duration) -> Result<Ready, Error> {
        let mut fds = ArrayVec::<PollFd<'_>, { 2 * MAX_QUEUES + 1 }>::new();
        let mut numbers = ArrayVec::<usize, MAX_QUEUES>::new();
        fds.push(PollFd::from_borrowed_fd(
            self.signal.waker.as_fd(),
            PollFlags::IN,
        ));
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
            self.signal.waker.clear();
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
