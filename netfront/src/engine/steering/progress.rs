//! How far a worker has come with a lane: one count, which the worker writes and others read.

#[cfg(loom)]
use loom::sync::atomic::AtomicU64;
#[cfg(not(loom))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::Arc;

/// How many packets of a lane the worker has finished. Any thread may look.
#[derive(Debug, Clone)]
pub struct Progress(Arc<AtomicU64>);

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// None yet.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    /// Packets since the beginning. What the worker did with them is visible to the caller.
    pub fn finished(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// So many are finished. Only the worker calls this.
    pub fn set(&self, finished: u64) {
        self.0.store(finished, Release);
    }
}
