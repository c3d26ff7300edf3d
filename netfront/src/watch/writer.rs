//! The other end of a recording: takes what the queue's thread left and writes it out.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::{Kind, Watch, BUFFER};
use crate::waker::Waker;

/// What a pipe that is ready takes without blocking (PIPE_BUF).
const PIECE: usize = 4096;
/// How long a reader may take for the next piece once the recording is over.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Packets captured, or lines of a trace.
    pub recorded: u64,
    /// Those that found no room, since the writer was too slow.
    pub dropped: u64,
}

/// A capture or trace that runs. Dropped, it ends.
#[derive(Debug)]
pub struct Running {
    watch: Arc<Watch>,
    kind: Kind,
    waker: Arc<Waker>,
    end: Option<Instant>,
    /// What was taken and is being written; its memory goes back to the queue's thread at the next look.
    taken: Vec<u8>,
}

impl Running {
    pub(super) fn new(
        watch: Arc<Watch>,
        kind: Kind,
        waker: Arc<Waker>,
        end: Option<Instant>,
    ) -> Self {
        Self {
            watch,
            kind,
            waker,
            end,
            taken: Vec::with_capacity(BUFFER),
        }
    }

    /// Writes to `file`, a pipe for one, until the limits of the recording are reached, or `stop` becomes
    /// readable or is closed. What was recorded before that is written as well.
    ///
    /// # Errors
    /// When the file can take no more: the disk is full, or whoever read the pipe has gone.
    pub fn write_to(mut self, file: &File, stop: Option<BorrowedFd<'_>>) -> io::Result<Totals> {
        let is_file = file.metadata().is_ok_and(|found| found.is_file());
        let mut over = false;
        loop {
            over = over || self.wait(stop)?;
            if over {
                self.watch.off(self.kind);
            }
            let last = self.take();
            if is_file {
                (&*file).write_all(&self.taken)?;
            } else if !write_pieces(file, &self.taken, self.end, stop)? {
                return Ok(self.totals());
            }
            if last {
                return Ok(self.totals());
            }
        }
    }

    /// How much there was so far.
    pub fn totals(&self) -> Totals {
        let recording = self.watch.recording(self.kind);
        recording
            .as_ref()
            .map_or(Totals::default(), |now| now.totals)
    }

    /// Sleeps until there is something to write. True if the time is over or somebody stops it.
    fn wait(&self, stop: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let mut fds = arrayvec::ArrayVec::<PollFd<'_>, 2>::new();
        fds.push(PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN));
        fds.extend(stop.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, time_to(self.end).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let stopped = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        self.waker.clear();
        Ok(stopped || self.end.is_some_and(|end| Instant::now() >= end))
    }

    /// Swaps the buffers. True if nothing will follow.
    fn take(&mut self) -> bool {
        self.taken.clear();
        let mut recording = self.watch.recording(self.kind);
        let Some(now) = recording.as_mut() else {
            return true;
        };
        std::mem::swap(&mut now.bytes, &mut self.taken);
        if self.watch.on.load(Ordering::Relaxed) & self.kind.bit() == 0 {
            // What is on its way into the buffer finds no room left.
            now.left = 0;
        }
        now.left == 0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watch.off(self.kind);
        *self.watch.recording(self.kind) = None;
    }
}

/// Writes to what may block, a pipe, without being caught in it. False if the recording was over and the reader
/// asleep.
fn write_pieces(
    file: &File,
    bytes: &[u8],
    end: Option<Instant>,
    stop: Option<BorrowedFd<'_>>,
) -> io::Result<bool> {
    for mut piece in bytes.chunks(PIECE) {
        while !piece.is_empty() {
            // When it is over, a reader that is busy is waited for, and none that sleeps.
            let patience = || Some(Instant::now() + PATIENCE);
            if !takes_more(file, end, stop)? && !takes_more(file, patience(), None)? {
                return Ok(false);
            }
            match (&*file).write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => piece = &piece[written..],
                // A signal; or another writer filled a pipe that does not block.
                Err(error) if is_passing(error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(true)
}

fn is_passing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// Waits until the file takes a piece, or has nobody left who reads. False if the time was over first, or somebody
/// stopped it.
fn takes_more(file: &File, end: Option<Instant>, stop: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    loop {
        let mut fds = arrayvec::ArrayVec::<PollFd<'_>, 2>::new();
        fds.push(PollFd::new(file, PollFlags::OUT));
        fds.extend(stop.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, time_to(end).as_ref()) {
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time that is left, as poll takes it: `None` is for ever.
fn time_to(end: Option<Instant>) -> Option<Timespec> {
    let left = end?.saturating_duration_since(Instant::now());
    Timespec::try_from(left).ok()
}
