//! Hashes that the backend is asked for over the same ring.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netback_sim::{peer, Backend, BackendHandle, Config, Features};
use netfront::control::HashConfig;
use netfront::engine::steering::{Toeplitz, COMMON_KEY};
use netfront::{Device, Offload, Wants};
use xen_ring::{ControlMessage, HashAlgorithm, HashFlags, HashKind};

use crate::common::toolstack::Toolstack;
use crate::common::{count, until, World, FRONT};
use crate::hand::Hand;

fn serve(world: &World, features: Features) -> BackendHandle {
    let config = Config {
        features,
        ..Config::new(FRONT, peer::Echo::new())
    };
    Backend::start(&world.back, config).unwrap()
}

fn connect(world: &World, hash: HashConfig) -> Device {
    let device = Device::builder(0).hash(Some(hash)).connect(&world.front);
    device.unwrap()
}

/// TCP over IPv4 from this port, with a checksum that nobody looks at.
fn tcp(port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 80]);
    frame.extend([0; 16]);
    frame
}

/// What came with the echo of a frame.
fn echoed(device: &mut Device, frame: &[u8]) -> Offload {
    device.queue().send(&[frame], Offload::default()).unwrap();
    device.queue().flush().unwrap();
    let mut found = None;
    until("the echo", || {
        device.queue().reclaim().unwrap();
        let queue = device.queue();
        queue
            .receive(64, |packet| found = Some(packet.offload()))
            .unwrap();
        queue.flush().unwrap();
        found.is_some()
    });
    found.unwrap()
}

fn wait_active(device: &mut Device) {
    until("hashes to be on", || {
        count(device.queue(), "hash_active") == 1
    });
}

#[test]
fn each_packet_tells_its_hash_and_what_it_was_taken_over() {
    let world = World::new();
    let _backend = serve(&world, Features::default());
    let toeplitz = Toeplitz::new(&COMMON_KEY);
    for (flags, kind, end) in [
        (HashFlags::ALL, HashKind::Ipv4Tcp, 38),
        (HashFlags::IPV4, HashKind::Ipv4, 34),
    ] {
        let mut device = connect(
            &world,
            HashConfig {
                flags,
                mapping: vec![0; 128],
                ..HashConfig::default()
            },
        );
        wait_active(&mut device);
        for port in [1, 2794, 65_535] {
            let frame = tcp(port);
            let hash = echoed(&mut device, &frame).hash.expect("a hash");
            assert_eq!((hash.kind, hash.algorithm), (kind, HashAlgorithm::Toeplitz));
            // Addresses, and ports behind them.
            assert_eq!(hash.value, toeplitz.bytes(&frame[26..end]), "{port}");
        }
        assert_eq!(count(device.queue(), "rx_hashed"), 3);
        device.close().unwrap();
    }
}

#[test]
fn a_backend_that_cannot_hash_or_has_no_such_queue_is_told_to_leave_it_and_packets_flow() {
    let spread = HashConfig::default();
    let beyond = HashConfig {
        mapping: vec![0, 7],
        ..HashConfig::default()
    };
    let long = HashConfig {
        mapping: vec![0; 129],
        ..HashConfig::default()
    };
    let without = |change: fn(&mut Features)| {
        let mut features = Features::default();
        change(&mut features);
        features
    };
    for (features, config) in [
        (without(|all| all.hash = false), spread.clone()),
        (without(|all| all.ctrl_ring = false), spread),
        (Features::default(), beyond),
        (Features::default(), long),
    ] {
        let world = World::new();
        let backend = serve(&world, features);
        let mut device = connect(&world, config);
        let messages = backend.counters().control_messages;
        // As long as questions are asked, and a little longer.
        let mut before = messages;
        until("the questions to end", || {
            thread::sleep(Duration::from_millis(50));
            let now = backend.counters().control_messages;
            std::mem::replace(&mut before, now) == now
        });
        assert_eq!(echoed(&mut device, &tcp(1)).hash, None);
        assert_eq!(count(device.queue(), "hash_active"), 0);
        device.close().unwrap();
    }
}

#[test]
fn a_new_connection_asks_for_the_hashes_anew() {
    let world = World::new();
    let _backend = serve(&world, Features::default());
    let mut device = connect(&world, HashConfig::default());
    wait_active(&mut device);
    let mut device = device.reconnect().unwrap();
    wait_active(&mut device);
    assert!(echoed(&mut device, &tcp(9)).hash.is_some());
    device.close().unwrap();
}

#[test]
fn at_its_goodbye_a_driver_has_the_backend_stop_hashing_for_whoever_comes_next() {
    let world = World::new();
    let backend = serve(&world, Features::default());
    // Hashes alone are asked for, so that each message is known: algorithm, flags twice, key.
    let builder = Device::builder(0).wants(Wants {
        grant_mapping: false,
        ..Wants::default()
    });
    let hashing = builder.clone().hash(Some(HashConfig::default()));
    let mut device = hashing.connect(&world.front).unwrap();
    wait_active(&mut device);
    until("all questions to be counted", || {
        backend.counters().control_messages == 4
    });
    let stats = Arc::clone(device.stats());
    device.close().unwrap();
    assert_eq!(backend.counters().control_messages, 5);
    assert_eq!(stats.snapshot().get("hash_active"), 0);
    // One that asked for nothing has nothing to end.
    let device = builder.connect(&world.front).unwrap();
    device.close().unwrap();
    assert_eq!(backend.counters().control_messages, 5);
}

#[test]
fn a_backend_that_is_silent_on_the_control_ring_does_not_hold_up_the_goodbye() {
    let world = World::new();
    let mut toolstack = Toolstack::with_vif(&world);
    let builder = Device::builder(0).hash(Some(HashConfig::default()));
    let (device, mut hand) = Hand::meet_by(&world, &mut toolstack, builder);
    // The first question, which nobody will answer.
    let asked = hand.asked();
    assert!(matches!(asked.message, ControlMessage::SetHashAlgorithm(1)));
    let start = Instant::now();
    let closing = thread::spawn(move || device.close());
    toolstack.wait_front("5");
    let waited = start.elapsed();
    toolstack.back("state", 5);
    toolstack.wait_front("6");
    toolstack.back("state", 6);
    closing.join().unwrap().unwrap();
    // Ten times what it waits, and half of a second that would be felt.
    assert!(waited < Duration::from_millis(500), "{waited:?}");
}

#[test]
fn of_several_queues_the_mapping_says_which_a_packet_comes_by_and_without_one_it_may_be_any() {
    let world = World::with_grant_limit(4096);
    let features = Features {
        multi_queue_max: 2,
        ..Features::default()
    };
    let _backend = serve(&world, features);
    for (mapping, wanted) in [(vec![1], &[1][..]), (vec![0], &[0]), (vec![], &[0, 1])] {
        let hash = HashConfig {
            mapping,
            ..HashConfig::default()
        };
        let mut device = Device::builder(0)
            .queues(2)
            .hash(Some(hash))
            .connect(&world.front)
            .unwrap();
        assert_eq!(device.link().queues, 2);
        wait_active(&mut device);
        let mut came = [0; 2];
        for port in 1..=32 {
            let before = came;
            device
                .queue()
                .send(&[&tcp(port)], Offload::default())
                .unwrap();
            device.queue().flush().unwrap();
            until("the echo", || {
                for (queue, came) in device.queues().zip(&mut came) {
                    queue.reclaim().unwrap();
                    *came += queue
                        .receive(64, |packet| assert!(packet.offload().hash.is_some()))
                        .unwrap();
                    queue.flush().unwrap();
                }
                came != before
            });
        }
        let by: Vec<usize> = (0..2).filter(|&queue| came[queue] > 0).collect();
        assert_eq!((by.as_slice(), came.iter().sum::<usize>()), (wanted, 32));
        // The hashes are the vif's, and are counted once.
        assert_eq!(device.stats().snapshot().get("hash_active"), 1);
        device.close().unwrap();
    }
}
