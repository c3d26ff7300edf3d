//! The device: open it, set it up, move frames.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{fcntl_getfl, fcntl_setfl, open, Mode, OFlags};
use rustix::io::Errno;

use crate::ioctl::{self, InterfaceRequest, LinkSettings};
use crate::{namespace, Error, Offloads, TapOptions, HEADER_SIZE};

/// The most slices that one frame may be spread over: a netif packet has at most 19 slots.
pub const MAX_SLICES: usize = 24;

/// Bits a second of what the kernel counts a link's speed in.
const MEGABIT: u64 = 1_000_000;
/// SPEED_UNKNOWN of Linux's `ethtool.h`.
const SPEED_UNKNOWN: u32 = u32::MAX;

/// What became of a frame that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// The kernel has it.
    Taken,
    /// The interface's queue is full. Keep the frame and wait until the descriptor is writable.
    Full,
    /// The kernel refuses this frame (a header that makes no sense, or the interface is down) or
    /// has no memory for it. Drop it, count it, go on with the next: it would be refused again.
    Refused(Errno),
}

/// One queue of a TAP interface. The interface goes away with its last queue, unless it was made
/// persistent by other means. Non-blocking. Can be used by any thread; frames are kept whole.
#[derive(Debug)]
pub struct Tap {
    file: OwnedFd,
    /// Opened in the interface's network namespace: settings are made there, not in the caller's.
    control: OwnedFd,
    name: String,
    vnet_header: bool,
    multi_queue: bool,
    attached: bool,
}

impl Tap {
    /// Makes the interface, or attaches to an existing TAP, in the calling thread's network
    /// namespace. Offloads that an earlier owner left switched on are switched off.
    ///
    /// An existing one is opened as what it was made, for one queue or for several, whatever is
    /// asked for: [`Tap::is_multi_queue`] says which.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Device`], [`Error::Attach`], [`Error::Setting`].
    pub fn open(options: TapOptions) -> Result<Tap, Error> {
        let wanted = options.queues > 1;
        let attached = |multi_queue| {
            let (file, name) = attach(&options.name, options.vnet_header, multi_queue)?;
            Ok((file, name, multi_queue))
        };
        let (file, name, multi_queue) = match attached(wanted) {
            // The kernel's answer where a TAP of that name differs in this, and where it is no TAP:
            // then it is the answer to this question too.
            Err(Error::Attach { source, .. }) if source == Errno::INVAL => attached(!wanted)?,
            other => other?,
        };
        let control = control_socket(&name)?;
        Tap::prepare(file, control, name, options.vnet_header, multi_queue)
    }

    /// [`Tap::open`] in another network namespace, given by its name (`ip netns add NAME`) or path.
    ///
    /// # Errors
    /// As [`Tap::open`], and [`Error::Namespace`].
    pub fn open_in_namespace(namespace: &str, options: TapOptions) -> Result<Tap, Error> {
        namespace::open_tap(namespace, options)
    }

    /// Takes over a descriptor of `/dev/net/tun` that is attached to a TAP already: a privileged
    /// program opened it and passed it on. The interface must be in the calling thread's network
    /// namespace, or settings (MAC, MTU, up) will not find it. Whether frames have headers, and
    /// whether there are several queues, is asked of the kernel.
    ///
    /// # Errors
    /// [`Error::Descriptor`] when it is something else, [`Error::Setting`].
    pub fn from_fd(file: OwnedFd) -> Result<Tap, Error> {
        let refuse = |reason: String| Error::Descriptor { reason };
        let mut request = InterfaceRequest::unnamed();
        ioctl::attached(file.as_fd(), &mut request)
            .map_err(|errno| refuse(format!("it is not attached to a TAP ({errno})")))?;
        let flags = libc::c_int::from(request.flags());
        if flags & libc::IFF_TAP == 0 || flags & libc::IFF_NO_PI == 0 {
            return Err(refuse(format!(
                "`{}` has flags {flags:#x}; a TAP (IFF_TAP) without packet information \
                 (IFF_NO_PI) is needed",
                request.name()
            )));
        }
        let header = flags & libc::IFF_VNET_HDR != 0;
        let queues = flags & libc::IFF_MULTI_QUEUE != 0;
        let control = control_socket(&request.name())?;
        let flags = fcntl_getfl(&file).map_err(|errno| refuse(errno.to_string()))?;
        fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(|errno| refuse(errno.to_string()))?;
        Tap::prepare(file, control, request.name(), header, queues)
    }

    /// The next queue of a TAP that was opened with more than one. The kernel spreads flows over
    /// the queues, so each of them must be read.
    ///
    /// # Errors
    /// [`Error::Attach`] when the TAP has one queue only, or as many as it may have.
    pub fn add_queue(&self) -> Result<Tap, Error> {
        // In the caller's own namespace the name may be that of another interface, or of none.
        let link = ioctl::namespace_of(self.control.as_fd())
            .map_err(|errno| self.refused("finding its network namespace", errno))?;
        let open = || {
            let (file, name) = attach(&self.name, self.vnet_header, self.multi_queue)?;
            Ok((file, control_socket(&name)?, name))
        };
        // To enter a namespace takes CAP_SYS_ADMIN, even the thread's own; a service has CAP_NET_ADMIN only.
        let (file, control, name) = match namespace::is_own(&link) {
            true => open()?,
            false => namespace::run_behind(&link, &self.name, open)??,
        };
        Tap::prepare(file, control, name, self.vnet_header, self.multi_queue)
    }

    /// Detaches this queue of several from the interface, or attaches it again: while it is detached the kernel gives
    /// it no frames, and spreads them over the others. One queue at least must stay.
    ///
    /// # Errors
    /// [`Error::Setting`], for example for a TAP that was opened with one queue.
    pub fn set_attached(&mut self, attached: bool) -> Result<(), Error> {
        if self.attached == attached {
            return Ok(());
        }
        let flag = match attached {
            true => libc::IFF_ATTACH_QUEUE,
            false => libc::IFF_DETACH_QUEUE,
        };
        let mut request = self.request()?.with((flag as u16).to_ne_bytes());
        ioctl::set_queue(self.file.as_fd(), &mut request)
            .map_err(|errno| self.refused("attaching or detaching a queue", errno))?;
        self.attached = attached;
        Ok(())
    }

    fn prepare(
        file: OwnedFd,
        control: OwnedFd,
        name: String,
        vnet_header: bool,
        multi_queue: bool,
    ) -> Result<Tap, Error> {
        let tap = Tap {
            file,
            control,
            name,
            vnet_header,
            multi_queue,
            attached: true,
        };
        if vnet_header {
            // Size and byte order belong to the descriptor, so they are set on every one. Without
            // this the header has 10 bytes in the host's order.
            ioctl::set_header_size(tap.file.as_fd(), HEADER_SIZE as i32)
                .map_err(|errno| tap.refused("setting the header size", errno))?;
            ioctl::set_little_endian(tap.file.as_fd(), 1)
                .map_err(|errno| tap.refused("setting the header's byte order", errno))?;
        }
        // Offloads belong to the device and outlive their owner: frames without checksum would
        // reach a reader that never asked for them.
        tap.set_offloads(Offloads::none())?;
        Ok(tap)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface was made for several queues: [`Tap::add_queue`] gives the others.
    pub fn is_multi_queue(&self) -> bool {
        self.multi_queue
    }

    /// Frames are preceded by a header.
    pub fn has_vnet_header(&self) -> bool {
        self.vnet_header
    }

    /// Says what the reader can take, for all queues, and returns what the kernel accepted: an old
    /// one may know less. Without headers that is nothing.
    ///
    /// # Errors
    /// [`Error::Setting`] when the kernel refuses even to switch all of it off.
    pub fn set_offloads(&self, wanted: Offloads) -> Result<Offloads, Error> {
        let wanted = if self.vnet_header {
            wanted
        } else {
            Offloads::none()
        };
        let mut last = Errno::INVAL;
        for step in wanted.ladder() {
            match ioctl::set_offload(self.file.as_fd(), step.bits()) {
                Ok(()) => return Ok(step),
                Err(errno) => last = errno,
            }
        }
        Err(self.refused("setting offloads", last))
    }

    /// Sets the interface's own Ethernet address.
    ///
    /// # Errors
    /// [`Error::Setting`], for example for a multicast address.
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), Error> {
        let [low, high] = libc::ARPHRD_ETHER.to_ne_bytes();
        let [a, b, c, d, e, f] = mac;
        let mut request = self.request()?.with([low, high, a, b, c, d, e, f]);
        ioctl::set_mac(self.control.as_fd(), &mut request)
            .map_err(|errno| self.refused("setting the MAC address", errno))
    }

    /// The interface's own Ethernet address.
    ///
    /// # Errors
    /// [`Error::Setting`] when the interface is gone.
    pub fn mac(&self) -> Result<[u8; 6], Error> {
        let mut request = self.request()?;
        ioctl::get_mac(self.control.as_fd(), &mut request)
            .map_err(|errno| self.refused("reading the MAC address", errno))?;
        Ok(request.ethernet_address())
    }

    /// Sets the largest IP packet that the interface carries (frames are 14 bytes longer).
    ///
    /// # Errors
    /// [`Error::Setting`] when it is out of the kernel's range (68 to 65521).
    pub fn set_mtu(&self, mtu: u32) -> Result<(), Error> {
        let mut request = self.request()?.with(mtu.to_ne_bytes());
        ioctl::set_mtu(self.control.as_fd(), &mut request)
            .map_err(|errno| self.refused("setting the MTU", errno))
    }

    /// The largest IP packet that the interface carries.
    ///
    /// # Errors
    /// [`Error::Setting`] when the interface is gone.
    pub fn mtu(&self) -> Result<u32, Error> {
        let mut request = self.request()?;
        ioctl::get_mtu(self.control.as_fd(), &mut request)
            .map_err(|errno| self.refused("reading the MTU", errno))?;
        u32::try_from(request.value()).map_err(|_| self.refused("reading the MTU", Errno::RANGE))
    }

    /// Takes the interface up or down. While it is down nothing is received, and what is sent is
    /// [`Sent::Refused`].
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn set_up(&self, up: bool) -> Result<(), Error> {
        let flags = self.flags()?;
        let bit = libc::IFF_UP as u16;
        let flags = if up { flags | bit } else { flags & !bit };
        let mut request = self.request()?.with(flags.to_ne_bytes());
        ioctl::set_flags(self.control.as_fd(), &mut request)
            .map_err(|errno| self.refused("taking it up or down", errno))
    }

    /// The interface is up.
    ///
    /// # Errors
    /// [`Error::Setting`] when the interface is gone.
    pub fn is_up(&self) -> Result<bool, Error> {
        Ok(self.flags()? & libc::IFF_UP as u16 != 0)
    }

    /// Plugs the interface's cable in or out: without carrier the kernel's routes avoid it.
    ///
    /// # Errors
    /// [`Error::Setting`] on kernels before 5.0.
    pub fn set_carrier(&self, carrier: bool) -> Result<(), Error> {
        ioctl::set_carrier(self.file.as_fd(), i32::from(carrier))
            .map_err(|errno| self.refused("setting the carrier", errno))
    }

    /// Says how fast the network is, in bits a second, for those who ask the interface: bonds, bridges, `ethtool`. It
    /// moves no packet faster or slower. `None`: nobody knows. The kernel counts in megabits: less counts as one.
    ///
    /// # Errors
    /// [`Error::Setting`] on kernels whose TAPs have a fixed speed.
    pub fn set_speed(&self, speed: Option<u64>) -> Result<(), Error> {
        let megabits = speed.map_or(SPEED_UNKNOWN, |speed| {
            // The kernel takes a greater number for nonsense.
            speed.div_ceil(MEGABIT).clamp(1, i32::MAX as u64) as u32
        });
        let mut settings = LinkSettings::of_speed(megabits);
        ioctl::set_link(self.control.as_fd(), &self.request()?, &mut settings)
            .map_err(|errno| self.refused("setting the speed", errno))
    }

    /// How fast the network is said to be, in bits a second; `None` if nobody knows. A new TAP has the kernel's own idea:
    /// 10 megabits, since Linux 6.2 10 gigabits.
    ///
    /// # Errors
    /// [`Error::Setting`] when the interface is gone.
    pub fn speed(&self) -> Result<Option<u64>, Error> {
        let mut settings = LinkSettings::default();
        ioctl::get_link(self.control.as_fd(), &self.request()?, &mut settings)
            .map_err(|errno| self.refused("reading the speed", errno))?;
        let megabits = Some(settings.speed()).filter(|megabits| *megabits != SPEED_UNKNOWN);
        Ok(megabits.map(|megabits| u64::from(megabits) * MEGABIT))
    }

    /// Receives one frame: its header and, into `buffers`, its bytes, by one system call. The
    /// result is the frame's length, or None when there is none.
    ///
    /// A frame larger than the buffers is cut, so give 65 550 bytes once offloads are on, and the
    /// MTU and 18 otherwise. At most [`MAX_SLICES`] minus one buffers are used. Without
    /// [`Tap::has_vnet_header`] the header is left alone.
    ///
    /// # Errors
    /// [`Error::Transfer`] when the interface is gone.
    pub fn receive(
        &self,
        header: &mut [u8; HEADER_SIZE],
        buffers: &mut [IoSliceMut<'_>],
    ) -> Result<Option<usize>, Error> {
        let first = usize::from(self.vnet_header);
        let used = (first + buffers.len()).min(MAX_SLICES);
        let mut header = Some(&mut header[..]).filter(|_| self.vnet_header);
        let mut rest = buffers.iter_mut();
        let mut slices: [IoSliceMut<'_>; MAX_SLICES] = std::array::from_fn(|_| {
            let next: &mut [u8] = match header.take() {
                Some(header) => header,
                None => rest.next().map_or(&mut [][..], |buffer| &mut buffer[..]),
            };
            IoSliceMut::new(next)
        });
        loop {
            return match rustix::io::readv(&self.file, &mut slices[..used]) {
                Ok(len) => Ok(len.checked_sub(first * HEADER_SIZE)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(None),
                Err(source) => Err(self.transfer("reading", source)),
            };
        }
    }

    /// Sends one frame, given in pieces, by one system call. With [`Tap::has_vnet_header`] the
    /// first [`HEADER_SIZE`] bytes are the encoded header.
    ///
    /// # Errors
    /// [`Error::Transfer`] when the interface is gone. A full queue and a frame that the kernel
    /// refuses are no errors: see [`Sent`].
    pub fn send(&self, pieces: &[IoSlice<'_>]) -> Result<Sent, Error> {
        loop {
            return match rustix::io::writev(&self.file, pieces) {
                Ok(_) => Ok(Sent::Taken),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(Sent::Full),
                Err(errno @ (Errno::INVAL | Errno::IO | Errno::NOMEM | Errno::NOBUFS)) => {
                    Ok(Sent::Refused(errno))
                }
                Err(source) => Err(self.transfer("writing", source)),
            };
        }
    }

    fn flags(&self) -> Result<u16, Error> {
        let mut request = self.request()?;
        ioctl::get_flags(self.control.as_fd(), &mut request)
            .map_err(|errno| self.refused("reading its flags", errno))?;
        Ok(request.flags())
    }

    fn request(&self) -> Result<InterfaceRequest, Error> {
        InterfaceRequest::new(&self.name).ok_or_else(|| Error::Name {
            name: self.name.clone(),
        })
    }

    fn refused(&self, action: &'static str, source: Errno) -> Error {
        Error::Setting {
            name: self.name.clone(),
            action,
            source,
        }
    }

    fn transfer(&self, action: &'static str, source: Errno) -> Error {
        Error::Transfer {
            name: self.name.clone(),
            action,
            source,
        }
    }
}

impl AsFd for Tap {
    /// Readable when a frame is there, writable when there is room for one.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn control_socket(name: &str) -> Result<OwnedFd, Error> {
    ioctl::control_socket().map_err(|source| Error::Setting {
        name: name.to_owned(),
        action: "opening a socket to configure it",
        source,
    })
}

/// Whether an interface can have this name. The empty one stands for a name by the kernel's choice.
///
/// # Errors
/// [`Error::Name`].
pub fn check_name(name: &str) -> Result<(), Error> {
    request_for(name).map(drop)
}

fn request_for(name: &str) -> Result<InterfaceRequest, Error> {
    let bad = name.contains(|c: char| c == '/' || c == '\0' || c.is_whitespace());
    let request = InterfaceRequest::new(name).filter(|_| !bad);
    request.ok_or_else(|| Error::Name {
        name: name.to_owned(),
    })
}

/// Opens the clone device and attaches it to the interface `name`; returns the name it got.
fn attach(name: &str, vnet_header: bool, multi_queue: bool) -> Result<(OwnedFd, String), Error> {
    let request = request_for(name)?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
    if vnet_header {
        flags |= libc::IFF_VNET_HDR;
    }
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let file = open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|source| Error::Device { source })?;
    // `ifr_flags` is 16 bits wide; all four flags fit.
    let mut request = request.with((flags as u16).to_ne_bytes());
    ioctl::attach(file.as_fd(), &mut request).map_err(|source| Error::Attach {
        name: name.to_owned(),
        source,
    })?;
    Ok((file, request.name()))
}
