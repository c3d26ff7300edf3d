//! The scenarios of one core, and what is compared in each.

use std::time::Duration;

use netfront::engine::moderation::Mode;
use netfront::engine::pressure::Limits;
use netfront::engine::restart::Policy;

use super::one_core::{run, Beside, Scenario, Seen, Setting};
use super::parameters::Parameters;
use super::random::Pattern;

/// The policies that are compared: the kernel's, other numbers, no number, a published law, ours.
pub const POLICIES: [Policy; 7] = [
    Policy::Fixed(1),
    Policy::Fixed(4),
    Policy::Fixed(10),
    Policy::Fixed(64),
    Policy::TimeOnly,
    Policy::PollBurst,
    Policy::Adaptive,
];

/// The fixed limits among them.
pub fn fixed() -> impl Iterator<Item = Policy> {
    let all = POLICIES.into_iter();
    all.filter(|policy| matches!(policy, Policy::Fixed(_)))
}

/// The engine with this policy, told of packets by events: the table's setting. What has to hold has to hold in the default
/// mode too ([`MODES`]).
pub fn with(policy: Policy, pressure: bool) -> Setting {
    Setting {
        policy,
        pressure: pressure.then(Limits::default),
        mode: Mode::Interrupt,
    }
}

/// The modes that sleep; the second is the default. A core that polls has no application beside it.
pub const MODES: [Mode; 2] = [Mode::Interrupt, Mode::Adaptive];

/// Capturing beside a process that takes the core whenever it is handed over.
pub fn capture(parameters: &Parameters) -> Vec<Scenario> {
    let mut all = Vec::new();
    for weight in [16, 64] {
        for hog in [parameters.short_hog_us, parameters.long_hog_us] {
            let rates = [
                parameters.capture_low_kpps,
                parameters.capture_kpps,
                parameters.capture_high_kpps,
            ];
            for kpps in rates {
                all.push(Scenario {
                    name: format!("weight {weight}, hog {hog} us, {kpps} kpps"),
                    weight,
                    kpps,
                    pattern: Pattern::Poisson,
                    beside: Beside::Hog(hog),
                });
            }
        }
    }
    all
}

/// The application has the same core.
pub fn shared(parameters: &Parameters) -> Vec<Scenario> {
    let (light, heavy) = (parameters.light_ns, parameters.heavy_ns);
    let applications = [
        ("light", Beside::Application(light)),
        ("heavy", Beside::Application(heavy)),
        ("phased", Beside::Phases(light, heavy, parameters.phase_us)),
    ];
    let patterns = [
        ("one by one", Pattern::Poisson),
        ("bursts", Pattern::Bursts(parameters.burst_packets)),
    ];
    let mut all = Vec::new();
    for (application, beside) in applications {
        for (arrivals, pattern) in patterns {
            for kpps in [parameters.slow_kpps, parameters.fast_kpps] {
                all.push(Scenario {
                    name: format!("{application}, {arrivals}, {kpps} kpps"),
                    weight: 64,
                    kpps,
                    pattern,
                    beside,
                });
            }
        }
    }
    all
}

/// An application on the same core that takes nothing for a while, again and again.
pub fn stopping(parameters: &Parameters) -> Scenario {
    let stop = parameters.stop_us;
    Scenario {
        name: format!("stops for {stop} us, {} kpps", parameters.slow_kpps),
        weight: 64,
        kpps: parameters.slow_kpps,
        pattern: Pattern::Poisson,
        beside: Beside::Stops(parameters.light_ns, stop),
    }
}

/// How long packets are held in that scenario: shorter than the application stops, and by default.
pub fn holds(parameters: &Parameters) -> [Duration; 2] {
    [
        Duration::from_micros(parameters.hold_us),
        Limits::default().hold,
    ]
}

/// The adaptive limit in the setting of the table, with packets held for so long.
pub fn holding(hold: Duration) -> Setting {
    let limits = Limits::default();
    Setting {
        pressure: Some(Limits { hold, ..limits }),
        ..with(Policy::Adaptive, true)
    }
}

/// A core that captures, alone, at a share of what it could do.
fn alone(parameters: &Parameters, percent: u64) -> Scenario {
    let full = 1_000_000 / parameters.packet_ns.max(1);
    Scenario {
        name: format!("{percent} % of what it could do"),
        weight: 64,
        kpps: (full * percent / 100).max(1),
        pattern: Pattern::Poisson,
        beside: Beside::Hog(0),
    }
}

/// Loads of a core that captures alone, in percent of what its packets alone would allow.
pub const LOADS: [u64; 8] = [1, 5, 20, 50, 70, 90, 110, 200];

/// What the policy of `mode` sees at this load.
pub fn at_load(parameters: &Parameters, percent: u64, mode: Mode) -> (String, Seen) {
    let scenario = alone(parameters, percent);
    let setting = Setting {
        mode,
        ..with(Policy::Adaptive, true)
    };
    let seen = run(parameters, &scenario, setting);
    (scenario.name, seen)
}

/// The best goodput that any fixed limit has in this scenario, with back-pressure or without, in the same mode.
pub fn best_fixed(parameters: &Parameters, scenario: &Scenario, mode: Mode) -> f64 {
    let runs = fixed().flat_map(|policy| [with(policy, false), with(policy, true)]);
    runs.map(|setting| run(parameters, scenario, Setting { mode, ..setting }).kpps())
        .fold(0.0, f64::max)
}
