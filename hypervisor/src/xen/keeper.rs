//! A process that holds descriptors which must not be closed, and does nothing else.
//!
//! After a restore the last close of an event channel handle breaks the guest's kernel. A duplicate
//! shares the open file, so as long as somebody holds one, no close is the last: not ours, and not
//! the one that the kernel does for us when we end.
//!
//! The keeper is spawned, not forked with our pages mapped: a child that held those would keep them
//! granted. It is a shell, since there is one in every image, and it lives until the machine goes.
//! Its name is for the administrator who wonders: do not kill it. A service manager that kills all
//! processes of a unit kills it too (systemd: `KillMode=process` leaves it alone).
//!
//! There is one for each of our processes, however many handles it has and however often it is restored. A shell
//! takes no descriptor once it runs, and need not: its standard input is a socket, what is sent there stays in the socket's
//! queue, and a file in a queue that somebody can still read is open (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// What stands at the end of its command line, and, shortened, as its name.
const NAME: &str = "xen-evtchn-keeper";

/// The socket is its standard input, and that of the program it sleeps in: both hold it.
/// Descriptors that we were started with ourselves are not its business: the usual ones are closed, those beyond
/// 9 a shell cannot name.
const SCRIPT: &str = "\
    trap '' HUP INT QUIT PIPE ALRM TERM USR1 USR2 TSTP TTIN TTOU\n\
    exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-\n\
    echo xen-evtchn-keep 2>/dev/null >/proc/self/comm\n\
    while :; do sleep 2000000000; done";

/// That of this process, once something had to be kept.
static OURS: Mutex<Option<Keeper>> = Mutex::new(None);

/// Has the keeper of this process hold `descriptor`, and tells its process number. It is started if there is none.
///
/// # Errors
///
/// When no shell can be started, or it takes nothing. The descriptor is closed then: the caller must have another.
pub(crate) fn keep(descriptor: OwnedFd) -> io::Result<u32> {
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    keep_by(&mut ours, &descriptor)
}

fn keep_by(keeper: &mut Option<Keeper>, descriptor: &OwnedFd) -> io::Result<u32> {
    if let Some(there) = keeper {
        match there.take(descriptor) {
            Ok(()) => return Ok(there.pid),
            // Killed, or its queue is full; what it has, it keeps.
            Err(error) => tracing::debug!("keeper {}: {error}", there.pid),
        }
    }
    let new = Keeper::start()?;
    new.take(descriptor)?;
    Ok(keeper.insert(new).pid)
}

/// A process that keeps, and the socket by which it is sent what to keep.
struct Keeper {
    pid: u32,
    socket: UnixStream,
}

impl Keeper {
    fn start() -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let keeper = Command::new("/bin/sh")
            .args(["-c", SCRIPT, NAME])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .env_clear()
            .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
            // Ctrl-C and a hang-up are for our group.
            .process_group(0)
            .spawn()?;
        // Nobody waits for it: it outlives us, and the first process of the machine inherits it.
        Ok(Self {
            pid: keeper.id(),
            socket,
        })
    }

    /// Sends it a duplicate. It is kept from here on, whatever becomes of `descriptor` and of this process.
    fn take(&self, descriptor: &OwnedFd) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sent = [descriptor.as_fd()];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&sent)) {
            return Err(io::Error::other("there is no room for a descriptor"));
        }
        // A message without a byte carries none. A queue that is full is not waited for: nobody empties it.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut ancillary, flags)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn signal(pid: u32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        let _ = rustix::process::kill_process_group(pid, signal);
    }

    /// The end of a pipe whose other end a keeper holds: it hangs up when the last holder has gone.
    fn hangs_up(reader: &mut io::PipeReader, within: Duration) -> bool {
        let mut polled = [rustix::event::PollFd::new(
            &*reader,
            rustix::event::PollFlags::IN,
        )];
        let until = Instant::now() + within;
        loop {
            let timeout = crate::wait::timespec(until.saturating_duration_since(Instant::now()));
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn one_keeper_holds_all_descriptors_says_who_it_is_and_ignores_what_ends_a_program() {
        let mut keeper = None;
        let mut readers = Vec::new();
        let mut pids = Vec::new();
        for _ in 0..3 {
            let (reader, writer) = io::pipe().unwrap();
            pids.push(keep_by(&mut keeper, &writer.into()).unwrap());
            readers.push(reader);
        }
        let pid = pids[0];
        assert_eq!(pids, [pid; 3]);
        // As when this process ends.
        drop(keeper);
        let read = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while read("comm").trim() != &NAME[..15] {
            assert!(Instant::now() < deadline, "its name is {}", read("comm"));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(read("cmdline").contains(NAME));
        let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(folder, std::path::Path::new("/"));
        for ending in [
            rustix::process::Signal::TERM,
            rustix::process::Signal::INT,
            rustix::process::Signal::HUP,
        ] {
            signal(pid, ending);
        }
        for reader in &mut readers {
            assert!(!hangs_up(reader, Duration::from_millis(200)));
        }
        end(pid);
        for reader in &mut readers {
            assert!(hangs_up(reader, Duration::from_secs(20)));
        }
    }

    #[test]
    fn a_keeper_that_was_killed_is_followed_by_another() {
        let mut keeper = None;
        let (_first, writer) = io::pipe().unwrap();
        let killed = keep_by(&mut keeper, &writer.into()).unwrap();
        end(killed);
        let (mut second, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let deadline = Instant::now() + Duration::from_secs(20);
        // The program that it slept in holds the socket for a moment longer.
        let pid = loop {
            let pid = keep_by(&mut keeper, &writer).unwrap();
            if pid != killed {
                break pid;
            }
            assert!(Instant::now() < deadline, "the dead one took it");
        };
        drop(writer);
        assert!(!hangs_up(&mut second, Duration::from_millis(200)));
        end(pid);
        assert!(hangs_up(&mut second, Duration::from_secs(20)));
    }

    /// Kills it with its group, as nobody should.
    fn end(pid: u32) {
        signal(pid, rustix::process::Signal::KILL);
        let gone = rustix::process::Pid::from_raw(pid as i32);
        let _ = rustix::process::waitpid(gone, rustix::process::WaitOptions::empty());
    }
}
