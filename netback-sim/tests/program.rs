//! The program, from outside: what it prints, how it ends, and the simulated Xen that it starts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{until, Front, FRONT};
use hypervisor::Domain;
use netback_sim::traffic::{Generator, Sizes, Verifier};
use netfront_tests::skipped;
use xen_ring::Offload;

const PROGRAM: &str = env!("CARGO_BIN_EXE_netback-sim");

/// A program that is told to end when the test does.
struct Serving(Option<Child>);

impl Serving {
    fn start(socket: &Path, more: &[&str]) -> Serving {
        let mut command = Command::new(PROGRAM);
        command
            .args(["serve", "--json", "--quiet", "--sim"])
            .arg(socket)
            .args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let serving = Serving(Some(command.spawn().expect("the program")));
        // It starts the simulated Xen by itself.
        until("the simulated Xen", || {
            hypervisor::sim::is_running(socket).unwrap()
        });
        serving
    }

    fn signal(&self) {
        let child = self.0.as_ref().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    fn end(mut self) -> (Option<i32>, serde_json::Value, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.0.take().unwrap().wait_with_output().unwrap();
        let report = serde_json::from_slice(&stdout).unwrap_or_default();
        (status.code(), report, String::from_utf8(stderr).unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A simulated Xen as a process that ends with the test.
struct Xen {
    child: Child,
    dir: tempfile::TempDir,
}

impl Xen {
    fn start() -> Xen {
        let dir = tempfile::TempDir::new().unwrap();
        let socket = dir.path().join("xen");
        let child = Command::new(PROGRAM)
            .args(["simulated-xen", "--sim"])
            .arg(&socket)
            .spawn()
            .expect("the program");
        until("the simulated Xen", || {
            hypervisor::sim::is_running(&socket).unwrap()
        });
        Xen { child, dir }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("xen")
    }

    fn guest(&self) -> Domain {
        let mut found = None;
        until("the guest's domain", || {
            found = Domain::simulated(&self.socket(), FRONT).ok();
            found.is_some()
        });
        found.unwrap()
    }
}

impl Drop for Xen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_guest_in_another_process_is_served_and_the_report_says_so() {
    let xen = Xen::start();
    let serving = Serving::start(&xen.socket(), &["--sink"]);
    let mut front = Front::connect(xen.guest());
    let mut generator = Generator::new(Sizes::Mix, 1).unwrap();
    let mut buffer = vec![0; 2048];
    for _ in 0..100 {
        let len = generator.fill(&mut buffer).unwrap();
        until("room", || {
            front.reap();
            front.send(&buffer[..len], 1, &Offload::default())
        });
    }
    until("answers", || front.settled());
    serving.signal();
    let (code, report, stderr) = serving.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["verified"]["frames"], 100);
    assert_eq!(report["counters"]["tx_packets"], 100);
    assert_eq!(report["fault"], serde_json::Value::Null);
}

#[test]
fn the_program_ends_by_itself_after_the_frames_asked_for() {
    let xen = Xen::start();
    let more = ["--generate", "1500", "--count", "50", "--flows", "2"];
    let serving = Serving::start(&xen.socket(), &more);
    let mut front = Front::connect(xen.guest());
    front.post(Front::slots());
    let mut verifier = Verifier::new();
    until("50 frames", || {
        for (frame, _) in front.receive() {
            verifier.check(&[&frame]);
        }
        verifier.counts().frames == 50
    });
    assert!(verifier.counts().is_clean());
    let (code, report, stderr) = serving.end();
    assert_eq!(
        (code, &report["counters"]["rx_packets"]),
        (Some(0), &50.into()),
        "{stderr}"
    );
}

#[test]
fn damaged_frames_and_a_broken_guest_have_exit_codes_of_their_own() {
    let xen = Xen::start();
    let serving = Serving::start(&xen.socket(), &["--sink"]);
    let mut front = Front::connect(xen.guest());
    let mut frame = vec![0; 100];
    Generator::new(Sizes::Fixed(100), 1)
        .unwrap()
        .fill(&mut frame)
        .unwrap();
    frame[80] ^= 1;
    assert!(front.send(&frame, 1, &Offload::default()));
    until("answers", || front.settled());
    serving.signal();
    assert_eq!(serving.end().0, Some(3));
    let guest = front.domain.clone();
    drop(front);

    let serving = Serving::start(&xen.socket(), &["--sink"]);
    let mut keys = common::Keys::new(&guest);
    until("a new backend", || {
        keys.back_state() == netback_sim::State::InitWait
    });
    keys.state(netback_sim::State::Initialising);
    let mut front = Front::connect(guest);
    front
        .tx
        .page()
        .store(0, 0x7000_0000, std::sync::atomic::Ordering::Release);
    let _ = front.tx.publish();
    front.events.notify(front.tx_port).unwrap();
    front.keys.wait(netback_sim::State::Closed);
    serving.signal();
    let (code, report, _) = serving.end();
    assert_eq!(code, Some(4));
    assert!(report["fault"].as_str().unwrap().contains("producer index"));
}

/// The exit code and the complaint of a program that ends by itself.
fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn wrong_arguments_and_impossible_sockets_are_told_apart() {
    assert_eq!(run(&["serve"]).0, Some(2));
    assert_eq!(run(&["serve", "--sim", "s", "--generate", "5"]).0, Some(2));
    let xen = Xen::start();
    let socket = xen.socket();
    let socket = socket.to_str().unwrap();
    let (code, stderr) = run(&["serve", "--sim", socket, "--replay", "/no/such/file.pcap"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/no/such/file.pcap"), "{stderr}");
    let (code, stderr) = run(&["serve", "--sim", "/proc/no-such/socket"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("simulated-xen --sim /proc/no-such/socket"),
        "{stderr}"
    );
}

#[test]
fn off_xen_the_list_of_domains_is_refused_with_what_is_missing() {
    if Path::new("/proc/xen").exists() || Path::new("/dev/xen").exists() {
        return skipped::not_on_this_machine("it is a domain of Xen");
    }
    let (code, stderr) = run(&["domains", "--json"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("no Xen domain"), "{stderr}");
}

/// The simulated Xen that a `serve` has started on this socket.
fn started_xen(socket: &Path) -> Option<rustix::process::Pid> {
    let wanted = ["simulated-xen", socket.to_str().unwrap()];
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|process| {
            let line = std::fs::read_to_string(process.path().join("cmdline")).ok()?;
            let words: Vec<&str> = line.split('\0').collect();
            let pid = process.file_name().to_str()?.parse().ok()?;
            let found = wanted.iter().all(|word| words.contains(word));
            rustix::process::Pid::from_raw(pid).filter(|_| found)
        })
}

#[test]
fn who_kills_the_backend_by_its_name_does_not_kill_the_simulated_xen() {
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("xen");
    let serving = Serving::start(&socket, &[]);
    let xen = started_xen(&socket).expect("a simulated Xen");
    let name = |pid: rustix::process::Pid| {
        let path = format!("/proc/{}/comm", pid.as_raw_nonzero());
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    };
    // What `pkill` and `killall` compare with.
    until("its own name", || name(xen) == "simulated-xen");
    let child = serving.0.as_ref().unwrap();
    assert_eq!(name(rustix::process::Pid::from_child(child)), "netback-sim");
    drop(serving);
    assert!(hypervisor::sim::is_running(&socket).unwrap());
    rustix::process::kill_process(xen, rustix::process::Signal::TERM).unwrap();
}

#[test]
fn readers_that_have_gone_are_no_failure() {
    let xen = Xen::start();
    for json in [false, true] {
        let socket = xen.socket();
        let mut arguments = vec![
            "serve",
            "--duration",
            "1",
            "--sim",
            socket.to_str().unwrap(),
        ];
        arguments.extend(json.then_some("--json"));
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}
