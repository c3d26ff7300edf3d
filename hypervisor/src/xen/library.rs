//! The libraries, loaded once, and the calls that they make on the grant devices.
//!
//! UNSAFETY: every call into a C library. What holds for all of them: a handle is not null, it is
//! closed only by the drop of the value that holds it, and on Linux the libraries do not change a
//! handle after they opened it (they read its descriptor and its logger), so calls may be made from
//! several threads.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use xen_sys::ctrl::{xc_domaininfo_t, xc_interface, Control};
use xen_sys::evtchn::EventChannel;
use xen_sys::gnttab::{xengntdev_handle, xengnttab_grant_copy_segment_t, GrantTable};
use xen_sys::toollog::{__va_list_tag, xentoollog_level, xentoollog_logger};
use xen_sys::{Library, LoadError};

use super::device::Device;
use crate::{Access, DomId, Error, GrantRef, Lack, Port};

/// What the hypervisor says of one domain.
pub(super) type DomainRecord = xc_domaininfo_t;

/// One operation of a batch of copies, as the kernel takes it.
pub(super) type Segment = xengnttab_grant_copy_segment_t;

/// The functions of libxengnttab.
fn grant_table() -> Result<&'static GrantTable, Error> {
    static TABLE: OnceLock<GrantTable> = OnceLock::new();
    loaded(&TABLE)
}

/// The functions of libxenevtchn.
pub(super) fn event_channel() -> Result<&'static EventChannel, Error> {
    static TABLE: OnceLock<EventChannel> = OnceLock::new();
    loaded(&TABLE)
}

/// The functions of libxenctrl, of the one release whose structures this program knows.
fn control() -> Result<&'static Control, Error> {
    static TABLE: OnceLock<Control> = OnceLock::new();
    loaded(&TABLE).map_err(|error| match error {
        Error::Unavailable {
            lack,
            wanted,
            found,
            ..
        } => Error::Unavailable {
            lack,
            wanted,
            found,
            hint: format!(
                "install the Debian package {}; this program reads the lists of no other release of Xen",
                Control::PACKAGE
            ),
        },
        other => other,
    })
}

/// Loads what every domain needs, and tells of each library how that went.
pub(super) fn load() -> [(&'static str, Result<(), Error>); 2] {
    [
        (GrantTable::SONAME, grant_table().map(|_| ())),
        (EventChannel::SONAME, event_channel().map(|_| ())),
    ]
}

/// A failure is not kept: the package may be installed while we run.
fn loaded<L: Library>(table: &'static OnceLock<L>) -> Result<&'static L, Error> {
    if let Some(table) = table.get() {
        return Ok(table);
    }
    let library = L::load().map_err(|error| {
        let (found, hint) = match &error {
            LoadError::TooOld { source, .. } => (
                format!("it lacks a function ({source})"),
                format!("install a newer {}", L::PACKAGE),
            ),
            other => (
                std::error::Error::source(other).map_or("nothing".into(), ToString::to_string),
                format!(
                    "install the Debian package {}, or what your distribution calls it",
                    L::PACKAGE
                ),
            ),
        };
        Error::Unavailable {
            lack: Lack::Setting,
            wanted: format!("The library {}", L::SONAME),
            found,
            hint,
        }
    })?;
    Ok(table.get_or_init(|| library))
}

/// A logger that says nothing. Without one the libraries print to stderr, where a peer's mistakes
/// would fill the journal; what they would say is in the error we return.
pub(super) fn logger() -> *mut xentoollog_logger {
    unsafe extern "C" fn say_nothing(
        _: *mut xentoollog_logger,
        _: xentoollog_level,
        _: c_int,
        _: *const c_char,
        _: *const c_char,
        _: *mut __va_list_tag,
    ) {
    }
    // No progress and no destroy: the first may be null, the second is for loggers that a library made.
    static QUIET: xentoollog_logger = xentoollog_logger {
        vmessage: Some(say_nothing),
        progress: None,
        destroy: None,
    };
    // The libraries only call through it.
    ptr::from_ref(&QUIET).cast_mut()
}

/// When a region is closed, in order or because this process died, the kernel does this.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CloseNotice {
    /// Sets this byte of the page to zero.
    pub(super) clear: Option<u32>,
    /// Sends an event through this port.
    pub(super) notify: Option<Port>,
}

/// The device that shares own pages.
#[derive(Debug)]
pub(super) struct Sharing {
    handle: NonNull<xengntdev_handle>,
}

// SAFETY: the library does not tie a handle to a thread; see the head of this file.
unsafe impl Send for Sharing {}
// SAFETY: calls through a shared handle only read it; see the head of this file.
unsafe impl Sync for Sharing {}

impl Sharing {
    pub(super) fn open() -> Result<Self, Error> {
        let table = grant_table()?;
        // SAFETY: the logger lives for ever.
        let handle = unsafe { table.xengntshr_open(logger(), 0) };
        let handle = NonNull::new(handle)
            .ok_or_else(|| Device::Gntalloc.refused(io::Error::last_os_error()))?;
        let sharing = Sharing { handle };
        // The library opens the node without O_CLOEXEC: a program that we start would keep our pages
        // granted after our death.
        // SAFETY: the descriptor is open as long as the handle, which outlives this call.
        let fd = unsafe { BorrowedFd::borrow_raw(table.xengntshr_fd(handle.as_ptr())) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)
            .map_err(|error| Error::system("set close-on-exec on /dev/xen/gntalloc", error))?;
        Ok(sharing)
    }

    /// Makes pages and grants them to `peer`; tells where they are and their references.
    pub(super) fn share(
        &self,
        peer: DomId,
        pages: usize,
        access: Access,
    ) -> io::Result<(NonNull<u8>, Vec<u32>)> {
        let table = grant_table().map_err(io::Error::other)?;
        let count = c_int::try_from(pages).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut references = vec![0_u32; pages];
        let writable = c_int::from(access == Access::ReadWrite);
        // SAFETY: `references` has room for `count` numbers.
        let base = unsafe {
            table.xengntshr_share_pages(
                self.handle.as_ptr(),
                u32::from(peer.0),
                count,
                references.as_mut_ptr(),
                writable,
            )
        };
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok((base, references))
    }

    /// The same for one page, with what is to be done when it is closed. The library can arm this
    /// only when the page is made: it gives its claim on the page up before it returns.
    pub(super) fn share_with_notice(
        &self,
        peer: DomId,
        access: Access,
        notice: CloseNotice,
    ) -> io::Result<(NonNull<u8>, Vec<u32>)> {
        let table = grant_table().map_err(io::Error::other)?;
        let mut reference = 0_u32;
        let writable = c_int::from(access == Access::ReadWrite);
        // SAFETY: one number is written to `reference`. All ones stands for "not wanted" in both.
        let base = unsafe {
            table.xengntshr_share_page_notify(
                self.handle.as_ptr(),
                u32::from(peer.0),
                &mut reference,
                writable,
                notice.clear.unwrap_or(u32::MAX),
                notice.notify.map_or(u32::MAX, |port| port.0),
            )
        };
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok((base, vec![reference]))
    }

    /// Gives a region back.
    ///
    /// # Safety
    ///
    /// `base` and `pages` are those of one whole region that was shared here, and nobody uses it.
    pub(super) unsafe fn unshare(&self, base: NonNull<u8>, pages: usize) -> io::Result<()> {
        let table = grant_table().map_err(io::Error::other)?;
        let count = u32::try_from(pages).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as the caller promises.
        let result = unsafe {
            table.xengntshr_unshare(self.handle.as_ptr(), base.as_ptr().cast::<c_void>(), count)
        };
        answer(result)
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        if let Ok(table) = grant_table() {
            // SAFETY: nothing else holds the handle any more.
            unsafe { table.xengntshr_close(self.handle.as_ptr()) };
        }
    }
}

/// The device that reaches pages of other domains.
#[derive(Debug)]
pub(super) struct Reaching {
    handle: NonNull<xengntdev_handle>,
}

// SAFETY: the library does not tie a handle to a thread; see the head of this file.
unsafe impl Send for Reaching {}
// SAFETY: calls through a shared handle only read it; see the head of this file.
unsafe impl Sync for Reaching {}

impl Reaching {
    /// The library itself opens this node with O_CLOEXEC.
    pub(super) fn open() -> Result<Self, Error> {
        // SAFETY: the logger lives for ever.
        let handle = unsafe { grant_table()?.xengnttab_open(logger(), 0) };
        NonNull::new(handle)
            .map(|handle| Reaching { handle })
            .ok_or_else(|| Device::Gntdev.refused(io::Error::last_os_error()))
    }

    /// Maps pages of `owner`, all or none, one after the other.
    pub(super) fn map(
        &self,
        owner: DomId,
        references: &[GrantRef],
        access: Access,
    ) -> io::Result<NonNull<u8>> {
        let table = grant_table().map_err(io::Error::other)?;
        let count = u32::try_from(references.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut references: Vec<u32> = references.iter().map(|gref| gref.0).collect();
        let protection = match access {
            Access::ReadOnly => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: `references` holds `count` numbers.
        let base = unsafe {
            table.xengnttab_map_domain_grant_refs(
                self.handle.as_ptr(),
                count,
                u32::from(owner.0),
                references.as_mut_ptr(),
                protection,
            )
        };
        NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)
    }

    /// Unmaps what [`map`](Self::map) has mapped.
    ///
    /// # Safety
    ///
    /// `base` and `pages` are those of one whole mapping made here, and nobody uses it.
    pub(super) unsafe fn unmap(&self, base: NonNull<u8>, pages: usize) -> io::Result<()> {
        let table = grant_table().map_err(io::Error::other)?;
        let count = u32::try_from(pages).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as the caller promises.
        let result = unsafe {
            table.xengnttab_unmap(self.handle.as_ptr(), base.as_ptr().cast::<c_void>(), count)
        };
        answer(result)
    }

    /// Does a batch of copies; each segment gets its own status.
    ///
    /// # Safety
    ///
    /// The local pointer of every segment is good for its length, for writing where the copy comes
    /// from the other domain, and nobody else uses those bytes meanwhile.
    pub(super) unsafe fn copy(&self, segments: &mut [Segment]) -> io::Result<()> {
        let table = grant_table().map_err(io::Error::other)?;
        let count = u32::try_from(segments.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: as the caller promises, and `segments` holds `count` of them.
        let result = unsafe {
            table.xengnttab_grant_copy(self.handle.as_ptr(), count, segments.as_mut_ptr())
        };
        answer(result)
    }
}

impl Drop for Reaching {
    fn drop(&mut self) {
        if let Ok(table) = grant_table() {
            // SAFETY: nothing else holds the handle any more.
            unsafe { table.xengnttab_close(self.handle.as_ptr()) };
        }
    }
}

/// The hypervisor as dom0's tools see it. Not for several threads: the library keeps buffers in it.
#[derive(Debug)]
pub(super) struct Machine {
    handle: NonNull<xc_interface>,
}

impl Machine {
    /// So many domains at most are told by one call.
    const BATCH: usize = 64;

    /// The library itself opens its node with O_CLOEXEC.
    pub(super) fn open() -> Result<Self, Error> {
        // SAFETY: the logger lives for ever; both places for one may hold the same.
        let handle = unsafe { control()?.xc_interface_open(logger(), logger(), 0) };
        NonNull::new(handle)
            .map(|handle| Machine { handle })
            .ok_or_else(|| Device::Privcmd.refused(io::Error::last_os_error()))
    }

    /// The domains whose numbers are `first` or more, in order, 64 at most; none at the end.
    pub(super) fn domains_from(&self, first: u32) -> io::Result<Vec<DomainRecord>> {
        let control = control().map_err(io::Error::other)?;
        let mut records = Vec::<DomainRecord>::with_capacity(Self::BATCH);
        // SAFETY: there is room for `BATCH` records.
        let count = unsafe {
            control.xc_domain_getinfolist(
                self.handle.as_ptr(),
                first,
                Self::BATCH as u32,
                records.as_mut_ptr(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: the call has written `count` records, and was told not to write more than there is
        // room for.
        unsafe { records.set_len(count.min(Self::BATCH)) };
        Ok(records)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(control) = control() {
            // SAFETY: nothing else holds the handle any more.
            unsafe { control.xc_interface_close(self.handle.as_ptr()) };
        }
    }
}

/// What a C function that answers 0 or -1 says.
pub(super) fn answer(result: c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
