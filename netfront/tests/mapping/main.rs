//! Pages that the backend keeps mapped: announced after connecting, withdrawn before they are freed; and
//! what a backend that breaks the contract of the control ring can do, which is little.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `traffic` | with our own backend: what packets cost, growth and shrinking, reconnects |
//! | `answers` | with a control ring in the test's hands ([`hand`]): good answers, late ones, nonsense |
//! | `hash` | hashes that are asked for over the same ring |
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod hand;
mod hash;
mod traffic;

use netfront::Device;

use common::{count, until};

/// The pages of a queue's pools, as they are made.
const POOLS: u64 = 512 + 256;

/// Pages that the backend keeps mapped, as the driver counts them.
fn mapped(device: &mut Device) -> u64 {
    count(device.queue(), "gref_mapped")
}

fn wait_mapped(device: &mut Device, pages: u64) {
    until(&format!("{pages} pages mapped"), || mapped(device) == pages);
}
