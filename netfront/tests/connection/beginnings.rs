//! Every order of two states, legal and illegal, that a backend may show during the handshake: the driver connects or
//! says by which key it did not, and nothing hangs.

use std::thread;
use std::time::{Duration, Instant};

use hypervisor::StoreClient;
use netfront::connection::{Connection, Wants};
use netfront::{Device, Error, Features, QueueConfig};

use crate::common::toolstack::{Toolstack, BACKEND};
use crate::common::{World, PATIENCE};
use crate::netback::{behave, let_react};
use crate::{connection, keys, vif, SPLIT};

/// All numbers of states, and one that is none.
const NUMBERS: std::ops::RangeInclusive<u8> = 0..=9;
/// Time for the driver to answer a state that it may also pass over.
const REACTION: Duration = Duration::from_millis(5);
/// For a backend that never moves again.
const IN_VAIN: Duration = Duration::from_millis(20);
/// Tenfold what a handshake takes, with the rereading of keys in each of its steps.
const SOON: Duration = Duration::from_secs(10);
/// Handshakes. Each of the two states may spoil one, and so may the backend's answer to what the driver showed before.
const ATTEMPTS: usize = 4;

/// When the backend shows the two states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The first before the driver starts.
    AtTheStart,
    /// Both when the driver has published its keys and waits for Connected.
    AfterTheKeys,
}

/// One handshake of a whole device, with pools small enough for hundreds of them.
fn connect(world: &World) -> Result<Device, Error> {
    let queue = QueueConfig {
        rx_pages: 256,
        tx_pages: 64,
        ..QueueConfig::default()
    };
    let builder = Device::builder(0).queue(queue).deadline(PATIENCE);
    builder.connect(&world.front)
}

/// That a failed handshake names the backend's state, and what it was.
fn assert_clear(error: &Error, what: &str) {
    let (Error::Deadline { key, .. } | Error::BackendLeft { key, .. }) = error else {
        panic!("{what}: {error}");
    };
    assert_eq!(key, &format!("{BACKEND}/state"), "{what}");
    assert!(error.to_string().contains(key.as_str()), "{what}: {error}");
}

/// Shows both states at their moment. Gives the last one that was shown.
fn show(toolstack: &mut Toolstack, moment: Moment, [first, second]: [u8; 2]) -> u8 {
    if moment == Moment::AfterTheKeys {
        toolstack.wait_front("4");
        toolstack.back("state", first);
    }
    let shown = toolstack.front_state();
    let_react(toolstack, &shown, REACTION);
    toolstack.back("state", second);
    let shown = toolstack.front_state();
    let_react(toolstack, &shown, REACTION);
    second
}

/// Handshakes until one is made with a backend that shows two states in the first of them and behaves then. Gives how many
/// failed.
fn connect_through(moment: Moment, states: [u8; 2]) -> usize {
    let what = format!("{} then {}, {moment:?}", states[0], states[1]);
    let (world, mut toolstack) = vif();
    if moment == Moment::AtTheStart {
        toolstack.back("state", states[0]);
    }
    let connecting = thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut failed = 0;
            loop {
                let begun = Instant::now();
                let once = connect(&world);
                assert!(begun.elapsed() < SOON, "{what}");
                match once {
                    // A backend that left right after it has connected is told, and the next connection made as ever.
                    Ok(device) => break (failed, device.close()),
                    Err(error) => assert_clear(&error, &what),
                }
                failed += 1;
                assert!(failed < ATTEMPTS, "{what}: {failed} handshakes failed");
            }
        });
        let own = show(&mut toolstack, moment, states);
        behave(&mut toolstack, own, || connecting.is_finished());
        connecting.join().unwrap()
    });
    let (failed, closed) = connecting;
    closed.unwrap_or_else(|error| panic!("{what}: {error}"));
    let counters = world.front.counters();
    assert_eq!(counters.grants, counters.revokes, "{what}: pages are left");
    failed
}

#[test]
fn whatever_two_states_a_backend_shows_before_it_behaves_the_driver_connects() {
    for first in NUMBERS {
        for second in NUMBERS {
            connect_through(Moment::AtTheStart, [first, second]);
        }
    }
}

#[test]
fn whatever_two_states_a_backend_shows_instead_of_connecting_it_is_told_and_the_next_one_connects()
{
    for first in NUMBERS {
        for second in NUMBERS {
            connect_through(Moment::AfterTheKeys, [first, second]);
        }
    }
}

/// One handshake over the store alone, each step of which may take so long.
pub fn shake(connection: &mut Connection, step: Duration) -> Result<(), Error> {
    connection.prepare(step)?;
    connection.publish(&keys(SPLIT), &Features::default(), &Wants::default())?;
    connection.wait_connected(step)
}

#[test]
fn a_backend_that_stops_after_any_two_states_is_named_with_the_one_that_it_stopped_in() {
    for first in NUMBERS {
        for second in NUMBERS {
            let what = format!("{first} then {second}");
            let (world, mut toolstack) = vif();
            toolstack.back("state", first);
            let connection = connection(&world, StoreClient::Native);
            let begun = Instant::now();
            let shaking = crate::beside(connection, |connection| shake(connection, 2 * IN_VAIN));
            let shown = toolstack.front_state();
            let_react(&mut toolstack, &shown, IN_VAIN);
            toolstack.back("state", second);
            let (_, outcome) = shaking.join().unwrap();
            assert!(begun.elapsed() < SOON, "{what}");
            match outcome {
                // It stopped where a connected backend stays.
                Ok(()) => assert!(first == 4 || second == 4, "{what}"),
                Err(error) => assert_clear(&error, &what),
            }
        }
    }
}
