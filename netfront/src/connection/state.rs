//! The states of a xenbus device (xen/include/public/io/xenbus.h).

use std::fmt;
use std::str::FromStr;

/// The state of one end, as it stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum XenbusState {
    /// The node is absent, empty or holds no state: the other end is not there.
    Unknown,
    /// The end is starting.
    Initialising,
    /// The backend has written its features and waits for the frontend's rings.
    InitWait,
    /// The frontend has written its rings (some frontends go straight to Connected).
    Initialised,
    /// Traffic may flow.
    Connected,
    /// The end wants to stop.
    Closing,
    /// The end has let go of everything.
    Closed,
    /// The end changes its configuration.
    Reconfiguring,
    /// The configuration is changed.
    Reconfigured,
}

impl XenbusState {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The number in the store.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The state that a store value stands for. Whatever is no state is [`Self::Unknown`]: a peer may
    /// write anything.
    pub fn from_store(value: Option<&str>) -> Self {
        value
            .and_then(|text| u8::from_str(text.trim()).ok())
            .and_then(|number| Self::ALL.get(usize::from(number)).copied())
            .unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_back_as_it_was_written() {
        for state in XenbusState::ALL {
            assert_eq!(
                XenbusState::from_store(Some(&state.number().to_string())),
                state
            );
        }
    }

    #[test]
    fn whatever_is_no_state_is_unknown() {
        for value in [
            None,
            Some(""),
            Some("9"),
            Some("-1"),
            Some("four"),
            Some("99999999999"),
        ] {
            assert_eq!(XenbusState::from_store(value), XenbusState::Unknown);
        }
    }
}
