//! Writes what another peer takes and makes into a capture file.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, PcapError, TsResolution};

use crate::features::FrontFeatures;
use crate::frame::{Frame, FrameBurst};
use crate::peer::Peer;
use crate::traffic::Counts;

/// Another peer, and a file with all its frames, in the order in which they passed. Large segments
/// are in it uncut, and blank checksums are blank: `tcpdump` and Wireshark will say so.
pub struct Capture<P> {
    inner: P,
    /// None after an error: the traffic goes on without the file.
    writer: Option<PcapWriter<BufWriter<File>>>,
}

impl<P: Peer> Capture<P> {
    /// Captures what `inner` takes and makes into a new file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(inner: P, path: &Path) -> Result<Self, PcapError> {
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            // The format's own limit would cut nothing either; this one every reader accepts.
            snaplen: 0x4_0000,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let file = File::create(path).map_err(PcapError::IoError)?;
        // One write to the system for a thousand small frames.
        let writer = BufWriter::with_capacity(1 << 18, file);
        Ok(Capture {
            inner,
            writer: Some(PcapWriter::with_header(writer, header)?),
        })
    }

    fn write(&mut self, now: Duration, frame: &[u8]) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let len = frame.len() as u32;
        if let Err(error) = writer.write_packet(&PcapPacket::new(now, len, frame)) {
            tracing::error!(%error, "capturing ended");
            self.writer = None;
        }
    }

    fn write_burst(&mut self, burst: &FrameBurst, from: usize) {
        let now = now();
        for index in from..burst.len() {
            if let Some((frame, _)) = burst.frame(index) {
                self.write(now, frame);
            }
        }
    }
}

/// One time for a batch: its frames passed together.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

impl<P: Peer> Peer for Capture<P> {
    fn receive(&mut self, frames: &mut [Frame<'_>], reply: &mut FrameBurst) {
        let now = now();
        // Before the peer, which may change them.
        for frame in frames.iter() {
            self.write(now, frame.bytes);
        }
        let from = reply.len();
        self.inner.receive(frames, reply);
        self.write_burst(reply, from);
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        let from = burst.len();
        self.inner.transmit(burst);
        self.write_burst(burst, from);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }
    fn due(&self) -> Option<Instant> {
        self.inner.due()
    }
    fn replies(&self) -> bool {
        self.inner.replies()
    }
    fn connected(&mut self, features: &FrontFeatures) {
        self.inner.connected(features);
    }
    fn disconnected(&mut self) {
        self.inner.disconnected();
    }
    fn verified(&self) -> Option<Counts> {
        self.inner.verified()
    }
    fn finished(&self) -> bool {
        self.inner.finished()
    }
    fn dropped(&self) -> u64 {
        self.inner.dropped()
    }
}
