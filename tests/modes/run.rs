//! One run: a vif of a simulated Xen in service in one mode, at several loads, and idle.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netback_sim::{Backend, Config};
use netfront::consumer::Echo;
use netfront::engine::moderation::{Mode, SharedMode};
use netfront::engine::receiver::Tuning;
use netfront::engine::{serve, Service};
use netfront::Device;
use netfront_tests::stage::{Stage, FRONT};

use crate::pinger::{Pinger, Pings};

/// Until a change of the rate is felt everywhere.
const SETTLE: Duration = Duration::from_millis(300);
/// Until a silent driver has come to rest.
const REST: Duration = Duration::from_secs(3);

/// Frames that are sent to the driver, which sends them back.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Frames a second.
    pub rate: u64,
    /// Frames that are sent back to back.
    pub burst: u64,
}

/// What every run does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub loads: [Load; 4],
    /// How long each part is looked at.
    pub time: Duration,
}

/// Frames at one load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trips {
    pub frames: usize,
    /// Microseconds, there and back.
    pub half: f64,
    pub most: f64,
    pub cost: Cost,
}

/// What the packet thread took of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Of one processor.
    pub cpu_percent: f64,
    /// Times a second that it slept and was woken.
    pub wakeups: f64,
    /// Events of the backend a second.
    pub events: f64,
}

/// What was seen of one mode.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// In the order of [`Plan::loads`].
    pub loads: [Trips; 4],
    pub idle: Cost,
}

/// Runs a mode.
///
/// # Errors
/// What the driver says.
pub fn run(mode: Mode, plan: Plan) -> Result<Seen, Box<dyn std::error::Error>> {
    let stage = Stage::new();
    let pings = Arc::<Pings>::default();
    let [first, ..] = plan.loads;
    pings.begin(first.rate, first.burst);
    let _backend = Backend::start(&stage.back, Config::new(FRONT, Pinger::new(&pings)))?;
    let service = Service::tuned(Tuning {
        mode: SharedMode::new(mode),
        ..Tuning::default()
    });
    let domain = stage.guest();
    let mut seen = Seen::default();
    let done = thread::scope(|scope| {
        let driver = scope.spawn(|| {
            let stats = Arc::clone(service.all_stats());
            let device = Device::builder(0).connect_counting_each(&domain, stats)?;
            serve(device, &mut Echo::default(), &service)
        });
        while service.thread(0).is_none() && !driver.is_finished() {
            thread::sleep(Duration::from_millis(10));
        }
        let sleep = |time: Duration| {
            let begun = Instant::now();
            while begun.elapsed() < time && !driver.is_finished() {
                thread::sleep(Duration::from_millis(50));
            }
        };
        let watch = |time: Duration| {
            let (begun, before) = (Instant::now(), Taken::by(&service));
            sleep(time);
            Taken::by(&service).since(before, begun.elapsed())
        };
        let trips = |load: Load| {
            pings.begin(load.rate, load.burst);
            sleep(SETTLE);
            pings.begin(load.rate, load.burst);
            let cost = watch(plan.time);
            Trips::of(&pings.found(), cost)
        };
        seen.loads = plan.loads.map(trips);
        pings.begin(0, 1);
        sleep(REST);
        seen.idle = watch(plan.time);
        service.stop();
        driver.join()
    });
    done.map_err(|_| "the driver's thread panicked")??;
    Ok(seen)
}

impl Trips {
    fn of(nanoseconds: &[u64], cost: Cost) -> Self {
        let within = |percent: usize| {
            let place =
                (nanoseconds.len() * percent / 100).min(nanoseconds.len().saturating_sub(1));
            nanoseconds
                .get(place)
                .map_or(f64::NAN, |&time| time as f64 / 1000.0)
        };
        Self {
            frames: nanoseconds.len(),
            half: within(50),
            most: within(99),
            cost,
        }
    }
}

/// Of the packet thread, since it began.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    nanoseconds: u64,
    sleeps: u64,
    events: u64,
}

impl Taken {
    /// What the kernel tells; zeros where it tells nothing.
    fn by(service: &Service) -> Self {
        let read = |file: &str| {
            let thread = service.thread(0)?;
            fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok()
        };
        let first = |text: &str| text.split_whitespace().next()?.parse().ok();
        let sleeps = |text: &str| {
            let mut lines = text.lines();
            first(lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?)
        };
        Self {
            nanoseconds: read("schedstat").and_then(|text| first(&text)).unwrap_or(0),
            sleeps: read("status").and_then(|text| sleeps(&text)).unwrap_or(0),
            events: service.snapshot().get("events"),
        }
    }

    fn since(self, before: Self, time: Duration) -> Cost {
        let seconds = time.as_secs_f64().max(1e-9);
        Cost {
            cpu_percent: self.nanoseconds.saturating_sub(before.nanoseconds) as f64 / seconds / 1e7,
            wakeups: self.sleeps.saturating_sub(before.sleeps) as f64 / seconds,
            events: self.events.saturating_sub(before.events) as f64 / seconds,
        }
    }
}
