//! Sent packets: slots, extra infos, a full ring, and everything that comes back.

use std::collections::BTreeSet;

use hypervisor::{Access, CopyStatus, GrantRef};
use netfront::{Checksum, Gso, GsoKind, Offload, Queue, QueueConfig, SendError};
use xen_ring::{Hash, HashAlgorithm, HashKind, Status};

use crate::common::{count, frame, Back, World};

const GSO: Gso = Gso {
    size: 1448,
    kind: GsoKind::TcpV4,
};
const HASH: Hash = Hash {
    kind: HashKind::Ipv6,
    algorithm: HashAlgorithm::Toeplitz,
    value: 0x1234_5678,
};

fn exchange(queue: &mut Queue, back: &mut Back, sent: &[u8], offload: Offload) {
    queue.send(&[sent], offload).unwrap();
    queue.flush().unwrap();
    assert_eq!(back.fetch().expect("a packet"), (sent.to_vec(), offload));
    back.publish();
    queue.reclaim().unwrap();
}

/// Everything that sending took is back.
fn assert_all_returned(queue: &mut Queue) {
    assert_eq!(queue.unanswered(), 0);
    let census = queue.pools()[1].census();
    assert_eq!(
        (census.posted, census.free),
        (0, census.granted),
        "{census:?}"
    );
}

#[test]
fn packets_of_all_lengths_arrive_whole_over_one_to_seventeen_slots() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let mut slots = BTreeSet::new();
    for len in (14..65_535)
        .step_by(577)
        .chain([14, 4096, 4097, 65_534, 65_535])
    {
        let sent = frame(len, len);
        queue.send(&[&sent], Offload::default()).unwrap();
        queue.flush().unwrap();
        slots.insert(back.peek().expect("a packet").fragments.len());
        assert_eq!(back.bytes(), sent, "{len} bytes");
        back.answer(Status::Okay);
        back.publish();
        queue.reclaim().unwrap();
    }
    assert_eq!(slots, (1..=16).collect());
    assert_all_returned(&mut queue);
}

#[test]
fn a_packet_may_be_given_in_any_slices() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let sent = frame(20_000, 1);
    for piece in [1, 7, 100, 4095, 4096, 4097, 19_999] {
        let mut slices: Vec<&[u8]> = sent.chunks(piece).collect();
        slices.insert(slices.len() / 2, &[]);
        queue.send(&slices, Offload::default()).unwrap();
        queue.flush().unwrap();
        assert_eq!(
            back.fetch().expect("a packet").0,
            sent,
            "in pieces of {piece}"
        );
        back.publish();
        queue.reclaim().unwrap();
    }
}

#[test]
fn segmentation_hash_and_checksum_states_arrive_in_every_combination() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for gso in [
        None,
        Some(GSO),
        Some(Gso {
            size: 9,
            kind: GsoKind::TcpV6,
        }),
    ] {
        for hash in [None, Some(HASH)] {
            for checksum in [Checksum::None, Checksum::Blank, Checksum::Validated] {
                for len in [100, 10_000] {
                    let offload = Offload {
                        checksum,
                        gso,
                        hash,
                    };
                    exchange(&mut queue, &mut back, &frame(len, 1), offload);
                }
            }
        }
    }
    assert_all_returned(&mut queue);
}

#[test]
fn a_packet_that_fits_a_page_takes_one_slot_and_starts_walk_over_cache_lines() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let mut offsets = BTreeSet::new();
    for len in [60, 1514, 3100].repeat(16) {
        queue.send(&[&frame(len, 1)], Offload::default()).unwrap();
        queue.flush().unwrap();
        let packet = back.peek().unwrap();
        assert_eq!(packet.fragments.len(), 1, "{len} bytes");
        offsets.insert(packet.fragments[0].offset);
        back.answer(Status::Okay);
        back.publish();
        queue.reclaim().unwrap();
    }
    assert!(offsets.len() > 8, "{offsets:?}");
    assert!(offsets.iter().all(|offset| offset % 64 == 0));
}

#[test]
fn a_full_ring_says_so_and_takes_packets_again_when_the_backend_has_answered() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for round in 0..20 {
        let mut sent = 0;
        let refused = loop {
            match queue.send(&[&frame(100, sent)], Offload::default()) {
                Ok(()) => sent += 1,
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, SendError::Full);
        assert!((238..=256).contains(&sent), "round {round}: {sent}");
        assert!(!queue.can_send());
        queue.flush().unwrap();
        for seed in 0..sent {
            assert_eq!(back.fetch().unwrap().0, frame(100, seed));
        }
        back.publish();
        assert_eq!(queue.reclaim().unwrap(), sent);
        assert!(queue.can_send());
        assert_all_returned(&mut queue);
    }
}

/// A packet is sent or refused: never taken and lost.
#[test]
fn near_the_end_of_the_ring_a_packet_with_extra_infos_is_sent_or_refused_but_never_lost() {
    let offload = Offload {
        checksum: Checksum::Blank,
        gso: Some(GSO),
        hash: Some(HASH),
    };
    for filled in 240..=256 {
        for len in [100, 5000, 9000] {
            let world = World::new();
            let (mut queue, mut back) = world.pair(&QueueConfig {
                tx_pages: 320,
                ..QueueConfig::default()
            });
            let mut taken = 0;
            for _ in 0..filled {
                taken += usize::from(queue.send(&[&frame(60, 0)], Offload::default()).is_ok());
            }
            taken += usize::from(queue.send(&[&frame(len, 1)], offload).is_ok());
            queue.flush().unwrap();
            let arrived = std::iter::from_fn(|| back.fetch()).count();
            assert_eq!(arrived, taken, "{len} bytes after {filled}");
            assert_eq!(count(&queue, "tx_packets"), taken as u64);
            back.publish();
            queue.reclaim().unwrap();
            assert_all_returned(&mut queue);
        }
    }
}

#[test]
fn a_pool_smaller_than_the_ring_refuses_what_it_has_no_pages_for_and_keeps_nothing() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig {
        tx_pages: 32,
        ..QueueConfig::default()
    });
    for _ in 0..50 {
        queue
            .send(&[&frame(65_535, 1)], Offload::default())
            .unwrap();
        queue
            .send(&[&frame(60_000, 2)], Offload::default())
            .unwrap();
        let refused = queue.send(&[&frame(20_000, 3)], Offload::default());
        assert_eq!(refused, Err(SendError::Full));
        queue.flush().unwrap();
        assert_eq!(back.fetch().unwrap().0.len(), 65_535);
        assert_eq!(back.fetch().unwrap().0.len(), 60_000);
        assert!(back.fetch().is_none());
        back.publish();
        queue.reclaim().unwrap();
        assert_all_returned(&mut queue);
    }
}

#[test]
fn answers_may_come_in_any_order_and_errors_are_counted() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for _ in 0..100 {
        for seed in 0..30 {
            queue
                .send(&[&frame(100, seed)], Offload::default())
                .unwrap();
        }
        queue.flush().unwrap();
        let mut ids = Vec::new();
        while let Some(raw) = back.tx.pop().unwrap() {
            ids.push(raw.request().id);
        }
        let statuses = [Status::Okay, Status::Error, Status::Dropped];
        for (index, id) in ids.into_iter().rev().enumerate() {
            let status = statuses[index % 3];
            back.tx.push(&xen_ring::TxResponse { id, status }).unwrap();
        }
        back.publish();
        assert_eq!(queue.reclaim().unwrap(), 30);
        assert_all_returned(&mut queue);
    }
    assert_eq!(
        (count(&queue, "tx_errors"), count(&queue, "tx_dropped")),
        (1000, 1000)
    );
}

#[test]
fn lengths_that_cannot_be_sent_are_refused_and_counted() {
    let world = World::new();
    let (mut queue, _back) = world.pair(&QueueConfig::default());
    assert_eq!(
        queue.send(&[], Offload::default()),
        Err(SendError::Length(0))
    );
    assert_eq!(
        queue.send(&[&[], &[]], Offload::default()),
        Err(SendError::Length(0))
    );
    let long = frame(65_536, 1);
    assert_eq!(
        queue.send(&[&long], Offload::default()),
        Err(SendError::Length(65_536))
    );
    assert_eq!(count(&queue, "tx_drop_too_long"), 3);
    assert_all_returned(&mut queue);
}

#[test]
fn the_backend_can_read_the_pages_of_sent_packets_but_not_write_to_them() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    queue.send(&[&frame(5000, 1)], Offload::default()).unwrap();
    queue.flush().unwrap();
    let fragments = back.peek().unwrap().fragments.clone();
    assert_eq!(fragments.len(), 2);
    for fragment in &fragments {
        let gref = GrantRef(fragment.gref);
        assert_eq!(back.write(gref, 0, b"x"), CopyStatus::NotGranted);
        back.memory
            .map(&[gref], Access::ReadWrite)
            .expect_err("read-only");
        back.memory
            .map(&[gref], Access::ReadOnly)
            .expect("readable");
    }
    assert_eq!(back.bytes(), frame(5000, 1));
}

#[test]
fn a_filler_writes_straight_into_granted_pages() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig {
        tx_pages: 320,
        ..QueueConfig::default()
    });
    let offload = Offload {
        checksum: Checksum::Blank,
        gso: Some(GSO),
        hash: None,
    };
    for len in [60, 3000, 4097, 30_000, 65_535] {
        let sent = frame(len, len);
        let filled = queue.send_filled(|slices| {
            let mut left = &sent[..];
            for slice in slices {
                let (now, later) = left.split_at(left.len().min(slice.len()));
                slice[..now.len()].copy_from_slice(now);
                left = later;
            }
            assert!(left.is_empty(), "there is room for the longest packet");
            Ok::<_, ()>(Some((len, offload)))
        });
        assert_eq!(filled, Ok(true));
        queue.flush().unwrap();
        assert_eq!(back.fetch().unwrap(), (sent, offload));
        back.publish();
        queue.reclaim().unwrap();
    }
    assert_eq!(
        queue.send_filled(|_| Ok::<_, ()>(None)),
        Ok(false),
        "nothing to send"
    );
    assert_eq!(queue.send_filled(|_| Err("gone")), Err("gone"));
    let too_long =
        |_: &mut [std::io::IoSliceMut<'_>]| Ok::<_, ()>(Some((65_536, Offload::default())));
    assert_eq!(
        queue.send_filled(too_long),
        Ok(true),
        "there was one, it is dropped"
    );
    assert_eq!(count(&queue, "tx_drop_too_long"), 1);
    assert_eq!(queue.unanswered(), 0);
}

#[test]
fn a_filler_is_not_asked_when_the_ring_is_full_so_that_no_packet_is_taken_and_lost() {
    // The last one asks for more than may be shared: its pool is smaller than it was told to be.
    for (tx_pages, limit) in [(32, 1024), (256, 1024), (400, 1024), (256, 300)] {
        let world = World::with_grant_limit(limit);
        let (mut queue, mut back) = world.pair(&QueueConfig {
            tx_pages,
            ..QueueConfig::default()
        });
        for _ in 0..5 {
            let mut asked = 0;
            // Who polls a source goes by this: asked in vain, it would be asked again at once.
            while queue.can_send() {
                let taken = queue.send_filled(|slices| {
                    asked += 1;
                    slices[0][..60].fill(asked as u8);
                    Ok::<_, ()>(Some((60, Offload::default())))
                });
                assert_eq!(taken, Ok(true));
                assert!(asked <= 256, "a full ring must stop the source");
            }
            let refused = queue.send_filled(|_| -> Result<_, ()> { panic!("the ring is full") });
            assert_eq!(refused, Ok(false));
            queue.flush().unwrap();
            let arrived = std::iter::from_fn(|| back.fetch()).count();
            assert_eq!(arrived, asked);
            back.publish();
            assert_eq!(queue.reclaim().unwrap(), asked);
        }
        assert_eq!(count(&queue, "tx_drop_refused"), 0);
    }
}
