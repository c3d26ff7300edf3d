//! One run of one way: a simulated Xen, a backend that sends as fast as it can, the driver's threads.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use hypervisor::sim::server::Options;
use netback_sim::peer::{Pace, Source};
use netback_sim::traffic::{Generator, Sizes};
use netback_sim::{Backend, Config};
use netfront::engine::cores::{Controls, Desk, Origin, Work};
use netfront::{Device, OwnedPacket, Packet, QueueConfig};
use netfront_tests::stage::{Stage, FRONT};

use crate::store::Store;
use crate::ways::Way;

/// Connections.
pub const FLOWS: u16 = 64;
/// Queues of the vif: with an even number two event cores could not differ by one.
pub const QUEUES: u16 = 5;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);
/// Until the first packet must have come: tenfold what a loaded machine takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Queues that an event core may have more than another (K-5).
pub const EVEN: usize = 1;
/// Between two changes of what is bound to what.
const CHANGE: Duration = Duration::from_millis(1);

/// What all ways have in common.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// How long packets are counted.
    pub time: Duration,
    /// What is done with a packet takes so long.
    pub work: Duration,
}

/// What was seen of one way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    pub packets: u64,
    pub seconds: f64,
    /// Packets that came after a later one of their connection, from the beginning on.
    pub out_of_order: u64,
    /// The largest difference in queues of two event cores that were to have some, when all had come there. If they did not come
    /// in the end: what it was then, with the queues that were on none of these.
    pub spread: usize,
    /// Times that all queues had come to the event cores that they were bound to.
    pub settled: u64,
    /// Changes of what is bound to what.
    pub changes: u64,
    /// Wake-ups of workers.
    pub wakes: u64,
    /// Of event cores.
    pub core_wakeups: u64,
    pub events: u64,
    pub hand_overs: u64,
    /// The restart limit at the end, the highest of all event cores.
    pub limit: u64,
}

impl Seen {
    pub fn kpps(&self) -> f64 {
        self.packets as f64 / self.seconds.max(1e-9) / 1000.0
    }

    pub fn a_packet(&self, times: u64) -> f64 {
        times as f64 / self.packets.max(1) as f64
    }
}

/// What whoever works has counted.
struct Counted {
    /// The next number of each flow.
    next: Vec<AtomicU64>,
    packets: AtomicU64,
    out_of_order: AtomicU64,
    work: Duration,
}

impl Counted {
    /// A packet of the generator's: flow and number are where its documentation says.
    fn take(&self, head: &[u8]) {
        let flow = head.get(44..46).and_then(|bytes| bytes.try_into().ok());
        let number = head.get(46..54).and_then(|bytes| bytes.try_into().ok());
        let (Some(flow), Some(number)) = (flow, number) else {
            return;
        };
        let number = u64::from_be_bytes(number);
        if let Some(next) = self.next.get(usize::from(u16::from_be_bytes(flow))) {
            let is_late = next.fetch_max(number + 1, Relaxed) > number;
            self.out_of_order.fetch_add(is_late.into(), Relaxed);
        }
        if !self.work.is_zero() {
            let begun = Instant::now();
            while begun.elapsed() < self.work {
                spin_loop();
            }
        }
        self.packets.fetch_add(1, Relaxed);
    }
}

struct Worker<'c> {
    counted: &'c Counted,
    store: Option<&'c dyn Store>,
}

impl Work for Worker<'_> {
    fn work(&mut self, packet: OwnedPacket, _: &Origin, _: &mut Desk<'_>) {
        self.counted.take(packet.head());
    }

    fn deliver(&mut self, packet: &mut Packet<'_>, _: &Origin, _: &mut Desk<'_>) {
        match self.store {
            Some(store) => store.put(packet.detach()),
            None => self.counted.take(packet.head()),
        }
    }

    fn waiting(&self) -> usize {
        self.store.map_or(0, |store| store.waiting())
    }
}

/// Runs a way.
///
/// # Errors
/// What the driver says.
pub fn run(way: &Way, load: Load) -> Result<Seen, Box<dyn std::error::Error>> {
    let stage = Stage::with(Options::new().grant_limit(8192));
    let generator = Generator::new(Sizes::Fixed(64), FLOWS)?;
    let mut config = Config::new(FRONT, Source::new(generator, Pace::default()).blind());
    config.features.multi_queue_max = QUEUES;
    let _backend = Backend::start(&stage.back, config)?;
    let counted = Counted {
        next: (0..FLOWS).map(|_| AtomicU64::new(0)).collect(),
        packets: AtomicU64::new(0),
        out_of_order: AtomicU64::new(0),
        work: load.work,
    };
    let store = way.store()?;
    let store = store.as_deref();
    let controls = Controls::default();
    let mut seen = Seen::default();
    let done = thread::scope(|scope| {
        for worker in 0..way.workers_of_store() {
            let counted = &counted;
            scope.spawn(move || {
                while let Some(packet) = store.and_then(|store| store.take(worker)) {
                    counted.take(packet.head());
                }
            });
        }
        let (own, told) = (&counted, controls.clone());
        let stage = &stage;
        let driver = scope.spawn(move || drive(way, stage, own, store, &told));
        measure(way, load, &controls, &counted, store, &driver, &mut seen);
        controls.stop();
        let done = driver.join();
        if let Some(store) = store {
            store.end();
        }
        done
    });
    done.map_err(|_| "the driver's thread panicked")??;
    seen.out_of_order = counted.out_of_order.load(Relaxed);
    Ok(seen)
}

/// The driver, to its end.
fn drive(
    way: &Way,
    stage: &Stage,
    counted: &Counted,
    store: Option<&dyn Store>,
    controls: &Controls,
) -> Result<(), netfront::Error> {
    let domain = stage.guest();
    let queue = QueueConfig {
        rx_pages: 320,
        rx_limit: 384,
        tx_pages: 64,
        ..QueueConfig::default()
    };
    let builder = Device::builder(0).queues(QUEUES.into()).queue(queue);
    let mut device = builder.connect(&domain)?;
    let cores = way.cores();
    let mut works: Vec<_> = (0..cores.works())
        .map(|_| Worker { counted, store })
        .collect();
    while !controls.is_stopping() {
        cores.run(device.queues().collect(), &mut works, controls)?;
        while device.change().is_some() {}
    }
    device.close()
}

/// Waits for packets, and counts them for a time.
fn measure<T>(
    way: &Way,
    load: Load,
    controls: &Controls,
    counted: &Counted,
    store: Option<&dyn Store>,
    driver: &ScopedJoinHandle<'_, T>,
    seen: &mut Seen,
) {
    // Without any there is nothing to measure, which is told of in the end, and no reason to wait for ever.
    let begun = Instant::now();
    while counted.packets.load(Relaxed) == 0 && !driver.is_finished() {
        if begun.elapsed() > PATIENCE {
            return;
        }
        thread::sleep(CHANGE);
    }
    let mut changes = Changes::new(way.event_cores);
    let mut wait = |time: Duration, seen: &mut Seen| {
        let begun = Instant::now();
        while begun.elapsed() < time && !driver.is_finished() {
            thread::sleep(CHANGE);
            let spread = spread(controls, &changes.named);
            if spread <= EVEN {
                seen.spread = seen.spread.max(spread);
                seen.settled += 1;
            }
            if way.rebinds {
                changes.next(controls, spread);
                seen.changes += 1;
            }
        }
    };
    wait(WARM_UP, seen);
    let begun = Instant::now();
    let before = sample(controls, counted, store);
    wait(load.time, seen);
    let after = sample(controls, counted, store);
    seen.seconds = begun.elapsed().as_secs_f64();
    let since: Vec<u64> = after
        .iter()
        .zip(&before)
        .map(|(now, then)| now - then)
        .collect();
    if let [packets, wakes, core_wakeups, events, hand_overs] = since[..] {
        *seen = Seen {
            packets,
            wakes,
            core_wakeups,
            events,
            hand_overs,
            ..*seen
        };
    }
    let limits = controls.cores().into_iter().map(|core| core.limit.get());
    seen.limit = limits.max().unwrap_or(0);
    // Queues that are on their way come there; those that are lost do not.
    let begun = Instant::now();
    let mut last = spread(controls, &changes.named);
    while last > EVEN && begun.elapsed() < PATIENCE && !driver.is_finished() {
        thread::sleep(CHANGE);
        last = spread(controls, &changes.named);
    }
    seen.spread = seen.spread.max(last);
}

/// How far queues are from sitting evenly on these event cores, by what the cores count and not by what is wanted: how many the one
/// with most has more than the one with least, and those that are on none of them. On their way they may be anywhere.
fn spread(controls: &Controls, named: &[usize]) -> usize {
    let cores = controls.cores();
    let queues = |core: &usize| {
        cores
            .get(*core)
            .map_or(0, |core| core.queues.get() as usize)
    };
    let counts: Vec<usize> = named.iter().map(queues).collect();
    let most = counts.iter().max().copied().unwrap_or(0);
    let least = counts.iter().min().copied().unwrap_or(0);
    most - least + counts.iter().sum::<usize>().abs_diff(usize::from(QUEUES))
}

/// In the order in which [`measure`] takes them.
fn sample(controls: &Controls, counted: &Counted, store: Option<&dyn Store>) -> [u64; 5] {
    let cores = controls.cores();
    let sum = |name: &str| -> u64 { cores.iter().map(|core| core.snapshot().get(name)).sum() };
    let wakes = store.map_or_else(|| sum("wakes"), |store| store.wakes());
    [
        counted.packets.load(Relaxed),
        wakes,
        sum("wakeups"),
        sum("events"),
        sum("hand_overs"),
    ]
}

/// Changes that look random.
struct Changes {
    random: u64,
    /// The event cores that are to have the queues.
    named: Vec<usize>,
}

impl Changes {
    fn new(event_cores: usize) -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15,
            named: (0..event_cores).collect(),
        }
    }

    /// Another one, where queues have this spread now.
    fn next(&mut self, controls: &Controls, spread: usize) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        match self.random % 4 {
            // Of queues that are bound anew before they have come nobody could say that they ever did.
            0 if spread > EVEN => {}
            0 => {
                let cores: [&[usize]; 3] = [&[0], &[1], &[0, 1]];
                let named = cores[(self.random >> 8) as usize % 3];
                // Before the cores run there is nothing to bind.
                if controls.rebind(named).is_ok() {
                    self.named = named.to_vec();
                }
            }
            change => {
                let shift = change as usize;
                controls.remap(move |place| (place / shift + shift) % 2);
            }
        }
    }
}
