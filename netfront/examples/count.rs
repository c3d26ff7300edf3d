//! Prints what comes in: packets and bytes a second, and why packets were dropped.
//!
//! `count [--vif N] [--sim SOCKET]`
//!
//! It shows that counters may be read by any thread while the queue's thread works, and that they go on over
//! reconnects.
//!
//! In a Xen guest, as root, with a vif that the kernel's driver has given up:
//!
//! ```sh
//! netfront take --vif 1
//! cargo run --release --example count -- --vif 1
//! ```
//!
//! On the simulated Xen, with a backend that sends as fast as its frames are taken:
//!
//! ```sh
//! cargo run --release -p netback-sim -- serve --sim /tmp/xen --generate 1500
//! cargo run --release --example count -- --sim /tmp/xen
//! ```

mod common;

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netfront::stats::QueueStats;
use netfront::Device;

fn main() -> Result<(), Box<dyn Error>> {
    let domain = common::domain()?;
    let mut device = Device::builder(common::vif()?).connect(&domain)?;
    // The counters have one writer, the queue's thread, and any number of readers.
    let stats = Arc::clone(device.queue().stats());
    thread::spawn(move || print(&stats));
    common::turns(device, |device| {
        let queue = device.queue();
        // Nothing is done with the packets: their pages are posted again at once. What is not copied
        // costs nothing either: of a large packet only the headers were read.
        let found = queue.receive(256, |_packet| {})?;
        queue.flush()?;
        if found == 0 {
            queue.wait(Duration::from_secs(1))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(())
}

/// One line a second.
fn print(stats: &QueueStats) {
    let mut before = stats.snapshot();
    let mut then = Instant::now();
    loop {
        thread::sleep(Duration::from_secs(1));
        let (now, at) = (stats.snapshot(), Instant::now());
        let (since, seconds) = (now.since(&before), (at - then).as_secs_f64());
        let rate = |name: &str| since.get(name) as f64 / seconds;
        println!(
            "{:>10.0} packets/s {:>12.0} bytes/s {:>8.0} events/s",
            rate("rx_packets"),
            rate("rx_bytes"),
            rate("events")
        );
        for (name, value) in &since.0 {
            if name.starts_with("rx_drop_") && *value > 0 {
                println!("    {name}: {value}");
            }
        }
        (before, then) = (now, at);
    }
}
