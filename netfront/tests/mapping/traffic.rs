//! With our own backend: what packets cost once their pages are mapped, growth and shrinking, reconnects.

use std::time::Duration;

use hypervisor::Access;
use netback_sim::{peer, Backend, BackendHandle, Config, Features, Reach};
use netfront::pool::BATCH;
use netfront::{Change, Device, PoolPolicy, QueueConfig, Wants};

use crate::common::toolstack::Toolstack;
use crate::common::{detach_all, echo, receive_all, until, World, BACK, FRONT, SLOTS};
use crate::{mapped, wait_mapped, POOLS};

fn serve(world: &World, change: impl FnOnce(&mut Config)) -> BackendHandle {
    let mut config = Config::new(FRONT, peer::Echo::new());
    change(&mut config);
    Backend::start(&world.back, config).unwrap()
}

#[test]
fn once_the_pages_are_mapped_no_packet_costs_the_backend_a_copy_or_a_map() {
    for reach in Reach::ALL {
        let world = World::new();
        let backend = serve(&world, |config| config.reach = reach);
        let mut device = Device::builder(0).connect(&world.front).unwrap();
        wait_mapped(&mut device, POOLS);
        assert_eq!(backend.counters().gref_mapped, POOLS);
        let before = (world.back.counters(), backend.counters());
        for seed in 0..3000 {
            echo(&mut device, seed);
        }
        let (crossed, now) = (world.back.counters(), backend.counters());
        assert_eq!(now.rx_packets + now.tx_packets, 6000);
        assert_eq!(crossed.copies, before.0.copies);
        assert_eq!(
            (crossed.maps, crossed.unmaps),
            (before.0.maps, before.0.unmaps)
        );
        let other = |counts: hypervisor::Counts| counts.hypercalls - counts.notifications;
        assert_eq!(other(crossed), other(before.0), "only the bell is rung");
        assert_eq!(now.copies_kept - before.1.copies_kept, 6000);
        device.close().unwrap();
        backend.stop().unwrap();
        let (front, back) = (world.front.counters(), world.back.counters());
        assert_eq!((front.grants, back.maps), (front.revokes, back.unmaps));
    }
}

#[test]
fn a_backend_that_keeps_no_pages_mapped_is_as_good_as_ever() {
    let world = World::new();
    let features = Features {
        gref_mapping: false,
        ..Features::default()
    };
    let backend = serve(&world, |config| config.features = features);
    let mut device = Device::builder(0).connect(&world.front).unwrap();
    until("the answer", || backend.counters().control_messages == 1);
    for seed in 0..100 {
        echo(&mut device, seed);
    }
    let counters = backend.counters();
    assert_eq!((mapped(&mut device), counters.gref_mapped), (0, 0));
    assert_eq!((counters.copies_kept, counters.copies_granted), (0, 200));
    assert_eq!(counters.control_messages, 1, "it was asked once");
    device.close().unwrap();
    backend.stop().unwrap();
}

#[test]
fn without_the_wish_the_offer_or_a_pool_there_is_no_control_ring() {
    let policy = |policy| QueueConfig {
        policy,
        ..QueueConfig::default()
    };
    for (ctrl_ring, grant_mapping, queue) in [
        (false, true, QueueConfig::default()),
        (true, false, QueueConfig::default()),
        (true, true, policy(PoolPolicy::PerPacket)),
        (true, true, policy(PoolPolicy::NoRecycle)),
    ] {
        let world = World::new();
        let backend = serve(&world, |config| config.features.ctrl_ring = ctrl_ring);
        let mut toolstack = Toolstack::of(&world);
        // As an earlier driver left them.
        toolstack.front("ctrl-ring-ref", 9);
        toolstack.front("event-channel-ctrl", 9);
        let wants = Wants {
            grant_mapping,
            ..Wants::default()
        };
        let builder = Device::builder(0).wants(wants).queue(queue);
        let mut device = builder.connect(&world.front).unwrap();
        assert_eq!(toolstack.read_front("ctrl-ring-ref"), None);
        assert_eq!(toolstack.read_front("event-channel-ctrl"), None);
        echo(&mut device, 1);
        assert_eq!(backend.counters().control_messages, 0);
        device.close().unwrap();
        backend.stop().unwrap();
    }
}

#[test]
fn pages_that_the_pool_grows_by_are_mapped_and_leave_the_backend_before_they_are_freed() {
    let world = World::new();
    let pace = peer::Pace {
        rate: 2000,
        burst: 8,
        count: 400,
    };
    let sizes = "1000".parse().unwrap();
    let generator = netback_sim::traffic::Generator::new(sizes, 1).unwrap();
    let source = peer::Source::new(generator, pace);
    let backend = Backend::start(&world.back, Config::new(FRONT, source)).unwrap();
    let config = QueueConfig {
        rx_pages: SLOTS + 2 * BATCH,
        rx_limit: SLOTS + 12 * BATCH,
        tx_pages: BATCH,
        ..QueueConfig::default()
    };
    let start = (config.rx_pages + config.tx_pages) as u64;
    let builder = Device::builder(0).queue(config);
    let mut device = builder.connect(&world.front).unwrap();
    let mut kept = Vec::new();
    while kept.len() < 8 * BATCH {
        kept.extend(detach_all(device.queue()));
        device.queue().wait(Duration::from_millis(20)).unwrap();
    }
    let granted = |device: &mut Device| {
        let pools = device.queue().pools().map(|pool| pool.census().granted);
        pools.iter().sum::<usize>() as u64
    };
    until("the grown pages to be mapped", || {
        device.queue().pools()[0].collect();
        granted(&mut device) > start && mapped(&mut device) == granted(&mut device)
    });
    let grown = granted(&mut device);
    drop(kept);
    until("no more packets", || {
        receive_all(device.queue());
        backend.counters().rx_packets == 400
    });
    receive_all(device.queue());
    let before = world.front.counters().revokes;
    let mut freed = 0;
    until("an idle pool to shrink", || {
        let pages = device.queue().idle() as u64;
        freed += pages;
        freed > 0 && pages == 0
    });
    wait_mapped(&mut device, grown - freed);
    until("the pages to be freed", || {
        world.front.counters().revokes - before == freed
    });
    assert_eq!(backend.counters().gref_mapped, grown - freed);
    // A page that was freed while it was mapped would still be taken.
    assert!(world
        .front
        .share(BACK, freed as usize, Access::ReadWrite)
        .is_ok());
    device.close().unwrap();
    backend.stop().unwrap();
}

#[test]
fn a_connection_that_is_made_anew_announces_its_pages_anew_and_leaves_no_mapping_behind() {
    let world = World::new();
    let backend = serve(&world, |_| {});
    let mut device = Device::builder(0).connect(&world.front).unwrap();
    wait_mapped(&mut device, POOLS);
    for round in 0..3 {
        device = device.reconnect().unwrap();
        wait_mapped(&mut device, POOLS);
        echo(&mut device, round);
    }
    backend.stop().unwrap();
    until("the backend to leave", || {
        matches!(device.change(), Some(Change::BackendLeft(_)))
    });
    let pending = device.disconnect();
    assert_eq!(pending.stats().gref_mapped.get(), 0);
    let counters = world.back.counters();
    assert_eq!(counters.maps, counters.unmaps);
}
