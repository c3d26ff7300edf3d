//! Counts UDP datagrams for one IPv4 address, received on event cores: how many came, how many were lost, and what it took.
//!
//! `receive --address 10.0.0.2 [--port 9000] [--vif N] [--sim SOCKET] [--queues N] [--event-cores N] [--workers N]`
//! `        [--mode interrupt|adaptive|poll] [--restart-limit adaptive|time|burst|N] [--datagrams N] [--work STEPS]`
//! `        [--rebind MILLISECONDS] [--check-order] [--json]`
//!
//! Datagrams carry numbers (`common/numbered.rs`); `datagrams` beside this file sends such. It ends when the sender says that
//! there are no more, or after `--datagrams`. ARP is answered; there is no other stack. `--work` has it do something with
//! each, `--rebind` moves queues between event cores and connections between workers all the time.
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
use std::ffi::CString;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::numbered::{self, Tally, END};
use netfront::device::thread_name;
use netfront::engine::cores::{Controls, Cores, Desk, End, Frame, Origin, Work};
use netfront::engine::moderation::Mode;
use netfront::engine::restart::Policy;
use netfront::stats::Snapshot;
use netfront::{Device, Offload, OwnedPacket, Packet};
use serde_json::{json, Value};

fn main() -> Result<(), Box<dyn Error>> {
    let address = common::option("--address").ok_or("give --address A.B.C.D")?;
    let address: Ipv4Addr = address.parse()?;
    let port = common::option_or("--port", 9000)?;
    let vif = common::vif()?;
    let queues = common::option_or("--queues", 1)?;
    let (event_cores, workers) = (
        common::option_or("--event-cores", 1)?,
        common::option_or("--workers", 0)?,
    );
    let mut cores = Cores::default()
        .event_cores(event_cores)
        .workers(workers)
        .interrupts((0..queues).map(|queue| thread_name(vif, queue)).collect())
        .restart(common::option_or("--restart-limit", Policy::Adaptive)?);
    if common::flag("--check-order") {
        cores = cores.check_order();
    }
    let controls = Controls::new(common::option_or("--mode", Mode::Adaptive)?);
    let domain = common::domain()?;
    // The interrupt of the first queue carries the name of the thread that opens it.
    rustix::thread::set_name(&CString::new(thread_name(vif, 0))?)?;
    let mut device = Device::builder(vif).queues(queues).connect(&domain)?;
    let tally = Arc::new(Tally::default());
    let most = common::option_or("--datagrams", u64::MAX)?;
    let steps = common::option_or("--work", 0)?;
    let mut works: Vec<Receive> = (0..cores.works())
        .map(|_| Receive {
            address,
            port,
            mac: device.link().mac,
            tally: Arc::clone(&tally),
            most,
            steps,
            controls: controls.clone(),
        })
        .collect();
    let moved = Arc::new(Moved {
        queues: device.link().queues as u64,
        ..Moved::default()
    });
    let every = common::option_or("--rebind", 0)?;
    if every > 0 {
        let (controls, moved) = (controls.clone(), Arc::clone(&moved));
        let every = Duration::from_millis(every);
        thread::spawn(move || moved.again(&controls, every, event_cores, workers));
    }
    println!("receiving for {address}:{port}");
    while !controls.is_stopping() {
        // Returns when somebody stops it, or called: then the device may have something to tell.
        match cores.run(device.queues().collect(), &mut works, &controls) {
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
    let mut report = tally.report();
    let took = took(&report, &device, &controls, &moved);
    if let (Some(report), Some(took)) = (report.as_object_mut(), took.as_object()) {
        report.extend(took.clone());
    }
    common::tell(&report);
    device.close()?;
    Ok(())
}

/// What it took to receive what is in the report.
fn took(report: &Value, device: &Device, controls: &Controls, moved: &Moved) -> Value {
    let cores: Vec<_> = controls
        .cores()
        .iter()
        .map(|core| core.snapshot())
        .collect();
    let workers: Vec<_> = controls
        .workers()
        .iter()
        .map(|worker| worker.snapshot())
        .collect();
    let sum = |name: &str| -> u64 { cores.iter().map(|core| core.get(name)).sum() };
    let each = |counts: &[Snapshot], name: &str| -> Vec<u64> {
        counts.iter().map(|counts| counts.get(name)).collect()
    };
    let delivered = report["delivered"].as_u64().unwrap_or_default();
    // Event cores that slept and woke, and workers that had to be woken.
    let wakeups = sum("wakeups") + sum("wakes");
    json!({
        "queues": device.link().queues,
        "rounds": sum("rounds"),
        "budget_squeezes": sum("budget_squeezes"),
        "time_squeezes": sum("time_squeezes"),
        "hand_overs": sum("hand_overs"),
        "held": sum("held"),
        "dropped": sum("dropped"),
        "limit": sum("limit"),
        "events": device.stats().snapshot().get("events"),
        "wakeups": wakeups,
        "wakeups_a_packet": wakeups as f64 / delivered.max(1) as f64,
        "events_on_workers": controls.events_on_workers(),
        "packets_by_event_core": each(&cores, "packets"),
        "packets_by_worker": each(&workers, "packets"),
        "order_violations": each(&workers, "order_violations").iter().sum::<u64>(),
        "rebindings": moved.times.load(Relaxed),
        "queues_moved": sum("queues_taken"),
        "settled": moved.settled.load(Relaxed),
        "largest_spread": moved.spread.load(Relaxed),
    })
}

/// What was bound anew.
#[derive(Default)]
struct Moved {
    /// Queues that there are.
    queues: u64,
    times: AtomicU64,
    /// Times that all queues were found on the event cores that they were bound to, evenly: before that they are not bound anew.
    settled: AtomicU64,
    /// The most queues that one of these had more than another then; or, with those that were on none of them, when it had taken
    /// [`LATE`].
    spread: AtomicU64,
}

/// By then queues are where they were bound to, or never will be: milliseconds are what it takes.
const LATE: Duration = Duration::from_secs(2);

impl Moved {
    /// Moves queues between event cores and places of the hash between workers, in an order that repeats in each run.
    fn again(&self, controls: &Controls, every: Duration, event_cores: usize, workers: usize) {
        let mut random = 1u64;
        let mut named: Vec<usize> = Vec::new();
        let mut bound = Instant::now();
        while !controls.is_stopping() {
            thread::sleep(every);
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            // The upper half: the lower bits of such numbers repeat soon.
            let bits = random >> 32;
            if self.have_come(controls, &named, bound.elapsed()) {
                let sets = (1u64 << event_cores.clamp(1, 16)) - 1;
                let set = 1 + bits % sets;
                named = (0..event_cores.min(16))
                    .filter(|core| (set >> core) & 1 == 1)
                    .collect();
                // Refused while no cores run.
                if controls.rebind(&named).is_err() {
                    named.clear();
                    continue;
                }
                bound = Instant::now();
                self.times.fetch_add(1, Relaxed);
            }
            if workers > 0 {
                controls.remap(|place| (bits >> (place % 16)) as usize % workers);
            }
        }
    }

    /// Whether queues may be bound anew: they are where they were bound to, or should be by now. By what the event cores count,
    /// not by what was wanted. Those that have not begun to move may be on cores that are to have some as well, all on one: so only
    /// an even spread says that they have come.
    fn have_come(&self, controls: &Controls, named: &[usize], since: Duration) -> bool {
        let cores = controls.cores();
        let queues = |core: &usize| cores.get(*core).map_or(0, |core| core.queues.get());
        let counts: Vec<u64> = named.iter().map(queues).collect();
        let (Some(most), Some(least)) = (counts.iter().max(), counts.iter().min()) else {
            // Nothing was bound yet.
            return true;
        };
        let missing = self.queues.abs_diff(counts.iter().sum::<u64>());
        let spread = most - least + missing;
        let is_settled = missing == 0 && spread <= 1;
        if is_settled {
            self.settled.fetch_add(1, Relaxed);
        }
        if is_settled || since >= LATE {
            self.spread.fetch_max(spread, Relaxed);
            return true;
        }
        false
    }
}

/// What is done with a packet.
struct Receive {
    address: Ipv4Addr,
    port: u16,
    mac: [u8; 6],
    tally: Arc<Tally>,
    most: u64,
    /// Steps of work for each datagram.
    steps: u32,
    controls: Controls,
}

impl Receive {
    fn look(&self, head: &[u8], origin: &Origin, desk: &mut Desk<'_>) {
        if let Some((flow, number)) = self.datagram(head) {
            self.count(flow, number);
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

    /// Flow and number of a datagram for us.
    fn datagram(&self, head: &[u8]) -> Option<(u16, u64)> {
        let is_ours = head.get(12..15)? == [8, 0, 0x45]
            && head.get(23) == Some(&17)
            && head.get(30..34)? == self.address.octets()
            && head.get(36..38)? == self.port.to_be_bytes();
        numbered::parse(head.get(42..).filter(|_| is_ours)?)
    }

    fn count(&self, flow: u16, number: u64) {
        if number == END {
            return self.controls.stop();
        }
        let delivered = self.tally.count(flow, number);
        numbered::work(number, self.steps);
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
