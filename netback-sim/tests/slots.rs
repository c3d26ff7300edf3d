//! Tables: every number of slots by every kind of length, both ways, with what lies in which slot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{until, Front, World, FRONT};
use netback_sim::Config;
use netfront_tests::wire::wire;
use xen_ring::{Offload, PAGE_SIZE};

/// The least and the most that netif carries, headers, the borders of pages, and what lies between.
const LENGTHS: [usize; 14] = [
    14, 15, 31, 60, 128, 256, 1514, 4096, 4097, 8191, 8192, 9014, 65_534, 65_535,
];
/// What netback asks to be in the first slot: an Ethernet header.
const FIRST: usize = 14;

fn frame(len: usize, seed: usize) -> Vec<u8> {
    let bytes = (0..len).map(|at| (at * 7 + at / 251 + seed * 31 + 1) as u8);
    let mut frame: Vec<u8> = bytes.collect();
    // From one host to another: no group that a filter would know.
    frame[..12].fill(2);
    frame
}

/// Where the pieces of `len` bytes end: evenly, the first as short or as long as it can be with one byte in the others.
fn ends(len: usize, slots: usize) -> Vec<Vec<usize>> {
    let evenly = (1..=slots).map(|at| at * len / slots).collect();
    let long_first = (0..slots).map(|at| len + 1 - slots + at).collect();
    let short_first = (0..slots - 1).map(|at| FIRST + at).chain([len]).collect();
    [evenly, long_first, short_first]
        .into_iter()
        .filter(|ends: &Vec<usize>| {
            let lengths = |at: usize| ends[at] - if at == 0 { 0 } else { ends[at - 1] };
            ends.is_sorted_by(|a, b| a < b)
                && ends[0] >= FIRST
                && (0..slots).all(|at| lengths(at) <= PAGE_SIZE)
        })
        .collect()
}

#[test]
fn a_guests_frame_of_every_length_arrives_whole_from_every_number_of_slots() {
    let world = World::new();
    let (peer, mut far) = wire();
    let backend = world.serve(peer);
    let mut front = Front::connect(world.guest());
    let mut frames = 0;
    for slots in 1..=18 {
        let full = (slots * PAGE_SIZE).min(65_535);
        for len in LENGTHS
            .into_iter()
            .chain([full])
            .filter(|len| *len >= slots)
        {
            let sent = frame(len, slots);
            for ends in ends(len, slots) {
                let mut from = 0;
                let pieces: Vec<&[u8]> = ends
                    .iter()
                    .map(|&end| &sent[std::mem::replace(&mut from, end)..end])
                    .collect();
                until("room", || {
                    front.reap();
                    front.send_pieces(&pieces, &Offload::default())
                });
                let what = format!("{len} bytes that end at {ends:?}");
                let came = far.wait(&what, |_| true);
                assert!(came == (sent.clone(), Offload::default()), "{what}");
                frames += 1;
            }
        }
    }
    until("answers", || front.settled());
    assert_eq!(front.answers[1..], [0, 0, 0]);
    let counters = backend.counters();
    assert_eq!((counters.tx_packets, counters.faults), (frames, 0));
    assert!(frames > 18 * 10, "{frames}");
}

/// A frontend may look for headers in the first slot only, and has no use for a slot without bytes.
#[test]
fn the_guest_gets_every_length_in_the_fewest_slots_with_the_headers_in_the_first() {
    for stagger in [false, true] {
        let world = World::new();
        let (peer, mut far) = wire();
        let _backend = world.serve_with(Config {
            stagger,
            ..Config::new(FRONT, peer)
        });
        let mut front = Front::connect(world.guest());
        front.post(Front::slots());
        // Each page has a start of its own: so many that all of them were tried.
        for (seed, len) in LENGTHS.into_iter().cycle().take(14 * 40).enumerate() {
            let sent = frame(len, seed);
            far.send(&sent, Offload::default());
            let what = format!("{len} bytes, stagger {stagger}");
            let mut came = Vec::new();
            until(&what, || {
                came.extend(front.receive_slots());
                !came.is_empty()
            });
            let received = came.remove(0);
            assert!(received.bytes == sent, "{what}");
            let slots = &received.slots;
            assert_eq!(slots.len(), len.div_ceil(PAGE_SIZE), "{what}: {slots:?}");
            assert!(slots.iter().all(|bytes| *bytes > 0), "{what}: {slots:?}");
            assert!(usize::from(slots[0]) >= len.min(256), "{what}: {slots:?}");
        }
    }
}
