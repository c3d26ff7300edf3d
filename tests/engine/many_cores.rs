//! Several cores in virtual time: some take events, some work, and packets are steered between them.
//!
//! The engine's own code decides: `Binding`, `Schedule`, `BottomHalf`, `Pressure`, `Steering` with its lanes and bells, and
//! the workers' `Store`. Each core has a time of its own. The event core that is furthest behind goes on, by one
//! activation; before it rings a bell the workers are brought to its time. So cores see each other as they were up to one
//! visit ago: figures of single microseconds mean nothing here.

use std::collections::VecDeque;
use std::time::Duration;

use netfront::engine::bottom_half::{BottomHalf, Budgets, Source, Visit, VisitEnd};
use netfront::engine::clock::{Clock, Manual};
use netfront::engine::pressure::{Limits, Pressure, Room};
use netfront::engine::restart::Adaptive;
use netfront::engine::schedule::{Completion, Schedule};
use netfront::engine::steering::{
    lane, Binding, Connection, CoreId, Drain, Endpoint, Kind, Spread, Steering, Worker, COMMON_KEY,
};

use super::parameters::Parameters;
use super::random::{Arrivals, Pattern, Random};
use super::ways::{Seen, Way};
use super::workers::{Packet, Workers};

const EVENT_CORES: usize = 2;
const WORKERS: usize = 2;

struct Queue {
    waiting: VecDeque<Packet>,
    schedule: Schedule,
    pressure: Pressure,
    /// Its next packet makes an event.
    armed: bool,
    owner: usize,
    /// It moves to this core, once the old one has let go of it and what that one sent is finished.
    moves_to: Option<usize>,
    drain: Option<Drain>,
    /// When the old core let go.
    rested: u64,
}

struct World<'a> {
    parameters: &'a Parameters,
    way: Way,
    queues: Vec<Queue>,
    connections: Vec<Connection>,
    /// The last number of each connection's packets.
    numbers: Vec<u64>,
    arrivals: Arrivals,
    random: Random,
    workers: Workers,
    seen: Seen,
}

fn nanos(clock: &Manual) -> u64 {
    clock.now().as_nanos() as u64
}

fn spend(clock: &Manual, nanos: u64) {
    clock.advance(Duration::from_nanos(nanos));
}

impl World<'_> {
    fn counting(&self, now: u64) -> bool {
        now >= self.parameters.warm_up_us * 1000
    }

    /// Packets that came until then, each by the queue that the backend chooses for its connection.
    fn arrive(&mut self, until: u64) {
        let room = (self.parameters.ring_slots + self.parameters.backend_packets) as usize;
        while self.arrivals.peek() <= until {
            let came = self.arrivals.pop();
            self.seen.offered += u64::from(self.counting(came));
            let connection = self.random.below(self.connections.len() as u64) as usize;
            let queue = connection % self.queues.len();
            if self.queues[queue].waiting.len() < room {
                self.numbers[connection] += 1;
                self.queues[queue].waiting.push_back(Packet {
                    came,
                    ready: came,
                    connection,
                    number: self.numbers[connection],
                });
            }
        }
    }

    /// Packets in a queue's ring.
    fn in_ring(&self, queue: usize, now: u64) -> usize {
        let slots = self.parameters.ring_slots as usize;
        let waiting = &self.queues[queue].waiting;
        waiting
            .partition_point(|packet| packet.came <= now)
            .min(slots)
    }
}

/// One event core at work.
struct EventCore<'a, 'w> {
    index: usize,
    world: &'a mut World<'w>,
    clock: &'a Manual,
    steering: &'a mut Steering<Packet>,
}

impl EventCore<'_, '_> {
    fn room(&mut self, queue: usize, weight: usize) -> Room {
        if self.world.way == Way::NoSteering {
            return Room::Take(weight);
        }
        let depth = self.steering.least_depth();
        let pressure = &mut self.world.queues[queue].pressure;
        pressure.room(self.clock.now(), weight, depth)
    }

    fn hand_on(&mut self, mut packet: Packet) {
        let world = &mut *self.world;
        let parameters = world.parameters;
        let counting = world.counting(nanos(self.clock));
        spend(self.clock, parameters.packet_ns);
        if world.way == Way::NoSteering {
            spend(self.clock, parameters.work_ns);
            world.workers.finished(packet, nanos(self.clock));
            return;
        }
        spend(self.clock, parameters.steer_ns);
        if world.way == Way::MutexStore {
            spend(self.clock, parameters.lock_ns);
        }
        packet.ready = nanos(self.clock);
        let connection = match world.way {
            Way::RandomWorker => Connection {
                source: Endpoint {
                    port: world.random.bits() as u16,
                    ..Endpoint::default()
                },
                ..world.connections[packet.connection]
            },
            _ => world.connections[packet.connection],
        };
        let sent = self.steering.send_of(Some(connection), packet).is_ok();
        world.seen.sent += u64::from(sent && counting);
        if world.way == Way::WakePerPacket {
            spend(self.clock, parameters.wake_ns);
            world.seen.wakes += u64::from(counting);
            self.ring();
        }
    }

    /// Wakes the workers that sleep and have got something.
    fn ring(&mut self) {
        let world = &mut *self.world;
        let counting = world.counting(nanos(self.clock));
        world
            .workers
            .advance(world.parameters, world.way, nanos(self.clock));
        let (workers, seen) = (&mut world.workers, &mut world.seen);
        let once = world.way == Way::WakePerPacket;
        self.steering.end_round(|worker| {
            if !once {
                spend(self.clock, world.parameters.wake_ns);
                seen.wakes += u64::from(counting);
            }
            workers.wake(worker, nanos(self.clock) + world.parameters.wake_latency_ns);
        });
    }
}

impl Source for EventCore<'_, '_> {
    fn visit(&mut self, queue: usize, weight: usize) -> Visit {
        let now = nanos(self.clock);
        self.world.arrive(now);
        spend(self.clock, self.world.parameters.visit_ns);
        if self.world.queues[queue].schedule.is_disabling() {
            let end = VisitEnd::Complete;
            return Visit { packets: 0, end };
        }
        let there = self.world.in_ring(queue, now);
        let packets = match self.room(queue, weight) {
            Room::Take(room) | Room::Drop(room) => there.min(room),
            Room::Hold => 0,
        };
        for _ in 0..packets {
            if let Some(packet) = self.world.queues[queue].waiting.pop_front() {
                self.hand_on(packet);
            }
        }
        let end = if packets == weight {
            VisitEnd::More
        } else if packets == there {
            VisitEnd::Complete
        } else {
            VisitEnd::Held
        };
        Visit { packets, end }
    }

    fn complete(&mut self, queue: usize) -> Completion {
        spend(self.clock, self.world.parameters.complete_ns);
        let now = nanos(self.clock);
        self.world.arrive(now);
        let there = self.world.in_ring(queue, now) > 0;
        let own = &mut self.world.queues[queue];
        if there {
            // What the ring's final check finds.
            let _ = own.schedule.schedule();
        }
        let completion = own.schedule.complete();
        own.armed = completion == Completion::Idle;
        own.rested = now;
        completion
    }

    fn end_round(&mut self) {
        if self.world.way != Way::NoSteering {
            self.ring();
        }
    }

    fn waiting(&self) -> usize {
        let now = nanos(self.clock);
        let own =
            (0..self.world.queues.len()).filter(|&q| self.world.queues[q].owner == self.index);
        own.map(|queue| self.world.in_ring(queue, now)).sum()
    }
}

/// What is bound to what, and changes.
struct Cores {
    halves: Vec<BottomHalf<Adaptive>>,
    clocks: Vec<Manual>,
    steerings: Vec<Steering<Packet>>,
    binding: Binding,
    events: Vec<u64>,
}

impl Cores {
    /// One event core goes on, by an activation at most.
    fn step(&mut self, index: usize, world: &mut World<'_>) {
        let (clock, half) = (&self.clocks[index], &mut self.halves[index]);
        world.arrive(nanos(clock));
        for queue in 0..world.queues.len() {
            let own = &world.queues[queue];
            let waits = own.owner == index && own.moves_to.is_none() && own.armed;
            if !waits || world.in_ring(queue, nanos(clock)) == 0 {
                continue;
            }
            let own = &mut world.queues[queue];
            own.armed = false;
            spend(clock, world.parameters.event_ns);
            self.events[index] += 1;
            if own.schedule.schedule() {
                half.list(queue);
            }
        }
        let mut core = EventCore {
            index,
            world: &mut *world,
            clock,
            steering: &mut self.steerings[index],
        };
        half.release(|queue| {
            core.world.queues[queue].schedule.is_disabling() || core.room(queue, 1) != Room::Hold
        });
        if half.is_idle() {
            // The next packet, or a moment for the workers to catch up.
            let next = world.arrivals.peek().max(nanos(clock) + 1);
            clock.reach(Duration::from_nanos(next));
            world
                .workers
                .advance(world.parameters, world.way, nanos(clock));
            return;
        }
        half.run(&mut core, clock);
    }

    /// Queues that move and may go on with their new core.
    fn take_over(&mut self, world: &mut World<'_>) {
        for queue in 0..world.queues.len() {
            let own = &mut world.queues[queue];
            let Some(to) = own.moves_to.filter(|_| own.schedule.is_at_rest()) else {
                continue;
            };
            // Only now: what the old core has sent until it let go.
            let steering = &self.steerings[own.owner];
            if !own.drain.get_or_insert_with(|| steering.drain()).is_over() {
                continue;
            }
            (own.owner, own.moves_to, own.drain) = (to, None, None);
            world.seen.moves += 1;
            self.clocks[to].reach(Duration::from_nanos(own.rested));
            own.armed = true;
            if own.schedule.enable() {
                own.armed = false;
                self.halves[to].list(queue);
            }
            self.look_at_spread(world);
        }
    }

    /// Where queues are, once all are where they are wanted: on their way there they may be anywhere.
    fn look_at_spread(&self, world: &mut World<'_>) {
        if world.queues.iter().any(|queue| queue.moves_to.is_some()) {
            return;
        }
        let queues = |core: &CoreId| {
            let own = world.queues.iter();
            own.filter(|queue| queue.owner == *core as usize).count()
        };
        let counts: Vec<usize> = self.binding.cores().iter().map(queues).collect();
        let most = counts.iter().max().copied().unwrap_or(0);
        let least = counts.iter().min().copied().unwrap_or(0);
        // A queue on a core that is to have none is as far off as can be.
        let lost = world.queues.len() - counts.iter().sum::<usize>();
        world.seen.spread = world.seen.spread.max(most - least + lost);
    }

    /// Something is bound anew.
    fn rebind(&mut self, world: &mut World<'_>) {
        world.seen.rebindings += 1;
        let random = &mut world.random;
        let connection = world.connections[random.below(world.connections.len() as u64) as usize];
        let worker = random.below(WORKERS as u64) as usize;
        match random.below(8) {
            0 => {
                let bits = random.bits();
                for steering in &mut self.steerings {
                    steering.remap(|place| (bits.rotate_left(place as u32) & 1) as usize);
                }
            }
            1 => self
                .steerings
                .iter_mut()
                .for_each(|steering| steering.unbind(&connection)),
            2 | 3 => self.rebind_cores(world),
            _ => {
                for steering in &mut self.steerings {
                    // Refused when as many are bound as may be.
                    let _ = steering.bind(connection, worker);
                }
            }
        }
    }

    fn rebind_cores(&mut self, world: &mut World<'_>) {
        if world.queues.iter().any(|queue| queue.moves_to.is_some()) {
            return;
        }
        let both: &[CoreId] = &[0, 1];
        // One core alone only for a moment; then both again.
        let cores = match self.binding.cores().len() {
            1 => both,
            _ => &both[world.random.below(2) as usize..][..1],
        };
        let queues = world.queues.len();
        let moves = self.binding.rebind(queues, cores).expect("there are cores");
        for change in moves {
            let own = &mut world.queues[change.queue];
            own.moves_to = Some(change.to as usize);
            own.armed = false;
            // If it is being polled, its core lets go at the next visit.
            let _ = own.schedule.disable();
        }
    }
}

fn connections(count: u64) -> Vec<Connection> {
    let end = |host, port| Endpoint {
        address: [10, 0, 0, host, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        port,
    };
    (0..count)
        .map(|index| Connection {
            kind: Kind::UdpV4,
            source: end(1, 10_000 + index as u16),
            destination: end(2, 53),
        })
        .collect()
}

/// Runs one way.
pub fn run(parameters: &Parameters, way: Way) -> Seen {
    let event_cores = match way {
        Way::NoSteering => EVENT_CORES + WORKERS,
        Way::OneEventCore => 1,
        _ => EVENT_CORES,
    };
    let mut workers = Workers::new(WORKERS, parameters);
    let mut steerings = Vec::new();
    for _ in 0..event_cores {
        let mut ends = Vec::new();
        for worker in 0..WORKERS {
            let (sender, receiver) = lane(parameters.lane_packets as usize);
            let bell = workers.attach(worker, receiver);
            ends.push(Worker { lane: sender, bell });
        }
        steerings.push(Steering::new(ends, &COMMON_KEY, Spread::Symmetric, 64).expect("workers"));
    }
    let cores: Vec<CoreId> = (0..event_cores as CoreId).collect();
    let queues = parameters.queues.max(1) as usize;
    let binding = Binding::new(queues, &cores).expect("there are cores");
    let queue = |queue: usize| Queue {
        waiting: VecDeque::new(),
        schedule: Schedule::idle(),
        pressure: Pressure::new(Limits::default()),
        armed: true,
        owner: binding.core(queue).unwrap_or(0) as usize,
        moves_to: None,
        drain: None,
        rested: 0,
    };
    let mut world = World {
        parameters,
        way,
        queues: (0..queues).map(queue).collect(),
        connections: connections(parameters.connections.max(1)),
        numbers: vec![0; parameters.connections.max(1) as usize],
        arrivals: Arrivals::new(parameters.total_kpps, Pattern::Poisson, 2),
        random: Random::new(3),
        workers,
        seen: Seen::default(),
    };
    // Short activations, so that no core is far ahead of another.
    let budgets = Budgets {
        time: Duration::from_micros(20),
        ..Budgets::default()
    };
    let mut cores = Cores {
        halves: (0..event_cores)
            .map(|_| BottomHalf::new(queues, budgets, Adaptive::new()))
            .collect(),
        clocks: (0..event_cores).map(|_| Manual::default()).collect(),
        steerings,
        binding,
        events: vec![0; event_cores],
    };
    cores.look_at_spread(&mut world);
    let end = parameters.run_us * 1000;
    let mut next_rebinding = parameters.rebind_us * 1000;
    loop {
        let behind = (0..event_cores)
            .min_by_key(|&core| nanos(&cores.clocks[core]))
            .unwrap_or(0);
        let now = nanos(&cores.clocks[behind]);
        if now >= end {
            break;
        }
        if way == Way::Rebound && now >= next_rebinding {
            next_rebinding += parameters.rebind_us.max(1) * 1000;
            cores.rebind(&mut world);
        }
        cores.take_over(&mut world);
        cores.step(behind, &mut world);
    }
    finish(world, &cores, end)
}

fn finish(world: World<'_>, cores: &Cores, end: u64) -> Seen {
    let mut seen = world.seen;
    let from = world.parameters.warm_up_us * 1000;
    seen.time = end - from;
    let steered = cores
        .steerings
        .iter()
        .map(|steering| steering.counters().table.moved);
    seen.moves += steered.sum::<u64>();
    if world.way == Way::NoSteering {
        // The last of its cores are the workers of the other ways.
        seen.events_on_workers = cores.events[EVENT_CORES..].iter().sum();
    }
    let (delivered, latency, out_of_order) = world.workers.report(from, end);
    (seen.delivered, seen.latency, seen.out_of_order) = (delivered, latency, out_of_order);
    seen
}
