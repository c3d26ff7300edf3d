//! Writes what comes in to a pcap file, which tcpdump and Wireshark read.
//!
//! `capture --file OUT.pcap [--packets N] [--vif N] [--sim SOCKET]`
//!
//! It shows a consumer of one's own, put inside one of the library's, and the loop around both by hand.
//!
//! In a Xen guest, as root, with a vif that the kernel's driver has given up:
//!
//! ```sh
//! netfront take --vif 1
//! cargo run --example capture -- --vif 1 --file out.pcap --packets 1000
//! tcpdump -nr out.pcap
//! ```
//!
//! On the simulated Xen, with a backend that sends 1000 frames a second:
//!
//! ```sh
//! cargo run -p netback-sim -- serve --sim /tmp/xen --generate mix --rate 1000
//! cargo run --example capture -- --sim /tmp/xen --file out.pcap --packets 1000
//! ```

mod common;

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use netfront::consumer::{Capture, CaptureFile};
use netfront::engine::{round, sleep};
use netfront::{Consumer, Device, Packet};

/// A consumer of one's own: it is given every packet, and this one only counts.
#[derive(Default)]
struct Count {
    packets: u64,
}

impl Consumer for Count {
    fn deliver(&mut self, _packet: &mut Packet<'_>) {
        self.packets += 1;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(common::option("--file").ok_or("give --file OUT.pcap")?);
    let most = common::option_or("--packets", u64::MAX)?;
    let domain = common::domain()?;
    // 65535 bytes of each packet: a large segment is longer than the MTU.
    let file = CaptureFile::create(&path, 65_535)?;
    // Consumers go around each other: each packet is written, then counted.
    let mut consumer = Capture::new(Count::default(), file);
    let device = Device::builder(common::vif()?).connect(&domain)?;
    // `engine::serve` would do all of this loop. Here it is by hand, since it ends after so many packets.
    let device = common::turns(device, |device| {
        if consumer.inner().packets >= most {
            return Ok(ControlFlow::Break(()));
        }
        if round(device.queue(), &mut consumer)? == 0 {
            sleep(device.queue(), &consumer, Duration::from_secs(1))?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    println!("{} packets in {}", consumer.inner().packets, path.display());
    Ok(device.close()?)
}
