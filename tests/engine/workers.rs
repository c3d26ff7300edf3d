//! The workers of `many_cores`: they take what lanes bring into their stores, and work on it, one packet at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use netfront::engine::steering::{Bell, Connection, LaneReceiver, Steered, Store};

use super::parameters::Parameters;
use super::random::Times;
use super::ways::Way;

/// A packet on its way.
#[derive(Debug)]
pub struct Packet {
    /// When it came.
    pub came: u64,
    /// When it was put into a lane.
    pub ready: u64,
    /// Its connection, by number.
    pub connection: usize,
    /// Its number in the connection.
    pub number: u64,
}

/// A packet that waits in the store: its lane, when it was ready, its connection.
type Waiting = (usize, u64, Option<Connection>);

struct Worker {
    /// The time up to which it has worked.
    now: u64,
    lanes: Vec<LaneReceiver<Steered<Packet>>>,
    bell: Arc<Bell>,
    store: Store<Packet>,
    waiting: VecDeque<Waiting>,
    asleep: bool,
    wakes_at: Option<u64>,
}

/// All workers, and what was worked on.
pub struct Workers {
    workers: Vec<Worker>,
    /// By connection: when each packet was done, when it had come, its number.
    done: Vec<Vec<(u64, u64, u64)>>,
}

impl Workers {
    /// So many, without a lane.
    pub fn new(workers: usize, parameters: &Parameters) -> Self {
        let worker = |_| Worker {
            now: 0,
            lanes: Vec::new(),
            bell: Arc::new(Bell::new()),
            // No lane has more on its way than its queues' pressure allows, but those of a moved queue come on top.
            store: Store::new(64 * 1024),
            waiting: VecDeque::new(),
            asleep: false,
            wakes_at: None,
        };
        Self {
            workers: (0..workers).map(worker).collect(),
            done: vec![Vec::new(); parameters.connections.max(1) as usize],
        }
    }

    /// Gives a worker a lane; its bell is for the other end.
    pub fn attach(&mut self, worker: usize, lane: LaneReceiver<Steered<Packet>>) -> Arc<Bell> {
        let worker = &mut self.workers[worker];
        worker.lanes.push(lane);
        Arc::clone(&worker.bell)
    }

    /// A sleeping worker will run from then on.
    pub fn wake(&mut self, worker: usize, at: u64) {
        self.workers[worker].wakes_at.get_or_insert(at);
    }

    /// A packet was worked on.
    pub fn finished(&mut self, packet: Packet, at: u64) {
        self.done[packet.connection].push((at, packet.came, packet.number));
    }

    /// All workers go on until then.
    pub fn advance(&mut self, parameters: &Parameters, way: Way, until: u64) {
        let lock = if way == Way::MutexStore {
            parameters.lock_ns
        } else {
            0
        };
        for worker in &mut self.workers {
            while let Some(packet) = worker.next(parameters.work_ns + lock, until) {
                self.done[packet.connection].push((worker.now, packet.came, packet.number));
            }
        }
    }

    /// What was done between two moments: how much, how long it took, how much of it came after a later packet.
    pub fn report(self, from: u64, to: u64) -> (u64, Times, u64) {
        let (mut delivered, mut latency, mut out_of_order) = (0, Times::default(), 0);
        for mut packets in self.done {
            packets.sort_unstable();
            let mut last = 0;
            for (at, came, number) in packets {
                out_of_order += u64::from(number < last);
                last = last.max(number);
                if (from..to).contains(&at) {
                    delivered += 1;
                    latency.add(at - came);
                }
            }
        }
        (delivered, latency, out_of_order)
    }
}

impl Worker {
    /// The next packet that is done before `until`, which takes `cost`. `None`: there is none, and the time has come so far.
    fn next(&mut self, cost: u64, until: u64) -> Option<Packet> {
        if self.asleep {
            match self.wakes_at {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    self.wakes_at = None;
                    self.asleep = false;
                    self.bell.resume();
                }
                _ => {
                    self.now = self.now.max(until);
                    return None;
                }
            }
        }
        self.collect();
        let Some(&(lane, ready, connection)) = self.waiting.front() else {
            self.now = self.now.max(until);
            self.bell.rest();
            // By the rules a look has to follow. Nothing else runs here, and it was just taken.
            self.asleep = true;
            return None;
        };
        let done = self.now.max(ready) + cost;
        if done > until {
            return None;
        }
        self.now = done;
        self.waiting.pop_front();
        let packet = self.store.take(&connection);
        self.lanes[lane].finish(1);
        packet
    }

    fn collect(&mut self) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            while let Some(steered) = lane.take() {
                let (ready, connection) = (steered.packet.ready, steered.connection);
                self.store
                    .put(connection, steered.packet)
                    .expect("a store that is large enough");
                self.waiting.push_back((index, ready, connection));
            }
        }
    }
}
