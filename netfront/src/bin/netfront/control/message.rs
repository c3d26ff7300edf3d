//! One line over a socket, and a file that may come with it.

use std::io::{self, Error, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The longest line. Answers are some kilobytes.
const LONGEST: usize = 256 << 10;

/// Sends one line, and with it the right to use `file`.
pub fn send_line(stream: &UnixStream, line: &str, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let text = format!("{line}\n");
    let mut bytes = text.as_bytes();
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    let mut first = true;
    while !bytes.is_empty() {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if std::mem::take(&mut first) && !files.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&files));
        }
        let sent = sendmsg(
            stream,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Reads one line within `deadline` from now, however slowly it drips, and the file that came with it.
pub fn read_line(stream: &UnixStream, deadline: Duration) -> io::Result<(String, Option<OwnedFd>)> {
    let end = Instant::now().checked_add(deadline);
    let mut line = Vec::new();
    let mut file = None;
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::new(ErrorKind::TimedOut, "no whole line in time"));
        }
        stream.set_read_timeout(left)?;
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let got = match got {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                file = files.last().or(file);
            }
        }
        let part = &bytes[..got.bytes];
        let end_of_line = part.iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(&part[..end_of_line.unwrap_or(part.len())]);
        if end_of_line.is_some() {
            let text = String::from_utf8_lossy(&line).into_owned();
            return Ok((text, file));
        }
        if got.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line.len() > LONGEST {
            return Err(Error::new(ErrorKind::InvalidData, "a line without an end"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_line_arrives_with_the_file_that_was_sent_along() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sent = tempfile::tempfile().unwrap();
        send_line(&ours, "a question", Some(sent.as_fd())).unwrap();
        let (line, file) = read_line(&theirs, Duration::from_secs(5)).unwrap();
        assert_eq!(line, "a question");
        File::from(file.unwrap()).write_all(b"answer").unwrap();
        let mut text = String::new();
        sent.rewind().unwrap();
        sent.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }

    #[test]
    fn a_long_line_comes_whole_and_one_without_an_end_is_refused() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let long = read_line(&theirs, Duration::from_secs(20)).unwrap();
            let endless = read_line(&theirs, Duration::from_secs(20)).unwrap_err();
            (long.0.len(), endless.kind())
        });
        send_line(&ours, &"x".repeat(100_000), None).unwrap();
        // It stops reading in the middle of this.
        let _ = ours.write_all(&vec![b'y'; LONGEST + 10_000]);
        assert_eq!(reader.join().unwrap(), (100_000, ErrorKind::InvalidData));
    }

    #[test]
    fn whoever_says_nothing_or_drips_is_not_waited_for() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let start = Instant::now();
        let dripping = std::thread::spawn(move || {
            while ours.write_all(b".").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let error = read_line(&theirs, Duration::from_millis(100)).unwrap_err();
        assert!(matches!(
            error.kind(),
            ErrorKind::TimedOut | ErrorKind::WouldBlock
        ));
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(theirs);
        dripping.join().unwrap();
    }
}
