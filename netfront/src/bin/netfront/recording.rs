//! What a driver records goes to a file that somebody else opened.
//!
//! `netfront capture` and `trace` open the file, with the rights of whoever asks, and hand it to the driver over its
//! socket. A pipe goes the same way, so that `netfront capture | tcpdump -r -` shows packets as they pass.

use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netfront::watch::{Limits, Watch, WHOLE};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::control::{accepted, read_line, send_line, Which};
use crate::failure::Failure;

/// Has a driver record into `path` (`-` is standard output) until it is done or a signal comes, and returns what
/// it says of it.
pub fn into(path: &Path, which: &Which, question: &Value) -> Result<Value, Failure> {
    let place = which.one()?;
    let socket = UnixStream::connect(&place.socket).map_err(Failure::io(format!(
        "asking at {} (is `netfront run` up?)",
        place.socket.display()
    )))?;
    let stdout = std::io::stdout();
    let created;
    let file = if path.as_os_str() == "-" {
        stdout.as_fd()
    } else {
        created =
            File::create(path).map_err(Failure::io(format!("creating {}", path.display())))?;
        created.as_fd()
    };
    let failed = || Failure::io("asking the driver");
    end_at_signal(&socket).map_err(failed())?;
    send_line(&socket, &question.to_string(), Some(file)).map_err(failed())?;
    let (line, _) = read_line(&socket, Duration::MAX).map_err(Failure::io(
        "waiting for the end of the recording (has the driver ended?)",
    ))?;
    let reply = serde_json::from_str(&line).map_err(|error| failed()(error.into()))?;
    accepted(reply)
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

/// A capture of this process's own driver from its start, in a thread of its own: `run --capture`.
pub struct Recording {
    thread: std::thread::JoinHandle<()>,
    /// Closed, it ends the capture.
    stop: UnixStream,
}

impl Recording {
    /// Captures into `FILE[,SNAPLEN]`.
    pub fn start(words: &str, watch: &Arc<Watch>) -> Result<Self, Failure> {
        let cut = words
            .rsplit_once(',')
            .and_then(|(path, length)| Some((path, length.parse().ok()?)));
        let (path, snaplen) = cut.unwrap_or((words, WHOLE));
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
