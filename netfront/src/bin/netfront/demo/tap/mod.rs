//! `netfront demo --tap`: the kernel's own TCP/IP on both sides of the driver.
//!
//! Two network namespaces with a TAP each; between them the frontend, a simulated Xen and the backend, each a
//! process of its own. Everything that is claimed is checked: pings, sums of a transfer both ways, the kernel's
//! byte counts, and a capture packet by packet.

mod capture;
mod namespaces;
mod transfer;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use super::child::Child;
use crate::args::Demo;
use crate::control;
use crate::failure::Failure;
use crate::ground::{respawn, start_simulated_xen, Guarded};
use crate::output::{say, table};
use namespaces::Namespaces;

/// The frontend's TAP and address, in the first namespace.
pub const FRONT: (&str, &str) = ("xn0", "10.77.77.1");
/// The backend's TAP and address, in the second.
pub const BACK: (&str, &str) = ("vif1.0", "10.77.77.2");
/// Pings that must all be answered.
const PINGS: u32 = 100;

/// One thing that was checked.
struct Check {
    what: &'static str,
    ok: bool,
    seen: String,
}

/// Runs the demo.
pub fn demo(args: &Demo) -> Result<(), Failure> {
    needed(&["ip", "ping", "tcpdump"])?;
    let directory = tempfile::tempdir().map_err(Failure::io("creating a temporary directory"))?;
    let stage = Stage::set(directory.path())?;
    let mut checks = vec![paced(&stage)?];
    checks.extend(traffic(&stage, args)?);
    let ok = checks.iter().all(|check| check.ok);
    if args.json {
        let rows: Vec<Value> = checks
            .iter()
            .map(|check| json!({ "what": check.what, "ok": check.ok, "seen": check.seen }))
            .collect();
        say!("{:#}", json!({ "schema": 1, "ok": ok, "checks": rows }));
    } else {
        let rows: Vec<Vec<String>> = checks
            .iter()
            .map(|check| {
                let verdict = if check.ok { "ok" } else { "FAILED" };
                vec![
                    check.what.to_owned(),
                    verdict.to_owned(),
                    check.seen.clone(),
                ]
            })
            .collect();
        say!("{}", table(&["check", "is", "seen"], &rows));
    }
    if ok {
        Ok(())
    } else {
        Err(Failure::Verdict(
            "not everything is as it must be: see above".into(),
        ))
    }
}

/// Says which programs are missing, and what they come in.
fn needed(programs: &[&str]) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotHere(
            "network namespaces and TAPs need root: use sudo".into(),
        ));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> = programs
        .iter()
        .filter(|name| !std::env::split_paths(&path).any(|dir| dir.join(name).exists()))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::NotHere(format!(
        "no {} found: apt-get install iproute2 iputils-ping tcpdump",
        missing.join(", ")
    )))
}

/// Both namespaces, the simulated Xen and the backend.
struct Stage {
    names: Namespaces,
    socket: PathBuf,
    directory: PathBuf,
    _backend: Child,
    _xen: Guarded,
}

impl Stage {
    fn set(directory: &Path) -> Result<Self, Failure> {
        let names = Namespaces::create()?;
        let socket = directory.join("xen");
        let xen = start_simulated_xen(&socket)?;
        let path = socket.to_string_lossy();
        let mut backend = Child::start(
            "backend",
            &[
                "-q",
                "demo-back",
                "--sim",
                &path,
                "--tap",
                BACK.0,
                "--netns",
                &names.back,
                "--mac",
                "00:16:3e:00:00:01",
            ],
        )?;
        backend.wait_for("ready", |_| {})?;
        names.address(&names.back, BACK.0, BACK.1)?;
        Ok(Self {
            names,
            socket: socket.clone(),
            directory: directory.to_owned(),
            _backend: backend,
            _xen: xen,
        })
    }

    /// Starts a frontend and waits until the other side answers.
    fn frontend(&self, more: &[&str]) -> Result<Frontend, Failure> {
        let control = self.directory.join("control");
        let (socket, path) = (self.socket.to_string_lossy(), control.to_string_lossy());
        let mut args = vec![
            "-q",
            "run",
            "--sim",
            &socket,
            "--tap",
            FRONT.0,
            "--netns",
            &self.names.front,
            "--control",
            &path,
        ];
        args.extend(more);
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let process = respawn(&args, Stdio::null(), Stdio::null())?;
        let frontend = Frontend { process, control };
        let end = Instant::now() + Duration::from_secs(15);
        while frontend.stats().is_err() {
            if Instant::now() > end {
                return Err(Failure::Verdict(
                    "the frontend did not start within 15 s".into(),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.names.address(&self.names.front, FRONT.0, FRONT.1)?;
        while !self.ping(1)?.contains(" 0% packet loss") {
            if Instant::now() > end {
                return Err(Failure::Verdict("no ping was answered within 15 s".into()));
            }
        }
        Ok(frontend)
    }

    fn ping(&self, count: u32) -> Result<String, Failure> {
        let count = count.to_string();
        let mut command = self.names.inside(&self.names.front, "ping");
        command.args(["-q", "-n", "-c", &count, "-i", "0.01", "-W", "2", BACK.1]);
        output(&mut command)
    }
}

/// A frontend in service.
struct Frontend {
    process: Guarded,
    control: PathBuf,
}

impl Frontend {
    fn stats(&self) -> std::io::Result<Value> {
        control::ask(&self.control, &json!({ "command": "stats" }))
    }

    /// Ends it as an administrator would, and waits for it.
    fn finish(mut self) -> Result<(), Failure> {
        let pid = rustix::process::Pid::from_child(&self.process.0);
        let signal = rustix::process::Signal::TERM;
        let _ = rustix::process::kill_process(pid, signal);
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            match self.process.0.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Failure::Verdict(format!(
                        "the frontend ended with {status}"
                    )))
                }
                _ if Instant::now() > end => {
                    return Err(Failure::Verdict(
                        "the frontend did not end within 15 s".into(),
                    ))
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

/// Runs a program and returns what it prints, whatever its exit code.
fn output(command: &mut Command) -> Result<String, Failure> {
    let name = format!("running {:?}", command.get_program());
    let output = command.output().map_err(Failure::io(name))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr))
}

/// 1000 paced packets, captured before the backend and behind the frontend.
fn paced(stage: &Stage) -> Result<Check, Failure> {
    let behind = stage.directory.join("behind.pcap");
    let frontend = stage.frontend(&["--capture", &behind.to_string_lossy()])?;
    let before = stage.directory.join("before.pcap");
    capture::send_paced(&stage.names, &before)?;
    frontend.finish()?;
    let (ok, seen) = capture::compare(&before, &behind)?;
    Ok(Check {
        what: "1000 paced packets, captured on both sides",
        ok,
        seen,
    })
}

/// Pings and a transfer each way, and what the kernel counted meanwhile.
fn traffic(stage: &Stage, args: &Demo) -> Result<Vec<Check>, Failure> {
    let frontend = stage.frontend(&[])?;
    let pings = stage.ping(PINGS)?;
    let mut checks = vec![Check {
        what: "ping",
        ok: pings.contains(" 0% packet loss"),
        seen: pings
            .lines()
            .filter(|line| line.contains("loss"))
            .collect::<String>(),
    }];
    for (what, from, to, address) in [
        (
            "transfer to the guest",
            &stage.names.back,
            &stage.names.front,
            FRONT.1,
        ),
        (
            "transfer from the guest",
            &stage.names.front,
            &stage.names.back,
            BACK.1,
        ),
    ] {
        let done = transfer::run(from, to, address, args.mib, !args.json)?;
        checks.push(Check {
            what,
            ok: done.sent == done.received,
            seen: done.to_string(),
        });
    }
    // Late acknowledgements would be in one count and not yet in the other.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let counts = counts(stage, &frontend)?;
        let ok = counts.iter().all(|(_, kernel, ours)| kernel == ours);
        if ok || Instant::now() > end {
            let seen = counts
                .iter()
                .map(|(name, kernel, ours)| format!("{name} {kernel} = {ours}"))
                .collect::<Vec<_>>()
                .join(", ");
            checks.push(Check {
                what: "ip -s link and netfront stats",
                ok,
                seen,
            });
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    frontend.finish()?;
    Ok(checks)
}

/// What the kernel counted on the frontend's TAP beside what the frontend counted.
fn counts(stage: &Stage, frontend: &Frontend) -> Result<Vec<(&'static str, u64, u64)>, Failure> {
    let mut command = Command::new("ip");
    command.args([
        "-n",
        &stage.names.front,
        "-s",
        "-j",
        "link",
        "show",
        "dev",
        FRONT.0,
    ]);
    let text = output(&mut command)?;
    let link: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::Verdict(format!("ip printed {text:?}: {error}")))?;
    let stats = frontend
        .stats()
        .map_err(Failure::io("asking the frontend"))?;
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let kernel = |direction: &str, key: &str| number(&link[0]["stats64"][direction][key]);
    let ours = |key: &str| number(&stats["counters"][key]);
    Ok(vec![
        // Received by the kernel is what we wrote.
        ("rx bytes", kernel("rx", "bytes"), ours("rx_bytes")),
        ("rx packets", kernel("rx", "packets"), ours("rx_packets")),
        ("tx bytes", kernel("tx", "bytes"), ours("tx_bytes")),
        ("tx packets", kernel("tx", "packets"), ours("tx_packets")),
    ])
}
