//! A thousand vifs that come and go: nothing is left over. In a binary of its own, since descriptors and threads are
//! counted for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::toolstack::{Toolstack, BACKEND, FRONTEND};
use common::{echo, until, World, FRONT};
use netback_sim::{peer, Backend, Config};
use netfront::{Device, QueueConfig};

const VIFS: usize = 1000;

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory)
        .expect("of this process")
        .count()
}

/// What one vif more or less must not change.
#[derive(Debug)]
struct Held {
    grants: u64,
    descriptors: usize,
    threads: usize,
    nodes: [usize; 2],
}

impl Held {
    /// The first one may still have been counted with a thread that was about to end.
    fn is_within(&self, first: &Self) -> bool {
        self.grants <= first.grants
            && self.descriptors <= first.descriptors
            && self.threads <= first.threads
            && self.nodes == first.nodes
    }
}

fn held(world: &World, toolstack: &mut Toolstack) -> Held {
    let counters = world.front.counters();
    let mut nodes = |parent: &str| {
        let store = toolstack.store();
        store.list(parent).map_or(0, |names| names.len())
    };
    Held {
        grants: counters.grants - counters.revokes,
        descriptors: entries("/proc/self/fd"),
        threads: entries("/proc/self/task"),
        nodes: [
            nodes("/local/domain/0/backend/vif/1"),
            nodes("/local/domain/1/device/vif"),
        ],
    }
}

#[test]
fn after_a_thousand_vifs_no_page_node_thread_or_descriptor_is_left_over() {
    let world = World::new();
    let mut toolstack = Toolstack::of(&world);
    let queue = QueueConfig {
        rx_pages: 256,
        tx_pages: 64,
        ..QueueConfig::default()
    };
    let mut first = None;
    for number in 0..VIFS {
        let backend = Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).unwrap();
        let device = Device::builder(0).queue(queue.clone());
        let mut device = device.connect(&world.front).unwrap();
        echo(&mut device, number);
        device.close().unwrap();
        backend.stop().unwrap();
        // As a toolstack does when the vif is taken away.
        for path in [BACKEND, FRONTEND] {
            toolstack.store().remove(path).unwrap();
        }
        match &first {
            // The first one opens what all of them share.
            None => first = Some(held(&world, &mut toolstack)),
            // The simulated Xen hears of an end a moment later.
            Some(first) => until(&format!("{first:?} after {number} vifs"), || {
                held(&world, &mut toolstack).is_within(first)
            }),
        }
    }
}
