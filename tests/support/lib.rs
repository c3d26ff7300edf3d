//! What the tests share: the programs as processes, and a deadline for everything.

#![deny(unsafe_code)]
// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "../engine/mod.rs"]
pub mod engine;

/// Waits until `reached` gives something.
///
/// # Panics
/// After 60 seconds: six times the handshake's deadline.
pub fn wait_for<T>(what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = reached() {
            return value;
        }
        assert!(Instant::now() < end, "waited 60 s for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The path of one of the project's programs. The first call builds them: what is there may be old.
///
/// # Panics
/// If they cannot be built.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        // target/debug/deps/TEST
        let mut directory = std::env::current_exe().expect("the test has a path");
        directory.pop();
        if directory.ends_with("deps") {
            directory.pop();
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "-q",
            "--bins",
            "-p",
            "netfront",
            "-p",
            "netback-sim",
        ]);
        if directory.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().expect("cargo runs").success(),
            "the programs do not build"
        );
        directory
    });
    directory.join(name)
}

/// A program of the project that runs. It is killed when this is dropped.
pub struct Process {
    child: Child,
    /// What it writes to standard error.
    log: PathBuf,
}

impl Process {
    /// Starts it, with its standard error in a file of this name.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(name: &str, args: &[&str], log: &Path) -> Self {
        let errors = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let child = Command::new(program(name))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("the program starts");
        Self {
            child,
            log: log.to_owned(),
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Asks it to end, as an administrator does, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let status = wait_for("the end of a process", || {
            self.child.try_wait().ok().flatten()
        });
        status.code()
    }

    /// Its open file descriptors.
    ///
    /// # Panics
    /// If it has ended.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(&path)
            .unwrap_or_else(|_| panic!("it has ended: {}", self.errors()))
            .count()
    }

    /// What it wrote to standard error.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a driver that runs on the simulated Xen at `socket` answers; `None` if it does not.
pub fn stats(socket: &Path) -> Option<Value> {
    let output = Command::new(program("netfront"))
        .args(["-q", "stats", "--json", "--sim"])
        .arg(socket)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// How often each process is killed: 20 times, or what the variable RESTARTS says.
pub fn restarts() -> u64 {
    std::env::var("RESTARTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20)
}
