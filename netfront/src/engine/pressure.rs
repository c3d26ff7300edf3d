//! Back-pressure: what is done with packets whose consumer is behind, before anything was paid for them.
//!
//! Received packets that are thrown away later have cost their whole way: under overload a driver that takes all
//! it can get does nothing else, and nothing arrives (receive livelock). So a visit takes no more than the consumer
//! has room for. The rest stays in the ring, where it costs nothing; when the ring is full the backend drops,
//! which costs us nothing either.
//!
//! But a ring that is not emptied looks to the backend like a guest that died: Linux's netback drops packets that wait
//! for more than ten seconds, and after sixty without a free slot takes the carrier off, of all queues. So packets are
//! held for a bounded time only. After that they are taken, and those whose consumer has no room are dropped and counted,
//! until there is room again.
//!
//! Of several consumers one that is behind does not have the queue held: the ring is read in order, and packets for the others
//! would wait behind its own. It has twice [`Limits::high`] packets waiting, and what comes for it then is dropped and counted, before a
//! buffer is built. So packets stay in the ring when all are behind.

use std::time::Duration;

/// What a consumer is given before its queue is held; of several, what each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Packets on their way to the consumer, at which its queue is held. More of them is more throughput in bursts
    /// and more latency. Where both share a core, the core changes hands once for so many packets: with 128 that cost more
    /// than 3 % in one of the harness's worlds, with 256 in none.
    pub high: usize,
    /// The longest time that packets wait in the ring for a consumer without room.
    pub hold: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            high: 4 * super::WEIGHT,
            hold: Duration::from_secs(1),
        }
    }
}

/// What a visit may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Take up to so many packets and hand them on.
    Take(usize),
    /// Leave them in the ring: no consumer has room.
    Hold,
    /// Take up to so many, and drop those whose consumer has no room.
    Drop(usize),
}

/// The back-pressure of one queue.
#[derive(Debug, Clone, Copy)]
pub struct Pressure {
    limits: Limits,
    /// Since when there has been no room.
    full: Option<Duration>,
    held: u64,
    dropped: u64,
}

impl Pressure {
    /// With nothing on its way.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            full: None,
            held: 0,
            dropped: 0,
        }
    }

    /// What a visit of `weight` may do, where `depth` packets are on their way to the consumer; of several consumers, to
    /// the one that has fewest: the packets of one that is behind are then for the caller to drop.
    pub fn room(&mut self, now: Duration, weight: usize, depth: usize) -> Room {
        let room = self.limits.high.saturating_sub(depth);
        if room > 0 {
            self.full = None;
            return Room::Take(room.min(weight));
        }
        let since = *self.full.get_or_insert(now);
        if now.saturating_sub(since) >= self.limits.hold {
            return Room::Drop(weight);
        }
        self.held += 1;
        Room::Hold
    }

    /// So many packets were dropped as [`Room::Drop`] said.
    pub fn dropped(&mut self, packets: usize) {
        self.dropped += packets as u64;
    }

    /// When packets that are held now have to be looked at again, though there is no room.
    pub fn deadline(&self) -> Option<Duration> {
        self.full.map(|since| since + self.limits.hold)
    }

    /// How full the consumer is with `depth` packets on their way, in 256ths.
    pub fn occupancy(&self, depth: usize) -> u32 {
        let high = self.limits.high.max(1);
        u32::try_from(depth.saturating_mul(256) / high).unwrap_or(u32::MAX)
    }

    /// Visits that took nothing, and packets that were dropped.
    pub fn counters(&self) -> (u64, u64) {
        (self.held, self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHT: usize = 64;
    const LIMITS: Limits = Limits {
        high: 128,
        hold: Duration::from_secs(1),
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// S-3: packets that the consumer has no room for are not taken, so nothing is paid for them.
    #[test]
    fn a_visit_takes_no_more_than_the_consumer_has_room_for() {
        let mut pressure = Pressure::new(LIMITS);
        assert_eq!(pressure.room(at(0), WEIGHT, 0), Room::Take(64));
        assert_eq!(pressure.room(at(0), WEIGHT, 100), Room::Take(28));
        assert_eq!(pressure.room(at(0), WEIGHT, 128), Room::Hold);
        assert_eq!(pressure.room(at(0), WEIGHT, 1000), Room::Hold);
        assert_eq!(pressure.room(at(1), WEIGHT, 120), Room::Take(8));
        assert_eq!(pressure.counters(), (2, 0));
    }

    #[test]
    fn a_consumer_without_room_is_waited_for_and_then_passed_over() {
        let mut pressure = Pressure::new(LIMITS);
        assert_eq!(pressure.room(at(0), WEIGHT, 128), Room::Hold);
        assert_eq!(pressure.deadline(), Some(at(1000)));
        assert_eq!(pressure.room(at(999), WEIGHT, 128), Room::Hold);
        assert_eq!(pressure.room(at(1000), WEIGHT, 128), Room::Drop(64));
        pressure.dropped(64);
        assert_eq!(pressure.room(at(1001), WEIGHT, 128), Room::Drop(64));
        pressure.dropped(64);
        assert_eq!(
            pressure.room(at(1002), WEIGHT, 127),
            Room::Take(1),
            "it lives"
        );
        assert_eq!(pressure.deadline(), None);
        assert_eq!(
            pressure.room(at(1003), WEIGHT, 128),
            Room::Hold,
            "the time begins anew"
        );
        assert_eq!(pressure.counters(), (3, 128));
    }

    #[test]
    fn a_slow_consumer_is_never_dropped_for() {
        let mut pressure = Pressure::new(LIMITS);
        for packet in 0..100 {
            assert_eq!(pressure.room(at(packet * 900), WEIGHT, 127), Room::Take(1));
            assert_eq!(pressure.room(at(packet * 900), WEIGHT, 128), Room::Hold);
            assert_eq!(
                pressure.room(at(packet * 900 + 899), WEIGHT, 128),
                Room::Hold
            );
        }
    }

    /// Packets wait far less than netback's ten seconds, and its sixty until the carrier goes.
    #[test]
    fn the_hold_time_is_far_below_the_backends() {
        assert!(Limits::default().hold <= Duration::from_secs(10) / 10);
    }
}
