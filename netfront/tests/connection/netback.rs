//! A backend's state by the test's hand, moved as netback moves it: one look at the frontend's state, one answer.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::toolstack::Toolstack;

/// Between two looks that find nothing to answer.
const LOOK: Duration = Duration::from_millis(1);

/// The state that netback shows next where the two ends show these. `None`: it waits.
fn answer(own: u8, front: u8) -> Option<u8> {
    match (own, front) {
        // It has not begun, or showed what is no state: it begins.
        (0 | 1 | 9, _) => Some(2),
        (5 | 6, 1) => Some(2),
        (2 | 3, 4) => Some(4),
        (2..=4 | 7 | 8, 5) => Some(5),
        (2..=5 | 7 | 8, 6) => Some(6),
        _ => None,
    }
}

/// Behaves from the state that it shows on, until `is_over`.
pub fn behave(toolstack: &mut Toolstack, mut own: u8, is_over: impl Fn() -> bool) {
    while !is_over() {
        let front = toolstack.front_state().parse().unwrap_or(0);
        match answer(own, front) {
            Some(next) => {
                own = next;
                toolstack.back("state", own);
            }
            None => thread::sleep(LOOK),
        }
    }
}

/// Waits until the frontend shows another state than this one; for so long at most.
pub fn let_react(toolstack: &mut Toolstack, before: &str, longest: Duration) {
    let end = Instant::now() + longest;
    while toolstack.front_state() == before && Instant::now() < end {
        thread::sleep(LOOK);
    }
}
