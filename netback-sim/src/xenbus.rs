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
    /// The states that a backend can be in.
    const BACK: [State; 5] = [Initialising, InitWait, Connected, Closing, Closed];

    /// The steps as a word: d(isconnect), a(nnounce), a digit for each state that is gone to (4 is the
    /// connection), ! for a refusal, $ for the end.
    fn word(own: State, front: State, change: impl Fn(&mut Situation)) -> String {
        let mut situation = Situation {
            own,
            front,
            online: true,
            fresh: true,
            strict: true,
        };
        change(&mut situation);
        let letters = decide(situation).into_iter().map(|step| match step {
            Step::Disconnect => "d".to_owned(),
            Step::Announce => "a".to_owned(),
            Step::Show(state) => state.text(),
            Step::Connect => "4".to_owned(),
            Step::Refuse => "!".to_owned(),
            Step::Finish => "$".to_owned(),
        });
        letters.collect()
    }

    /// A row for each own state, a column for each state of the frontend, as `-` where nothing is done.
    fn check(table: &str, change: impl Fn(&mut Situation)) {
        let rows: Vec<_> = table
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        assert_eq!(rows.len(), ALL.len());
        for (own, row) in ALL.into_iter().zip(rows) {
            let (name, row) = row.split_once('|').expect("a name and a row");
            assert_eq!(name.trim(), own.to_string());
            let wanted: Vec<_> = row.split_whitespace().collect();
            let found: Vec<_> = ALL
                .iter()
                .map(|&front| match word(own, front, &change) {
                    word if word.is_empty() => "-".to_owned(),
                    word => word,
                })
                .collect();
            assert_eq!(found, wanted, "{own}");
        }
    }

    #[test]
    fn every_pair_of_states_is_answered_as_the_kernels_netback_answers_it() {
        // The frontend's state:
        //                0      1      2  3  4      5    6    7  8
        let table = "
            Unknown       | $      -      !  -  -      -    -    !  !
            Initialising  | 6$     a2     !  -  a24    a25  6    !  !
            InitWait      | 56$    -      !  -  4      5    56   !  !
            Initialised   | $      -      !  -  -      -    -    !  !
            Connected     | d56$   d56a2  !  -  -      d5   d56  !  !
            Closing       | 6$     6a2    !  -  6a24   -    6    !  !
            Closed        | $      a2     !  -  a24    5    -    !  !
            Reconfiguring | $      -      !  -  -      -    -    !  !
            Reconfigured  | $      -      !  -  -      -    -    !  !
        ";
        check(table, |_| {});
    }

    #[test]
    fn every_pair_of_states_is_answered_leniently_when_that_is_asked_for() {
        //                0      1      2  3       4       5    6    7  8
        let table = "
            Unknown       | -      -      -  -       -       -    -    -  -
            Initialising  | 6      a2     -  a24     a24     a25  6    -  -
            InitWait      | 56     -      -  4       4       5    56   -  -
            Initialised   | -      -      -  -       -       -    -    -  -
            Connected     | d56    d56a2  -  d56a24  d56a24  d5   d56  -  -
            Closing       | 6      6a2    -  6a24    6a24    -    6    -  -
            Closed        | -      a2     -  a24     a24     5    -    -  -
            Reconfiguring | -      -      -  -       -       -    -    -  -
            Reconfigured  | -      -      -  -       -       -    -    -  -
        ";
        check(table, |situation| situation.strict = false);
    }

    #[test]
    fn keys_that_are_not_fresh_change_nothing_in_either_mode() {
        for own in ALL {
            for front in [Initialised, Connected] {
                for strict in [false, true] {
                    let steps = word(own, front, |situation| {
                        (situation.fresh, situation.strict) = (false, strict);
                    });
                    assert_eq!(steps, "", "{own} sees {front}");
                }
            }
        }
    }

    #[test]
    fn a_vif_that_the_toolstack_gives_up_ends_when_the_frontend_is_closed_or_gone_and_not_before() {
        for own in ALL {
            for front in ALL {
                for strict in [false, true] {
                    let steps = word(own, front, |situation| {
                        (situation.online, situation.strict) = (false, strict);
                    });
                    let over = matches!(front, Closed | Unknown);
                    assert_eq!(steps.ends_with('$'), over, "{own} sees {front}: {steps}");
                }
            }
        }
    }

    #[test]
    fn rings_are_held_exactly_while_connected_after_any_jump() {
        for own in BACK {
            for front in ALL {
                for strict in [false, true] {
                    let steps = word(own, front, |situation| situation.strict = strict);
                    let (mut state, mut held) = (own.text(), own == Connected);
                    for step in steps.chars() {
                        match step {
                            'd' => held = false,
                            '4' => {
                                assert!(!held, "rings taken twice: {own} sees {front}");
                                (state, held) = (step.to_string(), true);
                            }
                            '0'..='9' => state = step.to_string(),
                            _ => {}
                        }
                    }
                    assert_eq!(state == Connected.text(), held, "{own} sees {front}");
                }
            }
        }
    }
}
