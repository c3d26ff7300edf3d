//! What the kernel's netback would not forgive, and a lenient backend does; and a guest that floods
//! the store.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{exchange, until, Front, Keys, Shape, World, FRONT};
use hypervisor::Domain;
use netback_sim::peer::Sink;
use netback_sim::{Config, State};
use xen_ring::Offload;

/// Long enough to see that nothing happens.
const QUIET: Duration = Duration::from_millis(300);

fn lenient() -> Config {
    Config {
        strict: false,
        close_patience: Duration::from_millis(50),
        ..Config::new(FRONT, Sink::new())
    }
}

#[test]
fn a_frontend_whose_state_vanishes_loses_its_vif_even_while_the_toolstack_wants_it() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = Front::connect(world.guest());
    front.keys.remove("state");
    front.keys.wait(State::Closed);
    until("the end", || !backend.is_running());
    assert_eq!(backend.counters().disconnects, 1);
    backend.stop().unwrap();
}

#[test]
fn leniently_a_frontend_whose_state_vanishes_may_come_back() {
    let world = World::new();
    let backend = world.serve_with(lenient());
    let guest = world.guest();
    let mut front = Front::connect(guest.clone());
    front.keys.remove("state");
    front.keys.wait(State::Closed);
    front.keys.state(State::Initialising);
    drop(front);
    let mut front = Front::connect(guest);
    exchange(&mut front, &backend, 10);
    assert_eq!(backend.counters().connects, 2);
}

/// A frontend that shows Initialised and waits.
fn initialised(guest: Domain) -> Front {
    let shape = Shape {
        state: State::Initialised,
        ..Shape::default()
    };
    Front::prepare(guest, &shape)
}

#[test]
fn initialised_alone_makes_no_connection() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = initialised(world.guest());
    until("a look", || backend.front_state() == State::Initialised);
    std::thread::sleep(QUIET);
    assert_eq!(front.keys.back_state(), State::InitWait);
    front.keys.state(State::Connected);
    front.keys.wait(State::Connected);
    exchange(&mut front, &backend, 10);
}

#[test]
fn leniently_initialised_is_taken_as_connected() {
    let world = World::new();
    let backend = world.serve_with(lenient());
    let mut front = initialised(world.guest());
    front.keys.wait(State::Connected);
    // The step to Connected that follows is no new connection.
    front.keys.state(State::Connected);
    exchange(&mut front, &backend, 10);
    assert_eq!(backend.counters().connects, 1);
}

/// Another process of the guest that writes its own keys and shows Connected, without closing what
/// it finds.
fn barge_in(old: Front) -> Front {
    let guest = old.domain.clone();
    drop(old);
    Front::write_over(guest, &Shape::default())
}

#[test]
fn new_keys_while_connected_are_not_looked_at() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = barge_in(Front::connect(world.guest()));
    assert!(front.send(&[0; 100], 1, &Offload::default()));
    std::thread::sleep(QUIET);
    assert!(!front.settled(), "nobody serves these rings");
    let counters = backend.counters();
    assert_eq!((counters.connects, counters.disconnects), (1, 0));
    assert_eq!(front.keys.back_state(), State::Connected);
    // It has to close like everybody.
    front.keys.close_cycle();
    let guest = front.domain.clone();
    drop(front);
    exchange(&mut Front::connect(guest), &backend, 10);
}

#[test]
fn leniently_new_keys_while_connected_make_a_new_connection() {
    let world = World::new();
    let backend = world.serve_with(lenient());
    let mut front = barge_in(Front::connect(world.guest()));
    until("a new connection", || backend.counters().connects == 2);
    exchange(&mut front, &backend, 10);
}

#[test]
fn a_state_that_no_frontend_may_show_is_refused_once_and_the_rings_stay_until_it_closes() {
    for state in [State::InitWait, State::Reconfiguring, State::Reconfigured] {
        let world = World::new();
        let backend = world.serve(Sink::new());
        let guest = world.guest();
        let mut front = Front::connect(guest.clone());
        front.keys.state(state);
        front.keys.wait(State::Closing);
        for _ in 0..5 {
            front.keys.state(state);
        }
        front.keys.state(State::Connected);
        exchange(&mut front, &backend, 10);
        assert_eq!(front.keys.back_state(), State::Closing, "{state}");
        let why = front.keys.back("error").expect("a reason");
        assert!(why.contains(&format!("state {}", state.text())), "{why}");
        let counters = backend.counters();
        assert_eq!((counters.faults, counters.disconnects), (1, 0), "{state}");
        front.keys.close_cycle();
        drop(front);
        exchange(&mut Front::connect(guest), &backend, 10);
    }
}

#[test]
fn leniently_senseless_states_are_passed_over() {
    let world = World::new();
    let backend = world.serve_with(lenient());
    let mut front = Front::connect(world.guest());
    front.keys.state(State::Reconfiguring);
    until("a look", || backend.front_state() == State::Reconfiguring);
    front.keys.state(State::Connected);
    exchange(&mut front, &backend, 10);
    assert_eq!(backend.fault(), None);
    assert_eq!(front.keys.back_state(), State::Connected);
}

#[test]
fn a_guest_that_writes_to_the_store_without_end_does_not_stop_its_traffic() {
    for key in ["state", "request-multicast-control"] {
        let value = if key == "state" { "4" } else { "0" };
        let world = World::new();
        let backend = world.serve(Sink::new());
        let guest = world.guest();
        let mut front = Front::connect(guest.clone());
        let over = AtomicBool::new(false);
        let written = AtomicU64::new(0);
        std::thread::scope(|scope| {
            // Two writers: one alone may be slower than who reads.
            for _ in 0..2 {
                let mut keys = Keys::new(&guest);
                let (over, written) = (&over, &written);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        keys.write(key, value);
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // Whatever happens below, the writers have to end.
            let _end = EndOnDrop(&over);
            until("a flood", || written.load(Ordering::Relaxed) > 1000);
            exchange(&mut front, &backend, 500);
        });
        let verified = backend.stop().unwrap().verified.expect("a verifier");
        assert_eq!(verified.frames, 500, "{key}");
        assert!(verified.is_clean(), "{key}");
    }
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
