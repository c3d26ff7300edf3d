//! Counts UDP datagrams for one IPv4 address, received on event cores: how many came, how many were lost, and what it took.
//!
//! `receive --address 10.0.0.2 [--port 9000] [--vif N] [--sim SOCKET] [--event-cores N] [--workers N]`
//! `        [--mode interrupt|adaptive|poll] [--restart-limit adaptive|time|burst|N] [--datagrams N] [--json]`
//!
//! A datagram begins with its number, eight bytes in network order, from 0 on; `datagrams` beside this file sends such. It
//! ends when one with the number 2^64 - 1 has come, or after `--datagrams`. ARP is answered; there is no other stack.
//!
//! It shows the engine's cores: the calling thread and, if so many are asked for, more of them take events and packets, and
//! work on them or steer them to workers by their connection.
//!
//! In a Xen guest, as root, with a vif that the kernel's driver has given up; dom0 has an address of the same network:
//!
//! ```sh
//! netfront take --vif 1
//! cargo run --release --example receive -- --vif 1 --address 10.0.0.2
//! cargo run --release --example datagrams -- send 10.0.0.2:9000          # in dom0
//! ```

mod common;

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use netfront::engine::cores::{Controls, Cores, Desk, End, Frame, Origin, Work};
use netfront::engine::moderation::Mode;
use netfront::engine::restart::Policy;
use netfront::{Device, Offload, OwnedPacket, Packet};
use serde_json::json;

/// The number of the datagram after the last one.
const LAST: u64 = u64::MAX;

fn main() -> Result<(), Box<dyn Error>> {
    let address = common::option("--address").ok_or("give --address A.B.C.D")?;
    let address: Ipv4Addr = address.parse()?;
    let port = common::option_or("--port", 9000)?;
    let cores = Cores::default()
        .event_cores(common::option_or("--event-cores", 1)?)
        .workers(common::option_or("--workers", 0)?)
        .restart(common::option_or("--restart-limit", Policy::Adaptive)?);
    let controls = Controls::new(common::option_or("--mode", Mode::Adaptive)?);
    let domain = common::domain()?;
    let mut device = Device::builder(common::vif()?).connect(&domain)?;
    let stats = Arc::clone(device.queue().stats());
    let counts = Arc::new(Counts::default());
    let most = common::option_or("--datagrams", u64::MAX)?;
    let mut works: Vec<Receive> = (0..cores.works())
        .map(|_| Receive {
            address,
            port,
            mac: device.link().mac,
            counts: Arc::clone(&counts),
            most,
            controls: controls.clone(),
        })
        .collect();
    println!("receiving for {address}:{port}");
    while !controls.is_stopping() {
        // Returns when somebody stops it, or called: then the device may have something to tell.
        match cores.run(vec![device.queue()], &mut works, &controls) {
            Ok(End::Stopped) => break,
            Ok(End::Called) if !common::is_over(&mut device) => continue,
            Ok(End::Called) => {}
            Err(error) if common::can_go_on(&error) => eprintln!("{error}"),
            Err(error) => return Err(error.into()),
        }
        device = common::again(device.disconnect());
        // A vif that was connected anew may have another address.
        let mac = device.link().mac;
        works.iter_mut().for_each(|work| work.mac = mac);
    }
    let sum = |name: &str| -> u64 {
        let cores = controls.cores();
        cores.iter().map(|core| core.snapshot().get(name)).sum()
    };
    let workers = controls.workers();
    let violations: u64 = workers.iter().map(|own| own.order_violations.get()).sum();
    let delivered = counts.delivered.load(Relaxed);
    let sent = counts.next.load(Relaxed);
    let wakeups = sum("wakeups") + sum("wakes");
    let report = json!({
        "delivered": delivered,
        "lost": sent.saturating_sub(delivered),
        "out_of_order": counts.late.load(Relaxed),
        "rounds": sum("rounds"),
        "budget_squeezes": sum("budget_squeezes"),
        "time_squeezes": sum("time_squeezes"),
        "hand_overs": sum("hand_overs"),
        "held": sum("held"),
        "limit": sum("limit"),
        "events": stats.events.get(),
        "wakeups": wakeups,
        "wakeups_a_packet": wakeups as f64 / delivered.max(1) as f64,
        "events_on_workers": controls.events_on_workers(),
        "order_violations": violations,
    });
    match common::flag("--json") {
        true => println!("{report}"),
        false => {
            for (name, value) in report.as_object().into_iter().flatten() {
                println!("{name}: {value}");
            }
        }
    }
    device.close()?;
    Ok(())
}

/// What all cores have counted.
#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    /// The number after the highest that came: so many were sent, if the last ones came.
    next: AtomicU64,
    /// Datagrams that came after one with a higher number.
    late: AtomicU64,
}

/// What is done with a packet.
struct Receive {
    address: Ipv4Addr,
    port: u16,
    mac: [u8; 6],
    counts: Arc<Counts>,
    most: u64,
    controls: Controls,
}

impl Receive {
    fn look(&self, head: &[u8], origin: &Origin, desk: &mut Desk<'_>) {
        if let Some(number) = self.number(head) {
            self.count(number);
        } else if let Some(bytes) = self.arp(head) {
            let frame = Frame {
                queue: origin.queue,
                bytes,
                offload: Offload::default(),
            };
            // What finds no room is dropped, as a network does; whoever asked asks again.
            let _ = desk.send(frame);
        }
    }

    /// The number of a datagram for us.
    fn number(&self, head: &[u8]) -> Option<u64> {
        let is_ours = head.get(12..15)? == [8, 0, 0x45]
            && head.get(23) == Some(&17)
            && head.get(30..34)? == self.address.octets()
            && head.get(36..38)? == self.port.to_be_bytes();
        let number = head.get(42..50).filter(|_| is_ours)?;
        Some(u64::from_be_bytes(number.try_into().ok()?))
    }

    fn count(&self, number: u64) {
        if number == LAST {
            return self.controls.stop();
        }
        let counts = &self.counts;
        let delivered = counts.delivered.fetch_add(1, Relaxed) + 1;
        let next = counts.next.fetch_max(number + 1, Relaxed);
        if number < next {
            counts.late.fetch_add(1, Relaxed);
        }
        if delivered >= self.most {
            self.controls.stop();
        }
    }

    /// The answer to whoever asks who has our address.
    fn arp(&self, head: &[u8]) -> Option<Vec<u8>> {
        let asks = head.get(12..14)? == [8, 6] && head.get(20..22)? == [0, 1];
        if !asks || head.get(38..42)? != self.address.octets() {
            return None;
        }
        let mut frame = head.to_vec();
        frame[21] = 2;
        frame.copy_within(22..32, 32);
        frame[22..28].copy_from_slice(&self.mac);
        frame[28..32].copy_from_slice(&self.address.octets());
        frame.copy_within(6..12, 0);
        frame[6..12].copy_from_slice(&self.mac);
        Some(frame)
    }
}

impl Work for Receive {
    fn work(&mut self, packet: OwnedPacket, origin: &Origin, desk: &mut Desk<'_>) {
        self.look(packet.head(), origin, desk);
    }

    /// In an event core nothing has to be kept: the packet is only looked at.
    fn deliver(&mut self, packet: &mut Packet<'_>, origin: &Origin, desk: &mut Desk<'_>) {
        self.look(packet.head(), origin, desk);
    }
}
