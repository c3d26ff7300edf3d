//! Which sizes the frames have.

use std::fmt;
use std::str::FromStr;

use super::{FRAME_MAX, FRAME_MIN};

/// A frame size that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is no frame size: give {FRAME_MIN} to {FRAME_MAX} bytes, `mix` (64, 594 and 1518 \
     bytes in 7:4:1) or `64k` ({FRAME_MAX} bytes)"
)]
pub struct SizeError {
    pub(super) found: String,
}

/// Which sizes the frames have, in bytes of frame without the check sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// Always the same.
    Fixed(usize),
    /// 64, 594 and 1518 bytes in 7:4:1, near the internet's mix.
    Mix,
    /// As large as netif can carry: 65535 bytes, 16 slots or more.
    Large,
}

/// The mix, spread so that large frames do not come in a row.
const MIX: [usize; 12] = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64];

impl Sizes {
    pub(super) fn all(self) -> Vec<usize> {
        match self {
            Sizes::Fixed(size) => vec![size],
            Sizes::Mix => MIX.to_vec(),
            Sizes::Large => vec![FRAME_MAX],
        }
    }

    /// The mean size.
    pub fn mean(self) -> f64 {
        let all = self.all();
        all.iter().sum::<usize>() as f64 / all.len() as f64
    }
}

impl FromStr for Sizes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError {
            found: text.to_owned(),
        };
        match text {
            "mix" => Ok(Sizes::Mix),
            "64k" | "64K" => Ok(Sizes::Large),
            number => {
                let size = number.parse().map_err(|_| wrong())?;
                if (FRAME_MIN..=FRAME_MAX).contains(&size) {
                    Ok(Sizes::Fixed(size))
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(size) => write!(f, "{size}"),
            Sizes::Mix => f.write_str("mix"),
            Sizes::Large => f.write_str("64k"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for text in ["60", "64", "mix", "64k", "65535"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
        for text in ["", "59", "65536", "64 k", "-1"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
