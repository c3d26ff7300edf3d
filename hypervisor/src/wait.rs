//! Waiting for a descriptor, never without a deadline.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::Error;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The descriptor is ready, or broken: the next call on it tells.
    Ready,
    /// The deadline came first.
    TooLong,
}

/// Waits until `fd` is ready for `what`, at the latest until `until`.
pub(crate) fn ready(fd: impl AsFd, what: PollFlags, until: Instant) -> Result<Waited, Error> {
    loop {
        let left = timespec(until.saturating_duration_since(Instant::now()));
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), what)];
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok(Waited::TooLong),
            Ok(_) => return Ok(Waited::Ready),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for a descriptor", errno)),
        }
    }
}

/// A duration as the kernel takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
