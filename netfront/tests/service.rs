//! `netfront run` as a service: its configuration file, its log, and what it tells the service manager.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use netback_sim::{peer, BackendHandle};
use netfront_tests::stage::Stage;
use netfront_tests::{Guarded, PATIENCE};

/// A simulated Xen with a backend, and a socket for what a service manager would be told.
struct World {
    _backend: BackendHandle,
    manager: UnixDatagram,
    stage: Stage,
}

impl World {
    fn new() -> Self {
        let stage = Stage::new();
        let backend = stage.backend(0, peer::Sink::default());
        let manager = UnixDatagram::bind(stage.path("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            _backend: backend,
            manager,
            stage,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stage.path(name)
    }

    /// The driver with this configuration, as a service manager starts it.
    fn start(&self, configuration: &str, words: &[&str]) -> Driver {
        fs::write(self.path("vif0.toml"), configuration).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_netfront"))
            .args(words)
            .args(["run", "--config"])
            .arg(self.path("vif0.toml"))
            .env("NOTIFY_SOCKET", self.path("notify"))
            .env("WATCHDOG_USEC", "2400000")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Driver(Guarded(child))
    }

    fn configuration(&self, more: &str) -> String {
        format!("sim = {:?}\necho = true\n{more}", self.path("xen"))
    }

    /// Waits until the service manager is told this, and gives the whole message.
    fn told(&self, wanted: &str) -> String {
        let start = Instant::now();
        let mut buffer = [0; 1024];
        loop {
            let length = self.manager.recv(&mut buffer).expect(wanted);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == wanted) {
                return text;
            }
            assert!(start.elapsed() < PATIENCE, "waited for {wanted}");
        }
    }
}

struct Driver(Guarded);

impl Driver {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0 .0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// What it logged, after it ended with success.
    fn log(mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.0 .0.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        assert!(self.0 .0.wait().unwrap().success(), "{text}");
        text
    }
}

#[test]
fn the_manager_hears_that_it_is_connected_that_it_lives_that_it_reloads_and_that_it_stops() {
    let world = World::new();
    let driver = world.start(
        &world.configuration("deadline = 5\n"),
        &["--log-format", "json"],
    );
    assert!(world.told("READY=1").contains("STATUS=connected"));
    for _ in 0..3 {
        world.told("WATCHDOG=1");
    }
    let changed = world.configuration("deadline = 6\nverbose = 1\n");
    fs::write(world.path("vif0.toml"), changed).unwrap();
    driver.signal(rustix::process::Signal::HUP);
    assert!(world.told("RELOADING=1").contains("MONOTONIC_USEC="));
    world.told("READY=1");
    driver.signal(rustix::process::Signal::TERM);
    world.told("STOPPING=1");
    let log = driver.log();
    for line in log.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(parsed["level"].is_string(), "{line}");
    }
    assert!(log.contains("changes of deadline need a restart"), "{log}");
    assert!(!log.contains("verbose need"), "{log}");
}

/// Asleep for up to 16 s, the queue's thread lives all the same, and the watchdog is fed each 1.2 s.
#[test]
fn the_watchdog_of_a_driver_that_is_idle_for_longer_and_longer_is_fed_without_a_gap() {
    let world = World::new();
    let driver = world.start(&world.configuration(""), &[]);
    world.told("READY=1");
    for _ in 0..15 {
        world.told("WATCHDOG=1");
    }
    driver.signal(rustix::process::Signal::TERM);
    let log = driver.log();
    assert!(!log.contains("has not moved"), "{log}");
}

#[test]
fn a_driver_that_is_told_to_stop_tells_the_manager_before_its_goodbye() {
    let world = World::new();
    let driver = world.start(&world.configuration(""), &[]);
    world.told("READY=1");
    let stop = Command::new(env!("CARGO_BIN_EXE_netfront"))
        .args(["stop", "--sim"])
        .arg(world.path("xen"))
        .output()
        .unwrap();
    assert!(stop.status.success(), "{stop:?}");
    world.told("STOPPING=1");
    driver.log();
}

#[test]
fn a_mistake_in_the_file_stops_the_start_and_leaves_a_running_driver_as_it_is() {
    let world = World::new();
    let failed = world.start(&world.configuration("dead-line = 5\n"), &[]);
    let output = {
        let mut failed = failed.0;
        let mut text = String::new();
        failed
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        (failed.0.wait().unwrap().code(), text)
    };
    assert_eq!(output.0, Some(2), "{}", output.1);
    assert!(
        output
            .1
            .contains("vif0.toml:3: there is no key \"dead-line\""),
        "{}",
        output.1
    );

    let driver = world.start(&world.configuration(""), &[]);
    world.told("READY=1");
    fs::write(world.path("vif0.toml"), "nonsense").unwrap();
    driver.signal(rustix::process::Signal::HUP);
    world.told("READY=1");
    driver.signal(rustix::process::Signal::TERM);
    let log = driver.log();
    assert!(log.contains("everything stays as it was"), "{log}");
}

#[test]
fn under_journald_each_line_begins_with_its_priority_and_has_no_time() {
    let world = World::new();
    fs::write(world.path("vif0.toml"), world.configuration("")).unwrap();
    let log = fs::File::create(world.path("log")).unwrap();
    let found = rustix::fs::fstat(&log).unwrap();
    let mut driver = Command::new(env!("CARGO_BIN_EXE_netfront"))
        .args(["-v", "run", "--config"])
        .arg(world.path("vif0.toml"))
        .env("NOTIFY_SOCKET", world.path("notify"))
        .env(
            "JOURNAL_STREAM",
            format!("{}:{}", found.st_dev, found.st_ino),
        )
        .stderr(log)
        .spawn()
        .unwrap();
    world.told("READY=1");
    let pid = rustix::process::Pid::from_child(&driver);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(driver.wait().unwrap().success());
    let log = fs::read_to_string(world.path("log")).unwrap();
    assert!(log.contains("<6>") && log.contains("connected"), "{log}");
    for line in log.lines() {
        assert!(
            line.starts_with('<') && line[2..].starts_with('>'),
            "{line}"
        );
    }
}
