//! Errors of the driver as numbers, with the text that says what to do.

use std::borrow::Cow;

use netfront::SendError;

use crate::types::Error;

/// Why a call failed. Those that belong to the data path carry a text that is there already.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Error,
    pub text: Cow<'static, str>,
}

impl Problem {
    pub(crate) const NONE: Self = Self::new(Error::None, "no call has failed");
    pub(crate) const BUSY: Self = Self::new(
        Error::Busy,
        "the handle is in use: call it when netfront_receive() has returned, not from its callback",
    );
    pub(crate) const BUG: Self = Self::new(
        Error::Bug,
        "a bug of the library stopped a call; please report what standard error says, and close the handle",
    );
    pub(crate) const DISCONNECTED: Self = Self::new(
        Error::Disconnected,
        "the last netfront_reconnect() failed: call it again",
    );

    pub(crate) const fn new(code: Error, text: &'static str) -> Self {
        Self {
            code,
            text: Cow::Borrowed(text),
        }
    }

    pub(crate) fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: Error::Invalid,
            text: text.into(),
        }
    }
}

impl From<netfront::Error> for Problem {
    fn from(error: netfront::Error) -> Self {
        use netfront::hypervisor::Error as Ground;
        use netfront::Error as Driver;
        let code = match &error {
            error if error.is_restore() => Error::Restored,
            error if error.is_peers_fault() => Error::Broken,
            Driver::NoVif { .. } => Error::NoVif,
            Driver::Deadline { .. } => Error::Deadline,
            Driver::Hypervisor(Ground::Unavailable { .. }) => Error::Unavailable,
            _ => Error::System,
        };
        // The causes too: "could not open" alone does not say why.
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(next) = cause {
            text = format!("{text}: {next}");
            cause = next.source();
        }
        Self {
            code,
            text: text.into(),
        }
    }
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full => Self::new(
                Error::Full,
                "there is no room to send: netfront_flush(), netfront_wait(), and try again",
            ),
            SendError::Length(_) => Self {
                code: Error::Length,
                text: error.to_string().into(),
            },
        }
    }
}
