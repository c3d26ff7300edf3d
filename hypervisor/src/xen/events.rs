//! Event channels through libxenevtchn: one handle, one thread.
//!
//! UNSAFETY: calls into a C library, with a handle that lives exactly as long as [`Handle`].
//!
//! After a restore or a migration every port of a handle is dead, and the kernel breaks when the old
//! handle is used or closed. Nothing here can see that; who finds out parks the handle.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{retry_on_intr, Errno};
use xen_sys::evtchn::{xenevtchn_handle, EventChannel};

use super::device::Device;
use super::keeper;
use super::library::{self, answer};
use crate::counters::add;
use crate::{Counters, DomId, Error, Port};

/// Ports taken from the kernel by one read.
const BATCH: usize = 64;

/// An open handle and the ports bound through it.
pub(crate) struct Handle {
    library: &'static EventChannel,
    handle: NonNull<xenevtchn_handle>,
    /// Few, so a list is searched faster than a map. The kernel silently takes an unmask of a port
    /// that is not ours; with this list it is told.
    bound: Vec<Port>,
    counters: Arc<Counters>,
}

// SAFETY: the library does not tie a handle to a thread; it is not shared, since it is not `Sync`.
unsafe impl Send for Handle {}

impl Handle {
    /// Opens the device. Linux names the interrupts of all its ports after the calling thread.
    pub(crate) fn open(counters: Arc<Counters>) -> Result<Handle, Error> {
        let library = library::event_channel()?;
        // SAFETY: the logger lives for ever.
        let handle = unsafe { library.xenevtchn_open(library::logger(), 0) };
        let handle = NonNull::new(handle)
            .ok_or_else(|| Device::Evtchn.refused(io::Error::last_os_error()))?;
        let handle = Handle {
            library,
            handle,
            bound: Vec::new(),
            counters,
        };
        // Newer libraries do this themselves. A program that we start must not hold our ports.
        rustix::io::fcntl_setfd(handle.as_fd(), rustix::io::FdFlags::CLOEXEC)
            .map_err(|error| Error::system("set close-on-exec on /dev/xen/evtchn", error))?;
        Ok(handle)
    }

    pub(crate) fn bind_unbound(&mut self, remote: DomId) -> Result<Port, Error> {
        self.count_hypercall();
        // SAFETY: the handle is open.
        let port = unsafe {
            self.library
                .xenevtchn_bind_unbound_port(self.handle.as_ptr(), u32::from(remote.0))
        };
        self.took(port).map_err(|source| {
            Error::system(format!("make an event channel for domain {remote}"), source)
        })
    }

    pub(crate) fn bind_interdomain(
        &mut self,
        remote: DomId,
        remote_port: Port,
    ) -> Result<Port, Error> {
        self.count_hypercall();
        // SAFETY: the handle is open.
        let port = unsafe {
            self.library.xenevtchn_bind_interdomain(
                self.handle.as_ptr(),
                u32::from(remote.0),
                remote_port.0,
            )
        };
        self.took(port)
            .map_err(|source| match Errno::from_io_error(&source) {
                Some(Errno::SRCH) => Error::NoSuchDomain { id: remote },
                _ => Error::BadPort {
                    port: remote_port,
                    reason: format!("domain {remote} does not offer it to this domain ({source})"),
                },
            })
    }

    pub(crate) fn notify(&self, port: Port) -> Result<(), Error> {
        self.count_hypercall();
        // SAFETY: the handle is open; the kernel refuses a port that is not bound through it.
        let result = unsafe { self.library.xenevtchn_notify(self.handle.as_ptr(), port.0) };
        answer(result).map_err(|source| bad_port(port, &source))?;
        add(&self.counters.notifications, 1);
        Ok(())
    }

    /// Never blocks: the device has always ignored O_NONBLOCK in some kernels, so it is polled
    /// first. All ports come with one read, not by the library's call for each.
    pub(crate) fn pending(&mut self, ports: &mut Vec<Port>) -> Result<(), Error> {
        let mut bytes = [0_u8; BATCH * 4];
        loop {
            add(&self.counters.system_calls, 1);
            let mut polled = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let ready = retry_on_intr(|| poll(&mut polled, Some(&now)))
                .map_err(|error| Error::system("look for pending event channels", error))?;
            if ready == 0 {
                return Ok(());
            }
            add(&self.counters.system_calls, 1);
            // After POLLERR this says EFBIG: the kernel's queue ran over, which it cannot while each
            // port that was read stays masked.
            let read = retry_on_intr(|| rustix::io::read(self.as_fd(), &mut bytes))
                .map_err(|error| Error::system("read pending event channels", error))?;
            let told = bytes[..read]
                .chunks_exact(4)
                .filter_map(|port| port.try_into().ok());
            // A port unbound since its event came is nobody's any more.
            ports.extend(
                told.map(u32::from_ne_bytes)
                    .map(Port)
                    .filter(|p| self.bound.contains(p)),
            );
            if read < bytes.len() {
                return Ok(());
            }
        }
    }

    pub(crate) fn unmask(&self, port: Port) -> Result<(), Error> {
        if !self.bound.contains(&port) {
            return Err(bad_port(port, &io::Error::from(Errno::NOTCONN)));
        }
        add(&self.counters.system_calls, 1);
        // SAFETY: the handle is open.
        let result = unsafe { self.library.xenevtchn_unmask(self.handle.as_ptr(), port.0) };
        answer(result).map_err(|source| bad_port(port, &source))
    }

    pub(crate) fn unbind(&mut self, port: Port) -> Result<(), Error> {
        self.count_hypercall();
        // SAFETY: the handle is open; the kernel refuses a port that is not bound through it.
        let result = unsafe { self.library.xenevtchn_unbind(self.handle.as_ptr(), port.0) };
        answer(result).map_err(|source| bad_port(port, &source))?;
        self.bound.retain(|bound| *bound != port);
        Ok(())
    }

    /// Gives the open file to this process's keeper, so that no close of ours is its last. When none can be started
    /// the handle stays open for ever. Tells the keeper's process number.
    pub(crate) fn park(self) -> Result<u32, Error> {
        let kept = self
            .as_fd()
            .try_clone_to_owned()
            .and_then(keeper::keep)
            .map_err(|source| Error::system("start a process that keeps event channels", source));
        if kept.is_err() {
            std::mem::forget(self);
        }
        kept
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the handle, and the borrow is bound to `self`.
        unsafe { BorrowedFd::borrow_raw(self.library.xenevtchn_fd(self.handle.as_ptr())) }
    }

    /// What a bind answered: a port, or -1 and the reason in errno.
    fn took(&mut self, answer: std::ffi::c_int) -> io::Result<Port> {
        let port = u32::try_from(answer)
            .map(Port)
            .map_err(|_| io::Error::last_os_error())?;
        self.bound.push(port);
        Ok(port)
    }

    fn count_hypercall(&self) {
        add(&self.counters.hypercalls, 1);
        add(&self.counters.system_calls, 1);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nothing else holds the handle. The kernel unbinds every port of it.
        unsafe { self.library.xenevtchn_close(self.handle.as_ptr()) };
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("bound", &self.bound)
            .finish_non_exhaustive()
    }
}

fn bad_port(port: Port, source: &io::Error) -> Error {
    let reason = match Errno::from_io_error(source) {
        Some(Errno::NOTCONN | Errno::INVAL) => "it is not bound through this handle".into(),
        _ => source.to_string(),
    };
    Error::BadPort { port, reason }
}
