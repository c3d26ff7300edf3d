//! Where the threads of a run are, and their interrupts.

use super::pinning::{pin_interrupts, usable_cpus, Pinned};
use super::{Controls, Cores};

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
        let usable = usable_cpus();
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

    /// The event channels' interrupts come to event cores, or it is told why not.
    pub(super) fn pin_interrupts(&self, places: &Places, owners: &[usize], controls: &Controls) {
        if places.event_cores.is_empty() {
            return;
        }
        let one_each = self.interrupts.len() >= owners.len();
        let names = match one_each {
            true => self.interrupts.clone(),
            // The calling thread opened the first.
            false => {
                let own = rustix::thread::name().ok();
                own.and_then(|name| name.into_string().ok())
                    .into_iter()
                    .collect()
            }
        };
        let mut found = 0;
        for (name, owner) in names.iter().zip(owners) {
            // A name that several queues share says nothing of a core: then any event core may get the event.
            let own = places.event_cores.get(*owner).filter(|_| one_each);
            let cpus = own.map_or(&places.event_cores[..], std::slice::from_ref);
            match pin_interrupts(name, cpus) {
                Ok(interrupts) => found += interrupts,
                Err(why) => tracing::warn!("{why}"),
            }
        }
        let has_own = |cpu: &usize| !places.event_cores.contains(cpu);
        // Several queues have names of their own, which only the caller knows: what is not looked at must not be called 0.
        let are_known = one_each || owners.len() == 1;
        if !are_known {
            tracing::warn!(
                "{} queues, and names of {} interrupts: those of the others stay where the kernel puts them; name one a queue \
                 (Cores::interrupts, device::thread_name)",
                owners.len(),
                names.len()
            );
        }
        if found > 0
            && are_known
            && !places.workers.is_empty()
            && places.workers.iter().all(has_own)
        {
            controls.watch_strays(&names, &places.workers);
        }
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
