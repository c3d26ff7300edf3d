//! What a slot costs. `cargo bench -p xen-ring`.
//!
//! Both ends run on one core and one page, so that the figures are those of our code, without the
//! cache lines that travel between two cores. Only single words go through `black_box`: a structure
//! that was just written in halves and is then read in words would measure the processor's stall.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use xen_ring::*;

const BATCH: u16 = 32;

fn pair<L: Layout>() -> (FrontRing<L>, BackRing<L>) {
    let page = Page::zeroed();
    (FrontRing::new(page.clone()), BackRing::attach(page))
}

fn slots(c: &mut Criterion) {
    let mut group = c.benchmark_group("slots");
    group.throughput(Throughput::Elements(u64::from(BATCH)));

    let (mut front, mut back) = pair::<Tx>();
    group.bench_function("tx there and back, batch of 32", |b| {
        b.iter(|| {
            for id in 0..BATCH {
                let request = TxRequest {
                    gref: black_box(7),
                    size: 60,
                    id,
                    ..TxRequest::default()
                };
                let _ = front.push(&request);
            }
            let _ = black_box(front.publish());
            while let Ok(Some(slot)) = back.pop() {
                let id = black_box(slot.request()).id;
                let _ = back.push(&TxResponse {
                    id,
                    status: Status::Okay,
                });
            }
            let _ = black_box(back.publish());
            while let Ok(Some(slot)) = front.pop() {
                black_box(slot.response());
            }
        });
    });

    let (mut front, mut back) = pair::<Rx>();
    group.bench_function("rx there and back, batch of 32", |b| {
        b.iter(|| {
            for gref in 0..u32::from(BATCH) {
                let _ = front.post(black_box(gref));
            }
            let _ = black_box(front.publish());
            while let Ok(Some(slot)) = back.pop() {
                let id = black_box(slot.request()).id;
                let _ = back.push(&RxResponse {
                    id,
                    status: 60,
                    ..RxResponse::default()
                });
            }
            let _ = black_box(back.publish());
            while let Ok(Some(slot)) = front.pop() {
                black_box(slot.response());
            }
        });
    });
    group.finish();
}

fn packets(c: &mut Criterion) {
    let mut group = c.benchmark_group("packets");
    for count in [1u16, 17] {
        let rounds = if count == 1 { BATCH } else { 1 };
        group.throughput(Throughput::Elements(u64::from(rounds)));
        let offload = Offload {
            checksum: Checksum::Blank,
            gso: (count > 1).then_some(Gso {
                size: 1448,
                kind: GsoKind::TcpV4,
            }),
            hash: None,
        };

        let (mut front, mut back) = pair::<Tx>();
        let fragments: Vec<_> = (0..count)
            .map(|id| TxFragment {
                id,
                gref: 7,
                offset: 0,
                len: 1448,
            })
            .collect();
        let mut packet = TxPacket::new();
        group.bench_function(
            format!("tx of {count} slots, pushed, taken, answered"),
            |b| {
                b.iter(|| {
                    for _ in 0..rounds {
                        let _ = transmit::push(&mut front, black_box(&fragments), &offload);
                    }
                    let _ = black_box(front.publish());
                    while let Ok(true) = transmit::next(&mut back, &mut packet) {
                        let _ = transmit::answer(&mut back, black_box(&packet), Status::Okay);
                    }
                    let _ = black_box(back.publish());
                    while let Ok(Some(slot)) = front.pop() {
                        black_box(slot.response());
                    }
                });
            },
        );

        let (mut front, mut back) = pair::<Rx>();
        let extras = u16::try_from(offload.extra_slots()).unwrap_or(0);
        let mut fragments = Vec::with_capacity(usize::from(count));
        let mut packet = RxPacket::new();
        group.bench_function(format!("rx of {count} slots, posted, filled, taken"), |b| {
            b.iter(|| {
                for gref in 0..u32::from(rounds * (count + extras)) {
                    let _ = front.post(black_box(gref));
                }
                let _ = black_box(front.publish());
                for _ in 0..rounds {
                    fragments.clear();
                    for index in 0..count + extras {
                        let Ok(Some(slot)) = back.pop() else { break };
                        if index == 0 || index > extras {
                            fragments.push(RxFragment {
                                slot: slot.request().id,
                                offset: 0,
                                len: 1448,
                            });
                        }
                    }
                    let _ = receive::push(&mut back, &fragments, &offload);
                }
                let _ = black_box(back.publish());
                while let Ok(true) = receive::next(&mut front, &mut packet) {
                    black_box(&packet);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, slots, packets);
criterion_main!(benches);
