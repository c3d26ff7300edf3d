//! What has to hold in the harness of the receive engine, with the committed parameters and with each of them at half and
//! at one and a half.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use netfront::engine::moderation::Mode;
use netfront::engine::restart::Policy;
use netfront_tests::engine::many_cores;
use netfront_tests::engine::one_core::{run, Seen, Setting};
use netfront_tests::engine::parameters::Parameters;
use netfront_tests::engine::scenarios::{
    at_load, best_fixed, capture, holding, holds, shared, stopping, with, LOADS, MODES, POLICIES,
};
use netfront_tests::engine::table;
use netfront_tests::engine::ways::Way;

/// The committed world, and each that differs in one parameter.
fn worlds() -> Vec<(String, Parameters)> {
    let committed = Parameters::committed();
    with_itself(committed.variations(), committed)
}

fn with_itself(
    mut worlds: Vec<(String, Parameters)>,
    committed: Parameters,
) -> Vec<(String, Parameters)> {
    worlds.push(("as committed".into(), committed));
    worlds
}

/// Those that differ for one core, in each mode of [`MODES`].
fn worlds_in_each_mode() -> impl Iterator<Item = (Mode, String, Parameters)> {
    MODES.into_iter().flat_map(|mode| {
        let committed = Parameters::committed();
        let worlds = with_itself(committed.variations_of_one_core(), committed);
        let worlds = worlds.into_iter();
        worlds.map(move |(world, parameters)| (mode, world, parameters))
    })
}

fn assert_within_its_time(seen: &Seen, what: &str) {
    assert!(
        seen.over <= seen.longest_visit,
        "{what}: {} ns over its time, the longest visit took {}",
        seen.over,
        seen.longest_visit
    );
}

/// S-3, S-4, S-5: where yielding is expensive, the limit that learns captures no less than the kernel's ten.
#[test]
fn the_adaptive_limit_captures_at_least_what_ten_rounds_do() {
    let mut failed = Vec::new();
    for (mode, world, parameters) in worlds_in_each_mode() {
        for scenario in capture(&parameters) {
            let captures = |policy| {
                let setting = with(policy, true);
                run(&parameters, &scenario, Setting { mode, ..setting })
            };
            let [ours, ten] = [Policy::Adaptive, Policy::Fixed(10)].map(captures);
            let what = format!("{mode}; {world}; {}", scenario.name);
            assert_within_its_time(&ours, &what);
            if ours.lost > ten.lost {
                failed.push(format!(
                    "{what}: {:.2} % of {:.2} %",
                    ours.percent(),
                    ten.percent()
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// S-4: on a core that is shared with the application, it loses less than 3 % to the best fixed limit there is.
#[test]
fn the_adaptive_limit_is_as_good_as_the_best_fixed_one_where_the_core_is_shared() {
    let mut failed = Vec::new();
    for (mode, world, parameters) in worlds_in_each_mode() {
        for scenario in shared(&parameters) {
            let setting = with(Policy::Adaptive, true);
            let ours = run(&parameters, &scenario, Setting { mode, ..setting });
            let best = best_fixed(&parameters, &scenario, mode);
            let what = format!("{mode}; {world}; {}", scenario.name);
            assert_within_its_time(&ours, &what);
            if ours.kpps() < 0.97 * best {
                failed.push(format!("{what}: {:.1} of {best:.1} kpps", ours.kpps()));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// S-4: no policy is ever over its time by more than one visit.
#[test]
fn no_policy_is_over_its_time_by_more_than_one_visit() {
    let parameters = Parameters::committed();
    for scenario in capture(&parameters).iter().chain(&shared(&parameters)) {
        for policy in POLICIES {
            for (pressure, mode) in [false, true]
                .into_iter()
                .flat_map(|on| MODES.map(|mode| (on, mode)))
            {
                let setting = with(policy, pressure);
                let seen = run(&parameters, scenario, Setting { mode, ..setting });
                assert_within_its_time(&seen, &format!("{mode}, {policy}, {}", scenario.name));
            }
        }
    }
}

/// S-3: what back-pressure is for. Without it a large limit on a shared core throws away most of what it received.
#[test]
fn with_back_pressure_nothing_is_thrown_away_that_was_paid_for() {
    for (mode, world, parameters) in worlds_in_each_mode() {
        for scenario in shared(&parameters) {
            for policy in POLICIES {
                let setting = with(policy, true);
                let seen = run(&parameters, &scenario, Setting { mode, ..setting });
                assert_eq!(
                    seen.wasted, 0,
                    "{mode}; {world}; {policy}, {}",
                    scenario.name
                );
            }
        }
    }
}

/// S-3: and without it there is something to prevent, in both modes.
#[test]
fn without_back_pressure_a_large_limit_is_a_livelock() {
    let parameters = Parameters::committed();
    for mode in MODES {
        let wasted = shared(&parameters).into_iter().map(|scenario| {
            let setting = with(Policy::Fixed(64), false);
            run(&parameters, &scenario, Setting { mode, ..setting }).waste()
        });
        let most = wasted.fold(0.0, f64::max);
        assert!(most > 50.0, "{mode}: {most} % thrown away at most");
    }
}

/// S-3: packets whose consumer stopped are held, then dropped and counted, so that the ring never stands still for long; what
/// comes when it goes on is delivered. Held for longer than that, all is left to the backend.
#[test]
fn packets_of_a_consumer_that_stopped_are_dropped_after_their_time_and_not_before() {
    for (mode, world, parameters) in worlds_in_each_mode() {
        let scenario = stopping(&parameters);
        let [short, long] = holds(&parameters).map(|hold| {
            run(
                &parameters,
                &scenario,
                Setting {
                    mode,
                    ..holding(hold)
                },
            )
        });
        let what = format!("{mode}; {world}");
        let is_all_told = |seen: &Seen| {
            // What is under way at the beginning and at the end is in no other count.
            let room =
                parameters.ring_slots + parameters.backend_packets + parameters.queue_packets;
            let told = seen.delivered + seen.lost + seen.dropped + seen.wasted;
            told.abs_diff(seen.offered) <= room
        };
        assert!(is_all_told(&short) && is_all_told(&long), "{what}");
        assert_eq!((short.wasted, long.wasted), (0, 0), "{what}");
        assert!(short.dropped > 1000, "{what}: {} dropped", short.dropped);
        assert_eq!(long.dropped, 0, "{what}");
        assert!(
            short.lost < long.lost,
            "{what}: {} and {}",
            short.lost,
            long.lost
        );
        assert!(short.delivered > 1000, "{what}: {}", short.delivered);
        // Beyond the time: a look every 100 us, a turn of the application, a visit.
        let most = (parameters.hold_us + 2 * parameters.turn_us + 200) * 1000;
        assert!(short.stood <= most, "{what}: {} ns of {most}", short.stood);
        assert!(
            long.stood > parameters.stop_us * 900,
            "{what}: {}",
            long.stood
        );
    }
}

/// N-1: the more packets, the fewer events for each; at saturation one for fifty at most.
#[test]
fn events_fall_with_the_load_and_nearly_vanish_at_saturation() {
    for (mode, world, parameters) in worlds_in_each_mode() {
        let seen = LOADS.map(|percent| at_load(&parameters, percent, mode).1);
        for pair in seen.windows(2) {
            let [before, after] = [&pair[0], &pair[1]].map(Seen::events_a_packet);
            assert!(
                after <= before,
                "{mode}; {world}: {before} and then {after}"
            );
        }
        for (percent, seen) in LOADS.iter().zip(&seen) {
            let events = seen.events_a_packet();
            assert!(
                *percent < 100 || events <= 0.02,
                "{mode}; {world}, {percent} %: {events}"
            );
        }
    }
}

/// L-1: an idle core is left alone, but by polling.
#[test]
fn an_idle_core_is_left_alone_unless_it_was_told_to_poll() {
    let parameters = Parameters::committed();
    let busy = |mode| at_load(&parameters, 1, mode).1.busy_percent();
    let [interrupt, adaptive, poll] = [Mode::Interrupt, Mode::Adaptive, Mode::Poll].map(busy);
    assert!(adaptive <= 1.5 * interrupt, "{adaptive} and {interrupt}");
    assert!(poll > 99.0);
}

/// K-1, K-2, K-3, K-5, K-8: 64 connections over two event cores and two workers, with queues, connections and
/// mappings bound anew all the time.
#[test]
fn steered_packets_keep_their_order_with_few_wake_ups_and_queues_evenly_spread() {
    for (world, parameters) in worlds() {
        let seen = many_cores::run(&parameters, Way::Rebound);
        assert!(seen.delivered > 1000, "{world}: {}", seen.delivered);
        assert_eq!(seen.out_of_order, 0, "{world}");
        assert!(seen.spread <= 1, "{world}");
        assert!(seen.rebindings > 10, "{world}");
        let wakes = seen.wakes_a_packet();
        assert!(wakes <= 0.05, "{world}: {wakes} wake-ups a packet");
        assert!(seen.moves > 100, "{world}: {}", seen.moves);
    }
}

/// K-6, K-7: what the baselines lose that do without.
#[test]
fn the_baselines_show_what_each_part_is_there_for() {
    let parameters = Parameters::committed();
    let seen = |way| many_cores::run(&parameters, way);
    let ours = seen(Way::Steered);
    assert!(seen(Way::RandomWorker).out_of_order > 0);
    assert!(seen(Way::NoSteering).events_on_workers > 0);
    assert!(seen(Way::WakePerPacket).wakes_a_packet() > ours.wakes_a_packet());
    assert!(seen(Way::OneEventCore).delivered < ours.delivered);
    assert!(seen(Way::MutexStore).delivered <= ours.delivered);
}

/// The table in the repository is the one that the present code gives. `UPDATE=1` writes it.
#[test]
fn the_committed_table_is_the_present_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("engine/table.txt");
    let now = table::text(&table::all(&Parameters::committed()));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(
        kept == now,
        "tests/engine/table.txt is another one. If that is meant: UPDATE=1 cargo test -p netfront-tests --test engine. Now:\n{now}"
    );
}

#[test]
fn parameters_that_are_wrong_are_told_by_their_line() {
    assert_eq!(
        Parameters::parse("run_us = 1\nqueues: 3"),
        Err("line 2: `name = number` is wanted, and this is `queues: 3`".into())
    );
    assert_eq!(
        Parameters::parse("# a remark\npackets = 3 # so"),
        Err("line 2: there is no parameter `packets`".into())
    );
    assert!(Parameters::parse("")
        .unwrap_err()
        .starts_with("these parameters are missing: run_us"));
}
