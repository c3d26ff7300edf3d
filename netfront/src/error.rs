//! What can go wrong, with what was wanted, what was found and what to do.

use std::io;
use std::time::Duration;

use crate::connection::XenbusState;

/// An error of the driver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The hypervisor, the simulated one, or one of its devices refused.
    #[error(transparent)]
    Hypervisor(#[from] hypervisor::Error),

    /// The backend broke the contract of a ring. The queue is closed; reconnecting starts anew.
    #[error("the backend broke the contract: {0}")]
    Corrupt(#[from] xen_ring::Corrupt),

    /// The backend wrote a response for a slot that nothing was posted in.
    #[error("the backend answered {ring} slot {slot}, in which nothing was posted")]
    NothingPosted {
        /// `rx` or `tx`.
        ring: &'static str,
        /// The slot, or for tx the id, that was answered.
        slot: u16,
    },

    /// The store has no such vif, or one that lacks a key.
    #[error("the store has no {key}: is there a vif {vif} in this domain's configuration?")]
    NoVif {
        /// The vif asked for.
        vif: u32,
        /// The missing key.
        key: String,
    },

    /// A key holds something that makes no sense.
    #[error("{key} holds {found:?}, wanted {wanted}")]
    BadKey {
        /// The store path.
        key: String,
        /// Its value.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },

    /// The other side did not move on in time.
    #[error(
        "waited {waited:?} for {key} to become {wanted}, it is {found}: is the backend running, \
         and has its hotplug script finished?"
    )]
    Deadline {
        /// The store path of the state that was watched.
        key: String,
        /// The state or states that were waited for.
        wanted: &'static str,
        /// The state that it stayed in.
        found: XenbusState,
        /// How long.
        waited: Duration,
    },

    /// The backend left while the connection was being made or used.
    #[error("the backend left: {key} is {found}")]
    BackendLeft {
        /// The store path of the backend's state.
        key: String,
        /// Its state now.
        found: XenbusState,
    },

    /// Whoever made the connection does not want it any more.
    #[error("interrupted")]
    Interrupted,

    /// The backend lacks something without which nothing goes.
    #[error("the backend at {backend} does not offer {feature}, which this driver needs")]
    MissingFeature {
        /// The backend's directory in the store.
        backend: String,
        /// The key that was wanted.
        feature: &'static str,
    },

    /// One capture and one trace of a queue run at a time.
    #[error("another {what} of this vif is running: end that one first")]
    IsRecording {
        /// `capture` or `trace`.
        what: &'static str,
    },

    /// Nothing is recorded any more: see [`crate::watch::Watch::close`].
    #[error("the driver ends, and records nothing any more")]
    Ending,

    /// A thread of the device has gone, or an operating system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },

    /// The TAP device refused.
    #[error(transparent)]
    Tap(#[from] netfront_tap::Error),
}

impl Error {
    /// True if the backend is to blame: the connection is over, but another can be made.
    pub fn is_peers_fault(&self) -> bool {
        matches!(
            self,
            Self::Corrupt(_) | Self::NothingPosted { .. } | Self::BackendLeft { .. }
        )
    }

    /// True if the domain was restored or migrated: the connection is over, with nobody to say goodbye
    /// to, and another can be made.
    pub fn is_restore(&self) -> bool {
        matches!(self, Self::Hypervisor(hypervisor::Error::Restored))
    }

    /// For `map_err`: names what was being done.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Why a packet was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No slot or no page is left until the backend answers: try again after the next event.
    #[error("the transmit ring is full")]
    Full,
    /// More than 65535 bytes, or than 18 slots hold, or no bytes at all.
    #[error("a packet of {0} bytes cannot be sent: 1 to 65535 bytes in 18 slots are possible")]
    Length(usize),
}
