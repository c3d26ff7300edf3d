//! Frames by each way to the guest's pages: kept mappings, grant copies, mappings for a batch.

use netback_sim::peer::{Echo, Sink};
use netback_sim::{Reach, State};
use xen_ring::Offload;

use crate::common::{until, Front, World, PATIENCE};
use crate::guest::{echo, mapped, serve, Guest, OK};

#[test]
fn every_way_to_the_guests_pages_carries_the_same_frames() {
    for (reach, announced) in [
        (Reach::Copy, false),
        (Reach::Copy, true),
        (Reach::Map, false),
        (Reach::Map, true),
    ] {
        let world = World::new();
        let backend = serve(&world, Echo::new(), reach);
        let mut guest = Guest::connect(world.guest());
        if announced {
            guest.announce();
        }
        let before = (world.back.counters(), backend.counters());
        echo(&mut guest.front, 90);
        let case = format!("{reach}, announced: {announced}");
        assert_eq!(guest.front.answers[1..], [0, 0, 0], "{case}");
        let (crossed, now) = (world.back.counters(), backend.counters());
        let pieces = now.tx_slots + now.rx_slots;
        let ways = [now.copies_kept, now.copies_granted, now.copies_mapped];
        let calls = [now.copy_calls, now.map_calls].map(|calls| calls > 0);
        let (copies, maps) = (
            crossed.copies - before.0.copies,
            crossed.maps - before.0.maps,
        );
        match (reach, announced) {
            (_, true) => {
                assert_eq!((ways, calls), ([pieces, 0, 0], [false, false]), "{case}");
                assert_eq!((copies, maps), (0, 0), "{case}");
            }
            (Reach::Copy, false) => {
                assert_eq!((ways, calls), ([0, pieces, 0], [true, false]), "{case}");
                assert_eq!((copies, maps), (pieces, 0), "{case}");
            }
            (Reach::Map, false) => {
                assert_eq!((ways, calls), ([0, 0, pieces], [false, true]), "{case}");
                assert_eq!((copies, maps), (0, pieces), "{case}");
                assert_eq!(crossed.unmaps, crossed.maps - 3, "all but the three rings");
            }
        }
        backend.stop().unwrap();
        let end = world.back.counters();
        assert_eq!(end.maps, end.unmaps, "{case}");
    }
}

#[test]
fn a_page_announced_read_only_is_never_written() {
    let world = World::new();
    let backend = serve(&world, Echo::new(), Reach::Copy);
    let mut guest = Guest::connect(world.guest());
    // Granted for writing, announced for reading, and posted to receive into.
    let pages: Vec<_> = Guest::refs(&guest.front.rx_pages)
        .into_iter()
        .map(|gref| (gref, true))
        .collect();
    assert_eq!(guest.add(&pages).0, OK);
    guest.front.post(256);
    let frame = [2; 100];
    assert!(guest.front.send(&frame, 1, &Offload::default()));
    until("a refusal", || backend.counters().rx_copy_failed == 1);
    assert!(guest.front.receive().is_empty());
    // The backend lives, and says so.
    assert!(guest.front.send(&frame, 1, &Offload::default()));
    until("another", || backend.counters().rx_copy_failed == 2);
    assert_eq!((backend.state(), backend.fault()), (State::Connected, None));
}

#[test]
fn when_the_connection_ends_nothing_stays_mapped() {
    let world = World::new();
    let backend = serve(&world, Echo::new(), Reach::Map);
    let domain = world.guest();
    for _ in 0..3 {
        let mut guest = Guest::connect(domain.clone());
        guest.announce();
        assert_eq!(mapped(&backend), 512);
        echo(&mut guest.front, 9);
        guest.front.keys.close_cycle();
        assert_eq!(mapped(&backend), 0);
        let counters = world.back.counters();
        assert_eq!(counters.maps, counters.unmaps);
    }
    backend.stop().unwrap();
}

#[test]
fn one_bad_page_in_a_batch_to_be_mapped_spoils_only_its_own_frame() {
    let world = World::new();
    let backend = serve(&world, Sink::blind(), Reach::Map);
    let mut front = Front::connect(world.guest());
    let frame = [2; 100];
    // Filled before the backend is woken, so that they are one batch.
    for id in 0..8 {
        let gref = match id {
            3 => 5,
            _ => front.tx_pages.reference(id).0,
        };
        front.tx_pages.page(id).copy_in(0, &frame);
        let fragment = xen_ring::TxFragment {
            id: id as u16,
            gref,
            offset: 0,
            len: 100,
        };
        xen_ring::transmit::push(&mut front.tx, &[fragment], &Offload::default()).unwrap();
    }
    let notify = front.tx.publish();
    front.ring(front.tx_port, notify);
    until("answers", || front.settled());
    assert_eq!(front.answers, [7, 1, 0, 0]);
    let counters = backend.counters();
    assert_eq!((counters.tx_packets, counters.tx_copy_failed), (7, 1));
    assert!(counters.maps_refused > 0);
    assert!(backend.wait_for(State::Connected, PATIENCE));
}

#[test]
fn pages_leave_one_by_one_and_the_others_stay_mapped() {
    let world = World::new();
    let backend = serve(&world, Echo::new(), Reach::Copy);
    let mut guest = Guest::connect(world.guest());
    guest.announce();
    assert_eq!(mapped(&backend), 512);
    let rx = Guest::refs(&guest.front.rx_pages);
    // Out of the middle of regions, all of one region, one that is gone, one twice, one that never was.
    let mut leaving = vec![rx[5], rx[40], rx[41]];
    leaving.extend(&rx[64..96]);
    let expected = leaving.len() as u32;
    leaving.extend([rx[5], rx[40], 3, u32::MAX]);
    let ((status, removed), statuses) = guest.del(&leaving);
    assert_eq!((status, removed), (OK, expected));
    let (good, bad) = statuses.split_at(expected as usize);
    assert!(good.iter().all(|status| *status == 0), "{statuses:?}");
    assert_eq!(bad, [2; 4], "those that were not mapped");
    assert_eq!(mapped(&backend), 512 - u64::from(expected));
    let crossed = world.back.counters();
    assert_eq!(
        crossed.maps - crossed.unmaps,
        512 - u64::from(expected) + 3,
        "the pages that left are unmapped"
    );
    echo(&mut guest.front, 90);
    let counters = backend.counters();
    assert!(counters.copies_granted > 0, "pages that left are copied");
    assert!(counters.copies_kept > 0, "the others are not");
    // And back again.
    let entries: Vec<_> = leaving[..expected as usize]
        .iter()
        .map(|gref| (*gref, false))
        .collect();
    assert_eq!(guest.add(&entries).0, OK);
    assert_eq!(mapped(&backend), 512);
    backend.stop().unwrap();
}
