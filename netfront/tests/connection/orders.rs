//! Every order of two states, legal and illegal, that a backend may show: nothing hangs, and the end is told.

use std::time::{Duration, Instant};

use hypervisor::StoreClient;
use netback_sim::{peer, Backend, Config};
use netfront::connection::XenbusState;
use netfront::{Change, Device, Error};

use crate::beginnings::shake;
use crate::common::{echo, until, FRONT, PATIENCE};
use crate::netback::behave;
use crate::{beside, connected, connection, vif, World};

/// All numbers of states, and one that is none.
const NUMBERS: std::ops::RangeInclusive<u8> = 0..=9;
/// For a goodbye that nobody answers.
const GOODBYE: Duration = Duration::from_millis(20);
/// Tenfold what any step of this may take, with the rereading of keys.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn whatever_two_states_a_backend_shows_while_connected_its_leaving_is_told_and_the_goodbye_ends() {
    for first in NUMBERS {
        for second in NUMBERS {
            let (world, mut toolstack) = vif();
            let client = StoreClient::Native;
            let mut connection = connected(&world, &mut toolstack, client);
            let begun = Instant::now();
            toolstack.back("state", first);
            let one = connection.next_change(Duration::ZERO).unwrap();
            toolstack.back("state", second);
            let two = connection.next_change(Duration::ZERO).unwrap();
            for (number, change) in [(first, one), (second, two)] {
                let state = XenbusState::from_store(Some(&number.to_string()));
                let wanted =
                    (state != XenbusState::Connected).then_some(Change::BackendLeft(state));
                assert_eq!(change, wanted, "{first} then {second}");
            }
            match connection.close(GOODBYE) {
                Ok(()) | Err(Error::Deadline { .. }) => {}
                Err(error) => panic!("{first} then {second}: {error}"),
            }
            assert_eq!(toolstack.front_state(), "6", "{first} then {second}");
            assert!(begun.elapsed() < SOON, "{first} then {second}");
            // And from where that left the backend, as soon as it behaves, the next connection is made.
            let begun = Instant::now();
            let next = beside(connection, |connection| {
                match shake(connection, PATIENCE) {
                    // Its answer to the goodbye, which came only now. `serve` tries again, too.
                    Err(Error::BackendLeft { .. }) => shake(connection, PATIENCE),
                    once => once,
                }
            });
            behave(&mut toolstack, second, || next.is_finished());
            let (_, outcome) = next.join().unwrap();
            outcome.unwrap_or_else(|error| panic!("after {first} and {second}: {error}"));
            assert!(begun.elapsed() < SOON, "after {first} and {second}");
        }
    }
}

#[test]
fn whatever_two_states_an_earlier_driver_left_the_next_one_connects() {
    let world = World::new();
    let backend = Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).unwrap();
    let mut store = world.front.store_with(StoreClient::Native).unwrap();
    for first in 1..=8 {
        for second in 1..=8 {
            for state in [first, second] {
                let state: u8 = state;
                store
                    .write("device/vif/0/state", &state.to_string())
                    .unwrap();
            }
            let connect = || Device::builder(0).deadline(PATIENCE).connect(&world.front);
            let mut device = match connect() {
                // Its answer to the earlier driver, which it gave only when this one had begun. `serve` tries again, too.
                Err(Error::BackendLeft { .. }) => connect(),
                once => once,
            }
            .unwrap_or_else(|error| panic!("{first} then {second}: {error}"));
            echo(&mut device, 1);
            device.close().unwrap();
        }
    }
    backend.stop().unwrap();
}

/// What netback does that has refused a state of an earlier driver after it was closed.
#[test]
fn a_backend_that_shows_closing_and_moves_only_for_a_driver_that_starts_is_shown_one() {
    let (world, mut toolstack) = vif();
    toolstack.back("state", 5);
    let preparing = beside(connection(&world, StoreClient::Native), |connection| {
        connection.prepare(Duration::from_secs(4))
    });
    for state in ["6", "1"] {
        until(&format!("state {state}"), || {
            toolstack.front_state() == state
        });
    }
    toolstack.back("state", 2);
    let (_connection, prepared) = preparing.join().unwrap();
    prepared.unwrap();
}
