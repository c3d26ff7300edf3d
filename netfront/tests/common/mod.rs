//! A simulated Xen in this process, with both domains and a backend whose every step is in the
//! test's own hands.
#![allow(dead_code)]

pub mod back;
pub mod example;
pub mod toolstack;

use std::path::PathBuf;
use std::sync::Arc;

use hypervisor::sim::server::Options;
use hypervisor::Domain;
use netfront::engine::Service;
use netfront::queue::QueueKeys;
use netfront::{Device, Offload, OwnedPacket, Queue, QueueConfig, QueueStats};
use netfront_tests::stage::Stage;

pub use back::Back;
pub use netfront_tests::stage::{BACK, FRONT};
#[allow(unused_imports)] // Not every test has use for each.
pub use netfront_tests::{until, PATIENCE};

/// Slots of a ring.
pub const SLOTS: usize = 256;

/// A simulated Xen with a driver domain and a guest.
pub struct World {
    pub front: Domain,
    pub back: Domain,
    pub stage: Stage,
}

impl World {
    pub fn new() -> Self {
        Self::with_grant_limit(1024)
    }

    /// The guest can share so many pages, rings included.
    pub fn with_grant_limit(pages: usize) -> Self {
        let stage = Stage::with(Options::new().grant_limit(pages));
        Self {
            back: stage.back.clone(),
            front: stage.guest(),
            stage,
        }
    }

    /// Where the simulated Xen listens.
    pub fn socket(&self) -> PathBuf {
        self.stage.socket.clone()
    }

    /// A queue with split event channels, and the backend that serves it.
    pub fn pair(&self, config: &QueueConfig) -> (Queue, Back) {
        self.pair_with(config, true)
    }

    pub fn pair_with(&self, config: &QueueConfig, split: bool) -> (Queue, Back) {
        let queue = Queue::open(
            &self.front,
            BACK,
            config,
            split,
            Arc::<QueueStats>::default(),
        );
        let queue = queue.expect("a queue");
        let back = self.attach(&queue.keys());
        (queue, back)
    }

    /// The backend of a queue.
    pub fn attach(&self, keys: &QueueKeys) -> Back {
        Back::attach(&self.back, FRONT, keys)
    }
}

/// A packet goes to the backend and comes back.
pub fn echo(device: &mut Device, seed: usize) {
    let mut sent = frame(1500, seed);
    sent[..12].fill(2);
    device
        .queue()
        .send(&[&sent], Offload::default())
        .expect("room");
    device.queue().flush().expect("flushed");
    until("an echo", || {
        device.queue().reclaim().expect("a sound ring");
        !receive_all(device.queue()).is_empty()
    });
}

/// A frame of `len` bytes that differs from that of another seed.
pub fn frame(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 7 + at / 251 + seed * 31 + 1) as u8)
        .collect()
}

/// Receives all that is there, in one piece each.
pub fn receive_all(queue: &mut Queue) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while queue
        .receive(64, |packet| {
            frames.push(packet.slices().flatten().copied().collect())
        })
        .expect("a sound ring")
        > 0
    {}
    queue.flush().expect("flushed");
    frames
}

/// Receives all that is there and keeps it.
pub fn detach_all(queue: &mut Queue) -> Vec<OwnedPacket> {
    let mut packets = Vec::new();
    while queue
        .receive(64, |packet| packets.push(packet.detach()))
        .expect("a sound ring")
        > 0
    {}
    queue.flush().expect("flushed");
    packets
}

/// Ends a service with the test, however that ends: a thread of a scope that serves is waited for.
pub struct Stopping<'a>(pub &'a Service);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// One counter by its name.
pub fn count(queue: &Queue, name: &str) -> u64 {
    let snapshot = queue.stats().snapshot();
    assert!(
        snapshot.0.iter().any(|(key, _)| *key == name),
        "no counter is called {name}"
    );
    snapshot.get(name)
}
