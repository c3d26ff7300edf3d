//! Frames that can be verified: whoever receives one can tell whether it is whole, and whether
//! others before it were lost, doubled or overtaken.
//!
//! A frame is Ethernet, IPv4 and UDP, so that it passes any bridge, router or firewall. Its UDP
//! payload begins with 16 bytes, big endian:
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 2 | [`MAGIC`] |
//! | 2 | 2 | flow |
//! | 4 | 8 | sequence number within the flow, from 0 |
//! | 12 | 4 | CRC-32 over everything behind it and then over the 12 bytes before it |
//!
//! The rest is a pattern that differs from frame to frame. The sum goes over the pattern first
//! because the sum of a pattern is known beforehand: so the sender pays for 12 bytes only, while
//! the receiver has to read them all. Sizes are those of the frame without the frame check
//! sequence; a size of N is exactly N bytes of frame.
//!
//! - [`Generator`] writes frames into a caller's buffer.
//! - [`Verifier`] judges frames, given as pieces, without copying them.
//!
//! ```
//! use netback_sim::traffic::{Generator, Sizes, Verdict, Verifier};
//!
//! let mut generator = Generator::new(Sizes::Fixed(1518), 1)?;
//! let mut verifier = Verifier::new();
//! let mut buffer = vec![0; 2048];
//! let len = generator.fill(&mut buffer).expect("room for 1518 bytes");
//! let (head, tail) = buffer[..len].split_at(100);
//! assert_eq!(verifier.check(&[head, tail]), Verdict::Good);
//! # Ok::<(), netback_sim::traffic::SizeError>(())
//! ```

mod generator;
mod sizes;
mod verifier;

pub use generator::Generator;
pub use sizes::{SizeError, Sizes};
pub use verifier::{Counts, Verdict, Verifier};

/// The first two bytes of the payload.
pub const MAGIC: u16 = 0x584e;
/// The UDP port that frames go to.
pub const UDP_PORT: u16 = 20_304;
/// The smallest frame: Ethernet's own minimum, without its check sequence.
pub const FRAME_MIN: usize = 60;
/// The largest frame: what netif can carry.
pub const FRAME_MAX: usize = 65_535;

/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 14 + 20 + 8;
/// The 16 bytes at the start of the payload.
const PREFIX: usize = 16;
/// Everything in front of the pattern.
const OVERHEAD: usize = HEADERS + PREFIX;
/// The sum covers this much of the prefix, after the pattern.
const SUMMED: usize = 12;

/// The one's complement sum of an IPv4 header, 0 when its checksum is right.
fn ipv4_sum(header: &[u8]) -> u16 {
    let mut sum: u32 = header
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(sizes: Sizes, flows: u16, count: usize) -> Vec<Vec<u8>> {
        let mut generator = Generator::new(sizes, flows).unwrap();
        let mut buffer = vec![0; FRAME_MAX];
        (0..count)
            .map(|_| {
                let len = generator.fill(&mut buffer).unwrap();
                buffer[..len].to_vec()
            })
            .collect()
    }

    #[test]
    fn a_frame_has_exactly_the_size_asked_for_and_verifies() {
        for size in [60, 61, 64, 594, 1518, 4096, 9000, 65_535] {
            let mut verifier = Verifier::new();
            for frame in frames(Sizes::Fixed(size), 3, 20) {
                assert_eq!(frame.len(), size);
                assert_eq!(verifier.check(&[&frame]), Verdict::Good, "size {size}");
            }
            let counts = verifier.counts();
            assert_eq!((counts.frames, counts.bytes), (20, 20 * size as u64));
            assert!(counts.is_clean());
        }
    }

    #[test]
    fn sizes_beyond_the_limits_are_refused() {
        for size in [0, 59, 65_536] {
            assert!(Generator::new(Sizes::Fixed(size), 1).is_err(), "{size}");
        }
    }

    #[test]
    fn the_mix_is_seven_small_four_medium_and_one_large() {
        let sizes: Vec<usize> = frames(Sizes::Mix, 1, 24).iter().map(Vec::len).collect();
        let count = |size| sizes.iter().filter(|s| **s == size).count();
        assert_eq!((count(64), count(594), count(1518)), (14, 8, 2));
    }

    #[test]
    fn any_cut_into_pieces_gives_the_same_verdict() {
        let frame = &frames(Sizes::Fixed(300), 1, 1)[0];
        for cut in 0..=frame.len() {
            let (head, tail) = frame.split_at(cut);
            let mut verifier = Verifier::new();
            assert_eq!(
                verifier.check(&[head, &[], tail]),
                Verdict::Good,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn every_changed_bit_of_the_payload_is_found() {
        let frame = &frames(Sizes::Fixed(90), 1, 1)[0];
        for at in HEADERS..frame.len() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[at] ^= 1 << bit;
                let mut verifier = Verifier::new();
                assert_eq!(verifier.check(&[&changed]), Verdict::Corrupt, "byte {at}");
                assert_eq!(verifier.counts().corrupt, 1);
            }
        }
    }

    #[test]
    fn bytes_behind_the_packet_and_missing_ones_are_corruption() {
        let frame = &frames(Sizes::Fixed(90), 1, 1)[0];
        let mut verifier = Verifier::new();
        assert_eq!(verifier.check(&[frame, &[0]]), Verdict::Corrupt);
        assert_eq!(verifier.check(&[&frame[..89]]), Verdict::Corrupt);
    }

    #[test]
    fn other_frames_are_foreign_and_not_corrupt() {
        let mut verifier = Verifier::new();
        assert_eq!(verifier.check(&[&[0xff; 60]]), Verdict::Foreign);
        assert_eq!(verifier.check(&[]), Verdict::Foreign);
        assert_eq!(verifier.counts().foreign, 2);
    }

    #[test]
    fn a_gap_is_loss_until_the_late_frame_comes() {
        let frames = frames(Sizes::Fixed(64), 1, 10);
        let mut verifier = Verifier::new();
        for i in [0, 1, 4, 2, 2, 4, 9] {
            verifier.check(&[&frames[i]]);
        }
        let counts = verifier.counts();
        // 3, 5, 6, 7 and 8 never came; 2 came late once and then once more; 4 came twice.
        assert_eq!(counts.lost, 5);
        assert_eq!(counts.reordered, 1);
        assert_eq!(counts.duplicate, 2);
        assert_eq!(counts.frames, 5);
        assert!(!counts.is_clean());
    }

    #[test]
    fn flows_are_counted_apart() {
        let frames = frames(Sizes::Fixed(64), 4, 40);
        let mut verifier = Verifier::new();
        // Flow by flow instead of round robin: each flow is in order for itself.
        for flow in 0..4 {
            for frame in frames.iter().skip(flow).step_by(4) {
                assert_eq!(verifier.check(&[frame]), Verdict::Good);
            }
        }
        assert!(verifier.counts().is_clean());
    }

    #[test]
    fn a_verifier_that_joins_late_takes_the_first_frame_as_the_start() {
        let frames = frames(Sizes::Fixed(64), 1, 10);
        let mut verifier = Verifier::joining();
        for frame in &frames[5..] {
            assert_eq!(verifier.check(&[frame]), Verdict::Good);
        }
        assert!(verifier.counts().is_clean());
        let mut verifier = Verifier::new();
        verifier.check(&[&frames[5]]);
        assert_eq!(verifier.counts().lost, 5);
    }
}
