//! One core in virtual time: it receives, and beside that either runs the application, or has to share with a process
//! that has nothing to do with it.
//!
//! What decides is the engine's own code: `Schedule`, `BottomHalf` with its policy, `Pressure`, `Moderation`. What is
//! made up is the rest of the world: when packets come, what things cost, and what runs while the engine does not.

use std::collections::VecDeque;
use std::time::Duration;

use netfront::engine::bottom_half::{
    Activation, BottomHalf, Budgets, Reason, Source, Visit, VisitEnd,
};
use netfront::engine::clock::{Clock, Manual};
use netfront::engine::moderation::{Mode, Moderation, Settings, Step};
use netfront::engine::pressure::{Limits, Pressure, Room};
use netfront::engine::restart::Policy;
use netfront::engine::schedule::{Completion, Schedule};

use super::parameters::Parameters;
use super::random::{Arrivals, Pattern, Times};

/// What else the core does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Packets are captured by the engine itself; at each hand-over another process has the core for so long (µs).
    Hog(u64),
    /// The packets go to an application on the same core, which needs so long for one (ns).
    Application(u64),
    /// The same; it changes between two times after so long (µs).
    Phases(u64, u64, u64),
    /// The same with one time; after so long (µs) it takes nothing for as long, since it waits for something else.
    Stops(u64, u64),
}

/// Until a queue is looked at again whose packets are held: as the driver's receiver has it.
const HELD: Duration = Duration::from_micros(100);

/// One scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For the table.
    pub name: String,
    /// Packets of a visit.
    pub weight: usize,
    /// Offered packets, thousands a second.
    pub kpps: u64,
    /// When they come.
    pub pattern: Pattern,
    /// What else the core does.
    pub beside: Beside,
}

/// How the engine is set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The restart limit.
    pub policy: Policy,
    /// Back-pressure, if it is on.
    pub pressure: Option<Limits>,
    /// How it learns of packets.
    pub mode: Mode,
}

/// What was seen, after the warm-up.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Packets that came.
    pub offered: u64,
    /// Packets that the backend dropped, since ring and backend were full.
    pub lost: u64,
    /// Packets that reached the application, or were captured.
    pub delivered: u64,
    /// Packets that were received, and paid for, and thrown away since the application's queue was full.
    pub wasted: u64,
    /// Packets that were received and dropped at once, since the application had no room for as long as packets may be held.
    pub dropped: u64,
    /// The longest that packets stood in the ring and none was taken, in ns: what makes a guest look dead to the backend.
    pub stood: u64,
    /// Packets received.
    pub received: u64,
    /// Events.
    pub events: u64,
    /// From a packet's coming to its being delivered.
    pub latency: Times,
    /// Time in which the core did something for the network or the application, in ns.
    pub busy: u64,
    /// All time, in ns.
    pub time: u64,
    /// By how much the longest activation was over the time bound, in ns.
    pub over: u64,
    /// The longest visit with its completion, in ns.
    pub longest_visit: u64,
    /// Activations, rounds, hand-overs.
    pub activations: u64,
    /// The limits that there were: smallest, largest.
    pub limits: (u32, u32),
}

impl Seen {
    /// What was offered and not lost by anybody, in percent.
    pub fn percent(&self) -> f64 {
        100.0 - self.share(self.lost + self.wasted + self.dropped)
    }

    /// So many packets of what was offered, in percent.
    pub fn share(&self, packets: u64) -> f64 {
        100.0 * packets as f64 / self.offered.max(1) as f64
    }

    /// Delivered, thousands a second.
    pub fn kpps(&self) -> f64 {
        self.delivered as f64 * 1e6 / self.time.max(1) as f64
    }

    /// Thrown away of what was received, in percent.
    pub fn waste(&self) -> f64 {
        100.0 * self.wasted as f64 / self.received.max(1) as f64
    }

    /// Events for each received packet.
    pub fn events_a_packet(&self) -> f64 {
        self.events as f64 / self.received.max(1) as f64
    }

    /// Busy time in percent.
    pub fn busy_percent(&self) -> f64 {
        100.0 * self.busy as f64 / self.time.max(1) as f64
    }
}

/// The world of the one queue.
struct World<'a> {
    parameters: &'a Parameters,
    scenario: &'a Scenario,
    clock: &'a Manual,
    arrivals: Arrivals,
    /// When each packet came that waits: in the ring, then in the backend.
    waiting: VecDeque<u64>,
    /// When each came that waits for the application.
    queue: VecDeque<u64>,
    pressure: Option<Pressure>,
    schedule: Schedule,
    /// When a packet was last taken out of the ring.
    taken: u64,
    counting: bool,
    seen: Seen,
}

fn nanos(clock: &Manual) -> u64 {
    clock.now().as_nanos() as u64
}

impl World<'_> {
    fn spend(&mut self, nanos: u64) {
        self.clock.advance(Duration::from_nanos(nanos));
        if self.counting {
            self.seen.busy += nanos;
        }
    }

    /// Packets that came until now.
    fn arrive(&mut self) {
        let room = (self.parameters.ring_slots + self.parameters.backend_packets) as usize;
        while self.arrivals.peek() <= nanos(self.clock) {
            let came = self.arrivals.pop();
            self.seen.offered += u64::from(self.counting);
            if self.waiting.len() < room {
                self.waiting.push_back(came);
            } else {
                self.seen.lost += u64::from(self.counting);
            }
        }
    }

    fn in_ring(&self) -> usize {
        self.waiting.len().min(self.parameters.ring_slots as usize)
    }

    fn deliver(&mut self, came: u64) {
        if self.counting {
            self.seen.delivered += 1;
            self.seen.latency.add(nanos(self.clock) - came);
        }
    }

    /// The application waits for something else than packets.
    fn is_stopped(&self) -> bool {
        match self.scenario.beside {
            Beside::Stops(_, micros) => nanos(self.clock) / (micros * 1000).max(1) % 2 == 1,
            _ => false,
        }
    }

    /// The application works until then, or until it has nothing to do.
    fn application(&mut self, until: u64) {
        while nanos(self.clock) < until && !self.is_stopped() {
            let Some(came) = self.queue.pop_front() else {
                return;
            };
            let cost = match self.scenario.beside {
                Beside::Hog(_) => 0,
                Beside::Application(cost) | Beside::Stops(cost, _) => cost,
                Beside::Phases(first, second, micros) => {
                    match nanos(self.clock) / (micros * 1000).max(1) % 2 {
                        0 => first,
                        _ => second,
                    }
                }
            };
            self.spend(cost);
            self.deliver(came);
        }
    }

    /// The core is somebody else's, once.
    fn hand_over(&mut self) {
        self.spend(self.parameters.switch_ns);
        match self.scenario.beside {
            Beside::Hog(micros) => self.clock.advance(Duration::from_micros(micros)),
            _ if self.is_stopped() => self.clock.advance(HELD),
            _ => self.application(nanos(self.clock) + self.parameters.turn_us * 1000),
        }
        self.spend(self.parameters.switch_ns);
    }

    /// Nothing is to be received until then: the application works, or nobody does.
    fn until(&mut self, moment: u64) {
        self.application(moment);
        self.clock.reach(Duration::from_nanos(moment));
    }
}

impl Source for World<'_> {
    fn visit(&mut self, _queue: usize, weight: usize) -> Visit {
        let start = nanos(self.clock);
        self.arrive();
        let there = self.in_ring();
        let room = match &mut self.pressure {
            None => Room::Take(weight),
            Some(pressure) => pressure.room(self.clock.now(), weight, self.queue.len()),
        };
        let (packets, drops) = match room {
            Room::Take(room) => (there.min(room), false),
            Room::Hold => (0, false),
            Room::Drop(room) => (there.min(room), true),
        };
        if let Some(&came) = self.waiting.front().filter(|_| self.counting) {
            let stood = start.saturating_sub(came.max(self.taken));
            self.seen.stood = self.seen.stood.max(stood);
        }
        self.spend(self.parameters.visit_ns);
        for _ in 0..packets {
            self.spend(self.parameters.packet_ns);
            let Some(came) = self.waiting.pop_front() else {
                break;
            };
            self.taken = nanos(self.clock);
            self.seen.received += u64::from(self.counting);
            if drops {
                // As the driver does: none of these reaches the consumer, whether it has room again meanwhile or not.
                self.seen.dropped += u64::from(self.counting);
            } else if matches!(self.scenario.beside, Beside::Hog(_)) {
                self.deliver(came);
            } else if self.queue.len() < self.parameters.queue_packets as usize {
                self.queue.push_back(came);
            } else {
                self.seen.wasted += u64::from(self.counting);
            }
        }
        let took = nanos(self.clock) - start + self.parameters.complete_ns;
        self.seen.longest_visit = self.seen.longest_visit.max(took);
        let end = if packets == weight {
            VisitEnd::More
        } else if packets == there {
            VisitEnd::Complete
        } else {
            VisitEnd::Held
        };
        Visit { packets, end }
    }

    fn complete(&mut self, _queue: usize) -> Completion {
        self.spend(self.parameters.complete_ns);
        self.arrive();
        if !self.waiting.is_empty() {
            // What the ring's final check finds.
            let _ = self.schedule.schedule();
        }
        self.schedule.complete()
    }

    fn waiting(&self) -> usize {
        self.in_ring()
    }

    fn occupancy(&self) -> u32 {
        let pressure = self.pressure.as_ref();
        pressure.map_or(0, |pressure| pressure.occupancy(self.queue.len()))
    }
}

/// Runs a scenario.
pub fn run(parameters: &Parameters, scenario: &Scenario, setting: Setting) -> Seen {
    let clock = Manual::default();
    let mut world = World {
        parameters,
        scenario,
        clock: &clock,
        arrivals: Arrivals::new(scenario.kpps, scenario.pattern, 1),
        waiting: VecDeque::new(),
        queue: VecDeque::new(),
        pressure: setting.pressure.map(Pressure::new),
        schedule: Schedule::idle(),
        taken: 0,
        counting: false,
        seen: Seen::default(),
    };
    let budgets = Budgets {
        weight: scenario.weight,
        ..Budgets::default()
    };
    let mut core = BottomHalf::new(1, budgets, setting.policy.make());
    let mut moderation = Moderation::new(setting.mode, Settings::default());
    let mut step = Step::Arm {
        after: 1,
        within: None,
    };
    let start = parameters.warm_up_us * 1000;
    let end = parameters.run_us * 1000;
    let mut limits = (u32::MAX, 0);
    while nanos(&clock) < end {
        if !world.counting && nanos(&clock) >= start {
            world.counting = true;
            world.seen.time = end - nanos(&clock);
        }
        if core.is_idle() && !core.is_holding() {
            sleep(&mut world, step);
            if world.schedule.schedule() {
                core.list(0);
            }
        }
        let activation = core.run(&mut world, &clock);
        if world.counting {
            limits = (
                limits.0.min(activation.limit),
                limits.1.max(activation.limit),
            );
            note(&mut world.seen, &activation, budgets.time);
        }
        if activation.reason == Reason::Drained {
            step = moderation.drained(activation.packets, parameters.ring_slots as u32);
        } else {
            world.hand_over();
            let (pressure, depth) = (&mut world.pressure, world.queue.len());
            core.release(|_| {
                pressure
                    .as_mut()
                    .is_none_or(|pressure| pressure.room(clock.now(), 1, depth) != Room::Hold)
            });
        }
    }
    world.seen.limits = limits;
    world.seen
}

fn note(seen: &mut Seen, activation: &Activation, bound: Duration) {
    let over = activation.elapsed.saturating_sub(bound).as_nanos() as u64;
    seen.over = seen.over.max(over);
    seen.activations += 1;
}

/// What a drained queue does until it is looked at again.
fn sleep(world: &mut World<'_>, step: Step) {
    match step {
        Step::Poll => {}
        Step::Wait(time) => {
            let moment = nanos(world.clock) + time.as_nanos() as u64;
            world.until(moment);
            world.spend(world.parameters.look_ns);
        }
        Step::Arm { after, within } => {
            let limit = within.map(|time| nanos(world.clock) + time.as_nanos() as u64);
            world.arrive();
            let mut ahead = world.arrivals.clone();
            let missing = (after as usize).saturating_sub(world.waiting.len());
            let event = (0..missing).fold(0, |_, _| ahead.pop());
            match limit {
                Some(limit) if limit < event => {
                    world.until(limit);
                    world.spend(world.parameters.look_ns);
                }
                _ => {
                    world.until(event);
                    world.seen.events += u64::from(world.counting);
                    world.spend(world.parameters.event_ns);
                }
            }
        }
    }
}
