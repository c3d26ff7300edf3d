//! Event channels: the doorbells between domains.

use std::os::fd::{AsFd, BorrowedFd};

use crate::{xen, DomId, Error, Port};

/// The event channels of one thread. Dropping it closes all of them.
///
/// A port that [`pending`](Self::pending) has told is masked until it is unmasked: a peer that
/// rings without end costs nothing meanwhile, and no event is lost, since one that came while the
/// port was masked is told after [`unmask`](Self::unmask).
///
/// Open it in the thread that will use it: Linux names the interrupts after that thread.
#[derive(Debug)]
pub struct EventChannels(pub(crate) Ground);

#[derive(Debug)]
pub(crate) enum Ground {
    Xen(xen::events::Handle),
    #[cfg(feature = "sim")]
    Sim(crate::sim::events::Handle),
}

impl EventChannels {
    /// Makes a port that `remote` may bind to.
    ///
    /// # Errors
    ///
    /// When the hypervisor refuses.
    pub fn bind_unbound(&mut self, remote: DomId) -> Result<Port, Error> {
        match &mut self.0 {
            Ground::Xen(handle) => handle.bind_unbound(remote),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.bind_unbound(remote),
        }
    }

    /// Binds to a port that `remote` made for this domain. The new local port is pending at once,
    /// since the peer may have rung before.
    ///
    /// # Errors
    ///
    /// When there is no such port, or it is not meant for this domain, or it is bound already.
    pub fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port, Error> {
        match &mut self.0 {
            Ground::Xen(handle) => handle.bind_interdomain(remote, remote_port),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.bind_interdomain(remote, remote_port),
        }
    }

    /// Rings the peer. When nobody is bound at the other end the event is dropped silently.
    ///
    /// # Errors
    ///
    /// When the port is not bound through this handle.
    pub fn notify(&self, port: Port) -> Result<(), Error> {
        match &self.0 {
            Ground::Xen(handle) => handle.notify(port),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.notify(port),
        }
    }

    /// Appends the ports that are pending now, without waiting. Each of them is masked until
    /// [`unmask`](Self::unmask).
    ///
    /// # Errors
    ///
    /// When the handle is broken.
    pub fn pending(&mut self, ports: &mut Vec<Port>) -> Result<(), Error> {
        match &mut self.0 {
            Ground::Xen(handle) => handle.pending(ports),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.pending(ports),
        }
    }

    /// Lets the port be told again.
    ///
    /// # Errors
    ///
    /// When the port is not bound through this handle.
    pub fn unmask(&self, port: Port) -> Result<(), Error> {
        match &self.0 {
            Ground::Xen(handle) => handle.unmask(port),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.unmask(port),
        }
    }

    /// Closes one port.
    ///
    /// # Errors
    ///
    /// When the port is not bound through this handle.
    pub fn unbind(&mut self, port: Port) -> Result<(), Error> {
        match &mut self.0 {
            Ground::Xen(handle) => handle.unbind(port),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.unbind(port),
        }
    }
}

impl AsFd for EventChannels {
    /// Readable when a port that is not masked is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Ground::Xen(handle) => handle.as_fd(),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.as_fd(),
        }
    }
}
