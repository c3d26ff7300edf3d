//! What a service manager is told (sd_notify), if there is one: when the vif is connected, how it is, and that the
//! queue's thread lives.
//!
//! The proof of life costs the data path nothing: it is that some counter moved of each queue. After each look the queues'
//! threads are woken, which they count: however idle they are, something has moved by the next look. While there is no
//! connection, each attempt to get one counts; its waits have deadlines.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netfront::engine::Service;
use netfront::stats::Snapshot;
use sd_notify::NotifyState;

/// A handshake waits several times, each time at most the deadline.
const WAITS: u32 = 4;

/// The service manager, or that there is none.
pub struct Manager {
    there: bool,
    /// Between two signs of life: half of what the manager waits for one.
    interval: Option<Duration>,
    next: Instant,
    pulse: Pulse,
    beat: Instant,
    /// How long an attempt to connect may take.
    patience: Duration,
}

/// Everything that moves when the queues' threads do.
#[derive(Default)]
struct Pulse {
    /// Of each queue of the connection.
    counters: Vec<Snapshot>,
    connections: u64,
    attempts: u64,
}

impl Pulse {
    fn of(service: &Service) -> Self {
        Self {
            counters: service.snapshots(),
            connections: service.connections.load(Ordering::Relaxed),
            attempts: service.attempts.load(Ordering::Relaxed),
        }
    }

    /// True if all threads that there are have moved since `earlier`, or there is another connection.
    fn moved_since(&self, earlier: &Self) -> bool {
        let same_connection = self.counters.len() == earlier.counters.len()
            && (self.connections, self.attempts) == (earlier.connections, earlier.attempts);
        let mut queues = self.counters.iter().zip(&earlier.counters);
        !same_connection || queues.all(|(now, then)| now != then)
    }
}

impl Manager {
    /// Looks into the environment for one. `deadline` is that of each step of the handshake.
    pub fn new(deadline: Duration) -> Self {
        let there = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled().filter(|_| there);
        Self {
            there,
            interval: watchdog.map(|time| time / 2),
            next: Instant::now(),
            pulse: Pulse::default(),
            beat: Instant::now(),
            patience: deadline * WAITS,
        }
    }

    /// How long the main thread may sleep: for ever, unless there is a watchdog.
    pub fn pause(&self) -> Option<Duration> {
        self.interval
            .map(|_| self.next.saturating_duration_since(Instant::now()))
    }

    /// The vif is connected for the first time: what waits for this service may start.
    pub fn connected(&self) {
        self.tell(&[NotifyState::Ready, NotifyState::Status("connected")]);
    }

    /// Tells what there is to tell, whenever the main thread is awake.
    pub fn look(&mut self, service: &Service) {
        if !self.there || service.stopping() {
            return;
        }
        let Some(interval) = self.interval.filter(|_| Instant::now() >= self.next) else {
            return;
        };
        self.next = Instant::now() + interval;
        if self.lives(service) {
            self.tell(&[NotifyState::Watchdog, NotifyState::Status(&status(service))]);
        } else {
            tracing::error!(
                "a queue's thread has not moved for {:?}: the service manager's watchdog is left to end it",
                self.beat.elapsed()
            );
        }
        service.wake();
    }

    /// True if the queues' threads moved since the last look, or may be waiting for the backend.
    fn lives(&mut self, service: &Service) -> bool {
        let pulse = Pulse::of(service);
        if pulse.moved_since(&self.pulse) {
            (self.pulse, self.beat) = (pulse, Instant::now());
            return true;
        }
        service.link().is_none() && self.beat.elapsed() < self.patience
    }

    /// A reload begins.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// A reload is over.
    pub fn reloaded(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The end begins.
    pub fn stopping(&self) {
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::Status("saying goodbye to the backend"),
        ]);
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if !self.there {
            return;
        }
        if let Err(error) = sd_notify::notify(state) {
            tracing::debug!("telling the service manager: {error}");
        }
    }
}

fn status(service: &Service) -> String {
    let reconnects = service
        .connections
        .load(Ordering::Relaxed)
        .saturating_sub(1);
    match service.link() {
        None => "waiting for the backend".into(),
        Some(link) => format!(
            "connected, MTU {}, carrier {}, reconnected {reconnects} times",
            link.mtu,
            if link.carrier { "on" } else { "off" },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_that_something_moves_or_that_an_attempt_to_connect_is_within_its_deadline() {
        let mut manager = Manager::new(Duration::from_secs(3600));
        let service = Service::default();
        assert!(manager.lives(&service), "waits for the backend");
        manager.patience = Duration::ZERO;
        assert!(!manager.lives(&service));
        service.attempts.fetch_add(1, Ordering::Relaxed);
        assert!(manager.lives(&service));
        assert!(!manager.lives(&service));
        service.stats().polls.add(1);
        assert!(manager.lives(&service));
        assert!(!manager.lives(&service));
    }

    #[test]
    fn a_thread_that_stands_still_is_found_although_that_of_another_queue_moves() {
        let queues = |counted: [u64; 2]| Pulse {
            counters: counted.map(|polls| Snapshot(vec![("polls", polls)])).into(),
            ..Pulse::default()
        };
        assert!(queues([2, 2]).moved_since(&queues([1, 1])));
        assert!(!queues([2, 1]).moved_since(&queues([1, 1])));
        // Another connection, with one queue.
        let one = Pulse {
            counters: vec![Snapshot(vec![("polls", 1)])],
            ..Pulse::default()
        };
        assert!(one.moved_since(&queues([1, 1])));
    }
}
