//! Several vifs of one process at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{frame, receive_all, until, World};
use netback_sim::peer::Echo;
use netfront::{Device, Offload, QueueConfig};

/// With the fewest pages that a ring can be filled from, so that all of them are alive at once.
const VIFS: u32 = 32;

/// A frame whose bytes are those of one vif and one round, and which an echo leaves as it is.
fn of(vif: u32, round: usize) -> Vec<u8> {
    let mut sent = frame(1000 + 20 * vif as usize, 100 * vif as usize + round);
    sent[..12].fill(2);
    sent
}

#[test]
fn each_of_several_vifs_carries_its_own_packets_and_none_notices_that_another_goes() {
    let world = World::with_grant_limit(VIFS as usize * 384);
    let backends: Vec<_> = (0..VIFS)
        .map(|vif| world.stage.backend(vif, Echo::new()))
        .collect();
    let queue = QueueConfig {
        rx_pages: 256,
        tx_pages: 64,
        ..QueueConfig::default()
    };
    let connect = |vif| {
        let device = Device::builder(vif).queue(queue.clone());
        (vif, device.connect(&world.front).unwrap())
    };
    let mut devices: Vec<(u32, Device)> = (0..VIFS).map(connect).collect();
    let exchange = |devices: &mut Vec<(u32, Device)>, round| {
        for (vif, device) in devices.iter_mut() {
            let queue = device.queue();
            queue.send(&[&of(*vif, round)], Offload::default()).unwrap();
            queue.flush().unwrap();
        }
        for (vif, device) in devices.iter_mut() {
            let mut came = Vec::new();
            until(&format!("an echo of vif {vif}"), || {
                device.queue().reclaim().unwrap();
                came.extend(receive_all(device.queue()));
                !came.is_empty()
            });
            assert!(came == [of(*vif, round)], "vif {vif}, round {round}");
        }
    };
    for round in 0..10 {
        exchange(&mut devices, round);
    }
    // One after the other leaves from the middle; the last comes back.
    while devices.len() > 1 {
        let (_, device) = devices.remove(devices.len() / 2);
        device.close().unwrap();
        let left = devices.len();
        exchange(&mut devices, 20 + left);
    }
    devices.push(connect(VIFS - 1));
    exchange(&mut devices, 50);
    for (_, device) in devices {
        device.close().unwrap();
    }
    for backend in backends {
        assert_eq!(backend.stop().unwrap().counters.faults, 0);
    }
    let counters = world.front.counters();
    assert_eq!(counters.grants, counters.revokes, "pages stay granted");
}
