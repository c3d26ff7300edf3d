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

#[cfg(test)]
mod tests {
    use hypervisor::sim::server::{self, Options};
    use hypervisor::{DomId, Domain};

    use super::*;
    use crate::engine::moderation::{Mode, Settings};
    use crate::engine::pressure::Limits;
    use crate::queue::{Ports, QueueConfig};

    #[test]
    fn a_queue_whose_backend_rings_in_vain_is_armed_a_while_later_and_its_core_does_not_sleep() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("xen");
        let _server = server::spawn(&socket, Options::new()).expect("a server");
        let domain = |id| Domain::simulated(&socket, DomId(id)).expect("a domain");
        let (front, back) = (domain(1), domain(0));
        let config = QueueConfig::default();
        let mut queue = Queue::open(&front, DomId(0), &config, false, Arc::default()).expect("one");
        let Ports::Shared(port) = queue.keys().ports else {
            panic!("two channels");
        };
        let mut bell = back.events().expect("a handle");
        let bell_port = bell.bind_interdomain(DomId(1), port).expect("a channel");
        let stats = Arc::clone(queue.stats());
        let mode = Moderation::new(Mode::Interrupt, Settings::default());
        let mut seat = Seat::new(&mut queue, Pressure::new(Limits::default()), mode);
        let _ = seat.schedule.enable();
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..20 {
            bell.notify(bell_port).expect("rung");
            while seat.queue.take_events().expect("events") == 0 {}
            let _ = seat.schedule.schedule();
            let _ = seat.drained(now).expect("a sound ring");
            if let Some(at) = seat.look_at.take() {
                waits.push(at - now);
                // Its core comes by when the time is over.
                now = at;
                let _ = seat.schedule.schedule();
                let _ = seat.drained(now).expect("a sound ring");
                assert_eq!(seat.look_at, None, "now it is armed");
            }
        }
        assert!(waits.len() >= 10, "{waits:?}");
        assert!(waits.iter().all(|&wait| wait == Duration::from_millis(1)));
        assert_eq!(stats.events_delayed.get(), waits.len() as u64);
    }
}
