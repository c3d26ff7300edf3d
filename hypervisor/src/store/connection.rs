//! One connection of the native client: questions, answers, and the events between them.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::wire::{self, Framer, Kind, Message};
use super::{WatchEvent, DEADLINE};
use crate::wait::{self, Waited};
use crate::{unix, Error};

/// A descriptor that speaks the protocol.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) file: OwnedFd,
    pub(super) deadline: Duration,
    framer: Framer,
    events: VecDeque<WatchEvent>,
    last_request: u32,
    /// The peer is gone, or can not be understood any more.
    gone: bool,
}

impl Connection {
    pub(super) fn new(file: OwnedFd) -> Result<Self, Error> {
        // By the flag and not by ioctl, which the device does not know.
        let flags = rustix::fs::fcntl_getfl(&file);
        flags
            .and_then(|flags| rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK))
            .map_err(|errno| {
                Error::system("make the connection to the store non-blocking", errno)
            })?;
        Ok(Connection {
            file,
            deadline: DEADLINE,
            framer: Framer::default(),
            events: VecDeque::new(),
            last_request: 0,
            gone: false,
        })
    }

    /// Sends a question and waits for its answer.
    pub(super) fn ask(
        &mut self,
        kind: Kind,
        transaction: u32,
        operation: &'static str,
        path: &str,
        payload: Vec<u8>,
    ) -> Result<Message, Error> {
        if payload.len() > wire::MAX_PAYLOAD {
            return Err(Error::Invalid {
                what: format!(
                    "Wanted to {operation} {path:?} with {} bytes, but the store takes {} at most",
                    payload.len(),
                    wire::MAX_PAYLOAD
                ),
            });
        }
        let doing = || format!("the store to {operation} {path:?}");
        self.last_request = self.last_request.wrapping_add(1);
        let request = self.last_request;
        let until = Instant::now() + self.deadline;
        self.send(
            &Message {
                kind,
                request,
                transaction,
                payload,
            }
            .encode(),
            until,
            &doing,
        )?;
        loop {
            let Some(message) = self.receive(until, &doing)? else {
                return Err(Error::TimedOut {
                    waiting_for: doing(),
                    after: self.deadline,
                });
            };
            if message.kind == Kind::WATCH_EVENT {
                self.queue(&message)?;
                // Events without end must not hold up the answer for ever.
                if Instant::now() > until {
                    return Err(Error::TimedOut {
                        waiting_for: doing(),
                        after: self.deadline,
                    });
                }
            } else if message.request != request {
                tracing::debug!(
                    request = message.request,
                    "late answer of the store thrown away"
                );
            } else if message.kind == Kind::ERROR {
                let code = text(&message.payload).unwrap_or("an error without a name");
                return Err(refused(operation, path, code));
            } else if message.kind == kind {
                return Ok(message);
            } else {
                return Err(self.broken(format!(
                    "kind {} to a question of kind {}",
                    message.kind.0, kind.0
                )));
            }
        }
    }

    fn send(
        &mut self,
        mut bytes: &[u8],
        until: Instant,
        doing: &dyn Fn() -> String,
    ) -> Result<(), Error> {
        if self.gone {
            return Err(self.hung_up(doing()));
        }
        while !bytes.is_empty() {
            match unix::write_quietly(&self.file, bytes) {
                Ok(0) => return Err(self.hung_up(doing())),
                Ok(written) => bytes = &bytes[written..],
                Err(Errno::INTR) => {}
                // Only a socket says so. The device never does, and never tells that it is writable.
                Err(Errno::AGAIN) => {
                    if wait::ready(&self.file, PollFlags::OUT, until)? == Waited::TooLong {
                        // Half a frame may have gone out: nothing sent after it would be understood.
                        self.gone = true;
                        return Err(Error::TimedOut {
                            waiting_for: doing(),
                            after: self.deadline,
                        });
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(self.hung_up(doing()))
                }
                Err(errno) => return Err(Error::system(format!("ask {}", doing()), errno)),
            }
        }
        Ok(())
    }

    /// The next frame, or `None` when the time is over.
    fn receive(
        &mut self,
        until: Instant,
        doing: &dyn Fn() -> String,
    ) -> Result<Option<Message>, Error> {
        let mut buffer = [0u8; wire::HEADER_SIZE + wire::MAX_PAYLOAD];
        loop {
            match self.framer.next_message() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(too_long) => return Err(self.broken(too_long.to_string())),
            }
            if self.gone {
                return Err(self.hung_up(doing()));
            }
            match rustix::io::read(&self.file, &mut buffer) {
                Ok(0) => self.gone = true,
                Ok(read) => self.framer.push(&buffer[..read]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if wait::ready(&self.file, PollFlags::IN, until)? == Waited::TooLong {
                        return Ok(None);
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => self.gone = true,
                Err(errno) => return Err(Error::system(format!("hear from {}", doing()), errno)),
            }
        }
    }

    fn queue(&mut self, message: &Message) -> Result<(), Error> {
        match wire::strings(&message.payload).as_deref() {
            Some([path, token, ..]) => {
                self.events.push_back(WatchEvent {
                    path: (*path).into(),
                    token: (*token).into(),
                });
                Ok(())
            }
            _ => Err(self.broken("a watch event without path and token".into())),
        }
    }

    /// What follows cannot be trusted any more, so nothing more is read.
    pub(super) fn broken(&mut self, found: String) -> Error {
        self.gone = true;
        Error::BadAnswer {
            service: "The store",
            found,
        }
    }

    fn hung_up(&mut self, doing: String) -> Error {
        self.gone = true;
        Error::Gone {
            service: "The store",
            doing: format!("asking {doing}"),
        }
    }

    /// The next event that has come or comes before `until`.
    pub(super) fn next_event(&mut self, until: Instant) -> Result<Option<WatchEvent>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            match self.receive(until, &|| "the store for a watch event".into())? {
                None => return Ok(None),
                Some(message) if message.kind == Kind::WATCH_EVENT => self.queue(&message)?,
                Some(message) => {
                    tracing::debug!(
                        request = message.request,
                        "late answer of the store thrown away"
                    );
                }
            }
        }
    }
}

fn refused(operation: &'static str, path: &str, code: &str) -> Error {
    let path = path.to_owned();
    match code {
        "EACCES" | "EPERM" => Error::StorePermission { operation, path },
        _ => Error::StoreRefused {
            operation,
            path,
            code: code.to_owned(),
        },
    }
}

/// The text of an answer that is one string, with or without its end mark.
pub(super) fn text(payload: &[u8]) -> Option<&str> {
    std::str::from_utf8(payload.strip_suffix(&[0]).unwrap_or(payload)).ok()
}
