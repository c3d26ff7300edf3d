//! A device in service: it says goodbye to a backend that breaks the contract, and serves the next.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netfront::consumer::Null;
use netfront::engine::{serve, Service};
use netfront::Device;
use xen_ring::{Status, TxResponse};

use crate::common::toolstack::Toolstack;
use crate::common::{frame, until, Back, World};
use crate::{attach, vif};

/// Closes as the frontend asks, and waits for it to come back.
fn close_and_wait(toolstack: &mut Toolstack, back: Back) {
    toolstack.wait_front("5");
    toolstack.back("state", 5);
    toolstack.wait_front("6");
    drop(back);
    toolstack.back("state", 6);
}

fn receives(back: &mut Back, service: &Service, packets: u64) {
    back.deliver(&frame(100, 1));
    until("the packet", || service.stats().rx_packets.get() == packets);
}

/// Serves a vif whose backend is in the test's hands, through `trouble`, to the end.
fn through(trouble: impl FnOnce(&World, &mut Toolstack, Back)) {
    let (world, mut toolstack) = vif();
    let service = Arc::new(Service::default());
    let serving = {
        let (front, service) = (world.front.clone(), Arc::clone(&service));
        thread::spawn(move || {
            let stats = Arc::clone(service.stats());
            let device = Device::builder(0).connect_counting(&front, stats).unwrap();
            serve(device, &mut Null, &service)
        })
    };
    let mut back = attach(&world, &mut toolstack);
    receives(&mut back, &service, 1);
    trouble(&world, &mut toolstack, back);
    assert_eq!(service.connections.load(Ordering::Relaxed), 1);
    // It has let go of everything and asks for a new start.
    toolstack.wait_front("1");
    until("no link", || service.link().is_none());
    toolstack.back("state", 2);
    let mut back = attach(&world, &mut toolstack);
    receives(&mut back, &service, 2);
    assert_eq!(service.connections.load(Ordering::Relaxed), 2);
    service.stop();
    close_and_wait(&mut toolstack, back);
    serving.join().unwrap().unwrap();
    let counters = world.front.counters();
    assert_eq!(counters.grants, counters.revokes);
}

#[test]
fn a_broken_receive_ring_is_closed_in_order_and_the_next_connection_works() {
    through(|_, toolstack, back| {
        back.rx.page().store(8, 5000, Ordering::Release);
        back.events.notify(back.rx_port).unwrap();
        close_and_wait(toolstack, back);
    });
}

#[test]
fn an_answer_to_nothing_is_closed_in_order_and_the_next_connection_works() {
    through(|_, toolstack, mut back| {
        // Nothing was sent, so whatever is answered was never asked.
        back.tx
            .push(&TxResponse {
                id: 3,
                status: Status::Okay,
            })
            .unwrap_err();
        back.tx.page().store(8, 1, Ordering::Release);
        back.events.notify(back.tx_port).unwrap();
        close_and_wait(toolstack, back);
    });
}

#[test]
fn a_backend_that_closes_is_followed_and_its_successor_is_served() {
    through(|_, toolstack, back| {
        toolstack.back("state", 5);
        toolstack.wait_front("6");
        drop(back);
        toolstack.back("state", 6);
    });
}

/// Who has mended a backend need not wait for the minute after which it is tried unasked.
#[test]
fn a_kick_has_a_driver_try_at_once_a_backend_that_was_mended_and_shows_the_same_state() {
    let (world, mut toolstack) = vif();
    let service = Arc::new(Service::default());
    let serving = {
        let (front, service) = (world.front.clone(), Arc::clone(&service));
        thread::spawn(move || {
            let builder = Device::builder(0).deadline(Duration::from_secs(3));
            let stats = Arc::clone(service.stats());
            let device = builder.connect_counting(&front, stats).unwrap();
            serve(device, &mut Null, &service)
        })
    };
    let back = attach(&world, &mut toolstack);
    until("the connection", || service.link().is_some());
    // It goes, and is stuck: whatever the frontend shows, it stays closed.
    drop(back);
    toolstack.back("state", 6);
    toolstack.wait_front("1");
    // The attempt is over, and the wait for another state has begun.
    thread::sleep(Duration::from_secs(5));
    toolstack.front("state", 6);
    let start = Instant::now();
    service.kick();
    toolstack.wait_front("1");
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    toolstack.back("state", 2);
    let mut back = attach(&world, &mut toolstack);
    receives(&mut back, &service, 1);
    service.stop();
    close_and_wait(&mut toolstack, back);
    serving.join().unwrap().unwrap();
}
