//! Writes verifiable frames, at little more than the cost of copying them.

use crc32fast::Hasher;

use super::{
    ipv4_sum, SizeError, Sizes, FRAME_MAX, FRAME_MIN, HEADERS, MAGIC, OVERHEAD, PREFIX, SUMMED,
    UDP_PORT,
};

/// How many different patterns there are: a stale frame in a reused page shows one of the others.
const PATTERNS: usize = 64;
/// Patterns are windows into one random table, a cache line apart.
const STEP: usize = 64;

/// One frame size, prepared.
#[derive(Debug, Clone)]
struct Template {
    len: usize,
    headers: [u8; HEADERS],
    /// The sum over the pattern, for each of the patterns.
    sums: [u32; PATTERNS],
}

/// Writes frames one after the other: sizes in turn, flows in turn.
#[derive(Debug, Clone)]
pub struct Generator {
    templates: Vec<Template>,
    /// Which template is next, and the order of the templates.
    order: Vec<u8>,
    position: usize,
    table: Vec<u8>,
    next_sequence: Vec<u64>,
    flow: usize,
    generated: u64,
}

impl Generator {
    /// Frames of these sizes in so many flows (0 counts as 1), between made-up MAC addresses.
    ///
    /// # Errors
    /// [`SizeError`] when the size is out of range.
    pub fn new(sizes: Sizes, flows: u16) -> Result<Self, SizeError> {
        let all = sizes.all();
        if all.iter().any(|s| !(FRAME_MIN..=FRAME_MAX).contains(s)) {
            return Err(SizeError {
                found: sizes.to_string(),
            });
        }
        let table = pattern_table();
        let mut lengths = all.clone();
        lengths.sort_unstable();
        lengths.dedup();
        let order = all
            .iter()
            .map(|len| lengths.iter().position(|l| l == len).unwrap_or(0) as u8)
            .collect();
        Ok(Generator {
            templates: lengths.iter().map(|len| template(*len, &table)).collect(),
            order,
            position: 0,
            table,
            next_sequence: vec![0; usize::from(flows.max(1))],
            flow: 0,
            generated: 0,
        })
    }

    /// The same with these MAC addresses: a guest's stack takes no frame for somebody else.
    #[must_use]
    pub fn between(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        for template in &mut self.templates {
            template.headers[..6].copy_from_slice(&destination);
            template.headers[6..12].copy_from_slice(&source);
        }
        self
    }

    /// The size of the next frame.
    #[inline]
    pub fn next_len(&self) -> usize {
        self.templates[usize::from(self.order[self.position])].len
    }

    /// Writes the next frame to the start of `buffer`, all of it, and returns its size; None, and
    /// nothing is written or skipped, when the buffer is too small.
    #[inline]
    pub fn fill(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let template = &self.templates[usize::from(self.order[self.position])];
        let frame = buffer.get_mut(..template.len)?;
        let sequence = self.next_sequence[self.flow];
        let pattern = (self.generated as usize) % PATTERNS;

        frame[..HEADERS].copy_from_slice(&template.headers);
        // Flows differ in their UDP source port, which steering by hash looks at.
        let port = 1024 + (self.flow as u16 & 0x7fff);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        let mut summed = [0; SUMMED];
        summed[..2].copy_from_slice(&MAGIC.to_be_bytes());
        summed[2..4].copy_from_slice(&(self.flow as u16).to_be_bytes());
        summed[4..].copy_from_slice(&sequence.to_be_bytes());
        frame[HEADERS..HEADERS + SUMMED].copy_from_slice(&summed);
        let rest = template.len - OVERHEAD;
        let mut hasher = Hasher::new_with_initial_len(template.sums[pattern], rest as u64);
        hasher.update(&summed);
        frame[HEADERS + SUMMED..OVERHEAD].copy_from_slice(&hasher.finalize().to_be_bytes());
        frame[OVERHEAD..].copy_from_slice(&self.table[pattern * STEP..][..rest]);

        let len = template.len;
        self.next_sequence[self.flow] = sequence.wrapping_add(1);
        self.flow = (self.flow + 1) % self.next_sequence.len();
        self.position = (self.position + 1) % self.order.len();
        self.generated += 1;
        Some(len)
    }

    /// Frames written so far.
    pub fn generated(&self) -> u64 {
        self.generated
    }
}

/// Random enough that no two windows are alike, and the same in every run.
fn pattern_table() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut table = Vec::with_capacity(FRAME_MAX + PATTERNS * STEP + 8);
    while table.len() < FRAME_MAX + PATTERNS * STEP {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        table.extend_from_slice(&state.to_le_bytes());
    }
    table
}

fn template(len: usize, table: &[u8]) -> Template {
    let mut headers = [0; HEADERS];
    // Locally administered addresses, of nobody.
    headers[..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x02]);
    headers[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x01]);
    headers[12..14].copy_from_slice(&[0x08, 0x00]);
    headers[14] = 0x45;
    headers[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    headers[20] = 0x40; // do not fragment
    headers[22] = 64;
    headers[23] = 17;
    // 198.18.0.0/15 is set aside for measurements between devices (RFC 2544).
    headers[26..30].copy_from_slice(&[198, 18, 0, 1]);
    headers[30..34].copy_from_slice(&[198, 19, 0, 1]);
    let sum = ipv4_sum(&headers[14..34]);
    headers[24..26].copy_from_slice(&sum.to_be_bytes());
    headers[36..38].copy_from_slice(&UDP_PORT.to_be_bytes());
    headers[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
    // A UDP checksum of zero over IPv4 means that there is none (RFC 768).
    let rest = len - HEADERS - PREFIX;
    let sums = std::array::from_fn(|i| crc32fast::hash(&table[i * STEP..][..rest]));
    Template { len, headers, sums }
}
