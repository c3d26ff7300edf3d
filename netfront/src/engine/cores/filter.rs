//! A program's say before the buffer of a packet is built: what Linux calls native XDP.

use std::sync::Arc;

use crate::packet::Packet;

/// What becomes of a packet whose buffer is not built yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, to a handler or to a worker.
    Pass,
    /// It ends here. Its pages, which never left the pool, are posted again.
    Drop,
}

/// What [`Cores::filter`](super::Cores::filter) was given. All event cores ask the same one.
#[derive(Clone)]
pub(super) struct Filter(Arc<Judge>);

/// Of a packet and the number of its queue.
type Judge = dyn Fn(&Packet<'_>, usize) -> Verdict + Send + Sync;

impl Filter {
    pub fn new(verdict: impl Fn(&Packet<'_>, usize) -> Verdict + Send + Sync + 'static) -> Self {
        Self(Arc::new(verdict))
    }

    /// True if this packet of this queue is to be dropped.
    pub fn drops(&self, packet: &Packet<'_>, queue: usize) -> bool {
        (self.0)(packet, queue) == Verdict::Drop
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}
