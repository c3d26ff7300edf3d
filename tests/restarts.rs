//! kill -9 of either end during traffic: the other lives, says so once, and connects again.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use netfront_tests::{restarts, serve, stats, wait_for, Process};
use serde_json::Value;

struct Stage {
    directory: tempfile::TempDir,
    socket: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("xen");
        Self { directory, socket }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn backend(&self) -> Process {
        let peer = ["--generate", "1500", "--rate", "20000"];
        serve(&self.socket, &peer, &self.log("backend"))
    }

    fn frontend(&self) -> Process {
        let sim = self.socket.to_str().unwrap();
        // However many processors there are: what a killed driver held is compared.
        let args = ["run", "--sim", sim, "--echo", "--queues", "1"];
        Process::start("netfront", &args, &self.log("frontend"))
    }

    /// Waits until the driver is connected for at least the `connections`th time, packets pass both ways, and the
    /// backend keeps pages mapped: whoever is killed now leaves mappings behind.
    fn wait_for_traffic(&self, connections: u64) -> Value {
        let packets = |report: &Value| report["counters"]["tx_packets"].as_u64().unwrap();
        let connected = wait_for("a connection", || {
            stats(&self.socket).filter(|report| {
                report["connected"] == true && report["connections"].as_u64() >= Some(connections)
            })
        });
        wait_for("traffic", || {
            stats(&self.socket).filter(|report| {
                packets(report) > packets(&connected) + 100
                    && report["counters"]["gref_mapped"].as_u64() >= Some(768)
            })
        })
    }
}

impl Stage {
    /// Waits until the pools are what they were. The counters are not read at one instant, so one report
    /// may be between two of them.
    fn wait_for_pool(&self, first: &Value) {
        wait_for("the pools to be whole", || {
            stats(&self.socket).filter(|report| pool(report) == pool(first))
        });
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        end_simulated_xen(&self.socket);
    }
}

/// The simulated Xen outlives both ends, by design; not the test.
fn end_simulated_xen(socket: &Path) {
    let wanted = ["simulated-xen".to_owned(), socket.display().to_string()];
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = std::fs::read_to_string(process.path().join("cmdline")) else {
            continue;
        };
        let words: Vec<String> = line.split('\0').map(str::to_owned).collect();
        let pid = process.file_name().to_string_lossy().parse().ok();
        if let Some(pid) = pid.filter(|_| wanted.iter().all(|word| words.contains(word))) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
    }
}

/// The pages of the pools: granted, and the sum of where they are.
fn pool(report: &Value) -> (u64, u64) {
    let count = |name: &str| report["counters"][name].as_u64().unwrap();
    let places = [
        "pool_free",
        "pool_posted",
        "pool_leased",
        "pool_quarantined",
    ];
    (
        count("pool_granted"),
        places.iter().map(|place| count(place)).sum(),
    )
}

#[test]
fn a_killed_frontend_is_followed_by_another_that_connects_and_the_backend_lives() {
    let stage = Stage::new();
    let backend = stage.backend();
    let mut frontend = stage.frontend();
    let first = stage.wait_for_traffic(1);
    let descriptors = (backend.descriptors(), frontend.descriptors());
    for _ in 0..restarts() {
        frontend.kill();
        frontend = stage.frontend();
        stage.wait_for_traffic(1);
        stage.wait_for_pool(&first);
    }
    backend.wait_for_descriptors(descriptors.0);
    frontend.wait_for_descriptors(descriptors.1);
    let panics = backend.errors().matches("panicked").count();
    assert_eq!(panics, 0, "{}", backend.errors());
}

#[test]
fn a_signal_ends_either_end_in_order() {
    let stage = Stage::new();
    let mut backend = stage.backend();
    let mut frontend = stage.frontend();
    stage.wait_for_traffic(1);
    assert_eq!(frontend.terminate(), Some(0), "{}", frontend.errors());
    assert!(stats(&stage.socket).is_none(), "its socket is still there");
    let mut frontend = stage.frontend();
    stage.wait_for_traffic(1);
    // What was under way when the first frontend ended is missing: exit code 3 says so.
    let code = backend.terminate();
    assert!(
        matches!(code, Some(0 | 3)),
        "{code:?}: {}",
        backend.errors()
    );
    assert_eq!(frontend.terminate(), Some(0), "{}", frontend.errors());
}

#[test]
fn a_killed_backend_is_noticed_said_once_and_connected_to_again_by_the_same_frontend() {
    let stage = Stage::new();
    let mut backend = stage.backend();
    let frontend = stage.frontend();
    let first = stage.wait_for_traffic(1);
    let descriptors = frontend.descriptors();
    for round in 1..=restarts() {
        backend.kill();
        backend = stage.backend();
        let report = stage.wait_for_traffic(round + 1);
        stage.wait_for_pool(&first);
        assert_eq!(report["pid"], first["pid"], "the frontend did not live");
    }
    frontend.wait_for_descriptors(descriptors);
    let said = frontend.errors().matches("reconnecting").count() as u64;
    assert_eq!(
        said,
        restarts(),
        "said once for each:\n{}",
        frontend.errors()
    );
}
