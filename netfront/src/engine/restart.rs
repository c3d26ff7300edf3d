//! How many rounds one activation may do before it hands the core over, with queues left to poll.
//!
//! The kernel's softirqs had a fixed count of ten until 2013, since then ten and two milliseconds. Whoever yields
//! too early loses packets while something else has the core; whoever yields too late starves what consumes them.
//! S-4 asks for a count that changes by itself. The paper that proposes this is known to us by its abstract only: its
//! formula, its thresholds and its measurements are not. [`Adaptive`] is therefore a law of our own, and nothing
//! that is said of it says anything of theirs.
//!
//! | policy | limit | what it is there for |
//! | --- | --- | --- |
//! | [`Fixed`] | a number | the kernel's 10, and others to compare with |
//! | [`TimeOnly`] | none: only the time bound ends an activation | the kernel between January and June 2013 |
//! | [`PollBurst`] | grows and shrinks with the share of time that polling takes | FreeBSD's device polling, a published law |
//! | [`Adaptive`] | grows by what was left behind, shrinks at the time bound, returns when unused | the default |
//!
//! The limit is not what protects a consumer: that is [`super::pressure`], which comes first. In a core that is shared
//! with the consumer any large limit without it is a livelock.

use super::bottom_half::{Activation, Reason};

/// The largest limit of [`Adaptive`].
pub const MAX_ROUNDS: u32 = 128;
/// The kernel's `MAX_SOFTIRQ_RESTART`, where [`Adaptive`] begins.
pub const START_ROUNDS: u32 = 10;

/// Says how many rounds an activation may do, and learns from each.
pub trait RestartPolicy {
    /// Rounds of the next activation, at least one.
    fn limit(&self) -> u32;

    /// An activation is over.
    fn learn(&mut self, activation: &Activation) {
        let _ = activation;
    }
}

impl<P: RestartPolicy + ?Sized> RestartPolicy for Box<P> {
    fn limit(&self) -> u32 {
        (**self).limit()
    }

    fn learn(&mut self, activation: &Activation) {
        (**self).learn(activation);
    }
}

/// Always the same number of rounds.
#[derive(Debug, Clone, Copy)]
pub struct Fixed(pub u32);

impl RestartPolicy for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }
}

/// As many rounds as the time allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeOnly;

impl RestartPolicy for TimeOnly {
    fn limit(&self) -> u32 {
        u32::MAX
    }
}

/// The law of FreeBSD's device polling, over rounds in place of packets: one more while polling takes at most half of
/// the time, one less when it takes more, an eighth less when it ran over its time.
#[derive(Debug, Clone, Copy)]
pub struct PollBurst {
    burst: u32,
}

impl PollBurst {
    /// FreeBSD's bounds are 1 and 150, and it begins with 5.
    const MAX: u32 = 150;

    /// At the start.
    pub fn new() -> Self {
        Self { burst: 5 }
    }
}

impl Default for PollBurst {
    fn default() -> Self {
        Self::new()
    }
}

impl RestartPolicy for PollBurst {
    fn limit(&self) -> u32 {
        self.burst
    }

    fn learn(&mut self, activation: &Activation) {
        let burst = self.burst;
        self.burst = if activation.reason == Reason::Time {
            burst - (burst / 8).max(1).min(burst - 1)
        } else if activation.elapsed <= activation.away {
            (burst + 1).min(Self::MAX)
        } else {
            (burst - 1).max(1)
        };
    }
}

/// A limit that follows what activations leave behind.
///
/// - Ended by its rounds, with consumers less than half full: more by as many rounds as the packets that were left
///   would have taken (the larger of now and of a running mean), at most twice as many as before.
/// - Ended by the time: an eighth less. The bound itself ended it, so a smaller limit only makes the next end earlier,
///   and yielding by the count is what leaves the core in a known state.
/// - Ended because consumers are behind, or somebody needed the core: the same. Neither says anything of the limit.
/// - Drained with half the limit or less, 256 times in a row: back towards ten, an eighth of the way from above,
///   one from below. Slowly, since a burst that returns costs packets until the limit has grown again.
#[derive(Debug, Clone, Copy)]
pub struct Adaptive {
    limit: u32,
    /// Running mean of the packets left behind, times 256.
    backlog: u64,
    quiet: u32,
}

/// Activations that needed little, until the limit is taken back a step.
const QUIET: u32 = 256;

impl Adaptive {
    /// At the start: the kernel's ten.
    pub fn new() -> Self {
        Self {
            limit: START_ROUNDS,
            backlog: 0,
            quiet: 0,
        }
    }

    /// Rounds that the packets left behind would take.
    fn needed(&self, activation: &Activation) -> u32 {
        let a_round = (activation.packets as u64 / u64::from(activation.rounds.max(1))).max(1);
        let left = (activation.left as u64).max(self.backlog / 256);
        u32::try_from(left.div_ceil(a_round)).unwrap_or(u32::MAX)
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self::new()
    }
}

impl RestartPolicy for Adaptive {
    fn limit(&self) -> u32 {
        self.limit
    }

    fn learn(&mut self, activation: &Activation) {
        let left = (activation.left as u64).saturating_mul(256);
        self.backlog = self.backlog - self.backlog / 8 + left / 8;
        let limit = self.limit;
        match activation.reason {
            Reason::Rounds if activation.occupancy < 128 => {
                let more = self.needed(activation).clamp(1, limit);
                self.limit = (limit + more).min(MAX_ROUNDS);
            }
            Reason::Time => self.limit = limit - (limit / 8).max(1).min(limit - 1),
            Reason::Drained if u64::from(activation.rounds) * 2 <= u64::from(limit) => {
                self.quiet += 1;
                if self.quiet < QUIET {
                    return;
                }
                self.limit = match limit > START_ROUNDS {
                    true => limit - ((limit - START_ROUNDS) / 8).max(1),
                    false => (limit + 1).min(START_ROUNDS),
                };
            }
            Reason::Rounds | Reason::Held | Reason::Yield | Reason::Drained => {}
        }
        self.quiet = 0;
    }
}

/// A policy by its name, for a command line or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// [`Fixed`]
    Fixed(u32),
    /// [`TimeOnly`]
    TimeOnly,
    /// [`PollBurst`]
    PollBurst,
    /// [`Adaptive`]
    #[default]
    Adaptive,
}

impl std::str::FromStr for Policy {
    type Err = String;

    /// As a command line says it: `adaptive`, `time`, `burst`, or a number of rounds.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "adaptive" => Ok(Self::Adaptive),
            "time" => Ok(Self::TimeOnly),
            "burst" => Ok(Self::PollBurst),
            number => match number.parse() {
                Ok(rounds) if rounds > 0 => Ok(Self::Fixed(rounds)),
                _ => Err(format!(
                    "wanted adaptive, time, burst or a number of rounds from 1 to {}",
                    u32::MAX
                )),
            },
        }
    }
}

impl Policy {
    /// The policy itself.
    pub fn make(self) -> Box<dyn RestartPolicy + Send> {
        match self {
            Self::Fixed(rounds) => Box::new(Fixed(rounds)),
            Self::TimeOnly => Box::new(TimeOnly),
            Self::PollBurst => Box::new(PollBurst::new()),
            Self::Adaptive => Box::new(Adaptive::new()),
        }
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(rounds) => write!(f, "fixed({rounds})"),
            Self::TimeOnly => f.write_str("time only"),
            Self::PollBurst => f.write_str("poll burst"),
            Self::Adaptive => f.write_str("adaptive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// One that ended so, after all its rounds of 64 packets.
    fn ended(policy: &impl RestartPolicy, reason: Reason, left: usize) -> Activation {
        let rounds = policy.limit().min(1000);
        Activation {
            reason,
            limit: policy.limit(),
            rounds,
            packets: rounds as usize * 64,
            left,
            elapsed: Duration::from_micros(400),
            away: Duration::from_micros(100),
            occupancy: 0,
        }
    }

    #[test]
    fn a_policy_is_known_by_its_word() {
        for (word, policy) in [
            ("adaptive", Policy::Adaptive),
            ("time", Policy::TimeOnly),
            ("burst", Policy::PollBurst),
            ("10", Policy::Fixed(10)),
        ] {
            assert_eq!(word.parse(), Ok(policy));
        }
        for wrong in ["0", "-1", "", "fixed", "99999999999"] {
            assert!(wrong.parse::<Policy>().is_err(), "{wrong}");
        }
        let why = "99999999999".parse::<Policy>().expect_err("too many");
        assert!(why.ends_with("from 1 to 4294967295"), "{why}");
    }

    /// S-2, S-3: a fixed count stays what it is, whatever is left behind.
    #[test]
    fn a_fixed_limit_learns_nothing() {
        let mut policy = Fixed(10);
        policy.learn(&ended(&policy, Reason::Rounds, 100_000));
        policy.learn(&ended(&policy, Reason::Time, 0));
        assert_eq!(policy.limit(), 10);
    }

    /// S-4: the count changes with what was left behind, at most twofold at once.
    #[test]
    fn the_adaptive_limit_grows_by_what_was_left_behind() {
        let mut policy = Adaptive::new();
        policy.learn(&ended(&policy, Reason::Rounds, 3 * 64));
        assert_eq!(policy.limit(), 13, "three rounds were missing");
        policy.learn(&ended(&policy, Reason::Rounds, 100_000));
        assert_eq!(policy.limit(), 26, "twice as many at most");
        for _ in 0..10 {
            policy.learn(&ended(&policy, Reason::Rounds, 100_000));
        }
        assert_eq!(policy.limit(), MAX_ROUNDS);
    }

    #[test]
    fn the_time_bound_takes_an_eighth_and_never_the_last_round() {
        let mut policy = Adaptive::new();
        policy.learn(&ended(&policy, Reason::Rounds, 100_000));
        policy.learn(&ended(&policy, Reason::Time, 100));
        assert_eq!(policy.limit(), 18);
        for _ in 0..100 {
            policy.learn(&ended(&policy, Reason::Time, 100));
        }
        assert_eq!(policy.limit(), 1);
    }

    #[test]
    fn a_consumer_that_is_behind_says_nothing_of_the_limit() {
        let mut policy = Adaptive::new();
        policy.learn(&ended(&policy, Reason::Held, 100_000));
        policy.learn(&ended(&policy, Reason::Yield, 100_000));
        let mut full = ended(&policy, Reason::Rounds, 100_000);
        full.occupancy = 200;
        policy.learn(&full);
        assert_eq!(policy.limit(), START_ROUNDS);
    }

    /// Fast decay was tried in a model and lost half of the packets of bursts that return.
    #[test]
    fn an_unused_limit_returns_slowly_and_a_used_one_stays() {
        let mut policy = Adaptive::new();
        for _ in 0..10 {
            policy.learn(&ended(&policy, Reason::Rounds, 100_000));
        }
        let mut quiet = ended(&policy, Reason::Drained, 0);
        quiet.rounds = 2;
        for _ in 0..QUIET - 1 {
            policy.learn(&quiet);
        }
        assert_eq!(policy.limit(), MAX_ROUNDS);
        policy.learn(&quiet);
        assert_eq!(policy.limit(), MAX_ROUNDS - (MAX_ROUNDS - START_ROUNDS) / 8);
        let now = policy.limit();
        for _ in 0..10 * QUIET {
            policy.learn(&ended(&policy, Reason::Drained, 0));
        }
        assert_eq!(policy.limit(), now, "it was needed");
        for _ in 0..100 * QUIET {
            policy.learn(&quiet);
        }
        assert_eq!(policy.limit(), START_ROUNDS);
    }

    #[test]
    fn poll_burst_follows_the_share_of_time_that_polling_takes() {
        let mut policy = PollBurst::new();
        let mut light = ended(&policy, Reason::Drained, 0);
        light.away = Duration::from_millis(1);
        policy.learn(&light);
        assert_eq!(policy.limit(), 6);
        policy.learn(&ended(&policy, Reason::Rounds, 0));
        assert_eq!(policy.limit(), 5);
        (0..1000).for_each(|_| policy.learn(&light));
        assert_eq!(policy.limit(), PollBurst::MAX);
        policy.learn(&ended(&policy, Reason::Time, 0));
        assert_eq!(policy.limit(), PollBurst::MAX - PollBurst::MAX / 8);
        (0..1000).for_each(|_| policy.learn(&ended(&PollBurst::new(), Reason::Time, 0)));
        assert_eq!(policy.limit(), 1);
    }

    fn activation() -> impl Strategy<Value = Activation> {
        let reason = prop::sample::select(vec![
            Reason::Drained,
            Reason::Held,
            Reason::Rounds,
            Reason::Time,
            Reason::Yield,
        ]);
        (
            reason,
            any::<u32>(),
            any::<usize>(),
            any::<usize>(),
            any::<u32>(),
            any::<[u32; 2]>(),
        )
            .prop_map(
                |(reason, rounds, packets, left, occupancy, [elapsed, away])| Activation {
                    reason,
                    limit: 1,
                    rounds,
                    packets,
                    left,
                    elapsed: Duration::from_nanos(elapsed.into()),
                    away: Duration::from_nanos(away.into()),
                    occupancy,
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// S-4: whatever activations tell, each limit stays in its bounds.
        #[test]
        fn limits_stay_in_their_bounds(activations in prop::collection::vec(activation(), 1..200)) {
            let mut adaptive = Adaptive::new();
            let mut burst = PollBurst::new();
            for activation in &activations {
                adaptive.learn(activation);
                burst.learn(activation);
                prop_assert!((1..=MAX_ROUNDS).contains(&adaptive.limit()));
                prop_assert!((1..=PollBurst::MAX).contains(&burst.limit()));
            }
        }
    }
}
