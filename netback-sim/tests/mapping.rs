//! Pages that stay mapped: what a guest may ask for over the control ring, what it must not get, and
//! that frames cost no call once their pages are mapped.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;

use common::{until, Front, Shape, World, FRONT, PATIENCE};
use hypervisor::{Access, DomId, Domain, Port, SharedPages};
use netback_sim::peer::{Echo, Sink};
use netback_sim::{BackendHandle, Config, Features, Peer, Reach, State};
use xen_ring::{
    Control, ControlMessage, ControlRequest, ControlStatus, FrontRing, GrefEntry, Offload,
};

const BACK: DomId = DomId(0);
const OK: ControlStatus = ControlStatus::Success;
const INVALID: ControlStatus = ControlStatus::InvalidParameter;

/// A guest with a control ring, whose every message is in the test's hands.
struct Guest {
    front: Front,
    ring: FrontRing<Control>,
    port: Port,
    list: SharedPages,
    next: u16,
    _page: SharedPages,
}

impl Guest {
    fn connect(domain: Domain) -> Guest {
        let mut guest = Guest::prepare(domain);
        guest.front.keys.state(State::Connected);
        guest.front.keys.wait(State::Connected);
        guest
    }

    /// Everything but the state.
    fn prepare(domain: Domain) -> Guest {
        let shape = Shape {
            state: State::Initialising,
            ..Shape::default()
        };
        let mut front = Front::prepare(domain.clone(), &shape);
        let page = domain.share(BACK, 1, Access::ReadWrite).unwrap();
        let port = front.events.bind_unbound(BACK).unwrap();
        front.keys.write("ctrl-ring-ref", page.reference(0).0);
        front.keys.write("event-channel-ctrl", port.0);
        Guest {
            ring: FrontRing::new(page.page(0)),
            list: domain.share(BACK, 1, Access::ReadWrite).unwrap(),
            front,
            port,
            next: 900,
            _page: page,
        }
    }

    fn ask(&mut self, message: ControlMessage) -> (ControlStatus, u32) {
        let id = self.next;
        self.next += 1;
        self.ring.push(&ControlRequest { id, message }).unwrap();
        let notify = self.ring.publish();
        self.front.ring(self.port, notify);
        let mut answer = None;
        until("an answer", || {
            answer = self.ring.pop().unwrap();
            answer.is_some()
        });
        let answer = answer.unwrap().response();
        assert_eq!((answer.id, answer.kind), (id, message.kind()));
        (answer.status, answer.data)
    }

    fn write(&self, entries: &[(u32, bool)]) {
        for (index, &(gref, read_only)) in entries.iter().enumerate() {
            // An old status must not be taken for a new one.
            let status = 0xabcd;
            let entry = GrefEntry {
                gref,
                read_only,
                status,
            };
            self.list.page(0).write(index * 8, &entry.encode());
        }
    }

    fn statuses(&self, count: usize) -> Vec<u16> {
        let entry = |index: usize| GrefEntry::decode(&self.list.page(0).read(index * 8));
        (0..count).map(|index| entry(index).status).collect()
    }

    fn add(&mut self, entries: &[(u32, bool)]) -> (ControlStatus, Vec<u16>) {
        self.write(entries);
        let message = ControlMessage::AddGrefMapping {
            queue: 0,
            gref: self.list.reference(0).0,
            entries: entries.len() as u32,
        };
        (self.ask(message).0, self.statuses(entries.len()))
    }

    fn del(&mut self, grefs: &[u32]) -> ((ControlStatus, u32), Vec<u16>) {
        let entries: Vec<_> = grefs.iter().map(|gref| (*gref, false)).collect();
        self.write(&entries);
        let message = ControlMessage::DelGrefMapping {
            queue: 0,
            gref: self.list.reference(0).0,
            entries: grefs.len() as u32,
        };
        (self.ask(message), self.statuses(grefs.len()))
    }

    fn refs(pages: &SharedPages) -> Vec<u32> {
        (0..pages.len())
            .map(|page| pages.reference(page).0)
            .collect()
    }

    /// Announces all pages of the data path: those to receive into, and those to send from, read-only.
    fn announce(&mut self) {
        for (refs, read_only) in [
            (Self::refs(&self.front.rx_pages), false),
            (Self::refs(&self.front.tx_pages), true),
        ] {
            let entries: Vec<_> = refs.into_iter().map(|gref| (gref, read_only)).collect();
            assert_eq!(self.add(&entries).0, OK);
        }
    }
}

fn serve(world: &World, peer: impl Peer + 'static, reach: Reach) -> BackendHandle {
    world.serve_with(Config {
        reach,
        close_patience: std::time::Duration::from_millis(50),
        ..Config::new(FRONT, peer)
    })
}

fn mapped(backend: &BackendHandle) -> u64 {
    backend.counters().gref_mapped
}

/// Sends frames of several slots and gets all of them back.
fn echo(front: &mut Front, count: usize) {
    front.post(256);
    for seed in 0..count {
        let slots = seed % 3 + 1;
        let mut frame: Vec<u8> = (0..200 + slots * 2000)
            .map(|at| (at * 7 + seed) as u8)
            .collect();
        frame[..12].fill(2);
        until("room", || {
            front.reap();
            front.send(&frame, slots, &Offload::default())
        });
        let mut back = Vec::new();
        until("the echo", || {
            back.extend(front.receive());
            !back.is_empty()
        });
        assert_eq!(back.len(), 1);
        assert!(back[0].0 == frame, "frame {seed} came back changed");
    }
    until("answers", || front.settled());
}

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
fn the_size_is_told_for_each_queue_and_for_no_other() {
    let world = World::new();
    let backend = serve(&world, Sink::new(), Reach::Copy);
    let mut guest = Guest::connect(world.guest());
    let size = |queue| ControlMessage::GetGrefMappingSize { queue };
    assert_eq!(guest.ask(size(0)), (OK, 4096));
    for queue in [1, 64, u32::MAX] {
        assert_eq!(guest.ask(size(queue)), (INVALID, 0));
    }
    backend.stop().unwrap();
}

#[test]
fn a_backend_that_does_not_offer_it_answers_as_upstreams_do() {
    let world = World::new();
    let features = Features {
        gref_mapping: false,
        ..Features::default()
    };
    let backend = world.serve_with(Config {
        features,
        ..Config::new(FRONT, Sink::new())
    });
    let mut guest = Guest::connect(world.guest());
    let refused = ControlStatus::NotSupported;
    let gref = guest.list.reference(0).0;
    let (queue, entries) = (0, 1);
    for message in [
        ControlMessage::GetGrefMappingSize { queue },
        ControlMessage::AddGrefMapping {
            queue,
            gref,
            entries,
        },
        ControlMessage::DelGrefMapping {
            queue,
            gref,
            entries,
        },
    ] {
        assert_eq!(guest.ask(message), (refused, 0));
    }
    assert_eq!(mapped(&backend), 0);
}

#[test]
fn a_list_with_one_bad_entry_maps_nothing_and_says_which_it_was() {
    let world = World::new();
    let backend = serve(&world, Sink::new(), Reach::Copy);
    let domain = world.guest();
    let mut guest = Guest::connect(domain.clone());
    let rx = Guest::refs(&guest.front.rx_pages);
    let tx = Guest::refs(&guest.front.tx_pages);
    let revoked = {
        let page = domain.share(BACK, 1, Access::ReadWrite).unwrap();
        page.reference(0).0
    };
    let stranger = domain.share(DomId(7), 1, Access::ReadWrite).unwrap();
    assert_eq!(guest.add(&[(rx[9], false)]).0, OK);
    let before = world.back.counters();
    for (bad, why) in [
        ((rx[0], false), "twice in the list"),
        ((rx[9], false), "mapped already"),
        ((revoked, false), "not granted any more"),
        (
            (stranger.reference(0).0, false),
            "granted to another domain",
        ),
        ((tx[0], false), "granted read-only, wanted for writing"),
        ((0, false), "never granted"),
        ((u32::MAX, true), "beyond the table"),
    ] {
        let (status, entries) = guest.add(&[(rx[0], false), (rx[1], false), bad]);
        assert_eq!(status, INVALID, "{why}");
        assert_eq!(entries, [0, 0, 2], "{why}");
        assert_eq!(mapped(&backend), 1, "{why}");
    }
    let after = world.back.counters();
    assert_eq!(
        after.maps - before.maps,
        after.unmaps - before.unmaps,
        "nothing of a bad list stays mapped"
    );
    assert_eq!(guest.add(&[(rx[0], false), (rx[1], false)]).0, OK);
    assert_eq!(mapped(&backend), 3);
    assert_eq!(backend.counters().faults, 0);
}

#[test]
fn a_message_that_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new();
    let backend = serve(&world, Sink::new(), Reach::Copy);
    let domain = world.guest();
    let mut guest = Guest::connect(domain.clone());
    let page = guest.front.rx_pages.reference(0).0;
    guest.write(&[(page, false)]);
    let read_only = domain.share(BACK, 1, Access::ReadOnly).unwrap();
    let entry = GrefEntry {
        gref: page,
        ..GrefEntry::default()
    };
    read_only.page(0).write(0, &entry.encode());
    let list = guest.list.reference(0).0;
    for (queue, gref, entries, why) in [
        (1, list, 1, "no such queue"),
        (u32::MAX, list, 1, "no such queue"),
        (0, list, 0, "no entry"),
        (0, list, 513, "more than a page holds"),
        (0, list, u32::MAX, "more than anything holds"),
        (0, 0, 1, "no list page"),
        (0, u32::MAX, 1, "no list page"),
        (0, read_only.reference(0).0, 1, "statuses cannot be written"),
    ] {
        let add = ControlMessage::AddGrefMapping {
            queue,
            gref,
            entries,
        };
        assert_eq!(guest.ask(add), (INVALID, 0), "{why}");
        let del = ControlMessage::DelGrefMapping {
            queue,
            gref,
            entries,
        };
        assert_eq!(guest.ask(del), (INVALID, 0), "{why}");
        assert_eq!(mapped(&backend), 0, "{why}");
    }
    let counters = world.back.counters();
    assert_eq!(counters.maps - counters.unmaps, 3, "only the rings");
}

#[test]
fn nothing_is_kept_for_a_guest_that_has_not_seen_the_backend_connected() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut guest = Guest::prepare(world.guest());
    // The toolstack's script is not done yet: the rings are served, the state is not shown.
    let mut store = world.store();
    let path = "/local/domain/0/backend/vif/1/0/hotplug-status";
    store.write(path, "busy").unwrap();
    guest.front.keys.state(State::Connected);
    let page = (guest.front.rx_pages.reference(0).0, false);
    assert_eq!(guest.add(&[page]).0, INVALID);
    assert_eq!(guest.front.keys.back_state(), State::InitWait);
    store.write(path, "connected").unwrap();
    guest.front.keys.wait(State::Connected);
    until("pages are taken", || guest.add(&[page]).0 == OK);
    assert_eq!(mapped(&backend), 1);
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
fn pages_whose_grants_the_guest_ends_while_they_are_mapped_do_no_harm() {
    let world = World::new();
    let backend = serve(&world, Sink::new(), Reach::Copy);
    let domain = world.guest();
    let mut guest = Guest::connect(domain.clone());
    let pages = domain.share(BACK, 8, Access::ReadWrite).unwrap();
    let refs = Guest::refs(&pages);
    let entries: Vec<_> = refs.iter().map(|gref| (*gref, false)).collect();
    assert_eq!(guest.add(&entries).0, OK);
    // As on Xen: the owner asks its pages back, and gets them when the mapper lets go.
    drop(pages);
    let fresh = domain.share(BACK, 64, Access::ReadWrite).unwrap();
    let again: BTreeSet<_> = Guest::refs(&fresh).into_iter().collect();
    assert!(refs.iter().all(|gref| !again.contains(gref)), "still taken");
    let ((status, removed), _) = guest.del(&refs[..3]);
    assert_eq!((status, removed), (OK, 3));
    let ((status, removed), _) = guest.del(&refs);
    assert_eq!(status, OK);
    assert_eq!((removed, mapped(&backend)), (5, 0));
    assert_eq!(backend.counters().faults, 0);
}

#[test]
fn more_pages_than_the_backend_keeps_are_refused() {
    let world = World::with_grant_limit(8192);
    let backend = serve(&world, Sink::new(), Reach::Copy);
    let domain = world.guest();
    let mut guest = Guest::connect(domain.clone());
    let pages = domain.share(BACK, 4100, Access::ReadWrite).unwrap();
    let entries: Vec<_> = Guest::refs(&pages)
        .into_iter()
        .map(|gref| (gref, false))
        .collect();
    for list in entries[..4000].chunks(500) {
        assert_eq!(guest.add(list).0, OK);
    }
    let (status, statuses) = guest.add(&entries[4000..]);
    assert_eq!((status, mapped(&backend)), (INVALID, 4000));
    assert_eq!(
        (statuses[95], statuses[96]),
        (0, 3),
        "the rest does not fit"
    );
    assert_eq!(guest.add(&entries[4000..4096]).0, OK);
    assert_eq!(mapped(&backend), 4096);
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
