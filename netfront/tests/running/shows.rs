//! What a running driver shows: status, counters, rates, metrics.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use hypervisor::DomId;
use netback_sim::peer;
use netfront_tests::{until, Guarded};
use rustix::process::{kill_process, Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::driver::{netfront, World};

#[test]
fn status_shows_both_ends_the_pool_and_the_process() {
    let world = World::new(&[]);
    let report = world.json(&["status", "--json"]);
    assert_eq!(report["schema"], 1);
    let vif = &report["vifs"][0];
    assert_eq!(vif["vif"], 0);
    assert_eq!(vif["store"]["frontend"], "Connected (4)");
    assert_eq!(vif["store"]["backend"], "Connected (4)");
    assert_eq!(vif["store"]["backend_domain"], 0);
    assert_eq!(vif["link"]["mtu"], 1500);
    assert_eq!(vif["queue"]["policy"], "pool");
    assert_eq!(vif["process"]["pid"], world.driver.0.id());
    assert!(vif["process"]["resident_bytes"].as_u64() > Some(0));
    let pages = |name: &str| vif["counters"][name].as_u64().unwrap();
    assert_eq!((pages("pool_granted"), pages("pool_grown")), (768, 0));
    assert_eq!(pages("pool_limit"), 736 + 256);
    let text = world.text(&["status"]);
    assert!(text.contains("frontend Connected (4), backend Connected (4) in domain 0"));
    assert!(text.contains("768 pages granted (3.0 MiB)"), "{text}");
}

#[test]
fn stats_are_printed_as_ethtool_does_and_explained() {
    let world = World::new(&[]);
    let text = world.text(&["stats"]);
    let line = |name: &str| {
        let start = format!("     {name}: ");
        text.lines().any(|line| line.starts_with(&start))
    };
    for name in ["rx_packets", "rx_drop_too_short", "hypervisor_grants"] {
        assert!(line(name), "{name}: {text}");
    }
    let explained = world.text(&["stats", "--explain"]);
    assert!(explained.contains("Packets received and delivered."));
    // Whatever is counted is explained.
    let names = text.lines().filter_map(|line| line.strip_prefix("     "));
    for name in names.filter_map(|line| line.split(':').next()) {
        assert!(
            explained
                .lines()
                .any(|line| line.split(' ').next() == Some(name)),
            "{name} is not explained"
        );
    }
}

#[test]
fn top_shows_rates_and_ends_at_a_signal() {
    let world = World::new(&[]);
    let table = world.json(&["top", "--interval", "0.5", "--count", "1", "--json"]);
    assert_eq!(
        (&table["schema"], &table["vifs"][0]["state"]),
        (&1.into(), &"up".into())
    );
    assert!(table["vifs"][0]["rx_packets_per_second"].as_f64() > Some(0.0));
    let text = world.text(&["top", "--interval", "0.2", "--count", "2"]);
    assert_eq!(
        text.lines()
            .filter(|line| line.contains("rx pkt/s"))
            .count(),
        2
    );

    let mut top = world
        .prepare(&["top", "--interval", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    top.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    kill_process(Pid::from_child(&top), Signal::INT).unwrap();
    assert!(top.wait().unwrap().success());
}

#[test]
fn every_driver_is_shown_and_one_that_is_told_must_be_named() {
    let world = World::new(&[]);
    let _backend = world.stage.backend_for(DomId(2), 1, peer::Sink::blind());
    let second = netfront()
        .args(["-q", "run", "--echo", "--domid", "2", "--vif", "1", "--sim"])
        .arg(world.path("xen"))
        .spawn()
        .unwrap();
    let mut second = Guarded(second);
    until("the second vif", || {
        let output = world.command(&["stats", "--vif", "1", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        report["connected"] == true
    });
    let numbers = |report: &Value| -> Vec<u64> {
        let vifs = report["vifs"].as_array().unwrap().iter();
        vifs.filter_map(|vif| vif["vif"].as_u64()).collect()
    };
    assert_eq!(numbers(&world.json(&["status", "--json"])), [0, 1]);
    let table = world.json(&["top", "--json", "--count", "1", "--interval", "0.2"]);
    assert_eq!(numbers(&table), [0, 1]);
    let unclear = world.command(&["kick"]);
    assert!(!unclear.status.success());
    let errors = String::from_utf8(unclear.stderr).unwrap();
    assert!(
        errors.contains("vifs 0, 1: say which with --vif"),
        "{errors}"
    );
    // Killed, it leaves its socket behind, and is no longer meant.
    second.0.kill().unwrap();
    second.0.wait().unwrap();
    assert!(world.path("xen.vif1-control").exists());
    world.text(&["kick"]);
}

#[test]
fn prometheus_gets_metrics_over_http_and_from_a_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("vif0.prom");
    let path = file.to_str().unwrap();
    let mut world = World::new(&["--metrics", "127.0.0.1:0", "--metrics-file", path]);
    let status = world.json(&["status", "--json"]);
    let told = status["vifs"][0]["metrics"].as_str().unwrap();
    assert!(world.text(&["status"]).contains(told), "{told}");
    let address = told.strip_prefix("http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    assert!(!address.ends_with(":0"), "{address}");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix("{vif=\"0\"} "))
            .and_then(|value| value.parse::<f64>().ok())
    };
    assert!(
        value(&answer, "netfront_rx_packets_total") > Some(0.0),
        "{answer}"
    );
    assert_eq!(value(&answer, "netfront_connected"), Some(1.0));
    assert!(value(
        &std::fs::read_to_string(&file).unwrap(),
        "netfront_pool_limit"
    )
    .is_some());
    world.text(&["stop"]);
    assert!(world.driver.0.wait().unwrap().success());
    assert!(!file.exists(), "old figures would be taken for new ones");
}
