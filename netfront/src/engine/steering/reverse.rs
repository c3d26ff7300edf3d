//! The way back: what a worker sends goes to the event core that has the queue, since only that one may touch its ring.
//!
//! That there is such a way is our reading of the requirements, whose source shows the receiving half only. It is the same
//! lanes and bells the other way round, and the same rule keeps the order: when a queue has moved to another core, its
//! packets go to the old one until that has finished what it was sent.
//!
//! An event core has other work too: what is in its lanes is raised as one kind of it ([`crate::engine::pending`]).

use std::sync::Arc;

use super::bell::Bell;
use super::lane::LaneSender;
use super::table::{settle, TableCounters, Way};
use crate::engine::pending::{Kind, Pending};
use crate::engine::WEIGHT;

/// An event core, as a worker reaches it.
#[derive(Debug)]
pub struct EventCore<T> {
    /// The way to it.
    pub lane: LaneSender<T>,
    /// Whether it sleeps.
    pub bell: Arc<Bell>,
    /// Where what is in the lane is raised for it.
    pub pending: Arc<Pending>,
    /// As which kind of work.
    pub kind: Kind,
}

/// A queue and its event core, by place.
#[derive(Debug)]
struct Target {
    way: Way,
    core: usize,
}

/// One worker's way back to all event cores.
#[derive(Debug)]
pub struct ReversePath<T> {
    cores: Vec<EventCore<T>>,
    queues: Vec<Target>,
    /// Packets of this round, by core.
    touched: Vec<usize>,
    counters: TableCounters,
}

impl<T> ReversePath<T> {
    /// To these event cores; `owners` tells the place of each queue's core among them.
    pub fn new(cores: Vec<EventCore<T>>, owners: &[usize]) -> Self {
        let target = |&core: &usize| Target {
            way: Way::to(core),
            core,
        };
        Self {
            touched: vec![0; cores.len()],
            queues: owners.iter().map(target).collect(),
            cores,
            counters: TableCounters::default(),
        }
    }

    /// A queue has another core now.
    pub fn moved(&mut self, queue: usize, core: usize) {
        if let Some(target) = self.queues.get_mut(queue) {
            target.core = core;
        }
    }

    /// Sends a packet to the core of its queue, and tells which. It hears of it with [`Self::end_round`].
    ///
    /// # Errors
    /// The packet, if the lane is full, or there is no such queue or core.
    pub fn send(&mut self, queue: usize, packet: T) -> Result<usize, T> {
        let Some(target) = self.queues.get_mut(queue) else {
            return Err(packet);
        };
        let cores = &self.cores;
        let finished = |core: usize| cores.get(core).map_or(u64::MAX, |own| own.lane.finished());
        settle(&mut target.way, target.core, &finished, &mut self.counters);
        let index = target.way.worker();
        let Some(core) = self.cores.get_mut(index) else {
            return Err(packet);
        };
        core.lane.send(packet)?;
        target.way.sent(core.lane.sent());
        if let Some(touched) = self.touched.get_mut(index) {
            *touched += 1;
            // In a long round a core that runs begins meanwhile, or the lane could fill up: but no atomic for each packet.
            if touched.is_multiple_of(WEIGHT) {
                core.pending.raise(core.kind);
            }
        }
        Ok(index)
    }

    /// True if a packet was sent since the last [`Self::end_round`].
    pub fn is_owing(&self) -> bool {
        self.touched.iter().any(|&packets| packets > 0)
    }

    /// The round is over, or as much of it as others may know of: raises the kind of each core that got packets, and calls `wake`
    /// for each of them that sleeps, once.
    pub fn end_round(&mut self, mut wake: impl FnMut(usize)) {
        for (index, (core, touched)) in self.cores.iter().zip(&mut self.touched).enumerate() {
            if std::mem::take(touched) == 0 {
                continue;
            }
            // Before its bell: a core that is about to sleep looks at what was raised.
            core.pending.raise(core.kind);
            if core.bell.ring() {
                wake(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::{lane, LaneReceiver};
    use super::*;

    const FRAMES: Kind = Kind::of::<3>();

    fn path_of(capacity: usize) -> (ReversePath<u32>, Vec<LaneReceiver<u32>>) {
        let (mut cores, mut lanes) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (sender, receiver) = lane(capacity);
            cores.push(EventCore {
                lane: sender,
                bell: Arc::default(),
                pending: Arc::default(),
                kind: FRAMES,
            });
            lanes.push(receiver);
        }
        (ReversePath::new(cores, &[0, 1, 0]), lanes)
    }

    fn path() -> (ReversePath<u32>, Vec<LaneReceiver<u32>>) {
        path_of(4)
    }

    #[test]
    fn a_core_that_runs_hears_of_each_weight_of_packets_before_the_round_is_over() {
        let (mut path, _lanes) = path_of(3 * WEIGHT);
        let mut raised = 0;
        for packet in 0..2 * WEIGHT as u32 + 1 {
            path.send(1, packet).expect("room");
            raised += u32::from(path.cores[1].pending.take_kind(FRAMES));
        }
        assert_eq!(raised, 2);
        assert!(path.is_owing());
        path.end_round(|_| panic!("it runs"));
        assert!(!path.is_owing());
        assert!(path.cores[1].pending.take_kind(FRAMES));
        path.end_round(|_| panic!("nothing was sent"));
        assert!(path.cores[1].pending.is_empty());
    }

    /// K-13: what a worker sends goes to the event core of the queue, which is woken once if it sleeps.
    #[test]
    fn packets_go_back_to_the_core_of_their_queue() {
        let (mut path, mut lanes) = path();
        path.cores[1].bell.rest();
        for (queue, packet) in [(0, 10), (1, 11), (2, 12), (1, 13)] {
            assert_eq!(path.send(queue, packet), Ok([0, 1, 0][queue]));
        }
        assert_eq!(path.send(3, 14), Err(14), "there is no such queue");
        for core in &path.cores {
            assert!(core.pending.is_empty(), "the round is not over");
        }
        let mut woken = Vec::new();
        path.end_round(|core| woken.push(core));
        assert_eq!(woken, [1], "the other one runs");
        for core in &path.cores {
            assert!(core.pending.take_kind(FRAMES), "whether it sleeps or runs");
        }
        let taken = lanes
            .iter_mut()
            .map(|lane| [lane.take(), lane.take(), lane.take()]);
        let taken: Vec<_> = taken.collect();
        assert_eq!(
            taken,
            [[Some(10), Some(12), None], [Some(11), Some(13), None]]
        );
    }

    /// K-13: also when the queue has moved: the old core is finished first.
    #[test]
    fn a_queue_that_moved_keeps_the_order_of_what_is_sent() {
        let (mut path, mut lanes) = path();
        assert_eq!(path.send(0, 1), Ok(0));
        path.moved(0, 1);
        assert_eq!(path.send(0, 2), Ok(0), "one is still on its way");
        lanes[0].take();
        lanes[0].take();
        assert_eq!(path.send(0, 3), Ok(0), "taken, but not yet in the ring");
        lanes[0].take();
        lanes[0].finish(3);
        assert_eq!(path.send(0, 4), Ok(1));
    }
}
