//! Which event core has which queue: evenly, and with as few moves as can be when cores or queues change.

/// A core that takes events, by whatever number its owner knows it.
pub type CoreId = u32;

/// A queue that has another core now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The queue.
    pub queue: usize,
    /// The core that had it; `None` for a new queue, or if that core is gone.
    pub from: Option<CoreId>,
    /// The core that has it now.
    pub to: CoreId,
}

/// The queues of a vif, bound to event cores. The numbers of queues of any two cores differ by at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    cores: Vec<CoreId>,
    /// By queue.
    bound: Vec<CoreId>,
}

/// There is no core to bind a queue to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("queues need at least one event core, and none is given: name one, or leave the cores out to have all")]
pub struct NoCore;

impl Binding {
    /// Binds `queues` queues to these cores, in turn. A core that is named twice counts once.
    ///
    /// # Errors
    /// If there is no core.
    pub fn new(queues: usize, cores: &[CoreId]) -> Result<Self, NoCore> {
        let cores = once_each(cores)?;
        let bound = (0..queues)
            .map(|queue| cores[queue % cores.len()])
            .collect();
        Ok(Self { cores, bound })
    }

    /// The core of a queue.
    pub fn core(&self, queue: usize) -> Option<CoreId> {
        self.bound.get(queue).copied()
    }

    /// The queues of a core.
    pub fn queues(&self, core: CoreId) -> impl Iterator<Item = usize> + '_ {
        let bound = self.bound.iter().enumerate();
        bound
            .filter(move |(_, &own)| own == core)
            .map(|(queue, _)| queue)
    }

    /// The cores.
    pub fn cores(&self) -> &[CoreId] {
        &self.cores
    }

    /// How many queues the core with most has more than the one with least.
    pub fn spread(&self) -> usize {
        let counts = self.cores.iter().map(|&core| self.queues(core).count());
        let (least, most) = counts.fold((usize::MAX, 0), |(least, most), count| {
            (least.min(count), most.max(count))
        });
        most.saturating_sub(least)
    }

    /// Other queues, other cores: binds anew and gives the moves, no more than are needed. Each is due once the old
    /// core has let go of the queue, and its packets have left the lanes of that core.
    ///
    /// # Errors
    /// If there is no core; then nothing has changed.
    pub fn rebind(&mut self, queues: usize, cores: &[CoreId]) -> Result<Vec<Move>, NoCore> {
        let cores = once_each(cores)?;
        let old = std::mem::take(&mut self.bound);
        let mut counts: Vec<(CoreId, usize)> = cores
            .iter()
            .map(|&core| {
                (
                    core,
                    old.iter().take(queues).filter(|&&own| own == core).count(),
                )
            })
            .collect();
        // Those that have most keep one more, so that the fewest queues move.
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let (share, more) = (queues / cores.len(), queues % cores.len());
        let mut room: Vec<(CoreId, usize)> = counts
            .iter()
            .enumerate()
            .map(|(place, &(core, _))| (core, share + usize::from(place < more)))
            .collect();
        let mut bound: Vec<Option<CoreId>> = Vec::with_capacity(queues);
        for queue in 0..queues {
            let own = old
                .get(queue)
                .and_then(|&own| room.iter_mut().find(|(core, _)| *core == own));
            bound.push(match own {
                Some((core, left)) if *left > 0 => {
                    *left -= 1;
                    Some(*core)
                }
                _ => None,
            });
        }
        let mut free = room
            .iter()
            .flat_map(|&(core, left)| std::iter::repeat_n(core, left));
        let mut moves = Vec::new();
        for (queue, bound) in bound.into_iter().enumerate() {
            // The rooms sum up to the queues, so there is one for each.
            let core = bound.or_else(|| free.next()).unwrap_or(cores[0]);
            self.bound.push(core);
            let from = old.get(queue).copied();
            if from != Some(core) {
                let from = from.filter(|from| cores.contains(from));
                moves.push(Move {
                    queue,
                    from,
                    to: core,
                });
            }
        }
        self.cores = cores;
        Ok(moves)
    }
}

fn once_each(cores: &[CoreId]) -> Result<Vec<CoreId>, NoCore> {
    let mut once = Vec::with_capacity(cores.len());
    for &core in cores {
        if !once.contains(&core) {
            once.push(core);
        }
    }
    match once.is_empty() {
        true => Err(NoCore),
        false => Ok(once),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// K-4, K-5: each queue has one core before its first packet, and any two cores differ by one queue at most.
    #[test]
    fn queues_are_spread_evenly_over_any_number_of_cores() {
        for queues in 1..=64 {
            for cores in 1..=16 {
                let cores: Vec<CoreId> = (0..cores).collect();
                let binding = Binding::new(queues, &cores).expect("a core");
                assert!(binding.spread() <= 1, "{queues} queues, {cores:?}");
                assert!((0..queues).all(|queue| binding.core(queue).is_some()));
                assert_eq!(binding.core(queues), None);
            }
        }
    }

    #[test]
    fn without_a_core_nothing_is_bound_and_nothing_changes() {
        assert_eq!(Binding::new(4, &[]), Err(NoCore));
        let mut binding = Binding::new(4, &[1, 2]).expect("cores");
        let before = binding.clone();
        assert_eq!(binding.rebind(4, &[]), Err(NoCore));
        assert_eq!(binding, before);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// K-5: also after any changes, and each moves as few queues as can be.
        #[test]
        fn after_any_rebinding_the_spread_is_one_and_the_moves_are_the_fewest(
            changes in prop::collection::vec((1..65usize, prop::collection::btree_set(0..20u32, 1..17)), 2..8),
        ) {
            let cores: Vec<CoreId> = changes[0].1.iter().copied().collect();
            let mut binding = Binding::new(changes[0].0, &cores).expect("a core");
            for (queues, cores) in &changes[1..] {
                let before = binding.clone();
                let cores: Vec<CoreId> = cores.iter().copied().collect();
                let moves = binding.rebind(*queues, &cores).expect("a core");
                prop_assert!(binding.spread() <= 1);
                prop_assert!((0..*queues).all(|q| cores.contains(&binding.core(q).expect("bound"))));
                for queue in 0..*queues {
                    let moved = moves.iter().find(|m| m.queue == queue);
                    prop_assert_eq!(moved.is_some(), before.core(queue) != binding.core(queue));
                    prop_assert!(moved.is_none_or(|m| Some(m.to) == binding.core(queue)));
                }
                // The most that any even binding can keep: each core its own, up to its share.
                let mut own: Vec<usize> = cores
                    .iter()
                    .map(|&core| before.queues(core).filter(|queue| queue < queues).count())
                    .collect();
                own.sort_by_key(|&count| std::cmp::Reverse(count));
                let share = queues / cores.len();
                let kept: usize = own
                    .iter()
                    .enumerate()
                    .map(|(place, &count)| count.min(share + usize::from(place < queues % cores.len())))
                    .sum();
                prop_assert_eq!(moves.len(), queues - kept);
            }
        }
    }
}
