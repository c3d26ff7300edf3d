//! Why the program ends without success, and its exit code.

use std::io;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Driver(#[from] netfront::Error),
    #[error(transparent)]
    Hypervisor(#[from] netfront::hypervisor::Error),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// Something was measured or verified, and it is not as it must be.
    #[error("{0}")]
    Verdict(String),
    /// It cannot be done on this machine (sysexits' EX_UNAVAILABLE).
    #[error("{0}")]
    NotHere(String),
}

impl Failure {
    /// The exit code, as `netfront --help` documents them.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotHere(_) => 69,
            _ => 1,
        }
    }

    /// For `map_err`: names what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            what: what.into(),
            source,
        }
    }
}
