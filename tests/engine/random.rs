//! Chance that is the same on every machine: integers only.

/// A generator of numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// An exponentially distributed time of this mean. By von Neumann's way, which compares and never computes a
    /// logarithm, whose last bits differ between machines.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let mut whole = 0u64;
        loop {
            let first = self.bits() >> 32;
            let (mut last, mut length) = (first, 1);
            loop {
                let next = self.bits() >> 32;
                if next >= last {
                    break;
                }
                last = next;
                length += 1;
            }
            if length % 2 == 1 {
                return ((u128::from((whole << 32) | first) * u128::from(mean)) >> 32) as u64;
            }
            whole += 1;
        }
    }
}

/// When packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// One by one, by chance.
    Poisson,
    /// So many back to back, at a tenth of the mean distance, then a pause by chance.
    Bursts(u64),
}

/// Arrival times without end.
#[derive(Debug, Clone)]
pub struct Arrivals {
    random: Random,
    pattern: Pattern,
    /// The mean distance of two packets, in 1/1024 ns.
    distance: u64,
    /// The next arrival, in 1/1024 ns.
    next: u64,
    left: u64,
}

impl Arrivals {
    /// At this rate, in thousands a second.
    pub fn new(kpps: u64, pattern: Pattern, seed: u64) -> Self {
        let mut arrivals = Self {
            random: Random::new(seed),
            pattern,
            distance: (1_000_000 << 10) / kpps.max(1),
            next: 0,
            left: 0,
        };
        arrivals.step();
        arrivals
    }

    /// When the next packet comes, in ns.
    pub fn peek(&self) -> u64 {
        self.next >> 10
    }

    /// Takes that one.
    pub fn pop(&mut self) -> u64 {
        let now = self.peek();
        self.step();
        now
    }

    fn step(&mut self) {
        self.next += match self.pattern {
            Pattern::Poisson => self.random.exponential(self.distance),
            Pattern::Bursts(_) if self.left > 0 => {
                self.left -= 1;
                self.distance / 10
            }
            Pattern::Bursts(packets) => {
                self.left = packets.max(1) - 1;
                // The packets of a burst use a tenth of their time; the pause has the rest.
                self.random
                    .exponential(self.distance * (packets * 9 / 10).max(1))
            }
        };
    }
}

/// Times, counted in classes an eighth apart.
#[derive(Debug, Clone)]
pub struct Times {
    classes: Vec<u32>,
    count: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            classes: vec![0; 64 * 8],
            count: 0,
        }
    }
}

impl Times {
    /// Counts one.
    pub fn add(&mut self, nanos: u64) {
        self.classes[Self::class(nanos)] += 1;
        self.count += 1;
    }

    fn class(nanos: u64) -> usize {
        if nanos < 8 {
            return nanos as usize;
        }
        let power = nanos.ilog2() as usize;
        (power - 2) * 8 + ((nanos >> (power - 3)) & 7) as usize
    }

    /// The lower end of a class.
    fn start(class: usize) -> u64 {
        match class / 8 {
            0 => class as u64,
            above => (8 + class as u64 % 8) << (above - 1),
        }
    }

    /// The time that so many thousandths are not above, in µs.
    pub fn quantile(&self, thousandths: u64) -> f64 {
        let wanted = (self.count * thousandths).div_ceil(1000);
        let mut seen = 0;
        for (class, &times) in self.classes.iter().enumerate() {
            seen += u64::from(times);
            if seen >= wanted && seen > 0 {
                return Self::start(class + 1) as f64 / 1000.0;
            }
        }
        0.0
    }
}
