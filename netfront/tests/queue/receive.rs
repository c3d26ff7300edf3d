//! Received packets: slots, extra infos, checksum states.

use netfront::{Checksum, Gso, GsoKind, Offload, Queue, QueueConfig};
use xen_ring::{Hash, HashAlgorithm, HashKind};

use crate::common::{count, frame, receive_all, Back, World, SLOTS};

const GSO: Gso = Gso {
    size: 1448,
    kind: GsoKind::TcpV4,
};
const HASH: Hash = Hash {
    kind: HashKind::Ipv4Tcp,
    algorithm: HashAlgorithm::Toeplitz,
    value: 0x51cc_c178,
};

/// What the offloads of the one packet in the ring are, and its bytes.
fn receive_one(queue: &mut Queue) -> (Vec<u8>, Offload) {
    let mut found = Vec::new();
    queue
        .receive(64, |packet| {
            found.push((
                packet.slices().collect::<Vec<_>>().concat(),
                packet.offload(),
            ));
        })
        .unwrap();
    queue.flush().unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// A queue, with a backend that is trusted or not.
fn pair(world: &World, untrusted: bool) -> (Queue, Back) {
    world.pair(&QueueConfig {
        untrusted,
        ..QueueConfig::default()
    })
}

#[test]
fn a_packet_may_take_one_to_eighteen_slots() {
    for untrusted in [false, true] {
        let world = World::new();
        let (mut queue, mut back) = pair(&world, untrusted);
        for slots in 1..=18 {
            for (piece, offset) in [(4096, 0), (1000, 64), (257, 3839), (14, 1)] {
                let sent = frame(slots * piece, slots);
                let pieces: Vec<_> = sent.chunks(piece).collect();
                let offload = Offload::default();
                back.put_pieces(&pieces, offset, &offload);
                back.publish();
                let received = receive_one(&mut queue);
                assert_eq!(
                    received,
                    (sent, offload),
                    "{slots} slots of {piece} at {offset}"
                );
                assert_eq!(back.take_posted(), SLOTS);
            }
        }
        assert_eq!(count(&queue, "rx_slots"), 4 * (1..=18).sum::<u64>());
    }
}

/// The first slots have one byte each, the last has the rest: where netback once counted wrong (XSA-432).
#[test]
fn every_number_of_slots_carries_every_short_length_also_in_pieces_of_one_byte() {
    for untrusted in [false, true] {
        let world = World::new();
        let (mut queue, mut back) = pair(&world, untrusted);
        for slots in 1..=18 {
            for len in (18..=140).chain([255, 256, 257, 1514, 4000]) {
                let sent = frame(len, slots);
                let (single, rest) = sent.split_at(slots - 1);
                let mut pieces: Vec<_> = single.chunks(1).collect();
                pieces.push(rest);
                back.put_pieces(&pieces, 3, &Offload::default());
                back.publish();
                assert_eq!(
                    receive_one(&mut queue).0,
                    sent,
                    "{slots} slots, {len} bytes"
                );
                assert_eq!(back.take_posted(), SLOTS);
            }
        }
    }
}

#[test]
fn a_packet_whose_first_slot_is_all_header_may_take_nineteen() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let sent = frame(54 + 18 * 3000, 1);
    let mut pieces = vec![&sent[..54]];
    pieces.extend(sent[54..].chunks(3000));
    assert_eq!(pieces.len(), 19);
    back.deliver_pieces(&pieces, &Offload::default());
    assert_eq!(receive_one(&mut queue).0, sent);
    assert_eq!(back.take_posted(), SLOTS);
}

#[test]
fn segmentation_and_hash_come_through_in_every_combination_and_their_slots_return() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for gso in [
        None,
        Some(GSO),
        Some(Gso {
            size: 1428,
            kind: GsoKind::TcpV6,
        }),
    ] {
        for hash in [None, Some(HASH)] {
            for len in [60, 300, 3000, 60_000] {
                let offload = Offload {
                    checksum: Checksum::Blank,
                    gso,
                    hash,
                };
                let sent = frame(len, 1);
                let pieces: Vec<_> = sent.chunks(4096).collect();
                back.deliver_pieces(&pieces, &offload);
                assert_eq!(receive_one(&mut queue), (sent, offload));
                assert_eq!(back.take_posted(), SLOTS, "the slots of extra infos too");
            }
        }
    }
    assert_eq!(count(&queue, "rx_gso_checksum_fixup"), 0);
}

#[test]
fn each_checksum_state_comes_through() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for checksum in [Checksum::None, Checksum::Blank, Checksum::Validated] {
        let offload = Offload {
            checksum,
            ..Offload::default()
        };
        back.deliver_pieces(&[&frame(100, 1)], &offload);
        assert_eq!(receive_one(&mut queue).1, offload);
    }
}

#[test]
fn a_kept_packet_has_the_offloads_of_the_one_that_was_lent() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let offload = Offload {
        checksum: Checksum::Blank,
        gso: Some(GSO),
        hash: Some(HASH),
    };
    let sent = frame(9000, 2);
    let pieces: Vec<_> = sent.chunks(4096).collect();
    back.deliver_pieces(&pieces, &offload);
    let mut kept = Vec::new();
    queue
        .receive(64, |packet| kept.push(packet.detach()))
        .unwrap();
    assert_eq!(
        (kept[0].to_vec(), kept[0].offload(), kept[0].len()),
        (sent, offload, 9000)
    );
}

/// A TCP/IPv4 frame of this length with a wrong checksum field, and the pseudo header's sum.
fn tcp_frame(len: usize) -> (Vec<u8>, u16) {
    let mut frame = frame(len, 3);
    frame[12..15].copy_from_slice(&[8, 0, 0x45]);
    frame[20..24].copy_from_slice(&[0, 0, 64, 6]);
    frame[46] = 0x50;
    let mut sum: u32 = 6 + (len as u32 - 34);
    for pair in frame[26..34].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (frame, sum as u16)
}

#[test]
fn a_gso_packet_without_csum_blank_is_repaired_and_counted() {
    for untrusted in [false, true] {
        let world = World::new();
        let (mut queue, mut back) = pair(&world, untrusted);
        let (sent, pseudo) = tcp_frame(9000);
        let pieces: Vec<_> = sent.chunks(4096).collect();
        let given = Offload {
            checksum: Checksum::Validated,
            gso: Some(GSO),
            hash: None,
        };
        back.deliver_pieces(&pieces, &given);
        let (received, offload) = receive_one(&mut queue);
        assert_eq!(
            offload,
            Offload {
                checksum: Checksum::Blank,
                ..given
            }
        );
        assert_eq!(u16::from_be_bytes([received[50], received[51]]), pseudo);
        let mut expected = sent.clone();
        expected[50..52].copy_from_slice(&pseudo.to_be_bytes());
        assert_eq!(received, expected, "nothing else is touched");
        assert_eq!(count(&queue, "rx_gso_checksum_fixup"), 1);
        // What is no TCP at all is left as it is.
        let junk = frame(9000, 1);
        let pieces: Vec<_> = junk.chunks(4096).collect();
        back.deliver_pieces(&pieces, &given);
        assert_eq!(receive_one(&mut queue).0, junk);
    }
}

#[test]
fn a_budget_is_kept_and_what_is_left_comes_next_time() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for seed in 0..10 {
        back.deliver(&frame(100, seed));
    }
    let mut received = Vec::new();
    for found in [4, 4, 2, 0] {
        let count = queue
            .receive(4, |packet| received.push(packet.head().to_vec()))
            .unwrap();
        assert_eq!(count, found);
    }
    assert_eq!(
        received,
        (0..10).map(|seed| frame(100, seed)).collect::<Vec<_>>()
    );
}

#[test]
fn a_packet_tells_its_bytes_and_copies_itself_only_where_it_fits() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let sent = frame(5000, 1);
    back.deliver(&sent);
    queue
        .receive(1, |packet| {
            assert_eq!((packet.len(), packet.is_empty()), (5000, false));
            let mut into = vec![0; 6000];
            assert_eq!(packet.copy_to(&mut into[..4999]), None);
            assert_eq!(packet.copy_to(&mut into), Some(5000));
            assert_eq!(into[..5000], sent);
        })
        .unwrap();
}

#[test]
fn slots_without_bytes_inside_a_packet_are_passed_over_and_return() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let sent = frame(600, 1);
    back.put_pieces(&[&sent[..300], &[], &sent[300..]], 0, &Offload::default());
    back.publish();
    assert_eq!(receive_all(&mut queue), [sent]);
    assert_eq!(back.take_posted(), SLOTS);
}

/// The row "receive ring refilled when it ran empty": what a user sees of a driver that is slower than its backend.
#[test]
fn a_ring_of_which_the_backend_has_filled_every_slot_is_counted_and_posted_anew() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let mut delivered = 0;
    // All slots, all but one, and none: only the first leaves the backend nothing.
    for (filled, counted) in [(SLOTS, 1), (SLOTS - 1, 1), (0, 1), (SLOTS, 2)] {
        for seed in 0..filled {
            back.deliver(&frame(60, seed));
        }
        delivered += filled;
        // In batches: the second begins with slots that the first has posted again.
        assert_eq!(receive_all(&mut queue).len(), filled);
        assert_eq!(count(&queue, "rx_ring_empty"), counted, "{filled} filled");
        assert_eq!(back.take_posted(), SLOTS);
    }
    assert_eq!(count(&queue, "rx_packets"), delivered as u64);
    assert_eq!(count(&queue, "rx_starved"), 0, "the pool was never short");
}
