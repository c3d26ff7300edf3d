//! Examples as processes of their own, and what they are guests of.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::{DomId, Domain};
use netback_sim::frame::{Frame, FrameBurst};
use netback_sim::{Backend, BackendHandle, Config, Peer};
use netfront::Offload;
use tempfile::TempDir;

use super::{until, BACK, FRONT};

/// `cargo test` builds the examples beside the tests: target/debug/examples, target/debug/deps.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    let path = built.join("examples").join(name);
    let hint = "run `cargo build -p netfront --examples` first, or `cargo test` without a choice of targets";
    assert!(path.is_file(), "{} is not there: {hint}", path.display());
    path
}

/// A simulated Xen whose driver domain is in the test, and whose guest is the example.
pub struct Stage {
    pub socket: PathBuf,
    pub back: Domain,
    pub dir: TempDir,
    _server: Running,
}

impl Stage {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("xen");
        let server = server::spawn(&socket, Options::new()).unwrap();
        Self {
            back: Domain::simulated(&socket, BACK).unwrap(),
            socket,
            dir,
            _server: server,
        }
    }

    /// A backend for the guest's vif of this number.
    pub fn backend(&self, vif: u32, peer: impl Peer + 'static) -> BackendHandle {
        self.backend_for(FRONT, vif, peer)
    }

    /// The same for a guest of another number.
    pub fn backend_for(&self, guest: DomId, vif: u32, peer: impl Peer + 'static) -> BackendHandle {
        let config = Config {
            handle: vif,
            ..Config::new(guest, peer)
        };
        Backend::start(&self.back, config).unwrap()
    }
}

/// An example at work. It is ended when the test is over, however it ends.
pub struct Guest {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Guest {
    pub fn start(program: &Path, socket: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .arg("--sim")
            .arg(socket)
            .args(arguments)
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }

    /// Waits until it ends by itself, in order.
    pub fn finish(&mut self) {
        let mut status = None;
        until("the example to end", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer with two channels: frames for the guest, and frames from it.
pub struct Wire {
    pub to_guest: Receiver<Vec<u8>>,
    pub from_guest: Sender<Vec<u8>>,
}

impl Peer for Wire {
    fn receive(&mut self, frames: &mut [Frame<'_>], _reply: &mut FrameBurst) {
        for frame in frames {
            let _ = self.from_guest.send(frame.bytes.to_vec());
        }
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        while let Ok(frame) = self.to_guest.try_recv() {
            burst.push(&frame, Offload::default());
        }
    }

    fn due(&self) -> Option<std::time::Instant> {
        // No descriptor tells of the channel: it is looked at every millisecond.
        Some(std::time::Instant::now() + Duration::from_millis(1))
    }
}
