//! Who works on a queue: the rules by which the kernel's NAPI schedules, in one atomic word.
//!
//! | state | what it means | who may change it |
//! | --- | --- | --- |
//! | idle | nobody works on the queue; its event is armed | whoever schedules |
//! | scheduled | one thread owns the queue: it is on that thread's poll list, or being polled | its owner |
//! | scheduled, missed | the same, and somebody came meanwhile: the owner has to look again | its owner |
//! | disabled | nobody works on it and nobody may begin to | whoever enables it |
//! | disabled, scheduled | to be disabled as soon as its owner lets go | its owner |
//!
//! Three things follow, and are model-checked in `netfront/loom/tests/loom.rs`. No wake-up is lost: who comes
//! while the queue is owned leaves a mark, and the owner cannot let go without seeing it. There is one owner:
//! only the change from idle to scheduled makes one. A queue is never listed twice: only who made that change
//! lists it.
//!
//! The word does not know which thread the owner is. A queue moves from one thread to another through
//! "disabled": the new owner begins when the old one has let go, so that packets keep their order.

#[cfg(loom)]
use loom::sync::atomic::AtomicU32;
#[cfg(not(loom))]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const IDLE: u32 = 0;
const SCHEDULED: u32 = 1;
const MISSED: u32 = 2;
const DISABLED: u32 = 4;

/// The scheduling state of one queue.
#[derive(Debug)]
pub struct Schedule(AtomicU32);

/// What an owner finds when it lets go of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Completion {
    /// The queue is idle: the next event schedules it.
    Idle,
    /// Somebody came meanwhile: the caller still owns the queue, and lists it again.
    Again,
    /// Somebody disabled the queue: the caller has nothing to do with it any more.
    Disabled,
}

impl Default for Schedule {
    fn default() -> Self {
        Self::idle()
    }
}

impl Schedule {
    /// A queue that waits for its first event.
    pub fn idle() -> Self {
        Self(AtomicU32::new(IDLE))
    }

    /// A queue that is given to no thread yet.
    pub fn disabled() -> Self {
        Self(AtomicU32::new(DISABLED))
    }

    /// Something is there for the queue. True: the caller made an owner of itself, or of the thread on whose
    /// list it now puts the queue. False: somebody else is the owner and will look again, or the queue is
    /// disabled, and whoever enables it will be told.
    #[must_use]
    pub fn schedule(&self) -> bool {
        let (before, _) = self.change(|word| match word {
            IDLE => SCHEDULED,
            // Written even if the mark is there already: what the caller wrote before this call must be visible
            // to the owner, and only a write of this word carries it over.
            word => word | MISSED,
        });
        before == IDLE
    }

    /// The owner has found the queue empty and lets go. Only the owner calls this.
    pub fn complete(&self) -> Completion {
        let (before, after) = self.change(|word| match word {
            // The mark stays for whoever enables the queue.
            word if word & DISABLED != 0 => word & !SCHEDULED,
            word if word & MISSED != 0 => SCHEDULED,
            _ => IDLE,
        });
        debug_assert!(before & SCHEDULED != 0, "only an owner lets go");
        match after {
            IDLE => Completion::Idle,
            SCHEDULED => Completion::Again,
            _ => Completion::Disabled,
        }
    }

    /// Lets nobody begin to work on the queue. True: nobody does, from now on. False: its owner still does, and
    /// gets [`Completion::Disabled`] when it lets go.
    #[must_use]
    pub fn disable(&self) -> bool {
        self.0.fetch_or(DISABLED, AcqRel) & SCHEDULED == 0
    }

    /// True if the queue is disabled and its last owner has let go: what that one did is visible to the caller.
    pub fn is_at_rest(&self) -> bool {
        self.0.load(Acquire) & (DISABLED | SCHEDULED) == DISABLED
    }

    /// True if somebody waits for the owner to let go: one that always finds packets has to look, or it never would.
    pub fn is_disabling(&self) -> bool {
        self.0.load(Relaxed) & DISABLED != 0
    }

    /// Ends [`Self::disable`]. True: something came meanwhile, and the caller owns the queue and lists it.
    /// If the old owner has not let go yet, it simply goes on.
    #[must_use]
    pub fn enable(&self) -> bool {
        let (before, after) = self.change(|word| match word & !DISABLED {
            MISSED => SCHEDULED,
            word => word,
        });
        before & SCHEDULED == 0 && after == SCHEDULED
    }

    /// Changes the word in one step; gives what it was and what it is.
    fn change(&self, to: impl Fn(u32) -> u32) -> (u32, u32) {
        let mut word = self.0.load(Relaxed);
        loop {
            let next = to(word);
            match self.0.compare_exchange_weak(word, next, AcqRel, Relaxed) {
                Ok(_) => return (word, next),
                Err(found) => word = found,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Completion, Schedule};

    #[test]
    fn only_the_first_who_schedules_becomes_the_owner() {
        let queue = Schedule::idle();
        assert!(queue.schedule());
        assert!(!queue.schedule());
        assert!(!queue.schedule());
        assert_eq!(queue.complete(), Completion::Again, "two marks are one");
        assert_eq!(queue.complete(), Completion::Idle);
        assert!(queue.schedule());
    }

    #[test]
    fn an_event_of_a_disabled_queue_is_kept_until_it_is_enabled() {
        let queue = Schedule::disabled();
        assert!(queue.is_at_rest());
        assert!(!queue.schedule());
        assert!(queue.enable(), "the caller owns what came meanwhile");
        assert_eq!(queue.complete(), Completion::Idle);
        assert!(queue.disable());
        assert!(!queue.enable(), "nothing came");
    }

    #[test]
    fn a_queue_is_at_rest_only_when_its_owner_let_go() {
        let queue = Schedule::idle();
        assert!(queue.schedule());
        assert!(!queue.disable());
        assert!(!queue.is_at_rest());
        assert!(!queue.schedule());
        assert_eq!(queue.complete(), Completion::Disabled);
        assert!(queue.is_at_rest());
        assert!(queue.enable());
        assert_eq!(queue.complete(), Completion::Idle);
    }

    #[test]
    fn who_enables_before_the_owner_let_go_changes_nothing_for_it() {
        let queue = Schedule::idle();
        assert!(queue.schedule());
        assert!(!queue.disable());
        assert!(!queue.schedule());
        assert!(!queue.enable());
        assert_eq!(queue.complete(), Completion::Again);
        assert_eq!(queue.complete(), Completion::Idle);
    }
}
