//! The ways of packets that are compared.

use netfront::engine::bottom_half::Budgets;
use netfront::engine::cores::Cores;
use netfront::engine::restart::Policy;

/// One way.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub event_cores: usize,
    pub workers: usize,
    /// Queues, places of the hash and connections are bound anew all the time.
    pub rebinds: bool,
    /// Each packet is a round of its own, so whoever sleeps is woken for each.
    pub one_by_one: bool,
    /// In place of lanes, a store behind one lock.
    pub locked: bool,
    pub policy: Policy,
}

const STEERED: Way = Way {
    name: "steered by connection",
    event_cores: 2,
    workers: 2,
    rebinds: false,
    one_by_one: false,
    locked: false,
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
pub const WAYS: [Way; 10] = [
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
        one_by_one: true,
        ..STEERED
    },
    Way {
        name: "a lock in place of lanes",
        locked: true,
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
            // Those of a locked store are not the engine's.
            .workers(if self.locked { 0 } else { self.workers })
            .restart(self.policy)
            .budgets(budgets)
            .unpinned()
    }
}
