//! Waiting for the driver's end: signals are passed on, and a driver that does not end when it must is killed.
//!
//! Guardian and driver have a socket between them, which is the driver's standard input. Its end says that the other
//! has gone; what else is said there is one byte:
//!
//! | word | from | meaning |
//! | --- | --- | --- |
//! | [`STOP`] | guardian | stop: the guardian gives the vif back |
//! | [`CONFIRMED`] | driver | somebody can still reach the machine: no time runs out any more |
//! | [`EXPIRED`] | driver | nobody confirmed in time, and it is ending |

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::Failure;

/// Tells the driver to stop, and that its guardian gives the vif back.
pub const STOP: u8 = b's';
/// Tells the guardian that somebody confirmed.
pub const CONFIRMED: u8 = b'c';
/// Tells the guardian that nobody did, and that the driver is ending.
pub const EXPIRED: u8 = b'e';

/// How long a driver may take.
pub struct Times {
    /// Until when it must have said that somebody confirmed, or that nobody did. Silent longer, it is stopped or hangs,
    /// and whoever waits for the vif is out of reach.
    pub word: Option<Instant>,
    /// From when it begins to end.
    pub goodbye: Duration,
}

/// How the driver ended.
#[derive(Debug)]
pub struct End {
    /// As the kernel says it.
    pub status: ExitStatus,
    /// It was killed, since nobody had confirmed and it did not end.
    pub unconfirmed: bool,
}

/// Waits for the end of `driver`, at the other end of whose standard input is `line`.
///
/// # Errors
/// When the system does not let this process wait, or kill.
pub fn watch(
    driver: &mut Child,
    mut line: &UnixStream,
    times: &Times,
    signals: &Signals,
) -> Result<End, Failure> {
    let failed = || Failure::io("waiting for the driver");
    let pidfd = pidfd_open(Pid::from_child(driver), PidfdFlags::empty())
        .map_err(|error| failed()(error.into()))?;
    let (mut word, mut goodbye) = (times.word, None);
    let (mut told, mut expired, mut talks) = (false, false, true);
    loop {
        let until = [word, goodbye].into_iter().flatten().min();
        match signals.or(&pidfd, talks.then_some(line), until)? {
            Woken::Ended => {
                let status = driver.wait().map_err(failed())?;
                let unconfirmed = expired && status.code().is_none();
                return Ok(End {
                    status,
                    unconfirmed,
                });
            }
            Woken::Word(CONFIRMED) => word = None,
            Woken::Word(EXPIRED) => {
                (word, expired) = (None, true);
                goodbye = Some(Instant::now() + times.goodbye);
            }
            Woken::Word(_) => {}
            Woken::Silent => talks = false,
            Woken::Signal if !told => {
                (told, word) = (true, None);
                goodbye.get_or_insert_with(|| Instant::now() + times.goodbye);
                // A driver that has gone already is seen next.
                let _ = line.write_all(&[STOP]);
            }
            Woken::Signal | Woken::Timeout => {
                tracing::error!("the driver did not end: killing it");
                driver.kill().map_err(failed())?;
                expired |= word.is_some_and(|until| Instant::now() >= until);
                (word, goodbye) = (None, Some(Instant::now() + times.goodbye));
            }
        }
    }
}

enum Woken {
    Signal,
    Ended,
    Word(u8),
    /// The driver has closed its end.
    Silent,
    Timeout,
}

/// SIGINT and SIGTERM, as something to wait for.
pub struct Signals(UnixStream);

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> Result<Self, Failure> {
        let failed = || Failure::io("installing signal handlers");
        let (signals, ringer) = UnixStream::pair().map_err(failed())?;
        signals.set_nonblocking(true).map_err(failed())?;
        for signal in [SIGINT, SIGTERM] {
            let ringer = ringer.try_clone().map_err(failed())?;
            signal_hook::low_level::pipe::register(signal, ringer).map_err(failed())?;
        }
        Ok(Self(signals))
    }

    /// True if one came since the last look.
    pub fn came(&self) -> bool {
        (&self.0).read(&mut [0; 16]).is_ok_and(|read| read > 0)
    }

    /// Waits for a signal, a word or the end of a process.
    fn or(
        &self,
        process: &OwnedFd,
        line: Option<&UnixStream>,
        until: Option<Instant>,
    ) -> Result<Woken, Failure> {
        let mut fds = vec![
            PollFd::new(process, PollFlags::IN),
            PollFd::new(&self.0, PollFlags::IN),
        ];
        fds.extend(line.map(|line| PollFd::new(line, PollFlags::IN)));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Woken::Timeout),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Woken::Ended),
                Ok(_) if self.came() => return Ok(Woken::Signal),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Failure::io("waiting for the driver")(error.into())),
            }
            if let Some(woken) = line.and_then(heard) {
                return Ok(woken);
            }
        }
    }
}

/// The next word, or that none will come; `None` if none has come yet.
fn heard(mut line: &UnixStream) -> Option<Woken> {
    let mut word = [0];
    match line.read(&mut word) {
        Ok(0) => Some(Woken::Silent),
        Ok(_) => Some(Woken::Word(word[0])),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            None
        }
        Err(_) => Some(Woken::Silent),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(200);

    /// A driver that does what this script says, and who speaks with it; nobody sends signals.
    struct Stage {
        driver: Child,
        line: UnixStream,
        signals: Signals,
        ringer: UnixStream,
    }

    impl Stage {
        fn new(script: &str) -> Self {
            let (line, theirs) = UnixStream::pair().expect("a pair");
            line.set_nonblocking(true).expect("a setting");
            let (signals, ringer) = UnixStream::pair().expect("a pair");
            signals.set_nonblocking(true).expect("a setting");
            let driver = Command::new("/bin/sh")
                .args(["-c", script])
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .spawn()
                .expect("a shell");
            Self {
                driver,
                line,
                signals: Signals(signals),
                ringer,
            }
        }

        /// Until it has said something, which stays to be read.
        fn after_a_word(self) -> Self {
            let mut fds = [PollFd::new(&self.line, PollFlags::IN)];
            poll(&mut fds, None).expect("a word");
            self
        }

        fn watch(mut self, word: Option<Duration>, goodbye: Duration) -> End {
            let word = word.map(|time| Instant::now() + time);
            let times = Times { word, goodbye };
            watch(&mut self.driver, &self.line, &times, &self.signals).expect("watched")
        }
    }

    #[test]
    fn a_driver_that_stands_still_when_the_time_to_confirm_is_over_is_killed() {
        let end = Stage::new("kill -STOP $$").watch(Some(SHORT), LONG);
        assert_eq!(end.status.signal(), Some(9));
        assert!(end.unconfirmed);
    }

    #[test]
    fn a_driver_that_was_confirmed_is_left_alone_for_ever() {
        let stage = Stage::new("printf c >&0; sleep 0.5; exit 3").after_a_word();
        let end = stage.watch(Some(Duration::ZERO), LONG);
        assert_eq!((end.status.code(), end.unconfirmed), (Some(3), false));
    }

    #[test]
    fn a_driver_that_says_that_its_time_is_over_has_time_for_its_goodbye_and_no_more() {
        let stage = Stage::new("printf e >&0; sleep 0.5; exit 75").after_a_word();
        let end = stage.watch(Some(Duration::ZERO), LONG);
        assert_eq!((end.status.code(), end.unconfirmed), (Some(75), false));
        let stage = Stage::new("printf e >&0; exec sleep 600").after_a_word();
        let end = stage.watch(Some(Duration::ZERO), SHORT);
        assert_eq!((end.status.signal(), end.unconfirmed), (Some(9), true));
    }

    #[test]
    fn a_signal_is_passed_on_as_a_word_and_who_insists_gets_the_driver_killed() {
        let stage = Stage::new("word=$(dd bs=1 count=1 2>/dev/null); [ \"$word\" = s ] && exit 4");
        (&stage.ringer).write_all(b"x").expect("a signal");
        assert_eq!(stage.watch(None, LONG).status.code(), Some(4));
        let stage = Stage::new("dd bs=1 count=1 >/dev/null 2>&1; printf x >&0; exec sleep 600");
        (&stage.ringer).write_all(b"x").expect("a signal");
        let insisting = stage.ringer.try_clone().expect("a copy");
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| stage.watch(None, LONG));
            // The first one was seen long ago, unless this machine stands still; else the two are one, and the
            // test would wait for the goodbye.
            std::thread::sleep(Duration::from_secs(2));
            (&insisting).write_all(b"x").expect("a signal");
            let end = watching.join().expect("no panic");
            assert_eq!((end.status.signal(), end.unconfirmed), (Some(9), false));
        });
    }

    #[test]
    fn a_driver_that_closes_its_end_is_waited_for_all_the_same() {
        let end = Stage::new("exec <&-; sleep 0.5; exit 6").watch(None, LONG);
        assert_eq!(end.status.code(), Some(6));
    }
}
