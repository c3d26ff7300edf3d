//! What hypervisor and guest kernel know of each domain.
//!
//! A domain is a guest: its memory, grant table and store entries stay when its process goes, so
//! that a new process with the same number goes on where Linux would let it.
//!
//! # Invariants
//!
//! - At most one living process is attached to a domain.
//! - When it dies, its notices go out, its pins in other tables are cleared, its own grants end (or
//!   wait until its peers let go), its ports are closed: in this order.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::sim::memory::MEMORY_SIZE;
use crate::sim::protocol::{Answer, Request, Status};
use crate::sim::table::{Table, TABLE_SIZE};
use crate::{DomId, Error};

use super::handles::Handles;

/// Ports that a domain may have; Xen's older event channels have as many.
const MAX_PORTS: u32 = 4096;
/// Notices that a domain may have asked for: as many as it can have regions.
const MAX_NOTICES: usize = crate::sim::memory::FRAMES;

/// All domains.
pub(super) struct Domains {
    grant_limit: u32,
    pub(super) domains: BTreeMap<DomId, Domain>,
    /// How often a guest's kernel would have broken: see `handles`.
    pub(super) kernel_bugs: u32,
}

pub(super) struct Domain {
    memory: Arc<OwnedFd>,
    table_file: Arc<OwnedFd>,
    pub(super) table: Table,
    /// The connection of its living process.
    pub(super) process: Option<u64>,
    pub(super) ports: BTreeMap<u32, Port>,
    pub(super) handles: Handles,
    /// By the first frame of the region.
    pub(super) notices: BTreeMap<u32, Notice>,
    /// Grants of a dead process that peers still use.
    leftovers: bool,
}

/// One end of an event channel.
pub(super) struct Port {
    /// The handle that bound it.
    pub(super) handle: u32,
    incoming: Arc<OwnedFd>,
    outgoing: Arc<OwnedFd>,
    remote: DomId,
    /// The port at the other end, while somebody has bound it.
    bound: Option<u32>,
}

/// What to do when a region is closed.
#[derive(Clone, Copy, Default)]
pub(super) struct Notice {
    clear: Option<u32>,
    port: Option<u32>,
}

/// An answer with its descriptors.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) fds: Vec<Arc<OwnedFd>>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Reply {
            answer,
            fds: Vec::new(),
        }
    }
}

impl Domains {
    pub(super) fn new(grant_limit: usize) -> Self {
        let grant_limit = u32::try_from(grant_limit).unwrap_or(u32::MAX);
        Domains {
            grant_limit,
            domains: BTreeMap::new(),
            kernel_bugs: 0,
        }
    }

    pub(super) fn any_attached(&self) -> bool {
        self.domains.values().any(|domain| domain.process.is_some())
    }

    /// Answers a question of the process behind this connection.
    pub(super) fn serve(&mut self, process: u64, request: Request) -> Reply {
        let own = self
            .domains
            .iter()
            .find(|(_, domain)| domain.process == Some(process));
        let own = own.map(|(id, _)| *id);
        let result = match (request, own) {
            (Request::Introduce { domain }, _) => self
                .introduce(DomId(domain))
                .map(|_| Answer::okay(0).into()),
            (Request::Attach { domain }, None) => self.attach(process, DomId(domain)),
            (Request::Attach { .. }, Some(_)) => Err(Status::Malformed),
            (_, None) => Err(Status::NotAttached),
            (Request::Foreign { owner }, Some(_)) => self.foreign(DomId(owner)),
            (Request::OpenEvents, Some(own)) => self.open_events(own),
            (Request::BindUnbound { handle, remote }, Some(own)) => self
                .alive(own, handle)
                .and_then(|()| self.bind_unbound(own, handle, DomId(remote))),
            (
                Request::BindInterdomain {
                    handle,
                    remote,
                    port,
                },
                Some(own),
            ) => self
                .alive(own, handle)
                .and_then(|()| self.bind_interdomain(own, handle, DomId(remote), port)),
            (Request::Unbind { handle, port }, Some(own)) => self
                .alive(own, handle)
                .and_then(|()| self.unbind(own, port)),
            (Request::CloseEvents { handle }, Some(own)) => self.close_events(own, handle),
            (Request::ParkEvents { handle }, Some(own)) => self.park_events(own, handle),
            // A toolstack's, which speaks for no domain: see `peers`.
            (Request::Save { .. } | Request::Restore { .. } | Request::KernelBugs, Some(_)) => {
                Err(Status::Malformed)
            }
            (Request::ClearOnClose { frame, at }, Some(own)) => {
                self.set_notice(own, frame, |notice| notice.clear = Some(at))
            }
            (Request::NotifyOnClose { frame, port }, Some(own)) => {
                if self
                    .domains
                    .get(&own)
                    .is_some_and(|domain| domain.ports.contains_key(&port))
                {
                    self.set_notice(own, frame, |notice| notice.port = Some(port))
                } else {
                    return Answer {
                        status: Status::BadPort,
                        value: port,
                    }
                    .into();
                }
            }
            (Request::Closed { frame }, Some(own)) => {
                if let Some(domain) = self.domains.get_mut(&own) {
                    domain.give_notice(frame);
                }
                Ok(Answer::okay(0).into())
            }
        };
        result.unwrap_or_else(|status| Answer::from(status).into())
    }

    fn introduce(&mut self, id: DomId) -> Result<&mut Domain, Status> {
        use std::collections::btree_map::Entry;
        match self.domains.entry(id) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let domain = Domain::new().map_err(|error| {
                    tracing::warn!(%error, domain = id.0, "domain could not be made");
                    Status::Exhausted
                })?;
                Ok(entry.insert(domain))
            }
        }
    }

    fn attach(&mut self, process: u64, id: DomId) -> Result<Reply, Status> {
        let limit = self.grant_limit;
        let domain = self.introduce(id)?;
        if domain.process.is_some() {
            return Err(Status::InUse);
        }
        domain.process = Some(process);
        // The new process looks for leftovers itself.
        domain.sweep();
        domain.leftovers = false;
        tracing::debug!(domain = id.0, "attached");
        Ok(Reply {
            answer: Answer::okay(limit),
            fds: domain.files(),
        })
    }

    fn foreign(&mut self, owner: DomId) -> Result<Reply, Status> {
        let domain = self.domains.get(&owner).ok_or(Status::NoSuchDomain)?;
        Ok(Reply {
            answer: Answer::okay(0),
            fds: domain.files(),
        })
    }

    fn bind_unbound(&mut self, own: DomId, handle: u32, remote: DomId) -> Result<Reply, Status> {
        let domain = self.domains.get_mut(&own).ok_or(Status::NotAttached)?;
        let port = Port {
            handle,
            incoming: event()?,
            outgoing: event()?,
            remote,
            bound: None,
        };
        domain.add_port(port)
    }

    fn bind_interdomain(
        &mut self,
        own: DomId,
        handle: u32,
        remote: DomId,
        port: u32,
    ) -> Result<Reply, Status> {
        let refused = || {
            Ok(Answer {
                status: Status::BadPort,
                value: port,
            }
            .into())
        };
        let Some(far) = self
            .domains
            .get(&remote)
            .and_then(|domain| domain.ports.get(&port))
        else {
            return refused();
        };
        if far.remote != own || far.bound.is_some() {
            return refused();
        }
        let near = Port {
            handle,
            incoming: Arc::clone(&far.outgoing),
            outgoing: Arc::clone(&far.incoming),
            remote,
            bound: Some(port),
        };
        // The peer may have rung before anybody was bound, so the new port is pending at once.
        ring(&near.incoming);
        let domain = self.domains.get_mut(&own).ok_or(Status::NotAttached)?;
        let reply = domain.add_port(near)?;
        let far = self
            .domains
            .get_mut(&remote)
            .and_then(|domain| domain.ports.get_mut(&port));
        if let Some(far) = far {
            far.bound = Some(reply.answer.value);
        }
        Ok(reply)
    }

    pub(super) fn unbind(&mut self, own: DomId, port: u32) -> Result<Reply, Status> {
        let closed = self
            .domains
            .get_mut(&own)
            .and_then(|domain| domain.ports.remove(&port));
        let Some(closed) = closed else {
            return Ok(Answer {
                status: Status::BadPort,
                value: port,
            }
            .into());
        };
        let far = closed.bound.and_then(|bound| {
            self.domains
                .get_mut(&closed.remote)
                .and_then(|domain| domain.ports.get_mut(&bound))
        });
        if let Some(far) = far {
            // What it rings is dropped silently until somebody binds again.
            far.bound = None;
        }
        Ok(Answer::okay(0).into())
    }

    fn set_notice(
        &mut self,
        own: DomId,
        frame: u32,
        set: impl FnOnce(&mut Notice),
    ) -> Result<Reply, Status> {
        let domain = self.domains.get_mut(&own).ok_or(Status::NotAttached)?;
        if domain.notices.len() >= MAX_NOTICES {
            return Err(Status::Exhausted);
        }
        set(domain.notices.entry(frame).or_default());
        Ok(Answer::okay(0).into())
    }

    /// The connection of a process is gone, and with it the process.
    pub(super) fn died(&mut self, process: u64) {
        let died = self
            .domains
            .iter_mut()
            .find(|(_, domain)| domain.process == Some(process));
        let Some((id, domain)) = died else { return };
        let id = *id;
        domain.process = None;
        while let Some(frame) = domain.notices.keys().next().copied() {
            domain.give_notice(frame);
        }
        for other in self.domains.values() {
            other.table.clear_pins_of(id);
        }
        if let Some(domain) = self.domains.get_mut(&id) {
            // The kernel closes what is open: the last close of each handle that is not parked.
            self.kernel_bugs += domain.handles.end();
            domain.leftovers = true;
            domain.sweep();
            let ports: Vec<u32> = domain.ports.keys().copied().collect();
            for port in ports {
                let _ = self.unbind(id, port);
            }
        }
        tracing::debug!(domain = id.0, "detached");
    }

    /// Ends grants of dead processes whose peers have let go by now.
    pub(super) fn sweep(&mut self) {
        for domain in self.domains.values_mut() {
            domain.sweep();
        }
    }
}

impl Domain {
    fn new() -> Result<Self, Error> {
        let memory = memory_file("domain-memory", MEMORY_SIZE)?;
        let table_file = memory_file("grant-table", TABLE_SIZE)?;
        let table = Table::new(&table_file)?;
        Ok(Domain {
            memory: Arc::new(memory),
            table_file: Arc::new(table_file),
            table,
            process: None,
            ports: BTreeMap::new(),
            handles: Handles::default(),
            notices: BTreeMap::new(),
            leftovers: false,
        })
    }

    fn files(&self) -> Vec<Arc<OwnedFd>> {
        vec![Arc::clone(&self.memory), Arc::clone(&self.table_file)]
    }

    fn add_port(&mut self, port: Port) -> Result<Reply, Status> {
        let free = (1..MAX_PORTS).find(|number| !self.ports.contains_key(number));
        let number = free.ok_or(Status::Exhausted)?;
        let fds = vec![Arc::clone(&port.incoming), Arc::clone(&port.outgoing)];
        self.ports.insert(number, port);
        Ok(Reply {
            answer: Answer::okay(number),
            fds,
        })
    }

    fn give_notice(&mut self, frame: u32) {
        let Some(notice) = self.notices.remove(&frame) else {
            return;
        };
        if let Some(at) = notice.clear {
            // Beyond the end the file is sealed, so this can only fail, never grow it.
            let _ = rustix::io::pwrite(&*self.memory, &[0], at.into());
        }
        if let Some(port) = notice.port.and_then(|port| self.ports.get(&port)) {
            ring(&port.outgoing);
        }
    }

    fn sweep(&mut self) {
        if self.leftovers && self.table.end_all() {
            self.leftovers = false;
        }
    }
}

/// A file of zeroes that lives in memory and never changes its size: who maps it can touch all of
/// it without a fault.
pub(crate) fn memory_file(name: &str, size: usize) -> Result<OwnedFd, Error> {
    let failed = |errno| Error::system(format!("make {size} bytes of simulated memory"), errno);
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags).map_err(failed)?;
    rustix::fs::ftruncate(&file, size as u64).map_err(failed)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
    Ok(file)
}

fn event() -> Result<Arc<OwnedFd>, Status> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map(Arc::new)
        .map_err(|_| Status::Exhausted)
}

fn ring(event: &OwnedFd) {
    // A full counter is pending anyway.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}
