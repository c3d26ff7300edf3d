//! A guest that posts no pages: the carrier goes off after the timeout, and comes back with the pages.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{exchange, until, Front, Shape, World, FRONT};
use netback_sim::peer::Echo;
use netback_sim::{BackendHandle, Config};

const TIMEOUT: Duration = Duration::from_millis(100);

fn serve(world: &World, rx_stall_timeout: Duration) -> BackendHandle {
    world.serve_with(Config {
        rx_stall_timeout,
        close_patience: Duration::from_millis(50),
        ..Config::new(FRONT, Echo::new())
    })
}

#[test]
fn a_guest_without_pages_loses_its_carrier_after_the_timeout_and_has_it_again_with_its_pages() {
    let world = World::new();
    let backend = serve(&world, TIMEOUT);
    let mut front = Front::connect(world.guest());
    front.post(1);
    let begun = Instant::now();
    // The echo of one finds the only page, that of the other waits for the next.
    exchange(&mut front, &backend, 1);
    until("an echo", || backend.counters().rx_packets == 1);
    exchange(&mut front, &backend, 1);
    // With the carrier goes what waited.
    until("the carrier to go", || {
        let now = backend.counters();
        (now.rx_stalls, now.rx_stalled, now.rx_no_carrier) == (1, 1, 1)
    });
    assert!(begun.elapsed() >= TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(backend.counters().rx_packets, 1);
    // What comes now is dropped at once, and nothing that the guest sends waits behind it.
    exchange(&mut front, &backend, 10);
    until("ten more to be dropped", || {
        backend.counters().rx_no_carrier == 11
    });
    // Takes the one echo and posts all pages again.
    assert_eq!(front.receive().len(), 1);
    until("the carrier to come back", || {
        backend.counters().rx_stalled == 0
    });
    exchange(&mut front, &backend, 10);
    let mut echoes = 0;
    until("ten echoes", || {
        echoes += front.receive().len();
        echoes == 10
    });
    let counters = backend.counters();
    assert_eq!((counters.rx_stalls, counters.rx_expired), (1, 0));
    assert_eq!((counters.rx_packets, counters.rx_no_carrier), (11, 11));
}

#[test]
fn a_guest_that_does_not_say_when_it_has_posted_pages_and_one_that_is_waited_for_keep_it() {
    let quiet = Shape {
        keys: vec![("request-rx-copy", "1"), ("feature-sg", "1")],
        ..Shape::default()
    };
    for (shape, timeout) in [(quiet, TIMEOUT), (Shape::default(), Duration::ZERO)] {
        let world = World::new();
        let backend = serve(&world, timeout);
        let mut front = Front::connect_as(world.guest(), &shape);
        exchange(&mut front, &backend, 1);
        std::thread::sleep(3 * TIMEOUT);
        let counters = backend.counters();
        assert_eq!((counters.rx_stalls, counters.rx_no_carrier), (0, 0));
    }
}
