//! A vif that a killed driver left connected, and what a driver says that took nothing over.

#![allow(clippy::unwrap_used)]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;

use netfront_tests::{program, serve, skipped, stats, wait_for, Process};
use serde_json::Value;

struct Stage {
    directory: tempfile::TempDir,
    backend: Process,
}

impl Stage {
    /// A simulated Xen with a backend.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("xen");
        let backend = serve(&socket, &["--sink"], &directory.path().join("back.log"));
        Self { directory, backend }
    }

    fn socket(&self) -> String {
        let socket = self.directory.path().join("xen");
        socket.to_str().unwrap().into()
    }

    /// A driver that is connected.
    fn driver(&self) -> Process {
        let socket = self.socket();
        let log = self.directory.path().join("front.log");
        let driver = Process::start("netfront", &["run", "--sim", &socket, "--echo"], &log);
        wait_for("the driver to connect", || {
            stats(Path::new(&socket)).filter(|stats| stats["connected"] == true)
        });
        driver
    }

    fn netfront(&self, command: &str, more: &[&str]) -> Output {
        let socket = self.socket();
        let mut netfront = Command::new(program("netfront"));
        netfront.args([command, "--sim", &socket]).args(more);
        netfront.output().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn reset_closes_what_a_killed_driver_left_and_nothing_that_lives() {
    let stage = Stage::new();
    let mut driver = stage.driver();
    let refused = stage.netfront("reset", &[]);
    assert_eq!(refused.status.code(), Some(69), "{}", said(&refused));
    assert!(
        said(&refused).contains("end it first"),
        "{}",
        said(&refused)
    );
    driver.kill();
    let reset = stage.netfront("reset", &["--json"]);
    assert_eq!(reset.status.code(), Some(0), "{}", said(&reset));
    let report: Value = serde_json::from_slice(&reset.stdout).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["backend"], "InitWait (2)", "{report:#}");
    // Free for the next one.
    stage.driver();
}

#[test]
fn a_driver_that_is_told_to_stop_and_cannot_say_goodbye_ends_with_a_code_that_is_not_tried_again() {
    let stage = Stage::new();
    let log = stage.directory.path().join("front.log");
    let socket = stage.socket();
    let words = ["run", "--sim", &socket, "--echo", "--deadline", "3"];
    for by_signal in [false, true] {
        let mut driver = Process::start("netfront", &words, &log);
        wait_for("the driver to connect", || {
            stats(Path::new(&socket)).filter(|stats| stats["connected"] == true)
        });
        stage.backend.signal(Signal::STOP);
        if !by_signal {
            let stop = stage.netfront("stop", &[]);
            assert_eq!(stop.status.code(), Some(0), "{}", said(&stop));
        }
        // The signal comes second in one case, and alone in the other.
        let code = driver.terminate();
        stage.backend.signal(Signal::CONT);
        assert_eq!(code, Some(76), "{}", driver.errors());
        assert!(
            driver.errors().contains("netfront reset"),
            "{}",
            driver.errors()
        );
    }
}

#[test]
fn who_may_not_use_the_socket_is_told_so_by_the_exit_code() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: to become somebody else needs root");
        return;
    }
    let stage = Stage::new();
    let _driver = stage.driver();
    let socket = stage.socket();
    let mut netfront = Command::new(program("netfront"));
    netfront
        .args(["stats", "--sim", &socket])
        .uid(65_534)
        .gid(65_534);
    let Ok(output) = netfront.output() else {
        eprintln!("SKIPPED: others may not start the program where it is");
        return;
    };
    assert_eq!(output.status.code(), Some(77), "{}", said(&output));
    assert!(said(&output).contains("root"), "{}", said(&output));
}

#[test]
fn a_driver_that_took_nothing_over_has_nothing_to_confirm() {
    let stage = Stage::new();
    let nobody = stage.netfront("confirm", &[]);
    assert_eq!(nobody.status.code(), Some(69), "{}", said(&nobody));
    let none = "no netfront runs here";
    assert!(said(&nobody).contains(none), "{}", said(&nobody));
    let named = stage.netfront("confirm", &["--vif", "0"]);
    assert_eq!(named.status.code(), Some(69), "{}", said(&named));
    assert!(said(&named).contains("--take-over"), "{}", said(&named));
    let _driver = stage.driver();
    let answer = stage.netfront("confirm", &[]);
    assert_eq!(answer.status.code(), Some(69));
    assert!(
        said(&answer).contains("nothing to confirm"),
        "{}",
        said(&answer)
    );
}

#[test]
fn where_the_kernel_has_no_vif_there_is_nothing_to_take_over() {
    if Path::new("/sys/bus/xen/devices/vif-0").exists() {
        return skipped::not_on_this_machine("the kernel has a vif 0");
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/net/tun").exists() {
        return skipped::not_on_this_machine("a TAP needs root and /dev/net/tun");
    }
    let stage = Stage::new();
    let refused = stage.netfront("run", &["--take-over"]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(
        said(&refused).contains("nothing to take over"),
        "{}",
        said(&refused)
    );
}

#[test]
fn off_xen_a_take_over_says_so_and_nothing_of_a_free_vif() {
    if Path::new("/proc/xen").exists() || Path::new("/sys/bus/xen").exists() {
        return skipped::not_on_this_machine("there is Xen");
    }
    let mut netfront = Command::new(program("netfront"));
    let refused = netfront.args(["run", "--take-over"]).output().unwrap();
    assert!(!refused.status.success());
    let said = said(&refused);
    assert!(said.contains("Xen"), "{said}");
    assert!(!said.contains("free vif"), "{said}");
}

#[test]
fn who_names_no_consumer_is_told_of_all_and_who_asks_a_driver_that_is_not_there_of_those_that_are()
{
    let mut netfront = Command::new(program("netfront"));
    let refused = netfront.arg("run").output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    for wanted in ["--tap <NAME>", "--echo", "--take-over"] {
        assert!(said(&refused).contains(wanted), "{}", said(&refused));
    }
    let stage = Stage::new();
    let nobody = stage.netfront("stats", &["--vif", "3"]);
    assert_eq!(nobody.status.code(), Some(69), "{}", said(&nobody));
    for wanted in [
        "no netfront runs here",
        "`netfront run`",
        "`netfront status`",
    ] {
        assert!(said(&nobody).contains(wanted), "{}", said(&nobody));
    }
}

#[test]
fn a_vif_on_the_simulated_xen_is_probed_with_a_class_for_each_finding() {
    let stage = Stage::new();
    let driver = stage.driver();
    let probe = stage.netfront("probe", &["--json"]);
    let report: Value = serde_json::from_slice(&probe.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let class = |what: &str| {
        let finding = findings.iter().find(|finding| finding["what"] == what);
        finding.map_or(Value::Null, |finding| finding["class"].clone())
    };
    assert_eq!(class("vif"), "ok", "{report:#}");
    assert_eq!(class("backend"), "ok", "{report:#}");
    assert_eq!(class("carrier"), "ok", "{report:#}");
    let code = probe.status.code().map(i64::from);
    assert_eq!(report["exit_code"].as_i64(), code);
    drop(driver);
}
