//! What all examples share: the few options, the ground to stand on, staying connected, and finishing packets for a backend.
#![allow(dead_code)]

pub mod finish;
pub mod numbered;

use std::error::Error;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::time::Duration;

use netfront::hypervisor::{DomId, Domain};
use netfront::{Change, Device, Reconnect};

/// Between two attempts to connect anew.
const PAUSE: Duration = Duration::from_millis(100);

/// The value behind an option, as in `--vif 1`.
pub fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

/// The same as a number or whatever else is wanted, or `default` if it is not given.
pub fn option_or<T: FromStr>(name: &str, default: T) -> Result<T, Box<dyn Error>> {
    match option(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{name} {text}: that makes no sense here").into()),
    }
}

/// True if an option without a value is given, as in `--offload`.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

/// `--vif N`; the first one if it is not given.
pub fn vif() -> Result<u32, Box<dyn Error>> {
    option_or("--vif", 0)
}

/// `--to MAC`; everybody if it is not given.
pub fn destination() -> Result<[u8; 6], Box<dyn Error>> {
    let text = option("--to").unwrap_or_else(|| "ff:ff:ff:ff:ff:ff".into());
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect();
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| format!("{text} is no address like 00:16:3e:01:02:03").into())
}

/// Prints what was counted: with `--json` in one line, else a line each.
pub fn tell(report: &serde_json::Value) {
    match report.as_object().filter(|_| !flag("--json")) {
        None => println!("{report}"),
        Some(lines) => {
            for (name, value) in lines {
                println!("{name}: {value}");
            }
        }
    }
}

/// With `--sim SOCKET` domain 1 of the simulated Xen that listens there; else the Xen domain that this
/// program runs in.
pub fn domain() -> Result<Domain, Box<dyn Error>> {
    Ok(match option("--sim") {
        Some(socket) => Domain::simulated(socket.as_ref(), DomId(1))?,
        None => Domain::xen()?,
    })
}

/// Calls `turn` with the vif again and again until it breaks, and gives the vif back then. When the backend leaves
/// or breaks the contract, or the domain is restored or migrated, the vif is connected anew between two turns.
///
/// `engine::serve` does the same for a `Consumer`, on a thread of its own.
pub fn turns(
    mut device: Device,
    mut turn: impl FnMut(&mut Device) -> Result<ControlFlow<()>, netfront::Error>,
) -> Result<Device, Box<dyn Error>> {
    loop {
        match turn(&mut device) {
            Ok(ControlFlow::Break(())) => return Ok(device),
            Ok(ControlFlow::Continue(())) if !is_over(&mut device) => {}
            Ok(ControlFlow::Continue(())) => device = again(device.disconnect()),
            Err(error) if can_go_on(&error) => {
                eprintln!("{error}");
                device = again(device.disconnect());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// True for an error after which another connection can be made.
pub fn can_go_on(error: &netfront::Error) -> bool {
    error.is_restore() || error.is_peers_fault()
}

/// Tells what changed. True if nothing but a new connection helps.
pub fn is_over(device: &mut Device) -> bool {
    let mut over = false;
    while let Some(change) = device.change() {
        eprintln!("{change:?}");
        over |= match change {
            Change::BackendLeft(_)
            | Change::Broken(_)
            | Change::Restored
            | Change::MulticastFilter => true,
            // `device.link()` says it from now on.
            Change::Carrier(_) | Change::Mtu(_) | Change::Speed(_) => false,
        };
    }
    over
}

/// Connects again, for as long as it takes. Nothing of the old connection is left, and the new backend may offer
/// something else; counters go on.
pub fn again(mut pending: Reconnect) -> Device {
    let mut said = false;
    loop {
        match pending.retry() {
            Ok(device) => return device,
            Err(next) => {
                if let Some(error) = next.error.as_ref().filter(|_| !said) {
                    eprintln!("not connected yet, trying on: {error}");
                    said = true;
                }
                pending = *next;
                std::thread::sleep(PAUSE);
            }
        }
    }
}
