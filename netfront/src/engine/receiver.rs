//! One queue and one consumer, received by the engine's rules: what [`serve`](super::serve) and so `netfront run` does.
//!
//! [`Receiver::turn`] is one activation: rounds until nothing is left, or until the restart limit or the time bound say
//! that the thread has to see to something else. [`Receiver::sleep`] is what comes between two of them: it asks for an
//! event, or looks again by itself a little later, as the mode says.
//!
//! The thread is the consumer's too, so there are no lanes and no wake-ups: run to completion.

use std::sync::Arc;
use std::time::Duration;

use super::bottom_half::{BottomHalf, Budgets, Reason, Source, Visit, VisitEnd};
use super::clock::{Clock, Monotonic};
use super::moderation::{Mode, Moderation, Settings, SharedMode, Step};
use super::pressure::{Limits, Pressure, Room};
use super::restart::{Policy, RestartPolicy};
use super::schedule::Completion;
use super::{after_receiving, nap};
use crate::consumer::Consumer;
use crate::queue::{Queue, Wake};
use crate::Error;

/// The number of the only queue.
const QUEUE: usize = 0;
/// Until packets are looked at again that were held because the consumer was behind.
const HELD: Duration = Duration::from_micros(100);
/// Looks in vain of a polling thread between two at its other descriptors.
const LOOK_UP: u32 = 1024;

/// What decides how a queue is received. Shared with whoever changes it.
#[derive(Debug, Default)]
pub struct Tuning {
    /// How the thread learns of packets. Wake it after a change, or it follows when it wakes.
    pub mode: SharedMode,
    /// How many rounds an activation may do. Taken when a connection is made.
    pub policy: Policy,
    /// The budgets of an activation.
    pub budgets: Budgets,
    /// Of [`Consumer::waiting`], where packets are left in the ring.
    pub limits: Limits,
    /// The bounds of moderation.
    pub moderation: Settings,
}

/// What an activation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Packets that were moved, both directions together.
    pub moved: usize,
    /// The queue is drained, or its consumer is behind: [`Receiver::sleep`] is due.
    pub rests: bool,
}

/// The engine of one queue, by the machine's clock or another one.
pub struct Receiver<C = Monotonic> {
    tuning: Arc<Tuning>,
    clock: C,
    half: BottomHalf<Box<dyn RestartPolicy + Send>>,
    pressure: Pressure,
    moderation: Moderation,
    /// Packets received since the queue was last drained.
    since: usize,
    /// Looks in vain since the last at the other descriptors.
    looks: u32,
    /// While it polls: since when nothing was moved, or what was due after such a time was last done.
    idle_since: Option<Duration>,
}

impl Receiver {
    /// At the start of a connection.
    pub fn new(tuning: Arc<Tuning>) -> Self {
        Self::with_clock(tuning, Monotonic::default())
    }
}

impl<C: Clock> Receiver<C> {
    /// The same by this clock. Only [`Self::turn`] goes by it; [`Self::sleep`] sleeps in the machine's time.
    pub fn with_clock(tuning: Arc<Tuning>, clock: C) -> Self {
        Self {
            clock,
            half: BottomHalf::new(1, tuning.budgets, tuning.policy.make()),
            pressure: Pressure::new(tuning.limits),
            moderation: Moderation::new(tuning.mode.get(), tuning.moderation),
            since: 0,
            looks: 0,
            idle_since: None,
            tuning,
        }
    }

    /// Does one activation.
    ///
    /// # Errors
    /// As [`super::round`].
    pub fn turn(&mut self, queue: &mut Queue, consumer: &mut dyn Consumer) -> Result<Turn, Error> {
        // One that is left from the last turn is on the list already.
        self.half.list(QUEUE);
        self.half.release(|_| true);
        let before = self.half.counters();
        let mut one = One {
            queue: &mut *queue,
            consumer: &mut *consumer,
            pressure: &mut self.pressure,
            clock: &self.clock,
            high: self.tuning.limits.high,
            received: 0,
            moved: 0,
            waiting: 0,
            error: None,
        };
        let activation = self.half.run(&mut one, &self.clock);
        let (moved, received, error) = (one.moved, one.received, one.error.take());
        self.since += received;
        if moved > 0 {
            self.idle_since = None;
        }
        let now = self.half.counters();
        let stats = queue.stats();
        stats.engine_activations.add(1);
        stats.engine_rounds.add(activation.rounds.into());
        stats
            .engine_budget_squeezes
            .add(now.budget_squeezes - before.budget_squeezes);
        stats
            .engine_time_squeezes
            .add(now.time_squeezes - before.time_squeezes);
        stats.engine_held.add(now.held - before.held);
        let handed_over = activation.reason != Reason::Drained;
        stats.engine_hand_overs.add(handed_over.into());
        let limit = self.half.policy().limit();
        stats.engine_limit.set(limit.into());
        stats.limits.record(limit);
        let rests = matches!(activation.reason, Reason::Drained | Reason::Held);
        error.map_or(Ok(Turn { moved, rests }), Err)
    }

    /// Sleeps as the mode wants it, at most for `time`: until the backend has something, the consumer has, or somebody
    /// calls. [`Wake::Timeout`] only if all of `time` passed; a short sleep that was over is [`Wake::Work`]. A thread that polls
    /// does not sleep: it says [`Wake::Timeout`] when it has looked in vain for all of `time`.
    ///
    /// # Errors
    /// If the backend broke the ring, or poll fails.
    pub fn sleep(
        &mut self,
        queue: &mut Queue,
        consumer: &dyn Consumer,
        time: Duration,
    ) -> Result<Wake, Error> {
        if self.half.is_holding() {
            return self.doze(queue, consumer, HELD);
        }
        let mode = self.tuning.mode.get();
        if self.moderation.mode() != mode {
            self.moderation.set_mode(mode);
        }
        let packets = std::mem::take(&mut self.since);
        match self.moderation.drained(packets, queue.rx_posted()) {
            Step::Poll => {
                self.looks = self.looks.wrapping_add(1);
                match self.looks.is_multiple_of(LOOK_UP) {
                    true => {
                        queue.export();
                        let woken = self.doze(queue, consumer, Duration::ZERO)?;
                        Ok(match woken {
                            Wake::Work if self.idled(time) => Wake::Timeout,
                            woken => woken,
                        })
                    }
                    false => Ok(Wake::Work),
                }
            }
            Step::Wait(short) => self.doze(queue, consumer, short),
            Step::Arm { after, within } => {
                if queue.arm_after(after)? {
                    return Ok(Wake::Work);
                }
                match within.filter(|&short| short < time) {
                    Some(short) => self.doze(queue, consumer, short),
                    None => {
                        queue.export();
                        nap(queue, consumer, time)
                    }
                }
            }
        }
    }

    /// True once in each `time` in which a thread that polls moved nothing: whoever waits for that, the pool to give back
    /// pages, would wait for ever otherwise.
    fn idled(&mut self, time: Duration) -> bool {
        let now = self.clock.now();
        let since = *self.idle_since.get_or_insert(now);
        let idled = now.saturating_sub(since) >= time;
        if idled {
            self.idle_since = Some(now);
        }
        idled
    }

    /// A short sleep, after which the queue is looked at, whatever ended it.
    fn doze(
        &mut self,
        queue: &mut Queue,
        consumer: &dyn Consumer,
        short: Duration,
    ) -> Result<Wake, Error> {
        queue.stats().engine_looks.add(1);
        Ok(match nap(queue, consumer, short)? {
            Wake::Timeout => Wake::Work,
            wake => wake,
        })
    }

    /// The mode that it follows now.
    pub fn mode(&self) -> Mode {
        self.moderation.mode()
    }
}

impl<C> std::fmt::Debug for Receiver<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("moderation", &self.moderation)
            .field("counters", &self.half.counters())
            .finish_non_exhaustive()
    }
}

/// The queue, as the bottom half sees it.
struct One<'t, C> {
    queue: &'t mut Queue,
    consumer: &'t mut dyn Consumer,
    pressure: &'t mut Pressure,
    clock: &'t C,
    /// From so many packets on that wait, the consumer is behind.
    high: usize,
    received: usize,
    moved: usize,
    /// Packets that the last visit left.
    waiting: usize,
    error: Option<Error>,
}

impl<C: Clock> One<'_, C> {
    fn round(&mut self, weight: usize) -> Result<Visit, Error> {
        let depth = self.consumer.waiting();
        // Asked only where something is behind: on some guests a look at the clock is a system call.
        let now = match depth < self.high {
            true => Duration::ZERO,
            false => self.clock.now(),
        };
        let room = self.pressure.room(now, weight, depth);
        let consumer = &mut *self.consumer;
        let received = match room {
            Room::Take(packets) => self
                .queue
                .receive(packets, |packet| consumer.deliver(packet))?,
            Room::Hold => 0,
            Room::Drop(packets) => {
                let dropped = self.queue.receive(packets, |_| {})?;
                self.pressure.dropped(dropped);
                self.queue.stats().engine_dropped.add(dropped as u64);
                dropped
            }
        };
        let sent = after_receiving(self.queue, self.consumer, received)?;
        self.received += received;
        self.moved += received + sent;
        self.waiting = self.queue.rx_waiting()?;
        let end = match room {
            Room::Hold if self.waiting > 0 => VisitEnd::Held,
            _ if received + sent > 0 => VisitEnd::More,
            _ => VisitEnd::Complete,
        };
        Ok(Visit {
            packets: received.max(sent),
            end,
        })
    }
}

impl<C: Clock> Source for One<'_, C> {
    fn visit(&mut self, _queue: usize, weight: usize) -> Visit {
        self.round(weight).unwrap_or_else(|error| {
            self.error = Some(error);
            Visit {
                packets: 0,
                end: VisitEnd::Complete,
            }
        })
    }

    /// What asks for the next event is [`Receiver::sleep`]: until then there may be something else to do.
    fn complete(&mut self, _queue: usize) -> Completion {
        Completion::Idle
    }

    fn waiting(&self) -> usize {
        self.waiting
    }

    fn occupancy(&self) -> u32 {
        self.pressure.occupancy(self.consumer.waiting())
    }
}
