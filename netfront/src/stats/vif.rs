//! The counters of all queues of a vif.

use std::sync::{Arc, Mutex, PoisonError};

use super::{QueueStats, Snapshot};

/// The counters of all queues of a vif. They go on over reconnects, also those of a queue that the next
/// connection does not have.
#[derive(Debug, Default)]
pub struct VifStats {
    first: Arc<QueueStats>,
    /// Looked at when a connection is made and when somebody asks, never for a packet.
    others: Mutex<Vec<Arc<QueueStats>>>,
}

impl VifStats {
    /// With these counters for the first queue, which somebody reads already.
    pub fn beginning_with(first: Arc<QueueStats>) -> Self {
        Self {
            first,
            others: Mutex::default(),
        }
    }

    /// Those of the first queue, which every connection has.
    pub fn first(&self) -> &Arc<QueueStats> {
        &self.first
    }

    /// Those of the queue with this number; made if there are none yet.
    pub fn of(&self, queue: usize) -> Arc<QueueStats> {
        let Some(at) = queue.checked_sub(1) else {
            return Arc::clone(&self.first);
        };
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        while others.len() <= at {
            others.push(Arc::default());
        }
        Arc::clone(&others[at])
    }

    /// Those of every queue that there has been, in their order; one at least.
    pub fn all(&self) -> Vec<Arc<QueueStats>> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&self.first)
            .chain(others.iter())
            .map(Arc::clone)
            .collect()
    }

    /// The sum over all queues.
    pub fn snapshot(&self) -> Snapshot {
        let mut sum = Snapshot::default();
        for queue in self.all() {
            sum.add(&queue.snapshot());
        }
        sum
    }

    /// The queues from this number on are not there any more.
    pub(crate) fn ends_at(&self, queues: usize) {
        for gone in self.all().into_iter().skip(queues) {
            gone.clear_levels();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_its_own_counters_and_the_vif_their_sum() {
        let stats = VifStats::default();
        stats.of(0).rx_packets.add(1);
        stats.of(2).rx_packets.add(5);
        stats.of(2).rx_packets.add(1);
        assert_eq!(stats.first().rx_packets.get(), 1);
        let each: Vec<u64> = stats
            .all()
            .iter()
            .map(|queue| queue.rx_packets.get())
            .collect();
        assert_eq!(each, [1, 0, 6]);
        assert_eq!(stats.snapshot().get("rx_packets"), 7);
    }

    #[test]
    fn a_queue_that_the_next_connection_does_not_have_keeps_its_counts_and_has_no_pages() {
        let stats = VifStats::default();
        for queue in 0..2 {
            stats.of(queue).rx_packets.add(1);
            stats.of(queue).pool_granted.set(768);
        }
        stats.ends_at(1);
        let sum = stats.snapshot();
        assert_eq!((sum.get("rx_packets"), sum.get("pool_granted")), (2, 768));
    }
}
