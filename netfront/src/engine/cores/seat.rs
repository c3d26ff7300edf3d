//! A queue, with all that an event core knows of it. It moves from one core to another as a whole.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::moderation::{Moderation, Step};
use crate::engine::pressure::Pressure;
use crate::engine::schedule::{Completion, Schedule};
use crate::queue::Queue;
use crate::waker::Waker;
use crate::Error;

pub(super) struct Seat<'q> {
    pub queue: &'q mut Queue,
    pub waker: Arc<Waker>,
    pub schedule: Schedule,
    pub pressure: Pressure,
    pub moderation: Moderation,
    /// When it is to be looked at without an event.
    pub look_at: Option<Duration>,
    /// Its ports are unmasked late, since the backend rings in vain; by the next time that it is drained they were.
    delayed: bool,
    /// Packets that its last visit left.
    pub waiting: usize,
    /// Packets taken since it was last drained, and in all.
    pub since: usize,
    pub arrived: u64,
}

impl<'q> Seat<'q> {
    pub fn new(queue: &'q mut Queue, pressure: Pressure, moderation: Moderation) -> Self {
        Self {
            waker: queue.waker(),
            queue,
            // Until it has a core.
            schedule: Schedule::disabled(),
            pressure,
            moderation,
            look_at: None,
            delayed: false,
            waiting: 0,
            since: 0,
            arrived: 0,
        }
    }

    /// The ring was found empty: does what moderation says, and lets go of the queue unless something came meanwhile.
    ///
    /// # Errors
    /// If the backend broke the ring.
    pub fn drained(&mut self, now: Duration) -> Result<Completion, Error> {
        let packets = std::mem::take(&mut self.since);
        self.waiting = 0;
        match self.moderation.drained(packets, self.queue.rx_posted()) {
            Step::Arm { after, within } => {
                // The other queues of this core do not wait for a backend that rings without end.
                if !std::mem::take(&mut self.delayed) {
                    if let Some(delay) = self.queue.rings_in_vain() {
                        self.delayed = true;
                        self.look_at = Some(now + delay);
                        return Ok(self.schedule.complete());
                    }
                }
                if self.queue.arm_now(after)? {
                    return Ok(Completion::Again);
                }
                self.look_at = within.map(|time| now + time);
            }
            Step::Wait(time) => self.look_at = Some(now + time),
            Step::Poll => self.look_at = Some(now),
        }
        Ok(self.schedule.complete())
    }

    pub fn is_due(&self, now: Duration) -> bool {
        self.look_at.is_some_and(|at| at <= now)
    }
}
