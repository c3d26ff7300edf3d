//! One queue against a backend in the test's hands: packets both ways, broken backends, wake-ups.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `receive` | received packets over all numbers of slots, extra infos, checksums |
//! | `slots` | tables of both: numbers of pieces and slots by lengths |
//! | `transmit` | sent packets, a full ring, ids and pages that return |
//! | `capture` | what a capture has of both |
//! | `checksums` | the checksum's three states from virtio-net header to virtio-net header |
//! | `events` | events a packet |
//! | `hostile` | packets that are wrong, and rings that are broken |
//! | `late` | what a backend writes into a ring after it has answered |
//! | `wakeup` | who is rung when, and that no wake-up is lost |
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod capture;
mod checksums;
#[path = "../common/mod.rs"]
mod common;
mod events;
mod hostile;
mod late;
mod receive;
mod slots;
mod transmit;
mod wakeup;
