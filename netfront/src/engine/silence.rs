//! When a backend that answers nothing is a reason to look at the store.
//!
//! After a restore, or when the backend is gone, what is sent stays unanswered. The store's watches tell of both; should an
//! event of theirs be lost, this tells within a second, as long as the guest sends anything.

use std::time::{Duration, Instant};

use crate::queue::Queue;

/// So long an answer may take.
const FIRST: Duration = Duration::from_secs(1);
/// As long as nothing is answered, there is a look after twice the time of the last, and at least this often.
const LAST: Duration = Duration::from_secs(64);

/// Since when the backend has answered nothing.
#[derive(Debug, Default)]
pub(super) struct Silence(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// Transmit slots that it had answered by then.
    answered: u64,
    since: Instant,
    patience: Duration,
}

impl Silence {
    /// Before each sleep: whether it is time for a look.
    pub fn is_long(&mut self, queue: &Queue) -> bool {
        // Where nothing is waited for, not even the clock is asked.
        match queue.unanswered() {
            0 => {
                self.0 = None;
                false
            }
            _ => self.lasts(queue.answered(), Instant::now()),
        }
    }

    fn lasts(&mut self, answered: u64, now: Instant) -> bool {
        match &mut self.0 {
            Some(waiting) if waiting.answered == answered => {
                let is_long = now.saturating_duration_since(waiting.since) >= waiting.patience;
                if is_long {
                    waiting.since = now;
                    waiting.patience = (waiting.patience * 2).min(LAST);
                }
                is_long
            }
            other => {
                *other = Some(Waiting {
                    answered,
                    since: now,
                    patience: FIRST,
                });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_often_something_is_sent_silence_is_long_after_a_second_then_two_then_four() {
        let mut silence = Silence::default();
        let start = Instant::now();
        let mut looks = Vec::new();
        for tenths in 0..200 {
            if silence.lasts(7, start + Duration::from_millis(100) * tenths) {
                looks.push(tenths);
            }
        }
        assert_eq!(looks, [10, 30, 70, 150]);
    }

    #[test]
    fn a_backend_that_answers_now_and_then_is_not_silent() {
        let mut silence = Silence::default();
        let start = Instant::now();
        for second in 0..100 {
            let answered = second / 2;
            let now = start + Duration::from_millis(499) * second as u32;
            assert!(!silence.lasts(answered, now), "{second}");
        }
    }
}
