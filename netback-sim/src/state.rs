//! The states that both ends show each other in the store (`xen/include/public/io/xenbus.h`).

use std::fmt;

/// A xenbus state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[repr(u8)]
pub enum State {
    /// No state: the node is missing, or its value is none of the others.
    #[default]
    Unknown = 0,
    /// Coming up.
    Initialising = 1,
    /// The backend has announced its features and waits.
    InitWait = 2,
    /// All details are in the store.
    Initialised = 3,
    /// Traffic flows.
    Connected = 4,
    /// Going down.
    Closing = 5,
    /// Down.
    Closed = 6,
    /// Changing its details.
    Reconfiguring = 7,
    /// Has changed its details.
    Reconfigured = 8,
}

impl State {
    /// The state behind the text in the store. Anything that is no state is [`State::Unknown`]. (The
    /// kernel reads a number above 8 as a state that it refuses, and other text as this one.)
    pub fn from_text(text: &str) -> State {
        match text.trim() {
            "1" => State::Initialising,
            "2" => State::InitWait,
            "3" => State::Initialised,
            "4" => State::Connected,
            "5" => State::Closing,
            "6" => State::Closed,
            "7" => State::Reconfiguring,
            "8" => State::Reconfigured,
            _ => State::Unknown,
        }
    }

    /// The text in the store.
    pub fn text(self) -> String {
        (self as u8).to_string()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
