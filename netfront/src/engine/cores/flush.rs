//! When a worker tells the event cores in the middle of its turn of the frames that it has for them.
//!
//! At the end of a turn they are told in any case, and while work is quick that is soon enough: a core that is told earlier may have
//! to be woken for it, which costs as much as a thousand small packets. Where the work for a packet takes long, the frames
//! of the first would wait for that of all. So it goes by time, and to save looks at the clock, which on some guests are system
//! calls, it is looked at after 1, 2, 4 packets, and then after each 8.

use std::time::Duration;

use crate::engine::clock::Clock;

/// How long a frame may wait. A core is woken at most once in so long a time.
const LATEST: Duration = Duration::from_micros(50);
/// Packets between two looks at the clock, at most.
const STRIDE: u32 = 8;

/// The frames that nobody was told of.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// When the first of them was seen.
    since: Option<Duration>,
    /// Packets from one look at the clock to the next.
    stride: u32,
    /// Of these, those to come.
    left: u32,
}

impl Flush {
    /// After each packet, while there are such frames: true if they have waited for too long. Then the next ones begin.
    pub fn is_due(&mut self, clock: &impl Clock) -> bool {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return false;
        }
        let now = clock.now();
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) >= LATEST {
            *self = Self::default();
            return true;
        }
        self.stride = (2 * self.stride).clamp(1, STRIDE);
        self.left = self.stride - 1;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::engine::clock::Manual;

    /// After which of so many packets that take so long a core is told.
    fn told(packets: u32, each: Duration) -> Vec<u32> {
        let (clock, mut flush) = (Manual::default(), Flush::default());
        let due = |_: &u32| {
            clock.advance(each);
            flush.is_due(&clock)
        };
        (1..=packets).filter(due).collect()
    }

    #[test]
    fn frames_of_quick_work_wait_for_the_end_of_the_turn() {
        assert!(told(64, Duration::from_nanos(500)).is_empty());
    }

    #[test]
    fn frames_of_slow_work_wait_for_the_next_packet_only() {
        assert_eq!(told(6, Duration::from_millis(1)), [2, 4, 6]);
    }

    #[test]
    fn in_between_they_wait_for_little_more_than_the_longest_time() {
        // 50 microseconds are over with the 11th, and it is looked at the 8th and the 16th.
        assert_eq!(told(20, Duration::from_micros(5)), [16]);
    }

    /// Counts how often it is looked at.
    struct Counted(Cell<u32>);

    impl Clock for Counted {
        fn now(&self) -> Duration {
            self.0.set(self.0.get() + 1);
            Duration::ZERO
        }
    }

    #[test]
    fn a_turn_of_a_weight_of_packets_looks_at_the_clock_few_times() {
        let (clock, mut flush) = (Counted(Cell::new(0)), Flush::default());
        assert!((0..64).all(|_| !flush.is_due(&clock)));
        assert_eq!(clock.0.get(), 11);
    }
}
