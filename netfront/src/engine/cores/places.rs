//! Where the threads of a run are, and their interrupts.

use super::interrupts::Interrupts;
use super::{Controls, Cores};
use crate::engine::pinning::{cpus_for, Pinned};
use crate::queue::Queue;

/// The CPU of each thread; none where nothing is pinned.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub event_cores: Vec<usize>,
    pub workers: Vec<usize>,
}

impl Cores {
    /// The CPU of each thread.
    pub(super) fn places(&self) -> Places {
        let in_turn = |cpus: &[usize], threads: usize| -> Vec<usize> {
            cpus.iter().copied().cycle().take(threads).collect()
        };
        if !self.pinned {
            return Places::default();
        }
        if !self.event_cpus.is_empty() || !self.worker_cpus.is_empty() {
            return Places {
                event_cores: in_turn(&self.event_cpus, self.event_cores),
                workers: in_turn(&self.worker_cpus, self.workers),
            };
        }
        // Those that take the queues' packets out of the same pages are of one node, if one has room for them (K-11).
        let usable = cpus_for(self.event_cores);
        let wanted = self.event_cores + self.workers;
        if wanted < 2 || usable.len() < wanted {
            return Places::default();
        }
        let (first, rest) = usable.split_at(self.event_cores);
        Places {
            event_cores: first.to_vec(),
            workers: in_turn(rest, self.workers),
        }
    }

    /// The interrupts of the queues: as they were named, else as the queues know them.
    pub(super) fn interrupts_of(&self, queues: &[&mut Queue], places: &Places) -> Interrupts {
        let named = (self.interrupts.len() >= queues.len()).then_some(&self.interrupts[..]);
        let name = |(number, queue): (usize, &&mut Queue)| match named {
            Some(names) => names.get(number).cloned().unwrap_or_default(),
            None => queue.interrupt().to_owned(),
        };
        let names = queues.iter().enumerate().map(name).collect();
        Interrupts::new(names, places.event_cores.clone())
    }
}

/// The event channels' interrupts come to event cores, or it is told why not.
pub(super) fn pin_interrupts(
    places: &Places,
    owners: &[usize],
    interrupts: &Interrupts,
    controls: &Controls,
) {
    let owners = owners.iter().enumerate();
    let found: usize = owners
        .map(|(queue, &core)| interrupts.follow(queue, core))
        .sum();
    let has_own = |cpu: &usize| !places.event_cores.contains(cpu);
    if found > 0 && !places.workers.is_empty() && places.workers.iter().all(has_own) {
        controls.watch_strays(&interrupts.names(), &places.workers);
    }
}

/// A thread that cannot be pinned works all the same.
pub(super) fn pin(cpu: Option<&usize>) -> Option<Pinned> {
    let &cpu = cpu?;
    Pinned::to(cpu)
        .inspect_err(|error| {
            tracing::warn!(
                "a thread stays where the kernel puts it: pinning it to CPU {cpu}: {error}; name CPUs that this process \
                 may use (taskset -p shows them)"
            );
        })
        .ok()
}
