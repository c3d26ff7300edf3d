//! Pages that stay mapped.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `messages` | what a guest may ask for over the control ring, and what it must not get |
//! | `ways` | frames by each way to the guest's pages: kept mappings, grant copies, mappings for a batch |
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod guest;
mod messages;
mod ways;
