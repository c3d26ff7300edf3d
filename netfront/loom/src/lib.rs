//! What of netfront's engine is built on atomics of its own, compiled for the model checker.
//!
//! netfront itself cannot be: it stands on shared memory and system calls, which loom does not have. So this
//! package takes in the same source files. Without `--cfg loom` it is empty.

#[cfg(loom)]
#[path = "../../src/engine/schedule.rs"]
pub mod schedule;

#[cfg(loom)]
#[path = "../../src/engine/steering/bell.rs"]
pub mod bell;

#[cfg(loom)]
#[path = "../../src/engine/steering/progress.rs"]
pub mod progress;

#[cfg(loom)]
#[path = "../../src/engine/pending.rs"]
pub mod pending;
