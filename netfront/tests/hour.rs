//! An hour of virtual time: the driver's engine on a clock that the test moves, a backend that waits and gives up as netback
//! does, and a consumer that is behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use common::{count, frame, Back, World};
use netfront::engine::clock::{Clock, Manual};
use netfront::engine::receiver::{Receiver, Tuning};
use netfront::{Consumer, OwnedPacket, Packet, QueueConfig};

/// A step of virtual time, and how many there are in an hour.
const STEP: Duration = Duration::from_millis(100);
const STEPS: u64 = 36_000;
/// netback's `rx_stall_timeout_msecs`: a frontend that has posted too few pages for so long loses its carrier.
const STALL: Duration = Duration::from_secs(60);
/// netback's `rx_drain_timeout_msecs`: packets that wait longer are dropped.
const DRAIN: Duration = Duration::from_secs(10);
/// Packets that a backend keeps for a guest without pages; who sends more is told to wait, or loses them there.
const BACKLOG: usize = 64;
/// Packets that a consumer which says nothing of itself keeps; more it lets go.
const ROOM: usize = 2000;

/// How many of the packets that it holds a consumer is done with, at each step.
type Pace = fn(step: u64, held: usize) -> usize;

/// What a consumer tells the engine of the packets that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// How many there are: back-pressure.
    All,
    /// Nothing: it takes what comes.
    Nothing,
}

const CONSUMERS: [(&str, Says, Pace); 5] = [
    ("fast", Says::All, |_, held| held),
    ("slow", Says::All, |_, held| held.min(1)),
    ("bursty", Says::All, |step, held| {
        if step.is_multiple_of(300) {
            held
        } else {
            0
        }
    }),
    ("stopped", Says::All, |_, _| 0),
    ("silent and stopped", Says::Nothing, |_, _| 0),
];

/// A consumer that keeps packets until it is done with them.
struct Keeper {
    says: Says,
    held: VecDeque<OwnedPacket>,
    delivered: u64,
}

impl Consumer for Keeper {
    fn deliver(&mut self, packet: &mut Packet<'_>) {
        self.delivered += 1;
        if self.says == Says::All || self.held.len() < ROOM {
            self.held.push_back(packet.detach());
        }
    }

    fn waiting(&self) -> usize {
        match self.says {
            Says::All => self.held.len(),
            Says::Nothing => 0,
        }
    }
}

/// A backend's side of the hour: packets that wait for pages, and what becomes of them.
struct Netback<'c> {
    back: Back,
    clock: &'c Manual,
    /// When each that waits came.
    waiting: VecDeque<Duration>,
    arrived: u64,
    sent: u64,
    /// Found the backlog full.
    refused: u64,
    /// Waited longer than [`DRAIN`].
    expired: u64,
    /// The longest that one of them waited.
    longest_wait: Duration,
    /// When one was last sent, or none waited: what netback's stall detection goes by.
    last: Duration,
    longest_stall: Duration,
}

impl<'c> Netback<'c> {
    fn new(back: Back, clock: &'c Manual) -> Self {
        Self {
            back,
            clock,
            waiting: VecDeque::new(),
            arrived: 0,
            sent: 0,
            refused: 0,
            expired: 0,
            longest_wait: Duration::ZERO,
            last: Duration::ZERO,
            longest_stall: Duration::ZERO,
        }
    }

    /// So many packets come for the guest, and what has pages goes.
    fn step(&mut self, packets: u64, large: &[u8]) {
        let now = self.clock.now();
        self.arrived += packets;
        let room = (BACKLOG - self.waiting.len()) as u64;
        let posted = self.back.take_posted();
        // What goes at once needs no place in the backlog.
        let taken = packets.min(room + posted as u64);
        self.refused += packets - taken;
        self.waiting.extend((0..taken).map(|_| now));
        for _ in 0..posted.min(self.waiting.len()) {
            let came = self.waiting.pop_front().unwrap_or(now);
            self.longest_wait = self.longest_wait.max(now - came);
            self.back.put_pieces(&[large], 0, &Default::default());
            self.sent += 1;
            self.last = now;
        }
        self.back.publish();
        while self.waiting.front().is_some_and(|&came| now - came > DRAIN) {
            self.waiting.pop_front();
            self.expired += 1;
        }
        if self.waiting.is_empty() {
            self.last = now;
        }
        self.longest_stall = self.longest_stall.max(now - self.last);
    }
}

/// S-3: whatever the consumer does, each packet is delivered or counted as dropped, by the driver or where it waits for
/// pages, and the backend has no reason to give the guest up.
#[test]
fn in_an_hour_of_any_consumer_drops_are_counted_and_the_backend_never_stalls() {
    for (name, says, pace) in CONSUMERS {
        let world = World::new();
        let (mut queue, back) = world.pair(&QueueConfig::default());
        let clock = Manual::default();
        let mut netback = Netback::new(back, &clock);
        let mut receiver = Receiver::with_clock(Arc::<Tuning>::default(), &clock);
        let mut keeper = Keeper {
            says,
            held: VecDeque::new(),
            delivered: 0,
        };
        let large = frame(1500, 1);
        for step in 0..STEPS {
            // Two packets a step, and now and then a burst as large as the ring.
            netback.step(if step.is_multiple_of(600) { 256 } else { 2 }, &large);
            while !receiver.turn(&mut queue, &mut keeper).unwrap().rests {}
            let done = pace(step, keeper.held.len());
            keeper.held.drain(..done);
            clock.advance(STEP);
        }
        // What is left in the ring goes to a consumer that has all the time.
        keeper.held.clear();
        while receiver.turn(&mut queue, &mut keeper).unwrap().moved > 0 {
            keeper.held.clear();
        }
        queue.export();
        assert_eq!(clock.now(), STEP * STEPS as u32, "an hour");
        let dropped = count(&queue, "engine_dropped");
        println!(
            "{name}: {} came, {} delivered, {dropped} dropped by the driver, {} refused by the backend; \
             waited for a page {:?} at most",
            netback.arrived, keeper.delivered, netback.refused, netback.longest_wait
        );
        assert!(
            netback.longest_stall < STALL / 5,
            "{name}: no packet could be sent for {:?}",
            netback.longest_stall
        );
        assert!(
            netback.longest_wait < DRAIN,
            "{name}: {:?}",
            netback.longest_wait
        );
        assert_eq!(netback.expired, 0, "{name}");
        let waiting = netback.waiting.len() as u64;
        assert_eq!(
            netback.arrived,
            netback.sent + netback.refused + waiting,
            "{name}"
        );
        assert_eq!(count(&queue, "rx_packets"), netback.sent, "{name}");
        assert_eq!(netback.sent, keeper.delivered + dropped, "{name}");
        // A consumer that comes on, however slowly, is waited for: what it has no room for is not taken from the backend.
        assert_eq!(dropped > 0, ["bursty", "stopped"].contains(&name), "{name}");
        assert_eq!(
            count(&queue, "engine_held") > 0,
            says == Says::All && name != "fast",
            "{name}"
        );
        if says == Says::Nothing {
            assert!(count(&queue, "rx_condensed") > 0, "{name}");
        }
        drop(keeper);
        let [rx, _] = queue.pools();
        rx.collect();
        let census = rx.census();
        let all = census.free + census.posted + census.leased + census.quarantined;
        assert_eq!((all, census.leased), (census.granted, 0), "{name}");
    }
}
