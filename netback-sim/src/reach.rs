//! How the data path reaches the guest's pages that the guest has not announced.

use std::fmt;
use std::str::FromStr;

/// The way to pages of the guest for which no mapping is kept. Those that the guest has announced
/// with grant mapping messages are mapped already, and cost no call in either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// One grant copy call a batch: the hypervisor copies.
    #[default]
    Copy,
    /// The pages of a batch are mapped with one call, copied here, and unmapped with one call before
    /// the guest is answered: the kernel's netfront gives up a device whose page is still mapped when
    /// its response comes.
    Map,
}

impl Reach {
    /// Both, in the order of the help text.
    pub const ALL: [Reach; 2] = [Reach::Copy, Reach::Map];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Reach::Copy => "copy",
            Reach::Map => "map",
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reach {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|reach| reach.name() == text)
            .ok_or_else(|| format!("no way is called {text:?}; there are copy and map"))
    }
}
