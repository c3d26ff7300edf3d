//! A worker: takes packets out of its lanes, keeps them by connection, and works on them, one connection after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use super::counters::WorkerStats;
use super::flush::Flush;
use super::running::{unpoisoned, Running};
use super::work::{Arrived, Desk, Frame, Origin, Work};
use crate::engine::steering::{Bell, Connection, LaneReceiver, ReversePath, Steered, Store};
use crate::engine::WEIGHT;

pub(super) struct Worker<'r, 'q, W> {
    pub work: &'r mut W,
    pub running: &'r Running<'q>,
    /// By event core.
    pub lanes: Vec<LaneReceiver<Steered<Arrived>>>,
    pub bell: Arc<Bell>,
    pub back: ReversePath<Frame>,
    pub stats: Arc<WorkerStats>,
    store: Store<Arrived>,
    /// Connections that have packets in the store, in the order of their first.
    ready: VecDeque<Option<Connection>>,
    /// Packets of each lane that are in the store.
    taken: Vec<u64>,
    /// Of each queue, the number of the last packet that was taken.
    last: Vec<u64>,
    version: u64,
}

impl<'r, 'q, W: Work> Worker<'r, 'q, W> {
    pub fn new(
        work: &'r mut W,
        running: &'r Running<'q>,
        lanes: Vec<LaneReceiver<Steered<Arrived>>>,
        bell: Arc<Bell>,
        back: ReversePath<Frame>,
        stats: Arc<WorkerStats>,
        queues: usize,
    ) -> Self {
        let most = lanes.len() * WEIGHT;
        Self {
            work,
            running,
            taken: vec![0; lanes.len()],
            last: vec![0; queues],
            lanes,
            bell,
            back,
            stats,
            store: Store::new(most),
            ready: VecDeque::with_capacity(most),
            version: 0,
        }
    }

    /// Works until no event core is left and all lanes are empty.
    pub fn run(mut self) {
        loop {
            self.follow();
            let packets = self.turn();
            if packets > 0 {
                continue;
            }
            // Looked at before the lanes: what an event core sent before it ended is in them then.
            let may_end = self.running.workers_may_end();
            self.bell.rest();
            if self.lanes.iter().all(LaneReceiver::is_empty) {
                if may_end {
                    return;
                }
                if !self.running.workers_may_end() {
                    std::thread::park();
                    self.stats.wakeups.add(1);
                }
            }
            self.bell.resume();
        }
    }

    /// Queues that have another event core by now are sent to there.
    fn follow(&mut self) {
        let version = self.running.controls.version();
        if version != self.version {
            self.version = version;
            let owners = self.running.controls.wanted().owners(self.last.len());
            for (queue, core) in owners.into_iter().enumerate() {
                self.back.moved(queue, core);
            }
        }
    }

    /// Takes up to a weight of packets out of each lane, as of a queue, and works on all of them.
    fn turn(&mut self) -> u64 {
        let mut packets = 0;
        for (lane, taken) in self.lanes.iter_mut().zip(&mut self.taken) {
            // The store has room for a weight of each.
            while *taken < WEIGHT as u64 {
                let Some(Steered {
                    connection,
                    mut packet,
                }) = lane.take()
                else {
                    break;
                };
                *taken += 1;
                // Those of a queue come in their order, whatever lanes: an event core that gets a queue sends its first packet
                // when all that the old one sent are worked on. So this needs no lock, nor a look at the connection.
                if let Some(last) = self.last.get_mut(packet.queue) {
                    packet.is_late = packet.number <= std::mem::replace(last, packet.number);
                }
                if matches!(self.store.put(connection, packet), Ok(true)) {
                    self.ready.push_back(connection);
                }
            }
            packets += *taken;
        }
        if packets == 0 {
            return 0;
        }
        self.stats.turns.add(1);
        self.stats.connections.add(self.ready.len() as u64);
        let mut flush = Flush::default();
        while let Some(connection) = self.ready.pop_front() {
            self.work_on(connection, &mut flush);
        }
        let mut desk = Desk::worker(&mut self.back, &self.stats, &self.running.buffers);
        self.work.finish(&mut desk);
        // Only now: "finished" says that whatever comes of these packets has been handed on.
        for (lane, taken) in self.lanes.iter_mut().zip(&mut self.taken) {
            lane.finish(std::mem::take(taken));
        }
        self.stats.packets.add(packets);
        self.tell();
        packets
    }

    /// Tells the event cores what frames there are for them, and wakes those that sleep.
    fn tell(&mut self) {
        let running = self.running;
        self.back.end_round(|core| {
            if let Some(signal) = running.signal(core) {
                signal.waker.wake();
            }
        });
    }

    fn work_on(&mut self, connection: Option<Connection>, flush: &mut Flush) {
        while let Some(arrived) = self.store.take(&connection) {
            let mut is_late = arrived.is_late;
            if let Some(order) = &self.running.order {
                let key = (arrived.queue, connection);
                let before = unpoisoned(order).insert(key, arrived.number);
                is_late |= before.is_some_and(|before| before >= arrived.number);
            }
            // Here alone: who was late in its queue mostly is in its connection too, and is one packet.
            self.stats.order_violations.add(is_late.into());
            let origin = Origin {
                queue: arrived.queue,
                connection,
            };
            let mut desk = Desk::worker(&mut self.back, &self.stats, &self.running.buffers);
            self.work.work(arrived.packet, &origin, &mut desk);
            // After the last one the turn tells of them.
            if !self.store.is_empty() && self.back.is_owing() && flush.is_due(&self.running.clock) {
                self.tell();
            }
        }
    }
}

#[cfg(test)]
mod tests;
