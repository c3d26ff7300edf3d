//! How many events there are for the packets.

use netfront::{Offload, QueueConfig};
use xen_ring::Notify;

use crate::common::{count, frame, receive_all, World};

/// `rsp_event` is set beyond the next answer: a wake-up for each would cost more than the packets, and one for the last would come
/// when the backend has nothing to send any more.
#[test]
fn so_many_packets_in_flight_ring_once_when_half_of_them_and_one_are_answered() {
    for in_flight in [1, 2, 3, 8, 33, 100, 200] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig::default());
        for seed in 0..in_flight {
            let sent = frame(100, seed);
            queue.send(&[&sent], Offload::default()).unwrap();
        }
        queue.flush().unwrap();
        assert!(!queue.arm().unwrap(), "nothing is answered");
        let mut rang_at = Vec::new();
        for answer in 1..=in_flight {
            back.fetch().expect("a packet");
            back.publish();
            if back.notify[1] == Notify::Needed {
                rang_at.push(answer);
            }
        }
        assert_eq!(rang_at, [in_flight / 2 + 1], "of {in_flight}");
        assert_eq!(queue.reclaim().unwrap(), in_flight);
        // What is left of them rings no more, whoever arms again.
        assert!(!queue.arm().unwrap());
    }
}

/// Times that a batch goes each way.
const ROUNDS: usize = 200;

/// Events that both ends were sent while batches of so many frames went both ways: the guest's and the backend's.
fn events(split: bool, batch: usize) -> [u64; 2] {
    let world = World::new();
    let (mut queue, mut back) = world.pair_with(&QueueConfig::default(), split);
    for round in 0..ROUNDS {
        let frames: Vec<_> = (0..batch)
            .map(|seed| frame(100, round * batch + seed))
            .collect();
        for sent in &frames {
            queue.send(&[sent], Offload::default()).unwrap();
        }
        queue.flush().unwrap();
        // Both ends sleep between two batches: that is when events are needed.
        assert!(!queue.arm().unwrap());
        back.take_posted();
        for frame in &frames {
            back.fetch().expect("a packet");
            back.put_pieces(&[frame], 0, &Offload::default());
        }
        back.publish();
        assert!(!back.tx.final_check(1).unwrap());
        queue.take_events().unwrap();
        assert!(receive_all(&mut queue) == frames, "round {round}");
        assert_eq!(queue.reclaim().unwrap(), batch);
    }
    let sent = world.front.counters().notifications;
    [count(&queue, "events"), sent]
}

#[test]
fn one_channel_costs_the_guest_half_the_events_of_two_and_batches_share_them() {
    for batch in [1, 8, 64] {
        let packets = (2 * batch * ROUNDS) as f64;
        let [split, single] = [true, false].map(|split| events(split, batch));
        for (channels, [guest, backend]) in [("two channels", split), ("one channel", single)] {
            println!(
                "{channels}, batches of {batch}: {:.3} events a packet at the guest, {:.3} at the backend",
                guest as f64 / packets,
                backend as f64 / packets
            );
        }
        let rounds = ROUNDS as u64;
        // One for what came and one for what was answered; with one channel both are told at once.
        assert_eq!(split, [2 * rounds, rounds], "batches of {batch}");
        assert_eq!(single, [rounds, rounds], "batches of {batch}");
    }
}
