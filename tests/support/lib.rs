//! What the tests of all crates share: a deadline for everything, skips that are counted, a simulated Xen, and the
//! programs as processes.

#![deny(unsafe_code)]
// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod packets;
pub mod skipped;
#[cfg(feature = "sim")]
pub mod stage;
#[cfg(feature = "sim")]
pub mod wire;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "../engine/mod.rs"]
pub mod engine;

/// A deadline for what takes one. Far more than anything needs.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test waits: six times the handshake's deadline.
const WAIT: Duration = Duration::from_secs(60);

/// Waits until `reached` gives something. For what is asked of another process.
///
/// # Panics
/// After 60 seconds.
pub fn wait_for<T>(what: &str, reached: impl FnMut() -> Option<T>) -> T {
    look_again(what, Duration::from_millis(10), reached)
}

/// Waits until `done` says so.
///
/// # Panics
/// After 60 seconds.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    look_again(what, Duration::from_millis(1), || done().then_some(()));
}

fn look_again<T>(what: &str, pause: Duration, mut reached: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WAIT;
    loop {
        if let Some(value) = reached() {
            return value;
        }
        assert!(Instant::now() < end, "waited {WAIT:?} for {what}");
        std::thread::sleep(pause);
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

/// The commands that the help of a program names.
///
/// # Panics
/// If it names none.
pub fn commands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1);
    list.unwrap_or_else(|| panic!("no commands: {help}"))
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// A program of the project that runs. It is killed when this is dropped.
pub struct Process {
    child: Guarded,
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
            child: Guarded(child),
            log: log.to_owned(),
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child.0);
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// Asks it to end, as an administrator does, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let status = wait_for("the end of a process", || {
            self.child.0.try_wait().ok().flatten()
        });
        status.code()
    }

    /// Its open file descriptors: the fewest that half a second shows, since a request to its control socket has
    /// one for as long as its answer takes.
    ///
    /// # Panics
    /// If it has ended.
    pub fn descriptors(&self) -> usize {
        let looks = (0..10).map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            self.descriptors_now()
        });
        looks.min().unwrap_or_default()
    }

    /// Waits until no more than `before` file descriptors are open: what a peer that is gone had is given back a
    /// moment after the next one is served.
    ///
    /// # Panics
    /// If more of them stay open, or if it has ended.
    pub fn wait_for_descriptors(&self, before: usize) {
        let end = Instant::now() + WAIT;
        while self.descriptors_now() > before {
            assert!(
                Instant::now() < end,
                "descriptors leak: {before} before, now {:#?}:\n{}",
                self.open_files(),
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn descriptors_now(&self) -> usize {
        self.open_files().len()
    }

    /// What each of its file descriptors is.
    fn open_files(&self) -> Vec<PathBuf> {
        let path = format!("/proc/{}/fd", self.child.0.id());
        fs::read_dir(&path)
            .unwrap_or_else(|_| panic!("it has ended: {}", self.errors()))
            .flatten()
            .map(|entry| fs::read_link(entry.path()).unwrap_or_default())
            .collect()
    }

    /// How often each of its threads was woken so far, by the thread's name.
    ///
    /// # Panics
    /// If it has ended.
    pub fn wakeups(&self) -> BTreeMap<String, u64> {
        let tasks = format!("/proc/{}/task", self.child.0.id());
        let tasks = fs::read_dir(&tasks)
            .unwrap_or_else(|_| panic!("it has ended: {}", self.errors()))
            .flatten();
        let mut wakeups = BTreeMap::new();
        for task in tasks {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let status = read("status");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let count: u64 = line
                .and_then(|number| number.trim().parse().ok())
                .unwrap_or(0);
            *wakeups.entry(read("comm").trim().to_owned()).or_default() += count;
        }
        wakeups
    }

    /// What it wrote to standard error.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The program netback-sim, with this other end of the wire, and the simulated Xen that it starts: a frontend that comes
/// before finds nothing.
///
/// # Panics
/// If it does not start.
#[cfg(feature = "sim")]
pub fn serve(socket: &Path, peer: &[&str], log: &Path) -> Process {
    let sim = socket.to_str().expect("a path that is text");
    let args = [&["serve", "--sim", sim], peer].concat();
    let backend = Process::start("netback-sim", &args, log);
    wait_for("the simulated Xen", || {
        let running = hypervisor::sim::is_running(socket).ok();
        running.filter(|&running| running)
    });
    backend
}

/// A process that ends with the test, however that ends.
pub struct Guarded(pub Child);

impl Guarded {
    /// Waits until it ends by itself, with success.
    ///
    /// # Panics
    /// If it does not.
    pub fn finish(&mut self) {
        let status = wait_for("a process to end", || self.0.try_wait().ok().flatten());
        assert!(status.success(), "{status:?}");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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
