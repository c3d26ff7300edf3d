//! One queue against a backend in the test's hands: packets both ways, broken backends, wake-ups.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `receive` | received packets over all numbers of slots, extra infos, checksums |
//! | `transmit` | sent packets, a full ring, ids and pages that return |
//! | `capture` | what a capture has of both |
//! | `hostile` | packets that are wrong, and rings that are broken |
//! | `wakeup` | who is rung when, and that no wake-up is lost |
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod capture;
#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod receive;
mod transmit;
mod wakeup;
