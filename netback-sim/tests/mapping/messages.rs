//! What a guest may ask for over the control ring, and what it must not get.

use std::collections::BTreeSet;

use hypervisor::{Access, DomId};
use netback_sim::peer::Sink;
use netback_sim::{Config, Features, Reach, State};
use xen_ring::{ControlMessage, ControlStatus, GrefEntry};

use crate::common::{until, World, FRONT};
use crate::guest::{mapped, serve, Guest, BACK, INVALID, OK};

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
    // netif.h has no statuses in the answer to an addition, so its list need not be writable.
    let (queue, entries) = (0, 1);
    let add = ControlMessage::AddGrefMapping {
        queue,
        gref: read_only.reference(0).0,
        entries,
    };
    assert_eq!(guest.ask(add), (OK, 0));
    let del = ControlMessage::DelGrefMapping {
        queue,
        gref: list,
        entries,
    };
    assert_eq!((guest.ask(del), mapped(&backend)), ((OK, 1), 0));
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

/// A small generator: each run takes the same steps.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn whatever_lists_a_guest_sends_the_backend_keeps_what_a_model_says() {
    let world = World::new();
    let backend = serve(&world, Sink::new(), Reach::Copy);
    let mut guest = Guest::connect(world.guest());
    let rx = Guest::refs(&guest.front.rx_pages);
    let tx = Guest::refs(&guest.front.tx_pages);
    let mut model = BTreeSet::new();
    let mut dice = Dice(20_261_124);
    let (mut added, mut refused) = (0, 0);
    for step in 0..1500 {
        let count = 1 + dice.below(6);
        let entries: Vec<(u32, bool)> = (0..count)
            .map(|_| match dice.below(60) {
                0 => (u32::MAX - dice.below(9) as u32, false),
                1 => (dice.below(8) as u32, true),
                // Granted for reading only, whatever is asked.
                2..20 => (tx[dice.below(40)], dice.below(20) > 0),
                _ => (rx[dice.below(100)], dice.below(4) == 0),
            })
            .collect();
        if dice.below(2) == 0 {
            let mut new = BTreeSet::new();
            let good =
                |&(gref, read_only): &(u32, bool)| match (rx.contains(&gref), tx.contains(&gref)) {
                    (false, false) => false,
                    (_, is_tx) => read_only || !is_tx,
                };
            let fresh = entries
                .iter()
                .all(|(gref, _)| !model.contains(gref) && new.insert(*gref));
            let wanted = fresh && entries.iter().all(good);
            let (status, statuses) = guest.add(&entries);
            assert_eq!(
                status,
                if wanted { OK } else { INVALID },
                "step {step}: {entries:?}"
            );
            assert_eq!(
                statuses.iter().all(|status| *status == 0),
                wanted,
                "step {step}"
            );
            if wanted {
                model.extend(new);
            }
            *(if wanted { &mut added } else { &mut refused }) += 1;
        } else {
            let grefs: Vec<u32> = entries.iter().map(|(gref, _)| *gref).collect();
            let statuses: Vec<u16> = grefs
                .iter()
                .map(|gref| if model.remove(gref) { 0 } else { 2 })
                .collect();
            let removed = statuses.iter().filter(|status| **status == 0).count();
            assert_eq!(
                guest.del(&grefs),
                ((OK, removed as u32), statuses),
                "step {step}: {grefs:?}"
            );
        }
        let crossed = world.back.counters();
        let rings = 3;
        assert_eq!(
            crossed.maps - crossed.unmaps,
            model.len() as u64 + rings,
            "step {step}"
        );
        assert_eq!(mapped(&backend), model.len() as u64, "step {step}");
    }
    assert!(
        added > 100 && refused > 100,
        "{added} added, {refused} refused"
    );
    assert_eq!(backend.counters().faults, 0);
}
