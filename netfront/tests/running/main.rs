//! A driver that runs is asked and told, as a user does: the program, on a simulated Xen.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `shows` | status, counters, rates, metrics |
//! | `told` | kick, pause, resume, stop, and nonsense |
//! | `recordings` | captures and traces |
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;
mod recordings;
mod shows;
mod told;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::Domain;
use netback_sim::traffic::Generator;
use netback_sim::{peer, Backend, BackendHandle, Config};
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
