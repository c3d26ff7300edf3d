//! The system calls of a TAP that have no safe form elsewhere: the only file with `unsafe`.
//!
//! Numbers and argument types: Linux `include/uapi/linux/if_tun.h`, `sockios.h`, `if.h` and `ethtool.h`. All
//! arguments are plain bytes built here, so each call's soundness is visible in its few lines.

use std::ffi::c_void;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{ioctl, IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, Updater};

/// `struct ifreq`: the interface's name and 24 bytes whose meaning is the request's.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    data: [u8; 24],
}

// A size other than the kernel's would make it read or write past the end.
const _: () = assert!(size_of::<InterfaceRequest>() >= size_of::<libc::ifreq>());

impl InterfaceRequest {
    /// A request without a name, for calls that answer with one.
    pub(crate) fn unnamed() -> Self {
        InterfaceRequest {
            name: [0; libc::IFNAMSIZ],
            data: [0; 24],
        }
    }

    /// A request for the interface `name`; None when the name does not fit.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let mut request = Self::unnamed();
        // The last byte must stay NUL.
        let room = request.name.get_mut(..name.len())?;
        if name.len() >= libc::IFNAMSIZ {
            return None;
        }
        room.copy_from_slice(name.as_bytes());
        Some(request)
    }

    pub(crate) fn with<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.data[..N].copy_from_slice(&bytes);
        self
    }

    /// The name, as the kernel may have completed it.
    pub(crate) fn name(&self) -> String {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(0);
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }

    pub(crate) fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.data[0], self.data[1]])
    }

    pub(crate) fn value(&self) -> i32 {
        i32::from_ne_bytes([self.data[0], self.data[1], self.data[2], self.data[3]])
    }

    /// The six bytes of a `struct sockaddr` with an Ethernet address.
    pub(crate) fn ethernet_address(&self) -> [u8; 6] {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.data[2..8]);
        mac
    }
}

/// Requests that take a pointer to a `struct ifreq`, read it, and may write into it.
macro_rules! interface_calls {
    ($($(#[$doc:meta])* $name:ident = $number:expr;)*) => { $(
        $(#[$doc])*
        pub(crate) fn $name(fd: BorrowedFd<'_>, request: &mut InterfaceRequest) -> Result<(), Errno> {
            // SAFETY: the kernel reads and writes at most one `struct ifreq` through this pointer,
            // and `InterfaceRequest` is at least that large and has no invalid bytes.
            unsafe { ioctl(fd, Updater::<{ $number as Opcode }, _>::new(request)) }
        }
    )* };
}

interface_calls! {
    /// TUNSETIFF: make or attach an interface.
    attach = libc::TUNSETIFF;
    /// TUNGETIFF: which interface a descriptor is attached to, with which flags.
    attached = libc::TUNGETIFF;
    /// TUNSETQUEUE: detach one of several queues, or attach it again.
    set_queue = libc::TUNSETQUEUE;
    get_flags = libc::SIOCGIFFLAGS;
    set_flags = libc::SIOCSIFFLAGS;
    get_mtu = libc::SIOCGIFMTU;
    set_mtu = libc::SIOCSIFMTU;
    get_mac = libc::SIOCGIFHWADDR;
    set_mac = libc::SIOCSIFHWADDR;
}

/// `struct ethtool_cmd` (Linux `include/uapi/linux/ethtool.h`): what a link is said to be. The older of two forms, which
/// every kernel turns into the newer; its size is known beforehand.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct LinkSettings {
    command: u32,
    _supported: [u32; 2],
    speed_low: u16,
    duplex: u8,
    _port_to_mdio: [u8; 5],
    _limits: [u32; 2],
    speed_high: u16,
    _mdix: [u8; 2],
    _partner: [u32; 3],
}

// A size other than the kernel's would make it read or write past the end.
const _: () = assert!(size_of::<LinkSettings>() == 44);

impl LinkSettings {
    /// DUPLEX_FULL
    const FULL: u8 = 1;

    /// So many megabits a second, both ways at once.
    pub(crate) fn of_speed(megabits: u32) -> Self {
        LinkSettings {
            speed_low: megabits as u16,
            speed_high: (megabits >> 16) as u16,
            duplex: Self::FULL,
            ..LinkSettings::default()
        }
    }

    pub(crate) fn speed(&self) -> u32 {
        (u32::from(self.speed_high) << 16) | u32::from(self.speed_low)
    }
}

/// ETHTOOL_GSET: reads what the link of the request's interface is said to be.
pub(crate) fn get_link(
    fd: BorrowedFd<'_>,
    request: &InterfaceRequest,
    settings: &mut LinkSettings,
) -> Result<(), Errno> {
    link(fd, request, settings, 1)
}

/// ETHTOOL_SSET: says what it is.
pub(crate) fn set_link(
    fd: BorrowedFd<'_>,
    request: &InterfaceRequest,
    settings: &mut LinkSettings,
) -> Result<(), Errno> {
    link(fd, request, settings, 2)
}

/// Only for the two commands whose argument is a `struct ethtool_cmd`.
fn link(
    fd: BorrowedFd<'_>,
    request: &InterfaceRequest,
    settings: &mut LinkSettings,
    command: u32,
) -> Result<(), Errno> {
    /// SIOCETHTOOL of `sockios.h`, which libc does not have.
    const NUMBER: Opcode = 0x8946;
    settings.command = command;
    // The request holds a pointer to the argument.
    let address = std::ptr::from_mut(settings).expose_provenance();
    let mut request = request.with(address.to_ne_bytes());
    // SAFETY: the kernel reads and writes at most one `struct ifreq` through the first pointer. Through the one in it, for
    // both commands that this is called with, it reads and writes one `struct ethtool_cmd`: `settings` is as large, has no
    // invalid bytes, and is borrowed alone until the call is over.
    unsafe { ioctl(fd, Updater::<NUMBER, _>::new(&mut request)) }
}

/// Requests that take a pointer to an `int` and only read it.
macro_rules! integer_calls {
    ($($(#[$doc:meta])* $name:ident = $number:expr;)*) => { $(
        $(#[$doc])*
        pub(crate) fn $name(fd: BorrowedFd<'_>, value: i32) -> Result<(), Errno> {
            // SAFETY: the kernel reads one `int` through the pointer to `value`, nothing more.
            unsafe { ioctl(fd, Setter::<{ $number as Opcode }, libc::c_int>::new(value)) }
        }
    )* };
}

integer_calls! {
    /// TUNSETVNETHDRSZ: size of the header before each frame.
    set_header_size = libc::TUNSETVNETHDRSZ;
    /// TUNSETVNETLE: little-endian headers, whatever the host.
    set_little_endian = libc::TUNSETVNETLE;
    /// TUNSETCARRIER: cable plugged in or not.
    set_carrier = libc::TUNSETCARRIER;
}

/// TUNSETOFFLOAD: what the reader can take. The argument is the value itself, not a pointer.
pub(crate) fn set_offload(fd: BorrowedFd<'_>, bits: u32) -> Result<(), Errno> {
    const NUMBER: Opcode = libc::TUNSETOFFLOAD as Opcode;
    // SAFETY: the kernel takes the argument as an integer and follows no pointer.
    unsafe { ioctl(fd, IntegerSetter::<NUMBER>::new_usize(bits as usize)) }
}

/// SIOCGSKNS: a handle to the network namespace that a socket belongs to.
pub(crate) fn namespace_of(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the request has no argument; see `NamespaceOf` for the result.
    unsafe { ioctl(socket, NamespaceOf) }
}

struct NamespaceOf;

// SAFETY: the number is that of `include/uapi/linux/sockios.h`; the call takes no argument.
unsafe impl Ioctl for NamespaceOf {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        0x894C
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(fd: IoctlOutput, _: *mut c_void) -> Result<OwnedFd, Errno> {
        // SAFETY: on success the kernel's answer is a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Moves the calling thread, and only it, into a new and empty network namespace.
pub(crate) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: only CLONE_NEWNET is asked for; the file descriptor table, the one thing that makes
    // this call dangerous, stays shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

/// A socket by which interfaces of the calling thread's network namespace are configured.
pub(crate) fn control_socket() -> Result<OwnedFd, Errno> {
    use rustix::net::{socket_with, AddressFamily, SocketFlags, SocketType};
    socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
}
