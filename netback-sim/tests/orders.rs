//! Every order of two states, legal and illegal, that a frontend may show: what the backend shows then, and that nothing
//! hangs. The mirror of netfront's `connection/orders.rs`. What `decide` makes of a pair is tested beside it; here the
//! store, the rings and the thread are real.
//!
//! In a table, a row is the state that the frontend shows first, with what the backend then shows; behind it, what the
//! backend shows for each state that the frontend shows next, from 0 to 9. 9 is no state: it counts as 0, a state that is
//! gone. `$` is the end of the backend.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, Instant};

use common::{exchange, until, Front, Keys, World, FRONT};
use hypervisor::Domain;
use netback_sim::peer::Sink;
use netback_sim::{BackendHandle, Config, State};

/// Tenfold what a pair may take, with two handshakes and what they exchange.
const SOON: Duration = Duration::from_secs(10);
const NUMBERS: std::ops::RangeInclusive<u8> = 0..=9;

/// A vif whose frontend is connected, or has not begun, and a backend that forgives or does not.
struct Pair {
    world: World,
    guest: Domain,
    backend: BackendHandle,
    /// Its rings are there to be found again by whoever shows Connected once more.
    front: Option<Front>,
    keys: Keys,
    begun: Instant,
}

fn config(strict: bool) -> Config {
    Config {
        strict,
        close_patience: Duration::from_millis(50),
        ..Config::new(FRONT, Sink::new())
    }
}

impl Pair {
    fn new(connected: bool, strict: bool) -> Self {
        let world = World::new();
        let backend = world.serve_with(config(strict));
        let guest = world.guest();
        let front = connected.then(|| Front::connect(guest.clone()));
        let mut keys = Keys::new(&guest);
        keys.wait(if connected {
            State::Connected
        } else {
            State::InitWait
        });
        Self {
            keys,
            world,
            guest,
            backend,
            front,
            begun: Instant::now(),
        }
    }

    fn show(&mut self, number: u8) {
        self.keys.write("state", number);
    }

    /// Waits until the backend has looked at this state of the frontend, and shows what is wanted. False if it has ended.
    fn answers(&mut self, number: u8, wanted: &str, what: &str) -> bool {
        let (wanted, ends) = match wanted.strip_suffix('$') {
            Some(wanted) => (wanted, true),
            None => (wanted, false),
        };
        let wanted = State::from_text(wanted);
        let seen = State::from_text(&number.to_string());
        let mut shown = State::Unknown;
        let end = Instant::now() + SOON;
        while !(self.backend.front_state() == seen
            && shown == wanted
            && self.backend.is_running() != ends)
        {
            assert!(
                Instant::now() < end,
                "{what}: it shows {shown}, not {wanted}; it runs: {}",
                self.backend.is_running()
            );
            std::thread::sleep(Duration::from_millis(1));
            shown = self.keys.back_state();
        }
        !ends
    }

    /// A backend that has ended is followed by another, as a toolstack does that makes the vif anew.
    fn runs_again(&mut self, strict: bool, what: &str) {
        if !self.backend.is_running() {
            self.show(1);
            let next = self.world.serve_with(config(strict));
            let ended = std::mem::replace(&mut self.backend, next).stop();
            assert!(ended.is_ok(), "{what}: {ended:?}");
            self.keys.wait(State::InitWait);
        }
    }

    /// Whatever was shown before: the next driver closes what there is, connects, and its frames arrive.
    fn ends_well(mut self, strict: bool, what: &str) {
        self.runs_again(strict, what);
        // Each looked at: a backend that has refused a state shows Closing, and may be closed all the same. Then only a
        // frontend that starts moves it, as with netback. One that has seen a state that is gone may end only now.
        for number in [5, 6] {
            self.show(number);
            until(&format!("{what}: a look at {number}"), || {
                self.backend.front_state() as u8 == number || !self.backend.is_running()
            });
            self.runs_again(strict, what);
        }
        self.show(1);
        let initwait = || self.keys.back_state() == State::InitWait;
        until(&format!("{what}: InitWait"), initwait);
        drop(self.front.take());
        let mut front = Front::connect(self.guest.clone());
        exchange(&mut front, &self.backend, 3);
        front.keys.close_cycle();
        self.backend.stop().unwrap();
        let taken = self.begun.elapsed();
        assert!(taken < SOON, "{what} took {taken:?}");
    }
}

/// Shows the two states, each looked at, for every field of the table.
fn check(table: &str, connected: bool, strict: bool) {
    let rows: Vec<&str> = table.lines().map(str::trim).collect();
    let rows = rows.into_iter().filter(|row| !row.is_empty());
    let mut firsts = Vec::new();
    for row in rows {
        let [first, after, seconds] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("a row is `first | after it | for each second one`: {row}");
        };
        let first: u8 = first.trim().parse().unwrap();
        firsts.push(first);
        let wanted: Vec<&str> = seconds.split_whitespace().collect();
        assert_eq!(wanted.is_empty(), after.contains('$'), "{row}");
        if wanted.is_empty() {
            let what = format!("{first}");
            let mut pair = Pair::new(connected, strict);
            pair.show(first);
            pair.answers(first, after.trim(), &what);
            pair.ends_well(strict, &what);
            continue;
        }
        assert_eq!(wanted.len(), NUMBERS.count(), "{row}");
        for (second, wanted) in NUMBERS.zip(wanted) {
            let what = format!("{first} then {second}");
            let mut pair = Pair::new(connected, strict);
            pair.show(first);
            pair.answers(first, after.trim(), &what);
            pair.show(second);
            pair.answers(second, wanted, &what);
            pair.ends_well(strict, &what);
        }
    }
    assert_eq!(firsts, NUMBERS.collect::<Vec<_>>());
}

/// Refused states (2, 7, 8) have Closing shown while the rings stay, as netback does: from there only a close leads on.
#[test]
fn whatever_two_states_a_connected_frontend_shows_it_is_answered_as_by_netback_and_the_next_one_connects(
) {
    let table = "
        0 | 6$ |
        1 | 2  | 6$ 2 5 2 4 5 6 5 5 6$
        2 | 5  | 6$ 2 5 5 5 5 6 5 5 6$
        3 | 4  | 6$ 2 5 4 4 5 6 5 5 6$
        4 | 4  | 6$ 2 5 4 4 5 6 5 5 6$
        5 | 5  | 6$ 2 5 5 4 5 6 5 5 6$
        6 | 6  | 6$ 2 5 6 4 5 6 5 5 6$
        7 | 5  | 6$ 2 5 5 5 5 6 5 5 6$
        8 | 5  | 6$ 2 5 5 5 5 6 5 5 6$
        9 | 6$ |
    ";
    check(table, true, true);
}

/// Connected without keys is a failure with a reason, and the vif is closed; the same once more changes nothing.
#[test]
fn whatever_two_states_a_frontend_shows_that_has_not_begun_it_is_answered_and_the_next_one_connects(
) {
    let table = "
        0 | 6$ |
        1 | 2  | 6$ 2 5 2 6 5 6 5 5 6$
        2 | 5  | 6$ 5 5 5 6 5 6 5 5 6$
        3 | 2  | 6$ 2 5 2 6 5 6 5 5 6$
        4 | 6  | 6$ 2 5 6 6 5 6 5 5 6$
        5 | 5  | 6$ 2 5 5 6 5 6 5 5 6$
        6 | 6  | 6$ 2 5 6 6 5 6 5 5 6$
        7 | 5  | 6$ 5 5 5 6 5 6 5 5 6$
        8 | 5  | 6$ 5 5 5 6 5 6 5 5 6$
        9 | 6$ |
    ";
    check(table, false, true);
}

#[test]
fn a_lenient_backend_passes_over_senseless_states_and_outlives_a_state_that_is_gone() {
    let table = "
        0 | 6  | 6 2 6 4 4 5 6 6 6 6
        1 | 2  | 6 2 2 4 4 5 6 2 2 6
        2 | 4  | 6 2 4 4 4 5 6 4 4 6
        3 | 4  | 6 2 4 4 4 5 6 4 4 6
        4 | 4  | 6 2 4 4 4 5 6 4 4 6
        5 | 5  | 6 2 5 4 4 5 6 5 5 6
        6 | 6  | 6 2 6 4 4 5 6 6 6 6
        7 | 4  | 6 2 4 4 4 5 6 4 4 6
        8 | 4  | 6 2 4 4 4 5 6 4 4 6
        9 | 6  | 6 2 6 4 4 5 6 6 6 6
    ";
    check(table, true, false);
}

/// Written one after the other, the first may never be seen: whichever it is, the next driver connects.
#[test]
fn two_states_at_once_are_a_jump_after_which_the_next_frontend_connects() {
    for strict in [true, false] {
        for first in NUMBERS {
            for second in NUMBERS {
                let gone = |number: u8| State::from_text(&number.to_string()) == State::Unknown;
                // It shows 4 already, so nobody could tell whether it is yet to see the first, and end.
                if strict && gone(first) && second == 4 {
                    continue;
                }
                let what = format!("{first} and {second} at once, strict {strict}");
                let mut pair = Pair::new(true, strict);
                pair.show(first);
                pair.show(second);
                until(&what, || {
                    let seen = pair.backend.front_state() as u8;
                    let ends = strict && gone(second);
                    (!ends && (seen == second || (seen == 0 && gone(second))))
                        || !pair.backend.is_running()
                });
                if !(strict && (gone(first) || gone(second))) {
                    assert!(pair.backend.is_running(), "{what}");
                }
                pair.ends_well(strict, &what);
            }
        }
    }
}
