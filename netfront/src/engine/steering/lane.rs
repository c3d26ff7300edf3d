//! A lane: the bounded way of packets from one event core to one worker.
//!
//! It is crossbeam's `ArrayQueue`, which would allow more producers and consumers than the two that these types let
//! there be. What it adds are two counts: what was put in, which only the event core knows, and what the worker has
//! *finished*. A packet that the worker has taken out and still works on is not finished; so "finished up to here" says
//! that whatever comes now, by any way, comes after. That is what moving a connection needs.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::progress::Progress;

#[derive(Debug)]
struct Shared<T> {
    queue: ArrayQueue<T>,
    finished: Progress,
}

/// The event core's end.
#[derive(Debug)]
pub struct LaneSender<T> {
    shared: Arc<Shared<T>>,
    sent: u64,
    /// What the worker had finished when it was last asked: by now it may be more.
    seen: u64,
}

/// The worker's end.
#[derive(Debug)]
pub struct LaneReceiver<T> {
    shared: Arc<Shared<T>>,
    taken: u64,
}

/// Makes a lane for up to `capacity` packets (at least one).
pub fn lane<T>(capacity: usize) -> (LaneSender<T>, LaneReceiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        finished: Progress::new(),
    });
    let sender = LaneSender {
        shared: Arc::clone(&shared),
        sent: 0,
        seen: 0,
    };
    (sender, LaneReceiver { shared, taken: 0 })
}

impl<T> LaneSender<T> {
    /// Puts a packet in.
    ///
    /// # Errors
    /// The packet, if the lane is full.
    pub fn send(&mut self, packet: T) -> Result<(), T> {
        self.shared.queue.push(packet)?;
        self.sent += 1;
        Ok(())
    }

    /// Whether the next [`Self::send`] finds room. As long as that follows from what the worker was seen to have finished, no
    /// word is read that it writes.
    pub(super) fn has_room(&mut self) -> bool {
        let capacity = self.shared.queue.capacity() as u64;
        if self.sent.saturating_sub(self.seen) < capacity {
            return true;
        }
        self.seen = self.finished();
        self.sent.saturating_sub(self.seen) < capacity || !self.shared.queue.is_full()
    }

    /// Packets that were put in since the beginning.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Packets that the worker has finished since the beginning.
    pub fn finished(&self) -> u64 {
        self.shared.finished.finished()
    }

    /// Packets that are on their way: put in and not finished.
    pub fn depth(&self) -> usize {
        self.sent.saturating_sub(self.finished()) as usize
    }

    /// Packets that can still be put in.
    pub fn room(&self) -> usize {
        let queue = &self.shared.queue;
        queue.capacity() - queue.len()
    }

    /// For another thread that has to know when the worker is so far.
    pub fn progress(&self) -> Progress {
        self.shared.finished.clone()
    }
}

impl<T> LaneReceiver<T> {
    /// Takes the next packet out.
    pub fn take(&mut self) -> Option<T> {
        let packet = self.shared.queue.pop()?;
        self.taken += 1;
        Some(packet)
    }

    /// True if there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.shared.queue.is_empty()
    }

    /// Packets taken out and not finished.
    pub fn unfinished(&self) -> u64 {
        self.taken - self.shared.finished.finished()
    }

    /// The `packets` that were taken out first, of those not finished, are finished now.
    pub fn finish(&mut self, packets: u64) {
        let finished = &self.shared.finished;
        let now = (finished.finished() + packets).min(self.taken);
        finished.set(now);
    }
}

#[cfg(test)]
mod tests {
    use super::lane;

    /// K-6: a lane is bounded: it gives back what does not fit, and keeps the order of what does.
    #[test]
    fn a_full_lane_gives_the_packet_back() {
        let (mut sender, mut receiver) = lane(2);
        assert_eq!(sender.send('a'), Ok(()));
        assert_eq!(sender.send('b'), Ok(()));
        assert_eq!(sender.send('c'), Err('c'));
        assert_eq!((sender.sent(), sender.room()), (2, 0));
        assert_eq!(receiver.take(), Some('a'));
        assert_eq!(sender.send('c'), Ok(()));
        assert_eq!(
            (receiver.take(), receiver.take(), receiver.take()),
            (Some('b'), Some('c'), None)
        );
    }

    #[test]
    fn a_lane_has_room_for_what_its_worker_took_out_and_the_sender_need_not_be_told() {
        let (mut sender, mut receiver) = lane(2);
        let mut can_send = |packet| (sender.has_room(), sender.send(packet).is_ok());
        assert_eq!(can_send(0), (true, true));
        assert_eq!(can_send(1), (true, true));
        assert_eq!(can_send(2), (false, false));
        receiver.take();
        assert_eq!(can_send(3), (true, true), "taken, but not finished");
        assert_eq!(can_send(4), (false, false));
        receiver.finish(1);
        assert_eq!(can_send(5), (false, false), "finished, but two are in it");
        receiver.take();
        receiver.take();
        receiver.finish(2);
        assert_eq!(can_send(6), (true, true));
        assert_eq!(can_send(7), (true, true));
        assert_eq!(can_send(8), (false, false));
    }

    #[test]
    fn a_packet_is_on_its_way_until_the_worker_has_finished_it() {
        let (mut sender, mut receiver) = lane(4);
        for packet in 0..3 {
            sender.send(packet).expect("room");
        }
        receiver.take();
        receiver.take();
        assert_eq!((sender.depth(), receiver.unfinished()), (3, 2));
        receiver.finish(1);
        assert_eq!((sender.depth(), sender.finished()), (2, 1));
        receiver.finish(100);
        assert_eq!(sender.finished(), 2, "never more than were taken");
    }
}
