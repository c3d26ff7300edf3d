//! What is asked of the store, what it answers, and what its errors become.

use std::io;
use std::time::Duration;

use super::{refused, wire};
use crate::Error;

/// What is asked of the store.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Read { path: String },
    Write { path: String, value: String },
    Remove { path: String },
    List { path: String },
    Watch { path: String, token: String },
    Unwatch { path: String, token: String },
}

/// What it answered.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Value(Option<String>),
    Names(Vec<String>),
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Call::Read { .. } => "read",
            Call::Write { .. } => "write",
            Call::Remove { .. } => "remove",
            Call::List { .. } => "list",
            Call::Watch { .. } => "watch",
            Call::Unwatch { .. } => "unwatch",
        }
    }

    fn path(&self) -> &str {
        match self {
            Call::Read { path }
            | Call::Write { path, .. }
            | Call::Remove { path }
            | Call::List { path }
            | Call::Watch { path, .. }
            | Call::Unwatch { path, .. } => path,
        }
    }

    /// Refuses what would do harm: a request that is too long ends the crate's writer, and a path
    /// with a zero byte in it would be another path.
    pub(super) fn check(&self) -> Result<(), Error> {
        let (operation, path) = (self.name(), self.path());
        if path.contains('\0') {
            return Err(Error::Invalid {
                what: format!("Wanted to {operation} {path:?}, but a path has no zero byte"),
            });
        }
        // The crate's own token is 36 bytes; both are ended by a zero byte.
        let rest = match self {
            Call::Write { value, .. } => value.len(),
            Call::Watch { .. } | Call::Unwatch { .. } => 37,
            _ => 0,
        };
        let size = path.len() + 1 + rest;
        if size > wire::MAX_PAYLOAD {
            return Err(Error::Invalid {
                what: format!(
                    "Wanted to {operation} {path:?} with {size} bytes, but the store takes {} at most",
                    wire::MAX_PAYLOAD
                ),
            });
        }
        Ok(())
    }

    fn described(&self) -> String {
        format!("the store to {} {:?}", self.name(), self.path())
    }

    pub(super) fn too_late(&self, after: Duration) -> Error {
        Error::TimedOut {
            waiting_for: self.described(),
            after,
        }
    }

    pub(super) fn gone(&self) -> Error {
        Error::Gone {
            service: "The store",
            doing: format!("asking {}", self.described()),
        }
    }

    /// The crate keeps the store's code only in the text of its error.
    pub(super) fn failed(&self, error: &io::Error) -> Error {
        let text = error.to_string();
        match text.strip_prefix("XS interface error ") {
            Some(code) => refused(self.name(), self.path(), code),
            None if error.kind() == io::ErrorKind::BrokenPipe => self.gone(),
            None => Error::BadAnswer {
                service: "The store",
                found: format!("{text}, when asking {}", self.described()),
            },
        }
    }
}

impl Answer {
    pub(super) fn unexpected(&self) -> Error {
        Error::BadAnswer {
            service: "The thread of the store client",
            found: format!("{self:?} to another question"),
        }
    }
}
