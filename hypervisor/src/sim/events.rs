//! Event channels on eventfds: one a direction, so that to ring is one write.
//!
//! A port is in an epoll set with `ONESHOT`: told once, it is silent until it is armed again, which
//! is what /dev/xen/evtchn does by masking. Its counter keeps what came meanwhile.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::Timespec;
use rustix::io::Errno;

use super::attachment::Attachment;
use super::protocol::{Answered, Request};
use crate::counters::add;
use crate::{DomId, Error, Port};

/// Ports taken out of the set with one system call.
const BATCH: usize = 64;
const ARMED: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

/// The ports of one thread.
#[derive(Debug)]
pub(crate) struct Handle {
    attachment: Arc<Attachment>,
    /// Its number at the server, which knows whose ports are dead after a restore.
    number: u32,
    parked: bool,
    set: OwnedFd,
    ports: BTreeMap<u32, Ends>,
}

#[derive(Debug)]
struct Ends {
    /// Written by the peer.
    incoming: OwnedFd,
    /// Read by the peer.
    outgoing: OwnedFd,
}

impl Handle {
    pub(crate) fn open(attachment: Arc<Attachment>) -> Result<Self, Error> {
        let set = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|errno| Error::system("make a set of event channels", errno))?;
        let answered = attachment.ask(Request::OpenEvents)?;
        let (number, _) = answered.okay(attachment.id())?;
        Ok(Handle {
            attachment,
            number,
            parked: false,
            set,
            ports: BTreeMap::new(),
        })
    }

    pub(crate) fn bind_unbound(&mut self, remote: DomId) -> Result<Port, Error> {
        let answered = self.attachment.ask(Request::BindUnbound {
            handle: self.number,
            remote: remote.0,
        })?;
        self.bound(remote, answered)
    }

    pub(crate) fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Port, Error> {
        let request = Request::BindInterdomain {
            handle: self.number,
            remote: remote.0,
            port: port.0,
        };
        let answered = self.attachment.ask(request)?;
        self.bound(self.attachment.id(), answered)
    }

    fn bound(&mut self, domain: DomId, answered: Answered) -> Result<Port, Error> {
        let (port, incoming, outgoing) = answered.pair(domain)?;
        let data = EventData::new_u64(port.into());
        let added = epoll::add(&self.set, &incoming, data, ARMED);
        self.ports.insert(port, Ends { incoming, outgoing });
        add(&self.attachment.counters.hypercalls, 1);
        add(&self.attachment.counters.system_calls, 1);
        if let Err(errno) = added {
            self.unbind(Port(port))?;
            return Err(Error::system("add an event channel to its set", errno));
        }
        Ok(Port(port))
    }

    fn ends(&self, port: Port) -> Result<&Ends, Error> {
        self.ports.get(&port.0).ok_or_else(|| not_bound(port))
    }

    pub(crate) fn notify(&self, port: Port) -> Result<(), Error> {
        let ends = self.ends(port)?;
        let counters = &self.attachment.counters;
        add(&counters.hypercalls, 1);
        add(&counters.notifications, 1);
        add(&counters.system_calls, 1);
        match rustix::io::write(&ends.outgoing, &1u64.to_ne_bytes()) {
            // The counter is full, so the port is pending as much as it can be.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Error::system(
                format!("notify through event channel {port}"),
                errno,
            )),
        }
    }

    pub(crate) fn pending(&mut self, ports: &mut Vec<Port>) -> Result<(), Error> {
        let mut room = [const { MaybeUninit::<Event>::uninit() }; BATCH];
        loop {
            add(&self.attachment.counters.system_calls, 1);
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let told = match epoll::wait(&self.set, &mut room, Some(&now)) {
                Ok((told, _)) => told,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::system("read pending event channels", errno)),
            };
            for event in &*told {
                let Some((port, ends)) = u32::try_from(event.data.u64())
                    .ok()
                    .and_then(|port| self.ports.get_key_value(&port))
                else {
                    continue;
                };
                // Clears the counter. Whether it was set is all the same: the port is told and
                // masked, so it must be given to who will unmask it.
                let _ = rustix::io::read(&ends.incoming, &mut [0; 8]);
                add(&self.attachment.counters.system_calls, 1);
                ports.push(Port(*port));
            }
            if told.len() < BATCH {
                return Ok(());
            }
        }
    }

    pub(crate) fn unmask(&self, port: Port) -> Result<(), Error> {
        let ends = self.ends(port)?;
        add(&self.attachment.counters.system_calls, 1);
        epoll::modify(
            &self.set,
            &ends.incoming,
            EventData::new_u64(port.0.into()),
            ARMED,
        )
        .map_err(|errno| Error::system(format!("unmask event channel {port}"), errno))
    }

    pub(crate) fn unbind(&mut self, port: Port) -> Result<(), Error> {
        let ends = self.ports.remove(&port.0).ok_or_else(|| not_bound(port))?;
        // The server and the peer hold the same eventfd, so closing ours would leave it in the set.
        let _ = epoll::delete(&self.set, &ends.incoming);
        add(&self.attachment.counters.hypercalls, 1);
        add(&self.attachment.counters.system_calls, 1);
        let answered = self.attachment.ask(Request::Unbind {
            handle: self.number,
            port: port.0,
        })?;
        answered.okay(self.attachment.id()).map(drop)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

impl Handle {
    /// Stands for the keeper: from now on the server knows that no close of this handle is its last.
    /// There is no such process, so its number is 0.
    pub(crate) fn park(mut self) -> Result<u32, Error> {
        let request = Request::ParkEvents {
            handle: self.number,
        };
        let answered = self.attachment.ask(request);
        self.parked = true;
        answered?.okay(self.attachment.id()).map(|_| 0)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.parked {
            return;
        }
        add(
            &self.attachment.counters.hypercalls,
            self.ports.len() as u64,
        );
        let request = Request::CloseEvents {
            handle: self.number,
        };
        if let Err(error) = self.attachment.ask(request) {
            // A simulated Xen that is gone has closed all channels.
            tracing::debug!(%error, "event channels were not closed in order");
        }
    }
}

fn not_bound(port: Port) -> Error {
    Error::BadPort {
        port,
        reason: "it is not bound through this handle".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::server::{self, Options};
    use crate::sim::{kernel_bugs, save};

    /// Without the facade, which knows better: this is what Linux would break at.
    #[test]
    fn each_use_of_a_handle_with_dead_ports_and_its_close_is_counted_and_a_parked_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("xen");
        let _server = server::spawn(&socket, Options::new()).unwrap();
        let attachment = Attachment::new(&socket, DomId(1), Arc::default()).unwrap();
        let open = || Handle::open(Arc::clone(&attachment)).unwrap();
        let (mut used, mut parked, unbound) = (open(), open(), open());
        let port = used.bind_unbound(DomId(0)).unwrap();
        parked.bind_unbound(DomId(0)).unwrap();
        save(&socket, DomId(1)).unwrap().restore(DomId(2)).unwrap();
        let bugs = || kernel_bugs(&socket).unwrap();
        used.notify(port).unwrap();
        used.unmask(port).unwrap();
        drop(unbound);
        assert_eq!(bugs(), 0, "these do no harm");
        assert!(used.bind_unbound(DomId(0)).is_err());
        assert_eq!(bugs(), 1);
        assert!(used.unbind(port).is_err());
        assert_eq!(bugs(), 2);
        drop(used);
        assert_eq!(bugs(), 3);
        assert_eq!(parked.park().unwrap(), 0);
        assert_eq!(bugs(), 3);
        // What the kernel closes when the process ends.
        let mut left = open();
        left.bind_unbound(DomId(0)).unwrap();
        save(&socket, DomId(2)).unwrap().restore(DomId(2)).unwrap();
        left.parked = true;
        drop(left);
        drop(attachment);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while bugs() < 4 {
            assert!(std::time::Instant::now() < until);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
