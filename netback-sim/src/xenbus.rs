//! The backend's state machine, as netback's: what to do when the frontend's state changes.
//!
//! [`decide`] is the whole table, without any store, so that every pair of states can be tested.
//! Nothing here waits: each change of the store is an event, and what has to happen after a while
//! is a deadline that the loop in [`crate::backend`] sleeps until. A frontend may make any jump,
//! legal or not; the worst that it gets is a closed vif.
//!
//! By default the table is that of Linux (`drivers/net/xen-netback/xenbus.c`, `frontend_changed`
//! and `set_backend_state`): the frontend's state names a goal, and the backend walks to it through
//! all states that lie between. A frontend that works here should work there, so nothing is
//! forgiven that netback does not forgive:
//!
//! - Initialised (3) means nothing. Only Connected (4) makes a connection.
//! - Connected while the backend is connected does nothing, whatever the keys say by then. Who has
//!   new rings closes first.
//! - A frontend whose state is gone (0) has lost its vif for good, even while the toolstack wants
//!   it: netback unregisters the device, and only a toolstack can make another.
//! - A state that only backends have (2) is refused: an error is written and Closing shown. The
//!   rings stay until the frontend closes, and [`Situation::own`] stays what it was. The same holds
//!   for 7 and 8: the kernel takes 7 since it has XDP, which is not offered here; a netback
//!   without it refuses them like this.
//!
//! [`Situation::strict`] switched off forgives these four: Initialised counts as Connected;
//! other keys in state 4 make a new connection; a vif that the toolstack wants stays, closed,
//! without a frontend; and senseless states are passed over.
//!
//! What differs from the kernel in either mode:
//!
//! - A backend that begins and finds the frontend in state 4. The kernel, when its module is loaded
//!   again, goes to Connected at once and takes over the rings where they stand. Here that
//!   frontend may be a process whose backend was killed, and that can notice it: InitWait is
//!   shown for [`stale_patience`](crate::backend::Config::stale_patience), and only then are the
//!   rings taken over.
//! - A connection that fails, or rings that the guest broke. netback writes an error and stays in
//!   Connected with nothing behind it. Here the state is Closed, so that the frontend can see it.
//!   As in netback, the way out is by a state other than 4.

use crate::state::State;

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Let go of the rings and channels.
    Disconnect,
    /// Write the features again: the next frontend may be another one.
    Announce,
    /// Go to this state and show it.
    Show(State),
    /// Take the frontend's rings and channels; then show that we are connected.
    Connect,
    /// Say that the frontend's state makes no sense, and show Closing without going there.
    Refuse,
    /// The vif is gone for good.
    Finish,
}

/// What is known when the frontend's state was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Situation {
    /// The state that we are in.
    pub(crate) own: State,
    /// The state that the frontend shows.
    pub(crate) front: State,
    /// The toolstack wants the vif to stay.
    pub(crate) online: bool,
    /// What the frontend wrote is worth a try: it is not what we are connected to, nor what was
    /// there when we came or failed.
    pub(crate) fresh: bool,
    /// Forgive nothing that the kernel does not forgive.
    pub(crate) strict: bool,
}

/// What to do.
pub(crate) fn decide(situation: Situation) -> Vec<Step> {
    use State::*;
    let Situation {
        own,
        front,
        online,
        fresh,
        strict,
    } = situation;
    let mut steps = Vec::new();
    match front {
        // It begins. If we still have an old connection, the frontend has not closed it: it was
        // killed, and this is the next one.
        Initialising => walk(own, InitWait, &mut steps),

        Initialised if strict => {}
        // The kernel's table knows nothing of keys: these are the ones that have failed already.
        Initialised | Connected if !fresh => {}
        Initialised | Connected => {
            if own == Connected && !strict {
                walk(own, InitWait, &mut steps);
                steps.push(Step::Connect);
            } else {
                walk(own, Connected, &mut steps);
            }
        }

        // It closes. Some do a whole cycle of closing before they connect for the first time, and
        // wait at each step.
        Closing => walk(own, Closing, &mut steps),
        Closed => {
            walk(own, Closed, &mut steps);
            if !online {
                steps.push(Step::Finish);
            }
        }
        Unknown => {
            walk(own, Closed, &mut steps);
            if strict || !online {
                steps.push(Step::Finish);
            }
        }

        InitWait | Reconfiguring | Reconfigured if strict => steps.push(Step::Refuse),
        InitWait | Reconfiguring | Reconfigured => {}
    }
    steps
}

/// The shortest way from one state to another, with what has to be done at each stop.
fn walk(mut own: State, goal: State, steps: &mut Vec<Step>) {
    use State::*;
    while own != goal {
        own = match (own, goal) {
            (Initialising, Closed) | (Closing, _) => Closed,
            (Closed, Closing) => Closing,
            (Initialising | Closed, _) => InitWait,
            (InitWait, Connected) => Connected,
            (InitWait | Connected, _) => {
                if own == Connected {
                    steps.push(Step::Disconnect);
                }
                Closing
            }
            // A backend is in none of the other states.
            _ => return,
        };
        match own {
            InitWait => steps.extend([Step::Announce, Step::Show(InitWait)]),
            Connected => steps.push(Step::Connect),
            _ => steps.push(Step::Show(own)),
        }
    }
}

#[cfg(test)]
#[path = "xenbus_tests.rs"]
mod tests;
