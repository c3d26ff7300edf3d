//! TAPs in other network namespaces, so that one machine can play two.
//!
//! A thread belongs to one network namespace, and `/dev/net/tun` makes interfaces in that of the
//! thread that opens it; afterwards the descriptor works from anywhere. So a short-lived thread
//! enters the namespace, opens what is wanted there, and ends: the caller's threads never move.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, open, stat, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{move_into_link_name_space, LinkNameSpaceType};

use crate::{ioctl, Error, Tap, TapOptions};

/// The path of a namespace: a name as `ip netns add NAME` gives it, or a path, which has a `/`.
pub fn path(namespace: &str) -> PathBuf {
    if namespace.contains('/') {
        PathBuf::from(namespace)
    } else {
        Path::new("/run/netns").join(namespace)
    }
}

/// Runs `work` on a new thread inside `namespace` (a name or a path) and waits for its result.
/// Threads and programs that `work` starts are in that namespace too.
///
/// # Errors
/// [`Error::Namespace`] when it cannot be entered, [`Error::Thread`] when the thread cannot be
/// started or panics.
pub fn run_in<T, F>(namespace: &str, work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    run_behind(&link(namespace)?, namespace, work)
}

/// [`run_in`] for a namespace that is open already; `label` is what errors call it.
pub(crate) fn run_behind<T, F>(link: &OwnedFd, label: &str, work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> T + Send,
{
    let failed = |reason: String| Error::Thread {
        namespace: label.to_owned(),
        reason,
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || enter_link(link, label).map(|()| work()))
            .map_err(|error| failed(error.to_string()))?
            .join()
            .unwrap_or_else(|_| Err(failed("it panicked".to_owned())))
    })
}

/// Moves the calling thread, and only it, into a namespace, for good.
///
/// # Errors
/// [`Error::Namespace`] when there is none of that name, or without CAP_SYS_ADMIN.
pub fn enter(namespace: &str) -> Result<(), Error> {
    enter_link(&link(namespace)?, namespace)
}

/// Whether it is that of the calling thread.
pub(crate) fn is_own(link: &OwnedFd) -> bool {
    match (fstat(link), stat("/proc/thread-self/ns/net")) {
        (Ok(that), Ok(own)) => (that.st_dev, that.st_ino) == (own.st_dev, own.st_ino),
        _ => false,
    }
}

fn link(namespace: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    open(path(namespace), flags, Mode::empty()).map_err(|source| refused(namespace, source))
}

fn enter_link(link: &OwnedFd, label: &str) -> Result<(), Error> {
    move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|source| refused(label, source))
}

fn refused(namespace: &str, source: Errno) -> Error {
    Error::Namespace {
        namespace: namespace.to_owned(),
        source,
    }
}

/// Moves the calling thread, and only it, into a new network namespace that has nothing but a
/// loopback interface that is down. It ends with its last thread, interface and open file.
///
/// # Errors
/// [`Error::Namespace`] without CAP_SYS_ADMIN, or where the kernel allows no more of them.
pub fn enter_new() -> Result<(), Error> {
    ioctl::unshare_network().map_err(|source| refused("(a new one)", source))
}

/// [`Tap::open`] in another network namespace.
///
/// # Errors
/// As [`run_in`] and [`Tap::open`].
pub fn open_tap(namespace: &str, options: TapOptions) -> Result<Tap, Error> {
    run_in(namespace, || Tap::open(options))?
}
