//! What happens to a page after its packet: the pool's way, and the ways it is compared with.

use std::fmt;
use std::str::FromStr;

/// The fate of a page after its packet.
///
/// Only [`PoolPolicy::Pool`] is meant for use; the others exist so that what the pool saves can be
/// measured, with the same calls and nothing added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PoolPolicy {
    /// Small packets are copied out and their pages posted again; the pages of large packets are handed
    /// up uncopied and come back when they are dropped. No grant after the start.
    #[default]
    Pool,
    /// A page is granted for every packet and its grant is ended after it, as the kernel's netfront does.
    PerPacket,
    /// Pages are granted once, but every packet is copied out in full.
    CopyAlways,
    /// Pages are granted in batches, used once and never posted again: a pool without return.
    NoRecycle,
}

impl PoolPolicy {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 4] = [
        Self::Pool,
        Self::PerPacket,
        Self::CopyAlways,
        Self::NoRecycle,
    ];

    /// True if a page is used again after its packet.
    pub fn recycles(self) -> bool {
        matches!(self, Self::Pool | Self::CopyAlways)
    }

    /// The name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::PerPacket => "per-packet",
            Self::CopyAlways => "copy-always",
            Self::NoRecycle => "no-recycle",
        }
    }
}

impl fmt::Display for PoolPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for PoolPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("no policy is called {text:?}; there are {names}")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_read_back_by_its_name_and_others_are_refused_with_the_names_there_are() {
        for policy in PoolPolicy::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
            assert_eq!(policy.to_string(), policy.name());
        }
        let refused = "pooled".parse::<PoolPolicy>().expect_err("no such policy");
        assert!(
            refused.contains("pooled") && refused.contains("copy-always"),
            "{refused}"
        );
    }
}
