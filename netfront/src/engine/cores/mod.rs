//! Queues in threads: event cores that receive, and workers that work, or both in one.
//!
//! ```text
//! queue 0 --event--> event core 0 --lane--> worker 0 --frames--> event core of the queue
//! queue 1 --event--> event core 1 --lane--> worker 1
//! ```
//!
//! | file | what is in it |
//! | --- | --- |
//! | `work` | what a program does with packets |
//! | `controls` | what other threads may do meanwhile: stop, modes, bindings, counters |
//! | `event_core` | the thread: passes over the kinds of work that were raised, timers, activations |
//! | `event_core/moves` | queues that come and go, by what is wanted |
//! | `event_core/frames` | what workers send |
//! | `event_core/top_half` | sleep, until there is an event or a kind of work |
//! | `kinds` | the kinds of work, and how they are raised |
//! | `filter` | a program's say before a packet's buffer is built |
//! | `floor` | its queues, as the bottom half polls them |
//! | `seat` | a queue, with all that its core knows of it |
//! | `worker` | lanes, packets by connection |
//! | `flush` | when it tells of frames before its turn is over |
//! | `running` | what all threads share |
//! | `start` | the threads, and the lanes between them |
//! | `places`, `interrupts` | CPUs of threads; interrupts that follow their queues |
//! | `counters` | what is counted |
//!
//! Without workers an event core works on its packets itself: run to completion. That is what one CPU wants, where a hand-over
//! only costs, and what any program wants whose work is a few hundred nanoseconds a packet. Workers are for work that takes longer, or
//! that must not be interrupted by the network.
//!
//! ```no_run
//! use netfront::engine::cores::{Controls, Cores, Desk, Origin, Work};
//! use netfront::{Device, OwnedPacket};
//!
//! /// Counts.
//! #[derive(Default)]
//! struct Count(u64);
//!
//! impl Work for Count {
//!     fn work(&mut self, _packet: OwnedPacket, _origin: &Origin, _desk: &mut Desk<'_>) {
//!         self.0 += 1;
//!     }
//! }
//!
//! # fn main() -> Result<(), netfront::Error> {
//! let domain = netfront::hypervisor::Domain::xen()?;
//! let mut device = Device::builder(0).connect(&domain)?;
//! let cores = Cores::default();
//! let mut counts: Vec<Count> = (0..cores.works()).map(|_| Count::default()).collect();
//! // Another thread may call `controls.stop()`.
//! let controls = Controls::default();
//! while !controls.is_stopping() {
//!     cores.run(vec![device.queue()], &mut counts, &controls)?;
//!     if device.change().is_some() {
//!         break;
//!     }
//! }
//! device.close()
//! # }
//! ```

mod controls;
mod counters;
mod event_core;
mod filter;
mod floor;
mod flush;
mod interrupts;
mod kinds;
mod places;
mod running;
mod seat;
mod start;
mod work;
mod worker;

use std::sync::Arc;

use super::bottom_half::Budgets;
use super::moderation::Settings;
use super::pressure::Limits;
use super::restart::Policy;
use super::steering::{Spread, COMMON_KEY, KEY};
use crate::packet::Packet;
use crate::queue::Queue;
use crate::Error;

pub use super::pinning::{cpu_list, usable_cpus};
pub use controls::Controls;
pub use counters::{CoreStats, WorkerStats, LEVELS};
pub use filter::Verdict;
pub use work::{Desk, Frame, Origin, Work};

use filter::Filter;
use kinds::Signal;
use places::{pin, pin_interrupts};
use running::Running;
use start::Threads;

/// The most queues of one run.
pub const MAX_QUEUES: usize = 32;

/// Who wakes a worker that sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// The event core, after the round that brought it something: a system call for each worker that sleeps.
    #[default]
    Inline,
    /// A thread of its own, to which the event core names workers (K-9): a system call at most, however many sleep.
    Thread,
}

/// Why [`Cores::run`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// [`Controls::stop`] was called.
    Stopped,
    /// The waker of a queue was called: [`crate::Device::change`] may have something, and if it is nothing that ends
    /// the connection, the cores are to be run again. Packets that were taken are worked on.
    Called,
}

/// How queues are received: a builder of settings, which [`Cores::run`] follows.
#[derive(Debug, Clone)]
pub struct Cores {
    event_cores: usize,
    workers: usize,
    policy: Policy,
    budgets: Budgets,
    limits: Limits,
    moderation: Settings,
    activation: Activation,
    spread: Spread,
    key: [u8; KEY],
    bound: usize,
    event_cpus: Vec<usize>,
    worker_cpus: Vec<usize>,
    pinned: bool,
    interrupts: Vec<String>,
    checks_order: bool,
    filter: Option<Filter>,
}

impl Default for Cores {
    /// One event core, and no worker: run to completion.
    fn default() -> Self {
        Self {
            event_cores: 1,
            workers: 0,
            policy: Policy::default(),
            budgets: Budgets::default(),
            limits: Limits::default(),
            moderation: Settings::default(),
            activation: Activation::default(),
            spread: Spread::default(),
            key: COMMON_KEY,
            bound: 1024,
            event_cpus: Vec::new(),
            worker_cpus: Vec::new(),
            pinned: true,
            interrupts: Vec::new(),
            checks_order: false,
            filter: None,
        }
    }
}

impl Cores {
    /// Threads that take events, at least one. The first is the thread that calls [`Self::run`].
    #[must_use]
    pub fn event_cores(mut self, cores: usize) -> Self {
        self.event_cores = cores.max(1);
        self
    }

    /// Threads that work on packets and take no event; none: event cores work on them.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many rounds an activation may do (default [`Policy::Adaptive`]).
    #[must_use]
    pub fn restart(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Packets of a visit, packets of a round, time of an activation.
    #[must_use]
    pub fn budgets(mut self, budgets: Budgets) -> Self {
        self.budgets = budgets;
        self
    }

    /// How many packets may be on their way to each worker before the next ones are left in the ring, and for how long. If some
    /// workers have room, those of one that has twice as many are dropped (counted as `dropped`).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The bounds of moderation, in [`Mode::Adaptive`](super::moderation::Mode).
    #[must_use]
    pub fn moderation(mut self, settings: Settings) -> Self {
        self.moderation = settings;
        self
    }

    /// Who wakes workers.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Whether the two directions of a connection have one worker (default), and the key of the hash. The default key
    /// is known to everybody: take a random one where a sender that chooses its worker would do harm.
    #[must_use]
    pub fn spread(mut self, spread: Spread, key: [u8; KEY]) -> Self {
        (self.spread, self.key) = (spread, key);
        self
    }

    /// How many connections may be bound to workers by name (default 1024).
    #[must_use]
    pub fn bound_connections(mut self, connections: usize) -> Self {
        self.bound = connections;
        self
    }

    /// CPUs of event cores, in turn, and of workers. Without: if the process may use as many CPUs as there are threads,
    /// each gets one, event cores on one NUMA node if it has so many, that of the calling thread first; else none is pinned. A
    /// queue's interrupts go with it when it is bound to another event core.
    #[must_use]
    pub fn cpus(mut self, event_cores: Vec<usize>, workers: Vec<usize>) -> Self {
        (self.event_cpus, self.worker_cpus) = (event_cores, workers);
        self.pinned = true;
        self
    }

    /// Pins nothing.
    #[must_use]
    pub fn unpinned(mut self) -> Self {
        self.pinned = false;
        self
    }

    /// Names of the interrupts of each queue, one a queue. Without, those that the queues know
    /// ([`Queue::interrupt`]).
    #[must_use]
    pub fn interrupts(mut self, names: Vec<String>) -> Self {
        self.interrupts = names;
        self
    }

    /// Counts also packets that come after a later one of their connection which another worker had. It takes a lock for
    /// each packet: for tests. What a worker sees by itself is always counted.
    #[must_use]
    pub fn check_order(mut self) -> Self {
        self.checks_order = true;
        self
    }

    /// Asks this about each packet, with the number of its queue, before the packet's buffer is built: in the event core that
    /// received it, also where packets go to workers. What is dropped here was never detached, so no page leaves the pool and nothing is
    /// allocated (counted as `filtered`). After its buffer is built [`Work::work`] decides: to drop the packet is to drop it.
    ///
    /// The backend can still change what [`Packet::fragments`] gives: decide by [`Packet::head`].
    #[must_use]
    pub fn filter(
        mut self,
        verdict: impl Fn(&Packet<'_>, usize) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.filter = Some(Filter::new(verdict));
        self
    }

    /// How many [`Work`]s [`Self::run`] wants.
    pub fn works(&self) -> usize {
        match self.workers {
            0 => self.event_cores,
            workers => workers,
        }
    }

    /// Receives from these queues until [`Controls::stop`], until a queue's waker is called, or until one fails. The
    /// calling thread is the first event core; it must be the one that opened the queues, or have got them from it.
    ///
    /// # Errors
    /// If there is not one work for each that works ([`Self::works`]), no queue, or too many; if no thread can be started or
    /// one panicked; and whatever a queue's calls say. Then all threads have ended.
    pub fn run<W: Work>(
        &self,
        queues: Vec<&mut Queue>,
        works: &mut [W],
        controls: &Controls,
    ) -> Result<End, Error> {
        self.check(queues.len(), works.len())?;
        let signals: Result<Vec<_>, Error> = (0..self.event_cores)
            .map(|_| Signal::new().map(Arc::new))
            .collect();
        let signals = signals?;
        controls
            .start(signals.clone(), queues.len(), self.workers)
            .map_err(|error| refused(error.to_string()))?;
        let places = self.places();
        let owners = controls.wanted().owners(queues.len());
        let interrupts = self.interrupts_of(&queues, &places);
        pin_interrupts(&places, &owners, &interrupts, controls);
        let running = Running::new(self, controls.clone(), signals, interrupts);
        let done = std::thread::scope(|scope| {
            // Ends what was started, also if the rest cannot be.
            let mut threads = Threads::new(&running);
            let first = self.start(scope, &running, queues, works, &places, &mut threads)?;
            let pinned = pin(places.event_cores.first());
            let done = first.run();
            drop(pinned);
            let others = threads.join();
            done.and(others)
        });
        controls.end();
        done?;
        match running.was_called() && !controls.is_stopping() {
            true => Ok(End::Called),
            false => Ok(End::Stopped),
        }
    }

    fn check(&self, queues: usize, works: usize) -> Result<(), Error> {
        if queues == 0 || queues > MAX_QUEUES {
            return Err(refused(format!(
                "wanted 1 to {MAX_QUEUES} queues, found {queues}"
            )));
        }
        if works != self.works() {
            let (wanted, event_cores, workers) = (self.works(), self.event_cores, self.workers);
            return Err(refused(format!(
                "{event_cores} event cores and {workers} workers want {wanted} works, found {works}: make as many as \
                 Cores::works says"
            )));
        }
        Ok(())
    }
}

fn refused(why: String) -> Error {
    Error::io("starting the cores")(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
}
