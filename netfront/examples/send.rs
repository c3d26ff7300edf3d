//! Sends frames as fast as the backend takes them, and says how fast that was.
//!
//! `send --to MAC [--count N] [--size BYTES] [--vif N] [--sim SOCKET]`

mod common;

use std::error::Error;
use std::time::{Duration, Instant};

use netfront::{Device, Offload, SendError};

/// An Ethernet type that is nobody's: for experiments on one's own network (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

fn main() -> Result<(), Box<dyn Error>> {
    let to = mac(&common::option("--to").unwrap_or_else(|| "ff:ff:ff:ff:ff:ff".into()))?;
    let count: u64 = common::option("--count").map_or(Ok(1_000_000), |number| number.parse())?;
    let size: usize = common::option("--size").map_or(Ok(60), |number| number.parse())?;
    let domain = common::domain()?;
    let mut device = Device::builder(common::vif()?).connect(&domain)?;
    let header = [&to[..], &device.link().mac, &EXPERIMENTAL].concat();
    let payload = vec![0; size.saturating_sub(header.len())];

    let queue = device.queue();
    let start = Instant::now();
    let mut sent = 0;
    while sent < count {
        // A packet is given in slices; they are copied into pages that the backend may only read.
        match queue.send(&[&header, &payload], Offload::default()) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => {
                // Show the backend what is in the ring, take back what it has answered. If that is
                // nothing, sleep until about half of the ring is answered.
                queue.flush()?;
                if queue.reclaim()? == 0 {
                    queue.wait(Duration::from_secs(1))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    queue.flush()?;
    // Sent means answered: until then the backend may still read the pages.
    while queue.unanswered() > 0 {
        if queue.reclaim()? == 0 {
            queue.wait(Duration::from_secs(1))?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = (header.len() + payload.len()) as f64 * sent as f64;
    println!(
        "{sent} frames in {seconds:.3} s: {:.0} frames/s, {:.3} Gbit/s",
        sent as f64 / seconds,
        bytes * 8.0 / 1e9 / seconds
    );
    let errors = queue.stats().tx_errors.get() + queue.stats().tx_dropped.get();
    if errors > 0 {
        println!("{errors} of them the backend did not pass on");
    }
    Ok(device.close()?)
}

fn mac(text: &str) -> Result<[u8; 6], Box<dyn Error>> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16))
        .collect();
    bytes?
        .try_into()
        .map_err(|_| format!("{text} is no address like 00:16:3e:01:02:03").into())
}
