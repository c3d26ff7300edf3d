//! Frontends and backends that come, go, die and come back; and guests that break the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{exchange, until, Front, Keys, Shape, World, FRONT};
use netback_sim::peer::{Pace, Sink, Source};
use netback_sim::traffic::{Generator, Sizes};
use netback_sim::{Config, State, Toolstack};
use xen_ring::{Offload, TxFlags, TxRequest};

#[test]
fn the_toolstack_writes_what_an_administrator_says() {
    let world = World::new();
    let backend = world.serve_with(Config {
        toolstack: Some(Toolstack {
            mac: "02:00:00:00:00:07".parse().unwrap(),
            mtu: 9000,
            trusted: false,
        }),
        ..Config::new(FRONT, Sink::new())
    });
    assert!(backend.wait_for(State::InitWait, common::PATIENCE));
    let guest = world.guest();
    let mut store = guest.store().unwrap();
    let mut read = |key: &str| store.read(&format!("device/vif/0/{key}")).unwrap();
    assert_eq!(read("mac").as_deref(), Some("02:00:00:00:00:07"));
    assert_eq!(read("mtu").as_deref(), Some("9000"));
    assert_eq!(read("trusted").as_deref(), Some("0"));
    assert_eq!(read("backend-id").as_deref(), Some("0"));
    assert_eq!(read("state").as_deref(), Some("1"));
    let back = read("backend").unwrap();
    // The guest may read the backend's directory and not write it.
    let mut store = guest.store().unwrap();
    assert_eq!(
        store
            .read(&format!("{back}/feature-sg"))
            .unwrap()
            .as_deref(),
        Some("1")
    );
    assert!(store.write(&format!("{back}/online"), "0").is_err());
    assert!(store.write("device/vif/0/state", "1").is_ok());
}

#[test]
fn the_same_process_can_close_and_connect_again_and_again() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let guest = world.guest();
    for round in 1..=5 {
        let mut front = Front::connect(guest.clone());
        exchange(&mut front, &backend, 40);
        front.keys.close_cycle();
        assert_eq!(backend.counters().connects, round);
        assert_eq!(backend.counters().disconnects, round);
    }
    assert_eq!(backend.fault(), None);
}

#[test]
fn a_frontend_may_close_a_whole_cycle_before_it_first_connects() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let guest = world.guest();
    Keys::new(&guest).close_cycle();
    let mut front = Front::connect(guest);
    exchange(&mut front, &backend, 10);
}

#[test]
fn a_frontend_that_jumps_to_closed_finds_a_closed_backend() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let guest = world.guest();
    let mut front = Front::connect(guest.clone());
    front.keys.state(State::Closed);
    front.keys.wait(State::Closed);
    front.keys.state(State::Initialising);
    drop(front);
    let mut front = Front::connect(guest);
    exchange(&mut front, &backend, 10);
    assert_eq!(backend.counters().connects, 2);
}

#[test]
fn a_frontend_that_begins_anew_without_closing_is_served() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let guest = world.guest();
    let mut front = Front::connect(guest.clone());
    exchange(&mut front, &backend, 10);
    front.keys.state(State::Initialising);
    front.keys.wait(State::InitWait);
    drop(front);
    let mut front = Front::connect(guest);
    exchange(&mut front, &backend, 10);
    assert_eq!(backend.counters().connects, 2);
}

#[test]
fn a_dead_frontend_is_survived_until_the_next_one_closes_for_it() {
    let world = World::new();
    let generator = Generator::new(Sizes::Mix, 1).unwrap();
    let pace = Pace {
        rate: 20_000,
        ..Pace::default()
    };
    let backend = world.serve(Source::new(generator, pace));
    let mut front = Front::connect(world.guest());
    front.post(Front::slots());
    until("traffic", || {
        front.receive();
        backend.counters().rx_packets > 100
    });
    // Dies in the middle of it: grants and channels end, the keys stay as they are.
    drop(front);
    until("failed copies", || backend.counters().rx_copy_failed > 0);
    std::thread::sleep(Duration::from_millis(100));
    let quiet = backend.counters();
    assert_eq!((quiet.faults, backend.state()), (0, State::Connected));

    // The next process finds everything connected, closes the cycle, and gets its frames.
    let guest = world.guest();
    Keys::new(&guest).close_cycle();
    let mut front = Front::connect(guest);
    front.post(Front::slots());
    until("traffic again", || !front.receive().is_empty());
    assert_eq!(backend.fault(), None);
}

#[test]
fn a_backend_that_is_killed_and_started_again_waits_for_its_frontend_to_notice() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let guest = world.guest();
    let mut front = Front::connect(guest.clone());
    exchange(&mut front, &backend, 10);
    backend.abandon().unwrap();
    assert_eq!(
        front.keys.back_state(),
        State::Connected,
        "nobody tidied up"
    );

    let backend = world.serve(Sink::new());
    front.keys.wait(State::InitWait);
    front.keys.close_cycle();
    drop(front);
    let mut front = Front::connect(guest);
    exchange(&mut front, &backend, 10);
    assert_eq!(backend.counters().connects, 1);
    assert!(backend.verified().is_some());
}

#[test]
fn a_frontend_that_does_not_notice_is_taken_over_with_its_rings() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = Front::connect(world.guest());
    exchange(&mut front, &backend, 10);
    backend.abandon().unwrap();
    // One frame is sent while nobody is there: it is answered by the next backend.
    assert!(front.send(&[0; 100], 1, &Offload::default()));
    let backend = world.serve_with(Config {
        stale_patience: Duration::from_millis(300),
        ..Config::new(FRONT, Sink::new())
    });
    front.keys.wait(State::Connected);
    until("the answer", || front.settled());
    exchange(&mut front, &backend, 10);
    assert_eq!(backend.counters().tx_packets, 11);
}

#[test]
fn a_backend_that_finds_the_keys_of_a_dead_frontend_keeps_waiting() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    drop(Front::connect(world.guest()));
    backend.abandon().unwrap();
    let backend = world.serve_with(Config {
        stale_patience: Duration::from_millis(100),
        ..Config::new(FRONT, Sink::new())
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(backend.state(), State::InitWait);
    let guest = world.guest();
    Keys::new(&guest).close_cycle();
    let mut front = Front::connect(guest);
    exchange(&mut front, &backend, 10);
}

#[test]
fn stopping_closes_in_order_and_does_not_wait_for_ever() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = Front::connect(world.guest());
    let begun = Instant::now();
    // Nobody drives this frontend, so it does not close.
    backend.stop().unwrap();
    assert!(begun.elapsed() < common::PATIENCE);
    assert_eq!(front.keys.back_state(), State::Closed);
}

#[test]
fn a_vif_that_the_toolstack_takes_away_ends_once_the_guest_has_closed() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = Front::connect(world.guest());
    world.store().write(&backend.paths().online(), "0").unwrap();
    assert_eq!(front.keys.back_state(), State::Connected);
    front.keys.state(State::Closing);
    front.keys.wait(State::Closing);
    front.keys.state(State::Closed);
    front.keys.wait(State::Closed);
    until("the end", || !backend.is_running());
}

#[test]
fn a_backend_whose_store_is_gone_ends_and_says_so() {
    let mut world = World::new();
    let backend = world.serve(Sink::new());
    let front = Front::connect(world.guest());
    world.end();
    // The store's client may need some seconds to notice, and then it is tried again for some.
    let begun = Instant::now();
    while backend.is_running() {
        assert!(begun.elapsed() < common::PATIENCE * 5, "it did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let error = backend.stop().expect_err("an error").to_string();
    assert!(!error.is_empty());
    drop(front);
}

#[test]
fn missing_and_senseless_keys_take_the_vif_down_with_their_names() {
    let cases: [(&'static str, &'static str); 3] = [
        ("tx-ring-ref", "seventeen"),
        ("multi-queue-num-queues", "40000"),
        ("request-rx-copy", "0"),
    ];
    for (key, value) in cases {
        let world = World::new();
        let backend = world.serve(Sink::new());
        let mut shape = Shape::default();
        shape.keys.push((key, value));
        let mut front = Front::prepare(world.guest(), &shape);
        front.keys.wait(State::Closed);
        let fault = backend.fault().expect("a reason");
        assert!(fault.contains(key), "{fault}");
        assert_eq!(front.keys.back("error").as_deref(), Some(fault.as_str()));
        // It begins anew with better keys.
        front.keys.remove(key);
        front.keys.state(State::Initialising);
        let guest = front.domain.clone();
        drop(front);
        let mut front = Front::connect(guest);
        assert_eq!(front.keys.back("error"), None);
        exchange(&mut front, &backend, 5);
    }
}

#[test]
fn a_reference_that_is_not_granted_takes_the_vif_down() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut shape = Shape::default();
    shape.keys.push(("rx-ring-ref", "1000000"));
    let mut front = Front::prepare(world.guest(), &shape);
    front.keys.wait(State::Closed);
    assert!(backend.fault().expect("a reason").contains("1000000"));
}

/// One request that no honest frontend writes.
fn raw(front: &Front, change: impl Fn(&mut TxRequest)) -> [u8; 12] {
    let mut request = TxRequest {
        gref: front.tx_pages.reference(0).0,
        size: 100,
        ..TxRequest::default()
    };
    change(&mut request);
    request.encode()
}

#[test]
fn a_guest_that_breaks_the_protocol_loses_its_vif_and_can_begin_anew() {
    type Break = fn(&mut Front);
    let cases: [(&str, Break); 4] = [
        ("beyond its page", |front| {
            let bad = raw(front, |request| request.offset = 4090);
            front.tx.push_raw(&bad).unwrap();
        }),
        ("slots", |front| {
            for _ in 0..25 {
                let bad = raw(front, |request| {
                    request.size = 1;
                    request.flags = TxFlags::MORE_DATA;
                });
                front.tx.push_raw(&bad).unwrap();
            }
        }),
        ("segmentation", |front| {
            let bad = raw(front, |request| request.flags = TxFlags::EXTRA_INFO);
            front.tx.push_raw(&bad).unwrap();
            front
                .tx
                .push_raw(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
                .unwrap();
        }),
        ("producer index", |front| {
            let page = front.tx.page().clone();
            page.store(0, 0x7fff_0000, std::sync::atomic::Ordering::Release);
        }),
    ];
    for (reason, broken) in cases {
        eprintln!("case: {reason}");
        let world = World::new();
        let backend = world.serve(Sink::new());
        let guest = world.guest();
        let mut front = Front::connect(guest.clone());
        exchange(&mut front, &backend, 5);
        broken(&mut front);
        let _ = front.tx.publish();
        front.events.notify(front.tx_port).unwrap();
        front.keys.wait(State::Closed);
        let fault = backend.fault().expect("a reason");
        assert!(fault.contains(reason), "wanted `{reason}`, found `{fault}`");
        assert_eq!(backend.counters().faults, 1);
        assert!(backend.is_running());
        // Its state is still 4 with the same keys: that is not tried again.
        front.keys.state(State::Connected);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(front.keys.back_state(), State::Closed);
        front.keys.state(State::Initialising);
        front.keys.wait(State::InitWait);
        drop(front);
        let mut front = Front::connect(guest);
        exchange(&mut front, &backend, 5);
    }
}

#[test]
fn a_request_with_a_wrong_reference_fails_alone() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = Front::connect(world.guest());
    let bad = raw(&front, |request| request.gref = 999_999);
    front.tx.push_raw(&bad).unwrap();
    exchange(&mut front, &backend, 5);
    assert_eq!(front.answers[1], 1);
    let counters = backend.counters();
    assert_eq!((counters.tx_copy_failed, counters.faults), (1, 0));
}

#[test]
fn connected_is_shown_only_when_the_toolstacks_script_is_done() {
    let world = World::new();
    // The first backend plays the toolstack, and leaves.
    world.serve(Sink::new()).stop().unwrap();
    let hotplug = "/local/domain/0/backend/vif/1/0/hotplug-status";
    let mut store = world.store();
    store.write(hotplug, "").unwrap();
    let backend = world.serve_with(Config {
        toolstack: None,
        ..Config::new(FRONT, Sink::new())
    });
    let guest = world.guest();
    let mut front = Front::prepare(guest, &Shape::default());
    until("the rings", || backend.counters().connects == 1);
    // They are served, although nobody is told yet.
    exchange(&mut front, &backend, 3);
    assert_eq!(front.keys.back_state(), State::InitWait);
    store.write(hotplug, "connected").unwrap();
    front.keys.wait(State::Connected);
    exchange(&mut front, &backend, 3);
    assert_eq!((backend.counters().connects, backend.fault()), (1, None));
}

#[test]
fn a_vif_that_closes_before_the_script_is_done_waits_for_it_anew() {
    let world = World::new();
    world.serve(Sink::new()).stop().unwrap();
    let hotplug = "/local/domain/0/backend/vif/1/0/hotplug-status";
    let mut store = world.store();
    store.write(hotplug, "").unwrap();
    let backend = world.serve_with(Config {
        toolstack: None,
        ..Config::new(FRONT, Sink::new())
    });
    let guest = world.guest();
    let mut front = Front::prepare(guest.clone(), &Shape::default());
    until("the rings", || backend.counters().connects == 1);
    front.keys.close_cycle();
    store.write(hotplug, "connected").unwrap();
    drop(front);
    let mut front = Front::connect(guest);
    exchange(&mut front, &backend, 3);
}

#[test]
fn what_a_toolstack_wrote_of_a_vif_is_read_back() {
    let world = World::new();
    let wanted = Toolstack {
        mac: "02:00:00:00:00:07".parse().unwrap(),
        mtu: 9000,
        trusted: false,
    };
    let backend = world.serve_with(Config {
        toolstack: Some(wanted),
        ..Config::new(FRONT, Sink::new())
    });
    let mut store = world.store();
    let read = |paths: &netback_sim::keys::Paths, store: &mut dyn hypervisor::Store| {
        paths.read_toolstack(store).unwrap()
    };
    assert_eq!(read(backend.paths(), store.as_mut()), Some(wanted));
    let other = netback_sim::keys::Paths::new(hypervisor::DomId(0), FRONT, 7);
    assert_eq!(read(&other, store.as_mut()), None);
}
