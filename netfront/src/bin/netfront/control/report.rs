//! The answers to `stats` and `status`.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use netfront::connection::{Connection, Ends};
use netfront::consumer::TapCounters;
use netfront::device::thread_name;
use netfront::engine::Service;
use netfront::hypervisor::Domain;
use netfront::stats::Snapshot;
use netfront::watch::Watch;
use netfront::{Link, QueueConfig, Wants};
use serde_json::{json, Map, Value};

use super::{affinity, process};
use crate::recording::Writers;
use crate::takeover::confirm::Confirmation;

/// What the answers are made of, and what can be told to.
pub struct Subject {
    pub vif: u32,
    pub domain: Domain,
    pub service: Arc<Service>,
    /// What each queue of the TAP counts, if there is one.
    pub taps: Vec<Arc<TapCounters>>,
    pub watch: Arc<Watch>,
    /// Who writes captures and traces for others.
    pub writers: Arc<Writers>,
    /// Where Prometheus is answered, if it is.
    pub metrics: OnceLock<SocketAddr>,
    /// As the command line wants it.
    pub queue: QueueConfig,
    pub wants: Wants,
    /// Of a take-over: whether it was confirmed.
    pub confirmation: Option<Arc<Confirmation>>,
    /// Wakes the main thread as SIGTERM does.
    pub ringer: UnixStream,
}

impl Subject {
    /// Ends the driver as SIGTERM does: the main thread tells the service manager first, which would otherwise take a
    /// long goodbye for a driver that stands still.
    pub fn stop(&self) {
        if (&self.ringer).write_all(b"s").is_err() {
            self.service.stop();
        }
    }

    /// The counters and the state of the vif, as they are now. Asks nobody.
    pub fn report(&self) -> Value {
        let counters = named(self.service.snapshot());
        let counts = self.domain.counters();
        let mut report = json!({
            "schema": super::SCHEMA,
            "vif": self.vif,
            "pid": std::process::id(),
            "connected": self.service.link().is_some(),
            "paused": self.service.is_paused(),
            "mode": self.service.mode().to_string(),
            "restart_limit": self.service.tuning().policy.to_string(),
            "capturing": self.watch.captures(),
            "tracing": self.watch.traces(),
            "restores": self.domain.restores(),
            "connections": self.service.connections.load(Ordering::Relaxed),
            // Also at the top, since scripts ask for it most: grants made for packets after the start.
            "grants": counters.get("grants").cloned(),
            // The sum over all queues, and each of those that there are now.
            "counters": counters,
            "queues": self.queues(),
            "hypervisor": {
                "hypercalls": counts.hypercalls,
                "notifications": counts.notifications,
                "grants": counts.grants,
                "revokes": counts.revokes,
                "system_calls": counts.system_calls,
            },
            "process": process::report(),
        });
        if let Some(link) = self.service.link() {
            report["link"] = self.link(&link);
        }
        if let Some(confirmation) = &self.confirmation {
            let left = confirmation.left(Instant::now());
            report["take_over"] = json!({
                "confirmed": left.is_none(),
                "seconds_left": left.map(|left| left.as_secs()),
            });
        }
        if let Some(address) = self.metrics.get() {
            report["metrics"] = format!("http://{address}/metrics").into();
        }
        if !self.taps.is_empty() {
            let mut sum = Snapshot::default();
            self.taps.iter().for_each(|tap| sum.add(&tap.snapshot()));
            report["tap"] = named(sum).into();
        }
        report
    }

    fn queues(&self) -> Value {
        let queues = self.service.snapshots().into_iter().enumerate();
        let queue = |(number, counters): (usize, Snapshot)| {
            let [cpu, cpus] = affinity::place(&self.service, number);
            let stats = self.service.all_stats().of(number);
            json!({
                "queue": number,
                "thread": thread_name(self.vif, number),
                "cpu": cpu,
                "cpus": cpus,
                // The oldest first; the last one is `engine_limit`.
                "limits": stats.limits.recent(),
                "counters": named(counters),
            })
        };
        queues.map(queue).collect()
    }

    fn link(&self, link: &Link) -> Value {
        let features: Map<String, Value> = link
            .features
            .table()
            .map(|(name, on)| (name.to_owned(), on.into()))
            .into_iter()
            .collect();
        let connected = self.service.connected_for();
        json!({
            "mac": mac_text(link.mac),
            "mtu": link.mtu,
            "speed": link.speed,
            "carrier": link.carrier,
            "split_event_channels": link.split_event_channels,
            "queues": link.queues,
            "untrusted": link.untrusted,
            "connected_seconds": connected.map(|time| time.as_secs()),
            "backend_features": features,
        })
    }

    /// The same, with what the store says of both ends and how the queue was wanted.
    pub fn status(&self) -> Value {
        let mut report = self.report();
        report["wants"] = json!({
            "sg": self.wants.sg,
            "gso": self.wants.gso && self.wants.sg,
            "csum_offload": self.wants.csum_offload,
            "grant_mapping": self.wants.grant_mapping,
            "multicast_filter": self.wants.multicast_filter,
        });
        report["queue"] = json!({
            "policy": self.queue.policy.to_string(),
            "threshold": self.queue.threshold,
            "scrub": self.queue.scrub,
        });
        report["store"] = match self.ends() {
            Ok(ends) => json!({
                "frontend": ends.frontend.to_string(),
                "backend": ends.backend.to_string(),
                "backend_domain": ends.backend_id.map(|id| id.0),
                "backend_path": ends.backend_path,
            }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        report
    }

    /// By a connection of its own: that of the driver is busy watching.
    fn ends(&self) -> Result<Ends, netfront::Error> {
        Connection::over(self.domain.store()?, self.vif).ends()
    }
}

fn named(counters: Snapshot) -> Map<String, Value> {
    let counters = counters.0.into_iter();
    counters
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

/// `00:16:3e:01:02:03`
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
