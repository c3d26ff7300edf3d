//! An hour of virtual time: the ring is filled again whatever the consumer does, so a backend never sees it empty for as
//! long as it takes to give the guest up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::VecDeque;

use common::{count, frame, World};
use netfront::{OwnedPacket, QueueConfig};

/// A step of virtual time, and how many there are in an hour.
const STEP_MS: u64 = 100;
const STEPS: u64 = 3600 * 1000 / STEP_MS;
/// netback's `rx_stall_timeout_msecs`: a frontend that has posted too few pages for so long loses its carrier.
const STALL_MS: u64 = 60_000;
/// Packets that a consumer keeps; more it drops.
const ROOM: usize = 2000;

/// How many of the packets that it holds a consumer is done with, at each step.
type Pace = fn(step: u64, held: usize) -> usize;

const CONSUMERS: [(&str, Pace); 4] = [
    ("fast", |_, held| held),
    ("slow", |_, held| held.min(1)),
    (
        "bursty",
        |step, held| if step.is_multiple_of(300) { held } else { 0 },
    ),
    ("stopped", |_, _| 0),
];

#[test]
fn in_an_hour_of_any_consumer_drops_are_counted_and_the_backend_never_stalls() {
    for (name, pace) in CONSUMERS {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig::default());
        let mut held = VecDeque::<OwnedPacket>::new();
        let (mut sent, mut dropped, mut stalled, mut longest) = (0u64, 0u64, 0, 0);
        let large = frame(1500, 1);
        for step in 0..STEPS {
            // Two packets a step, and now and then a burst as large as the ring.
            let wanted = if step.is_multiple_of(600) { 256 } else { 2 };
            let room = back.take_posted();
            for _ in 0..wanted.min(room) {
                back.deliver(&large);
                sent += 1;
            }
            stalled = if room < wanted.min(18) {
                stalled + STEP_MS
            } else {
                0
            };
            longest = longest.max(stalled);
            queue
                .receive(512, |packet| {
                    if held.len() < ROOM {
                        held.push_back(packet.detach());
                    } else {
                        dropped += 1;
                    }
                })
                .unwrap();
            queue.flush().unwrap();
            held.drain(..pace(step, held.len()));
        }
        queue.export();
        assert!(longest < STALL_MS / 10, "{name}: stalled for {longest} ms");
        assert_eq!(count(&queue, "rx_packets"), sent, "{name}");
        assert_eq!(
            dropped > 0,
            matches!(name, "slow" | "stopped"),
            "{name}: {dropped}"
        );
        if name != "fast" {
            assert!(count(&queue, "rx_condensed") > 0, "{name}");
        }
        drop(held);
        let [rx, _] = queue.pools();
        rx.collect();
        let census = rx.census();
        let all = census.free + census.posted + census.leased + census.quarantined;
        assert_eq!((all, census.leased), (census.granted, 0), "{name}");
    }
}
