//! The restart limits of an engine lately, for whoever watches how it adapts.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// So many are remembered.
pub const LIMITS: usize = 32;

/// The last limits that differed from the one before. One writer, the engine's thread, or without one whoever clears it; any
/// number of readers, who may see one of an old round of the ring beside those of the new one.
#[derive(Debug)]
pub struct LimitTrace {
    values: [AtomicU32; LIMITS],
    /// How many were written since the beginning.
    written: AtomicUsize,
}

impl Default for LimitTrace {
    fn default() -> Self {
        Self {
            values: std::array::from_fn(|_| AtomicU32::new(0)),
            written: AtomicUsize::new(0),
        }
    }
}

impl LimitTrace {
    /// The limit of the next activation. Only the engine's thread calls this.
    pub fn record(&self, limit: u32) {
        let written = self.written.load(Ordering::Relaxed);
        let last = written
            .checked_sub(1)
            .and_then(|last| self.values.get(last % LIMITS));
        if last.is_some_and(|last| last.load(Ordering::Relaxed) == limit) {
            return;
        }
        if let Some(place) = self.values.get(written % LIMITS) {
            place.store(limit, Ordering::Relaxed);
            self.written
                .store(written.wrapping_add(1), Ordering::Release);
        }
    }

    /// Forgets them: there is no engine any more that they are those of.
    pub(crate) fn clear(&self) {
        self.written.store(0, Ordering::Release);
    }

    /// The limits, the oldest first; the last one holds now. None before the first activation.
    pub fn recent(&self) -> Vec<u32> {
        let written = self.written.load(Ordering::Acquire);
        let from = written.saturating_sub(LIMITS);
        let values = (from..written).filter_map(|place| self.values.get(place % LIMITS));
        values.map(|value| value.load(Ordering::Relaxed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_limits_that_changed_are_told_the_oldest_first() {
        let trace = LimitTrace::default();
        assert!(trace.recent().is_empty());
        for limit in [10, 10, 20, 20, 10] {
            trace.record(limit);
        }
        assert_eq!(trace.recent(), [10, 20, 10]);
        for limit in 0..100 {
            trace.record(limit);
        }
        let last: Vec<u32> = (100 - LIMITS as u32..100).collect();
        assert_eq!(trace.recent(), last);
        trace.clear();
        assert!(trace.recent().is_empty());
        trace.record(7);
        assert_eq!(trace.recent(), [7]);
    }
}
