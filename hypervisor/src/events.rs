//! Event channels: the doorbells between domains.
//!
//! # After a restore
//!
//! When a domain has been saved and restored, or migrated, every port of every handle is dead. Linux
//! has no way to tell a process, and breaks (`kernel BUG`, or the interrupt of another handle is
//! taken away) when such a handle binds, unbinds, or is closed for the last time. To notify, to unmask,
//! to read and to poll do nothing and no harm. So:
//!
//! - before it binds or unbinds, a handle that has ports looks in the store; so it does when it is dropped;
//! - one from before a restore answers [`Error::Restored`] to everything, and when it is dropped it is
//!   parked: a small process, the keeper, holds the open file, and our close is not the last. One holds those of all
//!   handles of this process.
//!
//! What remains is the moment between the look and the call, and a process that is killed before it has
//! parked: only the kernel itself can help there (`docs/evtchn-restore.md`).

use std::os::fd::{AsFd, BorrowedFd};

use crate::{xen, DomId, Domain, Error, Port};

/// The event channels of one thread. Dropping it closes all of them, or parks them when the domain
/// has been restored since.
///
/// A port that [`pending`](Self::pending) has told is masked until it is unmasked: a peer that
/// rings without end costs nothing meanwhile, and no event is lost, since one that came while the
/// port was masked is told after [`unmask`](Self::unmask).
///
/// Open it in the thread that will use it: Linux names the interrupts after that thread.
#[derive(Debug)]
pub struct EventChannels {
    /// `None` only while it is being dropped.
    ground: Option<Ground>,
    domain: Domain,
    /// The restores that were known, and the number of the domain, when it was opened.
    restores: u64,
    domid: Option<DomId>,
    /// Ports bound now. A handle without any is harmless at all times.
    ports: usize,
}

#[derive(Debug)]
pub(crate) enum Ground {
    Xen(xen::events::Handle),
    #[cfg(feature = "sim")]
    Sim(crate::sim::events::Handle),
}

impl EventChannels {
    /// `restores` is what was known before the handle was opened: one in between counts as after it.
    pub(crate) fn new(ground: Ground, domain: Domain, restores: u64) -> Self {
        EventChannels {
            ground: Some(ground),
            domid: domain.known_id(),
            domain,
            restores,
            ports: 0,
        }
    }

    /// True when the domain is known to have been restored since this handle was opened: it is of no
    /// more use. One atomic load.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.domain.restores() != self.restores
    }

    fn alive(&self) -> Result<&Ground, Error> {
        match &self.ground {
            Some(ground) if !self.is_dead() => Ok(ground),
            _ => Err(Error::Restored),
        }
    }

    /// For what breaks a kernel when the ports are dead: asks the store, not what is known.
    fn surely_alive(&mut self) -> Result<&mut Ground, Error> {
        if self.ports > 0 && !self.is_dead() {
            self.domain.look_for_restore()?;
        }
        let dead = self.is_dead();
        match &mut self.ground {
            Some(ground) if !dead => Ok(ground),
            _ => Err(Error::Restored),
        }
    }

    /// Makes a port that `remote` may bind to.
    ///
    /// # Errors
    ///
    /// When the hypervisor refuses; [`Error::Restored`], as from every other call.
    pub fn bind_unbound(&mut self, remote: DomId) -> Result<Port, Error> {
        let port = match self.surely_alive()? {
            Ground::Xen(handle) => handle.bind_unbound(remote),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.bind_unbound(remote),
        }?;
        self.ports += 1;
        Ok(port)
    }

    /// Binds to a port that `remote` made for this domain. The new local port is pending at once,
    /// since the peer may have rung before.
    ///
    /// # Errors
    ///
    /// When there is no such port, or it is not meant for this domain, or it is bound already.
    pub fn bind_interdomain(&mut self, remote: DomId, remote_port: Port) -> Result<Port, Error> {
        let port = match self.surely_alive()? {
            Ground::Xen(handle) => handle.bind_interdomain(remote, remote_port),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.bind_interdomain(remote, remote_port),
        }?;
        self.ports += 1;
        Ok(port)
    }

    /// Rings the peer. When nobody is bound at the other end the event is dropped silently.
    ///
    /// # Errors
    ///
    /// When the port is not bound through this handle.
    pub fn notify(&self, port: Port) -> Result<(), Error> {
        match self.alive()? {
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
        self.alive()?;
        match self.ground.as_mut().ok_or(Error::Restored)? {
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
        match self.alive()? {
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
        match self.surely_alive()? {
            Ground::Xen(handle) => handle.unbind(port),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.unbind(port),
        }?;
        self.ports -= 1;
        Ok(())
    }
}

impl Drop for EventChannels {
    fn drop(&mut self) {
        let Some(ground) = self.ground.take() else {
            return;
        };
        if self.ports == 0 {
            return;
        }
        let mut doubt = None;
        if !self.is_dead() {
            match self.domain.look_for_restore() {
                Ok(restores) if restores == self.restores => return,
                Ok(_) => {}
                // To be wrong here costs a process that sleeps.
                Err(error) => doubt = Some(error),
            }
        }
        let number = |domid: Option<DomId>| domid.map_or("?".into(), |domid| domid.to_string());
        let (was, is) = (number(self.domid), number(self.domain.known_id()));
        let why = match doubt {
            None => format!(
                "the domain was restored (domid {was} -> {is}): its event channels are dead"
            ),
            Some(error) => format!("nobody can say whether the domain was restored ({error})"),
        };
        let parked = match ground {
            Ground::Xen(handle) => handle.park(),
            #[cfg(feature = "sim")]
            Ground::Sim(handle) => handle.park(),
        };
        match parked {
            Ok(keeper) => tracing::warn!(
                "{why}; the old event channel handle is parked with process {keeper} (xen-evtchn-keeper), which \
                 must not be killed"
            ),
            Err(error) => tracing::error!(
                "{why}, but the old event channel handle could not be parked ({error}): it stays open, and this \
                 process must not end before the machine does, or the kernel reports a bug"
            ),
        }
    }
}

impl AsFd for EventChannels {
    /// Readable when a port that is not masked is pending. After a restore it is silent.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.ground {
            Some(Ground::Xen(handle)) => handle.as_fd(),
            #[cfg(feature = "sim")]
            Some(Ground::Sim(handle)) => handle.as_fd(),
            None => unreachable!("the ground is taken only by drop"),
        }
    }
}
