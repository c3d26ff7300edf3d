//! When the backend is asked for its next event, and what is done until it comes.
//!
//! An event costs both sides far more than a packet. A queue that was drained can ask for the next one (`rsp_event`,
//! the ring's own mask: until the queue asks, the backend sends none), or look again by itself a little later:
//!
//! | state | armed | what ends it |
//! | --- | --- | --- |
//! | event | yes, for the k-th packet from here | the event; with k > 1 also a timer, since fewer than k may be all |
//! | deferred | no | a short timer: the queue is looked at, a few times, before it asks |
//! | polling | no | nothing: the queue is looked at without end |
//!
//! This is the kernel's deferral of hard interrupts, on the ring's index in place of an interrupt's mask. What the kernel adds for a
//! process that polls by itself, the suspension of interrupts, needs no state here: nobody but its owner polls a queue, and
//! one that calls [`Queue::receive`](crate::Queue::receive) in a loop is told nothing until it waits, which arms the ring.
//!
//! It is a state machine without a clock or a ring: who drives it does what [`Step`] says.
//! In every state but polling a packet is looked at within a known time: [`Settings::longest_wait`].

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

/// How a queue learns of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// By an event for the first packet, always.
    Interrupt,
    /// By events while there is little, by looking while there is much.
    #[default]
    Adaptive,
    /// By looking, always. It takes a whole core.
    Poll,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Interrupt => "interrupt",
            Self::Adaptive => "adaptive",
            Self::Poll => "poll",
        })
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "interrupt" => Ok(Self::Interrupt),
            "adaptive" => Ok(Self::Adaptive),
            "poll" => Ok(Self::Poll),
            _ => Err("wanted interrupt, adaptive or poll".into()),
        }
    }
}

/// A mode that one thread sets and others follow.
#[derive(Debug)]
pub struct SharedMode(AtomicU8);

impl SharedMode {
    /// This one at first.
    pub fn new(mode: Mode) -> Self {
        Self(AtomicU8::new(mode as u8))
    }

    /// The mode now.
    #[inline]
    pub fn get(&self) -> Mode {
        match self.0.load(Relaxed) {
            0 => Mode::Interrupt,
            1 => Mode::Adaptive,
            _ => Mode::Poll,
        }
    }

    /// Another one. Whoever follows it has to be woken to see it now.
    pub fn set(&self, mode: Mode) {
        self.0.store(mode as u8, Relaxed);
    }
}

impl Default for SharedMode {
    fn default() -> Self {
        Self::new(Mode::default())
    }
}

/// The bounds of moderation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The most packets that one event may stand for.
    pub packets: u32,
    /// The longest that a packet waits for the others of its event.
    pub bound: Duration,
    /// Until a drained queue is looked at again.
    pub defer: Duration,
    /// Looks in a row that find nothing, before the queue asks for an event.
    pub empty_looks: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            packets: 32,
            bound: Duration::from_micros(50),
            defer: Duration::from_micros(20),
            empty_looks: 2,
        }
    }
}

impl Settings {
    /// The longest that a packet may wait in the ring without being looked at, in any mode but polling, which looks
    /// without end.
    pub fn longest_wait(&self) -> Duration {
        self.bound.max(self.defer)
    }
}

/// What a drained queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask for an event at the `after`-th packet from here, and look at the queue at the latest after `within`.
    Arm {
        /// `rsp_event` is the consumer's index and this.
        after: u32,
        /// Always there if `after` is more than one.
        within: Option<Duration>,
    },
    /// Ask for nothing, and look again after this time.
    Wait(Duration),
    /// Look again at once.
    Poll,
}

/// Of so many times that a busy queue was drained by an event, once the way is taken that seems the worse one: traffic may
/// have changed.
const TRY: u8 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Event,
    Deferred { empty: u32 },
}

/// What a busy queue does when it is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Looks again by itself.
    Look,
    /// Asks for an event at once.
    Ask,
}

/// Which way finds more packets each time that the thread is woken. With packets that come evenly those are looks, since
/// more come while it sleeps. With bursts and longer pauses between them one event brings a whole burst, and the looks
/// after it find little.
#[derive(Debug, Clone, Copy)]
struct Ways {
    /// Running means of the packets of a wake-up, times 256; 0: not known yet.
    look: u64,
    ask: u64,
    /// The present one.
    now: Way,
    chosen: u8,
}

impl Ways {
    const NEW: Self = Self {
        look: 0,
        ask: 0,
        now: Way::Look,
        chosen: 0,
    };

    /// An event has brought packets to a busy queue: how it goes on.
    fn choose(&mut self) {
        self.chosen = (self.chosen + 1) % TRY;
        let looks_pay = self.look >= self.ask;
        let tries_the_other = self.chosen == 0;
        self.now = match looks_pay != tries_the_other {
            true => Way::Look,
            false => Way::Ask,
        };
    }

    /// The thread was woken, and found so many.
    fn learn(&mut self, packets: usize) {
        let mean = match self.now {
            Way::Look => &mut self.look,
            Way::Ask => &mut self.ask,
        };
        let packets = (packets as u64).min(1 << 32);
        *mean = match *mean {
            0 => packets * 256,
            mean => mean - mean / 16 + packets * 16,
        };
    }
}

/// The moderation of one queue.
#[derive(Debug, Clone, Copy)]
pub struct Moderation {
    mode: Mode,
    settings: Settings,
    state: State,
    ways: Ways,
    /// Running mean of the packets of an activation, times 16.
    mean: u64,
}

impl Moderation {
    /// A queue that is armed for its first packet.
    pub fn new(mode: Mode, settings: Settings) -> Self {
        Self {
            mode,
            settings,
            state: State::Event,
            ways: Ways::NEW,
            mean: 0,
        }
    }

    /// The present mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Changes the mode. It holds from the next [`Self::drained`] on, which is due now: a queue that was armed for
    /// many packets, or not at all, would keep the old mode until then.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.state = State::Event;
    }

    /// The queue was looked at and is empty. `packets` were taken since the last call, `posted` slots are with the
    /// backend.
    pub fn drained(&mut self, packets: usize, posted: u32) -> Step {
        self.mean = self.mean - self.mean / 8 + (packets as u64).saturating_mul(2).min(1 << 32);
        match self.mode {
            Mode::Poll => Step::Poll,
            Mode::Interrupt => Step::Arm {
                after: 1,
                within: None,
            },
            Mode::Adaptive => self.adapt(packets, posted),
        }
    }

    fn adapt(&mut self, packets: usize, posted: u32) -> Step {
        let empty = match self.state {
            State::Deferred { empty } if packets == 0 => empty + 1,
            // A timer, or an event whose packets an earlier look took.
            State::Event if packets == 0 => self.settings.empty_looks,
            _ => 0,
        };
        // A single packet is no reason to look again: under light load each packet would cost looks that find
        // nothing, in place of one event.
        let busy = self.mean / 16 >= 2;
        if busy && self.state == State::Event && packets > 0 {
            self.ways.choose();
        }
        if busy {
            self.ways.learn(packets);
        }
        // Also where an event was for what the backend has taken, not for packets.
        if busy && self.state == State::Event && self.ways.now == Way::Ask {
            return Step::Arm {
                after: 1,
                within: None,
            };
        }
        if busy && empty < self.settings.empty_looks {
            self.state = State::Deferred { empty };
            return Step::Wait(self.settings.defer);
        }
        self.state = State::Event;
        let after = self.after(posted);
        Step::Arm {
            after,
            within: (after > 1).then_some(self.settings.bound),
        }
    }

    /// Packets until the next event: half of what activations found lately, and never so many that the backend has
    /// less than three quarters of the ring to go on with (a packet may take several slots).
    fn after(&self, posted: u32) -> u32 {
        let half = u32::try_from(self.mean / 32).unwrap_or(u32::MAX);
        half.min(self.settings.packets).min(posted / 4).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mode_is_known_by_its_name_and_followed_by_others() {
        for mode in [Mode::Interrupt, Mode::Adaptive, Mode::Poll] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            let shared = SharedMode::default();
            shared.set(mode);
            assert_eq!(shared.get(), mode);
        }
        assert!("polling".parse::<Mode>().is_err());
    }

    const ARMED: Step = Step::Arm {
        after: 1,
        within: None,
    };

    fn busy() -> Moderation {
        let mut queue = Moderation::new(Mode::Adaptive, Settings::default());
        for _ in 0..20 {
            let _ = queue.drained(64, 256);
        }
        assert!(matches!(queue.state, State::Deferred { .. }));
        queue
    }

    /// L-1: interrupt and polling can both be chosen, while running.
    #[test]
    fn each_mode_does_what_its_name_says_from_the_moment_it_is_chosen() {
        let mut queue = Moderation::new(Mode::Interrupt, Settings::default());
        for packets in [0, 1, 64, 300] {
            assert_eq!(queue.drained(packets, 256), ARMED);
        }
        queue.set_mode(Mode::Poll);
        assert_eq!(queue.drained(0, 256), Step::Poll);
        assert_eq!(queue.drained(64, 256), Step::Poll);
        queue.set_mode(Mode::Interrupt);
        assert_eq!(queue.drained(64, 256), ARMED);
    }

    #[test]
    fn single_packets_cost_one_event_each_and_no_look_in_vain() {
        let mut queue = Moderation::new(Mode::Adaptive, Settings::default());
        for _ in 0..100 {
            assert_eq!(queue.drained(1, 256), ARMED);
        }
    }

    /// What comes after an event, until the next one is waited for: so many packets to each event or look, as long as there are
    /// any, then timers, of which some fit in. Returns how often the thread was woken.
    fn train(queue: &mut Moderation, by_event: &[usize], by_look: &[usize]) -> usize {
        let mut wakes = 0;
        let mut looks = by_look.iter().copied();
        for &packets in by_event {
            let mut step = queue.drained(packets, 256);
            wakes += 1;
            let looked = matches!(step, Step::Wait(_));
            while wakes < 12 && !matches!(step, Step::Arm { within: None, .. }) {
                step = queue.drained(looks.next().unwrap_or(0), 256);
                wakes += 1;
            }
            if looked {
                break;
            }
        }
        wakes
    }

    #[test]
    fn bursts_with_long_gaps_are_left_to_events() {
        let mut queue = Moderation::new(Mode::Adaptive, Settings::default());
        let burst = |queue: &mut Moderation| train(queue, &[16, 16, 0], &[16]);
        for _ in 0..200 {
            burst(&mut queue);
        }
        let wakes: usize = (0..160).map(|_| burst(&mut queue)).sum();
        // Three events each, one of them for what the backend took; and after one event in sixteen looks are tried.
        assert!(wakes <= 160 * 3 + 20 * 12, "{wakes} for 160 bursts");
    }

    #[test]
    fn looks_come_back_when_packets_come_evenly() {
        let mut queue = Moderation::new(Mode::Adaptive, Settings::default());
        for _ in 0..200 {
            train(&mut queue, &[16, 16, 0], &[16]);
        }
        let even = |queue: &mut Moderation| train(queue, &[2; 8], &[8, 8, 8]);
        for _ in 0..100 {
            even(&mut queue);
        }
        let waits = (0..64).filter(|_| matches!(queue.drained(8, 256), Step::Wait(_)));
        assert!(waits.count() > 56, "it still waits for events");
    }

    /// N-1: while packets come no event is asked for.
    #[test]
    fn a_busy_queue_is_looked_at_and_asks_when_looks_find_nothing() {
        let settings = Settings::default();
        let mut queue = busy();
        assert_eq!(queue.drained(64, 256), Step::Wait(settings.defer));
        assert_eq!(queue.drained(0, 256), Step::Wait(settings.defer));
        assert_eq!(
            queue.drained(3, 256),
            Step::Wait(settings.defer),
            "it begins anew"
        );
        assert_eq!(queue.drained(0, 256), Step::Wait(settings.defer));
        let Step::Arm { after, within } = queue.drained(0, 256) else {
            panic!("looked in vain too often");
        };
        assert!(after > 1);
        assert_eq!(within, Some(settings.bound));
        // The timer of the bound found nothing: it asks again, and with fewer packets in the end.
        for _ in 0..100 {
            assert!(matches!(queue.drained(0, 256), Step::Arm { .. }));
        }
        assert_eq!(queue.drained(0, 256), ARMED);
    }

    #[test]
    fn an_event_never_stands_for_more_than_a_quarter_of_what_is_posted() {
        let mut queue = busy();
        for posted in [0, 1, 4, 40, 256] {
            queue.state = State::Event;
            let Step::Arm { after, .. } = queue.adapt(0, posted) else {
                panic!("the last look found nothing");
            };
            assert!(after <= (posted / 4).max(1), "{after} of {posted}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// No packet is forgotten: a queue is armed for the next packet, or looked at within the longest wait.
        #[test]
        fn a_packet_is_looked_at_within_the_longest_wait(
            calls in prop::collection::vec((0..400usize, 0..257u32, 0..6u8), 1..100),
        ) {
            let settings = Settings::default();
            let mut queue = Moderation::new(Mode::Adaptive, settings);
            for (packets, posted, mode) in calls {
                match mode {
                    0 => queue.set_mode(Mode::Interrupt),
                    1 => queue.set_mode(Mode::Poll),
                    2 => queue.set_mode(Mode::Adaptive),
                    _ => {}
                }
                match queue.drained(packets, posted) {
                    Step::Arm { after, within } => {
                        prop_assert!(after >= 1);
                        prop_assert!(after == 1 || within.is_some_and(|w| w <= settings.longest_wait()));
                    }
                    Step::Wait(time) => prop_assert!(time <= settings.longest_wait()),
                    Step::Poll => prop_assert_eq!(queue.mode(), Mode::Poll),
                }
            }
        }
    }
}
