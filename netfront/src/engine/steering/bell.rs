//! When a worker has to be woken: once, and only if it sleeps.
//!
//! A wake-up costs a system call and, on a guest whose vCPU went idle, as much as a thousand small packets. So
//! whoever hands over a batch asks [`Bell::ring`] once, after the batch, and makes the system call only if that
//! says so: if the worker runs it will look by itself, and if somebody has woken it already it is on its way.
//!
//! | state | set by |
//! | --- | --- |
//! | running | the worker |
//! | idle | the worker, before its last look at the lanes |
//! | notified | the one producer who makes the system call |

#[cfg(loom)]
use loom::sync::atomic::{fence, AtomicU32};
use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
#[cfg(not(loom))]
use std::sync::atomic::{fence, AtomicU32};

const RUNNING: u32 = 0;
const IDLE: u32 = 1;
const NOTIFIED: u32 = 2;

/// The state of one worker, as those see it who have something for it.
#[derive(Debug)]
pub struct Bell(AtomicU32);

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl Bell {
    /// The bell of a worker that runs.
    pub fn new() -> Self {
        Self(AtomicU32::new(RUNNING))
    }

    /// Something was put where the worker looks. True: it sleeps and the caller is the one to wake it.
    #[must_use]
    pub fn ring(&self) -> bool {
        // The worker says that it is idle and then looks; we put something there and then look at its state.
        // Without a full fence on both sides each could miss the other.
        fence(SeqCst);
        self.0.load(Relaxed) == IDLE
            && self
                .0
                .compare_exchange(IDLE, NOTIFIED, AcqRel, Relaxed)
                .is_ok()
    }

    /// The worker found nothing. It has to look once more after this call, and may sleep if there still is nothing.
    pub fn rest(&self) {
        self.0.store(IDLE, Relaxed);
        fence(SeqCst);
    }

    /// The worker goes on, woken or not. True if somebody has woken it, or is about to.
    pub fn resume(&self) -> bool {
        self.0.swap(RUNNING, AcqRel) == NOTIFIED
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Bell;

    #[test]
    fn a_worker_that_runs_is_not_woken_and_one_that_sleeps_is_woken_once() {
        let bell = Bell::new();
        assert!(!bell.ring());
        bell.rest();
        assert!(bell.ring());
        assert!(!bell.ring(), "it is on its way");
        assert!(bell.resume());
        assert!(!bell.ring());
        bell.rest();
        assert!(!bell.resume(), "it went on by itself");
    }
}
