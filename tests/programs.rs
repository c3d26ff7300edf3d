//! The programs, as a user starts them.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use netfront_tests::{program, skipped};
use serde_json::Value;

fn netfront(args: &[&str]) -> Output {
    Command::new(program("netfront"))
        .args(args)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}\n{errors}"))
}

#[test]
fn the_demo_has_a_row_for_each_policy_and_loses_nothing() {
    for frames in ["64", "9000", "mix"] {
        let output = netfront(&["demo", "--seconds", "4", "--frames", frames, "--json"]);
        let report = json(&output);
        assert!(output.status.success(), "{frames}: {report:#}");
        let rows = report["rows"].as_array().unwrap();
        let names: Vec<_> = rows
            .iter()
            .map(|row| row["policy"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["pool", "per-packet", "copy-always", "no-recycle"]);
        for row in rows {
            assert!(row["packets"].as_u64().unwrap() > 0, "{row:#}");
            assert_eq!(
                (&row["lost"], &row["corrupt"]),
                (&0.into(), &0.into()),
                "{row:#}"
            );
        }
        assert_eq!(rows[0]["grants_per_packet"], 0.0, "{:#}", rows[0]);
        assert_eq!(rows[0]["allocations_per_packet"], 0.0, "{:#}", rows[0]);
        assert!(
            rows[0]["recycle_share"].as_f64().unwrap() > 0.99,
            "{:#}",
            rows[0]
        );
        assert!(
            rows[1]["grants_per_packet"].as_f64().unwrap() > 0.9,
            "{:#}",
            rows[1]
        );
    }
}

#[test]
fn the_kernels_own_tcp_ip_works_across_the_driver() {
    if !rustix::process::geteuid().is_root() {
        return skipped::not_on_this_machine("network namespaces need root");
    }
    let mib = std::env::var("TAP_MIB").unwrap_or("1024".into());
    let output = netfront(&["demo", "--tap", "--mib", &mib, "--json"]);
    let report = json(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["ok"], true, "{report:#}");
}

#[test]
fn off_xen_the_driver_says_so_and_probe_points_to_the_demo() {
    if std::path::Path::new("/sys/hypervisor/type").exists() {
        return skipped::not_on_this_machine("it is a guest of some hypervisor");
    }
    let probe = netfront(&["probe"]);
    assert_eq!(probe.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&probe.stderr).contains("netfront demo"));
    let run = netfront(&["run", "--echo"]);
    assert!(!run.status.success());
    assert!(
        String::from_utf8_lossy(&run.stderr).contains("Xen"),
        "{run:?}"
    );
}

#[test]
fn a_wrong_socket_is_refused_and_nothing_else_is_tried() {
    let run = netfront(&["run", "--sim", "/nonexistent/xen", "--echo"]);
    assert_eq!(run.status.code(), Some(69), "{run:?}");
    assert!(
        String::from_utf8_lossy(&run.stderr).contains("/nonexistent/xen"),
        "{run:?}"
    );
}
