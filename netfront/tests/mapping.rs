//! Pages that the backend keeps mapped: announced after connecting, withdrawn before they are freed; and
//! what a backend that breaks the contract of the control ring can do, which is little.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::thread;
use std::time::Duration;

use common::toolstack::Toolstack;
use common::{count, detach_all, echo, frame, receive_all, until, Back, World, BACK, FRONT, SLOTS};
use hypervisor::{Access, EventChannels, GrantRef, MappedPages, Port};
use netback_sim::{peer, Backend, BackendHandle, Config, Features, Reach};
use netfront::pool::BATCH;
use netfront::queue::{Ports, QueueKeys};
use netfront::{Change, Device, PoolPolicy, QueueConfig, Wants};
use xen_ring::{
    BackRing, Control, ControlMessage, ControlRequest, ControlResponse, ControlStatus, GrefEntry,
    Notify,
};

/// The pages of a queue's pools, as they are made.
const POOLS: u64 = 512 + 256;

fn serve(world: &World, change: impl FnOnce(&mut Config)) -> BackendHandle {
    let mut config = Config::new(FRONT, peer::Echo::new());
    change(&mut config);
    Backend::start(&world.back, config).unwrap()
}

fn mapped(device: &mut Device) -> u64 {
    count(device.queue(), "gref_mapped")
}

fn wait_mapped(device: &mut Device, pages: u64) {
    until(&format!("{pages} pages mapped"), || mapped(device) == pages);
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
fn a_frontend_that_is_gone_without_a_word_leaves_nothing_that_stops_the_next() {
    let world = World::new();
    let backend = serve(&world, |_| {});
    let mut device = Device::builder(0).connect(&world.front).unwrap();
    wait_mapped(&mut device, POOLS);
    for round in 0..3 {
        // A backend that dies, too: whoever comes next keeps nothing of what was.
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

/// A backend whose control ring is in the test's hands.
struct Hand {
    ring: BackRing<Control>,
    events: EventChannels,
    port: Port,
    back: Back,
    _page: MappedPages,
}

impl Hand {
    /// Connects a device to it.
    fn meet(world: &World, queue: QueueConfig) -> (Device, Hand) {
        let mut toolstack = Toolstack::with_vif(world);
        toolstack.back("feature-ctrl-ring", 1);
        let front = world.front.clone();
        let connecting =
            thread::spawn(move || Device::builder(0).queue(queue).connect(&front).unwrap());
        toolstack.wait_front("4");
        let mut number = |key| toolstack.read_front(key).unwrap().parse().unwrap();
        let keys = QueueKeys {
            tx_ring: GrantRef(number("tx-ring-ref")),
            rx_ring: GrantRef(number("rx-ring-ref")),
            ports: Ports::Shared(Port(number("event-channel"))),
        };
        let (ring, port) = (number("ctrl-ring-ref"), number("event-channel-ctrl"));
        let mut back = world.attach(&keys);
        let page = back
            .memory
            .map(&[GrantRef(ring)], Access::ReadWrite)
            .unwrap();
        let mut events = world.back.events().unwrap();
        let port = events.bind_interdomain(FRONT, Port(port)).unwrap();
        let hand = Hand {
            ring: BackRing::attach(page.page(0)),
            events,
            port,
            back,
            _page: page,
        };
        toolstack.back("state", 4);
        (connecting.join().unwrap(), hand)
    }

    fn asked(&mut self) -> ControlRequest {
        let mut request = None;
        until("a question", || {
            request = self.ring.pop().unwrap();
            request.is_some() || self.ring.final_check(1).is_err()
        });
        request.unwrap().request()
    }

    fn say(&mut self, response: &ControlResponse) {
        self.ring.push(response).unwrap();
        if self.ring.publish() == Notify::Needed {
            self.events.notify(self.port).unwrap();
        }
    }

    fn answer(&mut self, request: &ControlRequest, status: ControlStatus, data: u32) {
        self.say(&ControlResponse::to(request, status, data));
    }

    /// Answers the question for the size, and all announcements up to `lists`.
    fn take(&mut self, lists: usize) -> Vec<GrefEntry> {
        let size = self.asked();
        assert_eq!(
            size.message,
            ControlMessage::GetGrefMappingSize { queue: 0 }
        );
        self.answer(&size, ControlStatus::Success, 4096);
        let mut all = Vec::new();
        for _ in 0..lists {
            let add = self.asked();
            let ControlMessage::AddGrefMapping { gref, entries, .. } = add.message else {
                panic!("{add:?}")
            };
            all.extend(self.list(gref, entries));
            self.answer(&add, ControlStatus::Success, 0);
        }
        all
    }

    fn list(&mut self, gref: u32, entries: u32) -> Vec<GrefEntry> {
        let bytes = self
            .back
            .read(GrantRef(gref), 0, entries as u16 * 8)
            .unwrap();
        let entries = bytes.chunks_exact(8);
        entries
            .map(|raw| GrefEntry::decode(raw.try_into().unwrap()))
            .collect()
    }

    /// A packet still goes through.
    fn carries(&mut self, device: &mut Device) {
        self.back.deliver(&frame(100, 1));
        assert_eq!(receive_all(device.queue()), [frame(100, 1)]);
    }
}

#[test]
fn pages_are_announced_each_once_with_the_rights_that_they_are_granted_with() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let all = hand.take(2);
    wait_mapped(&mut device, POOLS);
    let mut refs: Vec<_> = all.iter().map(|entry| entry.gref).collect();
    refs.sort_unstable();
    refs.dedup();
    assert_eq!(refs.len() as u64, POOLS);
    assert_eq!(all.iter().filter(|entry| entry.read_only).count(), 256);
    for entry in all {
        let written = hand.back.write(GrantRef(entry.gref), 4000, &[0]).is_okay();
        assert_eq!(written, !entry.read_only, "{entry:?}");
    }
}

#[test]
fn a_backend_that_keeps_fewer_pages_gets_so_many_and_one_that_refuses_more_is_left_alone() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let size = hand.asked();
    hand.answer(&size, ControlStatus::Success, 600);
    let first = hand.asked();
    hand.answer(&first, ControlStatus::Success, 0);
    let second = hand.asked();
    assert!(
        matches!(
            second.message,
            ControlMessage::AddGrefMapping { entries: 88, .. }
        ),
        "{second:?}"
    );
    hand.answer(&second, ControlStatus::InvalidParameter, 0);
    hand.carries(&mut device);
    wait_mapped(&mut device, 512);
    thread::sleep(Duration::from_millis(50));
    assert!(hand.ring.pop().unwrap().is_none(), "nothing more is asked");
    assert_eq!(device.change(), None);
}

#[test]
fn a_page_that_leaves_is_freed_only_after_the_backend_has_said_that_it_let_go() {
    let world = World::new();
    let queue = QueueConfig {
        rx_pages: SLOTS,
        rx_limit: SLOTS + 4 * BATCH,
        tx_pages: BATCH,
        ..QueueConfig::default()
    };
    for obeys in [true, false] {
        let (mut device, mut hand) = Hand::meet(&world, queue.clone());
        hand.take(1);
        // The pool grows by one batch after the other, and each is announced.
        let mut kept = Vec::new();
        for seed in 0..2 * BATCH {
            hand.back.deliver(&frame(1000, seed));
            kept.extend(detach_all(device.queue()));
        }
        let start = (SLOTS + BATCH) as u64;
        until("all grown pages to be announced", || {
            if let Some(raw) = hand.ring.pop().unwrap() {
                let add = raw.request();
                assert!(matches!(add.message, ControlMessage::AddGrefMapping { .. }));
                hand.answer(&add, ControlStatus::Success, 0);
            }
            let _ = hand.ring.final_check(1);
            device.queue().pools()[0].collect();
            let now = device.queue().pools()[0].census().granted as u64 + BATCH as u64;
            now >= start + 2 * BATCH as u64 && mapped(&mut device) == now
        });
        let grown = mapped(&mut device);
        drop(kept);
        receive_all(device.queue());
        let revokes = world.front.counters().revokes;
        let mut freed = 0;
        until("a batch to leave", || {
            freed = device.queue().idle();
            freed > 0
        });
        let del = hand.asked();
        let ControlMessage::DelGrefMapping { gref, entries, .. } = del.message else {
            panic!("{del:?}")
        };
        let list = hand.list(gref, entries);
        assert_eq!((freed, list.len()), (BATCH, BATCH));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(
            world.front.counters().revokes,
            revokes,
            "not before the answer"
        );
        assert!(hand.back.read(GrantRef(list[0].gref), 0, 4).is_ok());
        let removed = if obeys { BATCH } else { BATCH - 1 };
        hand.answer(&del, ControlStatus::Success, removed as u32);
        if obeys {
            wait_mapped(&mut device, grown - BATCH as u64);
            until("the pages to go", || {
                world.front.counters().revokes - revokes == BATCH as u64
            });
            assert!(hand.back.read(GrantRef(list[0].gref), 0, 4).is_err());
        } else {
            // Which one is it that stays mapped? They are all kept until the connection is over.
            thread::sleep(Duration::from_millis(50));
            assert_eq!(world.front.counters().revokes, revokes);
            hand.carries(&mut device);
        }
        assert_eq!(device.change(), None);
        drop(hand);
        let mut toolstack = Toolstack::of(&world);
        toolstack.back("state", 6);
        let _ = device.disconnect();
        let counters = world.front.counters();
        assert_eq!(counters.grants, counters.revokes);
    }
}

#[test]
fn nonsense_in_an_answer_ends_the_control_ring_and_not_the_traffic() {
    let wrong: [(&str, fn(&mut ControlResponse)); 5] = [
        ("an id that was not asked", |answer| answer.id ^= 0x55),
        ("another type", |answer| answer.kind = 9),
        ("a status that is none", |answer| {
            answer.status = ControlStatus::Other(77);
        }),
        ("too much data for a size", |answer| {
            answer.status = ControlStatus::BufferOverflow;
        }),
        ("a queue that is not there", |answer| {
            answer.status = ControlStatus::InvalidParameter;
        }),
    ];
    for (why, change) in wrong {
        let world = World::new();
        let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
        let size = hand.asked();
        let mut answer = ControlResponse::to(&size, ControlStatus::Success, 4096);
        change(&mut answer);
        hand.say(&answer);
        hand.carries(&mut device);
        thread::sleep(Duration::from_millis(50));
        assert!(
            hand.ring.pop().unwrap().is_none(),
            "{why}: nothing more is asked"
        );
        assert_eq!(device.change(), None, "{why}");
        assert_eq!(mapped(&mut device), 0, "{why}");
    }
}

#[test]
fn a_backend_that_does_not_answer_and_rings_without_end_keeps_nobody_from_anything() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let _never = hand.asked();
    for _ in 0..200 {
        hand.events.notify(hand.port).unwrap();
        hand.carries(&mut device);
    }
    let mut toolstack = Toolstack::of(&world);
    toolstack.back("carrier", 0);
    until("the store is watched meanwhile", || {
        device.change() == Some(Change::Carrier(false))
    });
    // The goodbye does not wait for the answer either.
    drop(hand);
    toolstack.back("state", 6);
    let start = std::time::Instant::now();
    let _ = device.disconnect();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_control_ring_that_is_broken_ends_the_connection_with_its_name() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let _question = hand.asked();
    // More answers than questions: written where the index is.
    hand.ring
        .page()
        .store(8, 100, std::sync::atomic::Ordering::Release);
    hand.events.notify(hand.port).unwrap();
    let mut told = None;
    until("the news", || {
        told = device.change();
        told.is_some()
    });
    let Some(Change::Broken(corrupt)) = told else {
        panic!("{told:?}")
    };
    assert!(corrupt.to_string().contains("control ring"), "{corrupt}");
    assert!(!device.link().carrier);
    assert_eq!(device.change(), None, "told once");
}
