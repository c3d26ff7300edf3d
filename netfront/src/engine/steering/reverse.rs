//! The way back: what a worker sends goes to the event core that has the queue, since only that one may touch its ring.
//!
//! That there is such a way is our reading of the requirements, whose source shows the receiving half only. It is the same
//! lanes and bells the other way round, and the same rule keeps the order: when a queue has moved to another core, its
//! packets go to the old one until that has finished what it was sent.

use std::sync::Arc;

use super::bell::Bell;
use super::lane::LaneSender;
use super::table::{settle, TableCounters, Way};

/// An event core, as a worker reaches it.
#[derive(Debug)]
pub struct EventCore<T> {
    /// The way to it.
    pub lane: LaneSender<T>,
    /// Whether it sleeps.
    pub bell: Arc<Bell>,
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
    touched: Vec<bool>,
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
            touched: vec![false; cores.len()],
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
            *touched = true;
        }
        Ok(index)
    }

    /// The round is over: calls `wake` for each core that got packets and sleeps, once.
    pub fn end_round(&mut self, mut wake: impl FnMut(usize)) {
        for (index, (core, touched)) in self.cores.iter().zip(&mut self.touched).enumerate() {
            if std::mem::take(touched) && core.bell.ring() {
                wake(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::{lane, LaneReceiver};
    use super::*;

    fn path() -> (ReversePath<u32>, Vec<LaneReceiver<u32>>) {
        let (mut cores, mut lanes) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (sender, receiver) = lane(4);
            let bell = Arc::new(Bell::new());
            cores.push(EventCore { lane: sender, bell });
            lanes.push(receiver);
        }
        (ReversePath::new(cores, &[0, 1, 0]), lanes)
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
        let mut woken = Vec::new();
        path.end_round(|core| woken.push(core));
        assert_eq!(woken, [1], "the other one runs");
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
