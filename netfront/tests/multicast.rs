//! Multicast control: only the packets of the groups that were asked for arrive, and all of them when that is wanted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::Ordering;
use std::sync::Arc;

use common::{count, until, World, FRONT};
use netback_sim::peer::{Pace, Source};
use netback_sim::traffic::{Generator, Sizes};
use netback_sim::{Backend, BackendHandle, Config, Features};
use netfront::engine::{serve as keep_served, Service};
use netfront::queue::{Group, MULTICAST_MAX};
use netfront::{Change, Consumer, Device, Error, Packet, Queue, Wants};

const GROUP: Group = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
const OTHER: Group = [0x33, 0x33, 0, 0, 0, 0xfb];

/// A backend that sends to the group without end.
fn serve(world: &World, features: Features) -> BackendHandle {
    let generator = Generator::new(Sizes::Fixed(64), 1).unwrap();
    let pace = Pace {
        rate: 2000,
        burst: 1,
        count: 0,
    };
    let config = Config {
        features,
        ..Config::new(
            FRONT,
            Source::new(generator.between([2, 0, 0, 0, 0, 1], GROUP), pace),
        )
    };
    Backend::start(&world.back, config).unwrap()
}

fn connect(world: &World) -> Device {
    let wants = Wants {
        multicast_filter: true,
        ..Wants::default()
    };
    Device::builder(0)
        .wants(wants)
        .connect(&world.front)
        .unwrap()
}

fn receive(queue: &mut Queue) -> usize {
    let packets = queue.receive(64, |_| {}).unwrap();
    queue.reclaim().unwrap();
    queue.flush().unwrap();
    packets
}

/// So many more frames are filtered, and none of them arrives.
fn assert_filtered(backend: &BackendHandle, device: &mut Device) {
    until("what was on its way", || receive(device.queue()) == 0);
    let before = backend.counters().rx_filtered;
    until("frames to be filtered", || {
        assert_eq!(receive(device.queue()), 0);
        backend.counters().rx_filtered > before + 20
    });
}

#[test]
fn only_joined_groups_arrive_and_all_when_the_owner_asks_for_all() {
    let world = World::new();
    let backend = serve(&world, Features::default());
    let mut device = connect(&world);
    assert!(device.link().features.dynamic_multicast_control);
    assert_filtered(&backend, &mut device);

    assert!(device.queue().follow_multicast(Some(&[OTHER])).unwrap());
    assert_filtered(&backend, &mut device);
    let both = [GROUP, OTHER];
    assert!(device.queue().follow_multicast(Some(&both)).unwrap());
    until("packets of the group", || receive(device.queue()) > 0);
    assert_eq!(count(device.queue(), "multicast_groups"), 2);
    // What is known is not asked for again.
    let asked = backend.counters().multicast_requests;
    assert_eq!(asked, 2);
    assert!(device.queue().follow_multicast(Some(&both)).unwrap());

    assert!(device.queue().follow_multicast(Some(&[OTHER])).unwrap());
    until("the group to be left", || {
        receive(device.queue());
        backend.counters().multicast_requests == 3
    });
    assert_filtered(&backend, &mut device);
    // Promiscuous.
    assert!(device.queue().follow_multicast(None).unwrap());
    until("everything", || receive(device.queue()) > 0);
    assert!(device.queue().follow_multicast(Some(&[OTHER])).unwrap());
    until("the filter to be on again", || {
        let before = backend.counters().rx_filtered;
        receive(device.queue());
        std::thread::sleep(std::time::Duration::from_millis(10));
        backend.counters().rx_filtered > before
    });
    assert_filtered(&backend, &mut device);
    device.close().unwrap();
}

#[test]
fn more_groups_than_a_backend_filters_by_make_it_all_of_them() {
    let world = World::new();
    let _backend = serve(&world, Features::default());
    let mut device = connect(&world);
    let many: Vec<Group> = (0..=MULTICAST_MAX as u8)
        .map(|last| [0x33, 0x33, 0, 0, 1, last])
        .collect();
    assert!(device.queue().follow_multicast(Some(&many)).unwrap());
    until("everything", || receive(device.queue()) > 0);
    assert_eq!(count(device.queue(), "multicast_groups"), 0);
    device.close().unwrap();
}

#[test]
fn a_group_that_the_backend_refuses_makes_it_all_of_them() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&netfront::QueueConfig::default());
    assert!(queue.follow_multicast(Some(&[GROUP])).unwrap());
    let wish = back.peek().expect("a wish").multicast;
    assert_eq!(wish, Some(xen_ring::Multicast::Add(GROUP)));
    back.answer(xen_ring::Status::Error);
    back.publish();
    assert_eq!(queue.reclaim().unwrap(), 2);
    assert_eq!(count(&queue, "multicast_refused"), 1);
    assert_eq!(count(&queue, "tx_errors"), 0, "no packet");
    assert!(queue.follow_multicast(Some(&[GROUP, OTHER])).unwrap());
    assert!(back.peek().is_none(), "nothing more is asked");
}

#[test]
fn a_full_ring_has_the_rest_of_the_groups_asked_for_later() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&netfront::QueueConfig::default());
    let groups = |last: std::ops::Range<u8>| -> Vec<Group> {
        last.map(|last| [0x33, 0x33, 0, 0, 2, last]).collect()
    };
    // 256 slots, two for each request.
    for start in [0, 50] {
        assert!(
            queue
                .follow_multicast(Some(&groups(start..start + 50)))
                .unwrap()
                == (start == 0)
        );
    }
    let mut wishes = 0;
    let mut take = |queue: &mut Queue| {
        while back.peek().is_some() {
            wishes += 1;
            back.answer(xen_ring::Status::Okay);
        }
        back.publish();
        queue.reclaim().unwrap();
        wishes
    };
    assert_eq!(take(&mut queue), 128);
    assert!(queue.follow_multicast(Some(&groups(50..100))).unwrap());
    assert_eq!(take(&mut queue), 150);
}

#[test]
fn a_backend_that_samples_the_wish_once_filters_from_the_start() {
    let world = World::new();
    let backend = serve(
        &world,
        Features {
            dynamic_multicast_control: false,
            ..Features::default()
        },
    );
    let mut device = connect(&world);
    assert_filtered(&backend, &mut device);
    assert!(device.queue().follow_multicast(Some(&[GROUP])).unwrap());
    until("packets of the group", || receive(device.queue()) > 0);
    device.close().unwrap();
}

/// A backend that looks at the wish when it connects, and at no other time.
fn not_dynamic() -> Features {
    Features {
        dynamic_multicast_control: false,
        ..Features::default()
    }
}

#[test]
fn a_backend_that_samples_the_wish_once_asks_for_a_new_connection_when_everything_is_wanted() {
    let world = World::new();
    let backend = serve(&world, not_dynamic());
    let mut device = connect(&world);
    assert_filtered(&backend, &mut device);
    assert!(device.queue().follow_multicast(None).unwrap());
    until("the news", || {
        device.change() == Some(Change::MulticastFilter)
    });
    let mut device = device.reconnect().unwrap();
    until("everything", || receive(device.queue()) > 0);
    // Nor does it filter when groups are wanted again: each change would cost a connection.
    assert!(device.queue().follow_multicast(Some(&[OTHER])).unwrap());
    let filtered = backend.counters().rx_filtered;
    let mut came = 0;
    until("packets all the same", || {
        came += receive(device.queue());
        came > 20
    });
    assert_eq!(backend.counters().rx_filtered, filtered);
    assert_eq!(device.change(), None);
    device.close().unwrap();
}

/// As a TAP in a bridge, which wants everything from the start.
struct Promiscuous;

impl Consumer for Promiscuous {
    fn deliver(&mut self, _packet: &mut Packet<'_>) {}

    fn offer(&mut self, queue: &mut Queue, _budget: usize) -> Result<usize, Error> {
        queue.follow_multicast(None)?;
        Ok(0)
    }
}

#[test]
fn in_service_such_a_backend_is_connected_anew_once_and_everything_comes() {
    let world = World::new();
    let _backend = serve(&world, not_dynamic());
    let service = Arc::<Service>::default();
    let serving = {
        let (front, told) = (world.front.clone(), Arc::clone(&service));
        std::thread::spawn(move || {
            let wants = Wants {
                multicast_filter: true,
                ..Wants::default()
            };
            let builder = Device::builder(0).wants(wants);
            let device = builder.connect_counting(&front, Arc::clone(told.stats()))?;
            keep_served(device, &mut Promiscuous, &told)
        })
    };
    until("everything", || service.stats().rx_packets.get() > 100);
    assert_eq!(service.connections.load(Ordering::Relaxed), 2);
    service.stop();
    serving.join().unwrap().unwrap();
}
