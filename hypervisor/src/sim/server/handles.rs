//! The open handles of a domain's process for event channels, and what a restore makes of them.
//!
//! Linux breaks when a handle with dead ports binds, unbinds or is closed for the last time. Here each
//! of these is counted, so that a test can say that it never happens. To notify, to unmask and to read
//! do no harm there, and are not counted.

use std::collections::BTreeMap;

use super::domains::{Domains, Reply};
use crate::sim::protocol::{Answer, Status};
use crate::DomId;

/// The open handles of one process: which of them have dead ports.
#[derive(Debug, Default)]
pub(super) struct Handles {
    dead: BTreeMap<u32, bool>,
    last: u32,
}

impl Handles {
    /// The process has ended: how many of its handles the kernel breaks at.
    pub(super) fn end(&mut self) -> u32 {
        let broken = self.dead.values().filter(|dead| **dead).count();
        self.dead.clear();
        broken as u32
    }

    /// All ports that were bound by these handles are dead.
    pub(super) fn die(&mut self, bound: impl Iterator<Item = u32>) {
        for handle in bound {
            self.dead.insert(handle, true);
        }
    }

    fn is_dead(&self, handle: u32) -> bool {
        self.dead.get(&handle).copied().unwrap_or(false)
    }
}

impl Domains {
    fn handles(&mut self, own: DomId) -> Result<&mut Handles, Status> {
        let domain = self.domains.get_mut(&own).ok_or(Status::NotAttached)?;
        Ok(&mut domain.handles)
    }

    pub(super) fn open_events(&mut self, own: DomId) -> Result<Reply, Status> {
        let handles = self.handles(own)?;
        handles.last = handles.last.wrapping_add(1);
        let number = handles.last;
        handles.dead.insert(number, false);
        Ok(Answer::okay(number).into())
    }

    /// Counts and refuses the use of a handle with dead ports.
    pub(super) fn alive(&mut self, own: DomId, handle: u32) -> Result<(), Status> {
        if self.handles(own)?.is_dead(handle) {
            tracing::warn!(domain = own.0, "a dead event channel handle is used");
            self.kernel_bugs += 1;
            return Err(Status::BadPort);
        }
        Ok(())
    }

    pub(super) fn close_events(&mut self, own: DomId, handle: u32) -> Result<Reply, Status> {
        self.alive(own, handle)?;
        self.handles(own)?.dead.remove(&handle);
        let bound = self.domains.get(&own).into_iter().flat_map(|domain| {
            let ports = domain.ports.iter();
            ports.filter_map(|(number, port)| (port.handle == handle).then_some(*number))
        });
        for port in bound.collect::<Vec<_>>() {
            self.unbind(own, port)?;
        }
        Ok(Answer::okay(0).into())
    }

    pub(super) fn park_events(&mut self, own: DomId, handle: u32) -> Result<Reply, Status> {
        self.handles(own)?.dead.remove(&handle);
        Ok(Answer::okay(0).into())
    }
}
