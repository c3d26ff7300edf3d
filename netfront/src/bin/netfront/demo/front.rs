//! One frontend of the demo, a process of its own: what it allocates is counted by its own allocator.
//!
//! It prints a line of JSON when it is connected, every second, when the time is over, and at the end.
//! Allocations are those of the queue's thread: the control thread makes a few whenever it looks at the
//! store, whatever the traffic.

use std::io::{self, BufRead, Cursor, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netback_sim::traffic::{Counts, Generator, Verifier, FRAME_MAX};
use netfront::consumer::{Capture, CaptureFile, Consumer};
use netfront::engine::{round, sleep};
use netfront::hypervisor::{DomId, Domain};
use netfront::stats::Snapshot;
use netfront::{Device, Error, Offload, Packet, Queue, QueueConfig, QueueStats, SendError};
use rustix::time::{clock_gettime, ClockId};
use serde_json::json;

use crate::args::DemoFront;
use crate::failure::Failure;
use crate::output::say;

/// Makes verifiable packets and verifies those that come.
struct Load {
    generator: Generator,
    verifier: Verifier,
    buffer: Box<[u8]>,
    /// A frame that is made and found no room yet.
    waiting: Option<usize>,
    generating: Arc<AtomicBool>,
}

impl Consumer for Load {
    fn deliver(&mut self, packet: &mut Packet<'_>) {
        let mut pieces = [&[][..]; netfront::packet::MAX_FRAGMENTS + 1];
        let mut count = 0;
        for (piece, slice) in pieces.iter_mut().zip(packet.slices()) {
            *piece = slice;
            count += 1;
        }
        self.verifier.check(&pieces[..count]);
    }

    fn offer(&mut self, queue: &mut Queue, budget: usize) -> Result<usize, Error> {
        let mut sent = 0;
        while sent < budget && self.generating.load(Ordering::Relaxed) {
            let made = self
                .waiting
                .take()
                .or_else(|| self.generator.fill(&mut self.buffer));
            let Some(len) = made else { break };
            match queue.send(&[&self.buffer[..len]], Offload::default()) {
                Ok(()) => sent += 1,
                Err(SendError::Length(_)) => {}
                Err(SendError::Full) => {
                    self.waiting = Some(len);
                    break;
                }
            }
        }
        Ok(sent)
    }
}

/// What the queue's thread and the main thread share.
#[derive(Default)]
struct Shared {
    connected: AtomicBool,
    /// The time that is counted has begun, and is over.
    counting: AtomicBool,
    counted: AtomicBool,
    stop: AtomicBool,
    /// Of the queue's thread in that time; `u64::MAX` until it is known.
    allocations: AtomicU64,
    /// Packets to wait for before the end; `u64::MAX` as long as the other side still sends.
    expected: AtomicU64,
}

/// Runs the frontend.
pub fn front(args: &DemoFront) -> Result<(), Failure> {
    let domain = Domain::simulated(&args.sim, DomId(1))?;
    let stats = Arc::new(QueueStats::default());
    let shared = Arc::new(Shared {
        expected: AtomicU64::new(u64::MAX),
        allocations: AtomicU64::new(u64::MAX),
        ..Shared::default()
    });
    let generating = Arc::new(AtomicBool::new(true));
    let generator = Generator::new(args.frames, 4)
        .map_err(|error| Failure::Verdict(error.to_string()))?
        .between([0x02, 0, 0, 0, 0, 1], [0x02, 0, 0, 0, 0, 2]);
    let load = Load {
        generator,
        verifier: Verifier::new(),
        buffer: vec![0; FRAME_MAX].into_boxed_slice(),
        waiting: None,
        generating: Arc::clone(&generating),
    };
    let capture = match &args.capture {
        Some(path) => Some(CaptureFile::create(path, FRAME_MAX)?),
        None => None,
    };
    let worker = Worker {
        domain: domain.clone(),
        stats: stats.clone(),
        shared: shared.clone(),
    };
    let policy = args.policy;
    let thread = std::thread::Builder::new()
        .name("nf0q0".into())
        .spawn(move || worker.run(policy, load, capture))
        .map_err(Failure::io("starting the queue's thread"))?;

    let tick = Duration::from_millis(10);
    while !shared.connected.load(Ordering::Acquire) && !thread.is_finished() {
        std::thread::sleep(tick);
    }
    say!("{}", json!({ "event": "connected" }));
    std::thread::sleep(Duration::from_secs_f64(args.warm_up));
    shared.counting.store(true, Ordering::Release);
    let before = Moment::now(&stats, &domain);
    let start = Instant::now();
    watch(&stats, start, Duration::from_secs_f64(args.seconds), || {
        thread.is_finished()
    });
    let elapsed = start.elapsed();
    let measured = Moment::now(&stats, &domain).since(&before);
    shared.counted.store(true, Ordering::Release);
    let allocations = || shared.allocations.load(Ordering::Acquire);
    while allocations() == u64::MAX && !thread.is_finished() {
        std::thread::sleep(tick);
    }
    let allocations = allocations();

    generating.store(false, Ordering::Relaxed);
    say!("{}", json!({ "event": "measured" }));
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(Failure::io("reading standard input"))?;
    shared
        .expected
        .store(line.trim().parse().unwrap_or(0), Ordering::Release);
    shared.stop.store(true, Ordering::Release);
    let counts = thread
        .join()
        .map_err(|_| Failure::Verdict("the queue's thread panicked: a bug of netfront".into()))??;
    let mut result = measured.report(elapsed, allocations);
    result["event"] = "done".into();
    result["received_in_all"] = stats.rx_packets.get().into();
    result["sent_in_all"] = stats.tx_packets.get().into();
    result["lost"] = counts.lost.into();
    result["reordered"] = counts.reordered.into();
    result["corrupt"] = (counts.corrupt + counts.foreign + counts.duplicate).into();
    say!("{result}");
    Ok(())
}

struct Worker {
    domain: Domain,
    stats: Arc<QueueStats>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(
        self,
        policy: netfront::PoolPolicy,
        load: Load,
        capture: Option<CaptureFile>,
    ) -> Result<Counts, Failure> {
        match capture {
            Some(file) => {
                let mut capture = Capture::new(load, file);
                self.pump(policy, &mut capture)?;
                Ok(capture.inner().verifier.counts())
            }
            None => {
                let mut load = load;
                self.pump(policy, &mut load)?;
                Ok(load.verifier.counts())
            }
        }
    }

    fn pump(&self, policy: netfront::PoolPolicy, load: &mut dyn Consumer) -> Result<(), Failure> {
        let config = QueueConfig {
            policy,
            ..QueueConfig::default()
        };
        let mut device = Device::builder(0)
            .queue(config)
            .connect_counting(&self.domain, Arc::clone(&self.stats))?;
        let shared = &self.shared;
        shared.connected.store(true, Ordering::Release);
        while !shared.counting.load(Ordering::Acquire) {
            turn(&mut device, load)?;
        }
        let mut failed = Ok(());
        let counted = allocation_counter::measure(|| {
            while !shared.counted.load(Ordering::Acquire) && failed.is_ok() {
                failed = turn(&mut device, load);
            }
        });
        failed?;
        shared
            .allocations
            .store(counted.count_total, Ordering::Release);
        while !shared.stop.load(Ordering::Acquire) {
            turn(&mut device, load)?;
        }
        // What is under way is waited for, on this machine's clock and for no longer than this.
        let end = Instant::now() + Duration::from_secs(10);
        let expected = shared.expected.load(Ordering::Acquire);
        let all = |device: &mut Device| {
            self.stats.rx_packets.get() >= expected && device.queue().unanswered() == 0
        };
        while !all(&mut device) && Instant::now() < end {
            turn(&mut device, load)?;
        }
        Ok(device.close()?)
    }
}

/// One round, and a sleep if it found nothing.
fn turn(device: &mut Device, load: &mut dyn Consumer) -> Result<(), Error> {
    let queue = device.queue();
    if round(queue, load)? == 0 {
        sleep(queue, load, Duration::from_millis(20))?;
    }
    Ok(())
}

/// Prints a line a second without allocating.
fn watch(stats: &QueueStats, start: Instant, time: Duration, gone: impl Fn() -> bool) {
    let mut shown = (start, stats.rx_packets.get(), stats.tx_packets.get());
    while start.elapsed() < time && !gone() {
        std::thread::sleep(Duration::from_millis(10).min(time - start.elapsed().min(time)));
        let seconds = shown.0.elapsed().as_secs_f64();
        if seconds < 1.0 {
            continue;
        }
        let now = (
            Instant::now(),
            stats.rx_packets.get(),
            stats.tx_packets.get(),
        );
        let rate = |after: u64, before: u64| ((after - before) as f64 / seconds) as u64;
        let mut line = Cursor::new([0u8; 128]);
        let (rx, tx) = (rate(now.1, shown.1), rate(now.2, shown.2));
        let _ = writeln!(line, "{{\"event\":\"progress\",\"rx\":{rx},\"tx\":{tx}}}");
        let len = line.position() as usize;
        let _ = rustix::io::write(io::stdout(), &line.get_ref()[..len]);
        shown = now;
    }
}

/// Everything that is counted, at one moment.
struct Moment {
    queue: Snapshot,
    hypervisor: netfront::hypervisor::Counts,
    cpu: Duration,
}

impl Moment {
    fn now(stats: &QueueStats, domain: &Domain) -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Self {
            queue: stats.snapshot(),
            hypervisor: domain.counters(),
            cpu: Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        }
    }

    fn since(&self, before: &Self) -> Self {
        let (now, then) = (self.hypervisor, before.hypervisor);
        Self {
            queue: self.queue.since(&before.queue),
            hypervisor: netfront::hypervisor::Counts {
                hypercalls: now.hypercalls - then.hypercalls,
                grants: now.grants - then.grants,
                system_calls: now.system_calls - then.system_calls,
                ..now
            },
            cpu: self.cpu - before.cpu,
        }
    }

    fn report(&self, elapsed: Duration, allocations: u64) -> serde_json::Value {
        let get = |name| self.queue.get(name);
        let packets = get("rx_packets") + get("tx_packets");
        let bytes = get("rx_bytes") + get("tx_bytes");
        let each = |count: u64| {
            if packets == 0 {
                0.0
            } else {
                count as f64 / packets as f64
            }
        };
        let seconds = elapsed.as_secs_f64();
        let slots = get("rx_slots").max(1);
        json!({
            "packets": packets,
            "rx_packets": get("rx_packets"),
            "tx_packets": get("tx_packets"),
            "seconds": seconds,
            "mpps": packets as f64 / seconds / 1e6,
            "gbps": bytes as f64 * 8.0 / seconds / 1e9,
            "hypercalls_per_packet": each(self.hypervisor.hypercalls),
            "grants_per_packet": each(self.hypervisor.grants),
            "allocations_per_packet": each(allocations),
            "syscalls_per_packet": each(self.hypervisor.system_calls + get("polls")),
            "copied_bytes_per_packet": each(get("rx_copied_bytes") + get("tx_copied_bytes")),
            // The two counters are not read at one instant: a batch may be in one and not yet in the other.
            "recycle_share": (get("rx_recycled") as f64 / slots as f64).min(1.0),
            "cpu_seconds_per_million_packets": each(1_000_000) * self.cpu.as_secs_f64(),
        })
    }
}
