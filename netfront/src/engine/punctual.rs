//! Short sleeps that end when they should.
//!
//! The kernel lets the timers of a thread be late by 50 µs, to end several at once. A look that was due after
//! 20 µs then came after 75, and found the packets of a busy queue that should have asked for an event by then.

use std::num::NonZeroU64;

use rustix::thread::{current_timer_slack, set_current_timer_slack};

/// Nanoseconds.
const SLACK: u64 = 1000;

/// The calling thread's timers are punctual until this is dropped, in the same thread.
#[derive(Debug)]
#[must_use]
pub(super) struct Punctual(Option<NonZeroU64>);

impl Punctual {
    /// From now on. A thread that may not be has later timers, and nothing else.
    pub fn begin() -> Self {
        let before = current_timer_slack().ok().and_then(NonZeroU64::new);
        let _ = set_current_timer_slack(NonZeroU64::new(SLACK));
        Self(before)
    }
}

impl Drop for Punctual {
    fn drop(&mut self) {
        let _ = set_current_timer_slack(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_timers_are_punctual_for_a_while_and_then_as_before() {
        let before = current_timer_slack().unwrap();
        let punctual = Punctual::begin();
        assert_eq!(current_timer_slack().unwrap(), SLACK);
        drop(punctual);
        assert_eq!(current_timer_slack().unwrap(), before);
    }
}
