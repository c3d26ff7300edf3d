//! A driver that runs is asked and told, as a user does: the program, on a simulated Xen.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `shows` | status, counters, rates, metrics |
//! | `told` | kick, pause, resume, stop, and nonsense |
//! | `queues` | the same of several queues |
//! | `recordings` | captures and traces |
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/driver.rs"]
mod driver;
mod queues;
mod recordings;
mod shows;
mod told;
