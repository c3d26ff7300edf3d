//! The interrupts of the queues' event channels follow the queues: each comes to the CPU of the event core that has it.
//!
//! The kernel tells a handle's interrupts by the name of the thread that opened it, and each queue knows its own. A name
//! that several queues share says nothing of a core: then any event core may get the event.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::engine::pinning::pin_interrupts;

/// No core yet.
const NOWHERE: usize = usize::MAX;

/// By queue.
#[derive(Debug)]
struct Interrupt {
    name: String,
    is_shared: bool,
    /// The event core that it comes to.
    at: AtomicUsize,
}

/// The interrupts of all queues, and the CPUs of the event cores; none of these where threads are not pinned.
#[derive(Debug)]
pub(super) struct Interrupts {
    queues: Vec<Interrupt>,
    cpus: Vec<usize>,
    /// What was refused was told: it may be refused with each move.
    told: AtomicBool,
}

impl Interrupts {
    /// Of queues with interrupts of these names.
    pub fn new(names: Vec<String>, cpus: Vec<usize>) -> Self {
        let is_shared = |name: &String| names.iter().filter(|other| *other == name).count() > 1;
        let queues = names.iter().map(|name| Interrupt {
            is_shared: is_shared(name),
            name: name.clone(),
            at: AtomicUsize::new(NOWHERE),
        });
        Self {
            queues: queues.collect(),
            cpus,
            told: AtomicBool::new(false),
        }
    }

    /// Has the interrupts of a queue come to this event core from now on (L-15). Returns how many there are: none on the
    /// simulated Xen, where nothing is pinned, and if they come there already.
    pub fn follow(&self, queue: usize, core: usize) -> usize {
        self.follow_by(queue, core, pin_interrupts)
    }

    /// The same, where `pin` is what has the kernel do it.
    fn follow_by(
        &self,
        queue: usize,
        core: usize,
        pin: impl FnOnce(&str, &[usize]) -> Result<usize, String>,
    ) -> usize {
        let Some(own) = self.queues.get(queue) else {
            return 0;
        };
        let cpu = self.cpus.get(core).filter(|_| !own.is_shared);
        let cpus = cpu.map_or(&self.cpus[..], std::slice::from_ref);
        if cpus.is_empty() || own.name.is_empty() || own.at.load(Ordering::Relaxed) == core {
            return 0;
        }
        match pin(&own.name, cpus) {
            Ok(interrupts) => {
                own.at.store(core, Ordering::Relaxed);
                interrupts
            }
            Err(why) => {
                // Of several some may have been moved: the next time all of them are, wherever that is to.
                own.at.store(NOWHERE, Ordering::Relaxed);
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{why}");
                }
                0
            }
        }
    }

    /// Their names, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.queues.iter().map(|own| own.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], cpus: &[usize]) -> Interrupts {
        let names = names.iter().map(|name| name.to_string());
        Interrupts::new(names.collect(), cpus.to_vec())
    }

    #[test]
    fn what_is_not_pinned_not_named_or_not_there_is_left_alone() {
        assert_eq!(of(&["nf99q0"], &[]).follow(0, 0), 0);
        assert_eq!(of(&[""], &[0]).follow(0, 0), 0);
        assert_eq!(of(&["nf99q0"], &[0]).follow(7, 0), 0);
        // No interrupt has such a name.
        assert_eq!(of(&["no such interrupt"], &[0]).follow(0, 0), 0);
    }

    /// L-15: whoever lets the interrupts be moved later, or keeps irqbalance off them, finds them moved the next time.
    #[test]
    fn what_was_refused_is_tried_again_the_next_time_and_what_was_done_is_not() {
        let interrupts = of(&["nf0q0"], &[4, 5]);
        let refuses = |_: &str, _: &[usize]| Err("refused".to_owned());
        let moves = |core: usize| {
            interrupts.follow_by(0, core, |name, cpus| {
                assert_eq!((name, cpus), ("nf0q0", &[4 + core][..]));
                Ok(2)
            })
        };
        assert_eq!(interrupts.follow_by(0, 1, refuses), 0);
        assert_eq!(moves(1), 2, "the same core");
        assert_eq!(moves(1), 0, "they come there already");
        assert_eq!(interrupts.follow_by(0, 0, refuses), 0);
        assert_eq!(moves(1), 2, "some may have been moved away");
    }

    #[test]
    fn a_name_that_two_queues_share_is_told_from_one_of_its_own() {
        let interrupts = of(&["main", "nf0q1", "main"], &[0]);
        let shared: Vec<bool> = interrupts.queues.iter().map(|own| own.is_shared).collect();
        assert_eq!(shared, [true, false, true]);
        assert_eq!(interrupts.names(), ["main", "nf0q1"]);
    }
}
