//! `netfront capture`: packets of a running driver, as pcap.
//!
//! The file is opened here, with the rights of whoever captures, and handed to the driver over its socket. A pipe
//! goes the same way, so that `netfront capture | tcpdump -r -` shows packets as they pass.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use netfront::capture::{CaptureSwitch, Limits, WHOLE};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::control::{accepted, read_line, send_line, Which};
use crate::failure::Failure;
use crate::orders::one;
use crate::output::say;

/// What is captured, and where it goes.
#[derive(Debug, Args)]
pub struct Capture {
    #[command(flatten)]
    pub which: Which,
    /// Write to this file; - is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
    /// Bytes kept of each packet.
    #[arg(short, long, value_name = "BYTES", default_value_t = 65_535,
          value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub snaplen: u32,
    /// End after so many packets.
    #[arg(short, long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub seconds: Option<u64>,
    /// How many packets there were, as JSON: on standard error if the packets go to standard output.
    #[arg(long)]
    pub json: bool,
}

/// Captures until the limits are reached or a signal comes.
pub fn capture(args: &Capture) -> Result<(), Failure> {
    let place = one(&args.which)?;
    let to_stdout = args.write.as_os_str() == "-";
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::Verdict(
            "packets are not for a terminal: --write FILE, or pipe it into `tcpdump -r -`".into(),
        ));
    }
    let socket = UnixStream::connect(&place.socket).map_err(Failure::io(format!(
        "asking at {} (is `netfront run` up?)",
        place.socket.display()
    )))?;
    let stdout = std::io::stdout();
    let created;
    let file = if to_stdout {
        stdout.as_fd()
    } else {
        created = File::create(&args.write)
            .map_err(Failure::io(format!("creating {}", args.write.display())))?;
        created.as_fd()
    };
    let question = json!({
        "command": "capture",
        "snaplen": args.snaplen,
        "count": args.count,
        "seconds": args.seconds,
    });
    let failed = || Failure::io("asking the driver");
    end_at_signal(&socket).map_err(failed())?;
    send_line(&socket, &question.to_string(), Some(file)).map_err(failed())?;
    let (line, _) = read_line(&socket, Duration::MAX).map_err(Failure::io(
        "waiting for the end of the capture (has the driver ended?)",
    ))?;
    let reply = serde_json::from_str(&line).map_err(|error| failed()(error.into()))?;
    let reply = accepted(reply)?;
    let text = match (args.json, reply["captured"].as_u64()) {
        (true, _) => reply.to_string(),
        (false, Some(captured)) => format!(
            "{captured} packets captured, {} dropped since the file was too slow",
            reply["dropped"]
        ),
        (false, None) => "whoever read the packets has gone".into(),
    };
    if to_stdout {
        eprintln!("{text}");
    } else {
        say!("{text}");
    }
    Ok(())
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
    pub fn start(words: &str, switch: &Arc<CaptureSwitch>) -> Result<Self, Failure> {
        let cut = words
            .rsplit_once(',')
            .and_then(|(path, length)| Some((path, length.parse().ok()?)));
        let (path, snaplen) = cut.unwrap_or((words, WHOLE));
        let file = File::create(path).map_err(Failure::io(format!("creating {path}")))?;
        let running = switch.start(Limits {
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
                        tracing::info!(totals.captured, totals.dropped, "captured into {path}")
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
