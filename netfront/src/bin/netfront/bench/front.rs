//! The frontend's end of a bench row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netfront::engine::{round, sleep};
use netfront::hypervisor::{Access, DomId, Domain};
use netfront::{Consumer, Device, Error, Offload, Packet, Queue, QueueConfig, QueueStats};
use serde_json::json;

use super::limit::{End, PAGES};
use super::{fill, pin, BATCH, CPUS};
use crate::args::BenchEnd;
use crate::failure::Failure;
use crate::output::say;

/// Reads one line of each packet.
struct Reader {
    seen: u64,
}

impl Consumer for Reader {
    fn deliver(&mut self, packet: &mut Packet<'_>) {
        // The head was copied out: its first line is in the cache of this processor.
        self.seen = self
            .seen
            .wrapping_add(packet.head().first().copied().unwrap_or(0).into());
    }
}

/// Fills its own buffer in full for each packet and sends it.
struct Writer {
    buffer: Vec<u8>,
    number: u64,
}

impl Consumer for Writer {
    fn deliver(&mut self, _packet: &mut Packet<'_>) {}

    fn offer(&mut self, queue: &mut Queue, _budget: usize) -> Result<usize, Error> {
        for sent in 0..BATCH {
            fill(&mut self.buffer, self.number);
            if queue.send(&[&self.buffer], Offload::default()).is_err() {
                return Ok(sent);
            }
            self.number += 1;
        }
        Ok(BATCH)
    }
}

/// Runs it.
pub fn front(args: &BenchEnd) -> Result<(), Failure> {
    pin(CPUS[0]);
    let domain = Domain::simulated(&args.sim, DomId(1))?;
    let time = Duration::from_secs_f64(args.seconds);
    let rate = if args.limit {
        limit(args, &domain, time)?
    } else {
        transport(args, &domain, time)?
    };
    say!("{}", json!({ "event": "done", "mpps": rate / 1e6 }));
    Ok(())
}

fn transport(args: &BenchEnd, domain: &Domain, time: Duration) -> Result<f64, Failure> {
    let config = QueueConfig {
        policy: args.policy,
        ..QueueConfig::default()
    };
    let stats = Arc::new(QueueStats::default());
    let mut device = Device::builder(0)
        .queue(config)
        .connect_counting(domain, Arc::clone(&stats))?;
    let mut consumer: Box<dyn Consumer> = match args.direction.as_str() {
        "rx" => Box::new(Reader { seen: 0 }),
        _ => Box::new(Writer {
            buffer: vec![0; args.size],
            number: 0,
        }),
    };
    let packets = || stats.rx_packets.get() + stats.tx_packets.get();
    let mut run = |time: Duration| -> Result<f64, Failure> {
        let (start, before) = (Instant::now(), packets());
        while start.elapsed() < time {
            // Several rounds for one look at the clock.
            for _ in 0..8 {
                if round(device.queue(), consumer.as_mut())? == 0 {
                    sleep(device.queue(), consumer.as_ref(), Duration::from_millis(10))?;
                }
            }
        }
        Ok((packets() - before) as f64 / start.elapsed().as_secs_f64())
    };
    run(time / 5)?;
    let rate = run(time)?;
    device.close()?;
    Ok(rate)
}

fn limit(args: &BenchEnd, domain: &Domain, time: Duration) -> Result<f64, Failure> {
    let shared = domain.share(DomId(0), PAGES + 1, Access::ReadWrite)?;
    let references: Vec<u32> = (0..=PAGES).map(|index| shared.reference(index).0).collect();
    say!("{}", json!({ "event": "shared", "references": references }));
    let end = End {
        control: shared.page(0),
        pages: (1..=PAGES).map(|index| shared.page(index)).collect(),
        size: args.size,
        // What the frontend copies out: a small packet whole, of a large one the headers.
        copied: if args.size < QueueConfig::default().threshold {
            args.size
        } else {
            netfront::packet::HEADER_LIMIT
        },
        prefetch: args.prefetch,
    };
    Ok(if args.direction == "rx" {
        end.consume(time)
    } else {
        end.produce(time)
    })
}
