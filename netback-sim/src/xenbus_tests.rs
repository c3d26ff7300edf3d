//! Every pair of states: what the backend is in, and what the frontend shows.

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
