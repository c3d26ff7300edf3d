//! Tables: every number of pieces or slots by every kind of length, both ways.

use netfront::packet::HEADER_LIMIT;
use netfront::{Offload, Queue, QueueConfig};
use xen_ring::{Status, PAGE_SIZE};

use crate::common::{count, frame, Back, World, SLOTS};

/// The least and the most that netif carries, headers, the borders of pages, and what lies between.
const LENGTHS: [usize; 16] = [
    14, 15, 18, 54, 60, 118, 127, 128, 256, 1514, 4096, 4097, 8192, 9014, 65_534, 65_535,
];
/// Slots that a packet may take by the contract.
const MOST: usize = 18;

/// How bytes are spread over pieces.
#[derive(Debug, Clone, Copy)]
enum Spread {
    Evenly,
    /// One byte each, and the rest in the last.
    OneByteFirst,
    /// The rest in the first, and one byte each behind it.
    OneByteLast,
}

const SPREADS: [Spread; 3] = [Spread::Evenly, Spread::OneByteFirst, Spread::OneByteLast];

/// The bytes in so many pieces, none of them empty. `None` if there are fewer bytes than pieces.
fn pieces(bytes: &[u8], count: usize, spread: Spread) -> Option<Vec<&[u8]>> {
    let singles = count - 1;
    let rest = bytes.len().checked_sub(singles).filter(|rest| *rest > 0)?;
    let ends: Vec<usize> = match spread {
        Spread::Evenly => (0..=count).map(|at| at * bytes.len() / count).collect(),
        Spread::OneByteFirst => (0..count).chain([bytes.len()]).collect(),
        Spread::OneByteLast => [0].into_iter().chain(rest..=bytes.len()).collect(),
    };
    Some(ends.windows(2).map(|end| &bytes[end[0]..end[1]]).collect())
}

/// Sends a packet as its owner has it, and looks at what stands in the ring.
fn send(queue: &mut Queue, back: &mut Back, sent: &[u8], given: &[&[u8]], what: &str) {
    queue.send(given, Offload::default()).unwrap();
    queue.flush().unwrap();
    check_sent(back, sent, 0, what);
    back.publish();
    queue.reclaim().unwrap();
}

/// A packet in the ring: whole, in no more slots than it needs and `spare` ones, none of them empty, its headers in
/// the first.
fn check_sent(back: &mut Back, sent: &[u8], spare: usize, what: &str) {
    let fragments = back.peek().expect("a packet").fragments.clone();
    let least = sent.len().div_ceil(PAGE_SIZE);
    let slots = least..=least + spare;
    assert!(slots.contains(&fragments.len()), "{what}: {fragments:?}");
    assert!(
        usize::from(fragments[0].len) >= sent.len().min(HEADER_LIMIT),
        "{what}: the headers are not all in the first slot: {fragments:?}"
    );
    for fragment in &fragments {
        let end = usize::from(fragment.offset) + usize::from(fragment.len);
        assert!(fragment.len > 0 && end <= PAGE_SIZE, "{what}: {fragment:?}");
    }
    assert_eq!(back.bytes(), sent, "{what}");
    back.answer(Status::Okay);
}

/// However a program has its packet, the ring has it in as few slots as it needs.
#[test]
fn a_packet_given_in_one_to_eighteen_pieces_is_sent_in_the_fewest_slots_with_its_headers_in_the_first(
) {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for len in LENGTHS {
        let sent = frame(len, len);
        for given in 1..=MOST {
            for spread in SPREADS {
                let what = format!("{len} bytes in {given} pieces, {spread:?}");
                if let Some(given) = pieces(&sent, given, spread) {
                    send(&mut queue, &mut back, &sent, &given, &what);
                }
            }
        }
        let bytes: Vec<&[u8]> = sent.chunks(1).collect();
        send(&mut queue, &mut back, &sent, &bytes, "single bytes");
    }
    let pool = queue.pools()[1].census();
    assert_eq!((pool.posted, pool.free), (0, pool.granted), "{pool:?}");
}

/// The TAP's way: the packet is read into the pages, whose first starts where the walk over cache lines has come to.
#[test]
fn a_packet_that_is_read_into_the_pages_has_its_headers_in_the_first_slot_wherever_that_starts() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for len in LENGTHS {
        // Each start that there is.
        for round in 0..16 {
            let sent = frame(len, round);
            let filled = queue.send_filled(|slices| {
                let mut left = &sent[..];
                for slice in slices {
                    let (now, later) = left.split_at(left.len().min(slice.len()));
                    slice[..now.len()].copy_from_slice(now);
                    left = later;
                }
                Ok::<_, ()>(Some((len, Offload::default())))
            });
            assert_eq!(filled, Ok(true));
            queue.flush().unwrap();
            // It is not known how long the packet will be: a start behind the page's may cost a slot.
            check_sent(&mut back, &sent, 1, &format!("{len} bytes, round {round}"));
            back.publish();
            queue.reclaim().unwrap();
        }
    }
}

/// 64 KiB need 16 slots; of fewer slots the longest packet is what their pages hold.
#[test]
fn a_received_packet_of_every_length_may_lie_in_every_number_of_slots() {
    for untrusted in [false, true] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            untrusted,
            ..QueueConfig::default()
        });
        let mut packets = 0;
        for slots in 1..=MOST {
            let full = (slots * PAGE_SIZE).min(65_535);
            for len in LENGTHS.into_iter().chain([full]) {
                let sent = frame(len, slots);
                for spread in SPREADS {
                    let what = format!("{len} bytes in {slots} slots, {spread:?}");
                    let given = pieces(&sent, slots, spread)
                        .filter(|given| given.iter().all(|piece| piece.len() <= PAGE_SIZE));
                    let Some(given) = given else { continue };
                    back.deliver_pieces(&given, &Offload::default());
                    let mut received = Vec::new();
                    queue
                        .receive(64, |packet| {
                            let head = packet.head().len();
                            assert!(head >= len.min(HEADER_LIMIT), "{what}: {head} bytes");
                            received.push(packet.slices().collect::<Vec<_>>().concat());
                        })
                        .unwrap();
                    queue.flush().unwrap();
                    assert!(received == [sent.clone()], "{what}");
                    assert_eq!(back.take_posted(), SLOTS, "{what}");
                    packets += 1;
                }
            }
        }
        assert_eq!(count(&queue, "rx_packets"), packets);
        // Each number of slots had its longest packet, and 16 to 18 had 64 KiB.
        assert!(packets > 18 * 12, "{packets}");
    }
}
