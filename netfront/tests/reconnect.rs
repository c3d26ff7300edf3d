//! Connecting again and again: nothing is left over. In a binary of its own, since descriptors are counted
//! for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{echo, until, World, FRONT, PATIENCE};
use netback_sim::{peer, Backend, BackendHandle, Config, State};
use netfront::{Change, Device, Reconnect};

const CYCLES: usize = 20;

fn start(world: &World) -> BackendHandle {
    let mut config = Config::new(FRONT, peer::Echo::new());
    config.close_patience = PATIENCE;
    Backend::start(&world.back, config).expect("a backend")
}

fn wait_left(device: &mut Device) {
    until("the backend to leave", || {
        matches!(device.change(), Some(Change::BackendLeft(_)))
    });
}

fn retry(mut pending: Reconnect) -> Device {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match pending.retry() {
            Ok(device) => return device,
            Err(next) => {
                assert!(
                    Instant::now() < deadline,
                    "not connected again: {:?}",
                    next.error
                );
                pending = *next;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a connection holds: pages and grants.
fn holdings(world: &World, device: &mut Device) -> (Vec<usize>, u64) {
    let pools = device.queue().pools().map(|pool| pool.census().granted);
    let counters = world.front.counters();
    (pools.to_vec(), counters.grants - counters.revokes)
}

/// The open descriptors. The simulated Xen hears of an end a moment later, so the first count may be too high.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("the own descriptors")
        .count()
}

/// Runs the cycles and compares what is held after the first with what is held after the last.
fn cycle(again: impl Fn(&World, BackendHandle, Device) -> (BackendHandle, Device)) {
    let world = World::new();
    let mut backend = start(&world);
    let mut device = Device::builder(0).connect(&world.front).expect("connected");
    let mut first = None;
    for round in 0..CYCLES {
        echo(&mut device, round);
        (backend, device) = again(&world, backend, device);
        echo(&mut device, round);
        assert_eq!(backend.state(), State::Connected);
        let now = holdings(&world, &mut device);
        let (held, open) = first.get_or_insert_with(|| (now.clone(), descriptors()));
        assert_eq!(*held, now, "round {round}");
        until("no more descriptors than after the first round", || {
            descriptors() <= *open
        });
    }
    let packets = device.queue().stats().rx_packets.get();
    assert_eq!(packets, 2 * CYCLES as u64, "the counters go on");
    device.close().expect("closed");
    backend.stop().expect("stopped");
    let counters = world.front.counters();
    assert_eq!(counters.grants, counters.revokes);
}

/// One after the other: a second world would change the number of descriptors.
#[test]
fn after_twenty_backends_no_page_and_no_descriptor_is_left_over() {
    // The backend closes in order, and another one comes.
    cycle(|world, backend, mut device| {
        let stopping = std::thread::spawn(move || backend.stop());
        wait_left(&mut device);
        let pending = device.disconnect();
        stopping.join().expect("no panic").expect("stopped");
        let next = start(world);
        (next, retry(pending))
    });
    // The backend dies without a word; its successor finds a frontend that is still connected.
    cycle(|world, backend, mut device| {
        backend.abandon().expect("abandoned");
        let next = start(world);
        wait_left(&mut device);
        (next, retry(device.disconnect()))
    });
    // The frontend goes by itself and comes back.
    cycle(|_, backend, device| {
        let device = device.reconnect().expect("the same backend");
        (backend, device)
    });
}
