//! The ways of packets that are compared.

use std::io;

use netfront::engine::bottom_half::Budgets;
use netfront::engine::cores::Cores;
use netfront::engine::restart::Policy;

use crate::signals::SignalledStore;
use crate::store::{LockedStore, Store};

/// How packets get from event cores to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOver {
    /// The engine's way: lanes, and a bell that is rung once a round, if the worker sleeps.
    Lanes,
    /// A store behind one lock.
    Lock,
    /// A queue for each worker, and a system call for each packet that goes into it.
    Signals,
}

/// One way.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub event_cores: usize,
    pub workers: usize,
    /// Queues, places of the hash and connections are bound anew all the time.
    pub rebinds: bool,
    /// Each packet is a visit and a round of its own.
    pub one_by_one: bool,
    pub hand_over: HandOver,
    pub policy: Policy,
}

const STEERED: Way = Way {
    name: "steered by connection",
    event_cores: 2,
    workers: 2,
    rebinds: false,
    one_by_one: false,
    hand_over: HandOver::Lanes,
    policy: Policy::Adaptive,
};

const fn limited(name: &'static str, rounds: u32) -> Way {
    Way {
        name,
        policy: Policy::Fixed(rounds),
        ..STEERED
    }
}

/// All ways, in the order of the table. The first two are ours; limits are of the first.
pub const WAYS: [Way; 11] = [
    STEERED,
    Way {
        name: "the same, bound anew all the time",
        rebinds: true,
        ..STEERED
    },
    Way {
        name: "no steering: two cores do both",
        workers: 0,
        ..STEERED
    },
    Way {
        name: "all queues on one event core",
        event_cores: 1,
        ..STEERED
    },
    Way {
        name: "a wake-up a packet",
        hand_over: HandOver::Signals,
        ..STEERED
    },
    Way {
        name: "a round a packet",
        one_by_one: true,
        ..STEERED
    },
    Way {
        name: "a lock in place of lanes",
        hand_over: HandOver::Lock,
        ..STEERED
    },
    limited("fixed limit 1", 1),
    limited("fixed limit 4", 4),
    limited("fixed limit 10", 10),
    limited("fixed limit 64", 64),
];

impl Way {
    /// The cores of the driver.
    pub fn cores(&self) -> Cores {
        let budgets = match self.one_by_one {
            true => Budgets {
                weight: 1,
                packets: 1,
                ..Budgets::default()
            },
            false => Budgets::default(),
        };
        Cores::default()
            .event_cores(self.event_cores)
            .workers(self.workers - self.workers_of_store())
            .restart(self.policy)
            .budgets(budgets)
            .unpinned()
    }

    /// What stands in the place of the engine's lanes, if something does.
    ///
    /// # Errors
    /// The kernel gives no file to signal by.
    pub fn store(&self) -> io::Result<Option<Box<dyn Store>>> {
        Ok(match self.hand_over {
            HandOver::Lanes => None,
            HandOver::Lock => Some(Box::new(LockedStore::new(self.workers))),
            HandOver::Signals => Some(Box::new(SignalledStore::new(self.workers)?)),
        })
    }

    /// Workers that take from that, and are not the engine's.
    pub fn workers_of_store(&self) -> usize {
        match self.hand_over {
            HandOver::Lanes => 0,
            HandOver::Lock | HandOver::Signals => self.workers,
        }
    }
}
