//! Sends frames as fast as the backend takes them, and says how fast that was.
//!
//! `send [--to MAC] [--count N] [--size BYTES] [--vif N] [--sim SOCKET]`
//!
//! It shows sending at its simplest: fill the ring, flush, wait until there is room again. The example
//! `generate` has a rate as well.
//!
//! In a Xen guest, as root, with a vif that the kernel's driver has given up:
//!
//! ```sh
//! netfront take --vif 1
//! cargo run --release --example send -- --vif 1 --to 00:16:3e:01:02:03 --size 1500
//! ```
//!
//! On the simulated Xen, with a backend that only counts:
//!
//! ```sh
//! cargo run --release -p netback-sim -- serve --sim /tmp/xen --sink --no-verify
//! cargo run --release --example send -- --sim /tmp/xen --size 1500
//! ```

mod common;

use std::error::Error;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use netfront::{Device, Offload, SendError};

/// An Ethernet type that is nobody's: for experiments on one's own network (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

fn main() -> Result<(), Box<dyn Error>> {
    let to = common::destination()?;
    let count: u64 = common::option_or("--count", 1_000_000)?;
    let size: usize = common::option_or("--size", 60)?;
    let domain = common::domain()?;
    let device = Device::builder(common::vif()?).connect(&domain)?;
    let header = [&to[..], &device.link().mac, &EXPERIMENTAL].concat();
    let payload = vec![0; size.saturating_sub(header.len())];
    let (mut sent, mut refused) = (0, None);
    let start = Instant::now();
    let mut device = common::turns(device, |device| {
        let queue = device.queue();
        while sent < count {
            // A packet is given in slices; they are copied into pages that the backend may only read.
            match queue.send(&[&header, &payload], Offload::default()) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => break,
                Err(error) => {
                    refused = Some(error);
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        // Show the backend what is in the ring, take back what it has answered. If that is nothing, sleep
        // until about half of the ring is answered.
        queue.flush()?;
        if queue.reclaim()? == 0 {
            queue.wait(Duration::from_secs(1))?;
        }
        // Sent means answered: until then the backend may still read the pages.
        Ok(match sent == count && queue.unanswered() == 0 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = (header.len() + payload.len()) as f64 * sent as f64;
    println!(
        "{sent} frames in {seconds:.3} s: {:.0} frames/s, {:.3} Gbit/s",
        sent as f64 / seconds,
        bytes * 8.0 / 1e9 / seconds
    );
    let stats = device.queue().stats();
    let errors = stats.tx_errors.get() + stats.tx_dropped.get();
    if errors > 0 {
        println!("{errors} of them the backend did not pass on");
    }
    device.close()?;
    refused.map_or(Ok(()), |error: SendError| Err(error.into()))
}
