//! The sockets of the simulated Xen.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::peers::Peers;
use crate::{sim, unix, DomId, Error, Lack};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// What the server listens on, and the lock that makes it the only one.
pub(super) struct Listening {
    socket: PathBuf,
    control: OwnedFd,
    stores: Vec<(DomId, OwnedFd)>,
    lock: (PathBuf, File),
}

impl Listening {
    pub(super) fn bind(socket: &Path) -> Result<Self, Error> {
        // The longest name of all is asked for first, before anything is made.
        unix::address(&sim::store_socket(socket, DomId(u16::MAX)))?;
        let lock = lock(socket)?;
        let control = listen(socket, SocketType::SEQPACKET)?;
        Ok(Listening {
            socket: socket.to_owned(),
            control,
            stores: Vec::new(),
            lock,
        })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Listens for the store connections of a domain, unless it does so already.
    pub(super) fn open_store(&mut self, domain: DomId) -> Result<(), Error> {
        if self.stores.iter().all(|(id, _)| *id != domain) {
            let listener = listen(&sim::store_socket(&self.socket, domain), SocketType::STREAM)?;
            self.stores.push((domain, listener));
        }
        Ok(())
    }

    /// All listeners, the one for hypercalls first.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.control.as_fd()).chain(self.stores.iter().map(|(_, fd)| fd.as_fd()))
    }

    /// Takes one connection from each listener that has some, in the order of [`fds`](Self::fds).
    /// There may be more listeners by now than there were.
    pub(super) fn accept(&self, ready: &[PollFlags], peers: &mut Peers) {
        let store_domains =
            std::iter::once(None).chain(self.stores.iter().map(|(id, _)| Some(*id)));
        for ((fd, domain), ready) in self.fds().zip(store_domains).zip(ready) {
            if ready.is_empty() || domain.is_some_and(|domain| peers.is_saved(domain)) {
                continue;
            }
            match rustix::net::accept_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(connection) => match domain {
                    None => peers.add_control(connection),
                    Some(domain) => peers.add_store(connection, domain),
                },
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "a connection could not be accepted");
                    // With no descriptor left this would be tried again at once, and again.
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        for (domain, _) in &self.stores {
            let _ = std::fs::remove_file(sim::store_socket(&self.socket, *domain));
        }
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_file(&self.lock.0);
    }
}

/// Makes a socket file and listens. Replaces a socket on which nobody listens any more.
fn listen(path: &Path, kind: SocketType) -> Result<OwnedFd, Error> {
    let address = unix::address(path)?;
    let failed = |errno| Error::system(format!("listen on {}", path.display()), errno);
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) => {
            // The lock keeps other simulations away, not other services.
            if unix::is_listening(path) {
                return Err(Error::Invalid {
                    what: format!(
                        "Another service listens on {}; choose another path",
                        path.display()
                    ),
                });
            }
            std::fs::remove_file(path).map_err(|source| {
                Error::system(
                    format!("remove the stale socket {}", path.display()),
                    source,
                )
            })?;
        }
        Ok(_) => {
            return Err(Error::Invalid {
                what: format!(
                    "{} exists and is no socket; remove it or choose another path",
                    path.display()
                ),
            });
        }
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    Ok(socket)
}

/// Takes the lock beside `socket`. It goes when this process goes, however it goes.
fn lock(socket: &Path) -> Result<(PathBuf, File), Error> {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let failed = |source| Error::system(format!("make the lock {}", path.display()), source);
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::Unavailable {
                    lack: Lack::Here,
                    wanted: format!("The socket {}", socket.display()),
                    found: "another simulated Xen serves there".into(),
                    hint: "use that one, stop it, or choose another path".into(),
                });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        // The server before may have removed the file between our opening and locking it: then the
        // lock is on a file that nobody else will find.
        let ours = file.metadata().map_err(failed)?.ino();
        if std::fs::metadata(&path).is_ok_and(|found| found.ino() == ours) {
            return Ok((path, file));
        }
    }
}
