//! A driver with nothing to do asks the store nothing, until there is a reason.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use common::toolstack::Toolstack;
use common::{frame, until, World};
use netfront::engine::{serve, Service};
use netfront::{Consumer, Device, Error, Offload, Packet, Queue};

/// How often the control thread of vif 0 has slept so far. Each question to the store makes it wait once.
fn sleeps() -> u64 {
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == "nf0control" {
            let status = read("status");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return line.unwrap().trim().parse().unwrap();
        }
    }
    panic!("there is no control thread");
}

/// Sends a packet for each byte that it is told.
struct Sender(UnixStream);

impl Consumer for Sender {
    fn deliver(&mut self, _packet: &mut Packet<'_>) {}

    fn offer(&mut self, queue: &mut Queue, _budget: usize) -> Result<usize, Error> {
        match self.0.read(&mut [0]) {
            Ok(1) => {
                queue
                    .send(&[&frame(60, 1)], Offload::default())
                    .expect("room");
                Ok(1)
            }
            _ => Ok(0),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[test]
fn the_store_is_left_alone_until_a_packet_stays_unanswered_and_then_asked_at_once() {
    let world = World::new();
    let mut toolstack = Toolstack::with_vif(&world);
    let service = Arc::new(Service::default());
    let (mut tell, told) = UnixStream::pair().unwrap();
    told.set_nonblocking(true).unwrap();
    let serving = {
        let (front, service) = (world.front.clone(), Arc::clone(&service));
        std::thread::spawn(move || {
            let stats = Arc::clone(service.stats());
            let device = Device::builder(0).connect_counting(&front, stats)?;
            serve(device, &mut Sender(told), &service)
        })
    };
    // It takes nothing and answers nothing.
    let back = world.attach(&toolstack.published());
    toolstack.back("state", 4);
    until("the connection", || {
        service.connections.load(Ordering::Relaxed) == 1
    });
    let mut last = 0;
    until("rest", || {
        std::thread::sleep(Duration::from_secs(1));
        let now = sleeps();
        std::mem::replace(&mut last, now) == now
    });

    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(sleeps(), last, "nothing happened");
    tell.write_all(b"x").unwrap();
    // Long before the keys would be read by themselves.
    until("questions to the store", || sleeps() >= last + 4);
    assert!(service.link().is_some(), "the store had nothing to tell");

    // The same for who never stops sending: it is answered no more than before, and asks two seconds after the last time.
    // Fewer packets than a busy thread takes until it looks up in any case.
    let last = sleeps();
    let asked = (0..60).any(|_| {
        tell.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        sleeps() >= last + 4
    });
    assert!(asked, "nobody asked the store");

    service.stop();
    toolstack.wait_front("5");
    toolstack.back("state", 5);
    toolstack.wait_front("6");
    drop(back);
    toolstack.back("state", 6);
    serving.join().unwrap().unwrap();
}
