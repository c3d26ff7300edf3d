//! A process that holds a descriptor which must not be closed, and does nothing else.
//!
//! After a restore the last close of an event channel handle breaks the guest's kernel. A duplicate
//! shares the open file, so as long as somebody holds one, no close is the last: not ours, and not
//! the one that the kernel does for us when we end.
//!
//! The keeper is spawned, not forked with our pages mapped: a child that held those would keep them
//! granted. It is a shell, since there is one in every image, and it lives until the machine goes.
//! Its name is for the administrator who wonders: do not kill it. A service manager that kills all
//! processes of a unit kills it too (systemd: `KillMode=process` leaves it alone).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::FdFlags;

/// What stands at the end of its command line, and, shortened, as its name.
const NAME: &str = "xen-evtchn-keeper";

/// The descriptor is its standard input, and that of the program it sleeps in: both hold it.
/// Descriptors that we were started with ourselves are not its business: the usual ones are closed, those beyond
/// 9 a shell cannot name.
const SCRIPT: &str = "\
    trap '' HUP INT QUIT PIPE ALRM TERM USR1 USR2 TSTP TTIN TTOU\n\
    exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-\n\
    echo xen-evtchn-keep 2>/dev/null >/proc/self/comm\n\
    while :; do sleep 2000000000; done";

/// Starts a keeper that holds `descriptor` and tells its process number.
///
/// # Errors
///
/// When no shell can be started. The descriptor is closed then: the caller must have another.
pub(crate) fn keep(descriptor: OwnedFd) -> io::Result<u32> {
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
    let keeper = Command::new("/bin/sh")
        .args(["-c", SCRIPT, NAME])
        .stdin(Stdio::from(descriptor))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .env_clear()
        .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
        // Ctrl-C and a hang-up are for our group.
        .process_group(0)
        .spawn()?;
    // Nobody waits for it: it outlives us, and the first process of the machine inherits it.
    Ok(keeper.id())
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
    fn a_keeper_holds_the_descriptor_says_who_it_is_and_ignores_what_ends_a_program() {
        let (mut reader, writer) = io::pipe().unwrap();
        let pid = keep(writer.into()).unwrap();
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
        assert!(!hangs_up(&mut reader, Duration::from_millis(200)));
        signal(pid, rustix::process::Signal::KILL);
        assert!(hangs_up(&mut reader, Duration::from_secs(20)));
        let gone = rustix::process::Pid::from_raw(pid as i32);
        let _ = rustix::process::waitpid(gone, rustix::process::WaitOptions::empty());
    }
}
