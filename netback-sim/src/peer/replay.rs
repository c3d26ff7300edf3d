//! Sends the frames of a capture file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, PcapError};
use xen_ring::Offload;

use crate::frame::{Frame, FrameBurst, FRAME_ROOM};
use crate::peer::source::Pacer;
use crate::peer::{Pace, Peer, Sink};
use crate::traffic::Counts;

/// A capture file that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("reading `{path}` failed; a pcap file with Ethernet frames is needed (`tcpdump -w`, or `editcap -F pcap` from others)")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PcapError,
    },
    /// It has frames of another kind of network.
    #[error("`{path}` has frames of type {found:?}, not Ethernet")]
    NotEthernet {
        /// The file.
        path: PathBuf,
        /// The type it has.
        found: DataLink,
    },
}

/// Sends the frames of a capture file, in its order, at a pace of one's own; the times in the file
/// are not looked at. Verifies what comes, as the sink does.
pub struct Replay {
    path: PathBuf,
    reader: Option<PcapReader<File>>,
    /// Read, but there was no room for it in the last burst.
    waiting: Vec<u8>,
    pacer: Pacer,
    repeat: bool,
    /// Frames sent in this pass over the file: an empty file is not begun again for ever.
    sent: u64,
    sink: Sink,
    dropped: u64,
    connected: bool,
}

impl Replay {
    /// Sends the frames of this file, once or (with `repeat`) again and again.
    ///
    /// # Errors
    /// [`ReplayError`] when the file cannot be used.
    pub fn new(path: &Path, pace: Pace, repeat: bool) -> Result<Self, ReplayError> {
        Ok(Replay {
            path: path.to_owned(),
            reader: Some(open(path)?),
            waiting: Vec::with_capacity(FRAME_ROOM),
            pacer: Pacer::new(pace),
            repeat,
            sent: 0,
            sink: Sink::new(),
            dropped: 0,
            connected: false,
        })
    }

    /// Reads the next frame into `waiting`; false when there is none.
    fn read(&mut self) -> bool {
        while let Some(reader) = &mut self.reader {
            match reader.next_packet() {
                Some(Ok(packet)) if (14..=0xffff).contains(&packet.data.len()) => {
                    self.waiting.extend_from_slice(&packet.data);
                    return true;
                }
                Some(Ok(_)) => self.dropped += 1,
                Some(Err(error)) => {
                    tracing::error!(%error, path = %self.path.display(), "the replay ended");
                    self.reader = None;
                }
                None if self.repeat && self.sent > 0 => {
                    self.sent = 0;
                    self.reader = open(&self.path)
                        .map_err(|error| tracing::error!(%error, "the replay ended"))
                        .ok();
                }
                None => self.reader = None,
            }
        }
        false
    }
}

fn open(path: &Path) -> Result<PcapReader<File>, ReplayError> {
    let wrap = |source| ReplayError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(|error| wrap(PcapError::IoError(error)))?;
    let reader = PcapReader::new(file).map_err(wrap)?;
    match reader.header().datalink {
        DataLink::ETHERNET => Ok(reader),
        found => Err(ReplayError::NotEthernet {
            path: path.to_owned(),
            found,
        }),
    }
}

impl Peer for Replay {
    fn receive(&mut self, frames: &mut [Frame<'_>], _: &mut FrameBurst) {
        self.sink.take(frames);
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        let allowed = self.pacer.allowed();
        for _ in 0..allowed {
            if self.waiting.is_empty() && !self.read() {
                return;
            }
            if !burst.push(&self.waiting, Offload::default()) {
                return;
            }
            self.waiting.clear();
            self.sent += 1;
            self.pacer.spent(1);
        }
    }

    fn due(&self) -> Option<Instant> {
        self.pacer
            .due()
            .filter(|_| self.connected && !self.finished())
    }

    fn connected(&mut self, _: &crate::features::FrontFeatures) {
        self.connected = true;
    }

    fn disconnected(&mut self) {
        self.connected = false;
    }

    fn verified(&self) -> Option<Counts> {
        self.sink.verified()
    }

    fn finished(&self) -> bool {
        self.pacer.finished() || (self.reader.is_none() && self.waiting.is_empty())
    }

    fn dropped(&self) -> u64 {
        self.dropped
    }
}
