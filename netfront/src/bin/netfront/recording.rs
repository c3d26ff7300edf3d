//! What a driver records goes to a file that somebody else opened.
//!
//! `netfront capture` and `trace` open the file, with the rights of whoever asks, and hand it to the driver over its
//! socket. A pipe goes the same way, so that `netfront capture | tcpdump -r -` shows packets as they pass.

use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use netfront::watch::{Limits, Watch, WHOLE};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::control::{accepted, read_line, send_line, unanswered, Which};
use crate::failure::Failure;

/// Has a driver record into `path` (`-` is standard output) until it is done or a signal comes, and returns what
/// it says of it.
pub fn into(path: &Path, which: &Which, question: &Value) -> Result<Value, Failure> {
    let place = which.one()?;
    let socket =
        UnixStream::connect(&place.socket).map_err(unanswered(&place.socket, "netfront run"))?;
    let stdout = std::io::stdout();
    let own = match path.as_os_str() == "-" {
        true => None,
        false => Some(Own::open(path)?),
    };
    let file = own
        .as_ref()
        .map_or_else(|| stdout.as_fd(), |own| own.file.as_fd());
    let mut question = question.clone();
    question["truncate"] = own.is_some().into();
    let recorded = ask(&socket, &question, file);
    if let (Err(_), Some(own)) = (&recorded, &own) {
        own.forget(path);
    }
    recorded
}

fn ask(socket: &UnixStream, question: &Value, file: BorrowedFd<'_>) -> Result<Value, Failure> {
    let failed = || Failure::io("asking the driver");
    end_at_signal(socket).map_err(failed())?;
    send_line(socket, &question.to_string(), Some(file)).map_err(failed())?;
    let (line, _) = read_line(socket, Duration::MAX).map_err(Failure::io(
        "waiting for the end of the recording (was the driver killed?)",
    ))?;
    let reply = serde_json::from_str(&line).map_err(|error| failed()(error.into()))?;
    accepted(reply)
}

/// The file of a recording. What is in it stays until the driver records: it may refuse.
struct Own {
    file: File,
    /// It was not there before.
    is_new: bool,
}

impl Own {
    fn open(path: &Path) -> Result<Self, Failure> {
        let mut options = File::options();
        options.write(true);
        let made = options.clone().create_new(true).open(path);
        let is_new = made.is_ok();
        // What is there already; also what a link points to that is not there yet.
        let file = made.or_else(|_| options.create(true).truncate(false).open(path));
        let file = file.map_err(Failure::io(format!("creating {}", path.display())))?;
        Ok(Self { file, is_new })
    }

    /// Nothing was recorded: a file that was made for it is taken away.
    fn forget(&self, path: &Path) {
        let is_empty = self.file.metadata().is_ok_and(|found| found.len() == 0);
        if self.is_new && is_empty {
            // It is in nobody's way.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A signal ends the question, not this program: the driver writes what it has and says how much it was.
fn end_at_signal(socket: &UnixStream) -> std::io::Result<()> {
    let (mut bell, ringer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, ringer.try_clone()?)?;
    }
    let socket = socket.try_clone()?;
    std::thread::Builder::new()
        .name("nfsignal".into())
        .spawn(move || {
            // `ringer` lives as long as the program: the handlers hold copies of it.
            let _ = bell.read(&mut [0; 1]);
            let _ = socket.shutdown(Shutdown::Write);
        })?;
    Ok(())
}

/// The threads that write recordings for others: the driver does not end before they are done.
#[derive(Debug, Default)]
pub struct Writers {
    running: Mutex<usize>,
    left: Condvar,
}

/// One that writes, until it is dropped.
#[derive(Debug)]
pub struct Writing(Arc<Writers>);

impl Writers {
    /// How long the driver's end waits for one whose reader sleeps.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// One begins.
    pub fn enter(self: &Arc<Self>) -> Writing {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Writing(Arc::clone(self))
    }

    /// Waits until all have written what there is and have said so, but not for ever.
    pub fn wait(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |running: &mut usize| *running > 0;
        let waited = self
            .left
            .wait_timeout_while(running, Self::PATIENCE, waiting);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 > 0 {
            tracing::warn!("a recording is cut off: whoever reads it does not");
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut running = self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *running = running.saturating_sub(1);
        self.0.left.notify_all();
    }
}

/// The file of `FILE[,SNAPLEN]`, and the bytes of each packet.
pub fn parse(words: &str) -> (&str, usize) {
    let cut = words
        .rsplit_once(',')
        .and_then(|(path, length)| Some((path, length.parse().ok()?)));
    cut.unwrap_or((words, WHOLE))
}

/// A capture of this process's own driver from its start, in a thread of its own: `run --capture`.
pub struct Recording {
    thread: std::thread::JoinHandle<()>,
    /// Closed, it ends the capture.
    stop: UnixStream,
}

impl Recording {
    /// Captures into `FILE[,SNAPLEN]`.
    pub fn start(words: &str, watch: &Arc<Watch>) -> Result<Self, Failure> {
        let (path, snaplen) = parse(words);
        let file = File::create(path).map_err(Failure::io(format!("creating {path}")))?;
        let running = watch.capture(Limits {
            snaplen,
            ..Limits::default()
        })?;
        let (stop, stopped) = UnixStream::pair().map_err(Failure::io("starting a capture"))?;
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("nfcapture".into())
            .spawn(
                move || match running.write_to(&file, Some(stopped.as_fd())) {
                    Ok(totals) => {
                        tracing::info!(totals.recorded, totals.dropped, "captured into {path}")
                    }
                    Err(error) => tracing::warn!("the capture into {path} ends here: {error}"),
                },
            )
            .map_err(Failure::io("starting a capture"))?;
        Ok(Self { thread, stop })
    }

    /// Ends it, and waits until what was captured is written.
    pub fn end(self) {
        drop(self.stop);
        // A thread that has panicked has said so itself.
        let _ = self.thread.join();
    }
}
