//! Where queues are, while they are bound to one set of event cores after the other.

use netfront::engine::cores::Cores;

use crate::common::until;
use crate::cores::{fill, with_cores, Vif, QUEUES};

/// K-5: where queues are, by what the cores themselves count, after each change of those that are to have them; and packets come
/// to those cores and to no others.
#[test]
fn queues_sit_evenly_on_the_cores_that_they_are_bound_to_and_their_packets_come_there() {
    let mut vif = Vif::new(QUEUES);
    let cores = Cores::default().event_cores(3).unpinned();
    with_cores(&cores, &mut vif, false, |backs, next, seen, controls, _| {
        let each = |name: &str| -> Vec<u64> {
            let cores = controls.cores();
            cores.iter().map(|core| core.snapshot().get(name)).collect()
        };
        let sorted = |mut counts: Vec<u64>| {
            counts.sort_unstable();
            counts
        };
        let mut sent = 0;
        let sets: [(&[usize], [u64; 3]); 5] = [
            (&[0, 1, 2], [1, 1, 2]),
            (&[1], [0, 0, 4]),
            (&[0, 2], [0, 2, 2]),
            (&[2, 1, 0], [1, 1, 2]),
            (&[0], [0, 0, 4]),
        ];
        for (set, queues) in sets {
            controls.rebind(set).unwrap();
            until("queues where they are bound", || {
                let now = each("queues");
                let has = |&core: &usize| now[core] > 0;
                set.iter().all(has) && sorted(now.clone()) == queues
            });
            let (sat, before) = (each("queues"), each("packets"));
            for at in 0..QUEUES {
                sent += fill(backs, next, at, 10);
            }
            until("packets", || seen.packets() == sent);
            until("all that was counted", || {
                each("packets").iter().sum::<u64>() == sent
            });
            let came: Vec<u64> = each("packets")
                .iter()
                .zip(before)
                .map(|(now, before)| now - before)
                .collect();
            let expected: Vec<u64> = sat.iter().map(|queues| queues * 10).collect();
            assert_eq!(came, expected, "bound to {set:?}");
        }
        sent
    });
}
