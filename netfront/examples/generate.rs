//! A packet generator: frames of a size, at a rate or at full speed, with a line about them each second.
//!
//! `generate [--to MAC] [--size BYTES] [--rate FRAMES] [--count N] [--vif N] [--sim SOCKET]`
//!
//! Each frame carries its number and the time since the start in nanoseconds, both as 8 bytes, the most significant
//! first, behind the Ethernet header: so a receiver can tell what was lost and how late the rest came.
//! Without `--rate` frames go as fast as the backend takes them, without `--count` for ever.
//!
//! In a Xen guest, as root, with a vif that the kernel's driver has given up:
//!
//! ```sh
//! netfront take --vif 1
//! cargo run --release --example generate -- --vif 1 --to 00:16:3e:01:02:03 --size 1500 --rate 50000
//! tcpdump -ni vif1.0 -c 10 ether proto 0x88b5          # in dom0
//! ```
//!
//! On the simulated Xen, with a backend that writes what comes to a file:
//!
//! ```sh
//! cargo run --release -p netback-sim -- serve --sim /tmp/xen --sink --capture /tmp/out.pcap
//! cargo run --release --example generate -- --sim /tmp/xen --rate 1000 --count 5000
//! ```

mod common;

use std::error::Error;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use netfront::{Device, Offload, Queue, SendError};

/// An Ethernet type that is nobody's: for experiments on one's own network (IEEE 802).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Ethernet header, number, time.
const LEAST: usize = 14 + 8 + 8;
/// Frames of one batch: one publication and at most one event for all of them.
const BATCH: u64 = 64;

/// What is to be sent, and how much was.
struct Generator {
    payload: Vec<u8>,
    to: [u8; 6],
    /// Frames a second; 0: as fast as they are taken.
    rate: u64,
    count: u64,
    sent: u64,
    start: Instant,
    /// The lines, one a second.
    said: Instant,
    said_sent: u64,
}

impl Generator {
    fn from_options() -> Result<Self, Box<dyn Error>> {
        let size: usize = common::option_or("--size", 60)?;
        if !(LEAST..=65_535).contains(&size) {
            return Err(format!("--size {size}: {LEAST} to 65535 bytes are possible").into());
        }
        let now = Instant::now();
        Ok(Self {
            payload: vec![0; size - LEAST],
            to: common::destination()?,
            rate: common::option_or("--rate", 0)?,
            count: common::option_or("--count", u64::MAX)?,
            sent: 0,
            start: now,
            said: now,
            said_sent: 0,
        })
    }

    /// Frames that may go now.
    fn due(&self) -> u64 {
        let left = self.count - self.sent;
        if self.rate == 0 {
            return left.min(BATCH);
        }
        let by_now = (self.start.elapsed().as_secs_f64() * self.rate as f64) as u64;
        // What the backend did not take in time is not made up for at once.
        by_now.saturating_sub(self.sent).min(left).min(BATCH)
    }

    /// How long to sleep until the next frame is due.
    fn pause(&self) -> Duration {
        if self.rate == 0 || self.sent == self.count {
            return Duration::from_secs(1);
        }
        let next = Duration::from_secs_f64((self.sent + 1) as f64 / self.rate as f64);
        // Below the precision of a sleep there is no use in one: then a few frames go together.
        next.saturating_sub(self.start.elapsed())
            .clamp(Duration::from_micros(50), Duration::from_secs(1))
    }

    /// One batch. False when the ring is full.
    fn send(&mut self, queue: &mut Queue, mac: [u8; 6]) -> bool {
        for _ in 0..self.due() {
            let number = self.sent.to_be_bytes();
            let time = (self.start.elapsed().as_nanos() as u64).to_be_bytes();
            // The payload is the same for all, and never put together with the rest but in the page.
            let frame: [&[u8]; 6] = [&self.to, &mac, &EXPERIMENTAL, &number, &time, &self.payload];
            match queue.send(&frame, Offload::default()) {
                Ok(()) => self.sent += 1,
                // The size was judged at the start.
                Err(SendError::Full | SendError::Length(_)) => return false,
            }
        }
        true
    }

    /// A line about the last second, if it is over.
    fn say(&mut self) {
        let passed = self.said.elapsed();
        if passed < Duration::from_secs(1) {
            return;
        }
        let frames = self.sent - self.said_sent;
        println!("{}", self.rates(frames, passed));
        (self.said, self.said_sent) = (Instant::now(), self.sent);
    }

    fn rates(&self, frames: u64, time: Duration) -> String {
        let bytes = (self.payload.len() + LEAST) as f64;
        let rate = frames as f64 / time.as_secs_f64();
        format!("{rate:.0} frames/s, {:.3} Gbit/s", rate * bytes * 8.0 / 1e9)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut generator = Generator::from_options()?;
    let domain = common::domain()?;
    let device = Device::builder(common::vif()?).connect(&domain)?;
    // Time starts when frames can go.
    generator.start = Instant::now();
    let device = common::turns(device, |device| {
        let mac = device.link().mac;
        let queue = device.queue();
        let room = generator.send(queue, mac);
        // What comes in is of no interest, but its pages are needed for what comes next.
        queue.receive(BATCH as usize, |_| {})?;
        queue.flush()?;
        queue.reclaim()?;
        generator.say();
        if generator.sent == generator.count && queue.unanswered() == 0 {
            return Ok(ControlFlow::Break(()));
        }
        if !room {
            queue.stats().tx_stopped.add(1);
        }
        // Full speed: as long as there is room nothing sleeps.
        if !room || generator.due() == 0 {
            queue.wait(generator.pause())?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let whole = generator.start.elapsed();
    let rates = generator.rates(generator.sent, whole);
    println!("{} frames in {whole:.3?}: {rates}", generator.sent);
    Ok(device.close()?)
}
