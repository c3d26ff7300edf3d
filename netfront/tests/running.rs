//! A driver that runs is asked and told, as a user does: the program, on a simulated Xen.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::{DomId, Domain};
use netback_sim::traffic::Generator;
use netback_sim::{peer, Backend, BackendHandle, Config};
use pcap_file::pcap::PcapReader;
use rustix::process::{kill_process, Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use common::{until, BACK, FRONT};

/// Bytes of a frame that the backend sends.
const FRAME: usize = 600;

/// A simulated Xen with a backend that sends frames, and the driver that sends them back.
struct World {
    driver: Child,
    _backend: BackendHandle,
    back: Domain,
    _server: Running,
    dir: TempDir,
}

impl World {
    fn new(arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("xen");
        let server = server::spawn(&socket, Options::new()).unwrap();
        let back = Domain::simulated(&socket, BACK).unwrap();
        let generator = Generator::new(FRAME.to_string().parse().unwrap(), 1).unwrap();
        let pace = peer::Pace {
            rate: 5000,
            burst: 10,
            count: 0,
        };
        let source = peer::Source::new(generator, pace);
        let backend = Backend::start(&back, Config::new(FRONT, source)).unwrap();
        let driver = netfront()
            .args(["-q", "run", "--echo", "--sim"])
            .arg(&socket)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let world = Self {
            driver,
            _backend: backend,
            back,
            _server: server,
            dir,
        };
        until("packets", || {
            let output = world.command(&["stats", "--json"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            report["counters"]["tx_packets"].as_u64() > Some(0)
        });
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = netfront();
        command.arg("-q").args(arguments);
        command.arg("--sim").arg(self.path("xen"));
        command
    }

    fn command(&self, arguments: &[&str]) -> Output {
        self.prepare(arguments).output().unwrap()
    }

    /// What a command prints that must succeed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// One line to the socket, and the line that comes back.
    fn ask(&self, line: &str) -> Value {
        let mut stream = UnixStream::connect(self.path("xen.vif0-control")).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn received(&self) -> u64 {
        let report = self.ask(r#"{"command":"stats"}"#);
        report["counters"]["rx_packets"].as_u64().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn netfront() -> Command {
    Command::new(env!("CARGO_BIN_EXE_netfront"))
}

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
    assert_eq!(vif["process"]["pid"], world.driver.id());
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
    let sink = Config {
        handle: 1,
        ..Config::new(DomId(2), peer::Sink::blind())
    };
    let _backend = Backend::start(&world.back, sink).unwrap();
    let second = netfront()
        .args(["-q", "run", "--echo", "--domid", "2", "--vif", "1", "--sim"])
        .arg(world.path("xen"))
        .spawn()
        .unwrap();
    let mut second = Guard(second);
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
    world.text(&["stop", "--vif", "1"]);
    assert!(second.0.wait().unwrap().success());
}

/// Killed when the test is over, however it ends.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_paused_driver_moves_no_packet_until_it_is_resumed() {
    let world = World::new(&[]);
    let paused = world.json(&["pause", "--json"]);
    assert_eq!(
        (&paused["ok"], &paused["paused"]),
        (&true.into(), &true.into())
    );
    // A batch may have been on its way.
    let mut last = world.received();
    until("no more packets", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = world.received();
        std::mem::replace(&mut last, now) == now
    });
    let status = world.json(&["status", "--json"]);
    assert_eq!(status["vifs"][0]["paused"], true);
    assert_eq!(status["vifs"][0]["store"]["backend"], "Connected (4)");
    // Neither an event nor a kick moves a packet now.
    world.text(&["kick"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(world.received(), last);
    world.text(&["resume"]);
    until("packets", || world.received() > last + 300);
}

#[test]
fn a_kick_notifies_the_backend_at_once() {
    let world = World::new(&[]);
    world.text(&["pause"]);
    let sent = || {
        let report = world.ask(r#"{"command":"stats"}"#);
        report["counters"]["notify_sent"].as_u64().unwrap()
    };
    let mut before = sent();
    until("silence", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = sent();
        std::mem::replace(&mut before, now) == now
    });
    world.text(&["kick"]);
    // Both event channels.
    until("the kick", || sent() == before + 2);
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
    assert!(world.driver.wait().unwrap().success());
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
fn whoever_asks_nonsense_is_told_what_may_be_asked() {
    let world = World::new(&[]);
    for line in [
        "",
        "nonsense",
        "{}",
        r#"{"command":"format"}"#,
        r#"{"command":7}"#,
    ] {
        let answer = world.ask(line);
        assert_eq!(answer["schema"], 1, "{line}: {answer}");
        assert!(answer["error"].is_string(), "{line}: {answer}");
        for name in [
            "stats", "status", "kick", "pause", "resume", "capture", "trace", "stop",
        ] {
            assert!(answer["known"][name].is_string(), "{name}: {answer}");
        }
    }
    let fileless = world.ask(r#"{"command":"capture"}"#);
    assert!(fileless["error"].as_str().unwrap().contains("file"));
    // And it goes on.
    let before = world.received();
    until("packets", || world.received() > before);
}

#[test]
fn stop_ends_the_driver_in_order_and_later_commands_say_that_none_runs() {
    let mut world = World::new(&[]);
    world.text(&["stop"]);
    assert!(world.driver.wait().unwrap().success());
    for command in ["status", "top", "kick", "capture"] {
        let output = world.command(&[command]);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("no netfront runs here"), "{errors}");
    }
    let named = world.command(&["status", "--vif", "0"]);
    assert_eq!(named.status.code(), Some(1), "{named:?}");
}

#[test]
fn prometheus_gets_metrics_over_http_and_from_a_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("vif0.prom");
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (text, path) = (address.to_string(), file.to_str().unwrap());
    let mut world = World::new(&["--metrics", &text, "--metrics-file", path]);
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
    assert!(world.driver.wait().unwrap().success());
    assert!(!file.exists(), "old figures would be taken for new ones");
}
