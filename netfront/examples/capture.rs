//! Writes what comes in to a pcap file, which tcpdump and Wireshark read.
//!
//! `capture --file OUT.pcap [--packets N] [--vif N] [--sim SOCKET]`

mod common;

use std::error::Error;
use std::path::PathBuf;

use netfront::consumer::{Capture, CaptureFile};
use netfront::engine::{round, sleep};
use netfront::{Change, Consumer, Device, Packet};
use std::time::Duration;

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
    let most = common::option("--packets").map_or(Ok(u64::MAX), |number| number.parse())?;
    let domain = common::domain()?;
    // 65535 bytes of each packet: a large segment is longer than the MTU.
    let file = CaptureFile::create(&path, 65_535)?;
    // Consumers go around each other: each packet is written, then counted.
    let mut consumer = Capture::new(Count::default(), file);
    let mut device = Device::builder(common::vif()?).connect(&domain)?;
    // `engine::serve` would do all of this loop, and reconnect too. Here it is by hand.
    while consumer.inner().packets < most {
        let moved = round(device.queue(), &mut consumer)?;
        if moved > 0 {
            continue;
        }
        sleep(device.queue(), &consumer, Duration::from_secs(1))?;
        if let Some(Change::BackendLeft(state)) = device.change() {
            println!("the backend left: {state}");
            break;
        }
    }
    println!("{} packets in {}", consumer.inner().packets, path.display());
    Ok(device.close()?)
}
