//! How a queue is made, and what others must know of it.

use hypervisor::{GrantRef, Port};

use crate::pool::PoolPolicy;

/// The pages of the two rings of a queue.
const RINGS: usize = 2;
/// The pages that queues from the second on leave to another vif: a full ring to receive by (256), 64 to send, the rings,
/// and a control ring.
pub const OTHER_VIF_PAGES: usize = 256 + 64 + RINGS + crate::control::PAGES;

/// How a queue is made.
#[derive(Debug, Clone)]
pub struct QueueConfig {
    /// Pages granted for receiving at the start. Twice the ring lets pages be away with consumers
    /// while the ring stays full.
    pub rx_pages: usize,
    /// The most pages that receiving may grow to.
    pub rx_limit: usize,
    /// Pages granted for sending.
    pub tx_pages: usize,
    /// What happens to a page after its packet.
    pub policy: PoolPolicy,
    /// Packets shorter than this are copied out whole, others keep their pages. Bytes.
    pub threshold: usize,
    /// Copy everything out of shared memory before it is looked at, and lend nothing.
    pub untrusted: bool,
    /// Overwrite the used bytes of a page before it is posted again.
    pub scrub: bool,
    /// One event channel each for receiving and sending, if the backend can.
    pub split_event_channels: bool,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            rx_pages: 512,
            rx_limit: 736,
            tx_pages: 256,
            policy: PoolPolicy::Pool,
            threshold: 256,
            untrusted: false,
            scrub: false,
            split_event_channels: true,
        }
    }
}

impl QueueConfig {
    /// Pages that a queue takes of the limit of shared pages when it is opened.
    pub fn pages_at_start(&self) -> usize {
        self.rx_pages + self.tx_pages + RINGS
    }

    /// Pages that it may take in the end.
    pub fn pages_at_most(&self) -> usize {
        self.rx_limit.max(self.rx_pages) + self.tx_pages + RINGS
    }

    /// The limit of shared pages that is enough for a vif with so many queues and so many pages of a control ring, however
    /// far its pools grow, where nobody else shares pages.
    pub fn limit_for(&self, queues: usize, control: usize) -> usize {
        let most = self.pages_at_most() * queues + control;
        match queues > 1 {
            true => most.max(self.pages_at_start() * queues + control + OTHER_VIF_PAGES),
            false => most,
        }
    }
}

/// The queue's event channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// One for both directions (`event-channel`).
    Shared(Port),
    /// One each (`feature-split-event-channels`).
    Split {
        /// `event-channel-rx`
        rx: Port,
        /// `event-channel-tx`
        tx: Port,
    },
}

/// What the backend must know of a queue: the values of its store keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueKeys {
    /// `tx-ring-ref`
    pub tx_ring: GrantRef,
    /// `rx-ring-ref`
    pub rx_ring: GrantRef,
    /// `event-channel`, or `event-channel-rx` and `-tx`.
    pub ports: Ports,
}

/// Why [`Queue::wait`](super::Queue::wait) returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There are responses, or there may be.
    Work,
    /// Somebody called the queue's waker: the link has changed, or the driver stops.
    Called,
    /// Nothing happened in time.
    Timeout,
}
