//! Who is connected: processes of domains on the hypercall socket, and store connections.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::domains::{Domains, Reply};
use super::listen::Listening;
use super::store::StoreServer;
use crate::sim::protocol::{self, Answer, Request, Status};
use crate::store::wire::Framer;
use crate::{unix, DomId};

/// Bytes that may wait for a store client. Who does not read that much is cut off.
const MAX_WAITING: usize = 1 << 20;
/// With so many bytes waiting, nothing more is read from the client.
const ENOUGH_WAITING: usize = 1 << 16;

/// All connections.
pub(super) struct Peers {
    domains: Domains,
    store: StoreServer,
    /// Oldest first, so that who hangs up is served before who takes its place.
    connections: Vec<Connection>,
    next: u64,
    saved: Saved,
}

/// Domains that are saved, and what became of those that were.
#[derive(Default)]
struct Saved {
    /// Its process, if it has one.
    standing: BTreeMap<DomId, Option<u64>>,
    /// The number under which a restored domain goes on: its process may not know yet.
    moved: BTreeMap<DomId, DomId>,
}

impl Saved {
    fn now(&self, mut domain: DomId) -> DomId {
        while let Some(next) = self.moved.get(&domain) {
            domain = *next;
        }
        domain
    }

    fn stands_still(&self, process: u64) -> bool {
        self.standing.values().any(|one| *one == Some(process))
    }
}

struct Connection {
    id: u64,
    file: OwnedFd,
    kind: Kind,
}

enum Kind {
    Control,
    Store(Framer),
}

impl Peers {
    pub(super) fn new(grant_limit: usize) -> Self {
        Peers {
            domains: Domains::new(grant_limit),
            store: StoreServer::new(),
            connections: Vec::new(),
            next: 0,
            saved: Saved::default(),
        }
    }

    /// Whether connections of this domain to the store wait until it is restored.
    pub(super) fn is_saved(&self, domain: DomId) -> bool {
        self.saved.standing.contains_key(&self.saved.now(domain))
    }

    pub(super) fn any_attached(&self) -> bool {
        self.domains.any_attached()
    }

    pub(super) fn sweep(&mut self) {
        self.domains.sweep();
    }

    pub(super) fn add_control(&mut self, file: OwnedFd) {
        self.add(file, Kind::Control);
    }

    pub(super) fn add_store(&mut self, file: OwnedFd, domain: DomId) {
        self.store.connect(self.next, self.saved.now(domain));
        self.add(file, Kind::Store(Framer::default()));
    }

    fn add(&mut self, file: OwnedFd, kind: Kind) {
        self.connections.push(Connection {
            id: self.next,
            file,
            kind,
        });
        self.next += 1;
    }

    /// What to wait for, one entry a connection.
    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.connections.iter().map(|connection| {
            let flags = match connection.kind {
                // Only its end is seen.
                _ if self.stands_still(connection) => PollFlags::empty(),
                Kind::Control => PollFlags::IN,
                Kind::Store(_) => match self.store.waiting(connection.id) {
                    0 => PollFlags::IN,
                    waiting if waiting < ENOUGH_WAITING => PollFlags::IN | PollFlags::OUT,
                    _ => PollFlags::OUT,
                },
            };
            PollFd::from_borrowed_fd(connection.file.as_fd(), flags)
        })
    }

    fn stands_still(&self, connection: &Connection) -> bool {
        match connection.kind {
            Kind::Control => self.saved.stands_still(connection.id),
            Kind::Store(_) => self.store.is_saved(connection.id),
        }
    }

    /// Serves the connections for which `ready` tells something, in the order of
    /// [`fds`](Self::fds).
    pub(super) fn serve(&mut self, ready: &[PollFlags], listening: &mut Listening) {
        let Peers {
            domains,
            store,
            connections,
            saved,
            ..
        } = self;
        let mut ready = ready.iter();
        connections.retain_mut(|connection| {
            let ready = ready.next().copied().unwrap_or(PollFlags::empty());
            if ready.is_empty() {
                return true;
            }
            let (id, file) = (connection.id, connection.file.as_fd());
            // It may have been saved in this very round.
            let still = match connection.kind {
                Kind::Control => saved.stands_still(id),
                Kind::Store(_) => store.is_saved(id),
            };
            if still && !ready.intersects(PollFlags::HUP | PollFlags::ERR) {
                return true;
            }
            let keep = match &mut connection.kind {
                Kind::Control => serve_control(id, file, domains, store, listening, saved),
                Kind::Store(framer) => serve_store(id, file, framer, store, ready),
            };
            if !keep {
                match connection.kind {
                    Kind::Control => domains.died(id),
                    Kind::Store(_) => store.disconnect(id),
                }
            }
            keep
        });
        // An answer to one client may have made events for others: they go out at once, not at
        // the next round.
        connections.retain(|connection| {
            let waiting =
                matches!(connection.kind, Kind::Store(_)) && store.waiting(connection.id) > 0;
            let keep = !waiting || flush(connection.id, connection.file.as_fd(), store);
            if !keep {
                store.disconnect(connection.id);
            }
            keep
        });
    }
}

/// One question of a process; `false` when it is gone.
fn serve_control(
    id: u64,
    file: BorrowedFd<'_>,
    domains: &mut Domains,
    store: &mut StoreServer,
    listening: &mut Listening,
    saved: &mut Saved,
) -> bool {
    let request = match protocol::question(file) {
        Ok(None) => return false,
        Ok(Some(request)) => request,
        Err(Errno::AGAIN | Errno::INTR) => return true,
        Err(_) => return false,
    };
    let reply = match request {
        Err(status) => Reply::from(Answer::from(status)),
        Ok(Request::KernelBugs) => Answer::okay(domains.kernel_bugs).into(),
        Ok(Request::Save { domain }) => save(DomId(domain), domains, store, saved).into(),
        Ok(Request::Restore { domain, number }) => {
            let (domain, number) = (DomId(domain), DomId(number));
            if let Err(error) = listening.open_store(number) {
                tracing::warn!(%error, number = number.0, "no store for this domain");
                return protocol::answer(file, Status::Exhausted.into(), &[]).is_ok();
            }
            restore(domain, number, domains, store, saved).into()
        }
        Ok(request) => {
            if let Request::Introduce { domain } | Request::Attach { domain } = request {
                if let Err(error) = listening.open_store(DomId(domain)) {
                    tracing::warn!(%error, domain, "no store for this domain");
                    return protocol::answer(file, Status::Exhausted.into(), &[]).is_ok();
                }
                store.introduce(DomId(domain));
                saved.moved.remove(&DomId(domain));
            }
            domains.serve(id, request)
        }
    };
    let fds: Vec<BorrowedFd<'_>> = reply.fds.iter().map(|fd| fd.as_fd()).collect();
    // A client asks one question at a time, so its socket always has room for the answer.
    protocol::answer(file, reply.answer, &fds).is_ok()
}

fn save(
    domain: DomId,
    domains: &mut Domains,
    store: &mut StoreServer,
    saved: &mut Saved,
) -> Answer {
    let process = match domains.domains.get(&domain) {
        Some(found) if !saved.standing.contains_key(&domain) => found.process,
        _ => return Status::NoSuchDomain.into(),
    };
    match domains.save(domain) {
        Ok(()) => {
            store.save(domain);
            saved.standing.insert(domain, process);
            Answer::okay(0)
        }
        Err(status) => status.into(),
    }
}

fn restore(
    domain: DomId,
    number: DomId,
    domains: &mut Domains,
    store: &mut StoreServer,
    saved: &mut Saved,
) -> Answer {
    if !saved.standing.contains_key(&domain) {
        return Status::NoSuchDomain.into();
    }
    if let Err(status) = domains.restore(domain, number) {
        return status.into();
    }
    store.restore(domain, number);
    saved.standing.remove(&domain);
    saved.moved.remove(&number);
    if number != domain {
        saved.moved.insert(domain, number);
    }
    Answer::okay(0)
}

/// What a store client has sent; `false` when it is gone or speaks nonsense.
fn serve_store(
    id: u64,
    file: BorrowedFd<'_>,
    framer: &mut Framer,
    store: &mut StoreServer,
    ready: PollFlags,
) -> bool {
    if !ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
        return true;
    }
    if store.waiting(id) < ENOUGH_WAITING {
        // One read a round: nobody keeps the others waiting.
        let mut buffer = [0; 8192];
        match rustix::io::read(file, &mut buffer) {
            Ok(0) => return false,
            Ok(read) => framer.push(&buffer[..read]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    loop {
        match framer.next_message() {
            Ok(Some(message)) => store.serve(id, &message),
            Ok(None) => return true,
            Err(too_long) => {
                tracing::debug!(%too_long, "a store client is cut off");
                return false;
            }
        }
    }
}

/// Sends what waits for a store client; `false` when it cannot be served any more.
fn flush(id: u64, file: BorrowedFd<'_>, store: &mut StoreServer) -> bool {
    while store.waiting(id) > 0 {
        match unix::write_quietly(file, store.output(id)) {
            Ok(0) => return false,
            Ok(sent) => store.sent(id, sent),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(_) => return false,
        }
    }
    store.waiting(id) <= MAX_WAITING
}
