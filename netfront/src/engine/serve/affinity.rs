//! The CPUs of packet threads, each with the interrupts of its queue: they are moved together, also while packets pass (L-15).
//!
//! What is wanted outlives a connection: the threads of the next one, and their interrupts, go to the same places.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::thread::{gettid, Pid};

use crate::engine::pinning::{allowed_cpus, pin_interrupts, pin_thread};

/// The most queues of a vif that places are kept for.
const QUEUES: usize = 64;

/// Where a packet thread is now, and what became of its queue's interrupts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placed {
    /// The CPUs that the thread may run on, as the kernel says afterwards; none while the queue has no thread.
    pub cpus: Vec<usize>,
    /// Interrupts that come to them now: none on the simulated Xen.
    pub interrupts: usize,
    /// Why interrupts come to where they came before, and what helps, for people.
    pub refused: Option<String>,
}

/// Why a packet thread stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There are fewer queues.
    #[error("wanted queue {wanted}, found {found} queues: name one from 0 on")]
    NoQueue {
        /// The number that was wanted.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// No CPU was named.
    #[error("wanted one CPU at least, found none: name some as in 0-3,8")]
    NoCpu,
    /// The kernel refuses.
    #[error("wanted CPUs {wanted:?}: {why}; the CPUs that this process may use are in /proc/self/status (Cpus_allowed_list)")]
    Refused {
        /// The CPUs that were wanted.
        wanted: Vec<usize>,
        /// What it says.
        why: io::Error,
    },
}

/// By queue.
#[derive(Debug, Default)]
struct Place {
    /// None: wherever the kernel puts it.
    wanted: Vec<usize>,
    thread: Option<Pid>,
    interrupt: String,
}

impl Place {
    /// Moves the thread, if there is one, and then its interrupts.
    fn apply(&self) -> io::Result<Placed> {
        let Some(thread) = self.thread.filter(|_| !self.wanted.is_empty()) else {
            return Ok(Placed::default());
        };
        pin_thread(Some(thread), &self.wanted)?;
        let (interrupts, refused) = match self.interrupt.as_str() {
            "" => (0, None),
            name => match pin_interrupts(name, &self.wanted) {
                Ok(interrupts) => (interrupts, None),
                Err(why) => (0, Some(why)),
            },
        };
        Ok(Placed {
            cpus: allowed_cpus(Some(thread)),
            interrupts,
            refused,
        })
    }
}

/// The places of all packet threads.
#[derive(Debug, Default)]
pub(super) struct Affinity(Mutex<Vec<Place>>);

impl Affinity {
    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread of a queue run on these CPUs, now and in connections to come. `queues` is how many there are.
    pub fn place(&self, queue: usize, cpus: &[usize], queues: usize) -> Result<Placed, PlaceError> {
        if queue >= queues.min(QUEUES) {
            return Err(PlaceError::NoQueue {
                wanted: queue,
                found: queues.min(QUEUES),
            });
        }
        if cpus.is_empty() {
            return Err(PlaceError::NoCpu);
        }
        let mut places = self.places();
        if places.len() <= queue {
            places.resize_with(queue + 1, Place::default);
        }
        let Some(place) = places.get_mut(queue) else {
            return Ok(Placed::default());
        };
        let before = std::mem::replace(&mut place.wanted, cpus.to_vec());
        place.apply().map_err(|why| {
            place.wanted = before;
            PlaceError::Refused {
                wanted: cpus.to_vec(),
                why,
            }
        })
    }

    /// The same for all queues, also those that only a later connection has.
    pub fn place_all(&self, cpus: &[usize]) -> Result<Vec<Placed>, PlaceError> {
        let all = 0..QUEUES;
        all.map(|queue| self.place(queue, cpus, QUEUES)).collect()
    }

    /// The calling thread has this queue, whose interrupts have this name, until what this gives is dropped.
    pub fn enter(&self, queue: usize, interrupt: &str) -> Present<'_> {
        let before = allowed_cpus(None);
        let mut places = self.places();
        if places.len() <= queue {
            places.resize_with(queue + 1, Place::default);
        }
        if let Some(place) = places.get_mut(queue) {
            place.thread = Some(gettid());
            place.interrupt = interrupt.to_owned();
            match place.apply() {
                Ok(Placed {
                    refused: Some(why), ..
                }) => tracing::warn!("{why}"),
                Ok(_) => {}
                Err(why) => tracing::warn!(
                    "the thread of queue {queue} stays where the kernel puts it: wanted CPUs {:?}: {why}",
                    place.wanted
                ),
            }
        }
        Present {
            affinity: self,
            queue,
            before,
        }
    }

    /// The thread of a queue, by the number that the kernel knows it by.
    pub fn thread(&self, queue: usize) -> Option<i32> {
        let places = self.places();
        let thread = places.get(queue).and_then(|place| place.thread);
        thread.map(|thread| thread.as_raw_nonzero().get())
    }
}

/// See [`Affinity::enter`].
pub(super) struct Present<'a> {
    affinity: &'a Affinity,
    queue: usize,
    before: Vec<usize>,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let mut places = self.affinity.places();
        let Some(place) = places.get_mut(self.queue) else {
            return;
        };
        place.thread = None;
        // The first queue's thread is the caller's, and goes on.
        if !place.wanted.is_empty() {
            let _ = pin_thread(None, &self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L-15: a thread is moved while it runs, the next of that queue begins there, and who had it before may go anywhere again.
    #[test]
    fn a_packet_thread_is_moved_while_it_runs_and_so_is_the_next_of_its_queue() {
        let affinity = Affinity::default();
        let free = allowed_cpus(None);
        assert_eq!(affinity.thread(1), None);
        let present = affinity.enter(1, "no such interrupt");
        assert!(affinity.thread(1).is_some());
        assert_eq!(allowed_cpus(None), free, "nothing was wanted");
        for &cpu in &free {
            let placed = affinity
                .place(1, &[cpu], 2)
                .expect("a CPU that may be used");
            assert_eq!(placed.cpus, [cpu]);
            assert_eq!(placed.interrupts, 0);
            assert_eq!(allowed_cpus(None), [cpu]);
        }
        let last = free.last().copied().expect("a CPU");
        drop(present);
        assert_eq!(allowed_cpus(None), free);
        let next = affinity.enter(1, "");
        assert_eq!(allowed_cpus(None), [last]);
        drop(next);
        assert_eq!(allowed_cpus(None), free);
    }

    /// L-15: a connection with more queues, as after a restore on another host, is no reason to forget what was wanted of all.
    #[test]
    fn what_is_wanted_of_all_queues_holds_for_those_that_come_later() {
        let affinity = Affinity::default();
        let free = allowed_cpus(None);
        let last = free.last().copied().expect("a CPU");
        let present = affinity.enter(0, "");
        let placed = affinity.place_all(&[last]).expect("a CPU that may be used");
        assert_eq!(
            placed.first().map(|placed| &placed.cpus[..]),
            Some(&[last][..])
        );
        drop(present);
        let later = affinity.enter(5, "");
        assert_eq!(allowed_cpus(None), [last]);
        drop(later);
        assert_eq!(allowed_cpus(None), free);
        assert!(matches!(affinity.place_all(&[]), Err(PlaceError::NoCpu)));
    }

    #[test]
    fn what_cannot_be_is_told_and_changes_nothing() {
        let affinity = Affinity::default();
        let error = affinity.place(2, &[0], 2).expect_err("two queues");
        assert!(error.to_string().contains("found 2 queues"), "{error}");
        let error = affinity.place(QUEUES, &[0], usize::MAX);
        let error = error.expect_err("more than there can be");
        assert!(error.to_string().contains("found 64 queues"), "{error}");
        assert!(matches!(affinity.place(0, &[], 1), Err(PlaceError::NoCpu)));
        let free = allowed_cpus(None);
        let _present = affinity.enter(0, "");
        let error = affinity.place(0, &[1_000_000], 1).expect_err("no such CPU");
        assert!(error.to_string().contains("[1000000]"), "{error}");
        assert_eq!(allowed_cpus(None), free);
    }
}
