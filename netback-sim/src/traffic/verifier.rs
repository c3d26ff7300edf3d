//! Judges verifiable frames: what is missing, doubled, overtaken or changed.

use crc32fast::Hasher;

use super::{ipv4_sum, HEADERS, MAGIC, OVERHEAD, SUMMED, UDP_PORT};

/// How far back duplicates are told from late frames.
const WINDOW: u64 = 1024;

/// What a frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Whole, and in order.
    Good,
    /// Whole, but overtaken by another one of its flow.
    Late,
    /// Whole, but it was here before.
    Duplicate,
    /// One of ours, damaged.
    Corrupt,
    /// None of ours.
    Foreign,
}

/// What a [`Verifier`] has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    /// Different frames received whole.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sequence numbers that were passed over and have not come since.
    pub lost: u64,
    /// Frames that came again.
    pub duplicate: u64,
    /// Frames that came after a later one of their flow.
    pub reordered: u64,
    /// Damaged frames.
    pub corrupt: u64,
    /// Frames of somebody else.
    pub foreign: u64,
}

impl Counts {
    /// Nothing lost, doubled, overtaken or damaged.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicate == 0 && self.reordered == 0 && self.corrupt == 0
    }
}

#[derive(Debug, Clone)]
struct Flow {
    /// The next sequence number that is not late. None: take the first one that comes.
    next: Option<u64>,
    /// Which of the last [`WINDOW`] sequence numbers have come, by number modulo the window.
    seen: [u64; WINDOW as usize / 64],
}

/// Judges frames one after the other.
#[derive(Debug, Clone)]
pub struct Verifier {
    counts: Counts,
    /// By flow number; grows when a new flow is seen, at most to 65536 of them.
    flows: Vec<Flow>,
    start: Option<u64>,
}

impl Verifier {
    /// Expects every flow from its first frame on.
    pub fn new() -> Self {
        Verifier {
            counts: Counts::default(),
            flows: Vec::new(),
            start: Some(0),
        }
    }

    /// Takes the first frame of each flow that comes as its start.
    pub fn joining() -> Self {
        Verifier {
            start: None,
            ..Verifier::new()
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Judges one frame, given in pieces. Nothing is copied but the headers.
    pub fn check(&mut self, pieces: &[&[u8]]) -> Verdict {
        let verdict = self.judge(pieces);
        let counts = &mut self.counts;
        match verdict {
            Verdict::Good => {}
            Verdict::Late => counts.reordered += 1,
            Verdict::Duplicate => counts.duplicate += 1,
            Verdict::Corrupt => counts.corrupt += 1,
            Verdict::Foreign => counts.foreign += 1,
        }
        if matches!(verdict, Verdict::Good | Verdict::Late) {
            counts.frames += 1;
            counts.bytes += pieces.iter().map(|p| p.len() as u64).sum::<u64>();
        }
        verdict
    }

    fn judge(&mut self, pieces: &[&[u8]]) -> Verdict {
        let mut head = [0; OVERHEAD];
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        let gathered = gather(&mut head, pieces);
        // IPv4 without options, UDP, our port.
        if gathered < HEADERS
            || head[12..15] != [0x08, 0x00, 0x45]
            || head[23] != 17
            || head[36..38] != UDP_PORT.to_be_bytes()
        {
            return Verdict::Foreign;
        }
        let lengths = (
            usize::from(u16::from_be_bytes([head[16], head[17]])) + 14,
            usize::from(u16::from_be_bytes([head[38], head[39]])) + 34,
        );
        // A frame with bytes behind its packet is as wrong as one that is cut.
        if gathered < OVERHEAD
            || lengths != (total, total)
            || ipv4_sum(&head[14..34]) != 0
            || head[HEADERS..HEADERS + 2] != MAGIC.to_be_bytes()
        {
            return Verdict::Corrupt;
        }
        let (summed, sum) = head[HEADERS..].split_at(SUMMED);
        let mut hasher = Hasher::new();
        let mut skip = OVERHEAD;
        for piece in pieces {
            let passed = skip.min(piece.len());
            skip -= passed;
            hasher.update(&piece[passed..]);
        }
        hasher.update(summed);
        if hasher.finalize().to_be_bytes() != *sum {
            return Verdict::Corrupt;
        }
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&summed[4..]);
        let flow = u16::from_be_bytes([summed[2], summed[3]]);
        self.place(usize::from(flow), u64::from_be_bytes(sequence))
    }

    fn place(&mut self, flow: usize, sequence: u64) -> Verdict {
        if flow >= self.flows.len() {
            let fresh = Flow {
                next: self.start,
                seen: [0; WINDOW as usize / 64],
            };
            self.flows.resize(flow + 1, fresh);
        }
        let flow = &mut self.flows[flow];
        let next = flow.next.unwrap_or(sequence);
        if sequence >= next {
            let gap = sequence - next;
            for passed in 0..gap.min(WINDOW) {
                flow.forget(sequence - 1 - passed);
            }
            flow.remember(sequence);
            flow.next = Some(sequence.wrapping_add(1));
            self.counts.lost = self.counts.lost.saturating_add(gap);
            return Verdict::Good;
        }
        if next - sequence <= WINDOW {
            if flow.has(sequence) {
                return Verdict::Duplicate;
            }
            flow.remember(sequence);
        }
        // It was counted as lost when a later one came.
        self.counts.lost = self.counts.lost.saturating_sub(1);
        Verdict::Late
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Verifier::new()
    }
}

impl Flow {
    fn bit(sequence: u64) -> (usize, u64) {
        let place = sequence % WINDOW;
        ((place / 64) as usize, 1 << (place % 64))
    }

    fn has(&self, sequence: u64) -> bool {
        let (word, bit) = Flow::bit(sequence);
        self.seen[word] & bit != 0
    }

    fn remember(&mut self, sequence: u64) {
        let (word, bit) = Flow::bit(sequence);
        self.seen[word] |= bit;
    }

    fn forget(&mut self, sequence: u64) {
        let (word, bit) = Flow::bit(sequence);
        self.seen[word] &= !bit;
    }
}

/// Copies the first bytes of the frame together and tells how many there were.
fn gather(head: &mut [u8; OVERHEAD], pieces: &[&[u8]]) -> usize {
    let mut gathered = 0;
    for piece in pieces {
        let take = piece.len().min(OVERHEAD - gathered);
        head[gathered..gathered + take].copy_from_slice(&piece[..take]);
        gathered += take;
        if gathered == OVERHEAD {
            break;
        }
    }
    gathered
}
