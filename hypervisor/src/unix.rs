//! Connecting to a unix socket without ever hanging.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_timeout, Timeout};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::{Error, Lack};

/// How long a connection may take to be accepted into the queue of the listener.
const DEADLINE: Duration = Duration::from_secs(5);

/// The address of a socket file, or an error that says what is wrong with its name.
pub(crate) fn address(socket: &Path) -> Result<SocketAddrUnix, Error> {
    SocketAddrUnix::new(socket).map_err(|_| Error::Invalid {
        what: format!(
            "{} is too long for the name of a socket (107 bytes at most); choose a shorter one",
            socket.display()
        ),
    })
}

/// Connects to `socket`.
pub(crate) fn connect(socket: &Path, kind: SocketType) -> Result<OwnedFd, Error> {
    let address = address(socket)?;
    let file = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::system("make a socket", errno))?;
    // A listener whose queue is full lets a blocking connect wait for ever.
    set_socket_timeout(&file, Timeout::Send, Some(DEADLINE))
        .map_err(|errno| Error::system("set the timeout of a socket", errno))?;
    match rustix::net::connect(&file, &address) {
        Ok(()) => Ok(file),
        Err(errno) => Err(refused(socket, errno)),
    }
}

fn refused(socket: &Path, errno: Errno) -> Error {
    let wanted = format!("A connection to {}", socket.display());
    match errno {
        Errno::NOENT | Errno::NOTDIR => Error::Unavailable {
            lack: Lack::Here,
            wanted,
            found: "there is no such socket".into(),
            hint: "start the service first, or correct the path".into(),
        },
        Errno::CONNREFUSED => Error::Unavailable {
            lack: Lack::Here,
            wanted,
            found: "nobody listens there any more".into(),
            hint: "start the service again".into(),
        },
        Errno::PROTOTYPE => Error::Invalid {
            what: format!(
                "A service of another kind listens on {}; correct the path",
                socket.display()
            ),
        },
        Errno::AGAIN => Error::TimedOut {
            waiting_for: wanted,
            after: DEADLINE,
        },
        other => Error::system(format!("connect to {}", socket.display()), other),
    }
}

/// Whether somebody listens on this socket file, of whatever kind it is.
#[cfg(feature = "sim")]
pub(crate) fn is_listening(socket: &Path) -> bool {
    // A listener of another kind answers with another error, so one attempt tells.
    !matches!(
        connect(socket, SocketType::STREAM),
        Err(Error::Unavailable { .. })
    )
}

/// Writes to a socket or a device. A socket whose peer is gone answers with an error and not with
/// a signal, which would end the program.
pub(crate) fn write_quietly(file: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::net::send(&file, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::NOTSOCK) => rustix::io::write(&file, bytes),
        other => other,
    }
}
