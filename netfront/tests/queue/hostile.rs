//! A backend that does wrong: one packet too few is a counter, a broken ring is the end of the queue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use netfront::{Checksum, Error, Gso, GsoKind, Offload, Queue, QueueConfig};
use proptest::prelude::*;
use xen_ring::{
    Corrupt, CorruptReason, ExtraInfo, PacketFault, RxFlags, RxResponse, Status, TxResponse,
};

use crate::common::{count, frame, receive_all, Back, World, SLOTS};

/// Where the backend's producer index is in a ring page.
const RSP_PROD: usize = 8;

/// One response in the place of the oldest request.
fn put(back: &mut Back, flags: RxFlags, status: i16, offset: u16) {
    back.respond(|response| {
        *response = RxResponse {
            id: response.id,
            offset,
            flags,
            status,
        };
    });
}

fn extra(back: &mut Back, bytes: [u8; 8]) {
    back.next_posted();
    back.rx.push_raw(&bytes).unwrap();
}

/// Writes one packet that has this fault.
fn put_faulty(back: &mut Back, fault: PacketFault) {
    let gso = |size| ExtraInfo::Gso {
        size,
        kind: GsoKind::TcpV4,
    };
    match fault {
        PacketFault::NegativeStatus => put(back, RxFlags::NONE, -1, 0),
        PacketFault::BeyondPage => put(back, RxFlags::NONE, 60, 4090),
        PacketFault::TooShort => put(back, RxFlags::NONE, 13, 0),
        PacketFault::TooManySlots => {
            for _ in 0..30 {
                put(back, RxFlags::MORE_DATA, 1000, 0);
            }
            put(back, RxFlags::NONE, 1000, 0);
        }
        PacketFault::ChainCut => put(back, RxFlags::MORE_DATA, 60, 0),
        PacketFault::BadGso => {
            put(back, RxFlags::EXTRA_INFO, 60, 0);
            extra(back, gso(0).encode(false));
        }
        PacketFault::UnknownExtra => {
            put(back, RxFlags::EXTRA_INFO, 60, 0);
            extra(back, [77, 0, 0, 0, 0, 0, 0, 0]);
        }
        PacketFault::UnexpectedExtra => {
            put(back, RxFlags::EXTRA_INFO, 60, 0);
            extra(back, ExtraInfo::McastAdd([1; 6]).encode(false));
        }
        PacketFault::ExtraLoop => {
            put(back, RxFlags::EXTRA_INFO, 60, 0);
            for _ in 0..40 {
                extra(back, gso(1000).encode(true));
            }
            extra(back, gso(1000).encode(false));
        }
        other => panic!("{other:?} cannot happen on a receive ring"),
    }
}

#[test]
fn each_fault_of_a_packet_is_counted_by_its_name_and_the_device_lives() {
    for fault in PacketFault::ALL {
        if fault == PacketFault::SizeMismatch {
            // Only a transmitted packet tells its size twice.
            continue;
        }
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig::default());
        for round in 1..=5 {
            put_faulty(&mut back, fault);
            back.publish();
            assert_eq!(
                receive_all(&mut queue).len(),
                0,
                "{fault:?} is not delivered"
            );
            let name = format!("rx_drop_{}", fault.name());
            assert_eq!(count(&queue, &name), round, "{name}");
            let all = queue.stats().snapshot();
            let dropped = all
                .0
                .iter()
                .filter(|(name, _)| name.starts_with("rx_drop_"));
            assert_eq!(
                dropped.map(|(_, value)| value).sum::<u64>(),
                round,
                "{name} alone"
            );
            assert_eq!(
                back.take_posted(),
                SLOTS,
                "{fault:?}: every page comes back"
            );
            back.deliver(&frame(1000, 1));
            assert_eq!(receive_all(&mut queue), [frame(1000, 1)], "after {fault:?}");
        }
        let census = queue.pools()[0].census();
        assert_eq!((census.posted, census.leased), (SLOTS, 0), "{fault:?}");
    }
}

/// The queue is down: every call says so or does nothing, none panics, and nothing stays granted.
pub fn assert_down(world: &World, mut queue: Queue, back: Back, what: &str) {
    for _ in 0..3 {
        let _ = queue.receive(64, |packet| drop(packet.detach()));
        let _ = queue.reclaim();
        let _ = queue.send(&[&frame(100, 1)], Offload::default());
        let _ = queue.flush();
        let _ = queue.wait(Duration::from_millis(1));
        queue.idle();
    }
    queue.stop();
    for pool in queue.pools() {
        let census = pool.census();
        let places = census.free + census.posted + census.leased + census.quarantined;
        assert_eq!(places, census.granted, "{what}: {census:?}");
    }
    drop((queue, back));
    let counters = world.front.counters();
    assert_eq!(
        counters.grants, counters.revokes,
        "{what}: pages stay granted"
    );
}

#[test]
fn a_producer_index_beyond_what_was_posted_takes_the_queue_down() {
    for claimed in [SLOTS as u32 + 1, 1 << 31, u32::MAX] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig::default());
        back.take_posted();
        back.rx.page().store(RSP_PROD, claimed, Ordering::Release);
        let error = queue.receive(64, |_| panic!("nothing came")).unwrap_err();
        let Error::Corrupt(Corrupt { ring: "rx", reason }) = &error else {
            panic!("{error}")
        };
        assert_eq!(reason.name(), "producer_overrun");
        assert!(error.is_peers_fault(), "{error}");
        let error = queue.wait(Duration::ZERO).unwrap_err();
        assert!(error.is_peers_fault(), "wait says it too: {error}");
        assert_down(&world, queue, back, "rx overrun");
    }
}

#[test]
fn answers_to_requests_that_were_never_made_take_the_queue_down() {
    let world = World::new();
    let (mut queue, back) = world.pair(&QueueConfig::default());
    for seed in 0..3 {
        queue
            .send(&[&frame(100, seed)], Offload::default())
            .unwrap();
    }
    queue.flush().unwrap();
    back.tx.page().store(RSP_PROD, 4, Ordering::Release);
    let error = queue.reclaim().unwrap_err();
    let Error::Corrupt(Corrupt { ring: "tx", reason }) = error else {
        panic!("{error}")
    };
    let CorruptReason::ProducerOverrun {
        claimed, allowed, ..
    } = reason
    else {
        panic!("{reason}")
    };
    assert_eq!((claimed, allowed), (4, 3));
    assert_down(&world, queue, back, "tx overrun");
}

#[test]
fn a_response_with_another_id_than_was_posted_takes_the_queue_down() {
    for wrong in [1, 255, 256, u16::MAX] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig::default());
        back.respond(|response| response.id = wrong);
        back.publish();
        let error = queue.receive(64, |_| panic!("nothing came")).unwrap_err();
        let Error::Corrupt(Corrupt { ring: "rx", reason }) = error else {
            panic!("{error}")
        };
        assert_eq!(reason, CorruptReason::ForeignId { slot: 0, id: wrong });
        assert_down(&world, queue, back, "foreign id");
    }
}

/// Answers three sent packets with these ids.
fn answer_ids(ids: [u16; 3]) -> (World, Queue, Back) {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for seed in 0..3 {
        queue
            .send(&[&frame(100, seed)], Offload::default())
            .unwrap();
    }
    queue.flush().unwrap();
    while back.tx.pop().unwrap().is_some() {}
    for id in ids {
        back.tx
            .push(&TxResponse {
                id,
                status: Status::Okay,
            })
            .unwrap();
    }
    back.publish();
    (world, queue, back)
}

#[test]
fn a_tx_id_that_was_never_in_flight_takes_the_queue_down() {
    for wrong in [99, 255, 256, u16::MAX] {
        let (world, mut queue, back) = answer_ids([0, wrong, 2]);
        let error = queue.reclaim().unwrap_err();
        let Error::NothingPosted { ring: "tx", slot } = error else {
            panic!("{error}")
        };
        assert_eq!(slot, wrong);
        assert!(error.is_peers_fault());
        assert_down(&world, queue, back, "unknown id");
    }
}

#[test]
fn a_tx_id_that_is_answered_twice_takes_the_queue_down() {
    let (world, mut queue, back) = answer_ids([1, 1, 2]);
    let error = queue.reclaim().unwrap_err();
    assert!(
        matches!(
            error,
            Error::NothingPosted {
                ring: "tx",
                slot: 1
            }
        ),
        "{error}"
    );
    assert_down(&world, queue, back, "answered twice");
}

/// netback answers the slots of extra infos so. For a packet's own slot it means that the backend
/// keeps the page, for which there is no other page, so it can only stop our sending.
#[test]
fn a_packet_answered_as_if_it_were_an_extra_info_takes_the_queue_down() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig {
        tx_pages: 600,
        ..QueueConfig::default()
    });
    let gso = Offload {
        checksum: Checksum::Blank,
        gso: Some(Gso {
            size: 1000,
            kind: GsoKind::TcpV4,
        }),
        ..Offload::default()
    };
    queue.send(&[&frame(3000, 1)], gso).unwrap();
    queue.flush().unwrap();
    // One of the two slots held an extra info: a second NULL is for a packet, whose page would be lost.
    while back.tx.pop().unwrap().is_some() {
        back.tx
            .push(&TxResponse {
                id: 0,
                status: Status::Null,
            })
            .unwrap();
    }
    back.publish();
    let error = queue.reclaim().unwrap_err();
    assert!(
        matches!(error, netfront::Error::NothingPosted { ring: "tx", .. }),
        "{error}"
    );
    assert!(error.is_peers_fault());
    assert_down(&world, queue, back, "all null");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever is in the rings: an error or packets, in bounded time, and no byte out of bounds.
    #[test]
    fn any_bytes_in_the_rings_lead_to_packets_or_an_error(
        slots in prop::collection::vec(any::<[u8; 8]>(), 256),
        // Half of them tell the right id, or none would come further than that.
        right in prop::collection::vec(any::<bool>(), 256),
        produced in 0..=256u32,
        sent in 1..30usize,
        untrusted in any::<bool>(),
    ) {
        let world = World::new();
        let (mut queue, back) = world.pair(&QueueConfig { untrusted, ..QueueConfig::default() });
        for seed in 0..sent {
            queue.send(&[&frame(5000, seed)], Offload::default()).unwrap();
        }
        queue.flush().unwrap();
        for (index, mut bytes) in slots.into_iter().enumerate() {
            if right[index] {
                bytes[..2].copy_from_slice(&(index as u16).to_le_bytes());
                bytes[5] = 0;
                bytes[7] &= 0x0f;
            }
            back.rx.page().write(64 + 8 * index, &bytes);
            back.tx.page().write(64 + 12 * index, &bytes);
        }
        for page in [back.rx.page(), back.tx.page()] {
            page.store(RSP_PROD, produced, Ordering::Release);
        }
        let mut kept = Vec::new();
        let _ = queue.receive(1000, |packet| {
            assert!((14..=19 * 4096).contains(&packet.len()));
            kept.push(packet.detach());
        });
        let _ = queue.reclaim();
        prop_assert!(kept.iter().all(|packet| packet.to_vec().len() >= 14));
        drop(kept);
        assert_down(&world, queue, back, "any bytes");
    }
}
