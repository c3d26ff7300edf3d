//! Why the program ends without success, and its exit code.

use std::io;

/// The exit codes, as `netfront --help` documents them. From 64 on they mean what sysexits.h says.
pub mod code {
    /// All went well.
    pub const SUCCESS: u8 = 0;
    /// Something failed.
    pub const FAILED: u8 = 1;
    /// Not possible on this machine, or not as it is now (EX_UNAVAILABLE).
    pub const NOT_HERE: u8 = 69;
    /// Nobody confirmed a take-over, so it was undone (EX_TEMPFAIL).
    pub const NOT_CONFIRMED: u8 = 75;
    /// This user may not (EX_NOPERM).
    pub const NO_RIGHTS: u8 = 77;
    /// A module, a limit or another setting is missing (EX_CONFIG).
    pub const SETTING: u8 = 78;
}

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
    /// With an exit code of its own.
    #[error("{text}")]
    Class { code: u8, text: String },
}

impl Failure {
    /// The exit code, as `netfront --help` documents them.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotHere(_) => code::NOT_HERE,
            Self::Hypervisor(netfront::hypervisor::Error::Unavailable { .. })
            | Self::Driver(netfront::Error::Hypervisor(
                netfront::hypervisor::Error::Unavailable { .. },
            )) => code::NOT_HERE,
            Self::Class { code, .. } => *code,
            _ => code::FAILED,
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
