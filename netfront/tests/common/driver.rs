//! The program that drives a vif, as a user starts it and asks it, on a simulated Xen. Only for tests of the program:
//! they include this file.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use hypervisor::sim::server::Options;
use netback_sim::peer::{Pace, Source};
use netback_sim::traffic::{Generator, Sizes};
use netback_sim::{Backend, BackendHandle, Config};
use netfront_tests::stage::{source, Stage, FRONT};
use netfront_tests::{until, Guarded};
use serde_json::Value;

/// Bytes of a frame that the backend sends.
pub const FRAME: usize = 600;

pub fn netfront() -> Command {
    Command::new(env!("CARGO_BIN_EXE_netfront"))
}

/// A simulated Xen with a backend that sends frames, and the driver that sends them back.
pub struct World {
    pub driver: Guarded,
    backend: Option<BackendHandle>,
    pub stage: Stage,
}

impl World {
    /// With packets under way, by one queue: what a driver shows must not depend on the machine's processors.
    pub fn new(arguments: &[&str]) -> Self {
        let stage = Stage::new();
        let backend = stage.backend(0, source(&FRAME.to_string(), 5000, 0));
        Self::of(stage, backend, 1, arguments)
    }

    /// The same by so many queues, with frames of many flows: some for each queue.
    pub fn with_queues(queues: u16, arguments: &[&str]) -> Self {
        let stage = Stage::with(Options::new().grant_limit(4096));
        let generator = Generator::new(Sizes::Fixed(FRAME), 64).unwrap();
        let pace = Pace {
            rate: 5000,
            ..Pace::default()
        };
        let mut config = Config::new(FRONT, Source::new(generator, pace));
        config.features.multi_queue_max = queues;
        let backend = Backend::start(&stage.back, config).unwrap();
        Self::of(stage, backend, queues, arguments)
    }

    fn of(stage: Stage, backend: BackendHandle, queues: u16, arguments: &[&str]) -> Self {
        let driver = netfront()
            .args(["-q", "run", "--echo", "--queues"])
            .arg(queues.to_string())
            .arg("--sim")
            .arg(&stage.socket)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let world = Self {
            driver: Guarded(driver),
            backend: Some(backend),
            stage,
        };
        until("packets", || {
            let output = world.command(&["stats", "--json"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            report["counters"]["tx_packets"].as_u64() > Some(0)
        });
        world
    }

    /// The backend says goodbye, and no other one comes.
    pub fn end_backend(&mut self) {
        self.backend = None;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.stage.path(name)
    }

    pub fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = netfront();
        command.arg("-q").args(arguments);
        command.arg("--sim").arg(&self.stage.socket);
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        self.prepare(arguments).output().unwrap()
    }

    /// What a command prints that must succeed.
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// One line to the socket, and the line that comes back.
    pub fn ask(&self, line: &str) -> Value {
        let mut stream = UnixStream::connect(self.path("xen.vif0-control")).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    pub fn received(&self) -> u64 {
        let report = self.ask(r#"{"command":"stats"}"#);
        report["counters"]["rx_packets"].as_u64().unwrap()
    }
}
