//! What is left of a connection, and that it ends whatever anybody does.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::toolstack::{Toolstack, BACKEND};
use common::{echo, frame, until, World, BACK, FRONT, PATIENCE};
use hypervisor::StoreClient;
use netback_sim::{peer, Backend, BackendHandle, Config, State};
use netfront::{Device, Offload};

fn start(world: &World) -> BackendHandle {
    Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).expect("a backend")
}

fn retry(device: Device) -> Device {
    let mut pending = Some(Box::new(device.disconnect()));
    let mut device = None;
    until("a new connection", || {
        match pending.take().expect("one attempt at a time").retry() {
            Ok(connected) => device = Some(connected),
            Err(next) => pending = Some(next),
        }
        device.is_some()
    });
    device.expect("connected")
}

/// The pages of a dead connection stay granted as long as somebody holds a packet of it.
#[test]
fn packets_that_are_kept_over_a_reconnect_make_the_next_pool_smaller_but_do_not_prevent_it() {
    let world = World::new();
    let backend = start(&world);
    let mut device = Device::builder(0).connect(&world.front).expect("connected");
    let mut kept = Vec::new();
    let mut sent = frame(3000, 1);
    sent[..12].fill(2);
    for _ in 0..100 {
        device
            .queue()
            .send(&[&sent], Offload::default())
            .expect("room");
        device.queue().flush().expect("flushed");
        until("an echo", || {
            let queue = device.queue();
            queue.reclaim().expect("a sound ring");
            let before = kept.len();
            queue
                .receive(64, |packet| kept.push(packet.detach()))
                .expect("a sound ring");
            queue.flush().expect("flushed");
            kept.len() > before
        });
    }
    backend.abandon().expect("abandoned");
    let backend = start(&world);
    let mut device = retry(device);
    echo(&mut device, 1);
    assert!(kept.iter().all(|packet| packet.to_vec().len() == 3000));
    device.close().expect("closed");
    backend.stop().expect("stopped");
}

/// Whoever interrupts the handshake gets the thread back, and the backend its goodbye: no page goes before it
/// has let go, or had its time.
#[test]
fn a_handshake_that_is_interrupted_frees_its_pages_only_after_the_backend_has_let_go() {
    let world = World::new();
    let mut toolstack = Toolstack::with_vif(&world);
    toolstack.back("state", 2);
    let interrupt = Arc::new(AtomicBool::new(false));
    let builder = Device::builder(0).interrupt(Arc::clone(&interrupt));
    let front = world.front.clone();
    let connecting = std::thread::spawn(move || builder.connect(&front).map(drop));
    toolstack.wait_front("4");
    interrupt.store(true, Ordering::Release);
    toolstack.wait_front("5");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(
        world.front.counters().revokes,
        0,
        "the backend may hold pages"
    );
    toolstack.back("state", 5);
    toolstack.wait_front("6");
    assert_eq!(
        world.front.counters().revokes,
        0,
        "the backend may hold pages"
    );
    toolstack.back("state", 6);
    let error = connecting
        .join()
        .expect("no panic")
        .expect_err("interrupted");
    assert!(matches!(error, netfront::Error::Interrupted), "{error}");
    let counters = world.front.counters();
    assert_eq!(counters.revokes, counters.grants);
}

#[test]
fn a_device_that_is_dropped_says_goodbye_before_its_pages_go() {
    let world = World::new();
    let backend = start(&world);
    let device = Device::builder(0).connect(&world.front).expect("connected");
    drop(device);
    assert!(
        backend.wait_for(State::Closed, PATIENCE),
        "{:?}",
        backend.state()
    );
    assert_eq!(backend.counters().faults, 0);
    backend.stop().expect("stopped");
}

/// DESIGN: any bytes in the store lead to an error state in bounded time.
#[test]
fn whoever_writes_a_watched_key_without_end_does_not_keep_the_driver_from_closing() {
    let world = World::new();
    let backend = start(&world);
    let device = Device::builder(0).connect(&world.front).expect("connected");
    let mut store =
        hypervisor::sim::store(&world.socket(), BACK, StoreClient::Native).expect("a store");
    let done = Arc::new(AtomicBool::new(false));
    let flood = {
        let (done, key) = (Arc::clone(&done), format!("{BACKEND}/state"));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                if store.write(&key, "4").is_err() {
                    return;
                }
            }
        })
    };
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    // The flood hides the backend's own states, so the goodbye may fail; it must end.
    let _ = device.disconnect();
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    done.store(true, Ordering::Relaxed);
    flood.join().expect("no panic");
    let _ = backend.abandon();
}
