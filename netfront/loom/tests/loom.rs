//! The engine's scheduling and its wake-ups under the model checker: every interleaving, and every reordering that
//! the memory model allows.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p netfront-loom --release --test loom`.
//!
//! A lost wake-up shows as a deadlock: everyone sleeps. The tests that must panic show that the checker would
//! see what goes wrong with less.
#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::Arc;

use loom::sync::atomic::{fence, AtomicU32};
use loom::sync::{Mutex, Notify};
use loom::thread;
use netfront_loom::bell::Bell;
use netfront_loom::pending::{Kind, Kinds, Pending};
use netfront_loom::progress::Progress;
use netfront_loom::schedule::{Completion, Schedule};

/// All interleavings: no bound on preemptions.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.max_branches = 20_000;
    builder.check(run);
}

/// A poll list that other threads can add to, and the sleep of its owner.
struct Core {
    listed: Mutex<Vec<usize>>,
    event: Notify,
}

impl Core {
    fn new() -> Self {
        Self {
            listed: Mutex::new(Vec::new()),
            event: Notify::new(),
        }
    }

    fn list(&self, queue: usize) {
        let mut listed = self.listed.lock().unwrap();
        assert!(!listed.contains(&queue), "queue {queue} is listed twice");
        listed.push(queue);
        drop(listed);
        self.event.notify();
    }

    fn take(&self) -> usize {
        loop {
            if let Some(queue) = self.listed.lock().unwrap().pop() {
                return queue;
            }
            self.event.wait();
        }
    }
}

/// Packets that came and were not taken; relaxed, so that only the schedule's word orders them.
fn take_packets(ring: &[AtomicU32]) -> u32 {
    ring.iter()
        .filter(|packet| packet.load(Relaxed) == 1)
        .map(|packet| packet.store(2, Relaxed))
        .count() as u32
}

/// L-3, N-5: what is scheduled while the queue is polled is not lost, and the queue is never on the list twice.
#[test]
fn no_wake_up_is_lost_and_no_queue_is_listed_twice() {
    model(|| {
        let queue = Arc::new(Schedule::idle());
        let core = Arc::new(Core::new());
        let ring = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let producers: Vec<_> = (0..2)
            .map(|index| {
                let (queue, core, ring) = (queue.clone(), core.clone(), ring.clone());
                thread::spawn(move || {
                    ring[index].store(1, Relaxed);
                    if queue.schedule() {
                        core.list(0);
                    }
                })
            })
            .collect();
        let mut taken = 0;
        while taken < 2 {
            let listed = core.take();
            taken += take_packets(&*ring);
            if queue.complete() == Completion::Again {
                core.list(listed);
            }
        }
        producers.into_iter().for_each(|p| p.join().unwrap());
    });
}

/// N-5: of any number of threads that schedule at once one becomes the owner.
#[test]
fn there_is_one_owner_at_any_time() {
    model(|| {
        let queue = Arc::new(Schedule::idle());
        let owners = Arc::new(AtomicU32::new(0));
        let own = move |queue: &Schedule, owners: &AtomicU32| {
            if queue.schedule() {
                loop {
                    assert_eq!(owners.fetch_add(1, AcqRel), 0, "two owners");
                    owners.fetch_sub(1, AcqRel);
                    if queue.complete() != Completion::Again {
                        break;
                    }
                }
            }
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (queue, owners) = (queue.clone(), owners.clone());
                thread::spawn(move || own(&queue, &owners))
            })
            .collect();
        own(&queue, &owners);
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// K-5: a queue changes its core without two of them working on it, and without losing what comes meanwhile.
#[test]
fn a_queue_that_moves_has_one_owner_and_loses_nothing() {
    model(|| {
        let queue = Arc::new(Schedule::idle());
        let owners = Arc::new(AtomicU32::new(0));
        let taken = Arc::new(AtomicU32::new(0));
        let ring = Arc::new([AtomicU32::new(0)]);
        let moved = Arc::new(Notify::new());
        let work = |queue: &Schedule, owners: &AtomicU32, ring: &[AtomicU32], taken: &AtomicU32| loop {
            assert_eq!(owners.fetch_add(1, Relaxed), 0, "two owners");
            taken.fetch_add(take_packets(ring), Relaxed);
            owners.fetch_sub(1, Relaxed);
            match queue.complete() {
                Completion::Again => {}
                done => return done,
            }
        };
        // The old core: an event comes to it.
        let old = {
            let (queue, owners, taken) = (queue.clone(), owners.clone(), taken.clone());
            let (ring, moved) = (ring.clone(), moved.clone());
            thread::spawn(move || {
                ring[0].store(1, Relaxed);
                if queue.schedule() && work(&queue, &owners, &*ring, &taken) == Completion::Disabled
                {
                    moved.notify();
                }
            })
        };
        // The new core takes the queue over.
        if !queue.disable() {
            // A wait may end for nothing.
            while !queue.is_at_rest() {
                moved.wait();
            }
        }
        assert!(queue.is_at_rest());
        if queue.enable() {
            let _ = work(&queue, &owners, &*ring, &taken);
        }
        old.join().unwrap();
        assert_eq!(taken.load(Relaxed), 1);
    });
}

/// Two words in place of one: the mark is looked at, and then the queue is let go.
#[test]
#[should_panic(expected = "deadlock")]
fn with_two_words_a_wake_up_is_lost() {
    model(|| {
        let scheduled = Arc::new(AtomicU32::new(1));
        let missed = Arc::new(AtomicU32::new(0));
        let event = Arc::new(Notify::new());
        let producer = {
            let (scheduled, missed, event) = (scheduled.clone(), missed.clone(), event.clone());
            thread::spawn(move || {
                if scheduled.swap(1, AcqRel) == 0 {
                    event.notify();
                } else {
                    missed.store(1, Release);
                }
            })
        };
        if missed.load(Acquire) == 0 {
            scheduled.store(0, Release);
            event.wait();
        }
        producer.join().unwrap();
    });
}

/// A worker that sleeps by the rules until it has taken `count` items of a lane.
fn serve(bell: &Bell, lane: &AtomicU32, event: &Notify, count: u32) {
    let mut taken = 0;
    loop {
        taken += lane.swap(0, Acquire);
        if taken == count {
            return;
        }
        bell.rest();
        if lane.load(Relaxed) == 0 {
            event.wait();
        }
        bell.resume();
    }
}

/// K-8: a worker is told of every packet, though a batch rings once at most.
#[test]
fn no_wake_up_of_a_worker_is_lost() {
    model(|| {
        let bell = Arc::new(Bell::new());
        let lane = Arc::new(AtomicU32::new(0));
        let event = Arc::new(Notify::new());
        let producer = {
            let (bell, lane, event) = (bell.clone(), lane.clone(), event.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    lane.fetch_add(1, Release);
                    if bell.ring() {
                        event.notify();
                    }
                }
            })
        };
        serve(&bell, &lane, &event, 2);
        producer.join().unwrap();
    });
}

/// K-8: of two who hand over at the same moment one makes the system call.
#[test]
fn a_sleeping_worker_is_woken_by_one_system_call() {
    model(|| {
        let bell = Arc::new(Bell::new());
        bell.rest();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let bell = bell.clone();
                thread::spawn(move || u32::from(bell.ring()))
            })
            .collect();
        let calls: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(calls, 1);
        assert!(bell.resume());
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_a_fence_the_bell_is_not_heard() {
    model(|| {
        let idle = Arc::new(AtomicU32::new(0));
        let lane = Arc::new(AtomicU32::new(0));
        let event = Arc::new(Notify::new());
        let producer = {
            let (idle, lane, event) = (idle.clone(), lane.clone(), event.clone());
            thread::spawn(move || {
                lane.store(1, Release);
                // No fence here, in place of Bell::ring's.
                if idle.load(Relaxed) == 1 {
                    event.notify();
                }
            })
        };
        while lane.load(Acquire) == 0 {
            idle.store(1, Relaxed);
            fence(SeqCst);
            if lane.load(Relaxed) == 0 {
                event.wait();
            }
            idle.store(0, Relaxed);
        }
        producer.join().unwrap();
    });
}

/// K-7: a connection moves when its old worker has finished its packets; what that did with them is done for all to see.
#[test]
fn who_sees_a_packet_finished_sees_what_was_done_with_it() {
    model(|| {
        let progress = Progress::new();
        let work = Arc::new(AtomicU32::new(0));
        let worker = {
            let (progress, work) = (progress.clone(), work.clone());
            thread::spawn(move || {
                work.store(1, Relaxed);
                progress.set(1);
            })
        };
        if progress.finished() == 1 {
            assert_eq!(work.load(Relaxed), 1);
        }
        worker.join().unwrap();
    });
}

const KINDS: [Kind; 2] = [Kind::of::<0>(), Kind::of::<31>()];

/// L-4, S-6: of what two threads raise at once, while the core takes, nothing is lost or taken twice, and the core sees what was
/// written before.
#[test]
fn kinds_that_are_raised_at_once_are_each_taken_once() {
    model(|| {
        let pending = Arc::new(Pending::new());
        let work = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let producers: Vec<_> = (0..2)
            .map(|at| {
                let (pending, work) = (pending.clone(), work.clone());
                thread::spawn(move || {
                    work[at].store(1, Relaxed);
                    pending.raise(KINDS[at]);
                })
            })
            .collect();
        let served = [AtomicU32::new(0), AtomicU32::new(0)];
        let serve = |kinds: Kinds| {
            for ((kind, work), served) in KINDS.into_iter().zip(&*work).zip(&served) {
                if kinds.contains(kind) {
                    assert_eq!(work.load(Relaxed), 1, "raised before it was there");
                    served.fetch_add(1, Relaxed);
                }
            }
        };
        serve(pending.take());
        producers.into_iter().for_each(|p| p.join().unwrap());
        serve(pending.take());
        assert!(served.iter().all(|served| served.load(Relaxed) == 1));
    });
}

/// L-4, S-6: a core that sleeps by the rules hears of what is raised, also if that is raised again while it takes it.
#[test]
fn no_raised_kind_is_slept_over() {
    model(|| {
        let pending = Arc::new(Pending::new());
        let bell = Arc::new(Bell::new());
        let event = Arc::new(Notify::new());
        let work = Arc::new(AtomicU32::new(0));
        // A worker: it raises in a long round, and at its end, when it rings.
        let producer = {
            let (pending, bell) = (pending.clone(), bell.clone());
            let (event, work) = (event.clone(), work.clone());
            thread::spawn(move || {
                for number in 1..=2 {
                    work.store(number, Relaxed);
                    pending.raise(KINDS[0]);
                }
                if bell.ring() {
                    event.notify();
                }
            })
        };
        loop {
            if pending.take().contains(KINDS[0]) && work.load(Relaxed) == 2 {
                break;
            }
            bell.rest();
            if pending.is_empty() {
                event.wait();
            }
            bell.resume();
        }
        producer.join().unwrap();
    });
}

/// A look and a store in place of taking the mask in one step.
#[test]
#[should_panic(expected = "deadlock")]
fn a_mask_that_is_taken_in_two_steps_loses_a_kind() {
    model(|| {
        let mask = Arc::new(AtomicU32::new(0));
        let event = Arc::new(Notify::new());
        let producer = {
            let (mask, event) = (mask.clone(), event.clone());
            thread::spawn(move || {
                for bit in [1, 2] {
                    mask.fetch_or(bit, AcqRel);
                    event.notify();
                }
            })
        };
        let mut served = 0;
        while served != 3 {
            let kinds = mask.load(Acquire);
            mask.store(0, Release);
            served |= kinds;
            if served != 3 && mask.load(Acquire) == 0 {
                event.wait();
            }
        }
        producer.join().unwrap();
    });
}
