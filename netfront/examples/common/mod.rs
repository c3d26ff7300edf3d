//! What all examples share: the few options, and the ground to stand on.
#![allow(dead_code)]

use std::error::Error;

use netfront::hypervisor::{DomId, Domain};

/// The value behind an option, as in `--vif 1`.
pub fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

/// `--vif N`; the first one if it is not given.
pub fn vif() -> Result<u32, Box<dyn Error>> {
    Ok(option("--vif").map_or(Ok(0), |number| number.parse())?)
}

/// With `--sim SOCKET` domain 1 of the simulated Xen that listens there; else the Xen domain that this
/// program runs in.
pub fn domain() -> Result<Domain, Box<dyn Error>> {
    Ok(match option("--sim") {
        Some(socket) => Domain::simulated(socket.as_ref(), DomId(1))?,
        None => Domain::xen()?,
    })
}
