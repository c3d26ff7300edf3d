//! Captures and traces of a running driver.

use std::io::Read;
use std::process::Stdio;

use netfront_tests::until;
use pcap_file::pcap::PcapReader;
use rustix::process::{kill_process, Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::driver::{World, FRAME};

/// The packets of a pcap file, as bytes kept and bytes there were.
fn lengths(bytes: &[u8]) -> Vec<(usize, u32)> {
    let mut reader = PcapReader::new(bytes).unwrap();
    let mut lengths = Vec::new();
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.unwrap();
        lengths.push((packet.data.len(), packet.orig_len));
    }
    lengths
}

#[test]
fn a_capture_of_a_running_driver_goes_to_a_file_or_through_a_pipe() {
    let world = World::new(&[]);
    let file = world.path("out.pcap");
    let path = file.to_str().unwrap();
    let arguments = [
        "capture",
        "--write",
        path,
        "--count",
        "200",
        "--snaplen",
        "60",
        "--json",
    ];
    let report = world.json(&arguments);
    assert_eq!(
        (&report["recorded"], &report["dropped"]),
        (&200.into(), &0.into())
    );
    let found = lengths(&std::fs::read(&file).unwrap());
    assert_eq!(found, vec![(60, FRAME as u32); 200]);

    let output = world.command(&["capture", "--count", "50"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lengths(&output.stdout), vec![(FRAME, FRAME as u32); 50]);
    assert_eq!(world.ask(r#"{"command":"stats"}"#)["capturing"], false);
}

#[test]
fn a_capture_has_both_directions_ends_at_a_signal_and_one_runs_at_a_time() {
    let world = World::new(&[]);
    let file = world.path("out.pcap");
    let path = file.to_str().unwrap();
    let mut capture = world
        .prepare(&["capture", "-w", path, "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("some packets", || {
        std::fs::metadata(&file).is_ok_and(|found| found.len() > 100_000)
    });
    let second = world.command(&["capture", "-w", "/dev/null"]);
    assert!(!second.status.success());
    let errors = String::from_utf8(second.stderr).unwrap();
    assert!(errors.contains("another capture"), "{errors}");
    kill_process(Pid::from_child(&capture), Signal::INT).unwrap();
    let mut text = String::new();
    let stdout = capture.stdout.as_mut().unwrap();
    stdout.read_to_string(&mut text).unwrap();
    assert!(capture.wait().unwrap().success());
    let report: Value = serde_json::from_str(&text).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(report["recorded"], lengths(&bytes).len());
    // The echo swaps the addresses.
    let mut reader = PcapReader::new(&bytes[..]).unwrap();
    let mut to = std::collections::BTreeSet::new();
    while let Some(packet) = reader.next_raw_packet() {
        to.insert(packet.unwrap().data[..6].to_vec());
    }
    assert_eq!(to.len(), 2, "{to:?}");
}

#[test]
fn a_capture_whose_client_is_killed_ends() {
    let world = World::new(&[]);
    let mut capture = world
        .prepare(&["capture", "-w", "/dev/null"])
        .spawn()
        .unwrap();
    let capturing = || world.ask(r#"{"command":"stats"}"#)["capturing"] == true;
    until("the capture", capturing);
    capture.kill().unwrap();
    capture.wait().unwrap();
    until("its end", || !capturing());
}

#[test]
fn a_capture_from_the_start_is_whole_in_the_end() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("out.pcap");
    let mut world = World::new(&["--capture", &format!("{},100", file.display())]);
    world.text(&["stop"]);
    assert!(world.driver.0.wait().unwrap().success());
    let found = lengths(&std::fs::read(&file).unwrap());
    assert!(found.len() > 1);
    assert!(found.iter().all(|&lengths| lengths == (100, FRAME as u32)));
}

#[test]
fn a_trace_has_a_line_for_each_request_response_and_event() {
    let world = World::new(&[]);
    let output = world.command(&["trace", "--count", "500", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 500);
    let found = |ring: &str, what: &str| {
        let is = |line: &&Value| line["ring"] == ring && line["what"] == what;
        lines
            .iter()
            .find(is)
            .unwrap_or_else(|| panic!("{ring} {what}: {text}"))
    };
    for (ring, what) in [("rx", "request"), ("rx", "event")] {
        found(ring, what);
    }
    let response = found("rx", "response");
    assert_eq!(
        (&response["size"], &response["status"]),
        (&FRAME.into(), &"okay".into())
    );
    assert!(response["gref"].is_u64(), "{response}");
    // The answer has the id of what was asked.
    let request = found("tx", "request");
    assert_eq!(request["size"], FRAME);
    let answer = |line: &&Value| {
        line["ring"] == "tx" && line["what"] == "response" && line["id"] == request["id"]
    };
    assert_eq!(lines.iter().find(answer).unwrap()["status"], "okay");

    let text = world.text(&["trace", "--count", "5"]);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text
        .lines()
        .all(|line| line.contains("x re") || line.contains("x ev") || line.contains("x no")));
}

#[test]
fn a_capture_that_is_refused_leaves_the_file_as_it_was() {
    let world = World::new(&[]);
    let first = world.path("first.pcap");
    let mut capture = world
        .prepare(&["capture", "-w", first.to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the capture", || {
        world.ask(r#"{"command":"stats"}"#)["capturing"] == true
    });
    let (kept, new) = (world.path("kept"), world.path("new"));
    std::fs::write(&kept, "what was there").unwrap();
    for path in [&kept, &new] {
        let refused = world.command(&["capture", "-w", path.to_str().unwrap()]);
        assert!(!refused.status.success(), "{refused:?}");
    }
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "what was there");
    assert!(!new.exists(), "nothing was recorded into it");
    kill_process(Pid::from_child(&capture), Signal::INT).unwrap();
    assert!(capture.wait().unwrap().success());
    // One that is not refused begins with an empty file, however long the old one was.
    std::fs::write(&kept, vec![7; 1 << 20]).unwrap();
    world.text(&["capture", "-w", kept.to_str().unwrap(), "--count", "3"]);
    assert_eq!(lengths(&std::fs::read(&kept).unwrap()).len(), 3);
}

#[test]
fn a_driver_that_stops_completes_what_is_recorded_and_says_so() {
    let mut world = World::new(&[]);
    let file = world.path("out.pcap");
    let path = file.to_str().unwrap();
    let start = |words: &[&str]| {
        let mut command = world.prepare(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let capture = start(&["capture", "-w", path, "--json"]);
    let lines = world.path("lines");
    let trace = start(&["trace", "-w", lines.to_str().unwrap()]);
    for what in ["capturing", "tracing"] {
        until(what, || world.ask(r#"{"command":"stats"}"#)[what] == true);
    }
    until("some packets", || {
        std::fs::metadata(&file).is_ok_and(|found| found.len() > 10_000)
    });
    world.text(&["stop"]);
    assert!(world.driver.0.wait().unwrap().success());
    let capture = capture.wait_with_output().unwrap();
    assert!(capture.status.success(), "{capture:?}");
    let report: Value = serde_json::from_slice(&capture.stdout).unwrap();
    assert_eq!(report["driver_stopped"], true);
    let found = lengths(&std::fs::read(&file).unwrap());
    assert_eq!(report["recorded"], found.len());
    let trace = trace.wait_with_output().unwrap();
    assert!(trace.status.success(), "{trace:?}");
    let text = String::from_utf8(trace.stdout).unwrap();
    assert!(text.starts_with("the driver stopped: "), "{text}");
    assert!(std::fs::read_to_string(&lines).unwrap().ends_with('\n'));
}

#[test]
fn a_reader_that_sleeps_does_not_hold_up_a_driver_that_stops() {
    let mut world = World::new(&[]);
    // Nobody reads it.
    let mut capture = world
        .prepare(&["capture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the capture", || {
        world.ask(r#"{"command":"stats"}"#)["capturing"] == true
    });
    let before = world.received();
    until("more than a pipe holds", || world.received() > before + 500);
    world.text(&["stop"]);
    until("the end of the driver", || {
        world.driver.0.try_wait().unwrap().is_some()
    });
    capture.kill().unwrap();
    capture.wait().unwrap();
}
