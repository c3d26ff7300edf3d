//! A driver that has nothing to do leaves the machine alone. `ci/idle` has the figures.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use netfront_tests::{stats, wait_for, Process};

/// Far more than there are: a thread that looks at something in short intervals is found, whatever the machine does.
const WAKEUPS_PER_SECOND: f64 = 5.0;
const SETTLE: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(20);

#[test]
fn an_idle_driver_is_woken_less_than_five_times_a_second_and_still_there() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("xen");
    let text = socket.to_str().unwrap();
    let backend = ["serve", "--sim", text, "--sink", "--quiet"];
    let _backend = Process::start("netback-sim", &backend, &directory.path().join("backend"));
    wait_for("the simulated Xen", || {
        hypervisor::sim::is_running(&socket)
            .ok()
            .filter(|&running| running)
    });
    let run = ["run", "--sim", text, "--echo", "--queues", "1"];
    let mut frontend = Process::start("netfront", &run, &directory.path().join("frontend"));
    let connected = || stats(&socket).filter(|report| report["connected"] == true);
    wait_for("a connection", connected);
    std::thread::sleep(SETTLE);

    let (start, before) = (Instant::now(), frontend.wakeups());
    std::thread::sleep(WATCHED);
    let (elapsed, after) = (start.elapsed().as_secs_f64(), frontend.wakeups());
    let woken = |thread: &str| after[thread] - before.get(thread).copied().unwrap_or(0);
    let table: Vec<_> = after.keys().map(|name| (name, woken(name))).collect();
    let sum: u64 = table.iter().map(|(_, count)| count).sum();
    let rate = sum as f64 / elapsed;
    eprintln!("{rate:.2} wake-ups a second: {table:?}");
    assert!(rate < WAKEUPS_PER_SECOND, "{rate} a second: {table:?}");

    assert_eq!(wait_for("an answer", connected)["connections"], 1);
    assert_eq!(frontend.terminate(), Some(0), "{}", frontend.errors());
}
