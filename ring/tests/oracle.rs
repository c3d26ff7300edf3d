//! Both ends of a ring against a plain queue, under any interleaving, across the wrap of the
//! indices; and both ends against pages full of anything.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Release;

use common::Pair;
use proptest::collection::vec;
use proptest::prelude::*;
use xen_ring::*;

/// Layouts whose requests and responses can carry a number.
trait Numbered: Layout {
    fn request(number: u32) -> Self::Request;
    fn requested(request: Self::Request) -> u32;
    fn response(number: u32) -> Self::Response;
    fn responded(response: Self::Response) -> u32;
}

impl Numbered for Tx {
    fn request(number: u32) -> TxRequest {
        TxRequest {
            gref: number,
            ..TxRequest::default()
        }
    }
    fn requested(request: TxRequest) -> u32 {
        request.gref
    }
    fn response(number: u32) -> TxResponse {
        TxResponse {
            id: number as u16,
            status: Status::Other((number >> 16) as i16),
        }
    }
    fn responded(response: TxResponse) -> u32 {
        u32::from(response.id) | u32::from(response.status.to_raw() as u16) << 16
    }
}

impl Numbered for Rx {
    fn request(number: u32) -> RxRequest {
        RxRequest {
            id: 0,
            gref: number,
        }
    }
    fn requested(request: RxRequest) -> u32 {
        request.gref
    }
    fn response(number: u32) -> RxResponse {
        RxResponse {
            id: number as u16,
            offset: (number >> 16) as u16,
            ..RxResponse::default()
        }
    }
    fn responded(response: RxResponse) -> u32 {
        u32::from(response.id) | u32::from(response.offset) << 16
    }
}

impl Numbered for Control {
    fn request(number: u32) -> ControlRequest {
        ControlRequest {
            id: 0,
            message: ControlMessage::SetHashFlags(HashFlags(number)),
        }
    }
    fn requested(request: ControlRequest) -> u32 {
        request.message.data()[0]
    }
    fn response(number: u32) -> ControlResponse {
        ControlResponse {
            id: 0,
            kind: 0,
            status: ControlStatus::Success,
            data: number,
        }
    }
    fn responded(response: ControlResponse) -> u32 {
        response.data
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u32),
    PublishRequests,
    PopRequests(u32),
    Respond(u32),
    PublishResponses,
    PopResponses(u32),
    FrontFinalCheck(u32),
    BackFinalCheck(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let count = prop_oneof![1..8u32, 1..300u32];
    prop_oneof![
        count.clone().prop_map(Step::Push),
        Just(Step::PublishRequests),
        count.clone().prop_map(Step::PopRequests),
        count.clone().prop_map(Step::Respond),
        Just(Step::PublishResponses),
        count.prop_map(Step::PopResponses),
        (1..6u32).prop_map(Step::FrontFinalCheck),
        (1..6u32).prop_map(Step::BackFinalCheck),
    ]
}

/// One direction, in numbers that do not wrap.
struct Direction {
    unpublished: VecDeque<u32>,
    published: VecDeque<u32>,
    produced: u64,
    told: u64,
    consumed: u64,
    event: u64,
}

impl Direction {
    fn new() -> Self {
        Direction {
            unpublished: VecDeque::new(),
            published: VecDeque::new(),
            produced: 0,
            told: 0,
            consumed: 0,
            event: 1,
        }
    }

    fn push(&mut self, number: u32) {
        self.unpublished.push_back(number);
        self.produced += 1;
    }

    fn publish(&mut self) -> bool {
        let wake = self.told < self.event && self.event <= self.produced;
        self.published.append(&mut self.unpublished);
        self.told = self.produced;
        wake
    }

    fn pop(&mut self) -> Option<u32> {
        let number = self.published.pop_front()?;
        self.consumed += 1;
        Some(number)
    }

    fn final_check(&mut self, after: u32) -> bool {
        self.event = self.consumed + u64::from(after);
        !self.published.is_empty()
    }
}

fn follow<L: Numbered>(start: u32, steps: &[Step]) {
    let mut pair = Pair::<L>::starting_at(start);
    let mut requests = Direction::new();
    let mut responses = Direction::new();
    let mut held = VecDeque::new();
    let mut number = 0;
    for step in steps {
        match *step {
            Step::Push(count) => {
                for _ in 0..count {
                    let in_flight = requests.produced - responses.consumed;
                    let slot = start.wrapping_add(requests.produced as u32) % L::SLOTS;
                    let pushed = pair.front.push(&L::request(number));
                    if in_flight == u64::from(L::SLOTS) {
                        assert_eq!(pushed, Err(Full { ring: L::NAME }));
                        break;
                    }
                    assert_eq!(pushed.map(u32::from), Ok(slot));
                    requests.push(number);
                    number = number.wrapping_add(0x0101_0107);
                }
            }
            Step::PublishRequests => {
                assert_eq!(pair.front.publish().is_needed(), requests.publish());
            }
            Step::PopRequests(count) => {
                for _ in 0..count {
                    let popped = pair.back.pop().unwrap();
                    let popped = popped.map(|slot| L::requested(slot.request()));
                    assert_eq!(popped, requests.pop());
                    held.extend(popped);
                }
            }
            Step::Respond(count) => {
                for _ in 0..count {
                    let Some(number) = held.pop_front() else {
                        assert!(pair.back.push(&L::response(0)).is_err());
                        break;
                    };
                    pair.back.push(&L::response(number)).unwrap();
                    responses.push(number);
                }
            }
            Step::PublishResponses => {
                assert_eq!(pair.back.publish().is_needed(), responses.publish());
            }
            Step::PopResponses(count) => {
                for _ in 0..count {
                    let popped = pair.front.pop().unwrap();
                    let popped = popped.map(|slot| L::responded(slot.response()));
                    assert_eq!(popped, responses.pop());
                }
            }
            Step::FrontFinalCheck(after) => assert_eq!(
                pair.front.final_check(after),
                Ok(responses.final_check(after))
            ),
            Step::BackFinalCheck(after) => {
                assert_eq!(
                    pair.back.final_check(after),
                    Ok(requests.final_check(after))
                );
            }
        }
        let known = pair.back.unconsumed().unwrap() as usize;
        assert!(known <= requests.published.len());
        assert_eq!(known == 0, requests.published.is_empty());
        assert_eq!(pair.back.free_responses() as usize, held.len());
        let in_flight = (requests.produced - responses.consumed) as u32;
        assert_eq!(pair.front.in_flight(), in_flight);
        assert_eq!(pair.front.free_requests(), L::SLOTS - in_flight);
    }
}

fn start() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), u32::MAX - 700..=u32::MAX, any::<u32>()]
}

/// Any page, from a seed. Smaller masks give smaller bytes, hence pages that are nearly good: with
/// wild bytes only, all would end at the first look.
fn any_page() -> impl Strategy<Value = Vec<u8>> {
    let mask = prop_oneof![Just(0xffu8), Just(0x0f), Just(0x07), Just(0x0d)];
    (any::<u64>(), mask).prop_map(|(seed, mask)| {
        let mut state = seed | 1;
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[0] & mask
        };
        (0..PAGE_SIZE).map(|_| byte()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_transmit_ring_is_a_queue(start in start(), steps in vec(step(), 1..120)) {
        follow::<Tx>(start, &steps);
    }

    #[test]
    fn a_receive_ring_is_a_queue(start in start(), steps in vec(step(), 1..120)) {
        follow::<Rx>(start, &steps);
    }

    #[test]
    fn a_control_ring_is_a_queue(start in start(), steps in vec(step(), 1..120)) {
        follow::<Control>(start, &steps);
    }

    #[test]
    fn a_frontend_survives_any_page(
        bytes in any_page(),
        start in start(),
        posted in 0..=256u32,
        claimed in 0..=260u32,
        own_ids in any::<bool>(),
    ) {
        let mut front = FrontRing::<Rx>::starting_at(Page::zeroed(), start);
        for gref in 0..posted {
            front.post(gref).unwrap();
        }
        let _ = front.publish();
        front.page().copy_in(0, &bytes);
        front.page().store(8, start.wrapping_add(claimed), Release);
        if own_ids {
            // With the right ids everywhere, the judgement goes deeper.
            for slot in 0..256u16 {
                let at = 64 + usize::from(slot) * 8;
                let mut raw: [u8; 8] = front.page().read(at);
                raw[..2].copy_from_slice(&slot.to_le_bytes());
                front.page().write(at, &raw);
            }
        }
        let mut packet = RxPacket::new();
        let mut reported = 0;
        for _ in 0..=posted {
            match receive::next(&mut front, &mut packet) {
                Ok(true) => reported += packet.slots().count(),
                Ok(false) => {
                    prop_assert!(claimed <= posted);
                    prop_assert_eq!(reported, claimed as usize);
                    break;
                }
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    break;
                }
            }
            prop_assert!(reported > 0 && reported <= posted as usize);
            let mut sum = 0;
            for fragment in &packet.fragments {
                prop_assert!(fragment.len > 0);
                prop_assert!(u32::from(fragment.offset) + u32::from(fragment.len) <= 4096);
                sum += u32::from(fragment.len);
            }
            prop_assert_eq!(sum, packet.len);
        }
    }

    #[test]
    fn a_backend_survives_any_page(
        bytes in any_page(),
        start in start(),
        claimed in 0..=260u32,
    ) {
        let page = Page::zeroed();
        page.copy_in(0, &bytes);
        page.store(0, start.wrapping_add(claimed), Release);
        page.store(8, start, Release);
        let mut back = BackRing::<Tx>::attach(page);
        let mut packet = TxPacket::new();
        let mut ended = false;
        for _ in 0..=256 {
            match transmit::next(&mut back, &mut packet) {
                Ok(true) => {
                    let good = packet.fault.is_none() && packet.multicast.is_none();
                    for fragment in packet.fragments.iter().filter(|_| good) {
                        prop_assert!(fragment.len > 0);
                        prop_assert!(u32::from(fragment.offset) + u32::from(fragment.len) <= 4096);
                    }
                    transmit::answer(&mut back, &packet, Status::Okay).unwrap();
                    prop_assert_eq!(back.free_responses(), 0, "each slot is answered");
                    let _ = back.publish();
                }
                Ok(false) | Err(_) => {
                    ended = true;
                    break;
                }
            }
        }
        prop_assert!(ended);
    }

    #[test]
    fn a_control_ring_survives_any_page(bytes in any_page(), claimed in 0..=130u32) {
        let page = Page::zeroed();
        page.copy_in(0, &bytes);
        page.store(0, claimed, Release);
        page.store(8, 0, Release);
        let mut back = BackRing::<Control>::attach(page);
        let mut count = 0;
        while let Ok(Some(slot)) = back.pop() {
            let request = slot.request();
            back.push(&ControlResponse::to(&request, ControlStatus::NotSupported, 0)).unwrap();
            prop_assert_eq!(ControlRequest::decode(&request.encode()), request);
            count += 1;
        }
        prop_assert_eq!(count, if claimed <= 128 { claimed } else { 0 });
    }
}

#[test]
fn a_peer_that_rewrites_its_slots_all_the_time_gets_no_byte_judged_twice() {
    use std::sync::atomic::AtomicBool;
    let stop = AtomicBool::new(false);
    let page = Page::zeroed();
    let small = TxRequest {
        size: 60,
        ..TxRequest::default()
    };
    let large = TxRequest {
        offset: 4090,
        size: 60000,
        ..small
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                page.write(64, &large.encode());
                page.write(64, &small.encode());
            }
        });
        for _ in 0..20_000 {
            page.store(0, 1, Release);
            let mut back = BackRing::<Tx>::attach(page.clone());
            let mut packet = TxPacket::new();
            match transmit::next(&mut back, &mut packet) {
                Ok(true) => {
                    let fragment = packet.fragments[0];
                    assert!(usize::from(fragment.offset) + usize::from(fragment.len) <= PAGE_SIZE);
                }
                Ok(false) => panic!("one request is there"),
                Err(error) => assert_eq!(error.reason.name(), "beyond_page"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
