//! What a handle holds, and each call in safe code.

use std::cell::{Cell, RefCell, RefMut};
use std::ffi::{c_int, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrayvec::ArrayVec;
use netfront::hypervisor::Domain;
use netfront::packet::MAX_FRAGMENTS;
use netfront::stats::QueueStats;
use netfront::{device, Device, Link, PoolPolicy, Queue, QueueConfig, Reconnect, SendError, Waker};
use rustix::event::{epoll, poll, PollFd, PollFlags, Timespec};

use crate::problem::Problem;
use crate::types::{Change, Checksum, Error, Event, Feature, Gso, Offload, Options, Packet, Piece};

type Answer = Result<c_int, Problem>;

thread_local! {
    /// Only its address is used: it tells threads apart without a call.
    static HERE: u8 = const { 0 };
}

fn here() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// Runs a call, of which no panic gets out.
pub(crate) fn contained(work: impl FnOnce() -> Answer) -> Answer {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Problem::BUG))
}

enum State {
    Connected(Box<Device>),
    /// The last attempt to reconnect failed.
    Apart(Box<Reconnect>),
    /// Only while a reconnect is under way.
    Between,
}

/// A vif, as `struct netfront` of the header.
///
/// All of it belongs to the thread that opened, but for `waker` and `stats`, which any thread may use.
pub struct Netfront {
    state: RefCell<State>,
    last: RefCell<Problem>,
    /// The text of `last`, for as long as the caller may look at it.
    text: RefCell<CString>,
    link: Cell<Link>,
    owner: usize,
    bug: Cell<bool>,
    /// Readable when the queue's event channels or its waker are; the same over reconnects.
    ready: OwnedFd,
    waker: Mutex<Arc<Waker>>,
    stats: Arc<QueueStats>,
}

impl Netfront {
    pub(crate) fn open(options: &Options, sim: Option<PathBuf>) -> Result<Self, Problem> {
        let domain = domain(options.domid, sim)?;
        let mut queue = QueueConfig {
            policy: policy(options.policy)?,
            untrusted: options.untrusted != 0,
            ..QueueConfig::default()
        };
        if options.threshold != 0 {
            queue.threshold = options.threshold as usize;
        }
        if options.reserved != [0; 4] {
            return Err(Problem::invalid(
                "options.reserved is not 0: set all of the struct to 0 first",
            ));
        }
        let deadline = match options.deadline_ms {
            0 => device::HANDSHAKE,
            milliseconds => Duration::from_millis(milliseconds.into()),
        };
        let builder = Device::builder(options.vif).queue(queue).deadline(deadline);
        let mut device = Box::new(builder.connect(&domain)?);
        let ready =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("making an epoll"))?;
        watch(&ready, device.queue())?;
        let queue = device.queue();
        Ok(Self {
            waker: Mutex::new(queue.waker()),
            stats: Arc::clone(queue.stats()),
            link: Cell::new(*device.link()),
            state: RefCell::new(State::Connected(device)),
            last: RefCell::new(Problem::NONE),
            text: RefCell::default(),
            owner: here(),
            bug: Cell::new(false),
            ready,
        })
    }

    /// Runs a call of the owner's, and remembers why it failed.
    pub(crate) fn run(&self, work: impl FnOnce(&Self) -> Answer) -> c_int {
        if here() != self.owner {
            return Error::Thread as c_int;
        }
        let answer = if self.bug.get() {
            Err(Problem::BUG)
        } else {
            contained(|| work(self))
        };
        match answer {
            Ok(number) => number,
            Err(problem) => {
                let code = problem.code;
                // What a panic left half done is not touched again.
                self.bug.set(code == Error::Bug);
                *self.last.borrow_mut() = problem;
                code as c_int
            }
        }
    }

    fn device(&self) -> Result<RefMut<'_, Device>, Problem> {
        let state = self.state.try_borrow_mut().map_err(|_| Problem::BUSY)?;
        RefMut::filter_map(state, |state| match state {
            State::Connected(device) => Some(device.as_mut()),
            State::Apart(_) | State::Between => None,
        })
        .map_err(|_| Problem::DISCONNECTED)
    }

    pub(crate) fn receive(&self, most: usize, mut deliver: impl FnMut(&Packet)) -> Answer {
        let mut device = self.device()?;
        // What is counted must fit into the answer.
        let most = most.min(c_int::MAX as usize);
        let packets = device.queue().receive(most, |packet| {
            let pieces: ArrayVec<Piece, { MAX_FRAGMENTS + 1 }> = packet
                .slices()
                .map(|slice| Piece {
                    data: slice.as_ptr(),
                    len: slice.len(),
                })
                .collect();
            deliver(&Packet {
                pieces: pieces.as_ptr(),
                count: pieces.len(),
                len: packet.len(),
                offload: Offload::of(packet.offload()),
            });
        })?;
        Ok(packets as c_int)
    }

    pub(crate) fn send(&self, slices: &[&[u8]], offload: Offload) -> Answer {
        let offload = offload.judged()?;
        let mut device = self.device()?;
        let queue = device.queue();
        match queue.send(slices, offload) {
            Ok(()) => Ok(0),
            // Answers that were not read yet may be all that is missing.
            Err(SendError::Full) if queue.reclaim()? > 0 => {
                queue.send(slices, offload)?;
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn flush(&self) -> Answer {
        let mut device = self.device()?;
        device.queue().reclaim()?;
        device.queue().flush()?;
        Ok(0)
    }

    pub(crate) fn unanswered(&self) -> Answer {
        let mut device = self.device()?;
        device.queue().reclaim()?;
        Ok(device.queue().unanswered() as c_int)
    }

    pub(crate) fn wait(&self, timeout_ms: c_int) -> Answer {
        // As poll: less than 0 is for ever.
        let timeout = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
        Ok(wake(self.device()?.queue().wait(timeout)?))
    }

    pub(crate) fn fd(&self) -> Answer {
        Ok(self.ready.as_raw_fd())
    }

    pub(crate) fn arm(&self) -> Answer {
        let mut device = self.device()?;
        device.queue().export();
        Ok(device.queue().arm()?.into())
    }

    pub(crate) fn woken(&self) -> Answer {
        let mut device = self.device()?;
        let queue = device.queue();
        let waker = queue.waker();
        let mut fds = [
            PollFd::from_borrowed_fd(queue.event_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(system("looking for events")(error)),
        }
        let [event, called] = fds.map(|fd| !fd.revents().is_empty());
        Ok(wake(queue.woken(event, called)?))
    }

    pub(crate) fn change(&self) -> Result<(Change, u32), Problem> {
        let mut device = self.device()?;
        let change = device.change();
        self.link.set(*device.link());
        Ok(match change {
            // A program in C cannot ask for a filter.
            None | Some(netfront::Change::MulticastFilter) => (Change::None, 0),
            Some(netfront::Change::BackendLeft(state)) => {
                (Change::BackendLeft, state.number().into())
            }
            Some(netfront::Change::Restored) => (Change::Restored, 0),
            Some(netfront::Change::Carrier(carrier)) => (Change::Carrier, carrier.into()),
            Some(netfront::Change::Mtu(mtu)) => (Change::Mtu, mtu),
            Some(netfront::Change::Speed(speed)) => (Change::Speed, megabits(speed)),
            Some(netfront::Change::Broken(_)) => (Change::Broken, 0),
        })
    }

    pub(crate) fn reconnect(&self) -> Answer {
        let mut state = self.state.try_borrow_mut().map_err(|_| Problem::BUSY)?;
        let pending = match std::mem::replace(&mut *state, State::Between) {
            State::Connected(mut device) => {
                unwatch(&self.ready, device.queue());
                device.disconnect()
            }
            State::Apart(pending) => *pending,
            State::Between => return Err(Problem::BUG),
        };
        self.link.set(Link {
            carrier: false,
            ..self.link.get()
        });
        match pending.retry() {
            Ok(mut device) => {
                if let Err(problem) = watch(&self.ready, device.queue()) {
                    // Nobody would ever be woken for it: the caller is told that there is none.
                    unwatch(&self.ready, device.queue());
                    *state = State::Apart(Box::new(device.disconnect()));
                    return Err(problem);
                }
                let waker = device.queue().waker();
                *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&waker);
                // Whoever called meanwhile woke the old one.
                waker.wake();
                self.link.set(*device.link());
                *state = State::Connected(Box::new(device));
                Ok(0)
            }
            Err(mut pending) => {
                let problem = pending.error.take().map(Problem::from);
                *state = State::Apart(pending);
                Err(problem.unwrap_or(Problem::DISCONNECTED))
            }
        }
    }

    pub(crate) fn link(&self) -> Link {
        self.link.get()
    }

    pub(crate) fn features(&self) -> Answer {
        let link = self.link.get();
        let offered = link.features;
        let bits = [
            (offered.sg, Feature::Sg),
            (offered.gso_tcpv4, Feature::GsoTcpv4),
            (offered.gso_tcpv6, Feature::GsoTcpv6),
            (offered.csum_offload, Feature::ChecksumIpv4),
            (offered.ipv6_csum_offload, Feature::ChecksumIpv6),
            (link.untrusted, Feature::Untrusted),
        ];
        let on = bits.into_iter().filter(|(on, _)| *on);
        Ok(on.fold(0, |all, (_, bit)| all | bit as c_int))
    }

    /// For any thread.
    pub(crate) fn wake(&self) {
        self.waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .wake();
    }

    /// For any thread.
    pub(crate) fn stats(&self) -> &QueueStats {
        &self.stats
    }

    /// The text of the last error, good until the next call of this.
    pub(crate) fn error_text(&self) -> *const std::ffi::c_char {
        *self.text.borrow_mut() = c_text(&self.last.borrow().text);
        self.text.borrow().as_ptr()
    }

    /// False inside the callback of a receive.
    pub(crate) fn may_close(&self) -> bool {
        here() == self.owner && (self.bug.get() || self.state.try_borrow_mut().is_ok())
    }

    pub(crate) fn close(self) -> Answer {
        match self.state.into_inner() {
            State::Connected(device) => device.close().map(|()| 0).map_err(Problem::from),
            State::Apart(_) | State::Between => Ok(0),
        }
    }
}

/// Text for C: what follows a byte 0 would be lost, so there is none.
pub(crate) fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

fn system(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Problem {
    move |error| Problem {
        code: Error::System,
        text: format!("{what}: {error}").into(),
    }
}

fn watch(ready: &OwnedFd, queue: &Queue) -> Result<(), Problem> {
    let data = epoll::EventData::new_u64(0);
    let waker = queue.waker();
    epoll::add(ready, queue.event_fd(), data, epoll::EventFlags::IN)
        .and_then(|()| epoll::add(ready, waker.as_fd(), data, epoll::EventFlags::IN))
        .map_err(system("watching the event channels by epoll"))
}

/// By hand: after a restore the old handle stays open in another process, and with it its place in the epoll.
fn unwatch(ready: &OwnedFd, queue: &Queue) {
    let _ = epoll::delete(ready, queue.event_fd());
    let _ = epoll::delete(ready, queue.waker().as_fd());
}

/// A speed in bits a second for C: less than a megabit counts as one, and nothing as 0.
fn megabits(speed: Option<u64>) -> u32 {
    let whole = speed.map_or(0, |speed| speed.div_ceil(1_000_000));
    u32::try_from(whole).unwrap_or(u32::MAX)
}

fn wake(wake: netfront::Wake) -> c_int {
    (match wake {
        netfront::Wake::Timeout => Event::Timeout,
        netfront::Wake::Work => Event::Work,
        netfront::Wake::Called => Event::Called,
    }) as c_int
}

fn policy(number: u32) -> Result<PoolPolicy, Problem> {
    let found = PoolPolicy::ALL.get(number as usize).copied();
    found.ok_or_else(|| {
        Problem::invalid(format!(
            "options.policy is {number}; it is one of enum netfront_policy, 0 to 3"
        ))
    })
}

#[cfg(feature = "sim")]
fn simulated(socket: &std::path::Path, domid: u32) -> Result<Domain, Problem> {
    let number = u16::try_from(if domid == 0 { 1 } else { domid })
        .map_err(|_| Problem::invalid(format!("options.domid is {domid}; at most 65535")))?;
    let domain = Domain::simulated(socket, netfront::hypervisor::DomId(number));
    Ok(domain.map_err(netfront::Error::from)?)
}

#[cfg(not(feature = "sim"))]
fn simulated(_: &std::path::Path, _: u32) -> Result<Domain, Problem> {
    Err(Problem::new(
        Error::Unavailable,
        "options.sim is given, but this library was built without the simulated Xen: build it with the \
         feature `sim`",
    ))
}

fn domain(domid: u32, sim: Option<PathBuf>) -> Result<Domain, Problem> {
    match sim {
        Some(socket) => simulated(&socket, domid),
        None if domid != 0 => Err(Problem::invalid(
            "options.domid is given without options.sim: on Xen the domain is the one that the program runs in",
        )),
        None => Ok(Domain::xen().map_err(netfront::Error::from)?),
    }
}

impl Offload {
    fn of(offload: netfront::Offload) -> Self {
        let checksum = match offload.checksum {
            netfront::Checksum::None => Checksum::None,
            netfront::Checksum::Blank => Checksum::Blank,
            netfront::Checksum::Validated => Checksum::Validated,
        };
        let (gso, size) = match offload.gso {
            None => (Gso::None, 0),
            Some(gso) => match gso.kind {
                netfront::GsoKind::TcpV4 => (Gso::Tcpv4, gso.size),
                netfront::GsoKind::TcpV6 => (Gso::Tcpv6, gso.size),
            },
        };
        Self {
            checksum: checksum as u32,
            gso: gso as u32,
            gso_size: size.into(),
            reserved: 0,
        }
    }

    fn judged(self) -> Result<netfront::Offload, Problem> {
        if self.reserved != 0 {
            return Err(Problem::invalid(
                "offload.reserved is not 0: set all of the struct to 0 first",
            ));
        }
        let checksum = match self.checksum {
            0 => netfront::Checksum::None,
            1 => netfront::Checksum::Blank,
            2 => netfront::Checksum::Validated,
            _ => {
                return Err(Problem::invalid(
                    "offload.checksum is none of enum netfront_checksum, 0 to 2",
                ))
            }
        };
        let kind = match self.gso {
            0 => None,
            1 => Some(netfront::GsoKind::TcpV4),
            2 => Some(netfront::GsoKind::TcpV6),
            _ => {
                return Err(Problem::invalid(
                    "offload.gso is none of enum netfront_gso, 0 to 2",
                ))
            }
        };
        let gso =
            match (kind, u16::try_from(self.gso_size)) {
                (None, Ok(0)) => None,
                (Some(kind), Ok(size)) if size > 0 => Some(netfront::Gso { size, kind }),
                _ => return Err(Problem::invalid(
                    "offload.gso_size is 1 to 65535 for segments, and 0 for a packet that is none",
                )),
            };
        Ok(netfront::Offload {
            checksum,
            gso,
            hash: None,
        })
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests;
