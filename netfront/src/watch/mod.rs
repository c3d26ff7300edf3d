//! A look at a queue while packets pass: captures of packets as pcap, and traces of what stands in the rings.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `capture` | packets, received and sent |
//! | `trace` | requests, responses, notifications, one line each |
//! | `writer` | the other end: writes out what was recorded |
//!
//! The queue's thread records into a buffer; whoever started it writes the buffer out from a thread of its own.
//! So neither a slow disk nor a reader that sleeps holds up traffic: what finds no room in the buffer is left
//! out, and counted. While nothing is recorded it costs one relaxed load for each batch of received packets, of
//! posted pages and of responses, and for each packet that is sent.
//!
//! ```no_run
//! use std::sync::Arc;
//! use netfront::watch::{Limits, Watch};
//! use netfront::Device;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let watch = Arc::new(Watch::default());
//! let xen = netfront::hypervisor::Domain::xen()?;
//! let device = Device::builder(0).watch(Arc::clone(&watch)).connect(&xen)?;
//! // At any time, in any thread:
//! let capture = watch.capture(Limits { count: Some(100), ..Limits::default() })?;
//! let file = std::fs::File::create("vif0.pcap")?;
//! std::thread::spawn(move || capture.write_to(&file, None));
//! # Ok(())
//! # }
//! ```

mod capture;
mod trace;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::waker::Waker;
use crate::Error;

pub(crate) use capture::copy_slices;
pub use capture::WHOLE;
pub use trace::TraceFormat;
pub(crate) use trace::{flags_of, Event, What};
pub use writer::{Running, Totals};

/// Bytes that may wait for the writer: what 10 Gbit/s brings in some milliseconds.
const BUFFER: usize = 4 << 20;

/// When a recording ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes kept of each packet of a capture.
    pub snaplen: usize,
    /// After so many packets, or lines of a trace.
    pub count: Option<u64>,
    /// After this time.
    pub time: Option<Duration>,
}

impl Default for Limits {
    /// Everything, until it is stopped.
    fn default() -> Self {
        Self {
            snaplen: WHOLE,
            count: None,
            time: None,
        }
    }
}

/// What can be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Capture,
    Trace,
}

impl Kind {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a queue's thread found to be on, once a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct On(u8);

impl On {
    #[inline]
    pub fn captures(self) -> bool {
        self.0 & Kind::Capture.bit() != 0
    }

    #[inline]
    pub fn traces(self) -> bool {
        self.0 & Kind::Trace.bit() != 0
    }
}

/// Switches captures and traces of a queue on and off, from any thread. One of each runs at a time.
#[derive(Debug, Default)]
pub struct Watch {
    on: AtomicU8,
    recordings: [Mutex<Option<Recording>>; 2],
    /// The driver ends: nothing is started any more.
    closed: AtomicBool,
}

/// What is recorded and not yet written.
#[derive(Debug)]
struct Recording {
    bytes: Vec<u8>,
    /// Of a capture.
    snaplen: usize,
    /// Of a trace.
    format: TraceFormat,
    left: u64,
    totals: Totals,
    writer: Arc<Waker>,
}

impl Watch {
    /// True while packets are captured.
    pub fn captures(&self) -> bool {
        self.on().captures()
    }

    /// True while the rings are traced.
    pub fn traces(&self) -> bool {
        self.on().traces()
    }

    /// Ends what is recorded, for good, since the driver ends: whoever writes it out writes the rest, and nothing more is
    /// started.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for kind in [Kind::Capture, Kind::Trace] {
            // Whoever started before has left it here; whoever locks after us finds the mark.
            let mut recording = self.recording(kind);
            self.off(kind);
            if let Some(now) = recording.as_mut() {
                now.left = 0;
                now.writer.wake();
            }
        }
    }

    /// True once [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn on(&self) -> On {
        // Nothing is read on the strength of it: a packet more or less at either end is no matter.
        On(self.on.load(Ordering::Relaxed))
    }

    fn off(&self, kind: Kind) {
        self.on.fetch_and(!kind.bit(), Ordering::Relaxed);
    }

    /// Starts a recording that begins with `header`.
    fn start(
        self: &Arc<Self>,
        kind: Kind,
        format: TraceFormat,
        header: &[u8],
        limits: Limits,
    ) -> Result<Running, Error> {
        let mut recording = self.recording(kind);
        if self.is_closed() {
            return Err(Error::Ending);
        }
        if recording.is_some() {
            return Err(Error::IsRecording {
                what: match kind {
                    Kind::Capture => "capture",
                    Kind::Trace => "trace",
                },
            });
        }
        let writer = Arc::new(Waker::new()?);
        let mut bytes = Vec::with_capacity(BUFFER);
        bytes.extend_from_slice(header);
        // The header goes out at once: a reader behind a pipe waits for it.
        writer.wake();
        *recording = Some(Recording {
            bytes,
            snaplen: limits.snaplen.clamp(1, WHOLE),
            format,
            left: limits.count.unwrap_or(u64::MAX),
            totals: Totals::default(),
            writer: Arc::clone(&writer),
        });
        if limits.count != Some(0) {
            self.on.fetch_or(kind.bit(), Ordering::Release);
        }
        drop(recording);
        // An end that no clock will reach is none.
        let end = limits
            .time
            .and_then(|time| Instant::now().checked_add(time));
        Ok(Running::new(Arc::clone(self), kind, writer, end))
    }

    /// Lets `write` add one record of at most `most(..)` bytes, if one is wanted and there is room.
    fn record(
        &self,
        kind: Kind,
        most: impl FnOnce(&Recording) -> usize,
        write: impl FnOnce(&mut Recording),
    ) {
        let mut recording = self.recording(kind);
        let Some(now) = recording.as_mut().filter(|now| now.left > 0) else {
            return;
        };
        let at = now.bytes.len();
        if at + most(now) > now.bytes.capacity() {
            now.totals.dropped += 1;
            return;
        }
        write(now);
        now.totals.recorded += 1;
        now.left -= 1;
        if now.left == 0 {
            self.off(kind);
        }
        // Woken once for all that comes before it looks.
        if at == 0 || now.left == 0 {
            now.writer.wake();
        }
    }

    fn recording(&self, kind: Kind) -> MutexGuard<'_, Option<Recording>> {
        self.recordings[kind as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, since 1970.
fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
