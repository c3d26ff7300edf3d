//! Examples as processes of their own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use netback_sim::frame::{Frame, FrameBurst};
use netback_sim::Peer;
use netfront::Offload;
use netfront_tests::Guarded;

/// `cargo test` builds the examples beside the tests: target/debug/examples, target/debug/deps.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    let path = built.join("examples").join(name);
    let hint = "run `cargo build -p netfront --examples` first, or `cargo test` without a choice of targets";
    assert!(path.is_file(), "{} is not there: {hint}", path.display());
    path
}

/// An example at work. It is ended when the test is over, however it ends.
pub struct Guest {
    child: Guarded,
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
        Self {
            child: Guarded(child),
            lines,
        }
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }

    /// Waits until it ends by itself, in order.
    pub fn finish(&mut self) {
        self.child.finish();
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
