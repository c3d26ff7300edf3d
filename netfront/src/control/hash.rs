//! Hashes that the backend computes: by which algorithm, over what, with which key, and which queue each leads to.
//!
//! Asked for over the control ring (netif.h, messages 1 to 7), one question after the other:
//!
//! ```text
//!  algorithm -> what can be hashed -> what is to be -> key -> room of the mapping -> its size -> its entries
//! ```
//!
//! The algorithm comes first: while there is none, the kernel's netback says of the flags that they are not supported.
//! A backend that refuses a step is told to hash nothing; packets go on as without.

use std::fmt;
use std::str::FromStr;

use xen_ring::{ControlMessage, ControlStatus, HashAlgorithm, HashFlags};

use super::Answer;
use crate::engine::steering::{COMMON_KEY, KEY};

/// Entries of a mapping that fit into the page that is given to the backend.
const ENTRIES: usize = xen_ring::PAGE_SIZE / 4;

/// What has the backend hash nothing: the algorithm `none`, which is 0.
pub(super) const OFF: ControlMessage = ControlMessage::SetHashAlgorithm(0);

/// The key of a Toeplitz hash: 40 bytes, written as 80 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u8; KEY]);

impl Default for HashKey {
    /// The key of Microsoft's verification suite, which everybody knows: who may choose his ports may choose his queue.
    fn default() -> Self {
        Self(COMMON_KEY)
    }
}

impl fmt::Debug for HashKey {
    /// A key that is secret stays so in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey")
    }
}

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a hash key has 80 hexadecimal digits (40 bytes), and not {found} characters or others")]
pub struct HashKeyError {
    /// Characters that there are.
    found: usize,
}

impl FromStr for HashKey {
    type Err = HashKeyError;

    fn from_str(text: &str) -> Result<Self, HashKeyError> {
        let digits: String = text.chars().filter(|&digit| digit != ':').collect();
        let error = HashKeyError {
            found: digits.chars().count(),
        };
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if digits.len() != 2 * KEY || !is_hexadecimal {
            return Err(error);
        }
        let mut key = [0; KEY];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte =
                u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| error.clone())?;
        }
        Ok(Self(key))
    }
}

/// The hashes that are wanted of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashConfig {
    /// Over what; what the backend cannot is left out.
    pub flags: HashFlags,
    /// The key.
    pub key: HashKey,
    /// The queue of each remainder of the hash by the length of this; empty: the backend takes the remainder by the number
    /// of queues. As long as the backend has room for, at most.
    pub mapping: Vec<u32>,
}

impl Default for HashConfig {
    /// All that is defined, with the key that everybody knows, spread over all queues.
    fn default() -> Self {
        Self {
            flags: HashFlags::ALL,
            key: HashKey::default(),
            mapping: Vec::new(),
        }
    }
}

/// A question, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Algorithm,
    Offered,
    Flags(HashFlags),
    Key,
    Room,
    Size,
    Entries,
    /// A step was refused: no hash then.
    Off,
}

/// Why there are no hashes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("control message {kind} was answered with {status:?}")]
    Answered { kind: u16, status: ControlStatus },
    #[error(
        "control message {kind} was answered with {status:?}: its mapping names queue {highest}, and this connection may \
         have fewer queues (`queues` in `netfront status`)"
    )]
    Queues {
        kind: u16,
        status: ControlStatus,
        highest: u32,
    },
    #[error("it has none of the hashes {wanted:?}, only {offered:?}")]
    Kinds {
        wanted: HashFlags,
        offered: HashFlags,
    },
    #[error(
        "its mapping has room for {room} entries, and {wanted} are wanted: shorten the mapping"
    )]
    Room { room: u32, wanted: usize },
}

impl HashConfig {
    /// What is asked at a step. `gref` is the page with [`Self::page`].
    pub(super) fn message(&self, step: Step, gref: u32) -> ControlMessage {
        let entries = self.mapping.len() as u32;
        match step {
            Step::Algorithm => {
                ControlMessage::SetHashAlgorithm(HashAlgorithm::Toeplitz.to_raw().into())
            }
            Step::Offered => ControlMessage::GetHashFlags,
            Step::Flags(flags) => ControlMessage::SetHashFlags(flags),
            Step::Key => ControlMessage::SetHashKey {
                gref,
                len: KEY as u32,
            },
            Step::Room => ControlMessage::GetHashMappingSize,
            Step::Size => ControlMessage::SetHashMappingSize(entries),
            Step::Entries => ControlMessage::SetHashMapping {
                gref,
                entries,
                offset: 0,
            },
            Step::Off => OFF,
        }
    }

    /// What the page with lists has to hold for that.
    pub(super) fn page(&self, step: Step) -> Vec<u8> {
        match step {
            Step::Key => self.key.0.to_vec(),
            Step::Entries => {
                let entries = self.mapping.iter().take(ENTRIES);
                entries.flat_map(|queue| queue.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What follows an answer; `None` at the end.
    pub(super) fn next(&self, step: Step, (status, data): Answer) -> Result<Option<Step>, Refusal> {
        if status != ControlStatus::Success {
            let kind = self.message(step, 0).kind();
            return Err(match (step, self.mapping.iter().max()) {
                (Step::Entries, Some(&highest)) => Refusal::Queues {
                    kind,
                    status,
                    highest,
                },
                _ => Refusal::Answered { kind, status },
            });
        }
        Ok(match step {
            Step::Algorithm => Some(Step::Offered),
            Step::Offered => {
                let (wanted, offered) = (self.flags, HashFlags(data));
                match HashFlags(wanted.0 & offered.0) {
                    HashFlags(0) => return Err(Refusal::Kinds { wanted, offered }),
                    both => Some(Step::Flags(both)),
                }
            }
            Step::Flags(_) => Some(Step::Key),
            Step::Key if self.mapping.is_empty() => None,
            Step::Key => Some(Step::Room),
            Step::Room => {
                let wanted = self.mapping.len();
                if wanted > ENTRIES.min(data as usize) {
                    return Err(Refusal::Room { room: data, wanted });
                }
                Some(Step::Size)
            }
            Step::Size => Some(Step::Entries),
            Step::Entries | Step::Off => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: ControlStatus = ControlStatus::Success;

    fn mapped() -> HashConfig {
        HashConfig {
            mapping: vec![1, 0, 1],
            ..HashConfig::default()
        }
    }

    #[test]
    fn each_step_follows_the_one_before_and_the_mapping_is_left_out_if_there_is_none() {
        let run = |config: &HashConfig| {
            let mut steps = vec![Step::Algorithm];
            while let Ok(Some(next)) = config.next(steps[steps.len() - 1], (YES, 128)) {
                steps.push(next);
            }
            steps
                .iter()
                .map(|step| config.message(*step, 5).kind())
                .collect::<Vec<_>>()
        };
        // 128 has no bit of a hash that is defined.
        assert_eq!(run(&mapped()), [7, 1]);
        let next = |step, data| mapped().next(step, (YES, data));
        assert_eq!(next(Step::Offered, 3), Ok(Some(Step::Flags(HashFlags(3)))));
        assert_eq!(next(Step::Flags(HashFlags(3)), 0), Ok(Some(Step::Key)));
        assert_eq!(next(Step::Key, 0), Ok(Some(Step::Room)));
        assert_eq!(next(Step::Room, 3), Ok(Some(Step::Size)));
        assert_eq!(next(Step::Size, 0), Ok(Some(Step::Entries)));
        assert_eq!(next(Step::Entries, 0), Ok(None));
        let plain = HashConfig::default();
        assert_eq!(plain.next(Step::Key, (YES, 0)), Ok(None));
    }

    #[test]
    fn a_refusal_says_what_was_refused() {
        let no = (ControlStatus::InvalidParameter, 0);
        let refused = mapped().next(Step::Entries, no).expect_err("refused");
        let refused = refused.to_string();
        assert!(
            refused.contains("message 6") && refused.contains("queue 1"),
            "{refused}"
        );
        let small = mapped().next(Step::Room, (YES, 2)).expect_err("no room");
        assert!(small.to_string().contains("2 entries"), "{small}");
        let none = mapped().next(Step::Offered, (YES, 0)).expect_err("none");
        assert!(matches!(none, Refusal::Kinds { .. }), "{none}");
    }

    #[test]
    fn the_page_holds_the_key_or_the_queues_and_nothing_at_other_steps() {
        let config = mapped();
        assert_eq!(config.page(Step::Key), COMMON_KEY);
        let entries = [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(config.page(Step::Entries), entries);
        assert!(config.page(Step::Size).is_empty());
    }

    #[test]
    fn a_key_is_eighty_hexadecimal_digits_with_or_without_colons() {
        let text =
            "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa";
        assert_eq!(text.parse(), Ok(HashKey::default()));
        assert_eq!(format!("6d:{}", &text[2..]).parse(), Ok(HashKey::default()));
        for wrong in ["", "6d", &text[1..], &"ä".repeat(40)] {
            assert!(wrong.parse::<HashKey>().is_err(), "{wrong}");
        }
    }
}
