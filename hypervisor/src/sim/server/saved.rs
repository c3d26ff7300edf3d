//! What hypervisor and toolstack do when a domain is saved, and when it goes on.
//!
//! | of the domain | when it is saved | when it is restored |
//! | --- | --- | --- |
//! | its process | is not heard any more: it stands still for all others | is heard again |
//! | event channels | are dead for good, at both ends | |
//! | own pages | cannot be mapped or copied any more | |
//! | pages of others | are unmapped | |
//! | its directory in the store | is removed | stands under the new number; what it watched fires |
//! | its transactions | | end with EAGAIN |
//!
//! The process itself is not stopped: what it does in its own memory goes on.

use super::domains::Domains;
use crate::sim::protocol::Status;
use crate::DomId;

impl Domains {
    /// Destroys what a domain has at the hypervisor.
    pub(super) fn save(&mut self, id: DomId) -> Result<(), Status> {
        let domain = self.domains.get_mut(&id).ok_or(Status::NoSuchDomain)?;
        let ports: Vec<u32> = domain.ports.keys().copied().collect();
        domain
            .handles
            .die(domain.ports.values().map(|port| port.handle));
        domain.notices.clear();
        domain.table.revoke_all();
        for other in self.domains.values() {
            other.table.clear_pins_of(id);
        }
        for port in ports {
            self.unbind(id, port)?;
        }
        Ok(())
    }

    /// Lets it go on under another number, or the same.
    pub(super) fn restore(&mut self, id: DomId, number: DomId) -> Result<(), Status> {
        let taken = self.domains.get(&number);
        if number != id && taken.is_some_and(|domain| domain.process.is_some()) {
            return Err(Status::InUse);
        }
        let domain = self.domains.remove(&id).ok_or(Status::NoSuchDomain)?;
        self.domains.insert(number, domain);
        tracing::debug!(was = id.0, is = number.0, "restored");
        Ok(())
    }
}
