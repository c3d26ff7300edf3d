//! The backend's state machine, as netback's: what to do when the frontend's state changes.
//!
//! [`decide`] is the whole table, without any store, so that every pair of states can be tested.
//! Nothing here waits: each change of the store is an event, and what has to happen after a while
//! is a deadline that the loop in [`crate::backend`] sleeps until. A frontend may make any jump,
//! legal or not; the worst that it gets is a closed vif.

use crate::state::State;

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Let go of the rings and channels.
    Disconnect,
    /// Write the features again: the next frontend may be another one.
    Announce,
    /// Show this state.
    Show(State),
    /// Take the frontend's rings and channels; then show that we are connected.
    Connect,
    /// The vif is gone for good.
    Finish,
}

/// What is known when the frontend's state was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Situation {
    /// The state that we show.
    pub(crate) own: State,
    /// The state that the frontend shows.
    pub(crate) front: State,
    /// The toolstack wants the vif to stay.
    pub(crate) online: bool,
    /// What the frontend wrote differs from what we are connected to, or from what was there when
    /// we came or failed: it is worth a try.
    pub(crate) fresh: bool,
}

/// What to do.
pub(crate) fn decide(situation: Situation) -> Vec<Step> {
    use State::*;
    let Situation {
        own,
        front,
        online,
        fresh,
    } = situation;
    let close: &[Step] = &[Step::Disconnect, Step::Show(Closing), Step::Show(Closed)];
    let open: &[Step] = &[Step::Announce, Step::Show(InitWait)];
    match (front, own) {
        // It begins. If we still have an old connection, the frontend has not closed it: it was
        // killed, and this is the next one. netback walks through all states here too.
        (Initialising, InitWait) => vec![],
        (Initialising, Connected) => [close, open].concat(),
        (Initialising, Closing) => [&[Step::Show(Closed)], open].concat(),
        (Initialising, _) => open.to_vec(),

        // Its keys are there. netback insists on Connected; Initialised means the same to other
        // kinds of device, and some frontends show it first.
        (Initialised | Connected, InitWait) if fresh => vec![Step::Connect],
        (Initialised | Connected, Connected) if fresh => [close, open, &[Step::Connect]].concat(),
        // Straight from a closed vif, as netback allows: but not with keys that have failed.
        (Initialised | Connected, Closed | Closing) if fresh => [open, &[Step::Connect]].concat(),
        (Initialised | Connected, _) => vec![],

        // It closes. Some do a whole cycle of closing before they connect for the first time, and
        // wait at each step: so the answer is the same in every state.
        (Closing, InitWait | Connected) => vec![Step::Disconnect, Step::Show(Closing)],
        (Closing, Closed) => vec![Step::Show(Closing)],
        (Closing, _) => vec![],

        // It is closed, or its directory is gone. It stays possible to come back while the
        // toolstack wants the vif.
        (Closed | Unknown, _) => {
            let mut steps = match own {
                Closed => vec![],
                Closing => vec![Step::Show(Closed)],
                _ => close.to_vec(),
            };
            if !online {
                steps.push(Step::Finish);
            }
            steps
        }

        // States of backends, and the reconfiguration that only XDP uses.
        (InitWait | Reconfiguring | Reconfigured, _) => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    const ALL: [State; 9] = [
        Unknown,
        Initialising,
        InitWait,
        Initialised,
        Connected,
        Closing,
        Closed,
        Reconfiguring,
        Reconfigured,
    ];

    /// The state that we show after `front` was seen, and whether rings are held.
    fn after(own: State, front: State, fresh: bool) -> (State, bool) {
        let mut shown = own;
        let mut held = own == Connected;
        let steps = decide(Situation {
            own,
            front,
            online: true,
            fresh,
        });
        for step in steps {
            match step {
                Step::Disconnect => held = false,
                Step::Show(state) => shown = state,
                Step::Connect => {
                    assert!(!held, "rings taken twice: {own} {front}");
                    (shown, held) = (Connected, true);
                }
                Step::Announce => assert!(!held),
                Step::Finish => panic!("online, yet finished"),
            }
        }
        (shown, held)
    }

    #[test]
    fn rings_are_held_exactly_while_connected_after_any_jump() {
        for own in [Initialising, InitWait, Connected, Closing, Closed] {
            for front in ALL {
                for fresh in [false, true] {
                    let (shown, held) = after(own, front, fresh);
                    assert_eq!(shown == Connected, held, "{own} sees {front}");
                }
            }
        }
    }

    #[test]
    fn a_frontend_that_begins_always_finds_a_waiting_backend() {
        for own in [Initialising, InitWait, Connected, Closing, Closed] {
            assert_eq!(after(own, Initialising, false).0, InitWait, "{own}");
        }
    }

    #[test]
    fn a_frontend_that_closes_gets_each_answer_from_every_state() {
        for own in [InitWait, Connected, Closing, Closed] {
            assert_eq!(after(own, Closing, false).0, Closing, "{own}");
            assert_eq!(after(own, Closed, false).0, Closed, "{own}");
            assert_eq!(after(own, Unknown, false).0, Closed, "{own}");
        }
    }

    #[test]
    fn keys_that_have_failed_are_not_tried_again() {
        for own in [InitWait, Closing, Closed] {
            assert_eq!(after(own, Connected, false), (own, false));
            assert_eq!(after(own, Connected, true), (Connected, true));
        }
    }

    #[test]
    fn a_vif_that_the_toolstack_gives_up_ends_when_the_frontend_is_closed() {
        for front in [Closed, Unknown] {
            let steps = decide(Situation {
                own: Connected,
                front,
                online: false,
                fresh: false,
            });
            assert_eq!(steps.last(), Some(&Step::Finish));
        }
    }
}
