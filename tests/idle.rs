//! A driver that has nothing to do leaves the machine alone, and so does the backend. `ci/idle` has the figures.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use netfront_tests::{serve, stats, wait_for, Process};

/// Far more than there are: a thread that looks at something in short intervals is found, whatever the machine does.
const WAKEUPS_PER_SECOND: f64 = 5.0;
const SETTLE: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(20);

/// How often a driver or a backend was woken in each second of those that are watched, by thread in words.
fn rate(program: &Process) -> (f64, String) {
    let (start, before) = (Instant::now(), program.wakeups());
    std::thread::sleep(WATCHED);
    let (elapsed, after) = (start.elapsed().as_secs_f64(), program.wakeups());
    // A thread that has ended is not among them.
    let woken =
        |thread: &str| after[thread].saturating_sub(before.get(thread).copied().unwrap_or(0));
    let table: Vec<_> = after.keys().map(|name| (name, woken(name))).collect();
    let sum: u64 = table.iter().map(|(_, count)| count).sum();
    let rate = sum as f64 / elapsed;
    let text = format!("{rate:.2} wake-ups a second: {table:?}");
    eprintln!("{text}");
    (rate, text)
}

/// A backend that takes what comes.
fn backend(directory: &Path) -> Process {
    serve(
        &directory.join("xen"),
        &["--sink", "--quiet"],
        &directory.join("backend"),
    )
}

/// A driver of one queue.
fn driver(directory: &Path, more: &[&str]) -> Process {
    let socket = directory.join("xen");
    let run = [
        "run",
        "--sim",
        socket.to_str().unwrap(),
        "--echo",
        "--queues",
        "1",
    ];
    Process::start(
        "netfront",
        &[&run, more].concat(),
        &directory.join("frontend"),
    )
}

#[test]
fn an_idle_driver_is_woken_less_than_five_times_a_second_and_still_there() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("xen");
    let _backend = backend(directory.path());
    let mut frontend = driver(directory.path(), &[]);
    let connected = || stats(&socket).filter(|report| report["connected"] == true);
    wait_for("a connection", connected);
    std::thread::sleep(SETTLE);

    let (rate, text) = rate(&frontend);
    assert!(rate < WAKEUPS_PER_SECOND, "{text}");

    assert_eq!(wait_for("an answer", connected)["connections"], 1);
    assert_eq!(frontend.terminate(), Some(0), "{}", frontend.errors());
}

#[test]
fn an_idle_backend_is_woken_less_than_five_times_a_second_and_ends_when_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("xen");
    let mut backend = backend(directory.path());
    let _frontend = driver(directory.path(), &[]);
    wait_for("a connection", || {
        stats(&socket).filter(|report| report["connected"] == true)
    });
    std::thread::sleep(SETTLE);
    let (rate, text) = rate(&backend);
    assert!(rate < WAKEUPS_PER_SECOND, "{text}");
    assert_eq!(backend.terminate(), Some(0), "{}", backend.errors());
}

#[test]
fn a_driver_that_waits_for_its_backend_is_as_idle_connects_when_it_comes_and_ends_when_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("xen");
    let mut first = backend(directory.path());
    // Short, so that what is watched is after the handshake that nobody answers.
    let mut frontend = driver(directory.path(), &["--deadline", "1"]);
    let is_connected = |wanted: bool| {
        wait_for("the connection to come or go", || {
            stats(&socket).filter(|report| report["connected"] == wanted)
        })
    };
    is_connected(true);
    first.terminate();
    is_connected(false);
    std::thread::sleep(SETTLE);
    let (rate, text) = rate(&frontend);
    assert!(rate < WAKEUPS_PER_SECOND, "{text}");

    let mut second = backend(directory.path());
    assert_eq!(is_connected(true)["connections"], 2);
    second.terminate();
    is_connected(false);
    std::thread::sleep(SETTLE);
    // Asleep, it hears that it is to end.
    assert_eq!(frontend.terminate(), Some(0), "{}", frontend.errors());
}
