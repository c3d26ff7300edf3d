//! A TAP: the guest's wire ends in an interface of this machine.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

use netfront_tap::{Offloads, Sent, Tap, VnetHeader, HEADER_SIZE};

use crate::features::FrontFeatures;
use crate::frame::{Frame, FrameBurst, FRAME_ROOM};
use crate::offload;
use crate::peer::Peer;

/// Passes frames between the guest and a TAP, large segments uncut.
#[derive(Debug)]
pub struct TapPeer {
    tap: Tap,
    dropped: u64,
    said: bool,
    /// The interface is gone: its descriptor would be ready for ever.
    broken: bool,
}

impl TapPeer {
    /// The guest's wire ends in this TAP, which must have virtio-net headers. Its carrier follows
    /// the guest: off now.
    pub fn new(tap: Tap) -> Self {
        let peer = TapPeer {
            tap,
            dropped: 0,
            said: false,
            broken: false,
        };
        peer.plug(false);
        peer
    }

    /// The TAP.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    fn plug(&self, carrier: bool) {
        if let Err(error) = self.tap.set_carrier(carrier) {
            // An old kernel; frames still pass.
            tracing::debug!(%error, "the carrier was not set");
        }
    }

    fn drop_frame(&mut self, why: &dyn std::fmt::Display) {
        self.dropped += 1;
        if !self.said {
            self.said = true;
            tracing::warn!(
                tap = self.tap.name(),
                "a frame was dropped: {why}; further ones are only counted"
            );
        }
    }
}

impl Peer for TapPeer {
    fn receive(&mut self, frames: &mut [Frame<'_>], _: &mut FrameBurst) {
        for frame in frames {
            let Some(header) = offload::to_tap(frame.bytes, &frame.offload) else {
                self.drop_frame(&"its headers do not fit what the guest said of it");
                continue;
            };
            let pieces = [&header.encode()[..], &*frame.bytes];
            match self.tap.send(&pieces.map(IoSlice::new)) {
                Ok(Sent::Taken) => {}
                // A wire does not wait: netback's bridge drops such a frame too.
                Ok(Sent::Full) => self.drop_frame(&"the TAP's queue is full"),
                Ok(Sent::Refused(errno)) => self.drop_frame(&errno),
                Err(error) => self.drop_frame(&error),
            }
        }
    }

    fn transmit(&mut self, burst: &mut FrameBurst) {
        let mut header = [0; HEADER_SIZE];
        while let Some(space) = burst.space(FRAME_ROOM) {
            let received = self.tap.receive(&mut header, &mut [IoSliceMut::new(space)]);
            let len = match received {
                Ok(Some(len)) => len,
                Ok(None) => break,
                Err(error) => {
                    self.broken = true;
                    tracing::error!(%error, "the TAP is lost; start again to get it back");
                    break;
                }
            };
            let header = VnetHeader::decode(&header);
            let offload = offload::from_tap(&mut space[..len], &header);
            if !offload.is_some_and(|offload| burst.commit(len, offload)) {
                self.drop_frame(&format!("netif cannot carry {len} bytes with {header:?}"));
            }
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.as_fd()).filter(|_| !self.broken)
    }

    fn connected(&mut self, features: &FrontFeatures) {
        // A checksum that this guest cannot take blank is filled in on the way; a segment that it
        // cannot take would be lost.
        let wanted = Offloads {
            checksum: true,
            tso4: features.gso_tcpv4,
            tso6: features.gso_tcpv6,
        };
        if let Err(error) = self.tap.set_offloads(wanted) {
            tracing::warn!(%error, "offloads were not set");
        }
        self.plug(true);
    }

    fn disconnected(&mut self) {
        self.plug(false);
    }

    fn dropped(&self) -> u64 {
        self.dropped
    }
}
