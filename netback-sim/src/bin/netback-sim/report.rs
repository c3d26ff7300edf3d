//! What the program tells: a line a second, and a table or JSON at the end.

use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use netback_sim::{traffic, BackendHandle, Snapshot, State};

const SECOND: Duration = Duration::from_secs(1);

/// One line on the terminal, written over every second.
pub struct Progress {
    on: bool,
    last: Instant,
    before: Snapshot,
}

impl Progress {
    /// Shows nothing when `wanted` is false or standard error is no terminal.
    pub fn new(wanted: bool) -> Self {
        Progress {
            on: wanted && std::io::stderr().is_terminal(),
            last: Instant::now(),
            before: Snapshot::default(),
        }
    }

    /// How long it may be left alone: for ever, unless somebody looks.
    pub fn pause(&self) -> Option<Duration> {
        self.on.then(|| SECOND.saturating_sub(self.last.elapsed()))
    }

    /// Writes the line if a second has passed.
    pub fn show(&mut self, backend: &BackendHandle) {
        let passed = self.last.elapsed();
        if !self.on || passed < SECOND {
            return;
        }
        let now = backend.counters();
        let line = format!(
            "{:<12} to guest {}  from guest {}",
            backend.state().to_string(),
            rate(
                now.rx_packets - self.before.rx_packets,
                now.rx_bytes - self.before.rx_bytes,
                passed
            ),
            rate(
                now.tx_packets - self.before.tx_packets,
                now.tx_bytes - self.before.tx_bytes,
                passed
            ),
        );
        // A terminal that is gone must not stop the traffic.
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
        let _ = std::io::stderr().flush();
        (self.last, self.before) = (Instant::now(), now);
    }

    /// Leaves the line as it is and goes to the next.
    pub fn end(&self) {
        if self.on {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn rate(packets: u64, bytes: u64, passed: Duration) -> String {
    let seconds = passed.as_secs_f64();
    format!(
        "{packets:>9} packets {:>8.4} Mpps {:>7.3} Gbit/s",
        packets as f64 / seconds / 1e6,
        bytes as f64 * 8.0 / seconds / 1e9
    )
}

/// The version of what is told as JSON: fields may be added to it, none is removed or changes its meaning.
pub const SCHEMA: u32 = 1;

/// How it went.
#[derive(serde::Serialize)]
pub struct Report {
    pub schema: u32,
    pub seconds: f64,
    pub state: State,
    pub fault: Option<String>,
    pub counters: Snapshot,
    /// Of the whole process since its start, by our own count.
    pub hypercalls: u64,
    pub system_calls: u64,
    pub verified: Option<traffic::Counts>,
    pub peer_dropped: u64,
}

impl Report {
    /// Prints it to standard output.
    pub fn print(&self, json: bool) -> Result<(), Box<dyn Error>> {
        let text = match json {
            true => serde_json::to_string_pretty(self)?,
            false => self.table(),
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            // A reader that has seen enough (`| head`) is no failure of ours.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        }
    }

    fn table(&self) -> String {
        let mut lines = vec![format!("{:<22} {:>16.3}", "seconds", self.seconds)];
        let more = [
            ("hypercalls", self.hypercalls),
            ("system_calls", self.system_calls),
            ("peer_dropped", self.peer_dropped),
        ];
        for (name, value) in self.counters.fields().into_iter().chain(more) {
            lines.push(format!("{name:<22} {value:>16}"));
        }
        if let Some(counts) = self.verified {
            let traffic::Counts {
                frames,
                lost,
                duplicate,
                reordered,
                corrupt,
                foreign,
                ..
            } = counts;
            lines.push(format!(
                "from the guest: {frames} frames verified, {lost} lost, {duplicate} doubled, \
                 {reordered} overtaken, {corrupt} damaged; {foreign} of others"
            ));
        }
        if let Some(fault) = &self.fault {
            lines.push(format!("the vif went down: {fault}"));
        }
        lines.join("\n")
    }
}

/// Prints an error with all its causes, once.
pub fn print_error(error: &(dyn Error + 'static)) {
    let mut text = format!("netback-sim: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "{text}");
}
