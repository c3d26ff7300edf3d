//! What stands in for hypercalls: one question and one answer, each of five numbers of 32 bits,
//! descriptors riding on the answer.
//!
//! The socket keeps the borders of messages (SEQPACKET), so there is nothing to cut.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketType,
};

use crate::{unix, DomId, Error, Lack, Port};

/// How long the simulated Xen may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Changes when a message changes its meaning: a client and a server of different builds find out.
const VERSION: u32 = 2;
const NUMBERS: usize = 5;
const SIZE: usize = NUMBERS * 4;
/// The most descriptors an answer carries.
const MAX_FDS: usize = 2;

/// What a domain asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Make this domain, unless it exists.
    Introduce { domain: u16 },
    /// Make this connection the process of this domain. Answered with its memory and grant table.
    Attach { domain: u16 },
    /// Answered with memory and grant table of another domain.
    Foreign { owner: u16 },
    /// Answered with the number of a handle for event channels.
    OpenEvents,
    /// Answered with a port, and with what it receives from and sends to.
    BindUnbound { handle: u32, remote: u16 },
    /// The same, for the other end.
    BindInterdomain { handle: u32, remote: u16, port: u32 },
    /// Close a port.
    Unbind { handle: u32, port: u32 },
    /// Close a handle with all its ports.
    CloseEvents { handle: u32 },
    /// Somebody else holds the handle from now on: it is not closed when the process ends.
    ParkEvents { handle: u32 },
    /// When the region that begins at `frame` is closed, clear the byte at `at` of the memory.
    ClearOnClose { frame: u32, at: u32 },
    /// When the region that begins at `frame` is closed, send an event through `port`.
    NotifyOnClose { frame: u32, port: u32 },
    /// The region that begins at `frame` is closed.
    Closed { frame: u32 },
    /// As a toolstack: save this domain. Until it is restored nobody hears of its process.
    Save { domain: u16 },
    /// As a toolstack: let a saved domain go on with this number.
    Restore { domain: u16, number: u16 },
    /// Answered with how often a guest's kernel would have broken.
    KernelBugs,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Okay,
    /// A living process is attached to that domain.
    InUse,
    NoSuchDomain,
    BadPort,
    /// The connection must attach first.
    NotAttached,
    /// The server has no descriptors or memory left.
    Exhausted,
    Malformed,
}

/// The answer: a status and one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) value: u32,
}

/// An answer as it arrives.
#[derive(Debug)]
pub(crate) struct Answered {
    status: Status,
    /// A port, or the limit of grants.
    pub(crate) value: u32,
    fds: Vec<OwnedFd>,
}

impl Request {
    fn numbers(self) -> [u32; NUMBERS] {
        let (operation, a, b, c) = match self {
            Request::Introduce { domain } => (1, domain.into(), 0, 0),
            Request::Attach { domain } => (2, domain.into(), 0, 0),
            Request::Foreign { owner } => (3, owner.into(), 0, 0),
            Request::BindUnbound { handle, remote } => (4, remote.into(), 0, handle),
            Request::BindInterdomain {
                handle,
                remote,
                port,
            } => (5, remote.into(), port, handle),
            Request::Unbind { handle, port } => (6, port, 0, handle),
            Request::ClearOnClose { frame, at } => (7, frame, at, 0),
            Request::NotifyOnClose { frame, port } => (8, frame, port, 0),
            Request::Closed { frame } => (9, frame, 0, 0),
            Request::OpenEvents => (10, 0, 0, 0),
            Request::CloseEvents { handle } => (11, handle, 0, 0),
            Request::ParkEvents { handle } => (12, handle, 0, 0),
            Request::Save { domain } => (13, domain.into(), 0, 0),
            Request::Restore { domain, number } => (14, domain.into(), number.into(), 0),
            Request::KernelBugs => (15, 0, 0, 0),
        };
        [VERSION, operation, a, b, c]
    }

    /// The question behind these bytes, or `None`: anybody can connect and send anything.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [version, operation, a, b, c] = numbers(bytes)?;
        if version != VERSION {
            return None;
        }
        let domain = || u16::try_from(a).ok();
        Some(match operation {
            1 => Request::Introduce { domain: domain()? },
            2 => Request::Attach { domain: domain()? },
            3 => Request::Foreign { owner: domain()? },
            4 => Request::BindUnbound {
                handle: c,
                remote: domain()?,
            },
            5 => Request::BindInterdomain {
                handle: c,
                remote: domain()?,
                port: b,
            },
            6 => Request::Unbind { handle: c, port: a },
            7 => Request::ClearOnClose { frame: a, at: b },
            8 => Request::NotifyOnClose { frame: a, port: b },
            9 => Request::Closed { frame: a },
            10 => Request::OpenEvents,
            11 => Request::CloseEvents { handle: a },
            12 => Request::ParkEvents { handle: a },
            13 => Request::Save { domain: domain()? },
            14 => Request::Restore {
                domain: domain()?,
                number: u16::try_from(b).ok()?,
            },
            15 => Request::KernelBugs,
            _ => return None,
        })
    }
}

impl Answer {
    pub(crate) fn okay(value: u32) -> Self {
        Answer {
            status: Status::Okay,
            value,
        }
    }

    fn numbers(self) -> [u32; NUMBERS] {
        let status = match self.status {
            Status::Okay => 0,
            Status::InUse => 1,
            Status::NoSuchDomain => 2,
            Status::BadPort => 3,
            Status::NotAttached => 4,
            Status::Exhausted => 5,
            Status::Malformed => 6,
        };
        [VERSION, status, self.value, 0, 0]
    }
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Answer { status, value: 0 }
    }
}

impl Answered {
    /// The number of the answer, or the error that its status means. `domain` is who was asked for.
    pub(crate) fn okay(self, domain: DomId) -> Result<(u32, Vec<OwnedFd>), Error> {
        match self.status {
            Status::Okay => Ok((self.value, self.fds)),
            Status::InUse => Err(Error::DomainInUse { id: domain }),
            Status::NoSuchDomain => Err(Error::NoSuchDomain { id: domain }),
            Status::BadPort => Err(Error::BadPort {
                port: Port(self.value),
                reason: format!("it does not exist, or is bound, or is not for domain {domain}"),
            }),
            Status::NotAttached | Status::Malformed => Err(Error::BadAnswer {
                service: "The simulated Xen",
                found: format!("{:?} to a question that should be right", self.status),
            }),
            Status::Exhausted => Err(Error::Unavailable {
                lack: Lack::Here,
                wanted: "A resource of the simulated Xen".into(),
                found: "it has no descriptors or memory left".into(),
                hint: "raise its limit of open files, or close channels".into(),
            }),
        }
    }

    /// The same, with exactly two descriptors.
    pub(crate) fn pair(self, domain: DomId) -> Result<(u32, OwnedFd, OwnedFd), Error> {
        let (value, fds) = self.okay(domain)?;
        let found = fds.len();
        let [first, second] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| Error::BadAnswer {
            service: "The simulated Xen",
            found: format!("{found} descriptors where two belong"),
        })?;
        Ok((value, first, second))
    }
}

fn numbers(bytes: &[u8]) -> Option<[u32; NUMBERS]> {
    if bytes.len() != SIZE {
        return None;
    }
    let mut numbers = [0; NUMBERS];
    for (number, bytes) in numbers.iter_mut().zip(bytes.chunks_exact(4)) {
        *number = u32::from_ne_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

fn bytes(numbers: [u32; NUMBERS]) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for (bytes, number) in bytes.chunks_exact_mut(4).zip(numbers) {
        bytes.copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

/// Connects to a simulated Xen.
pub(crate) fn connect(socket: &Path) -> Result<OwnedFd, Error> {
    let control = unix::connect(socket, SocketType::SEQPACKET)?;
    set_socket_timeout(&control, Timeout::Recv, Some(DEADLINE))
        .map_err(|errno| Error::system("set the timeout of a socket", errno))?;
    Ok(control)
}

/// Asks, and waits for the answer.
pub(crate) fn ask(control: &OwnedFd, request: Request) -> Result<Answered, Error> {
    let gone = || Error::Gone {
        service: "The simulated Xen",
        doing: format!("asking {request:?}"),
    };
    let failed = |errno| match errno {
        Errno::AGAIN => Error::TimedOut {
            waiting_for: format!("the simulated Xen to answer {request:?}"),
            after: DEADLINE,
        },
        Errno::PIPE | Errno::CONNRESET => gone(),
        other => Error::system("speak to the simulated Xen", other),
    };
    send(control.as_fd(), &bytes(request.numbers()), &[]).map_err(failed)?;
    let mut buffer = [0; SIZE + 1];
    let (length, fds) = loop {
        match receive(control.as_fd(), &mut buffer) {
            Err(Errno::INTR) => {}
            other => break other.map_err(failed)?,
        }
    };
    if length == 0 {
        return Err(gone());
    }
    let status = |number| {
        Some(match number {
            0 => Status::Okay,
            1 => Status::InUse,
            2 => Status::NoSuchDomain,
            3 => Status::BadPort,
            4 => Status::NotAttached,
            5 => Status::Exhausted,
            6 => Status::Malformed,
            _ => return None,
        })
    };
    match numbers(&buffer[..length]) {
        Some([VERSION, number, value, ..]) => match status(number) {
            Some(status) => Ok(Answered { status, value, fds }),
            None => Err(bad_answer(format!("status {number}"))),
        },
        Some([version, ..]) => Err(bad_answer(format!(
            "version {version} of its protocol, not {VERSION}"
        ))),
        None => Err(bad_answer(format!("{length} bytes"))),
    }
}

fn bad_answer(found: String) -> Error {
    Error::BadAnswer {
        service: "The simulated Xen",
        found,
    }
}

/// Sends an answer. Used by the server.
pub(crate) fn answer(
    control: BorrowedFd<'_>,
    answer: Answer,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    send(control, &bytes(answer.numbers()), fds)
}

/// Receives a question; `None` when the connection was closed. Used by the server.
pub(crate) fn question(control: BorrowedFd<'_>) -> Result<Option<Result<Request, Status>>, Errno> {
    let mut buffer = [0; SIZE + 1];
    // Descriptors that somebody sends are closed at once, or they would pile up here.
    let (length, _) = receive(control, &mut buffer)?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some(
        Request::decode(&buffer[..length]).ok_or(Status::Malformed),
    ))
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match rustix::net::sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_question_comes_out_as_it_went_in() {
        for request in [
            Request::Introduce { domain: 1 },
            Request::Attach { domain: 65535 },
            Request::Foreign { owner: 2 },
            Request::BindUnbound {
                handle: 11,
                remote: 3,
            },
            Request::BindInterdomain {
                handle: 12,
                remote: 4,
                port: 5,
            },
            Request::Unbind {
                handle: 13,
                port: u32::MAX,
            },
            Request::ClearOnClose { frame: 6, at: 7 },
            Request::NotifyOnClose { frame: 8, port: 9 },
            Request::Closed { frame: 10 },
            Request::OpenEvents,
            Request::CloseEvents { handle: 14 },
            Request::ParkEvents { handle: 15 },
            Request::Save { domain: 16 },
            Request::Restore {
                domain: 17,
                number: 18,
            },
            Request::KernelBugs,
        ] {
            assert_eq!(Request::decode(&bytes(request.numbers())), Some(request));
        }
    }

    #[test]
    fn a_question_of_another_version_is_refused() {
        let mut numbers = Request::Attach { domain: 1 }.numbers();
        numbers[0] = VERSION + 1;
        assert_eq!(Request::decode(&bytes(numbers)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_question_or_none(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
            let _ = Request::decode(&bytes);
        }
    }
}
