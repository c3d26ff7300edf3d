//! The time that the engine goes by, so that its rules can be run in a time that a test makes.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Tells the time since some moment, which never goes back.
pub trait Clock {
    /// Now.
    fn now(&self) -> Duration;
}

/// A clock that others look at, too: one engine does not own the time.
impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// The machine's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A time that stands still until somebody moves it.
#[derive(Debug, Default)]
pub struct Manual(Cell<Duration>);

impl Manual {
    /// Moves the time on.
    pub fn advance(&self, by: Duration) {
        self.0.set(self.0.get() + by);
    }

    /// Moves the time on to `moment`, unless that is over already.
    pub fn reach(&self, moment: Duration) {
        self.0.set(self.0.get().max(moment));
    }
}

impl Clock for Manual {
    fn now(&self) -> Duration {
        self.0.get()
    }
}
